//! Golden cases for operators: adding, showing, running.
//!
//! A case that is made of a call has to come to the same before it stands for anything. Running a suite is a job: each case is
//! executed offline, behind live calls, with the version in force or with one that somebody proposes. What a schema or
//! a policy hides of a case is told by digests alone.

mod running;

use std::path::PathBuf;

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, TenantName, ToolName, UserName};
use toolkeep_core::principal::Principal;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::execution::Cancel;
use toolkeep_sandbox::tape::Matching;

use super::Host;
use super::life::blocking;
use crate::authenticate::Operator;
use crate::eval::{CASE_MAX_BYTES, Case, Expect, OF_TRANSACTION, hostile};
use crate::ledger::{CASES_MAX, CaseChange, CaseRow, Who};
use crate::replay::{Manner, Proposal, Version, compare, not_replayable, play, proposed};
use running::Ready;

/// The suite of cases that are added without the name of one.
const DEFAULT_SUITE: &str = "golden";
/// Runs of a suite that are shown.
const RUNS_SHOWN: u32 = 10;

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
    Component(Proposal),
    Manifest(Vec<Version>),
}

/// A case that was made of a call, and what does not come of it.
struct Made {
    case: Case,
    problems: Vec<String>,
}

impl Host {
    /// Add a golden case: of a recorded call, or as it is written.
    ///
    /// # Errors
    /// `invalid_input`: it is no case. `not_replayable`: the call is none. `overloaded`: there are too many.
    pub async fn add_case(&self, operator: &Operator, add: AddCase) -> Result<Value, Refusal> {
        let (Made { case, problems }, of_call) = match (add.call, &add.case) {
            (Some(call), None) => (self.case_of(operator, call, add.expect).await?, true),
            (None, Some(text)) => (Made { case: Case::read(text)?, problems: Vec::new() }, false),
            _ => return Err(Refusal::new(Code::InvalidInput, "give `call` or `case`, and not both")),
        };
        case.expect.check().map_err(|problem| Refusal::new(Code::InvalidInput, problem))?;
        let body = serde_json::to_string(&case).map_err(|e| Refusal::new(Code::Internal, e.to_string()))?;
        if body.len() > CASE_MAX_BYTES {
            let message = format!("the case has {} bytes; at most {CASE_MAX_BYTES}", body.len());
            return Err(Refusal::new(Code::InvalidInput, message).hint("make one from a call that reads less"));
        }
        let suite = add.suite.map_or_else(|| DEFAULT_SUITE.parse(), Ok);
        let suite: ToolName = suite.map_err(|_| Refusal::new(Code::Internal, "BUG: the default suite has no name"))?;
        let row = CaseRow {
            tenant: operator.tenant().clone(),
            suite: suite.clone(),
            name: add.name.clone(),
            tool: case.tool.clone(),
            body: body.into(),
            made_by: operator.user().clone(),
            made_ms: self.now_ms(),
            from_call: case.from,
            from_user: case.caller.as_ref().map(|caller| caller.user.clone()),
        };
        let facts =
            json!({"what": "case added", "suite": suite, "name": add.name, "tool": case.tool, "call": add.call});
        let added = self.ledger().add_case(row, (by(operator), facts), of_call).await;
        match added.map_err(|e| e.refusal())? {
            CaseChange::Done => {}
            CaseChange::Missing => return Err(Refusal::not_found("call")),
            CaseChange::Full => {
                let message = format!("there are {CASES_MAX} golden cases; remove some first");
                return Err(Refusal::new(Code::Overloaded, message));
            }
        }
        let mut answer = json!({"suite": suite, "name": add.name, "tool": case.tool, "problems": problems});
        if let Value::Object(members) = &mut answer {
            if self.is_hidden(&case) {
                members.insert("hidden".to_owned(), json!(true));
            } else {
                members.insert("expect".to_owned(), json!(case.expect));
            }
        }
        Ok(answer)
    }

    /// A case of a call. It has to replay, and the finished case has to come to the same, before it may stand for anything.
    async fn case_of(&self, operator: &Operator, call: CallId, expect: Option<Expect>) -> Result<Made, Refusal> {
        let subject = self.subject(operator, call).await?;
        if subject.recording.layer.is_some() {
            return Err(not_replayable(OF_TRANSACTION).hint("make the case of a call outside of transactions"));
        }
        let version = self.version_of(&subject.row).await?;
        let manner = Manner { matching: Matching::Strict, behind: false, cancel: Cancel::new() };
        let execution = play(self.executor(), &subject, &version, &manner).await?;
        if !compare(&subject.recording, &execution, None).identical {
            return Err(not_replayable("its replay is not what was recorded; see `toolkeep replay`"));
        }
        let same = expect.is_none();
        let expect = expect.unwrap_or_else(|| Expect::same_as(&execution));
        let hidden = self.hides(operator.tenant(), &subject.row, &version).await;
        let case = Case::of(&subject, &version, expect, hidden);
        let problems = self.try_case((&principal_of(operator)?, &case), &version, &Cancel::new()).await?;
        match problems.first() {
            // What somebody says has to come of it may well be what does not come of it yet.
            Some(problem) if same => Err(not_replayable(format!("as a case it does not come to the same: {problem}"))),
            _ => Ok(Made { case, problems }),
        }
    }

    /// Whether a part of a case is hidden from eyes: when it was made, or by the schema of today.
    fn is_hidden(&self, case: &Case) -> bool {
        case.hidden || self.catalog().current().tool(&case.tool).is_some_and(|tool| tool.is_sensitive())
    }

    /// The golden cases of the operator's tenant, and what became of each suite lately.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn list_cases(&self, operator: &Operator, suite: Option<ToolName>) -> Result<Value, Refusal> {
        let lines = self.ledger().cases(operator.tenant(), suite.as_ref()).await.map_err(|e| e.refusal())?;
        let cases: Vec<Value> = lines
            .iter()
            .map(|line| {
                json!({"suite": line.suite, "name": line.name, "tool": line.tool, "made_by": line.made_by,
                    "made_at_ms": line.made_ms, "bytes": line.bytes})
            })
            .collect();
        let mut suites: Vec<&ToolName> = lines.iter().map(|line| &line.suite).collect();
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

    /// One golden case as it can be added again elsewhere; digests, where a part of it is hidden from eyes.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn show_case(&self, operator: &Operator, suite: &ToolName, name: &ToolName) -> Result<Value, Refusal> {
        let body = self.ledger().case(operator.tenant(), suite.as_str(), name.as_str()).await;
        let body = body.map_err(|e| e.refusal())?.ok_or_else(|| Refusal::not_found("case"))?;
        let case = Case::read(&body)?;
        let shown = if self.is_hidden(&case) { masked(&case, &body) } else { json!(case) };
        Ok(json!({"suite": suite, "name": name, "case": shown}))
    }

    /// Remove a golden case.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn remove_case(&self, operator: &Operator, suite: &ToolName, name: &ToolName) -> Result<Value, Refusal> {
        let facts = json!({"what": "case removed", "suite": suite, "name": name});
        let removed = self.ledger().remove_case(operator.tenant(), (suite, name), (by(operator), facts)).await;
        match removed.map_err(|e| e.refusal())? {
            CaseChange::Done => Ok(json!({"suite": suite, "name": name, "removed": true})),
            CaseChange::Missing | CaseChange::Full => Err(Refusal::not_found("case")),
        }
    }

    /// Run a suite as a job.
    ///
    /// # Errors
    /// `invalid_input`: what is to be tried is refused. `not_found`: there is no such suite. `overloaded`: too many jobs run.
    pub async fn run_suite(&self, operator: &Operator, run: RunSuite) -> Result<Value, Refusal> {
        let proposed = self.proposed(run.component, run.manifest).await?;
        let ready = match &run.adversarial {
            Some(tool) => self.adversarial(tool, &proposed)?,
            None => self.suite_cases(operator.tenant(), run.suite.as_ref()).await?,
        };
        if ready.is_empty() && run.adversarial.is_none() {
            return Err(Refusal::not_found("suite").hint("add cases with `toolkeep eval add`"));
        }
        let facts =
            json!({"what": "suite run", "suite": run.suite, "adversarial": run.adversarial, "cases": ready.len()});
        self.note(operator, AuditKind::Evaluation, facts).await?;
        let keeps = run.adversarial.is_none() && matches!(proposed, Proposed::Nothing);
        let (operator, principal) = (operator.clone(), principal_of(operator)?);
        self.begin_job(&operator.clone(), ("eval", ready.len() as u64), |host, job| async move {
            let ran = host.run_cases(&principal, ready, &proposed, (&job.cancel, &|| job.step())).await;
            if keeps {
                host.keep_runs(operator.tenant(), &ran).await?;
            }
            Ok(ran.view())
        })
    }

    /// The cases of a suite, or of all, by name.
    async fn suite_cases(&self, tenant: &TenantName, suite: Option<&ToolName>) -> Result<Vec<Ready>, Refusal> {
        let lines = self.ledger().cases(tenant, suite).await.map_err(|e| e.refusal())?;
        Ok(lines.into_iter().map(Ready::stored).collect())
    }

    fn adversarial(&self, tool: &ToolName, proposed: &Proposed) -> Result<Vec<Ready>, Refusal> {
        let of_manifest = match proposed {
            Proposed::Manifest(versions) => versions.iter().find(|version| version.name == *tool),
            Proposed::Nothing | Proposed::Component(_) => None,
        };
        let tool = of_manifest.and_then(|version| version.tool.clone()).or_else(|| self.catalog().current().tool(tool));
        let tool = tool.ok_or_else(|| Refusal::not_found("tool"))?;
        Ok(hostile(&tool).into_iter().map(|(name, case)| Ready::made("adversarial", name, case)).collect())
    }

    async fn proposed(&self, component: Option<PathBuf>, manifest: Option<PathBuf>) -> Result<Proposed, Refusal> {
        match (component, manifest) {
            (None, None) => Ok(Proposed::Nothing),
            (Some(path), None) => {
                let proposal = blocking(move || Proposal::read(&path)).await??;
                self.compiles(&proposal.file((None, None))).await?;
                Ok(Proposed::Component(proposal))
            }
            (None, Some(path)) => {
                let versions = blocking(move || proposed(&path)).await??;
                for version in &versions {
                    self.compiles(&version.component).await?;
                }
                Ok(Proposed::Manifest(versions))
            }
            _ => Err(Refusal::new(Code::InvalidInput, "give `component` or `manifest`, and not both")),
        }
    }
}

/// What may be seen of a case of which a part is hidden.
fn masked(case: &Case, body: &str) -> Value {
    json!({"format": case.format, "tool": case.tool, "mode": case.mode, "from": case.from, "hidden": true,
        "sha256": Digest::of(body.as_bytes()), "bytes": body.len(), "expect": {"ended": case.expect.ended,
        "sha256": Digest::of(json!(case.expect).to_string().as_bytes())}})
}

fn by(operator: &Operator) -> Who<'_> {
    Who::Operator { user: operator.user(), tenant: operator.tenant() }
}

/// Whom cases that a person wrote are called by.
fn principal_of(operator: &Operator) -> Result<Principal, Refusal> {
    as_eval(operator.tenant().clone(), operator.user().clone())
}

fn as_eval(tenant: TenantName, user: UserName) -> Result<Principal, Refusal> {
    let agent = "eval".parse().map_err(|_| Refusal::new(Code::Internal, "BUG: `eval` is no name"))?;
    Ok(Principal { tenant, user, agent })
}
