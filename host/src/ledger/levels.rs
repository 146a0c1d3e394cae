//! How much there is in the ledger, for whoever measures the daemon.
//!
//! What is asked here is found by indices of what is open, however much is over. Nobody waits for writes that are queued: a
//! number that is 20 ms old is as good.

use super::Ledger;
use super::column::Reading;
use super::failure::LedgerError;
use super::meter::LedgerMeter;
use super::statement::row;

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerLevels {
    /// Requests for consent that wait.
    pub approvals_open: u64,
    /// When the oldest of them was made, in milliseconds since the Unix epoch.
    pub approvals_oldest_ms: Option<u64>,
    /// Entries of the audit chain.
    pub audit_entries: u64,
    /// Bytes of the database.
    pub bytes: u64,
    /// Open alerts: to know, to look at, to act on.
    pub alerts: (u64, u64, u64),
}

const LEVELS: &str = "SELECT \
    (SELECT count(*) FROM approvals WHERE state = 'pending') AS approvals, \
    (SELECT min(made_ms) FROM approvals WHERE state = 'pending') AS oldest, \
    (SELECT coalesce(max(seq), 0) FROM audit) AS audit, \
    (SELECT count(*) FROM alerts WHERE state = 'open' AND severity = 'info') AS info, \
    (SELECT count(*) FROM alerts WHERE state = 'open' AND severity = 'warning') AS warning, \
    (SELECT count(*) FROM alerts WHERE state = 'open' AND severity = 'critical') AS critical, \
    (SELECT page_count FROM pragma_page_count()) AS pages, \
    (SELECT page_size FROM pragma_page_size()) AS page";

impl Ledger {
    /// What was counted while writing.
    #[must_use]
    pub fn meter(&self) -> &LedgerMeter {
        &self.shared.meter
    }

    /// Writes that wait, and their bytes.
    #[must_use]
    pub fn queued(&self) -> (u64, u64) {
        self.shared.queue.held()
    }

    /// How much there is.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn levels(&self) -> Result<LedgerLevels, LedgerError> {
        let found = self.read(|conn| {
            row(conn, LEVELS, &[], |row| {
                let reading = Reading::new(row, "levels");
                Ok(LedgerLevels {
                    approvals_open: reading.number("approvals")?,
                    approvals_oldest_ms: reading.number_or_null("oldest")?,
                    audit_entries: reading.number("audit")?,
                    bytes: reading.number("pages")?.saturating_mul(reading.number("page")?),
                    alerts: (reading.number("info")?, reading.number("warning")?, reading.number("critical")?),
                })
            })
        });
        Ok(found.await?.unwrap_or_default())
    }

    /// Blobs and their bytes. It looks at every blob.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn blob_totals(&self) -> Result<(u64, u64), LedgerError> {
        let sql = "SELECT count(*) AS blobs, coalesce(sum(size), 0) AS bytes FROM blobs";
        let found = self.read(move |conn| {
            row(conn, sql, &[], |row| {
                let reading = Reading::new(row, "blobs");
                Ok((reading.number("blobs")?, reading.number("bytes")?))
            })
        });
        Ok(found.await?.unwrap_or_default())
    }
}
