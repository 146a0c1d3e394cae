//! Rows that belong to no call: runs, standing approvals, dead letters, deliveries, what budgets and statistics counted.
//!
//! Whether such a row may go depends on others, so an index cannot say where the old ones are. Each table is walked in the order
//! of writing, a few rows at a time, from a place that is remembered: rows that stay for years never stand in front of those
//! behind them.

use rusqlite::params;

use super::{Batch, Keep, MARK, SET_MARK};
use crate::ledger::column::{Reading, integer};
use crate::ledger::statement::Failed;

/// Rows of one table that one job looks at, or removes.
const LOOKED_AT: i64 = 512;

/// A table that is walked.
struct Walked {
    /// What its place is remembered under. No class is called so.
    mark: &'static str,
    /// The last row of the next few, and how many they are.
    look: &'static str,
    /// Those of them that go.
    let_go: &'static str,
}

macro_rules! walked {
    ($table:literal, $due:literal) => {
        Walked {
            mark: concat!("small.", $table),
            look: concat!(
                "SELECT coalesce(max(seq), 0) AS last, count(*) AS looked FROM (SELECT seq FROM ",
                $table,
                " WHERE seq > ?1 ORDER BY seq LIMIT ?2)"
            ),
            let_go: concat!("DELETE FROM ", $table, " WHERE seq > ?1 AND seq <= ?2 AND ", $due),
        }
    };
}

/// `?3` is the time before which a row goes.
const WALKED: [Walked; 5] = [
    walked!("standing", "expires_ms < ?3"),
    walked!(
        "runs",
        "closed_ms < ?3 AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.run = runs.id) \
         AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.subject = runs.id)"
    ),
    walked!("dead_letters", "state <> 'resting' AND resolved_ms < ?3"),
    walked!("transactions", "plan IS NULL AND state NOT IN ('open', 'sealed') AND settled_ms < ?3"),
    walked!("quota_uses", "at_ms < ?3"),
];

/// Tables in which what is old is found by a key; `?2` is how many go at once.
const FOUND: [&str; 5] = [
    "DELETE FROM run_marks WHERE run IN (SELECT m.run FROM run_marks m WHERE m.changed_ms < ?1 \
     AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = m.run) LIMIT ?2)",
    // Dead letters may rest in front of deliveries for ever, so these have an index.
    "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox INDEXED BY outbox_over \
     WHERE state IN ('delivered', 'discarded') AND changed_ms < ?1 ORDER BY changed_ms LIMIT ?2)",
    // What an open run, or a session that stands, was charged stays as long as it: its budget must not fill up again. A path of
    // sessions begins with the outermost, which outlives the others.
    "DELETE FROM charges WHERE id IN (SELECT c.id FROM charges c LEFT JOIN runs r ON r.id = c.run \
     WHERE c.day < ?1 / 86400000 AND c.state <> 'reserved' AND (r.id IS NULL OR r.closed_ms < ?1) \
     AND NOT EXISTS (SELECT 1 FROM credentials k WHERE k.id = substr(c.session, 1, 16) AND k.revoked_ms IS NULL \
     AND k.expires_ms >= ?1) LIMIT ?2)",
    "DELETE FROM allowances WHERE (ceiling, subject, day) IN (SELECT ceiling, subject, day FROM allowances \
     WHERE day < ?1 / 86400000 LIMIT ?2)",
    "DELETE FROM stats WHERE (tenant, day, tool, agent, status, code) IN (SELECT tenant, day, tool, agent, status, code \
     FROM stats WHERE day < ?1 / 86400000 LIMIT ?2)",
];

impl Batch<'_> {
    /// Let go of a few rows of each table. Says whether there are more to look at.
    pub(super) fn prune_small(&self, keep: &Keep) -> Result<bool, Failed> {
        let since_ms = integer(keep.since_ms);
        let mut more = false;
        for table in &WALKED {
            let of = |column| {
                move |row: &rusqlite::Row<'_>| Reading::new(row, "retention_marks").number(column).map(integer)
            };
            let after = self.row(MARK, params![table.mark], of("left_seq"))?.unwrap_or(0);
            let looked = self.row(table.look, params![after, LOOKED_AT], of("looked"))?.unwrap_or(0);
            let last = self.row(table.look, params![after, LOOKED_AT], of("last"))?.unwrap_or(0);
            self.execute(table.let_go, params![after, last, since_ms])?;
            let goes_on = looked == LOOKED_AT;
            // Places of calls are in the other column: the next call's is above all of those.
            self.execute(SET_MARK, params![table.mark, 0, if goes_on { last } else { 0 }])?;
            more |= goes_on;
        }
        for sql in FOUND {
            more |= self.execute(sql, params![since_ms, LOOKED_AT])? as i64 == LOOKED_AT;
        }
        Ok(more)
    }
}
