//! How a request moves: what was written and read, since when nothing moved, and when that is too long.
//!
//! The count at the connection is also what decides whether a failed request is "not sent": nothing was handed to the
//! connection, not even to the layer that encrypts.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use super::{Limits, Reason, SendError};

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The peer takes the request.
    Sending,
    /// The peer thinks.
    Waiting,
    /// The peer gives the body of its answer.
    Receiving,
}

/// How one request moves, shared between its connection, its body and its watch.
#[derive(Debug, Clone)]
pub(super) struct Pace(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Start of the phase.
    since: Instant,
    /// Bytes moved in the phase.
    moved: u64,
    /// When a byte moved last.
    last: Instant,
    written: u64,
    read: u64,
    /// The whole body was handed over; what is missing is its way through the buffers.
    body_taken: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        let now = tokio::time::Instant::now();
        let (phase, body_taken) = (Phase::Sending, false);
        Self(Arc::new(Mutex::new(State { phase, since: now, moved: 0, last: now, written: 0, read: 0, body_taken })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a connection: the time begins.
    pub(super) fn start(&self) {
        self.state().enter(Phase::Sending);
    }

    /// The connection asked for the last of the body.
    pub(super) fn body_taken(&self) {
        self.state().body_taken = true;
    }

    /// The fields of the answer are complete.
    pub(super) fn answered(&self) {
        self.state().enter(Phase::Receiving);
    }

    /// Bytes written and read so far.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let state = self.state();
        (state.written, state.read)
    }

    /// The failure of a request that moved as far as this one.
    pub(super) fn failed(&self, reason: Reason) -> SendError {
        if self.state().written == 0 { SendError::NotSent(reason) } else { SendError::Unknown(reason) }
    }

    /// Ends when the request moves too slowly. It must be polled by the task that moves it, after what moves it: then it
    /// sees each new phase at once, and needs no waking of its own but for time.
    pub(super) fn watch(&self, limits: Limits, deadline: Instant) -> impl Future<Output = Reason> + use<> {
        let pace = self.clone();
        let mut sleep = Box::pin(sleep_until(deadline));
        poll_fn(move |cx| {
            loop {
                let (due, reason) = pace.state().due(&limits, deadline);
                // A moment that moved away is found out when the old one has come: cheaper than to set the timer for each byte.
                if due < sleep.deadline() {
                    sleep.as_mut().reset(due);
                }
                ready!(sleep.as_mut().poll(cx));
                if due <= tokio::time::Instant::now() {
                    return Poll::Ready(reason);
                }
                sleep.as_mut().reset(due);
            }
        })
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        let now = tokio::time::Instant::now();
        (self.phase, self.since, self.last, self.moved) = (phase, now, now, 0);
    }

    fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        self.moving(Phase::Sending, bytes);
    }

    fn got(&mut self, bytes: usize) {
        self.read += bytes as u64;
        self.moving(Phase::Receiving, bytes);
    }

    fn moving(&mut self, phase: Phase, bytes: usize) {
        if self.phase == phase && bytes > 0 {
            self.moved += bytes as u64;
            self.last = tokio::time::Instant::now();
        }
    }

    /// The next moment at which this request is too slow if nothing more moves, and what it would then be blamed for.
    fn due(&self, limits: &Limits, deadline: Instant) -> (Instant, Reason) {
        let whole = (deadline, Reason::TotalTimeout);
        let phase = match self.phase {
            Phase::Waiting => (self.since + limits.first_byte, Reason::FirstByteTimeout),
            Phase::Sending | Phase::Receiving => {
                let idle = (self.last + limits.idle, Reason::IdleTimeout);
                let paid = Duration::from_millis(self.moved.saturating_mul(1000) / limits.rate.max(1));
                let paid = paid.min(Limits::CEILING.total).max(limits.rate_grace);
                earlier(idle, (self.since + paid, Reason::TooSlow))
            }
        };
        earlier(phase, whole)
    }
}

fn earlier(one: (Instant, Reason), other: (Instant, Reason)) -> (Instant, Reason) {
    if other.0 < one.0 { other } else { one }
}

/// A connection that tells a [`Pace`] what moves over it.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    pace: Pace,
}

impl<S> Paced<S> {
    pub(super) const fn new(stream: S, pace: Pace) -> Self {
        Self { stream, pace }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.pace.state().got(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.pace.state().wrote(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.pace.state().wrote(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // The layer above flushes after it has written all that it holds.
        let mut state = self.pace.state();
        if state.phase == Phase::Sending && state.body_taken && state.written > 0 {
            state.enter(Phase::Waiting);
        }
        drop(state);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
