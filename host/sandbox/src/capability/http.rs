//! `wasi:http/outgoing-handler`: requests that a tool makes.
//!
//! A request is checked against the grants when it is handed over and goes nowhere before its body is complete. What
//! reads is sent through the port; what writes is staged and answered as the manifest says, or, where the tool needs the
//! real answer, ends the execution at this point, so that the host can decide about what was staged so far. Each refusal
//! is a breach, and its reason is in the operator's log. Executed again, a request must be the one of the execution
//! before, or nothing more is sent.

mod draft;
mod types;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use toolkeep_core::call::Mode;
use toolkeep_core::effect::{BodyState, Delivery, Header};
use toolkeep_core::grant::{HttpGrant, PreviewText, preview_headers};
use toolkeep_core::net::field::{FIELDS_MAX, FIELDS_MAX_BYTES};
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi_http::p2::bindings::LinkOptions;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler;
use wasmtime_wasi_http::p2::bindings::http::types::{
    self as contract, DnsErrorPayload, ErrorCode, FutureIncomingResponse, IncomingResponse, Method, OutgoingRequest,
    RequestOptions, Scheme,
};
use wasmtime_wasi_http::p2::body::HostIncomingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::p2::{HttpError, HttpResult};
use wasmtime_wasi_http::{
    Error as EngineError, FieldMap, RequestOptions as EngineOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks,
};
use wasmtime_wasi_io::poll::{DynPollable, subscribe};

use crate::capability::log::{Level, Source};
use crate::fault::{Fault, Stop};
use crate::outbound::exchange::{Asked, Awaited, Before, Kept, Outcome, locked};
use crate::outbound::request::{Fitting, Pieces, Refused, fit};
use crate::port::{HttpAnswer, HttpCall, HttpFailure, UNANSWERED};
use crate::state::State;
use draft::{Complete, Handed, HandedOver};
pub(crate) use draft::{Draft, Room};

/// Bytes that one set of fields may take in the memory of the host: what it may carry and what the map costs.
const FIELDS_MEMORY_BYTES: usize = FIELDS_MAX_BYTES + FIELDS_MAX * 128;

const HANDLE: &str = "wasi:http/outgoing-handler#handle";
const GET: &str = "wasi:http/types#future-incoming-response.get";

/// What the engine's implementation of the values needs.
#[derive(Debug)]
pub(crate) struct Engine {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

impl Default for Engine {
    fn default() -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(FIELDS_MEMORY_BYTES);
        Self { ctx, hooks: Hooks }
    }
}

/// The engine sends nothing.
#[derive(Debug)]
struct Hooks;

/// What the engine expects of a sender.
type Sending = dyn Future<Output = Result<(http::Response<WasiBody>, Box<Ending>), EngineError>> + Send;
type Ending = dyn Future<Output = Result<(), EngineError>> + Send;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<EngineOptions>,
        _done: Box<Ending>,
    ) -> Box<Sending> {
        Box::new(async { Err(EngineError::HttpRequestDenied) })
    }
}

/// Ends an execution at a live request, which the state holds.
#[derive(Debug, thiserror::Error)]
#[error("the execution stops at a live request")]
struct AtLive;

/// Add `wasi:http/types` and `wasi:http/outgoing-handler` to a linker.
pub(crate) fn add_to_linker(linker: &mut Linker<State>, enter: fn(&mut State) -> &mut State) -> wasmtime::Result<()> {
    let options = LinkOptions::default();
    contract::add_to_linker::<State, HasSelf<State>>(linker, &(&options).into(), enter)?;
    outgoing_handler::add_to_linker::<State, HasSelf<State>>(linker, enter)
}

fn awaited(future: &Resource<FutureIncomingResponse>) -> Resource<Awaited> {
    Resource::new_borrow(future.rep())
}

/// The pieces of a request as the guest put them together.
fn pieces(request: HostOutgoingRequest) -> Pieces {
    let method = match request.method {
        Method::Other(method) => method,
        known => TryInto::<http::Method>::try_into(known).map(|method| method.to_string()).unwrap_or_default(),
    };
    let scheme = match request.scheme {
        None | Some(Scheme::Https) => "https".to_owned(),
        Some(Scheme::Http) => "http".to_owned(),
        Some(Scheme::Other(scheme)) => scheme.to_ascii_lowercase(),
    };
    let mut target = request.path_with_query.unwrap_or_default();
    if target.is_empty() || target.starts_with('?') {
        target.insert(0, '/');
    }
    let fields = request.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let fields = fields.collect();
    Pieces { method, scheme, authority: request.authority.unwrap_or_default(), target, fields }
}

/// The answer that the manifest declares for a request that is not sent yet.
fn declared(preview: &PreviewText) -> HttpAnswer {
    let body = Bytes::copy_from_slice(preview.body.as_bytes());
    HttpAnswer { status: preview.status, headers: preview_headers(preview), body }
}

/// A failure in the words of the interface.
fn code_of(failure: &HttpFailure) -> ErrorCode {
    match failure {
        HttpFailure::Denied(_) => ErrorCode::DestinationIpProhibited,
        HttpFailure::Resolve(_) => ErrorCode::DnsError(DnsErrorPayload { rcode: None, info_code: None }),
        HttpFailure::Connect(_) => ErrorCode::ConnectionRefused,
        HttpFailure::Tls(_) => ErrorCode::TlsProtocolError,
        HttpFailure::Timeout(_) => ErrorCode::HttpResponseTimeout,
        HttpFailure::TooLarge(_) => ErrorCode::HttpResponseBodySize(None),
        HttpFailure::Broken(_) => ErrorCode::HttpProtocolError,
    }
}

fn outcome(answer: &Result<HttpAnswer, HttpFailure>) -> Outcome {
    answer.clone().map_err(|failure| code_of(&failure))
}

/// Whatever the port says, no more than the grant allows reaches the guest.
fn bounded(answer: HttpAnswer, grant: &HttpGrant) -> Result<HttpAnswer, HttpFailure> {
    let fields: usize = answer.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    if answer.headers.len() > FIELDS_MAX || fields > FIELDS_MAX_BYTES {
        return Err(HttpFailure::TooLarge(format!(
            "more than {FIELDS_MAX} fields or {FIELDS_MAX_BYTES} bytes of them"
        )));
    }
    if answer.body.len() as u64 > grant.response_bytes {
        return Err(HttpFailure::TooLarge(format!("more than {} bytes", grant.response_bytes)));
    }
    Ok(answer)
}

fn field_map(headers: &[Header]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&header.value)) {
            // There are few: the map cannot be full.
            let _known = map.try_append(name, value);
        }
    }
    map
}

impl State {
    /// The engine's implementation of values.
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http.hooks, table: &mut self.table, ctx: &mut self.http.ctx }
    }

    /// Keep a refused attempt: for the audit, for the author, and in the recording.
    fn refuse(&mut self, what: &str, refused: Refused) -> HttpError {
        self.log.write(Source::Host, Level::Warn, &format!("request refused: {what}: {}", refused.why));
        self.recorder.error(HANDLE, what, format!("{}: {}", refused.code, refused.why));
        match self.outbound() {
            Ok(outbound) => outbound.breach("http", what, &refused.why),
            Err(error) => return HttpError::trap(error),
        }
        refused.code.into()
    }

    fn hand(&mut self, request: Resource<OutgoingRequest>) -> HttpResult<Arc<Asked>> {
        let draft = self.outbound().map_err(HttpError::trap)?.drafts.remove(&request.rep());
        let pieces = pieces(self.table.delete(request)?);
        let shown = pieces.shown();
        let outbound = self.outbound().map_err(HttpError::trap)?;
        let fitting = match fit(&outbound.outward.http, &pieces) {
            Ok(fitting) => fitting,
            Err(refused) => return Err(self.refuse(&shown, refused)),
        };
        let most = fitting.grant.requests;
        if !outbound.count_request(&fitting.grant.name, most) {
            return Err(self.refuse(&shown, Refused::denied(format!("more than {most} requests in one call"))));
        }
        let asked = Arc::new(Asked::default());
        let handed = Handed { fitting, asked: Arc::clone(&asked) };
        let over = match draft {
            None => HandedOver::Complete(Box::new(Complete::without_body(handed))),
            Some(draft) => draft.hand_over(handed),
        };
        match over {
            HandedOver::Complete(complete) => self.complete(*complete)?,
            HandedOver::Waiting => {}
            HandedOver::Aborted => asked.answer(self.clock.now_ns(), Err(ErrorCode::HttpProtocolError)),
        }
        Ok(asked)
    }

    /// A request is complete: read, stage or stop.
    fn complete(&mut self, complete: Complete) -> HttpResult<()> {
        let Complete { handed: Handed { fitting, asked }, body } = complete;
        let what = format!("{} {}", fitting.method, fitting.url);
        let call = match fitting.call(body) {
            Ok(call) => call,
            Err(refused) => {
                let code = refused.code.clone();
                self.refuse(&what, refused);
                asked.answer(self.clock.now_ns(), Err(code));
                return Ok(());
            }
        };
        self.recorder.done(HANDLE, format!("{what} {}", call.digest()));
        let Fitting { grant, .. } = fitting;
        if HttpGrant::reads(&call.method) {
            return self.read(grant, call, &asked);
        }
        match grant.delivery {
            Delivery::Staged => self.stage_request(&grant, call, &asked),
            Delivery::Live => self.live(&grant, call, &asked),
        }
    }

    /// Answer as the manifest says and stage the request.
    fn stage_request(&mut self, grant: &HttpGrant, call: HttpCall, asked: &Arc<Asked>) -> HttpResult<()> {
        let effect = call.effect(grant, grant.delivery);
        let outbound = self.outbound().map_err(HttpError::trap)?;
        outbound.stage_request(effect, call.body).map_err(HttpError::trap)?;
        asked.answer(self.clock.now_ns(), Ok(declared(&grant.staged_answer())));
        Ok(())
    }

    /// A request that writes and whose answer the tool needs.
    fn live(&mut self, grant: &HttpGrant, call: HttpCall, asked: &Arc<Asked>) -> HttpResult<()> {
        if self.replayed(grant, &call, asked)? {
            return Ok(());
        }
        if self.context.mode == Mode::Preview && grant.preview.is_some() {
            return self.stage_request(grant, call, asked);
        }
        self.outbound().map_err(HttpError::trap)?.live = Some(Box::new(call));
        Err(HttpError::trap(AtLive))
    }

    /// Answer from an earlier execution. False if that went no further than here.
    fn replayed(&mut self, grant: &HttpGrant, call: &HttpCall, asked: &Arc<Asked>) -> HttpResult<bool> {
        let now_ns = self.clock.now_ns();
        let outbound = self.outbound().map_err(HttpError::trap)?;
        let digest = call.digest();
        match outbound.exchanges.next(digest) {
            Before::Nothing => Ok(false),
            Before::Other => {
                let what = format!("{} {} with the digest {digest}", call.method, call.url);
                Err(HttpError::trap(Stop(Fault::Diverged(what))))
            }
            Before::Same(exchange) if exchange.took_ns == UNANSWERED && HttpGrant::reads(&call.method) => {
                let offline = outbound.exchanges.is_offline();
                if offline {
                    // Nobody waited for it then, so nobody misses it now.
                    outbound.exchanges.begin(digest, asked, grant);
                }
                Ok(offline)
            }
            Before::Same(exchange) => {
                let kept = outbound.exchanges.begin(digest, asked, grant);
                asked.replay(now_ns, exchange.took_ns, outcome(&exchange.answer));
                *locked(&kept) = Some(exchange.answer);
                Ok(true)
            }
        }
    }

    /// A request that reads.
    fn read(&mut self, grant: HttpGrant, call: HttpCall, asked: &Arc<Asked>) -> HttpResult<()> {
        if self.replayed(&grant, &call, asked)? {
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        let what = format!("{} {}", call.method, call.url);
        let outbound = self.outbound().map_err(HttpError::trap)?;
        let refused = if !outbound.exchanges.has_room(grant.response_bytes) {
            let code = ErrorCode::HttpResponseBodySize(Some(grant.response_bytes));
            Refused { code, why: "the answers of one call are too large together".to_owned() }
        } else if outbound.exchanges.is_offline() {
            let stop = Fault::Diverged(format!("{what}, which the recording does not hold"));
            return Err(HttpError::trap(Stop(stop)));
        } else if let Some(port) = outbound.outward.ports.requests.clone() {
            let kept = outbound.exchanges.begin(call.digest(), asked, &grant);
            let weak = Arc::downgrade(asked);
            let task = wasmtime_wasi::runtime::spawn(async move {
                let answer = port.fetch(&grant, &call).await.and_then(|answer| bounded(answer, &grant));
                let outcome = keep(&kept, answer);
                if let Some(asked) = weak.upgrade() {
                    asked.arrive(outcome);
                }
            });
            asked.send(now_ns, task);
            return Ok(());
        } else {
            self.recorder.lose("no request could be sent where it ran");
            Refused::denied("no request can be sent here")
        };
        let code = refused.code.clone();
        self.refuse(&what, refused);
        asked.answer(now_ns, Err(code));
        Ok(())
    }
}

fn keep(kept: &Kept, answer: Result<HttpAnswer, HttpFailure>) -> Outcome {
    let outcome = outcome(&answer);
    *locked(kept) = Some(answer);
    outcome
}

impl outgoing_handler::Host for State {
    fn handle(
        &mut self,
        request: Resource<OutgoingRequest>,
        options: Option<Resource<RequestOptions>>,
    ) -> HttpResult<Resource<FutureIncomingResponse>> {
        // How long a request may take is the grant's to say.
        if let Some(options) = options {
            self.table.delete(options)?;
        }
        let asked = self.hand(request)?;
        let future = self.table.push(Awaited(asked))?;
        Ok(Resource::new_own(future.rep()))
    }
}

impl contract::HostFutureIncomingResponse for State {
    fn subscribe(&mut self, future: Resource<FutureIncomingResponse>) -> wasmtime::Result<Resource<DynPollable>> {
        let future = awaited(&future);
        let asked = Arc::clone(&self.table.get(&future)?.0);
        let pollable = subscribe(&mut self.table, future)?;
        if !self.clock.is_real() {
            self.outbound()?.awaited.insert(pollable.rep(), asked);
        }
        Ok(pollable)
    }

    fn get(
        &mut self,
        future: Resource<FutureIncomingResponse>,
    ) -> wasmtime::Result<Option<Result<Result<Resource<IncomingResponse>, ErrorCode>, ()>>> {
        let asked = Arc::clone(&self.table.get(&awaited(&future))?.0);
        let now_ns = self.clock.now_ns();
        let taken = match self.clock.recorded_is() {
            Some(false) => None,
            Some(true) | None => asked.take(now_ns, self.clock.is_real()),
        };
        self.clock.note_is(taken.is_some());
        match taken {
            None => {
                asked.missed(now_ns);
                self.recorder.value(GET, "", "pending");
                Ok(None)
            }
            Some(Err(())) => Ok(Some(Err(()))),
            Some(Ok(Err(code))) => {
                self.recorder.error(GET, "", code.to_string());
                Ok(Some(Ok(Err(code))))
            }
            Some(Ok(Ok(answer))) => {
                let (about, fields) = shown(&answer);
                self.recorder.bytes(GET, about, fields.as_bytes());
                let headers = FieldMap::new_immutable(&mut self.http.hooks, field_map(&answer.headers));
                let body = Full::new(answer.body).map_err(Into::into).boxed_unsync();
                let body = Some(HostIncomingBody::new(body));
                let response = HostIncomingResponse { status: answer.status, headers, body };
                Ok(Some(Ok(Ok(self.table.push(response)?))))
            }
        }
    }

    fn drop(&mut self, future: Resource<FutureIncomingResponse>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Awaited>::new_own(future.rep()))?.0.drop_it();
        Ok(())
    }
}

/// An answer as it stands in a recording: status, size and digest of its body; its fields. The bytes of its body stand
/// there as the guest reads them.
fn shown(answer: &HttpAnswer) -> (String, String) {
    let body = BodyState::of(&answer.body);
    let fields: Vec<String> =
        answer.headers.iter().map(|Header { name, value }| format!("{name}: {value}\n")).collect();
    (format!("{} {} {}", answer.status, body.size, body.sha256), fields.concat())
}
