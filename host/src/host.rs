//! The host: what the stages share, and the life of the daemon around them.
//!
//! One [`Host`] owns the ledger, the stores, the catalog and the sandbox. Doors get a clone of it and nothing else. Opening
//! one recovers first: no call is accepted before every intent of the last life is settled or reported as halted.

mod alerts;
mod attended;
mod audit;
mod backtest;
mod budgets;
mod changes;
mod checks;
mod circuits;
mod confirm;
mod consent;
mod credentials;
mod deadletters;
mod detours;
mod evals;
mod flights;
mod incident;
mod inquiry;
mod installing;
mod jobs;
mod kill;
mod life;
mod live;
mod observe;
mod offer;
mod outcomes;
mod oversight;
mod policy;
mod privacy;
mod replays;
mod runs;
mod sessions;
mod staging;
mod standing;
mod stats;
mod transactions;
mod undo;
mod warm;

use std::future::Future;
use std::sync::Arc;

use serde_json::json;
use toolkeep_core::call::{Outcome, Reply, Status};
use toolkeep_core::id::{CallId, TenantName};
use toolkeep_core::principal::Plane;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::execution::Cancel;

use crate::admit::Admission;
use crate::ambient::Ambient;
use crate::approve::{InForce, PlanStore};
use crate::authenticate::{Authenticator, Caller, Operator, Peer};
use crate::autonomy::Autonomies;
use crate::blobs::Blobs;
use crate::breakers::Breakers;
use crate::budget::Budgets;
use crate::catalog::CatalogHandle;
use crate::checkpoints::Witnesses;
use crate::commit::Committer;
use crate::config::Config;
use crate::execute::Executor;
use crate::exposure::Exposures;
use crate::kill::KillSwitch;
use crate::ledger::{CallRow, Ledger};
use crate::log;
use crate::metrics::Metrics;
use crate::notify::{Event, Notify};
use crate::outbox::Outbox;
use crate::policy::{Policies, PolicyHandle};
use crate::record::{Answer, Ending, Entry, status_of};
use crate::results::Results;
use crate::standing::StandingBook;
use crate::trace::Tracing;
use crate::transaction::Turns;
use crate::workspaces::Workspaces;

use attended::Attended;
pub(crate) use audit::check_kept;
pub use audit::{ExportAsk, ProveAsk};
pub use backtest::{BackTest, CALLS_MAX as BACKTEST_CALLS_MAX, With};
pub(crate) use budgets::Ended;
pub use budgets::{Resume, Spending};
use observe::Measured;

pub use circuits::CircuitName;
pub use confirm::Question;
pub use consent::Notices;
pub use credentials::{CredentialName, FAILURES_ON_RECORD, Mint, TOKEN_TTL_MAX_S};
pub(crate) use detours::Asked;
pub use evals::{AddCase, RunSuite};
pub use flights::{Flight, Flights, Settling};
pub use incident::IncidentOf;
pub use inquiry::PlanName;
pub use kill::KillRequest;
pub use life::StartError;
pub(crate) use live::{Boundary, Part};
pub(crate) use oversight::{Escalation, Seen};
pub use policy::{DIFF_CALLS_MAX, PolicyFile, Supposed};
pub use privacy::{Forget, HeldThing};
pub use runs::{CloseRun, OpenRun};
pub use sessions::{Delegate, SESSION_TTL_MAX_S};
pub use staging::Staging;
pub use standing::ProposedStanding;
pub use stats::{StatsCalls, StatsFile, StatsRuns};
pub use transactions::{BeginTransaction, CommitTransaction};
pub use undo::UndoTarget;

/// Everything behind the doors. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host(Arc<Services>);

#[derive(Debug)]
struct Services {
    config: Config,
    ambient: Ambient,
    authenticator: Authenticator,
    failures: credentials::Failures,
    workspaces: Workspaces,
    catalog: CatalogHandle,
    policy: PolicyHandle,
    admission: Admission,
    kill: KillSwitch,
    breakers: Breakers,
    results: Results,
    budgets: Budgets,
    ledger: Ledger,
    blobs: Blobs,
    executor: Executor,
    committer: Arc<Committer>,
    exposures: Exposures,
    autonomy: Arc<Autonomies>,
    standing: StandingBook,
    flights: Flights,
    notices: Notices,
    outbox: Outbox,
    witnesses: Witnesses,
    notify: Notify,
    metrics: Metrics,
    measured: Measured,
    tracing: Tracing,
    turns: Turns,
    jobs: jobs::Jobs,
    /// Held by the one task that runs the suites of new versions.
    fresh_runs: tokio::sync::Mutex<()>,
    checks: checks::Checks,
    runtime: tokio::runtime::Handle,
}

impl Host {
    /// Who connects to the agent socket.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn authenticate(&self, peer: Peer) -> Result<Caller, Refusal> {
        self.0.authenticator.caller(peer)
    }

    /// Whether a peer that is nobody by its uid may be somebody by what it shows.
    #[must_use]
    pub fn takes_credentials(&self) -> bool {
        self.0.authenticator.takes_credentials()
    }

    /// Who connects to the admin socket.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn authenticate_operator(&self, peer: Peer, token: Option<&str>) -> Result<Operator, Refusal> {
        let operator = self.0.authenticator.operator(peer, token, self.0.ambient.now_ms());
        operator.inspect_err(|refusal| {
            if token.is_some() {
                self.refused_credential(peer, Plane::Admin, refusal);
            }
        })
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.0.ambient.now_ms()
    }

    pub(crate) fn ambient(&self) -> &Ambient {
        &self.0.ambient
    }

    pub(crate) fn workspaces(&self) -> &Workspaces {
        &self.0.workspaces
    }

    pub(crate) fn catalog(&self) -> &CatalogHandle {
        &self.0.catalog
    }

    pub(crate) fn policy(&self) -> &PolicyHandle {
        &self.0.policy
    }

    /// The policies of this moment.
    pub(crate) fn policies(&self) -> Arc<Policies> {
        self.0.policy.current()
    }

    /// What a stored plan is looked at again with.
    pub(crate) fn in_force(&self) -> InForce {
        InForce {
            catalog: self.0.catalog.current(),
            policies: self.policies(),
            environment: self.0.config.environment,
            solo: self.0.config.solo,
            undo_bytes: self.undo_bytes(),
            now_ms: self.0.ambient.now_ms(),
            exposures: self.0.exposures.clone(),
            autonomy: Arc::clone(&self.0.autonomy),
            budgets: self.0.budgets.clone(),
        }
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.0.admission
    }

    pub(crate) fn breakers(&self) -> &Breakers {
        &self.0.breakers
    }

    pub(crate) fn budgets(&self) -> &Budgets {
        &self.0.budgets
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.0.executor
    }

    pub(crate) fn committer(&self) -> &Arc<Committer> {
        &self.0.committer
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.0.flights
    }

    /// Deliveries: what leaves after commits.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// Tell operators of a commit that a person has to look at.
    pub(crate) fn tell_outcome(&self, tenant: &TenantName, call: CallId, answer: &Answer) {
        let event = match answer.outcome {
            Outcome::Halted => Event::OutcomeHalted,
            Outcome::Unknown => Event::OutcomeUnknown,
            _ => return,
        };
        self.0.notify.event(event, tenant, json!({"call_id": call, "code": answer.code}));
    }

    pub(crate) fn undo_bytes(&self) -> u64 {
        self.0.config.limits.undo_bytes
    }

    pub(crate) fn approval_ttl_ms(&self) -> u64 {
        self.0.config.limits.approval_ttl_ms
    }

    pub(crate) fn plan_store(&self) -> PlanStore {
        PlanStore {
            ledger: self.0.ledger.clone(),
            blobs: self.0.blobs.clone(),
            ambient: self.0.ambient.clone(),
            approval_ttl_ms: self.0.config.limits.approval_ttl_ms,
            solo: self.0.config.solo,
            notify: self.0.notify.clone(),
        }
    }

    /// Run inside of whoever waits; alone and cancelled, if nobody does any more.
    pub(crate) fn attend<T: Send + 'static>(
        &self,
        cancel: Cancel,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Attended<T> {
        Attended::new(self.0.runtime.clone(), cancel, work)
    }

    /// Run in a task of its own, so that nobody's impatience ends it. What it logs is of the call that it is a part of.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.0.runtime.spawn(log::along(work))
    }

    /// Do something to its end, also if whoever asked for it goes away.
    ///
    /// # Errors
    /// Those of the work; `internal`: it panicked.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let panicked = |_| Err(Refusal::new(Code::Internal, "BUG: what was asked for panicked; look at the log"));
        self.spawn(work).await.unwrap_or_else(panicked)
    }

    /// Begin something that a stop has to wait for, other than a call: the ledger is not closed before the guard is dropped.
    ///
    /// # Errors
    /// `overloaded`: the daemon is stopping.
    pub(crate) fn accepting(&self) -> Result<Settling, Refusal> {
        let settling = self.0.flights.settle();
        if self.0.admission.draining() {
            return Err(Refusal::new(Code::Overloaded, "the daemon is stopping").after_ms(1_000));
        }
        Ok(settling)
    }

    /// End an entry and record it. Nothing is answered that is not recorded.
    pub(crate) fn record(&self, entry: Entry, status: Status, outcome: Outcome, ending: Ending) -> Answer {
        let row = entry.close(status, outcome, ending, self.0.ambient.now_ms());
        self.record_row(row)
    }

    /// End an entry with a refusal and record it.
    pub(crate) fn record_refusal(&self, entry: Entry, refusal: Refusal) -> Answer {
        if matches!(refusal.code, Code::ToolTrapped | Code::Halted | Code::Internal) {
            tracing::warn!(call = %entry.call(), tool = %entry.row().tool, code = refusal.code.word(), "{}", refusal.message);
        }
        if refusal.code == Code::Denied {
            self.escalate(entry.row(), Escalation::OutOfScope, &refusal.message);
        }
        let row = entry.refuse(refusal, Outcome::None, self.0.ambient.now_ms());
        self.record_row(row)
    }

    fn record_row(&self, row: CallRow) -> Answer {
        let answer = Answer::of_row(&row);
        let call = row.call;
        let recorded = row.recording.is_some();
        match self.0.ledger.record_call(row) {
            Ok(()) => {
                if recorded {
                    self.check_some_time(call);
                }
                answer
            }
            Err(error) => self.refused_now(call, error.refusal()),
        }
    }

    /// The answer to a request whose call is not changed by it, or could not be recorded: a result is withheld.
    pub(crate) fn refused_now(&self, call: CallId, refusal: Refusal) -> Answer {
        let status = status_of(refusal.code);
        let outcome = if status == Status::Held { Outcome::Pending } else { Outcome::None };
        Answer::of(&Reply { error: Some(refusal), ..Reply::of(call, status, outcome) })
    }

    /// The answer to a call whose task panicked.
    pub(crate) fn broken(&self, call: CallId) -> Answer {
        tracing::error!(%call, "BUG: the task of a call panicked");
        self.0.ledger.forget_call(call);
        self.refused_now(call, Refusal::new(Code::Internal, "the host failed; nothing more was changed"))
    }
}
