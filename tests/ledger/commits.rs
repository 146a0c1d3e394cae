//! Plans from proposal to outcome: what is durable, who wins, what is released, what undo needs.

use std::sync::Arc;
use std::time::Duration;

use toolkeep::ledger::{
    Discard, DiscardRefused, Durability, IntentRefused, LedgerError, Page, PlanState, Scope, Settled,
};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::call::{Outcome, Reply, Status};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, PlanId};
use toolkeep_core::refusal::{Code, Refusal};

use super::fixture::{Fixture, NOW_MS, acme, outcome};

async fn state(fixture: &Fixture, plan: PlanId) -> PlanState {
    fixture.ledger.plan(&acme(), plan).await.expect("read").expect("there").state
}

async fn last_reply(fixture: &Fixture, call: CallId) -> Reply {
    let call = fixture.ledger.call(&acme(), call).await.expect("read").expect("there");
    let reply: Reply = serde_json::from_str(&call.row.reply).expect("reply");
    assert_eq!((call.row.status, call.row.outcome), (reply.status, reply.outcome));
    assert_eq!(call.row.error_code, reply.error.as_ref().map(|error| error.code));
    reply
}

#[tokio::test]
async fn r05_a_preview_reads_back_verified_by_id_and_by_digest() {
    let mut fixture = Fixture::new("preview").await;
    let (old, new) = (fixture.proposal(b"x"), fixture.proposal(b"x"));
    assert_eq!(old.plan.digest(), new.plan.digest());
    for proposal in [&old, &new] {
        fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    }
    fixture.reopen().await;
    let stored = fixture.ledger.plan(&acme(), old.plan.id()).await.expect("read").expect("there");
    assert_eq!((&stored.plan, stored.state, &*stored.witnesses), (&*old.plan, PlanState::Previewed, "[]"));
    assert_eq!((stored.call.row.call, stored.call.plan), (old.call.call, Some(old.plan.id())));
    assert!(stored.approval.is_none());
    let latest = fixture.ledger.plan_by_digest(&acme(), old.plan.digest(), NOW_MS).await.expect("read").expect("there");
    assert_eq!(latest.plan.id(), new.plan.id(), "the latest of the same content");
    let expiry = new.plan.binding().expires_at_ms;
    assert!(fixture.ledger.plan_by_digest(&acme(), old.plan.digest(), expiry).await.expect("read").is_none());
    let lines = fixture.ledger.plans(&acme(), None, Page::default()).await.expect("read").items;
    assert_eq!(lines.iter().map(|line| line.plan).collect::<Vec<_>>(), [new.plan.id(), old.plan.id()]);
    let held = fixture.ledger.plans(&acme(), Some(PlanState::Held), Page::default()).await.expect("read");
    assert!(held.items.is_empty());
}

#[tokio::test]
async fn r07_a_commit_is_two_transactions_and_its_receipt_comes_with_the_second() {
    let mut fixture = Fixture::new("commit").await;
    let proposal = fixture.proposal(b"x");
    let call = proposal.call.call;
    fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    let intent = fixture.intent(&proposal.plan);
    let receipt = intent.receipt.clone().expect("receipt");
    let id = fixture.ledger.intent(intent.clone()).await.expect("intent");
    assert_eq!((id.plan(), state(&fixture, proposal.plan.id()).await), (proposal.plan.id(), PlanState::Committing));
    assert!(fixture.ledger.receipt_of(&acme(), call).await.expect("read").is_none(), "not before the outcome");
    fixture.reopen().await;
    let open = fixture.ledger.open_intents().await.expect("open");
    assert_eq!(open.len(), 1);
    assert_eq!((&open[0].plan, open[0].call, &open[0].steps), (&*proposal.plan, call, &intent.steps));
    assert_eq!((&open[0].reply_when_done, &open[0].receipt), (&intent.reply_when_done, &Some(receipt.clone())));
    fixture.ledger.outcome(outcome(id, call, Settled::Committed), Durability::Durable).await.expect("outcome");
    assert_eq!(state(&fixture, proposal.plan.id()).await, PlanState::Committed);
    assert!(fixture.ledger.open_intents().await.expect("open").is_empty());
    let stored = fixture.ledger.receipt_of(&acme(), call).await.expect("read");
    assert_eq!(stored.as_ref(), Some(&receipt));
    assert_eq!(receipt.verify(&fixture.ledger.signing_key().verifying_key()), Ok(()));
    assert_eq!(last_reply(&fixture, call).await.outcome, Outcome::Committed);
    let again = fixture.ledger.outcome(outcome(id, call, Settled::RolledBack), Durability::Durable).await;
    assert!(matches!(again, Err(LedgerError::Refused(_))), "an outcome is final: {again:?}");
    let kinds: Vec<_> =
        fixture.ledger.audit_entries(Page::default()).await.expect("read").items.iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [AuditKind::Call, AuditKind::Intent, AuditKind::Outcome]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t_p5_of_64_commits_of_one_plan_one_wins() {
    let fixture = Arc::new(Fixture::new("commit-race").await);
    let proposal = fixture.proposal(b"x");
    fixture.ledger.propose(proposal.clone(), Durability::Durable).await.expect("kept");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (fixture, intent) = (Arc::clone(&fixture), fixture.intent(&proposal.plan));
        tasks.spawn(async move { fixture.ledger.intent(intent).await });
    }
    let (mut won, mut lost) = (0, 0);
    while let Some(result) = tasks.join_next().await {
        match result.expect("task") {
            Ok(_) => won += 1,
            Err(IntentRefused::NotCommittable(PlanState::Committing)) => lost += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((won, lost), (1, 63));
    assert_eq!(fixture.ledger.open_intents().await.expect("open").len(), 1);
    assert_eq!(
        fixture.ledger.verify_audit(Vec::new()).await.expect("chain").entries,
        2,
        "nothing of the losers is left"
    );
}

#[tokio::test]
async fn an_automatic_commit_is_one_transaction_with_its_plan() {
    let fixture = Fixture::new("auto").await;
    let proposal = fixture.proposal(b"x");
    let mut intent = fixture.intent(&proposal.plan);
    intent.proposal = Some(Box::new(proposal.clone()));
    let id = fixture.ledger.intent(intent.clone()).await.expect("intent");
    assert_eq!(state(&fixture, proposal.plan.id()).await, PlanState::Committing);
    let twice = fixture.ledger.intent(intent).await;
    assert!(matches!(twice, Err(IntentRefused::Ledger(LedgerError::Refused(_)))), "{twice:?}");
    let row = outcome(id, proposal.call.call, Settled::Halted(vec!["books/report.md".into()]));
    fixture.ledger.outcome(row, Durability::Lazy).await.expect("outcome");
    assert_eq!(state(&fixture, proposal.plan.id()).await, PlanState::Halted);
    assert_eq!(last_reply(&fixture, proposal.call.call).await.outcome, Outcome::Halted);
    assert!(fixture.ledger.receipt_of(&acme(), proposal.call.call).await.expect("read").is_none());
}

#[tokio::test]
async fn t_p7_a_plan_that_expired_or_was_settled_is_not_committed() {
    let fixture = Fixture::new("late").await;
    let unknown = fixture.proposal(b"never kept");
    assert!(matches!(fixture.ledger.intent(fixture.intent(&unknown.plan)).await, Err(IntentRefused::NoSuchPlan)));
    let (dropped, old) = (fixture.proposal(b"a"), fixture.proposal(b"b"));
    for proposal in [&dropped, &old] {
        fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    }
    fixture.ledger.discard(&acme(), dropped.plan.id(), Discard::Dropped).await.expect("discarded");
    let late = fixture.ledger.intent(fixture.intent(&dropped.plan)).await;
    assert!(matches!(late, Err(IntentRefused::NotCommittable(PlanState::Discarded))));
    fixture.ambient.advance(Duration::from_millis(59_999));
    let in_time = fixture.proposal(b"c");
    fixture.ledger.propose(in_time.clone(), Durability::Lazy).await.expect("kept");
    fixture.ledger.intent(fixture.intent(&in_time.plan)).await.expect("one millisecond before it expires");
    fixture.ambient.advance(Duration::from_millis(1));
    assert!(matches!(fixture.ledger.intent(fixture.intent(&old.plan)).await, Err(IntentRefused::Expired)));
    let mut fresh = fixture.intent(&unknown.plan);
    fresh.proposal = Some(Box::new(unknown.clone()));
    assert!(matches!(fixture.ledger.intent(fresh).await, Err(IntentRefused::Expired)));
    assert!(fixture.ledger.plan(&acme(), unknown.plan.id()).await.expect("read").is_none());
}

#[tokio::test]
async fn an_intent_must_not_bring_a_plan_that_wants_consent_or_is_another() {
    let fixture = Fixture::new("wrong").await;
    let (held, other) = (fixture.held(b"x", 1), fixture.proposal(b"y"));
    let mut smuggled = fixture.intent(&held.plan);
    smuggled.proposal = Some(Box::new(held.clone()));
    assert!(matches!(fixture.ledger.intent(smuggled).await, Err(IntentRefused::WrongApproval)));
    let mut mixed = fixture.intent(&held.plan);
    mixed.proposal = Some(Box::new(other));
    assert!(matches!(fixture.ledger.intent(mixed).await, Err(IntentRefused::WrongApproval)));
}

#[tokio::test]
async fn a_discarded_plan_ends_its_call_once() {
    let fixture = Fixture::new("discard").await;
    let (dropped, stale, denied) = (fixture.proposal(b"a"), fixture.held(b"b", 1), fixture.proposal(b"c"));
    for proposal in [&dropped, &stale, &denied] {
        fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    }
    let ledger = &fixture.ledger;
    ledger.discard(&acme(), dropped.plan.id(), Discard::Dropped).await.expect("discarded");
    ledger.discard(&Scope::Operator, stale.plan.id(), Discard::Stale).await.expect("discarded");
    let refusal = Discard::Refused(Box::new(Refusal::new(Code::Killed, "stopped")));
    ledger.discard(&acme(), denied.plan.id(), refusal).await.expect("discarded");
    let reply = last_reply(&fixture, dropped.call.call).await;
    assert_eq!((reply.status, reply.outcome, reply.error), (Status::Ok, Outcome::Discarded, None));
    let reply = last_reply(&fixture, stale.call.call).await;
    assert_eq!((reply.status, reply.error.map(|error| error.code)), (Status::Failed, Some(Code::StalePlan)));
    let reply = last_reply(&fixture, denied.call.call).await;
    assert_eq!((reply.status, reply.error.map(|error| error.message)), (Status::Denied, Some("stopped".to_owned())));
    let again = ledger.discard(&acme(), dropped.plan.id(), Discard::Dropped).await;
    assert!(matches!(again, Err(DiscardRefused::NotOpen(PlanState::Discarded))));
    let foreign = Scope::Tenant("other".parse().expect("name"));
    let hidden = ledger.discard(&foreign, dropped.plan.id(), Discard::Dropped).await;
    assert!(matches!(hidden, Err(DiscardRefused::NotFound)));
}

#[tokio::test]
async fn what_is_due_expires_all_of_it_and_nothing_else() {
    let fixture = Fixture::new("expire").await;
    let mut plans = Vec::new();
    // More than one job expires at once.
    for at in 0..70_u8 {
        let proposal = if at % 2 == 0 { fixture.held(&[at], 1) } else { fixture.proposal(&[at]) };
        fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
        plans.push(proposal);
    }
    let due = |now: u64| fixture.ledger.expire_due(now);
    assert!(due(NOW_MS + 29_999).await.expect("expired").is_empty());
    assert_eq!(due(NOW_MS + 30_000).await.expect("expired").len(), 35, "approvals wait for half as long");
    for proposal in &plans {
        let held = proposal.approval.is_some();
        let expected = if held { PlanState::Expired } else { PlanState::Previewed };
        assert_eq!(state(&fixture, proposal.plan.id()).await, expected);
        if held {
            let reply = last_reply(&fixture, proposal.call.call).await;
            assert_eq!(reply.error.map(|error| error.code), Some(Code::ApprovalExpired));
        }
    }
    assert_eq!(due(NOW_MS + 60_000).await.expect("expired").len(), 35);
    let reply = last_reply(&fixture, plans[1].call.call).await;
    assert_eq!((reply.status, reply.outcome, reply.warnings.len()), (Status::Ok, Outcome::Discarded, 1));
    assert!(due(u64::MAX).await.expect("expired").is_empty());
}

#[tokio::test]
async fn r09_a_committed_call_is_undone_once_and_a_failed_undo_gives_it_back() {
    let fixture = Fixture::new("undo").await;
    let commit = async |undoes: Option<CallId>, content: &[u8], settled: Settled| {
        let proposal = fixture.proposal(content);
        let mut intent = fixture.intent(&proposal.plan);
        (intent.proposal, intent.undoes) = (Some(Box::new(proposal.clone())), undoes);
        let id = fixture.ledger.intent(intent).await?;
        let call = proposal.call.call;
        fixture.ledger.outcome(outcome(id, call, settled), Durability::Lazy).await.expect("outcome");
        Ok::<CallId, IntentRefused>(call)
    };
    let done = commit(None, b"a", Settled::Committed).await.expect("committed");
    let undone = async |call: CallId| fixture.ledger.undo_of(&acme(), call).await.expect("read");
    let info = undone(done).await.expect("can be undone");
    assert_eq!((&*info.steps, info.undone_by, info.committed_ms), (r#"{"steps":1}"#, None, NOW_MS + 9));
    let nothing = commit(None, b"b", Settled::RolledBack).await.expect("rolled back");
    assert!(undone(nothing).await.is_none());
    assert!(matches!(commit(Some(nothing), b"c", Settled::Committed).await, Err(IntentRefused::NotUndoable)));
    let failed = commit(Some(done), b"d", Settled::RolledBack).await.expect("began");
    assert_eq!(undone(done).await.expect("still").undone_by, None);
    assert_ne!(failed, done);
    let by = commit(Some(done), b"e", Settled::Committed).await.expect("undone");
    assert_eq!(undone(done).await.expect("still").undone_by, Some(by));
    assert!(matches!(commit(Some(done), b"f", Settled::Committed).await, Err(IntentRefused::NotUndoable)));
    let redone = commit(Some(by), b"g", Settled::Committed).await.expect("an undo can be undone");
    assert_eq!(undone(by).await.expect("still").undone_by, Some(redone));
}

#[tokio::test]
async fn contents_stay_as_long_as_a_plan_or_an_undo_needs_them() {
    let fixture = Fixture::new("pins").await;
    let proposal = fixture.proposal(b"after");
    let (after, before) = (Digest::of(b"after"), Digest::of(b"what was there"));
    fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    let there = async |digest: Digest| fixture.ledger.blob(digest).await.expect("read").is_some();
    let blobs = toolkeep::blobs::Blobs::open(
        &fixture.place.path().join("blobs"),
        fixture.ledger.clone(),
        fixture.ambient.clone(),
    )
    .expect("blobs");
    assert_eq!(blobs.collect().await.expect("collected"), 0);
    let id = fixture.ledger.intent(fixture.intent(&proposal.plan)).await.expect("intent");
    assert_eq!(blobs.collect().await.expect("collected"), 0);
    let row = outcome(id, proposal.call.call, Settled::Committed);
    fixture.ledger.outcome(row, Durability::Lazy).await.expect("outcome");
    assert!(!there(after).await && there(before).await, "what was written is in the workspace now");
    assert_eq!(blobs.collect().await.expect("collected"), 0);
    let undo = fixture.proposal(b"undo");
    let mut intent = fixture.intent(&undo.plan);
    intent.undo_blobs = Default::default();
    (intent.proposal, intent.undoes) = (Some(Box::new(undo.clone())), Some(proposal.call.call));
    let id = fixture.ledger.intent(intent).await.expect("intent");
    assert_eq!(blobs.collect().await.expect("collected"), 0);
    let row = outcome(id, undo.call.call, Settled::Committed);
    fixture.ledger.outcome(row, Durability::Lazy).await.expect("outcome");
    assert_eq!(blobs.collect().await.expect("collected"), 1, "undone, and nothing to undo is left");
    assert!(!there(before).await);
}

#[tokio::test]
async fn a_content_that_a_commit_wrote_stays_while_another_plan_needs_it() {
    let fixture = Fixture::new("shared").await;
    let (one, two) = (fixture.proposal(b"same"), fixture.proposal(b"same"));
    for proposal in [&one, &two] {
        fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    }
    let mut left = Vec::new();
    for proposal in [one, two] {
        let id = fixture.ledger.intent(fixture.intent(&proposal.plan)).await.expect("intent");
        let row = outcome(id, proposal.call.call, Settled::Committed);
        fixture.ledger.outcome(row, Durability::Lazy).await.expect("outcome");
        left.push(fixture.ledger.blob(Digest::of(b"same")).await.expect("read").is_some());
    }
    assert_eq!(left, [true, false]);
}
