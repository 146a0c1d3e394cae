//! R48: messages are bounded, checked against grants, staged, and never sent from the sandbox.

use serde_json::{Value, json};
use toolkeep_core::delivery::{BODY_MAX_BYTES, RECEIVERS_MAX, SUBJECT_MAX_BYTES};
use toolkeep_core::effect::Effect;
use toolkeep_core::grant::{MessageGrant, MessageText};
use toolkeep_sandbox::execution::{Execution, Outward};
use toolkeep_tests::support::guest_call::{GuestCall, output};
use toolkeep_tests::support::outside::mail;

fn message(change: impl FnOnce(&mut Value)) -> Value {
    let mut step = json!({"op": "message", "channel": "mail", "to": ["ann@example.com"], "subject": "s", "body": "b"});
    change(&mut step);
    step
}

async fn run(grants: &[MessageGrant], steps: &[Value]) -> Execution {
    let mut call = GuestCall::new("reach").input(&json!({"steps": steps}).to_string());
    call.outward = Outward { messages: grants.into(), ..Outward::default() };
    call.run().await
}

fn answers(execution: &Execution) -> Vec<Value> {
    let output: Value = serde_json::from_str(output(execution)).expect("JSON");
    output["answers"].as_array().expect("answers").clone()
}

#[tokio::test]
async fn r48_a_message_is_staged_with_its_body() {
    let execution = run(&[mail()], &[message(|_| ()), message(|m| m["body"] = json!("other"))]).await;
    assert_eq!(answers(&execution), [json!("done"), json!("done")]);
    let [Effect::MessageSend(first), Effect::MessageSend(second)] = execution.staged.effects.as_slice() else {
        panic!("two messages: {:?}", execution.staged.effects);
    };
    assert_eq!(
        (first.channel.as_str(), first.to.as_slice(), first.subject.as_str()),
        ("mail", &["ann@example.com".to_owned()][..], "s")
    );
    assert_eq!(execution.staged.contents[&second.body.sha256].size(), 5);
}

#[tokio::test]
async fn r49_channel_receivers_and_number_must_fit_a_grant() {
    let none = run(&[], &[message(|_| ())]).await;
    assert!(answers(&none)[0]["error"].as_str().expect("error").contains("no grant names this channel"));
    assert_eq!(none.staged.breaches.len(), 1);
    let steps = [
        message(|m| m["to"] = json!(["ann@example.com", "eve@evil.org"])),
        message(|m| m["to"] = json!([])),
        message(|m| m["channel"] = json!("pager")),
        message(|m| m["to"] = json!(["ANN@EXAMPLE.COM"])),
        message(|_| ()),
        message(|_| ()),
    ];
    let execution = run(&[mail()], &steps).await;
    let done: Vec<bool> = answers(&execution).iter().map(|answer| answer == "done").collect();
    assert_eq!(done, [false, false, false, true, true, false], "the grant allows two");
    assert_eq!(
        (execution.staged.effects.len(), execution.staged.breaches.len()),
        (2, 3),
        "{:?}",
        execution.staged.breaches
    );
    let own: MessageText = serde_json::from_value(json!({"channel": "mail"})).expect("a grant");
    let execution = run(&[own.check().expect("valid")], &[message(|m| m["to"] = json!([])), message(|_| ())]).await;
    assert_eq!(execution.staged.effects.len(), 1, "a channel with a receiver of its own takes no other");
}

#[tokio::test]
async fn t_n6_no_part_of_a_message_can_begin_a_line_of_its_own() {
    for bad in ["a\r\nBcc: eve@evil.org", "a\nb", "a\u{0}b", "a\u{7f}b", "a\u{85}b", "a\u{2028}b"] {
        let steps = [
            message(|m| m["subject"] = json!(bad)),
            message(|m| m["to"] = json!([bad])),
            message(|m| m["media_type"] = json!(format!("text/plain{bad}"))),
        ];
        let execution = run(&[mail()], &steps).await;
        assert!(answers(&execution).iter().all(|answer| answer["error"].is_string()), "{bad:?}");
        assert!(execution.staged.effects.is_empty());
    }
    for (media_type, fits) in
        [("text/html; charset=utf-8", true), ("text", false), ("", false), ("/", false), ("té/x", false)]
    {
        let execution = run(&[mail()], &[message(|m| m["media_type"] = json!(media_type))]).await;
        assert_eq!(execution.staged.effects.len(), usize::from(fits), "{media_type}");
    }
}

#[tokio::test]
async fn r04_parts_of_a_message_hold_at_n_and_are_refused_at_n_plus_1() {
    let to = |count: usize| message(|m| m["to"] = json!(vec!["ann@example.com"; count]));
    let subject = |count: usize| message(|m| m["subject"] = json!("s".repeat(count)));
    let body = |count: usize| message(|m| m["times"] = json!(count));
    for (fits, not) in [
        (to(RECEIVERS_MAX), to(RECEIVERS_MAX + 1)),
        (subject(SUBJECT_MAX_BYTES), subject(SUBJECT_MAX_BYTES + 1)),
        (body(BODY_MAX_BYTES), body(BODY_MAX_BYTES + 1)),
    ] {
        let execution = run(&[mail()], &[fits, not]).await;
        let told = answers(&execution);
        assert!(told[0] == "done" && told[1]["error"].is_string(), "{told:?}");
    }
}
