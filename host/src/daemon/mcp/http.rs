//! MCP over HTTP: one POST, one answer, as JSON or as a stream of events.
//!
//! The front of the HTTP door has seen the request before: its host, its origin, its size and its age. What is checked here is
//! who asks, in what form, and whether the fields of its head say what its body says. A token is wanted from everybody, on
//! loopback too. The newer era has no sessions. In the older one `initialize` begins one, for clients that want to hear of
//! changes (GET), to cancel, or to be asked something; a request without one is answered too. A peer that closes the stream of a request has
//! cancelled it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use toolkeep_core::refusal::{Code, Refusal};

use super::capable::Capable;
use super::door::{self, message};
use super::engine::{self, Asked, Engine};
use super::era::{self, Era, Meta};
use super::events::{self, Events, Seat, Seats};
use super::head::{self, Head, LAST_EVENT};
use super::protected;
use super::session::{Session, Sessions};
use crate::authenticate::Caller;
use crate::daemon::bounds::NOTES_MAX;
use crate::daemon::envelope::{self, Request as Question, RequestId};
use crate::daemon::http::{BodyError, Cut, Named, Response, refused, whole};
use crate::daemon::plane::{Dispatch, Message, Work, guarded};
use crate::daemon::reply::{self, Body, Fault, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR};
use crate::daemon::server::stop_asked;
use crate::host::Host;

/// Where it is asked.
pub(in crate::daemon) const PATH: &str = "/mcp";
/// Verbs that have a meaning here: a message, the stream of a session, its end.
const VERBS: HeaderValue = HeaderValue::from_static("POST, GET, DELETE");

/// The form of every answer but a stream.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
/// What keeps intermediaries from gathering events.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The route.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct McpRoute {
    engine: Engine,
    sessions: Sessions,
    seats: Seats,
    /// Whether the door itself has TLS.
    tls: bool,
}

/// One request of a known caller.
struct Asking<'r> {
    caller: &'r Caller,
    head: Head,
    /// The session that it names.
    session: Option<Arc<Session>>,
}

impl McpRoute {
    /// In front of `host`, behind a door with TLS or without; streams end when `stop` says so.
    pub(in crate::daemon) fn new(host: Host, tls: bool, stop: watch::Receiver<bool>) -> Self {
        Self { engine: Engine::new(host, stop), sessions: Sessions::default(), seats: Seats::default(), tls }
    }

    /// Who gives tokens for this resource, if anybody does.
    pub(in crate::daemon) fn metadata(&self, headers: &HeaderMap, named: Named) -> Response {
        protected::metadata(self.engine.host(), &protected::Asked { headers, named, tls: self.tls })
    }

    /// Answer a request that passed the front.
    pub(in crate::daemon) async fn answer<B>(&self, request: Request<B>, named: Named) -> Response
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        let verb = request.method().clone();
        if ![Method::POST, Method::GET, Method::DELETE].contains(&verb) {
            return no_verb("MCP is asked with POST");
        }
        let (parts, body) = request.into_parts();
        let headers = &parts.headers;
        let caller = match self.caller(headers) {
            Ok(caller) => caller,
            Err(refusal) => {
                let asked = protected::Asked { headers, named, tls: self.tls };
                return protected::unauthorized(self.engine.host(), &refusal, &asked);
            }
        };
        if verb == Method::POST {
            self.post(&caller, headers, body).await
        } else {
            self.session(&verb, &caller, headers)
        }
    }

    /// What is not said with a message: the stream of a session, and its end.
    fn session(&self, verb: &Method, caller: &Caller, headers: &HeaderMap) -> Response {
        let begun = Head::read(headers).and_then(|head| Ok((self.session_of(caller, &head)?, head)));
        let (session, head) = match begun {
            Ok((Some(session), head)) => (session, head),
            Ok((None, _)) => {
                return no_verb("there is a stream, and an end, for a session only: name it in `Mcp-Session-Id`");
            }
            Err(fault) => return whole_answer(None, &Body::Error(fault), Era::Handshake),
        };
        if let Err(fault) = head.is_of(session.version) {
            return whole_answer(None, &Body::Error(fault), Era::Handshake);
        }
        if *verb == Method::DELETE {
            let name = head.session.unwrap_or_default();
            let ended = self.sessions.end(caller, &name);
            return empty(if ended { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND });
        }
        if !takes(headers, "text/event-stream") {
            return refused(StatusCode::NOT_ACCEPTABLE, Code::InvalidInput, "accept `text/event-stream`");
        }
        let last = headers.get(LAST_EVENT).map(|value| value.to_str().ok().and_then(|text| text.parse::<u64>().ok()));
        if last == Some(None) {
            return refused(StatusCode::BAD_REQUEST, Code::InvalidInput, "`Last-Event-ID` is none that was given here");
        }
        self.changes(caller, session, last.flatten())
    }

    /// Tell a session of changes, beginning with those since the event that its client heard of last.
    fn changes(&self, caller: &Caller, session: Arc<Session>, last: Option<u64>) -> Response {
        // First of all: where there is no place, the stream before this one goes on.
        let Some(seat) = self.seats.take(caller.principal()) else { return crowded(None) };
        let (lines, news) = mpsc::channel(NOTES_MAX);
        let (mut changes, mut stop) = (self.engine.host().catalog_changes(), self.engine.stop());
        let mut until = session.stream();
        let work: Work = Box::pin(async move {
            let now = *changes.borrow_and_update();
            let missed = last.is_some_and(|last| last != now);
            let mut told = lines.send(events::first(now, session.version)).await.is_ok();
            if missed && told {
                told = lines.send(events::numbered(now, &door::list_changed())).await.is_ok();
            }
            while told {
                tokio::select! {
                    changed = changes.changed() => {
                        let number = *changes.borrow_and_update();
                        told = changed.is_ok() && lines.send(events::numbered(number, &door::list_changed())).await.is_ok();
                    }
                    () = until.over() => break,
                    () = stop_asked(&mut stop) => break,
                }
            }
            drop(session);
            Body::Instead(Vec::new())
        });
        streamed(Events::framed(work, news, seat))
    }

    /// The session that a head names, if it is the caller's and stands; nothing where it names none.
    fn session_of(&self, caller: &Caller, head: &Head) -> Result<Option<Arc<Session>>, Fault> {
        let Some(name) = &head.session else { return Ok(None) };
        let session = self.sessions.of(caller, name, self.engine.host().now_ms());
        session.map(Some).ok_or_else(|| {
            let refusal = Refusal::new(Code::NotFound, "there is no session of this name")
                .hint("it ended, or never was yours: begin another with `initialize`, without `Mcp-Session-Id`");
            refusal.into()
        })
    }

    async fn post<B>(&self, caller: &Caller, headers: &HeaderMap, body: B) -> Response
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        if let Err((status, why)) = form(headers) {
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
        let begun = Head::read(headers).and_then(|head| Ok((self.session_of(caller, &head)?, head)));
        match (message(&text), begun) {
            (Err((id, fault)), _) => whole_answer(id.as_ref(), &Body::Error(fault), Era::Stateless),
            (Ok(Message::Request(question)), Err(fault)) => {
                whole_answer(Some(&question.id), &Body::Error(fault), Era::Stateless)
            }
            (Ok(_), Err(fault)) => whole_answer(None, &Body::Error(fault), Era::Stateless),
            (Ok(Message::Request(question)), Ok((session, head))) => {
                self.take(Asking { caller, head, session }, question).await
            }
            (Ok(said), Ok((session, head))) => {
                let fits = session.as_ref().map_or(Ok(()), |session| head.is_of(session.version));
                if let Err(fault) = fits {
                    return whole_answer(None, &Body::Error(fault), Era::Handshake);
                }
                if let Some(session) = session {
                    noted(&session, said);
                }
                // Without a session nothing waits here that could be cancelled or answered.
                empty(StatusCode::ACCEPTED)
            }
        }
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

    async fn take(&self, asking: Asking<'_>, question: Question) -> Response {
        let Question { id, method, mut params } = question;
        let Asking { caller, head, session } = asking;
        if let Err(fault) = head.agrees(&params) {
            return whole_answer(Some(&id), &Body::Error(fault), Era::Stateless);
        }
        let named = head::name_of(&method, &params);
        let version = session.as_ref().map(|session| session.version);
        let (era, meta) = match Meta::take(&mut params)
            .and_then(|meta| head.era((&method, version), named.as_deref(), &meta).map(|e| (e, meta)))
        {
            Ok(both) => both,
            Err(fault) => return whole_answer(Some(&id), &Body::Error(fault), Era::Stateless),
        };
        if method == "initialize" && era == Era::Handshake {
            return self.greet(caller, &id, &mut params, session.is_some());
        }
        let (lines, news) = mpsc::channel(NOTES_MAX);
        if method == "subscriptions/listen" && era == Era::Stateless {
            return match door::accepted(&params) {
                Ok(accepted) => self.listen((caller, id), &accepted, (lines, news)),
                Err(fault) => whole_answer(Some(&id), &Body::Error(fault), era),
            };
        }
        let streams = meta.progress.is_some();
        // A client that is asked with a request gets it over the stream of its own: a place for that is there, or nothing is asked.
        let asked = session.as_ref().filter(|session| era == Era::Handshake && session.capable.any());
        let (seat, capable, asks) = match (era, asked.map(|session| (session, self.seats.take(caller.principal())))) {
            (Era::Stateless, _) => (None, meta.capable, None),
            (Era::Handshake, Some((session, Some(seat)))) => (Some(seat), session.capable, Some(session.asks.clone())),
            (Era::Handshake, _) => (None, Capable::default(), None),
        };
        let work = match self.engine.begin(caller, Asked { method, params, era, meta, lines, capable, asks }) {
            Ok(Dispatch::Now(body)) => return whole_answer(Some(&id), &body, era),
            Ok(Dispatch::Later(work)) => work,
            Err(fault) => return whole_answer(Some(&id), &Body::Error(fault), era),
        };
        let work = match &session {
            None => work,
            Some(session) => match session.flights.enter(&id, work) {
                Some(work) => work,
                None => return whole_answer(Some(&id), &Body::Error(door::taken()), era),
            },
        };
        // A session in which something happens is not idle.
        let work = guarded(Box::pin(async move {
            let Some(session) = session else { return work.await };
            // Nobody can answer or cancel in a session that is over.
            tokio::select! {
                biased;
                body = work => body,
                () = session.over() => Body::Instead(Vec::new()),
            }
        }));
        match (streams, seat) {
            (true, Some(seat)) => streamed(Events::new(id, work, news, seat)),
            (true, None) => self.stream((caller, id), work, news),
            (false, Some(seat)) => answered_or_asked(id, (work, news), seat, era).await,
            (false, None) => whole_answer(Some(&id), &work.await, era),
        }
    }

    /// Answer `initialize`, and begin a session.
    fn greet(&self, caller: &Caller, id: &RequestId, params: &mut Map<String, Value>, again: bool) -> Response {
        let begun = door::initialization(params).and_then(|version| {
            if again {
                return Err(door::greeted());
            }
            let said = (version, Capable::greeted(params, version));
            Ok((version, self.sessions.begin(caller, said, self.engine.host().ambient())?))
        });
        let (version, name) = match begun {
            Ok(begun) => begun,
            Err(fault) => return whole_answer(Some(id), &Body::Error(fault), Era::Handshake),
        };
        let mut response = whole_answer(Some(id), &Body::Value(engine::welcome(version)), Era::Handshake);
        if let Ok(name) = HeaderValue::try_from(name) {
            response.headers_mut().insert(head::SESSION, name);
        }
        response
    }

    /// Tell of changes until the peer or the daemon has enough.
    fn listen(
        &self,
        (caller, id): (&Caller, RequestId),
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
                    () = stop_asked(&mut stop) => break,
                }
            }
            Body::Instead(door::subscription_ended(&of))
        });
        self.stream((caller, id), work, news)
    }

    fn stream(&self, (caller, id): (&Caller, RequestId), work: Work, news: mpsc::Receiver<Vec<u8>>) -> Response {
        match self.seats.take(caller.principal()) {
            Some(seat) => streamed(Events::new(id, work, news, seat)),
            None => crowded(Some(&id)),
        }
    }
}

/// Take what wants no answer into its session.
fn noted(session: &Session, said: Message) {
    match said {
        Message::Note { method, mut params } if method == "notifications/cancelled" => {
            if let Ok(id) = envelope::read_id(params.remove("requestId")) {
                session.flights.cancel(&id);
            }
        }
        Message::Response { id, result } => session.asks.answer(&id, result),
        Message::Request(_) | Message::Note { .. } | Message::Ignored => {}
    }
}

/// The answer as JSON, or a stream from where something is said before it: a question to the client.
async fn answered_or_asked(
    id: RequestId,
    (mut work, mut news): (Work, mpsc::Receiver<Vec<u8>>),
    seat: Seat,
    era: Era,
) -> Response {
    let first = tokio::select! {
        biased;
        body = &mut work => Err(body),
        Some(line) = news.recv() => Ok(line),
    };
    match first {
        Ok(line) => streamed(Events::new(id, work, news, seat).after(line)),
        Err(body) => whole_answer(Some(&id), &body, era),
    }
}

fn streamed(events: Events) -> Response {
    let mut response = Response::new(events.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, EVENTS);
    response.headers_mut().insert(UNBUFFERED.0, UNBUFFERED.1);
    response
}

fn crowded(id: Option<&RequestId>) -> Response {
    let refusal = Refusal::new(Code::Overloaded, "too many streams are open").after_ms(1_000);
    let mut response = whole_answer(id, &Body::Error(refusal.into()), Era::Stateless);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

fn no_verb(why: &str) -> Response {
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, Code::InvalidInput, why);
    response.headers_mut().insert(ALLOW, VERBS);
    response
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
    let both = takes(headers, "application/json") && takes(headers, "text/event-stream");
    if headers.contains_key(ACCEPT) && !both {
        return Err((StatusCode::NOT_ACCEPTABLE, "accept both `application/json` and `text/event-stream`"));
    }
    Ok(())
}

/// Whether a form of answers is among those that the client takes.
fn takes(headers: &HeaderMap, wanted: &str) -> bool {
    let (family, _) = wanted.split_once('/').unwrap_or((wanted, ""));
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).any(
        |range| {
            let range = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            range == wanted || range == "*/*" || range.strip_suffix("/*") == Some(family)
        },
    )
}

/// An answer at once. What the protocol calls a fault has a status of HTTP too; what a method refuses, in the older era, has not:
/// its clients take any other status for the end of the session.
fn whole_answer(id: Option<&RequestId>, body: &Body, era: Era) -> Response {
    let status = match body {
        // Whoever cancelled waits for no answer.
        Body::Instead(lines) if lines.is_empty() => return empty(StatusCode::ACCEPTED),
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
        // A session that cannot be begun.
        number if number == Code::Overloaded.rpc() && era == Era::Handshake => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    }
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(whole(""));
    *response.status_mut() = status;
    response
}
