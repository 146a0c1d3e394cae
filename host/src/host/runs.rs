//! Runs: one agent task of many calls, with terms and a budget.

use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::call::ReportedUsage;
use toolkeep_core::contract::{Narrowing, Terms};
use toolkeep_core::id::{ContractName, RunId, WorkflowName};
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use super::budgets::balance;
use crate::authenticate::{Caller, Operator};
use crate::budget::run::{Run, no_open_run};
use crate::ledger::{Page, RunRow, RunTotals, Scope, StoredCall};

/// Longest label of a run, in bytes.
pub(super) const LABEL_MAX_BYTES: usize = 256;
/// Longest outcome of a run, in bytes.
const OUTCOME_MAX_BYTES: usize = 128;
/// The outcome of a run that was given up.
const ABANDONED: &str = "abandoned";

/// How to open a run.
#[derive(Debug, Clone, Default)]
pub struct OpenRun {
    /// What it is for.
    pub label: String,
    /// The contract that binds it; that of the configuration if absent.
    pub contract: Option<ContractName>,
    /// What its spending is added up under, where no contract says so.
    pub workflow: Option<WorkflowName>,
    /// What is asked for besides; it only narrows.
    pub narrowing: Narrowing,
}

/// How to close a run.
#[derive(Debug, Clone, Default)]
pub struct CloseRun {
    /// What it came to.
    pub outcome: Option<String>,
    /// Whether it is given up, required steps or not.
    pub abandon: bool,
}

impl Host {
    /// Open a run.
    ///
    /// # Errors
    /// `invalid_input`: a parameter makes no sense. `not_found`: there is no such contract. `rate_limited`: the tenant opens too
    /// many. `overloaded`: the ledger is behind.
    pub fn open_run(&self, caller: &Caller, open: OpenRun) -> Result<Value, Refusal> {
        if open.label.len() > LABEL_MAX_BYTES {
            return Err(Refusal::new(Code::InvalidInput, "the label is too long").field(
                "/label",
                format!("has {} bytes", open.label.len()),
                "at most 256 bytes",
            ));
        }
        self.admission().pace_run(caller.principal())?;
        let (terms, workflow) = self.terms(caller, &open)?;
        let terms = terms.narrowed(&open.narrowing).map_err(|bad| {
            let pointer = format!("/{}", bad.key.replace('.', "/"));
            Refusal::new(Code::InvalidInput, "what is asked for makes no sense").field(pointer, bad.problem, "less")
        })?;
        let run = RunId::new(self.ambient().uuid_v7());
        let kept = serde_json::to_string(&terms)
            .map_err(|_| Refusal::new(Code::Internal, "the terms of the run could not be written"))?;
        let row = RunRow {
            origin: caller.origin().clone(),
            workflow: workflow.clone(),
            terms: kept.into(),
            ..RunRow::new(run, caller.principal().clone(), open.label, self.ambient().now_ms())
        };
        self.ledger().open_run(row).map_err(|e| e.refusal())?;
        let begun = Run::begin(run, caller.who(), workflow.clone(), terms);
        let told =
            json!({"run": run, "contract": begun.terms.contract, "workflow": workflow, "budget": begun.terms.budget});
        self.kill().learn(run, workflow);
        self.budgets().begin(begun);
        Ok(told)
    }

    /// The terms that a run begins with, and its workflow.
    fn terms(&self, caller: &Caller, open: &OpenRun) -> Result<(Terms, Option<WorkflowName>), Refusal> {
        let name = open.contract.as_ref().or(self.budgets().config().default_contract.as_ref());
        let Some(name) = name else { return Ok((Terms::free(), open.workflow.clone())) };
        let contract = self.budgets().contracts().current().named(name);
        let contract = contract.filter(|contract| contract.is_for(&caller.principal().tenant)).ok_or_else(|| {
            Refusal::not_found("contract").hint("the operator's contracts are listed by `toolkeep budgets show`")
        })?;
        if let Some(other) = open.workflow.as_ref().filter(|other| **other != contract.workflow) {
            return Err(Refusal::new(Code::InvalidInput, "the contract says which workflow it is").field(
                "/workflow",
                format!("is `{other}`"),
                format!("`{}`, or leave it out", contract.workflow),
            ));
        }
        Ok((contract.terms.clone(), Some(contract.workflow.clone())))
    }

    /// What the caller's model used, and steps that were no calls.
    ///
    /// # Errors
    /// `not_found`: no such open run of the caller's. `invalid_input`: a number makes no sense.
    pub async fn report_run(&self, caller: &Caller, run: RunId, usage: &ReportedUsage) -> Result<Value, Refusal> {
        let run = self.budgets().run(caller, run).await?;
        if !run.is_open() {
            return Err(no_open_run());
        }
        self.budgets().report(&run, usage).await?;
        Ok(json!({"run": run.id, "budget": balance(&run.account.balance())}))
    }

    /// A run of the caller's own with its calls.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn run(&self, caller: &Caller, run: RunId, cursor: Option<u64>) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let (row, totals) = self.run_row(&scope, run).await?;
        if !caller.owns(&row.principal, &row.origin) {
            return Err(Refusal::not_found("run"));
        }
        self.run_page(&scope, &row, totals, cursor).await
    }

    /// Close a run. Later calls may not name it.
    ///
    /// # Errors
    /// `not_found`: no such open run. `gate_unmet`: the contract wants more before. `invalid_input`.
    pub async fn close_run(&self, caller: &Caller, run: RunId, close: CloseRun) -> Result<Value, Refusal> {
        let wrong =
            |text: &String| text.is_empty() || text.len() > OUTCOME_MAX_BYTES || text.chars().any(char::is_control);
        if close.outcome.as_ref().is_some_and(wrong) {
            return Err(Refusal::new(Code::InvalidInput, "the outcome is empty, too long or has control characters")
                .field("/outcome", "is no short text", "1 to 128 bytes"));
        }
        let run = self.budgets().run(caller, run).await.map_err(|_| no_open_run())?;
        if !run.is_open() {
            return Err(no_open_run());
        }
        let missing = run.missing();
        if !missing.is_empty() && !close.abandon {
            let names: Vec<String> = missing.iter().map(|tool| format!("`{tool}`")).collect();
            let mut refusal = Refusal::new(
                Code::GateUnmet,
                format!("the run's contract wants this to have succeeded before it ends: {}", names.join(", ")),
            )
            .hint("make these calls, or give the run up with `abandon`");
            for tool in &missing {
                refusal = refusal.field("/run", format!("`{tool}` has not succeeded"), format!("a call of `{tool}`"));
            }
            return Err(refusal);
        }
        if !run.close() {
            return Err(no_open_run());
        }
        let outcome =
            if close.abandon { Some(close.outcome.unwrap_or_else(|| ABANDONED.to_owned())) } else { close.outcome };
        let now = self.ambient().now_ms();
        let closed = self.ledger().close_run(caller.principal(), run.id, outcome.as_deref().map(Arc::from), now).await;
        match closed {
            Ok(true) => {
                self.0.exposures.forget(run.id);
                Ok(json!({"run": run.id, "closed_at_ms": now, "outcome": outcome,
                    "budget": balance(&run.account.balance())}))
            }
            Ok(false) => Err(no_open_run()),
            Err(error) => {
                run.reopen();
                Err(error.refusal())
            }
        }
    }

    /// All runs of the operator's tenant, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn runs(&self, operator: &Operator, cursor: Option<u64>) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let page = Page { cursor, ..Page::default() };
        let runs = self.ledger().runs(&scope, page).await.map_err(|e| e.refusal())?;
        let lines: Vec<Value> = runs.items.iter().map(line).collect();
        Ok(json!({"runs": lines, "next_cursor": runs.next}))
    }

    /// One run with its calls, for the operator.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn run_detail(&self, operator: &Operator, run: RunId, cursor: Option<u64>) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let (row, totals) = self.run_row(&scope, run).await?;
        self.run_page(&scope, &row, totals, cursor).await
    }

    async fn run_row(&self, scope: &Scope, run: RunId) -> Result<(RunRow, RunTotals), Refusal> {
        let found = self.ledger().run(scope, run).await.map_err(|e| e.refusal())?;
        found.ok_or_else(|| Refusal::not_found("run"))
    }

    async fn run_page(
        &self,
        scope: &Scope,
        row: &RunRow,
        totals: RunTotals,
        cursor: Option<u64>,
    ) -> Result<Value, Refusal> {
        let page = Page { cursor, ..Page::default() };
        let calls = self.ledger().calls_of_run(scope, row.run, page).await.map_err(|e| e.refusal())?;
        self.budgets().keep_house();
        let run = self.budgets().any_run(row.run).await?.ok_or_else(|| Refusal::not_found("run"))?;
        let mut value = line(row);
        if let Value::Object(members) = &mut value {
            members.insert(
                "totals".to_owned(),
                json!({"calls": totals.calls, "fuel": totals.fuel, "wall_ms": totals.wall_ms}),
            );
            members.insert("terms".to_owned(), json!(run.terms));
            members.insert("budget".to_owned(), balance(&run.account.balance()));
            members.insert("missing".to_owned(), json!(run.missing()));
            // A refused call of somebody else, or of a session below, may have named the run.
            let own = |stored: &&StoredCall| {
                stored.row.principal == row.principal && row.origin.session.is_within(&stored.row.origin.session)
            };
            members.insert("calls".to_owned(), calls.items.iter().filter(own).map(call_line).collect());
            members.insert("next_cursor".to_owned(), json!(calls.next));
        }
        Ok(value)
    }
}

fn line(row: &RunRow) -> Value {
    let held = row.held.as_ref().map(|held| json!({"code": held.code, "reason": &*held.reason}));
    json!({"run": row.run, "label": &*row.label, "principal": row.principal, "opened_at_ms": row.opened_ms,
        "closed_at_ms": row.closed_ms, "workflow": row.workflow, "outcome": row.outcome.as_deref(), "held": held,
        "escalations": row.escalations})
}

/// One call of a list.
pub(super) fn call_line(stored: &StoredCall) -> Value {
    let row = &stored.row;
    json!({"call_id": row.call, "tool": row.tool, "step": row.step.as_deref(), "mode": row.mode, "status": row.status,
        "outcome": row.outcome, "error": row.error_code, "usage": row.usage, "plan": stored.plan,
        "started_at_ms": row.started_ms, "ended_at_ms": row.ended_ms})
}
