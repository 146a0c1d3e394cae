//! Calls that do not go the straight way: results that are kept, tools that stand in for others, and calls that are given up.
//!
//! A fallback is called with the same input, under the same call and the same idempotency key, and has to be allowed like any
//! other tool. It never may do more than the tool that it stands in for. A call that was given up after all its attempts
//! rests as a dead letter, if it would have changed something: an operator has it made again, or throws it away.

use std::sync::Arc;

use serde_json::json;
use toolkeep_core::call::{CallRequest, Mode};
use toolkeep_core::effect::Delivery;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::tier::Tier;

use super::Host;
use crate::admit::{self, Ticket};
use crate::authenticate::Caller;
use crate::authorize;
use crate::budget::Ended as Finished;
use crate::call::Passage;
use crate::catalog::Tool;
use crate::execute::{Executed, Given, Line};
use crate::ledger::DeadCall;
use crate::notify::Event;
use crate::record::Entry;
use crate::results::ResultName;
use crate::validate;

const NS_PER_MS: u64 = 1_000_000;

impl Host {
    /// The result of a deterministic tool that is kept, if the world is still what it was made from.
    pub(crate) async fn kept(&self, name: ResultName, ticket: Box<Ticket>) -> Result<Executed, Box<Ticket>> {
        let Some(kept) = self.0.results.get(&name) else { return Err(ticket) };
        let seen = (kept.witnesses.clone(), kept.since_ns);
        if !self.committer().still_reads(kept.read_set.clone(), seen).await {
            self.0.results.forget(&name);
            return Err(ticket);
        }
        let depth = self.executor().depth_of(ticket.grant().call().tool());
        Ok(Executed::kept(ticket, kept.again(), depth))
    }

    /// Keep what a deterministic tool returned.
    pub(crate) fn keep_result(&self, name: ResultName, executed: &Executed, entry: &Entry) {
        let since_ns = i64::try_from(entry.row().started_ms.saturating_mul(NS_PER_MS)).unwrap_or(i64::MAX);
        self.0.results.keep(name, executed.execution(), since_ns);
    }

    /// The tool that stands in for one that rests or was given up, if its manifest names one that may.
    fn stand_in(&self, entry: &mut Entry) -> Option<Arc<Tool>> {
        let catalog = self.catalog().current();
        let first = catalog.tool(&entry.row().tool)?;
        let name = first.manifest.fallback.as_ref()?;
        let problem = match catalog.tool(name) {
            None => "is not installed",
            Some(other) if other.tier > first.tier => "may do more than it",
            Some(other) if other.manifest.http.iter().any(|grant| grant.delivery == Delivery::Live) => {
                "needs answers of other systems while it runs"
            }
            Some(other) => return Some(other),
        };
        entry.warn(format!("`{name}` does not stand in for `{}`: it {problem}", first.name));
        None
    }

    /// What becomes of a call whose tool rests or was given up: that of its fallback, or the refusal.
    pub(crate) async fn fall_back(
        &self,
        caller: &Caller,
        asked: Asked,
        entry: &mut Entry,
        line: &Line,
        refusal: Refusal,
    ) -> Result<Passage, Refusal> {
        // A request that the first tool waited for has left: another tool, which knows nothing of it, would make it again.
        let passes = !entry.row().suspended && (refusal.code == Code::CircuitOpen || entry.is_exhausted());
        let Some(tool) = Some(()).filter(|()| passes && asked.alone).and_then(|()| self.stand_in(entry)) else {
            return Err(refusal);
        };
        let input = serde_json::from_str(&entry.row().input)
            .map_err(|_| Refusal::new(Code::Internal, "BUG: the canonical input of the call cannot be read"))?;
        let row = entry.row();
        let request = CallRequest {
            mode: row.mode,
            run: row.run,
            step: row.step.as_deref().map(str::to_owned),
            deadline_ms: asked.deadline_ms,
            ..CallRequest::of(tool.name.clone(), input)
        };
        let call = validate::validate(&self.catalog().current(), caller, request, entry.call(), self.workspaces());
        let call = match call {
            Ok(call) => call,
            Err(unfit) => {
                entry.warn(format!("`{}` does not take the input: {}", tool.name, unfit.message));
                return Err(refusal);
            }
        };
        line.calls(call.tool(), call.options().run);
        self.may_go_on(&call)?;
        let around = self.circumstances((caller.principal(), caller.origin()), &call.tool().name, call.options());
        let grant = authorize::authorize(self.workspaces(), &self.policies(), call, around)?;
        if let Some((charge, spent)) = entry.give_up_charge(self.ambient().now_ms()) {
            // What the first tool used is spent, and no more than that; the other is a call to the budgets like any other.
            self.ledger().charge(spent).map_err(|error| error.refusal())?;
            let row = entry.row();
            let ended = Finished { mode: row.mode, succeeded: false, code: Some(refusal.code), input: &row.input };
            self.budgets().close(&charge, &ended);
        }
        let ticket = admit::substitute(self.admission(), self.budgets(), grant, &line.cancel()).await?;
        entry.admitted(&ticket);
        entry.falls_back(&tool, &refusal);
        self.carry_on(entry, ticket, line, Given::fresh(self.ambient())).await
    }

    /// A call was given up: if it would have changed something, it rests as a dead letter.
    pub(crate) fn bury(&self, entry: &Entry, refusal: &Refusal) -> Option<DeadCall> {
        let row = entry.row();
        let tier = self.catalog().current().tool(&row.tool).map(|tool| tool.tier);
        let changes = row.mode == Mode::Commit && !row.suspended && tier.is_some_and(|tier| tier > Tier::ReadOnly);
        (changes && entry.is_exhausted()).then(|| DeadCall {
            call: row.call,
            tenant: row.principal.tenant.clone(),
            reason: refusal.message.as_str().into(),
            attempts: entry.attempts(),
        })
    }

    /// Put a dead call to rest, and tell the operators.
    pub(crate) async fn buried(&self, dead: DeadCall) {
        let facts = json!({"call_id": dead.call, "attempts": dead.attempts, "reason": &*dead.reason});
        let (call, tenant) = (dead.call, dead.tenant.clone());
        match self.ledger().bury_call(dead).await {
            Ok(()) => self.0.notify.event(Event::DeliveryDead, &tenant, facts),
            Err(error) => tracing::error!(%error, %call, "a call that was given up is no dead letter"),
        }
    }
}

/// What a fallback has to know of the request besides what is in the entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// It belongs to no transaction and expects no plan.
    pub(crate) alone: bool,
    /// The deadline that its caller asked for.
    pub(crate) deadline_ms: Option<u64>,
}

impl From<&CallRequest> for Asked {
    fn from(request: &CallRequest) -> Self {
        let alone = request.transaction.is_none() && request.expect_plan.is_none();
        Self { alone, deadline_ms: request.deadline_ms }
    }
}
