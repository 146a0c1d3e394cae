//! Stage 10, record: the entry of a call, opened before its first stage and closed after its last.
//!
//! An [`Entry`] is the call's row under construction. Every way out of the path closes it, so there is no reply without a
//! row: [`Entry::close`] is the only maker of replies. Where the ledger cannot take the row, the caller gets a
//! refusal instead of the result, because nothing runs unrecorded.

mod clock;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use toolkeep_core::call::{
    ApprovalView, CallRequest, Detour, Outcome, PlanView, Reply, Status, TransactionView, Usage,
};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::CallId;
use toolkeep_core::limit::EFFECTS_SHOWN;
use toolkeep_core::plan::Plan;
use toolkeep_core::price::Usd;
use toolkeep_core::principal::{Origin, Principal};
use toolkeep_core::receipt::Receipt;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::trace::TraceId;
use uuid::Uuid;

use crate::admit::Ticket;
use crate::ambient::Ambient;
use crate::budget::charge::Charge;
use crate::catalog::Tool;
use crate::execute::Executed;
use crate::ledger::{CallKey, CallRow, ChargeRow};
use crate::notes::Notes;
use crate::screen::Screened;
use crate::trace::{Spans, Stage};
use crate::validate::Call;
use clock::Clock;

/// What a row says of an input that was refused before it was canonical.
const NO_INPUT: &str = "null";

/// The row of a call under construction.
#[derive(Debug, Clone)]
pub struct Entry {
    row: CallRow,
    warnings: Vec<String>,
    labels: Vec<String>,
    notes: Notes,
    clock: Clock,
    charge: Option<Arc<Charge>>,
    detour: Detour,
    /// The key that the call asked for, until it holds it.
    asked: Option<CallKey>,
    /// Whether it was given up after all its attempts.
    exhausted: bool,
    /// Its way so far, if it is sampled.
    spans: Option<Spans>,
}

/// What a stored reply says besides how the call ended.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    detour: Detour,
    #[serde(default)]
    trace_id: Option<TraceId>,
}

/// How a call ends, before it is made a reply.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// What the tool returned.
    pub output: Option<Value>,
    /// Why it did not do what was asked.
    pub error: Option<Refusal>,
    /// What it wants to change, or did.
    pub plan: Option<PlanView>,
    /// Whom it waits for.
    pub approval: Option<ApprovalView>,
    /// Proof of what was committed.
    pub receipt: Option<Receipt>,
    /// Where its effects are staged.
    pub transaction: Option<TransactionView>,
}

impl Ending {
    /// A call that ended with a refusal.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        Self { error: Some(refusal), ..Self::default() }
    }

    /// A call that returned an output.
    #[must_use]
    pub fn output(output: Screened) -> Self {
        Self { output: output.leaving(), ..Self::default() }
    }

    /// With its plan.
    #[must_use]
    pub fn plan(mut self, plan: &Plan) -> Self {
        self.plan = Some(view(plan));
        self
    }
}

/// What a caller gets: the text of a reply, with the parts that doors look at.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The reply, JSON. The stored bytes, where a retry is answered.
    pub reply: Arc<str>,
    /// How it went.
    pub status: Status,
    /// What became of the effects.
    pub outcome: Outcome,
    /// Why it did not do what was asked.
    pub code: Option<Code>,
    /// Whether the bytes were stored before and are given again.
    pub replayed: bool,
    /// What is left of the budgets, JSON; outside of what is stored.
    pub budget: Option<Arc<str>>,
}

impl Answer {
    /// A reply that was just made.
    #[must_use]
    pub fn of(reply: &Reply) -> Self {
        Self {
            reply: encode(reply),
            status: reply.status,
            outcome: reply.outcome,
            code: reply.error.as_ref().map(|refusal| refusal.code),
            replayed: false,
            budget: None,
        }
    }

    /// The reply of a closed row.
    #[must_use]
    pub fn of_row(row: &CallRow) -> Self {
        Self {
            reply: Arc::clone(&row.reply),
            status: row.status,
            outcome: row.outcome,
            code: row.error_code,
            replayed: false,
            budget: None,
        }
    }

    /// A reply that is stored. Its parts are read from its text.
    #[must_use]
    pub fn stored(reply: Arc<str>, replayed: bool) -> Self {
        /// The parts of a reply that doors look at.
        #[derive(serde::Deserialize)]
        struct Parts {
            status: Status,
            outcome: Outcome,
            error: Option<Error>,
        }
        #[derive(serde::Deserialize)]
        struct Error {
            code: Code,
        }
        let parts = serde_json::from_str::<Parts>(&reply).ok();
        Self {
            status: parts.as_ref().map_or(Status::Failed, |parts| parts.status),
            outcome: parts.as_ref().map_or(Outcome::None, |parts| parts.outcome),
            code: parts.and_then(|parts| parts.error.map(|error| error.code)),
            reply,
            replayed,
            budget: None,
        }
    }
}

/// A plan as a reply shows it.
#[must_use]
pub fn view(plan: &Plan) -> PlanView {
    PlanView {
        id: plan.id(),
        digest: plan.digest(),
        totals: plan.totals(),
        effects: plan.body().effects.iter().take(EFFECTS_SHOWN).cloned().collect(),
        expires_at_ms: plan.binding().expires_at_ms,
    }
}

/// The status that a refusal gives to a call.
#[must_use]
pub const fn status_of(code: Code) -> Status {
    match code {
        Code::Unauthorized
        | Code::Denied
        | Code::BudgetExceeded
        | Code::RateLimited
        | Code::CircuitOpen
        | Code::Killed
        | Code::LoopDetected
        | Code::GateUnmet
        | Code::ApprovalRejected
        | Code::ApprovalExpired => Status::Denied,
        Code::ApprovalRequired => Status::Held,
        Code::UnknownOutcome => Status::Unknown,
        Code::InvalidInput
        | Code::NotFound
        | Code::OutOfFuel
        | Code::DeadlineExceeded
        | Code::MemoryExceeded
        | Code::OutputTooLarge
        | Code::ToolFailed
        | Code::ToolTrapped
        | Code::StalePlan
        | Code::PlanDiverged
        | Code::EffectRefused
        | Code::NotReplayable
        | Code::EvalFailed
        | Code::IdempotencyMismatch
        | Code::InFlight
        | Code::Overloaded
        | Code::Halted
        | Code::Internal => Status::Failed,
    }
}

impl Entry {
    /// Open the entry of a request: of whom, and how they came to act.
    #[must_use]
    pub fn open(
        (principal, origin): (&Principal, &Origin),
        request: &CallRequest,
        (call, trace): (CallId, TraceId),
        started_ms: u64,
    ) -> Self {
        Self {
            row: CallRow {
                trace: Some(trace),
                call,
                suspended: false,
                principal: principal.clone(),
                origin: origin.clone(),
                run: request.run,
                step: request.step.as_deref().map(Into::into),
                tool: request.tool.clone(),
                component: None,
                manifest: None,
                tier: None,
                policy_set: None,
                mode: request.mode,
                input: NO_INPUT.into(),
                input_digest: Digest::of(NO_INPUT.as_bytes()),
                status: Status::Failed,
                outcome: Outcome::None,
                error_code: None,
                reply: NO_INPUT.into(),
                usage: Usage::default(),
                recording: None,
                beside: None,
                started_ms,
                ended_ms: started_ms,
                key: None,
                notes: None,
                charge: None,
                output: None,
            },
            warnings: Vec::new(),
            labels: Vec::new(),
            notes: Notes::default(),
            clock: Clock { before_ms: 0, since_ms: Some(started_ms) },
            charge: None,
            detour: Detour::default(),
            asked: None,
            exhausted: false,
            spans: None,
        }
    }

    /// With where marks of its way go, if it is sampled.
    #[must_use]
    pub fn traced(self, spans: Option<Spans>) -> Self {
        Self { spans, ..self }
    }

    /// Its way so far, if it is sampled.
    #[must_use]
    pub const fn spans(&self) -> Option<&Spans> {
        self.spans.as_ref()
    }

    /// A stage begins.
    pub fn enters(&self, stage: Stage, ambient: &Ambient) {
        if let Some(spans) = &self.spans {
            spans.enter(stage, ambient.now_ns());
        }
    }

    /// The entry of a part of this call that is settled by itself: a live request, under a call id of its own. `charge` names
    /// what it is charged, if it is.
    #[must_use]
    pub fn part(&self, call: CallId, now_ms: u64, charge: Uuid) -> Self {
        let mut row = self.row.clone();
        row.call = call;
        row.key = None;
        row.recording = None;
        row.beside = None;
        row.output = None;
        row.usage = Usage::default();
        row.started_ms = now_ms;
        row.suspended = false;
        let charge = self.charge.as_ref().map(|whole| Arc::new(whole.part(charge, call)));
        let clock = Clock { before_ms: 0, since_ms: None };
        Self {
            row,
            warnings: Vec::new(),
            labels: Vec::new(),
            notes: self.notes.clone(),
            clock,
            charge,
            detour: Detour::default(),
            asked: None,
            exhausted: false,
            spans: None,
        }
    }

    /// The call is kept as one that waits: the row that ends it takes the place of that one.
    pub const fn suspended(&mut self) {
        self.row.suspended = true;
    }

    /// An entry of a stored call that goes on: a plan that is settled later. Its time stands still, and what its reply
    /// warns of stays true.
    #[must_use]
    pub fn resume(mut row: CallRow) -> Self {
        let Said { warnings, labels, detour, trace_id } = serde_json::from_str(&row.reply).unwrap_or_default();
        row.trace = trace_id;
        let clock = Clock { before_ms: row.usage.wall_ms, since_ms: None };
        Self {
            row,
            warnings,
            labels,
            notes: Notes::default(),
            clock,
            charge: None,
            detour,
            asked: None,
            exhausted: false,
            spans: None,
        }
    }

    /// The call executes again from now on.
    pub fn goes_on(&mut self, now_ms: u64, charge: Option<Arc<Charge>>) {
        self.clock.since_ms = Some(now_ms);
        self.charge = charge;
    }

    /// What the call is charged to.
    #[must_use]
    pub const fn charge(&self) -> Option<&Arc<Charge>> {
        self.charge.as_ref()
    }

    /// The plan of the call is handed to the ledger with its intent, or was not taken.
    pub fn intend(&self, taken: bool) {
        match &self.charge {
            Some(charge) if taken => charge.intend(),
            Some(charge) => charge.not_intended(),
            None => {}
        }
    }

    /// The execution is over: no more stays reserved than it used.
    pub fn shrink(&self, now_ms: u64) {
        if let Some(charge) = &self.charge {
            charge.shrink(self.clock.now(now_ms).saturating_sub(self.clock.before_ms));
        }
    }

    /// What the call is charged to closes, and another one follows: the row that says what this stretch of the call came to, and
    /// the charge. Its time is not counted again.
    pub fn give_up_charge(&mut self, now_ms: u64) -> Option<(Arc<Charge>, ChargeRow)> {
        let charge = self.charge.take()?;
        let all_ms = self.clock.now(now_ms);
        let row = charge.row(all_ms.saturating_sub(self.clock.before_ms), Outcome::None);
        self.clock = Clock { before_ms: all_ms, since_ms: Some(now_ms) };
        Some((charge, row))
    }

    /// The tool is known and the input valid.
    pub fn validated(&mut self, call: &Call) {
        self.row.component = Some(call.tool().component.digest);
        self.row.manifest = Some(call.tool().manifest.digest);
        self.row.tier = Some(call.tool().tier);
        let key = |key: &String| CallKey { key: key.as_str().into(), request: call.request_digest() };
        self.asked = call.options().key.as_ref().map(key);
        self.notes.expect_plan = call.options().expect_plan;
        self.input(Arc::clone(call.input()), call.input_digest());
    }

    /// These policies are asked about the call.
    pub const fn judged_by(&mut self, policies: Digest) {
        self.row.policy_set = Some(policies);
    }

    /// The call was executed so often, and was given up or not.
    pub fn attempted(&mut self, attempts: u32, exhausted: bool) {
        self.detour.attempts = (attempts > 1).then_some(attempts);
        self.exhausted = exhausted;
    }

    /// Nothing is executed: this is a result that was kept.
    pub const fn cached(&mut self) {
        self.detour.cached = true;
    }

    /// This tool is called instead. The call keeps the name of the one that it asked for, and its key.
    pub fn falls_back(&mut self, tool: &Tool, because: &Refusal) {
        self.warnings.push(format!("`{}` was called instead of `{}`: {}", tool.name, self.row.tool, because.message));
        self.detour.fallback = Some(tool.name.clone());
        self.detour.because = Some(because.code);
        self.row.component = Some(tool.component.digest);
        self.row.manifest = Some(tool.manifest.digest);
        // Kept as long as the more consequential of the two wants.
        self.row.tier = self.row.tier.max(Some(tool.tier));
        self.exhausted = false;
        if self.row.key.is_none() {
            self.row.key = self.asked.take();
        }
    }

    /// Whether it was given up after all its attempts.
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// How often it was executed; at least once.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.detour.attempts.unwrap_or(1)
    }

    /// The canonical input is known.
    pub fn input(&mut self, canonical: Arc<str>, digest: Digest) {
        self.row.input = canonical;
        self.row.input_digest = digest;
    }

    /// The call holds its key.
    pub fn admitted(&mut self, ticket: &Ticket) {
        self.row.key = ticket.call_key();
        self.charge = ticket.charge().cloned();
    }

    /// The call holds this key.
    pub fn keyed(&mut self, key: CallKey) {
        self.row.key = Some(key);
    }

    /// The execution ended.
    pub fn executed(&mut self, executed: &Executed) {
        let execution = executed.execution();
        let (before, used) = (self.row.usage, execution.usage);
        self.row.usage = Usage {
            fuel: before.fuel.saturating_add(used.fuel),
            wall_ms: used.wall_ms,
            memory_peak: before.memory_peak.max(used.memory_peak),
            host_calls: before.host_calls.saturating_add(used.host_calls),
            // Those of earlier executions are among them.
            http_requests: used.http_requests,
            cost_usd: used.cost_usd,
        };
        if let Some(charge) = &self.charge {
            charge.executed(&used, execution.exchanges.len(), executed.repeated());
        }
        (self.row.recording, self.row.beside) =
            executed.recorded().map_or((None, None), |(body, beside)| (Some(body), beside));
    }

    /// Requests of the call were sent.
    pub const fn sent(&mut self, requests: u64, cost: Usd) {
        let usage = &mut self.row.usage;
        usage.http_requests = usage.http_requests.saturating_add(requests);
        usage.cost_usd = usage.cost_usd.plus(cost);
    }

    /// Something that the caller should know besides.
    pub fn warn(&mut self, warning: impl Into<String>) {
        let warning = warning.into();
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// A word about what the output is, once.
    pub fn label(&mut self, word: &str) {
        if !self.labels.iter().any(|label| label == word) {
            self.labels.push(word.to_owned());
        }
    }

    /// What the tool returned is too long for the reply: it is kept beside it.
    pub fn spilled(&mut self, output: &Screened) {
        self.row.output = output.spilled();
    }

    /// What is noted of the call besides.
    pub const fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    /// What was noted of the call so far.
    #[must_use]
    pub const fn noted(&self) -> &Notes {
        &self.notes
    }

    /// The call.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.row.call
    }

    /// The row as it stands.
    #[must_use]
    pub const fn row(&self) -> &CallRow {
        &self.row
    }

    /// The reply that `ending` gives, without ending the entry.
    #[must_use]
    pub fn reply(&self, status: Status, outcome: Outcome, ending: Ending) -> Reply {
        debug_assert!(Outcome::allowed(status, outcome), "BUG: {status:?} with {outcome:?} is not in the table");
        Reply {
            status,
            outcome,
            call_id: self.row.call,
            output: ending.output,
            error: ending.error,
            plan: ending.plan,
            approval: ending.approval,
            receipt: ending.receipt,
            transaction: ending.transaction,
            detour: self.detour.clone(),
            usage: self.row.usage,
            warnings: self.warnings.clone(),
            labels: self.labels.clone(),
            trace_id: self.row.trace,
        }
    }

    /// End the entry: the row with its reply.
    #[must_use]
    pub fn close(mut self, status: Status, outcome: Outcome, ending: Ending, now_ms: u64) -> CallRow {
        self.row.ended_ms = now_ms;
        self.row.usage.wall_ms = self.clock.now(now_ms);
        let stretch_ms = self.row.usage.wall_ms.saturating_sub(self.clock.before_ms);
        self.row.charge = self.charge.as_ref().map(|charge| Box::new(charge.row(stretch_ms, outcome)));
        self.row.error_code = ending.error.as_ref().map(|refusal| refusal.code);
        let reply = self.reply(status, outcome, ending);
        self.row.status = status;
        self.row.outcome = outcome;
        self.row.reply = encode(&reply);
        self.row.notes = self.notes.text();
        self.row
    }

    /// End the entry with a refusal. What may go well the next time is no result, so it gives the key back.
    #[must_use]
    pub fn refuse(mut self, refusal: Refusal, outcome: Outcome, now_ms: u64) -> CallRow {
        // Where a part of the call may have been sent, a retry must not send it again.
        let passing = refusal.retryable || matches!(refusal.code, Code::Halted | Code::Killed);
        if passing && !self.row.suspended {
            self.row.key = None;
        }
        let status = status_of(refusal.code);
        self.close(status, outcome, Ending::refused(refusal), now_ms)
    }
}

/// A reply as JSON text.
#[must_use]
pub fn encode(reply: &Reply) -> Arc<str> {
    match toolkeep_core::json::record_text(reply) {
        Ok(text) => text.into(),
        Err(error) => {
            tracing::error!(%error, call = %reply.call_id, "a reply could not be written as JSON");
            format!(
                r#"{{"status":"failed","outcome":"none","call_id":"{}","usage":{{"fuel":0,"wall_ms":0,"memory_peak":0,"host_calls":0}},"warnings":[]}}"#,
                reply.call_id
            )
            .into()
        }
    }
}
