//! Dead letters: what could not be delivered or done, and what an operator decides about it.
//!
//! An operator sees those of the own tenant. A retry starts over with all attempts and the same id, so a receiver that has
//! seen it still drops it; a discard drops the content and keeps the fact. Both are on record with who decided.

use serde_json::{Value, json};
use toolkeep_core::id::{CallId, DeliveryId};
use toolkeep_core::refusal::Refusal;

use super::Host;
use super::live::request_of;
use crate::authenticate::{Caller, Operator};
use crate::ledger::{CallRow, DeadId, DeadLetter, DeadLetterRefused, Page, Scope};

/// Bytes of a message's body that are shown.
const BODY_SHOWN_BYTES: usize = 4 * 1024;

fn line(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id, "kind": letter.kind, "channel": letter.channel, "reason": &*letter.reason,
        "attempts": letter.attempts, "died_at_ms": letter.died_ms, "state": letter.state.word(),
        "resolved_by": letter.resolved_by,
    })
}

impl Host {
    /// Dead letters that rest, newest first; all that ever were if `all`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn dead_letters(&self, operator: &Operator, all: bool, cursor: Option<u64>) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let page = Page { cursor, ..Page::default() };
        let letters = self.ledger().dead_letters(&scope, all, page).await.map_err(|e| e.refusal())?;
        let lines: Vec<Value> = letters.items.iter().map(line).collect();
        Ok(json!({"dead_letters": lines, "next_cursor": letters.next}))
    }

    /// One dead letter with what was to be delivered, or done.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn dead_letter(&self, operator: &Operator, id: DeadId) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let letter = self.ledger().dead_letter(&scope, id).await.map_err(|e| e.refusal())?;
        let letter = letter.ok_or_else(|| Refusal::not_found("dead letter"))?;
        let mut value = line(&letter);
        let more = match id {
            DeadId::Delivery(id) => self.dead_delivery(&scope, id).await?,
            DeadId::Call(call) => self.dead_call(&scope, call).await?,
        };
        if let (Value::Object(members), Value::Object(more)) = (&mut value, more) {
            members.extend(more);
        }
        Ok(value)
    }

    async fn dead_delivery(&self, scope: &Scope, id: DeliveryId) -> Result<Value, Refusal> {
        let delivery = self.ledger().delivery(scope, id).await.map_err(|e| e.refusal())?;
        let delivery = delivery.ok_or_else(|| Refusal::not_found("dead letter"))?;
        let message = &delivery.what.message;
        let shown = message.body.get(..BODY_SHOWN_BYTES).unwrap_or(&message.body);
        Ok(json!({
            "call_id": delivery.what.call,
            "made_at_ms": delivery.made_ms,
            "message": {
                "to": message.to, "subject": message.subject, "media_type": message.media_type,
                "size": message.body.len(), "text": String::from_utf8_lossy(shown),
                "hidden_bytes": message.body.len() - shown.len(),
            },
        }))
    }

    async fn dead_call(&self, scope: &Scope, call: CallId) -> Result<Value, Refusal> {
        let row = self.row_of(scope, call).await?;
        Ok(json!({
            "call_id": call, "made_at_ms": row.started_ms, "tool": row.tool, "principal": row.principal,
            "run": row.run, "step": row.step.as_deref(),
            "input": serde_json::from_str::<Value>(&row.input).unwrap_or(Value::Null),
        }))
    }

    async fn row_of(&self, scope: &Scope, call: CallId) -> Result<CallRow, Refusal> {
        let stored = self.ledger().call(scope, call).await.map_err(|e| e.refusal())?;
        Ok(stored.ok_or_else(|| Refusal::not_found("dead letter"))?.row)
    }

    /// Try a dead letter again from the start, or throw it away. A call is made again as whoever made it, under an id of its
    /// own; what becomes of it is told.
    ///
    /// # Errors
    /// `not_found`: none of this id rests; `killed`, `unauthorized`: the call may not be made now.
    pub async fn resolve_dead_letter(&self, operator: &Operator, id: DeadId, retry: bool) -> Result<Value, Refusal> {
        let _open = self.accepting()?;
        let scope = Scope::Tenant(operator.tenant().clone());
        let state = if retry { "retried" } else { "discarded" };
        let again = match id {
            DeadId::Delivery(id) => {
                self.ledger().resolve_dead_letter(&scope, id, retry, operator.user()).await.map_err(refused)?;
                return Ok(json!({"id": id, "state": state}));
            }
            DeadId::Call(call) if retry => {
                let row = self.row_of(&scope, call).await?;
                self.may_begin(&row.principal)?;
                let held = self.trusted(&row).await?;
                Some((Caller::resumed((&row.principal, &row.origin), held), request_of(&row)?))
            }
            DeadId::Call(_) => None,
        };
        let DeadId::Call(call) = id else { return Err(Refusal::not_found("dead letter that rests")) };
        self.ledger().resolve_dead_call(&scope, call, retry, operator.user()).await.map_err(refused)?;
        let Some((caller, request)) = again else { return Ok(json!({"id": id, "state": state})) };
        let answer = self.call(&caller, request, None).await;
        let reply: Value = serde_json::from_str(&answer.reply).unwrap_or(Value::Null);
        Ok(json!({"id": id, "state": state, "reply": reply}))
    }
}

fn refused(error: DeadLetterRefused) -> Refusal {
    match error {
        DeadLetterRefused::NotFound => Refusal::not_found("dead letter that rests"),
        DeadLetterRefused::Ledger(error) => error.refusal(),
    }
}
