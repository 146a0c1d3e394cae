//! Requests of which nobody knows: listed for the operator, who looks at the other system and says.
//!
//! What the operator says is on record with a reason, and the commit goes on from there: the rest of the plan is sent and
//! applied, or what was sent before is undone and the plan thrown away. A call that waited for its answer ends, too.

use serde_json::{Value, json};
use toolkeep_core::display::visible;
use toolkeep_core::id::CallId;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::send::SendState;

use super::Host;
use super::consent::REASON_MAX_BYTES;
use crate::authenticate::Operator;
use crate::ledger::{OpenIntent, Scope, SendVerdict, StoredSend};

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
        let _open = self.accepting()?;
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
        self.ledger().say(verdict).await.map_err(|e| e.refusal())?;
        self.finish_intent(intent).await;
        let now = self.ledger().call(&Scope::Operator, call).await.map_err(|e| e.refusal())?;
        let reply = now.and_then(|now| serde_json::from_str::<Value>(&now.row.reply).ok());
        Ok(json!({"call_id": call, "said": if sent { "sent" } else { "not_sent" }, "reply": reply}))
    }

    /// Go on with a commit that was interrupted while it sent, and with the call that waits for it.
    pub(crate) async fn finish_intent(&self, intent: OpenIntent) {
        let (call, committer) = (intent.call, self.committer().clone());
        let settling = self.flights().settle();
        let finished = self.spawn(async move {
            committer.finish(intent).await;
            drop(settling);
        });
        if finished.await.is_err() {
            tracing::error!(%call, "BUG: finishing a commit panicked");
        }
        self.resume(call).await;
        self.0.notices.announce();
    }
}

fn request_line(send: &StoredSend) -> Value {
    json!({"request": send.subject(), "state": send.state, "status": send.answer.as_ref().map(|answer| answer.status),
        "problem": send.problem.as_deref().map(visible), "idempotency_key": send.dispatch.key,
        "reversal": send.dispatch.reversal})
}
