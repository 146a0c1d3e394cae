//! The envelope of a request: JSON-RPC 2.0 and nothing that JSON-RPC leaves open.
//!
//! A line is read once, strictly. What is wrong with it is said with the id where the id could be understood, and with
//! `null` where not. There are no batches, and no notifications from clients: a message without an
//! id is refused instead of ignored, because an agent that forgot the id must not wait for an answer for ever.

use serde_json::{Map, Value};
use toolkeep_core::json;
use toolkeep_core::refusal::{Code, Refusal};

use super::bounds::{ID_MAX_BYTES, ID_MAX_INTEGER};
use super::reply::{Fault, INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR};

/// What names a request within its connection. It never leaves the connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum RequestId {
    /// At most [`ID_MAX_BYTES`] bytes.
    Text(Box<str>),
    /// At most [`ID_MAX_INTEGER`] either side of zero.
    Number(i64),
}

/// A request whose envelope is right.
#[derive(Debug)]
pub(super) struct Request {
    /// Names it.
    pub(super) id: RequestId,
    /// Not yet looked up.
    pub(super) method: String,
    /// Named parameters; empty where there were none.
    pub(super) params: Map<String, Value>,
}

/// Read a request from one line.
///
/// # Errors
/// The fault, with the id if that could be understood.
pub(super) fn read(line: &[u8]) -> Result<Request, (Option<RequestId>, Fault)> {
    request(object(line).map_err(|fault| (None, fault))?)
}

/// Read the one object that a message is.
///
/// # Errors
/// The line is not strict JSON, or not one object.
pub(super) fn object(line: &[u8]) -> Result<Map<String, Value>, Fault> {
    match json::parse(line).map_err(|error| Fault::protocol(PARSE_ERROR, error.into()))? {
        Value::Object(members) => Ok(members),
        Value::Array(_) => Err(invalid("", "batches are not supported", "one request object per line")),
        _ => Err(invalid("", "the line is not an object", "a request object")),
    }
}

/// A request from its members.
///
/// # Errors
/// As [`read`].
pub(super) fn request(mut members: Map<String, Value>) -> Result<Request, (Option<RequestId>, Fault)> {
    let id = read_id(members.remove("id")).map_err(|fault| (None, fault))?;
    match read_rest(members) {
        Ok((method, params)) => Ok(Request { id, method, params }),
        Err(fault) => Err((Some(id), fault)),
    }
}

/// An id from its member.
///
/// # Errors
/// It is missing, or of another type or size.
pub(super) fn read_id(id: Option<Value>) -> Result<RequestId, Fault> {
    const WANTED: &str = "a string of at most 128 bytes, or an integer of at most 2^53 - 1 either side of zero";
    let refuse = |problem| Err(invalid("/id", problem, WANTED));
    match id {
        None => refuse("is missing; there are no notifications from clients"),
        Some(Value::String(text)) if text.len() <= ID_MAX_BYTES => Ok(RequestId::Text(text.into())),
        Some(Value::String(_)) => refuse("is longer than 128 bytes"),
        Some(Value::Number(number)) => match number.as_i64() {
            Some(number) if (-ID_MAX_INTEGER..=ID_MAX_INTEGER).contains(&number) => Ok(RequestId::Number(number)),
            Some(_) | None => refuse("is not an integer of at most 2^53 - 1"),
        },
        Some(_) => refuse("is neither a string nor an integer"),
    }
}

/// Method and parameters, and no other member.
///
/// # Errors
/// The version is another one, or a member is missing, unknown or of the wrong type.
pub(super) fn read_rest(mut members: Map<String, Value>) -> Result<(String, Map<String, Value>), Fault> {
    match members.remove("jsonrpc") {
        Some(Value::String(version)) if version == "2.0" => {}
        Some(_) => return Err(invalid("/jsonrpc", "is not the version that is spoken here", "\"2.0\"")),
        None => return Err(invalid("/jsonrpc", "is missing", "\"2.0\"")),
    }
    let method = match members.remove("method") {
        Some(Value::String(method)) => method,
        Some(_) => return Err(invalid("/method", "is not a string", "the name of a method")),
        None => return Err(invalid("/method", "is missing", "the name of a method")),
    };
    let params = match members.remove("params") {
        None => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => {
            let problem = Refusal::new(Code::InvalidInput, "`params` must be an object: parameters have names");
            let problem = problem.field("/params", "is not an object", "an object of named parameters");
            return Err(Fault::protocol(INVALID_PARAMS, problem));
        }
    };
    match members.keys().next() {
        Some(unknown) => {
            let pointer = format!("/{}", unknown.replace('~', "~0").replace('/', "~1"));
            let pointer: String = pointer.chars().take(json::QUOTED_MAX_CHARS).collect();
            Err(invalid(&pointer, "is not a member of a request", "`jsonrpc`, `id`, `method` and `params` only"))
        }
        None => Ok((method, params)),
    }
}

fn invalid(pointer: &str, problem: &str, expected: &str) -> Fault {
    let message = if pointer.is_empty() {
        format!("{problem}: send {expected}")
    } else {
        let name: String = pointer.trim_start_matches('/').chars().flat_map(char::escape_default).collect();
        format!("`{name}` {problem}")
    };
    let refusal = Refusal::new(Code::InvalidInput, message).field(pointer, problem, expected);
    Fault::protocol(INVALID_REQUEST, refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expectations are written where they are passed")]
    fn check(line: &str, expect: Result<RequestId, (Option<RequestId>, i32)>) {
        let read = read(line.as_bytes()).map(|r| r.id).map_err(|(id, fault)| (id, fault.number));
        assert_eq!(read, expect, "{line}");
    }

    fn text(id: &str) -> RequestId {
        RequestId::Text(id.into())
    }

    #[test]
    fn every_departure_from_the_envelope_is_refused_with_the_id_that_was_understood() {
        let one = || Some(RequestId::Number(1));
        check(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#, Ok(RequestId::Number(1)));
        check(r#" {"jsonrpc":"2.0","id":"","method":"m","params":{}} "#, Ok(text("")));
        check("", Err((None, PARSE_ERROR)));
        check("{", Err((None, PARSE_ERROR)));
        check(r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"m"}"#, Err((None, PARSE_ERROR)));
        check("[]", Err((None, INVALID_REQUEST)));
        check(r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#, Err((None, INVALID_REQUEST)));
        check("1", Err((None, INVALID_REQUEST)));
        check(r#"{"jsonrpc":"2.0","method":"m"}"#, Err((None, INVALID_REQUEST)));
        check(r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, Err((None, INVALID_REQUEST)));
        check(r#"{"jsonrpc":"2.0","id":1.0,"method":"m"}"#, Err((None, INVALID_REQUEST)));
        check(r#"{"jsonrpc":"2.0","id":[1],"method":"m"}"#, Err((None, INVALID_REQUEST)));
        check(r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, Err((None, INVALID_REQUEST)));
        check(r#"{"id":1,"method":"m"}"#, Err((one(), INVALID_REQUEST)));
        check(r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, Err((one(), INVALID_REQUEST)));
        check(r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#, Err((one(), INVALID_REQUEST)));
        check(r#"{"jsonrpc":"2.0","id":1}"#, Err((one(), INVALID_REQUEST)));
        check(r#"{"jsonrpc":"2.0","id":1,"method":7}"#, Err((one(), INVALID_REQUEST)));
        check(r#"{"jsonrpc":"2.0","id":1,"method":"m","x":1}"#, Err((one(), INVALID_REQUEST)));
        check(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[]}"#, Err((one(), INVALID_PARAMS)));
        check(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#, Err((one(), INVALID_PARAMS)));
    }

    #[test]
    fn ids_hold_at_their_bounds_and_one_above() {
        let request = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#);
        let longest = "x".repeat(ID_MAX_BYTES);
        check(&request(&format!("{longest:?}")), Ok(text(&longest)));
        check(&request(&format!("\"{longest}x\"")), Err((None, INVALID_REQUEST)));
        for sign in ["", "-"] {
            check(
                &request(&format!("{sign}{ID_MAX_INTEGER}")),
                Ok(RequestId::Number(if sign.is_empty() { ID_MAX_INTEGER } else { -ID_MAX_INTEGER })),
            );
            check(&request(&format!("{sign}{}", ID_MAX_INTEGER + 1)), Err((None, INVALID_REQUEST)));
        }
    }
}
