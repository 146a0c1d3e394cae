//! Outcomes that are on their way: commits that stand and were told, and whose outcome is not enqueued yet.
//!
//! A commit stands when its plan is applied, but its outcome may be written only when its names are on the disk. In
//! between nobody may see the state before it: whoever reads calls, plans, receipts or keys waits here until what was
//! promised at that moment is in the queue. A promise that is dropped unkept (the disk failed) holds nobody up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use toolkeep_core::id::CallId;

use super::Ledger;

/// Longest that a stop waits for promised outcomes: many times a flush of a slow disk. Recovery finds what is missing.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Board {
    next: u64,
    open: BTreeMap<u64, CallId>,
}

/// All promises of this life.
#[derive(Debug, Default)]
pub(super) struct Promises {
    board: Mutex<Board>,
    changed: Notify,
}

/// The outcome of a commit will be enqueued, or the daemon commits nothing more. Drop it afterwards.
#[derive(Debug)]
#[must_use = "readers see the state before the commit when this is dropped"]
pub struct OutcomePromise {
    promises: Arc<Promises>,
    ticket: u64,
}

impl Promises {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait as long as the board says so. Tells whether it did.
    async fn wait(&self, waits: impl Fn(&Board) -> bool) -> bool {
        if !waits(&self.board()) {
            return false;
        }
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listens from here on, so that a promise that is kept during the look is not missed.
            changed.as_mut().enable();
            if !waits(&self.board()) {
                return true;
            }
            changed.await;
        }
    }

    /// Wait for everything that is promised now.
    pub(super) async fn all(&self) {
        let next = self.board().next;
        self.wait(|board| board.open.first_key_value().is_some_and(|(first, _)| *first < next)).await;
    }

    /// Wait for the outcome of one call. Tells whether it was promised.
    pub(super) async fn of(&self, call: CallId) -> bool {
        self.wait(|board| board.open.values().any(|open| *open == call)).await
    }

    /// As [`Self::all`], for a stop.
    pub(super) async fn all_in_time(&self) {
        if tokio::time::timeout(CLOSE_WAIT, self.all()).await.is_err() {
            tracing::error!("a flush did not end; the next start finds its commit and finishes it");
        }
    }
}

impl Ledger {
    /// Promise the outcome of a call whose commit stands, before its caller is told.
    pub fn promise(&self, call: CallId) -> OutcomePromise {
        let promises = Arc::clone(&self.shared.promises);
        let ticket = {
            let mut board = promises.board();
            let ticket = board.next;
            board.next += 1;
            board.open.insert(ticket, call);
            ticket
        };
        OutcomePromise { promises, ticket }
    }
}

impl Drop for OutcomePromise {
    fn drop(&mut self) {
        self.promises.board().open.remove(&self.ticket);
        self.promises.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future as _;
    use std::task::{Context, Waker};
    use uuid::Uuid;

    fn promise(promises: &Arc<Promises>, call: u128) -> OutcomePromise {
        let mut board = promises.board();
        let ticket = board.next;
        board.next += 1;
        board.open.insert(ticket, CallId::new(Uuid::from_u128(call)));
        OutcomePromise { promises: Arc::clone(promises), ticket }
    }

    #[test]
    fn readers_wait_for_what_was_promised_before_they_asked_and_for_nothing_else() {
        let promises = Arc::new(Promises::default());
        let mut context = Context::from_waker(Waker::noop());
        let (first, second) = (promise(&promises, 1), promise(&promises, 2));
        let mut all = std::pin::pin!(promises.all());
        let mut of_second = std::pin::pin!(promises.of(CallId::new(Uuid::from_u128(2))));
        assert!(all.as_mut().poll(&mut context).is_pending() && of_second.as_mut().poll(&mut context).is_pending());
        let later = promise(&promises, 3);
        drop(second);
        assert!(of_second.as_mut().poll(&mut context).is_ready() && all.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(all.as_mut().poll(&mut context).is_ready(), "not for the one that came later");
        drop(later);
        let mut none = std::pin::pin!(promises.of(CallId::new(Uuid::from_u128(3))));
        assert_eq!(none.as_mut().poll(&mut context), std::task::Poll::Ready(false));
    }
}
