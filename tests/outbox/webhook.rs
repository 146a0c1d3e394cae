//! Webhooks to a real receiver: what arrives, what its answers mean, and what becomes of what it does not take.

use serde_json::json;
use toolkeep::ledger::{DeadState, Page, Scope};
use toolkeep_core::delivery::{ATTEMPTS_DEFAULT, DeliveryState};

use super::receiver::{Receiver, Reply};
use super::world::{NEW_KEY, NOW_MS, OLD_KEY, World};

fn ops(receiver: &Receiver, more: &str) -> World {
    World::new(&format!(
        "[ops]\nkind = \"webhook\"\nurl = \"{}\"\nsecret = [\"new\", \"old\"]\nallow_private = true\n{more}",
        receiver.url()
    ))
}

#[tokio::test]
async fn a_message_arrives_once_signed_with_every_key_of_a_rotation() {
    let receiver = Receiver::new([]).await;
    let world = ops(&receiver, "");
    let life = world.live().await;
    let id = life.send(world.message("ops"));
    let delivered = life.until(id, DeliveryState::Delivered).await;
    let hooks = receiver.hooks();
    assert_eq!(hooks.len(), 1);
    let hook = &hooks[0];
    assert_eq!((hook.id(), hook.path.as_str()), (id.to_string().as_str(), "/hooks/1?from=toolkeep"));
    assert_eq!(hook.field("webhook-timestamp"), (NOW_MS / 1000).to_string());
    assert!(hook.is_signed_with(&NEW_KEY) && hook.is_signed_with(&OLD_KEY) && !hook.is_signed_with(&[8; 24]));
    assert_eq!(
        hook.json(),
        json!({"type": "message.sent", "timestamp": "2023-11-14T22:13:20Z", "data": {
            "tenant": "acme", "call_id": null, "to": ["ann@example.com"], "subject": "Close of Märch",
            "media_type": "text/plain; charset=utf-8", "body": "The books are closed.\n.\n"}})
    );
    assert_eq!((delivered.progress.attempts, delivered.note.as_deref()), (1, Some("204")));
    assert!(delivered.what.message.body.is_empty(), "what was delivered is not kept");
    life.end().await;
}

#[tokio::test]
async fn an_answer_decides_whether_there_is_another_attempt() {
    for (status, again) in [
        (200, None),
        (299, None),
        (301, Some(true)),
        (400, Some(false)),
        (404, Some(false)),
        (408, Some(true)),
        (409, Some(true)),
        (410, Some(false)),
        (425, Some(true)),
        (429, Some(true)),
        (500, Some(true)),
        (503, Some(true)),
    ] {
        let receiver = Receiver::new([Reply::status(status)]).await;
        let world = ops(&receiver, "");
        let life = world.live().await;
        let id = life.send(world.message("ops"));
        match again {
            None => drop(life.until(id, DeliveryState::Delivered).await),
            Some(false) => {
                let dead = life.until(id, DeliveryState::Dead).await;
                assert_eq!((dead.progress.attempts, dead.note.as_deref()), (1, Some(status.to_string().as_str())));
            }
            Some(true) => {
                life.until_failed(id, 1).await;
                life.wait_out(&world);
                life.until(id, DeliveryState::Delivered).await;
                let ids: Vec<String> = receiver.hooks().iter().map(|hook| hook.id().to_owned()).collect();
                assert_eq!(ids, [id.to_string(), id.to_string()], "{status}");
            }
        }
        life.end().await;
    }
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_is_left_alone_for_as_long() {
    let busy = Reply::Status(429, vec![("retry-after", "3600")], "slow\r\n\u{1b}[31mdown".to_owned());
    let receiver = Receiver::new([busy]).await;
    let world = ops(&receiver, "");
    let life = world.live().await;
    let id = life.send(world.message("ops"));
    let failed = life.until_failed(id, 1).await;
    assert_eq!(failed.progress.next_ms, NOW_MS + 3_600_000);
    assert_eq!(failed.note.as_deref(), Some("429: slow   [31mdown"), "one harmless line");
    life.end().await;
}

#[tokio::test]
async fn a_long_answer_is_kept_short() {
    let receiver = Receiver::new([Reply::Status(400, Vec::new(), "x".repeat(1 << 20))]).await;
    let world = ops(&receiver, "");
    let life = world.live().await;
    let id = life.send(world.message("ops"));
    let dead = life.until(id, DeliveryState::Dead).await;
    let note = dead.note.expect("a note");
    assert_eq!(note.len(), "400: ".len() + toolkeep::channel::ANSWER_SHOWN_CHARS);
    life.end().await;
}

#[tokio::test]
async fn r33_what_is_never_taken_rests_after_bounded_attempts_until_a_person_decides() {
    let attempts = usize::try_from(ATTEMPTS_DEFAULT).expect("small");
    let receiver = Receiver::new(vec![Reply::status(500); attempts]).await;
    let world = ops(&receiver, "");
    let life = world.live().await;
    let id = life.send(world.message("ops"));
    for attempt in 1..ATTEMPTS_DEFAULT {
        life.until_failed(id, attempt).await;
        life.wait_out(&world);
    }
    let dead = life.until(id, DeliveryState::Dead).await;
    assert_eq!(dead.progress.attempts, ATTEMPTS_DEFAULT);
    assert_eq!(receiver.hooks().len(), attempts);
    let letters = life.ledger.dead_letters(&Scope::Operator, false, Page::default()).await.expect("read").items;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].id, &*letters[0].reason, letters[0].state), (id.into(), "500", DeadState::Resting));

    let by = "bob".parse().expect("name");
    life.ledger.resolve_dead_letter(&Scope::Operator, id, true, &by).await.expect("retried");
    let delivered = life.until(id, DeliveryState::Delivered).await;
    assert_eq!(delivered.progress.attempts, 1, "a retry starts over");
    assert!(receiver.hooks().iter().all(|hook| hook.id() == id.to_string()), "one id for ever");
    let resting = life.ledger.dead_letters(&Scope::Operator, false, Page::default()).await.expect("read").items;
    assert!(resting.is_empty());
    life.end().await;
}

#[tokio::test]
async fn attempts_of_a_channel_are_counted_at_n_and_n_plus_1() {
    for (attempts, state) in [(1, DeliveryState::Dead), (2, DeliveryState::Queued)] {
        let receiver = Receiver::new(vec![Reply::Nothing]).await;
        let world = ops(&receiver, &format!("attempts = {attempts}"));
        let life = world.live().await;
        let id = life.send(world.message("ops"));
        let failed = life.until(id, state).await;
        assert_eq!(failed.progress.state, state);
        life.end().await;
    }
}

#[tokio::test]
async fn t_n1_a_private_address_is_not_reached_unless_the_channel_says_so() {
    let receiver = Receiver::new([]).await;
    let world = World::new(&format!(
        "[ops]\nkind = \"webhook\"\nurl = \"{}\"\nsecret = \"new\"",
        receiver.url().replace("http://", "https://")
    ));
    let life = world.live().await;
    let id = life.send(world.message("ops"));
    let dead = life.until(id, DeliveryState::Dead).await;
    assert!(dead.note.expect("why").contains("loopback"));
    assert!(receiver.hooks().is_empty());
    life.end().await;
}

#[tokio::test]
async fn a_channel_of_another_tenant_looks_missing() {
    let receiver = Receiver::new([]).await;
    let world = ops(&receiver, "tenant = \"other\"");
    let life = world.live().await;
    let (foreign, missing) = (life.send(world.message("ops")), life.send(world.message("nowhere")));
    let (foreign, missing) =
        (life.until(foreign, DeliveryState::Dead).await, life.until(missing, DeliveryState::Dead).await);
    assert_eq!(
        foreign.note.expect("why").replace("ops", "nowhere").as_str(),
        missing.note.as_deref().expect("why"),
        "the same answer"
    );
    assert!(receiver.hooks().is_empty());
    life.end().await;
}

#[tokio::test]
async fn t_n6_nothing_that_would_end_a_line_of_a_head_is_sent() {
    let receiver = Receiver::new([]).await;
    let world = ops(&receiver, "");
    let life = world.live().await;
    let mut message = world.message("ops");
    message.message.subject = "hello\r\nx-evil: 1".to_owned();
    let id = life.send(message);
    let dead = life.until(id, DeliveryState::Dead).await;
    assert!(dead.note.expect("why").contains("subject"));
    assert!(receiver.hooks().is_empty());
    life.end().await;
}
