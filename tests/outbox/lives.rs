//! One delivery over many lives of the daemon: cut off in every state, nothing is lost and no second id appears.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::json;
use tokio::sync::Semaphore;
use toolkeep::ledger::{DeliveryChange, Keep, LedgerError, Page, Scope};
use toolkeep::notify::{Event, Route};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::delivery::{DeliveryEvent, DeliveryState};
use toolkeep_core::id::DeliveryId;

use super::receiver::{Receiver, Reply};
use super::world::{NOW_MS, World, until};

fn ops(receiver: &Receiver) -> World {
    World::new(&format!(
        "[ops]\nkind = \"webhook\"\nurl = \"{}\"\nsecret = \"new\"\nallow_private = true",
        receiver.url()
    ))
}

#[tokio::test]
async fn what_was_enqueued_before_a_stop_is_delivered_after_it() {
    let receiver = Receiver::new([]).await;
    let world = ops(&receiver);
    let ledger = world.ledger().await;
    let message = world.message("ops");
    let id = message.id;
    ledger.enqueue_delivery(message.clone()).expect("enqueued");
    ledger.enqueue_delivery(message).expect("enqueued again");
    ledger.close().await.expect("closed");
    let life = world.live().await;
    life.until(id, DeliveryState::Delivered).await;
    life.end().await;
    let life = world.live().await;
    assert_eq!(life.delivery(id).await.progress.state, DeliveryState::Delivered);
    assert_eq!(receiver.hooks().len(), 1, "one id, one delivery, and no other one after a restart");
    life.end().await;
}

#[tokio::test]
async fn an_attempt_that_a_crash_cut_off_is_made_again_with_the_same_id() {
    let receiver = Receiver::new([]).await;
    let world = ops(&receiver);
    let ledger = world.ledger().await;
    let message = world.message("ops");
    let id = message.id;
    ledger.enqueue_delivery(message).expect("enqueued");
    let claimed = ledger.claim_deliveries(vec![id]).await.expect("claimed");
    assert_eq!((claimed.len(), claimed[0].progress.attempts), (1, 1));
    assert!(ledger.claim_deliveries(vec![id]).await.expect("asked").is_empty(), "nobody else gets it");
    drop(ledger);
    let life = world.live().await;
    let delivered = life.until(id, DeliveryState::Delivered).await;
    assert_eq!(delivered.progress.attempts, 2);
    assert_eq!(receiver.hooks()[0].id(), id.to_string());
    life.end().await;
}

#[tokio::test]
async fn crashes_alone_bring_a_delivery_to_rest_instead_of_into_a_circle() {
    let receiver = Receiver::new([]).await;
    let world = ops(&receiver);
    let message = world.message("ops");
    let id = message.id;
    let mut ledger = world.ledger().await;
    ledger.enqueue_delivery(message).expect("enqueued");
    let lose = || DeliveryChange { id, event: DeliveryEvent::Lose, most: 3, note: Arc::from("crash") };
    for attempt in 1..=3 {
        assert_eq!(ledger.claim_deliveries(vec![id]).await.expect("claimed").len(), 1, "attempt {attempt}");
        drop(ledger);
        ledger = world.ledger().await;
        ledger.change_delivery(lose()).await.expect("lost");
    }
    assert!(ledger.claim_deliveries(vec![id]).await.expect("asked").is_empty());
    let letter = ledger.dead_letter(&Scope::Operator, id).await.expect("read").expect("a dead letter");
    assert_eq!((letter.attempts, &*letter.reason), (3, "crash"));
    ledger.close().await.expect("closed");
}

#[tokio::test]
async fn a_receiver_that_took_it_without_saying_so_gets_it_again_under_the_id_it_knows() {
    let receiver = Receiver::new([Reply::Nothing]).await;
    let world = ops(&receiver);
    let life = world.live().await;
    let id = life.send(world.message("ops"));
    life.until_failed(id, 1).await;
    life.end().await;
    let life = world.live().await;
    life.wait_out(&world);
    life.until(id, DeliveryState::Delivered).await;
    let hooks = receiver.hooks();
    assert_eq!(hooks.len(), 2);
    assert!(hooks.iter().all(|hook| hook.id() == id.to_string()));
    assert_eq!(hooks[0].body, hooks[1].body);
    life.end().await;
}

#[tokio::test]
async fn a_stop_waits_for_attempts_under_way_and_begins_no_other() {
    let gate = Arc::new(Semaphore::new(0));
    let receiver = Receiver::new([Reply::Wait(Arc::clone(&gate))]).await;
    let world = ops(&receiver);
    let life = world.live().await;
    let id = life.send(world.message("ops"));
    until("the attempt is under way", || receiver.hooks().len() == 1).await;
    assert!(!life.outbox.close(Duration::from_millis(20)).await, "it is under way");
    let late = life.send(world.message("ops"));
    gate.add_permits(1);
    assert!(life.outbox.close(Duration::from_secs(60)).await);
    assert_eq!(life.delivery(id).await.progress.state, DeliveryState::Delivered);
    assert_eq!(life.delivery(late).await.progress.state, DeliveryState::Queued);
    assert_eq!(receiver.hooks().len(), 1);
    life.end().await;
}

#[tokio::test]
async fn nothing_leaves_while_the_outbox_is_paused_or_the_gate_is_closed() {
    let receiver = Receiver::new([]).await;
    let world = ops(&receiver);
    world.open.store(false, Ordering::SeqCst);
    let life = world.live().await;
    let shut = life.send(world.message("ops"));
    life.outbox.pause();
    world.open.store(true, Ordering::SeqCst);
    life.outbox.wake();
    let paused = life.send(world.message("ops"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    for id in [shut, paused] {
        let waiting = life.delivery(id).await.progress;
        assert_eq!((waiting.state, waiting.attempts), (DeliveryState::Queued, 0));
    }
    let health = life.outbox.health().await.expect("health");
    assert_eq!((health.paused, health.counts.queued, health.counts.dead), (true, 2, 0));
    assert!(receiver.hooks().is_empty());
    life.outbox.resume();
    life.until(shut, DeliveryState::Delivered).await;
    life.until(paused, DeliveryState::Delivered).await;
    life.end().await;
}

#[tokio::test]
async fn a_dead_letter_survives_a_stop_and_what_a_person_decides_is_on_record() {
    let receiver = Receiver::new([Reply::status(400), Reply::status(400)]).await;
    let world = ops(&receiver);
    let life = world.live().await;
    let (one, two) = (life.send(world.message("ops")), life.send(world.message("ops")));
    life.until(one, DeliveryState::Dead).await;
    life.until(two, DeliveryState::Dead).await;
    life.end().await;
    let life = world.live().await;
    let (bob, own) = ("bob".parse().expect("name"), Scope::Tenant("acme".parse().expect("name")));
    let stranger = Scope::Tenant("other".parse().expect("name"));
    assert!(life.ledger.resolve_dead_letter(&stranger, one, true, &bob).await.is_err(), "a foreign id looks missing");
    life.ledger.resolve_dead_letter(&own, one, true, &bob).await.expect("retried");
    life.ledger.resolve_dead_letter(&own, two, false, &bob).await.expect("discarded");
    for (id, retry) in [(one, false), (two, true), (two, false)] {
        assert!(life.ledger.resolve_dead_letter(&own, id, retry, &bob).await.is_err(), "it rests no more");
    }
    life.until(one, DeliveryState::Delivered).await;
    assert!(life.delivery(two).await.what.message.body.is_empty(), "what was discarded is not kept");
    let entries = life.ledger.audit_entries(Page::default()).await.expect("read").items;
    let said: Vec<(String, serde_json::Value)> = entries
        .iter()
        .filter(|entry| entry.kind == AuditKind::Delivery)
        .map(|entry| serde_json::from_str::<serde_json::Value>(&entry.body).expect("JSON"))
        .map(|body| (body["state"].as_str().expect("a state").to_owned(), body["by"].clone()))
        .collect();
    let of = |state: &str, by: serde_json::Value| {
        said.iter().filter(|entry| **entry == (state.to_owned(), by.clone())).count()
    };
    assert_eq!((of("dead", json!(null)), of("queued", json!("bob")), of("discarded", json!("bob"))), (2, 1, 1));
    assert_eq!(of("delivered", json!(null)), 1);
    life.end().await;
}

#[tokio::test]
async fn r42_what_was_delivered_or_discarded_goes_when_it_is_old_and_what_waits_or_rests_stays() {
    let receiver = Receiver::new([Reply::status(200), Reply::status(400), Reply::status(400)]).await;
    let world = ops(&receiver);
    let life = world.live().await;
    let delivered = life.send(world.message("ops"));
    life.until(delivered, DeliveryState::Delivered).await;
    let (discarded, dead) = (life.send(world.message("ops")), life.send(world.message("ops")));
    life.until(discarded, DeliveryState::Dead).await;
    life.until(dead, DeliveryState::Dead).await;
    let (bob, all) = ("bob".parse().expect("name"), Scope::Operator);
    life.ledger.resolve_dead_letter(&all, discarded, false, &bob).await.expect("discarded");
    life.outbox.pause();
    let queued = life.send(world.message("ops"));
    let there = |id| {
        let ledger = life.ledger.clone();
        async move { ledger.delivery(&Scope::Operator, id).await.expect("read").is_some() }
    };
    let keep = Keep::since;
    life.ledger.prune(keep(NOW_MS)).await.expect("pruned");
    assert!(there(delivered).await && there(discarded).await, "they ended at this very time");
    life.ledger.prune(keep(NOW_MS + 1)).await.expect("pruned");
    assert!(!there(delivered).await && !there(discarded).await);
    assert!(there(dead).await && there(queued).await, "somebody still has to decide, or it has to leave");
    let entries = life.ledger.audit_entries(Page::default()).await.expect("read").items;
    let said = |id: DeliveryId| entries.iter().any(|entry| entry.body.contains(&id.to_string()));
    assert!(said(delivered) && said(discarded), "that they were is on record");
    life.outbox.resume();
    life.until(queued, DeliveryState::Delivered).await;
    life.end().await;
}

#[tokio::test]
async fn r43_operators_are_told_of_what_their_routes_name_and_of_a_message_that_is_given_up() {
    let receiver = Receiver::new([Reply::status(404)]).await;
    let mut world = ops(&receiver);
    world.routes = vec![Route {
        events: vec![Event::DeliveryDead, Event::OutcomeHalted],
        channels: vec!["ops".parse().expect("name")],
    }];
    let life = world.live().await;
    let tenant = "acme".parse().expect("name");
    let id = life.send(world.message("ops"));
    until("the alert arrives", || receiver.hooks().len() == 2).await;
    let alert = receiver.hooks()[1].json();
    assert_eq!((&alert["type"], &alert["data"]["delivery"]), (&json!("delivery.dead"), &json!(id)));
    assert_eq!((&alert["data"]["tenant"], &alert["data"]["reason"]), (&json!("acme"), &json!("404")));
    life.notify.event(Event::ApprovalRequested, &tenant, json!({"approval": "appr_1"}));
    life.notify.event(Event::OutcomeHalted, &tenant, json!({"call_id": "call_1"}));
    until("the second alert arrives", || receiver.hooks().len() == 3).await;
    assert_eq!(receiver.hooks()[2].json()["type"], "outcome.halted");
    life.end().await;
}

/// What can happen between two looks at a delivery.
#[derive(Debug, Clone, Copy)]
enum Step {
    Claim,
    /// It arrives, and that is written down.
    Accepted,
    /// It arrives, and the daemon dies before it is written down.
    ArrivedAndCrashed,
    /// It does not arrive.
    Failed,
    Withheld,
    Crash,
    /// The daemon dies in the moment of enqueueing and does so again.
    EnqueueAgain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Claim),
        1 => Just(Step::Accepted),
        3 => Just(Step::ArrivedAndCrashed),
        2 => Just(Step::Failed),
        1 => Just(Step::Withheld),
        2 => Just(Step::Crash),
        1 => Just(Step::EnqueueAgain),
    ]
}

/// The channel's bound in the property: more than the longest story has attempts, so that none ends as a dead letter.
const PLENTY: u32 = 100;

/// Play a story, then let everything go well. Gives the ids that arrived, in order.
async fn play(story: &[Step]) -> (DeliveryId, Vec<DeliveryId>) {
    let world = World::new("");
    let message = world.message("ops");
    let id = message.id;
    let mut ledger = world.ledger().await;
    ledger.enqueue_delivery(message.clone()).expect("enqueued");
    ledger.barrier().await.expect("written");
    let mut arrived = Vec::new();
    let change = |event| DeliveryChange { id, event, most: PLENTY, note: Arc::from("") };
    let calm = [Step::Crash, Step::Claim, Step::Accepted];
    for step in story.iter().chain(&calm) {
        let sending = ledger.deliveries_under_way().await.expect("read").len() == 1;
        match step {
            Step::Claim => drop(ledger.claim_deliveries(vec![id]).await.expect("claimed")),
            Step::Accepted | Step::Failed | Step::Withheld if !sending => {}
            Step::Accepted => {
                arrived.push(id);
                ledger.change_delivery(change(DeliveryEvent::Accept)).await.expect("accepted");
            }
            Step::Failed => {
                let failed = change(DeliveryEvent::Fail { draw: 0, wait_ms: None });
                ledger.change_delivery(failed).await.expect("failed");
            }
            Step::Withheld => {
                ledger.change_delivery(change(DeliveryEvent::Withhold)).await.expect("withheld");
            }
            Step::ArrivedAndCrashed | Step::Crash => {
                if sending && matches!(step, Step::ArrivedAndCrashed) {
                    arrived.push(ledger.deliveries_under_way().await.expect("read")[0].id);
                }
                drop(ledger);
                ledger = world.ledger().await;
                for due in ledger.deliveries_under_way().await.expect("read") {
                    ledger
                        .change_delivery(DeliveryChange { id: due.id, ..change(DeliveryEvent::Lose) })
                        .await
                        .expect("lost");
                }
            }
            Step::EnqueueAgain => {
                ledger.enqueue_delivery(message.clone()).expect("enqueued");
                ledger.barrier().await.expect("written");
            }
        }
    }
    assert_eq!(ledger.outbox_counts().await.expect("counts").queued, 0, "nothing waits for ever");
    let wrong = ledger.change_delivery(change(DeliveryEvent::Accept)).await;
    assert!(matches!(wrong, Err(LedgerError::Refused(_))), "what is at rest stays at rest");
    ledger.close().await.expect("closed");
    (id, arrived)
}

#[test]
fn r33_any_interleaving_of_crashes_gives_at_least_one_delivery_and_never_a_second_id() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let mut runner = TestRunner::new(Cases { cases: 24, failure_persistence: None, ..Cases::default() });
    let stories = prop::collection::vec(step(), 0..10);
    let outcome = runner.run(&stories, |story| {
        let (id, arrived) = runtime.block_on(play(&story));
        prop_assert!(!arrived.is_empty(), "lost");
        prop_assert!(arrived.iter().all(|other| *other == id), "another id");
        Ok(())
    });
    outcome.expect("the property holds");
}
