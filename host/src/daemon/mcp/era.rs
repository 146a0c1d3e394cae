//! Revisions of the protocol, and what a request says about itself in `_meta`.
//!
//! Keys that begin with `io.modelcontextprotocol/` are the protocol's, those with `toolkeep/` ours: with them a client says
//! what an argument of a tool cannot say. Whatever else is in `_meta` belongs to somebody else and is left alone.

use serde_json::{Map, Value, json};
use toolkeep_core::call::{Mode, ReportedUsage};
use toolkeep_core::id::RunId;
use toolkeep_core::json as strict;
use toolkeep_core::refusal::{Code, Refusal};

use super::capable::Capable;
use crate::daemon::reply::{Fault, INVALID_PARAMS};

/// The revision without sessions.
pub(super) const STATELESS: &str = "2026-07-28";
/// The revisions with a handshake, the newest first.
pub(super) const HANDSHAKE: [&str; 2] = ["2025-11-25", BEFORE_MODES];
/// The one of them that knows of one way to ask somebody.
pub(super) const BEFORE_MODES: &str = "2025-06-18";

/// A request names a revision that is not spoken here.
pub(super) const UNSUPPORTED_VERSION: i32 = -32_022;
/// Where a request names its revision.
pub(super) const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
/// Where it says what its client can do.
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
/// Where an answer says who answers.
pub(super) const SERVER_KEY: &str = "io.modelcontextprotocol/serverInfo";
/// Where a notification says which subscription it belongs to.
pub(super) const SUBSCRIPTION_KEY: &str = "io.modelcontextprotocol/subscriptionId";
/// Keys of the W3C trace context, which the protocol takes as they are.
const TRACE_KEYS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// In which words a request is asked and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// `initialize` came first.
    Handshake,
    /// Each request stands for itself.
    Stateless,
}

/// Every revision that is spoken.
pub(super) fn supported() -> Value {
    json!([STATELESS, HANDSHAKE[0], HANDSHAKE[1]])
}

/// The revision that a handshake ends with: what the client wants if it is spoken here, or the newest that is.
pub(super) fn agreed(wanted: &str) -> &'static str {
    HANDSHAKE.into_iter().find(|version| *version == wanted).unwrap_or(HANDSHAKE[0])
}

/// The name under which the server is known.
pub(super) fn server() -> Value {
    json!({"name": "toolkeep", "title": "Toolkeep", "version": env!("CARGO_PKG_VERSION")})
}

/// What a request says about itself.
#[derive(Debug, Default)]
pub(super) struct Meta {
    /// It stands for itself.
    pub(super) stateless: bool,
    /// What its client can ask, where it stands for itself.
    pub(super) capable: Capable,
    /// Names the request in news of its progress.
    pub(super) progress: Option<Value>,
    /// `toolkeep/mode`.
    pub(super) mode: Option<Mode>,
    /// `toolkeep/idempotencyKey`.
    pub(super) key: Option<String>,
    /// `toolkeep/run`.
    pub(super) run: Option<RunId>,
    /// `toolkeep/step`.
    pub(super) step: Option<String>,
    /// `toolkeep/usage`.
    pub(super) usage: Option<ReportedUsage>,
    /// The trace that it belongs to.
    pub(super) trace: Option<Value>,
}

impl Meta {
    /// Take `_meta` out of the parameters.
    ///
    /// # Errors
    /// It is no object, a key that has a meaning here has a wrong value, or the revision is not spoken.
    pub(super) fn take(params: &mut Map<String, Value>) -> Result<Self, Fault> {
        let mut members = match params.remove("_meta") {
            None => return Ok(Self::default()),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(bad("/_meta", "is not an object", "an object")),
        };
        let stateless = stateless(&members)?;
        let capable = if stateless { Capable::of(members.get(CAPABILITIES_KEY)) } else { Capable::default() };
        let progress = match members.remove("progressToken") {
            None => None,
            Some(token @ (Value::String(_) | Value::Number(_))) => Some(token),
            Some(_) => return Err(bad("/_meta/progressToken", "is neither a string nor a number", "a string")),
        };
        let trace: Map<String, Value> =
            TRACE_KEYS.iter().filter_map(|key| members.remove(*key).map(|value| ((*key).to_owned(), value))).collect();
        Ok(Self {
            stateless,
            capable,
            progress,
            mode: typed(&mut members, "toolkeep/mode", "`commit` or `preview`")?,
            key: typed(&mut members, "toolkeep/idempotencyKey", "a string")?,
            run: typed(&mut members, "toolkeep/run", "the id of a run")?,
            step: typed(&mut members, "toolkeep/step", "a string")?,
            usage: typed(&mut members, "toolkeep/usage", "what the model used, as in `calls.execute`")?,
            trace: (!trace.is_empty()).then_some(Value::Object(trace)),
        })
    }
}

/// Whether a request stands for itself, in a revision that is spoken.
fn stateless(members: &Map<String, Value>) -> Result<bool, Fault> {
    match members.get(VERSION_KEY) {
        None => return Ok(false),
        Some(Value::String(version)) if version == STATELESS => {}
        Some(Value::String(version)) => {
            let asked: String = version.chars().take(strict::QUOTED_MAX_CHARS).collect();
            let refusal = Refusal::new(Code::InvalidInput, "Unsupported protocol version");
            return Err(Fault::protocol(UNSUPPORTED_VERSION, refusal)
                .telling(json!({"supported": supported(), "requested": asked})));
        }
        Some(_) => return Err(bad(&pointer(VERSION_KEY), "is not a string", "a revision of the protocol")),
    }
    match members.get(CAPABILITIES_KEY) {
        Some(Value::Object(_)) => Ok(true),
        _ => Err(bad(&pointer(CAPABILITIES_KEY), "is missing or not an object", "what the client can do, an object")),
    }
}

/// Where a key of `_meta` is, as a JSON Pointer.
pub(super) fn pointer(key: &str) -> String {
    format!("/_meta/{}", key.replace('/', "~1"))
}

/// A member of an object in a JSON Pointer, shortened: others wrote it.
pub(super) fn member(key: &str) -> String {
    let shown: String = key.chars().take(strict::QUOTED_MAX_CHARS).collect();
    shown.replace('~', "~0").replace('/', "~1")
}

/// One of our own keys.
fn typed<T: serde::de::DeserializeOwned>(
    members: &mut Map<String, Value>,
    key: &str,
    expected: &str,
) -> Result<Option<T>, Fault> {
    let Some(value) = members.remove(key) else { return Ok(None) };
    strict::typed(value).map(Some).map_err(|error| bad(&pointer(key), &error.to_string(), expected))
}

/// Parameters that make no sense.
pub(super) fn bad(pointer: &str, problem: &str, expected: &str) -> Fault {
    let message = format!("`{}` {problem}", pointer.trim_start_matches('/'));
    Fault::protocol(INVALID_PARAMS, Refusal::new(Code::InvalidInput, message).field(pointer, problem, expected))
}

/// A text among the parameters.
///
/// # Errors
/// It is missing or no text.
pub(super) fn text(params: &mut Map<String, Value>, key: &str) -> Result<String, Fault> {
    match params.remove(key) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(bad(&format!("/{key}"), "is missing or not a string", "a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(value: Value) -> Result<Meta, (i32, Value)> {
        let mut params = Map::from_iter([("_meta".to_owned(), value)]);
        let read = Meta::take(&mut params).map_err(|fault| (fault.number, fault.data.unwrap_or_default()));
        assert!(params.is_empty());
        read
    }

    fn stateless(version: &str) -> Value {
        json!({VERSION_KEY: version, CAPABILITIES_KEY: {}})
    }

    #[test]
    fn r51_a_request_stands_for_itself_in_one_revision_only() {
        assert!(!meta(json!({})).expect("nothing said").stateless);
        assert!(meta(stateless(STATELESS)).expect("spoken").stateless);
        for other in ["2025-11-25", "2027-01-01", ""] {
            let (number, data) = meta(stateless(other)).expect_err(other);
            assert_eq!((number, &data["requested"]), (UNSUPPORTED_VERSION, &json!(other)));
            assert_eq!(data["supported"], json!(["2026-07-28", "2025-11-25", "2025-06-18"]));
        }
        for wrong in [json!({VERSION_KEY: STATELESS}), json!({VERSION_KEY: 7, CAPABILITIES_KEY: {}}), json!([])] {
            assert_eq!(meta(wrong).expect_err("wrong").0, INVALID_PARAMS);
        }
    }

    #[test]
    fn r51_our_own_keys_are_typed_and_those_of_others_left_alone() {
        let said = meta(json!({"toolkeep/mode": "preview", "toolkeep/step": "s", "progressToken": 7,
            "traceparent": "00-x", "com.example/x": [1]}));
        let said = said.expect("said");
        assert_eq!((said.mode, said.step.as_deref()), (Some(Mode::Preview), Some("s")));
        assert_eq!((said.progress, said.trace), (Some(json!(7)), Some(json!({"traceparent": "00-x"}))));
        for wrong in [
            json!({"toolkeep/mode": "force"}),
            json!({"toolkeep/idempotencyKey": 1}),
            json!({"toolkeep/run": "r"}),
            json!({"toolkeep/usage": {"tokens": 1}}),
            json!({"progressToken": {}}),
        ] {
            assert_eq!(meta(wrong.clone()).map(|_| ()).expect_err("wrong").0, INVALID_PARAMS, "{wrong}");
        }
    }

    #[test]
    fn r51_a_handshake_ends_with_what_the_client_wants_or_the_newest() {
        for (wanted, agreed_on) in [
            ("2025-06-18", "2025-06-18"),
            ("2025-11-25", "2025-11-25"),
            (STATELESS, "2025-11-25"),
            ("1999", "2025-11-25"),
        ] {
            assert_eq!(agreed(wanted), agreed_on);
        }
    }
}
