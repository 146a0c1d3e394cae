//! The audit chain in the ledger: it survives a restart, and whoever edits the file is found out.

use serde_json::json;
use toolkeep::ledger::{Durability, Ledger, LedgerError, Page};
use toolkeep_core::audit::{AuditEntry, AuditKind, ChainHead};

use super::fixture::Fixture;

#[tokio::test]
async fn r40_the_chain_goes_on_over_restarts_and_refused_jobs() {
    let mut fixture = Fixture::new("chain").await;
    for round in 0..3_u64 {
        for n in 0..10 {
            fixture.ledger.audit(AuditKind::Tool, &json!({"n": n, "round": round})).expect("enqueued");
        }
        let twice = fixture.proposal(b"x");
        fixture.ledger.propose(twice.clone(), Durability::Lazy).await.expect("kept");
        // In one batch with others: what it wrote is taken back, entries included.
        let facts = json!({"round": round});
        let (refused, durable) = tokio::join!(
            fixture.ledger.propose(twice, Durability::Durable),
            fixture.ledger.audit_durably(AuditKind::Daemon, &facts)
        );
        assert!(refused.is_err());
        durable.expect("written");
        fixture.reopen().await;
        assert_eq!(fixture.ledger.audit_head().await.expect("head").seq, (round + 1) * 12);
    }
    assert_eq!(fixture.ledger.verify_audit(1, u64::MAX).await.expect("chain"), 36);
    assert_eq!(fixture.ledger.verify_audit(30, 33).await.expect("chain"), 4);
    let mut head = ChainHead::default();
    let mut page = Page { cursor: None, limit: 7 };
    loop {
        let entries = fixture.ledger.audit_entries(page).await.expect("read");
        entries.items.iter().for_each(|entry: &AuditEntry| head.follow(entry).expect("follows"));
        match entries.next {
            Some(next) => page.cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(head, fixture.ledger.audit_head().await.expect("head"));
}

/// A file with every copy of a text replaced: pages keep stale copies of rows that moved.
fn edited(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[*at..at + to.len()].copy_from_slice(to));
    bytes
}

#[tokio::test]
async fn t_s3_an_edited_entry_is_found_at_the_start() {
    let fixture = Fixture::new("edited").await;
    for n in 0..50 {
        fixture.ledger.audit(AuditKind::Tool, &json!({"needle": format!("number {n:03}")})).expect("enqueued");
    }
    fixture.ledger.close().await.expect("closed");
    let file = fixture.place.path().join("ledger.sqlite");
    let clean = std::fs::read(&file).expect("file");
    std::fs::write(&file, edited(&clean, b"number 025", b"number 026")).expect("written");
    let opened = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await;
    assert!(matches!(opened, Err(LedgerError::Chain(_))), "{opened:?}");
    std::fs::write(&file, &clean).expect("written");
    Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("the unedited file opens");
}

#[tokio::test]
async fn t_s3_an_edit_before_the_tail_is_found_by_verification() {
    let fixture = Fixture::new("early-edit").await;
    for n in 0..1_500 {
        fixture.ledger.audit(AuditKind::Tool, &json!({"needle": format!("number {n:04}")})).expect("enqueued");
    }
    fixture.ledger.close().await.expect("closed");
    let file = fixture.place.path().join("ledger.sqlite");
    let clean = std::fs::read(&file).expect("file");
    std::fs::write(&file, edited(&clean, b"number 0100", b"number 0109")).expect("written");
    let ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("the tail is unharmed");
    assert!(matches!(ledger.verify_audit(1, u64::MAX).await, Err(LedgerError::Chain(_))));
    assert_eq!(ledger.verify_audit(102, u64::MAX).await.expect("chain"), 1_399);
}
