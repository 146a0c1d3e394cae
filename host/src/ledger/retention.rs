//! How long the ledger keeps what is over: rows of final calls go when the operator does not want them any more.
//!
//! What is not over stays however old it is: calls that wait, open intents, held plans, halted ones, and committed plans
//! whose undo contents are still kept. The audit chain stays whole, so it still verifies and still says what was. The
//! writer removes a few calls at a time, so that nobody waits long for it.

use std::time::Duration;

use rusqlite::{Row, params};
use toolkeep_core::id::PlanId;

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, id_bytes, integer};
use super::failure::LedgerError;
use super::queue::{Done, Work};
use super::rows::PlanState;

/// Calls that one job looks at: about the time of a commit.
const LOOKED_AT: i64 = 64;
/// Rows of runs, deliveries and transactions without a plan that one sweep looks at.
const SMALL_LOOKED_AT: i64 = 4_096;
/// The pause between two jobs of a sweep, in which others write.
const PAUSE: Duration = Duration::from_millis(5);

/// What the operator wants to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Everything that ended at this time or later, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Undo contents of commits of this time or later; of all commits if absent.
    pub undo_since_ms: Option<u64>,
}

/// One step of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Swept {
    /// Where the next step goes on; nothing at the end.
    pub(super) next: Option<i64>,
    /// Calls that are gone.
    pub(super) removed: u64,
}

/// A call that may be over.
struct Candidate {
    seq: i64,
    is_final: bool,
    started_ms: u64,
    ended_ms: u64,
    plan: Option<Settled>,
}

/// Its plan.
struct Settled {
    id: PlanId,
    state: PlanState,
    settled_ms: Option<u64>,
    undone: bool,
    pinned: bool,
}

const CANDIDATES: &str = "SELECT c.seq, c.final, c.started_ms, c.ended_ms, p.id AS plan, p.state, p.settled_ms, \
                          p.undone_by IS NOT NULL AS undone, \
                          EXISTS (SELECT 1 FROM blob_pins b WHERE b.plan_seq = c.seq) AS pinned \
                          FROM calls c LEFT JOIN plans p ON p.seq = c.seq WHERE c.seq > ?1 \
                          AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.item = c.id AND (d.state = 'resting' OR d.again IS NOT NULL)) \
                          ORDER BY c.seq LIMIT ?2";
/// What belongs to a plan by its id.
const OF_PLAN: [&str; 4] = [
    "DELETE FROM approval_votes WHERE approval = (SELECT id FROM approvals WHERE plan = ?1)",
    "DELETE FROM approvals WHERE plan = ?1",
    "DELETE FROM sends WHERE plan = ?1",
    "DELETE FROM transactions WHERE plan = ?1",
];
/// What belongs to a call by its place, and the call.
const OF_CALL: [&str; 8] = [
    "DELETE FROM call_outputs WHERE call_seq = ?1",
    "DELETE FROM call_notes WHERE call_seq = ?1",
    "DELETE FROM effects WHERE plan_seq = ?1",
    "DELETE FROM plan_texts WHERE plan_seq = ?1",
    "DELETE FROM plans WHERE seq = ?1",
    "DELETE FROM idempotency WHERE call_seq = ?1",
    "DELETE FROM recordings WHERE call_seq = ?1",
    "DELETE FROM calls WHERE seq = ?1",
];
/// What belongs to no call: the oldest rows of small tables. Deliveries have an index for it, because dead letters may rest
/// in front of them for ever.
const SMALL: [&str; 9] = [
    "DELETE FROM run_marks WHERE run IN (SELECT run FROM run_marks WHERE changed_ms < ?1 LIMIT ?2) \
     AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = run_marks.run)",
    "DELETE FROM standing WHERE seq IN (SELECT seq FROM (SELECT seq, state, expires_ms FROM standing ORDER BY seq LIMIT ?2) \
     WHERE expires_ms < ?1)",
    "DELETE FROM runs WHERE seq IN (SELECT seq FROM (SELECT seq, id, closed_ms FROM runs ORDER BY seq LIMIT ?2) r \
     WHERE r.closed_ms < ?1 AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.run = r.id))",
    "DELETE FROM dead_letters WHERE seq IN (SELECT seq FROM (SELECT seq, state, resolved_ms FROM dead_letters \
     ORDER BY seq LIMIT ?2) WHERE state <> 'resting' AND resolved_ms < ?1)",
    "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox INDEXED BY outbox_over \
     WHERE state IN ('delivered', 'discarded') AND changed_ms < ?1 ORDER BY changed_ms LIMIT ?2)",
    "DELETE FROM transactions WHERE seq IN (SELECT seq FROM (SELECT seq, plan, state, settled_ms FROM transactions \
     ORDER BY seq LIMIT ?2) WHERE plan IS NULL AND state NOT IN ('open', 'sealed') AND settled_ms < ?1)",
    "DELETE FROM quota_uses WHERE seq IN (SELECT seq FROM (SELECT seq, at_ms FROM quota_uses ORDER BY seq LIMIT ?2) \
     WHERE at_ms < ?1)",
    // What an open run, or a session that stands, was charged stays as long as it: its budget must not fill up again. A path of
    // sessions begins with the outermost, which outlives the others.
    "DELETE FROM charges WHERE id IN (SELECT c.id FROM charges c LEFT JOIN runs r ON r.id = c.run \
     WHERE c.day < ?1 / 86400000 AND c.state <> 'reserved' AND (r.id IS NULL OR r.closed_ms < ?1) \
     AND NOT EXISTS (SELECT 1 FROM credentials k WHERE k.id = substr(c.session, 1, 16) AND k.revoked_ms IS NULL \
     AND k.expires_ms >= ?1) LIMIT ?2)",
    "DELETE FROM allowances WHERE (ceiling, subject, day) IN (SELECT ceiling, subject, day FROM allowances \
     WHERE day < ?1 / 86400000 LIMIT ?2)",
];

impl Candidate {
    fn of(row: &Row<'_>) -> Result<Self, LedgerError> {
        let reading = Reading::new(row, "calls");
        let plan = match reading.uuid_or_null("plan")? {
            None => None,
            Some(id) => Some(Settled {
                id: PlanId::new(id),
                state: reading.word("state", PlanState::from_word)?,
                settled_ms: reading.number_or_null("settled_ms")?,
                undone: reading.number("undone")? == 1,
                pinned: reading.number("pinned")? == 1,
            }),
        };
        Ok(Self {
            seq: integer(reading.number("seq")?),
            is_final: reading.number("final")? == 1,
            started_ms: reading.number("started_ms")?,
            ended_ms: reading.number("ended_ms")?,
            plan,
        })
    }

    /// Whether its plan came to an end that needs nobody any more.
    fn is_over(&self) -> bool {
        self.is_final
            && self.plan.as_ref().is_none_or(|plan| match plan.state {
                PlanState::Committed | PlanState::RolledBack | PlanState::Discarded | PlanState::Expired => true,
                PlanState::Previewed | PlanState::Held | PlanState::Committing | PlanState::Halted => false,
            })
    }

    /// Whether its undo contents are to go. While somebody undoes it they stay.
    fn undo_is_old(&self, keep: Keep) -> bool {
        let Some(since_ms) = keep.undo_since_ms else { return false };
        self.plan.as_ref().is_some_and(|plan| {
            let old = plan.settled_ms.is_some_and(|settled_ms| settled_ms < since_ms);
            plan.state == PlanState::Committed && old && !plan.undone
        })
    }
}

impl Batch<'_> {
    /// Remove what is over, among the calls after this place.
    pub(super) fn prune(&mut self, keep: Keep, after: i64) -> Step<Swept, LedgerError> {
        let candidates = self.rows(CANDIDATES, params![after, LOOKED_AT], Candidate::of)?;
        let since_ms = keep.since_ms.max(keep.undo_since_ms.unwrap_or(0));
        let mut removed = 0;
        for candidate in &candidates {
            let mut pinned = candidate.plan.as_ref().is_some_and(|plan| plan.pinned);
            if pinned && candidate.undo_is_old(keep) {
                self.unpin(candidate.seq, None)?;
                pinned = false;
            }
            if candidate.is_over() && !pinned && candidate.ended_ms < keep.since_ms {
                self.remove(candidate)?;
                removed += 1;
            }
        }
        // Rows are in the order of writing, and nothing is written before it began.
        let last = candidates.last().filter(|last| last.started_ms < since_ms);
        let next = last.filter(|_| candidates.len() as u64 == LOOKED_AT.unsigned_abs()).map(|last| last.seq);
        if next.is_none() {
            for sql in SMALL {
                self.execute(sql, params![integer(keep.since_ms), SMALL_LOOKED_AT])?;
            }
        }
        Ok(Swept { next, removed })
    }

    fn remove(&self, candidate: &Candidate) -> Result<(), rusqlite::Error> {
        if let Some(plan) = &candidate.plan {
            for sql in OF_PLAN {
                self.execute(sql, params![id_bytes(plan.id.uuid())])?;
            }
        }
        for sql in OF_CALL {
            self.execute(sql, params![candidate.seq])?;
        }
        Ok(())
    }
}

impl Ledger {
    /// Remove what is over and not to be kept, a few calls at a time. Returns how many calls are gone. Contents that
    /// nothing needs any more are for [`crate::blobs::Blobs::collect`].
    ///
    /// # Errors
    /// The ledger failed; what was removed before stays removed.
    pub async fn prune(&self, keep: Keep) -> Result<u64, LedgerError> {
        let (mut after, mut removed) = (0, 0);
        loop {
            match self.ask(Work::Prune { keep, after }, false).await? {
                Done::Swept(swept) => {
                    removed += swept.removed;
                    let Some(next) = swept.next else { return Ok(removed) };
                    after = next;
                }
                Done::Refused(error) => return Err(error),
                _ => return Ok(removed),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
