//! Transactions in the ledger: who may have one, which call wins, what is kept for it, and how it ends with its plan.

use std::sync::Arc;

use toolkeep::blobs::Blobs;
use toolkeep::ledger::{
    BlobSet, CallRow, Claimed, Discard, Durability, InlineBlob, LayerText, Page, Scope, StagedCall, TransactionRefused,
    TransactionRow, TransactionState,
};
use toolkeep_core::call::Outcome;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{RunId, TransactionId};
use toolkeep_core::principal::{Origin, Principal};

use super::fixture::{Fixture, NOW_MS, acme, keyed, outcome, principal};

/// More than any test opens.
const MANY: u32 = 100;

fn layer(text: &str) -> LayerText {
    LayerText { text: Arc::from(text), digest: Digest::of(text.as_bytes()), calls: 0, bytes: 0 }
}

fn row(fixture: &Fixture, principal: &Principal) -> TransactionRow {
    TransactionRow {
        id: TransactionId::new(fixture.ambient.uuid_v7()),
        principal: principal.clone(),
        origin: Origin::record(),
        run: Some(RunId::new(fixture.ambient.uuid_v7())),
        tools: Some(vec!["notes.add".parse().expect("name")]),
        opened_ms: NOW_MS,
        expires_at_ms: NOW_MS + 1_000,
    }
}

async fn begin(fixture: &Fixture) -> TransactionRow {
    let row = row(fixture, &principal("acme"));
    fixture.ledger.open_transaction(row.clone(), layer("empty"), MANY).await.expect("open");
    row
}

fn contents(texts: &[&str]) -> BlobSet {
    let inline = |text: &&str| InlineBlob { digest: Digest::of(text.as_bytes()), content: text.as_bytes().into() };
    BlobSet { inline: texts.iter().map(inline).collect(), files: Vec::new() }
}

fn call(fixture: &Fixture) -> CallRow {
    CallRow { outcome: Outcome::Staged, ..fixture.call() }
}

fn staged(fixture: &Fixture, row: &TransactionRow, parent: &str, next: &str) -> StagedCall {
    StagedCall {
        transaction: row.id,
        parent: Digest::of(parent.as_bytes()),
        layer: LayerText { calls: 1, bytes: 7, ..layer(next) },
        blobs: contents(&[next]),
        released: Vec::new(),
        call: call(fixture),
    }
}

async fn state(fixture: &Fixture, id: TransactionId) -> TransactionState {
    fixture.ledger.transaction(&acme(), id).await.expect("read").expect("there").state
}

/// Whether a content survives a collection that spares nothing.
async fn kept(fixture: &Fixture, text: &str) -> bool {
    let place = fixture.place.path().join("blobs");
    let later = toolkeep::ambient::Ambient::fixed(NOW_MS + 2 * toolkeep::blobs::GRACE_MS, 2, Default::default());
    let blobs = Blobs::open(&place, fixture.ledger.clone(), later).expect("blobs");
    blobs.collect().await.expect("collected");
    fixture.ledger.blob(Digest::of(text.as_bytes())).await.expect("read").is_some()
}

#[tokio::test]
async fn r08_a_transaction_reads_back_after_a_restart_with_its_last_layer_and_contents() {
    let mut fixture = Fixture::new("transaction").await;
    let row = begin(&fixture).await;
    let first = staged(&fixture, &row, "empty", "one");
    fixture.ledger.stage(first.clone()).await.expect("staged");
    fixture.reopen().await;
    let stored = fixture.ledger.transaction(&acme(), row.id).await.expect("read").expect("there");
    assert_eq!((stored.state, stored.layer), (TransactionState::Open, first.layer));
    assert_eq!((stored.row.run, stored.row.tools, stored.row.principal), (row.run, row.tools, row.principal));
    assert_eq!((stored.row.opened_ms, stored.row.expires_at_ms), (NOW_MS, NOW_MS + 1_000));
    assert_eq!((stored.call, stored.plan, stored.settled_ms), (None, None, None));
    let call = fixture.ledger.call(&acme(), first.call.call).await.expect("read").expect("there");
    assert_eq!((call.row.outcome, call.plan), (Outcome::Staged, None));
    assert!(kept(&fixture, "one").await, "an open transaction keeps what it staged");
    let head = fixture.ledger.audit_head().await.expect("head");
    assert_eq!(fixture.ledger.verify_audit(Vec::new()).await.expect("the chain is whole").head, head);
}

#[tokio::test]
async fn r08_a_layer_is_replaced_only_by_a_call_that_started_over_it() {
    let fixture = Fixture::new("swap").await;
    let row = begin(&fixture).await;
    fixture.ledger.stage(staged(&fixture, &row, "empty", "one")).await.expect("staged");
    let late = staged(&fixture, &row, "empty", "two");
    let refused = fixture.ledger.stage(late.clone()).await.expect_err("over an old layer");
    assert!(matches!(refused, TransactionRefused::Moved), "{refused}");
    assert!(fixture.ledger.call(&acme(), late.call.call).await.expect("read").is_none(), "neither call nor layer");
    assert!(fixture.ledger.blob(Digest::of(b"two")).await.expect("read").is_none());
    let mut next = staged(&fixture, &row, "one", "two");
    next.released = vec![Digest::of(b"one")];
    fixture.ledger.stage(next).await.expect("staged");
    assert!(kept(&fixture, "two").await);
    assert!(!kept(&fixture, "one").await, "what no layer writes any more is released");
    let unknown = TransactionRow { id: TransactionId::new(fixture.ambient.uuid_v7()), ..row };
    let refused = fixture.ledger.stage(staged(&fixture, &unknown, "empty", "x")).await.expect_err("unknown");
    assert!(matches!(refused, TransactionRefused::NotFound), "{refused}");
}

#[tokio::test]
async fn r08_a_principal_has_so_many_transactions_and_not_one_more() {
    let fixture = Fixture::new("many").await;
    let (ada, other) = (principal("acme"), principal("other"));
    let first = row(&fixture, &ada);
    for open in [first.clone(), row(&fixture, &ada)] {
        fixture.ledger.open_transaction(open, layer("empty"), 2).await.expect("open");
    }
    let third = row(&fixture, &ada);
    let refused = fixture.ledger.open_transaction(third.clone(), layer("empty"), 2).await.expect_err("a third");
    assert!(matches!(refused, TransactionRefused::TooMany(2)), "{refused}");
    fixture.ledger.open_transaction(row(&fixture, &other), layer("empty"), 2).await.expect("somebody else's");
    let drop = fixture.ledger.end_transaction(first.id, TransactionState::Discarded, None);
    drop.await.expect("rolled back");
    fixture.ledger.open_transaction(third, layer("empty"), 2).await.expect("room again");
    let mine = fixture.ledger.transactions(&acme(), Some(&ada), Page::default()).await.expect("read").items;
    assert_eq!(mine.len(), 3, "those that ended are still listed");
    assert!(mine.iter().all(|stored| stored.row.principal == ada));
    let all = fixture.ledger.transactions(&Scope::Operator, None, Page::default()).await.expect("read").items;
    assert_eq!(all.len(), 4);
    let page = Page { limit: 3, ..Page::default() };
    let first = fixture.ledger.transactions(&Scope::Operator, None, page).await.expect("read");
    let rest = Page { cursor: first.next, ..page };
    assert_eq!(fixture.ledger.transactions(&Scope::Operator, None, rest).await.expect("read").items.len(), 1);
}

#[tokio::test]
async fn r08_a_transaction_that_ends_takes_nothing_more_and_keeps_nothing() {
    let fixture = Fixture::new("ends").await;
    for end in [TransactionState::Discarded, TransactionState::Committed] {
        let row = begin(&fixture).await;
        fixture.ledger.stage(staged(&fixture, &row, "empty", end.word())).await.expect("staged");
        let last = (end == TransactionState::Committed).then(|| call(&fixture));
        let named = last.as_ref().map(|row| row.call);
        fixture.ledger.end_transaction(row.id, end, last).await.expect("ended");
        let stored = fixture.ledger.transaction(&acme(), row.id).await.expect("read").expect("there");
        assert_eq!((stored.state, stored.call, stored.settled_ms), (end, named, Some(NOW_MS)));
        assert!(!kept(&fixture, end.word()).await, "{end}");
        for refused in [
            fixture.ledger.stage(staged(&fixture, &row, end.word(), "late")).await,
            fixture.ledger.end_transaction(row.id, TransactionState::Discarded, None).await,
        ] {
            assert!(matches!(refused, Err(TransactionRefused::NotOpen(state)) if state == end), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn r08_a_transaction_expires_at_its_time_and_not_before() {
    let fixture = Fixture::new("expires").await;
    let row = begin(&fixture).await;
    fixture.ledger.stage(staged(&fixture, &row, "empty", "one")).await.expect("staged");
    fixture.ledger.expire_due(row.expires_at_ms - 1).await.expect("looked through");
    assert_eq!(state(&fixture, row.id).await, TransactionState::Open);
    fixture.ledger.expire_due(row.expires_at_ms).await.expect("looked through");
    assert_eq!(state(&fixture, row.id).await, TransactionState::Discarded);
    assert!(!kept(&fixture, "one").await);
    let refused = fixture.ledger.stage(staged(&fixture, &row, "one", "two")).await.expect_err("too late");
    assert!(matches!(refused, TransactionRefused::NotOpen(TransactionState::Discarded)), "{refused}");
    let old = TransactionRow { expires_at_ms: NOW_MS, ..super::transactions::row(&fixture, &principal("acme")) };
    fixture.ledger.open_transaction(old.clone(), layer("empty"), MANY).await.expect("open");
    let refused = fixture.ledger.stage(staged(&fixture, &old, "empty", "one")).await.expect_err("nobody swept yet");
    assert!(matches!(refused, TransactionRefused::Moved), "{refused}");
}

#[tokio::test]
async fn r08_a_sealed_transaction_ends_as_its_plan_does() {
    let fixture = Fixture::new("sealed").await;
    for (why, end) in [(None, TransactionState::Committed), (Some(Discard::Stale), TransactionState::Discarded)] {
        let row = begin(&fixture).await;
        let content = format!("content of {end}");
        fixture.ledger.stage(staged(&fixture, &row, "empty", &content)).await.expect("staged");
        let mut proposal = fixture.proposal(content.as_bytes());
        proposal.blobs = BlobSet::default();
        proposal.transaction = Some(row.id);
        fixture.ledger.propose(proposal.clone(), Durability::Durable).await.expect("sealed");
        let stored = fixture.ledger.transaction(&acme(), row.id).await.expect("read").expect("there");
        assert_eq!((stored.state, stored.plan), (TransactionState::Sealed, Some(proposal.plan.id())));
        assert_eq!(stored.call, Some(proposal.call.call));
        let refused = fixture.ledger.stage(staged(&fixture, &row, &content, "late")).await.expect_err("sealed");
        assert!(matches!(refused, TransactionRefused::NotOpen(TransactionState::Sealed)), "{refused}");
        fixture.ledger.expire_due(row.expires_at_ms).await.expect("looked through");
        assert_eq!(state(&fixture, row.id).await, TransactionState::Sealed, "from here on the plan's time counts");
        let mut again = fixture.proposal(b"another plan");
        again.transaction = Some(row.id);
        fixture.ledger.propose(again.clone(), Durability::Durable).await.expect_err("it is sealed once");
        assert!(fixture.ledger.plan(&acme(), again.plan.id()).await.expect("read").is_none());
        assert!(kept(&fixture, &content).await);
        if let Some(why) = why {
            fixture.ledger.discard(&Scope::Operator, proposal.plan.id(), why).await.expect("discarded");
        } else {
            let intent = fixture.ledger.intent(fixture.intent(&proposal.plan)).await.expect("intent");
            assert_eq!(state(&fixture, row.id).await, TransactionState::Sealed);
            let done = outcome(intent, proposal.call.call, toolkeep::ledger::Settled::Committed);
            fixture.ledger.outcome(done, Durability::Durable).await.expect("outcome");
        }
        assert_eq!(state(&fixture, row.id).await, end);
        assert!(!kept(&fixture, &content).await, "{end}");
    }
}

#[tokio::test]
async fn r08_a_staged_call_keeps_its_key_and_a_refused_one_gives_it_back() {
    let fixture = Fixture::new("key").await;
    let row = begin(&fixture).await;
    let mut late = staged(&fixture, &row, "another layer", "one");
    let claim = keyed(&mut late.call, "k");
    assert!(matches!(fixture.ledger.claim_key(claim).await.expect("asked"), Claimed::Fresh));
    fixture.ledger.stage(late).await.expect_err("over another layer");
    let mut good = staged(&fixture, &row, "empty", "one");
    let claim = keyed(&mut good.call, "k");
    assert!(matches!(fixture.ledger.claim_key(claim).await.expect("asked"), Claimed::Fresh));
    fixture.ledger.stage(good.clone()).await.expect("staged");
    let claim = keyed(&mut fixture.call(), "k");
    let claimed = fixture.ledger.claim_key(claim).await.expect("asked");
    assert!(matches!(claimed, Claimed::Stored { call, reply } if call == good.call.call && reply == good.call.reply));
}
