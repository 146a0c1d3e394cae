//! What a commit leaves beside files: keys and deliveries, there exactly if the commit is.

use std::sync::Arc;

use toolkeep::ledger::{
    ChangedKey, Durability, Intent, IntentRefused, KeyChange, KeyProblem, KeysChanged, Page, Scope, Settled,
};
use toolkeep_core::delivery::{DeliveryState, delivery_id};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Effect};
use toolkeep_core::id::{BucketName, PlanId, TenantName};
use toolkeep_core::plan::{KeyRead, key_listing_digest};

use super::fixture::{Fixture, NOW_MS, enqueue, outcome};

fn bucket() -> BucketName {
    "counts".parse().expect("name")
}

fn acme() -> TenantName {
    "acme".parse().expect("name")
}

fn set(key: &str, value: &[u8]) -> KeyChange {
    KeyChange::Set { bucket: bucket(), key: key.into(), value: value.into() }
}

fn add(key: &str, delta: i64) -> KeyChange {
    KeyChange::Add { bucket: bucket(), key: key.into(), delta }
}

/// A plan of a call with these effects and reads, and the intent to commit it at once.
fn intent(fixture: &Fixture, effects: Vec<Effect>, keys_read: Vec<KeyRead>) -> Intent {
    fixture.intent_of(|body| (body.effects, body.keys_read) = (effects, keys_read))
}

/// Commit these changes of keys.
async fn commit(fixture: &Fixture, keys: Vec<KeyChange>) {
    let intent = intent(fixture, Vec::new(), Vec::new());
    let call = intent.proposal.as_ref().expect("fresh").call.call;
    let id = fixture.ledger.intent(intent).await.expect("intent");
    let mut row = outcome(id, call, Settled::Committed);
    row.keys = keys;
    fixture.ledger.outcome(row, Durability::Durable).await.expect("outcome");
}

async fn value(fixture: &Fixture, key: &str) -> Option<String> {
    let value = fixture.ledger.key(&acme(), &bucket(), key).await.expect("read");
    value.map(|value| String::from_utf8(value).expect("text"))
}

#[tokio::test]
async fn keys_change_and_messages_are_enqueued_exactly_if_the_plan_is_committed() {
    let mut fixture = Fixture::new("outside").await;
    for (settled, there) in
        [(Settled::RolledBack, false), (Settled::Halted(vec!["x".to_owned()]), false), (Settled::Committed, true)]
    {
        let intent = intent(&fixture, Vec::new(), Vec::new());
        let (plan, call) = (intent.plan, intent.proposal.as_ref().expect("fresh").call.call);
        let id = fixture.ledger.intent(intent).await.expect("intent");
        let mut row = outcome(id, call, settled);
        row.keys = vec![set("a", b"1"), set("b", b"x"), add("a", 41), add("new", -3)];
        row.deliveries = vec![enqueue(plan, call, "body")];
        fixture.ledger.outcome(row.clone(), Durability::Durable).await.expect("outcome");
        assert!(fixture.ledger.outcome(row, Durability::Durable).await.is_err(), "an intent has one outcome");
        fixture.reopen().await;
        let delivery = fixture.ledger.delivery(&Scope::Operator, delivery_id(plan, 0)).await.expect("read");
        assert_eq!(delivery.as_ref().map(|delivery| delivery.progress.state), there.then_some(DeliveryState::Queued));
        assert_eq!(delivery.and_then(|delivery| delivery.what.call), there.then_some(call));
        let wanted = |text: &str| there.then(|| text.to_owned());
        for (key, text) in [("a", "42"), ("b", "x"), ("new", "-3")] {
            assert_eq!(value(&fixture, key).await, wanted(text), "{key}");
        }
    }
    assert_eq!(fixture.ledger.outbox_counts().await.expect("counts").queued, 1);
    assert_eq!(
        fixture.ledger.dead_letters(&Scope::Operator, true, Page::default()).await.expect("read").items.len(),
        0
    );
}

#[tokio::test]
async fn keys_are_listed_in_the_order_of_their_bytes_and_belong_to_one_tenant_and_bucket() {
    let fixture = Fixture::new("listing").await;
    let keys = ["b", "a/2", "a/10", "é", "B"];
    commit(&fixture, keys.iter().map(|key| set(key, b"")).collect()).await;
    let all = fixture.ledger.keys_after(&acme(), &bucket(), None, 10).await.expect("read");
    assert_eq!(all, ["B", "a/10", "a/2", "b", "é"]);
    let some = fixture.ledger.keys_after(&acme(), &bucket(), Some("a/10"), 2).await.expect("read");
    assert_eq!(some, ["a/2", "b"]);
    commit(&fixture, vec![KeyChange::Delete { bucket: bucket(), key: "b".into() }]).await;
    assert_eq!(value(&fixture, "b").await, None);
    let (other, elsewhere) = ("other".parse().expect("name"), "elsewhere".parse().expect("name"));
    assert!(fixture.ledger.keys_after(&other, &bucket(), None, 10).await.expect("read").is_empty());
    assert!(fixture.ledger.keys_after(&acme(), &elsewhere, None, 10).await.expect("read").is_empty());
    assert_eq!(fixture.ledger.key(&other, &bucket(), "B").await.expect("read"), None);
}

/// What is wrong with a plan of these effects and reads, by both ways of asking.
async fn problems(fixture: &Fixture, effects: Vec<Effect>, reads: Vec<KeyRead>) -> Vec<(String, KeyProblem)> {
    let intent = intent(fixture, effects, reads);
    let body = Arc::new(intent.proposal.as_ref().expect("fresh").plan.body().clone());
    let asked = fixture.ledger.keys_unchanged(body).await.expect("read");
    let made = fixture.ledger.intent(intent).await;
    let shown = |changed: KeysChanged| changed.0.into_iter().map(|ChangedKey { key, how, .. }| (key, how)).collect();
    match (asked, made) {
        (Ok(()), Ok(_)) => Vec::new(),
        (Err(asked), Err(IntentRefused::KeysChanged(made))) => {
            assert_eq!(asked, made);
            shown(made)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_plan_whose_keys_changed_is_refused_and_told_which() {
    let fixture = Fixture::new("stale").await;
    commit(&fixture, vec![set("word", b"one"), set("n", b"7"), set("star", b"s")]).await;
    let read = |key: &str, value: Option<&[u8]>| KeyRead {
        bucket: bucket(),
        key: key.to_owned(),
        sha256: value.map(Digest::of),
    };
    let set = |key: &str, before: Option<&[u8]>| Effect::KvSet {
        bucket: bucket(),
        key: key.to_owned(),
        before: before.map(BodyState::of),
        after: BodyState::of(b"after"),
    };
    let delete = |key: &str, before: &[u8]| Effect::KvDelete {
        bucket: bucket(),
        key: key.to_owned(),
        before: BodyState::of(before),
    };
    let listing = |names: &[&str]| KeyRead {
        bucket: bucket(),
        key: "*".to_owned(),
        sha256: key_listing_digest(names.iter().copied()),
    };
    let changed = |key: &str, how| vec![(key.to_owned(), how)];
    for (effects, reads, wanted) in [
        (
            vec![set("word", Some(b"one")), set("fresh", None)],
            vec![read("word", Some(b"one")), read("none", None)],
            vec![],
        ),
        (vec![delete("word", b"one")], vec![listing(&["n", "star", "word"]), read("star", Some(b"s"))], vec![]),
        (vec![], vec![read("word", Some(b"two"))], changed("word", KeyProblem::Value)),
        (vec![], vec![read("word", None)], changed("word", KeyProblem::Value)),
        (vec![], vec![read("none", Some(b""))], changed("none", KeyProblem::Value)),
        (vec![], vec![listing(&["n", "word"])], changed("*", KeyProblem::Listing)),
        (vec![], vec![listing(&[])], changed("*", KeyProblem::Listing)),
        (vec![], vec![read("star", Some(b"t"))], changed("star", KeyProblem::Value)),
        (vec![set("word", Some(b"two"))], vec![], changed("word", KeyProblem::Value)),
        (vec![set("word", None)], vec![], changed("word", KeyProblem::Value)),
        (vec![set("none", Some(b"x"))], vec![], changed("none", KeyProblem::Value)),
        (vec![delete("none", b"x")], vec![], changed("none", KeyProblem::Value)),
    ] {
        assert_eq!(problems(&fixture, effects.clone(), reads.clone()).await, wanted, "{effects:?} {reads:?}");
    }
}

#[tokio::test]
async fn additions_want_a_number_and_room_for_the_sum_and_nothing_else() {
    let fixture = Fixture::new("adding").await;
    let most = i64::MAX.to_string();
    let texts =
        [("n", "7"), ("word", "seven"), ("zero", "007"), ("plus", "+7"), ("empty", ""), ("most", most.as_str())];
    commit(&fixture, texts.iter().map(|(key, text)| set(key, text.as_bytes())).collect()).await;
    let add = |key: &str, delta| Effect::KvAdd { bucket: bucket(), key: key.to_owned(), delta };
    for (effects, wanted) in [
        (vec![add("n", 1), add("none", -1), add("most", 0), add("n", i64::MAX - 8)], None),
        (vec![add("word", 1)], Some(("word", KeyProblem::NotANumber))),
        (vec![add("zero", 1)], Some(("zero", KeyProblem::NotANumber))),
        (vec![add("plus", 1)], Some(("plus", KeyProblem::NotANumber))),
        (vec![add("empty", 1)], Some(("empty", KeyProblem::NotANumber))),
        (vec![add("most", 1)], Some(("most", KeyProblem::Overflow))),
        (vec![add("n", i64::MAX - 7), add("n", 1)], Some(("n", KeyProblem::Overflow))),
    ] {
        let wanted: Vec<_> = wanted.map(|(key, how)| (key.to_owned(), how)).into_iter().collect();
        assert_eq!(problems(&fixture, effects.clone(), Vec::new()).await, wanted, "{effects:?}");
    }
}

#[tokio::test]
async fn additions_of_different_plans_commute_and_need_no_read() {
    let fixture = Fixture::new("commuting").await;
    let add = |delta| vec![Effect::KvAdd { bucket: bucket(), key: "n".to_owned(), delta }];
    let mut open = Vec::new();
    for delta in [5, -2] {
        let intent = intent(&fixture, add(delta), Vec::new());
        let call = intent.proposal.as_ref().expect("fresh").call.call;
        open.push((fixture.ledger.intent(intent).await.expect("intent"), call, delta));
    }
    // The one that began last ends first.
    for (id, call, delta) in open.into_iter().rev() {
        let mut row = outcome(id, call, Settled::Committed);
        row.keys = vec![KeyChange::Add { bucket: bucket(), key: "n".into(), delta }];
        fixture.ledger.outcome(row, Durability::Lazy).await.expect("outcome");
    }
    assert_eq!(value(&fixture, "n").await.as_deref(), Some("3"));
}

#[tokio::test]
async fn a_tenant_with_much_to_send_does_not_hide_what_others_have() {
    let fixture = Fixture::new("fair").await;
    let message = |tenant: &str, n: u64| {
        let mut what = enqueue(PlanId::new(fixture.ambient.uuid_v7()), fixture.call().call, "body");
        what.call = None;
        what.tenant = tenant.parse().expect("name");
        what.channel = if n.is_multiple_of(2) { "ops" } else { "mail" }.parse().expect("name");
        what
    };
    for n in 0..200 {
        fixture.ledger.enqueue_delivery(message("big", n)).expect("enqueued");
    }
    fixture.ledger.enqueue_delivery(message("small", 0)).expect("enqueued");
    let due = fixture.ledger.due_deliveries(NOW_MS, 3).await.expect("due");
    let of = |tenant: &str, channel: &str| {
        due.iter().filter(|due| due.tenant.as_str() == tenant && due.channel.as_str() == channel).count()
    };
    assert_eq!((of("big", "ops"), of("big", "mail"), of("small", "ops"), due.len()), (3, 3, 1, 7));
    assert!(fixture.ledger.due_deliveries(NOW_MS - 1, 3).await.expect("due").is_empty(), "not before their time");
    assert_eq!(fixture.ledger.next_delivery_ms().await.expect("read"), Some(NOW_MS));
}
