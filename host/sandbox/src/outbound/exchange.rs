//! Exchanges with other systems: which are under way, what came of them, and when, in the tool's time.
//!
//! Executed again with the exchanges of an earlier execution, a guest has to see the same answers at the same moments, or
//! it may take another path. So an answer is not there when it arrives, but when the guest waited for it: waiting is what
//! moves virtual time (D18), by the time that it really took, and the answer is due at the moment at which it moved to.
//! A look without waiting finds only what is due. With the real clock, which is recorded, answers are there when they
//! arrive.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use toolkeep_core::digest::Digest;
use toolkeep_core::grant::HttpGrant;
use toolkeep_core::price::Usd;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_io::poll::Pollable;

use crate::port::{Exchange, HttpAnswer, HttpFailure, UNANSWERED};
use crate::tape::Matching;

/// Bytes of all answers of one execution that the host keeps: they are part of what a re-execution is given.
pub const EXCHANGES_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What came of a request, for the guest.
pub(crate) type Outcome = Result<HttpAnswer, ErrorCode>;

/// One request of a guest, from `handle` to its answer. Shared by the future, its pollables and the exchange.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    inner: Mutex<Inner>,
    /// Told when something arrives.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    phase: Phase,
    /// The tool's time when the request left.
    begun_ns: u64,
    /// The tool's time when somebody last looked and it was not there.
    missed_ns: u64,
}

#[derive(Debug, Default)]
enum Phase {
    /// The body is not complete.
    #[default]
    Open,
    /// On its way.
    Sent { _task: AbortOnDropJoinHandle<()> },
    /// There, but the guest has not waited for it yet.
    Arrived(Outcome),
    /// There from this moment of the tool's time on.
    Due(u64, Outcome),
    /// Given to the guest; it was due at this moment.
    Given(u64),
    /// The guest let go of it.
    Dropped,
}

impl Asked {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its answer is there for a guest that sees this time.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        match self.inner().phase {
            Phase::Due(due_ns, _) => due_ns <= now_ns,
            Phase::Given(_) | Phase::Dropped => true,
            Phase::Open | Phase::Sent { .. } | Phase::Arrived(_) => false,
        }
    }

    /// Whether the guest has the answer.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self.inner().phase, Phase::Given(_))
    }

    /// When it will be there, if that is known.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        if let Phase::Due(due_ns, _) = self.inner().phase { Some(due_ns) } else { None }
    }

    /// Whether real time decides when it is there.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.inner().phase, Phase::Sent { .. } | Phase::Arrived(_))
    }

    /// Somebody looked at this time and it was not there.
    pub(crate) fn missed(&self, now_ns: u64) {
        let mut inner = self.inner();
        inner.missed_ns = inner.missed_ns.max(now_ns);
    }

    /// It is there from `now_ns` on, if it has arrived; never at a moment at which somebody missed it.
    pub(crate) fn settle(&self, now_ns: u64) {
        let mut inner = self.inner();
        let due_ns = now_ns.max(inner.missed_ns.saturating_add(1));
        inner.phase = match std::mem::take(&mut inner.phase) {
            Phase::Arrived(outcome) => Phase::Due(due_ns, outcome),
            other => other,
        };
    }

    /// Wait until it has arrived, in real time.
    pub(crate) async fn arrival(&self) {
        loop {
            let arrived = self.arrived.notified();
            if !matches!(self.inner().phase, Phase::Open | Phase::Sent { .. }) {
                return;
            }
            arrived.await;
        }
    }

    /// What came of it, once, if it is there. `Some(Err(()))` if it was given before.
    pub(crate) fn take(&self, now_ns: u64, is_real: bool) -> Option<Result<Outcome, ()>> {
        let mut inner = self.inner();
        let (due_ns, outcome) = match std::mem::take(&mut inner.phase) {
            Phase::Due(due_ns, outcome) if is_real || due_ns <= now_ns => (due_ns, outcome),
            Phase::Arrived(outcome) if is_real => (now_ns, outcome),
            other => {
                let given = matches!(other, Phase::Given(_));
                inner.phase = other;
                return given.then_some(Err(()));
            }
        };
        inner.phase = Phase::Given(due_ns);
        Some(Ok(outcome))
    }

    /// The guest let go of it: what is under way is given up.
    pub(crate) fn drop_it(&self) {
        let mut inner = self.inner();
        if matches!(inner.phase, Phase::Sent { .. } | Phase::Arrived(_)) {
            inner.phase = Phase::Dropped;
        }
    }

    /// It ends without an exchange, now.
    pub(crate) fn answer(&self, now_ns: u64, outcome: Outcome) {
        self.inner().phase = Phase::Due(now_ns, outcome);
        self.arrived.notify_waiters();
    }

    /// It was exchanged before, and took this long.
    pub(crate) fn replay(&self, now_ns: u64, took_ns: u64, outcome: Outcome) {
        let mut inner = self.inner();
        inner.begun_ns = now_ns;
        inner.phase = Phase::Due(now_ns.saturating_add(took_ns), outcome);
        drop(inner);
        self.arrived.notify_waiters();
    }

    /// It leaves now; `task` will call [`Asked::arrive`].
    pub(crate) fn send(&self, now_ns: u64, task: AbortOnDropJoinHandle<()>) {
        let mut inner = self.inner();
        inner.begun_ns = now_ns;
        // The task may have been faster.
        if matches!(inner.phase, Phase::Open) {
            inner.phase = Phase::Sent { _task: task };
        }
    }

    /// The answer is there. The task that brings it ends by itself, so it is let go, not ended.
    pub(crate) fn arrive(&self, outcome: Outcome) {
        let mut inner = self.inner();
        let before = match inner.phase {
            Phase::Open | Phase::Sent { .. } => std::mem::replace(&mut inner.phase, Phase::Arrived(outcome)),
            _ => return,
        };
        drop(inner);
        self.arrived.notify_waiters();
        drop(before);
    }

    /// Time of the tool from the request to its answer.
    fn took_ns(&self) -> u64 {
        let inner = self.inner();
        match inner.phase {
            Phase::Due(due_ns, _) | Phase::Given(due_ns) => due_ns.saturating_sub(inner.begun_ns),
            Phase::Open | Phase::Sent { .. } | Phase::Arrived(_) | Phase::Dropped => UNANSWERED,
        }
    }
}

/// What a guest waits for with the real clock.
#[derive(Debug)]
pub(crate) struct Awaited(pub(crate) Arc<Asked>);

#[async_trait]
impl Pollable for Awaited {
    async fn ready(&mut self) {
        self.0.arrival().await;
    }
}

/// Wait until one of several has arrived, but no longer than `most`. True if one has.
pub(crate) async fn first_arrival(all: &[Arc<Asked>], most: Option<Duration>) -> bool {
    let mut waits: Vec<_> = all.iter().map(|asked| Box::pin(asked.arrival())).collect();
    let any = std::future::poll_fn(|context| {
        let ready = waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    match most {
        None => {
            any.await;
            true
        }
        Some(most) => tokio::time::timeout(most, any).await.is_ok(),
    }
}

/// Where an answer is kept for later executions.
pub(crate) type Kept = Arc<Mutex<Option<Result<HttpAnswer, HttpFailure>>>>;

/// One exchange of this execution.
#[derive(Debug)]
struct Flight {
    call: Digest,
    asked: Arc<Asked>,
    answer: Kept,
    /// Bytes that its answer may have.
    bytes_max: u64,
    /// What it costs.
    price: Usd,
}

/// The exchanges of one execution, in the order in which the requests were complete.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    /// Of an earlier execution, not yet asked for again.
    given: VecDeque<Exchange>,
    /// Set in a replay: how requests find their exchanges.
    offline: Option<Matching>,
    /// What was asked for again, where requests are found by what they are.
    known: BTreeMap<Digest, Exchange>,
    flights: Vec<Flight>,
}

/// What an earlier execution says about a request.
pub(crate) enum Before {
    /// Nothing: it went no further.
    Nothing,
    /// The same, and this came of it.
    Same(Exchange),
    /// It asked for something else.
    Other,
}

impl Exchanges {
    pub(crate) fn new(given: Vec<Exchange>, offline: Option<Matching>) -> Self {
        Self { given: given.into(), offline, known: BTreeMap::new(), flights: Vec::new() }
    }

    /// Whether nothing may be sent because this is a replay.
    pub(crate) const fn is_offline(&self) -> bool {
        self.offline.is_some()
    }

    /// What the earlier execution asked for at this point.
    pub(crate) fn next(&mut self, call: Digest) -> Before {
        if self.offline == Some(Matching::ByContent) {
            return self.find(call);
        }
        match self.given.pop_front() {
            None => Before::Nothing,
            Some(exchange) if exchange.call == call => Before::Same(exchange),
            Some(_) => Before::Other,
        }
    }

    /// The exchange of the same request, wherever it stands: each once, then the last again.
    fn find(&mut self, call: Digest) -> Before {
        if let Some(place) = self.given.iter().position(|exchange| exchange.call == call)
            && let Some(exchange) = self.given.remove(place)
        {
            self.known.insert(call, exchange.clone());
            return Before::Same(exchange);
        }
        self.known.get(&call).cloned().map_or(Before::Nothing, Before::Same)
    }

    /// Whether the earlier execution asked for more, where that matters.
    pub(crate) fn is_behind(&self) -> bool {
        self.offline != Some(Matching::ByContent) && !self.given.is_empty()
    }

    /// Remember an exchange; its answer goes where this says.
    pub(crate) fn begin(&mut self, call: Digest, asked: &Arc<Asked>, grant: &HttpGrant) -> Kept {
        let answer = Kept::default();
        let (bytes_max, price) = (grant.response_bytes, grant.price);
        self.flights.push(Flight { call, asked: Arc::clone(asked), answer: Arc::clone(&answer), bytes_max, price });
        answer
    }

    /// How many there are, and what they cost together. Those of an earlier execution are among them, once.
    pub(crate) fn metered(&self) -> (u64, Usd) {
        let cost = self.flights.iter().fold(Usd::default(), |sum, flight| sum.plus(flight.price));
        (self.flights.len() as u64, cost)
    }

    /// Whether the host keeps one more answer. One that the guest does not have yet counts as large as it may be, so that
    /// this does not depend on what has arrived.
    pub(crate) fn has_room(&self, bytes_max: u64) -> bool {
        let size = |flight: &Flight| match &*locked(&flight.answer) {
            Some(Ok(answer)) if flight.asked.is_given() => answer.body.len() as u64,
            Some(Err(_)) if flight.asked.is_given() => 0,
            _ => flight.bytes_max,
        };
        let kept = self.flights.iter().map(size).fold(bytes_max, u64::saturating_add);
        kept <= EXCHANGES_MAX_BYTES
    }

    /// All of them, for another execution.
    pub(crate) fn finish(self) -> Vec<Exchange> {
        let nobody = || Err(HttpFailure::Broken("the tool did not wait for the answer".to_owned()));
        let finish = |flight: Flight| {
            let took_ns = flight.asked.took_ns();
            let answer = locked(&flight.answer).take().filter(|_| took_ns != UNANSWERED).unwrap_or_else(nobody);
            Exchange { call: flight.call, answer, took_ns }
        };
        self.flights.into_iter().map(finish).collect()
    }
}

/// What a mutex guards, whatever became of its last holder.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
