//! G12: every single-bit flip of what is stored of the audit, every deletion, swap, duplicate and truncation below a
//! checkpoint is found.

use ed25519_dalek::SigningKey;
use rusqlite::types::{Value, ValueRef};
use serde_json::json;
use toolkeep_core::audit::canonical_body;

use super::*;
use crate::ambient::Ambient;
use crate::ledger::checkpoints::Signer;
use crate::ledger::column::digest_bytes;
use crate::ledger::{prove, schema};

/// Entries of the flipped ledger: enough that two subtrees are kept and a part of a third is not.
const ENTRIES: u64 = 150;
/// Threads that flip bits, each in a ledger of its own.
const WORKERS: usize = 2;
/// After which entries checkpoints were made, the last one included.
const CHECKPOINTS: [u64; 4] = [1, 64, 100, ENTRIES];

fn signer() -> Signer {
    Signer::new("0191f3a4-0000-7000-8000-000000000001", Arc::new(SigningKey::from_bytes(&[5; 32]))).expect("a name")
}

/// A ledger with so many entries and a checkpoint after each of these.
fn ledger(entries: u64, checkpoints: &[u64]) -> (Connection, Signer) {
    let conn = Connection::open_in_memory().expect("database");
    schema::migrate(&conn).expect("migrated");
    let (mut head, mut tree, signer) = (ChainHead::default(), Frontier::default(), signer());
    let kinds = [AuditKind::Call, AuditKind::Intent, AuditKind::Outcome, AuditKind::Kill];
    for number in 0..entries {
        let body = canonical_body(&json!({"n": number, "tenant": "t", "what": "é"}));
        let entry = head.append(kinds[usize::try_from(number % 4).expect("small")], 1_000 + number, body);
        put(&conn, &entry);
        let mut made = Vec::new();
        tree::push(&mut tree, &entry.digest, &mut made);
        tree::keep(&conn, &made).expect("kept");
        if checkpoints.contains(&entry.seq) {
            signer.checkpoint(&conn, &tree).expect("a checkpoint");
        }
    }
    (conn, signer)
}

fn put(conn: &Connection, entry: &AuditEntry) {
    let sql = "INSERT INTO audit (seq, kind, at_ms, body, previous, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![
        integer(entry.seq),
        entry.kind.word(),
        integer(entry.at_ms),
        entry.body,
        digest_bytes(&entry.previous),
        digest_bytes(&entry.digest)
    ];
    execute(conn, sql, values).expect("inserted");
}

/// Verify everything.
fn all(conn: &Connection, key: Arc<NoteKey>, brought: Vec<Checkpoint>) -> Result<Verified, Failed> {
    let mut follower = Follower::from_genesis(key).with(brought);
    while follower.follow(conn, AT_ONCE)? == AT_ONCE {}
    follower.finish(conn, true)
}

fn root(conn: &Connection, size: u64) -> Digest {
    tree::frontier(conn, size).expect("stored").root()
}

fn verifies(conn: &Connection, signer: &Signer) -> bool {
    all(conn, Arc::clone(&signer.key), Vec::new()).is_ok()
}

/// Every value that differs from this one in a single bit.
fn flips(value: ValueRef<'_>) -> Vec<Value> {
    let bytes = |bytes: &[u8], of: fn(Vec<u8>) -> Value| {
        let flipped = |bit: usize| {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            of(changed)
        };
        (0..bytes.len() * 8).map(flipped).collect()
    };
    match value {
        ValueRef::Integer(number) => (0..64).map(|bit| Value::Integer(number ^ (1 << bit))).collect(),
        // Text is given as bytes and made text by the statement: what is no UTF-8 is stored all the same.
        ValueRef::Text(text) => bytes(text, Value::Blob),
        ValueRef::Blob(blob) => bytes(blob, Value::Blob),
        ValueRef::Null | ValueRef::Real(_) => panic!("no column holds such a value"),
    }
}

/// A row of a table, by the condition that names it, with its values.
fn row_of(conn: &Connection, table: &str, condition: &str) -> Vec<(String, Value)> {
    let mut statement = conn.prepare(&format!("SELECT * FROM {table} WHERE {condition}")).expect("prepared");
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([]).expect("asked");
    let row = rows.next().expect("read").expect("a row");
    names.into_iter().enumerate().map(|(at, name)| (name, row.get(at).expect("a value"))).collect()
}

/// Flip each bit of each column of one row, look whether that is found, and put it back. Returns flips and finds.
fn flip_all(conn: &Connection, signer: &Signer, (table, condition): (&str, &str), every: usize) -> (usize, usize) {
    let (mut flipped, mut found) = (0, 0);
    for (column, value) in row_of(conn, table, condition) {
        let is_text = matches!(value, Value::Text(_));
        let wanted = if is_text { "CAST(?1 AS TEXT)".to_owned() } else { "?1".to_owned() };
        let sql = format!("UPDATE OR REPLACE {table} SET {column} = {wanted} WHERE {condition}");
        for changed in flips(ValueRef::from(&value)).into_iter().step_by(every) {
            conn.execute_batch("SAVEPOINT flip").expect("begun");
            assert_eq!(conn.execute(&sql, params![changed]).expect("updated"), 1, "{table} {condition} {column}");
            // The savepoint stays open: verifying begins no transaction of its own here.
            flipped += 1;
            found += usize::from(!holds(conn, signer));
            conn.execute_batch("ROLLBACK TO flip; RELEASE flip").expect("put back");
        }
    }
    (flipped, found)
}

/// As [`verifies`], inside of a transaction.
fn holds(conn: &Connection, signer: &Signer) -> bool {
    let mut follower = Follower::from_genesis(Arc::clone(&signer.key));
    loop {
        match follower.follow(conn, AT_ONCE) {
            Ok(AT_ONCE) => {}
            Ok(_) => return follower.check_ends(conn, true).is_ok(),
            Err(_) => return false,
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "how many changes were made is the measured figure")]
fn g12_r40_every_single_bit_flip_of_the_stored_audit_is_found() {
    let (conn, signer) = ledger(ENTRIES, &CHECKPOINTS);
    assert!(verifies(&conn, &signer) && holds(&conn, &signer));
    let (mut flipped, mut found) = (0, 0);
    let mut count = |(more, hits): (usize, usize)| {
        flipped += more;
        found += hits;
    };
    // Every bit of rows at the edges of everything: the first entry, the end of a subtree, after it, the last entry.
    for seq in [1, 64, 65, ENTRIES] {
        count(flip_all(&conn, &signer, ("audit", &format!("seq = {seq}")), 1));
    }
    // Of the others one in so many that all together every bit is flipped somewhere.
    // A hard run flips every bit of every one.
    let is_hard = Ambient::real().var("TOOLKEEP_HARD").is_some_and(|value| value == "1");
    let every = if is_hard { 1 } else { 97 };
    let others = |from: usize| {
        let (conn, signer) = ledger(ENTRIES, &CHECKPOINTS);
        let mine = (1..=ENTRIES).skip(from).step_by(WORKERS);
        mine.fold((0, 0), |sum: (usize, usize), seq| {
            let (more, hits) = flip_all(&conn, &signer, ("audit", &format!("seq = {seq}")), every);
            (sum.0 + more, sum.1 + hits)
        })
    };
    let shares = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|from| scope.spawn(move || others(from))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect::<Vec<_>>()
    });
    shares.into_iter().for_each(&mut count);
    for node in ["level = 6 AND place = 0", "level = 6 AND place = 1", "level = 7 AND place = 0"] {
        count(flip_all(&conn, &signer, ("audit_nodes", node), 1));
    }
    for size in CHECKPOINTS {
        // Every bit of a note is flipped where notes are made.
        count(flip_all(&conn, &signer, ("audit_checkpoints", &format!("size = {size}")), if is_hard { 1 } else { 11 }));
    }
    assert_eq!(found, flipped);
    println!("G12 single-bit flips: 0 of {flipped} (95 % bound {:.6}) missed, no seed", 3.0 / flipped as f64);
    assert!(holds(&conn, &signer), "everything was put back");
}

/// Change the stored audit, and say whether that is found; then put it back.
fn found_after(conn: &Connection, signer: &Signer, change: &str) -> bool {
    conn.execute_batch(&format!("SAVEPOINT change; {change}")).expect("changed");
    let found = !holds(conn, signer);
    conn.execute_batch("ROLLBACK TO change; RELEASE change").expect("put back");
    found
}

#[test]
#[expect(clippy::print_stdout, reason = "how many changes were made is the measured figure")]
fn g12_r40_every_deletion_swap_duplicate_and_truncation_below_a_checkpoint_is_found() {
    let (conn, signer) = ledger(ENTRIES, &CHECKPOINTS);
    let (mut made, mut found) = (0_u32, 0_u32);
    let mut attempt = |change: String| {
        made += 1;
        let hit = found_after(&conn, &signer, &change);
        found += u32::from(hit);
        assert!(hit, "{change}");
    };
    for seq in 1..=ENTRIES {
        attempt(format!("DELETE FROM audit WHERE seq = {seq}"));
        // The end cut off, below the last checkpoint.
        attempt(format!("DELETE FROM audit WHERE seq >= {seq}"));
        // With all that is kept of it beside the checkpoints.
        attempt(format!(
            "DELETE FROM audit WHERE seq >= {seq}; DELETE FROM audit_nodes WHERE (place + 1) << level >= {seq}"
        ));
        // One entry moved to the end, and one doubled there.
        attempt(format!("UPDATE audit SET seq = {} WHERE seq = {seq}", ENTRIES + 1));
        attempt(format!(
            "INSERT INTO audit SELECT {}, kind, at_ms, body, previous, digest FROM audit WHERE seq = {seq}",
            ENTRIES + 1
        ));
        // A hole that was closed by moving up what follows.
        attempt(format!(
            "DELETE FROM audit WHERE seq = {seq}; UPDATE audit SET seq = -seq WHERE seq > {seq}; \
             UPDATE audit SET seq = -seq - 1 WHERE seq < 0"
        ));
    }
    for (one, other) in (1..ENTRIES).map(|seq| (seq, seq + 1)).chain([(1, ENTRIES), (64, 128), (10, 99)]) {
        attempt(format!(
            "UPDATE audit SET seq = 0 WHERE seq = {one}; UPDATE audit SET seq = {one} WHERE seq = {other}; \
             UPDATE audit SET seq = {other} WHERE seq = 0"
        ));
        // Contents swapped, the links left in place.
        attempt(format!("UPDATE audit SET body = (SELECT body FROM audit WHERE seq = {other}) WHERE seq = {one}"));
    }
    for stray in [
        "INSERT INTO audit SELECT -5, kind, at_ms, body, previous, digest FROM audit WHERE seq = 5",
        "INSERT INTO audit SELECT 0, kind, at_ms, body, previous, digest FROM audit WHERE seq = 5",
        "DELETE FROM audit_nodes WHERE level = 6 AND place = 0",
        "DELETE FROM audit_nodes",
        "INSERT INTO audit_nodes SELECT 6, 2, hash FROM audit_nodes WHERE place = 1",
        "INSERT INTO audit_nodes SELECT 5, 0, hash FROM audit_nodes WHERE place = 1",
        "UPDATE audit_nodes SET hash = (SELECT hash FROM audit_nodes WHERE level = 6 AND place = 1) WHERE place = 0",
        "UPDATE audit_checkpoints SET note = (SELECT note FROM audit_checkpoints WHERE size = 64) WHERE size = 100",
        "INSERT INTO audit_checkpoints SELECT 99, note FROM audit_checkpoints WHERE size = 100",
        "INSERT INTO audit_checkpoints SELECT 1000, note FROM audit_checkpoints WHERE size = 100",
    ] {
        attempt(stray.to_owned());
    }
    assert_eq!(found, made);
    println!(
        "G12 deletions, swaps, duplicates and truncations: 0 of {made} (95 % bound {:.5}) missed, no seed",
        3.0 / f64::from(made)
    );
    assert!(holds(&conn, &signer), "everything was put back");
}

/// The whole log made anew from some entry on, by somebody who knows this file and does not have the key.
fn rewritten(conn: &Connection, from: u64) {
    let mut statement = conn.prepare("SELECT * FROM audit ORDER BY seq").expect("prepared");
    let mut rows = statement.query([]).expect("asked");
    let mut entries = Vec::new();
    while let Some(row) = rows.next().expect("read") {
        entries.push(entry_of(row).expect("an entry"));
    }
    execute(conn, "DELETE FROM audit", &[]).expect("deleted");
    execute(conn, "DELETE FROM audit_nodes", &[]).expect("deleted");
    let (mut head, mut tree) = (ChainHead::default(), Frontier::default());
    for entry in entries {
        let body = if entry.seq == from { entry.body.replace("\"t\"", "\"u\"") } else { entry.body };
        let entry = head.append(entry.kind, entry.at_ms, body);
        put(conn, &entry);
        let mut made = Vec::new();
        tree::push(&mut tree, &entry.digest, &mut made);
        tree::keep(conn, &made).expect("kept");
    }
}

#[test]
fn g12_r40_a_rewritten_log_is_found_by_its_own_checkpoints_or_by_one_that_was_kept_elsewhere() {
    for from in [1, 64, 65, 100, 149, 150] {
        let (conn, signer) = ledger(ENTRIES, &CHECKPOINTS);
        rewritten(&conn, from);
        assert!(!verifies(&conn, &signer), "its own checkpoints find a change of entry {from}");
    }
    // Somebody who takes the checkpoints away as well is found by whoever kept one.
    let (conn, signer) = ledger(ENTRIES, &[100, ENTRIES]);
    let kept = checkpoints::latest(&conn).expect("read").expect("one").open(&signer.key).expect("ours");
    let early = checkpoints::between(&conn, 0, 100).expect("read")[0].open(&signer.key).expect("ours");
    let with = |conn: &Connection, brought: &[&Checkpoint]| {
        all(conn, Arc::clone(&signer.key), brought.iter().map(|one| (*one).clone()).collect())
    };
    assert_eq!(with(&conn, &[&kept, &early]).expect("whole").checkpoints, 4);
    execute(&conn, "DELETE FROM audit_checkpoints", &[]).expect("deleted");
    rewritten(&conn, 101);
    assert!(verifies(&conn, &signer), "without a checkpoint nobody can know");
    assert_eq!(with(&conn, &[&early]).expect("it was changed after this one").checkpoints, 1);
    let found = with(&conn, &[&early, &kept]).map_err(LedgerError::from);
    assert!(matches!(found, Err(LedgerError::Chain(ChainBroken::Root(ENTRIES)))), "{found:?}");
    // Truncation below a kept checkpoint.
    let (conn, signer) = ledger(ENTRIES, &[]);
    let root = root(&conn, ENTRIES);
    let kept = Checkpoint { origin: signer.key.name().to_owned(), size: ENTRIES, root };
    for cut in [1, 64, 100, ENTRIES] {
        execute(&conn, "DELETE FROM audit WHERE seq >= ?1", params![integer(cut)]).expect("cut");
        let nodes = "DELETE FROM audit_nodes WHERE (place + 1) << level >= ?1";
        execute(&conn, nodes, params![integer(cut)]).expect("cut");
        assert!(verifies(&conn, &signer), "the rest agrees with itself");
        let found = all(&conn, Arc::clone(&signer.key), vec![kept.clone()]).map_err(LedgerError::from);
        let found = found.expect_err("it is short");
        assert!(matches!(found, LedgerError::Chain(ChainBroken::Short { size: ENTRIES, .. })), "{found}");
        if cut == 1 {
            break;
        }
    }
}

#[test]
fn r40_a_checkpoint_of_another_key_is_not_believed() {
    let (conn, signer) = ledger(10, &[10]);
    let other = Signer::new("0191f3a4-0000-7000-8000-000000000001", Arc::new(SigningKey::from_bytes(&[6; 32])));
    let other = other.expect("a name");
    assert!(verifies(&conn, &signer) && !verifies(&conn, &other));
    let forged = other.key.sign(10, root(&conn, 10), &other.private);
    execute(&conn, "UPDATE audit_checkpoints SET note = ?1", params![forged]).expect("forged");
    assert!(!verifies(&conn, &signer));
}

#[test]
fn r40_following_from_any_entry_meets_what_following_from_the_first_meets() {
    let (conn, signer) = ledger(300, &[64, 200, 300]);
    let whole = all(&conn, Arc::clone(&signer.key), Vec::new()).expect("whole");
    assert_eq!((whole.entries, whole.checkpoints, whole.head.seq), (300, 3, 300));
    for from in [0, 1, 63, 64, 65, 127, 128, 199, 200, 299, 300] {
        let mut follower = Follower::after(&conn, from, Arc::clone(&signer.key)).expect("begun");
        while follower.follow(&conn, 7).expect("follows") == 7 {}
        let verified = follower.finish(&conn, false).expect("ends");
        assert_eq!((verified.head, verified.root, verified.entries), (whole.head, whole.root, 300 - from), "{from}");
    }
}

#[test]
fn r40_a_checkpoint_that_was_brought_and_not_reached_is_not_said_to_hold() {
    let (conn, signer) = ledger(ENTRIES, &[]);
    let brought = Checkpoint { origin: signer.key.name().to_owned(), size: 120, root: Digest::of(b"another log") };
    // Entries up to 120 came after the last part was read.
    let mut follower = Follower::from_genesis(Arc::clone(&signer.key)).with(vec![brought]);
    assert_eq!(follower.follow(&conn, 100).expect("follows"), 100);
    let found = follower.finish(&conn, true).map_err(LedgerError::from);
    let short = LedgerError::Chain(ChainBroken::Short { size: 120, found: 100 });
    assert_eq!(found.expect_err("it was compared with nothing").to_string(), short.to_string());
}

#[test]
fn t_s3_r40_no_proof_is_given_for_an_entry_that_says_something_else_than_it_did() {
    let (conn, signer) = ledger(ENTRIES, &[ENTRIES]);
    let proof = |seq| prove::of_entry(&conn, &signer.key, seq).map_err(LedgerError::from);
    assert!(matches!(proof(7), Ok(prove::Proved::Yes(_))));
    for change in [
        r#"body = '{"n":6,"tenant":"t","what":"nothing"}'"#,
        "kind = 'breach'",
        "at_ms = at_ms + 1",
        "previous = digest",
    ] {
        execute(&conn, "SAVEPOINT change", &[]).expect("begun");
        execute(&conn, &format!("UPDATE audit SET {change} WHERE seq = 7"), &[]).expect("changed");
        let found = proof(7);
        assert!(matches!(found, Err(LedgerError::Chain(ChainBroken::Content(7)))), "{change}: {found:?}");
        assert!(matches!(proof(8), Ok(prove::Proved::Yes(_))), "{change}");
        execute(&conn, "ROLLBACK TO change", &[]).expect("taken back");
    }
    assert!(matches!(proof(7), Ok(prove::Proved::Yes(_))));
}
