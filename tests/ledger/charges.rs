//! Charges on record: what a plan gives back, what counts as spent, and what a session was charged.

use toolkeep::ledger::{ChargeRow, ChargeState, Charged, CredentialKind, CredentialRow, Keep, RunRow};
use toolkeep_core::budget::Amounts;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, RunId, SessionId};
use toolkeep_core::principal::{Credential, Origin, SessionPath};
use toolkeep_core::session::{Held, SessionBudget};
use uuid::Uuid;

use super::fixture::{Fixture, NOW_MS, principal};

const DAY_MS: u64 = 24 * 3600 * 1000;

fn path(numbers: &[u128]) -> SessionPath {
    numbers.iter().fold(SessionPath::default(), |path, number| {
        path.child(SessionId::new(Uuid::from_u128(*number))).expect("room")
    })
}

/// A charge of a call of one step that cost one, and whose plan costs ten.
fn charge(fixture: &Fixture, call: CallId, run: Option<RunId>, session: &SessionPath) -> ChargeRow {
    let principal = principal("acme");
    ChargeRow {
        id: fixture.ambient.uuid_v7(),
        call: Some(call),
        tool: None,
        to: Charged {
            tenant: principal.tenant,
            user: principal.user,
            workflow: None,
            run,
            session: session.clone(),
            day: NOW_MS / DAY_MS,
        },
        at_ms: NOW_MS,
        state: ChargeState::Settled,
        execution: Amounts { calls: 1, cost: 1, ..Amounts::default() },
        plan: Amounts { cost: 10, approvals: 1, ..Amounts::default() },
    }
}

async fn used(fixture: &Fixture, run: RunId) -> Amounts {
    fixture.ledger.run_past(run).await.expect("read").expect("a run").used
}

#[tokio::test]
async fn r26_of_two_charges_of_one_plan_each_gives_back_its_own_and_a_discard_gives_back_both() {
    let fixture = Fixture::new("charges").await;
    let (run, call) = (RunId::new(fixture.ambient.uuid_v7()), CallId::new(fixture.ambient.uuid_v7()));
    fixture.ledger.open_run(RunRow::new(run, principal("acme"), "x", NOW_MS)).expect("opened");
    let [winner, loser] = [(); 2].map(|()| charge(&fixture, call, Some(run), &SessionPath::default()));
    for row in [&winner, &loser] {
        fixture.ledger.charge(row.clone()).expect("kept");
    }
    assert_eq!((used(&fixture, run).await.cost, used(&fixture, run).await.approvals), (22, 2));
    fixture.ledger.refund(loser.id).await.expect("given back");
    assert_eq!((used(&fixture, run).await.cost, used(&fixture, run).await.approvals), (12, 1));
    fixture.ledger.refund(loser.id).await.expect("given back");
    assert_eq!(fixture.ledger.take_refunds().len(), 1, "a second time gives back nothing");
    assert_eq!(used(&fixture, run).await.cost, 12);
}

#[tokio::test]
async fn r28_what_calls_that_run_have_reserved_is_not_spent_yet() {
    let fixture = Fixture::new("spent").await;
    let call = CallId::new(fixture.ambient.uuid_v7());
    let mut row = charge(&fixture, call, None, &SessionPath::default());
    row.state = ChargeState::Reserved;
    fixture.ledger.charge(row.clone()).expect("kept");
    let spent = async || fixture.ledger.spent_between(NOW_MS, NOW_MS + 1).await.expect("read");
    assert!(spent().await.is_empty(), "a reservation is the most that a call may come to");
    row.state = ChargeState::Settled;
    fixture.ledger.charge(row).expect("kept");
    let found: Vec<(u64, u64)> = spent().await.iter().map(|(_, _, spent)| (spent.calls, spent.cost)).collect();
    assert_eq!(found, [(1, 11)]);
}

#[tokio::test]
async fn r18_what_a_session_was_charged_includes_those_below_and_outlives_what_is_pruned() {
    let mut fixture = Fixture::new("sessions").await;
    let credential = Credential::AgentUid(7);
    let who = principal("acme");
    fixture
        .ledger
        .add_credential(CredentialRow {
            id: Uuid::from_u128(20),
            kind: CredentialKind::Session,
            origin: Origin { credential, session: path(&[20]) },
            tenant: who.tenant.clone(),
            user: who.user.clone(),
            agent: Some(who.agent.clone()),
            groups: std::collections::BTreeSet::new(),
            held: Held { budget: SessionBudget { calls: None, cost_micro_usd: Some(100) }, ..Held::default() },
            label: String::new(),
            secret: Digest::of(b"secret"),
            parent: None,
            made_by: "agent-uid:7".to_owned(),
            made_ms: NOW_MS,
            expires_ms: NOW_MS + 2 * DAY_MS,
        })
        .await
        .expect("kept");
    for session in [path(&[]), path(&[20]), path(&[20, 21]), path(&[22])] {
        let call = CallId::new(fixture.ambient.uuid_v7());
        fixture.ledger.charge(charge(&fixture, call, None, &session)).expect("kept");
    }
    let cost = async |fixture: &Fixture, numbers: &[u128]| {
        fixture.ledger.charged_through(&path(numbers)).await.expect("read").cost
    };
    assert_eq!(
        (cost(&fixture, &[20]).await, cost(&fixture, &[20, 21]).await, cost(&fixture, &[22]).await),
        (22, 11, 11)
    );
    let keep = Keep::since;
    fixture.ledger.prune(keep(NOW_MS + DAY_MS)).await.expect("pruned");
    assert_eq!((cost(&fixture, &[20]).await, cost(&fixture, &[22]).await), (22, 0), "the session of the one stands");
    fixture.reopen().await;
    assert_eq!(cost(&fixture, &[20]).await, 22);
    fixture.ledger.prune(keep(NOW_MS + 3 * DAY_MS)).await.expect("pruned");
    assert_eq!(cost(&fixture, &[20]).await, 0, "what has ended is kept for nobody");
}
