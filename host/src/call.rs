//! The path of one call, in one file. Every stage is one file; each consumes the proof that the stage before it made, so
//! a skipped stage does not compile.
//!
//! A call has two halves, [`Host::call`] (propose) and `Host::settle`, that an allowed plan runs through in one go. A held
//! plan comes back in by `settle` alone, without executing again. A tool that needs the answer to a request is executed in
//! parts: the request is a plan of its own, and once it is settled the tool runs again, with its answer. Whoever stops
//! waiting for a call cancels an execution, never a commit: what is left behind ends by itself, on record. `undo`,
//! `replay` and `recover` are the other three entry points.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::call::{CallRequest, Outcome, Status};
use toolkeep_core::id::CallId;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::capability::context::Progress;
use toolkeep_sandbox::execution::Cancel;
use toolkeep_sandbox::tape::Matching;

use crate::admit::{self, Admitted, Ticket};
use crate::approve::{self, Approved, Consent};
use crate::authenticate::{Caller, Operator};
use crate::authorize;
use crate::catalog::Tool;
use crate::commit;
use crate::decide::{self, Decision};
use crate::execute::{self, Executed, Given, Ground, Line, Unexecuted};
use crate::host::{Asked, Boundary, Ended, Escalation, Flight, Host, Part, Seen, Staging};
use crate::log::{self, About};
use crate::record::{Answer, Ending, Entry};
use crate::replay::{self, Manner};
use crate::results::ResultName;
use crate::screen::{self, Screened};
use crate::seal::{self, Sealed};
use crate::trace::{Context, Stage};
use crate::validate;

/// What the path came to, before it is recorded.
pub(crate) enum Passage {
    /// The call is over; this is how.
    Over(Status, Outcome, Box<Ending>),
    /// Ledger and reply are written.
    Recorded(Answer),
}

impl Passage {
    /// The tool returned an output and changes nothing.
    fn unchanged(output: Screened) -> Self {
        Self::Over(Status::Ok, Outcome::None, Box::new(Ending::output(output)))
    }
}

/// A call that has an id and is in flight, and has not begun.
#[derive(Debug)]
pub(crate) struct Boarded {
    id: CallId,
    line: Line,
    flight: Flight,
}

impl Boarded {
    /// Its id.
    pub(crate) const fn id(&self) -> CallId {
        self.id
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
        self.call_aboard(self.board(caller, progress), caller, request).await
    }

    /// The same under an id that was given before.
    pub(crate) async fn call_as(
        &self,
        id: CallId,
        caller: &Caller,
        request: CallRequest,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Answer {
        self.call_aboard(self.board_as(id, caller, progress), caller, request).await
    }

    /// Give a call its id. From here on it is in flight, and can be cancelled before it begins.
    pub(crate) fn board(&self, caller: &Caller, progress: Option<mpsc::Sender<Progress>>) -> Boarded {
        self.board_as(CallId::new(self.ambient().uuid_v7()), caller, progress)
    }

    fn board_as(&self, id: CallId, caller: &Caller, progress: Option<mpsc::Sender<Progress>>) -> Boarded {
        let line = Line::new(progress);
        let flight = self.flights().enter(id, caller.clone(), line.aboard());
        Boarded { id, line, flight }
    }

    /// Make a call that has its id.
    pub(crate) async fn call_aboard(&self, boarded: Boarded, caller: &Caller, request: CallRequest) -> Answer {
        let Boarded { id, line, flight } = boarded;
        let cancel = line.cancel();
        let (began, name) = (self.ambient().stopwatch(), request.tool.clone());
        let context = Context::of(request.meta.as_ref(), request.run, id);
        let about = About { call: id, trace: context.trace, caller: caller.clone() };
        let (host, caller) = (self.clone(), caller.clone());
        // Boxed before it is wrapped, so that what is moved from hand to hand is a pointer.
        let call = Box::pin(async move {
            let spans = host.tracing().begin(&context, || host.ambient().now_ns());
            let entry = Entry::open(caller.who(), &request, (id, context.trace), host.ambient().now_ms()).traced(spans);
            let answer = host.propose(&caller, request, entry, &line).await;
            host.measure(&caller, (&name, &line), &answer, &began);
            drop(flight);
            answer
        });
        self.attend(cancel, log::within(about, call)).await.unwrap_or_else(|_| self.broken(id))
    }

    async fn propose(&self, caller: &Caller, request: CallRequest, mut entry: Entry, line: &Line) -> Answer {
        let asked = Asked::from(&request);
        let passage = match self.steps(caller, request, &mut entry, line).await {
            Err(refusal) => Box::pin(self.fall_back(caller, asked, &mut entry, line, refusal)).await,
            passage => passage,
        };
        self.end(entry, passage).await
    }

    /// Whatever a call came to is recorded before it is answered.
    pub(crate) async fn end(&self, entry: Entry, passage: Result<Passage, Refusal>) -> Answer {
        entry.enters(Stage::Record, self.ambient());
        let traced = self.traced(&entry);
        let charge = entry.charge().cloned();
        let (mode, input) = (entry.row().mode, Arc::clone(&entry.row().input));
        let answer = match passage {
            Ok(Passage::Recorded(answer)) => answer,
            Ok(Passage::Over(status, outcome, ending)) => self.record(entry, status, outcome, *ending),
            Err(refusal) => {
                charge.iter().for_each(|charge| charge.not_intended());
                let dead = self.bury(&entry, &refusal);
                let answer = self.record_refusal(entry, refusal);
                if let Some(dead) = dead {
                    Box::pin(self.buried(dead)).await;
                }
                answer
            }
        };
        if let Some(traced) = traced {
            self.hand_over(traced, &answer);
        }
        self.reconcile(&Ended { charge, mode, input: &input }, answer)
    }

    async fn steps(
        &self,
        caller: &Caller,
        request: CallRequest,
        entry: &mut Entry,
        line: &Line,
    ) -> Result<Passage, Refusal> {
        self.may_begin(caller.principal())?;
        caller.spend_call()?;
        entry.enters(Stage::Validate, self.ambient());
        let catalog = self.catalog().current();
        let call = validate::validate(&catalog, caller, request, entry.call(), self.workspaces())?;
        entry.validated(&call);
        self.admission().pace(caller.principal(), call.tool())?;
        self.know_run(call.options().run).await?;
        line.calls(call.tool(), call.options().run);
        self.may_go_on(&call)?;
        let turn = self.turn(&call).await?;
        self.check_hold(call.options().run)?;
        let around = self.circumstances((caller.principal(), caller.origin()), &call.tool().name, call.options());
        entry.enters(Stage::Authorize, self.ambient());
        let policies = self.policies();
        entry.judged_by(policies.digest(&caller.principal().tenant));
        let grant = authorize::authorize(self.workspaces(), &policies, call, around)?;
        self.note_hidden(entry, &grant);
        self.may_go_on(grant.call())?;
        let tool = Arc::clone(grant.call().tool());
        entry.enters(Stage::Admit, self.ambient());
        let admitted = admit::admit(self.admission(), self.ledger(), self.budgets(), grant, &line.cancel()).await;
        if let Ok(Admitted::Fresh(ticket)) = &admitted {
            entry.admitted(ticket);
        }
        self.may_run(caller.principal(), &tool, entry.row().run)?;
        let ticket = match admitted? {
            Admitted::Fresh(ticket) => ticket,
            Admitted::Replay { call, reply } => {
                self.hear(entry, call).await?;
                return Ok(Passage::Recorded(Answer::stored(reply, true)));
            }
            Admitted::Unfinished { call, reply } => {
                self.hear(entry, call).await?;
                return Ok(Passage::Recorded(Answer::stored(reply, false)));
            }
        };
        let given = Given::fresh(self.ambient());
        // What most calls do not need is boxed, so that their future stays small: it is moved more than once.
        if let Some(staging) = Box::pin(self.staging(turn, &ticket)).await? {
            return Box::pin(self.staged(entry, ticket, line, given, staging)).await;
        }
        self.carry_on(entry, ticket, line, given).await
    }

    /// A call of a transaction: what it wants to change lies over what the calls before it wanted.
    async fn staged(
        &self,
        entry: &mut Entry,
        ticket: Box<Ticket>,
        line: &Line,
        given: Given,
        staging: Staging,
    ) -> Result<Passage, Refusal> {
        let mut executed = self.attempt(entry, ticket, line, &given, Some(staging.ground())).await?;
        executed.tell(self.breakers(), false);
        entry.executed(&executed);
        self.report_breaches(entry, &executed);
        Ok(Passage::Recorded(self.stage(staging, executed, entry).await?))
    }

    /// From the ticket on. A call that waited at a live request comes back in here.
    pub(crate) async fn carry_on(
        &self,
        entry: &mut Entry,
        mut ticket: Box<Ticket>,
        line: &Line,
        mut given: Given,
    ) -> Result<Passage, Refusal> {
        loop {
            let mut executed = self.attempt(entry, ticket, line, &given, None).await?;
            entry.executed(&executed);
            self.report_breaches(entry, &executed);
            let boundary = Boundary::of(&executed, &given);
            entry.enters(Stage::Screen, self.ambient());
            let looked = screen::screen(&executed, self.ambient());
            executed.tell(self.breakers(), looked.output.is_err());
            let seen = Seen::of(&executed, &looked);
            if !seen.is_ordinary() {
                Box::pin(self.observe(entry, &seen)).await?;
            }
            self.may_go_on(executed.ticket().grant().call())?;
            let output = looked.output.map_err(|refusal| executed.ticket().blamed(refusal))?;
            entry.spilled(&output);
            let tool = &executed.ticket().grant().call().tool().name;
            let around = self.circumstances_of(entry, tool).tainted(seen.taint);
            let naming = self.naming(entry, &executed, boundary.as_ref(), &given, around.taint);
            let call = naming.call;
            entry.enters(Stage::Plan, self.ambient());
            let without_plan = executed.ticket().grant().without_plan();
            let planned = match seal::seal(executed, output, self.ambient(), naming)? {
                Sealed::Nothing(output) => return without_plan.map(|()| Passage::unchanged(output)),
                Sealed::Planned(planned) => planned,
            };
            self.may_go_on(planned.ticket().grant().call())?;
            entry.enters(Stage::Decide, self.ambient());
            let (decision, ruling) = decide::decide(planned, &self.policies(), around, self.undo_bytes())?;
            let decision = decision.covered(|planned, need| self.standing_for(planned, need, around.taint));
            self.note_ruling(entry, &decision, &ruling, around);
            self.afford(entry, &decision, boundary.is_none())?;
            let Some(boundary) = boundary else { return Box::pin(self.conclude(entry, decision)).await };
            match Box::pin(self.part(entry, call, decision, boundary)).await? {
                Part::Answered(same, more) => (ticket, given) = (same, more),
                Part::Stopped(passage) => return Ok(*passage),
            }
        }
    }

    /// Execute, unless it was stopped in the meantime, or its result is kept.
    async fn attempt(
        &self,
        entry: &mut Entry,
        ticket: Box<Ticket>,
        line: &Line,
        given: &Given,
        ground: Option<Ground>,
    ) -> Result<Executed, Refusal> {
        let call = ticket.grant().call();
        self.may_go_on(call)?;
        let tool = Arc::clone(call.tool());
        let (name, alone) = (ResultName::of(call).filter(|_| ground.is_none()), ground.is_none());
        let ticket = match name {
            None => ticket,
            Some(name) => match Box::pin(self.kept(name, ticket)).await {
                Ok(kept) => {
                    entry.cached();
                    self.metrics().cached();
                    return Ok(kept);
                }
                Err(ticket) => ticket,
            },
        };
        // What is kept has a seed of its own, so that it is what anybody would get.
        let seeded = name.map(|name| given.with_seed(name.seed()));
        let given = seeded.as_ref().unwrap_or(given);
        entry.enters(Stage::Execute, self.ambient());
        let began = self.ambient().stopwatch();
        let executed = execute::execute(self.executor(), ticket, line, given, ground).await;
        self.metrics().of_tool(&tool.name, &tool.series).executed(began.elapsed());
        let executed = self.attempted(entry, executed, &tool, alone)?;
        if let Some(name) = name {
            self.keep_result(name, &executed, entry);
        }
        Ok(executed)
    }

    /// Note how often it was tried. What was stopped while it ran says that it was.
    fn attempted(
        &self,
        entry: &mut Entry,
        executed: Result<Executed, Unexecuted>,
        tool: &Tool,
        alone: bool,
    ) -> Result<Executed, Refusal> {
        match executed {
            Ok(executed) => {
                let (attempts, exhausted) = executed.attempts();
                entry.attempted(attempts, exhausted && alone);
                Ok(executed)
            }
            Err(Unexecuted { refusal, attempts, exhausted }) => {
                self.may_run(&entry.row().principal, tool, entry.row().run)?;
                entry.attempted(attempts, exhausted && alone);
                Err(refusal)
            }
        }
    }

    /// What is decided about the plan of a whole call.
    async fn conclude(&self, entry: &mut Entry, decision: Decision) -> Result<Passage, Refusal> {
        match decision {
            Decision::Nothing(planned) => {
                planned.ticket().grant().without_plan().map(|()| Passage::unchanged(planned.output().clone()))
            }
            Decision::Deny { planned, breach } => Ok(self.denied(entry, &planned, breach)),
            Decision::Preview(planned) => {
                entry.enters(Stage::Approve, self.ambient());
                let store = self.plan_store();
                Ok(Passage::Recorded(approve::preview(&store, planned, entry.clone()).await?))
            }
            Decision::Hold { planned, need } => {
                entry.enters(Stage::Approve, self.ambient());
                let store = self.plan_store();
                Ok(Passage::Recorded(approve::hold(&store, planned, need, entry.clone()).await?))
            }
            Decision::Commit(allowed) => {
                entry.enters(Stage::Commit, self.ambient());
                Ok(Passage::Recorded(self.settle(approve::automatic(allowed, entry.clone())).await))
            }
        }
    }

    /// Settle: commit an approved plan, once, on record. Never cancelled by a caller that goes away.
    pub(crate) async fn settle(&self, approved: Approved) -> Answer {
        let (id, tenant, standing) = (approved.call(), approved.tenant().clone(), approved.uses_standing());
        let (host, settling) = (self.clone(), self.flights().settle());
        let task = self.spawn(async move {
            let began = host.ambient().stopwatch();
            let answer = commit::commit(host.committer(), approved).await;
            host.metrics().committed(answer.outcome, began.elapsed());
            host.tell_outcome(&tenant, id, &answer);
            host.check_some_time(id);
            if standing && answer.outcome != Outcome::Committed {
                host.return_standing().await;
            }
            drop(settling);
            answer
        });
        task.await.unwrap_or_else(|_| self.broken(id))
    }

    /// Settle a plan that waited: its owner commits a preview, or people have agreed to it.
    pub(crate) async fn settle_stored(&self, consent: Consent) -> Answer {
        let stored = consent.stored();
        let (plan, call, input) = (stored.plan.clone(), consent.call(), Arc::clone(&stored.call.row.input));
        if let Err(killed) = self.may_settle(&plan).await {
            return self.not_settled(plan.id(), call, killed).await;
        }
        if let Err(refusal) = self.trusted(&stored.call.row).await {
            return self.not_settled(plan.id(), call, Refusal { code: Code::StalePlan, ..refusal }).await;
        }
        let standing = matches!(consent, Consent::Standing(..));
        let in_force = self.in_force();
        let charged = match approve::possible_now(&consent, &in_force) {
            Ok(()) => self.charge_consent(&consent).await,
            Err(_) => Ok(None),
        };
        let answer = match charged.as_ref().map_err(Clone::clone).and_then(|_| approve::rehydrate(consent, &in_force)) {
            Ok(approved) => self.settle(approved).await,
            Err(refusal) => {
                if standing {
                    self.return_standing().await;
                }
                self.not_settled(plan.id(), call, refusal).await
            }
        };
        self.after_stored(charged.ok().flatten(), &plan, &input, &answer).await;
        answer
    }

    pub(crate) fn denied(&self, entry: &mut Entry, planned: &seal::Planned, breach: String) -> Passage {
        tracing::warn!(call = %entry.call(), tool = %entry.row().tool, %breach, "a plan was denied");
        self.escalate(entry.row(), Escalation::Boundary, &breach);
        self.tell_denied(entry.row(), &breach);
        let refusal = Refusal::new(Code::Denied, breach).hint("the plan was thrown away; nothing was changed");
        let ending = Ending::refused(refusal).plan(planned.plan());
        Passage::Over(Status::Denied, Outcome::Discarded, Box::new(ending))
    }

    /// Replay: execute a recorded call again, offline, and compare. Nothing of it is committed, charged or recorded as a call.
    ///
    /// # Errors
    /// `not_found`: there is no such call of the operator's tenant. `not_replayable` with the reason.
    pub async fn replay(&self, operator: &Operator, call: CallId) -> Result<Value, Refusal> {
        let subject = self.subject(operator, call).await?;
        self.note(operator, AuditKind::Evaluation, json!({"what": "replay", "call": call})).await?;
        let version = self.version_of(&subject.row).await?;
        let manner = Manner { matching: Matching::Strict, behind: false, cancel: Cancel::new() };
        let execution = replay::play(self.executor(), &subject, &version, &manner).await?;
        Ok(self.compared(operator, &subject, &version, &execution).await)
    }
}
