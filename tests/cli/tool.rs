//! The whole way of a tool: install, preview, commit, retry, hold, approve, undo, with real components and files.

use serde_json::Value;
use toolkeep_tests::support::components;

use super::shown::shown;
use crate::doors::running::{Daemon, until};

/// A daemon that offers `notes` with a tier.
fn with_notes(tier: u8) -> Daemon {
    offering_notes(Daemon::start(), tier)
}

pub(super) fn offering_notes(daemon: Daemon, tier: u8) -> Daemon {
    std::fs::copy(components::path("notes"), daemon.home.path().join("notes.wasm")).expect("the built tool");
    let packed = daemon.cli(&["tools", "pack", "notes.wasm"]);
    assert!(packed.status.success(), "{}", shown(&packed, daemon.home.path()));
    let manifest = format!(
        "format = 1\nname = \"notes\"\ncomponent = \"notes.wasm\"\ntier = {tier}\n\
         [[workspace]]\nname = \"notes\"\naccess = \"write\"\n"
    );
    daemon.home.put("notes.toml", manifest.as_bytes());
    let installed = daemon.cli(&["tools", "install", "notes.toml"]);
    assert!(installed.status.success(), "{}", shown(&installed, daemon.home.path()));
    daemon
}

pub(super) fn json(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["-o", "json"];
    all.extend(arguments);
    let output = daemon.cli(&all);
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", shown(&output, daemon.home.path())));
    (output.status.code(), value)
}

fn files(daemon: &Daemon) -> Vec<String> {
    let entries = std::fs::read_dir(daemon.home.path().join("notes")).expect("the workspace");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(super) const MILK: &str = r#"{"title": "Buy milk", "body": "Two litres."}"#;

#[test]
fn a_preview_changes_nothing_and_its_commit_exactly_what_was_shown() {
    let daemon = with_notes(1);
    let show = |arguments: &[&str]| shown(&daemon.cli(arguments), daemon.home.path());
    insta::assert_snapshot!("tools_list", show(&["tools", "list"]));
    insta::assert_snapshot!("preview", show(&["preview", "notes.add", "-i", MILK]));
    assert!(files(&daemon).is_empty(), "a preview changes nothing");
    let (_, preview) = json(&daemon, &["preview", "notes.add", "-i", MILK]);
    let digest = preview["plan"]["digest"].as_str().expect("a digest");
    insta::assert_snapshot!("commit", show(&["commit", digest]));
    assert_eq!(files(&daemon), ["buy-milk.md"]);
    insta::assert_snapshot!("commit_again", show(&["commit", digest]));
}

#[test]
fn t_i2_a_retry_with_the_same_key_gets_the_stored_reply() {
    let daemon = with_notes(1);
    let arguments = ["call", "notes.add", "-i", MILK, "--key", "milk"];
    let (status, mut first) = json(&daemon, &arguments);
    assert_eq!((status, &first["outcome"]), (Some(0), &Value::from("committed")));
    let (status, mut again) = json(&daemon, &arguments);
    assert_eq!(status, Some(0));
    assert_eq!((first["replayed"].take(), again["replayed"].take()), (Value::Bool(false), Value::Bool(true)));
    assert_eq!(first, again, "the same bytes, so the same receipt and call");
    assert_eq!(files(&daemon).len(), 1);
    let other = daemon.cli(&["call", "notes.add", "-i", r#"{"title": "Other", "body": ""}"#, "--key", "milk"]);
    insta::assert_snapshot!("key_with_another_input", shown(&other, daemon.home.path()));
}

#[test]
fn r22_a_held_plan_is_shown_approved_committed_and_undone() {
    let daemon = with_notes(2);
    let show = |arguments: &[&str]| shown(&daemon.cli(arguments), daemon.home.path());
    let (status, held) = json(&daemon, &["call", "notes.add", "-i", MILK]);
    assert_eq!((status, &held["outcome"]), (Some(4), &Value::from("pending")));
    assert!(files(&daemon).is_empty(), "nothing happens before somebody agrees");
    let approval = held["approval"]["id"].as_str().expect("an approval").to_owned();
    insta::assert_snapshot!("approvals_list", show(&["approvals", "list"]));
    insta::assert_snapshot!("approvals_show", show(&["approvals", "show", &approval]));
    insta::assert_snapshot!("approvals_approve", show(&["approvals", "approve", &approval, "--reason", "fine"]));
    assert_eq!(files(&daemon), ["buy-milk.md"]);
    let call = held["call_id"].as_str().expect("a call");
    insta::assert_snapshot!("undo_preview", show(&["undo", call, "--preview"]));
    assert_eq!(files(&daemon).len(), 1);
    insta::assert_snapshot!("undo", show(&["undo", call]));
    assert!(files(&daemon).is_empty());
    insta::assert_snapshot!("audit_verify", masked_counts(&show(&["audit", "verify"])));
}

#[test]
fn a_rejection_reaches_the_agent_with_its_reason() {
    let daemon = with_notes(2);
    let (_, held) = json(&daemon, &["call", "notes.add", "-i", MILK, "--key", "k"]);
    let approval = held["approval"]["id"].as_str().expect("an approval").to_owned();
    assert!(daemon.cli(&["approvals", "reject", &approval, "--reason", "not today"]).status.success());
    let (status, reply) = json(&daemon, &["call", "notes.add", "-i", MILK, "--key", "k"]);
    assert_eq!((status, &reply["error"]["code"]), (Some(3), &Value::from("approval_rejected")), "{reply}");
    assert!(reply["error"]["message"].as_str().expect("text").contains("not today"), "{reply}");
    assert!(files(&daemon).is_empty());
}

#[test]
fn r23_an_irreversible_plan_wants_its_digest_typed() {
    let own = rustix::process::geteuid().as_raw();
    // One person, who says so: `solo`. The file begins with `[daemon]`, so the operator's entry may follow the rest.
    let more = format!("[[operator]]\nuid = {own}\nuser = \"alice\"\ntenant = \"local\"\n");
    let daemon = offering_notes(Daemon::solo(&more), 3);
    let (status, held) = json(&daemon, &["call", "notes.add", "-i", MILK]);
    assert_eq!((status, &held["outcome"]), (Some(4), &Value::from("pending")));
    let approval = held["approval"]["id"].as_str().expect("an approval").to_owned();
    let digits: String = held["plan"]["digest"].as_str().expect("a digest").chars().take(12).collect();
    let approve = |confirm: &[&str]| {
        let mut all = vec!["approvals", "approve", &approval];
        all.extend(confirm);
        daemon.cli(&all).status.code()
    };
    assert_eq!(approve(&[]), Some(3), "not without");
    assert_eq!(approve(&["--confirm", "000000000000"]), Some(3), "not with another");
    assert!(files(&daemon).is_empty());
    assert_eq!(approve(&["--confirm", &digits]), Some(0));
    assert_eq!(files(&daemon), ["buy-milk.md"]);
}

#[test]
fn a_call_can_wait_for_the_people_who_decide() {
    let daemon = with_notes(2);
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| json(&daemon, &["call", "notes.add", "-i", MILK, "--wait"]));
        let mut approval = String::new();
        until("the plan is held", || {
            let (_, list) = json(&daemon, &["approvals", "list"]);
            approval = list["approvals"][0]["id"].as_str().unwrap_or_default().to_owned();
            !approval.is_empty()
        });
        assert!(daemon.cli(&["approvals", "approve", &approval]).status.success());
        let (status, reply) = waiting.join().expect("the call");
        assert_eq!((status, &reply["outcome"]), (Some(0), &Value::from("committed")), "{reply}");
    });
    assert_eq!(files(&daemon), ["buy-milk.md"]);
}

#[test]
fn receipts_verify_until_somebody_changes_them() {
    let daemon = with_notes(1);
    let (_, reply) = json(&daemon, &["call", "notes.add", "-i", MILK]);
    let verify = |value: &Value| daemon.cli_with(&["receipts", "verify", "-"], &value.to_string()).status.code();
    assert_eq!(verify(&reply), Some(0));
    let mut forged = reply.clone();
    forged["receipt"]["statement"]["totals"]["creates"] = Value::from(2);
    assert_eq!(verify(&forged), Some(3));
}

/// How many entries there are depends on what else the daemon noted.
fn masked_counts(text: &str) -> String {
    let word = |word: &str| if word.bytes().all(|b| b.is_ascii_digit()) { "N".to_owned() } else { word.to_owned() };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines()
        .enumerate()
        .map(|(at, text)| if at == 0 { text.to_owned() } else { line(text) })
        .collect::<Vec<_>>()
        .join("\n")
}
