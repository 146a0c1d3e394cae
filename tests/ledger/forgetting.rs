//! What is removed is gone: across restarts, from calls that were under way, from messages and answers, and from the files.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use toolkeep::blobs::Blobs;
use toolkeep::ledger::{
    Continuation, Cutoffs, DeliveryChange, Discard, Durability, Intent, Keep, Ledger, LedgerOptions, Page, Pruned,
    Scope, SendMove, SendRow, Settled, Suspended,
};
use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::delivery::{DeliveryEvent, delivery_id};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Delivery, Effect, Header, HttpEffect, Reversal};
use toolkeep_core::grant::{CompensationText, HttpTimes};
use toolkeep_core::id::{CallId, PlanId, TenantName};
use toolkeep_core::price::Usd;
use toolkeep_core::send::{Dispatch, SendState};
use toolkeep_sandbox::port::{Exchange, HttpAnswer};

use super::fixture::{Fixture, NOW_MS, acme, enqueue, outcome};
use super::privacy::{CANARY, DAY_MS, LATER, files_with, input_of, sealing, sealing_to, told};

fn tenant() -> TenantName {
    "acme".parse().expect("name")
}

async fn reopen(fixture: &mut Fixture, options: LedgerOptions) {
    fixture.ledger.close().await.expect("closed");
    let ambient = fixture.ambient.clone();
    fixture.ledger = Ledger::open_with(fixture.place.path(), ambient, options).await.expect("opened again");
}

#[tokio::test]
async fn r42_what_is_written_after_a_restart_while_forgetting_stays_readable() {
    let (mut fixture, _, options) = sealing_to("retired").await;
    fixture.ledger.record_call(told(&fixture)).expect("recorded");
    let held = fixture.held(b"held", 1);
    fixture.ledger.propose(held.clone(), Durability::Durable).await.expect("kept");
    let asked = fixture.ledger.ask_to_forget(&tenant(), None, "{}".to_owned()).await.expect("noted");
    let done = fixture.ledger.forget(&asked, Vec::new()).await.expect("forgotten");
    assert_eq!((done.calls, done.left, done.keys), (1, 1, 0));
    reopen(&mut fixture, options).await;
    fixture.ambient.advance(Duration::from_millis(5));
    let mut after = told(&fixture);
    (after.started_ms, after.ended_ms) = (NOW_MS + 5, NOW_MS + 6);
    fixture.ledger.record_call(after.clone()).expect("recorded");
    fixture.ledger.discard(&acme(), held.plan.id(), Discard::Dropped).await.expect("discarded");
    let open = fixture.ledger.to_forget().await.expect("read");
    assert_eq!(open, std::slice::from_ref(&asked));
    let done = fixture.ledger.forget(&asked, Vec::new()).await.expect("forgotten");
    assert_eq!((done.calls, done.left, done.keys), (1, 0, 1));
    assert_eq!(input_of(&fixture.ledger, after.call).await.as_deref(), Some(&*after.input));
    assert!(fixture.ledger.to_forget().await.expect("read").is_empty());
}

#[tokio::test]
async fn r42_what_one_batch_writes_before_and_after_the_order_is_sealed_under_two_keys() {
    let (fixture, _) = sealing("one-batch").await;
    let (before, mut after) = (told(&fixture), told(&fixture));
    (after.started_ms, after.ended_ms) = (NOW_MS + 5, NOW_MS + 6);
    // Nothing wakes the writer before the order: it takes the call in the same transaction.
    fixture.ledger.record_call(before.clone()).expect("recorded");
    let asked = fixture.ledger.ask_to_forget(&tenant(), None, "{}".to_owned()).await.expect("noted");
    fixture.ledger.record_call(after.clone()).expect("recorded");
    let done = fixture.ledger.forget(&asked, Vec::new()).await.expect("forgotten");
    assert_eq!((done.calls, done.left, done.keys), (1, 0, 1));
    assert_eq!(input_of(&fixture.ledger, before.call).await, None);
    assert_eq!(input_of(&fixture.ledger, after.call).await.as_deref(), Some(&*after.input));
}

#[tokio::test]
async fn r42_what_says_that_it_began_later_is_forgotten_if_it_was_there() {
    let fixture = Fixture::new("clock").await;
    let mut row = told(&fixture);
    // The clock was put back since.
    row.started_ms = LATER;
    fixture.ledger.record_call(row.clone()).expect("recorded");
    let asked = fixture.ledger.ask_to_forget(&tenant(), None, "{}".to_owned()).await.expect("noted");
    assert_eq!(fixture.ledger.forget(&asked, Vec::new()).await.expect("forgotten").calls, 1);
}

#[tokio::test]
async fn r42_a_sweep_sees_calls_that_come_after_a_restart_that_followed_the_removal_of_the_newest() {
    let mut fixture = Fixture::new("places").await;
    for round in 0..3 {
        for _ in 0..2 {
            fixture.ledger.record_call(told(&fixture)).expect("recorded");
        }
        let gone = fixture.ledger.prune(Keep::since(LATER)).await.expect("pruned");
        assert_eq!(gone.calls, 2, "{round}");
        fixture.reopen().await;
    }
}

#[tokio::test]
async fn r42_calls_that_are_under_way_are_left_until_they_are_on_record_and_gone() {
    let fixture = Fixture::new("under-way").await;
    let (mut running, done) = (told(&fixture), told(&fixture));
    fixture.ledger.record_call(done.clone()).expect("recorded");
    let asked = fixture.ledger.ask_to_forget(&tenant(), None, "{}".to_owned()).await.expect("noted");
    // One that ended meanwhile is on record: it is not left.
    let so_far = fixture.ledger.forget(&asked, vec![running.call, done.call]).await.expect("forgotten");
    assert_eq!((so_far.calls, so_far.left), (1, 1));
    running.ended_ms = NOW_MS + 9;
    fixture.ledger.record_call(running.clone()).expect("recorded");
    let [open] = fixture.ledger.to_forget().await.expect("read").try_into().expect("still open");
    let so_far = fixture.ledger.forget(&open, Vec::new()).await.expect("forgotten");
    assert_eq!((so_far.calls, so_far.left), (1, 0));
    assert_eq!(input_of(&fixture.ledger, running.call).await, None);
}

#[tokio::test]
async fn r42_more_is_forgotten_than_one_job_removes() {
    let fixture = Fixture::new("many").await;
    for _ in 0..130 {
        fixture.ledger.record_call(fixture.call()).expect("recorded");
    }
    let asked = fixture.ledger.ask_to_forget(&tenant(), None, "{}".to_owned()).await.expect("noted");
    assert_eq!(fixture.ledger.forget(&asked, Vec::new()).await.expect("forgotten").calls, 130);
}

/// A plan that sends one request, and the intent to commit it at once.
fn request(fixture: &Fixture, compensated: bool) -> Intent {
    let effect = Effect::HttpRequest(HttpEffect {
        grant: "shop".parse().expect("name"),
        method: "POST".to_owned(),
        url: "https://shop.example/orders".to_owned(),
        headers: Vec::new(),
        credential: None,
        body: None,
        delivery: Delivery::Staged,
        reversal: if compensated { Reversal::Compensated } else { Reversal::None },
    });
    let mut intent = fixture.intent_of(|body| body.effects = vec![effect]);
    intent.proposal.as_mut().expect("fresh").call.recording = None;
    intent.undo_blobs.inline.clear();
    let compensation =
        CompensationText { method: "DELETE".to_owned(), path: "/orders/{response/id}".to_owned(), body: String::new() };
    intent.sends = vec![SendRow {
        ordinal: 0,
        dispatch: Dispatch {
            origin: "https://shop.example".to_owned(),
            times: HttpTimes { connect_ms: 1, first_byte_ms: 1, idle_ms: 1, total_ms: 1 },
            response_bytes: 1_000,
            idempotent: true,
            compensation: compensated.then_some(compensation),
            reversal: if compensated { Reversal::Compensated } else { Reversal::None },
            credential: None,
            allow_private: false,
            key: "k".to_owned(),
            request: Digest::of(b"request"),
            price: Usd::of_micro(0),
        },
    }];
    intent
}

fn answer() -> HttpAnswer {
    let header = Header { name: "x-of".to_owned(), value: CANARY.to_owned() };
    HttpAnswer { status: 201, headers: vec![header], body: Bytes::from(format!(r#"{{"of":"{CANARY}"}}"#)) }
}

/// Commit a plan whose request is answered. Returns the call and the plan.
async fn answered(fixture: &Fixture, compensated: bool) -> (CallId, PlanId) {
    let intent = request(fixture, compensated);
    let (plan, call) = (intent.plan, intent.proposal.as_ref().expect("fresh").call.call);
    let id = fixture.ledger.intent(intent).await.expect("intent");
    let step = SendMove { plan, ordinal: 0, state: SendState::Sent, answer: Some(answer()), problem: None, took_ns: 1 };
    fixture.ledger.note_send(step).await.expect("noted");
    fixture.ledger.outcome(outcome(id, call, Settled::Committed), Durability::Durable).await.expect("outcome");
    (call, plan)
}

async fn answer_to(fixture: &Fixture, plan: PlanId) -> Option<HttpAnswer> {
    let sends = fixture.ledger.sends(plan).await.expect("read");
    sends.first().expect("a request").answer.clone()
}

fn waits_for(fixture: &Fixture, child: CallId) -> Suspended {
    let mut row = fixture.call();
    row.recording = None;
    (row.status, row.outcome) = (Status::Unknown, Outcome::Unknown);
    let exchange = Exchange { call: Digest::of(b"request"), answer: Ok(answer()), took_ns: 1 };
    let continuation = Continuation { child, wall_clock_ns: 1, seed: [7; 32], exchanges: vec![exchange], sent: 1 };
    Suspended { row, continuation }
}

#[tokio::test]
async fn r42_what_was_answered_to_requests_is_sealed_and_what_a_call_waits_with_too() {
    let (mut fixture, _, options) = sealing_to("answers").await;
    let (child, plan) = answered(&fixture, false).await;
    let suspended = waits_for(&fixture, child);
    fixture.ledger.suspend(suspended.clone()).await.expect("kept");
    for _ in 0..2 {
        assert_eq!(answer_to(&fixture, plan).await, Some(answer()));
        let found = fixture.ledger.continuation_of(child).await.expect("read").expect("it waits");
        assert_eq!(found.continuation, suspended.continuation);
        assert_eq!(files_with(&fixture, CANARY), [] as [String; 0]);
        reopen(&mut fixture, options.clone()).await;
    }
    // What the call that waits needs stays with the daemon, the part's answer as well.
    assert_eq!(fixture.ledger.let_go_of_keys(LATER).await.expect("asked"), 0);
    assert_eq!(answer_to(&fixture, plan).await, Some(answer()));
}

#[tokio::test]
async fn r42_answers_go_with_the_payloads_unless_undo_or_a_call_that_waits_needs_them() {
    let fixture = Fixture::new("answers-go").await;
    let (_, plain) = answered(&fixture, false).await;
    let (_, compensated) = answered(&fixture, true).await;
    let (child, awaited) = answered(&fixture, false).await;
    fixture.ledger.suspend(waits_for(&fixture, child)).await.expect("kept");
    let cutoffs = Cutoffs { payloads: Some(LATER), ..Cutoffs::default() };
    let gone = fixture.ledger.prune(Keep { cutoffs, ..Keep::since(0) }).await.expect("pruned");
    assert_eq!(gone, Pruned { payloads: 2, ..Pruned::default() });
    assert_eq!(answer_to(&fixture, plain).await, None);
    assert_eq!(answer_to(&fixture, compensated).await, Some(answer()));
    assert_eq!(answer_to(&fixture, awaited).await, Some(answer()));
    assert_eq!(fixture.ledger.prune(Keep::since(LATER)).await.expect("pruned").calls, 2, "a part waits for its call");
    assert_eq!(answer_to(&fixture, awaited).await, Some(answer()));
}

#[tokio::test]
async fn r42_contents_that_are_collected_are_not_in_the_files() {
    let fixture = Fixture::new("contents").await;
    let folder = fixture.place.path().join("blobs");
    let blobs = Blobs::open(&folder, fixture.ledger.clone(), fixture.ambient.clone()).expect("blobs");
    // Long enough for pages of its own, and short enough for one of the ledger.
    let content = CANARY.repeat(2_000);
    let proposal = fixture.proposal(content.as_bytes());
    fixture.ledger.propose(proposal.clone(), Durability::Durable).await.expect("kept");
    fixture.ledger.discard(&acme(), proposal.plan.id(), Discard::Dropped).await.expect("discarded");
    assert!(!files_with(&fixture, CANARY).is_empty());
    assert!(blobs.collect().await.expect("collected") > 0);
    assert!(fixture.ledger.cut_log().await.expect("cut"));
    assert!(!fixture.ledger.log_is_uncut());
    assert_eq!(files_with(&fixture, CANARY), [] as [String; 0]);
}

/// Commit something that sends a message. Returns its call and its plan.
async fn message(fixture: &Fixture) -> (CallId, PlanId) {
    let proposal = fixture.proposal(b"content");
    let (call, plan) = (proposal.call.call, Arc::clone(&proposal.plan));
    let mut intent = fixture.intent(&plan);
    intent.proposal = Some(Box::new(proposal));
    let id = fixture.ledger.intent(intent).await.expect("intent");
    let mut row = outcome(id, call, Settled::Committed);
    row.deliveries = vec![enqueue(plan.id(), call, CANARY)];
    fixture.ledger.outcome(row, Durability::Durable).await.expect("outcome");
    (call, plan.id())
}

#[tokio::test]
async fn r42_messages_that_wait_are_left_and_dead_ones_are_forgotten() {
    for user in [None, Some("ada".parse().expect("name"))] {
        let fixture = Fixture::new("messages").await;
        let ledger = &fixture.ledger;
        let (call, plan) = message(&fixture).await;
        let id = delivery_id(plan, 0);
        let asked = ledger.ask_to_forget(&tenant(), user.as_ref(), "{}".to_owned()).await.expect("noted");
        let done = ledger.forget(&asked, Vec::new()).await.expect("forgotten");
        assert_eq!((done.calls, done.left), (0, 1), "{user:?}: it is not sent yet");
        ledger.claim_deliveries(vec![id]).await.expect("claimed");
        let (event, note) = (DeliveryEvent::Refuse, Arc::from("no"));
        ledger.change_delivery(DeliveryChange { id, event, most: 1, note }).await.expect("dead");
        assert_eq!(ledger.outbox_counts().await.expect("counted").dead, 1);
        let done = ledger.forget(&asked, Vec::new()).await.expect("forgotten");
        assert_eq!((done.calls, done.left), (1, 0), "{user:?}");
        assert_eq!(input_of(ledger, call).await, None);
        assert!(ledger.delivery(&Scope::Operator, id).await.expect("read").is_none(), "{user:?}");
        let dead = ledger.dead_letters(&Scope::Operator, true, Page::default()).await.expect("read").items;
        assert!(dead.is_empty(), "{user:?}: {dead:?}");
        assert!(ledger.cut_log().await.expect("cut"));
        assert_eq!(files_with(&fixture, CANARY), [] as [String; 0], "{user:?}");
    }
}

#[tokio::test]
async fn r42_a_call_that_waits_keeps_the_key_of_its_day_and_no_other() {
    let (fixture, _) = sealing("days").await;
    let held = fixture.held(b"open", 1);
    fixture.ledger.propose(held.clone(), Durability::Durable).await.expect("kept");
    fixture.ambient.advance(Duration::from_millis(DAY_MS));
    let next = told(&fixture);
    fixture.ledger.record_call(next.clone()).expect("recorded");
    let ledger = &fixture.ledger;
    assert_eq!(input_of(ledger, next.call).await.as_deref(), Some(&*next.input));
    assert_eq!(ledger.let_go_of_keys(LATER).await.expect("let go"), 1);
    assert_eq!(input_of(ledger, next.call).await.as_deref(), Some(toolkeep::ledger::SEALED));
    assert_eq!(input_of(ledger, held.call.call).await.as_deref(), Some(&*held.call.input));
    ledger.discard(&acme(), held.plan.id(), Discard::Dropped).await.expect("discarded");
}
