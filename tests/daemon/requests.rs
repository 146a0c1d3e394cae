//! Requests to other systems: staged and live, sent once, taken back, and of which nobody knows what became of them.

use serde_json::{Value, json};

use super::service::{Manner, Service};
use super::world::{Agent, Plot, Reply, World, component};
use crate::doors::running::until;

/// A daemon with the tools for tickets and charges, and the system that they talk to.
pub(super) struct Trade {
    pub(super) world: World,
    pub(super) service: Service,
}

impl Trade {
    fn new() -> Self {
        Self::with("solo = true")
    }

    /// With special lines of configuration.
    pub(super) fn with(daemon: &'static str) -> Self {
        let world = World::asleep(Plot { daemon, limits: "" });
        let service = Service::new();
        let origin = service.origin();
        for name in ["ticket", "charge"] {
            std::fs::copy(component(name), world.path(&format!("tools/{name}.wasm"))).expect("component");
        }
        let tickets = format!(
            "tier = 2\n[tiers]\nshow = 0\n[[http]]\nname = \"tracker\"\norigin = \"{origin}\"\n\
             methods = [\"GET\", \"POST\"]\nallow_private = true\nconnect_ms = 2000\nfirst_byte_ms = 1500\n\
             [http.compensation]\nmethod = \"DELETE\"\npath = \"/comments/{{response:/id}}\"\n"
        );
        let charges = format!(
            "tier = 3\n[[http]]\nname = \"pay\"\norigin = \"{origin}\"\nmethods = [\"POST\"]\n\
             allow_private = true\ndelivery = \"live\"\nfirst_byte_ms = 1500\n"
        );
        for (name, rest) in [("ticket", tickets), ("charge", charges)] {
            let text = format!("format = 1\nname = \"{name}\"\ncomponent = \"{name}.wasm\"\n{rest}");
            world.home.put(&format!("tools/{name}.toml"), text.as_bytes());
        }
        let mut trade = Self { world, service };
        trade.world.start();
        trade
    }

    pub(super) fn agent(&self) -> Agent {
        self.world.agent()
    }

    pub(super) fn comment(&self, text: &str) -> Value {
        json!({"tracker": self.service.origin(), "id": "7", "text": text})
    }

    fn charge(&self) -> Value {
        json!({"service": self.service.origin(), "customer": "ann", "amount": 5, "currency": "EUR"})
    }

    /// Let a person agree to what a call is held for.
    pub(super) fn agree(&self, held: &Reply) -> Value {
        let mut admin = self.world.admin();
        let shown = admin.ok("approvals.show", json!({"approval": held.approval()}));
        let digest = shown["plan"]["digest"].as_str().expect("digest").get(..12).expect("digits").to_owned();
        let params = json!({"approval": held.approval(), "reason": "looks right", "confirm": digest});
        admin.ok("approvals.approve", params)["reply"].take()
    }

    /// The reply of a call as it stands.
    fn now(&self, call: &str) -> Reply {
        self.agent().reply("calls.get", json!({"call": call}))
    }
}

fn held(reply: Reply) -> Reply {
    reply.must("held", "pending", "approval_required")
}

fn ended(reply: &Value) -> (&str, &str, &str) {
    let text = |pointer: &str| reply.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (text("/status"), text("/outcome"), text("/error/code"))
}

#[test]
fn r48_a_staged_request_is_shown_exactly_and_sent_once_when_its_plan_is_committed() {
    let trade = Trade::new();
    let mut agent = trade.agent();
    let shown = agent.preview("ticket.comment", trade.comment("Fixed.")).must("ok", "previewed", "");
    let effect = &shown.value["plan"]["effects"][0];
    assert_eq!(effect["kind"], "http.request");
    assert_eq!(effect["url"], format!("{}/tickets/7/comments", trade.service.origin()));
    assert_eq!((&effect["method"], &effect["delivery"]), (&json!("POST"), &json!("staged")));
    assert_eq!(shown.value["plan"]["totals"]["requests"], 1);
    assert!(trade.service.asked().is_empty(), "a preview sends nothing");
    let waits = held(agent.execute("ticket.comment", trade.comment("Fixed.")));
    assert!(trade.service.asked().is_empty(), "nor does a held plan");
    let reply = trade.agree(&waits);
    assert_eq!(ended(&reply), ("ok", "committed", ""), "{reply}");
    let asked = trade.service.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!((asked[0].line.as_str(), asked[0].body.as_str()), ("POST /tickets/7/comments", r#"{"text":"Fixed."}"#));
    assert_eq!(asked[0].key.len(), 64, "the host's own key goes along");
    let responses = &reply["receipt"]["statement"]["responses"];
    assert_eq!((responses[0]["ordinal"].as_u64(), responses[0]["status"].as_u64()), (Some(0), Some(201)));
    let receipt = agent.ok("receipts.verify", json!({"receipt": reply["receipt"]}));
    assert_eq!(receipt["valid"], true);
    trade.world.admin().reply("undo.call", json!({"call": reply["call_id"]})).must("ok", "committed", "");
    let lines: Vec<String> = trade.service.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(lines, ["POST /tickets/7/comments", "DELETE /comments/c-1"], "undone as its grant declares");
    trade.world.verified();
}

#[test]
fn r07_a_request_that_the_other_system_refuses_leaves_nothing() {
    let trade = Trade::new();
    trade.service.meets("/comments", Manner::Refuses);
    let waits = held(trade.agent().execute("ticket.comment", trade.comment("No.")));
    let reply = trade.agree(&waits);
    assert_eq!(ended(&reply), ("failed", "discarded", "effect_refused"), "{reply}");
    assert!(reply["error"]["message"].as_str().expect("message").contains("422"), "{reply}");
    assert_eq!(trade.service.asked().len(), 1, "it is not tried again");
}

#[test]
fn g07_a_request_without_an_answer_is_unknown_until_an_operator_says() {
    for (manner, sent, then) in [
        (Manner::HangsUp, true, ("ok", "committed", "")),
        (Manner::Breaks, true, ("ok", "committed", "")),
        (Manner::HangsUp, false, ("failed", "discarded", "effect_refused")),
        (Manner::Hangs, false, ("failed", "discarded", "effect_refused")),
    ] {
        let mut trade = Trade::new();
        trade.service.meets("/comments", manner);
        let mut agent = trade.agent();
        let params = json!({"tool": "ticket.comment", "input": trade.comment("Hm."), "idempotency_key": "k"});
        let waits = held(agent.reply("calls.execute", params.clone()));
        let reply = trade.agree(&waits);
        assert_eq!(ended(&reply), ("unknown", "unknown", "unknown_outcome"), "{manner:?} {reply}");
        agent.reply("calls.execute", params.clone()).must("unknown", "unknown", "unknown_outcome");
        trade.world.restart();
        trade.now(waits.call()).must("unknown", "unknown", "unknown_outcome");
        let mut admin = trade.world.admin();
        let listed = admin.ok("outcomes.list", json!({}));
        assert_eq!(listed["outcomes"][0]["call_id"], waits.call(), "{listed}");
        let verdict = json!({"call": waits.call(), "sent": sent, "reason": "looked there"});
        let said = admin.ok("outcomes.resolve", verdict.clone());
        assert_eq!(ended(&said["reply"]), then, "{manner:?} {said}");
        assert_eq!(admin.no("outcomes.resolve", verdict)["code"], "not_found", "it is said once");
        let said = admin.ok("audit.entries", json!({"kind": "resolved"}));
        assert_eq!(said["entries"][0]["facts"]["by"], "operator", "{said}");
        let again = trade.agent().reply("calls.execute", params);
        assert_eq!(again.ended(), then);
        assert_eq!(trade.service.asked().len(), 1, "{manner:?}: it was never sent again");
        trade.world.verified();
    }
}

#[test]
fn g07_a_daemon_that_is_killed_while_it_waits_for_an_answer_does_not_send_again() {
    let mut trade = Trade::new();
    trade.service.meets("/comments", Manner::Hangs);
    let waits = held(trade.agent().execute("ticket.comment", trade.comment("Hm.")));
    let mut admin = trade.world.admin();
    let params = json!({"approval": waits.approval(), "reason": "looks right"});
    let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": params});
    admin.0.send(format!("{line}\n").as_bytes());
    until("the request arrives", || trade.service.asked().len() == 1);
    trade.world.restart();
    // Its call says `unknown` from its intent on; what an operator has to resolve is listed once recovery has judged it.
    until("recovery has judged it", || {
        let listed = trade.world.admin().ok("outcomes.list", json!({}));
        listed["outcomes"][0]["call_id"] == waits.call()
    });
    assert_eq!(trade.now(waits.call()).ended().0, "unknown");
    assert_eq!(trade.service.asked().len(), 1);
}

#[test]
fn r38_a_live_request_is_sent_once_after_consent_and_the_tool_goes_on_with_its_answer() {
    let trade = Trade::new();
    let mut agent = trade.agent();
    let params = json!({"tool": "charge", "input": trade.charge(), "idempotency_key": "order-1"});
    let waits = held(agent.reply("calls.execute", params.clone()));
    let again = held(agent.reply("calls.execute", params.clone()));
    assert_eq!(again.value, waits.value, "a retry is told that it is held");
    assert!(trade.service.asked().is_empty());
    let part = trade.agree(&waits);
    assert_eq!(ended(&part), ("ok", "committed", ""), "{part}");
    let reply = trade.now(waits.call()).must("ok", "none", "");
    assert_eq!(reply.value["output"], json!({"id": "c-1", "state": "paid"}), "the tool saw the answer");
    let again = agent.reply("calls.execute", params);
    assert_eq!((again.value, again.replayed), (reply.value, true), "a retry gets the stored reply");
    assert_eq!(trade.service.asked().len(), 1, "one charge");
    trade.world.verified();
}

#[test]
fn r22_a_live_request_that_is_rejected_ends_its_call_and_sends_nothing() {
    let trade = Trade::new();
    let waits = held(trade.agent().execute("charge", trade.charge()));
    let params = json!({"approval": waits.approval(), "reason": "too much"});
    trade.world.admin().ok("approvals.reject", params);
    let reply = trade.now(waits.call());
    assert_eq!((reply.text("/status"), reply.text("/error/code")), ("denied", "approval_rejected"), "{}", reply.value);
    assert!(trade.service.asked().is_empty());
}

#[test]
fn r07_a_live_request_survives_a_restart_while_it_is_held() {
    let mut trade = Trade::new();
    let waits = held(trade.agent().execute("charge", trade.charge()));
    trade.world.restart();
    trade.agree(&waits);
    trade.now(waits.call()).must("ok", "none", "");
    assert_eq!(trade.service.asked().len(), 1);
}

#[test]
fn g07_a_live_request_of_which_nobody_knows_keeps_its_call_waiting() {
    let trade = Trade::new();
    trade.service.meets("/charges", Manner::HangsUp);
    let waits = held(trade.agent().execute("charge", trade.charge()));
    let part = trade.agree(&waits);
    assert_eq!(ended(&part), ("unknown", "unknown", "unknown_outcome"), "{part}");
    let call = part["call_id"].as_str().expect("call").to_owned();
    assert_ne!(call, waits.call(), "the request has a call of its own");
    let verdict = json!({"call": call, "sent": false, "reason": "the service has no such charge"});
    trade.world.admin().ok("outcomes.resolve", verdict);
    trade.now(waits.call()).must("failed", "none", "effect_refused");
    assert_eq!(trade.service.asked().len(), 1);
}

#[test]
fn r49_a_request_without_a_grant_is_a_breach_and_reaches_nobody() {
    let trade = Trade::new();
    let elsewhere = Service::new();
    let mut agent = trade.agent();
    let input = json!({"tracker": elsewhere.origin(), "id": "7", "text": "Hi."});
    let reply = agent.execute("ticket.comment", input);
    assert_eq!(reply.text("/status"), "failed", "{}", reply.value);
    assert!(elsewhere.asked().is_empty());
    let log = trade.world.log();
    assert!(log.contains("boundaries were tested"), "{log}");
}
