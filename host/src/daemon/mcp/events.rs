//! An answer as a stream of events (`text/event-stream`): news first, the answer last.
//!
//! The work belongs to the stream: a peer that goes away takes it along, which cancels an execution and never a commit. While
//! there is nothing to say a comment is sent now and then, so that a peer that is gone is noticed and intermediaries do
//! not lose patience.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;
use tokio::time::Interval;
use toolkeep_core::principal::Principal;

use super::era::BEFORE_MODES;
use super::session::OWN_MAX as OWN_SESSIONS_MAX;
use crate::daemon::envelope::RequestId;
use crate::daemon::http::BodyError;
use crate::daemon::http::bounds::CONNECTIONS_MAX;
use crate::daemon::plane::Work;
use crate::daemon::reply;

/// Streams that are open at one time, of calls and of changes together: half of the connections of the door, so that others still
/// get in, and whoever is asked something can answer.
const STREAMS_MAX: usize = 64;
const _: () = assert!(STREAMS_MAX * 2 <= CONNECTIONS_MAX);
/// Streams of one principal: one of changes for each session that it may have, and as many of calls. Clients leave those of changes
/// behind without closing them, and these must not keep out their calls.
const OWN_MAX: usize = 2 * OWN_SESSIONS_MAX;
const _: () = assert!(OWN_MAX * 2 <= STREAMS_MAX);
/// When a client comes back whose stream broke, in milliseconds: the time of a restart.
const RETRY_MS: u64 = 2_000;
/// How long nothing is said at most.
const SILENCE: Duration = Duration::from_secs(15);

/// Places for streams. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<Book>>);

/// How many are taken, in all and by whom.
#[derive(Debug, Default)]
struct Book {
    taken: usize,
    of: HashMap<Principal, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    who: Principal,
}

impl Seats {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a stream of this principal, if one is free and it has not taken its share.
    pub(super) fn take(&self, who: &Principal) -> Option<Seat> {
        let mut book = self.book();
        let own = book.of.get(who).copied().unwrap_or_default();
        if book.taken >= STREAMS_MAX || own >= OWN_MAX {
            return None;
        }
        book.taken = book.taken.saturating_add(1);
        book.of.insert(who.clone(), own.saturating_add(1));
        drop(book);
        Some(Seat { seats: self.clone(), who: who.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut book = self.seats.book();
        book.taken = book.taken.saturating_sub(1);
        let left = book.of.get(&self.who).copied().unwrap_or_default().saturating_sub(1);
        if left == 0 {
            book.of.remove(&self.who);
        } else {
            book.of.insert(self.who.clone(), left);
        }
    }
}

/// The stream of one request, or of the changes that a session is told of.
pub(super) struct Events {
    /// Nothing where nobody asked: the news are framed already.
    id: Option<RequestId>,
    /// Nothing once it is done.
    work: Option<Work>,
    news: mpsc::Receiver<Vec<u8>>,
    /// What is said before everything else.
    first: Option<Vec<u8>>,
    /// The answer, while news are before it.
    last: Option<Vec<u8>>,
    silence: Interval,
    _seat: Seat,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Events {
    /// Of `work` and its news.
    pub(super) fn new(id: RequestId, work: Work, news: mpsc::Receiver<Vec<u8>>, seat: Seat) -> Self {
        Self::begin(Some(id), work, news, seat)
    }

    /// Of news that are framed already, until `work` is done.
    pub(super) fn framed(work: Work, news: mpsc::Receiver<Vec<u8>>, seat: Seat) -> Self {
        Self::begin(None, work, news, seat)
    }

    fn begin(id: Option<RequestId>, work: Work, news: mpsc::Receiver<Vec<u8>>, seat: Seat) -> Self {
        let silence = tokio::time::interval_at(tokio::time::Instant::now() + SILENCE, SILENCE);
        Self { id, work: Some(work), news, first: None, last: None, silence, _seat: seat }
    }

    /// With a line before everything else.
    pub(super) fn after(self, first: Vec<u8>) -> Self {
        Self { first: Some(first), ..self }
    }
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(line) = this.first.take() {
            return event(&line);
        }
        if let Some(work) = &mut this.work
            && let Poll::Ready(body) = work.as_mut().poll(cx)
        {
            let mut line = Vec::new();
            reply::write_line(&mut line, this.id.as_ref(), &body);
            // What is cancelled has no answer.
            this.last = (!line.is_empty()).then_some(line);
            this.work = None;
        }
        if let Poll::Ready(Some(line)) = this.news.poll_recv(cx) {
            return if this.id.is_some() { event(&line) } else { Poll::Ready(Some(Ok(Frame::data(line.into())))) };
        }
        if let Some(line) = this.last.take() {
            return event(&line);
        }
        if this.work.is_none() {
            return Poll::Ready(None);
        }
        this.silence.poll_tick(cx).map(|_| Some(Ok(Frame::data(Bytes::from_static(b": still here\n\n")))))
    }
}

/// The first event of a stream that can be taken up again: its number, and when to come back after it broke. Clients of the
/// revision before events without data take one for a broken message, so they are told a comment.
pub(super) fn first(number: u64, version: &str) -> Vec<u8> {
    if version == BEFORE_MODES {
        return b": begun\n\n".to_vec();
    }
    format!("id: {number}\nretry: {RETRY_MS}\ndata: \n\n").into_bytes()
}

/// An event that a client can name when it comes back.
pub(super) fn numbered(number: u64, line: &[u8]) -> Vec<u8> {
    let mut text = format!("id: {number}\nevent: message\ndata: ").into_bytes();
    text.extend_from_slice(line.trim_ascii_end());
    text.extend_from_slice(b"\n\n");
    text
}

/// One event; lines of ours hold no line break but the last.
fn event(line: &[u8]) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    let mut text = b"event: message\ndata: ".to_vec();
    text.extend_from_slice(line.trim_ascii_end());
    text.extend_from_slice(b"\n\n");
    Poll::Ready(Some(Ok(Frame::data(text.into()))))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::daemon::reply::Body;

    #[tokio::test]
    async fn news_come_before_the_answer_and_the_answer_is_the_last() {
        let (lines, news) = mpsc::channel(4);
        lines.try_send(b"{\"a\":1}\n".to_vec()).expect("room");
        let seats = Seats::default();
        let work: Work = Box::pin(async { Body::Value(7.into()) });
        let events = Events::new(RequestId::Number(1), work, news, seats.take(&principal(1)).expect("free"));
        let text = events.collect().await.expect("read").to_bytes();
        assert_eq!(
            text,
            "event: message\ndata: {\"a\":1}\n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":7}\n\n"
        );
    }

    fn principal(user: usize) -> Principal {
        let user = format!("u{user}").parse().expect("a name");
        Principal { tenant: "t".parse().expect("a name"), user, agent: "a".parse().expect("a name") }
    }

    #[test]
    fn n_streams_are_open_in_all_and_for_each_principal_its_share() {
        let seats = Seats::default();
        let mut taken: Vec<Seat> = (0..OWN_MAX).map(|_| seats.take(&principal(0)).expect("its share")).collect();
        assert!(seats.take(&principal(0)).is_none(), "one more than its share");
        for at in OWN_MAX..STREAMS_MAX {
            taken.push(seats.take(&principal(at / OWN_MAX)).expect("free"));
        }
        assert!(seats.take(&principal(STREAMS_MAX)).is_none(), "one more than all");
        drop(taken.remove(0));
        assert!(
            seats.take(&principal(STREAMS_MAX)).is_some() && seats.take(&principal(0)).is_some(),
            "it is free again"
        );
        drop(taken);
        let book = seats.book();
        assert_eq!((book.taken, book.of.len()), (0, 0), "and nobody is remembered");
    }

    #[test]
    fn a_stream_begins_with_an_event_that_its_revision_knows() {
        assert_eq!(first(7, "2025-11-25"), b"id: 7\nretry: 2000\ndata: \n\n");
        assert_eq!(first(7, "2025-06-18"), b": begun\n\n");
    }
}
