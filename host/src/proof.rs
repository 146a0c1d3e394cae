//! Proofs and entries of the audit as they leave: JSON for programs, and the text form that public tools read.
//!
//! The text of an inclusion proof is that of C2SP tlog-proof: the index of the leaf, the hashes, and the signed checkpoint.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use toolkeep_core::audit::AuditEntry;
use toolkeep_core::digest::Digest;
use toolkeep_core::merkle;

use crate::ledger::{Consistency, Inclusion};

/// The first line of the text form.
const TLOG_PROOF: &str = "c2sp.org/tlog-proof@v1";

fn encoded(hash: &Digest) -> String {
    STANDARD.encode(hash.as_bytes())
}

/// An entry, with what links it.
#[must_use]
pub fn entry(entry: &AuditEntry) -> Value {
    let facts: Value = serde_json::from_str(&entry.body).unwrap_or_default();
    json!({"seq": entry.seq, "kind": entry.kind, "at_ms": entry.at_ms, "facts": facts, "body": entry.body,
        "previous": entry.previous, "digest": entry.digest})
}

/// That an entry is covered by a checkpoint. `shown` is the entry as whoever asks may see it.
#[must_use]
pub fn of_inclusion(proved: &Inclusion, shown: &Value) -> Value {
    let index = proved.entry.seq.saturating_sub(1);
    let path: Vec<String> = proved.path.iter().map(encoded).collect();
    let text = format!("{TLOG_PROOF}\nindex {index}\n{}\n{}", lines(&path), proved.note);
    json!({
        "entry": shown, "index": index, "leaf": proved.entry.digest, "leaf_hash": encoded(&merkle::leaf(&proved.entry.digest)),
        "size": proved.checkpoint.size, "root": encoded(&proved.checkpoint.root), "path": path,
        "checkpoint": &*proved.note, "tlog_proof": text,
    })
}

fn lines(path: &[String]) -> String {
    path.iter().map(|hash| format!("{hash}\n")).collect()
}

/// That one checkpoint is the beginning of another.
#[must_use]
pub fn of_consistency(proved: &Consistency) -> Value {
    let path: Vec<String> = proved.path.iter().map(encoded).collect();
    json!({
        "old": {"size": proved.old.size, "root": encoded(&proved.old.root)},
        "size": proved.checkpoint.size, "root": encoded(&proved.checkpoint.root), "path": path,
        "checkpoint": &*proved.note,
    })
}
