//! Alerts on record: what counts them, what opens them, and how many there can be.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep::alerts::{AlertRule, AlertRules, Severity};
use toolkeep::ledger::{ALERTS_OPEN_MAX, AlertRaised, LedgerHealth, LedgerOptions, OVERFLOW, Page, Scope};
use toolkeep::notify::{Event, Route};
use toolkeep_core::id::{AlertId, DeliveryId, TenantName, UserName};

use super::fixture::{Fixture, notify};

fn acme() -> TenantName {
    "acme".parse().expect("name")
}

pub(super) fn raised(fixture: &Fixture, subject: &str) -> AlertRaised {
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
        if number % 500 == 0 {
            let _written = counts(&fixture).await;
        }
    }
    let newest = counts(&fixture).await;
    assert_eq!(newest[0], (OVERFLOW.to_owned(), 2));
    assert_eq!(newest[1], (format!("s{}", most - 1), 1), "the last that had room");
    let open = fixture.ledger.levels().await.expect("read").alerts;
    assert_eq!(open, (0, most + 1, 0));
    let other = AlertRaised { event: Event::KillChanged, severity: Severity::Critical, ..raised(&fixture, "a switch") };
    fixture.ledger.raise_alert(other).expect("raised");
    assert_eq!(counts(&fixture).await[0], ("a switch".to_owned(), 1), "warnings of one event mute no other");
    assert_eq!(fixture.ledger.outbox_counts().await.expect("read").queued, 1);
}

/// What a channel was told, as soon as it is so many lines.
async fn told(fixture: &Fixture, lines: usize) -> Vec<Value> {
    loop {
        let text = std::fs::read_to_string(fixture.place.path().join("told.jsonl")).unwrap_or_default();
        let told: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if told.len() >= lines {
            return told;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn r43_what_a_full_ledger_cannot_keep_is_told_at_once_and_once() {
    let options = LedgerOptions { max_pages: Some(160), ..LedgerOptions::default() };
    let fixture = Fixture::with("alert-full", options).await;
    let mut large = fixture.call();
    large.recording = Some(Arc::from("x".repeat(1_000_000)));
    fixture.ledger.record_call(large).expect("it waits for room that never comes");
    fixture.ledger.barrier().await.expect_err("full");
    assert_eq!(fixture.ledger.health(), LedgerHealth::DiskFull);

    let (ops, audit): (Vec<_>, _) = (vec!["ops".parse().expect("name")], Event::AuditFailed);
    let threshold = AlertRule { on: vec![Event::RunHeld], enabled: true, threshold: 2, severity: None, channels: None };
    let rules = AlertRules { channels: ops, rules: vec![threshold], ..AlertRules::default() };
    let routes = vec![Route { events: vec![audit], channels: vec!["news".parse().expect("name")] }];
    let notify = notify(&fixture, routes).with_alerts(rules);
    for _ in 0..3 {
        notify.event(Event::RunHeld, &acme(), json!({"run": "run_1"}));
    }
    notify.event(audit, &acme(), json!({"what": "the disk of the ledger is full"}));
    let mut lines: Vec<_> = told(&fixture, 3).await.iter().map(|line| line["data"].clone()).collect();
    lines.sort_by_key(|data| data["alert"]["count"].as_u64());
    let of = |data: &Value| (data["what"].is_string(), data["alert"]["count"].as_u64());
    let expected = [(true, None), (true, Some(1)), (false, Some(2))];
    assert_eq!(lines.iter().map(of).collect::<Vec<_>>(), expected, "a route, the alert, and one at its threshold");
    let _no_room_to_the_end = fixture.ledger.close().await;
}
