//! P11: verifying the audit from its first entry on, links, tree, stored hashes and checkpoints.
//!
//! The ledger is one of read-only calls, as most are, made by the daemon's own writer; it is verified as a copy, the way an
//! auditor does.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;
use toolkeep::ambient::Ambient;
use toolkeep::ledger::{Archive, Ledger};
use toolkeep_benches::median;
use toolkeep_benches::report::{Row, publish};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::digest::Digest;

/// Entries a second, at least.
const PROMISE: f64 = 200_000.0;
const ENTRIES: u64 = 200_000;
/// Entries between two checkpoints.
const CHECKPOINT_EVERY: u64 = 10_000;
const ROUNDS: usize = 5;

/// The facts of a call that only read, as many bytes as they are.
fn facts(number: u64) -> serde_json::Value {
    let digest = Digest::of(&number.to_be_bytes());
    json!({"agent": "agent", "call": "call_0193c5a2-0000-7000-8000-000000000000", "component": digest,
        "credential": "agent-uid:1000", "input": digest, "manifest": digest, "mode": "commit", "outcome": "none",
        "policy_set": digest, "recording": digest, "reply": digest, "status": "ok", "tenant": "local", "tier": 0,
        "tool": "text-stats", "user": "alice", "usage": {"cost_micro_usd": 0, "fuel": 123_456, "host_calls": 3,
        "http_requests": 0, "memory_peak": 1_114_112, "wall_ms": number % 10}})
}

fn main() {
    let folder = std::env::temp_dir().join(format!("toolkeep-p11-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let ledger = Ledger::open(&folder, Ambient::fixed(1, 1, BTreeMap::new())).await.expect("a ledger");
        for number in 1..=ENTRIES {
            while ledger.audit(AuditKind::Call, &facts(number)).is_err() {
                ledger.barrier().await.expect("written");
            }
            if number % CHECKPOINT_EVERY == 0 {
                ledger.checkpoint().await.expect("a checkpoint");
            }
        }
        ledger.close().await.expect("closed");
    });
    let mut figures = Vec::new();
    let mut told = String::new();
    for round in 0..=ROUNDS {
        let archive = Archive::open(&folder).expect("a copy");
        let key = archive.own_key().expect("a key");
        let begun = Instant::now();
        let verified = archive.verify(&key, Vec::new(), |_| {}).expect("whole");
        let seconds = begun.elapsed().as_secs_f64();
        assert_eq!(verified.entries, ENTRIES);
        told = format!("{} entries, {} checkpoints", verified.entries, verified.checkpoints);
        // The first round reads the file for the first time.
        if round > 0 {
            figures.push(ENTRIES as f64 / seconds);
        }
    }
    std::fs::remove_dir_all(&folder).expect("removed");
    let what = "entries of the audit verified a second";
    publish(&[Row::at_least("P11b", what, "/s", median(figures), PROMISE)], &[told]);
}
