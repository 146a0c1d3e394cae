//! Live requests: a tool that needs the answer of another system before it goes on.
//!
//! Such a request is a plan of its own, under a call of its own: sealed, decided, held if need be, committed, receipted. Its
//! parent is kept as a call that waits, with everything that its executions have in common, before the request may leave.
//! Once the request is settled the tool is executed again from the start, is given the same exchanges and then the new
//! answer; if it asks for anything else on the way, it ends there and nothing more is sent. What it stages besides stays
//! staged until it returns.
//!
//! A crash, an approval that comes days later and an operator who says what became of a request all come back in the same
//! way, by [`Host::resume`]: no request is sent a second time, because its answer is stored with its plan.

use toolkeep_core::call::{CallRequest, Mode, Outcome, Reply, Status};
use toolkeep_core::id::CallId;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::render::subject;
use toolkeep_core::taint::Taint;
use toolkeep_sandbox::port::Exchange;

use uuid::Uuid;

use super::Host;
use crate::admit::{self, Ticket};
use crate::approve;
use crate::authenticate::Caller;
use crate::authorize;
use crate::call::Passage;
use crate::decide::Decision;
use crate::execute::{Executed, Given, Line};
use crate::ledger::{CallRow, Continuation, LedgerError, Scope, Suspended};
use crate::log::{self, About};
use crate::notes::Notes;
use crate::record::{Answer, Ending, Entry};
use crate::seal::Naming;
use crate::trace::Context;
use crate::validate;

/// Most live requests of one call: each executes the tool once more.
const LIVE_MAX: u32 = 16;

/// Where an execution ended because it needs an answer.
#[derive(Debug)]
pub(crate) struct Boundary {
    /// What the next execution is given, except for the answer.
    given: Given,
}

impl Boundary {
    /// The boundary at which an execution ended, if it did.
    pub(crate) fn of(executed: &Executed, given: &Given) -> Option<Self> {
        executed.live()?;
        let exchanges = executed.execution().exchanges.clone();
        Some(Self { given: Given { exchanges, ..given.clone() } })
    }
}

/// What a part of an execution came to.
pub(crate) enum Part {
    /// The request was answered: go on with this.
    Answered(Box<Ticket>, Given),
    /// The call does not go on now.
    Stopped(Box<Passage>),
}

/// What became of the wish that a call that waits goes on.
enum Resumed {
    /// It went on, or does not go on now.
    Done,
    /// It is in flight.
    InFlight,
}

impl Part {
    fn stopped(passage: Passage) -> Self {
        Self::Stopped(Box::new(passage))
    }
}

impl Host {
    /// How the plan of this part of a call is named. A preview stops at its first live request, under its own name.
    pub(crate) fn naming(
        &self,
        entry: &Entry,
        executed: &Executed,
        boundary: Option<&Boundary>,
        given: &Given,
        taint: Taint,
    ) -> Naming {
        let commits = executed.ticket().grant().call().options().mode == Mode::Commit;
        // The same part of the same call has the same id, so that its `Idempotency-Key` stays the same, too.
        let part = || Uuid::new_v5(entry.call().uuid(), format!("live {}", given.sent).as_bytes());
        let call = if boundary.is_some() && commits { CallId::new(part()) } else { entry.call() };
        Naming { call, segment: given.sent, approval_ttl_ms: self.approval_ttl_ms(), taint }
    }

    /// Carry out what was decided about a live request.
    pub(crate) async fn part(
        &self,
        entry: &mut Entry,
        call: CallId,
        decision: Decision,
        boundary: Boundary,
    ) -> Result<Part, Refusal> {
        if boundary.given.sent >= LIVE_MAX {
            return Err(Refusal::new(Code::Denied, format!("the tool wants more than {LIVE_MAX} live requests")));
        }
        match decision {
            Decision::Nothing(_) => Err(Refusal::new(Code::Internal, "BUG: a live request without an effect")),
            Decision::Deny { planned, breach } => Ok(Part::stopped(self.denied(entry, &planned, breach))),
            Decision::Preview(planned) => {
                entry
                    .warn("the preview stops at a request whose answer the tool needs; what it does then is not known");
                let answer = approve::preview(&self.plan_store(), planned, entry.clone()).await?;
                Ok(Part::stopped(Passage::Recorded(answer)))
            }
            Decision::Commit(allowed) => {
                self.suspend(entry, call, &boundary.given, None).await?;
                let part = entry.part(call, self.ambient().now_ms(), self.ambient().uuid_v7());
                let charge = part.charge().cloned();
                let (approved, ticket) = approve::part(allowed, part);
                let sent = self.settle(approved).await;
                charge.iter().for_each(|charge| charge.close());
                self.after(entry, call, ticket, boundary.given, &sent).await
            }
            Decision::Hold { planned, need } => {
                self.suspend(entry, call, &boundary.given, None).await?;
                let child = entry.part(call, self.ambient().now_ms(), self.ambient().uuid_v7());
                let charge = child.charge().cloned();
                let held = approve::hold(&self.plan_store(), planned, need, child).await?;
                charge.iter().for_each(|charge| charge.close());
                let answer = self.suspend(entry, call, &boundary.given, Some(&held)).await?;
                // It does not run any more: a retry is told what its row says.
                self.ledger().forget_call(entry.call());
                Ok(Part::stopped(Passage::Recorded(answer)))
            }
        }
    }

    /// Keep a call as one that waits for its part `child`. `held` is the part's reply if people have to agree to it.
    async fn suspend(
        &self,
        entry: &mut Entry,
        child: CallId,
        given: &Given,
        held: Option<&Answer>,
    ) -> Result<Answer, Refusal> {
        let part = held.and_then(|held| serde_json::from_str::<Reply>(&held.reply).ok());
        let (status, outcome, ending) = match part {
            Some(part) => {
                let ending =
                    Ending { error: part.error, plan: part.plan, approval: part.approval, ..Ending::default() };
                (Status::Held, Outcome::Pending, ending)
            }
            None => {
                let message = format!("a request of this call is under way as {child}; ask for the call again");
                (Status::Unknown, Outcome::Unknown, Ending::refused(Refusal::new(Code::UnknownOutcome, message)))
            }
        };
        let row = entry.clone().close(status, outcome, ending, self.ambient().now_ms());
        let answer = Answer::of_row(&row);
        let Given { wall_clock_ns, seed, exchanges, sent } = given.clone();
        let continuation = Continuation { child, wall_clock_ns, seed, exchanges, sent };
        self.ledger().suspend(Suspended { row, continuation }).await.map_err(|error| error.refusal())?;
        entry.suspended();
        Ok(answer)
    }

    /// What becomes of a call when its part `child` ended with `sent`.
    async fn after(
        &self,
        entry: &mut Entry,
        child: CallId,
        ticket: Box<Ticket>,
        given: Given,
        sent: &Answer,
    ) -> Result<Part, Refusal> {
        match sent.outcome {
            Outcome::Committed => Ok(Part::Answered(ticket, self.answered(entry, child, given).await?)),
            _ => self.unanswered(entry, child, sent).map(Part::stopped),
        }
    }

    /// The next execution is given the answer to the request of `child`, too.
    async fn answered(&self, entry: &mut Entry, child: CallId, mut given: Given) -> Result<Given, Refusal> {
        let sends = self.ledger().sends_of_call(child).await.map_err(|error| error.refusal())?;
        let exchange: Option<Exchange> = sends.first().and_then(|sent| sent.exchange());
        let Some(exchange) = exchange else {
            return Err(Refusal::new(Code::Internal, "the answer to a live request is not on record"));
        };
        given.exchanges.push(exchange);
        given.sent += 1;
        if let Some(sent) = sends.first() {
            entry.warn(format!("sent while the tool ran: {} ({child})", subject(&sent.effect)));
        }
        Ok(given)
    }

    /// A call whose request was not done ends as the request did; one whose request is unknown waits for an operator.
    fn unanswered(&self, entry: &Entry, child: CallId, sent: &Answer) -> Result<Passage, Refusal> {
        let part = serde_json::from_str::<Reply>(&sent.reply).ok();
        let refusal = part.and_then(|part| part.error).unwrap_or_else(|| {
            Refusal::new(Code::Internal, format!("a request of the call ended without an answer; see {child}"))
        });
        match sent.outcome {
            Outcome::Unknown | Outcome::Pending => {
                self.ledger().forget_call(entry.call());
                let row = entry.clone().close(
                    Status::Unknown,
                    Outcome::Unknown,
                    Ending::refused(refusal),
                    self.ambient().now_ms(),
                );
                Ok(Passage::Recorded(Answer::of_row(&row)))
            }
            _ => Err(refusal),
        }
    }

    /// Go on with the call whose part `child` was settled, rejected or resolved, if it is a part of one.
    pub(crate) async fn resume(&self, child: CallId) {
        loop {
            let found = match self.ledger().continuation_of(child).await {
                Ok(found) => found,
                Err(error) => return tracing::error!(%error, %child, "a call that waits could not be looked up"),
            };
            let Some(Suspended { row, .. }) = found else { return };
            match self.resume_suspended(&row, child).await {
                Ok(Resumed::Done) => return,
                // It has not come to rest yet. What it waits for then may be over by then.
                Ok(Resumed::InFlight) => self.flights().landed(row.call).await,
                Err(error) => {
                    return tracing::error!(error = %error.message, call = %row.call, "a call that waits could not go on");
                }
            }
        }
    }

    /// Go on with a call that waits for its part `child`, if that has ended. It is in flight from before anything is looked
    /// at, so that it goes on once, whoever else wants it to.
    async fn resume_suspended(&self, found: &CallRow, child: CallId) -> Result<Resumed, Refusal> {
        if self.admission().draining() {
            // The next start looks for it.
            return Ok(Resumed::Done);
        }
        let (parent, line) = (found.call, Line::new(None));
        let owner = Caller::resumed((&found.principal, &found.origin), None);
        let Some(flight) = self.flights().enter_again(parent, owner.clone(), line.aboard()) else {
            tracing::info!(call = %parent, "a call that waits is under way");
            return Ok(Resumed::InFlight);
        };
        let failed = |error: LedgerError| error.refusal();
        let Some(suspended) = self.ledger().continuation_of(child).await.map_err(failed)? else {
            return Ok(Resumed::Done);
        };
        let Suspended { row, continuation } = suspended;
        let part = self.ledger().call(&Scope::Operator, child).await.map_err(failed)?;
        let sent = part.map(|part| Answer::of_row(&part.row));
        match sent.as_ref().map(|sent| sent.outcome) {
            Some(Outcome::Pending) => return Ok(Resumed::Done),
            Some(Outcome::Unknown) => {
                self.waits_unknown(row, continuation).await;
                return Ok(Resumed::Done);
            }
            _ => {}
        }
        self.know_run(row.run).await?;
        if self.stops_row(&row) {
            // It waits on: whoever clears the switch looks for it.
            tracing::info!(call = %parent, "a call that waits does not go on: it is stopped");
            return Ok(Resumed::Done);
        }
        let trace = row.trace.unwrap_or_else(|| Context::of(None, row.run, parent).trace);
        let about = About { call: parent, trace, caller: owner };
        let host = self.clone();
        let work = log::within(about, async move {
            let request = host.request_of(&row).await;
            let mut entry = Entry::resume(row);
            entry.suspended();
            let passage = host.go_on(&mut entry, request, (continuation, sent), &line).await;
            let answer = host.end(entry, passage).await;
            drop(flight);
            answer
        });
        if self.spawn(work).await.is_err() {
            self.broken(parent);
        }
        self.0.notices.announce();
        Ok(Resumed::Done)
    }

    /// Go on with every call that waits and whose part has ended.
    pub(super) async fn resume_all(&self) {
        let waiting = match self.ledger().continuations().await {
            Ok(waiting) => waiting,
            Err(error) => return tracing::error!(%error, "calls that wait could not be looked up"),
        };
        for Suspended { row, continuation } in waiting {
            match self.resume_suspended(&row, continuation.child).await {
                Ok(Resumed::Done) => {}
                Ok(Resumed::InFlight) => {
                    let host = self.clone();
                    self.spawn(async move { host.resume(continuation.child).await });
                }
                Err(error) => {
                    tracing::error!(error = %error.message, call = %row.call, "a call that waits could not go on");
                }
            }
        }
    }

    /// Nobody knows what became of a request of a call: that is what the call says from now on, and it goes on waiting.
    async fn waits_unknown(&self, row: CallRow, continuation: Continuation) {
        let (parent, child) = (row.call, continuation.child);
        if row.status == Status::Unknown {
            return;
        }
        let message = format!("nobody knows what became of a request of this call; see {child}");
        let mut entry = Entry::resume(row);
        entry.suspended();
        let ending = Ending::refused(Refusal::new(Code::UnknownOutcome, message));
        let row = entry.close(Status::Unknown, Outcome::Unknown, ending, self.ambient().now_ms());
        if let Err(error) = self.ledger().suspend(Suspended { row, continuation }).await {
            tracing::error!(%error, call = %parent, "a call could not be noted as unknown");
        }
    }

    async fn go_on(
        &self,
        entry: &mut Entry,
        request: Result<CallRequest, Refusal>,
        (continuation, sent): (Continuation, Option<Answer>),
        line: &Line,
    ) -> Result<Passage, Refusal> {
        let Continuation { child, wall_clock_ns, seed, exchanges, sent: live } = continuation;
        let mut given = Given { wall_clock_ns, seed, exchanges, sent: live };
        match &sent {
            Some(sent) if sent.outcome == Outcome::Committed => given = self.answered(entry, child, given).await?,
            Some(sent) => return self.unanswered(entry, child, sent),
            // The daemon stopped before the part was kept: nothing was sent, and the tool asks for it again.
            None => {}
        }
        let caller = self.caller_of(entry.row()).await?;
        let catalog = self.catalog().current();
        let call = validate::validate(&catalog, &caller, request?, entry.call(), self.workspaces())?;
        let same = entry.row().component == Some(call.tool().component.digest)
            && entry.row().manifest == Some(call.tool().manifest.digest);
        if !same {
            return Err(Refusal::new(Code::StalePlan, "the tool changed while the call waited; nothing more was sent"));
        }
        self.know_run(call.options().run).await?;
        line.calls(call.tool(), call.options().run);
        self.may_go_on(&call)?;
        let who = (caller.principal(), caller.origin());
        let around = self.circumstances(who, &call.tool().name, call.options());
        let grant = authorize::authorize(self.workspaces(), &self.policies(), call, around)?;
        let ticket = admit::readmit(self.admission(), self.budgets(), grant, &line.cancel()).await?;
        entry.goes_on(self.ambient().now_ms(), ticket.charge().cloned());
        ticket.charge().into_iter().for_each(|charge| charge.begin_after(given.exchanges.len()));
        self.carry_on(entry, ticket, line, given).await
    }
    /// The request that a stored call was made by.
    pub(super) async fn request_of(&self, row: &CallRow) -> Result<CallRequest, Refusal> {
        let input = serde_json::from_str(&row.input)
            .map_err(|_| Refusal::new(Code::Internal, "the stored input of the call cannot be read"))?;
        let notes = self.ledger().notes(&Scope::Operator, row.call).await.map_err(|error| error.refusal())?;
        Ok(CallRequest {
            mode: row.mode,
            run: row.run,
            step: row.step.as_deref().map(str::to_owned),
            expect_plan: notes.as_deref().map(Notes::read).unwrap_or_default().expect_plan,
            ..CallRequest::of(row.tool.clone(), input)
        })
    }
}
