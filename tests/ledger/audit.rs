//! The audit chain in the ledger: it survives a restart, and whoever edits the file is found out.

use serde_json::json;
use toolkeep::ledger::{
    Archive, CHECKPOINT_SUBJECT, DeliveryChange, Durability, Enqueue, EntryFilter, IntentRefused, Ledger, LedgerError,
    LedgerOptions, PAGE_BYTES, Page, Proved, Who,
};
use toolkeep_core::audit::{AuditEntry, AuditKind, ChainBroken, ChainHead};
use toolkeep_core::checkpoint::Checkpoint;
use toolkeep_core::delivery::{DeliveryEvent, DeliveryKind, Message};
use toolkeep_core::id::DeliveryId;
use toolkeep_core::merkle;

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
            fixture.ledger.note(AuditKind::Daemon, Who::Daemon, facts)
        );
        assert!(refused.is_err());
        durable.expect("written");
        fixture.reopen().await;
        assert_eq!(fixture.ledger.audit_head().await.expect("head").seq, (round + 1) * 12);
    }
    let verified = fixture.ledger.verify_audit(Vec::new()).await.expect("chain");
    assert_eq!((verified.entries, verified.head), (36, fixture.ledger.audit_head().await.expect("head")));
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

/// A ledger with so many entries that was closed, and its file.
async fn closed(name: &str, entries: u64) -> (Fixture, std::path::PathBuf) {
    let fixture = Fixture::new(name).await;
    for n in 0..entries {
        fixture
            .ledger
            .note(AuditKind::Tool, Who::Daemon, json!({"needle": format!("number {n:04}")}))
            .await
            .expect("on record");
    }
    fixture.ledger.checkpoint().await.expect("made").expect("there are entries");
    fixture.ledger.close().await.expect("closed");
    let file = fixture.place.path().join("ledger.sqlite");
    (fixture, file)
}

/// Wait until the verification in the background has come to an end.
async fn until_halted(ledger: &Ledger) {
    for _ in 0..600 {
        if ledger.is_halted() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it was not found");
}

#[tokio::test]
async fn t_s3_an_edited_entry_is_found_at_the_start_and_nothing_with_effects_is_taken() {
    let (fixture, file) = closed("edited", 50).await;
    let clean = std::fs::read(&file).expect("file");
    std::fs::write(&file, edited(&clean, b"number 0025", b"number 0026")).expect("written");
    let ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("it can be looked at");
    assert!(ledger.is_halted());
    assert_eq!(ledger.audit_broken().as_deref(), Some("audit entry 26 was changed"));
    let other = Fixture { ledger, ..fixture };
    let proposal = other.proposal(b"x");
    let refused = other.ledger.intent(other.intent(&proposal.plan)).await;
    assert!(matches!(refused, Err(IntentRefused::Ledger(LedgerError::Halted(_)))), "{refused:?}");
    assert!(matches!(other.ledger.checkpoint().await, Err(LedgerError::Halted(_))), "nothing is vouched for");
    // Calls without effects are still put on record, and what is there can be read.
    other.ledger.record_call(other.call()).expect("recorded");
    assert_eq!(other.ledger.audit_head().await.expect("head").seq, 51);
    assert!(matches!(other.ledger.verify_audit(Vec::new()).await, Err(LedgerError::Chain(_))));
    other.ledger.close().await.expect("closed");
    std::fs::write(&file, &clean).expect("the copy from before");
    let ledger = Ledger::open(other.place.path(), other.ambient.clone()).await.expect("opens");
    assert!(!ledger.is_halted(), "the unedited file is believed");
}

#[tokio::test]
async fn t_s3_what_was_found_once_is_remembered_until_everything_verifies_again() {
    let (fixture, file) = closed("remembered", 50).await;
    let clean = std::fs::read(&file).expect("file");
    std::fs::write(&file, edited(&clean, b"number 0025", b"number 9925")).expect("written");
    let ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("opens");
    ledger.close().await.expect("closed");
    drop(ledger);
    let noted = std::fs::read(&file).expect("file");
    std::fs::write(&file, edited(&noted, b"number 9925", b"number 0025")).expect("written");
    let ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("opens");
    for _ in 0..600 {
        if !ledger.is_halted() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!ledger.is_halted(), "all of it was verified again");
    ledger.close().await.expect("closed");
    let ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("opens");
    assert!(!ledger.is_halted());
    let entries = ledger.audit_entries(Page::default()).await.expect("read").items;
    assert!(entries.iter().any(|entry| entry.body.contains("audit_whole")), "that it is believed again is on record");
}

#[tokio::test]
async fn t_s3_an_edit_before_the_tail_is_found_in_the_background() {
    let (fixture, file) = closed("early-edit", 1_500).await;
    let clean = std::fs::read(&file).expect("file");
    std::fs::write(&file, edited(&clean, b"number 0100", b"number 0109")).expect("written");
    let ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("the tail is unharmed");
    until_halted(&ledger).await;
    assert_eq!(ledger.audit_broken().as_deref(), Some("audit entry 101 was changed"));
    ledger.barrier().await.expect("written");
    let page = Page { cursor: Some(1_499), limit: 10 };
    let entries = ledger.audit_entries(page).await.expect("read").items;
    assert!(entries.iter().any(|entry| entry.body.contains("audit_broken")), "that it was found is on record");
    ledger.close().await.expect("closed");
    let ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("opens");
    assert!(ledger.is_halted(), "a restart does not make anybody forget");
}

#[tokio::test]
async fn t_s3_entries_cut_off_below_the_last_checkpoint_are_missed_at_the_start() {
    let mut fixture = Fixture::new("cut").await;
    for n in 0..100 {
        fixture.ledger.audit(AuditKind::Tool, &json!({"n": n})).expect("enqueued");
    }
    fixture.ledger.checkpoint().await.expect("made").expect("there are entries");
    let kept = fixture.ledger.checkpoints(Page::default()).await.expect("read").items;
    assert_eq!(kept.first().map(|kept| kept.size), Some(100));
    let brought = fixture.ledger.note_key().open(&kept[0].note).expect("ours");
    assert_eq!(fixture.ledger.verify_audit(vec![brought.clone()]).await.expect("whole").checkpoints, 2);
    fixture.reopen().await;
    assert!(!fixture.ledger.is_halted());
    // A checkpoint that says of fewer entries what others say of more.
    let wrong = toolkeep_core::checkpoint::Checkpoint { size: 99, ..brought };
    assert!(matches!(fixture.ledger.verify_audit(vec![wrong]).await, Err(LedgerError::Chain(_))));
    assert!(fixture.ledger.is_halted(), "a checkpoint that does not fit is a reason not to believe it");
}

#[tokio::test]
async fn r40_checkpoints_are_made_only_when_there_is_something_new_and_proofs_lead_to_them() {
    let fixture = Fixture::new("checkpoints").await;
    assert_eq!(fixture.ledger.checkpoint().await.expect("nothing"), None);
    let mut notes = Vec::new();
    for round in 0..5_u64 {
        for n in 0..=round * 40 {
            fixture.ledger.audit(AuditKind::Tool, &json!({"n": n, "round": round})).expect("enqueued");
        }
        fixture.ledger.barrier().await.expect("written");
        notes.push(fixture.ledger.checkpoint().await.expect("made").expect("new"));
        assert_eq!((fixture.ledger.checkpoint().await.expect("made"), fixture.ledger.unvouched()), (None, 0));
    }
    let key = fixture.ledger.note_key();
    let head = fixture.ledger.audit_head().await.expect("head").seq;
    for seq in [1, 2, 41, 64, 65, 128, head] {
        let Proved::Yes(proof) = fixture.ledger.prove_audit_entry(seq).await.expect("proved") else { panic!("{seq}") };
        let said = key.open(&proof.note).expect("ours");
        assert_eq!((said.size, proof.entry.seq), (head, seq));
        assert!(merkle::includes((said.size, &said.root), seq - 1, &proof.entry.digest, &proof.path), "{seq}");
    }
    assert_eq!(fixture.ledger.prove_audit_entry(head + 1).await.expect("asked"), Proved::NoEntry);
    for note in &notes {
        let old = key.open(note).expect("ours");
        let Proved::Yes(proof) = fixture.ledger.prove_audit_since(old.clone()).await.expect("proved") else { panic!() };
        let said = key.open(&proof.note).expect("ours");
        assert!(merkle::extends((old.size, &old.root), (said.size, &said.root), &proof.path), "{}", old.size);
    }
    // One more entry, and it is covered as soon as somebody wants to know.
    fixture.ledger.note(AuditKind::Tool, Who::Daemon, json!({})).await.expect("on record");
    let Proved::Yes(proof) = fixture.ledger.prove_audit_entry(head + 1).await.expect("proved") else { panic!() };
    assert_eq!(proof.checkpoint.size, head + 1);
}

#[tokio::test]
async fn r40_an_entry_says_who_and_is_on_the_disk_when_the_number_of_it_is_told() {
    let fixture = Fixture::new("who").await;
    let (user, tenant) = ("bob".parse().expect("name"), "acme".parse().expect("name"));
    let who = Who::Operator { user: &user, tenant: &tenant };
    let seq = fixture.ledger.note(AuditKind::BreakGlass, who, json!({"what": "read", "by": "mallory"})).await;
    assert_eq!(seq.expect("on record"), 1);
    let entry = fixture.ledger.audit_entries(Page::default()).await.expect("read").items.remove(0);
    assert_eq!(entry.body, r#"{"by":"bob","tenant":"acme","what":"read"}"#);
    assert_eq!((entry.kind, entry.tenant().as_deref()), (AuditKind::BreakGlass, Some("acme")));
}

#[tokio::test]
async fn r40_entries_that_find_no_room_stop_effects_until_that_is_on_record() {
    let options = LedgerOptions { queue_jobs: 2, ..LedgerOptions::default() };
    let fixture = Fixture::with("lost", options).await;
    let mut lost = 0;
    for n in 0..5_000 {
        lost += u64::from(fixture.ledger.audit(AuditKind::Tool, &json!({"n": n})).is_err());
    }
    assert!(lost > 0 && fixture.ledger.is_halted(), "{lost}");
    assert!(fixture.ledger.why_halted().expect("a reason").contains("could not be written"));
    while fixture.ledger.tell_lost().await.is_err() {}
    assert!(!fixture.ledger.is_halted());
    let head = fixture.ledger.audit_head().await.expect("head").seq;
    let page = Page { cursor: Some(head - 1), limit: 1 };
    let last = fixture.ledger.audit_entries(page).await.expect("read").items.remove(0);
    assert_eq!(last.body, format!(r#"{{"by":"daemon","entries":{lost},"what":"entries_lost"}}"#));
    assert_eq!(head, 5_000 - lost + 1);
    fixture.ledger.verify_audit(Vec::new()).await.expect("the chain is whole");
}

#[tokio::test]
async fn r40_a_copy_is_verified_without_a_daemon_and_is_not_changed() {
    let (fixture, file) = closed("copy", 200).await;
    let before = std::fs::read(&file).expect("file");
    let archive = Archive::open(fixture.place.path()).expect("a copy");
    let key = archive.own_key().expect("it tells its key");
    let verified = archive.verify(&key, Vec::new(), |_| {}).expect("whole");
    assert_eq!((verified.entries, verified.checkpoints), (200, 1));
    let kept = archive.checkpoints(Page::default()).expect("read").items.remove(0);
    let old = key.open(&kept.note).expect("ours");
    assert_eq!(archive.verify_after(&key, old.clone()).expect("whole").entries, 0);
    assert!(matches!(archive.prove_entry(&key, 77).expect("asked"), Proved::Yes(_)));
    drop(archive);
    assert_eq!(std::fs::read(&file).expect("file"), before);
    std::fs::write(&file, edited(&before, b"number 0025", b"number 0026")).expect("written");
    let archive = Archive::open(fixture.place.path()).expect("a copy");
    let found = archive.verify(&key, Vec::new(), |_| {});
    assert!(matches!(found, Err(LedgerError::Chain(ChainBroken::Content(26)))), "{found:?}");
    // The rest of it is what a checkpoint was made of, so that what came after it verifies.
    assert_eq!(archive.verify_after(&key, old).expect("believed up to there").entries, 0);
}

#[tokio::test]
async fn t_s3_a_page_that_holds_nothing_any_more_is_found_in_the_background() {
    let (fixture, file) = closed("page", 1_500).await;
    let mut bytes = std::fs::read(&file).expect("file");
    let page = PAGE_BYTES as usize;
    let wanted = b"number 0100";
    let places: Vec<usize> =
        bytes.windows(wanted.len()).enumerate().filter(|(_, at)| at == wanted).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[at / page * page..][..page].fill(0xff));
    std::fs::write(&file, &bytes).expect("written");
    let ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("the tail is unharmed");
    until_halted(&ledger).await;
    assert!(ledger.audit_broken().expect("a reason").contains("malformed"), "{:?}", ledger.audit_broken());
    assert!(matches!(ledger.verify_audit(Vec::new()).await, Err(LedgerError::Damaged(_))));
}

/// A ledger whose directory was put back to what it was before its last entries, and a checkpoint of these.
async fn put_back(name: &str) -> (Fixture, Ledger, Checkpoint) {
    let (fixture, file) = closed(name, 50).await;
    let before = std::fs::read(&file).expect("file");
    let ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("opens");
    for n in 0..50 {
        ledger.note(AuditKind::Tool, Who::Daemon, json!({"n": n})).await.expect("on record");
    }
    let note = ledger.checkpoint().await.expect("made").expect("new");
    let kept = ledger.note_key().open(&note).expect("ours");
    ledger.close().await.expect("closed");
    std::fs::write(&file, &before).expect("put back");
    let ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("opens");
    assert!(!ledger.is_halted(), "it agrees with itself");
    (fixture, ledger, kept)
}

/// How often it is on record that the audit does not verify, and that it does again.
async fn findings(ledger: &Ledger) -> (usize, usize) {
    let entries = ledger.audit_entries(Page { cursor: None, limit: 500 }).await.expect("read").items;
    let count = |what: &str| entries.iter().filter(|entry| entry.body.contains(what)).count();
    (count("audit_broken"), count("audit_whole"))
}

#[tokio::test]
async fn t_s3_what_a_kept_checkpoint_has_shown_is_not_forgotten_at_a_restart() {
    let (fixture, mut ledger, kept) = put_back("shown").await;
    let found = ledger.verify_audit(vec![kept]).await;
    assert!(matches!(found, Err(LedgerError::Chain(ChainBroken::Short { size: 100, .. }))), "{found:?}");
    for restart in 1..4 {
        assert_eq!(findings(&ledger).await, (restart, 0));
        ledger.close().await.expect("closed");
        ledger = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await.expect("opens");
        assert!(ledger.is_halted());
        // All of it is verified in the background, and agrees with itself.
        for _ in 0..600 {
            if findings(&ledger).await != (restart, 0) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(findings(&ledger).await, (restart + 1, 0), "it was found again");
        assert!(ledger.is_halted());
    }
}

#[tokio::test]
async fn t_s3_a_kept_checkpoint_that_cannot_be_continued_stops_effects() {
    let (_fixture, ledger, kept) = put_back("continued").await;
    let found = ledger.prove_audit_since(kept).await;
    assert!(matches!(found, Err(LedgerError::Chain(ChainBroken::Short { size: 100, .. }))), "{found:?}");
    assert!(ledger.is_halted());
    assert_eq!(findings(&ledger).await, (1, 0), "it is on record when it is told");
}

#[tokio::test]
async fn t_s3_only_the_daemons_own_delivery_of_a_checkpoint_is_kept_off_the_record() {
    let fixture = Fixture::new("deliveries").await;
    for (kind, on_record) in [(DeliveryKind::Message, 1), (DeliveryKind::Alert, 1)] {
        let id = DeliveryId::new(fixture.ambient.uuid_v7());
        let message = Message {
            to: Vec::new(),
            subject: CHECKPOINT_SUBJECT.to_owned(),
            media_type: "text/plain".to_owned(),
            body: std::sync::Arc::from(b"{}".as_slice()),
        };
        let (tenant, channel) = ("acme".parse().expect("name"), "ops".parse().expect("name"));
        let what = Enqueue { id, tenant, kind, channel, call: None, message };
        fixture.ledger.enqueue_delivery(what).expect("enqueued");
        assert_eq!(fixture.ledger.claim_deliveries(vec![id]).await.expect("claimed").len(), 1);
        let change = DeliveryChange { id, event: DeliveryEvent::Accept, most: 8, note: "".into() };
        fixture.ledger.change_delivery(change).await.expect("delivered");
        let filter = EntryFilter { kind: Some(AuditKind::Delivery), ..EntryFilter::default() };
        let entries = fixture.ledger.audit_history(filter, Page::default()).await.expect("read").items;
        assert_eq!(entries.len(), on_record, "{kind:?}");
    }
}
