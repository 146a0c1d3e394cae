//! Bodies of requests while the guest writes them: kept whole, because nothing leaves before it was checked.
//!
//! A request is complete when it was handed over and its body is finished, in whichever order. The bytes are bounded
//! twice: one body by the largest that any grant allows, all bodies of an execution together by what a stage holds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi_http::p2::HttpResult;
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode, OutgoingBody, OutgoingRequest, Trailers};
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{DynOutputStream, OutputStream, StreamError, StreamResult};

use crate::outbound::exchange::{Asked, locked};
use crate::outbound::request::{Fitting, Refused};
use crate::stage::StageError;
use crate::state::State;

/// Bytes that a guest may write at one time.
const PERMIT_BYTES: usize = 64 * 1024;

/// A body, shared by the request, the resource and its stream.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    inner: Arc<Mutex<Inner>>,
    room: Room,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: Vec<u8>,
    end: End,
    /// The request, once it was handed over.
    handed: Option<Handed>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Finished,
    Aborted,
}

/// A request that waits for its body.
#[derive(Debug, Clone)]
pub(super) struct Handed {
    pub(super) fitting: Fitting,
    pub(super) asked: Arc<Asked>,
}

/// What bodies may have.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    /// Bytes of one body.
    pub(crate) body_max: u64,
    /// Bytes of all bodies.
    pub(crate) total_max: u64,
    /// Bytes of all bodies so far.
    pub(crate) total: Arc<AtomicU64>,
}

/// A request that is complete.
pub(super) struct Complete {
    pub(super) handed: Handed,
    pub(super) body: Bytes,
}

impl Complete {
    pub(super) const fn without_body(handed: Handed) -> Self {
        Self { handed, body: Bytes::new() }
    }
}

/// What handing a request over comes to.
pub(super) enum HandedOver {
    Complete(Box<Complete>),
    Waiting,
    Aborted,
}

impl Draft {
    pub(crate) fn new(room: Room) -> Self {
        Self { inner: Arc::default(), room }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        locked(&self.inner)
    }

    /// Give the request to its body.
    pub(super) fn hand_over(&self, handed: Handed) -> HandedOver {
        let mut inner = self.inner();
        match inner.end {
            End::Open => {
                inner.handed = Some(handed);
                HandedOver::Waiting
            }
            End::Finished => {
                let body = std::mem::take(&mut inner.bytes).into();
                HandedOver::Complete(Box::new(Complete { handed, body }))
            }
            End::Aborted => HandedOver::Aborted,
        }
    }

    /// No more bytes will come. The request, if it was waiting for that.
    fn finish(&self) -> Option<Complete> {
        let mut inner = self.inner();
        inner.end = End::Finished;
        let handed = inner.handed.take()?;
        let body = std::mem::take(&mut inner.bytes).into();
        Some(Complete { handed, body })
    }

    /// The guest gave the body up.
    fn abort(&self) -> Option<Handed> {
        let mut inner = self.inner();
        inner.end = End::Aborted;
        inner.bytes = Vec::new();
        inner.handed.take()
    }
}

/// What is behind a `wasi:http/types.outgoing-body`.
#[derive(Debug)]
struct Written {
    draft: Draft,
    /// Whether its stream was taken.
    taken: bool,
}

/// The stream of a body.
#[derive(Debug)]
struct DraftStream(Draft);

#[async_trait]
impl Pollable for DraftStream {
    async fn ready(&mut self) {}
}

impl OutputStream for DraftStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > PERMIT_BYTES {
            return Err(StreamError::trap("more was written than `check-write` permits"));
        }
        let room = &self.0.room;
        let more = bytes.len() as u64;
        let total = room.total.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if total > room.total_max {
            return Err(StreamError::Trap(StageError::Full { what: "bytes", limit: room.total_max }.into()));
        }
        let mut inner = self.0.inner();
        let size = (inner.bytes.len() as u64).saturating_add(more);
        if size > room.body_max {
            return Err(StreamError::LastOperationFailed(ErrorCode::HttpRequestBodySize(Some(size)).into()));
        }
        inner.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}

fn written(body: &Resource<OutgoingBody>) -> Resource<Written> {
    Resource::new_borrow(body.rep())
}

impl State {
    /// The body of a request, once.
    pub(super) fn draft_of(
        &mut self,
        request: &Resource<OutgoingRequest>,
    ) -> wasmtime::Result<Result<Resource<OutgoingBody>, ()>> {
        self.table.get(request)?;
        let outbound = self.outbound()?;
        if outbound.drafts.contains_key(&request.rep()) {
            return Ok(Err(()));
        }
        let draft = Draft::new(outbound.room());
        outbound.drafts.insert(request.rep(), draft.clone());
        let body = self.table.push(Written { draft, taken: false })?;
        Ok(Ok(Resource::new_own(body.rep())))
    }
}

impl types::HostOutgoingBody for State {
    fn write(&mut self, body: Resource<OutgoingBody>) -> wasmtime::Result<Result<Resource<DynOutputStream>, ()>> {
        let body = written(&body);
        let entry = self.table.get_mut(&body)?;
        if std::mem::replace(&mut entry.taken, true) {
            return Ok(Err(()));
        }
        let stream: DynOutputStream = Box::new(DraftStream(entry.draft.clone()));
        Ok(Ok(self.table.push_child(stream, &body)?))
    }

    fn finish(&mut self, body: Resource<OutgoingBody>, trailers: Option<Resource<Trailers>>) -> HttpResult<()> {
        let body = self.table.delete(Resource::<Written>::new_own(body.rep()))?;
        let trailers = trailers.map(|trailers| self.table.delete(trailers)).transpose()?;
        if trailers.is_some_and(|trailers| !trailers.is_empty()) {
            if let Some(handed) = body.draft.abort() {
                handed.asked.answer(self.clock.now_ns(), Err(ErrorCode::HttpRequestTrailerSectionSize(Some(0))));
            }
            let why = "trailers are not sent".to_owned();
            return Err(
                self.refuse("trailers", Refused { code: ErrorCode::HttpRequestTrailerSectionSize(Some(0)), why })
            );
        }
        match body.draft.finish() {
            Some(complete) => self.complete(complete),
            None => Ok(()),
        }
    }

    fn drop(&mut self, body: Resource<OutgoingBody>) -> wasmtime::Result<()> {
        let body = self.table.delete(Resource::<Written>::new_own(body.rep()))?;
        if let Some(handed) = body.draft.abort() {
            handed.asked.answer(self.clock.now_ns(), Err(ErrorCode::HttpProtocolError));
        }
        Ok(())
    }
}
