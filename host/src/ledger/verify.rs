//! Verifying the audit: every link of the chain, every stored hash of the tree, every checkpoint, from any entry on.
//!
//! A [`Follower`] reads entries in their order and recomputes everything that follows from them. One that begins at the
//! first entry believes nothing; one that begins later believes the stored edge of the tree until it passes a checkpoint,
//! whose signature confirms all that lies before. It reads a bounded number of entries at a time and keeps none, so that
//! it works on a ledger in use as on a copy. It mends nothing.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};
use toolkeep_core::audit::{AuditEntry, AuditKind, ChainBroken, ChainHead};
use toolkeep_core::checkpoint::{Checkpoint, NoteKey};
use toolkeep_core::digest::Digest;
use toolkeep_core::merkle::Frontier;

use super::checkpoints::{self, Kept};
use super::column::{Reading, integer};
use super::failure::LedgerError;
use super::statement::{Failed, execute, row};
use super::tree;

/// Entries that are read at a time: a few megabytes, and a hundredth of a second.
pub(super) const AT_ONCE: u64 = 2_000;

const ENTRIES: &str = "SELECT seq, kind, at_ms, body, previous, digest FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
const ENTRY: &str = "SELECT seq, kind, at_ms, body, previous, digest FROM audit WHERE seq = ?1";

/// What a verification came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Entries whose links were recomputed.
    pub entries: u64,
    /// The last of them.
    pub head: ChainHead,
    /// The root of the tree over all entries up to it.
    pub root: Digest,
    /// Checkpoints that were met on the way and hold, those that were brought along included.
    pub checkpoints: u64,
}

/// An entry from its row. The sixth column is the digest, as in [`ENTRIES`].
pub(super) fn entry_of(row: &Row<'_>) -> Result<AuditEntry, LedgerError> {
    let reading = Reading::new(row, "audit");
    Ok(AuditEntry {
        seq: reading.number("seq")?,
        kind: reading.word("kind", AuditKind::from_word)?,
        at_ms: reading.number("at_ms")?,
        body: reading.text("body")?.to_owned(),
        previous: reading.digest("previous")?,
        digest: reading.digest("digest")?,
    })
}

/// An entry, by its number.
pub(super) fn entry(conn: &Connection, seq: u64) -> Result<Option<AuditEntry>, Failed> {
    row(conn, ENTRY, params![integer(seq)], |row| entry_of(row).map_err(|_| ChainBroken::Unreadable(seq).into()))
}

/// Reads entries in their order and recomputes what follows from them. After an error it is in the middle of something;
/// whoever goes on does so with a clone from before.
#[derive(Debug, Clone)]
pub(super) struct Follower {
    head: ChainHead,
    tree: Frontier,
    entries: u64,
    checkpoints: u64,
    key: Arc<NoteKey>,
    /// Checkpoints that somebody kept elsewhere, the smallest last.
    brought: Vec<Checkpoint>,
}

impl Follower {
    /// From the first entry on.
    pub(super) fn from_genesis(key: Arc<NoteKey>) -> Self {
        let (head, tree) = (ChainHead::default(), Frontier::default());
        Self { head, tree, entries: 0, checkpoints: 0, key, brought: Vec::new() }
    }

    /// After the first `seq` entries. What is stored of them is believed until a checkpoint says otherwise.
    pub(super) fn after(conn: &Connection, seq: u64, key: Arc<NoteKey>) -> Result<Self, Failed> {
        let mut follower = Self::from_genesis(key);
        if seq > 0 {
            let before =
                entry(conn, seq)?.ok_or(LedgerError::from(ChainBroken::Sequence { expected: seq, found: 0 }))?;
            follower.head = ChainHead { seq, digest: before.digest };
            follower.tree = tree::frontier(conn, seq)?;
        }
        Ok(follower)
    }

    /// Check these as well, when their entry is met.
    pub(super) fn with(mut self, mut brought: Vec<Checkpoint>) -> Self {
        brought.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.size));
        self.brought = brought;
        self
    }

    /// How many entries it has followed.
    pub(super) const fn followed(&self) -> u64 {
        self.entries
    }

    /// How far it has come.
    pub(super) const fn head(&self) -> ChainHead {
        self.head
    }

    /// The right edge of the tree so far.
    pub(super) fn into_tree(self) -> Frontier {
        self.tree
    }

    /// Follow up to `most` more entries. Says how many there were; fewer than `most` where they end.
    pub(super) fn follow(&mut self, conn: &Connection, most: u64) -> Result<u64, Failed> {
        let mut kept =
            checkpoints::between(conn, self.head.seq, self.head.seq.saturating_add(most))?.into_iter().peekable();
        self.compare()?;
        let mut statement = conn.prepare_cached(ENTRIES)?;
        let mut rows = statement.query(params![integer(self.head.seq), integer(most)])?;
        let (mut followed, mut made) = (0, Vec::new());
        while let Some(row) = rows.next()? {
            let expected = self.head.seq + 1;
            let found = Reading::new(row, "audit").number("seq").map_err(|_| ChainBroken::Unreadable(expected));
            let found = found.map_err(LedgerError::from)?;
            if found != expected {
                return Err(LedgerError::from(ChainBroken::Sequence { expected, found }).into());
            }
            let entry = entry_of(row).map_err(|_| LedgerError::from(ChainBroken::Unreadable(expected)))?;
            self.head.follow(&entry).map_err(LedgerError::from)?;
            tree::push(&mut self.tree, &entry.digest, &mut made);
            for (place, hash) in made.drain(..) {
                if tree::kept(conn, place)? != Some(hash) {
                    let (first, last) = (place.first_leaf() + 1, place.first_leaf() + place.leaves());
                    return Err(LedgerError::from(ChainBroken::Node { first, last }).into());
                }
            }
            while let Some(stored) = kept.next_if(|stored| stored.size <= self.head.seq) {
                self.confirm(&stored)?;
            }
            self.compare()?;
            followed += 1;
            self.entries += 1;
        }
        Ok(followed)
    }

    /// Compare with what was brought along for this size.
    fn compare(&mut self) -> Result<(), LedgerError> {
        while let Some(brought) = self.brought.pop_if(|brought| brought.size == self.head.seq) {
            if brought.root != self.tree.root() {
                return Err(ChainBroken::Root(brought.size).into());
            }
            self.checkpoints += 1;
        }
        Ok(())
    }

    /// A stored checkpoint of this size has to be this log's and to have this root.
    fn confirm(&mut self, stored: &Kept) -> Result<(), LedgerError> {
        let opened = stored.open(&self.key)?;
        if stored.size != self.head.seq || opened.root != self.tree.root() {
            return Err(ChainBroken::Root(stored.size).into());
        }
        self.checkpoints += 1;
        Ok(())
    }

    /// The end: nothing may lie beyond it, or beside of it.
    ///
    /// `whole` says that all entries were followed, so that every row is accounted for.
    pub(super) fn finish(self, conn: &Connection, whole: bool) -> Result<Verified, Failed> {
        // One moment of a ledger in use.
        execute(conn, "BEGIN", &[])?;
        let checked = self.check_ends(conn, whole);
        let _nothing_was_written = execute(conn, "ROLLBACK", &[]);
        checked?;
        let Self { head, tree, entries, checkpoints, .. } = self;
        Ok(Verified { entries, head, root: tree.root(), checkpoints })
    }

    /// Whether anything lies beyond the end, or beside of it.
    pub(super) fn check_ends(&self, conn: &Connection, whole: bool) -> Result<(), Failed> {
        let broken = |broken: ChainBroken| Err(LedgerError::from(broken).into());
        let number = |sql: &str| -> Result<u64, Failed> {
            let found = row(conn, sql, &[], |row| {
                Reading::new(row, "audit").number_or_null("n").map_err(|_| ChainBroken::Stray.into())
            });
            Ok(found?.flatten().unwrap_or(0))
        };
        if number("SELECT count(*) AS n FROM audit WHERE seq < 1")? > 0 {
            return broken(ChainBroken::Stray);
        }
        let last = number("SELECT max(seq) AS n FROM audit")?;
        let made_of = number("SELECT max(size) AS n FROM audit_checkpoints")?;
        if made_of > last {
            return broken(ChainBroken::Short { size: made_of, found: last });
        }
        // Whatever was brought and was not met says of entries that were not there.
        if let Some(largest) = self.brought.first() {
            return broken(ChainBroken::Short { size: largest.size, found: self.head.seq });
        }
        if number("SELECT count(*) AS n FROM audit_checkpoints WHERE size < 1")? > 0 {
            return broken(ChainBroken::Checkpoint { size: 0, why: "it has no size".to_owned() });
        }
        if whole && number("SELECT count(*) AS n FROM audit_nodes")? != tree::kept_in_all(last) {
            return broken(ChainBroken::StrayNodes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
