//! Approvals: who may answer, when enough people did, and that a consent is used up exactly once.

use std::sync::Arc;
use std::time::Duration;

use toolkeep::ledger::approval::ApprovalState;
use toolkeep::ledger::{
    ApprovalFilter, ApprovalUse, Discard, DiscardRefused, Durability, IntentRefused, Page, PlanState, Proposal, Raised,
    Resolution, ResolveRefused, Resolved, Scope, Settled, Via,
};
use toolkeep_core::call::{Outcome, Reply, Status};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::ApprovalId;
use toolkeep_core::refusal::Code;

use super::fixture::{Fixture, acme, outcome, reply};

fn answer(proposal: &Proposal, approver: &str, approve: bool) -> Resolution {
    let id = proposal.approval.as_ref().expect("approval").id;
    Resolution {
        id,
        approver: approver.parse().expect("name"),
        via: Via::Operator,
        approve,
        reason: Arc::from("because"),
        need: Raised::NOT,
    }
}

fn lease(proposal: &Proposal) -> ApprovalUse {
    ApprovalUse { id: proposal.approval.as_ref().expect("approval").id, seal: proposal.plan.seal_digest() }
}

async fn state(fixture: &Fixture, proposal: &Proposal) -> ApprovalState {
    let id = proposal.approval.as_ref().expect("approval").id;
    fixture.ledger.approval(&acme(), id).await.expect("read").expect("there").state
}

async fn keep(fixture: &Fixture, content: &[u8], approvers: u8) -> Proposal {
    let proposal = fixture.held(content, approvers);
    fixture.ledger.propose(proposal.clone(), Durability::Durable).await.expect("kept");
    proposal
}

#[tokio::test]
async fn r22_an_approved_plan_is_committed_once_and_its_approval_is_consumed() {
    let mut fixture = Fixture::new("consent").await;
    let proposal = keep(&fixture, b"x", 1).await;
    let mut intent = fixture.intent(&proposal.plan);
    let missing = fixture.ledger.intent(intent.clone()).await;
    assert!(matches!(missing, Err(IntentRefused::ApprovalNotUsable(ApprovalState::Pending))), "{missing:?}");
    intent.approval = Some(lease(&proposal));
    let early = fixture.ledger.intent(intent.clone()).await;
    assert!(matches!(early, Err(IntentRefused::ApprovalNotUsable(ApprovalState::Pending))), "{early:?}");
    fixture.reopen().await;
    let resolved = fixture.ledger.resolve(answer(&proposal, "eve", true)).await.expect("resolved");
    assert_eq!(resolved, Resolved::Approved);
    for wrong in [
        ApprovalUse { seal: Digest::of(b"another seal"), ..lease(&proposal) },
        ApprovalUse { seal: proposal.plan.digest(), ..lease(&proposal) },
    ] {
        intent.approval = Some(wrong);
        let refused = fixture.ledger.intent(intent.clone()).await;
        assert!(matches!(refused, Err(IntentRefused::ApprovalNotUsable(ApprovalState::Approved))), "{refused:?}");
    }
    intent.approval = Some(ApprovalUse { id: ApprovalId::new(fixture.ambient.uuid_v7()), ..lease(&proposal) });
    assert!(matches!(fixture.ledger.intent(intent.clone()).await, Err(IntentRefused::WrongApproval)));
    intent.approval = Some(lease(&proposal));
    let id = fixture.ledger.intent(intent.clone()).await.expect("intent");
    assert_eq!(state(&fixture, &proposal).await, ApprovalState::Consumed);
    let again = fixture.ledger.intent(intent).await;
    assert!(matches!(again, Err(IntentRefused::NotCommittable(PlanState::Committing))));
    let call = proposal.call.call;
    fixture.ledger.outcome(outcome(id, call, Settled::Committed), Durability::Lazy).await.expect("outcome");
    assert_eq!(state(&fixture, &proposal).await, ApprovalState::Consumed);
    let votes = fixture.ledger.approval(&acme(), lease(&proposal).id).await.expect("read").expect("there").votes;
    assert_eq!((votes.len(), votes[0].approver.as_str(), &*votes[0].reason), (1, "eve", "because"));
}

#[tokio::test]
async fn r23_two_people_have_to_agree_and_neither_is_the_requester() {
    let fixture = Fixture::new("two").await;
    let proposal = keep(&fixture, b"x", 2).await;
    let barred = fixture.ledger.resolve(answer(&proposal, "ada", true)).await;
    assert!(matches!(barred, Err(ResolveRefused::Barred)), "{barred:?}");
    let first = fixture.ledger.resolve(answer(&proposal, "eve", true)).await.expect("counted");
    assert_eq!(first, Resolved::Counted { have: 1, need: 2 });
    let again = fixture.ledger.resolve(answer(&proposal, "eve", true)).await;
    assert!(matches!(again, Err(ResolveRefused::AlreadyAnswered)), "{again:?}");
    assert_eq!(state(&fixture, &proposal).await, ApprovalState::Pending);
    let second = fixture.ledger.resolve(answer(&proposal, "bob", true)).await.expect("counted");
    assert_eq!(second, Resolved::Approved);
    // Whoever answers now is told that it is over, also those who answered before and the one who may not.
    for late in ["eve", "bob", "ada"] {
        let again = fixture.ledger.resolve(answer(&proposal, late, true)).await;
        assert!(matches!(again, Err(ResolveRefused::NotPending(ApprovalState::Approved))), "{late}: {again:?}");
    }
    let third = fixture.ledger.resolve(answer(&proposal, "zoe", true)).await;
    assert!(matches!(third, Err(ResolveRefused::NotPending(ApprovalState::Approved))), "{third:?}");
}

#[tokio::test]
async fn r23_a_plan_that_needs_more_people_than_when_it_was_held_gets_no_fewer() {
    let fixture = Fixture::new("raised").await;
    let proposal = keep(&fixture, b"x", 3).await;
    let raised = |approver: &str| Resolution {
        need: Raised { approvers: 2, barred: Some("ada".parse().expect("name")) },
        ..answer(&proposal, approver, true)
    };
    // One person was enough when it was held, and the requester was not barred: nobody has answered yet.
    let one = keep(&fixture, b"y", 1).await;
    let barred = Resolution { id: lease(&one).id, ..raised("ada") };
    assert!(matches!(fixture.ledger.resolve(barred).await, Err(ResolveRefused::Barred)));
    let first = Resolution { id: lease(&one).id, ..raised("eve") };
    let counted = fixture.ledger.resolve(first).await.expect("counted");
    assert_eq!(counted, Resolved::Counted { have: 1, need: 2 });
    // What was raised stays, also where the next answer does not know of it.
    let requester = fixture.ledger.resolve(answer(&one, "ada", true)).await;
    assert!(matches!(requester, Err(ResolveRefused::Barred)), "{requester:?}");
    assert_eq!(fixture.ledger.resolve(answer(&one, "bob", true)).await.expect("counted"), Resolved::Approved);
    // It never lowers what was asked for.
    let low = fixture.ledger.resolve(raised("eve")).await.expect("counted");
    assert_eq!(low, Resolved::Counted { have: 1, need: 3 });
}

#[tokio::test]
async fn a_rejection_ends_plan_and_call_even_by_the_requester() {
    let fixture = Fixture::new("reject").await;
    let proposal = keep(&fixture, b"x", 2).await;
    fixture.ledger.resolve(answer(&proposal, "eve", true)).await.expect("counted");
    let rejected = fixture.ledger.resolve(answer(&proposal, "ada", false)).await.expect("counted");
    assert_eq!(rejected, Resolved::Rejected);
    assert_eq!(state(&fixture, &proposal).await, ApprovalState::Rejected);
    let stored = fixture.ledger.plan(&acme(), proposal.plan.id()).await.expect("read").expect("there");
    assert_eq!(stored.state, PlanState::Discarded);
    let last: Reply = serde_json::from_str(&stored.call.row.reply).expect("reply");
    assert_eq!((last.status, last.outcome), (Status::Denied, Outcome::Discarded));
    let error = last.error.expect("error");
    assert_eq!((error.code, error.message.contains("because")), (Code::ApprovalRejected, true));
    let late = fixture.ledger.resolve(answer(&proposal, "bob", true)).await;
    assert!(matches!(late, Err(ResolveRefused::NotPending(ApprovalState::Rejected))));
    let mut intent = fixture.intent(&proposal.plan);
    intent.approval = Some(lease(&proposal));
    assert!(fixture.ledger.intent(intent).await.is_err());
    let unknown = Resolution { id: ApprovalId::new(fixture.ambient.uuid_v7()), ..answer(&proposal, "bob", true) };
    assert!(matches!(fixture.ledger.resolve(unknown).await, Err(ResolveRefused::NotFound)));
}

#[tokio::test]
async fn t_p6_an_answer_and_a_commit_after_the_time_are_refused() {
    let fixture = Fixture::new("late-consent").await;
    let (pending, approved) = (keep(&fixture, b"x", 1).await, keep(&fixture, b"y", 1).await);
    fixture.ambient.advance(Duration::from_millis(29_999));
    fixture.ledger.resolve(answer(&approved, "eve", true)).await.expect("just in time");
    fixture.ambient.advance(Duration::from_millis(1));
    let late = fixture.ledger.resolve(answer(&pending, "eve", true)).await;
    assert!(matches!(late, Err(ResolveRefused::NotPending(ApprovalState::Expired))), "{late:?}");
    let mut intent = fixture.intent(&approved.plan);
    intent.approval = Some(lease(&approved));
    let late = fixture.ledger.intent(intent).await;
    assert!(matches!(late, Err(IntentRefused::ApprovalNotUsable(ApprovalState::Approved))), "{late:?}");
    let calls = fixture.ledger.expire_due(fixture.ambient.now_ms()).await.expect("expired");
    assert_eq!(calls.len(), 2);
    for proposal in [&pending, &approved] {
        assert_eq!(state(&fixture, proposal).await, ApprovalState::Expired);
        let again = fixture.ledger.resolve(answer(proposal, "eve", true)).await;
        assert!(matches!(again, Err(ResolveRefused::NotPending(ApprovalState::Expired))), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t_p5_of_64_claims_of_one_approval_exactly_one_wins() {
    let fixture = Arc::new(Fixture::new("claims").await);
    let proposal = keep(&fixture, b"x", 1).await;
    fixture.ledger.resolve(answer(&proposal, "eve", true)).await.expect("resolved");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (fixture, mut intent) = (Arc::clone(&fixture), fixture.intent(&proposal.plan));
        intent.approval = Some(lease(&proposal));
        tasks.spawn(async move { fixture.ledger.intent(intent).await.is_ok() });
    }
    let mut won = 0;
    while let Some(result) = tasks.join_next().await {
        won += usize::from(result.expect("task"));
    }
    assert_eq!(won, 1);
    assert_eq!(state(&fixture, &proposal).await, ApprovalState::Consumed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t_p5_of_64_parallel_answers_exactly_as_many_count_as_are_needed() {
    let fixture = Arc::new(Fixture::new("answers").await);
    let proposal = keep(&fixture, b"x", 3).await;
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..64 {
        let (fixture, answer) = (Arc::clone(&fixture), answer(&proposal, &format!("user{}", at % 16), true));
        tasks.spawn(async move { fixture.ledger.resolve(answer).await });
    }
    let (mut counted, mut approved) = (0, 0);
    while let Some(result) = tasks.join_next().await {
        match result.expect("task") {
            Ok(Resolved::Counted { .. }) => counted += 1,
            Ok(Resolved::Approved) => approved += 1,
            Ok(Resolved::Rejected) => panic!("nobody rejected"),
            Err(ResolveRefused::AlreadyAnswered | ResolveRefused::NotPending(ApprovalState::Approved)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((counted, approved), (2, 1));
    let votes = fixture.ledger.approval(&acme(), lease(&proposal).id).await.expect("read").expect("there").votes;
    assert_eq!(votes.len(), 3);
}

#[tokio::test]
async fn a_preview_can_be_held_afterwards_and_needs_consent_from_then_on() {
    let fixture = Fixture::new("hold").await;
    let mut proposal = fixture.proposal(b"x");
    fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    proposal.approval = fixture.held(b"x", 1).approval;
    let approval = proposal.approval.clone().expect("approval");
    let waiting = reply(proposal.call.call, "held", "pending");
    fixture.ledger.hold(proposal.plan.id(), approval.clone(), Arc::clone(&waiting)).await.expect("held");
    let stored = fixture.ledger.plan(&acme(), proposal.plan.id()).await.expect("read").expect("there");
    assert_eq!((stored.state, &stored.call.row.reply), (PlanState::Held, &waiting));
    assert_eq!(stored.approval.map(|approval| approval.seal), Some(proposal.plan.seal_digest()));
    let refused = fixture.ledger.intent(fixture.intent(&proposal.plan)).await;
    assert!(matches!(refused, Err(IntentRefused::ApprovalNotUsable(ApprovalState::Pending))), "{refused:?}");
    let again = fixture.ledger.hold(proposal.plan.id(), approval.clone(), waiting).await;
    assert!(matches!(again, Err(DiscardRefused::NotOpen(PlanState::Held))), "{again:?}");
    fixture.ledger.discard(&Scope::Operator, proposal.plan.id(), Discard::Dropped).await.expect("discarded");
    assert_eq!(state(&fixture, &proposal).await, ApprovalState::Expired);
}

#[tokio::test]
async fn approvals_are_listed_by_state_and_tenant_newest_first() {
    let fixture = Fixture::new("inbox").await;
    let mut ids = Vec::new();
    for at in 0..5_u8 {
        let proposal = keep(&fixture, &[at], 1).await;
        if at == 2 {
            fixture.ledger.resolve(answer(&proposal, "eve", true)).await.expect("resolved");
        }
        ids.push(proposal.approval.expect("approval").id);
    }
    let pending = ApprovalFilter { state: Some(ApprovalState::Pending) };
    let list = async |scope: Scope, filter, page| fixture.ledger.approvals(&scope, filter, page).await.expect("read");
    let first = list(Scope::Operator, pending, Page { cursor: None, limit: 3 }).await;
    let second = list(Scope::Operator, pending, Page { cursor: first.next, limit: 3 }).await;
    let found: Vec<_> = first.items.iter().chain(&second.items).map(|approval| approval.row.id).collect();
    assert_eq!(found, [ids[4], ids[3], ids[1], ids[0]]);
    assert_eq!(second.next, None);
    assert_eq!(list(acme(), ApprovalFilter::default(), Page::default()).await.items.len(), 5);
    assert_eq!(list(super::fixture::stranger(), pending, Page::default()).await.items.len(), 0);
}

/// What is on the disk now, opened as the start after a kill would: nobody closed it.
async fn after_a_kill(fixture: &Fixture) -> (super::fixture::Place, toolkeep::ledger::Ledger) {
    let copy = super::fixture::Place::new("killed");
    for entry in std::fs::read_dir(fixture.place.path()).expect("directory") {
        let entry = entry.expect("entry");
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
    }
    let ledger = toolkeep::ledger::Ledger::open(copy.path(), fixture.ambient.clone()).await.expect("opened");
    assert!(ledger.was_unclean(), "it was not closed");
    (copy, ledger)
}

#[tokio::test]
async fn r22_a_kill_after_any_transition_leaves_what_was_answered() {
    let fixture = Fixture::new("kills").await;
    let mut transitions = 0;
    let mut killed = async |proposal: &Proposal, state: ApprovalState, votes: usize, plan: PlanState| {
        transitions += 1;
        let (_place, ledger) = after_a_kill(&fixture).await;
        let found = ledger.approval(&acme(), lease(proposal).id).await.expect("read").expect("there");
        assert_eq!((found.state, found.votes.len()), (state, votes), "transition {transitions}");
        let stored = ledger.plan(&acme(), proposal.plan.id()).await.expect("read").expect("there");
        assert_eq!(stored.state, plan, "transition {transitions}");
        let mut intent = fixture.intent(&proposal.plan);
        intent.approval = Some(lease(proposal));
        let taken = ledger.intent(intent).await;
        assert_eq!(taken.is_ok(), state == ApprovalState::Approved, "transition {transitions}: {taken:?}");
        ledger.close().await.expect("closed");
    };
    let two = keep(&fixture, b"two people", 2).await;
    killed(&two, ApprovalState::Pending, 0, PlanState::Held).await;
    fixture.ledger.resolve(answer(&two, "eve", true)).await.expect("counted");
    killed(&two, ApprovalState::Pending, 1, PlanState::Held).await;
    fixture.ledger.resolve(answer(&two, "bob", true)).await.expect("approved");
    killed(&two, ApprovalState::Approved, 2, PlanState::Held).await;
    let mut intent = fixture.intent(&two.plan);
    intent.approval = Some(lease(&two));
    let id = fixture.ledger.intent(intent).await.expect("intent");
    killed(&two, ApprovalState::Consumed, 2, PlanState::Committing).await;
    let row = outcome(id, two.call.call, Settled::Committed);
    fixture.ledger.outcome(row, Durability::Durable).await.expect("outcome");
    killed(&two, ApprovalState::Consumed, 2, PlanState::Committed).await;
    let no = keep(&fixture, b"rejected", 1).await;
    fixture.ledger.resolve(answer(&no, "eve", false)).await.expect("rejected");
    killed(&no, ApprovalState::Rejected, 1, PlanState::Discarded).await;
    let dropped = keep(&fixture, b"dropped", 1).await;
    fixture.ledger.discard(&acme(), dropped.plan.id(), Discard::Dropped).await.expect("dropped");
    killed(&dropped, ApprovalState::Expired, 0, PlanState::Discarded).await;
    println!("approvals: a kill after each of {transitions} transitions leaves what was answered");
}
