//! Tokens and sessions on record: what stands, what taking back takes with it, and what is forgotten.

use std::collections::BTreeSet;

use toolkeep::ledger::{CredentialKind, CredentialRow, Keep, Page, Scope};
use toolkeep_core::call::Mode;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, SessionId, TokenId};
use toolkeep_core::principal::{Credential, Origin, SessionPath};
use toolkeep_core::session::{Held, SessionBudget};
use uuid::Uuid;

use super::fixture::{Fixture, NOW_MS};

fn row(number: u128, kind: CredentialKind, origin: Origin) -> CredentialRow {
    CredentialRow {
        id: Uuid::from_u128(number),
        kind,
        origin,
        tenant: "acme".parse().expect("name"),
        user: "alice".parse().expect("name"),
        agent: Some("helper".parse().expect("name")),
        groups: BTreeSet::new(),
        held: Held::default(),
        label: "x".to_owned(),
        secret: Digest::of(&number.to_be_bytes()),
        parent: None,
        made_by: "bob (admin-uid:0)".to_owned(),
        made_ms: NOW_MS,
        expires_ms: NOW_MS + 1_000,
    }
}

fn path(numbers: &[u128]) -> SessionPath {
    numbers.iter().fold(SessionPath::default(), |path, number| {
        path.child(SessionId::new(Uuid::from_u128(*number))).expect("room")
    })
}

fn token(number: u128) -> CredentialRow {
    let id = TokenId::new(Uuid::from_u128(number));
    row(number, CredentialKind::Token, Origin::of(Credential::Token(id)))
}

fn session(root: &Credential, numbers: &[u128]) -> CredentialRow {
    let origin = Origin { credential: root.clone(), session: path(numbers) };
    let above = numbers.iter().rev().nth(1).map(|number| Uuid::from_u128(*number));
    let by_token = match root {
        Credential::Token(token) => Some(*token.uuid()),
        _ => None,
    };
    let parent = above.or(by_token);
    CredentialRow { parent, ..row(*numbers.last().expect("a session"), CredentialKind::Session, origin) }
}

async fn standing(fixture: &Fixture) -> Vec<u128> {
    let found = fixture.ledger.standing_credentials(NOW_MS).await.expect("read");
    found.iter().map(|stored| stored.row.id.as_u128()).collect()
}

#[tokio::test]
async fn r18_taking_one_back_takes_back_what_was_delegated_from_it_and_no_more() {
    let mut fixture = Fixture::new("credentials").await;
    let (uid, minted) = (Credential::AgentUid(7), Credential::Token(TokenId::new(Uuid::from_u128(1))));
    // Ids that are next to each other: a prefix must not end beside the one that it names.
    let edge = u128::MAX;
    let rows = [
        token(1),
        token(2),
        session(&minted, &[10]),
        session(&minted, &[10, 11]),
        session(&uid, &[20]),
        session(&uid, &[20, 21]),
        session(&uid, &[20, 21, 22]),
        session(&uid, &[23]),
        session(&uid, &[edge]),
        session(&uid, &[edge, 24]),
    ];
    for row in &rows {
        fixture.ledger.add_credential(row.clone()).await.expect("kept");
    }
    let acme = "acme".parse().expect("name");
    let back = |number: u128| {
        let (ledger, tenant) = (fixture.ledger.clone(), "acme".parse().expect("name"));
        async move { ledger.revoke_credential(&tenant, Uuid::from_u128(number), "bob".to_owned()).await.expect("written") }
    };
    assert_eq!(standing(&fixture).await, [1, 2, 10, 11, 20, 21, 22, 23, edge, 24]);
    assert!(back(21).await && !back(21).await, "once");
    assert_eq!(standing(&fixture).await, [1, 2, 10, 11, 20, 23, edge, 24]);
    assert!(back(1).await);
    assert_eq!(standing(&fixture).await, [2, 20, 23, edge, 24], "with the sessions of the token");
    assert!(back(edge).await);
    assert_eq!(standing(&fixture).await, [2, 20, 23]);
    let globex = "globex".parse().expect("name");
    let foreign = fixture.ledger.revoke_credential(&globex, Uuid::from_u128(2), "eve".to_owned()).await;
    assert!(!foreign.expect("written"), "another tenant's is none");
    let scope = Scope::Tenant(globex);
    assert!(fixture.ledger.credential(&scope, Uuid::from_u128(2)).await.expect("read").is_none());
    let tokens = fixture.ledger.credentials(&acme, CredentialKind::Token, None, Page::default()).await.expect("read");
    let revoked: Vec<bool> = tokens.items.iter().map(|stored| stored.revoked_ms.is_some()).collect();
    assert_eq!(revoked, [false, true], "newest first");
    assert_eq!(tokens.items[0].row, rows[1], "as it was made");
    fixture.reopen().await;
    assert_eq!(standing(&fixture).await, [2, 20, 23]);
    fixture.ledger.forget_credentials(NOW_MS + 1_000).await.expect("forgotten");
    let left = fixture.ledger.credentials(&acme, CredentialKind::Session, None, Page::default()).await.expect("read");
    assert_eq!(left.items.len(), 2, "what was revoked before is gone: {left:?}");
    fixture.ledger.forget_credentials(NOW_MS + 1_001).await.expect("forgotten");
    assert!(standing(&fixture).await.is_empty());

    fixture.ledger.verify_audit(Vec::new()).await.expect("the chain is whole");
}

#[tokio::test]
async fn t_i5_what_a_token_has_minted_ends_with_it_and_so_does_what_came_from_that() {
    let fixture = Fixture::new("minted").await;
    let minted = Credential::Token(TokenId::new(Uuid::from_u128(2)));
    let by_first = CredentialRow { parent: Some(Uuid::from_u128(1)), agent: None, ..token(2) };
    let by_second = CredentialRow { parent: Some(Uuid::from_u128(2)), ..token(3) };
    for row in [token(1), by_first, by_second, session(&minted, &[10]), token(4)] {
        fixture.ledger.add_credential(row).await.expect("kept");
    }
    let acme = "acme".parse().expect("name");
    assert!(fixture.ledger.revoke_credential(&acme, Uuid::from_u128(1), "bob".to_owned()).await.expect("written"));
    assert_eq!(standing(&fixture).await, [4]);
}

#[tokio::test]
async fn r18_calls_through_a_session_and_those_below_it_are_counted_and_pruning_forgets_none() {
    let fixture = Fixture::new("counted").await;
    let uid = Credential::AgentUid(7);
    let budget = SessionBudget { calls: Some(9), cost_micro_usd: None };
    for numbers in [&[20][..], &[20, 21], &[22]] {
        let held = Held { budget, ..Held::default() };
        fixture.ledger.add_credential(CredentialRow { held, ..session(&uid, numbers) }).await.expect("kept");
    }
    for (numbers, calls) in [(&[][..], 5), (&[20], 1), (&[20, 21], 2), (&[20, 21, 30], 1), (&[22], 3)] {
        for _ in 0..calls {
            let mut call = fixture.call();
            call.origin = Origin { credential: uid.clone(), session: path(numbers) };
            fixture.ledger.record_call(call).expect("recorded");
        }
    }
    // A part of a live call is no call that anybody made, and to look at an undo is none either.
    let origin = Origin { credential: uid, session: path(&[22]) };
    let mut part = fixture.call();
    (part.call, part.origin) = (CallId::new(Uuid::new_v5(&Uuid::nil(), b"live 0")), origin.clone());
    fixture.ledger.record_call(part).expect("recorded");
    let mut looked = fixture.call();
    (looked.tool, looked.mode, looked.origin) = ("toolkeep.undo".parse().expect("name"), Mode::Preview, origin);
    fixture.ledger.record_call(looked).expect("recorded");
    let made = async || {
        let found = fixture.ledger.standing_credentials(NOW_MS).await.expect("read");
        found.iter().map(|stored| stored.calls).collect::<Vec<u64>>()
    };
    assert_eq!(made().await, [4, 3, 3]);
    let keep = Keep::since(NOW_MS + 24 * 3600 * 1000);
    assert_eq!(fixture.ledger.prune(keep).await.expect("pruned").calls, 14);
    assert_eq!(made().await, [4, 3, 3]);
}
