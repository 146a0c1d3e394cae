//! The methods of MCP that need nothing but a caller and one request.
//!
//! A connection and an HTTP request both come here. What a connection remembers, a handshake, subscriptions and what can be
//! cancelled, is not known here.

use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use toolkeep_core::refusal::{Code, Refusal};

use super::asks::Asks;
use super::capable::Capable;
use super::era::{self, Era, Meta};
use super::resource::{self, Address};
use super::state::States;
use super::{call, result, tool};
use crate::authenticate::Caller;
use crate::daemon::plane::{Dispatch, Work};
use crate::daemon::reply::{Body, Fault, METHOD_NOT_FOUND};
use crate::host::Host;

/// How long a list may be kept without asking again, in milliseconds: a model's few steps. Who listens hears of changes.
const LIST_TTL_MS: u64 = 30_000;
/// How long what never changes may be kept, in milliseconds.
const STANDING_TTL_MS: u64 = 600_000;
/// What a model should know before it calls anything.
const INSTRUCTIONS: &str = "Tools run in a sandbox and never act by themselves: what a call wants to change becomes a plan, and \
     the plan is committed, held for people or denied. `structuredContent.status` says which. For `approval_required`, call \
     `toolkeep.wait` with the approval_id; nothing has changed until then, and calling the tool again makes another plan. To \
     look before you act, call `<tool>.preview`, then commit exactly that plan with `toolkeep.commit`. `toolkeep.undo` \
     proposes the reversal of a call. An error names the fields that are wrong and says what to do.";

/// One request of a known caller.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) params: Map<String, Value>,
    pub(super) era: Era,
    pub(super) meta: Meta,
    /// Where news of it go, and requests of ours to its client.
    pub(super) lines: mpsc::Sender<Vec<u8>>,
    /// What its client can ask somebody.
    pub(super) capable: Capable,
    /// What it was asked and did not answer yet, where it is asked by requests.
    pub(super) asks: Option<Asks>,
}

/// Answers requests.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    host: Host,
    states: States,
    stop: watch::Receiver<bool>,
}

impl Engine {
    /// In front of `host`; waits end when `stop` says so.
    pub(super) fn new(host: Host, stop: watch::Receiver<bool>) -> Self {
        let states = States::new(host.ambient());
        Self { host, states, stop }
    }

    /// Writes what clients carry between two requests.
    pub(super) const fn states(&self) -> &States {
        &self.states
    }

    /// The host.
    pub(super) const fn host(&self) -> &Host {
        &self.host
    }

    /// Says when to stop.
    pub(super) fn stop(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }

    /// Begin to answer.
    ///
    /// # Errors
    /// The era has no such method, or its parameters make no sense.
    pub(super) fn begin(&self, caller: &Caller, mut asked: Asked) -> Result<Dispatch, Fault> {
        let era = asked.era;
        Ok(match (asked.method.as_str(), era) {
            ("server/discover", Era::Stateless) => Dispatch::Now(discover()),
            ("ping", Era::Handshake) => Dispatch::Now(Body::Value(json!({}))),
            ("tools/list", _) => {
                Dispatch::Now(result::kept(era, tool::page(&self.host, caller, &mut asked.params)?, LIST_TTL_MS))
            }
            ("tools/call", _) => Dispatch::Later(call::begin(self, caller, asked)?),
            ("resources/list", _) => Dispatch::Now(result::kept(era, resource::list(&asked.params)?, STANDING_TTL_MS)),
            ("resources/templates/list", _) => Dispatch::Now(result::kept(era, resource::templates(), STANDING_TTL_MS)),
            ("resources/read", _) => Dispatch::Later(self.read(caller, asked)?),
            _ => return Err(no_method(&asked.method)),
        })
    }

    fn read(&self, caller: &Caller, mut asked: Asked) -> Result<Work, Fault> {
        let (uri, era) = (era::text(&mut asked.params, "uri")?, asked.era);
        let address = Address::parse(&uri).ok_or_else(|| resource::missing(era, &uri))?;
        Ok(Box::pin(address.read(self.host.clone(), caller.clone(), era)))
    }
}

/// A method that the era does not have. It is the same answer for what is of another door.
pub(super) fn no_method(name: &str) -> Fault {
    let shown: String = name.chars().take(80).flat_map(char::escape_default).collect();
    let refusal = Refusal::new(Code::InvalidInput, format!("there is no method `{shown}`"))
        .hint("`docs/mcp.md` lists what is spoken here");
    Fault::protocol(METHOD_NOT_FOUND, refusal)
}

/// The result of `initialize`.
pub(super) fn welcome(version: &str) -> Value {
    json!({"protocolVersion": version, "capabilities": capabilities(), "serverInfo": era::server(),
        "instructions": INSTRUCTIONS})
}

fn discover() -> Body {
    let mut members = Map::new();
    members.insert("supportedVersions".to_owned(), era::supported());
    members.insert("capabilities".to_owned(), capabilities());
    members.insert("instructions".to_owned(), json!(INSTRUCTIONS));
    result::kept(Era::Stateless, members, STANDING_TTL_MS)
}

fn capabilities() -> Value {
    json!({"tools": {"listChanged": true}, "resources": {}})
}

/// A line that wants no answer.
pub(super) fn notification(method: &str, params: &Value) -> Vec<u8> {
    line(&json!({"jsonrpc": "2.0", "method": method, "params": params}))
}

/// A line that the client answers.
pub(super) fn request(id: &str, method: &str, params: &Value) -> Vec<u8> {
    line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

fn line(message: &Value) -> Vec<u8> {
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}
