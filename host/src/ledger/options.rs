//! What a ledger is opened with: how much it may hold, and to which kind of deployment it belongs.
//!
//! None of it changes while the ledger is open.

use crate::vault::Recipients;

/// Bytes of a page of the database, the unit in which file systems and disks write.
pub const PAGE_BYTES: u32 = 4_096;

/// How much the ledger may hold in memory and on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerOptions {
    /// Writes that wait, at most; calls of one tenant take at most half of them, and of the bytes.
    pub queue_jobs: u32,
    /// Bytes of text and content in writes that wait, at most.
    pub queue_bytes: u64,
    /// Size of the database in pages of [`PAGE_BYTES`], at most; nothing for no bound but the disk's.
    pub max_pages: Option<u32>,
    /// The kind of deployment: a ledger that was made under another is refused. Nothing to take it as it is.
    pub environment: Option<&'static str>,
    /// Whom payloads are encrypted to; nobody for payloads that whoever has the files can read.
    pub recipients: Option<Recipients>,
}

impl Default for LedgerOptions {
    /// 4,096 waiting calls are a fifth of a second at full load; 256 MiB of them leave the rest of the machine alone.
    fn default() -> Self {
        Self { queue_jobs: 8_192, queue_bytes: 256 * 1024 * 1024, max_pages: None, environment: None, recipients: None }
    }
}
