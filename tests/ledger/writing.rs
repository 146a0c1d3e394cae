//! The writer: batches, bounds, clean and unclean stops, and what happens when the disk fails.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use toolkeep::ambient::Ambient;
use toolkeep::ledger::{Durability, Ledger, LedgerError, LedgerHealth, LedgerOptions, Page, RunRow};
use toolkeep_core::id::RunId;

use super::alerts::raised;
use super::fixture::{Fixture, NOW_MS, Place, acme, principal, stranger};

#[tokio::test]
async fn r39_a_recorded_call_reads_back_as_it_was_with_its_recording() {
    let fixture = Fixture::new("record").await;
    let mut row = fixture.call();
    row.step = Some("step 1".into());
    fixture.ledger.record_call(row.clone()).expect("recorded");
    let stored = fixture.ledger.call(&acme(), row.call).await.expect("read").expect("there");
    assert_eq!(
        format!("{:?}", stored.row),
        format!("{:?}", toolkeep::ledger::CallRow { recording: None, ..row.clone() })
    );
    assert_eq!(stored.plan, None);
    let recording = fixture.ledger.recording(&acme(), row.call).await.expect("read");
    assert_eq!(recording, row.recording);
}

#[tokio::test]
async fn r16_rows_of_another_tenant_look_missing() {
    let fixture = Fixture::new("tenants").await;
    let row = fixture.call();
    fixture.ledger.record_call(row.clone()).expect("recorded");
    let proposal = fixture.held(b"x", 1);
    let (plan, approval) = (proposal.plan.id(), proposal.approval.as_ref().expect("approval").id);
    fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("kept");
    let ledger = &fixture.ledger;
    assert!(ledger.call(&stranger(), row.call).await.expect("read").is_none());
    assert!(ledger.recording(&stranger(), row.call).await.expect("read").is_none());
    assert!(ledger.plan(&stranger(), plan).await.expect("read").is_none());
    assert!(ledger.plan_by_digest(&stranger(), proposal.plan.digest(), NOW_MS).await.expect("read").is_none());
    assert!(ledger.approval(&stranger(), approval).await.expect("read").is_none());
    assert!(ledger.undo_of(&stranger(), row.call).await.expect("read").is_none());
    assert!(ledger.plans(&stranger(), None, Page::default()).await.expect("read").items.is_empty());
    assert!(ledger.approvals(&stranger(), Default::default(), Page::default()).await.expect("read").items.is_empty());
    assert!(ledger.plan(&acme(), plan).await.expect("read").is_some());
}

#[tokio::test]
async fn calls_of_every_batch_size_are_all_there_in_order() {
    let fixture = Fixture::new("sizes").await;
    let run = RunId::new(fixture.ambient.uuid_v7());
    fixture.ledger.open_run(RunRow::new(run, principal("acme"), "sizes", NOW_MS)).expect("opened");
    let mut expected = Vec::new();
    for size in [1, 7, 8, 9, 31, 32, 33, 41, 73] {
        for _ in 0..size {
            let mut row = fixture.call();
            row.run = Some(run);
            row.recording = (expected.len() % 3 != 0).then(|| Arc::from(format!(r#"{{"n":{}}}"#, expected.len())));
            expected.push((row.call, row.recording.clone()));
            fixture.ledger.record_call(row).expect("recorded");
        }
        fixture.ledger.barrier().await.expect("written");
    }
    let mut found = Vec::new();
    let mut page = Page { cursor: None, limit: 50 };
    loop {
        let calls = fixture.ledger.calls_of_run(&acme(), run, page).await.expect("read");
        assert!(calls.items.len() <= 50);
        found.extend(calls.items.iter().map(|call| call.row.call));
        match calls.next {
            Some(next) => page.cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(found, expected.iter().map(|(call, _)| *call).collect::<Vec<_>>());
    for (call, recording) in &expected {
        assert_eq!(fixture.ledger.recording(&acme(), *call).await.expect("read"), *recording);
    }
    let (row, totals) = fixture.ledger.run(&acme(), run).await.expect("read").expect("there");
    assert_eq!((totals.calls, totals.fuel), (expected.len() as u64, 7 * expected.len() as u64));
    assert_eq!(row.closed_ms, None);
    assert!(fixture.ledger.close_run(&principal("acme"), run, None, NOW_MS).await.expect("closed"));
    assert!(!fixture.ledger.close_run(&principal("acme"), run, None, NOW_MS).await.expect("closed once"));
    assert_eq!(fixture.ledger.runs(&acme(), Page::default()).await.expect("read").items.len(), 1);
    assert!(fixture.ledger.runs(&stranger(), Page::default()).await.expect("read").items.is_empty());
    // The run was opened and closed.
    let entries = expected.len() as u64 + 2;
    assert_eq!(fixture.ledger.verify_audit(Vec::new()).await.expect("chain").entries, entries);
}

#[tokio::test]
async fn a_call_that_is_recorded_twice_leaves_the_others_of_its_batch_alone() {
    let fixture = Fixture::new("twice").await;
    let rows: Vec<_> = (0..12).map(|_| fixture.call()).collect();
    fixture.ledger.record_call(rows[5].clone()).expect("recorded");
    fixture.ledger.barrier().await.expect("written");
    for row in &rows {
        fixture.ledger.record_call(row.clone()).expect("enqueued");
    }
    fixture.ledger.barrier().await.expect("written");
    for row in &rows {
        assert!(fixture.ledger.call(&acme(), row.call).await.expect("read").is_some());
        assert!(fixture.ledger.recording(&acme(), row.call).await.expect("read").is_some());
    }
    assert_eq!(fixture.ledger.verify_audit(Vec::new()).await.expect("chain").entries, rows.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn durable_writes_of_many_callers_are_all_answered() {
    let fixture = Arc::new(Fixture::new("many").await);
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..64_u8 {
        let fixture = Arc::clone(&fixture);
        tasks.spawn(async move {
            let proposal = fixture.proposal(&[at]);
            let plan = proposal.plan.id();
            fixture.ledger.propose(proposal, Durability::Durable).await.expect("kept");
            assert!(fixture.ledger.plan(&acme(), plan).await.expect("read").is_some());
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("task");
    }
    assert_eq!(fixture.ledger.verify_audit(Vec::new()).await.expect("chain").entries, 64);
}

#[tokio::test]
async fn a_refused_write_takes_back_its_own_rows_and_nobody_elses() {
    let fixture = Fixture::new("refused").await;
    let twice = fixture.proposal(b"x");
    fixture.ledger.propose(twice.clone(), Durability::Durable).await.expect("kept");
    for _ in 0..20 {
        // The plan exists, its call does not: the refusal comes after a row was written.
        let mut again = fixture.proposal(b"x");
        again.plan = Arc::clone(&twice.plan);
        let (before, after) = (fixture.proposal(b"before"), fixture.proposal(b"after"));
        let recorded = fixture.call();
        fixture.ledger.record_call(recorded.clone()).expect("enqueued");
        let (first, refused, last) = tokio::join!(
            fixture.ledger.propose(before.clone(), Durability::Durable),
            fixture.ledger.propose(again.clone(), Durability::Durable),
            fixture.ledger.propose(after.clone(), Durability::Durable),
        );
        assert!(matches!(refused, Err(LedgerError::Refused(_))), "{refused:?}");
        first.and(last).expect("kept");
        assert!(fixture.ledger.call(&acme(), again.call.call).await.expect("read").is_none());
        for there in [before.call.call, after.call.call, recorded.call] {
            assert!(fixture.ledger.call(&acme(), there).await.expect("read").is_some());
        }
    }
    assert_eq!(fixture.ledger.verify_audit(Vec::new()).await.expect("chain").entries, 61);
}

#[tokio::test]
async fn a_clean_stop_leaves_everything_and_an_unclean_one_is_noticed() {
    let mut fixture = Fixture::new("stop").await;
    assert!(!fixture.ledger.was_unclean());
    let row = fixture.call();
    fixture.ledger.record_call(row.clone()).expect("recorded");
    fixture.reopen().await;
    assert!(!fixture.ledger.was_unclean());
    assert!(fixture.ledger.call(&acme(), row.call).await.expect("read").is_some());
    let host = fixture.ledger.host_id().to_owned();
    let key = fixture.ledger.signing_key();

    // Without `close`, as a crash would: the last handle goes, the writer ends by itself.
    let Fixture { place, ambient, ledger } = fixture;
    ledger.barrier().await.expect("written");
    drop(ledger);
    let ledger = loop {
        match Ledger::open(place.path(), ambient.clone()).await {
            Ok(ledger) => break ledger,
            Err(LedgerError::Locked(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(ledger.was_unclean());
    assert!(ledger.call(&acme(), row.call).await.expect("read").is_some());
    assert_eq!((ledger.host_id(), ledger.signing_key().to_bytes()), (host.as_str(), key.to_bytes()));
}

#[tokio::test]
async fn writes_after_a_close_are_refused_and_a_second_close_too() {
    let fixture = Fixture::new("closed").await;
    fixture.ledger.close().await.expect("closed");
    assert!(matches!(fixture.ledger.record_call(fixture.call()), Err(LedgerError::Closed)));
    let proposed = fixture.ledger.propose(fixture.proposal(b"x"), Durability::Durable).await;
    assert!(matches!(proposed, Err(LedgerError::Closed)));
    assert!(fixture.ledger.close().await.is_err());
}

#[tokio::test]
async fn a_second_daemon_is_refused() {
    let fixture = Fixture::new("second").await;
    let second = Ledger::open(fixture.place.path(), Ambient::real()).await;
    assert!(matches!(second, Err(LedgerError::Locked(_))));
}

#[tokio::test]
async fn t_o5_a_ledger_of_a_newer_version_is_refused_and_left_alone() {
    let fixture = Fixture::new("newer").await;
    fixture.ledger.close().await.expect("closed");
    let file = fixture.place.path().join("ledger.sqlite");
    let mut bytes = std::fs::read(&file).expect("file");
    // The user version is a big-endian number at offset 60 of the header.
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&file, &bytes).expect("written");
    let opened = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await;
    assert!(matches!(opened, Err(LedgerError::Newer { found: 99, .. })), "{opened:?}");
    assert_eq!(std::fs::read(&file).expect("file")[60..64], 99_u32.to_be_bytes());
    assert!(!fixture.place.path().join("running").exists());
}

#[tokio::test]
async fn a_damaged_database_is_found_after_an_unclean_stop() {
    let fixture = Fixture::new("damage").await;
    for _ in 0..200 {
        fixture.ledger.record_call(fixture.call()).expect("recorded");
    }
    fixture.ledger.close().await.expect("closed");
    let file = fixture.place.path().join("ledger.sqlite");
    let mut bytes = std::fs::read(&file).expect("file");
    // Swap two rows of an index without touching the table: only a full check finds that.
    let call = b"csv-report";
    let page = bytes.len() - 4096 * 3;
    bytes[page..page + 64].fill(0xa5);
    assert!(bytes.windows(call.len()).any(|window| window == call));
    std::fs::write(&file, &bytes).expect("written");
    std::fs::write(fixture.place.path().join("running"), b"").expect("marked");
    let opened = Ledger::open(fixture.place.path(), fixture.ambient.clone()).await;
    assert!(matches!(opened, Err(LedgerError::Damaged(_) | LedgerError::Storage { .. })), "{opened:?}");
}

#[tokio::test]
async fn the_directory_and_everything_in_it_is_private() {
    let fixture = Fixture::new("private").await;
    fixture.ledger.record_call(fixture.call()).expect("recorded");
    fixture.ledger.barrier().await.expect("written");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(fixture.place.path()), 0o700);
    let mut seen = 0;
    for entry in std::fs::read_dir(fixture.place.path()).expect("directory") {
        let path = entry.expect("entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 5, "database, log, index, lock, key and note");
}

#[tokio::test]
async fn t_s1_a_signing_key_that_others_can_read_is_refused() {
    let place = Place::new("key");
    let ambient = Ambient::real();
    let key = place.path().join("signing.key");
    for (bytes, mode) in [(32, 0o644), (32, 0o640), (31, 0o600), (33, 0o600), (0, 0o600)] {
        std::fs::write(&key, vec![7; bytes]).expect("written");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).expect("mode");
        let opened = Ledger::open(place.path(), ambient.clone()).await;
        assert!(matches!(opened, Err(LedgerError::Storage { .. })), "{bytes} bytes, mode {mode:o}");
    }
    std::fs::write(&key, [7; 32]).expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("mode");
    let ledger = Ledger::open(place.path(), ambient).await.expect("opened");
    assert_eq!(ledger.signing_key().to_bytes(), [7; 32]);
}

#[tokio::test]
async fn t_o4_a_full_disk_refuses_durable_writes_and_still_reads() {
    let options = LedgerOptions { max_pages: Some(160), ..LedgerOptions::default() };
    let fixture = Fixture::with("full", options).await;
    let first = fixture.call();
    fixture.ledger.record_call(first.clone()).expect("recorded");
    fixture.ledger.barrier().await.expect("written");
    let filler = "x".repeat(60_000);
    let mut refused = None;
    for at in 0..20_u8 {
        let content = format!("{filler}{at}");
        let result = fixture.ledger.propose(fixture.proposal(content.as_bytes()), Durability::Durable).await;
        if let Err(error) = result {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(LedgerError::DiskFull)), "{refused:?}");
    assert_eq!(fixture.ledger.health(), LedgerHealth::DiskFull);
    assert!(fixture.ledger.call(&acme(), first.call).await.expect("still reads").is_some());
    // A small write fits: the ledger is well again by itself.
    fixture.ledger.propose(fixture.proposal(b"small"), Durability::Durable).await.expect("resumed");
    assert_eq!(fixture.ledger.health(), LedgerHealth::Well);
}

/// The part of the next test that runs in a process whose files may not grow.
#[tokio::test]
#[ignore = "runs in a child process of its own"]
async fn poisoned_in_a_child() {
    let place = Place::new("poison");
    let ledger = Ledger::open(place.path(), Ambient::real()).await.expect("opened");
    let fixture = Fixture { place, ambient: Ambient::real(), ledger };
    let (mut poisoned, mut alerts) = (None, 0);
    for at in 0..200_u8 {
        let content = vec![at; 60_000];
        fixture.ledger.raise_alert(raised(&fixture, &at.to_string())).expect("taken");
        alerts += 1;
        if let Err(error) = fixture.ledger.propose(fixture.proposal(&content), Durability::Durable).await {
            poisoned = Some(error);
            break;
        }
    }
    assert!(matches!(poisoned, Some(LedgerError::Poisoned(_))), "{poisoned:?}");
    assert!(matches!(fixture.ledger.health(), LedgerHealth::Poisoned(_)));
    // Everything is refused from now on, however small, and lazily too; what was written can be read.
    let again = fixture.ledger.propose(fixture.proposal(b""), Durability::Durable).await;
    assert!(matches!(again, Err(LedgerError::Poisoned(_))), "{again:?}");
    assert!(matches!(fixture.ledger.record_call(fixture.call()), Err(LedgerError::Poisoned(_))));
    let intent = fixture.ledger.intent(fixture.intent(&fixture.proposal(b"y").plan)).await;
    assert!(intent.is_err());
    assert!(!fixture.ledger.plans(&acme(), None, Page::default()).await.expect("still reads").items.is_empty());
    let (_, written, _) = fixture.ledger.levels().await.expect("still reads").alerts;
    let unkept = fixture.ledger.unkept_alerts();
    assert_eq!(
        written + unkept.len() as u64,
        alerts,
        "an alert is written or handed back, to be told without the ledger"
    );
    assert!(fixture.ledger.unkept_alerts().is_empty(), "once");
    assert!(fixture.ledger.close().await.is_err());
    assert!(fixture.place.path().join("running").exists(), "the next start must check");
    println!("poisoned as it should be");
}

#[test]
fn t_f11_after_a_failed_write_nothing_is_written_until_the_next_start() {
    let program = std::env::current_exe().expect("program");
    // Files of the child may have a few MiB; writing more fails with EFBIG instead of killing it.
    let script =
        r#"trap '' XFSZ; ulimit -f 4096; exec "$0" --exact ledger::writing::poisoned_in_a_child --ignored --nocapture"#;
    let output = std::process::Command::new("sh").arg("-c").arg(script).arg(program).output().expect("child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("poisoned as it should be"), "{text}");
}
