//! One exchange over one connection: the request as bytes, the answer as data.
//!
//! hyper speaks HTTP/1.1; the fields that frame a message are set here and nowhere else. The future that drives the
//! connection, the one that reads the answer and the one that watches the time are polled together by one task, so that
//! dropping it drops everything.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming as AnswerBody;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use toolkeep_core::effect::Header;
use toolkeep_core::net::field::{FIELDS_MAX, FIELDS_MAX_BYTES, FieldName, FieldProblem, FieldRule, owned, value_text};

use super::outgoing::{Cut, Incoming, Limits, Outgoing, Purpose, REQUEST_MAX_BYTES};
use super::pace::{Pace, Paced};
use super::stream::GuardedStream;
use super::{Reason, SendError};
use crate::secrets::{Redactor, Secrets};

/// Bytes of a request's body that are handed to the connection at one time: what a socket takes at once.
const PIECE_BYTES: usize = 64 * 1024;
/// What a request says of its sender where its guest says nothing. No version: it would help nobody but an attacker.
const USER_AGENT: &str = "toolkeep";
/// Fields of an answer that belong to the connection, and cookies: a guest can send none.
const NOT_PASSED_ON: &[HeaderName] = &[
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A request with everything in it, and what must be taken out of its answer.
pub(super) struct Prepared {
    request: Request<Upload>,
    pace: Pace,
    redactor: Redactor,
    purpose: Purpose,
}

impl Prepared {
    /// With fields of the operator's, in place of those of the same name.
    pub(super) fn with(mut self, own: HeaderMap) -> Self {
        self.request.headers_mut().extend(own);
        self
    }
}

/// Put a request together. Everything that can be wrong with it is found before there is a connection.
pub(super) async fn prepare(outgoing: &Outgoing, secrets: &Secrets) -> Result<Prepared, Reason> {
    if outgoing.body.len() > REQUEST_MAX_BYTES {
        return Err(Reason::RequestTooLarge);
    }
    let mut fields = HeaderMap::with_capacity(outgoing.headers.len() + 6);
    fields.insert(header::HOST, text_value("host", &outgoing.origin.authority())?);
    for header in &outgoing.headers {
        let name: FieldName = header.name.parse()?;
        if let Some(rule) = owned(&name) {
            return Err(FieldProblem::new(name.as_str(), rule).into());
        }
        fields.append(field_name(name.as_str())?, text_value(name.as_str(), &header.value)?);
    }
    let redactor = put_in_secrets(outgoing, secrets, &mut fields).await?;
    if let Some(key) = &outgoing.idempotency_key {
        fields.insert(field_name("idempotency-key")?, text_value("idempotency-key", key)?);
    }
    if !outgoing.body.is_empty() || outgoing.method.expects_body() {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(outgoing.body.len()));
    }
    if !fields.contains_key(header::USER_AGENT) {
        fields.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    }
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let pace = Pace::new();
    let mut request = Request::new(Upload::new(outgoing.body.clone(), pace.clone()));
    let method = http::Method::from_bytes(outgoing.method.as_str().as_bytes());
    *request.method_mut() = method.map_err(|_| Reason::Malformed("BUG: a method that hyper does not know"))?;
    let target = http::Uri::try_from(outgoing.target.as_str());
    *request.uri_mut() = target.map_err(|_| Reason::Malformed("BUG: a target that hyper does not take"))?;
    *request.headers_mut() = fields;
    Ok(Prepared { request, pace, redactor, purpose: outgoing.purpose })
}

/// Fetch each secret and put it where it goes. A guest cannot have set that field, nor ask for an answer in which an echo
/// of the secret would be hidden.
async fn put_in_secrets(outgoing: &Outgoing, secrets: &Secrets, fields: &mut HeaderMap) -> Result<Redactor, Reason> {
    let mut redactor = Redactor::default();
    for name in &outgoing.secrets {
        let (secret, slot) = secrets.fetch(&outgoing.tenant, &outgoing.origin, name).await?;
        if fields.contains_key(slot.field()) {
            return Err(FieldProblem::new(slot.field(), FieldRule::Slot).into());
        }
        fields.insert(field_name(slot.field())?, secret.field_value(slot)?);
        redactor.add(name, &secret, slot);
    }
    if !redactor.is_empty() {
        if fields.contains_key(header::RANGE) {
            return Err(FieldProblem::new("range", FieldRule::WithSecret).into());
        }
        fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    Ok(redactor)
}

fn field_name(name: &str) -> Result<HeaderName, Reason> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| FieldProblem::new(name, FieldRule::Name).into())
}

fn text_value(name: &str, value: &str) -> Result<HeaderValue, Reason> {
    let checked = value_text(value.as_bytes()).and_then(|value| HeaderValue::from_str(&value).ok());
    checked.ok_or_else(|| FieldProblem::new(name, FieldRule::Value).into())
}

/// Send a request over a connection and take its answer.
pub(super) async fn run(
    prepared: Prepared,
    stream: GuardedStream,
    limits: &Limits,
    deadline: Instant,
) -> Result<Incoming, SendError> {
    let Prepared { request, pace, redactor, purpose } = prepared;
    pace.start();
    let peer = stream.peer();
    let io = TokioIo::new(Paced::new(stream, pace.clone()));
    let mut builder = http1::Builder::new();
    builder.max_headers(FIELDS_MAX).max_header_size(FIELDS_MAX_BYTES);
    let (mut sender, connection) = builder.handshake(io).await.map_err(|error| pace.failed(reason(&error)))?;
    let mut line = Line { connection: pin!(connection), open: true, watch: pin!(pace.watch(*limits, deadline)) };

    let answered = match line.until(sender.send_request(request)).await {
        Ok(answered) => answered.map_err(|error| reason(&error)),
        Err(slow) => Err(slow),
    };
    let answer = answered.and_then(checked).map_err(|reason| pace.failed(reason))?;
    pace.answered();
    let (head, body) = answer.into_parts();
    let readable = redactor.is_empty() || !is_encoded(&head.headers);
    let (body, cut) = if readable {
        collect(&mut line, body, limits.response_bytes).await
    } else {
        (Bytes::new(), Some((Cut::Encoded, Reason::Encoded)))
    };
    let cut = match cut {
        Some((_, reason)) if purpose == Purpose::Read => return Err(pace.failed(reason)),
        cut => cut.map(|(cut, _)| cut),
    };
    let (bytes_out, bytes_in) = pace.bytes();
    let (headers, body) = redacted(&redactor, &head.headers, body, cut.is_some());
    Ok(Incoming { status: head.status.as_u16(), headers, body, cut, bytes_out, bytes_in, peer })
}

/// The futures of one exchange, polled together.
struct Line<'a, C, W> {
    connection: Pin<&'a mut C>,
    open: bool,
    watch: Pin<&'a mut W>,
}

impl<C, W> Line<'_, C, W>
where
    C: Future<Output = hyper::Result<()>>,
    W: Future<Output = Reason>,
{
    /// What `work` gives, unless the request moves too slowly before.
    async fn until<F: Future>(&mut self, work: F) -> Result<F::Output, Reason> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                // Its error, if any, reaches `work` as well.
                _ended = &mut self.connection, if self.open => self.open = false,
                slow = &mut self.watch => return Err(slow),
            }
        }
    }
}

/// An answer that can be one: hyper already refused what is not HTTP/1.
fn checked(answer: Response<AnswerBody>) -> Result<Response<AnswerBody>, Reason> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS || answer.status().is_informational() {
        return Err(Reason::Malformed("it changes the protocol, which nobody asked for"));
    }
    let bytes: usize = answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if answer.headers().len() > FIELDS_MAX || bytes > FIELDS_MAX_BYTES {
        return Err(Reason::HeadTooLarge);
    }
    Ok(answer)
}

fn is_encoded(fields: &HeaderMap) -> bool {
    let plain = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    fields.get_all(header::CONTENT_ENCODING).iter().any(|value| !plain(value))
}

/// The body up to its cap, and why it is not the whole.
async fn collect<C, W>(line: &mut Line<'_, C, W>, mut body: AnswerBody, cap: u64) -> (Bytes, Option<(Cut, Reason)>)
where
    C: Future<Output = hyper::Result<()>>,
    W: Future<Output = Reason>,
{
    let mut collected = BytesMut::new();
    let too_large = (Cut::TooLarge, Reason::ResponseTooLarge(cap));
    loop {
        let frame = match line.until(body.frame()).await {
            Ok(None) => return (collected.freeze(), None),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return (collected.freeze(), Some((Cut::Closed, reason(&error)))),
            Err(slow) => return (collected.freeze(), Some((Cut::Slow, slow))),
        };
        // Trailers are dropped: nothing checks what they claim.
        let Ok(data) = frame.into_data() else { continue };
        let room = usize::try_from(cap).unwrap_or(usize::MAX).saturating_sub(collected.len());
        if data.len() > room {
            collected.extend_from_slice(data.get(..room).unwrap_or_default());
            return (collected.freeze(), Some(too_large));
        }
        if collected.is_empty() && body.is_end_stream() {
            return (data, None);
        }
        collected.extend_from_slice(&data);
    }
}

/// Fields and body of an answer without the secrets of its request.
fn redacted(redactor: &Redactor, fields: &HeaderMap, body: Bytes, cut: bool) -> (Vec<Header>, Bytes) {
    let mut kept: Vec<Header> = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        if NOT_PASSED_ON.contains(name) || name.as_str() == "keep-alive" || redactor.is_in_name(name.as_str()) {
            continue;
        }
        let scrubbed = redactor.scrub(value.as_bytes(), false);
        let value = scrubbed.as_deref().unwrap_or(value.as_bytes());
        kept.push(Header { name: name.as_str().to_owned(), value: text(value) });
    }
    match if redactor.is_empty() { None } else { redactor.scrub(&body, cut) } {
        None => (kept, body),
        Some(body) => {
            // The length that the server gave told of the secret's.
            for field in kept.iter_mut().filter(|field| field.name == "content-length") {
                field.value = body.len().to_string();
            }
            (kept, Bytes::from(body))
        }
    }
}

/// A value as text: UTF-8, or each byte as a character of Latin-1.
fn text(value: &[u8]) -> String {
    std::str::from_utf8(value).map_or_else(|_| value.iter().copied().map(char::from).collect(), str::to_owned)
}

/// hyper's errors in our words. Its own texts are not passed on: they are not a promise.
fn reason(error: &hyper::Error) -> Reason {
    if error.is_parse_too_large() {
        Reason::HeadTooLarge
    } else if error.is_parse_status() {
        Reason::Malformed("its status line")
    } else if error.is_parse() {
        Reason::Malformed("its header fields or their framing")
    } else if error.is_user() {
        Reason::Malformed("BUG: a request that hyper does not take")
    } else if has_invalid_data(error) {
        Reason::Malformed("its body or the chunks of it")
    } else {
        Reason::Closed
    }
}

fn has_invalid_data(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let io = inner.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| matches!(io.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput))
        {
            return true;
        }
        source = inner.source();
    }
    false
}

/// A body that is handed over piece by piece and says when the last one was taken.
struct Upload {
    rest: Bytes,
    pace: Pace,
}

impl Upload {
    fn new(rest: Bytes, pace: Pace) -> Self {
        if rest.is_empty() {
            pace.body_taken();
        }
        Self { rest, pace }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(piece);
        if self.rest.is_empty() {
            self.pace.body_taken();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
