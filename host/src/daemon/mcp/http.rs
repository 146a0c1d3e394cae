//! MCP over HTTP: one POST, one answer, as JSON or as a stream of events.
//!
//! The front of the HTTP door has seen the request before: its host, its origin, its size and its age. What is checked here is
//! who asks, in what form, and whether the fields of its head say what its body says. A token is wanted from everybody, on
//! loopback too. There are no sessions: a handshake is answered and forgotten, so that there is nothing to steal, to mix up or
//! to fill, and a peer that closes its stream has cancelled its request.

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use toolkeep_core::refusal::{Code, Refusal};

use super::door::{self, message};
use super::engine::{self, Asked, Engine};
use super::era::{self, Era, Meta};
use super::events::{Events, Seats};
use super::head::{self, Head};
use crate::authenticate::Caller;
use crate::daemon::bounds::NOTES_MAX;
use crate::daemon::envelope::{Request as Question, RequestId};
use crate::daemon::http::{BodyError, Cut, Named, Response, refused, whole};
use crate::daemon::plane::{Dispatch, Message, Work, guarded};
use crate::daemon::reply::{self, Body, Fault, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR};
use crate::host::Host;

/// Where it is asked.
pub(in crate::daemon) const PATH: &str = "/mcp";
/// Where it is told who gives tokens (RFC 9728): with the path of the resource, and for clients that look at the root.
pub(in crate::daemon) const METADATA: [&str; 2] =
    ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"];

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
/// What keeps intermediaries from gathering events.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The route.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct McpRoute {
    engine: Engine,
    seats: Seats,
    /// Whether the door itself has TLS.
    tls: bool,
}

impl McpRoute {
    /// In front of `host`, behind a door with TLS or without; streams end when `stop` says so.
    pub(in crate::daemon) fn new(host: Host, tls: bool, stop: watch::Receiver<bool>) -> Self {
        Self { engine: Engine::new(host, stop), seats: Seats::default(), tls }
    }

    /// Answer a request that passed the front.
    pub(in crate::daemon) async fn answer<B>(&self, request: Request<B>, named: Named) -> Response
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        if request.method() != Method::POST {
            let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, Code::InvalidInput, "MCP is asked with POST");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let (parts, body) = request.into_parts();
        let caller = match self.caller(&parts.headers) {
            Ok(caller) => caller,
            Err(refusal) => return self.unauthorized(&refusal, &parts.headers, named),
        };
        if let Err((status, why)) = form(&parts.headers) {
            return refused(status, Code::InvalidInput, why);
        }
        let text = match body.collect().await {
            Ok(text) => text.to_bytes(),
            Err(error) => {
                let error: BodyError = error.into();
                let status = match error.downcast_ref::<Cut>() {
                    Some(Cut::TooLong(_)) => StatusCode::PAYLOAD_TOO_LARGE,
                    Some(Cut::TooSlow) => StatusCode::REQUEST_TIMEOUT,
                    None => StatusCode::BAD_REQUEST,
                };
                return refused(status, Code::InvalidInput, &error.to_string());
            }
        };
        match message(&text) {
            Ok(Message::Request(question)) => self.take(&caller, &parts.headers, question).await,
            // Nothing waits here that could be cancelled: whoever has enough closes its stream.
            Ok(Message::Note { .. } | Message::Ignored) => empty(StatusCode::ACCEPTED),
            Err((id, fault)) => whole_answer(id.as_ref(), &Body::Error(fault), Era::Stateless),
        }
    }

    /// Who gives tokens for this resource, if anybody does.
    pub(in crate::daemon) fn metadata(&self, headers: &HeaderMap, named: Named) -> Response {
        let issuers = self.engine.host().authorization_servers();
        let Some(resource) = self.base(headers, named).filter(|_| !issuers.is_empty()) else {
            return refused(StatusCode::NOT_FOUND, Code::NotFound, "there is nothing of this name");
        };
        let told = json!({"resource": format!("{resource}{PATH}"), "authorization_servers": issuers,
            "bearer_methods_supported": ["header"], "resource_name": "Toolkeep"});
        let mut response = Response::new(whole(told.to_string()));
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        const WANTED: &str = "show one token as `Authorization: Bearer`; `toolkeep tokens mint` makes one";
        let missing = || Refusal::new(Code::Unauthorized, "a token is wanted").hint(WANTED);
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let one = given.next().filter(|_| given.next().is_none()).and_then(|value| value.to_str().ok());
        let (scheme, token) = one.and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(missing());
        }
        let host = self.engine.host();
        let caller = host.caller_of_token(token)?;
        caller.check(|| host.now_ms())?;
        Ok(caller)
    }

    fn unauthorized(&self, refusal: &Refusal, headers: &HeaderMap, named: Named) -> Response {
        let mut response = refused(StatusCode::UNAUTHORIZED, refusal.code, &refusal.message);
        let known = !self.engine.host().authorization_servers().is_empty();
        let told = self.base(headers, named).filter(|_| known);
        let challenge = told.map(|base| format!("Bearer resource_metadata=\"{base}{}\"", METADATA[0]));
        let challenge = challenge.and_then(|text| HeaderValue::try_from(text).ok());
        let plain = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge.unwrap_or(plain));
        response
    }

    /// Scheme and authority under which the door was asked.
    fn base(&self, headers: &HeaderMap, named: Named) -> Option<String> {
        let host = headers.get(HOST)?.to_str().ok()?;
        // Without TLS here, a name of the configuration is that of a proxy, and proxies have TLS.
        let scheme = if self.tls || named == Named::Configured { "https" } else { "http" };
        Some(format!("{scheme}://{host}"))
    }

    async fn take(&self, caller: &Caller, headers: &HeaderMap, question: Question) -> Response {
        let Question { id, method, mut params } = question;
        let head = match Head::read(headers) {
            Ok(head) => head,
            Err(fault) => return whole_answer(Some(&id), &Body::Error(fault), Era::Stateless),
        };
        if let Err(fault) = head.agrees(&params) {
            return whole_answer(Some(&id), &Body::Error(fault), Era::Stateless);
        }
        let named = head::name_of(&method, &params);
        let (era, meta) = match Meta::take(&mut params)
            .and_then(|meta| head.era(&method, named.as_deref(), &meta).map(|e| (e, meta)))
        {
            Ok(both) => both,
            Err(fault) => return whole_answer(Some(&id), &Body::Error(fault), Era::Stateless),
        };
        if method == "initialize" && era == Era::Handshake {
            let body = match door::initialization(&mut params) {
                Ok(version) => Body::Value(engine::welcome(version, false)),
                Err(fault) => Body::Error(fault),
            };
            return whole_answer(Some(&id), &body, era);
        }
        let (lines, news) = mpsc::channel(NOTES_MAX);
        if method == "subscriptions/listen" && era == Era::Stateless {
            return match door::accepted(&params) {
                Ok(accepted) => self.listen(id, &accepted, (lines, news)),
                Err(fault) => whole_answer(Some(&id), &Body::Error(fault), era),
            };
        }
        let streams = meta.progress.is_some();
        match self.engine.begin(caller, Asked { method, params, era, meta, lines }) {
            Ok(Dispatch::Now(body)) => whole_answer(Some(&id), &body, era),
            Ok(Dispatch::Later(work)) if streams => self.stream(id, guarded(work), news),
            Ok(Dispatch::Later(work)) => whole_answer(Some(&id), &guarded(work).await, era),
            Err(fault) => whole_answer(Some(&id), &Body::Error(fault), era),
        }
    }

    /// Tell of changes until the peer or the daemon has enough.
    fn listen(
        &self,
        id: RequestId,
        accepted: &Value,
        (lines, news): (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>),
    ) -> Response {
        let (mut changes, mut stop) = (self.engine.host().catalog_changes(), self.engine.stop());
        let first = lines.try_send(door::acknowledged(&id, accepted));
        let (of, tells) = (id.clone(), accepted.get("toolsListChanged").is_some() && first.is_ok());
        let work: Work = Box::pin(async move {
            loop {
                tokio::select! {
                    changed = changes.changed(), if tells => if changed.is_err() || lines.send(door::tools_changed(&of)).await.is_err() {
                        break;
                    },
                    () = crate::daemon::server::stop_asked(&mut stop) => break,
                }
            }
            Body::Instead(door::subscription_ended(&of))
        });
        self.stream(id, work, news)
    }

    fn stream(&self, id: RequestId, work: Work, news: mpsc::Receiver<Vec<u8>>) -> Response {
        let Some(seat) = self.seats.take() else {
            let refusal = Refusal::new(Code::Overloaded, "too many streams are open").after_ms(1_000);
            let mut response = whole_answer(Some(&id), &Body::Error(refusal.into()), Era::Stateless);
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return response;
        };
        let mut response = Response::new(Events::new(id, work, news, seat).boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, EVENTS);
        response.headers_mut().insert(UNBUFFERED.0, UNBUFFERED.1);
        response
    }
}

/// The form of a request: JSON that is not packed, from somebody who takes both forms of answers.
fn form(headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let kind = kinds.next().filter(|_| kinds.next().is_none()).and_then(|kind| kind.to_str().ok());
    let plain = kind.is_some_and(|kind| {
        let (kind, parameters) = kind.split_once(';').unwrap_or((kind, ""));
        let utf8 = parameters.trim().to_ascii_lowercase().replace('"', "");
        kind.trim().eq_ignore_ascii_case("application/json") && (utf8.is_empty() || utf8 == "charset=utf-8")
    });
    if !plain || headers.contains_key(CONTENT_ENCODING) {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send `Content-Type: application/json`, in UTF-8 and not packed",
        ));
    }
    let takes = |wanted: &str| {
        let (family, _) = wanted.split_once('/').unwrap_or((wanted, ""));
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).any(
            |range| {
                let range = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                range == wanted || range == "*/*" || range.strip_suffix("/*") == Some(family)
            },
        )
    };
    if headers.contains_key(ACCEPT) && !(takes("application/json") && takes("text/event-stream")) {
        return Err((StatusCode::NOT_ACCEPTABLE, "accept both `application/json` and `text/event-stream`"));
    }
    Ok(())
}

/// An answer at once. What the protocol calls a fault has a status of HTTP too; what a method refuses, in the older era, has not:
/// its clients take any other status for the end of the session.
fn whole_answer(id: Option<&RequestId>, body: &Body, era: Era) -> Response {
    let status = match body {
        Body::Error(fault) => status_of(fault, era),
        _ => StatusCode::OK,
    };
    let mut line = Vec::new();
    reply::write_line(&mut line, id, body);
    let mut response = Response::new(whole(line));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn status_of(fault: &Fault, era: Era) -> StatusCode {
    match fault.number {
        PARSE_ERROR | INVALID_REQUEST => StatusCode::BAD_REQUEST,
        number if number == era::UNSUPPORTED_VERSION || number == head::MISMATCH => StatusCode::BAD_REQUEST,
        INVALID_PARAMS if era == Era::Stateless => StatusCode::BAD_REQUEST,
        METHOD_NOT_FOUND if era == Era::Stateless => StatusCode::NOT_FOUND,
        number if number == Code::NotFound.rpc() => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(whole(""));
    *response.status_mut() = status;
    response
}
