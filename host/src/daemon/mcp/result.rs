//! From the reply of a call to what an agent reads.
//!
//! Status, outcome, output and plan are structured content, and the same as text for clients that only show text. What is
//! about the call and not of it, its cost and what is left of budgets, goes into `_meta`, where it costs the model nothing.
//! A call that waits for people is a result like any other: nothing has gone wrong.

use serde_json::{Map, Value, json};
use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::refusal::{Code, Refusal};

use super::era::{Era, SERVER_KEY, server};
use crate::daemon::reply::Body;
use crate::record::Answer;

/// Effects of a plan that an answer shows; the resource of the plan has the rest. A model reads all of this.
const EFFECTS_TOLD: usize = 20;

/// A finished result in the words of its era.
pub(super) fn finished(era: Era, mut members: Map<String, Value>) -> Body {
    if era == Era::Stateless {
        members.insert("resultType".to_owned(), json!("complete"));
        let meta = members.entry("_meta").or_insert_with(|| json!({}));
        if let Value::Object(meta) = meta {
            meta.insert(SERVER_KEY.to_owned(), server());
        }
    }
    Body::Value(Value::Object(members))
}

/// A result that asks the client for something, for which the same request is repeated.
pub(super) fn input_required(requests: &Value, state: &str) -> Body {
    Body::Value(json!({"resultType": "input_required", "inputRequests": requests, "requestState": state,
        "_meta": {SERVER_KEY: server()}}))
}

/// A result that may be kept for a while, by whoever asked.
pub(super) fn kept(era: Era, mut members: Map<String, Value>, ttl_ms: u64) -> Body {
    if era == Era::Stateless {
        members.insert("ttlMs".to_owned(), json!(ttl_ms));
        members.insert("cacheScope".to_owned(), json!("private"));
    }
    finished(era, members)
}

/// The result of a call.
pub(super) fn of(era: Era, answer: &Answer) -> Body {
    let Ok(Value::Object(mut reply)) = serde_json::from_str(&answer.reply) else {
        tracing::error!("BUG: a reply is no object");
        return refused(era, &Refusal::new(Code::Internal, "the reply of the call cannot be read"));
    };
    let call = reply.get("call_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut links = Vec::new();
    let mut said = Map::new();
    let held = answer.outcome == Outcome::Pending;
    said.insert("status".to_owned(), if held { json!("approval_required") } else { json!(answer.status) });
    for key in ["outcome", "call_id", "output", "error", "transaction", "detour", "trace_id"] {
        if let Some(value) = reply.remove(key) {
            said.insert(key.to_owned(), value);
        }
    }
    if let Some(mut plan) = reply.remove("plan") {
        shorten(&mut plan);
        if let Some(id) = plan.get("id").and_then(Value::as_str) {
            links.push(link("plans", id, "the plan, with its effects and contents"));
        }
        said.insert(if held { "preview" } else { "plan" }.to_owned(), plan);
    }
    if held {
        hold(&mut said, reply.remove("approval"));
    }
    if reply.contains_key("receipt") {
        links.push(link("receipts", &call, "the signed receipt of the commit"));
    }
    if said.get("output").is_some_and(|output| output.pointer("/spilled/bytes").is_some()) {
        links.push(link("outputs", &call, "the whole output"));
    }
    for key in ["warnings", "labels"] {
        if let Some(list) = reply.remove(key).filter(|list| list.as_array().is_some_and(|list| !list.is_empty())) {
            said.insert(key.to_owned(), list);
        }
    }
    let budget: Value = answer.budget.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let meta = json!({"toolkeep/usage": reply.remove("usage"), "toolkeep/replayed": answer.replayed,
        "toolkeep/budgetRemaining": budget});
    let wrong = matches!(answer.status, Status::Denied | Status::Failed | Status::Unknown);
    result(era, (Value::Object(said), links), wrong, Some(meta))
}

/// A refusal that an agent can do something about: a result that is an error, not an error of the protocol.
pub(super) fn refused(era: Era, refusal: &Refusal) -> Body {
    result(era, (json!({"status": "denied", "error": refusal}), Vec::new()), true, None)
}

fn result(era: Era, (said, links): (Value, Vec<Value>), wrong: bool, meta: Option<Value>) -> Body {
    let mut content = vec![json!({"type": "text", "text": said.to_string()})];
    content.extend(links);
    let mut members = Map::from_iter([
        ("content".to_owned(), Value::Array(content)),
        ("structuredContent".to_owned(), said),
        ("isError".to_owned(), json!(wrong)),
    ]);
    if let Some(meta) = meta {
        members.insert("_meta".to_owned(), meta);
    }
    finished(era, members)
}

/// What a held call waits for, and what to do meanwhile.
fn hold(said: &mut Map<String, Value>, approval: Option<Value>) {
    let mut approval = approval.unwrap_or_default();
    for (key, name) in [("id", "approval_id"), ("approvers", "approvers")] {
        if let Some(value) = approval.get_mut(key) {
            said.insert(name.to_owned(), value.take());
        }
    }
    let at = approval.get("expires_at_ms").and_then(Value::as_i64);
    if let Some(at) = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
        said.insert("expires_at".to_owned(), json!(at.to_string()));
    }
    // It is no failure, so what it waits for is told as a message.
    let message = said.remove("error").and_then(|mut error| error.get_mut("message").map(Value::take));
    said.insert("message".to_owned(), message.unwrap_or_default());
    said.insert(
        "next".to_owned(),
        json!(
            "nothing has changed yet; call `toolkeep.wait` with this approval_id, and go on when people have decided"
        ),
    );
}

fn shorten(plan: &mut Value) {
    let Some(effects) = plan.get_mut("effects").and_then(Value::as_array_mut) else { return };
    let more = effects.len().saturating_sub(EFFECTS_TOLD);
    effects.truncate(EFFECTS_TOLD);
    if let (true, Value::Object(plan)) = (more > 0, plan) {
        plan.insert("more_effects".to_owned(), json!(more));
    }
}

fn link(kind: &str, id: &str, title: &str) -> Value {
    let uri = format!("toolkeep://{kind}/{id}");
    json!({"type": "resource_link", "uri": uri, "name": id, "title": title, "mimeType": "application/json"})
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn answer(status: Status, outcome: Outcome, reply: &Value) -> Answer {
        let reply: Arc<str> = reply.to_string().into();
        Answer { reply, status, outcome, code: None, replayed: false, budget: None }
    }

    fn value(body: Body) -> Value {
        match body {
            Body::Value(value) => value,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn r51_a_held_call_is_no_error_and_says_what_to_do() {
        let effects: Vec<usize> = (0..EFFECTS_TOLD + 2).collect();
        let reply = json!({"status": "held", "outcome": "pending", "call_id": "call_1",
            "error": {"code": "approval_required", "message": "held: m"}, "plan": {"id": "plan_1", "effects": effects},
            "approval": {"id": "appr_1", "approvers": 1, "expires_at_ms": 0}, "usage": {"fuel": 1}});
        let result = value(of(Era::Handshake, &answer(Status::Held, Outcome::Pending, &reply)));
        let said = &result["structuredContent"];
        assert_eq!(result["isError"], json!(false));
        assert_eq!((&said["status"], &said["approval_id"]), (&json!("approval_required"), &json!("appr_1")));
        assert_eq!((&said["expires_at"], &said["message"]), (&json!("1970-01-01T00:00:00Z"), &json!("held: m")));
        assert_eq!(said["preview"]["effects"].as_array().map(Vec::len), Some(EFFECTS_TOLD));
        assert_eq!(said["preview"]["more_effects"], json!(2));
        assert_eq!(result["content"][1]["uri"], json!("toolkeep://plans/plan_1"));
        assert_eq!(
            result["content"][0]["text"].as_str().map(serde_json::from_str::<Value>).and_then(Result::ok),
            Some(said.clone())
        );
        assert_eq!(result["_meta"]["toolkeep/usage"], json!({"fuel": 1}));
        assert_eq!(result.get("resultType"), None, "not in the words of the older era");
    }

    #[test]
    fn r51_results_of_the_newer_era_say_that_they_are_whole_and_from_whom() {
        let reply = json!({"status": "failed", "outcome": "none", "call_id": "call_1", "error": {"message": "m"}});
        let result = value(of(Era::Stateless, &answer(Status::Failed, Outcome::None, &reply)));
        assert_eq!((&result["resultType"], &result["isError"]), (&json!("complete"), &json!(true)));
        assert_eq!(result["_meta"][SERVER_KEY]["name"], json!("toolkeep"));
        let kept = value(kept(Era::Stateless, Map::new(), 7));
        assert_eq!((&kept["ttlMs"], &kept["cacheScope"]), (&json!(7), &json!("private")));
    }
}
