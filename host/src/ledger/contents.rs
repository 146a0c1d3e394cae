//! The rows of blobs: small contents, and which large ones are still needed.
//!
//! [`crate::blobs`] owns the files; the ledger owns the truth about who needs them, because that is written in the same transaction as the
//! plan that needs them.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::params;
use toolkeep_core::digest::Digest;

use super::Ledger;
use super::column::{Reading, digest_bytes};
use super::failure::LedgerError;
use super::queue::{Done, Work};
use super::statement::{row, rows};

/// Blobs without a pin that one sweep looks at.
const SWEPT_AT_ONCE: i64 = 1_000;

/// What the ledger knows of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// Bytes.
    pub size: u64,
    /// The content, if it is kept in the ledger; otherwise it is a file of the blob store.
    pub content: Option<Vec<u8>>,
}

impl Ledger {
    /// What the ledger knows of a blob. The content is not verified: [`crate::blobs::Blobs`] does that.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn blob(&self, digest: Digest) -> Result<Option<BlobRow>, LedgerError> {
        self.settled().await?;
        let sql = "SELECT size, content FROM blobs WHERE digest = ?1";
        self.read(move |conn| {
            row(conn, sql, params![digest_bytes(&digest)], |row| {
                let reading = Reading::new(row, "blobs");
                let content = reading.bytes_or_null("content")?.map(<[u8]>::to_vec);
                Ok(BlobRow { size: reading.number("size")?, content })
            })
        })
        .await
    }

    /// Those of these contents that are kept in the ledger. Not verified: whoever uses one does that.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn inline_contents(&self, wanted: Vec<Digest>) -> Result<HashMap<Digest, Arc<[u8]>>, LedgerError> {
        self.settled().await?;
        let sql = "SELECT content FROM blobs WHERE digest = ?1 AND content IS NOT NULL";
        self.read(move |conn| {
            let mut found = HashMap::new();
            for digest in wanted {
                let content = row(conn, sql, params![digest_bytes(&digest)], |row| {
                    Ok(Reading::new(row, "blobs").bytes_or_null("content")?.map(Arc::from))
                })?;
                found.extend(content.flatten().map(|content: Arc<[u8]>| (digest, content)));
            }
            Ok(found)
        })
        .await
    }

    /// Digests of blobs that nothing pins, some of them.
    pub(crate) async fn unpinned(&self) -> Result<Vec<Digest>, LedgerError> {
        self.settled().await?;
        let sql = "SELECT digest FROM blobs b WHERE NOT EXISTS (SELECT 1 FROM blob_pins p WHERE p.blob_seq = b.seq) \
                   AND NOT EXISTS (SELECT 1 FROM transaction_pins t WHERE t.digest = b.digest) \
                   AND NOT EXISTS (SELECT 1 FROM recording_pins r WHERE r.blob_seq = b.seq) LIMIT ?1";
        self.read(|conn| rows(conn, sql, params![SWEPT_AT_ONCE], |row| Reading::new(row, "blobs").digest("digest")))
            .await
    }

    /// Remove the rows of those blobs that nothing pins. Returns the ones that have no row now.
    pub(crate) async fn drop_blobs(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, LedgerError> {
        match self.ask(Work::DropBlobs(digests), false).await? {
            Done::Dropped(digests) => Ok(digests),
            Done::Refused(error) => Err(error),
            _ => Ok(Vec::new()),
        }
    }
}
