//! Online checks: a share of recorded calls is looked at again in the background (R59).
//!
//! A call that is drawn is replayed with its own version, which has to give what was recorded, and its output is held against
//! what the golden cases of its tool never allow: texts that must not be said, bounds of fuel, attempts beyond grants. What is
//! not as it should be is told to operators. Checks run one at a time behind live calls; while one runs, or while too many
//! wait, others are skipped and counted, so that they can never become the load.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use toolkeep_core::event::How;
use toolkeep_core::id::CallId;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::execution::{Cancel, Ended, Execution};
use toolkeep_sandbox::fault::Fault;
use toolkeep_sandbox::tape::Matching;

use super::Host;
use crate::eval::{Expect, Eyes};
use crate::ledger::{CallRow, Scope};
use crate::notify::Event;
use crate::replay::{Manner, Subject, compare, play};

/// Checks that wait or run at one time.
const WAITING_MAX: usize = 16;
/// Golden cases of a tool whose bounds are asked.
const CASES_ASKED: u64 = 50;
/// Draws of one share.
const WHOLE_PERMILLE: u64 = 1_000;

/// Which calls are drawn, and how the checks went.
#[derive(Debug)]
pub(super) struct Checks {
    permille: u64,
    /// Counts calls: every so many one is drawn, so that a share is exact and costs no randomness.
    drawn: AtomicU64,
    places: Semaphore,
    running: Semaphore,
    passed: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
}

impl Checks {
    pub(super) fn new(permille: u32) -> Self {
        Self {
            permille: u64::from(permille),
            drawn: AtomicU64::new(0),
            places: Semaphore::new(WAITING_MAX),
            running: Semaphore::new(1),
            passed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    /// Whether this call is drawn: of 1,000 in a row exactly as many as the share says, evenly spread.
    fn draws(&self) -> bool {
        if self.permille == 0 {
            return false;
        }
        let call = self.drawn.fetch_add(1, Ordering::Relaxed) % WHOLE_PERMILLE;
        (call + 1) * self.permille / WHOLE_PERMILLE > call * self.permille / WHOLE_PERMILLE
    }

    /// How many passed, failed and were skipped since the start.
    pub(super) fn counts(&self) -> [u64; 3] {
        [&self.passed, &self.failed, &self.skipped].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Host {
    /// How much is recorded, and how the checks went since the start.
    pub(super) fn recording_state(&self) -> Value {
        let config = self.config().recording;
        let [passed, failed, skipped] = self.0.checks.counts();
        json!({"depth": config.depth, "check_permille": config.check_permille,
            "checks": {"passed": passed, "failed": failed, "skipped": skipped}})
    }

    /// A call was recorded: look at it again some time, if it is drawn.
    pub(crate) fn check_some_time(&self, call: CallId) {
        if !self.0.checks.draws() {
            return;
        }
        let host = self.clone();
        self.spawn(async move {
            let checks = &host.0.checks;
            let Ok(_place) = checks.places.try_acquire() else {
                checks.skipped.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let Ok(_turn) = checks.running.acquire().await else { return };
            if host.admission().draining() {
                return;
            }
            match host.check_call(call).await {
                Ok(None) => checks.passed.fetch_add(1, Ordering::Relaxed),
                Ok(Some((row, problems))) => {
                    tracing::warn!(%call, tool = %row.tool, ?problems, "a recorded call is not what it should be");
                    let facts = json!({"call_id": call, "tool": row.tool, "problems": problems});
                    host.0.notify.event(Event::ReplayFailed, &row.principal.tenant, facts);
                    checks.failed.fetch_add(1, Ordering::Relaxed)
                }
                Err(refusal) => {
                    // What was not recorded in full cannot be looked at again; that is no failure of the call.
                    if refusal.code != Code::NotReplayable {
                        tracing::warn!(%call, problem = refusal.message, "a recorded call could not be looked at again");
                    }
                    checks.skipped.fetch_add(1, Ordering::Relaxed)
                }
            };
        });
    }

    /// What is wrong with a recorded call; nothing if it is what it should be.
    async fn check_call(&self, call: CallId) -> Result<Option<(CallRow, Vec<String>)>, Refusal> {
        let recorded = self.ledger().recorded(&Scope::Operator, call).await.map_err(|e| e.refusal())?;
        let recorded = recorded.ok_or_else(|| Refusal::not_found("call"))?;
        let subject = Subject::read(self.ledger(), &self.0.blobs, recorded).await?;
        let version = self.version_of(&subject.row).await?;
        let manner = Manner { matching: Matching::Strict, behind: true, cancel: Cancel::new() };
        let execution = play(self.executor(), &subject, &version, &manner).await?;
        let verdict = compare(&subject.recording, &execution, None);
        let mut problems = Vec::new();
        if let Some(divergence) = verdict.divergence {
            problems.push(format!("its replay differs first in {}", divergence.what));
        }
        let tenant = &subject.row.principal.tenant;
        let cases = self.ledger().cases_about(tenant, &version.name, CASES_ASKED).await.map_err(|e| e.refusal())?;
        let hides = self.hides(tenant, &subject.row, &version).await;
        for case in cases {
            let Ok(expect) = serde_json::from_str::<Expect>(&case.expect) else { continue };
            let found = broken(expect, (subject.recording.end.how, &execution), Eyes::of(hides || case.hidden));
            problems.extend(found.into_iter().map(|problem| format!("case `{}`: {problem}", case.name)));
        }
        Ok((!problems.is_empty()).then_some((subject.row, problems)))
    }
}

/// What a call breaks of an expectation. A call that was stopped from outside broke nothing by that, and its replay ends where the
/// recording does.
fn broken(expect: Expect, (how, execution): (How, &Execution), eyes: Eyes) -> Vec<String> {
    let stopped = how == How::Stopped;
    if stopped && matches!(execution.ended, Ended::Fault(Fault::Diverged(_))) {
        return Vec::new();
    }
    let expect = always(expect);
    Expect { no_fault: expect.no_fault && !stopped, ..expect }.problems(execution, eyes)
}

/// What of an expectation holds for every call of a tool, whatever its input.
fn always(expect: Expect) -> Expect {
    let Expect { never_says, breaches_max, fuel_max, no_fault, .. } = expect;
    Expect { never_says, breaches_max, fuel_max, no_fault, ..Expect::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::sample::execution;

    #[test]
    fn r59_of_a_thousand_calls_exactly_the_share_is_drawn() {
        for permille in [0, 1, 7, 500, 999, 1_000] {
            let checks = Checks::new(permille);
            let drawn = (0..WHOLE_PERMILLE).filter(|_| checks.draws()).count();
            assert_eq!(drawn, permille as usize);
        }
    }

    #[test]
    fn r59_only_what_holds_for_every_input_is_asked_of_other_calls() {
        let case: Expect = serde_json::from_value(json!({"output": {"a": 1}, "ended": "output", "fuel_max": 5,
            "never_says": ["secret"], "no_fault": true}))
        .expect("an expectation");
        let always = always(case);
        assert!(always.output.is_none() && always.ended.is_none() && always.no_fault);
        assert_eq!((always.fuel_max, always.never_says.len()), (Some(5), 1));
    }

    #[test]
    fn r59_a_call_that_was_stopped_from_outside_is_no_failed_check() {
        let case = || Expect { no_fault: true, fuel_max: Some(10), ..Expect::default() };
        let of = |how, fault: Fault| broken(case(), (how, &execution(Ended::Fault(fault), (0, 10))), Eyes::Texts).len();
        for fault in [Fault::Deadline, Fault::OutOfFuel, Fault::Diverged("it was just asking".to_owned())] {
            assert_eq!(of(How::Stopped, fault), 0);
        }
        assert_eq!(of(How::Fault, Fault::OutOfFuel), 1);
        let dear = execution(Ended::Fault(Fault::Deadline), (0, 11));
        assert_eq!(broken(case(), (How::Stopped, &dear), Eyes::Texts).len(), 1, "other bounds hold");
    }
}
