//! Undo: the third entry point of the path. The reversal of a committed call is a plan like any other.
//!
//! The inverse effects are made from what the intent kept, checked against the world (a target that somebody changed since
//! is refused, nothing is overwritten), sealed, and then previewed, held or committed by the same stages as every plan. It is
//! recorded as a call of the tool [`UNDO_TOOL`] by whoever asked for it.

use std::sync::Arc;

use serde_json::Value;
use toolkeep_core::call::{CallRequest, Mode, Outcome, Status};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, PlanId, RunId};
use toolkeep_core::json;
use toolkeep_core::plan::{Plan, PlanBody, SealBinding};
use toolkeep_core::principal::{Origin, Principal};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::tier::Tier;

use super::{Host, PlanName};
use crate::approve::{Consent, UNDO_TOOL, UndoInput};
use crate::authenticate::{Caller, Operator};
use crate::ledger::{Durability, Page, Proposal, Scope, UndoInfo};
use crate::policy::{Matter, ToolShape};
use crate::record::{Answer, Ending, Entry};
use crate::seal::nonce;
use crate::trace::Context;
use crate::validate::CallOptions;

/// How long a reversal stays committable, in milliseconds: 15 minutes.
const UNDO_TTL_MS: u64 = 900_000;
/// The agent name under which an operator's reversals are recorded.
const OPERATOR_AGENT: &str = "operator";

/// What to reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoTarget {
    /// One call.
    Call(CallId),
    /// The latest call of a run that is committed and not yet reversed.
    Run(RunId),
}

impl Host {
    /// An agent asks for the reversal of its own call: a previewed plan, to be committed like any other.
    ///
    /// # Errors
    /// `not_found`, `stale_plan`: a target changed since, or `denied`: the call cannot be reversed.
    pub async fn propose_undo(&self, caller: &Caller, target: UndoTarget) -> Result<Answer, Refusal> {
        let _open = self.accepting()?;
        self.may_begin(caller.principal())?;
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let (call, info) = self.undoable(&scope, target, Some(caller)).await?;
        self.may_undo(caller.who(), &info)?;
        let (answer, _) = self.preview_undo(caller.who(), call, info).await?;
        Ok(answer)
    }

    /// Whether the policies permit an agent to ask for reversals at all.
    fn may_undo(&self, (principal, origin): (&Principal, &Origin), info: &UndoInfo) -> Result<(), Refusal> {
        let tool = UNDO_TOOL.parse().map_err(|_| Refusal::new(Code::Internal, "BUG: the undo tool's name"))?;
        let body = info.plan.body();
        let shape = ToolShape::internal(tool, Tier::Reversible, body.component, body.manifest);
        let options = CallOptions { mode: Mode::Preview, run: info.plan.binding().run, ..CallOptions::default() };
        let around = self.circumstances((principal, origin), &shape.name, &options);
        let judgement =
            self.policies().judge(principal, &Arc::new(shape), &Matter { input: Some("{}"), plan: None, around });
        if judgement.allowed() { Ok(()) } else { Err(Refusal::new(Code::Denied, judgement.why_not())) }
    }

    /// An operator reverses a call of the tenant: at once, or only shown.
    ///
    /// # Errors
    /// As [`Self::propose_undo`].
    pub async fn undo(&self, operator: &Operator, target: UndoTarget, preview: bool) -> Result<Answer, Refusal> {
        let _open = self.accepting()?;
        let scope = Scope::Tenant(operator.tenant().clone());
        let (call, info) = self.undoable(&scope, target, None).await?;
        let agent = OPERATOR_AGENT.parse().map_err(|_| Refusal::new(Code::Internal, "BUG: the agent name"))?;
        let principal = Principal { tenant: operator.tenant().clone(), user: operator.user().clone(), agent };
        let (answer, plan) =
            self.preview_undo((&principal, &Origin::of(operator.credential().clone())), call, info).await?;
        if preview {
            return Ok(answer);
        }
        let stored = self.stored_plan(&scope, PlanName::Id(plan)).await?;
        Ok(self.settle_stored(Consent::Operator(Box::new(stored))).await)
    }

    /// The call to reverse. For an agent, what belongs to somebody else looks like what does not exist.
    async fn undoable(
        &self,
        scope: &Scope,
        target: UndoTarget,
        owner: Option<&Caller>,
    ) -> Result<(CallId, UndoInfo), Refusal> {
        let missing = || {
            Refusal::new(Code::NotFound, "no such call, or it committed nothing")
                .hint("only committed calls can be undone")
        };
        let call = match target {
            UndoTarget::Call(call) => call,
            UndoTarget::Run(run) => self.latest_undoable(scope, run).await?.ok_or_else(missing)?,
        };
        let info = self.ledger().undo_of(scope, call).await.map_err(|e| e.refusal())?;
        let row = self.ledger().call(scope, call).await.map_err(|e| e.refusal())?.ok_or_else(missing)?.row;
        let own = |_: &UndoInfo| owner.is_none_or(|owner| owner.owns(&row.principal, &row.origin));
        let info = info.filter(own).ok_or_else(missing)?;
        match info.undone_by {
            Some(by) => Err(Refusal::new(Code::Denied, format!("the call was undone before, by {by}"))),
            None => Ok((call, info)),
        }
    }

    async fn latest_undoable(&self, scope: &Scope, run: RunId) -> Result<Option<CallId>, Refusal> {
        let mut found = None;
        let mut page = Page::default();
        loop {
            let calls = self.ledger().calls_of_run(scope, run, page).await.map_err(|e| e.refusal())?;
            for stored in calls.items.iter().filter(|stored| stored.row.outcome == Outcome::Committed) {
                let info = self.ledger().undo_of(scope, stored.row.call).await.map_err(|e| e.refusal())?;
                if info.is_some_and(|info| info.undone_by.is_none()) {
                    found = Some(stored.row.call);
                }
            }
            match calls.next {
                Some(next) => page.cursor = Some(next),
                None => return Ok(found),
            }
        }
    }

    async fn preview_undo(
        &self,
        who: (&Principal, &Origin),
        call: CallId,
        info: UndoInfo,
    ) -> Result<(Answer, PlanId), Refusal> {
        let (entry, input_digest) = self.undo_entry(who, call)?;
        let principal = who.0;
        let inverse = self.0.committer.inverse(&info).await?;
        let now_ms = self.ambient().now_ms();
        let body = PlanBody {
            format: toolkeep_core::plan::FORMAT,
            principal: principal.clone(),
            tool: entry.row().tool.clone(),
            // Those of the reversed call, and of the calls of a reversed transaction: they say how much consent the
            // reversal needs.
            component: info.plan.body().component,
            manifest: info.plan.body().manifest,
            policy_set: self.policies().digest(&principal.tenant),
            input: input_digest,
            read_set: Vec::new(),
            keys_read: Vec::new(),
            segment: 0,
            steps: info.plan.body().steps.clone(),
            taint: info.plan.body().taint.and(self.taint_of(info.plan.binding().run)),
            effects: inverse.effects,
        };
        let binding = SealBinding {
            run: info.plan.binding().run,
            call: entry.call(),
            expires_at_ms: now_ms.saturating_add(UNDO_TTL_MS),
            nonce: nonce(self.ambient()),
        };
        let plan = Plan::seal(body, PlanId::new(self.ambient().uuid_v7()), binding)
            .map_err(|e| Refusal::new(Code::Internal, e.to_string()))?;
        let id = plan.id();
        let row = entry.close(Status::Ok, Outcome::Previewed, Ending::default().plan(&plan), now_ms);
        let answer = Answer::of_row(&row);
        let proposal = Proposal {
            call: row,
            plan: Arc::new(plan),
            witnesses: "[]".into(),
            blobs: inverse.blobs,
            approval: None,
            transaction: None,
        };
        self.ledger().propose(proposal, Durability::Durable).await.map_err(|e| e.refusal())?;
        Ok((answer, id))
    }

    fn undo_entry(&self, who: (&Principal, &Origin), call: CallId) -> Result<(Entry, Digest), Refusal> {
        let bug = |what: String| Refusal::new(Code::Internal, what);
        let input = serde_json::to_value(UndoInput { call }).map_err(|e| bug(e.to_string()))?;
        let (canonical, digest) = json::input_digest(&input).map_err(|e| bug(e.to_string()))?;
        let tool = UNDO_TOOL.parse().map_err(|_| bug("BUG: the undo tool's name".to_owned()))?;
        let request = CallRequest { mode: Mode::Preview, ..CallRequest::of(tool, Value::Null) };
        let id = CallId::new(self.ambient().uuid_v7());
        let trace = Context::of(None, request.run, id).trace;
        let mut entry = Entry::open(who, &request, (id, trace), self.ambient().now_ms());
        entry.input(canonical.into(), digest);
        Ok((entry, digest))
    }
}
