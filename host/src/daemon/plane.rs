//! What a connection needs to know of the plane that it belongs to.
//!
//! A connection frames, bounds and answers; a plane knows who may connect, what a line says and which methods exist. There
//! are three, [`super::agent::AgentPlane`], [`super::admin::AdminPlane`] and [`super::mcp::McpPlane`], and none can name a
//! method of another.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::Poll;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use toolkeep_core::refusal::{Code, Refusal};

use super::envelope::{self, Request, RequestId};
use super::reply::{Body, Fault};
use crate::authenticate::Peer;

/// A request that is being worked on. Dropping it cancels an execution, never a commit.
pub(super) type Work = Pin<Box<dyn Future<Output = Body> + Send>>;

/// What became of a request so far.
pub(super) enum Dispatch {
    /// It is answered.
    Now(Body),
    /// It takes time.
    Later(Work),
}

/// Where progress of a request goes: lines of the request's own connection.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    /// The request that they are about.
    pub(super) id: RequestId,
    /// Full when the peer reads slowly; then notes are dropped.
    pub(super) lines: mpsc::Sender<Vec<u8>>,
}

/// What one line says.
#[derive(Debug)]
pub(super) enum Message {
    /// It wants an answer.
    Request(Request),
    /// It wants none.
    Note {
        /// What it is about.
        method: String,
        /// Named parameters.
        params: Map<String, Value>,
    },
    /// It answers a request of ours.
    Response {
        /// The id that we gave it.
        id: RequestId,
        /// What it says; nothing where it is an error.
        result: Option<Value>,
    },
    /// Nobody waits for it.
    Ignored,
}

/// One side of the trust boundary.
pub(super) trait Plane: Send + Sync + 'static {
    /// What one connection proved about its peer.
    type Session: Send;

    /// Who connects.
    ///
    /// # Errors
    /// Nobody who may.
    fn open(&self, peer: Peer) -> Result<Self::Session, Refusal>;

    /// Whether the peer has proved who it is. One that does not within a time is closed.
    fn is_proven(&self, session: &Self::Session) -> bool;

    /// What a line says. Where a plane does not say otherwise, everything is a request.
    ///
    /// # Errors
    /// The fault, with the id if that could be understood.
    fn read(&self, line: &[u8]) -> Result<Message, (Option<RequestId>, Fault)> {
        envelope::read(line).map(Message::Request)
    }

    /// Take something that wants no answer.
    fn note(&self, _session: &mut Self::Session, _method: &str, _params: Map<String, Value>) {}

    /// Take an answer to a request of ours. Where a plane asks nothing, there is none.
    fn response(&self, _session: &mut Self::Session, _id: &RequestId, _result: Option<Value>) {}

    /// Changes when there is something to tell that nobody asked for now.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// The lines that tell it.
    fn news(&self, _session: &mut Self::Session) -> Vec<u8> {
        Vec::new()
    }

    /// The lines that end what is still open when the daemon stops.
    fn farewell(&self, _session: &mut Self::Session) -> Vec<u8> {
        Vec::new()
    }

    /// A request that took time is answered.
    fn answered(&self, _session: &mut Self::Session, _request: &RequestId) {}

    /// Begin to answer a request.
    fn dispatch(&self, session: &mut Self::Session, method: &str, params: Map<String, Value>, notes: Notes)
    -> Dispatch;
}

/// Make work whose panic is a reply: a request is answered whatever becomes of it.
pub(super) fn guarded(mut work: Work) -> Work {
    Box::pin(std::future::poll_fn(move |context| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(_) => {
                tracing::error!("BUG: a request panicked; it is answered `internal`");
                let refusal = Refusal::new(Code::Internal, "the daemon failed while it worked on this request");
                Poll::Ready(Body::Error(refusal.into()))
            }
        }
    }))
}
