//! The writer's side of transactions: beginning one, replacing its layer, sealing it, ending it.
//!
//! Every step is a compare-and-swap on the state of the row, and a layer also on the digest of the one before, so that of
//! a call, an expiry and a rollback at one moment exactly one wins. A sealed transaction ends with its plan, in the same
//! transaction of the database.

use rusqlite::params;
use serde_json::json;
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, PlanId, TransactionId};

use super::batch::{Batch, Step, Stop};
use super::column::{Reading, digest_bytes, id_bytes, integer, path_bytes};
use super::facts;
use super::failure::{LedgerError, TransactionRefused};
use super::insert;
use super::rows::{CallRow, PlanState};
use super::statement::each;
use super::stats::Ended;
use super::transactions::{LayerText, StagedCall, TransactionRow, TransactionState, TransactionWork};

/// Transactions that one job expires, at most: the others of the batch must not wait long.
const EXPIRED_AT_ONCE: i64 = 64;
const PIN: &str = "INSERT INTO transaction_pins (txn, digest) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const UNPIN: &str = "DELETE FROM transaction_pins WHERE txn = ?1 AND digest = ?2";

impl Batch<'_> {
    /// Change a transaction.
    pub(super) fn transaction(&mut self, work: &TransactionWork) -> Step<(), TransactionRefused> {
        match work {
            TransactionWork::Open { row, empty, most } => self.open_transaction(row, empty, *most),
            TransactionWork::Stage(staged) => self.stage(staged),
            TransactionWork::End { id, state, call } => self.end_transaction(*id, *state, call.as_ref()),
        }
    }

    /// A transaction begins.
    fn open_transaction(&mut self, row: &TransactionRow, empty: &LayerText, most: u32) -> Step<(), TransactionRefused> {
        let who = &row.principal;
        let (tenant, user, agent) = (who.tenant.as_str(), who.user.as_str(), who.agent.as_str());
        let sql = "SELECT count(*) AS unsettled FROM transactions WHERE tenant = ?1 AND user = ?2 AND agent = ?3 \
                   AND state IN ('open', 'sealed')";
        let unsettled =
            self.row(sql, params![tenant, user, agent], |row| Reading::new(row, "transactions").number("unsettled"))?;
        if unsettled.unwrap_or(0) >= u64::from(most) {
            return Err(Stop::Refused(TransactionRefused::TooMany(most)));
        }
        let tools = row.tools.as_ref().and_then(|tools| serde_json::to_string(tools).ok());
        self.execute(
            "INSERT INTO transactions (id, tenant, user, agent, run, tools, state, layer, digest, calls, bytes, \
             opened_ms, expires_ms, host_id, lease_epoch, fence, session, \
             credential) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open', ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, 0, ?14, ?15)",
            params![
                id_bytes(row.id.uuid()),
                tenant,
                user,
                agent,
                row.run.as_ref().map(|run| id_bytes(run.uuid())),
                tools,
                empty.text,
                digest_bytes(&empty.digest),
                empty.calls,
                integer(empty.bytes),
                integer(row.opened_ms),
                integer(row.expires_at_ms),
                self.host_id,
                path_bytes(&row.origin.session),
                row.origin.credential.to_string(),
            ],
        )?;
        Ok(())
    }

    /// A call ended well in its transaction: its row, its contents and the layer after it.
    fn stage(&mut self, staged: &StagedCall) -> Step<(), TransactionRefused> {
        let (id, layer) = (id_bytes(staged.transaction.uuid()), &staged.layer);
        let swapped = self.execute(
            "UPDATE transactions SET layer = ?1, digest = ?2, calls = ?3, bytes = ?4 \
             WHERE id = ?5 AND state = 'open' AND digest = ?6 AND expires_ms > ?7",
            params![
                layer.text,
                digest_bytes(&layer.digest),
                layer.calls,
                integer(layer.bytes),
                id,
                digest_bytes(&staged.parent),
                integer(self.now_ms),
            ],
        )?;
        if swapped != 1 {
            return Err(self.not_open(staged.transaction)?);
        }
        insert::contents(self.conn, &staged.blobs)?;
        let pinned: Vec<Digest> = staged.blobs.digests().collect();
        each(self.conn, PIN, &pinned, |statement, digest| statement.execute(params![id, digest_bytes(digest)]))?;
        each(self.conn, UNPIN, &staged.released, |statement, digest| {
            statement.execute(params![id, digest_bytes(digest)])
        })?;
        self.final_call(&staged.call)
    }

    /// The row of a call that will not change any more, with its key and its audit entry.
    fn final_call(&mut self, row: &CallRow) -> Step<(), TransactionRefused> {
        let placed = self.place(row, None);
        let seq = placed.seq;
        insert::calls(self.conn, &mut self.sealer, &[placed])?;
        if let Some(key) = &row.key
            && !self.keep_key(seq, row, key)?
        {
            return Err(LedgerError::Refused("the idempotency key belongs to another call".into()).into());
        }
        self.finished.push(Ended::Seq(seq));
        self.append(AuditKind::Call, facts::call(row, None));
        Ok(())
    }

    /// An open transaction without a plan ends.
    fn end_transaction(
        &mut self,
        id: TransactionId,
        state: TransactionState,
        call: Option<&CallRow>,
    ) -> Step<(), TransactionRefused> {
        if let Some(row) = call {
            self.final_call(row)?;
        }
        let ended =
            self.execute(
                "UPDATE transactions SET state = ?1, call = ?2, settled_ms = ?3 WHERE id = ?4 AND state = 'open'",
                params![
                    state.word(),
                    call.map(|row| id_bytes(row.call.uuid())),
                    integer(self.now_ms),
                    id_bytes(id.uuid()),
                ],
            )?;
        if ended != 1 {
            return Err(self.not_open(id)?);
        }
        self.ended(id, state, "asked")?;
        Ok(())
    }

    /// From here on the plan decides how the transaction ends.
    pub(super) fn seal_transaction(&mut self, id: TransactionId, plan: PlanId, call: CallId) -> Step<(), LedgerError> {
        let sealed = self.execute(
            "UPDATE transactions SET state = 'sealed', plan = ?1, call = ?2 WHERE id = ?3 AND state = 'open'",
            params![id_bytes(plan.uuid()), id_bytes(call.uuid()), id_bytes(id.uuid())],
        )?;
        if sealed == 1 {
            Ok(())
        } else {
            Err(LedgerError::Refused("the transaction is not open any more".into()).into())
        }
    }

    /// A plan came to its end, and so does the transaction that it seals, if it seals one.
    pub(super) fn end_with_plan(&mut self, plan: PlanId, state: PlanState) -> Result<(), rusqlite::Error> {
        let state = match state {
            PlanState::Previewed | PlanState::Held | PlanState::Committing => return Ok(()),
            PlanState::Committed => TransactionState::Committed,
            PlanState::Halted => TransactionState::Halted,
            PlanState::RolledBack | PlanState::Discarded | PlanState::Expired => TransactionState::Discarded,
        };
        let plan = id_bytes(plan.uuid());
        let ended = self.execute(
            "UPDATE transactions SET state = ?1, settled_ms = ?2 WHERE plan = ?3 AND state = 'sealed'",
            params![state.word(), integer(self.now_ms), plan],
        )?;
        // An operator has to look at what is halted: its contents stay.
        if ended == 1 && state != TransactionState::Halted {
            let sql = "DELETE FROM transaction_pins WHERE txn = (SELECT id FROM transactions WHERE plan = ?1)";
            self.execute(sql, params![plan])?;
        }
        Ok(())
    }

    /// Roll back transactions whose time is over, some of them.
    pub(super) fn expire_transactions(&mut self, now_ms: u64) -> Step<(), LedgerError> {
        let due = self.rows(
            "SELECT id FROM transactions WHERE state = 'open' AND expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2",
            params![integer(now_ms), EXPIRED_AT_ONCE],
            |row| Reading::new(row, "transactions").uuid("id").map(TransactionId::new),
        )?;
        for id in &due {
            self.execute(
                "UPDATE transactions SET state = 'discarded', settled_ms = ?1 WHERE id = ?2",
                params![integer(self.now_ms), id_bytes(id.uuid())],
            )?;
            self.ended(*id, TransactionState::Discarded, "expired")?;
        }
        Ok(())
    }

    fn ended(&mut self, id: TransactionId, state: TransactionState, why: &str) -> Result<(), rusqlite::Error> {
        self.execute("DELETE FROM transaction_pins WHERE txn = ?1", params![id_bytes(id.uuid())])?;
        let sql = "SELECT tenant FROM transactions WHERE id = ?1";
        let mut asked = self.conn.prepare_cached(sql)?;
        let tenant: String = asked.query_row(params![id_bytes(id.uuid())], |row| row.get(0))?;
        let facts = json!({"transaction": id, "state": state.word(), "tenant": tenant, "why": why});
        self.append(AuditKind::Discarded, canonical_body(&facts));
        Ok(())
    }

    /// Why a transaction did not take a change.
    fn not_open(&mut self, id: TransactionId) -> Step<Stop<TransactionRefused>, TransactionRefused> {
        let found = self.row("SELECT state FROM transactions WHERE id = ?1", params![id_bytes(id.uuid())], |row| {
            Reading::new(row, "transactions").word("state", TransactionState::from_word)
        })?;
        Ok(Stop::Refused(match found {
            None => TransactionRefused::NotFound,
            Some(TransactionState::Open) => TransactionRefused::Moved,
            Some(state) => TransactionRefused::NotOpen(state),
        }))
    }
}
