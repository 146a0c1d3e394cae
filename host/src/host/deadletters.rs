//! Dead letters: what could not be delivered or done, and what an operator decides about it.
//!
//! An operator sees those of the own tenant. A retry starts over with all attempts and the same id, so a receiver that has
//! seen it still drops it; a discard drops the content and keeps the fact. Both are on record with who decided.

use serde_json::{Value, json};
use toolkeep_core::id::{CallId, DeliveryId};
use toolkeep_core::refusal::Refusal;

use super::{Host, Settling};
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
        let stored = self.ledger().call(scope, call).await.map_err(|e| e.refusal())?;
        let stored = stored.ok_or_else(|| Refusal::not_found("dead letter"))?;
        let shown = self.shown(scope, &stored).await?;
        let row = stored.row;
        Ok(json!({
            "call_id": call, "made_at_ms": row.started_ms, "tool": row.tool, "principal": row.principal,
            "run": row.run, "step": row.step.as_deref(),
            "input": shown.input,
        }))
    }

    async fn row_of(&self, scope: &Scope, call: CallId) -> Result<CallRow, Refusal> {
        let stored = self.ledger().call(scope, call).await.map_err(|e| e.refusal())?;
        Ok(stored.ok_or_else(|| Refusal::not_found("dead letter"))?.row)
    }

    /// Try a dead letter again from the start, or throw it away. A call is made again as whoever made it, under an id of its
    /// own, whether or not the operator waits; what becomes of it is told.
    ///
    /// # Errors
    /// `not_found`: none of this id rests; `killed`, `unauthorized`: the call may not be made now.
    pub async fn resolve_dead_letter(&self, operator: &Operator, id: DeadId, retry: bool) -> Result<Value, Refusal> {
        let open = self.accepting()?;
        let scope = Scope::Tenant(operator.tenant().clone());
        let state = if retry { "retried" } else { "discarded" };
        match id {
            DeadId::Delivery(id) => {
                self.ledger().resolve_dead_letter(&scope, id, retry, operator.user()).await.map_err(refused)?;
            }
            DeadId::Call(call) if retry => return self.retry_dead_call((operator, scope), call, open).await,
            DeadId::Call(call) => {
                self.ledger().resolve_dead_call(&scope, call, None, operator.user()).await.map_err(refused)?;
            }
        }
        Ok(json!({"id": id, "state": state}))
    }

    /// Make a dead call again. If that comes to nothing, because the call is refused before it runs, the letter rests again.
    async fn retry_dead_call(
        &self,
        (operator, scope): (&Operator, Scope),
        call: CallId,
        open: Settling,
    ) -> Result<Value, Refusal> {
        let row = self.row_of(&scope, call).await?;
        self.may_begin(&row.principal)?;
        let held = self.trusted(&row).await?;
        let caller = Caller::resumed((&row.principal, &row.origin), held);
        let request = self.request_of(&row).await?;
        let again = CallId::new(self.ambient().uuid_v7());
        let (host, by) = (self.clone(), operator.user().clone());
        let making = async move {
            let _open = open;
            host.ledger().resolve_dead_call(&scope, call, Some(again), &by).await.map_err(refused)?;
            let answer = host.call_as(again, &caller, request, None).await;
            let rests = host.ledger().end_retry(call).await.map_err(|error| error.refusal())?;
            let reply: Value = serde_json::from_str(&answer.reply).unwrap_or(Value::Null);
            Ok(json!({"id": call, "state": if rests { "resting" } else { "retried" }, "reply": reply}))
        };
        self.to_the_end(making).await
    }
}

fn refused(error: DeadLetterRefused) -> Refusal {
    match error {
        DeadLetterRefused::NotFound => Refusal::not_found("dead letter that rests"),
        DeadLetterRefused::Ledger(error) => error.refusal(),
    }
}
