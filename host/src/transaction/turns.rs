//! Turns: the calls of one transaction run one after the other.
//!
//! Whoever holds a turn is the only one that executes in, commits or rolls back its transaction. Waiting is bounded. A turn is
//! for one principal and one transaction, so that nobody can keep another one's waiting by naming an id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use toolkeep_core::id::TransactionId;
use toolkeep_core::principal::Principal;
use toolkeep_core::refusal::{Code, Refusal};

/// How long a call waits for the call before it: as long as for a slot.
const WAIT: Duration = Duration::from_secs(5);
/// What a refused caller is told to wait, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

type Name = (Principal, TransactionId);
type Board = Mutex<HashMap<Name, Arc<AsyncMutex<()>>>>;

/// Whose turn it is, transaction by transaction.
#[derive(Debug, Clone)]
pub struct Turns {
    board: Arc<Board>,
    wait: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self { board: Arc::default(), wait: WAIT }
    }
}

/// The right to change one transaction, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    board: Arc<Board>,
    name: Name,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turn {
    /// The transaction.
    #[must_use]
    pub const fn transaction(&self) -> TransactionId {
        self.name.1
    }
}

impl Turns {
    /// Wait for the calls that came before.
    ///
    /// # Errors
    /// `in_flight`: the one that runs takes longer than a caller should wait.
    pub async fn take(&self, principal: &Principal, transaction: TransactionId) -> Result<Turn, Refusal> {
        let name = (principal.clone(), transaction);
        let lock = {
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(board.entry(name.clone()).or_default())
        };
        // The entry is swept when the turn is dropped, also if it never came.
        let mut turn = Turn { board: Arc::clone(&self.board), name, guard: None };
        match tokio::time::timeout(self.wait, lock.lock_owned()).await {
            Ok(guard) => {
                turn.guard = Some(guard);
                Ok(turn)
            }
            Err(_) => Err(Refusal::new(Code::InFlight, format!("another call of {transaction} is running"))
                .after_ms(RETRY_AFTER_MS)),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.guard.take());
        // Whoever waits holds the lock too.
        if board.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            board.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn principal(user: &str) -> Principal {
        let name = "t".parse().expect("name");
        Principal { tenant: name, user: user.parse().expect("name"), agent: "a".parse().expect("name") }
    }

    fn id(number: u128) -> TransactionId {
        TransactionId::new(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn r08_one_call_at_a_time_has_the_turn_and_waiting_is_bounded() {
        let patient = Turns::default();
        let turns = Turns { wait: Duration::ZERO, ..patient.clone() };
        let me = principal("me");
        let turn = turns.take(&me, id(1)).await.expect("free");
        assert_eq!(turn.transaction(), id(1));
        assert_eq!(turns.take(&me, id(1)).await.expect_err("taken").code, Code::InFlight);
        turns.take(&me, id(2)).await.expect("another transaction");
        turns.take(&principal("you"), id(1)).await.expect("an id of somebody else keeps nobody waiting");
        let (next, ()) = tokio::join!(patient.take(&me, id(1)), async { drop(turn) });
        drop(next.expect("the turn came"));
        assert!(turns.board.lock().expect("board").is_empty(), "nothing is left of turns that ended");
    }
}
