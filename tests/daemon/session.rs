//! A day of an agent and its operator on the command line: what each command answers, and with which exit status.

use std::process::Output;

use serde_json::Value;

use super::world::{Plot, World};

fn code(world: &World, arguments: &[&str], wanted: i32) -> Output {
    let output = world.cli(arguments);
    assert_eq!(output.status.code(), Some(wanted), "{arguments:?}: {output:?}");
    output
}

fn json(world: &World, arguments: &[&str], wanted: i32) -> Value {
    let mut all = vec!["-o", "json"];
    all.extend(arguments);
    let output = code(world, &all, wanted);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

const NOTE: &str = r#"{"title":"From a shell","body":"b"}"#;
const RENAME: &str = r#"{"from":"old_name","to":"new_name"}"#;

#[test]
fn r53_every_end_of_a_command_has_its_exit_status() {
    let world = World::new();
    code(&world, &["tools", "list"], 0);
    code(&world, &["call", "spin", "-i", "{}"], 7);
    code(&world, &["call", "trap", "-i", "{}"], 1);
    code(&world, &["call", "nothing", "-i", "{}"], 5);
    code(&world, &["call", "notes.add", "-i", "{"], 2);
    code(&world, &["call", "notes.add", "-i", r#"{"title":7}"#], 2);
    let shown = json(&world, &["preview", "notes.add", "-i", NOTE], 0);
    world.home.put("notes/from-a-shell.md", b"somebody else");
    code(&world, &["commit", text(&shown, "/plan/id")], 6);
    std::fs::remove_file(world.path("notes/from-a-shell.md")).expect("file");
    let done = json(&world, &["call", "notes.add", "-i", NOTE, "--key", "k"], 0);
    let again = json(&world, &["call", "notes.add", "-i", NOTE, "--key", "k"], 0);
    assert_eq!((text(&done, "/call_id"), &again["replayed"]), (text(&again, "/call_id"), &Value::Bool(true)));
    world.home.put("receipt.json", done["receipt"].to_string().as_bytes());
    code(&world, &["receipts", "verify", "receipt.json"], 0);
    world.home.put("receipt.json", done["receipt"].to_string().replace("notes.add", "notes.bad").as_bytes());
    code(&world, &["receipts", "verify", "receipt.json"], 3);
    let held = json(&world, &["call", "held-rename", "-i", RENAME], 4);
    let approval = text(&held, "/approval/id");
    code(&world, &["approvals", "show", approval], 0);
    code(&world, &["approvals", "reject", approval, "--reason", "not today"], 0);
    code(&world, &["approvals", "approve", approval], 3);
    let held = json(&world, &["call", "held-rename", "-i", RENAME], 4);
    code(&world, &["approvals", "approve", text(&held, "/approval/id"), "--reason", "fine"], 0);
    assert!(world.path("src/shop/new_name.py").exists());
    code(&world, &["undo", text(&held, "/call_id")], 0);
    assert!(world.path("src/shop/old_name.py").exists());
    code(&world, &["undo", "call_00000000-0000-7000-8000-000000000000"], 5);
    code(&world, &["audit", "verify"], 0);
}

#[test]
fn r53_without_a_daemon_every_command_says_so() {
    let world = World::asleep(Plot::default());
    for arguments in
        [&["tools", "list"][..], &["call", "spin", "-i", "{}"], &["approvals", "list"], &["audit", "verify"]]
    {
        code(&world, arguments, 8);
    }
}
