//! Tools that reach beyond files, as components: hostile ones get nothing that a plan does not show, good ones do what
//! they say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use toolkeep_core::capability::Access;
use toolkeep_core::effect::{Effect, Header};
use toolkeep_core::grant::HttpGrant;
use toolkeep_sandbox::execution::{Ended, Execution, Layer, Outward};
use toolkeep_sandbox::fault::Fault;
use toolkeep_sandbox::port::{Exchange, HttpAnswer};
use toolkeep_tests::support::guest_call::{GuestCall, fault, output};
use toolkeep_tests::support::outside::{Peers, Store, answer, http, keys, mail, ports};
use toolkeep_tests::support::scratch::Scratch;

const URL: &str = "https://api.example.com/a";

fn call(tool: &str, grant: HttpGrant, peers: &Arc<Peers>, input: &Value) -> GuestCall {
    let mut call = GuestCall::new(tool).input(&input.to_string());
    call.outward = Outward { http: [grant].into(), ports: ports(peers, &Arc::default()), ..Outward::default() };
    call
}

fn told(execution: &Execution) -> Value {
    serde_json::from_str(output(execution)).expect("JSON")
}

#[tokio::test]
async fn t_n1_no_spelling_reaches_a_place_that_was_not_granted() {
    let peers = Arc::new(Peers::default());
    let execution = call("ssrf", http(|_| ()), &peers, &json!({})).run().await;
    assert_eq!(told(&execution), json!({"reached": [], "tried": 22}));
    assert!(peers.heard().is_empty(), "{:?}", peers.heard());
}

#[tokio::test]
async fn t_n4_each_hop_of_a_redirect_is_a_request_of_its_own() {
    let to = |url: &str| {
        let mut hop = answer(302, b"");
        hop.headers = vec![Header { name: "location".to_owned(), value: url.to_owned() }];
        Ok(hop)
    };
    let second = "https://api.example.com/b";
    let peers = Peers::default().answering(URL, to(second)).answering(second, to("http://169.254.169.254/latest"));
    let peers = Arc::new(peers);
    let execution = call("redirect-chain", http(|_| ()), &peers, &json!({"url": URL})).run().await;
    assert_eq!(told(&execution)["hops"], json!([URL, second]));
    assert!(told(&execution)["stopped"].as_str().expect("text").contains("not allowed"));
    assert_eq!(peers.heard().len(), 2);
    let circle = Arc::new(Peers::default().answering(URL, to(URL)));
    let execution =
        call("redirect-chain", http(|g| g["requests"] = json!(7)), &circle, &json!({"url": URL})).run().await;
    assert_eq!(told(&execution)["hops"].as_array().map(Vec::len), Some(7), "a circle ends with the grant");
}

#[tokio::test]
async fn t_n6_no_field_of_the_host_can_be_smuggled() {
    let peers = Arc::new(Peers::default().with(URL, "ok"));
    let execution = call("header-smuggle", http(|_| ()), &peers, &json!({"url": URL})).run().await;
    assert_eq!(told(&execution), json!({"taken": [], "tried": 20}));
    assert!(peers.heard().is_empty() && execution.staged.breaches.len() >= 8, "{:?}", execution.staged.breaches);
}

#[tokio::test]
async fn t_n8_a_file_leaves_in_queries_no_faster_than_the_grant_allows() {
    let scratch = Scratch::new();
    scratch.put("secret.txt", "s".repeat(17 * 600).as_bytes());
    let grant = http(|g| {
        g["query_bytes"] = json!(16);
        g["requests"] = json!(5);
    });
    let mut peers = Peers::default();
    for piece in [16, 17] {
        peers = peers.with(&format!("{URL}?{}", "s".repeat(piece)), "ok");
    }
    let peers = Arc::new(peers);
    for (piece, sent) in [(16, 80), (17, 0)] {
        let input = json!({"path": "secret.txt", "url": URL, "piece": piece});
        let execution = call("exfiltrate-query", grant.clone(), &peers, &input).workspace(scratch.path(), Access::Read);
        assert_eq!(told(&execution.run().await), json!({"sent": sent}), "{piece}");
    }
    assert_eq!(peers.heard().len(), 5, "and each piece is on record");
}

#[tokio::test]
async fn t_n7_waiting_for_a_slow_peer_ends_with_the_deadline() {
    let peers = Arc::new(Peers::default().silent(URL));
    let call = call("slow-peer", http(|_| ()), &peers, &json!({"url": URL}));
    let execution = call.limits(|limits| limits.deadline_ms = 100).run().await;
    assert_eq!(fault(&execution), &Fault::Deadline);
    let quick = Arc::new(Peers::default().slow(URL, "ok", Duration::from_millis(20)));
    let execution = super::outside::call("slow-peer", http(|_| ()), &quick, &json!({"url": URL})).run().await;
    assert_eq!(told(&execution), json!({"status": 200}));
}

#[tokio::test]
async fn t_n7_bodies_end_at_their_bounds_both_ways_and_nothing_is_unpacked() {
    let small = || {
        http(|g| {
            g["request_bytes"] = json!(1_000);
            g["headers"] = json!(["accept-encoding"]);
        })
    };
    let peers = Arc::new(Peers::default());
    let run = |bytes: usize, times: usize| {
        call("bomb-body", small(), &peers, &json!({"url": URL, "bytes": bytes, "times": times}))
            .limits(|limits| limits.stage_bytes = 5_000)
    };
    assert_eq!(told(&run(1_000, 5).run().await)["sent"], json!(5_000));
    assert!(matches!(fault(&run(1_000, 6).run().await), Fault::StageFull(_)));
    let over = told(&run(1_001, 1).run().await);
    assert!(over["sent"] == 0 && over["stopped"].as_str().expect("text").contains("too large"), "{over}");
    let mut packed = answer(200, &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    packed.headers.push(Header { name: "content-encoding".to_owned(), value: "gzip".to_owned() });
    let bombs = Arc::new(Peers::default().answering(URL, Ok(packed)));
    let execution = call("bomb-body", small(), &bombs, &json!({"url": URL, "bytes": 0, "times": 2})).run().await;
    assert_eq!(told(&execution)["got"], json!(16), "as it came: {}", told(&execution));
    let large = HttpAnswer { body: Bytes::from(vec![0; 32 * 1024 * 1024]), ..answer(200, b"") };
    let large = Arc::new(Peers::default().answering(URL, Ok(large)));
    let grant = http(|g| {
        g["response_bytes"] = json!(32 * 1024 * 1024);
        g["headers"] = json!(["accept-encoding"]);
    });
    let call = call("bomb-body", grant, &large, &json!({"url": URL, "bytes": 0, "times": 3}));
    // Reading so much takes its time where others want the processor too.
    let patient = call.limits(|limits| (limits.memory_bytes, limits.deadline_ms) = (512 * 1024 * 1024, 60_000));
    let execution = patient.run().await;
    assert_eq!(large.heard().len(), 2, "the host keeps 64 MiB of answers: {:?}", execution.ended);
}

#[tokio::test]
async fn t_s1_a_tool_never_sees_the_credential_of_its_grant() {
    let peers = Arc::new(Peers::default().with(URL, "ok"));
    let grant = http(|g| g["credential"] = json!("payment-token"));
    let execution = call("secret-echo", grant, &peers, &json!({"url": URL})).run().await;
    let all = format!("{:?} {:?} {:?}", execution.recording, execution.log, told(&execution));
    assert!(!all.contains("payment-token"), "not even its name");
    let asked = peers.asked.lock().expect("asked");
    assert!(asked[0].headers.is_empty(), "whoever sends adds it");
}

fn live() -> HttpGrant {
    http(|g| g["delivery"] = json!("live"))
}

#[tokio::test]
async fn r48_a_tool_that_asks_for_something_else_when_executed_again_is_stopped() {
    let peers = Arc::new(Peers::default());
    let first = call("diverge", live(), &peers, &json!({"url": URL})).run().await;
    let Ended::Live(request) = &first.ended else { panic!("{:?}", first.ended) };
    let again = |seed: u8| {
        let mut again = call("diverge", live(), &peers, &json!({"url": URL}));
        again.seed = seed;
        again.outward.exchanges = vec![Exchange { call: request.digest(), answer: Ok(answer(200, b"")), took_ns: 0 }];
        again.run()
    };
    assert!(matches!(again(7).await.ended, Ended::Output(_)), "chance is part of what is given again");
    assert!(matches!(fault(&again(8).await), Fault::Diverged(_)));
    assert!(peers.heard().is_empty());
}

#[tokio::test]
async fn r48_two_requests_that_look_the_same_are_two() {
    let peers = Arc::new(Peers::default());
    let staged = call("double-send", http(|_| ()), &peers, &json!({"url": URL})).run().await;
    assert_eq!(staged.staged.effects.len(), 2);
    let first = call("double-send", live(), &peers, &json!({"url": URL})).run().await;
    let Ended::Live(request) = &first.ended else { panic!("{:?}", first.ended) };
    let exchange = Exchange { call: request.digest(), answer: Ok(answer(200, b"")), took_ns: 0 };
    let mut second = call("double-send", live(), &peers, &json!({"url": URL}));
    second.outward.exchanges = vec![exchange.clone()];
    assert!(
        matches!(&second.run().await.ended, Ended::Live(next) if next == request),
        "the second one is decided about"
    );
    let mut third = call("double-send", live(), &peers, &json!({"url": URL}));
    third.outward.exchanges = vec![exchange; 2];
    assert_eq!(told(&third.run().await), json!({"statuses": [200, 200]}));
}

#[tokio::test]
async fn r56_a_ticket_is_read_and_its_comment_staged() {
    let ticket = "https://api.example.com/tickets/7";
    let peers = Arc::new(Peers::default().with(ticket, r#"{"id": "7", "title": "t", "state": "open"}"#));
    let input = json!({"tracker": "https://api.example.com", "id": "7", "text": "Fixed."});
    let execution = call("ticket", http(|_| ()), &peers, &input).local("comment").run().await;
    assert_eq!(told(&execution)["staged"], json!(true));
    let [Effect::HttpRequest(comment)] = execution.staged.effects.as_slice() else { panic!("one request") };
    assert_eq!(comment.url, format!("{ticket}/comments"));
    assert_eq!(peers.heard(), [format!("GET {ticket}")]);
}

#[tokio::test]
async fn r56_a_charge_needs_the_answer_and_gets_it() {
    let input = json!({"service": "https://api.example.com", "customer": "c", "amount": 1, "currency": "EUR"});
    let first = call("charge", live(), &Arc::default(), &input).run().await;
    let Ended::Live(request) = &first.ended else { panic!("{:?}", first.ended) };
    let paid = Ok(answer(201, br#"{"id": "ch_1", "state": "paid"}"#));
    let mut again = call("charge", live(), &Arc::default(), &input);
    again.outward.exchanges = vec![Exchange { call: request.digest(), answer: paid, took_ns: 1 }];
    assert_eq!(told(&again.run().await), json!({"id": "ch_1", "state": "paid"}));
}

#[tokio::test]
async fn r56_a_file_is_mailed_and_a_counter_counts() {
    let scratch = Scratch::new();
    scratch.put("report.md", b"All is well.");
    let input = json!({"path": "report.md", "channel": "mail", "to": ["ann@example.com"], "subject": "Report"});
    let mut mailer =
        GuestCall::new("mailer").local("mail").input(&input.to_string()).workspace(scratch.path(), Access::Read);
    mailer.outward.messages = [mail()].into();
    assert!(
        matches!(&mailer.run().await.staged.effects[..], [Effect::MessageSend(message)] if message.body.size == 12)
    );

    let store = Arc::new(Store::with(&[("a", "1")]));
    let counter = |tool: &str, input: Value| {
        let mut counter = GuestCall::new("counter").local(tool).input(&input.to_string());
        counter.outward.keys = [keys("write", "**")].into();
        counter.outward.ports = ports(&Arc::default(), &store);
        counter.run()
    };
    let added = counter("add", json!({"name": "a", "by": 4})).await;
    assert_eq!(told(&added)["value"], json!(5));
    assert!(matches!(&added.staged.effects[..], [Effect::KvAdd { delta: 4, .. }]));
    let listed = counter("list", json!({})).await;
    assert_eq!(told(&listed), json!({"counts": [{"name": "a", "value": 1}]}));
}

#[tokio::test]
async fn r08_three_tools_of_a_saga_stage_one_order() {
    let scratch = Scratch::new();
    let store = Arc::new(Store::default());
    store.0.lock().expect("keys").insert(("stock".to_owned(), "chair".to_owned()), b"3".to_vec());
    let stock = serde_json::from_value::<toolkeep_core::grant::KeysText>(json!({"bucket": "stock", "access": "write"}));
    let stock = stock.expect("a grant").check().expect("valid");
    let step = |tool: &str, input: Value, layer: Option<Layer>| {
        let mut call = GuestCall::new("saga").local(tool).input(&input.to_string());
        let (http, keys) = ([http(|g| g["methods"] = json!(["PUT"]))].into(), [stock.clone()].into());
        call.outward = Outward { http, keys, ports: ports(&Arc::default(), &store), layer, ..Outward::default() };
        let mut call = call.workspace(scratch.path(), Access::Write);
        call.mounts = call
            .mounts
            .drain(..)
            .map(|mut mount| {
                let name = "orders".parse().expect("name");
                mount.root =
                    Arc::new(toolkeep_sandbox::workspace::WorkspaceRoot::open(name, scratch.path()).expect("root"))
                        .into();
                mount.grant.workspace = mount.root.name().clone();
                mount
            })
            .collect();
        call.run()
    };
    let layer = |execution: Execution| Layer { effects: execution.staged.effects, contents: execution.staged.contents };
    let reserved = step("reserve", json!({"article": "chair", "count": 2}), None).await;
    let order = json!({"order": "o-1", "article": "chair", "count": 2});
    let confirmed = step("confirm", order, Some(layer(reserved))).await;
    let shipped =
        step("ship", json!({"order": "o-1", "carrier": "https://api.example.com"}), Some(layer(confirmed))).await;
    let kinds: Vec<&str> = shipped.staged.effects.iter().map(Effect::kind).collect();
    assert_eq!(kinds, ["file.write", "kv.set", "http.request"]);
    let again = step("reserve", json!({"article": "chair", "count": 2}), Some(layer(shipped))).await;
    assert!(matches!(again.ended, Ended::Error(_)), "one is left");
}
