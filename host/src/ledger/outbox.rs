//! The writer's side of deliveries: taking them in, counting attempts, and where those end that cannot be made (D15).
//!
//! A delivery is enqueued in the transaction of what it belongs to, so there is neither a message without its commit nor a
//! commit without its message. Each change follows the one state machine of [`toolkeep_core::delivery`]; what it refuses
//! changes nothing.

use rusqlite::params;
use serde_json::json;
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::delivery::{DeliveryEvent, DeliveryKind, DeliveryState, Progress};
use toolkeep_core::id::{CallId, DeliveryId, UserName};

use super::batch::{Batch, Step};
use super::checkpoints::SUBJECT as CHECKPOINT_SUBJECT;
use super::column::{Reading, id_bytes, integer};
use super::deliveries::{
    DeadState, Delivery, DeliveryChange, Enqueue, OutboxDone, OutboxWork, delivery_of, one_delivery, progress_of,
};
use super::failure::LedgerError;
use super::rows::Scope;

/// A retry by a person starts over, so the bound does not matter to it.
const NO_BOUND: u32 = u32::MAX;

impl Batch<'_> {
    /// One write to the outbox.
    pub(super) fn outbox(&mut self, work: &OutboxWork) -> Step<OutboxDone, LedgerError> {
        match work {
            OutboxWork::Enqueue(what) => {
                self.enqueue(what)?;
                Ok(OutboxDone::Enqueued)
            }
            OutboxWork::Claim(ids) => {
                let mut claimed = Vec::with_capacity(ids.len());
                for id in ids {
                    claimed.extend(self.claim(*id)?);
                }
                Ok(OutboxDone::Claimed(claimed))
            }
            OutboxWork::Change(change) => self.change(change).map(OutboxDone::Changed),
            OutboxWork::Resolve { scope, id, retry, by } => {
                self.resolve_dead(scope, *id, *retry, by).map(OutboxDone::Resolved)
            }
            OutboxWork::BuryCall(dead) => {
                self.bury_call(dead)?;
                Ok(OutboxDone::Enqueued)
            }
            OutboxWork::ResolveCall { scope, call, again, by } => {
                self.resolve_call(scope, *call, *again, by).map(OutboxDone::Resolved)
            }
            OutboxWork::EndRetries(call) => self.end_retries(*call).map(OutboxDone::Resolved),
        }
    }

    /// Take something in. What is there already stays as it is: one id, one delivery.
    pub(super) fn enqueue(&mut self, what: &Enqueue) -> Step<(), LedgerError> {
        let message = &what.message;
        let receivers = serde_json::to_string(&message.to)
            .map_err(|error| LedgerError::Refused(format!("receivers cannot be written: {error}").into()))?;
        let progress = Progress::new(self.now_ms);
        self.execute(
            "INSERT INTO outbox (id, tenant, kind, channel, call, receivers, subject, media_type, body, state, attempts, \
             next_ms, made_ms, changed_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13) \
             ON CONFLICT (id) DO NOTHING",
            params![
                id_bytes(what.id.uuid()),
                what.tenant.as_str(),
                what.kind.word(),
                what.channel.as_str(),
                what.call.as_ref().map(|call| id_bytes(call.uuid())),
                receivers,
                message.subject,
                message.media_type,
                &*message.body,
                progress.state.word(),
                i64::from(progress.attempts),
                integer(progress.next_ms),
                integer(self.now_ms)
            ],
        )?;
        Ok(())
    }

    /// Begin an attempt. Nothing if it does not wait any more.
    fn claim(&mut self, id: DeliveryId) -> Step<Option<Delivery>, LedgerError> {
        let found = self.row(&one_delivery(), params![id_bytes(id.uuid())], delivery_of)?;
        let Some(mut delivery) = found else { return Ok(None) };
        let Ok(next) = delivery.progress.after(DeliveryEvent::Claim, self.now_ms, NO_BOUND) else { return Ok(None) };
        self.progress(id, next, None)?;
        delivery.progress = next;
        Ok(Some(delivery))
    }

    fn change(&mut self, change: &DeliveryChange) -> Step<Progress, LedgerError> {
        let sql = "SELECT state, attempts, next_ms FROM outbox WHERE id = ?1";
        let before =
            self.row(sql, params![id_bytes(change.id.uuid())], |row| progress_of(&Reading::new(row, "outbox")))?;
        let before = before.ok_or_else(|| LedgerError::Refused("there is no such delivery".into()))?;
        let next = before
            .after(change.event, self.now_ms, change.most)
            .map_err(|no| LedgerError::Refused(no.to_string().into()))?;
        self.progress(change.id, next, Some(&change.note))?;
        match next.state {
            DeliveryState::Dead => self.bury(change.id, &change.note)?,
            DeliveryState::Delivered => self.at_rest(change.id, DeliveryState::Delivered, None)?,
            DeliveryState::Queued | DeliveryState::Sending | DeliveryState::Discarded => {}
        }
        Ok(next)
    }

    fn progress(&self, id: DeliveryId, next: Progress, note: Option<&str>) -> Result<(), rusqlite::Error> {
        self.execute(
            "UPDATE outbox SET state = ?1, attempts = ?2, next_ms = ?3, note = coalesce(?4, note), changed_ms = ?5 \
             WHERE id = ?6",
            params![
                next.state.word(),
                i64::from(next.attempts),
                integer(next.next_ms),
                note,
                integer(self.now_ms),
                id_bytes(id.uuid())
            ],
        )?;
        Ok(())
    }

    /// A delivery is given up: it becomes a dead letter, with everything that a retry needs.
    fn bury(&mut self, id: DeliveryId, reason: &str) -> Step<(), LedgerError> {
        self.execute(
            "INSERT INTO dead_letters (kind, item, tenant, channel, reason, attempts, died_ms, state) \
             SELECT kind, id, tenant, channel, ?1, attempts, ?2, ?3 FROM outbox WHERE id = ?4",
            params![reason, integer(self.now_ms), DeadState::Resting.word(), id_bytes(id.uuid())],
        )?;
        self.note_delivery(id, DeliveryState::Dead, None)
    }

    /// A delivery needs its content no more.
    fn at_rest(&mut self, id: DeliveryId, state: DeliveryState, by: Option<&UserName>) -> Step<(), LedgerError> {
        self.execute("UPDATE outbox SET body = NULL WHERE id = ?1", params![id_bytes(id.uuid())])?;
        self.note_delivery(id, state, by)
    }

    /// A person decides about a dead letter. False if none of this id rests in this scope.
    fn resolve_dead(&mut self, scope: &Scope, id: DeliveryId, retry: bool, by: &UserName) -> Step<bool, LedgerError> {
        let found = self.row(&one_delivery(), params![id_bytes(id.uuid())], delivery_of)?;
        let Some(delivery) = found.filter(|delivery| scope.sees(&delivery.what.tenant)) else { return Ok(false) };
        let event = if retry { DeliveryEvent::Retry } else { DeliveryEvent::Discard };
        let Ok(next) = delivery.progress.after(event, self.now_ms, NO_BOUND) else { return Ok(false) };
        let state = if retry { DeadState::Retried } else { DeadState::Discarded };
        self.execute(
            "UPDATE dead_letters SET state = ?1, resolved_by = ?2, resolved_ms = ?3 WHERE item = ?4 AND state = ?5",
            params![state.word(), by.as_str(), integer(self.now_ms), id_bytes(id.uuid()), DeadState::Resting.word()],
        )?;
        self.progress(id, next, None)?;
        if retry {
            self.note_delivery(id, DeliveryState::Queued, Some(by))?;
        } else {
            self.at_rest(id, DeliveryState::Discarded, Some(by))?;
        }
        Ok(true)
    }

    /// Put the end of a delivery, or what a person decided about it, on record.
    fn note_delivery(&mut self, id: DeliveryId, state: DeliveryState, by: Option<&UserName>) -> Step<(), LedgerError> {
        let sql = "SELECT tenant, kind, channel, call, attempts, subject FROM outbox WHERE id = ?1";
        let facts = self.row(sql, params![id_bytes(id.uuid())], |row| {
            let reading = Reading::new(row, "outbox");
            // An entry about a checkpoint that arrived would ask for the next checkpoint, for ever. The subject of what a
            // tool sends is the tool's own; that of an alert is the daemon's.
            let own = reading.word("kind", DeliveryKind::from_word)? == DeliveryKind::Alert;
            if own && state == DeliveryState::Delivered && reading.text("subject")? == CHECKPOINT_SUBJECT {
                return Ok(None);
            }
            Ok(Some(json!({
                "delivery": id, "state": state, "by": by, "tenant": reading.text("tenant")?,
                "kind": reading.text("kind")?, "channel": reading.text("channel")?,
                "call": reading.uuid_or_null("call")?.map(CallId::new), "attempts": reading.number("attempts")?,
            })))
        })?;
        if let Some(facts) = facts.flatten() {
            self.append(AuditKind::Delivery, canonical_body(&facts));
        }
        Ok(())
    }
}
