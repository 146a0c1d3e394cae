//! MCP over a Unix socket: what one connection remembers.
//!
//! A peer is known by its uid, or by the token that its first line shows; `toolkeep mcp` sends that line. A handshake is
//! remembered until the connection ends; a request that stands for itself needs none and may come before, after or between.
//! Frames, bounds and slow peers are the business of [`crate::daemon::connection`], as for every other door.

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use toolkeep_core::refusal::{Code, Refusal};

use super::asks::Asks;
use super::capable::Capable;
use super::engine::{self, Asked, Engine};
use super::era::{self, Era, Meta, SUBSCRIPTION_KEY, bad};
use super::flights::Flights;
use super::result;
use crate::authenticate::Peer;
use crate::daemon::agent::{AgentPlane, AgentSession};
use crate::daemon::envelope::{self, RequestId};
use crate::daemon::method::AgentMethod;
use crate::daemon::plane::{Dispatch, Message, Notes, Plane};
use crate::daemon::reply::{self, Body, Fault, INVALID_PARAMS, INVALID_REQUEST};
use crate::host::Host;

/// Subscriptions of one connection: a client needs one.
const LISTENS_MAX: usize = 8;
/// What is told when other tools are offered.
const LIST_CHANGED: &str = "notifications/tools/list_changed";

/// The MCP socket.
#[derive(Debug)]
pub(in crate::daemon) struct McpPlane {
    agents: AgentPlane,
    engine: Engine,
}

/// What one connection proved and said.
#[derive(Debug)]
pub(in crate::daemon) struct McpSession {
    who: AgentSession,
    /// `initialize` was answered.
    greeted: bool,
    /// What the client said then that it can ask somebody.
    capable: Capable,
    /// What it was asked.
    asks: Asks,
    flights: Flights,
    /// Requests that want to hear of changes.
    listens: Vec<RequestId>,
}

impl McpPlane {
    /// A plane in front of `host`; waits end when `stop` says so.
    pub(in crate::daemon) fn new(host: Host, stop: watch::Receiver<bool>) -> Self {
        Self { agents: AgentPlane::new(host.clone(), stop.clone()), engine: Engine::new(host, stop) }
    }

    fn begin(
        &self,
        session: &mut McpSession,
        method: &str,
        mut params: Map<String, Value>,
        notes: Notes,
    ) -> Result<Dispatch, Fault> {
        let host = self.engine.host();
        let caller = session.who.caller(|| host.now_ms())?;
        let meta = Meta::take(&mut params)?;
        if method == "initialize" && !meta.stateless {
            return session.greet(&mut params);
        }
        let era = match (meta.stateless, session.greeted) {
            (true, _) => Era::Stateless,
            (false, true) => Era::Handshake,
            // Whether anybody is there may be asked at any time.
            (false, false) if method == "ping" => Era::Handshake,
            (false, false) => return Err(unversed()),
        };
        if method == "subscriptions/listen" && era == Era::Stateless {
            return session.listen(&params, notes.id);
        }
        let (capable, asks) = match era {
            Era::Stateless => (meta.capable, None),
            Era::Handshake => (session.capable, Some(session.asks.clone())),
        };
        let asked = Asked { method: method.to_owned(), params, era, meta, lines: notes.lines, capable, asks };
        match self.engine.begin(&caller, asked)? {
            Dispatch::Later(work) => match session.flights.enter(&notes.id, work) {
                Some(work) => Ok(Dispatch::Later(work)),
                None => Err(taken()),
            },
            now => Ok(now),
        }
    }
}

impl McpSession {
    /// Answer `initialize`.
    fn greet(&mut self, params: &mut Map<String, Value>) -> Result<Dispatch, Fault> {
        if self.greeted {
            return Err(greeted());
        }
        let version = initialization(params)?;
        (self.greeted, self.capable) = (true, Capable::greeted(params, version));
        Ok(Dispatch::Now(Body::Value(engine::welcome(version))))
    }

    /// Begin to tell of changes.
    fn listen(&mut self, params: &Map<String, Value>, id: RequestId) -> Result<Dispatch, Fault> {
        let accepted = accepted(params)?;
        if self.listens.contains(&id) {
            return Err(taken());
        }
        if self.listens.len() >= LISTENS_MAX {
            let refusal = Refusal::new(Code::Overloaded, format!("{LISTENS_MAX} subscriptions are open"));
            return Err(refusal.hint("cancel one with `notifications/cancelled`").into());
        }
        let line = acknowledged(&id, &accepted);
        if accepted.get("toolsListChanged").is_some() {
            self.listens.push(id);
        }
        Ok(Dispatch::Now(Body::Instead(line)))
    }
}

/// What a message is: a request, something that wants no answer, or an answer.
///
/// # Errors
/// The fault, with the id if that could be understood.
pub(super) fn message(text: &[u8]) -> Result<Message, (Option<RequestId>, Fault)> {
    let members = envelope::object(text).map_err(|fault| (None, fault))?;
    if members.contains_key("id") && members.contains_key("method") {
        return envelope::request(members).map(Message::Request);
    }
    if members.contains_key("method") {
        let (method, params) = envelope::read_rest(members).map_err(|fault| (None, fault))?;
        return Ok(Message::Note { method, params });
    }
    if members.contains_key("result") || members.contains_key("error") {
        return Ok(response(members).unwrap_or(Message::Ignored));
    }
    envelope::request(members).map(Message::Request)
}

/// An answer to a request of ours; nothing if it could be one to none.
fn response(mut members: Map<String, Value>) -> Option<Message> {
    let id = envelope::read_id(members.remove("id")).ok()?;
    let fits = members.remove("jsonrpc") == Some(json!("2.0")) && members.len() == 1;
    fits.then(|| Message::Response { id, result: members.remove("result") })
}

/// Read the parameters of `initialize`; the revision that it ends with.
///
/// # Errors
/// A member is missing or of the wrong type.
pub(super) fn initialization(params: &mut Map<String, Value>) -> Result<&'static str, Fault> {
    let wanted = era::text(params, "protocolVersion")?;
    for key in ["capabilities", "clientInfo"] {
        if !params.get(key).is_some_and(Value::is_object) {
            return Err(bad(&format!("/{key}"), "is missing or not an object", "an object"));
        }
    }
    Ok(era::agreed(&wanted))
}

/// The part of what a subscription wants that is told.
///
/// # Errors
/// It does not say what it wants.
pub(super) fn accepted(params: &Map<String, Value>) -> Result<Value, Fault> {
    let Some(Value::Object(wanted)) = params.get("notifications") else {
        return Err(bad("/notifications", "is missing or not an object", "what to hear of, an object"));
    };
    let tools = wanted.get("toolsListChanged") == Some(&Value::Bool(true));
    Ok(if tools { json!({"toolsListChanged": true}) } else { json!({}) })
}

/// The first line of a subscription.
pub(super) fn acknowledged(id: &RequestId, accepted: &Value) -> Vec<u8> {
    let params = json!({"notifications": accepted, "_meta": {SUBSCRIPTION_KEY: id_value(id)}});
    engine::notification("notifications/subscriptions/acknowledged", &params)
}

/// The line that tells a subscription that other tools are offered.
pub(super) fn tools_changed(id: &RequestId) -> Vec<u8> {
    engine::notification(LIST_CHANGED, &json!({"_meta": {SUBSCRIPTION_KEY: id_value(id)}}))
}

/// The last line of a subscription that the daemon ends.
pub(super) fn subscription_ended(id: &RequestId) -> Vec<u8> {
    let members = Map::from_iter([("_meta".to_owned(), json!({SUBSCRIPTION_KEY: id_value(id)}))]);
    let mut line = Vec::new();
    reply::write_line(&mut line, Some(id), &result::finished(Era::Stateless, members));
    line
}

fn id_value(id: &RequestId) -> Value {
    match id {
        RequestId::Text(text) => json!(text),
        RequestId::Number(number) => json!(number),
    }
}

/// The answer to a second `initialize`.
pub(super) fn greeted() -> Fault {
    let refusal = Refusal::new(Code::InvalidInput, "this connection or session was initialized before")
        .hint("open another connection, or leave `Mcp-Session-Id` out, for another session");
    Fault::protocol(INVALID_REQUEST, refusal)
}

/// The line that tells a client that other tools are offered, where nothing is named that it asked.
pub(super) fn list_changed() -> Vec<u8> {
    engine::notification(LIST_CHANGED, &json!({}))
}

/// The answer to a request whose id names one that is under way.
pub(super) fn taken() -> Fault {
    let refusal = Refusal::new(Code::InvalidInput, "a request of this id is under way").field(
        "/id",
        "is in use",
        "an id of its own for each request",
    );
    Fault::protocol(INVALID_REQUEST, refusal)
}

fn unversed() -> Fault {
    let refusal = Refusal::new(Code::InvalidInput, "the request does not say in which revision it is written")
        .hint("send `initialize` first, or name the revision in `_meta` as 2026-07-28 wants it")
        .field("/_meta/io.modelcontextprotocol~1protocolVersion", "is missing", era::STATELESS);
    Fault::protocol(INVALID_PARAMS, refusal)
}

impl Plane for McpPlane {
    type Session = McpSession;

    fn open(&self, peer: Peer) -> Result<Self::Session, Refusal> {
        let who = self.agents.open(peer)?;
        let (capable, asks) = (Capable::default(), Asks::default());
        Ok(McpSession { who, greeted: false, capable, asks, flights: Flights::default(), listens: Vec::new() })
    }

    fn is_proven(&self, session: &Self::Session) -> bool {
        self.agents.is_proven(&session.who)
    }

    fn read(&self, line: &[u8]) -> Result<Message, (Option<RequestId>, Fault)> {
        message(line)
    }

    fn note(&self, session: &mut Self::Session, method: &str, mut params: Map<String, Value>) {
        if method != "notifications/cancelled" {
            return;
        }
        if let Ok(id) = envelope::read_id(params.remove("requestId")) {
            session.listens.retain(|listen| *listen != id);
            session.flights.cancel(&id);
        }
    }

    fn response(&self, session: &mut Self::Session, id: &RequestId, result: Option<Value>) {
        session.asks.answer(id, result);
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.engine.host().catalog_changes())
    }

    fn news(&self, session: &mut Self::Session) -> Vec<u8> {
        let mut lines: Vec<u8> = session.listens.iter().flat_map(tools_changed).collect();
        if session.greeted {
            lines.extend(list_changed());
        }
        lines
    }

    fn farewell(&self, session: &mut Self::Session) -> Vec<u8> {
        session.listens.drain(..).flat_map(|id| subscription_ended(&id)).collect()
    }

    fn dispatch(
        &self,
        session: &mut Self::Session,
        method: &str,
        params: Map<String, Value>,
        notes: Notes,
    ) -> Dispatch {
        // The line that `toolkeep mcp` sends before those of its client.
        if method == AgentMethod::SessionAuthenticate.name() {
            return self.agents.dispatch(&mut session.who, method, params, notes);
        }
        self.begin(session, method, params, notes).unwrap_or_else(|fault| Dispatch::Now(Body::Error(fault)))
    }
}
