//! The body of a request, bounded in bytes and in time.
//!
//! Hyper bounds the head. A body is read by whoever answers the request; this stands between the two, so that no route can
//! forget it. Bytes are counted as they come, whatever the head says of them.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::BodyError;

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::daemon) enum Cut {
    /// It was longer than bodies may be.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// It came too slowly.
    #[error("the body did not arrive in time")]
    TooSlow,
}

/// A body that ends in an error where it exceeds a bound.
pub(super) struct Intake<B> {
    body: B,
    most: usize,
    left: usize,
    patience: Duration,
    /// Armed when the body is first read: what nobody reads has no time to keep.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> fmt::Debug for Intake<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<B> Intake<B> {
    /// At most `most` bytes within `patience`.
    pub(super) const fn new(body: B, most: usize, patience: Duration) -> Self {
        Self { body, most, left: most, patience, deadline: None }
    }
}

impl<B> Body for Intake<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let patience = this.patience;
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return deadline.as_mut().poll(cx).map(|()| Some(Err(Cut::TooSlow.into()))),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match this.left.checked_sub(bytes) {
            Some(left) => {
                this.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(Some(Err(Cut::TooLong(this.most).into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, Full};

    #[tokio::test]
    async fn a_body_is_read_at_its_bound_and_not_beyond() {
        let read = async |bytes: usize| {
            let body = Intake::new(Full::new(Bytes::from(vec![7; bytes])), 10, Duration::from_secs(600));
            body.collect().await.map(|read| read.to_bytes().len()).map_err(|error| error.to_string())
        };
        assert_eq!(read(10).await, Ok(10));
        assert_eq!(read(11).await, Err(Cut::TooLong(10).to_string()));
    }

    #[tokio::test]
    async fn a_body_that_never_comes_ends() {
        let read = Intake::new(Never, 10, Duration::from_millis(1)).collect().await;
        assert_eq!(read.map(|_| ()).map_err(|error| error.to_string()), Err(Cut::TooSlow.to_string()));
    }

    struct Never;

    impl Body for Never {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Pending
        }
    }
}
