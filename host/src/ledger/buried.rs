//! Calls that were given up: buried with their row, and made again as another call, or thrown away, by a person.
//!
//! Making a call again is noted before it begins, with the id of the call that it is made as, so that nobody makes it twice
//! at a time. If that call comes to nothing (it was refused before it ran, or the daemon stopped first), the letter rests
//! again: at once, or at the next start. What is lost is not lost silently.

use rusqlite::params;
use serde_json::json;
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::id::{CallId, UserName};

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, id_bytes, integer};
use super::deliveries::{DeadCall, DeadKind, DeadLetterRefused, DeadState, OutboxDone, OutboxWork};
use super::failure::LedgerError;
use super::rows::Scope;

/// Letters that rest again: the call as which one was made again has not run, nor is it buried itself. A call that ran has
/// used fuel; one that waits, or of which nobody knows, has an outcome.
const RESTS_AGAIN: &str = "UPDATE dead_letters SET state = 'resting', resolved_by = NULL, resolved_ms = NULL \
                           WHERE again IS NOT NULL AND state = 'retried' AND (?1 IS NULL OR item = ?1) \
                           AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.id = dead_letters.again \
                           AND (c.fuel > 0 OR c.outcome <> 'none')) \
                           AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.item = dead_letters.again) \
                           RETURNING item, tenant";

impl Batch<'_> {
    /// A call is given up. What it needs to be made again is its row, which stays as long as this rests.
    pub(super) fn bury_call(&mut self, dead: &DeadCall) -> Step<(), LedgerError> {
        self.execute(
            "INSERT INTO dead_letters (kind, item, tenant, channel, reason, attempts, died_ms, state) \
             VALUES (?1, ?2, ?3, '', ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
            params![
                DeadKind::Call.word(),
                id_bytes(dead.call.uuid()),
                dead.tenant.as_str(),
                dead.reason,
                i64::from(dead.attempts),
                integer(self.now_ms),
                DeadState::Resting.word()
            ],
        )?;
        let facts = json!({"call": dead.call, "state": "dead", "kind": DeadKind::Call.word(), "tenant": dead.tenant,
            "attempts": dead.attempts});
        self.append(AuditKind::Delivery, canonical_body(&facts));
        Ok(())
    }

    /// A person decides about a dead call. False if none of this id rests in this scope.
    pub(super) fn resolve_call(
        &mut self,
        scope: &Scope,
        call: CallId,
        again: Option<CallId>,
        by: &UserName,
    ) -> Step<bool, LedgerError> {
        let tenant = match scope {
            Scope::Tenant(tenant) => Some(tenant.as_str()),
            Scope::Operator => None,
        };
        let state = if again.is_some() { DeadState::Retried } else { DeadState::Discarded };
        let changed = self.execute(
            "UPDATE dead_letters SET state = ?1, resolved_by = ?2, resolved_ms = ?3, again = ?6 \
             WHERE item = ?4 AND kind = 'call' AND state = 'resting' AND (?5 IS NULL OR tenant = ?5)",
            params![
                state.word(),
                by.as_str(),
                integer(self.now_ms),
                id_bytes(call.uuid()),
                tenant,
                again.as_ref().map(|again| id_bytes(again.uuid()))
            ],
        )?;
        if changed > 0 {
            let facts = json!({"call": call, "state": state.word(), "kind": DeadKind::Call.word(), "by": by,
                "again": again});
            self.append(AuditKind::Delivery, canonical_body(&facts));
        }
        Ok(changed > 0)
    }

    /// The call as which a dead one was made again is over. Says whether a letter rests again.
    pub(super) fn end_retries(&mut self, call: Option<CallId>) -> Step<bool, LedgerError> {
        let item = call.as_ref().map(|call| id_bytes(call.uuid()));
        let resting = self.rows(RESTS_AGAIN, params![item], |row| {
            let reading = Reading::new(row, "dead_letters");
            Ok((CallId::new(reading.uuid("item")?), reading.text("tenant")?.to_owned()))
        })?;
        for (call, tenant) in &resting {
            let (state, kind) = (DeadState::Resting.word(), DeadKind::Call.word());
            let facts = json!({"call": call, "state": state, "kind": kind, "tenant": tenant});
            self.append(AuditKind::Delivery, canonical_body(&facts));
        }
        let over = "UPDATE dead_letters SET again = NULL WHERE again IS NOT NULL AND (?1 IS NULL OR item = ?1)";
        self.execute(over, params![item])?;
        Ok(!resting.is_empty())
    }
}

impl Ledger {
    /// Put a call to rest that was given up: on the disk, with the call's own row, when this returns.
    ///
    /// # Errors
    /// The queue is full, or the ledger is poisoned, full or closed.
    pub async fn bury_call(&self, dead: DeadCall) -> Result<(), LedgerError> {
        self.outbox(OutboxWork::BuryCall(dead), true).await.map(|_done| ())
    }

    /// Have a dead call made again, as the call `again`, or thrown away; durable, and on record with who decided. Making it
    /// again is the caller's, and [`Self::end_retry`] afterwards.
    ///
    /// # Errors
    /// No dead call of this id rests in this scope, or the ledger failed.
    pub async fn resolve_dead_call(
        &self,
        scope: &Scope,
        call: CallId,
        again: Option<CallId>,
        by: &UserName,
    ) -> Result<(), DeadLetterRefused> {
        let work = OutboxWork::ResolveCall { scope: scope.clone(), call, again, by: by.clone() };
        match self.outbox(work, true).await? {
            OutboxDone::Resolved(true) => Ok(()),
            OutboxDone::Resolved(false) => Err(DeadLetterRefused::NotFound),
            _ => Err(LedgerError::Closed.into()),
        }
    }

    /// The call as which a dead one was made again is over. Says whether it came to nothing, so that the letter rests again.
    ///
    /// # Errors
    /// The ledger failed: the next start looks again.
    pub async fn end_retry(&self, call: CallId) -> Result<bool, LedgerError> {
        self.outbox(OutboxWork::EndRetries(Some(call)), true)
            .await
            .map(|done| matches!(done, OutboxDone::Resolved(true)))
    }

    /// Dead calls that were being made again when the daemon stopped: those that came to nothing rest again.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn end_retries(&self) -> Result<(), LedgerError> {
        self.outbox(OutboxWork::EndRetries(None), true).await.map(|_done| ())
    }
}
