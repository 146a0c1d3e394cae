//! The audit chain in the ledger: appending facts, reading entries, verifying links.
//!
//! The writer chains entries in the transaction of the rows that they are about, so that neither is there without the other. A reader
//! can verify any part against the entry before it; that the end was not cut off shows only against a digest that
//! was kept elsewhere.

use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Row as _, query};
use toolkeep_core::audit::{AuditEntry, AuditKind, ChainHead, canonical_body};

use super::Ledger;
use super::column::{Reading, integer, worded};
use super::failure::LedgerError;
use super::queue::{Done, Job, Work};
use super::read::{bounds, paged};
use super::rows::{Page, Paged};

/// Entries that are read at a time while a chain is verified: a few megabytes.
const VERIFIED_AT_ONCE: u64 = 2_000;

fn entry_of(row: &SqliteRow) -> Result<AuditEntry, LedgerError> {
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
pub(super) async fn verified_head(conn: &mut SqliteConnection, entries: u64) -> Result<ChainHead, LedgerError> {
    let problem = |error: sqlx::Error| LedgerError::storage("the audit chain cannot be read", &error);
    let last = query("SELECT max(seq) FROM audit").fetch_one(&mut *conn).await.map_err(problem)?;
    let last: Option<i64> = last.try_get(0).map_err(problem)?;
    let last = u64::try_from(last.unwrap_or(0)).unwrap_or(0);
    let from = last.saturating_sub(entries);
    let rows = query("SELECT * FROM audit WHERE seq >= $1 ORDER BY seq")
        .bind(integer(from))
        .fetch_all(&mut *conn)
        .await
        .map_err(problem)?;
    let mut head = ChainHead::default();
    for (place, row) in rows.iter().enumerate() {
        let entry = entry_of(row)?;
        if place == 0 && entry.seq == from && from > 0 {
            head = ChainHead { seq: entry.seq, digest: entry.digest };
        } else {
            head.follow(&entry)?;
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
        let row = self.row(query("SELECT seq, digest FROM audit ORDER BY seq DESC LIMIT 1")).await?;
        let head = row.as_ref().map(|row| -> Result<ChainHead, LedgerError> {
            let reading = Reading::new(row, "audit");
            Ok(ChainHead { seq: reading.number("seq")?, digest: reading.digest("digest")? })
        });
        Ok(head.transpose()?.unwrap_or_default())
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
            let sql = "SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";
            let rows = self.rows(query(sql).bind(integer(head.seq)).bind(ask)).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                head.follow(&entry_of(row)?)?;
                verified += 1;
            }
        }
        Ok(verified)
    }

    /// Entries of the audit chain, oldest first; the cursor is the sequence number of the last entry seen.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_entries(&self, page: Page) -> Result<Paged<AuditEntry>, LedgerError> {
        self.caught_up().await?;
        let (from, ask, limit) = bounds(page, 0);
        let sql = "SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";
        paged(&self.rows(query(sql).bind(from).bind(ask)).await?, limit, entry_of)
    }
}
