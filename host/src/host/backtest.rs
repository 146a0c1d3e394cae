//! Back-tests: which of the last recorded calls another version, manifest or policy set would have changed, and how.
//!
//! A call is executed twice, offline: as it was, which has to give what was recorded, and as it would be. What the recording
//! does not hold cannot be made up: such a call is not comparable, with the reason. Policies alone need no execution: they are
//! asked again about recorded plans. Everything runs behind live calls, one call at a time, and may be cancelled.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::ToolName;
use toolkeep_core::policy::plan_tier;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::render::subject as shown_effect;
use toolkeep_sandbox::execution::{Ended, Execution};
use toolkeep_sandbox::fault::Fault;
use toolkeep_sandbox::tape::Matching;

use super::Host;
use super::jobs::Job;
use super::life::blocking;
use super::policy::{PolicyFile, sources};
use super::replays::{ending, ran};
use crate::authenticate::Operator;
use crate::catalog::read_component;
use crate::ledger::{Recorded, Scope, StoredCall, VersionRow};
use crate::policy::{Circumstances, Matter, PlanFacts, Policies};
use crate::replay::{Manner, Subject, Version, compare, play, proposed};

/// Most recorded calls that one back-test looks at.
pub const CALLS_MAX: u32 = 10_000;
/// Calls that are read at a time.
const READ_AT_ONCE: u32 = 50;
/// Changed calls that the report shows.
const EXAMPLES_MAX: usize = 20;
/// Reasons that the report counts one by one.
const REASONS_MAX: usize = 20;
/// Longest beginning of an output that the report shows, in bytes.
const SHOWN_MAX_BYTES: usize = 400;
/// Effects that the report shows of one call.
const EFFECTS_SHOWN: usize = 10;

/// What recorded calls are compared with.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum With {
    /// A version that was in force before: `tool@version`.
    Version(String),
    /// A component file of this machine, with the grants that each call had.
    Component(PathBuf),
    /// A manifest file of this machine with its component.
    Manifest(PathBuf),
    /// Policies.
    Policies(Vec<PolicyFile>),
}

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

/// What the calls are compared with, read and checked.
#[derive(Debug)]
enum Candidate {
    Stored(Box<VersionRow>),
    Component { path: PathBuf, wasm: Arc<[u8]> },
    Manifest(Vec<Version>),
    Policies(Box<Policies>),
}

/// What one call came to.
enum Compared {
    Same,
    Changed(Vec<Change>),
    NotComparable(String),
}

/// One difference.
struct Change {
    what: &'static str,
    before: Value,
    after: Value,
}

/// The report, while it is made.
#[derive(Default)]
struct Report {
    compared: u64,
    same: u64,
    changed: u64,
    not_comparable: u64,
    by: BTreeMap<&'static str, u64>,
    reasons: BTreeMap<String, u64>,
    examples: Vec<Value>,
    fuel: [u64; 2],
}

impl Report {
    fn take(&mut self, call: &StoredCall, compared: Compared) {
        match compared {
            Compared::Same => (self.compared, self.same) = (self.compared + 1, self.same + 1),
            Compared::NotComparable(why) => {
                self.not_comparable += 1;
                if self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&why) {
                    *self.reasons.entry(why).or_default() += 1;
                }
            }
            Compared::Changed(changes) => {
                (self.compared, self.changed) = (self.compared + 1, self.changed + 1);
                for change in &changes {
                    *self.by.entry(change.what).or_default() += 1;
                }
                if self.examples.len() < EXAMPLES_MAX {
                    let changes: Vec<Value> = changes
                        .into_iter()
                        .map(|change| json!({"what": change.what, "before": change.before, "after": change.after}))
                        .collect();
                    self.examples.push(json!({"call_id": call.row.call, "tool": call.row.tool, "changes": changes}));
                }
            }
        }
    }

    fn view(&self, cancelled: bool) -> Value {
        json!({"compared": self.compared, "same": self.same, "changed": self.changed,
            "not_comparable": self.not_comparable, "by": self.by, "reasons": self.reasons, "examples": self.examples,
            "fuel": {"before": self.fuel[0], "after": self.fuel[1]}, "cancelled": cancelled})
    }
}

impl Host {
    /// Begin a back-test as a job.
    ///
    /// # Errors
    /// `invalid_input`: what the calls are to be compared with is refused. `overloaded`: too many jobs run.
    pub async fn back_test(&self, operator: &Operator, mut test: BackTest) -> Result<Value, Refusal> {
        test.last = test.last.clamp(1, CALLS_MAX);
        let (candidate, tool) = self.candidate(&test).await?;
        test.tool = tool;
        let with = match &test.with {
            With::Version(named) => json!({"version": named}),
            With::Component(path) => json!({"component": path}),
            With::Manifest(path) => json!({"manifest": path}),
            With::Policies(files) => json!({"policies": files.len()}),
        };
        let facts = json!({"what": "back-test", "with": with, "last": test.last, "tool": test.tool});
        self.note(operator, AuditKind::Evaluation, facts).await?;
        let operator = operator.clone();
        self.begin_job(&operator.clone(), ("back-test", u64::from(test.last)), |host, job| async move {
            host.compare_all(&operator, &test, &candidate, &job).await
        })
    }

    async fn candidate(&self, test: &BackTest) -> Result<(Candidate, Option<ToolName>), Refusal> {
        match &test.with {
            With::Version(named) => {
                let wrong = || Refusal::new(Code::InvalidInput, format!("`{named}` is not `TOOL@VERSION`"));
                let (name, version) = named.split_once('@').ok_or_else(wrong)?;
                let name: ToolName = name.parse().map_err(|_| wrong())?;
                let rows = self.ledger().versions_of(&name).await.map_err(|e| e.refusal())?;
                let row = rows.into_iter().find(|row| *row.version == *version);
                let missing = || Refusal::not_found("version").hint("`toolkeep tools list` names versions in force");
                let row = row.ok_or_else(missing)?;
                Ok((Candidate::Stored(Box::new(row)), test.tool.clone()))
            }
            With::Component(path) => {
                let path = path.clone();
                let read = path.clone();
                let wasm = blocking(move || read_component(&read)).await??;
                Ok((Candidate::Component { path, wasm }, test.tool.clone()))
            }
            With::Manifest(path) => {
                let path = path.clone();
                let versions = blocking(move || proposed(&path)).await??;
                for version in &versions {
                    self.executor().loader.artifact(&version.component).await?;
                }
                Ok((Candidate::Manifest(versions), test.tool.clone()))
            }
            With::Policies(files) => {
                let (sources, shapes) = (sources(files.clone())?, self.catalog().current().shapes());
                let policies = blocking(move || Policies::new(sources, &shapes)).await?;
                let policies = policies.map_err(|findings| super::policy::invalid(&findings))?;
                Ok((Candidate::Policies(Box::new(policies)), test.tool.clone()))
            }
        }
    }

    async fn compare_all(
        &self,
        operator: &Operator,
        test: &BackTest,
        candidate: &Candidate,
        job: &Job,
    ) -> Result<Value, Refusal> {
        let (mut report, mut before, mut left) = (Report::default(), None, test.last);
        while left > 0 && !job.cancel.is_cancelled() && !self.admission().draining() {
            let limit = left.min(READ_AT_ONCE);
            let page = self.ledger().recorded_before(operator.tenant(), test.tool.as_ref(), before, limit).await;
            let page = page.map_err(|e| e.refusal())?;
            let Some((last, _)) = page.last() else { break };
            before = Some(*last);
            for (_, recorded) in page {
                if job.cancel.is_cancelled() {
                    break;
                }
                let call = recorded.call.clone();
                if concerns(candidate, &call) {
                    let compared = self.compare_one(operator, recorded, candidate, (job, &mut report.fuel)).await;
                    report.take(&call, compared.unwrap_or_else(|refusal| Compared::NotComparable(refusal.message)));
                    left -= 1;
                }
                job.step();
            }
        }
        Ok(report.view(job.cancel.is_cancelled()))
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
        let hidden = recorded.call.row.clone();
        let subject = Subject::read(self.ledger(), &self.0.blobs, recorded, false).await?;
        let before = self.version_of(&subject.row).await?;
        let after = match candidate {
            Candidate::Stored(row) => Version::stored(row, &before.name)?,
            Candidate::Component { path, wasm } => before.with_component(path, wasm)?,
            Candidate::Manifest(versions) => {
                let found = versions.iter().find(|version| version.name == before.name);
                found.cloned().ok_or_else(|| Refusal::not_found("tool"))?
            }
            Candidate::Policies(_) => before.clone(),
        };
        let hides = self.hides(operator, &hidden, &before).await;
        self.compare_versions(&subject, (&before, &after), (job, fuel, hides)).await
    }

    async fn compare_versions(
        &self,
        subject: &Subject,
        (before, after): (&Version, &Version),
        (job, fuel, hides): (&Job, &mut [u64; 2], bool),
    ) -> Result<Compared, Refusal> {
        let strict = Manner { matching: Matching::Strict, behind: true, cancel: job.cancel.clone() };
        let was = play(self.executor(), subject, before, &strict).await?;
        if !compare(&subject.recording, &was, None).identical {
            return Ok(Compared::NotComparable("it does not replay with its own version".to_owned()));
        }
        if let Some(why) = refuses_input(after, &subject.row.input) {
            let change = Change { what: "input", before: json!("accepted"), after: json!(why) };
            return Ok(Compared::Changed(vec![change]));
        }
        let loose = Manner { matching: Matching::ByContent, ..strict };
        let is = play(self.executor(), subject, after, &loose).await?;
        if let Ended::Fault(Fault::Diverged(why)) = &is.ended {
            return Ok(Compared::NotComparable(why.clone()));
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
        if let (Some(then), Some(now)) = (self.decision(subject, before, &was), self.decision(subject, after, &is))
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

/// Whether a candidate has anything to say about a call.
fn concerns(candidate: &Candidate, call: &StoredCall) -> bool {
    let name = ran(&call.row);
    match candidate {
        Candidate::Stored(row) => {
            let rest = name.as_str().strip_prefix(row.name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }
        Candidate::Manifest(versions) => versions.iter().any(|version| version.name == name),
        Candidate::Component { .. } | Candidate::Policies(_) => true,
    }
}

/// Why a version would not take an input that was taken; nothing if it would, or its schemas are not known.
fn refuses_input(version: &Version, input: &str) -> Option<String> {
    let tool = version.tool.as_ref()?;
    let input: Value = serde_json::from_str(input).ok()?;
    let refused = tool.input().ok()?.validate(&input).err()?.to_string();
    Some(refused)
}

/// How two executions of one call differ, in what they came to and what they would change.
fn differences(was: &Execution, is: &Execution, hides: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    let shown = |execution: &Execution| {
        let (how, text) = ending(execution);
        let text = text.get(..text.floor_char_boundary(SHOWN_MAX_BYTES)).unwrap_or_default().to_owned();
        if hides {
            json!({"ended": how, "sha256": execution.recording.end.sha256})
        } else {
            json!({"ended": how, "text": text})
        }
    };
    let (before, after) = (&was.recording.end, &is.recording.end);
    if before.how != after.how {
        changes.push(Change { what: "end", before: shown(was), after: shown(is) });
    } else if !same_output(was, is) {
        let what = if matches!(was.ended, Ended::Output(_)) { "output" } else { "error" };
        changes.push(Change { what, before: shown(was), after: shown(is) });
    }
    if was.staged.effects != is.staged.effects {
        let told = |effects: &[Effect]| {
            let lines: Vec<String> =
                effects.iter().take(EFFECTS_SHOWN).map(|e| format!("{} {}", e.kind(), shown_effect(e))).collect();
            json!({"effects": effects.len(), "first": lines})
        };
        changes.push(Change { what: "effects", before: told(&was.staged.effects), after: told(&is.staged.effects) });
    }
    changes
}

/// Outputs are JSON: another order of members is no change.
fn same_output(was: &Execution, is: &Execution) -> bool {
    if was.recording.end.sha256 == is.recording.end.sha256 {
        return true;
    }
    let value = |execution: &Execution| match &execution.ended {
        Ended::Output(output) => serde_json::from_str::<Value>(output).ok(),
        _ => None,
    };
    value(was).is_some_and(|was| value(is) == Some(was))
}
