//! Cases, run one after the other: what became of each suite, whether it drifts, and whether a version passes the gate.
//!
//! One case is in memory at a time. What was not run, because somebody or the machine cut it off, has neither passed nor failed:
//! no run of its suite is kept, and no gate opens.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::id::{TenantName, ToolName, UserName};
use toolkeep_core::policy::plan_tier;
use toolkeep_core::principal::Principal;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::execution::Cancel;
use toolkeep_sandbox::tape::Matching;

use super::{Proposed, as_eval, principal_of};
use crate::authenticate::Operator;
use crate::eval::{Case, Eyes};
use crate::host::Host;
use crate::ledger::{CaseLine, SuiteRun};
use crate::notify::Event;
use crate::replay::{Manner, Version, play};

/// Failing cases of one suite that are kept, and of all that an answer shows.
const FAILURES_SHOWN: usize = 50;
/// Failing cases that operators are told by name.
const FAILURES_TOLD: usize = 10;
/// All of something, in thousandths.
const WHOLE_PERMILLE: u64 = 1_000;
/// How often a gate looks whether the daemon stops.
const GATE_LOOKS_EVERY: Duration = Duration::from_millis(500);
/// After how many looks a gate gives up, ten minutes: an operator waits for the answer.
const GATE_LOOKS_MAX: u32 = 1_200;

/// One case, ready to run.
#[derive(Debug)]
pub(super) struct Ready {
    suite: String,
    name: String,
    tool: ToolName,
    /// The case itself, where it is on no record.
    made: Option<Box<Case>>,
}

impl Ready {
    pub(super) fn stored(line: CaseLine) -> Self {
        Self { suite: line.suite.to_string(), name: line.name.to_string(), tool: line.tool, made: None }
    }

    pub(super) fn made(suite: &str, name: String, case: Case) -> Self {
        Self { suite: suite.to_owned(), name, tool: case.tool.clone(), made: Some(Box::new(case)) }
    }
}

/// What one tenant has in a suite.
struct OfTenant {
    principal: Principal,
    ready: Vec<Ready>,
    own: bool,
}

/// What became of the cases of one suite.
#[derive(Debug, Default)]
struct Tally {
    cases: u64,
    passed: u64,
    failed: u64,
    failures: Vec<Value>,
}

impl Tally {
    /// Thousandths of those that ran that passed.
    fn permille(&self) -> u64 {
        let ran = self.passed + self.failed;
        self.passed.saturating_mul(WHOLE_PERMILLE).checked_div(ran).unwrap_or(WHOLE_PERMILLE)
    }

    const fn is_whole(&self) -> bool {
        self.passed + self.failed >= self.cases
    }
}

/// What became of all cases, by suite.
#[derive(Debug, Default)]
pub(super) struct Ran(BTreeMap<String, Tally>);

impl Ran {
    fn of(ready: &[Ready]) -> Self {
        let mut ran = Self::default();
        for ready in ready {
            ran.tally(&ready.suite).cases += 1;
        }
        ran
    }

    fn tally(&mut self, suite: &str) -> &mut Tally {
        self.0.entry(suite.to_owned()).or_default()
    }

    fn take(&mut self, ready: &Ready, problems: &[String]) {
        let tally = self.tally(&ready.suite);
        if problems.is_empty() {
            tally.passed += 1;
            return;
        }
        tally.failed += 1;
        if tally.failures.len() < FAILURES_SHOWN {
            let (suite, name, tool) = (&ready.suite, &ready.name, &ready.tool);
            tally.failures.push(json!({"suite": suite, "name": name, "tool": tool, "problems": problems}));
        }
    }

    /// It was removed meanwhile.
    fn gone(&mut self, ready: &Ready) {
        let tally = self.tally(&ready.suite);
        tally.cases = tally.cases.saturating_sub(1);
    }

    fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in self.0.values() {
            sum.cases += tally.cases;
            sum.passed += tally.passed;
            sum.failed += tally.failed;
            let room = FAILURES_SHOWN.saturating_sub(sum.failures.len());
            sum.failures.extend(tally.failures.iter().take(room).cloned());
        }
        sum
    }

    pub(super) fn view(&self) -> Value {
        let sum = self.sum();
        let unrun = sum.cases.saturating_sub(sum.passed + sum.failed);
        json!({"cases": sum.cases, "passed": sum.passed, "failed": sum.failed, "not_run": unrun, "failures": sum.failures})
    }
}

impl Host {
    /// Run cases one after the other, until somebody or the end of the daemon cuts it off.
    pub(super) async fn run_cases(
        &self,
        principal: &Principal,
        ready: Vec<Ready>,
        proposed: &Proposed,
        (cancel, step): (&Cancel, &(dyn Fn() + Sync)),
    ) -> Ran {
        let mut ran = Ran::of(&ready);
        for mut ready in ready {
            if cancel.is_cancelled() || self.admission().draining() {
                break;
            }
            let case = match ready.made.take() {
                Some(case) => Ok(Some(*case)),
                None => self.stored_case(&principal.tenant, &ready).await,
            };
            let problems = match case {
                Ok(None) => {
                    ran.gone(&ready);
                    continue;
                }
                Ok(Some(case)) => self.run_case((principal, &case), proposed, cancel).await,
                Err(refusal) => Err(refusal),
            };
            match problems {
                Ok(problems) => ran.take(&ready, &problems),
                Err(_) if cancel.is_cancelled() => break,
                // The machine had no time for it, or the host failed. That says nothing about the tool.
                Err(refusal) if matches!(refusal.code, Code::Overloaded | Code::Internal) => {
                    tracing::warn!(
                        suite = ready.suite,
                        case = ready.name,
                        problem = refusal.message,
                        "a case was not run"
                    );
                }
                Err(refusal) => ran.take(&ready, &[refusal.message]),
            }
            step();
        }
        ran
    }

    async fn stored_case(&self, tenant: &TenantName, ready: &Ready) -> Result<Option<Case>, Refusal> {
        let body = self.ledger().case(tenant, &ready.suite, &ready.name).await.map_err(|e| e.refusal())?;
        body.map(|body| Case::read(&body)).transpose()
    }

    /// What is not as it has to be when a case is executed.
    async fn run_case(
        &self,
        (principal, case): (&Principal, &Case),
        proposed: &Proposed,
        cancel: &Cancel,
    ) -> Result<Vec<String>, Refusal> {
        let now = self.catalog().current().tool(&case.tool);
        let missing = || Refusal::not_found("tool");
        let version = match proposed {
            Proposed::Nothing => now.map(|tool| Version::of(&tool)).ok_or_else(missing)?,
            Proposed::Component(proposal) => Version::of(&now.ok_or_else(missing)?).with_component(proposal)?,
            Proposed::Manifest(versions) => {
                let found = versions.iter().find(|version| version.name == case.tool).cloned();
                // A tool that this manifest gives now and would not any more is none that stays.
                let of_others = |name: &ToolName| versions.iter().all(|version| version.manifest.name != *name);
                let other = now.filter(|tool| of_others(&tool.manifest.name)).map(|tool| Version::of(&tool));
                found.or(other).ok_or_else(missing)?
            }
        };
        self.try_case((principal, case), &version, cancel).await
    }

    /// What is not as it has to be when a case is executed with a version.
    pub(super) async fn try_case(
        &self,
        (principal, case): (&Principal, &Case),
        version: &Version,
        cancel: &Cancel,
    ) -> Result<Vec<String>, Refusal> {
        let subject = case.subject(version, principal)?;
        let manner = Manner { matching: Matching::ByContent, behind: true, cancel: cancel.clone() };
        let execution = play(self.executor(), &subject, version, &manner).await?;
        let hidden = self.is_hidden(case) || version.tool.as_ref().is_some_and(|tool| tool.is_sensitive());
        let mut problems = case.expect.problems(&execution, Eyes::of(hidden));
        let tier = plan_tier(&execution.staged.effects, self.undo_bytes());
        if tier > version.tier {
            let (wants, declared) = (tier.number(), version.tier.number());
            problems.push(format!("it wants effects of tier {wants}, and declares tier {declared}"));
        }
        Ok(problems)
    }

    /// Keep what became of each suite that was run as a whole, and tell operators of a drift.
    pub(super) async fn keep_runs(&self, tenant: &TenantName, ran: &Ran) -> Result<(), Refusal> {
        for (suite, tally) in ran.0.iter().filter(|(_, tally)| tally.is_whole() && tally.cases > 0) {
            let Ok(name) = suite.parse::<ToolName>() else { continue };
            // Names alone: why they failed may repeat what they hold, and they may be forgotten.
            let failing: Vec<&Value> = tally.failures.iter().filter_map(|failure| failure.get("name")).collect();
            let run = SuiteRun {
                tenant: tenant.clone(),
                suite: name,
                passed: tally.passed,
                failed: tally.failed,
                body: json!(failing).to_string().into(),
                at_ms: self.now_ms(),
            };
            self.ledger().ran_suite(run).await.map_err(|e| e.refusal())?;
            if tally.permille() < u64::from(self.config().recording.pass_permille) {
                let told = failing.get(..FAILURES_TOLD).unwrap_or(&failing);
                let facts = json!({"suite": suite, "passed": tally.passed, "failed": tally.failed, "failing": told});
                tracing::warn!(suite, failed = tally.failed, "fewer golden cases pass than should");
                self.0.notify.event(Event::EvalDrift, tenant, facts);
            }
        }
        Ok(())
    }

    /// Versions came into force that were not before, past the gate or around it: run the suites that they name, for every tenant
    /// that has cases there, so that operators are told where they do not pass.
    pub(in crate::host) async fn run_fresh(&self, suites: BTreeSet<ToolName>) {
        // One after the other, however often the folder changes: they run beside live calls.
        let _turn = self.0.fresh_runs.lock().await;
        for suite in suites {
            let tenants = match self.ledger().tenants_with_cases(&suite).await {
                Ok(tenants) => tenants,
                Err(error) => {
                    tracing::warn!(%error, %suite, "the suite of a new version could not be run");
                    continue;
                }
            };
            for (tenant, user) in tenants {
                if let Err(refusal) = self.run_fresh_of((&tenant, user), &suite).await {
                    let problem = refusal.message;
                    tracing::warn!(%suite, tenant = tenant.as_str(), problem, "the suite of a new version could not be run");
                }
            }
        }
    }

    async fn run_fresh_of(&self, (tenant, user): (&TenantName, UserName), suite: &ToolName) -> Result<(), Refusal> {
        let ready = self.suite_cases(tenant, Some(suite)).await?;
        let facts =
            json!({"what": "suite run", "by": "daemon", "tenant": tenant, "suite": suite, "cases": ready.len()});
        self.ledger().audit(AuditKind::Evaluation, &facts).map_err(|e| e.refusal())?;
        let principal = as_eval(tenant.clone(), user)?;
        let ran = self.run_cases(&principal, ready, &Proposed::Nothing, (&Cancel::new(), &|| {})).await;
        self.keep_runs(tenant, &ran).await
    }

    /// What the golden cases of a suite say about a changed version before it is installed.
    ///
    /// # Errors
    /// `eval_failed`: cases fail, or the suite has none about a tool of this version. `overloaded`: not all of them could be run.
    pub(in crate::host) async fn gate(
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
        let suites = self.suites_of_all(operator, suite).await?;
        let concerns = |ready: &Ready| versions.iter().any(|version| version.name == ready.tool);
        if !suites.iter().any(|of| of.ready.iter().any(concerns)) {
            return Err(red(format!("the suite `{suite}` has no case about a tool of this manifest"), &[]));
        }
        let (proposed, mut all, mut looks) = (Proposed::Manifest(versions), Tally::default(), 0);
        for of in suites {
            let sum = self.run_in_time(&of.principal, of.ready, &proposed, &mut looks).await.sum();
            // What other tenants hold is theirs: it is counted.
            let (whose, shown) = if of.own { ("", sum.failures.as_slice()) } else { (" of another tenant", &[][..]) };
            if !sum.is_whole() {
                let message =
                    format!("{} of {} golden cases of `{suite}` were run", sum.passed + sum.failed, sum.cases);
                let mut refusal =
                    Refusal::new(Code::Overloaded, message).hint("try again when the daemon has less to do");
                refusal.detail = Some(json!({"suite": suite, "not_run": sum.cases - sum.passed - sum.failed}));
                return Err(refusal);
            }
            if sum.permille() < u64::from(self.config().recording.pass_permille) {
                let message = format!("{} of {} golden cases of `{suite}`{whose} fail", sum.failed, sum.cases);
                return Err(red(message, shown));
            }
            all.failures.extend_from_slice(shown);
            (all.cases, all.passed, all.failed) =
                (all.cases + sum.cases, all.passed + sum.passed, all.failed + sum.failed);
        }
        Ok(json!({"suite": suite, "cases": all.cases, "passed": all.passed, "failed": all.failed,
            "failures": all.failures}))
    }

    /// The cases of every tenant that has some in a suite: a version serves all of them.
    async fn suites_of_all(&self, operator: &Operator, suite: &ToolName) -> Result<Vec<OfTenant>, Refusal> {
        let mut suites = Vec::new();
        for (tenant, user) in self.ledger().tenants_with_cases(suite).await.map_err(|e| e.refusal())? {
            let own = tenant == *operator.tenant();
            let principal = if own { principal_of(operator)? } else { as_eval(tenant, user)? };
            let ready = self.suite_cases(&principal.tenant, Some(suite)).await?;
            suites.push(OfTenant { principal, ready, own });
        }
        Ok(suites)
    }

    /// Run cases while somebody waits for the answer: not for ever, and not while the daemon stops.
    async fn run_in_time(&self, principal: &Principal, ready: Vec<Ready>, proposed: &Proposed, looks: &mut u32) -> Ran {
        let cancel = Cancel::new();
        let mut running = pin!(self.run_cases(principal, ready, proposed, (&cancel, &|| {})));
        loop {
            tokio::select! {
                ran = &mut running => return ran,
                () = tokio::time::sleep(GATE_LOOKS_EVERY) => {
                    *looks += 1;
                    if self.admission().draining() || *looks >= GATE_LOOKS_MAX {
                        cancel.cancel();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(suite: &str, name: usize) -> Ready {
        let tool = "sample".parse().expect("a name");
        Ready { suite: suite.to_owned(), name: name.to_string(), tool, made: None }
    }

    #[test]
    fn r45_every_failure_is_counted_for_its_own_suite_however_few_are_shown() {
        let all: Vec<Ready> =
            (0..=FAILURES_SHOWN).map(|name| ready("first", name)).chain([ready("second", 0)]).collect();
        let mut ran = Ran::of(&all);
        for ready in &all {
            ran.take(ready, &["no".to_owned()]);
        }
        let (first, second) = (&ran.0["first"], &ran.0["second"]);
        assert_eq!((first.failed, first.failures.len(), first.permille()), (51, FAILURES_SHOWN, 0));
        assert_eq!((second.failed, second.failures.len(), second.permille()), (1, 1, 0));
        let view = ran.view();
        assert_eq!((&view["failed"], view["failures"].as_array().map(Vec::len)), (&json!(52), Some(FAILURES_SHOWN)));
    }

    #[test]
    fn r45_what_was_not_run_has_not_passed_and_its_suite_is_not_whole() {
        let all: Vec<Ready> = (0..3).map(|name| ready("suite", name)).collect();
        let mut ran = Ran::of(&all);
        ran.take(&all[0], &[]);
        ran.take(&all[1], &["no".to_owned()]);
        assert!(!ran.0["suite"].is_whole());
        assert_eq!(ran.view()["not_run"], json!(1));
        assert_eq!(ran.0["suite"].permille(), 500, "of those that ran");
        ran.gone(&all[2]);
        assert!(ran.0["suite"].is_whole(), "a case that was removed meanwhile is not missed");
    }
}
