//! Requests of a plan: sent between the intent and everything else, one after the other, each at most once.
//!
//! What is next is a pure function of the states ([`toolkeep_core::send`]); every step of it is on record before a byte
//! leaves. The same code drives a commit, a commit that the last life began, and one that an operator resolved.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Delivery, Effect, Header, HttpEffect, Reversal};
use toolkeep_core::id::{GrantName, PlanId};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::send::{ATTEMPTS_MAX, Dispatch, Goal, Judgement, Next, SendState, judge, next};
use toolkeep_sandbox::port::HttpAnswer;

use super::Committer;
use crate::egress::{Granted, Incoming, Limits, Outgoing, Purpose, Reason, SendError};
use crate::kill::Deed;
use crate::ledger::{LedgerError, SendMove, StoredSend};
use crate::port::has_failed;

/// How long the first repetition of an idempotent request waits; each further one waits twice as long.
const REPEAT_AFTER: Duration = Duration::from_millis(250);
/// Bytes of an answer's body that are kept with a staged request: enough to see what went wrong.
const KEPT_BYTES: usize = 16 * 1024;

/// How the requests of a plan ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Dispatched {
    /// All are sent.
    Sent,
    /// Nobody knows about this one.
    Unknown {
        /// Which, as people read it.
        what: String,
        /// Why.
        problem: String,
    },
    /// One was not done; whatever was sent before it is undone or may stay.
    TakenBack {
        /// Why.
        problem: String,
    },
    /// One was not done, and these that were sent before it stay.
    Halted {
        /// What stays.
        remnants: Vec<String>,
        /// Why.
        problem: String,
    },
    /// It was stopped in between, by a kill switch or because the ledger is halted: nothing more is sent, not even what
    /// would undo these that were.
    Killed {
        /// What stays.
        remnants: Vec<String>,
        /// What it says.
        refusal: Box<Refusal>,
    },
}

/// The requests that were sent and stay where the rest of the plan is neither applied nor taken back, as people read them.
pub(super) fn remnants(sends: &[StoredSend]) -> Vec<String> {
    let stays = |send: &&StoredSend| match send.state {
        SendState::Stuck => true,
        SendState::Sent => send.dispatch.reversal != Reversal::Reversible,
        _ => false,
    };
    sends.iter().filter(stays).map(StoredSend::subject).collect()
}

/// What became of one attempt.
struct Attempted {
    state: SendState,
    answer: Option<HttpAnswer>,
    problem: Option<String>,
    took_ns: u64,
}

impl Attempted {
    /// A step without an exchange.
    const fn only(state: SendState) -> Self {
        Self { state, answer: None, problem: None, took_ns: 0 }
    }

    /// Not repeated, because it is stopped.
    fn stopped() -> Self {
        let problem = "an attempt was cut off, and it is stopped before it is repeated".to_owned();
        Self { problem: Some(problem), ..Self::only(SendState::Unknown) }
    }

    /// Refused here, before anything left.
    fn refused(problem: String) -> Self {
        Self { problem: Some(problem), ..Self::only(SendState::Refused) }
    }
}

/// The requests of one plan on their way.
pub(super) struct Sending<'c> {
    committer: &'c Committer,
    plan: PlanId,
    deed: Deed,
    sends: Vec<StoredSend>,
    contents: &'c dyn Fn(&Digest) -> Option<Vec<u8>>,
    /// A request was stopped when its connection stood.
    withheld: Cell<bool>,
}

impl<'c> Sending<'c> {
    pub(super) fn new(
        committer: &'c Committer,
        (plan, deed): (PlanId, Deed),
        sends: Vec<StoredSend>,
        contents: &'c dyn Fn(&Digest) -> Option<Vec<u8>>,
    ) -> Self {
        Self { committer, plan, deed, sends, contents, withheld: Cell::new(false) }
    }

    /// The requests with what became of them.
    pub(super) fn into_sends(self) -> Vec<StoredSend> {
        self.sends
    }

    /// Send what is to be sent and undo what is to be undone, until nothing is left to do without a person.
    ///
    /// # Errors
    /// The ledger cannot record a step: nothing more was done.
    pub(super) fn run(&mut self, goal: Goal) -> Result<Dispatched, LedgerError> {
        loop {
            let states: Vec<_> = self.sends.iter().map(|send| (send.state, send.dispatch.reversal)).collect();
            let step = next(goal, &states);
            if let Some(killed) = self.killed(&step) {
                let Some(at) = self.sends.iter().position(StoredSend::may_have_arrived) else { return Ok(killed) };
                // It will not be repeated, and what was sent of it before a crash cannot be called nothing.
                self.note(at, Attempted::stopped())?;
                continue;
            }
            match step {
                Next::Send(at) => self.send(at)?,
                Next::Compensate(at) => self.compensate(at)?,
                Next::Apply => return Ok(Dispatched::Sent),
                Next::Ask(at) => {
                    let what = self.sends.get(at).map(StoredSend::subject).unwrap_or_default();
                    return Ok(Dispatched::Unknown { what, problem: self.problem() });
                }
                Next::TakeBack => return Ok(Dispatched::TakenBack { problem: self.problem() }),
                Next::Halt => {
                    let stays = |send: &&StoredSend| matches!(send.state, SendState::Sent | SendState::Stuck);
                    let remnants = self.sends.iter().filter(stays).map(StoredSend::subject).collect();
                    return Ok(Dispatched::Halted { remnants, problem: self.problem() });
                }
            }
        }
    }

    /// Whether anything more may leave: no kill switch is set, and what is on record can be relied on.
    fn may_go_on(&self) -> Result<(), Refusal> {
        if self.committer.ledger.is_halted() {
            return Err(LedgerError::halted());
        }
        self.committer.kill.check_deed(&self.deed)
    }

    /// What a kill switch, or a ledger that is halted, makes of the next step, if it stops it.
    fn killed(&self, step: &Next) -> Option<Dispatched> {
        let withheld = self.withheld.get();
        let dispatches = match step {
            Next::Apply | Next::Ask(_) => return None,
            Next::Send(_) | Next::Compensate(_) => true,
            Next::TakeBack | Next::Halt => withheld,
        };
        let refusal = match self.may_go_on() {
            Err(refusal) if dispatches => refusal,
            // It was cleared again in the meantime.
            Ok(()) if withheld => Refusal::new(Code::Killed, "a kill switch was set while it was sent"),
            _ => return None,
        };
        Some(Dispatched::Killed { remnants: remnants(&self.sends), refusal: Box::new(refusal) })
    }

    /// Why it does not go on, in the words of the request that stopped it.
    fn problem(&self) -> String {
        let said = self.sends.iter().filter(|send| !matches!(send.state, SendState::Sent | SendState::Pending));
        let said: Vec<String> = said
            .filter_map(|send| send.problem.as_ref().map(|problem| format!("{}: {problem}", send.subject())))
            .collect();
        said.join("; ")
    }

    fn send(&mut self, at: usize) -> Result<(), LedgerError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.note(at, Attempted::only(SendState::Sending))?;
            let Some(send) = self.sends.get(at) else { return Ok(()) };
            let mut attempted = self.attempt(send);
            attempted.state = attempted.state.of_attempt(send.attempts > 1);
            let again = attempted.state == SendState::Unknown
                && send.dispatch.idempotent
                && attempt < ATTEMPTS_MAX
                && self.may_go_on().is_ok();
            if again {
                let pause = tokio::time::sleep(REPEAT_AFTER * 2_u32.pow(attempt - 1));
                self.committer.runtime.block_on(pause);
                continue;
            }
            return self.note(at, attempted);
        }
    }

    fn attempt(&self, send: &StoredSend) -> Attempted {
        let Effect::HttpRequest(request) = &send.effect else { return Attempted::refused("not a request".to_owned()) };
        let body = match request.body {
            None => Vec::new(),
            Some(body) => match (self.contents)(&body.sha256) {
                Some(content) if Digest::of(&content) == body.sha256 => content,
                _ => return Attempted::refused("its body is not kept any more".to_owned()),
            },
        };
        match self.outgoing(&send.dispatch, request, body, send.dispatch.key.clone()) {
            Ok(outgoing) => {
                // Nobody reads more of it, unless a tool waits for it or a compensation is made of it.
                let cut = request.delivery == Delivery::Staged && send.dispatch.compensation.is_none();
                self.exchange(outgoing, &request.grant, &send.dispatch, cut)
            }
            Err(problem) => Attempted::refused(problem),
        }
    }

    fn exchange(&self, outgoing: Outgoing, grant: &GrantName, dispatch: &Dispatch, cut: bool) -> Attempted {
        let watched = match self.committer.enter_grant(self.deed.tenant(), grant, &dispatch.origin) {
            Ok(watched) => watched,
            // It opened since the commit began: nothing was sent.
            Err(open) => return Attempted::refused(open.message),
        };
        let started = self.committer.ambient.now_ns();
        let answered = self.committer.runtime.block_on(self.committer.egress.send(outgoing, limits(dispatch)));
        let took_ns = self.committer.ambient.now_ns().saturating_sub(started);
        match (watched, has_failed(&answered)) {
            (Some(watched), Some(true)) => watched.failed(),
            (Some(watched), Some(false)) => watched.worked(),
            (_, None) | (None, _) => {}
        }
        let attempted = |state, answer, problem| Attempted { state, answer, problem, took_ns };
        match answered {
            Ok(mut incoming) => {
                if cut && incoming.body.len() > KEPT_BYTES {
                    incoming.body.truncate(KEPT_BYTES);
                }
                let problem = format!("answered {}", incoming.status);
                let (state, problem) = match judge(incoming.status) {
                    Judgement::Done => (SendState::Sent, None),
                    Judgement::Refused => (SendState::Refused, Some(problem)),
                    Judgement::Unclear => (SendState::Unknown, Some(problem)),
                };
                attempted(state, Some(answer_of(incoming)), problem)
            }
            Err(SendError::NotSent(reason)) => {
                self.withheld.set(self.withheld.get() || reason == Reason::Withheld);
                attempted(SendState::Refused, None, Some(reason.to_string()))
            }
            Err(SendError::Unknown(reason)) => attempted(SendState::Unknown, None, Some(reason.to_string())),
        }
    }

    /// Undo a request that was sent, by the request that its grant declares.
    fn compensate(&mut self, at: usize) -> Result<(), LedgerError> {
        self.note(at, Attempted::only(SendState::Compensating))?;
        let Some(send) = self.sends.get(at) else { return Ok(()) };
        let Effect::HttpRequest(HttpEffect { grant, .. }) = &send.effect else { return Ok(()) };
        let tried = self.compensation(send).map(|outgoing| self.exchange(outgoing, grant, &send.dispatch, true));
        let (state, problem) = match tried {
            Ok(Attempted { state: SendState::Sent, .. }) => (SendState::Compensated, None),
            Ok(Attempted { problem, .. }) => (SendState::Stuck, problem),
            Err(problem) => (SendState::Stuck, Some(problem)),
        };
        let problem = problem.map(|problem| format!("was sent and could not be undone: {problem}"));
        self.note(at, Attempted { problem, ..Attempted::only(state) })
    }

    fn compensation(&self, send: &StoredSend) -> Result<Outgoing, String> {
        let Effect::HttpRequest(request) = &send.effect else { return Err("not a request".to_owned()) };
        let sent = request.body.and_then(|body| (self.contents)(&body.sha256)).unwrap_or_default();
        let (undo, body) = undoing(send, &sent)?;
        self.outgoing(&send.dispatch, &undo, body, compensation_key(&send.dispatch.key))
    }

    fn outgoing(
        &self,
        dispatch: &Dispatch,
        request: &HttpEffect,
        body: Vec<u8>,
        key: String,
    ) -> Result<Outgoing, String> {
        let granted = Granted {
            origin: &dispatch.origin,
            credential: dispatch.credential.as_ref(),
            allow_private: dispatch.allow_private,
        };
        let named = (request.method.as_str(), request.url.as_str());
        let tenant = self.deed.tenant().clone();
        let outgoing = Outgoing::granted(tenant, named, granted, &request.headers, Bytes::from(body))
            .map_err(|problem| problem.to_string())?;
        let clearance = self.committer.kill.clearance(self.deed.clone());
        Ok(Outgoing { idempotency_key: Some(key), purpose: Purpose::Write, clearance, ..outgoing })
    }

    /// Put a step on record, durably, before anything else happens.
    fn note(&mut self, at: usize, attempted: Attempted) -> Result<(), LedgerError> {
        let Some(send) = self.sends.get_mut(at) else { return Ok(()) };
        send.state = attempted.state;
        send.attempts += u64::from(send.state == SendState::Sending);
        if attempted.answer.is_some() {
            (send.answer, send.took_ns) = (attempted.answer, attempted.took_ns);
        }
        if attempted.problem.is_some() {
            send.problem = attempted.problem;
        }
        let step = SendMove {
            plan: self.plan,
            ordinal: send.ordinal,
            state: send.state,
            answer: send.answer.clone(),
            problem: send.problem.clone(),
            took_ns: send.took_ns,
        };
        self.committer.runtime.block_on(self.committer.ledger.note_send(step))
    }
}

/// The request that undoes one which was sent with this body, and its own body.
///
/// # Errors
/// Its grant declared none, or a value that the declaration needs is missing.
pub(super) fn undoing(send: &StoredSend, sent: &[u8]) -> Result<(HttpEffect, Vec<u8>), String> {
    let (Effect::HttpRequest(request), Some(declared)) = (&send.effect, &send.dispatch.compensation) else {
        return Err("its grant declares no compensation".to_owned());
    };
    let values = Values::of(sent, send.answer.as_ref().map_or(&[][..], |answer| &answer.body));
    let path = values.fill(&declared.path, Place::Path)?;
    let body = values.fill(&declared.body, Place::Body)?.into_bytes();
    let mut headers = Vec::new();
    if !body.is_empty() {
        headers.push(Header { name: "content-type".to_owned(), value: "application/json".to_owned() });
    }
    let effect = HttpEffect {
        method: declared.method.clone(),
        url: format!("{}{path}", send.dispatch.origin.trim_end_matches('/')),
        headers,
        body: (!body.is_empty()).then(|| BodyState::of(&body)),
        ..request.clone()
    };
    Ok((effect, body))
}

/// The `Idempotency-Key` of the request that undoes one which had this key.
pub(super) fn compensation_key(key: &str) -> String {
    Digest::of_parts("toolkeep.compensation-key.v1", &[key.as_bytes()]).to_hex()
}

fn limits(dispatch: &Dispatch) -> Limits {
    Limits::granted(dispatch.times, dispatch.response_bytes)
}

fn answer_of(incoming: Incoming) -> HttpAnswer {
    HttpAnswer { status: incoming.status, headers: incoming.headers, body: incoming.body }
}

/// What the places of a compensation stand for.
struct Values {
    request: Value,
    response: Value,
}

/// Where a value is put.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Path,
    Body,
}

impl Values {
    fn of(request: &[u8], response: &[u8]) -> Self {
        let parsed = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(Value::Null);
        Self { request: parsed(request), response: parsed(response) }
    }

    /// Put the values into their places. Other braces are text.
    fn fill(&self, template: &str, place: Place) -> Result<String, String> {
        let (mut filled, mut rest) = (String::with_capacity(template.len()), template);
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let known = [("response:", &self.response), ("request:", &self.request)];
            let found = known.into_iter().find_map(|(prefix, values)| Some((after.strip_prefix(prefix)?, values)));
            let Some((pointed, values)) = found else {
                filled.push('{');
                rest = after;
                continue;
            };
            let (pointer, after) = pointed.split_once('}').ok_or("a place is not closed")?;
            let value = values.pointer(pointer).ok_or_else(|| format!("there is no `{pointer}` to undo it with"))?;
            filled.push_str(&written(value, place)?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

fn written(value: &Value, place: Place) -> Result<String, String> {
    match (value, place) {
        (Value::String(text), Place::Path) if matches!(text.as_str(), "" | "." | "..") => {
            Err(format!("`{text}` cannot stand in a path"))
        }
        (Value::String(text), Place::Path) => Ok(text.bytes().map(escaped).collect()),
        (Value::Number(_) | Value::Bool(_), Place::Path) => Ok(value.to_string()),
        (_, Place::Path) => Err("only texts and numbers can stand in a path".to_owned()),
        // Inside of quotes a template writes the text, elsewhere the value; both are JSON.
        (Value::String(text), Place::Body) => {
            let quoted = serde_json::to_string(text).map_err(|error| error.to_string())?;
            let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            Ok(inner.unwrap_or_default().to_owned())
        }
        (other, Place::Body) => Ok(other.to_string()),
    }
}

/// One byte of a path segment: unreserved characters as they are, others percent-encoded (RFC 3986, section 2).
fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_a_compensation_are_filled_and_escaped() {
        let values = Values::of(br#"{"amount":5,"note":"a\"b"}"#, br#"{"id":"ch/1 2","live":true}"#);
        assert_eq!(values.fill("/c/{response:/id}/refund", Place::Path).as_deref(), Ok("/c/ch%2F1%202/refund"));
        let body = values.fill(r#"{"amount":{request:/amount},"note":"{request:/note}"}"#, Place::Body);
        assert_eq!(body.as_deref(), Ok(r#"{"amount":5,"note":"a\"b"}"#));
        assert!(values.fill("/c/{response:/missing}", Place::Path).is_err());
        let above = Values::of(b"", br#"{"id":".."}"#);
        assert!(above.fill("/c/{response:/id}/refund", Place::Path).is_err());
        let quote = Values::of(&serde_json::to_vec(&serde_json::json!({"note": "\""})).expect("JSON"), b"");
        assert_eq!(quote.fill("\"{request:/note}\"", Place::Body).as_deref(), Ok("\"\\\"\""));
    }
}
