//! Standing approvals: who makes them, that each use is counted once, and that what ended covers nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use toolkeep::ledger::{
    Durability, IntentRefused, Page, Proposal, StandingRefused, StandingRow, StandingState, StandingUse,
};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::id::StandingId;

use super::fixture::{Fixture, NOW_MS, acme, stranger};

fn row(fixture: &Fixture, people: u8, uses: u32) -> StandingRow {
    StandingRow {
        id: StandingId::new(fixture.ambient.uuid_v7()),
        tenant: "acme".parse().expect("name"),
        body: Arc::from("{}"),
        reason: Arc::from("ordinary"),
        people,
        makers: ["ann".parse().expect("name")].into(),
        groups: ["finance".to_owned(), "ops".to_owned()].into(),
        state: if people > 1 { StandingState::Pending } else { StandingState::Active },
        uses,
        used: 0,
        made_ms: NOW_MS,
        expires_ms: NOW_MS + 60_000,
        ended_by: None,
        ended_ms: None,
    }
}

/// A previewed plan whose commit uses the standing approval.
async fn wants(fixture: &Fixture, content: &[u8], standing: StandingId) -> Result<(), IntentRefused> {
    let proposal: Proposal = fixture.proposal(content);
    fixture.ledger.propose(proposal.clone(), Durability::Durable).await.expect("kept");
    let mut intent = fixture.intent(&proposal.plan);
    intent.standing = Some(StandingUse { id: standing });
    fixture.ledger.intent(intent).await.map(|_| ())
}

#[tokio::test]
async fn r22_each_use_of_a_standing_approval_is_counted_once_also_over_restarts() {
    let mut fixture = Fixture::new("standing").await;
    let made = fixture.ledger.make_standing(row(&fixture, 1, 3)).await.expect("made");
    wants(&fixture, b"one", made.id).await.expect("used");
    wants(&fixture, b"two", made.id).await.expect("used");
    fixture.reopen().await;
    let kept = fixture.ledger.standing_row(&acme(), made.id).await.expect("read").expect("there");
    assert_eq!((kept.used, kept.state), (2, StandingState::Active));
    assert!(fixture.ledger.standing_row(&stranger(), made.id).await.expect("read").is_none(), "foreign looks missing");
    wants(&fixture, b"three", made.id).await.expect("used");
    let again = wants(&fixture, b"four", made.id).await;
    assert!(matches!(again, Err(IntentRefused::StandingNotUsable(StandingState::UsedUp))), "{again:?}");
    let nobody = wants(&fixture, b"five", StandingId::new(fixture.ambient.uuid_v7())).await;
    assert!(matches!(nobody, Err(IntentRefused::StandingNotUsable(_))), "{nobody:?}");
    let open = fixture.ledger.standing(&acme(), false, fixture.ambient.now_ms()).await.expect("read");
    assert!(
        open.is_empty()
            && fixture.ledger.standing(&acme(), true, fixture.ambient.now_ms()).await.expect("read").len() == 1
    );
}

#[tokio::test]
async fn r23_what_takes_two_people_covers_nothing_before_another_one_agreed() {
    let fixture = Fixture::new("standing-two").await;
    let made = fixture.ledger.make_standing(row(&fixture, 2, 5)).await.expect("made");
    let early = wants(&fixture, b"early", made.id).await;
    assert!(matches!(early, Err(IntentRefused::StandingNotUsable(StandingState::Pending))), "{early:?}");
    let agree = async |who: &str, tenant: &str, groups: &[&str]| {
        let groups: BTreeSet<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let tenant = tenant.parse().expect("name");
        fixture.ledger.agree_standing(made.id, &tenant, who.parse().expect("name"), groups).await
    };
    assert!(matches!(agree("ann", "acme", &["ops"]).await, Err(StandingRefused::SamePerson)));
    assert!(matches!(agree("bob", "other", &["ops"]).await, Err(StandingRefused::NotFound)));
    let agreed = agree("bob", "acme", &["ops", "legal"]).await.expect("agreed");
    assert_eq!((agreed.state, agreed.makers.len()), (StandingState::Active, 2));
    assert_eq!(agreed.groups, BTreeSet::from(["ops".to_owned()]), "only what all of them are in");
    // r40_: who agreed is on record.
    let last = fixture.ledger.audit_head().await.expect("head").seq;
    let page = Page { cursor: Some(last - 1), limit: 1 };
    let entry = fixture.ledger.audit_entries(page).await.expect("read").items.remove(0);
    assert!(entry.kind == AuditKind::Standing && entry.body.contains(r#""by":"bob""#), "{}", entry.body);
    let late = agree("eve", "acme", &[]).await;
    assert!(matches!(late, Err(StandingRefused::NotOpen(StandingState::Active))), "{late:?}");
    wants(&fixture, b"now", made.id).await.expect("used");
}

#[tokio::test]
async fn r22_what_was_revoked_or_is_too_old_covers_nothing() {
    let fixture = Fixture::new("standing-ended").await;
    let made = fixture.ledger.make_standing(row(&fixture, 1, 5)).await.expect("made");
    let acme = "acme".parse().expect("name");
    let by: toolkeep_core::id::UserName = "bob".parse().expect("name");
    let revoked = fixture.ledger.revoke_standing(made.id, &acme, by.clone(), "enough".into()).await.expect("revoked");
    assert_eq!((revoked.state, revoked.ended_by), (StandingState::Revoked, Some(by.clone())));
    let refused = wants(&fixture, b"late", made.id).await;
    assert!(matches!(refused, Err(IntentRefused::StandingNotUsable(StandingState::Revoked))), "{refused:?}");
    let again = fixture.ledger.revoke_standing(made.id, &acme, by, "enough".into()).await;
    assert!(matches!(again, Err(StandingRefused::NotOpen(StandingState::Revoked))), "{again:?}");
    let old = StandingRow { expires_ms: NOW_MS, ..row(&fixture, 1, 5) };
    let old = fixture.ledger.make_standing(old).await.expect("made");
    let refused = wants(&fixture, b"old", old.id).await;
    assert!(matches!(refused, Err(IntentRefused::StandingNotUsable(StandingState::Expired))), "{refused:?}");
}

#[tokio::test]
async fn t_p5_of_64_commits_at_once_as_many_use_it_as_it_says() {
    let fixture = Arc::new(Fixture::new("standing-race").await);
    let made = fixture.ledger.make_standing(row(&fixture, 1, 7)).await.expect("made");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..64_u8 {
        let fixture = Arc::clone(&fixture);
        tasks.spawn(async move { wants(&fixture, &[number], made.id).await.is_ok() });
    }
    let used = tasks.join_all().await.into_iter().filter(|used| *used).count();
    let kept = fixture.ledger.standing_row(&acme(), made.id).await.expect("read").expect("there");
    assert_eq!((used, kept.used, kept.state), (7, 7, StandingState::UsedUp));
}
