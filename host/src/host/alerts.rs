//! Alerts, for the operator: what happened that somebody has to know, and that it was seen.
//!
//! An operator sees those of the own tenant. What concerns the daemon as a whole is raised for every tenant of the
//! configuration, because each has operators of its own.

use serde_json::{Map, Value, json};
use toolkeep_core::id::AlertId;
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use crate::authenticate::Operator;
use crate::ledger::{LedgerHealth, Page, Scope, StoredAlert};
use crate::notify::Event;

/// Longest note of an operator, in bytes.
const NOTE_MAX_BYTES: usize = 1_000;

fn line(alert: &StoredAlert) -> Map<String, Value> {
    let told = json!({
        "id": alert.id, "event": &*alert.event, "subject": &*alert.subject, "severity": alert.severity,
        "state": &*alert.state, "count": alert.count, "first_at_ms": alert.first_ms, "last_at_ms": alert.last_ms,
    });
    match told {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

impl Host {
    /// Alerts that nobody acknowledged, newest first; all of them if `all`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn alerts(&self, operator: &Operator, all: bool, cursor: Option<u64>) -> Result<Value, Refusal> {
        let page = Page { cursor, ..Page::default() };
        let alerts = self.ledger().alerts(operator.tenant(), all, page).await.map_err(|e| e.refusal())?;
        let lines: Vec<_> = alerts.items.iter().map(line).collect();
        Ok(json!({"alerts": lines, "next_cursor": alerts.next}))
    }

    /// One alert with the facts of the last time, and who has seen it.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn alert(&self, operator: &Operator, id: AlertId) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let alert = self.ledger().alert(&scope, id).await.map_err(|e| e.refusal())?;
        let alert = alert.ok_or_else(|| Refusal::not_found("alert"))?;
        let mut told = line(&alert);
        told.insert("detail".to_owned(), serde_json::from_str(&alert.detail).unwrap_or_default());
        told.insert("acked_by".to_owned(), json!(alert.acked_by));
        told.insert("acked_at_ms".to_owned(), json!(alert.acked_ms));
        told.insert("note".to_owned(), json!(alert.note.as_deref()));
        Ok(Value::Object(told))
    }

    /// Say that an alert was seen. When the same happens again there is a new one.
    ///
    /// # Errors
    /// `not_found`: none of this id is open. `invalid_input`: the note is too long.
    pub async fn ack_alert(&self, operator: &Operator, id: AlertId, note: &str) -> Result<Value, Refusal> {
        if note.len() > NOTE_MAX_BYTES {
            return Err(Refusal::new(Code::InvalidInput, "the note is too long").field(
                "/note",
                format!("has {} bytes", note.len()),
                format!("at most {NOTE_MAX_BYTES}"),
            ));
        }
        let _open = self.accepting()?;
        let scope = Scope::Tenant(operator.tenant().clone());
        let acked = self.ledger().ack_alert(&scope, id, operator.user(), note).await.map_err(|e| e.refusal())?;
        if acked { Ok(json!({"id": id, "state": "acked"})) } else { Err(Refusal::not_found("open alert")) }
    }

    /// Raise an alert about the daemon as a whole: for every tenant. `subject` says of what, in the same few words when it
    /// happens again; `detail` is an object that holds no content and no secret.
    pub(crate) fn raise(&self, event: Event, subject: &str, detail: &Value) {
        for tenant in self.tenants() {
            let mut facts = detail.as_object().cloned().unwrap_or_default();
            facts.insert("what".to_owned(), json!(subject));
            self.0.notify.event(event, &tenant, Value::Object(facts));
        }
    }

    /// Raise an alert where the ledger stopped writing since the last look, and tell those that it could not write. `told`
    /// remembers what was said.
    pub(super) fn watch_the_ledger(&self, told: &mut LedgerHealth) {
        self.0.notify.tell_unkept();
        let health = self.ledger().health();
        if health == *told {
            return;
        }
        match &health {
            LedgerHealth::Well => tracing::info!("the ledger writes again"),
            LedgerHealth::DiskFull => self.raise(Event::AuditFailed, "the disk of the ledger is full", &json!({})),
            LedgerHealth::Poisoned(why) => {
                self.raise(Event::AuditFailed, "the ledger stopped writing", &json!({"because": &**why}));
            }
        }
        *told = health;
    }
}
