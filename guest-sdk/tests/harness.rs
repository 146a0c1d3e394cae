//! The test harness as an author uses it: a tool from the outside, its effects, its failures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use toolkeep_sdk::context::{self, Mode, Principal};
use toolkeep_sdk::testing::Harness;
use toolkeep_sdk::{Component, EffectKind, Error, ErrorKind, log, progress, tool, workspace};

/// What to append.
#[derive(Deserialize, JsonSchema)]
struct AppendArgs {
    /// The file.
    path: String,
    /// The line.
    line: String,
    /// Fail after writing.
    #[serde(default)]
    fail: bool,
}

/// What came of it.
#[derive(Serialize, JsonSchema)]
struct AppendOutput {
    /// Number of lines now.
    lines: usize,
    /// Who did it.
    user: String,
}

/// Appends a line to a file.
///
/// When: asked to.
/// Side effects: writes one file of the workspace `notes`.
/// Errors: conflict if told to fail.
#[tool(effects("file.write"))]
fn append(args: AppendArgs) -> Result<AppendOutput, Error> {
    let notes = workspace("notes")?;
    let mut text = notes.read_to_string(&args.path)?;
    text.push_str(&args.line);
    text.push('\n');
    notes.write(&args.path, &text)?;
    log::info(format_args!("wrote {}", args.path));
    progress::report(1, Some(1), "written");
    if args.fail {
        return Err(Error::conflict("told to fail"));
    }
    Ok(AppendOutput { lines: text.lines().count(), user: context::caller().user })
}

/// Writes although it says that it only reads.
///
/// When: never.
/// Side effects: none.
/// Errors: none of its own.
#[tool]
fn liar(args: AppendArgs) -> toolkeep_sdk::Result<()> {
    workspace("notes")?.write(&args.path, &args.line)
}

/// An output that is not what its schema says.
#[derive(Serialize, JsonSchema)]
struct Wrong {
    #[schemars(with = "u32")]
    count: &'static str,
}

/// Returns what its schema refuses.
///
/// When: never.
/// Side effects: none.
/// Errors: none of its own.
#[tool]
fn wrong(_args: AppendArgs) -> toolkeep_sdk::Result<Wrong> {
    Ok(Wrong { count: "many" })
}

toolkeep_sdk::export!(append, liar, wrong);

fn harness() -> Harness {
    Harness::new().workspace("notes", [("a.txt", "one\n")])
}

#[test]
fn a_call_shows_result_effects_log_and_progress() {
    let outcome = harness().call(append, json!({"path": "a.txt", "line": "two"}));
    assert_eq!(outcome.output(), &json!({"lines": 2, "user": "user"}));
    let effect = outcome.effect("notes", "a.txt");
    assert_eq!(effect.kind, EffectKind::FileWrite);
    assert_eq!(effect.before.as_deref(), Some(b"one\n".as_slice()));
    assert_eq!(effect.text(), "one\ntwo\n");
    assert_eq!(
        outcome.to_string(),
        "result: {\"lines\":2,\"user\":\"user\"}\neffects: 1\n  file.write   notes:a.txt  (4 -> 8 bytes)\n\
         log: Info wrote a.txt\nprogress: 1/1 written\n"
    );
}

#[test]
fn calls_on_one_harness_see_each_other_and_those_on_two_do_not() {
    let (first, second) = (harness(), harness());
    first.call(append, json!({"path": "a.txt", "line": "two"}));
    let again = first.call(append, json!({"path": "a.txt", "line": "three"}));
    assert_eq!(again.output()["lines"], 3);
    assert_eq!(second.read("notes", "a.txt").as_deref(), Some("one\n"));
}

#[test]
fn a_failed_call_leaves_nothing_and_shows_what_was_thrown_away() {
    let harness = harness();
    let outcome = harness.call(append, json!({"path": "a.txt", "line": "two", "fail": true}));
    assert_eq!(outcome.error().kind(), ErrorKind::Conflict);
    assert!(outcome.effects.is_empty());
    assert_eq!(outcome.discarded.len(), 1);
    assert_eq!(harness.read("notes", "a.txt").as_deref(), Some("one\n"));
}

#[test]
fn a_preview_shows_effects_and_changes_nothing() {
    let harness = harness().mode(Mode::Preview);
    let outcome = harness.call(append, json!({"path": "a.txt", "line": "two"}));
    assert_eq!(outcome.effect_list(), ["file.write notes:a.txt"]);
    assert_eq!(harness.read("notes", "a.txt").as_deref(), Some("one\n"));
}

#[test]
fn an_input_that_the_schema_refuses_never_reaches_the_tool() {
    let outcome = harness().call(append, json!({"path": "a.txt", "line": "two", "mood": "good"}));
    assert_eq!(outcome.error().kind(), ErrorKind::InvalidInput);
    assert!(outcome.error().message().contains("'mood' was unexpected"), "{outcome}");
    assert!(outcome.log.is_empty());
    let outcome = harness().call(append, json!({"path": 7, "line": "two"}));
    assert_eq!(outcome.error().fields()[0].pointer, "/path");
}

#[test]
fn the_caller_of_a_test_reaches_the_tool() {
    let caller = Principal { tenant: "t".to_owned(), user: "ada".to_owned(), agent: "a".to_owned() };
    let outcome = harness().caller(caller).call(append, json!({"path": "a.txt", "line": "two"}));
    assert_eq!(outcome.output()["user"], "ada");
}

#[test]
#[should_panic(expected = "the tool `liar` does not declare what it did")]
fn an_undeclared_effect_fails_the_test() {
    harness().call(liar, json!({"path": "b.txt", "line": "two"}));
}

#[test]
#[should_panic(expected = "the output of this tool does not fit its own schema")]
fn an_output_outside_of_its_schema_fails_the_test() {
    harness().call(wrong, json!({"path": "b.txt", "line": "two"}));
}

#[test]
fn outside_of_a_harness_there_is_no_workspace_and_nobody() {
    let answer = ToolkeepComponent::invoke("append", r#"{"path":"a.txt","line":"two"}"#);
    assert_eq!(answer.unwrap_err().to_string(), "not-found: this tool has no workspace `notes`");
    assert_eq!(context::caller().user, "nobody");
}

#[test]
fn parallel_harnesses_do_not_meet() {
    let threads: Vec<_> = (0..8)
        .map(|number| {
            std::thread::spawn(move || {
                let harness = harness();
                for _ in 0..20 {
                    let line = number.to_string();
                    harness.call(append, json!({"path": "a.txt", "line": line}));
                }
                harness
                    .read("notes", "a.txt")
                    .map(|text| (text.lines().count(), text.matches(&number.to_string()).count()))
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().ok().flatten(), Some((21, 20)));
    }
}
