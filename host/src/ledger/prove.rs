//! Proofs about the audit: that an entry is covered by a checkpoint, and that one checkpoint is the beginning of another.
//!
//! A proof is verified before it is handed out: whoever gets one can rely on it or is told what is broken. It holds what
//! public tools need and nothing of other entries but hashes.

use rusqlite::Connection;
use std::sync::Arc;
use toolkeep_core::audit::{AuditEntry, ChainBroken, ChainHead};
use toolkeep_core::checkpoint::{Checkpoint, NoteKey};
use toolkeep_core::digest::Digest;
use toolkeep_core::merkle::{consistency, extends, includes, inclusion};

use super::Ledger;
use super::checkpoints::{self, Kept};
use super::failure::LedgerError;
use super::statement::Failed;
use super::tree::perfect;
use super::verify::entry;

/// That an entry is one of those that a checkpoint was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Inclusion {
    /// The entry.
    pub entry: AuditEntry,
    /// The checkpoint, as it was signed.
    pub note: Arc<str>,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The path from the leaf to the root, from below.
    pub path: Vec<Digest>,
}

/// That the entries of one checkpoint are the first of those of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    /// The checkpoint that was brought along.
    pub old: Checkpoint,
    /// The later one, as it was signed.
    pub note: Arc<str>,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The hashes that connect their roots.
    pub path: Vec<Digest>,
}

/// What a question about a proof came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Proved<T> {
    /// This.
    Yes(Box<T>),
    /// There is no such entry.
    NoEntry,
    /// No checkpoint covers it yet.
    NoCheckpoint,
}

fn latest(conn: &Connection, key: &NoteKey) -> Result<Option<(Kept, Checkpoint)>, Failed> {
    let Some(kept) = checkpoints::latest(conn)? else { return Ok(None) };
    let opened = kept.open(key)?;
    Ok(Some((kept, opened)))
}

fn broken<T>(why: ChainBroken) -> Result<T, Failed> {
    Err(LedgerError::from(why).into())
}

/// Prove that an entry is covered by the latest checkpoint.
pub(super) fn of_entry(conn: &Connection, key: &NoteKey, seq: u64) -> Result<Proved<Inclusion>, Failed> {
    let Some(entry) = entry(conn, seq)? else { return Ok(Proved::NoEntry) };
    let Some((kept, checkpoint)) = latest(conn, key)?.filter(|(kept, _)| kept.size >= seq) else {
        return Ok(Proved::NoCheckpoint);
    };
    // The proof is about the digest; whoever reads the entry believes what it says.
    let mut before = ChainHead { seq: seq.saturating_sub(1), digest: entry.previous };
    before.follow(&entry).map_err(LedgerError::from)?;
    let index = seq.saturating_sub(1);
    let Some(path) = inclusion(index, checkpoint.size, |place| perfect(conn, place))? else {
        return Ok(Proved::NoEntry);
    };
    if !includes((checkpoint.size, &checkpoint.root), index, &entry.digest, &path) {
        return broken(ChainBroken::Root(checkpoint.size));
    }
    Ok(Proved::Yes(Box::new(Inclusion { entry, note: kept.note, checkpoint, path })))
}

/// Prove that a checkpoint which somebody kept is the beginning of the latest one.
pub(super) fn of_checkpoint(conn: &Connection, key: &NoteKey, old: Checkpoint) -> Result<Proved<Consistency>, Failed> {
    let Some((kept, checkpoint)) = latest(conn, key)? else { return Ok(Proved::NoCheckpoint) };
    if checkpoint.size < old.size {
        return broken(ChainBroken::Short { size: old.size, found: checkpoint.size });
    }
    let path = consistency(old.size, checkpoint.size, |place| perfect(conn, place))?;
    let Some(path) = path else { return Ok(Proved::NoEntry) };
    if !extends((old.size, &old.root), (checkpoint.size, &checkpoint.root), &path) {
        return broken(ChainBroken::Root(old.size));
    }
    Ok(Proved::Yes(Box::new(Consistency { old, note: kept.note, checkpoint, path })))
}

impl Ledger {
    /// Prove that an entry is covered by a checkpoint. One is made if none covers it yet. Nothing with effects runs any more
    /// if what is stored does not verify.
    ///
    /// # Errors
    /// The entry was changed, the stored hashes do not lead to the root, or the ledger failed.
    pub async fn prove_audit_entry(&self, seq: u64) -> Result<Proved<Inclusion>, LedgerError> {
        let proved = self.prove_entry(seq).await;
        self.judged(proved, &[]).await
    }

    async fn prove_entry(&self, seq: u64) -> Result<Proved<Inclusion>, LedgerError> {
        self.caught_up().await?;
        let key = self.note_key();
        let find = move |conn: &Connection| of_entry(conn, &key, seq);
        match self.read(find.clone()).await? {
            Proved::NoCheckpoint => {}
            known => return Ok(known),
        }
        self.checkpoint().await?;
        self.read(find).await
    }

    /// Prove that a checkpoint of this log is the beginning of what there is now. Nothing with effects runs any more if it is
    /// not, also after a restart.
    ///
    /// # Errors
    /// It is not: entries below it were changed or cut off. The ledger failed.
    pub async fn prove_audit_since(&self, old: Checkpoint) -> Result<Proved<Consistency>, LedgerError> {
        let proved = self.prove_since(old.clone()).await;
        self.judged(proved, &[old]).await
    }

    async fn prove_since(&self, old: Checkpoint) -> Result<Proved<Consistency>, LedgerError> {
        self.caught_up().await?;
        self.checkpoint().await?;
        let key = self.note_key();
        self.read(move |conn| of_checkpoint(conn, &key, old)).await
    }
}
