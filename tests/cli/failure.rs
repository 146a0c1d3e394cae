//! Failures, whole: what is wrong, which field, what to do, and the exit status.

use toolkeep_tests::support::scratch::Scratch;

use super::shown::shown;
use crate::doors::running::{Daemon, run};

fn fails(home: &Scratch, arguments: &[&str]) -> String {
    shown(&run(home.path(), arguments, ""), home.path())
}

#[test]
fn r12_usage_and_configuration_end_with_2() {
    let home = Scratch::new();
    home.put("unknown.toml", b"[daemon]\nstate_dri = \"/x\"\n");
    home.put("wrong.toml", b"[[workspace]]\nname = \"books\"\npath = \"/etc\"\n");
    insta::assert_snapshot!("no_command", fails(&home, &[]));
    insta::assert_snapshot!("unknown_command", fails(&home, &["frobnicate"]));
    insta::assert_snapshot!("unknown_key", fails(&home, &["--config", "unknown.toml", "config", "check"]));
    insta::assert_snapshot!("dangerous_workspace", fails(&home, &["--config", "wrong.toml", "config", "check"]));
    insta::assert_snapshot!("missing_config", fails(&home, &["--config", "nowhere.toml", "config", "check"]));
    insta::assert_snapshot!("input_is_no_json", fails(&home, &["call", "notes.add", "-i", "{\"a\":1,\"a\":2}"]));
    insta::assert_snapshot!("undo_of_nothing", fails(&home, &["undo", "yesterday"]));
    insta::assert_snapshot!("new_with_a_bad_name", fails(&home, &["new", "My Tool"]));
}

#[test]
fn r12_without_a_daemon_commands_end_with_8() {
    let home = Scratch::new();
    insta::assert_snapshot!("no_daemon_for_agents", fails(&home, &["--agent-socket", "no.sock", "tools", "list"]));
    insta::assert_snapshot!(
        "no_daemon_for_operators",
        fails(&home, &["--admin-socket", "no.sock", "approvals", "list"])
    );
}

#[test]
fn r12_refusals_of_the_daemon_end_with_their_own_status() {
    let daemon = Daemon::start();
    let fails = |arguments: &[&str]| shown(&daemon.cli(arguments), daemon.home.path());
    let nobody = "00000000-0000-0000-0000-000000000007";
    insta::assert_snapshot!("no_such_tool", fails(&["call", "nothing"]));
    insta::assert_snapshot!("no_such_plan", fails(&["commit", &format!("plan_{nobody}")]));
    insta::assert_snapshot!("no_such_approval", fails(&["approvals", "approve", &format!("appr_{nobody}")]));
    insta::assert_snapshot!("not_an_id", fails(&["plans", "show", "latest"]));
    insta::assert_snapshot!("json_goes_to_stdout_only", fails(&["-o", "json", "call", "nothing"]));
}

#[test]
fn a_file_that_is_there_is_never_overwritten_by_init_or_new() {
    let home = Scratch::new();
    home.put("toolkeep.toml", b"# mine\n");
    home.put("mine/keep", b"x");
    assert!(fails(&home, &["config", "init"]).starts_with("status 2"));
    assert!(fails(&home, &["new", "mine"]).starts_with("status 2"));
    assert_eq!(std::fs::read(home.path().join("toolkeep.toml")).expect("still there"), b"# mine\n");
    assert_eq!(std::fs::read_dir(home.path().join("mine")).expect("still there").count(), 1);
}
