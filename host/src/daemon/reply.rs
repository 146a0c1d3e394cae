//! What goes back over a socket: results, errors and notifications as lines of JSON-RPC 2.0.
//!
//! The reply of a call is JSON text already, stored and signed elsewhere; it is embedded as it is and never parsed or
//! written again here. A [`Body`] without an id cannot be sent, so a reply to the wrong request would have to be
//! written on purpose.

use std::sync::Arc;

use serde_json::Value;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::capability::context::Progress;

use super::envelope::RequestId;
use crate::record::Answer;

/// The text is not JSON.
pub(super) const PARSE_ERROR: i32 = -32_700;
/// The JSON is not a request.
pub(super) const INVALID_REQUEST: i32 = -32_600;
/// The plane has no such method.
pub(super) const METHOD_NOT_FOUND: i32 = -32_601;
/// The method has no such parameters.
pub(super) const INVALID_PARAMS: i32 = -32_602;

/// What answers one request.
#[derive(Debug)]
pub(super) enum Body {
    /// The reply of a call: status, outcome and the rest, refused or not.
    Call {
        /// JSON text of a [`toolkeep_core::call::Reply`].
        reply: Arc<str>,
        /// Whether it was stored by an earlier request with the same key.
        replayed: bool,
        /// What is left of the budgets, JSON.
        budget: Option<Arc<str>>,
    },
    /// The result of any other method.
    Value(Value),
    /// Anything that is not a result.
    Error(Fault),
    /// Lines that are there instead of an answer: none, where nobody waits for one any more.
    Instead(Vec<u8>),
}

/// A JSON-RPC error.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// One of the standard numbers, or [`Code::rpc`].
    pub(super) number: i32,
    /// What is wrong and what to do about it; its message is also that of the error.
    pub(super) refusal: Box<Refusal>,
    /// What is told instead of the refusal, where the protocol of a door says what it must be.
    pub(super) data: Option<Value>,
}

impl Fault {
    /// An error of the protocol: `number` is one of the standard ones.
    pub(super) fn protocol(number: i32, refusal: Refusal) -> Self {
        Self { number, refusal: Box::new(refusal), data: None }
    }

    /// With the data that a protocol demands.
    pub(super) fn telling(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// A method that the plane does not have. It is the same answer for a method of the other plane.
    pub(super) fn no_method(name: &str) -> Self {
        let shown: String = name.chars().take(80).flat_map(char::escape_default).collect();
        let refusal = Refusal::new(Code::InvalidInput, format!("there is no method `{shown}`"))
            .hint("`docs/protocol.md` lists the methods of this socket");
        Self::protocol(METHOD_NOT_FOUND, refusal)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self { number: refusal.code.rpc(), refusal: Box::new(refusal), data: None }
    }
}

impl From<Answer> for Body {
    fn from(answer: Answer) -> Self {
        Self::Call { reply: answer.reply, replayed: answer.replayed, budget: answer.budget }
    }
}

impl From<Result<Value, Refusal>> for Body {
    fn from(result: Result<Value, Refusal>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(refusal) => Self::Error(refusal.into()),
        }
    }
}

impl From<Result<Answer, Refusal>> for Body {
    fn from(result: Result<Answer, Refusal>) -> Self {
        match result {
            Ok(answer) => answer.into(),
            Err(refusal) => Self::Error(refusal.into()),
        }
    }
}

/// Append the line that answers `id`; no id is written as `null`, for requests whose id was not understood.
pub(super) fn write_line(out: &mut Vec<u8>, id: Option<&RequestId>, body: &Body) {
    if let Body::Instead(lines) = body {
        out.extend_from_slice(lines);
        return;
    }
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    match id {
        Some(id) => write_id(out, id),
        None => out.extend_from_slice(b"null"),
    }
    match body {
        Body::Call { reply, replayed, budget } => {
            out.extend_from_slice(b",\"result\":{\"reply\":");
            out.extend_from_slice(reply.as_bytes());
            out.extend_from_slice(b",\"replayed\":");
            out.extend_from_slice(if *replayed { b"true" } else { b"false" });
            out.extend_from_slice(b",\"budget_remaining\":");
            out.extend_from_slice(budget.as_deref().unwrap_or("null").as_bytes());
            out.push(b'}');
        }
        Body::Value(value) => {
            out.extend_from_slice(b",\"result\":");
            write_json(out, value);
        }
        Body::Error(fault) => {
            out.extend_from_slice(b",\"error\":{\"code\":");
            out.extend_from_slice(fault.number.to_string().as_bytes());
            out.extend_from_slice(b",\"message\":");
            write_json(out, &fault.refusal.message);
            out.extend_from_slice(b",\"data\":");
            match &fault.data {
                Some(data) => write_json(out, data),
                None => write_json(out, &*fault.refusal),
            }
            out.push(b'}');
        }
        Body::Instead(_) => {}
    }
    out.extend_from_slice(b"}\n");
}

/// The line of a `call.progress` notification.
pub(super) fn progress_line(id: &RequestId, note: &Progress) -> Vec<u8> {
    let mut out = b"{\"jsonrpc\":\"2.0\",\"method\":\"call.progress\",\"params\":{\"request\":".to_vec();
    write_id(&mut out, id);
    out.extend_from_slice(b",\"done\":");
    write_json(&mut out, &note.done);
    out.extend_from_slice(b",\"total\":");
    write_json(&mut out, &note.total);
    out.extend_from_slice(b",\"message\":");
    write_json(&mut out, &note.message);
    out.extend_from_slice(b"}}\n");
    out
}

fn write_id(out: &mut Vec<u8>, id: &RequestId) {
    match id {
        RequestId::Text(text) => write_json(out, text),
        RequestId::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
    }
}

/// Values of these types have string keys and finite numbers, so writing them into memory cannot fail; should it do so,
/// `null` keeps the line well-formed.
fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let before = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(id: Option<&RequestId>, body: &Body) -> String {
        let mut out = Vec::new();
        write_line(&mut out, id, body);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_reply_is_embedded_byte_for_byte_beside_what_is_not_stored() {
        let stored: Arc<str> = "{\"status\" : \"ok\",\"x\":1.50}".into();
        assert_eq!(
            line(Some(&RequestId::Number(-7)), &Body::Call { reply: stored, replayed: true, budget: None }),
            "{\"jsonrpc\":\"2.0\",\"id\":-7,\"result\":{\"reply\":{\"status\" : \"ok\",\"x\":1.50},\"replayed\":true,\"budget_remaining\":null}}\n"
        );
    }

    #[test]
    fn ids_and_messages_never_break_the_line() {
        let id = RequestId::Text("a\"\n\u{2028}b".into());
        let fault = Fault::from(Refusal::not_found("call\nx"));
        let text = line(Some(&id), &Body::Error(fault));
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let parsed: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(parsed["id"], json!("a\"\n\u{2028}b"));
        assert_eq!(parsed["error"]["code"], json!(Code::NotFound.rpc()));
        assert_eq!(parsed["error"]["data"]["code"], json!("not_found"));
        let note = Progress { done: 1, total: None, message: "half\r\n".to_owned() };
        let text = String::from_utf8(progress_line(&id, &note)).expect("text");
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let parsed: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(
            parsed["params"],
            json!({"request": "a\"\n\u{2028}b", "done": 1, "total": null, "message": "half\r\n"})
        );
    }
}
