//! Back-tests: which of the last recorded calls another version, manifest or policy set would have changed, and how.
//!
//! A call is executed twice, offline: as it was, which has to give what was recorded, and as it would be. What the recording
//! does not hold cannot be made up: such a call is not comparable, with the reason. Policies alone need no execution: they are
//! asked again about recorded plans. Everything runs behind live calls, one call at a time, and may be cancelled; one
//! recording is in memory at a time.

mod candidate;
mod report;

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::id::{CallId, ToolName};
use toolkeep_core::policy::plan_tier;
use toolkeep_core::refusal::Refusal;
use toolkeep_sandbox::execution::{Ended, Execution};
use toolkeep_sandbox::fault::Fault;
use toolkeep_sandbox::tape::Matching;

use super::Host;
use super::jobs::Job;
use super::replays::ran;
use crate::authenticate::Operator;
use crate::ledger::{Recorded, Scope, StoredCall};
use crate::policy::{Circumstances, Matter, PlanFacts, Policies};
use crate::replay::{Manner, Subject, Version, compare, play};
use crate::schema;
use candidate::{Candidate, about, called_as};
use report::{Change, Compared, Report, differences};

pub use candidate::With;

/// Most recorded calls that one back-test looks at.
pub const CALLS_MAX: u32 = 10_000;
/// Ids of calls that are read at a time.
const READ_AT_ONCE: u32 = 200;
/// Places among the calls that are looked through for those of the tools: a minute of reading behind everybody else.
const PLACES_MAX: u64 = 2_000_000;

/// A back-test.
#[derive(Debug, Clone)]
pub struct BackTest {
    /// What the calls are compared with.
    pub with: With,
    /// How many of the last recorded calls; 1 to [`CALLS_MAX`].
    pub last: u32,
    /// Only those of this tool.
    pub tool: Option<ToolName>,
}

/// What is compared, and the calls of which tools: all of them if nothing is named.
struct Trial {
    candidate: Candidate,
    tools: Option<Vec<ToolName>>,
    last: u32,
}

impl Trial {
    fn concerns(&self, call: &StoredCall) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.contains(&ran(&call.row)))
    }
}

impl Host {
    /// Begin a back-test as a job.
    ///
    /// # Errors
    /// `invalid_input`: what the calls are to be compared with is refused, or it does not say the calls of which tool.
    /// `overloaded`: too many jobs run.
    pub async fn back_test(&self, operator: &Operator, test: BackTest) -> Result<Value, Refusal> {
        let (candidate, last) = (self.candidate(&test).await?, test.last.clamp(1, CALLS_MAX));
        let tools = about(&candidate, test.tool.as_ref(), &self.catalog().current())?;
        let facts = json!({"what": "back-test", "with": test.with.told(), "last": last, "tool": test.tool});
        self.note(operator, AuditKind::Evaluation, facts).await?;
        let (operator, trial) = (operator.clone(), Trial { candidate, tools, last });
        self.begin_job(&operator.clone(), ("back-test", u64::from(last)), |host, job| async move {
            host.compare_all(&operator, &trial, &job).await
        })
    }

    async fn compare_all(&self, operator: &Operator, trial: &Trial, job: &Job) -> Result<Value, Refusal> {
        let names = trial.tools.as_ref().map(|tools| called_as(tools, &self.catalog().current()));
        let (mut report, mut before, mut left, mut places) = (Report::default(), None, trial.last, 0);
        let ends = || job.cancel.is_cancelled() || self.admission().draining();
        while left > 0 && !ends() && places < PLACES_MAX {
            let page =
                self.ledger().recorded_before(operator.tenant(), names.as_deref(), before, left.min(READ_AT_ONCE));
            let page = page.await.map_err(|e| e.refusal())?;
            (before, places) = (page.next, places + page.places);
            for call in page.calls {
                if ends() {
                    break;
                }
                if self.compare_call(operator, call, trial, (job, &mut report)).await? {
                    left -= 1;
                    job.step();
                }
            }
            if before.is_none() {
                break;
            }
        }
        Ok(report.view(ends(), left > 0 && before.is_some() && !ends()))
    }

    /// Compare one call, and say whether it counts: calls that ran something else do not, and none that was cut off.
    async fn compare_call(
        &self,
        operator: &Operator,
        call: CallId,
        trial: &Trial,
        (job, report): (&Job, &mut Report),
    ) -> Result<bool, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let recorded = self.ledger().recorded(&scope, call).await.map_err(|e| e.refusal())?;
        let Some(recorded) = recorded.filter(|recorded| trial.concerns(&recorded.call)) else { return Ok(false) };
        let tool = recorded.call.row.tool.clone();
        let compared = self.compare_one(operator, recorded, &trial.candidate, (job, &mut report.fuel)).await;
        if job.cancel.is_cancelled() {
            return Ok(false);
        }
        report.take((call, &tool), compared.unwrap_or_else(|refusal| Compared::NotComparable(refusal.message)));
        Ok(true)
    }

    async fn compare_one(
        &self,
        operator: &Operator,
        recorded: Recorded,
        candidate: &Candidate,
        (job, fuel): (&Job, &mut [u64; 2]),
    ) -> Result<Compared, Refusal> {
        if let Candidate::Policies(policies) = candidate {
            return self.compare_policies(operator, &recorded.call, policies).await;
        }
        let subject = Subject::read(self.ledger(), &self.0.blobs, recorded).await?;
        let before = self.version_of(&subject.row).await?;
        let after = candidate.version(&before)?;
        let hides = is_sensitive(&after) || self.hides(operator.tenant(), &subject.row, &before).await;
        self.compare_versions(subject, (&before, &after), (job, fuel, hides)).await
    }

    async fn compare_versions(
        &self,
        mut subject: Subject,
        (before, after): (&Version, &Version),
        (job, fuel, hides): (&Job, &mut [u64; 2], bool),
    ) -> Result<Compared, Refusal> {
        let strict = Manner { matching: Matching::Strict, behind: true, cancel: job.cancel.clone() };
        let was = play(self.executor(), &subject, before, &strict).await?;
        if !compare(&subject.recording, &was, None).identical {
            return Ok(Compared::NotComparable("it does not replay with its own version".to_owned()));
        }
        if let Some(why) = refuses_input(after, &subject.row.input) {
            let change = Change { what: "input", before: json!("accepted"), after: json!(why) };
            return Ok(Compared::Changed(vec![change]));
        }
        let loose = Manner { matching: Matching::ByContent, ..strict };
        subject.allowed = Some(before.allows());
        let is = play(self.executor(), &subject, after, &loose).await?;
        if let Ended::Fault(Fault::Diverged(why)) = &is.ended {
            let hidden = "it asks for something that the recording does not hold";
            return Ok(Compared::NotComparable(if hides { hidden.to_owned() } else { why.clone() }));
        }
        fuel[0] = fuel[0].saturating_add(was.usage.fuel);
        fuel[1] = fuel[1].saturating_add(is.usage.fuel);
        let mut changes = differences(&was, &is, hides);
        let undo_bytes = self.undo_bytes();
        let tier = |execution: &Execution| plan_tier(&execution.staged.effects, undo_bytes).number();
        if tier(&was) != tier(&is) || before.tier != after.tier {
            let told =
                |version: &Version, execution| json!({"declared": version.tier.number(), "used": tier(execution)});
            changes.push(Change { what: "tier", before: told(before, &was), after: told(after, &is) });
        }
        if let (Some(then), Some(now)) = (self.decision(&subject, before, &was), self.decision(&subject, after, &is))
            && then.get("decision") != now.get("decision")
        {
            changes.push(Change { what: "decision", before: then, after: now });
        }
        Ok(if changes.is_empty() { Compared::Same } else { Compared::Changed(changes) })
    }

    async fn compare_policies(
        &self,
        operator: &Operator,
        call: &StoredCall,
        candidate: &Policies,
    ) -> Result<Compared, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let tool = self.catalog().current().tool(&ran(&call.row)).ok_or_else(|| Refusal::not_found("tool"))?;
        let plan = self.plan_of(&scope, call).await?;
        let of = |policies: &Policies| self.replayed(policies, &tool, call, plan.as_ref());
        let (before, after) = (of(&self.policies()), of(candidate));
        if before.verdict == after.verdict {
            return Ok(Compared::Same);
        }
        let change = Change { what: "decision", before: before.view(), after: after.view() };
        Ok(Compared::Changed(vec![change]))
    }

    /// What the policies in force say to what an execution did.
    fn decision(&self, subject: &Subject, version: &Version, execution: &Execution) -> Option<Value> {
        if !matches!(execution.ended, Ended::Output(_) | Ended::Live(_)) {
            return None;
        }
        let tool = version.tool.clone().or_else(|| self.catalog().current().tool(&version.name))?;
        let row = &subject.row;
        let around = Circumstances::now(row.started_ms, self.config().environment, row.mode)
            .of_run(row.run)
            .by(&row.origin)
            .tainted(self.taint_of(row.run))
            .as_far_as(self.0.autonomy.of(&row.principal, &row.tool));
        let effects = execution.staged.effects.as_slice();
        let plan = (!effects.is_empty()).then(|| PlanFacts {
            effects,
            reads: execution.staged.read_set.len(),
            segment: 0,
            declared: version.tier,
            hold: &version.manifest.hold,
            undo_bytes: self.undo_bytes(),
        });
        let matter = Matter { input: Some(&row.input), plan, around };
        Some(self.policies().answer(&row.principal, &tool.shape, &matter).view())
    }
}

/// Whether a version hides what the one before may have shown.
fn is_sensitive(version: &Version) -> bool {
    version.tool.as_ref().is_some_and(|tool| tool.is_sensitive())
}

/// What of an input that was taken a version would not take, by place and keyword; nothing if it would, or its schemas are not
/// known. No value is repeated.
fn refuses_input(version: &Version, input: &str) -> Option<String> {
    let tool = version.tool.as_ref()?;
    let input: Value = serde_json::from_str(input).ok()?;
    schema::first_broken(tool.input().ok()?, &input)
}
