//! A ledger that nobody writes: a copy of its directory, looked at without a daemon.
//!
//! Nothing is changed, not even brought up to date. The key by which checkpoints are verified should come from elsewhere;
//! what the copy says of its own key proves only that the copy agrees with itself.

use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rusqlite::Connection;
use toolkeep_core::audit::{AuditEntry, ChainHead};
use toolkeep_core::checkpoint::{Checkpoint, NoteKey};

use super::belief::{fact, told_key};
use super::checkpoints::{self, Kept, key_of};
use super::failure::LedgerError;
use super::history::{self, EntryFilter, Numbered, Span, Step};
use super::prove::{self, Consistency, Inclusion, Proved};
use super::rows::{Page, Paged, RunRow};
use super::sealing::Vault;
use super::verify::{AT_ONCE, Follower, Verified};
use super::{SIGNING_KEY, chain, schema};
use crate::ambient::Ambient;
use crate::vault::KEY_BYTES;

/// Bytes of the seed of the signing key.
const SEED_BYTES: usize = 32;

/// A copy of a ledger's directory.
#[derive(Debug)]
pub struct Archive {
    conn: Connection,
    key: Option<Arc<NoteKey>>,
    /// Without any key: what is sealed stays so.
    vault: Vault,
}

impl Archive {
    /// Open the copy in `dir`.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it is of another version.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let conn = schema::connect_copy(&dir.join(schema::FILE))?;
        schema::check_version(&conn)?;
        let key = own_key(&conn, dir)?.map(Arc::new);
        let vault = Vault::open(&conn, &[0; KEY_BYTES], None, Ambient::real())?;
        Ok(Self { conn, key, vault })
    }

    /// The key that the copy says is its own.
    #[must_use]
    pub fn own_key(&self) -> Option<Arc<NoteKey>> {
        self.key.clone()
    }

    /// The last entry.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub fn head(&self) -> Result<ChainHead, LedgerError> {
        chain::end(&self.conn)
    }

    /// Verify everything from the first entry on, and these checkpoints besides, which were opened with the key. `progress`
    /// hears of the entries that are done.
    ///
    /// # Errors
    /// `Chain`: it does not verify, and where. The copy cannot be read.
    pub fn verify(
        &self,
        key: &Arc<NoteKey>,
        brought: Vec<Checkpoint>,
        mut progress: impl FnMut(u64),
    ) -> Result<Verified, LedgerError> {
        let mut follower = Follower::from_genesis(Arc::clone(key)).with(brought);
        while follower.follow(&self.conn, AT_ONCE)? == AT_ONCE {
            progress(follower.head().seq);
        }
        Ok(follower.finish(&self.conn, true)?)
    }

    /// Verify what came after a checkpoint, which was opened with the key: what it covers is believed.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_after(&self, key: &Arc<NoteKey>, checkpoint: Checkpoint) -> Result<Verified, LedgerError> {
        let size = checkpoint.size;
        let head = self.head()?.seq;
        let mut follower = Follower::after(&self.conn, size.min(head), Arc::clone(key))?.with(vec![checkpoint]);
        while follower.follow(&self.conn, AT_ONCE)? == AT_ONCE {}
        Ok(follower.finish(&self.conn, false)?)
    }

    /// Prove that an entry is covered by the latest checkpoint.
    ///
    /// # Errors
    /// The stored hashes do not lead to its root.
    pub fn prove_entry(&self, key: &NoteKey, seq: u64) -> Result<Proved<Inclusion>, LedgerError> {
        Ok(prove::of_entry(&self.conn, key, seq)?)
    }

    /// Prove that a checkpoint, which was opened with the key, is the beginning of the latest one.
    ///
    /// # Errors
    /// It is not.
    pub fn prove_since(&self, key: &NoteKey, old: Checkpoint) -> Result<Proved<Consistency>, LedgerError> {
        Ok(prove::of_checkpoint(&self.conn, key, old)?)
    }

    /// Checkpoints, the latest first.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub fn checkpoints(&self, wanted: Page) -> Result<Paged<Kept>, LedgerError> {
        Ok(checkpoints::page_of(&self.conn, wanted)?)
    }

    /// Audit entries that a filter wants, the oldest first. A page may be empty and not the last.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub fn entries(&self, filter: &EntryFilter, wanted: Page) -> Result<Paged<AuditEntry>, LedgerError> {
        Ok(history::entries(&self.conn, filter, wanted)?)
    }

    /// Runs, the oldest first.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub fn runs(&self, span: &Span, wanted: Page) -> Result<Paged<Numbered>, LedgerError> {
        Ok(history::runs(&self.conn, span, wanted)?)
    }

    /// The calls of a run, in their order.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub fn steps_of_run(&self, run: &RunRow, wanted: Page) -> Result<Paged<Step>, LedgerError> {
        Ok(history::steps_of_run((&self.conn, &self.vault), run, wanted)?)
    }

    /// Calls without a run, the oldest first. A page may be empty and not the last.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub fn calls_alone(&self, span: &Span, wanted: Page) -> Result<Paged<Step>, LedgerError> {
        Ok(history::alone((&self.conn, &self.vault), span, wanted)?)
    }
}

/// The public half of the key that lies beside the copy, or the one that the copy tells.
fn own_key(conn: &Connection, dir: &Path) -> Result<Option<NoteKey>, LedgerError> {
    let seed = std::fs::read(dir.join(SIGNING_KEY)).ok().and_then(|bytes| <[u8; SEED_BYTES]>::try_from(bytes).ok());
    if let (Some(seed), Some(host)) = (seed, fact(conn, "host_id")?) {
        return key_of(&host, &SigningKey::from_bytes(&seed)).map(Some);
    }
    Ok(told_key(conn)?.and_then(|key| key.parse().ok()))
}
