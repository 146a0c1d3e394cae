//! G11: whichever bit of a stored plan, of its approval or of the answer to it is flipped, nothing is committed from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::Value;
use toolkeep_core::call::{Mode, Outcome, Status, Usage};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Effect, FileState};
use toolkeep_core::id::{ApprovalId, CallId, PlanId};
use toolkeep_core::plan::{FORMAT, Plan, PlanBody, SealBinding};
use toolkeep_core::principal::{Credential, Origin, Principal};
use toolkeep_core::taint::Taint;

use crate::ambient::Ambient;
use crate::ledger::{
    ApprovalRow, ApprovalUse, BlobSet, CallRow, Durability, Intent, Ledger, Proposal, Resolution, Resolved,
};

const NOW_MS: u64 = 1_700_000_000_000;

struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

fn principal() -> Principal {
    let name = "acme";
    Principal {
        tenant: name.parse().expect("name"),
        user: name.parse().expect("name"),
        agent: name.parse().expect("name"),
    }
}

fn held(ambient: &Ambient) -> Proposal {
    let call = CallId::new(ambient.uuid_v7());
    let digest = Digest::of(b"x");
    let body = PlanBody {
        format: FORMAT,
        principal: principal(),
        tool: "report".parse().expect("name"),
        component: digest,
        manifest: digest,
        policy_set: digest,
        input: digest,
        read_set: Vec::new(),
        keys_read: Vec::new(),
        segment: 0,
        steps: Vec::new(),
        taint: Taint::UNTRUSTED,
        effects: vec![Effect::FileWrite {
            workspace: "books".parse().expect("name"),
            path: "a.md".parse().expect("path"),
            before: None,
            after: FileState { sha256: digest, size: 1, mode: 0o644 },
        }],
    };
    let binding = SealBinding { run: None, call, expires_at_ms: NOW_MS + 60_000, nonce: "00".repeat(16) };
    let plan = Plan::seal(body, PlanId::new(ambient.uuid_v7()), binding).expect("sealed");
    let row = CallRow {
        trace: None,
        suspended: false,
        call,
        principal: principal(),
        origin: Origin::of(Credential::AgentUid(0)),
        run: None,
        step: None,
        tool: "report".parse().expect("name"),
        component: Some(digest),
        manifest: Some(digest),
        tier: None,
        policy_set: None,
        mode: Mode::Commit,
        input: Arc::from("{}"),
        input_digest: digest,
        status: Status::Held,
        outcome: Outcome::Pending,
        error_code: None,
        reply: Arc::from("{}"),
        usage: Usage::default(),
        recording: None,
        beside: None,
        started_ms: NOW_MS,
        ended_ms: NOW_MS,
        key: None,
        notes: None,
        charge: None,
        output: None,
    };
    let approval = ApprovalRow {
        id: ApprovalId::new(ambient.uuid_v7()),
        approvers: 1,
        barred: Some("eve".parse().expect("name")),
        reason: Arc::from("tier 2"),
        expires_at_ms: NOW_MS + 50_000,
    };
    Proposal {
        call: row,
        plan: Arc::new(plan),
        witnesses: Arc::from("[]"),
        blobs: BlobSet::default(),
        approval: Some(approval),
        transaction: None,
    }
}

fn intent(proposal: &Proposal) -> Intent {
    let approval = proposal.approval.as_ref().expect("approval").id;
    Intent {
        plan: proposal.plan.id(),
        proposal: None,
        approval: Some(ApprovalUse { id: approval, seal: proposal.plan.seal_digest() }),
        standing: None,
        undoes: None,
        steps: Arc::from("{}"),
        sends: Vec::new(),
        quotas: Vec::new(),
        undo_blobs: BlobSet::default(),
        reply_when_done: Arc::from("{}"),
        receipt: None,
    }
}

/// One column of the only row of a table.
struct Column {
    table: &'static str,
    name: String,
    bytes: Vec<u8>,
    kind: &'static str,
}

impl Column {
    fn all(conn: &Connection, table: &'static str) -> Vec<Self> {
        let mut statement = conn.prepare(&format!("SELECT * FROM {table}")).expect("statement");
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([]).expect("rows");
        let row = rows.next().expect("row").expect("one row");
        let columns = names.into_iter().enumerate().filter_map(|(at, name)| {
            let (bytes, kind) = match row.get::<_, Value>(at).expect("a value") {
                Value::Null | Value::Real(_) => return None,
                Value::Integer(number) => (number.to_be_bytes().to_vec(), "INTEGER"),
                Value::Text(text) => (text.into_bytes(), "TEXT"),
                Value::Blob(bytes) => (bytes, "BLOB"),
            };
            Some(Self { table, name, bytes, kind })
        });
        columns.collect()
    }

    /// Write these bytes into the column. False if the database itself refuses them.
    fn put(&self, conn: &Connection, bytes: &[u8]) -> bool {
        let Self { table, name, kind, .. } = self;
        let changed = if *kind == "INTEGER" {
            let number = i64::from_be_bytes(bytes.try_into().expect("eight bytes"));
            conn.execute(&format!("UPDATE {table} SET {name} = ?1"), [number])
        } else {
            conn.execute(&format!("UPDATE {table} SET {name} = CAST(?1 AS {kind})"), [bytes])
        };
        changed.is_ok_and(|changed| changed == 1)
    }
}

#[test]
fn g11_a_column_that_came_later_counts_where_something_stands_in_it() {
    let conn = Connection::open_in_memory().expect("memory");
    let digest =
        |sql: &str| conn.query_row(sql, [], |row| Ok(super::digest_of(row, "t"))).expect("a row").expect("readable");
    let before = digest("SELECT 1 AS a, 'x' AS b");
    assert_eq!(digest("SELECT 1 AS a, 'x' AS b, NULL AS via"), before, "rows of before stay what was written");
    assert_ne!(digest("SELECT 1 AS a, 'x' AS b, 'client' AS via"), before);
    assert_ne!(digest("SELECT 1 AS a, 'x' AS b, '' AS via"), before);
    assert_ne!(digest("SELECT 1 AS a, 'x' AS b, NULL AS c"), before, "no other column is passed over");
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "how many bits were flipped is the measured figure")]
async fn g11_whichever_bit_of_a_plan_or_an_approval_is_flipped_it_is_refused() {
    let place = Place(std::env::temp_dir().join(format!("toolkeep-bits-{}", Ambient::real().uuid_v7())));
    let ambient = Ambient::fixed(NOW_MS, 1, BTreeMap::new());
    let ledger = Ledger::open(&place.0, ambient.clone()).await.expect("ledger");
    let proposal = held(&ambient);
    ledger.propose(proposal.clone(), Durability::Durable).await.expect("kept");
    let id = proposal.approval.as_ref().expect("approval").id;
    let answer = Resolution {
        id,
        approver: "ann".parse().expect("name"),
        via: crate::ledger::Via::Client,
        approve: true,
        reason: "fine".into(),
        need: crate::ledger::Raised::NOT,
    };
    assert_eq!(ledger.resolve(answer).await.expect("resolved"), Resolved::Approved);
    ledger.barrier().await.expect("written");
    let conn = Connection::open(place.0.join("ledger.sqlite")).expect("another connection");
    conn.pragma_update(None, "foreign_keys", "OFF").expect("pragma");
    conn.busy_timeout(std::time::Duration::from_secs(20)).expect("timeout");
    let (mut bits, mut bytes) = (0_u32, 0_usize);
    for table in ["plans", "plan_texts", "approvals", "approval_votes"] {
        for column in Column::all(&conn, table) {
            bytes += column.bytes.len();
            for at in 0..column.bytes.len() * 8 {
                let mut flipped = column.bytes.clone();
                flipped[at / 8] ^= 1 << (at % 8);
                bits += 1;
                if column.put(&conn, &flipped) {
                    let refused = ledger.intent(intent(&proposal)).await;
                    assert!(refused.is_err(), "bit {at} of {table}.{}: {refused:?}", column.name);
                }
                assert!(column.put(&conn, &column.bytes), "{table}.{} is restored", column.name);
            }
        }
    }
    println!(
        "G11 flipped bits: 0 of {bits} (95 % bound {:.5}) accepted, no seed; every bit of {bytes} bytes of a plan, its texts, \
         its approval and the answer",
        3.0 / f64::from(bits)
    );
    assert!(ledger.intent(intent(&proposal)).await.is_ok(), "unharmed, it is committed");
    ledger.close().await.expect("closed");
}
