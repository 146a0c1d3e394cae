//! What the ledger lets go of, and what it keeps however old it is.

use std::sync::Arc;

use toolkeep::ledger::{
    BlobSet, Claimed, Discard, Durability, Keep, LedgerError, LedgerHealth, LedgerOptions, Page, PlanState, Proposal,
    RunRow, Settled,
};
use toolkeep_core::call::Outcome;
use toolkeep_core::id::{CallId, RunId};

use super::fixture::{Fixture, NOW_MS, acme, keyed, outcome, principal};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// Everything that ended before tomorrow goes, undo contents stay.
const ALL: Keep = Keep::since(NOW_MS + DAY_MS);

async fn there(fixture: &Fixture, call: CallId) -> bool {
    fixture.ledger.call(&acme(), call).await.expect("read").is_some()
}

/// Commit a plan at once, with undo contents or without.
async fn commit(fixture: &Fixture, content: &[u8], undo: bool, settled: Option<Settled>) -> Proposal {
    let proposal = fixture.proposal(content);
    let mut intent = fixture.intent(&proposal.plan);
    intent.proposal = Some(Box::new(proposal.clone()));
    if !undo {
        intent.undo_blobs = BlobSet::default();
    }
    let id = fixture.ledger.intent(intent).await.expect("intent");
    if let Some(settled) = settled {
        let row = outcome(id, proposal.call.call, settled);
        fixture.ledger.outcome(row, Durability::Lazy).await.expect("outcome");
    }
    proposal
}

#[tokio::test]
async fn r42_what_is_over_goes_with_everything_that_belongs_to_it_and_the_chain_stays_whole() {
    let fixture = Fixture::new("prune").await;
    let mut recorded = fixture.call();
    let run = RunId::new(fixture.ambient.uuid_v7());
    let opened = RunRow { closed_ms: Some(NOW_MS + 1), ..RunRow::new(run, principal("acme"), "old", NOW_MS) };
    fixture.ledger.open_run(opened).expect("opened");
    recorded.run = Some(run);
    let claim = keyed(&mut recorded, "k1");
    fixture.ledger.record_call(recorded.clone()).expect("recorded");
    let committed = commit(&fixture, b"new file", false, Some(Settled::Committed)).await;
    let rolled_back = commit(&fixture, b"rolled back", true, Some(Settled::RolledBack)).await;
    let held = fixture.held(b"held", 1);
    fixture.ledger.propose(held.clone(), Durability::Lazy).await.expect("kept");
    fixture.ledger.discard(&acme(), held.plan.id(), Discard::Dropped).await.expect("discarded");
    let entries = fixture.ledger.verify_audit(Vec::new()).await.expect("chain").entries;

    assert_eq!(fixture.ledger.prune(ALL).await.expect("pruned").calls, 4);
    for call in [recorded.call, committed.call.call, rolled_back.call.call, held.call.call] {
        assert!(!there(&fixture, call).await);
    }
    let ledger = &fixture.ledger;
    assert!(ledger.recording(&acme(), recorded.call).await.expect("read").is_none());
    assert!(ledger.receipt_of(&acme(), committed.call.call).await.expect("read").is_none());
    assert!(ledger.undo_of(&acme(), committed.call.call).await.expect("read").is_none());
    assert!(ledger.plans(&acme(), None, Page::default()).await.expect("read").items.is_empty());
    assert!(ledger.approvals(&acme(), Default::default(), Page::default()).await.expect("read").items.is_empty());
    assert!(ledger.run(&acme(), run).await.expect("read").is_none());
    assert_eq!(ledger.claim_key(claim).await.expect("claimed"), Claimed::Fresh, "its key is free");
    assert_eq!(ledger.verify_audit(Vec::new()).await.expect("chain").entries, entries);
    let mut fixture = fixture;
    fixture.reopen().await;
    let after = fixture.call();
    fixture.ledger.record_call(after.clone()).expect("recorded");
    assert!(there(&fixture, after.call).await);
    assert_eq!(fixture.ledger.verify_audit(Vec::new()).await.expect("chain").entries, entries + 1);
}

#[tokio::test]
async fn what_is_not_over_stays_however_old_it_is() {
    let fixture = Fixture::new("prune-open").await;
    let (previewed, held) = (fixture.proposal(b"previewed"), fixture.held(b"held", 1));
    for proposal in [&previewed, &held] {
        fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    }
    let open = commit(&fixture, b"open", false, None).await;
    let halted = commit(&fixture, b"halted", false, Some(Settled::Halted(vec!["books/report.md".into()]))).await;
    let undoable = commit(&fixture, b"undoable", true, Some(Settled::Committed)).await;
    assert_eq!(fixture.ledger.prune(ALL).await.expect("pruned").calls, 0);
    for (proposal, state) in [
        (&previewed, PlanState::Previewed),
        (&held, PlanState::Held),
        (&open, PlanState::Committing),
        (&halted, PlanState::Halted),
        (&undoable, PlanState::Committed),
    ] {
        let stored = fixture.ledger.plan(&acme(), proposal.plan.id()).await.expect("read").expect("there");
        assert_eq!(stored.state, state);
    }
    assert_eq!(fixture.ledger.open_intents().await.expect("open").len(), 1);
    // Undo contents have a time of their own.
    let settled_ms = NOW_MS + 9;
    let keep = |undo_since_ms| Keep { undo_since_ms: Some(undo_since_ms), ..ALL };
    assert_eq!(fixture.ledger.prune(keep(settled_ms)).await.expect("pruned").calls, 0);
    assert!(fixture.ledger.undo_of(&acme(), undoable.call.call).await.expect("read").is_some());
    assert_eq!(fixture.ledger.prune(keep(settled_ms + 1)).await.expect("pruned").calls, 1);
    assert!(fixture.ledger.undo_of(&acme(), undoable.call.call).await.expect("read").is_none());
}

#[tokio::test]
async fn calls_are_kept_to_the_millisecond_in_sweeps_of_every_size() {
    for calls in [0_u64, 1, 63, 64, 65, 200] {
        let fixture = Fixture::new("prune-many").await;
        for at in 0..calls {
            let mut row = fixture.call();
            (row.started_ms, row.ended_ms) = (NOW_MS + at, NOW_MS + at);
            fixture.ledger.record_call(row).expect("recorded");
        }
        let mut kept = fixture.call();
        (kept.started_ms, kept.ended_ms) = (NOW_MS + calls, NOW_MS + calls);
        fixture.ledger.record_call(kept.clone()).expect("recorded");
        let keep = Keep::since(NOW_MS + calls);
        assert_eq!(fixture.ledger.prune(keep).await.expect("pruned").calls, calls);
        assert!(there(&fixture, kept.call).await);
        assert_eq!(fixture.ledger.prune(keep).await.expect("pruned").calls, 0);
    }
}

#[tokio::test]
async fn t_o4_a_ledger_that_reached_its_bound_commits_again_when_there_is_room() {
    let options = LedgerOptions { max_pages: Some(280), ..LedgerOptions::default() };
    let fixture = Fixture::with("prune-full", options).await;
    let mut large = fixture.call();
    large.recording = Some(Arc::from("x".repeat(500_000)));
    fixture.ledger.record_call(large.clone()).expect("recorded");
    fixture.ledger.barrier().await.expect("written");
    let content = "y".repeat(60_000);
    let mut refused = None;
    for at in 0..20_u8 {
        let proposal = fixture.proposal(format!("{content}{at}").as_bytes());
        if let Err(error) = fixture.ledger.propose(proposal, Durability::Durable).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("it is bounded");
    assert!(matches!(refused, LedgerError::DiskFull) && refused.to_string().contains("ledger.max_bytes"), "{refused}");
    assert_eq!(refused.refusal().code, toolkeep_core::refusal::Code::Overloaded);
    // A record that finds no room waits, and does not keep the sweep from making some.
    let mut waiting = fixture.call();
    waiting.recording = Some(Arc::from("z".repeat(300_000)));
    fixture.ledger.record_call(waiting.clone()).expect("enqueued");
    let keep = Keep::since(large.ended_ms + 1);
    let pruned = loop {
        match fixture.ledger.prune(keep).await {
            Ok(pruned) => break pruned,
            // The record came first, in a batch of its own making.
            Err(LedgerError::DiskFull) => {}
            Err(other) => panic!("{other}"),
        }
    };
    assert!(pruned.calls >= 1, "the large one");
    fixture.ledger.propose(fixture.proposal(b"small"), Durability::Durable).await.expect("resumed");
    assert_eq!(fixture.ledger.health(), LedgerHealth::Well);
    assert!(!there(&fixture, large.call).await);
}

#[tokio::test]
async fn r32_a_commit_that_was_rolled_back_and_may_go_well_later_gives_its_key_back() {
    use toolkeep_core::refusal::Code;
    for (code, kept) in [(Code::StalePlan, false), (Code::PlanDiverged, true)] {
        let fixture = Fixture::new("key-stale").await;
        let mut proposal = fixture.proposal(b"x");
        let claim = keyed(&mut proposal.call, "k1");
        assert_eq!(fixture.ledger.claim_key(claim.clone()).await.expect("claimed"), Claimed::Fresh);
        let mut intent = fixture.intent(&proposal.plan);
        intent.proposal = Some(Box::new(proposal.clone()));
        let id = fixture.ledger.intent(intent).await.expect("intent");
        let mut row = outcome(id, proposal.call.call, Settled::RolledBack);
        row.error_code = Some(code);
        fixture.ledger.outcome(row, Durability::Lazy).await.expect("outcome");
        let claimed = fixture.ledger.claim_key(claim).await.expect("claimed");
        assert_eq!(matches!(claimed, Claimed::Stored { .. }), kept, "{claimed:?}");
        assert_eq!(matches!(claimed, Claimed::Fresh), !kept, "{claimed:?}");
        let stored = fixture.ledger.call(&acme(), proposal.call.call).await.expect("read").expect("on record");
        assert_eq!((stored.row.outcome, stored.row.error_code), (Outcome::Discarded, Some(code)));
    }
}

#[tokio::test]
async fn r42_a_run_that_is_over_goes_however_many_that_stay_stand_in_front_of_it() {
    let fixture = Fixture::new("prune-runs").await;
    let open = |closed_ms| {
        let run = RunId::new(fixture.ambient.uuid_v7());
        let row = RunRow { closed_ms, ..RunRow::new(run, principal("acme"), "one of many", NOW_MS) };
        fixture.ledger.open_run(row).map(|()| run).expect("opened")
    };
    let first = open(None);
    for _ in 0..1_100 {
        open(None);
    }
    let over = open(Some(NOW_MS + 1));
    fixture.ledger.prune(ALL).await.expect("pruned");
    let there = async |run| fixture.ledger.run(&acme(), run).await.expect("read").is_some();
    assert_eq!((there(first).await, there(over).await), (true, false));
    // The walk begins anew: what is closed in the part that was passed goes with the next one.
    fixture.ledger.close_run(&principal("acme"), first, None, NOW_MS + 2).await.expect("closed");
    fixture.ledger.prune(ALL).await.expect("pruned");
    assert!(!there(first).await);
}
