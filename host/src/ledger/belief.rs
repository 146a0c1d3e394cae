//! Whether the audit is believed: verified at the start, the rest of it in the background, and all of it when asked.
//!
//! A start recomputes what came after the last checkpoint, and a tail in any case, but never more than a bound: nobody
//! waits for a million entries. Where anything does not verify the ledger goes on for those who read and administer, so
//! that the damage can be looked at, and takes no intent any more. That is noted on the disk; only a verification of
//! everything takes it back, so that a restart does not make anybody forget.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};
use serde_json::json;
use toolkeep_core::audit::{AuditKind, ChainBroken, ChainHead, canonical_body, genesis};
use toolkeep_core::checkpoint::{Checkpoint, NoteKey};
use toolkeep_core::digest::Digest;
use toolkeep_core::merkle::{Frontier, peaks};

use super::batch::{Batch, Step};
use super::checkpoints;
use super::column::Reading;
use super::failure::LedgerError;
use super::queue::{Job, Queue, Work};
use super::readers::Readers;
use super::rows::Durability;
use super::statement::{Failed, execute, row};
use super::verify::{AT_ONCE, Follower, Verified};
use super::writer::Pulse;
use super::{Ledger, chain, tree};

/// Entries that a start verifies at least, after a clean stop; and at most, whatever happened.
const TAIL_MIN: u64 = 1_000;
const TAIL_MAX: u64 = 10_000;
/// How long the verification in the background rests after each part, as a multiple of the time that the part took: after
/// an unclean stop it takes a half of one core, otherwise a tenth.
const REST_AFTER_UNCLEAN: u32 = 1;
const REST_AFTER_CLEAN: u32 = 9;
/// How long the verification in the background waits after a failure that says nothing of the audit, as one of the disk.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Where it is noted that the audit is not believed, and why.
const BROKEN: &str = "audit_broken";
/// Where the checkpoints are kept that somebody brought and that the audit contradicts: what they prove is nowhere else.
const BROUGHT: &str = "audit_brought";
/// Most of them: as long as one contradicts it the audit is not believed, so that more would change nothing.
const BROUGHT_MAX: usize = 100;
/// Where the digest of the configuration is kept.
const CONFIGURATION: &str = "configuration";
/// Where the key is told to whoever verifies a copy.
const KEY: &str = "audit_key";

/// What a start came to know of the audit.
#[derive(Debug)]
pub(super) struct Begun {
    /// Where the next entry goes.
    pub(super) head: ChainHead,
    /// The right edge of the tree.
    pub(super) tree: Frontier,
    /// The last entry that a checkpoint covers.
    pub(super) vouched: u64,
    /// Why the audit is not believed.
    pub(super) broken: Option<Arc<str>>,
    /// Checkpoints that somebody brought and that contradicted it.
    pub(super) brought: Vec<Checkpoint>,
    /// Whether anything is left to verify in the background.
    pub(super) rest: Option<Rest>,
}

/// What is left to verify, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    to: u64,
    /// Multiples of its own time that it rests.
    pause: u32,
}

/// A text of the table of single facts.
pub(super) fn fact(conn: &Connection, key: &str) -> Result<Option<Arc<str>>, Failed> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    row(conn, sql, params![key], |row| Reading::new(row, "meta").text("value").map(Arc::from))
}

/// The key that the ledger says is its own.
pub(super) fn told_key(conn: &Connection) -> Result<Option<Arc<str>>, Failed> {
    fact(conn, KEY)
}

fn set_fact(conn: &Connection, key: &str, value: &str) -> Result<usize, rusqlite::Error> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    execute(conn, sql, params![key, value])
}

/// What is wrong with the audit, as opposed to the disk.
fn doubt(error: &LedgerError) -> Option<Arc<str>> {
    match error {
        LedgerError::Chain(broken) => Some(broken.to_string().into()),
        LedgerError::Damaged(why) => Some(Arc::clone(why)),
        _ => None,
    }
}

/// The checkpoints that were brought and contradicted the audit.
fn brought(conn: &Connection, origin: &str) -> Result<Vec<Checkpoint>, Failed> {
    let Some(text) = fact(conn, BROUGHT)? else { return Ok(Vec::new()) };
    let kept: Vec<(u64, Digest)> = serde_json::from_str(&text)
        .map_err(|_| LedgerError::Damaged("its checkpoints that were brought cannot be read".into()))?;
    let opened = |(size, root)| Checkpoint { origin: origin.to_owned(), size, root };
    Ok(kept.into_iter().map(opened).collect())
}

/// Those of these checkpoints that a finding is about.
fn contradicting(error: &LedgerError, brought: &[Checkpoint]) -> Vec<(u64, Digest)> {
    let LedgerError::Chain(ChainBroken::Root(at) | ChainBroken::Short { size: at, .. }) = error else {
        return Vec::new();
    };
    brought.iter().filter(|brought| brought.size == *at).map(|brought| (brought.size, brought.root)).collect()
}

/// Look at the audit before anything is written.
pub(super) fn begin(conn: &Connection, unclean: bool, key: &Arc<NoteKey>) -> Result<Begun, LedgerError> {
    let problem = |error: rusqlite::Error| LedgerError::storage("the ledger cannot be written", &error);
    set_fact(conn, KEY, &key.to_string()).map_err(problem)?;
    let head = chain::end(conn)?;
    tree::grow_if_there_is_none(conn, head.seq)?;
    let before = fact(conn, BROKEN)?;
    let known = || Ok((checkpoints::latest(conn)?, brought(conn, key.name())?));
    let (vouched, brought, looked) = match known() {
        Ok((latest, brought)) => {
            let vouched = latest.map_or(0, |latest| latest.size);
            (vouched, brought, look(conn, (head.seq, vouched), unclean, key))
        }
        Err(failed) => (0, Vec::new(), Err(failed)),
    };
    let (tree, verified, found) = match looked {
        Ok(follower) => {
            let verified = follower.head().seq.saturating_sub(follower.followed());
            (follower.into_tree(), verified, None)
        }
        Err(failed) => {
            let error = LedgerError::from(failed);
            let Some(why) = doubt(&error) else { return Err(error) };
            set_fact(conn, BROKEN, &why).map_err(problem)?;
            let tree = tree::frontier(conn, head.seq).ok().or_else(|| edge_of_nothing(head.seq));
            (tree.unwrap_or_default(), head.seq, Some(why))
        }
    };
    let everything = before.is_some() && found.is_none();
    let pause = if unclean || everything { REST_AFTER_UNCLEAN } else { REST_AFTER_CLEAN };
    let to = if everything { head.seq } else { verified };
    let rest = (found.is_none() && (to > 0 || everything)).then_some(Rest { to, pause });
    Ok(Begun { head, tree, vouched: vouched.min(head.seq), broken: found.or(before), brought, rest })
}

/// An edge for a tree that cannot be believed any more, so that entries can be appended all the same.
fn edge_of_nothing(size: u64) -> Option<Frontier> {
    Frontier::of(size, peaks(size).iter().map(|_| genesis()).collect())
}

/// Verify what came after the last checkpoint, at least a tail.
fn look(conn: &Connection, (head, vouched): (u64, u64), unclean: bool, key: &Arc<NoteKey>) -> Result<Follower, Failed> {
    if vouched > head {
        return Err(LedgerError::from(ChainBroken::Short { size: vouched, found: head }).into());
    }
    let least = if unclean { TAIL_MAX } else { TAIL_MIN };
    // One more than what came since, so that the checkpoint is met.
    let tail = (head - vouched + 1).clamp(least, TAIL_MAX);
    let mut follower = Follower::after(conn, head.saturating_sub(tail), Arc::clone(key))?;
    while follower.follow(conn, AT_ONCE)? == AT_ONCE {}
    follower.check_ends(conn, head <= tail)?;
    Ok(follower)
}

/// What the verification in the background works with. It keeps no ledger open.
pub(super) struct Watch {
    pub(super) readers: Arc<Readers>,
    pub(super) queue: Arc<Queue>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) key: Arc<NoteKey>,
    pub(super) stopwatch: crate::ambient::Stopwatch,
    /// Checkpoints that contradicted the audit: it is not believed again while they do.
    pub(super) brought: Vec<Checkpoint>,
    /// How often it was found not to verify when this began: what is found meanwhile is not taken back by it.
    pub(super) findings: u64,
}

impl Watch {
    /// Verify the rest.
    pub(super) async fn verify(mut self, rest: Rest) {
        let mut follower = Follower::from_genesis(Arc::clone(&self.key)).with(std::mem::take(&mut self.brought));
        while follower.head().seq < rest.to {
            let begun = self.stopwatch.elapsed();
            let mut ahead = follower.clone();
            let part = self.readers.read(move |conn| {
                let followed = ahead.follow(conn, AT_ONCE)?;
                Ok((ahead, followed))
            });
            match part.await {
                Ok((same, 0)) => {
                    let found = same.head().seq;
                    return self.found(ChainBroken::Short { size: rest.to, found }.to_string().into());
                }
                Ok((same, _)) => follower = same,
                Err(error) => {
                    if !self.passes(error).await {
                        return;
                    }
                }
            }
            let took = self.stopwatch.elapsed().saturating_sub(begun);
            tokio::time::sleep(took.saturating_mul(rest.pause).max(Duration::from_millis(1))).await;
        }
        let verified = loop {
            let ended = follower.clone();
            // The start has followed what lies beyond, so that every row is accounted for.
            match self.readers.read(move |conn| ended.finish(conn, true)).await {
                Ok(verified) => break verified,
                Err(error) => {
                    if !self.passes(error).await {
                        return;
                    }
                }
            }
        };
        tracing::info!(entries = verified.entries, "the audit verifies from its first entry on");
        let again = self.pulse.believe(self.findings, || self.queue.push(Job::lazy(Work::Learn(Learned::Whole))));
        if let Some(Err(error)) = again {
            tracing::error!(%error, "that the audit verifies again could not be noted; the next start verifies again");
        }
    }

    /// Whether to try again after a failure.
    async fn passes(&self, error: LedgerError) -> bool {
        if let Some(why) = doubt(&error) {
            self.found(why);
            return false;
        }
        if matches!(error, LedgerError::Closed) {
            return false;
        }
        tracing::error!(%error, "the audit could not be verified in the background; it is tried again");
        tokio::time::sleep(AGAIN_AFTER).await;
        true
    }

    fn found(&self, why: Arc<str>) {
        if let Err(error) = disbelieve(&self.pulse, &self.queue, why, Vec::new()) {
            tracing::error!(%error, "that the audit does not verify could not be noted; the next start verifies again");
        }
    }
}

/// Nothing with effects runs from here on. What is to be noted of it is in line when this returns, and waits there until it
/// can be written.
fn disbelieve(pulse: &Pulse, queue: &Queue, why: Arc<str>, brought: Vec<(u64, Digest)>) -> Result<(), LedgerError> {
    tracing::error!(%why, "the audit does not verify; nothing with effects runs any more");
    let job = Job::lazy(Work::Learn(Learned::Broken { why: Arc::clone(&why), brought }));
    pulse.disbelieve(why, || queue.push(job))
}

/// What the daemon came to know of itself, to be kept for the next start.
#[derive(Debug)]
pub(super) enum Learned {
    /// The audit does not verify.
    Broken {
        /// Why.
        why: Arc<str>,
        /// What somebody brought that shows it.
        brought: Vec<(u64, Digest)>,
    },
    /// All of it verifies.
    Whole,
    /// What the daemon is told to do, as a digest.
    Configured(Digest),
}

impl Batch<'_> {
    /// Keep something that the daemon came to know, with an entry if it is new.
    pub(super) fn learn(&mut self, learned: &Learned) -> Step<(), LedgerError> {
        let (kind, facts) = match learned {
            Learned::Broken { why, brought } => {
                set_fact(self.conn, BROKEN, why)?;
                self.keep_brought(brought)?;
                (AuditKind::Daemon, json!({"by": "daemon", "what": "audit_broken", "why": why}))
            }
            Learned::Whole => {
                self.execute("DELETE FROM meta WHERE key IN (?1, ?2)", params![BROKEN, BROUGHT])?;
                (AuditKind::Daemon, json!({"by": "daemon", "what": "audit_whole"}))
            }
            Learned::Configured(digest) => {
                let before = fact(self.conn, CONFIGURATION)?;
                if before.as_deref() == Some(digest.to_hex().as_str()) {
                    return Ok(());
                }
                set_fact(self.conn, CONFIGURATION, &digest.to_hex())?;
                let facts = json!({"before": before, "by": "daemon", "configuration": digest, "what": "changed"});
                (AuditKind::Configuration, facts)
            }
        };
        self.append(kind, canonical_body(&facts));
        Ok(())
    }

    /// Keep what was brought, beside what was brought before.
    fn keep_brought(&self, new: &[(u64, Digest)]) -> Step<(), LedgerError> {
        let kept = fact(self.conn, BROUGHT)?;
        // What cannot be read is found at the next start, and must not be replaced.
        let Ok(mut all) = serde_json::from_str::<Vec<(u64, Digest)>>(kept.as_deref().unwrap_or("[]")) else {
            return Ok(());
        };
        let room = BROUGHT_MAX.saturating_sub(all.len());
        let unknown: Vec<_> = new.iter().filter(|brought| !all.contains(brought)).take(room).copied().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        all.extend(unknown);
        set_fact(self.conn, BROUGHT, &json!(all).to_string())?;
        Ok(())
    }
}

impl Ledger {
    /// Note what the daemon is told to do from now on; it is put on record if that is not what it was told before.
    ///
    /// # Errors
    /// The queue is full, or the ledger failed.
    pub fn configured(&self, digest: Digest) -> Result<(), LedgerError> {
        self.shared.queue.push(Job::lazy(Work::Learn(Learned::Configured(digest))))
    }

    /// Whether nothing with effects may run, because what is on record cannot be relied on: the audit does not verify, an
    /// entry could not be written, or the disk failed.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.shared.pulse.is_halted()
    }

    /// Why nothing with effects may run.
    #[must_use]
    pub fn why_halted(&self) -> Option<Arc<str>> {
        self.shared.pulse.why_halted()
    }

    /// Why the audit is not believed.
    #[must_use]
    pub fn audit_broken(&self) -> Option<Arc<str>> {
        self.shared.pulse.broken()
    }

    /// Put on record that entries found no room, if any did. Effects run again afterwards.
    ///
    /// # Errors
    /// There is still none.
    pub async fn tell_lost(&self) -> Result<(), LedgerError> {
        let lost = self.shared.pulse.lost.load(std::sync::atomic::Ordering::Acquire);
        if lost == 0 {
            return Ok(());
        }
        let facts = json!({"what": "entries_lost", "entries": lost});
        self.note(AuditKind::Daemon, chain::Who::Daemon, facts).await?;
        self.shared.pulse.told(lost);
        Ok(())
    }

    /// Verify the audit: every entry that there is now, every stored hash, every checkpoint, and these besides, which this
    /// ledger's key has signed. Nothing with effects runs any more after a failure.
    ///
    /// # Errors
    /// `Chain`, `Damaged`: it does not verify, and where. The ledger cannot be read.
    pub async fn verify_audit(&self, brought: Vec<Checkpoint>) -> Result<Verified, LedgerError> {
        let verified = self.verify_all(brought.clone()).await;
        self.judged(verified, &brought).await
    }

    async fn verify_all(&self, brought: Vec<Checkpoint>) -> Result<Verified, LedgerError> {
        self.caught_up().await?;
        let head = self.shared.pulse.head.load(std::sync::atomic::Ordering::Acquire);
        // As far as any of them says that there are entries, so that none is left out.
        let to = brought.iter().map(|brought| brought.size).fold(head, u64::max);
        let mut follower = Follower::from_genesis(self.note_key()).with(brought);
        loop {
            let part = self.shared.readers.read(move |conn| {
                let followed = follower.follow(conn, AT_ONCE)?;
                Ok((follower, followed))
            });
            let (same, followed) = part.await?;
            follower = same;
            if followed == 0 || follower.head().seq >= to {
                break;
            }
        }
        // What is written meanwhile lies beyond the end.
        self.shared.readers.read(move |conn| follower.finish(conn, true)).await
    }

    /// The result of a look at the audit. If it is that the audit does not verify, nothing with effects runs any more, and
    /// that is on the disk when this returns, with those of the checkpoints which show it.
    pub(super) async fn judged<T>(
        &self,
        looked: Result<T, LedgerError>,
        brought: &[Checkpoint],
    ) -> Result<T, LedgerError> {
        let Err(error) = &looked else { return looked };
        let Some(why) = doubt(error) else { return looked };
        let noted = match disbelieve(&self.shared.pulse, &self.shared.queue, why, contradicting(error, brought)) {
            Ok(()) => self.put(Work::Sync, Durability::Durable).await,
            Err(unwritten) => Err(unwritten),
        };
        if let Err(error) = noted {
            tracing::error!(%error, "that the audit does not verify is not on the disk; a restart may not find it again");
        }
        looked
    }
}
