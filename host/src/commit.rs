//! Stage 8, commit: the only stage that changes the outside world.
//!
//! One order (D4 of the design, in our words): check the world against the plan, write the new contents beside their
//! targets, make the intent durable (that is the commit point) while they are flushed, apply, answer, flush the
//! directories, record the outcome. A crash before the intent leaves nothing; after it, recovery finishes or takes back,
//! or says exactly what it could not settle. The reply and the receipt are made with the intent, so that recovery
//! releases the very same bytes.
//!
//! Why an answer may go out before the directories are flushed: the intent is a redo log. It holds the steps, the contents
//! of the new files that were not flushed before it, and those of what undo needs. At every moment after it, a kill or
//! a power loss leaves each name either as it was or as one of the steps left it ([`files`] says which states), and
//! recovery makes the rest of the steps from the log. No target ever holds data that is not on the disk: both the intent
//! and the flush of the new files are waited for before the first name changes. The log may be closed only when it is not
//! needed any more: the outcome is enqueued after the directories were flushed, and the paths stay held until then, so
//! that whatever changes them next has its intent behind this outcome. If that flush fails, nothing is recorded and
//! nothing more is committed; the next start finishes the commit as after a power loss.

mod attempts;
pub mod files;
pub mod locks;

mod outside;
mod sending;
mod settle;
mod undo;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ed25519_dalek::SigningKey;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::call::{Outcome, Reply, Status};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Effect};
use toolkeep_core::plan::ReadEntry;
use toolkeep_core::rate::QuotaRule;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::stage::Witness;

use crate::ambient::Ambient;
use crate::blobs::{BlobError, Blobs};
use crate::breakers::Breakers;
use crate::egress::Egress;
use crate::kill::KillSwitch;
use crate::ledger::{Durability, Ledger, LedgerError, OpenIntent, OutcomeRow, Settled};
use crate::quota::Quota;
use crate::record::encode;
use attempts::Attempts;
use files::{CommitError, Prepared, Recovered, Roots};
use locks::PathLocks;
use outside::{Metered, Outside, bytes_of};

pub use outside::Finished;
pub use settle::commit;
pub use undo::Reversal;

/// Applies plans.
#[derive(Debug)]
pub struct Committer {
    ledger: Ledger,
    blobs: Blobs,
    roots: Roots,
    locks: PathLocks,
    attempts: Attempts,
    ambient: Ambient,
    egress: Egress,
    kill: KillSwitch,
    quotas: Vec<Quota>,
    breakers: Option<Breakers>,
    runtime: tokio::runtime::Handle,
    key: Arc<SigningKey>,
    undo_bytes: u64,
    poisoned: OnceLock<String>,
    halted: AtomicUsize,
}

/// What a committer keeps things in.
#[derive(Debug)]
pub struct Stores {
    /// Rows.
    pub ledger: Ledger,
    /// Contents.
    pub blobs: Blobs,
    /// Time, ids and randomness.
    pub ambient: Ambient,
    /// Outgoing connections.
    pub egress: Egress,
    /// What is stopped.
    pub kill: KillSwitch,
}

/// What a recovery leaves for others.
#[derive(Debug, Default)]
pub struct Left {
    /// Commits with requests: they go on when the daemon runs.
    pub interrupted: Vec<OpenIntent>,
    /// Commits that could be neither finished nor taken back: a person has to look.
    pub halted: Vec<OpenIntent>,
}

/// Why recovery could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The steps of an intent cannot be read.
    #[error("the steps of plan {plan} cannot be read: {problem}")]
    Steps {
        /// The plan.
        plan: toolkeep_core::id::PlanId,
        /// Why.
        problem: String,
    },
    /// The contents that the intent logged cannot be read.
    #[error("plan {plan}: {source}")]
    Log {
        /// The plan.
        plan: toolkeep_core::id::PlanId,
        /// Why.
        source: BlobError,
    },
    /// The workspace cannot be looked at or changed.
    #[error("plan {plan}: {source}")]
    World {
        /// The plan.
        plan: toolkeep_core::id::PlanId,
        /// Why.
        source: CommitError,
    },
    /// Temporaries of attempts that never came to an intent cannot be removed.
    #[error("the leftovers of interrupted commits cannot be removed: {0}")]
    Leftovers(#[source] std::io::Error),
    /// A task of the recovery panicked.
    #[error("BUG: recovery panicked")]
    Panicked,
}

impl Committer {
    /// A committer over opened workspaces. Call it inside of the runtime that drives the ledger.
    ///
    /// # Errors
    /// The folder for notes of attempts cannot be made.
    pub fn new(stores: Stores, roots: Roots, notes: &Path, undo_bytes: u64) -> std::io::Result<Self> {
        let Stores { ledger, blobs, ambient, egress, kill } = stores;
        Ok(Self {
            key: ledger.signing_key(),
            ledger,
            blobs,
            roots,
            locks: PathLocks::default(),
            attempts: Attempts::open(notes)?,
            ambient,
            egress,
            kill,
            quotas: Vec::new(),
            breakers: None,
            runtime: tokio::runtime::Handle::current(),
            undo_bytes,
            poisoned: OnceLock::new(),
            halted: AtomicUsize::new(0),
        })
    }

    /// With the quotas of the configuration.
    #[must_use]
    pub fn with_quotas(mut self, rules: &[QuotaRule]) -> Self {
        self.quotas = Quota::all("configuration", rules).collect();
        self
    }

    /// Whether everything that an execution read is as it was. `seen` is what it saw, and when it began, in nanoseconds since
    /// the Unix epoch.
    pub async fn still_reads(&self, read_set: Vec<ReadEntry>, seen: (Vec<Witness>, i64)) -> bool {
        if read_set.is_empty() {
            return true;
        }
        let roots = self.roots.clone();
        let look = move || {
            let witnessed = files::Witnessed { entries: &seen.0, since_ns: seen.1 };
            files::unchanged(&read_set, witnessed, &roots).is_ok()
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }

    /// With circuits for requests.
    #[must_use]
    pub fn with_breakers(mut self, breakers: Breakers) -> Self {
        self.breakers = Some(breakers);
        self
    }

    /// `well`, or why nothing is committed any more.
    #[must_use]
    pub fn health(&self) -> String {
        self.poisoned.get().map_or_else(|| "well".to_owned(), |why| format!("poisoned: {why}"))
    }

    /// Whether it commits.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.poisoned.get().is_none()
    }

    /// How many commits of this life were halted.
    #[must_use]
    pub fn halted(&self) -> usize {
        self.halted.load(Ordering::Relaxed)
    }

    /// The content that a file of the plan has in the workspace now, if it is still the one that the plan names.
    pub async fn present_content(&self, effect: &Effect, state: &BodyState) -> Option<Vec<u8>> {
        let place = effect.places().next()?;
        let (root, path) = (Arc::clone(self.roots.get(place.workspace)?), place.path.clone());
        let wanted = *state;
        tokio::task::spawn_blocking(move || undo::content_if_unchanged(&root, &path, &wanted)).await.ok().flatten()
    }

    /// Settle every intent that the last life left open. Those that have requests go on by [`Committer::finish`], when the
    /// daemon runs; while the audit does not verify all of them wait for that.
    ///
    /// # Errors
    /// The ledger or a workspace cannot be read: the daemon must not start.
    pub async fn recover(&self) -> Result<Left, RecoverError> {
        let mut left = Left::default();
        for intent in self.ledger.unknown_intents().await? {
            self.keep_prepared(&intent)?;
        }
        // What an audit says that does not verify is no reason to change the world.
        let waits = self.ledger.audit_broken().is_some();
        for intent in self.ledger.open_intents().await? {
            if self.judge_sends(&intent.plan).await? || waits {
                self.keep_prepared(&intent)?;
                let refusal =
                    Refusal::new(Code::UnknownOutcome, "the daemon stopped while the plan was applied; it goes on");
                let reply = unsettled_reply(&intent, (Status::Unknown, Outcome::Unknown), refusal, Metered::default());
                self.ledger.goes_on(intent.plan.id(), reply).await?;
                left.interrupted.push(intent);
                continue;
            }
            let plan = intent.plan.id();
            let steps: Prepared = serde_json::from_str(&intent.steps)
                .map_err(|e| RecoverError::Steps { plan, problem: e.to_string() })?;
            self.log_can_be_read(&steps).await.map_err(|source| RecoverError::Log { plan, source })?;
            let transaction = steps.transaction.clone();
            let (roots, blobs, sealed) = (self.roots.clone(), self.blobs.clone(), intent.plan.clone());
            let (recovered, outside) = tokio::task::spawn_blocking(move || {
                let stored = |digest: &Digest| blobs.content_blocking(digest).ok().flatten();
                let outside = Outside::of(&sealed, &|digest| stored(digest).as_ref().and_then(bytes_of));
                (files::recover(&steps, &roots, &stored), outside)
            })
            .await
            .map_err(|_| RecoverError::Panicked)?;
            let recovered = recovered.map_err(|source| RecoverError::World { plan, source })?;
            // Recovery alone knows what its temporaries hold; the sweep below must not touch what it kept.
            self.attempts.forget(&transaction).map_err(RecoverError::Leftovers)?;
            let outside = if recovered == Recovered::RolledForward { outside? } else { Outside::default() };
            let halted = matches!(recovered, Recovered::Halted(_));
            self.close_recovered(&intent, recovered, outside).await?;
            left.halted.extend(halted.then_some(intent));
        }
        match self.attempts.sweep(&self.roots).map_err(RecoverError::Leftovers)? {
            0 => {}
            removed => tracing::warn!(removed, "removed what interrupted commits had prepared"),
        }
        Ok(left)
    }

    /// What was prepared for a commit that goes on later is no leftover.
    fn keep_prepared(&self, intent: &OpenIntent) -> Result<(), RecoverError> {
        let steps: Prepared = serde_json::from_str(&intent.steps)
            .map_err(|e| RecoverError::Steps { plan: intent.plan.id(), problem: e.to_string() })?;
        self.attempts.forget(&steps.transaction).map_err(RecoverError::Leftovers)
    }

    /// Look at everything that recovery may need of the log. A content that is not there is no failure: it was flushed
    /// then. But a log that cannot be read now must not look like one that holds nothing.
    async fn log_can_be_read(&self, steps: &Prepared) -> Result<(), BlobError> {
        for digest in steps.logged() {
            promised(self.blobs.content(&digest).await.map(drop))?;
        }
        Ok(())
    }

    async fn close_recovered(
        &self,
        intent: &OpenIntent,
        recovered: Recovered,
        outside: Outside,
    ) -> Result<(), LedgerError> {
        let plan = intent.plan.id();
        let (settled, reply, code) = match recovered {
            Recovered::RolledForward => {
                tracing::warn!(%plan, call = %intent.call, "finished a commit that the last life began");
                (Settled::Committed, Arc::clone(&intent.reply_when_done), None)
            }
            Recovered::RolledBack => {
                tracing::warn!(%plan, call = %intent.call, "took back a commit that the last life began");
                let refusal =
                    Refusal::new(Code::StalePlan, "the world changed while the plan was applied; it was taken back");
                (
                    Settled::RolledBack,
                    unsettled_reply(intent, (Status::Failed, Outcome::Discarded), refusal, Metered::default()),
                    Some(Code::StalePlan),
                )
            }
            Recovered::Halted(remnants) => {
                self.halted.fetch_add(1, Ordering::Relaxed);
                let list = remaining(&remnants, Vec::new());
                tracing::error!(%plan, call = %intent.call, ?list, "a commit is halted: look at these targets");
                let refusal = halted_refusal(&list);
                (
                    Settled::Halted(list),
                    unsettled_reply(intent, (Status::Failed, Outcome::Halted), refusal, Metered::default()),
                    Some(Code::Halted),
                )
            }
        };
        let Outside { deliveries, keys } = outside;
        let row = OutcomeRow {
            intent: intent.intent,
            settled,
            reply,
            error_code: code,
            receipt: None,
            ended_ms: self.ambient.now_ms(),
            deliveries,
            keys,
        };
        self.ledger.outcome(row, Durability::Durable).await?;
        let tenant = &intent.plan.body().principal.tenant;
        let facts = serde_json::json!({"recovered": plan, "call": intent.call, "tenant": tenant, "what": "recovered"});
        self.ledger.audit(AuditKind::Daemon, &facts)
    }
}

/// Whether what was found of a promised content lets recovery begin: it is there, or it is certain that it is not.
fn promised(found: Result<(), BlobError>) -> Result<(), BlobError> {
    match found {
        Ok(()) | Err(BlobError::Missing(_)) => Ok(()),
        Err(BlobError::Damaged(digest)) => {
            tracing::error!(blob = %digest, "a logged content is damaged");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// What a halted commit leaves: targets that are neither as before nor as after, and requests that were sent.
fn remaining(targets: &[files::Remnant], requests: Vec<String>) -> Vec<String> {
    targets.iter().map(ToString::to_string).chain(requests).collect()
}

/// What a caller is told of a halted commit.
fn halted_refusal(list: &[String]) -> Refusal {
    Refusal::new(
        Code::Halted,
        format!("{} part(s) could be neither applied nor taken back: {}", list.len(), list.join("; ")),
    )
}

/// The reply of a commit that was begun and did not get done.
fn unsettled_reply(
    intent: &OpenIntent,
    (status, outcome): (Status, Outcome),
    refusal: Refusal,
    metered: Metered,
) -> Arc<str> {
    match serde_json::from_str::<Reply>(&intent.reply_when_done) {
        Ok(mut reply) => {
            reply.status = status;
            reply.outcome = outcome;
            reply.error = Some(refusal);
            reply.receipt = None;
            metered.add_to(&mut reply.usage);
            encode(&reply)
        }
        Err(error) => {
            tracing::error!(%error, plan = %intent.plan.id(), "the prepared reply cannot be read");
            Arc::clone(&intent.reply_when_done)
        }
    }
}
