//! Alerts on record: what counts them, what opens them, and how many there can be.

use std::sync::Arc;

use toolkeep::alerts::Severity;
use toolkeep::ledger::{ALERTS_OPEN_MAX, AlertRaised, OVERFLOW, Page, Scope};
use toolkeep::notify::Event;
use toolkeep_core::id::{AlertId, DeliveryId, TenantName, UserName};

use super::fixture::Fixture;

fn acme() -> TenantName {
    "acme".parse().expect("name")
}

fn raised(fixture: &Fixture, subject: &str) -> AlertRaised {
    AlertRaised {
        id: AlertId::new(fixture.ambient.uuid_v7()),
        tenant: acme(),
        event: Event::BoundaryBreach,
        subject: Arc::from(subject),
        severity: Severity::Warning,
        threshold: 1,
        window_ms: 60_000,
        detail: Arc::from(r#"{"tried":1}"#),
        deliveries: vec![(DeliveryId::new(fixture.ambient.uuid_v7()), "ops".parse().expect("name"))],
    }
}

async fn counts(fixture: &Fixture) -> Vec<(String, u64)> {
    let all = fixture.ledger.alerts(&acme(), true, Page::default()).await.expect("read").items;
    all.iter().map(|alert| (alert.subject.to_string(), alert.count)).collect()
}

fn somebody() -> UserName {
    "bob".parse().expect("name")
}

#[tokio::test]
async fn r43_a_fact_is_counted_within_its_window_and_is_a_new_one_after_it() {
    let mut fixture = Fixture::new("alert-window").await;
    let window = std::time::Duration::from_millis(60_000);
    fixture.ledger.raise_alert(raised(&fixture, "a")).expect("raised");
    assert_eq!(counts(&fixture).await, [("a".to_owned(), 1)]);
    fixture.ambient.advance(window);
    fixture.ledger.raise_alert(raised(&fixture, "a")).expect("raised");
    assert_eq!(counts(&fixture).await, [("a".to_owned(), 2)], "the window ends after its last millisecond");
    fixture.ambient.advance(window + std::time::Duration::from_millis(1));
    fixture.ledger.raise_alert(raised(&fixture, "a")).expect("raised");
    fixture.ledger.raise_alert(raised(&fixture, "b")).expect("raised");
    let all = [("b".to_owned(), 1), ("a".to_owned(), 1), ("a".to_owned(), 2)];
    assert_eq!(counts(&fixture).await, all);
    fixture.reopen().await;
    assert_eq!(counts(&fixture).await, all);
    let told = fixture.ledger.outbox_counts().await.expect("read").queued;
    assert_eq!(told, 3, "each is told once, with its row");
}

#[tokio::test]
async fn r43_an_alert_is_open_at_its_threshold_and_not_before() {
    let fixture = Fixture::new("alert-threshold").await;
    let open = async || {
        let open = fixture.ledger.alerts(&acme(), false, Page::default()).await.expect("read").items.len();
        (open, fixture.ledger.outbox_counts().await.expect("read").queued)
    };
    for (count, expected) in [(1, (0, 0)), (2, (0, 0)), (3, (1, 1)), (4, (1, 1))] {
        let alert = AlertRaised { threshold: 3, ..raised(&fixture, "a") };
        fixture.ledger.raise_alert(alert).expect("raised");
        assert_eq!(open().await, expected, "{count}");
    }
}

#[tokio::test]
async fn r43_only_the_own_tenants_alerts_are_seen_and_each_once() {
    let fixture = Fixture::new("alert-scope").await;
    let alert = raised(&fixture, "a");
    fixture.ledger.raise_alert(alert.clone()).expect("raised");
    let (own, foreign) = (Scope::Tenant(acme()), Scope::Tenant("other".parse().expect("name")));
    assert!(fixture.ledger.alert(&foreign, alert.id).await.expect("read").is_none());
    assert!(!fixture.ledger.ack_alert(&foreign, alert.id, &somebody(), "").await.expect("asked"));
    assert!(fixture.ledger.ack_alert(&own, alert.id, &somebody(), "seen").await.expect("asked"));
    assert!(!fixture.ledger.ack_alert(&own, alert.id, &somebody(), "again").await.expect("asked"));
    let stored = fixture.ledger.alert(&own, alert.id).await.expect("read").expect("there");
    assert_eq!((stored.note.as_deref(), stored.acked_by), (Some("seen"), Some(somebody())));
    fixture.ledger.forget_alerts(stored.last_ms).await.expect("forgotten");
    assert_eq!(counts(&fixture).await.len(), 1, "what happened at that moment is kept");
    fixture.ledger.forget_alerts(stored.last_ms + 1).await.expect("forgotten");
    assert!(counts(&fixture).await.is_empty());
}

#[tokio::test]
async fn r43_n_alerts_are_listed_and_what_comes_then_is_counted_together() {
    let fixture = Fixture::new("alert-many").await;
    let most = u64::try_from(ALERTS_OPEN_MAX).expect("a number");
    for number in 0..most + 2 {
        let alert = AlertRaised { deliveries: Vec::new(), ..raised(&fixture, &format!("s{number}")) };
        fixture.ledger.raise_alert(alert).expect("raised");
        if number % 1_000 == 0 {
            fixture.ledger.levels().await.expect("read");
            let _written = counts(&fixture).await;
        }
    }
    let newest = counts(&fixture).await;
    assert_eq!(newest[0], (OVERFLOW.to_owned(), 2));
    assert_eq!(newest[1], (format!("s{}", most - 1), 1), "the last that had room");
    let open = fixture.ledger.levels().await.expect("read").alerts;
    assert_eq!(open, (0, most + 1, 0));
}
