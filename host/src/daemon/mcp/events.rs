//! An answer as a stream of events (`text/event-stream`): news first, the answer last.
//!
//! The work belongs to the stream: a peer that goes away takes it along, which cancels an execution and never a commit. While
//! there is nothing to say a comment is sent now and then, so that a peer that is gone is noticed and intermediaries do
//! not lose patience.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Interval;

use crate::daemon::envelope::RequestId;
use crate::daemon::http::BodyError;
use crate::daemon::plane::Work;
use crate::daemon::reply;

/// Streams that are open at one time: half of the connections of the door, so that others still get in.
const STREAMS_MAX: usize = 64;
/// When a client comes back whose stream broke, in milliseconds: the time of a restart.
const RETRY_MS: u64 = 2_000;
/// How long nothing is said at most.
const SILENCE: Duration = Duration::from_secs(15);

/// Places for streams.
#[derive(Debug, Clone)]
pub(super) struct Seats(Arc<Semaphore>);

impl Default for Seats {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

impl Seats {
    /// A place, if one is free.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
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
    _seat: OwnedSemaphorePermit,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Events {
    /// Of `work` and its news.
    pub(super) fn new(id: RequestId, work: Work, news: mpsc::Receiver<Vec<u8>>, seat: OwnedSemaphorePermit) -> Self {
        Self::begin(Some(id), work, news, seat)
    }

    /// Of news that are framed already, until `work` is done.
    pub(super) fn framed(work: Work, news: mpsc::Receiver<Vec<u8>>, seat: OwnedSemaphorePermit) -> Self {
        Self::begin(None, work, news, seat)
    }

    fn begin(id: Option<RequestId>, work: Work, news: mpsc::Receiver<Vec<u8>>, seat: OwnedSemaphorePermit) -> Self {
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

/// The first event of a stream that can be taken up again: its number, and when to come back after it broke.
pub(super) fn first(number: u64) -> Vec<u8> {
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
        let events = Events::new(RequestId::Number(1), work, news, seats.take().expect("free"));
        let text = events.collect().await.expect("read").to_bytes();
        assert_eq!(
            text,
            "event: message\ndata: {\"a\":1}\n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":7}\n\n"
        );
    }

    #[tokio::test]
    async fn streams_are_counted() {
        let seats = Seats::default();
        let taken: Vec<_> = (0..STREAMS_MAX).map(|_| seats.take().expect("free")).collect();
        assert!(seats.take().is_none());
        drop(taken);
        assert!(seats.take().is_some());
    }
}
