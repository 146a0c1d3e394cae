//! The path of one call, on one screen. Every stage is one file; each consumes the proof that the stage before it made, so
//! a skipped stage does not compile.
//!
//! A call has two halves, [`Host::call`] (propose) and `Host::settle`, that an allowed plan runs through in one go. A held
//! plan comes back in by `settle` alone, without executing again. Whoever stops
//! waiting for a call cancels an execution, never a commit: what is left behind ends by itself, on record. `undo`,
//! `replay` and `recover` are the other three entry points.

use std::sync::Arc;

use tokio::sync::mpsc;
use toolkeep_core::call::{CallRequest, Outcome, Status};
use toolkeep_core::id::CallId;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::capability::context::Progress;

use crate::admit::{self, Admitted};
use crate::approve::{self, Approved, Consent};
use crate::authenticate::Caller;
use crate::authorize;
use crate::commit;
use crate::decide::{self, Decision};
use crate::execute::{self, Line};
use crate::host::{Host, Staging};
use crate::record::{Answer, Ending, Entry};
use crate::screen::{self, Screened};
use crate::seal::{self, Sealed};
use crate::validate;

/// What the path came to, before it is recorded.
enum Passage {
    /// The call is over; this is how.
    Over(Status, Outcome, Box<Ending>),
    /// Ledger and reply are written.
    Recorded(Answer),
}

impl Passage {
    /// The tool returned an output and changes nothing.
    fn unchanged(output: &Screened) -> Self {
        Self::Over(Status::Ok, Outcome::None, Box::new(Ending::output(output)))
    }
}

impl Host {
    /// Propose: execute a tool and do with its plan what policy says, or only show it.
    ///
    /// Dropping the future cancels the execution. A commit that has begun goes on.
    pub async fn call(
        &self,
        caller: &Caller,
        request: CallRequest,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Answer {
        let id = CallId::new(self.ambient().uuid_v7());
        let line = Line::new(progress);
        let cancel = line.cancel();
        let flight = self.flights().enter(id, caller.principal_shared(), cancel.clone());
        let (host, caller) = (self.clone(), caller.clone());
        let call = async move {
            let entry = Entry::open(caller.principal(), &request, id, host.ambient().now_ms());
            let answer = host.propose(&caller, request, entry, line).await;
            drop(flight);
            answer
        };
        self.attend(cancel, call).await.unwrap_or_else(|_| self.broken(id))
    }

    async fn propose(&self, caller: &Caller, request: CallRequest, mut entry: Entry, line: Line) -> Answer {
        match self.steps(caller, request, &mut entry, line).await {
            Ok(Passage::Recorded(answer)) => answer,
            Ok(Passage::Over(status, outcome, ending)) => self.record(entry, status, outcome, *ending),
            Err(refusal) => self.record_refusal(entry, refusal),
        }
    }

    async fn steps(
        &self,
        caller: &Caller,
        request: CallRequest,
        entry: &mut Entry,
        line: Line,
    ) -> Result<Passage, Refusal> {
        let catalog = self.catalog().current();
        let call = validate::validate(&catalog, caller, request, entry.call())?;
        entry.validated(&call);
        let turn = self.turn(&call).await?;
        let grant = authorize::authorize(self.workspaces(), call)?;
        let ticket = match admit::admit(self.admission(), self.ledger(), grant).await? {
            Admitted::Fresh(ticket) => ticket,
            Admitted::Replay { reply, .. } => return Ok(Passage::Recorded(Answer::stored(reply, true))),
            Admitted::Unfinished { reply, .. } => return Ok(Passage::Recorded(Answer::stored(reply, false))),
        };
        entry.admitted(&ticket);
        let staging = self.staging(turn, &ticket).await?;
        let ground = staging.as_ref().map(Staging::ground);
        let executed = execute::execute(self.executor(), ticket, line, ground).await?;
        entry.executed(&executed);
        self.report_breaches(entry, &executed);
        if let Some(staging) = staging {
            return Ok(Passage::Recorded(self.stage(staging, executed, entry).await?));
        }
        let output = screen::screen(&executed)?;
        let planned = match seal::seal(executed, output, self.ambient(), self.approval_ttl_ms())? {
            Sealed::Nothing(output) => return Ok(Passage::unchanged(&output)),
            Sealed::Planned(planned) => planned,
        };
        match decide::decide(planned, self.undo_bytes()) {
            Decision::Nothing(planned) => Ok(Passage::unchanged(planned.output())),
            Decision::Deny { planned, breach } => Ok(self.denied(entry, &planned, breach)),
            Decision::Preview(planned) => {
                let store = self.plan_store();
                Ok(Passage::Recorded(approve::preview(&store, planned, entry.clone()).await?))
            }
            Decision::Hold { planned, need } => {
                let store = self.plan_store();
                Ok(Passage::Recorded(approve::hold(&store, planned, need, entry.clone()).await?))
            }
            Decision::Commit(allowed) => {
                Ok(Passage::Recorded(self.settle(approve::automatic(allowed, entry.clone())).await))
            }
        }
    }

    /// Settle: commit an approved plan, once, on record. Never cancelled by a caller that goes away.
    pub(crate) async fn settle(&self, approved: Approved) -> Answer {
        let (id, tenant) = (approved.call(), approved.tenant().clone());
        let (host, settling) = (self.clone(), self.flights().settle());
        let task = self.spawn(async move {
            let answer = commit::commit(host.committer(), approved).await;
            host.tell_outcome(&tenant, id, &answer);
            drop(settling);
            answer
        });
        task.await.unwrap_or_else(|_| self.broken(id))
    }

    /// Settle a plan that waited: its owner commits a preview, or people have agreed to it.
    pub(crate) async fn settle_stored(&self, consent: Consent) -> Answer {
        let (plan, call) = (consent.stored().plan.id(), consent.call());
        match approve::rehydrate(consent, &self.catalog().current(), self.undo_bytes(), self.ambient().now_ms()) {
            Ok(approved) => self.settle(approved).await,
            Err(refusal) => self.not_settled(plan, call, refusal).await,
        }
    }

    fn denied(&self, entry: &mut Entry, planned: &seal::Planned, breach: String) -> Passage {
        tracing::warn!(call = %entry.call(), tool = %entry.row().tool, %breach, "a plan was denied");
        self.audit_breach(entry.row(), &breach);
        let refusal = Refusal::new(Code::Denied, breach).hint("the plan was thrown away; nothing was changed");
        let ending = Ending::refused(refusal).plan(planned.plan());
        Passage::Over(Status::Denied, Outcome::Discarded, Box::new(ending))
    }

    /// Replay comes with the record; the entry point exists so that nothing else grows into its place.
    ///
    /// # Errors
    /// Always `not_found`: this version captures recordings and does not replay them.
    pub fn replay(&self, _caller: &Caller, call: CallId) -> Result<Arc<str>, Refusal> {
        Err(Refusal::new(Code::NotFound, format!("call {call} is recorded, but this version does not replay"))
            .hint("recordings are kept; a later version replays them"))
    }
}
