//! One open run in memory: what binds it, what it has used, and what it has done as far as its terms ask.
//!
//! It is made when the run is opened, or from the ledger when a call first names it. Repetitions, failures in a row and
//! successes are remembered up to a bound each; what is forgotten makes a gate stay shut, never open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use toolkeep_core::budget::{Limits, OverBudget};
use toolkeep_core::contract::{Gate, Terms};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, RunId, ToolName, WorkflowName};
use toolkeep_core::principal::{Origin, Principal};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::tier::Tier;

use super::account::{Account, Whose};
use crate::ledger::run_terms::{REPEATED_MAX, SUCCESSES_MAX};
use crate::ledger::{RunHold, RunPast, Success};

/// A run.
#[derive(Debug)]
pub struct Run {
    /// Which.
    pub id: RunId,
    /// Who opened it: nobody else can name it.
    pub principal: Principal,
    /// By which credential, and through which sessions.
    pub origin: Origin,
    /// What its spending is added up under.
    pub workflow: Option<WorkflowName>,
    /// What binds it.
    pub terms: Terms,
    /// What it has used.
    pub account: Arc<Account>,
    track: Mutex<Track>,
}

#[derive(Debug, Default)]
struct Track {
    closed: bool,
    held: Option<RunHold>,
    raised: Limits,
    escalations: u64,
    repeated: HashMap<(ToolName, Digest), u32>,
    failing: HashMap<ToolName, u32>,
    successes: Vec<Success>,
}

/// A call, as far as the terms of a run ask.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The tool.
    pub tool: &'a ToolName,
    /// Its tier.
    pub tier: Tier,
    /// The canonical input.
    pub input: &'a str,
    /// Its digest.
    pub digest: Digest,
    /// Whether the caller said what its model used.
    pub reports: bool,
}

impl Run {
    /// A run that begins.
    #[must_use]
    pub fn begin(
        id: RunId,
        (principal, origin): (&Principal, &Origin),
        workflow: Option<WorkflowName>,
        terms: Terms,
    ) -> Self {
        let account =
            Account::new(Whose::Run, terms.over_budget, terms.budget, toolkeep_core::budget::Amounts::default());
        let (principal, origin) = (principal.clone(), origin.clone());
        Self { id, principal, origin, workflow, terms, account: Arc::new(account), track: Mutex::default() }
    }

    /// A run of which the ledger knows.
    ///
    /// # Errors
    /// Its terms cannot be read.
    pub fn of_past(past: RunPast) -> Result<Self, Refusal> {
        let row = past.row;
        let terms = terms_of(&row.terms)?;
        let raised = raised_of(&row.raised)?;
        let account = Account::new(Whose::Run, terms.over_budget, terms.budget.raised(&raised), past.used);
        let mut successes = past.successes;
        successes.retain(|success| terms.remembers(&success.tool));
        let track = Track {
            closed: row.closed_ms.is_some(),
            held: row.held,
            raised,
            escalations: row.escalations,
            repeated: past.repeated.into_iter().map(|(tool, input, times)| ((tool, input), times)).collect(),
            failing: past.failing.into_iter().collect(),
            successes,
        };
        Ok(Self {
            id: row.run,
            principal: row.principal,
            origin: row.origin,
            workflow: row.workflow,
            terms,
            account: Arc::new(account),
            track: Mutex::new(track),
        })
    }

    fn track(&self) -> MutexGuard<'_, Track> {
        self.track.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it takes calls.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.track().closed
    }

    /// No call is admitted from now on. False if that was so before.
    #[must_use]
    pub fn close(&self) -> bool {
        !std::mem::replace(&mut self.track().closed, true)
    }

    /// Calls are admitted again, because the close was not put on record.
    pub fn reopen(&self) {
        self.track().closed = false;
    }

    /// Why it is held, and how often it broke its terms.
    #[must_use]
    pub fn standing(&self) -> (Option<RunHold>, u64) {
        let track = self.track();
        (track.held.clone(), track.escalations)
    }

    /// It broke its terms once more. `hold` holds it, as enough escalations do; returns the hold if it is held by this.
    pub fn escalated(&self, hold: Option<RunHold>) -> Option<RunHold> {
        let mut track = self.track();
        track.escalations = track.escalations.saturating_add(1);
        let enough = self.terms.loops.escalations.is_some_and(|most| track.escalations >= u64::from(most));
        let hold = hold.or_else(|| {
            let reason = format!("it broke its terms {} times", track.escalations);
            enough.then(|| RunHold { code: Code::Denied, reason: reason.into() })
        })?;
        if track.held.is_some() {
            return None;
        }
        track.held = Some(hold.clone());
        Some(hold)
    }

    /// What its budget would be raised by in all, with `more`.
    #[must_use]
    pub fn raised(&self, more: &Limits) -> Limits {
        let mut raised = self.track().raised;
        for (have, add) in [
            (&mut raised.steps, more.steps),
            (&mut raised.calls, more.calls),
            (&mut raised.wall_ms, more.wall_ms),
            (&mut raised.fuel, more.fuel),
            (&mut raised.tokens, more.tokens),
            (&mut raised.bytes_written, more.bytes_written),
            (&mut raised.requests, more.requests),
            (&mut raised.approvals, more.approvals),
        ] {
            *have = add.map_or(*have, |add| Some(have.unwrap_or(0).saturating_add(add)));
        }
        if let Some(more) = more.cost_usd {
            let have = raised.cost_usd.unwrap_or_default().micro();
            raised.cost_usd = Some(toolkeep_core::price::Usd::of_micro(have.saturating_add(more.micro())));
        }
        raised
    }

    /// An operator who has `seen` how it stands lets it go on: nothing counts as repeated any more, and there is more room. What
    /// holds it since then holds on.
    pub fn release(&self, raised: Limits, seen: &(Option<RunHold>, u64)) {
        let mut track = self.track();
        if track.held == seen.0 {
            track.held = None;
        }
        track.escalations = track.escalations.saturating_sub(seen.1);
        track.repeated.clear();
        track.failing.clear();
        track.raised = raised;
        drop(track);
        self.account.limit(self.terms.budget.raised(&raised));
    }

    /// Whether nothing holds it.
    ///
    /// # Errors
    /// What holds it.
    pub fn goes_on(&self) -> Result<(), Refusal> {
        unheld(&self.track())
    }

    /// Whether a call is within the terms. It counts as made from here on.
    ///
    /// # Errors
    /// `not_found`: the run is closed. Otherwise why not; `denied`, `gate_unmet` and `loop_detected` are escalations.
    pub fn check(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let mut track = self.track();
        if track.closed {
            return Err(no_open_run());
        }
        unheld(&track)?;
        if let Some(why) = self.terms.refuses(asked.tool, asked.tier) {
            return Err(
                Refusal::new(Code::Denied, why).hint("use a tool of the run's contract; the attempt is on record")
            );
        }
        if self.terms.usage_required && !asked.reports {
            return Err(Refusal::new(
                Code::InvalidInput,
                "every call of this run has to say what the caller's model used",
            )
            .field("/usage", "is missing", "`{\"tokens_in\": …, \"tokens_out\": …, \"cost_usd\": \"…\"}`"));
        }
        self.gates(&track, asked)?;
        self.circles(&mut track, asked)
    }

    fn gates(&self, track: &Track, asked: &Asked<'_>) -> Result<(), Refusal> {
        let mut this = None;
        for gate in self.terms.gates_of(asked.tool) {
            let this = this.get_or_insert_with(|| serde_json::from_str::<Value>(asked.input).unwrap_or(Value::Null));
            let unmet = gate.after.iter().find(|before| !met(track, gate, before, this));
            if let Some(before) = unmet {
                let bound = if gate.binds.is_empty() { "" } else { " with the same arguments" };
                return Err(Refusal::new(
                    Code::GateUnmet,
                    format!("`{}` may be called only after `{before}` succeeded in this run{bound}", asked.tool),
                ));
            }
        }
        Ok(())
    }

    fn circles(&self, track: &mut Track, asked: &Asked<'_>) -> Result<(), Refusal> {
        let loops = &self.terms.loops;
        if let Some(most) = loops.failures {
            let failed = track.failing.get(asked.tool).copied().unwrap_or(0);
            if failed >= most {
                return Err(Refusal::new(
                    Code::LoopDetected,
                    format!("`{}` failed {failed} times in a row in this run", asked.tool),
                )
                .hint("do something else, or let an operator look at the run"));
            }
        }
        let Some(most) = loops.same_call else { return Ok(()) };
        let call = (asked.tool.clone(), asked.digest);
        if !track.repeated.contains_key(&call) && track.repeated.len() >= REPEATED_MAX {
            // The least repeated call says least about turning in circles.
            let least = track.repeated.iter().min_by_key(|(_, times)| **times).map(|(call, _)| call.clone());
            least.map(|call| track.repeated.remove(&call));
        }
        let times = track.repeated.entry(call).or_insert(0);
        *times = times.saturating_add(1);
        if *times > most {
            return Err(Refusal::new(
                Code::LoopDetected,
                format!("`{}` was called {most} times with this input in this run", asked.tool),
            ));
        }
        Ok(())
    }

    /// A call succeeded: its effects are committed, or it had none.
    pub fn succeeded(&self, call: CallId, tool: &ToolName, input: &Arc<str>) {
        let mut track = self.track();
        track.failing.remove(tool);
        if self.terms.remembers(tool) {
            if track.successes.len() >= SUCCESSES_MAX {
                track.successes.remove(0);
            }
            track.successes.push(Success { call, tool: tool.clone(), input: Arc::clone(input) });
        }
    }

    /// A call failed in a way that its tool or its input is to blame for.
    pub fn failed(&self, tool: &ToolName) {
        if self.terms.loops.failures.is_some() {
            let mut track = self.track();
            let times = track.failing.entry(tool.clone()).or_insert(0);
            *times = times.saturating_add(1);
        }
    }

    /// A call was undone: nothing may rest on it any more.
    pub fn undone(&self, call: CallId) {
        self.track().successes.retain(|success| success.call != call);
    }

    /// Required tools that did not succeed yet.
    #[must_use]
    pub fn missing(&self) -> Vec<ToolName> {
        let track = self.track();
        let done = |tool: &&ToolName| track.successes.iter().any(|success| success.tool == **tool);
        self.terms.required.iter().filter(|tool| !done(tool)).cloned().collect()
    }

    /// Whether a budget that is used up binds a call of this tier.
    #[must_use]
    pub fn binds(over: OverBudget, tier: Tier) -> bool {
        over != OverBudget::Degrade || tier != Tier::ReadOnly
    }
}

fn unheld(track: &Track) -> Result<(), Refusal> {
    let Some(hold) = &track.held else { return Ok(()) };
    Err(Refusal::new(hold.code, format!("the run is held: {}", hold.reason))
        .hint("an operator has to look at it and release it with `toolkeep runs release`"))
}

/// Whether a tool that a gate asks for succeeded, with the arguments that it binds.
fn met(track: &Track, gate: &Gate, before: &ToolName, this: &Value) -> bool {
    track.successes.iter().filter(|success| success.tool == *before).any(|success| {
        gate.binds.is_empty()
            || serde_json::from_str::<Value>(&success.input).is_ok_and(|before| gate.binds(this, &before))
    })
}

/// The answer to every call that names a run which is closed, somebody else's, or none.
#[must_use]
pub fn no_open_run() -> Refusal {
    Refusal::not_found("open run").hint("open a run with `runs.open` first, or leave `run` out")
}

/// The terms of a run as they are kept. A run from before there were terms has none.
///
/// # Errors
/// They cannot be read: nothing may run under terms that are not known.
pub fn terms_of(text: &str) -> Result<Terms, Refusal> {
    if text.is_empty() {
        return Ok(Terms::free());
    }
    serde_json::from_str(text).map_err(|error| {
        tracing::error!(%error, "the terms of a run cannot be read");
        Refusal::new(Code::Internal, "the terms of the run cannot be read")
    })
}

/// How much the budget of a run was raised, as it is kept.
///
/// # Errors
/// It cannot be read.
pub fn raised_of(text: &str) -> Result<Limits, Refusal> {
    if text.is_empty() {
        return Ok(Limits::default());
    }
    serde_json::from_str(text).map_err(|_| Refusal::new(Code::Internal, "the budget of the run cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use uuid::Uuid;

    fn run(terms: &Value) -> Run {
        let mut whole = serde_json::to_value(Terms::free()).expect("terms");
        whole.as_object_mut().expect("object").extend(terms.as_object().expect("object").clone());
        let principal: Principal =
            serde_json::from_value(json!({"tenant": "t", "user": "u", "agent": "a"})).expect("a principal");
        let terms = serde_json::from_value(whole).expect("terms");
        let origin = Origin::record();
        Run::begin(RunId::new(Uuid::from_u128(1)), (&principal, &origin), None, terms)
    }

    fn code(run: &Run, tool: &str, input: &str) -> Option<Code> {
        let tool: ToolName = tool.parse().expect("a name");
        let digest = Digest::of(input.as_bytes());
        let asked = Asked { tool: &tool, tier: Tier::Reversible, input, digest, reports: false };
        run.check(&asked).err().map(|refusal| refusal.code)
    }

    fn succeed(run: &Run, call: u128, tool: &str, input: &str) {
        run.succeeded(CallId::new(Uuid::from_u128(call)), &tool.parse().expect("a name"), &input.into());
    }

    #[test]
    fn r31_the_same_call_is_made_n_times_and_not_once_more() {
        let run = run(&json!({"loops": {"same_call": 3}}));
        for _ in 0..3 {
            assert_eq!(code(&run, "a", "{}"), None);
        }
        assert_eq!(code(&run, "a", "{}"), Some(Code::LoopDetected));
        assert_eq!((code(&run, "a", "[]"), code(&run, "b", "{}")), (None, None), "other calls are other calls");
        run.release(Limits::default(), &run.standing());
        assert_eq!(code(&run, "a", "{}"), None, "an operator lets it try again");
    }

    #[test]
    fn r31_repetitions_are_remembered_up_to_a_bound_and_the_frequent_ones_stay() {
        let run = run(&json!({"loops": {"same_call": 2}}));
        assert_eq!((code(&run, "a", "often"), code(&run, "a", "often")), (None, None));
        for other in 0..2 * REPEATED_MAX {
            assert_eq!(code(&run, "a", &other.to_string()), None);
        }
        assert!(run.track().repeated.len() <= REPEATED_MAX);
        assert_eq!(code(&run, "a", "often"), Some(Code::LoopDetected));
    }

    #[test]
    fn r31_n_failures_in_a_row_stop_a_tool_and_a_success_begins_anew() {
        let run = run(&json!({"loops": {"failures": 2}}));
        let tool: ToolName = "a".parse().expect("a name");
        run.failed(&tool);
        assert_eq!(code(&run, "a", "{}"), None);
        succeed(&run, 1, "a", "{}");
        run.failed(&tool);
        assert_eq!(code(&run, "a", "{}"), None);
        run.failed(&tool);
        assert_eq!((code(&run, "a", "{}"), code(&run, "b", "{}")), (Some(Code::LoopDetected), None));
    }

    #[test]
    fn r19_a_gate_opens_after_a_success_with_the_same_arguments_and_shuts_when_that_is_undone() {
        let gate = json!({"tool": "pay", "after": ["check"], "bind": [{"here": "/invoice", "there": "/id"}]});
        let run = run(&json!({"gates": [gate], "required": ["pay"]}));
        assert_eq!(code(&run, "pay", r#"{"invoice":7}"#), Some(Code::GateUnmet));
        succeed(&run, 1, "check", r#"{"id":8}"#);
        assert_eq!(code(&run, "pay", r#"{"invoice":7}"#), Some(Code::GateUnmet));
        succeed(&run, 2, "check", r#"{"id":7}"#);
        assert_eq!((code(&run, "pay", r#"{"invoice":7}"#), code(&run, "pay", r#"{"invoice":8}"#)), (None, None));
        run.undone(CallId::new(Uuid::from_u128(2)));
        assert_eq!(code(&run, "pay", r#"{"invoice":7}"#), Some(Code::GateUnmet));
        assert_eq!(run.missing().len(), 1);
        succeed(&run, 3, "pay", "{}");
        assert!(run.missing().is_empty());
    }

    #[test]
    fn r24_enough_escalations_hold_a_run_until_it_is_released() {
        let run = run(&json!({"loops": {"escalations": 3}}));
        assert_eq!((run.escalated(None), run.escalated(None)), (None, None));
        assert_eq!(code(&run, "a", "{}"), None);
        assert!(run.escalated(None).is_some());
        assert_eq!(code(&run, "a", "{}"), Some(Code::Denied));
        assert_eq!(run.escalated(None), None, "it is held once");
        run.release(Limits::default(), &run.standing());
        assert_eq!((code(&run, "a", "{}"), run.escalated(None)), (None, None));
        assert!(run.close() && !run.close());
        assert_eq!(code(&run, "a", "{}"), Some(Code::NotFound));
    }

    #[test]
    fn r24_a_release_lets_go_of_what_was_seen_and_of_nothing_that_came_since() {
        let run = run(&json!({"loops": {"escalations": 2}}));
        let seen = run.standing();
        assert_eq!(run.escalated(None), None);
        assert!(run.escalated(None).is_some(), "held while the release is written");
        run.release(Limits::default(), &seen);
        assert_eq!(code(&run, "a", "{}"), Some(Code::Denied));
        run.release(Limits::default(), &run.standing());
        assert_eq!((code(&run, "a", "{}"), run.standing()), (None, (None, 0)));
    }
}
