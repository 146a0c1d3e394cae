//! Resources: plans, receipts and outputs that are too long for an answer, each under an address that answers name.
//!
//! They are read by whoever owns them; an address of somebody else's is one that does not exist. There is no list of them,
//! because an agent knows its own from the answers that it got.

use serde_json::{Map, Value, json};
use toolkeep_core::id::{CallId, PlanId};
use toolkeep_core::refusal::{Code, Refusal};

use super::era::{Era, bad};
use super::result;
use crate::authenticate::Caller;
use crate::daemon::reply::{Body, Fault, INVALID_PARAMS};
use crate::host::{Host, PlanName};

/// There is no such resource, in the older era.
const RESOURCE_NOT_FOUND: i32 = -32_002;
/// What every address begins with.
const SCHEME: &str = "toolkeep://";

/// A resource that is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    uri: String,
    kind: Kind,
    /// Where in it to begin.
    from: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plan(PlanId),
    Receipt(CallId),
    Output(CallId),
}

/// The templates of all addresses.
pub(super) fn templates() -> Map<String, Value> {
    let template = |uri: &str, name: &str, what: &str| json!({"uriTemplate": format!("{SCHEME}{uri}"), "name": name, "description": what, "mimeType": "application/json"});
    let all = vec![
        template("plans/{plan}{?cursor}", "plan", "a plan with a page of its effects and the texts that they change"),
        template("receipts/{call}", "receipt", "the signed receipt of a committed call"),
        template("outputs/{call}{?offset}", "output", "a part of an output that was too long for its answer"),
    ];
    Map::from_iter([("resourceTemplates".to_owned(), Value::Array(all))])
}

impl Address {
    /// What an address names, if it is one.
    pub(super) fn parse(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix(SCHEME)?;
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let (kind, key) = match path.split_once('/')? {
            ("plans", id) => (Kind::Plan(id.parse().ok()?), Some("cursor=")),
            ("receipts", id) => (Kind::Receipt(id.parse().ok()?), None),
            ("outputs", id) => (Kind::Output(id.parse().ok()?), Some("offset=")),
            _ => return None,
        };
        let from = match (query, key) {
            (None, _) => 0,
            (Some(query), Some(key)) => query.strip_prefix(key)?.parse().ok()?,
            (Some(_), None) => return None,
        };
        Some(Self { uri: uri.to_owned(), kind, from })
    }

    /// Read it.
    pub(super) async fn read(self, host: Host, caller: Caller, era: Era) -> Body {
        let found = match self.kind {
            Kind::Plan(plan) => host.plan(&caller, PlanName::Id(plan), self.from, true).await,
            Kind::Receipt(call) => receipt(&host, &caller, call).await,
            Kind::Output(call) => host.output(&caller, call, self.from).await,
        };
        match found {
            Ok(value) => {
                let content = json!({"uri": self.uri, "mimeType": "application/json", "text": value.to_string()});
                result::kept(era, Map::from_iter([("contents".to_owned(), json!([content]))]), 0)
            }
            Err(refusal) if refusal.code == Code::NotFound => Body::Error(missing(era, &self.uri)),
            Err(refusal) => Body::Error(refusal.into()),
        }
    }
}

async fn receipt(host: &Host, caller: &Caller, call: CallId) -> Result<Value, Refusal> {
    let answer = host.call_state(caller, call).await?;
    let reply: Value = serde_json::from_str(&answer.reply).unwrap_or_default();
    reply.get("receipt").cloned().ok_or_else(|| Refusal::not_found("receipt"))
}

/// The answer to an address that names nothing of the caller's.
pub(super) fn missing(era: Era, uri: &str) -> Fault {
    let number = if era == Era::Stateless { INVALID_PARAMS } else { RESOURCE_NOT_FOUND };
    Fault::protocol(number, Refusal::not_found("resource")).telling(json!({"uri": uri}))
}

/// The list of resources, which is empty.
///
/// # Errors
/// There is no page after it.
pub(super) fn list(params: &Map<String, Value>) -> Result<Map<String, Value>, Fault> {
    if params.contains_key("cursor") {
        return Err(bad("/cursor", "is none that was given", "no cursor"));
    }
    Ok(Map::from_iter([("resources".to_owned(), json!([]))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_one_thing_or_nothing() {
        let id = "00000000-0000-7000-8000-000000000007";
        let from = |uri: &str| Address::parse(uri).map(|address| address.from);
        assert_eq!(from(&format!("toolkeep://plans/plan_{id}")), Some(0));
        assert_eq!(from(&format!("toolkeep://plans/plan_{id}?cursor=7")), Some(7));
        assert_eq!(from(&format!("toolkeep://outputs/call_{id}?offset=9")), Some(9));
        assert_eq!(from(&format!("toolkeep://receipts/call_{id}")), Some(0));
        for wrong in [
            "",
            "file:///etc/passwd",
            "toolkeep://",
            "toolkeep://plans",
            "toolkeep://plans/x",
            "toolkeep://approvals/x",
        ] {
            assert_eq!(from(wrong), None, "{wrong}");
        }
        for wrong in [
            "receipts/call_{id}?offset=1",
            "plans/plan_{id}?offset=1",
            "plans/plan_{id}?cursor=-1",
            "plans/plan_{id}/..",
            "plans/call_{id}",
            "outputs/call_{id}?offset=1&x",
        ] {
            assert_eq!(from(&format!("toolkeep://{}", wrong.replace("{id}", id))), None, "{wrong}");
        }
    }
}
