//! R48, R49: what a tool may ask other systems, what it is answered, and what of it is staged.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_core::call::Mode;
use toolkeep_core::effect::{Delivery, Effect, Reversal};
use toolkeep_core::grant::HttpGrant;
use toolkeep_core::net::field::FIELDS_MAX;
use toolkeep_sandbox::execution::{Ended, Execution, Outward};
use toolkeep_sandbox::fault::Fault;
use toolkeep_sandbox::port::{Exchange, HttpFailure, UNANSWERED};
use toolkeep_sandbox::stage::BREACHES_MAX;
use toolkeep_tests::support::guest_call::{GuestCall, fault, output};
use toolkeep_tests::support::outside::{Peers, answer, http, ports};

const API: &str = "https://api.example.com";

fn url(path: &str) -> String {
    format!("{API}{path}")
}

fn send(method: &str, path: &str) -> Value {
    json!({"op": "send", "method": method, "url": url(path)})
}

fn post(path: &str, body: &str) -> Value {
    json!({"op": "send", "method": "POST", "url": url(path), "body": body})
}

fn raw(way: &str, urls: &[&str]) -> Value {
    json!({"op": "raw", "way": way, "urls": urls})
}

/// A call of `reach` with these grants and peers.
fn call(grants: &[HttpGrant], peers: &Arc<Peers>, steps: &[Value]) -> GuestCall {
    let mut call = GuestCall::new("reach").input(&json!({"steps": steps}).to_string());
    call.outward = Outward { http: grants.into(), ports: ports(peers, &Arc::default()), ..Outward::default() };
    call
}

fn answers(execution: &Execution) -> Vec<Value> {
    let output: Value = serde_json::from_str(output(execution)).expect("JSON");
    output["answers"].as_array().expect("answers").clone()
}

fn errors(execution: &Execution) -> Vec<String> {
    answers(execution).iter().map(|answer| answer["error"].as_str().unwrap_or("none").to_owned()).collect()
}

#[tokio::test]
async fn r49_without_a_grant_every_request_is_denied_and_recorded() {
    let peers = Arc::new(Peers::default().with(&url("/"), "secret"));
    let execution = call(&[], &peers, &[send("GET", "/"), send("POST", "/")]).run().await;
    assert!(errors(&execution).iter().all(|error| error.contains("not allowed")), "{:?}", answers(&execution));
    assert_eq!(execution.staged.breaches.len(), 2, "{:?}", execution.staged.breaches);
    assert!(execution.staged.breaches[0].contains("no grant names this origin"));
    assert!(peers.heard().is_empty() && execution.staged.effects.is_empty() && execution.exchanges.is_empty());
    assert!(execution.log.iter().any(|line| line.text.contains("no grant names this origin")), "the author learns why");
}

#[tokio::test]
async fn r48_a_read_is_sent_and_its_answer_is_an_exchange_and_recorded() {
    let peers = Arc::new(Peers::default().with(&url("/a"), "hello"));
    let execution = call(&[http(|_| ())], &peers, &[send("GET", "/a")]).run().await;
    let seen = &answers(&execution)[0];
    assert_eq!(
        (seen["status"].as_u64(), seen["body"].as_str(), seen["staged"].as_bool()),
        (Some(200), Some("hello"), Some(false))
    );
    assert!(execution.staged.effects.is_empty());
    assert_eq!(execution.exchanges.len(), 1);
    assert_eq!(execution.exchanges[0].answer, Ok(answer(200, b"hello")));
    let digest = peers.asked.lock().expect("asked")[0].digest();
    assert_eq!(execution.exchanges[0].call, digest);
    let events = serde_json::to_string(&execution.recording.events).expect("JSON");
    assert!(events.contains(&format!("GET {} {digest}", url("/a"))) && !events.contains("hello"), "{events}");
    let heard = serde_json::to_string(&execution.recording.heard.exchanges).expect("JSON");
    assert!(heard.contains("hello"), "{heard}");
}

#[tokio::test]
async fn r49_origin_method_path_and_query_must_fit_a_grant() {
    let grants = [
        http(|g| g["paths"] = json!(["/v1/*"])),
        http(|g| {
            g["name"] = json!("other");
            g["methods"] = json!(["DELETE"]);
            g["paths"] = json!(["/v2/**"]);
        }),
    ];
    let peers = Arc::new(Peers::default().with(&url("/v1/a"), "a"));
    let steps = [
        send("GET", "/v1/a"),
        send("GET", "/v1/a/b"),
        send("GET", "/v2/a"),
        send("DELETE", "/v1/a"),
        send("DELETE", "/v2/a/b"),
        send("BREW", "/v1/a"),
        json!({"op": "send", "method": "GET", "url": "http://api.example.com/v1/a"}),
        json!({"op": "send", "method": "GET", "url": "https://api.example.com:8443/v1/a"}),
        json!({"op": "send", "method": "GET", "url": "https://api.example.com.evil.org/v1/a"}),
        json!({"op": "send", "method": "GET", "url": "https://API.EXAMPLE.COM:443/v1/a"}),
    ];
    let execution = call(&grants, &peers, &steps).run().await;
    let allowed: Vec<bool> = answers(&execution).iter().map(|answer| answer["status"].is_u64()).collect();
    assert_eq!(allowed, [true, false, false, false, true, false, false, false, false, true]);
    assert_eq!(peers.heard(), [format!("GET {}", url("/v1/a")), format!("GET {}", url("/v1/a"))]);
    assert_eq!(execution.staged.breaches.len(), 7);
}

#[tokio::test]
async fn t_n8_the_query_holds_at_n_and_is_refused_at_n_plus_1() {
    let grant = http(|g| g["query_bytes"] = json!(10));
    let fits = url("/a?1234567890");
    let peers = Arc::new(Peers::default().with(&fits, "ok"));
    let execution = call(&[grant], &peers, &[send("GET", "/a?1234567890"), send("GET", "/a?12345678901")]).run().await;
    assert_eq!(errors(&execution)[0], "none");
    assert!(errors(&execution)[1].contains("too long"), "{:?}", errors(&execution));
    assert_eq!(peers.heard(), [format!("GET {fits}")]);
}

#[tokio::test]
async fn r49_bodies_and_the_number_of_requests_hold_at_n_and_are_refused_at_n_plus_1() {
    let grant = http(|g| {
        g["request_bytes"] = json!(10);
        g["response_bytes"] = json!(5);
        g["requests"] = json!(4);
    });
    let peers = Arc::new(Peers::default().with(&url("/five"), "12345").with(&url("/six"), "123456"));
    let steps = [post("/a", "1234567890"), post("/a", "12345678901"), send("GET", "/five"), send("GET", "/six")];
    let execution = call(std::slice::from_ref(&grant), &peers, &steps).run().await;
    let errors = errors(&execution);
    assert!(errors[0] == "none" && errors[2] == "none", "{errors:?}");
    assert!(errors[1].contains("too large") && errors[3].contains("too large"), "{errors:?}");
    assert_eq!(execution.staged.effects.len(), 1);
    let steps = vec![send("GET", "/five"); 5];
    let execution = call(&[grant], &peers, &steps).run().await;
    assert_eq!(execution.exchanges.len(), 4);
    assert!(answers(&execution)[4]["error"].as_str().expect("error").contains("not allowed"));
}

#[tokio::test]
async fn t_n6_what_frames_a_request_or_names_a_credential_is_refused_by_name() {
    let grant = http(|g| g["headers"] = json!(["x-mine"]));
    let peers = Arc::new(Peers::default().with(&url("/a"), "ok"));
    let lines = [
        "x-mine: 1",
        "accept: text/plain",
        "host: evil.org",
        "transfer-encoding: chunked",
        "connection: close",
        "authorization: Bearer x",
        "cookie: a=b",
        "idempotency-key: 1",
        "x-other: 1",
        "expect: 100-continue",
        "x-mine: a\r\nhost: evil.org",
        "content-length: 5",
        "content-length: 0",
    ];
    let urls: Vec<String> = std::iter::once(url("/a")).chain(lines.map(str::to_owned)).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let execution = call(&[grant], &peers, &[raw("fields", &urls)]).run().await;
    let told: Vec<String> = serde_json::from_value(answers(&execution)[0].clone()).expect("texts");
    for (line, told) in lines.iter().zip(&told) {
        let fits = ["x-mine: 1", "accept: text/plain", "content-length: 0"].contains(line);
        assert_eq!(told == "200 ok", fits, "{line}: {told}");
    }
    assert!(told[5].contains("authorization") && told[6].contains("cookie") && told[8].contains("x-other"), "{told:?}");
    assert_eq!(peers.heard().len(), 3);
    let sent = peers.asked.lock().expect("asked");
    assert!(sent.iter().all(|call| call.headers.iter().all(|header| header.name != "content-length")));
}

#[tokio::test]
async fn t_r5_a_request_carries_a_bounded_number_of_fields() {
    let peers = Arc::new(Peers::default().with(&url("/a"), "ok"));
    let many = |count: usize| {
        let headers: Vec<Value> = (0..count).map(|_| json!(["accept", "a/b"])).collect();
        json!({"op": "send", "method": "GET", "url": url("/a"), "headers": headers})
    };
    let execution = call(&[http(|_| ())], &peers, &[many(FIELDS_MAX), many(FIELDS_MAX + 1)]).run().await;
    let errors = errors(&execution);
    assert_eq!(errors[0], "none");
    assert!(errors[1].contains("fields"), "{errors:?}");
}

#[tokio::test]
async fn t_n1_a_url_means_one_thing_or_is_refused() {
    let peers = Arc::new(Peers::default().with(&url("/a"), "ok"));
    let parts = [
        "GET https api.example.com /a",
        "GET https user@api.example.com /a",
        "GET https api.example.com /x/../a",
        "GET https api.example.com /x/%2e%2e/a",
        "GET https api.example.com //evil.org/a",
        "GET https api.example.com http://evil.org/a",
        "GET https api.example.com /a%2f..",
        "GET ftp api.example.com /a",
        "GET https 2130706433 /a",
        "CONNECT https api.example.com /a",
        "TRACE https api.example.com /a",
        "get https api.example.com /a",
    ];
    let execution = call(&[http(|_| ())], &peers, &[raw("parts", &parts)]).run().await;
    let told: Vec<String> = serde_json::from_value(answers(&execution)[0].clone()).expect("texts");
    assert_eq!(told[0], "200 ok");
    assert!(told[1..].iter().all(|told| !told.contains("200")), "{told:?}");
    assert_eq!(peers.heard(), [format!("GET {}", url("/a"))]);
}

#[tokio::test]
async fn r48_a_write_is_staged_with_its_body_and_answered_as_the_manifest_says() {
    let plain = http(|g| g["headers"] = json!(["x-mine"]));
    let declared = http(|g| {
        g["name"] = json!("charge");
        g["methods"] = json!(["PUT"]);
        g["credential"] = json!("token");
        g["reversible"] = json!(true);
        g["preview"] = json!({"status": 201, "headers": {"Location": "/x/1"}, "body": "{\"id\":1}"});
    });
    let peers = Arc::new(Peers::default());
    let steps = [
        json!({"op": "send", "method": "POST", "url": url("/a?b=c"), "headers": [["x-mine", " 1 "]], "body": "hello"}),
        json!({"op": "send", "method": "PUT", "url": url("/x")}),
    ];
    let execution = call(&[plain, declared], &peers, &steps).run().await;
    let seen = answers(&execution);
    assert_eq!(
        (seen[0]["status"].as_u64(), seen[0]["body"].as_str(), seen[0]["staged"].as_bool()),
        (Some(202), Some(""), Some(true))
    );
    assert_eq!((seen[1]["status"].as_u64(), seen[1]["body"].as_str()), (Some(201), Some("{\"id\":1}")));
    assert!(seen[1]["headers"].as_array().expect("headers").contains(&json!(["location", "/x/1"])));
    let [Effect::HttpRequest(first), Effect::HttpRequest(second)] = execution.staged.effects.as_slice() else {
        panic!("two requests: {:?}", execution.staged.effects);
    };
    assert_eq!((first.method.as_str(), first.url.as_str()), ("POST", url("/a?b=c").as_str()));
    assert_eq!((first.headers[0].name.as_str(), first.headers[0].value.as_str()), ("x-mine", "1"));
    assert_eq!((first.delivery, first.reversal, first.credential.is_none()), (Delivery::Staged, Reversal::None, true));
    let body = first.body.expect("a body");
    assert_eq!((body.size, execution.staged.contents[&body.sha256].size()), (5, 5));
    assert_eq!((second.body, second.reversal), (None, Reversal::Reversible));
    assert_eq!(second.credential.as_ref().expect("named").as_str(), "token");
    assert!(peers.heard().is_empty() && execution.exchanges.is_empty(), "nothing left");
}

#[tokio::test]
async fn r48_requests_come_after_everything_else_in_a_plan_and_count_against_the_stage() {
    let peers = Arc::new(Peers::default());
    let steps = vec![post("/a", "12345"); 3];
    let run = |effects: u64, bytes: u64| {
        let call = call(&[http(|_| ())], &peers, &steps);
        call.limits(|limits| {
            limits.stage_effects = effects;
            limits.stage_bytes = bytes;
        })
        .run()
    };
    assert_eq!(run(3, 15).await.staged.effects.len(), 3);
    assert!(matches!(fault(&run(2, 15).await), Fault::StageFull(_)));
    assert!(matches!(fault(&run(3, 14).await), Fault::StageFull(_)));
}

#[tokio::test]
async fn r48_a_failed_call_stages_no_request() {
    let peers = Arc::new(Peers::default());
    let execution = call(&[http(|_| ())], &peers, &[post("/a", "x"), json!({"op": "fail"})]).run().await;
    assert!(matches!(execution.ended, Ended::Error(_)));
    assert!(execution.staged.effects.is_empty() && execution.staged.contents.is_empty());
}

#[tokio::test]
async fn r48_a_body_may_come_after_its_request_and_a_broken_one_is_not_sent() {
    let peers = Arc::new(Peers::default());
    let a = url("/a");
    for (way, told, staged) in [
        ("handle_first", vec!["pending", "finished", "202 "], 1),
        ("drop_body", vec!["pending", "dropped", "ErrorCode::HttpProtocolError"], 0),
        ("never_finish", vec!["pending", "never", "pending"], 0),
        ("trailers", vec!["pending", "ErrorCode::HttpRequestTrailerSectionSize(Some(0))"], 0),
        ("short_body", vec!["pending", "finished", "ErrorCode::HttpRequestBodySize(Some(4))"], 0),
    ] {
        let execution = call(&[http(|_| ())], &peers, &[raw(way, &[&a])]).run().await;
        let answer: Vec<String> = serde_json::from_value(answers(&execution)[0].clone()).expect("texts");
        assert_eq!(answer[..told.len()], told[..], "{way}");
        assert_eq!(execution.staged.effects.len(), staged, "{way}");
    }
}

fn live(change: impl FnOnce(&mut Value)) -> HttpGrant {
    http(|g| {
        g["delivery"] = json!("live");
        change(g);
    })
}

#[tokio::test]
async fn r48_a_live_write_ends_the_execution_with_what_was_staged_and_goes_on_with_its_answer() {
    let peers = Arc::new(Peers::default().with(&url("/a"), "read"));
    let staged = http(|g| {
        g["name"] = json!("staged");
        g["methods"] = json!(["DELETE"]);
    });
    let grants = [live(|_| ()), staged];
    let steps = [send("GET", "/a"), send("DELETE", "/b"), post("/charge", "42"), send("DELETE", "/c")];
    let first = call(&grants, &peers, &steps).run().await;
    let Ended::Live(request) = &first.ended else { panic!("{:?}", first.ended) };
    assert_eq!(
        (request.method.as_str(), request.url.as_str(), &request.body[..]),
        ("POST", url("/charge").as_str(), &b"42"[..])
    );
    assert_eq!((first.staged.effects.len(), first.exchanges.len()), (1, 1), "what came before is sealed");
    assert_eq!(peers.heard().len(), 1, "the sandbox sent nothing that writes");

    let mut exchanges = first.exchanges.clone();
    exchanges.push(Exchange { call: request.digest(), answer: Ok(answer(201, b"paid")), took_ns: 5 });
    let again = || {
        let mut again = call(&grants, &peers, &steps);
        again.outward.exchanges.clone_from(&exchanges);
        again.run()
    };
    let second = again().await;
    let seen = answers(&second);
    assert_eq!((seen[2]["status"].as_u64(), seen[2]["body"].as_str()), (Some(201), Some("paid")));
    assert_eq!(second.exchanges, exchanges);
    assert_eq!(second.staged.effects.len(), 2, "the request that was sent is no effect any more");
    assert_eq!(peers.heard().len(), 1, "what was read before is not read again");
    let third = again().await;
    assert_eq!(second.recording, third.recording, "the same exchanges give the same recording");
    assert_eq!((second.usage.fuel, second.staged.effects), (third.usage.fuel, third.staged.effects));
}

#[tokio::test]
async fn r48_an_execution_that_asks_for_something_else_than_before_sends_nothing() {
    let peers = Arc::new(Peers::default().with(&url("/a"), "read").with(&url("/b"), "other"));
    let first = call(&[live(|_| ())], &peers, &[send("GET", "/a"), post("/charge", "42")]).run().await;
    let Ended::Live(request) = &first.ended else { panic!("{:?}", first.ended) };
    let mut exchanges = first.exchanges.clone();
    exchanges.push(Exchange { call: request.digest(), answer: Ok(answer(201, b"paid")), took_ns: 5 });
    let again = |steps: Vec<Value>| {
        let mut again = call(&[live(|_| ())], &peers, &steps);
        again.outward.exchanges.clone_from(&exchanges);
        again.run()
    };
    for steps in [
        vec![send("GET", "/b"), post("/charge", "42")],
        vec![send("GET", "/a"), post("/charge", "43")],
        vec![send("GET", "/a"), post("/charges", "42")],
        vec![post("/charge", "42")],
        vec![send("GET", "/a")],
        vec![],
    ] {
        let text = format!("{steps:?}");
        let execution = again(steps).await;
        assert!(matches!(fault(&execution), Fault::Diverged(_)), "{text}");
        assert!(execution.staged.effects.is_empty());
    }
    assert_eq!(peers.heard().len(), 1);
    let further = again(vec![send("GET", "/a"), post("/charge", "42"), post("/charge", "42")]).await;
    assert!(matches!(further.ended, Ended::Live(_)), "the next live request is a boundary of its own");
}

#[tokio::test]
async fn r48_a_preview_answers_a_live_write_only_if_the_manifest_says_how() {
    let peers = Arc::new(Peers::default());
    let run = |grant: HttpGrant, mode: Mode| {
        let mut call = call(&[grant], &peers, &[post("/charge", "42")]);
        call.mode = mode;
        call.run()
    };
    let declared = || live(|g| g["preview"] = json!({"status": 201, "body": "paid"}));
    let shown = run(declared(), Mode::Preview).await;
    assert_eq!(answers(&shown)[0]["body"], json!("paid"));
    assert!(matches!(&shown.staged.effects[..], [Effect::HttpRequest(effect)] if effect.delivery == Delivery::Live));
    assert!(matches!(run(declared(), Mode::Commit).await.ended, Ended::Live(_)));
    assert!(matches!(run(live(|_| ()), Mode::Preview).await.ended, Ended::Live(_)));
}

#[tokio::test]
async fn t_n7_a_peer_that_never_answers_ends_with_the_deadline_and_a_cancelled_call_at_once() {
    let peers = Arc::new(Peers::default().silent(&url("/a")));
    let waits = |deadline_ms: u64| {
        call(&[http(|_| ())], &peers, &[send("GET", "/a")]).limits(|limits| limits.deadline_ms = deadline_ms)
    };
    let execution = waits(100).run().await;
    assert_eq!(fault(&execution), &Fault::Deadline);
    assert_eq!(execution.exchanges.len(), 1);
    assert_eq!(execution.exchanges[0].took_ns, UNANSWERED);
    let waiting = waits(60_000);
    let cancel = waiting.cancel.clone();
    let later = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        cancel.cancel();
    };
    let (execution, ()) = tokio::join!(waiting.run(), later);
    assert_eq!(fault(&execution), &Fault::Cancelled);
}

#[tokio::test]
async fn r48_every_failure_of_a_peer_has_its_word_and_is_an_exchange() {
    let text = || "x".to_owned();
    let failures = [
        (HttpFailure::Denied(text()), "not be reached"),
        (HttpFailure::Resolve(text()), "no address"),
        (HttpFailure::Connect(text()), "no connection"),
        (HttpFailure::Tls(text()), "no secure connection"),
        (HttpFailure::Timeout(text()), "too long"),
        (HttpFailure::TooLarge(text()), "too large"),
        (HttpFailure::Broken(text()), "broke off"),
    ];
    for (failure, word) in failures {
        let peers = Arc::new(Peers::default().answering(&url("/a"), Err(failure.clone())));
        let execution = call(&[http(|_| ())], &peers, &[send("GET", "/a")]).run().await;
        assert!(errors(&execution)[0].contains(word), "{failure}: {:?}", errors(&execution));
        assert_eq!(execution.exchanges[0].answer, Err(failure));
    }
}

#[tokio::test]
async fn t_r5_an_answer_with_too_many_fields_is_no_answer() {
    let mut large = answer(200, b"x");
    large.headers = vec![large.headers[0].clone(); FIELDS_MAX];
    let mut larger = large.clone();
    larger.headers.push(large.headers[0].clone());
    let peers = Arc::new(Peers::default().answering(&url("/a"), Ok(large)).answering(&url("/b"), Ok(larger)));
    let execution = call(&[http(|_| ())], &peers, &[send("GET", "/a"), send("GET", "/b")]).run().await;
    assert_eq!(errors(&execution)[0], "none");
    assert!(errors(&execution)[1].contains("too large"));
}

#[tokio::test]
async fn r41_what_was_awaited_together_comes_in_the_same_order_when_it_is_given_again() {
    let (a, b, c) = (url("/a"), url("/b"), url("/c"));
    let (slow, very_slow) = (Duration::from_millis, url("/slow"));
    let peers = Peers::default().slow(&a, "a", slow(60)).slow(&b, "b", slow(20)).slow(&c, "c", slow(40));
    let peers = Arc::new(peers.slow(&very_slow, "a", slow(2_000)));
    let together = raw("together", &[&a, &b, &c]);
    let steps = [together, raw("impatient", &[&very_slow]), raw("look", &[&b]), json!({"op": "now"})];
    let first = call(&[http(|_| ())], &peers, &steps).run().await;
    let told = answers(&first);
    assert_eq!(told[0].as_array().map(Vec::len), Some(3), "in whatever order they came");
    assert_eq!(told[1], json!(["[1] pending", "200 a"]), "a timer of the tool ends its waiting");
    assert_eq!(told[2], json!(["200 b", "taken"]));
    assert!(told[3].as_u64() > Some(50_000_000), "time passed beside the timer: {}", told[3]);
    assert_eq!(first.exchanges.len(), 5);
    let mut again = call(&[http(|_| ())], &peers, &steps);
    again.outward.exchanges.clone_from(&first.exchanges);
    let second = again.run().await;
    assert_eq!(answers(&second), told);
    assert_eq!((&second.exchanges, &second.recording), (&first.exchanges, &first.recording));
    assert_eq!(peers.heard().len(), 5);
}

#[tokio::test]
async fn a_read_that_nobody_waited_for_is_sent_again_when_the_call_is_executed_again() {
    let peers = Arc::new(Peers::default().slow(&url("/a"), "a", Duration::from_millis(20)));
    let steps = [raw("forget", &[&url("/a")]), send("GET", "/a")];
    let first = call(&[http(|_| ())], &peers, &steps).run().await;
    assert_eq!((first.exchanges[0].took_ns, first.exchanges.len()), (UNANSWERED, 2));
    let mut again = call(&[http(|_| ())], &peers, &steps);
    again.outward.exchanges.clone_from(&first.exchanges);
    let second = again.run().await;
    assert_eq!((second.exchanges[0].took_ns, second.exchanges[1].clone()), (UNANSWERED, first.exchanges[1].clone()));
}

#[tokio::test]
async fn refused_attempts_are_kept_up_to_their_number() {
    let steps = vec![send("GET", "/a"); BREACHES_MAX + 5];
    let execution = call(&[], &Arc::default(), &steps).run().await;
    assert_eq!(execution.staged.breaches.len(), BREACHES_MAX);
}

#[tokio::test]
async fn r04_each_request_costs_fuel_like_every_other_call_of_the_host() {
    let run = |count: usize| call(&[], &Arc::default(), &vec![send("GET", "/a"); count]).run();
    let (few, many) = (run(1).await, run(11).await);
    assert!(many.usage.host_calls >= few.usage.host_calls + 10 * 7);
    assert!(many.usage.fuel > few.usage.fuel + 10 * 7 * 1_000);
}

#[tokio::test]
async fn without_a_port_a_granted_read_is_denied() {
    let mut call = GuestCall::new("reach").input(&json!({"steps": [send("GET", "/a")]}).to_string());
    call.outward.http = [http(|_| ())].into();
    let execution = call.run().await;
    assert!(errors(&execution)[0].contains("not allowed"));
}
