//! Dead letters: what could not be delivered, and what an operator decides about it.
//!
//! An operator sees those of the own tenant. A retry starts over with all attempts and the same id, so a receiver that has
//! seen it still drops it; a discard drops the content and keeps the fact. Both are on record with who decided.

use serde_json::{Value, json};
use toolkeep_core::id::DeliveryId;
use toolkeep_core::refusal::Refusal;

use super::Host;
use crate::authenticate::Operator;
use crate::ledger::{DeadLetter, DeadLetterRefused, Page, Scope};

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

    /// One dead letter with what was to be delivered.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn dead_letter(&self, operator: &Operator, id: DeliveryId) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let letter = self.ledger().dead_letter(&scope, id).await.map_err(|e| e.refusal())?;
        let delivery = self.ledger().delivery(&scope, id).await.map_err(|e| e.refusal())?;
        let (Some(letter), Some(delivery)) = (letter, delivery) else { return Err(Refusal::not_found("dead letter")) };
        let message = &delivery.what.message;
        let shown = message.body.get(..BODY_SHOWN_BYTES).unwrap_or(&message.body);
        let mut value = line(&letter);
        if let Value::Object(members) = &mut value {
            members.insert("call_id".to_owned(), json!(delivery.what.call));
            members.insert("made_at_ms".to_owned(), json!(delivery.made_ms));
            members.insert(
                "message".to_owned(),
                json!({
                    "to": message.to, "subject": message.subject, "media_type": message.media_type,
                    "size": message.body.len(), "text": String::from_utf8_lossy(shown),
                    "hidden_bytes": message.body.len() - shown.len(),
                }),
            );
        }
        Ok(value)
    }

    /// Try a dead letter again from the start, or throw it away.
    ///
    /// # Errors
    /// `not_found`: none of this id rests.
    pub async fn resolve_dead_letter(
        &self,
        operator: &Operator,
        id: DeliveryId,
        retry: bool,
    ) -> Result<Value, Refusal> {
        let _open = self.accepting()?;
        let scope = Scope::Tenant(operator.tenant().clone());
        match self.ledger().resolve_dead_letter(&scope, id, retry, operator.user()).await {
            Ok(()) => Ok(json!({"id": id, "state": if retry { "retried" } else { "discarded" }})),
            Err(DeadLetterRefused::NotFound) => Err(Refusal::not_found("dead letter that rests")),
            Err(DeadLetterRefused::Ledger(error)) => Err(error.refusal()),
        }
    }
}
