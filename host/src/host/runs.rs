//! Runs: one agent task of many calls.

use serde_json::{Value, json};
use toolkeep_core::id::RunId;
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use crate::authenticate::{Caller, Operator};
use crate::ledger::{Page, RunRow, RunTotals, Scope, StoredCall};

/// Longest label of a run, in bytes.
pub(super) const LABEL_MAX_BYTES: usize = 256;

impl Host {
    /// Open a run.
    ///
    /// # Errors
    /// `invalid_input`: the label is too long. `overloaded`: the ledger is behind.
    pub fn open_run(&self, caller: &Caller, label: &str) -> Result<Value, Refusal> {
        if label.len() > LABEL_MAX_BYTES {
            return Err(Refusal::new(Code::InvalidInput, "the label is too long").field(
                "/label",
                format!("has {} bytes", label.len()),
                "at most 256 bytes",
            ));
        }
        let run = RunId::new(self.ambient().uuid_v7());
        let row = RunRow {
            run,
            principal: caller.principal().clone(),
            session: caller.origin().session.clone(),
            label: label.into(),
            opened_ms: self.ambient().now_ms(),
            closed_ms: None,
        };
        self.ledger().open_run(row).map_err(|e| e.refusal())?;
        Ok(json!({"run": run}))
    }

    /// A run of the caller's own with its calls.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn run(&self, caller: &Caller, run: RunId, cursor: Option<u64>) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let (row, totals) = self.run_row(&scope, run).await?;
        if !caller.owns(&row.principal, &row.session) {
            return Err(Refusal::not_found("run"));
        }
        self.run_page(&scope, &row, totals, cursor).await
    }

    /// Close a run. Later calls may not name it.
    ///
    /// # Errors
    /// `not_found`: no such open run.
    pub async fn close_run(&self, caller: &Caller, run: RunId) -> Result<Value, Refusal> {
        let now = self.ambient().now_ms();
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let found = self.ledger().run(&scope, run).await.map_err(|e| e.refusal())?;
        // The ledger knows principals; whose session opened it is looked at here.
        if !found.is_some_and(|(row, _)| caller.owns(&row.principal, &row.session)) {
            return Err(Refusal::not_found("open run"));
        }
        match self.ledger().close_run(caller.principal(), run, now).await {
            Ok(true) => {
                self.0.exposures.forget(run);
                Ok(json!({"run": run, "closed_at_ms": now}))
            }
            Ok(false) => Err(Refusal::not_found("open run")),
            Err(error) => Err(error.refusal()),
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
        let mut value = line(row);
        if let Value::Object(members) = &mut value {
            members.insert(
                "totals".to_owned(),
                json!({"calls": totals.calls, "fuel": totals.fuel, "wall_ms": totals.wall_ms}),
            );
            let own = |stored: &&StoredCall| stored.row.principal == row.principal;
            members.insert("calls".to_owned(), calls.items.iter().filter(own).map(call_line).collect());
            members.insert("next_cursor".to_owned(), json!(calls.next));
        }
        Ok(value)
    }
}

fn line(row: &RunRow) -> Value {
    json!({"run": row.run, "label": &*row.label, "principal": row.principal, "opened_at_ms": row.opened_ms,
        "closed_at_ms": row.closed_ms})
}

/// One call of a list.
pub(super) fn call_line(stored: &StoredCall) -> Value {
    let row = &stored.row;
    json!({"call_id": row.call, "tool": row.tool, "step": row.step.as_deref(), "mode": row.mode, "status": row.status,
        "outcome": row.outcome, "error": row.error_code, "usage": row.usage, "plan": stored.plan,
        "started_at_ms": row.started_ms, "ended_at_ms": row.ended_ms})
}
