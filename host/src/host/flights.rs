//! Calls in flight: which calls execute at this moment, so that they can be cancelled and waited for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use toolkeep_core::id::{CallId, TenantName, UserName};
use toolkeep_core::kill::Subject;
use toolkeep_core::tier::Tier;

use crate::authenticate::Caller;
use crate::execute::Aboard;
use crate::kill::KillSwitch;

/// All calls in flight.
#[derive(Debug, Clone, Default)]
pub struct Flights(Arc<Board>);

#[derive(Debug, Default)]
struct Board {
    calls: Mutex<HashMap<CallId, (Caller, Arc<Aboard>)>>,
    settling: AtomicUsize,
    landed: Notify,
}

/// A plan that is being settled: nothing cancels it, and a stop waits for it.
#[derive(Debug)]
pub struct Settling(Arc<Board>);

/// One call in flight; leaves the board when it is dropped.
#[derive(Debug)]
pub struct Flight {
    board: Arc<Board>,
    call: CallId,
}

/// When a call began, by the time in its id; long ago if it has none.
fn began_ms(call: CallId) -> u64 {
    call.uuid().get_timestamp().map_or(0, |at| {
        let (seconds, nanos) = at.to_unix();
        seconds.saturating_mul(1_000).saturating_add(u64::from(nanos / 1_000_000))
    })
}

impl Flights {
    /// A call begins.
    #[must_use]
    pub fn enter(&self, call: CallId, owner: Caller, aboard: Arc<Aboard>) -> Flight {
        self.lock().insert(call, (owner, aboard));
        Flight { board: Arc::clone(&self.0), call }
    }

    /// A call that waited goes on. Nothing if it is in flight: it runs once at a time.
    #[must_use]
    pub fn enter_again(&self, call: CallId, owner: Caller, aboard: Arc<Aboard>) -> Option<Flight> {
        match self.lock().entry(call) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                place.insert((owner, aboard));
                Some(Flight { board: Arc::clone(&self.0), call })
            }
        }
    }

    /// Wait until a call is not in flight.
    pub async fn landed(&self, call: CallId) {
        self.until(|| !self.lock().contains_key(&call)).await;
    }

    /// A plan begins to be settled.
    #[must_use]
    pub fn settle(&self) -> Settling {
        self.0.settling.fetch_add(1, Ordering::AcqRel);
        Settling(Arc::clone(&self.0))
    }

    /// Cancel a call of this caller. Returns whether it was in flight.
    #[must_use]
    pub fn cancel(&self, caller: &Caller, call: CallId) -> bool {
        match self.lock().get(&call) {
            Some((owner, aboard)) if caller.owns(owner.principal(), owner.origin()) => {
                aboard.cancel.cancel();
                true
            }
            _ => false,
        }
    }

    /// Whether a call of this caller is in flight.
    #[must_use]
    pub fn contains(&self, caller: &Caller, call: CallId) -> bool {
        let board = self.lock();
        board.get(&call).is_some_and(|(owner, _)| caller.owns(owner.principal(), owner.origin()))
    }

    /// Calls in flight of a tenant, or of one person of it, whose ids are of before this moment.
    #[must_use]
    pub fn begun_before(&self, tenant: &TenantName, user: Option<&UserName>, before_ms: u64) -> Vec<CallId> {
        let concerns = |owner: &Caller| {
            let principal = owner.principal();
            principal.tenant == *tenant && user.is_none_or(|user| principal.user == *user)
        };
        let board = self.lock();
        let theirs = board.iter().filter(|(call, (owner, _))| concerns(owner) && began_ms(**call) < before_ms);
        theirs.map(|(call, _)| *call).collect()
    }

    /// How many calls are in flight.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Cancel everything.
    pub fn cancel_all(&self) {
        for (_, aboard) in self.lock().values() {
            aboard.cancel.cancel();
        }
    }

    /// Cancel everything that is stopped. What is not known yet of a call is asked when it is. Returns how many there were.
    pub fn cancel_stopped(&self, kill: &KillSwitch) -> usize {
        let standing = kill.standing();
        let mut stopped = 0;
        for (owner, aboard) in self.lock().values() {
            let principal = owner.principal();
            let calls = aboard.calls();
            let (tool, run) = calls.map_or((None, None), |(tool, run)| (Some(tool), run));
            let workflow = kill.workflow_of(run);
            let subject = Subject {
                tenant: &principal.tenant,
                agent: Some(&principal.agent),
                tool: tool.as_ref().map(|tool| &tool.name),
                workflow: &workflow,
                reads: tool.as_ref().map(|tool| tool.tier == Tier::ReadOnly),
            };
            if standing.of_subject(&subject).is_some() {
                aboard.cancel.cancel();
                stopped += 1;
            }
        }
        stopped
    }

    /// Wait until nothing is in flight.
    pub async fn all_landed(&self) {
        self.until(|| self.count() == 0 && self.0.settling.load(Ordering::Acquire) == 0).await;
    }

    /// Wait until this holds, which may become so with every landing.
    async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let landed = self.0.landed.notified();
            tokio::pin!(landed);
            // Listens from here on, so that a landing during the look is not missed.
            landed.as_mut().enable();
            if holds() {
                return;
            }
            landed.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CallId, (Caller, Arc<Aboard>)>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.0.settling.fetch_sub(1, Ordering::AcqRel);
        self.0.landed.notify_waiters();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.board.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.call);
        self.board.landed.notify_waiters();
    }
}
