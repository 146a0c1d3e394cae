//! Calls that wait for a part of theirs: the row that ends one takes the place of the one that waits, once.

use std::sync::Arc;

use toolkeep::ledger::{Continuation, Durability, IntentRefused, Suspended};
use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::id::CallId;

use super::fixture::{Fixture, acme, reply};

#[tokio::test]
async fn r38_a_call_that_waited_ends_once_whoever_else_wants_to_end_it() {
    let fixture = Fixture::new("waiting").await;
    let mut row = fixture.call();
    (row.status, row.outcome) = (Status::Unknown, Outcome::Unknown);
    let child = CallId::new(fixture.ambient.uuid_v7());
    let continuation = Continuation { child, wall_clock_ns: 1, seed: [7; 32], exchanges: Vec::new(), sent: 0 };
    fixture.ledger.suspend(Suspended { row: row.clone(), continuation }).await.expect("kept");
    row.suspended = true;
    // Two went on with it. One comes to a plan and commits it.
    let mut proposal = fixture.proposal(b"content");
    proposal.plan = fixture.plan(&row, b"content");
    proposal.call = row.clone();
    let plan = Arc::clone(&proposal.plan);
    let mut intent = fixture.intent(&plan);
    intent.proposal = Some(Box::new(proposal.clone()));
    fixture.ledger.intent(intent.clone()).await.expect("the first");
    assert!(fixture.ledger.continuation_of(child).await.expect("read").is_none());
    // The other one comes to a plan of its own, or to nothing: what the call came to stands.
    let other = fixture.plan(&row, b"other");
    (intent.plan, proposal.plan) = (other.id(), Arc::clone(&other));
    intent.proposal = Some(Box::new(proposal.clone()));
    let refused = fixture.ledger.intent(intent).await.expect_err("it does not wait any more");
    assert!(matches!(refused, IntentRefused::Ledger(_)), "{refused}");
    assert!(fixture.ledger.propose(proposal, Durability::Durable).await.is_err());
    let mut failed = row.clone();
    (failed.status, failed.outcome) = (Status::Failed, Outcome::None);
    failed.reply = reply(row.call, "failed", "none");
    fixture.ledger.record_call(failed).expect("taken in");
    let now = fixture.ledger.call(&acme(), row.call).await.expect("read").expect("there");
    assert_eq!((now.row.status, now.row.reply), (row.status, row.reply));
    assert!(fixture.ledger.plan(&acme(), plan.id()).await.expect("read").is_some());
    assert!(fixture.ledger.plan(&acme(), other.id()).await.expect("read").is_none());
}
