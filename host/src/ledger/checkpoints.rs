//! Checkpoints of the audit: made by the writer over entries that are on the disk with them, kept, and read back.
//!
//! A checkpoint says for ever that its entries are there. So it is written in a batch that is flushed, and leaves the
//! ledger only afterwards: what a power loss takes was never vouched for. While the audit does not verify none is made.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ed25519_dalek::SigningKey;
use rusqlite::{Connection, Row, params};
use toolkeep_core::audit::ChainBroken;
use toolkeep_core::checkpoint::{Checkpoint, NoteKey};
use toolkeep_core::merkle::Frontier;

use super::Ledger;
use super::column::{Reading, integer};
use super::failure::LedgerError;
use super::queue::{Done, Work};
use super::read::bounds;
use super::rows::{Page, Paged};
use super::statement::{Failed, execute, row, rows};

/// The subject of deliveries that carry a checkpoint.
pub const SUBJECT: &str = "audit.checkpoint";
/// What the name of every log begins with; the identity of the host follows.
const ORIGIN: &str = "toolkeep/";

const KEEP: &str = "INSERT INTO audit_checkpoints (size, note) VALUES (?1, ?2) ON CONFLICT (size) DO NOTHING";
const BETWEEN: &str = "SELECT size, note FROM audit_checkpoints WHERE size > ?1 AND size <= ?2 ORDER BY size";
const LATEST: &str = "SELECT size, note FROM audit_checkpoints ORDER BY size DESC LIMIT 1";
const PAGE: &str = "SELECT size, note FROM audit_checkpoints WHERE size < ?1 ORDER BY size DESC LIMIT ?2";

/// Signs the checkpoints of one ledger.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    pub(super) key: Arc<NoteKey>,
    pub(super) private: Arc<SigningKey>,
}

impl Signer {
    /// With the ledger's own key, in the name of the host.
    pub(super) fn new(host_id: &str, private: Arc<SigningKey>) -> Result<Self, LedgerError> {
        let key = key_of(host_id, &private)?;
        Ok(Self { key: Arc::new(key), private })
    }

    /// Keep a checkpoint of what the tree holds. Returns its note.
    pub(super) fn checkpoint(&self, conn: &Connection, tree: &Frontier) -> Result<Arc<str>, rusqlite::Error> {
        let note = self.key.sign(tree.size(), tree.root(), &self.private);
        execute(conn, KEEP, params![integer(tree.size()), note])?;
        Ok(note.into())
    }
}

/// The public half of a ledger's key, under the name of its log.
pub(super) fn key_of(host_id: &str, private: &SigningKey) -> Result<NoteKey, LedgerError> {
    let key = NoteKey::new(format!("{ORIGIN}{host_id}"), private.verifying_key());
    key.ok_or_else(|| LedgerError::Damaged("its `host_id` is not a name".into()))
}

/// A checkpoint as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Entries that it is made of.
    pub size: u64,
    /// The note, as it was signed.
    pub note: Arc<str>,
}

impl Kept {
    pub(super) fn of(row: &Row<'_>) -> Result<Self, LedgerError> {
        let reading = Reading::new(row, "audit_checkpoints");
        let size = reading.number("size")?;
        let unreadable = |_| ChainBroken::Checkpoint { size, why: "it cannot be read".to_owned() };
        Ok(Self { size, note: Arc::from(reading.text("note").map_err(unreadable)?) })
    }

    /// What it says, if it is this log's.
    pub(super) fn open(&self, key: &NoteKey) -> Result<Checkpoint, LedgerError> {
        let wrong = |why: String| ChainBroken::Checkpoint { size: self.size, why };
        let opened = key.open(&self.note).map_err(|bad| wrong(bad.to_string()))?;
        if opened.size == self.size { Ok(opened) } else { Err(wrong("it is of another size".to_owned()).into()) }
    }
}

/// The checkpoints of more than `after` and at most `to` entries, the smallest first.
pub(super) fn between(conn: &Connection, after: u64, to: u64) -> Result<Vec<Kept>, Failed> {
    rows(conn, BETWEEN, params![integer(after), integer(to)], Kept::of)
}

/// The latest checkpoint.
pub(super) fn latest(conn: &Connection) -> Result<Option<Kept>, Failed> {
    row(conn, LATEST, &[], Kept::of)
}

/// Checkpoints, the latest first.
pub(super) fn page_of(conn: &Connection, wanted: Page) -> Result<Paged<Kept>, Failed> {
    let (before, ask, limit) = bounds(wanted, i64::MAX);
    let mut items = rows(conn, PAGE, params![before, ask], Kept::of)?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| last.size);
    Ok(Paged { items, next })
}

impl Ledger {
    /// Make a checkpoint of all entries up to now, durably, unless the latest one is of them. Returns its note.
    ///
    /// # Errors
    /// The ledger failed, or its audit does not verify: then nothing is vouched for.
    pub async fn checkpoint(&self) -> Result<Option<Arc<str>>, LedgerError> {
        if let Some(why) = self.audit_broken() {
            return Err(LedgerError::Halted(why));
        }
        self.caught_up().await?;
        if self.unvouched() == 0 {
            return Ok(None);
        }
        match self.ask(Work::Checkpoint, true).await? {
            Done::Vouched(note) => Ok(Some(note)),
            Done::Refused(error) => Err(error),
            _ => Err(LedgerError::Closed),
        }
    }

    /// How many entries were written since the latest checkpoint.
    #[must_use]
    pub fn unvouched(&self) -> u64 {
        let pulse = &self.shared.pulse;
        pulse.head.load(Ordering::Acquire).saturating_sub(pulse.vouched.load(Ordering::Acquire))
    }

    /// The key by which everybody can verify checkpoints.
    #[must_use]
    pub fn note_key(&self) -> Arc<NoteKey> {
        Arc::clone(&self.shared.note_key)
    }

    /// Checkpoints, the latest first; the cursor is the size of the last one seen.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn checkpoints(&self, wanted: Page) -> Result<Paged<Kept>, LedgerError> {
        self.caught_up().await?;
        self.read(move |conn| page_of(conn, wanted)).await
    }
}
