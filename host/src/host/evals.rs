//! Golden cases for operators: adding, running, and what a suite says about a version before it is installed.
//!
//! Running a suite is a job: each case is executed offline, behind live calls, with the version in force or with one that
//! somebody proposes. What became of it is kept, so that a drift shows; where fewer cases pass than the configuration
//! wants, operators are told.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::id::{CallId, ToolName};
use toolkeep_core::policy::plan_tier;
use toolkeep_core::principal::Principal;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::execution::Cancel;
use toolkeep_sandbox::tape::Matching;

use super::Host;
use super::life::blocking;
use crate::authenticate::Operator;
use crate::catalog::read_component;
use crate::eval::{CASE_MAX_BYTES, Case, Expect, hostile};
use crate::ledger::{CASES_MAX, CaseRow, SuiteRun};
use crate::notify::Event;
use crate::replay::{Manner, Version, compare, play, proposed};

/// The suite of cases that are added without the name of one.
const DEFAULT_SUITE: &str = "golden";
/// Failing cases that an answer shows.
const FAILURES_SHOWN: usize = 50;
/// Runs of a suite that are shown.
const RUNS_SHOWN: u32 = 10;
/// All of something, in thousandths.
const WHOLE_PERMILLE: u64 = 1_000;

/// A case that an operator adds.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddCase {
    /// The suite that it belongs to.
    #[serde(default)]
    pub suite: Option<ToolName>,
    /// Its name there.
    pub name: ToolName,
    /// The recorded call that it is made from.
    #[serde(default)]
    pub call: Option<CallId>,
    /// What has to come of it; the same as of the call if left out.
    #[serde(default)]
    pub expect: Option<Expect>,
    /// A whole case, JSON.
    #[serde(default)]
    pub case: Option<String>,
}

/// A suite that is to be run.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSuite {
    /// Which; all of them if left out.
    #[serde(default)]
    pub suite: Option<ToolName>,
    /// The adversarial pack for this tool instead.
    #[serde(default)]
    pub adversarial: Option<ToolName>,
    /// A component file to try instead of the one in force.
    #[serde(default)]
    pub component: Option<PathBuf>,
    /// A manifest to try, with its component.
    #[serde(default)]
    pub manifest: Option<PathBuf>,
}

/// Another version that is tried.
#[derive(Debug)]
pub(super) enum Proposed {
    Nothing,
    Component(PathBuf, Arc<[u8]>),
    Manifest(Vec<Version>),
}

/// One case, ready to run.
struct Ready {
    suite: String,
    name: String,
    case: Case,
}

/// What a suite came to.
#[derive(Debug, Default)]
pub(super) struct Ran {
    pub(super) passed: u64,
    pub(super) failures: Vec<Value>,
    pub(super) failed: u64,
}

impl Ran {
    fn permille(&self) -> u64 {
        let all = self.passed + self.failed;
        self.passed.saturating_mul(WHOLE_PERMILLE).checked_div(all).unwrap_or(WHOLE_PERMILLE)
    }

    fn view(&self) -> Value {
        json!({"cases": self.passed + self.failed, "passed": self.passed, "failed": self.failed,
            "failures": self.failures})
    }
}

impl Host {
    /// Add a golden case: of a recorded call, or as it is written.
    ///
    /// # Errors
    /// `invalid_input`: it is no case. `not_replayable`: the call is none. `overloaded`: there are too many.
    pub async fn add_case(&self, operator: &Operator, add: AddCase) -> Result<Value, Refusal> {
        let case = match (add.call, &add.case) {
            (Some(call), None) => self.case_of(operator, call, add.expect).await?,
            (None, Some(text)) => Case::read(text)?,
            _ => return Err(Refusal::new(Code::InvalidInput, "give `call` or `case`, and not both")),
        };
        case.expect.check().map_err(|problem| Refusal::new(Code::InvalidInput, problem))?;
        let body = serde_json::to_string(&case).map_err(|e| Refusal::new(Code::Internal, e.to_string()))?;
        if body.len() > CASE_MAX_BYTES {
            let message = format!("the case has {} bytes; at most {CASE_MAX_BYTES}", body.len());
            return Err(Refusal::new(Code::InvalidInput, message).hint("make one from a call that reads less"));
        }
        let tenant = operator.tenant();
        if self.ledger().cases(tenant, None).await.map_err(|e| e.refusal())?.len() as u64 >= CASES_MAX {
            let message = format!("there are {CASES_MAX} golden cases; remove some first");
            return Err(Refusal::new(Code::Overloaded, message));
        }
        let suite = add.suite.map_or_else(|| DEFAULT_SUITE.parse(), Ok);
        let suite: ToolName = suite.map_err(|_| Refusal::new(Code::Internal, "BUG: the default suite has no name"))?;
        let row = CaseRow {
            tenant: tenant.clone(),
            suite: suite.clone(),
            name: add.name.clone(),
            tool: case.tool.clone(),
            body: body.into(),
            made_by: operator.user().clone(),
            made_ms: self.now_ms(),
        };
        let facts =
            json!({"what": "case added", "suite": suite, "name": add.name, "tool": case.tool, "call": add.call});
        self.note(operator, AuditKind::Evaluation, facts).await?;
        self.ledger().add_case(row).await.map_err(|e| e.refusal())?;
        Ok(json!({"suite": suite, "name": add.name, "tool": case.tool, "expect": case.expect}))
    }

    /// A case of a call, which has to replay before it may stand for anything.
    async fn case_of(&self, operator: &Operator, call: CallId, expect: Option<Expect>) -> Result<Case, Refusal> {
        let subject = self.subject(operator, call).await?;
        let version = self.version_of(&subject.row).await?;
        let manner = Manner { matching: Matching::Strict, behind: false, cancel: Cancel::new() };
        let execution = play(self.executor(), &subject, &version, &manner).await?;
        if !compare(&subject.recording, &execution, None).identical {
            return Err(crate::replay::not_replayable("its replay is not what was recorded; see `toolkeep replay`"));
        }
        let expect = expect.unwrap_or_else(|| Expect::same_as(&execution));
        Ok(Case::of(&subject, &version.name, expect))
    }

    /// The golden cases of the operator's tenant, and what became of each suite lately.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn list_cases(&self, operator: &Operator, suite: Option<ToolName>) -> Result<Value, Refusal> {
        let rows = self.ledger().cases(operator.tenant(), suite.as_ref()).await.map_err(|e| e.refusal())?;
        let cases: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({"suite": row.suite, "name": row.name, "tool": row.tool, "made_by": row.made_by,
                    "made_at_ms": row.made_ms, "bytes": row.body.len()})
            })
            .collect();
        let mut suites: Vec<&ToolName> = rows.iter().map(|row| &row.suite).collect();
        suites.dedup();
        let mut runs = Vec::new();
        for suite in suites {
            let lately = self.ledger().suite_runs(operator.tenant(), suite, RUNS_SHOWN).await;
            let lately = lately.map_err(|e| e.refusal())?;
            let lately: Vec<Value> = lately
                .iter()
                .map(|run| json!({"at_ms": run.at_ms, "passed": run.passed, "failed": run.failed}))
                .collect();
            runs.push(json!({"suite": suite, "runs": lately}));
        }
        Ok(json!({"cases": cases, "suites": runs}))
    }

    /// One golden case as it can be added again elsewhere.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn show_case(&self, operator: &Operator, suite: &ToolName, name: &ToolName) -> Result<Value, Refusal> {
        let rows = self.ledger().cases(operator.tenant(), Some(suite)).await.map_err(|e| e.refusal())?;
        let row = rows.into_iter().find(|row| row.name == *name).ok_or_else(|| Refusal::not_found("case"))?;
        let case: Value = serde_json::from_str(&row.body).unwrap_or_default();
        Ok(json!({"suite": suite, "name": name, "case": case}))
    }

    /// Remove a golden case.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn remove_case(&self, operator: &Operator, suite: &ToolName, name: &ToolName) -> Result<Value, Refusal> {
        self.show_case(operator, suite, name).await?;
        let facts = json!({"what": "case removed", "suite": suite, "name": name});
        self.note(operator, AuditKind::Evaluation, facts).await?;
        self.ledger().remove_case(operator.tenant(), suite, name).await.map_err(|e| e.refusal())?;
        Ok(json!({"suite": suite, "name": name, "removed": true}))
    }

    /// Run a suite as a job.
    ///
    /// # Errors
    /// `invalid_input`: what is to be tried is refused. `not_found`: there is no such suite. `overloaded`: too many jobs run.
    pub async fn run_suite(&self, operator: &Operator, run: RunSuite) -> Result<Value, Refusal> {
        let proposed = self.proposed(run.component, run.manifest).await?;
        let ready = match &run.adversarial {
            Some(tool) => self.adversarial(tool, &proposed)?,
            None => self.suite_cases(operator, run.suite.as_ref()).await?,
        };
        let facts =
            json!({"what": "suite run", "suite": run.suite, "adversarial": run.adversarial, "cases": ready.len()});
        self.note(operator, AuditKind::Evaluation, facts).await?;
        let keeps = run.adversarial.is_none() && matches!(proposed, Proposed::Nothing);
        let (operator, principal) = (operator.clone(), principal_of(operator)?);
        self.begin_job(&operator.clone(), ("eval", ready.len() as u64), |host, job| async move {
            let ran = host.run_cases(&principal, &ready, &proposed, (&job.cancel, &|| job.step())).await;
            if keeps && !job.cancel.is_cancelled() {
                host.keep_runs(&operator, &ready, &ran).await?;
            }
            Ok(ran.view())
        })
    }

    async fn suite_cases(&self, operator: &Operator, suite: Option<&ToolName>) -> Result<Vec<Ready>, Refusal> {
        let rows = self.ledger().cases(operator.tenant(), suite).await.map_err(|e| e.refusal())?;
        if rows.is_empty() {
            return Err(Refusal::not_found("suite").hint("add cases with `toolkeep eval add`"));
        }
        let ready = |row: CaseRow| {
            let case = Case::read(&row.body)?;
            Ok(Ready { suite: row.suite.to_string(), name: row.name.to_string(), case })
        };
        rows.into_iter().map(ready).collect()
    }

    fn adversarial(&self, tool: &ToolName, proposed: &Proposed) -> Result<Vec<Ready>, Refusal> {
        let of_manifest = match proposed {
            Proposed::Manifest(versions) => versions.iter().find(|version| version.name == *tool),
            Proposed::Nothing | Proposed::Component(..) => None,
        };
        let tool = of_manifest.and_then(|version| version.tool.clone()).or_else(|| self.catalog().current().tool(tool));
        let tool = tool.ok_or_else(|| Refusal::not_found("tool"))?;
        let ready = |(name, case): (String, Case)| Ready { suite: "adversarial".to_owned(), name, case };
        Ok(hostile(&tool).into_iter().map(ready).collect())
    }

    async fn proposed(&self, component: Option<PathBuf>, manifest: Option<PathBuf>) -> Result<Proposed, Refusal> {
        match (component, manifest) {
            (None, None) => Ok(Proposed::Nothing),
            (Some(path), None) => {
                let read = path.clone();
                let wasm = blocking(move || read_component(&read)).await??;
                Ok(Proposed::Component(path, wasm))
            }
            (None, Some(path)) => Ok(Proposed::Manifest(blocking(move || proposed(&path)).await??)),
            _ => Err(Refusal::new(Code::InvalidInput, "give `component` or `manifest`, and not both")),
        }
    }

    /// Run cases one after the other.
    async fn run_cases(
        &self,
        principal: &Principal,
        ready: &[Ready],
        proposed: &Proposed,
        (cancel, step): (&Cancel, &(dyn Fn() + Sync)),
    ) -> Ran {
        let mut ran = Ran::default();
        for Ready { suite, name, case } in ready {
            if cancel.is_cancelled() || self.admission().draining() {
                break;
            }
            let problems = match self.run_case(principal, case, proposed, cancel).await {
                Ok(problems) => problems,
                Err(refusal) => vec![refusal.message],
            };
            step();
            if problems.is_empty() {
                ran.passed += 1;
                continue;
            }
            ran.failed += 1;
            if ran.failures.len() < FAILURES_SHOWN {
                ran.failures.push(json!({"suite": suite, "name": name, "tool": case.tool, "problems": problems}));
            }
        }
        ran
    }

    /// What is not as it has to be when a case is executed.
    async fn run_case(
        &self,
        principal: &Principal,
        case: &Case,
        proposed: &Proposed,
        cancel: &Cancel,
    ) -> Result<Vec<String>, Refusal> {
        let now = self.catalog().current().tool(&case.tool).map(|tool| Version::of(&tool));
        let missing = || Refusal::not_found("tool");
        let version = match proposed {
            Proposed::Nothing => now.ok_or_else(missing)?,
            Proposed::Component(path, wasm) => now.ok_or_else(missing)?.with_component(path, wasm)?,
            Proposed::Manifest(versions) => {
                let found = versions.iter().find(|version| version.name == case.tool).cloned();
                found.or(now).ok_or_else(missing)?
            }
        };
        let subject = case.subject(&version, principal)?;
        let manner = Manner { matching: Matching::ByContent, behind: true, cancel: cancel.clone() };
        let execution = play(self.executor(), &subject, &version, &manner).await?;
        let mut problems = case.expect.problems(&execution);
        let tier = plan_tier(&execution.staged.effects, self.undo_bytes());
        if tier > version.tier {
            let (wants, declared) = (tier.number(), version.tier.number());
            problems.push(format!("it wants effects of tier {wants}, and declares tier {declared}"));
        }
        Ok(problems)
    }

    /// Keep what became of each suite, and tell operators of a drift.
    async fn keep_runs(&self, operator: &Operator, ready: &[Ready], ran: &Ran) -> Result<(), Refusal> {
        let mut suites: Vec<&str> = ready.iter().map(|ready| ready.suite.as_str()).collect();
        suites.sort_unstable();
        suites.dedup();
        for suite in suites {
            let all = ready.iter().filter(|ready| ready.suite == suite).count() as u64;
            let failures: Vec<&Value> =
                ran.failures.iter().filter(|failure| failure.get("suite") == Some(&json!(suite))).collect();
            let failed = failures.len() as u64;
            let of = Ran { passed: all.saturating_sub(failed), failed, failures: Vec::new() };
            let Ok(name) = suite.parse::<ToolName>() else { continue };
            let run = SuiteRun {
                tenant: operator.tenant().clone(),
                suite: name,
                passed: of.passed,
                failed,
                body: json!(failures).to_string().into(),
                at_ms: self.now_ms(),
            };
            self.ledger().ran_suite(run).await.map_err(|e| e.refusal())?;
            if of.permille() < u64::from(self.config().recording.pass_permille) {
                let names: Vec<&Value> = failures.iter().take(10).filter_map(|failure| failure.get("name")).collect();
                let facts = json!({"suite": suite, "passed": of.passed, "failed": failed, "failing": names});
                tracing::warn!(suite, failed, "fewer golden cases pass than should");
                self.0.notify.event(Event::EvalDrift, operator.tenant(), facts);
            }
        }
        Ok(())
    }

    /// What the golden cases say about a changed version before it is installed.
    ///
    /// # Errors
    /// `eval_failed`: cases fail, or the suite has none.
    pub(super) async fn gate(
        &self,
        operator: &Operator,
        suite: &ToolName,
        versions: Vec<Version>,
    ) -> Result<Value, Refusal> {
        let red = |message: String, failures: &[Value]| {
            let mut refusal = Refusal::new(Code::EvalFailed, message);
            refusal.detail = Some(json!({"suite": suite, "failures": failures}));
            refusal
        };
        let ready = match self.suite_cases(operator, Some(suite)).await {
            Ok(ready) => ready,
            Err(_) => return Err(red(format!("the suite `{suite}` has no cases"), &[])),
        };
        let principal = principal_of(operator)?;
        let ran = self.run_cases(&principal, &ready, &Proposed::Manifest(versions), (&Cancel::new(), &|| {})).await;
        if ran.permille() < u64::from(self.config().recording.pass_permille)
            || ran.passed + ran.failed < ready.len() as u64
        {
            let message = format!("{} of {} golden cases of `{suite}` fail", ran.failed, ready.len());
            return Err(red(message, &ran.failures));
        }
        Ok(ran.view())
    }
}

/// Whom cases that a person wrote are called by.
fn principal_of(operator: &Operator) -> Result<Principal, Refusal> {
    let agent = "eval".parse().map_err(|_| Refusal::new(Code::Internal, "BUG: `eval` is no name"))?;
    Ok(Principal { tenant: operator.tenant().clone(), user: operator.user().clone(), agent })
}
