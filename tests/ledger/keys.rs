//! Idempotency keys: every state of the call that a key names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use toolkeep::ledger::{
    CallKey, Claimed, Discard, Durability, IntentRefused, KeyClaim, LedgerError, Raised, Resolution, Settled, Via,
};
use toolkeep_core::call::Outcome;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::CallId;

use super::fixture::{Fixture, acme, keyed, outcome, reply};

fn retry(fixture: &Fixture, claim: &KeyClaim) -> KeyClaim {
    KeyClaim { call: CallId::new(fixture.ambient.uuid_v7()), ..claim.clone() }
}

#[tokio::test]
async fn r32_a_key_names_a_call_from_its_claim_to_its_stored_reply() {
    let mut fixture = Fixture::new("key-states").await;
    let mut row = fixture.call();
    let claim = keyed(&mut row, "k1");
    assert_eq!(fixture.ledger.claim_key(claim.clone()).await.expect("claimed"), Claimed::Fresh);
    let again = fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed");
    assert_eq!(again, Claimed::InFlight { call: row.call });
    let other = KeyClaim { request: Digest::of(b"another"), ..retry(&fixture, &claim) };
    assert_eq!(fixture.ledger.claim_key(other.clone()).await.expect("claimed"), Claimed::Mismatch);
    fixture.ledger.record_call(row.clone()).expect("recorded");
    let stored = Claimed::Stored { call: row.call, reply: Arc::clone(&row.reply) };
    assert_eq!(fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed"), stored);
    assert_eq!(fixture.ledger.claim_key(other.clone()).await.expect("claimed"), Claimed::Mismatch);
    fixture.reopen().await;
    assert_eq!(fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed"), stored);
    assert_eq!(fixture.ledger.claim_key(other).await.expect("claimed"), Claimed::Mismatch);
}

#[tokio::test]
async fn t_i2_keys_of_other_tenants_users_agents_and_tools_never_meet() {
    let fixture = Fixture::new("key-scope").await;
    let mut row = fixture.call();
    let claim = keyed(&mut row, "k1");
    fixture.ledger.record_call(row).expect("recorded");
    let edits: [fn(&mut KeyClaim); 5] = [
        |c| c.principal.tenant = "other".parse().expect("name"),
        |c| c.principal.user = "other".parse().expect("name"),
        |c| c.principal.agent = "other".parse().expect("name"),
        |c| c.tool = "other".parse().expect("name"),
        |c| c.key = Arc::from("k1 "),
    ];
    for edit in edits {
        let mut foreign = retry(&fixture, &claim);
        edit(&mut foreign);
        assert_eq!(fixture.ledger.claim_key(foreign).await.expect("claimed"), Claimed::Fresh);
    }
}

#[tokio::test]
async fn r32_a_released_key_and_one_whose_daemon_stopped_are_free_again() {
    let mut fixture = Fixture::new("key-release").await;
    let mut row = fixture.call();
    let claim = keyed(&mut row, "k1");
    assert_eq!(fixture.ledger.claim_key(claim.clone()).await.expect("claimed"), Claimed::Fresh);
    fixture.ledger.forget_call(retry(&fixture, &claim).call);
    assert_eq!(fixture.ledger.claim_key(claim.clone()).await.expect("claimed"), Claimed::InFlight { call: row.call });
    fixture.ledger.forget_call(claim.call);
    let second = retry(&fixture, &claim);
    assert_eq!(fixture.ledger.claim_key(second.clone()).await.expect("claimed"), Claimed::Fresh);
    fixture.reopen().await;
    assert_eq!(fixture.ledger.claim_key(second).await.expect("claimed"), Claimed::Fresh);
}

#[tokio::test]
async fn r32_a_held_call_is_unfinished_until_its_commit_and_then_stored() {
    let mut fixture = Fixture::new("key-held").await;
    let mut proposal = fixture.held(b"x", 1);
    let claim = keyed(&mut proposal.call, "k1");
    assert_eq!(fixture.ledger.claim_key(claim.clone()).await.expect("claimed"), Claimed::Fresh);
    fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    let call = proposal.call.call;
    let waiting = Claimed::Unfinished { call, reply: Arc::clone(&proposal.call.reply) };
    assert_eq!(fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed"), waiting);
    fixture.reopen().await;
    assert_eq!(fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed"), waiting);
    let id = proposal.approval.as_ref().expect("approval").id;
    let answer = Resolution {
        id,
        approver: "eve".parse().expect("name"),
        via: Via::Operator,
        approve: true,
        reason: "".into(),
        need: Raised::NOT,
    };
    fixture.ledger.resolve(answer).await.expect("resolved");
    let mut intent = fixture.intent(&proposal.plan);
    intent.approval = Some(toolkeep::ledger::ApprovalUse { id, seal: proposal.plan.seal_digest() });
    let intent = fixture.ledger.intent(intent).await.expect("intent");
    assert_eq!(fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed"), waiting);
    fixture.ledger.outcome(outcome(intent, call, Settled::Committed), Durability::Lazy).await.expect("outcome");
    let stored = Claimed::Stored { call, reply: reply(call, "ok", "committed") };
    assert_eq!(fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed"), stored);
}

#[tokio::test]
async fn r32_a_discarded_call_keeps_its_key_and_its_last_reply() {
    let fixture = Fixture::new("key-discard").await;
    let mut proposal = fixture.proposal(b"x");
    let claim = keyed(&mut proposal.call, "k1");
    assert_eq!(fixture.ledger.claim_key(claim.clone()).await.expect("claimed"), Claimed::Fresh);
    fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    let last = fixture.ledger.discard(&acme(), proposal.plan.id(), Discard::Dropped).await.expect("discarded");
    assert!(last.contains(r#""outcome":"discarded""#), "{last}");
    let stored = Claimed::Stored { call: proposal.call.call, reply: last };
    assert_eq!(fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed"), stored);
}

#[tokio::test]
async fn r32_an_automatic_commit_is_in_flight_until_its_outcome_and_open_after_a_crash() {
    let mut fixture = Fixture::new("key-auto").await;
    let mut proposal = fixture.proposal(b"x");
    let claim = keyed(&mut proposal.call, "k1");
    assert_eq!(fixture.ledger.claim_key(claim.clone()).await.expect("claimed"), Claimed::Fresh);
    let mut intent = fixture.intent(&proposal.plan);
    intent.proposal = Some(Box::new(proposal.clone()));
    let id = fixture.ledger.intent(intent).await.expect("intent");
    let call = proposal.call.call;
    let flying = Claimed::InFlight { call };
    assert_eq!(fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed"), flying);
    fixture.reopen().await;
    let unfinished = Claimed::Unfinished { call, reply: Arc::clone(&proposal.call.reply) };
    assert_eq!(fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed"), unfinished);
    assert_eq!(fixture.ledger.open_intents().await.expect("open").len(), 1);
    fixture.ledger.outcome(outcome(id, call, Settled::RolledBack), Durability::Durable).await.expect("outcome");
    let stored = Claimed::Stored { call, reply: reply(call, "failed", "discarded") };
    assert_eq!(fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed"), stored);
}

#[tokio::test]
async fn r32_a_key_that_names_a_call_cannot_be_taken_by_an_intent_or_a_proposal() {
    let fixture = Fixture::new("key-taken").await;
    let mut row = fixture.call();
    let claim = keyed(&mut row, "k1");
    fixture.ledger.record_call(row).expect("recorded");
    let mut proposal = fixture.proposal(b"x");
    proposal.call.key = Some(CallKey { key: claim.key.clone(), request: claim.request });
    let mut intent = fixture.intent(&proposal.plan);
    intent.proposal = Some(Box::new(proposal.clone()));
    assert!(matches!(fixture.ledger.intent(intent).await, Err(IntentRefused::KeyTaken)));
    let proposed = fixture.ledger.propose(proposal.clone(), Durability::Durable).await;
    assert!(matches!(proposed, Err(LedgerError::Refused(_))), "{proposed:?}");
    assert!(fixture.ledger.plan(&acme(), proposal.plan.id()).await.expect("read").is_none(), "nothing of it is left");
    assert!(fixture.ledger.call(&acme(), proposal.call.call).await.expect("read").is_none());
    assert_eq!(fixture.ledger.verify_audit(Vec::new()).await.expect("chain").entries, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r32_of_64_callers_with_one_key_one_runs_and_all_get_its_reply() {
    let fixture = Arc::new(Fixture::new("key-race").await);
    let runs = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (fixture, runs) = (Arc::clone(&fixture), Arc::clone(&runs));
        tasks.spawn(async move {
            let mut row = fixture.call();
            let claim = keyed(&mut row, "k1");
            loop {
                match fixture.ledger.claim_key(claim.clone()).await.expect("claimed") {
                    Claimed::Fresh => {
                        runs.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        fixture.ledger.record_call(row.clone()).expect("recorded");
                    }
                    Claimed::InFlight { .. } => tokio::task::yield_now().await,
                    Claimed::Stored { reply, .. } => return reply,
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    let mut replies = Vec::new();
    while let Some(reply) = tasks.join_next().await {
        replies.push(reply.expect("task"));
    }
    assert_eq!((replies.len(), runs.load(Ordering::Relaxed)), (64, 1));
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    assert!(fixture.ledger.verify_audit(Vec::new()).await.is_ok());
}

#[tokio::test]
async fn r32_readers_and_retries_wait_for_an_outcome_that_is_promised() {
    let fixture = Fixture::new("promised").await;
    let mut proposal = fixture.proposal(b"written");
    let claim = keyed(&mut proposal.call, "k1");
    let call = proposal.call.call;
    assert_eq!(fixture.ledger.claim_key(claim.clone()).await.expect("claimed"), Claimed::Fresh);
    let mut intent = fixture.intent(&proposal.plan);
    intent.proposal = Some(Box::new(proposal));
    let id = fixture.ledger.intent(intent).await.expect("intent");
    let again = fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed");
    assert_eq!(again, Claimed::InFlight { call }, "nothing is promised yet");

    let promise = fixture.ledger.promise(call);
    let (reads, retries, retried) = (fixture.ledger.clone(), fixture.ledger.clone(), retry(&fixture, &claim));
    let read = tokio::spawn(async move { reads.call(&acme(), call).await.expect("read").expect("there").row.outcome });
    let retry = tokio::spawn(async move { retries.claim_key(retried).await.expect("claimed") });
    tokio::task::yield_now().await;
    assert!(!read.is_finished() && !retry.is_finished());
    let row = outcome(id, call, Settled::Committed);
    let reply = Arc::clone(&row.reply);
    fixture.ledger.outcome(row, Durability::Lazy).await.expect("outcome");
    drop(promise);
    assert_eq!(read.await.expect("read"), Outcome::Committed);
    assert_eq!(retry.await.expect("retried"), Claimed::Stored { call, reply });
}

#[tokio::test]
async fn a_promise_that_is_broken_leaves_the_call_as_the_next_start_would_find_it() {
    let fixture = Fixture::new("broken").await;
    let mut proposal = fixture.proposal(b"written");
    let claim = keyed(&mut proposal.call, "k1");
    let call = proposal.call.call;
    assert_eq!(fixture.ledger.claim_key(claim.clone()).await.expect("claimed"), Claimed::Fresh);
    let mut intent = fixture.intent(&proposal.plan);
    intent.proposal = Some(Box::new(proposal));
    let _open = fixture.ledger.intent(intent).await.expect("intent");
    let promise = fixture.ledger.promise(call);
    fixture.ledger.forget_call(call);
    drop(promise);
    let again = fixture.ledger.claim_key(retry(&fixture, &claim)).await.expect("claimed");
    assert!(matches!(again, Claimed::Unfinished { call: found, .. } if found == call));
}
