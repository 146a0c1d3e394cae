//! Files as guests see them: no path leads out, nothing is changed without a grant, and only an output has effects.

use std::os::unix::fs::symlink;

use toolkeep_core::capability::Access;
use toolkeep_sandbox::execution::{Ended, Execution};
use toolkeep_tests::support::guest_call::{GuestCall, output};
use toolkeep_tests::support::scratch::Scratch;

/// A workspace with a file, a link out of it, a second name of a file outside, a loop and a FIFO; secrets beside it.
fn trap_laid() -> Scratch {
    let scratch = Scratch::new();
    scratch.put("outside.txt", b"secret");
    scratch.put("books/inside.txt", b"inside");
    scratch.put("books/sub/file.txt", b"sub");
    let books = scratch.path().join("books");
    symlink(scratch.path(), books.join("link")).expect("link");
    symlink("loop", books.join("loop")).expect("loop");
    std::fs::hard_link(scratch.path().join("outside.txt"), books.join("hard")).expect("hard link");
    let fifo = rustix::fs::mknodat(
        rustix::fs::CWD,
        books.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    );
    fifo.expect("fifo");
    scratch
}

/// What exists below `scratch`, with contents.
fn listing(scratch: &Scratch) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![scratch.path().to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("read").flatten() {
            let kind = entry.file_type().expect("kind");
            let name = entry.path().strip_prefix(scratch.path()).expect("below").display().to_string();
            let content = if kind.is_file() { std::fs::read(entry.path()).expect("content") } else { Vec::new() };
            found.push((name, content));
            if kind.is_dir() {
                open.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// What the guest says of its attempts: path, way, answer.
fn attempts(execution: &Execution) -> Vec<(String, String, String)> {
    let said: Vec<[String; 4]> = serde_json::from_str(output(execution)).expect("answers");
    said.into_iter().map(|[_, path, way, answer]| (path, way, answer)).collect()
}

#[tokio::test]
async fn t_f1_no_way_leads_out_of_a_workspace() {
    for access in [Access::Read, Access::Write] {
        let scratch = trap_laid();
        let before = listing(&scratch);
        let execution = GuestCall::new("path-escape").workspace(&scratch.path().join("books"), access).run().await;
        let attempts = attempts(&execution);
        assert!(attempts.len() > 400, "{} attempts", attempts.len());
        for (path, way, answer) in &attempts {
            let looks = way == "stat" || way == "readlink";
            let names = ["link", "hard", "loop", "fifo"];
            // Links and special files may be looked at; what is behind them may not.
            let harmless = looks && names.contains(&path.as_str());
            // A name of one component without a separator is only a strange name inside of the workspace.
            let inside = !path.contains('/') && path != ".." && !path.is_empty() && !names.contains(&path.as_str());
            assert!(answer != "done" || harmless || inside || way == "rename-to", "{way} {path:?}: {answer}");
        }
        assert_eq!(listing(&scratch), before, "nothing was changed");
        let effects: Vec<String> =
            execution.staged.effects.iter().map(|effect| serde_json::to_string(effect).expect("JSON")).collect();
        assert!(!effects.iter().any(|effect| effect.contains("outside") || effect.contains("..")), "{effects:?}");
        assert!(!execution.staged.breaches.is_empty());
        let kept = serde_json::to_string(&execution.recording).expect("JSON");
        assert!(!kept.contains("secret") && !kept.contains("736563726574"), "the secret was read");
    }
}

#[tokio::test]
async fn r05_a_tool_that_says_it_only_reads_changes_nothing_and_is_caught() {
    let scratch = Scratch::new();
    scratch.put("inside.txt", b"as it was");
    let execution = GuestCall::new("read-only-writer").workspace(scratch.path(), Access::Read).run().await;
    assert!(matches!(execution.ended, Ended::Error(_)), "{:?}", execution.ended);
    assert!(execution.staged.effects.is_empty());
    assert!(!execution.staged.breaches.is_empty());
    assert_eq!(listing(&scratch), [("inside.txt".to_owned(), b"as it was".to_vec())]);

    let execution = GuestCall::new("read-only-writer").workspace(scratch.path(), Access::Write).run().await;
    assert!(matches!(execution.ended, Ended::Output(_)));
    assert_eq!(execution.staged.effects.len(), 1, "where it may write, it is an effect");
    assert_eq!(listing(&scratch), [("inside.txt".to_owned(), b"as it was".to_vec())]);
}

#[tokio::test]
async fn r07_a_failed_execution_has_no_effects() {
    let scratch = Scratch::new();
    let n = |count| GuestCall::new("million-files").number(count).workspace(scratch.path(), Access::Write);
    let limited = n(100).limits(|limits| limits.fuel = 60_000).run().await;
    assert!(matches!(limited.ended, Ended::Fault(_)), "{:?}", limited.ended);
    assert!(limited.staged.effects.is_empty() && limited.staged.contents.is_empty());
    assert!(limited.recording.events.iter().any(|event| event.import.contains("open-at")), "it had begun");
    let whole = n(100).run().await;
    assert_eq!(whole.staged.effects.len(), 100);
}

#[tokio::test]
async fn what_a_guest_reads_is_in_its_recording_once_and_in_its_read_set() {
    let scratch = Scratch::new();
    let content = "date,text,category,amount\n2026-01-02,Rent,rent,-10.00\n";
    scratch.put("ledger/2026-01.csv", content.as_bytes());
    let call = |bytes| {
        let call = GuestCall::new("csv-report").input(r#"{"input":"ledger","output":"summary.md"}"#);
        call.workspace(scratch.path(), Access::Write).limits(|limits| limits.recording_bytes = bytes)
    };
    let whole = call(256 * 1024).run().await;
    assert!(matches!(whole.ended, Ended::Output(_)), "{:?}", whole.ended);
    assert_eq!((whole.recording.dropped_bytes, whole.recording.dropped_events), (0, 0));
    let text = serde_json::to_string(content).expect("JSON");
    assert_eq!(serde_json::to_string(&whole.recording).expect("JSON").matches(&text).count(), 1);
    assert!(whole.staged.read_set.iter().any(|entry| format!("{entry:?}").contains("2026-01.csv")));
    assert_eq!(whole.staged.effects.len(), 1);

    let bare = call(0).run().await;
    assert_eq!(bare.recording.dropped_bytes, content.len() as u64, "it says that it lost them");
    assert_eq!(bare.staged.effects, whole.staged.effects);
}
