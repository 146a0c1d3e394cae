//! Forgetting a tenant, or a person of it.
//!
//! A row first and work afterwards: a daemon that is killed in between goes on where it was. What goes is what was on record
//! when it was asked for, and what had begun by then; what is still open, under way, halted or held is left and tried again, so
//! that forgetting never takes from recovery what it needs. The keys of a whole tenant are set aside in the transaction that
//! notes the order, so that what is written afterwards, also after a restart, is sealed under keys that stay. The audit
//! chain keeps names and digests.

use std::time::Duration;

use rusqlite::params;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::id::{CallId, TenantName, UserName};

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, id_bytes, integer};
use super::failure::LedgerError;
use super::privacy::{PrivacyDone, PrivacyWork};
use super::retention::{Candidate, OF_TENANT};
use super::statement::{Failed, row, rows};
use crate::vault::KeyId;

/// Calls, of any tenant, that one job of forgetting walks past.
const WALKED: i64 = 512;
/// Calls that one job removes, and rows of any other kind: about the time of a commit.
const REMOVED_AT_ONCE: u32 = 64;
/// The pause between two such jobs, in which others write.
const PAUSE: Duration = Duration::from_millis(5);

/// An order to forget that is not carried out yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgetting {
    /// Its number.
    pub seq: u64,
    /// Of whom.
    pub tenant: TenantName,
    /// One person of it; everybody if absent.
    pub user: Option<UserName>,
    /// What began before this moment is forgotten, in milliseconds since the Unix epoch.
    pub asked_ms: u64,
    /// What stood in front of this place among the calls is, too.
    before_seq: i64,
}

/// How far forgetting has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Calls that are gone.
    pub calls: u64,
    /// Calls that are still open, under way, halted or held, and messages that wait: they go when they are over.
    pub left: u64,
    /// Data keys that nobody has any more.
    pub keys: u64,
}

const FORGETS: &str = "SELECT seq, tenant, user, asked_ms, before_seq FROM forgets WHERE done_ms IS NULL ORDER BY seq";
const ASK: &str = "INSERT INTO forgets (tenant, user, asked_ms, before_seq) \
                   SELECT ?1, ?2, ?3, coalesce(max(seq), 0) + 1 FROM calls RETURNING seq, before_seq";
const SET_ASIDE: &str = "UPDATE data_keys SET forget = ?1 WHERE tenant = ?2 AND forget IS NULL \
                         AND (own IS NOT NULL OR age IS NOT NULL)";
const SHRED: &str = "UPDATE data_keys SET own = NULL, age = NULL, sealed_ms = ?1 WHERE tenant = ?2 AND forget = ?3 \
                     AND (own IS NOT NULL OR age IS NOT NULL) RETURNING id";
/// Messages of a call at ?1 that are not sent yet.
const UNSENT: &str = "SELECT 1 FROM outbox WHERE call = (SELECT id FROM calls WHERE seq = ?1) \
                      AND state IN ('queued', 'sending') LIMIT 1";
/// Messages of the tenant ?1 of before ?2 that are not sent yet.
const UNSENT_OF_TENANT: &str = "SELECT count(*) AS waiting FROM outbox WHERE tenant = ?1 \
                                AND state IN ('queued', 'sending') AND made_ms < ?2";
/// What goes with a call at ?1 beside what every call has: golden cases made from it, what was given up of it, and its messages,
/// sent or not.
const OF_FORGOTTEN_CALL: [&str; 4] = [
    "DELETE FROM golden_cases WHERE from_call = (SELECT id FROM calls WHERE seq = ?1)",
    "DELETE FROM dead_letters WHERE item IN (SELECT id FROM outbox WHERE call = (SELECT id FROM calls WHERE seq = ?1))",
    "DELETE FROM outbox WHERE call = (SELECT id FROM calls WHERE seq = ?1)",
    "DELETE FROM dead_letters WHERE item = (SELECT id FROM calls WHERE seq = ?1)",
];
/// What else of a tenant ?1, or if not empty of a person ?2, was kept, began before ?3 and is over: at most ?4 rows each, in
/// this order.
const OF_FORGOTTEN: [&str; 5] = [
    "DELETE FROM golden_cases WHERE seq IN (SELECT seq FROM golden_cases WHERE tenant = ?1 AND (?2 = '' OR from_user = ?2) \
     AND made_ms < ?3 LIMIT ?4)",
    // Why cases failed may repeat what they hold, whoever's they were. How many did stays.
    "UPDATE suite_runs SET body = '[]' WHERE seq IN (SELECT seq FROM suite_runs WHERE tenant = ?1 \
     AND body <> '[]' AND at_ms < ?3 LIMIT ?4)",
    "DELETE FROM transactions WHERE seq IN (SELECT seq FROM transactions WHERE tenant = ?1 AND (?2 = '' OR user = ?2) \
     AND opened_ms < ?3 AND state NOT IN ('open', 'sealed') AND plan IS NULL LIMIT ?4)",
    "DELETE FROM run_marks WHERE run IN (SELECT m.run FROM runs r JOIN run_marks m ON m.run = r.id WHERE r.tenant = ?1 \
     AND (?2 = '' OR r.user = ?2) AND r.opened_ms < ?3 AND r.closed_ms IS NOT NULL LIMIT ?4)",
    "DELETE FROM runs WHERE seq IN (SELECT seq FROM runs WHERE tenant = ?1 AND (?2 = '' OR user = ?2) \
     AND opened_ms < ?3 AND closed_ms IS NOT NULL AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.run = runs.id) LIMIT ?4)",
];
/// What of a whole tenant was kept for it: what its tools kept, and what was delivered or given up. As above, ?2 is empty.
const OF_FORGOTTEN_TENANT: [&str; 3] = [
    "DELETE FROM keys WHERE (tenant, bucket, key) IN (SELECT tenant, bucket, key FROM keys WHERE tenant = ?1 || ?2 \
     AND changed_ms < ?3 LIMIT ?4)",
    "DELETE FROM dead_letters WHERE seq IN (SELECT d.seq FROM dead_letters d WHERE d.tenant = ?1 || ?2 AND (d.died_ms < ?3 \
     OR EXISTS (SELECT 1 FROM outbox o WHERE o.id = d.item AND o.made_ms < ?3)) LIMIT ?4)",
    "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE tenant = ?1 || ?2 \
     AND state IN ('delivered', 'discarded', 'dead') AND made_ms < ?3 LIMIT ?4)",
];

impl Forgetting {
    fn user(&self) -> &str {
        self.user.as_ref().map_or("", UserName::as_str)
    }
}

impl Batch<'_> {
    /// Note what is to be forgotten: what began up to this moment.
    pub(super) fn ask_to_forget(
        &mut self,
        tenant: &TenantName,
        user: Option<&UserName>,
        facts: &str,
    ) -> Step<PrivacyDone, LedgerError> {
        let (name, asked_ms) = (tenant.as_str(), self.now_ms.saturating_add(1));
        let values = params![name, user.map_or("", UserName::as_str), integer(asked_ms)];
        let noted = self.row(ASK, values, |row| {
            let reading = Reading::new(row, "forgets");
            let (seq, before_seq) = (reading.number("seq")?, integer(reading.number("before_seq")?));
            Ok(Forgetting { seq, tenant: tenant.clone(), user: user.cloned(), asked_ms, before_seq })
        })?;
        let Some(noted) = noted else { return Err(LedgerError::Closed.into()) };
        self.append(AuditKind::Privacy, facts.to_owned());
        if user.is_none() {
            self.execute(SET_ASIDE, params![integer(noted.seq), name])?;
            // What is written from now on is sealed under a key that stays.
            self.sealer.retire(name);
        }
        Ok(PrivacyDone::Noted(Box::new(noted)))
    }

    /// Remove the calls of who is forgotten, among the next ones.
    pub(super) fn walk_past(&mut self, of: &Forgetting, after: i64) -> Step<PrivacyDone, LedgerError> {
        self.clear(true)?;
        let mut to = after.saturating_add(WALKED);
        let values = params![after, to, of.tenant.as_str(), of.user(), integer(of.asked_ms), of.before_seq];
        let candidates = self.rows(OF_TENANT, values, Candidate::of)?;
        let (mut calls, mut left) = (0, 0);
        for candidate in &candidates {
            let unsent = self.row(UNSENT, params![candidate.seq], |_row| Ok(()))?.is_some();
            if unsent || candidate.held || !candidate.is_over() {
                left += 1;
                continue;
            }
            for sql in OF_FORGOTTEN_CALL {
                self.execute(sql, params![candidate.seq])?;
            }
            self.remove(candidate)?;
            calls += 1;
            if calls == u64::from(REMOVED_AT_ONCE) {
                to = candidate.seq;
                break;
            }
        }
        self.clear(false)?;
        let last = self.row("SELECT max(seq) AS seq FROM calls", params![], |row| {
            Reading::new(row, "calls").number_or_null("seq").map(|seq| integer(seq.unwrap_or(0)))
        })?;
        let next = (to < last.unwrap_or(0)).then_some(to);
        Ok(PrivacyDone::Walked { next, calls, left })
    }

    /// No call is left. Remove something of the rest: there may be more of it while this says where to go on.
    pub(super) fn forget_rest(&mut self, of: &Forgetting) -> Step<PrivacyDone, LedgerError> {
        let (tenant, asked_ms) = (of.tenant.as_str(), integer(of.asked_ms));
        let mut what = OF_FORGOTTEN.to_vec();
        if of.user.is_none() {
            let waiting = self.row(UNSENT_OF_TENANT, params![tenant, asked_ms], |row| {
                Reading::new(row, "outbox").number("waiting")
            })?;
            if let Some(left @ 1..) = waiting {
                return Ok(PrivacyDone::Walked { next: None, calls: 0, left });
            }
            what.extend(OF_FORGOTTEN_TENANT);
        }
        self.clear(true)?;
        let mut next = None;
        for sql in what {
            let gone = self.execute(sql, params![tenant, of.user(), asked_ms, REMOVED_AT_ONCE])?;
            if gone >= REMOVED_AT_ONCE as usize {
                next = Some(0);
                break;
            }
        }
        self.clear(false)?;
        Ok(PrivacyDone::Walked { next, calls: 0, left: 0 })
    }

    /// Nothing is left: the keys go too, and the order is carried out.
    pub(super) fn forgotten(&mut self, of: &Forgetting, mut so_far: Forgotten) -> Step<Forgotten, LedgerError> {
        let sql = "UPDATE forgets SET done_ms = ?1 WHERE seq = ?2 AND done_ms IS NULL";
        if self.execute(sql, params![integer(self.now_ms), integer(of.seq)])? == 0 {
            return Ok(so_far);
        }
        if of.user.is_none() {
            self.clear(true)?;
            let values = params![integer(self.now_ms), of.tenant.as_str(), integer(of.seq)];
            let shredded = self.rows(SHRED, values, |row| Reading::new(row, "data_keys").name::<KeyId>("id"))?;
            self.clear(false)?;
            so_far.keys = shredded.len() as u64;
            self.sealer.gone.extend(shredded);
        }
        let facts = serde_json::json!({"calls": so_far.calls, "keys": so_far.keys, "tenant": of.tenant,
            "user": of.user(), "what": "forgotten"});
        self.append(AuditKind::Privacy, toolkeep_core::audit::canonical_body(&facts));
        Ok(so_far)
    }
}

impl Ledger {
    /// Note, durably, that everything is to be forgotten that a tenant, or one person of it, began up to now. From then on what
    /// is written of a whole tenant is sealed under other keys. [`Ledger::forget`] does it.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn ask_to_forget(
        &self,
        tenant: &TenantName,
        user: Option<&UserName>,
        facts: String,
    ) -> Result<Forgetting, LedgerError> {
        let work = PrivacyWork::Forget { tenant: tenant.clone(), user: user.cloned(), facts };
        match self.private(work, true).await? {
            PrivacyDone::Noted(noted) => Ok(*noted),
            _ => Err(LedgerError::Closed),
        }
    }

    /// What is to be forgotten and is not yet, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn to_forget(&self) -> Result<Vec<Forgetting>, LedgerError> {
        self.caught_up().await?;
        self.read(move |conn| {
            rows(conn, FORGETS, params![], |row| {
                let reading = Reading::new(row, "forgets");
                let user = Some(reading.text("user")?).filter(|user| !user.is_empty());
                Ok(Forgetting {
                    seq: reading.number("seq")?,
                    tenant: reading.name("tenant")?,
                    user: user.map(|_| reading.name("user")).transpose()?,
                    asked_ms: reading.number("asked_ms")?,
                    before_seq: integer(reading.number("before_seq")?),
                })
            })
        })
        .await
    }

    /// Forget what goes now. `under_way` are the calls of whom it is about that began before the order and had not ended when
    /// this was called: those that are not on record yet are left, like everything that is not over.
    ///
    /// # Errors
    /// The ledger failed; the next time it goes on.
    pub async fn forget(&self, what: &Forgetting, under_way: Vec<CallId>) -> Result<Forgotten, LedgerError> {
        let mut so_far = Forgotten { left: self.unwritten(under_way).await?, ..Forgotten::default() };
        let mut after = 0;
        loop {
            let work = PrivacyWork::Walk { forget: Box::new(what.clone()), after };
            let PrivacyDone::Walked { next, calls, left } = self.private(work, false).await? else { return Ok(so_far) };
            so_far.calls += calls;
            so_far.left += left;
            let Some(next) = next else { break };
            after = next;
            tokio::time::sleep(PAUSE).await;
        }
        while so_far.left == 0 {
            let work = PrivacyWork::Rest { forget: Box::new(what.clone()) };
            let PrivacyDone::Walked { next, left, .. } = self.private(work, false).await? else { return Ok(so_far) };
            so_far.left += left;
            if next.is_none() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if so_far.left > 0 {
            return Ok(so_far);
        }
        match self.private(PrivacyWork::Forgotten { forget: Box::new(what.clone()), so_far }, true).await? {
            PrivacyDone::Done(done) => Ok(done),
            _ => Ok(so_far),
        }
    }

    /// How many of these calls have no row yet.
    async fn unwritten(&self, calls: Vec<CallId>) -> Result<u64, LedgerError> {
        self.caught_up().await?;
        self.read(move |conn| {
            let mut unwritten = 0;
            for call in calls {
                let found: Result<Option<()>, Failed> =
                    row(conn, "SELECT 1 FROM calls WHERE id = ?1", params![id_bytes(call.uuid())], |_row| Ok(()));
                unwritten += u64::from(found?.is_none());
            }
            Ok(unwritten)
        })
        .await
    }
}
