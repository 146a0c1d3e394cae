//! The audit chain in the ledger: appending facts, reading entries, verifying links.
//!
//! The writer chains entries in the transaction of the rows that they are about, so that neither is there without the other. A reader
//! can verify any part against the entry before it; that the end was not cut off shows only against a digest that
//! was kept elsewhere.

use rusqlite::{Connection, Row, params};
use serde_json::Value;
use toolkeep_core::audit::{AuditEntry, AuditKind, ChainHead, canonical_body};

use super::Ledger;
use super::column::{Reading, integer, worded};
use super::failure::LedgerError;
use super::queue::{Done, Job, Work};
use super::read::bounds;
use super::rows::{Page, Paged};
use super::schema::number;
use super::statement::{page, row, rows};

/// Entries that are read at a time while a chain is verified: a few megabytes.
const VERIFIED_AT_ONCE: u64 = 2_000;

fn entry_of(row: &Row<'_>) -> Result<AuditEntry, LedgerError> {
    let reading = Reading::new(row, "audit");
    Ok(AuditEntry {
        seq: reading.number("seq")?,
        kind: reading.word("kind", worded)?,
        at_ms: reading.number("at_ms")?,
        body: reading.text("body")?.to_owned(),
        previous: reading.digest("previous")?,
        digest: reading.digest("digest")?,
    })
}

/// The end of the chain, and a check of its last `entries`.
pub(super) fn verified_head(conn: &Connection, entries: u64) -> Result<ChainHead, LedgerError> {
    let last = u64::try_from(number(conn, "SELECT max(seq) FROM audit")?).unwrap_or(0);
    let from = last.saturating_sub(entries);
    let sql = "SELECT * FROM audit WHERE seq >= ?1 ORDER BY seq";
    let tail: Vec<AuditEntry> = rows(conn, sql, params![integer(from)], entry_of)?;
    let mut head = ChainHead::default();
    for (place, entry) in tail.iter().enumerate() {
        if place == 0 && entry.seq == from && from > 0 {
            head = ChainHead { seq: entry.seq, digest: entry.digest };
        } else {
            head.follow(entry)?;
        }
    }
    Ok(head)
}

impl Ledger {
    /// Append to the audit chain without waiting.
    ///
    /// # Errors
    /// The queue is full, or the ledger is poisoned or closed.
    pub fn audit(&self, kind: AuditKind, facts: &Value) -> Result<(), LedgerError> {
        self.shared.queue.push(Job::lazy(Work::Audit { kind, body: canonical_body(facts).into() }))
    }

    /// Append to the audit chain and wait until it is on the disk.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn audit_durably(&self, kind: AuditKind, facts: &Value) -> Result<(), LedgerError> {
        match self.ask(Work::Audit { kind, body: canonical_body(facts).into() }, true).await? {
            Done::Refused(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// The end of the audit chain.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_head(&self) -> Result<ChainHead, LedgerError> {
        self.caught_up().await?;
        let sql = "SELECT seq, digest FROM audit ORDER BY seq DESC LIMIT 1";
        let head = self.read(|conn| {
            row(conn, sql, &[], |row| {
                let reading = Reading::new(row, "audit");
                Ok(ChainHead { seq: reading.number("seq")?, digest: reading.digest("digest")? })
            })
        });
        Ok(head.await?.unwrap_or_default())
    }

    /// Verify the entries `from..=to` and that they continue the one before them. Returns how many there were.
    ///
    /// # Errors
    /// The chain is broken, or the ledger cannot be read.
    pub async fn verify_audit(&self, from: u64, to: u64) -> Result<u64, LedgerError> {
        self.caught_up().await?;
        let from = from.max(1);
        let mut head = ChainHead::default();
        if from > 1 {
            let before = self.audit_entries(Page { cursor: Some(from - 2), limit: 1 }).await?;
            // A missing entry shows as a broken sequence below.
            if let Some(entry) = before.items.first().filter(|entry| entry.seq == from - 1) {
                head = ChainHead { seq: entry.seq, digest: entry.digest };
            }
        }
        let mut verified = 0;
        while head.seq < to {
            let ask = integer((to - head.seq).min(VERIFIED_AT_ONCE));
            let sql = "SELECT * FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
            let after = integer(head.seq);
            let entries = self.read(move |conn| rows(conn, sql, params![after, ask], entry_of)).await?;
            if entries.is_empty() {
                break;
            }
            for entry in &entries {
                head.follow(entry)?;
                verified += 1;
            }
        }
        Ok(verified)
    }

    /// Entries of the audit chain, oldest first; the cursor is the sequence number of the last entry seen.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_entries(&self, wanted: Page) -> Result<Paged<AuditEntry>, LedgerError> {
        self.caught_up().await?;
        let (from, ask, limit) = bounds(wanted, 0);
        let sql = "SELECT * FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        self.read(move |conn| page(conn, sql, params![from, ask], limit, entry_of)).await
    }
}
