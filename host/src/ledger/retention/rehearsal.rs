//! What a sweep would let go of, without letting go of anything.

use rusqlite::{Connection, params};

use super::super::Ledger;
use super::super::column::{Reading, integer};
use super::super::failure::LedgerError;
use super::super::statement::{Failed, row, rows};
use super::{CANDIDATE, CANDIDATES, Candidate, Class, Keep, LEFT, LEFT_LOOKED_AT, LOOKED_AT, Pruned, Verdict, mark_of};

/// Calls of one class that a rehearsal looks at.
const REHEARSED: u64 = 20_000;

/// What a sweep would let go of, among the first calls that each class would come to.
fn rehearse(conn: &Connection, keep: &Keep) -> Result<Pruned, Failed> {
    let mut would = Pruned::default();
    for class in Class::ALL {
        let Some(since_ms) = keep.of(class) else { continue };
        let (mut after, mut looked) = (mark_of(conn, class)?.0, 0);
        loop {
            let candidates: Vec<Candidate> = rows(conn, CANDIDATES, params![after, LOOKED_AT], Candidate::of)?;
            let old = candidates.iter().take_while(|candidate| candidate.started_ms < since_ms);
            let mut passed = 0;
            for candidate in old {
                if candidate.verdict(class, since_ms, keep) == Verdict::Due {
                    would.count(class);
                }
                (after, passed) = (candidate.seq, passed + 1);
            }
            looked += passed;
            if passed < LOOKED_AT.unsigned_abs() || looked >= REHEARSED {
                break;
            }
        }
        let left = rows(conn, LEFT, params![class.word(), 0, integer(LEFT_LOOKED_AT)], |row| {
            Reading::new(row, "retention_left").number("seq").map(integer)
        })?;
        for seq in left {
            let candidate = row(conn, CANDIDATE, params![seq], Candidate::of)?;
            if candidate.is_some_and(|candidate| candidate.verdict(class, since_ms, keep) == Verdict::Due) {
                would.count(class);
            }
        }
    }
    Ok(would)
}

impl Ledger {
    /// What [`Ledger::prune`] would let go of, of the next 20,000 calls of each class. Changes nothing.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn would_prune(&self, keep: Keep) -> Result<Pruned, LedgerError> {
        self.caught_up().await?;
        self.read(move |conn| rehearse(conn, &keep)).await
    }
}
