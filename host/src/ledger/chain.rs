//! The audit chain in the ledger: appending facts and reading entries.
//!
//! The writer chains entries in the transaction of the rows that they are about, so that neither is there without the
//! other. Whatever is put on record without such rows comes through [`Ledger::note`], which waits for the disk, or through
//! [`Ledger::audit`], which does not. Verifying is in [`super::verify`].

use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};
use toolkeep_core::audit::{AuditEntry, AuditKind, ChainBroken, ChainHead, canonical_body, genesis};
use toolkeep_core::id::{TenantName, UserName};
use toolkeep_core::principal::Principal;

use super::Ledger;
use super::column::Reading;
use super::failure::LedgerError;
use super::queue::{Done, Job, Work};
use super::read::bounds;
use super::rows::{Page, Paged};
use super::statement::{page, row};
use super::verify::entry_of;

/// Most entries that a chain can have: far more than a disk holds, and far from where numbers of rows end.
const ENTRIES_MAX: u64 = 1 << 60;

/// Who did what an entry tells of.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// The daemon itself, or the clock.
    Daemon,
    /// An operator, in the tenant whose things it is about.
    Operator {
        /// The person.
        user: &'a UserName,
        /// The tenant.
        tenant: &'a TenantName,
    },
    /// An agent, for somebody.
    Agent(&'a Principal),
}

impl Who<'_> {
    /// Who the daemon is in entries.
    const DAEMON: &'static str = "daemon";

    /// Facts with who did it. What the facts say of that already counts for nothing.
    pub(super) fn signed(self, facts: Value) -> Value {
        let mut members = match facts {
            Value::Object(members) => members,
            other => Map::from_iter([("facts".to_owned(), other)]),
        };
        let mut set = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
        match self {
            Self::Daemon => set("by", Value::from(Self::DAEMON)),
            Self::Operator { user, tenant } => {
                set("by", json!(user));
                set("tenant", json!(tenant));
            }
            Self::Agent(principal) => {
                set("by", json!(principal.user));
                set("agent", json!(principal.agent));
                set("tenant", json!(principal.tenant));
            }
        }
        Value::Object(members)
    }
}

/// Where the next entry goes. A chain that is broken goes on after its last row, whatever that is.
pub(super) fn end(conn: &Connection) -> Result<ChainHead, LedgerError> {
    let sql = "SELECT seq, digest FROM audit WHERE seq > 0 ORDER BY seq DESC LIMIT 1";
    let last = row(conn, sql, &[], |row| {
        let reading = Reading::new(row, "audit");
        Ok(ChainHead { seq: reading.number("seq")?, digest: reading.digest("digest").unwrap_or_else(|_| genesis()) })
    })?;
    let last = last.unwrap_or_default();
    if last.seq > ENTRIES_MAX {
        return Err(ChainBroken::Stray.into());
    }
    Ok(last)
}

impl Ledger {
    /// Append to the audit chain without waiting.
    ///
    /// # Errors
    /// The queue is full, or the ledger is poisoned or closed. Nothing with effects runs any more until that an entry is
    /// missing is on record itself.
    pub fn audit(&self, kind: AuditKind, facts: &Value) -> Result<(), LedgerError> {
        let pushed = self.shared.queue.push(Job::lazy(Work::Audit { kind, body: canonical_body(facts).into() }));
        pushed.inspect_err(|_| self.shared.pulse.lose())
    }

    /// Append to the audit chain that somebody did something, and wait until it is on the disk. Returns the number of the
    /// entry.
    ///
    /// `facts` is an object of digests, names, numbers and the words of whoever gave a reason; never contents. `what` of
    /// its members says which of the things that the kind covers it was. The entry also says who.
    ///
    /// # Errors
    /// The ledger failed: whoever asked must not do what was to be on record.
    pub async fn note(&self, kind: AuditKind, who: Who<'_>, facts: Value) -> Result<u64, LedgerError> {
        let body = canonical_body(&who.signed(facts)).into();
        match self.ask(Work::Audit { kind, body }, true).await? {
            Done::Noted(seq) => Ok(seq),
            Done::Refused(error) => Err(error),
            _ => Err(LedgerError::Closed),
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
