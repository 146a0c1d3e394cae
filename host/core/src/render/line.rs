//! Effects in one line each, for questions that are shorter than a rendering: all of what a person agrees to but the contents.
//!
//! A line says what happens (both ends of a rename, whether something is there before, what it may be executed as), because
//! whoever reads it sees nothing else. Names that others gave are spelled out as in every rendering, and warnings stand behind.

use super::terminal::{grouped, many, size_of, utc};
use super::{subject, warnings};
use crate::effect::{Effect, FileState};

/// An effect in one line: its kind, what it is about, what becomes of that, and what there is to beware of.
#[must_use]
pub fn line(effect: &Effect) -> String {
    let what = match effect {
        Effect::FileWrite { before: None, after, .. } => format!("a new file of {}", state(after)),
        Effect::FileWrite { before: Some(before), after, .. } => {
            let mode = if before.mode == after.mode { String::new() } else { format!("{:03o} -> ", before.mode) };
            let (size, after_size) = (grouped(before.size), many(after.size, "byte"));
            format!("overwritten, {size} -> {after_size}, mode {mode}{:03o}", after.mode)
        }
        Effect::FileDelete { before, .. } => format!("removed, {}", state(before)),
        Effect::FileRename { before, .. } => format!("moved, {}", state(before)),
        Effect::FileMetadata { before, after, .. } => format!("modified {} -> {}", utc(*before), utc(*after)),
        Effect::DirCreate { .. } => "a new directory".to_owned(),
        Effect::DirDelete { .. } => "an empty directory, removed".to_owned(),
        Effect::HttpRequest(request) => format!("sent, {}", size_of(request.body.as_ref())),
        Effect::MessageSend(message) => format!("sent, {}", many(message.body.size, "byte")),
        Effect::KvSet { before: None, after, .. } => format!("a new key of {}", many(after.size, "byte")),
        Effect::KvSet { before: Some(before), after, .. } => {
            format!("overwritten, {} -> {}", grouped(before.size), many(after.size, "byte"))
        }
        Effect::KvDelete { before, .. } => format!("removed, {}", many(before.size, "byte")),
        Effect::KvAdd { delta, .. } => format!("{delta:+}"),
    };
    let warnings: String = warnings(effect).iter().map(|warning| format!(" [{warning}]")).collect();
    format!("{} {} ({what}){warnings}", effect.kind(), subject(effect))
}

fn state(file: &FileState) -> String {
    format!("{}, mode {:03o}", many(file.size, "byte"), file.mode)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// One effect, as a plan has it.
    fn effect(value: Value) -> Effect {
        serde_json::from_value(value).expect("an effect")
    }

    #[test]
    fn r51_every_kind_of_effect_says_in_one_line_all_of_what_becomes_of_what() {
        let digest = crate::digest::Digest::of(b"x");
        let body = |size: u64| json!({"sha256": digest, "size": size});
        let file = |size: u64, mode: u32| json!({"sha256": digest, "size": size, "mode": mode});
        let (write, rename) = ("file.write", "file.rename");
        let rows = [
            (
                json!({"kind": write, "workspace": "src", "path": "a", "before": null, "after": file(1, 0o644)}),
                "file.write src:a (a new file of 1 byte, mode 644)",
            ),
            (
                json!({"kind": write, "workspace": "src", "path": "a", "before": file(9, 0o644), "after": file(1_000, 0o644)}),
                "file.write src:a (overwritten, 9 -> 1,000 bytes, mode 644)",
            ),
            (
                json!({"kind": write, "workspace": "src", "path": "a", "before": file(9, 0o644), "after": file(2, 0o755)}),
                "file.write src:a (overwritten, 9 -> 2 bytes, mode 644 -> 755)",
            ),
            (
                json!({"kind": "file.delete", "workspace": "src", "path": "a", "before": file(2, 0o600)}),
                "file.delete src:a (removed, 2 bytes, mode 600)",
            ),
            (
                json!({"kind": rename, "workspace": "src", "from": "draft.txt", "to": "x/Makefile", "before": file(2, 0o755)}),
                "file.rename src:draft.txt -> src:x/Makefile (moved, 2 bytes, mode 755)",
            ),
            (
                json!({"kind": rename, "workspace": "src", "from": "a", "to": "b\u{202e}", "before": file(2, 0o644)}),
                "file.rename src:a -> src:b⟨U+202E⟩ (moved, 2 bytes, mode 644)",
            ),
            (
                json!({"kind": rename, "workspace": "src", "from": "a", "to": ".mcp.json", "before": file(2, 0o644)}),
                "file.rename src:a -> src:.mcp.json (moved, 2 bytes, mode 644) [sensitive path (agent-config)]",
            ),
            (
                json!({"kind": "file.metadata", "workspace": "src", "path": "a", "before": {"modified_ns": "0"},
                    "after": {"modified_ns": "1000000000"}}),
                "file.metadata src:a (modified 1970-01-01T00:00:00Z -> 1970-01-01T00:00:01Z)",
            ),
            (json!({"kind": "dir.create", "workspace": "src", "path": "d"}), "dir.create src:d (a new directory)"),
            (
                json!({"kind": "dir.delete", "workspace": "src", "path": "d"}),
                "dir.delete src:d (an empty directory, removed)",
            ),
            (
                json!({"kind": "http.request", "grant": "g", "method": "POST", "url": "https://a.example/", "headers": [],
                    "body": body(3), "delivery": "staged", "reversal": "compensated"}),
                "http.request POST https://a.example/ (sent, 3 bytes)",
            ),
            (
                json!({"kind": "message.send", "channel": "mail", "to": ["ann@example.com"], "subject": "s",
                    "media_type": "text/plain", "body": body(3)}),
                "message.send mail -> ann@example.com (sent, 3 bytes) [a message that was sent cannot be taken back]",
            ),
            (
                json!({"kind": "kv.set", "bucket": "b", "key": "k", "before": null, "after": body(3)}),
                "kv.set b/k (a new key of 3 bytes)",
            ),
            (
                json!({"kind": "kv.set", "bucket": "b", "key": "k", "before": body(1), "after": body(3)}),
                "kv.set b/k (overwritten, 1 -> 3 bytes)",
            ),
            (
                json!({"kind": "kv.delete", "bucket": "b", "key": "k", "before": body(1)}),
                "kv.delete b/k (removed, 1 byte)",
            ),
            (json!({"kind": "kv.add", "bucket": "b", "key": "k", "delta": "-5"}), "kv.add b/k (-5)"),
        ];
        let mut kinds = std::collections::BTreeSet::new();
        for (value, expected) in rows {
            let effect = effect(value);
            kinds.insert(effect.kind());
            assert_eq!(line(&effect), expected);
        }
        assert_eq!(kinds.len(), Effect::KINDS.len(), "{kinds:?}");
    }
}
