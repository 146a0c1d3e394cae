//! Holds by elicitation: asking whoever uses the agent, where its client can.
//!
//! A client that opens addresses is given that of the page where people decide, if the operator has one: the decision does not
//! pass through the agent, and its answer says only that somebody went there. A form is shown where its answer is enough
//! ([`crate::host::Question::confirmable`]); what it says is taken by [`Host::confirm`], which looks again. Everybody
//! else is told that the call waits. The newer era asks with a result and is answered by the same request, repeated; the older
//! one asks with a request of its own. Nobody has to answer: the plan waits as it would have.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use toolkeep_core::call::Outcome;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::ApprovalId;

use super::asks::Asks;
use super::capable::Capable;
use super::engine;
use super::era::{Era, bad, member};
use super::result;
use super::state::{Manner, Posed, STATE_TTL_MS, States};
use crate::authenticate::Caller;
use crate::daemon::agent::until_stop;
use crate::daemon::plane::Work;
use crate::daemon::reply::{Body, Fault};
use crate::daemon::server::stop_asked;
use crate::host::{Host, Question};
use crate::record::Answer;

/// What the one question of a result is called.
const KEY: &str = "approval";
/// The member of the form that has to be true.
const OK: &str = "ok";
/// How long an older client is waited for: five minutes, in which a person reads a short plan.
const ASK_PATIENCE: Duration = Duration::from_secs(300);
/// How long people are waited for who were sent to the page, in milliseconds: less than the minute after which clients give up.
const PAGE_WAIT_MS: u64 = 45_000;

/// How the client of a call can be asked.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) era: Era,
    pub(super) capable: Capable,
    /// Its open questions, where it is asked with requests.
    pub(super) asks: Option<Asks>,
    /// Where requests and news go.
    pub(super) lines: mpsc::Sender<Vec<u8>>,
    pub(super) states: States,
    pub(super) stop: watch::Receiver<bool>,
}

/// The second round of a call of the newer era: the answer to what its first round asked.
#[derive(Debug)]
pub(super) struct Round {
    asked: Posed,
    /// Nothing where the client left it out.
    said: Option<Said>,
}

/// What somebody said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// Yes, to a form; or went to the page.
    Accepted {
        /// What the form says; nothing where it does not say it.
        ok: Option<bool>,
    },
    Declined,
    Cancelled,
}

impl Said {
    /// Read the result of an elicitation; nothing if it is none.
    fn read(result: &Value) -> Option<Self> {
        match result.get("action")?.as_str()? {
            "accept" => {
                let ok = result.get("content").and_then(|content| content.get(OK)).and_then(Value::as_bool);
                Some(Self::Accepted { ok })
            }
            "decline" => Some(Self::Declined),
            "cancel" => Some(Self::Cancelled),
            _ => None,
        }
    }
}

/// Take the members of a second round out of the parameters of a call, which `name_of_call` names.
///
/// # Errors
/// They are of a wrong type, or the state is none that was given to this caller for this call, or it is too old.
pub(super) fn round(
    params: &mut Map<String, Value>,
    (host, caller): (&Host, &Caller),
    states: &States,
    name_of_call: Option<Digest>,
) -> Result<Option<Round>, Fault> {
    const STATE: &str =
        "the `requestState` that the first round of this very call was answered with, within a quarter of an hour";
    let responses = match params.remove("inputResponses") {
        None => Map::new(),
        Some(Value::Object(responses)) => responses,
        Some(_) => return Err(bad("/inputResponses", "is not an object", "an answer for each of `inputRequests`")),
    };
    if let Some(wrong) = responses.iter().find(|(_, response)| !response.is_object()).map(|(key, _)| key) {
        let pointer = format!("/inputResponses/{}", member(wrong));
        return Err(bad(&pointer, "is not an object", "the result of the request of this name"));
    }
    let state = match params.remove("requestState") {
        // Every question has a state, so answers without one answer none: the call is made, and what is missing asked for (SEP-2322).
        None => return Ok(None),
        Some(Value::String(state)) => state,
        Some(_) => return Err(bad("/requestState", "is not a string", STATE)),
    };
    let asked = name_of_call.and_then(|call| states.read(&state, caller, call, host.now_ms()));
    let asked = asked.ok_or_else(|| bad("/requestState", "is none that is taken here", STATE))?;
    let said = match responses.get(KEY) {
        None => None,
        Some(response) => {
            let pointer = format!("/inputResponses/{KEY}");
            let wanted = "an `action` that is `accept`, `decline` or `cancel`";
            Some(Said::read(response).ok_or_else(|| bad(&pointer, "says nothing that is understood", wanted))?)
        }
    };
    Ok(Some(Round { asked, said }))
}

/// What a second round comes to.
pub(super) fn second(round: Round, host: Host, caller: Caller, terms: Terms, call: Digest) -> Work {
    Box::pin(async move {
        let Round { asked, said } = round;
        let unsaid = asked.manner == Manner::Form && said == Some(Said::Accepted { ok: None });
        let Some(said) = said.filter(|_| !unsaid) else {
            // What is missing is asked for again.
            return match host.wait_approval(&caller, asked.approval, 0).await {
                Ok(answer) => told(&host, &caller, &terms, Some(call), answer).await,
                Err(refusal) => result::refused(terms.era, &refusal),
            };
        };
        weighed(&host, &caller, &terms, (&asked, said)).await
    })
}

/// What a call is answered with: what it came to, or, where it waits for people and its client can ask somebody, a question.
/// `call` names it, for the answer.
pub(super) async fn told(host: &Host, caller: &Caller, terms: &Terms, call: Option<Digest>, answer: Answer) -> Body {
    let Some((asked, question)) = question(host, caller, terms, &answer).await else {
        return result::of(terms.era, &answer);
    };
    match (terms.era, &terms.asks, call) {
        (Era::Stateless, _, Some(call)) => {
            let params = params_of(&asked, &question, false);
            match terms.states.write(caller, call, &asked) {
                Some(state) => result::input_required(&json!({KEY: {"method": CREATE, "params": params}}), &state),
                None => result::of(terms.era, &answer),
            }
        }
        (Era::Handshake, Some(asks), _) => match ask(asks, terms, params_of(&asked, &question, true)).await {
            Some(said) => weighed(host, caller, terms, (&asked, said)).await,
            None => result::of(terms.era, &answer),
        },
        _ => result::of(terms.era, &answer),
    }
}

/// The method by which somebody is asked.
const CREATE: &str = "elicitation/create";

/// What is asked about a call that waits, if anybody can be asked.
async fn question(host: &Host, caller: &Caller, terms: &Terms, answer: &Answer) -> Option<(Posed, Question)> {
    if answer.outcome != Outcome::Pending || !terms.capable.any() {
        return None;
    }
    let reply: Value = serde_json::from_str(&answer.reply).ok()?;
    let approval: ApprovalId = reply.pointer("/approval/id")?.as_str()?.parse().ok()?;
    let question = host.question(caller, approval).await.ok()?;
    let manner = match &question.page {
        Some(_) if terms.capable.page => Manner::Page,
        _ if terms.capable.form && question.confirmable => Manner::Form,
        _ => return None,
    };
    let until_ms = host.now_ms().saturating_add(STATE_TTL_MS).min(question.expires_at_ms);
    Some((Posed { approval, seal: question.seal, manner, until_ms }, question))
}

/// The parameters of the request that asks. `named`: the older era also names what an address is about.
fn params_of(asked: &Posed, question: &Question, named: bool) -> Value {
    match (&asked.manner, &question.page) {
        (Manner::Page, Some(page)) => {
            let mut params = json!({"mode": "url", "url": page, "message": question.message(true)});
            if let (true, Value::Object(params)) = (named, &mut params) {
                params.insert("elicitationId".to_owned(), json!(asked.approval));
            }
            params
        }
        _ => json!({"message": question.message(false), "requestedSchema": {
            "type": "object",
            "properties": {OK: {"type": "boolean", "title": "Commit this plan", "default": false,
                "description": "Leave it off to leave the plan to the people who are asked otherwise"}},
            "required": [OK],
        }}),
    }
}

/// A question that is before somebody. It is withdrawn where it is dropped without an answer, because its time is over or because
/// the call was cancelled: nobody is to believe that a yes still counts.
struct Standing<'t> {
    lines: &'t mpsc::Sender<Vec<u8>>,
    id: String,
    answered: bool,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let withdrawn = json!({"requestId": self.id, "reason": "nobody waits for the answer any more"});
        if self.lines.try_send(engine::notification("notifications/cancelled", &withdrawn)).is_err() {
            tracing::debug!("a question is not withdrawn: the peer does not read");
        }
    }
}

/// Ask an older client with a request, and wait as long as a person needs; nothing where nobody said anything.
async fn ask(asks: &Asks, terms: &Terms, params: Value) -> Option<Said> {
    let mut ask = asks.open()?;
    terms.lines.send(engine::request(&ask.id(), CREATE, &params)).await.ok()?;
    let mut standing = Standing { lines: &terms.lines, id: ask.id(), answered: false };
    let mut stop = terms.stop.clone();
    let answer = tokio::select! {
        answer = tokio::time::timeout(ASK_PATIENCE, ask.answered()) => answer.ok(),
        () = stop_asked(&mut stop) => None,
    };
    standing.answered = answer.is_some();
    drop(standing);
    answer.flatten().as_ref().and_then(Said::read)
}

/// What an answer comes to.
async fn weighed(host: &Host, caller: &Caller, terms: &Terms, (asked, said): (&Posed, Said)) -> Body {
    let (approval, seal) = (asked.approval, asked.seal);
    let answered = match (asked.manner, said) {
        (Manner::Form, Said::Accepted { ok: Some(true) }) => host.confirm(caller, approval, seal, true).await,
        (Manner::Form, Said::Declined) => host.confirm(caller, approval, seal, false).await,
        (Manner::Page, Said::Accepted { .. }) => {
            let waited = until_stop(host.wait_approval(caller, approval, PAGE_WAIT_MS), terms.stop.clone()).await;
            if let (Ok(answer), Some(_)) = (&waited, &terms.asks)
                && answer.outcome != Outcome::Pending
            {
                let done = json!({"elicitationId": approval});
                if terms.lines.try_send(engine::notification("notifications/elicitation/complete", &done)).is_err() {
                    tracing::debug!("a client is not told that its user is done: it does not read");
                }
            }
            waited
        }
        // Nobody said yes or no: it waits for those who were asked otherwise.
        (Manner::Form, Said::Accepted { ok: Some(false) | None } | Said::Cancelled)
        | (Manner::Page, Said::Declined | Said::Cancelled) => host.wait_approval(caller, approval, 0).await,
    };
    match answered {
        Ok(answer) => result::of(terms.era, &answer),
        Err(refusal) => result::refused(terms.era, &refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r51_an_answer_is_one_of_three_and_only_a_true_member_is_a_yes() {
        let accepted = |ok| Some(Said::Accepted { ok });
        for (result, expected) in [
            (json!({"action": "accept", "content": {"ok": true}}), accepted(Some(true))),
            (json!({"action": "accept", "content": {"ok": false}}), accepted(Some(false))),
            (json!({"action": "accept", "content": {"ok": "true"}}), accepted(None)),
            (json!({"action": "accept", "content": {"ok": 1}}), accepted(None)),
            (json!({"action": "accept", "content": {"yes": true}}), accepted(None)),
            (json!({"action": "accept", "ok": true}), accepted(None)),
            (json!({"action": "accept"}), accepted(None)),
            (json!({"action": "decline", "content": {"ok": true}}), Some(Said::Declined)),
            (json!({"action": "cancel"}), Some(Said::Cancelled)),
            (json!({"action": "approve", "content": {"ok": true}}), None),
            (json!({"action": true}), None),
            (json!({"content": {"ok": true}}), None),
            (json!({}), None),
            (json!([]), None),
        ] {
            assert_eq!(Said::read(&result), expected, "{result}");
        }
    }
}
