//! Requests of which nobody knows: listed for the operator, who looks at the other system and says.
//!
//! What the operator says is on record with a reason, and the commit goes on from there: the rest of the plan is sent and
//! applied, or what was sent before is undone and the plan thrown away. A call that waited for its answer ends, too.

use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_core::display::visible;
use toolkeep_core::id::CallId;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::send::SendState;

use super::Host;
use super::consent::REASON_MAX_BYTES;
use crate::authenticate::Operator;
use crate::commit::Finished;
use crate::ledger::{OpenIntent, Page, PlanState, Scope, SendVerdict, StoredSend};
use crate::record::Answer;

/// How long a commit that cannot go on waits before it is tried again: what keeps it is a disk or a ledger that is full.
const FINISH_AGAIN: Duration = Duration::from_secs(2);

impl Host {
    /// Calls of the operator's tenant with a request of which nobody knows what became of it.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn unknown_outcomes(&self, operator: &Operator) -> Result<Value, Refusal> {
        let mut outcomes = Vec::new();
        for intent in self.ledger().unknown_intents().await.map_err(|e| e.refusal())? {
            if intent.plan.body().principal.tenant == *operator.tenant() {
                outcomes.push(self.outcome_line(&intent).await?);
            }
        }
        Ok(json!({"outcomes": outcomes}))
    }

    async fn outcome_line(&self, intent: &OpenIntent) -> Result<Value, Refusal> {
        let sends = self.ledger().sends(intent.plan.id()).await.map_err(|e| e.refusal())?;
        let requests: Vec<Value> = sends.iter().map(request_line).collect();
        let body = intent.plan.body();
        Ok(json!({"call_id": intent.call, "plan": intent.plan.id(), "tool": body.tool, "principal": body.principal,
            "requests": requests}))
    }

    /// Say whether the unknown request of a call was done. The commit goes on from there before this returns.
    ///
    /// # Errors
    /// `not_found`: there is no such call, or nothing about it is unknown. `invalid_input`: the reason is missing or too
    /// long.
    pub async fn resolve_outcome(
        &self,
        operator: &Operator,
        call: CallId,
        sent: bool,
        reason: &str,
    ) -> Result<Value, Refusal> {
        let open = self.accepting()?;
        if reason.trim().is_empty() || reason.len() > REASON_MAX_BYTES {
            return Err(Refusal::new(Code::InvalidInput, "say how you know").field(
                "/reason",
                format!("has {} bytes", reason.len()),
                "1 to 2000 bytes: what you saw at the other system",
            ));
        }
        let intents = self.ledger().unknown_intents().await.map_err(|e| e.refusal())?;
        let own =
            |intent: &OpenIntent| intent.call == call && intent.plan.body().principal.tenant == *operator.tenant();
        let Some(intent) = intents.into_iter().find(own) else {
            return Err(Refusal::not_found("call with an unknown outcome"));
        };
        let plan = intent.plan.id();
        let sends = self.ledger().sends(plan).await.map_err(|e| e.refusal())?;
        let unknown = sends.iter().find(|send| send.state == SendState::Unknown);
        let ordinal = unknown.map(|send| send.ordinal).ok_or_else(|| Refusal::not_found("unknown request"))?;
        let verdict = SendVerdict { plan, ordinal, sent, user: operator.user().clone(), reason: reason.to_owned() };
        let host = self.clone();
        let going_on = async move {
            let _open = open;
            host.ledger().say(verdict).await.map_err(|e| e.refusal())?;
            host.finish_intent(intent).await;
            let now = host.ledger().call(&Scope::Operator, call).await.map_err(|e| e.refusal())?;
            let reply = now.and_then(|now| serde_json::from_str::<Value>(&now.row.reply).ok());
            Ok(json!({"call_id": call, "said": if sent { "sent" } else { "not_sent" }, "reply": reply}))
        };
        self.to_the_end(going_on).await
    }

    /// Go on with a commit that was interrupted while it sent, and with the call that waits for it. What cannot be done now
    /// is tried again until it can, without anybody waiting for it.
    pub(crate) async fn finish_intent(&self, intent: OpenIntent) {
        if self.try_to_finish(&intent, false).await {
            return;
        }
        let host = self.clone();
        self.spawn(async move {
            loop {
                tokio::time::sleep(FINISH_AGAIN).await;
                // A stop does not wait for it: the next start takes it up.
                if host.admission().draining() || host.try_to_finish(&intent, true).await {
                    return;
                }
            }
        });
    }

    /// Try to finish a commit. False if it may be possible later.
    async fn try_to_finish(&self, intent: &OpenIntent, again: bool) -> bool {
        let (call, committer, taken) = (intent.call, self.committer().clone(), intent.clone());
        let settling = self.flights().settle();
        let finishing = self.spawn(async move {
            let finished = committer.finish(taken, again).await;
            drop(settling);
            finished
        });
        match finishing.await {
            Ok(Finished::Later) => return false,
            Ok(Finished::Done | Finished::AtStart) => {}
            Err(_) => tracing::error!(%call, "BUG: finishing a commit panicked"),
        }
        self.resume(call).await;
        self.tell_end_of(intent).await;
        self.0.notices.announce();
        true
    }

    /// Tell operators of a commit that went on after an interruption and that a person has to look at.
    pub(crate) async fn tell_end_of(&self, intent: &OpenIntent) {
        let call = intent.call;
        match self.ledger().call(&Scope::Operator, call).await {
            Ok(Some(stored)) => {
                let tenant = &intent.plan.body().principal.tenant;
                self.tell_outcome(tenant, call, &Answer::of_row(&stored.row));
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, %call, "what became of a commit could not be looked up"),
        }
    }

    /// Say in the log which calls need a person, so that nobody has to ask to find out.
    pub(crate) async fn report_waiting(&self) {
        match self.ledger().unknown_intents().await {
            Ok(intents) if intents.is_empty() => {}
            Ok(intents) => {
                let calls: Vec<String> = intents.iter().map(|intent| intent.call.to_string()).collect();
                tracing::warn!(
                    ?calls,
                    "nobody knows what became of a request of these calls; see `toolkeep outcomes list`"
                );
            }
            Err(error) => tracing::error!(%error, "unknown outcomes could not be looked up"),
        }
        let halted = self.ledger().plans(&Scope::Operator, Some(PlanState::Halted), Page::default()).await;
        let calls: Vec<String> =
            halted.map(|plans| plans.items.iter().map(|plan| plan.call.to_string()).collect()).unwrap_or_default();
        if !calls.is_empty() {
            tracing::warn!(?calls, "these commits are halted: look at what each of them left");
        }
    }
}

/// What became of one request of a plan.
pub(super) fn request_line(send: &StoredSend) -> Value {
    json!({"request": send.subject(), "state": send.state, "status": send.answer.as_ref().map(|answer| answer.status),
        "problem": send.problem.as_deref().map(visible), "idempotency_key": send.dispatch.key,
        "reversal": send.dispatch.reversal})
}
