//! What a command showed, as one text that can be compared: exit status, both streams, and nothing that differs from run
//! to run.

use std::path::Path;
use std::process::Output;

/// Everything of an output, with ids of all kinds, digests, times and the test's directory replaced by words.
pub(crate) fn shown(output: &Output, home: &Path) -> String {
    let text = |bytes: &[u8]| masked(&String::from_utf8_lossy(bytes), home);
    let status = output.status.code().map_or_else(|| "killed".to_owned(), |code| code.to_string());
    let mut whole = format!("status {status}\n");
    for (name, stream) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !stream.is_empty() {
            whole.push_str(&format!("--- {name}\n{}", text(stream)));
        }
    }
    whole
}

fn masked(text: &str, home: &Path) -> String {
    let text = text.replace(&home.display().to_string(), "HOME");
    let mut masked = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.') {
            word.push(c);
        } else {
            masked.push_str(&replaced(&word));
            word.clear();
            masked.push(c);
        }
    }
    masked.push_str(&replaced(&word));
    masked.lines().map(|line| format!("{}\n", without_time(line.trim_end()))).collect()
}

/// How long a call took differs from run to run.
fn without_time(line: &str) -> String {
    match line.split_once("\"wall_ms\": ") {
        Some((before, after)) => {
            format!("{before}\"wall_ms\": N{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line.to_owned(),
    }
}

/// A word, or what stands for it.
fn replaced(word: &str) -> String {
    let core = word.trim_end_matches([':', '.', ',']);
    let rest = word.strip_prefix(core).unwrap_or_default();
    let kind = ["call_", "plan_", "appr_", "run_", "rcpt_"]
        .iter()
        .find(|kind| core.strip_prefix(**kind).is_some_and(|id| id.len() == 36 && id.matches('-').count() == 4));
    let hex =
        |length: usize| core.len() == length && core.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let time = core.len() == 20 && core.ends_with('Z') && core.matches(':').count() == 2;
    let stands = match kind {
        Some(kind) => format!("{kind}ID"),
        None if hex(64) => "DIGEST".to_owned(),
        None if hex(32) => "TRACE".to_owned(),
        None if hex(12) && core.bytes().any(|b| b.is_ascii_digit()) => "SHORT".to_owned(),
        None if time => "TIME".to_owned(),
        None => core.to_owned(),
    };
    format!("{stands}{rest}")
}

#[test]
fn only_what_differs_from_run_to_run_is_replaced() {
    let home = Path::new("/tmp/x");
    let id = "plan_0194a3f2-0000-7000-8000-00000000000a";
    assert_eq!(masked(&format!("see `{id}`: /tmp/x/a"), home), "see `plan_ID`: HOME/a\n");
    assert_eq!(masked(&"ab".repeat(32), home), "DIGEST\n");
    assert_eq!(masked("at 2026-11-21T10:00:00Z, 12 files\n", home), "at TIME, 12 files\n");
}
