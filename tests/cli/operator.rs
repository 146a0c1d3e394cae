//! The operator's way: config and doctor.

use serde_json::Value;
use toolkeep_tests::support::scratch::Scratch;

use super::shown::shown;
use crate::doors::running::{Daemon, run};

#[test]
fn a_configuration_that_init_writes_is_valid() {
    let home = Scratch::new();
    let written = run(home.path(), &["config", "init", "mine.toml"], "");
    insta::assert_snapshot!("config_init", shown(&written, home.path()));
    let checked = run(home.path(), &["--config", "mine.toml", "config", "check"], "");
    insta::assert_snapshot!("config_check", shown(&checked, home.path()));
}

#[test]
fn show_tells_what_set_each_key() {
    let home = Scratch::new();
    home.put("a.toml", b"[daemon]\nstate_dir = \"state\"\nruntime_dir = \"run\"\ntools_dir = \"tools\"\nsolo = true\n");
    let output = run(home.path(), &["--config", "a.toml", "-o", "json", "config", "show", "--origin"], "");
    let settings: Value = serde_json::from_slice(&output.stdout).expect("json");
    let origin =
        |key: &str| settings[key]["origin"].as_str().map(|text| text.rsplit('/').next().unwrap_or(text).to_owned());
    assert_eq!(origin("daemon.solo").as_deref(), Some("a.toml"));
    assert_eq!(origin("limits.executions").as_deref(), Some("default"));
    assert_eq!(settings["daemon.solo"]["value"], Value::Bool(true));
}

#[test]
fn the_doctor_warns_of_a_shared_uid_and_finds_a_wide_open_directory() {
    use std::os::unix::fs::PermissionsExt as _;

    let daemon = Daemon::start();
    let doctor = || {
        let output = daemon.cli(&["-o", "json", "doctor"]);
        let findings: Vec<Value> = serde_json::from_slice(&output.stdout).expect("json");
        (output.status.code(), findings)
    };
    let graded = |findings: &[Value], grade: &str| -> Vec<String> {
        let wanted = findings.iter().filter(|f| f["grade"] == grade);
        wanted.map(|f| f["check"].as_str().expect("text").to_owned()).collect()
    };
    let (status, findings) = doctor();
    assert_eq!((status, graded(&findings, "problem")), (Some(0), Vec::new()), "{findings:?}");
    assert!(graded(&findings, "warning").contains(&"agent and operator".to_owned()), "{findings:?}");
    let state = daemon.home.path().join("state");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let (status, findings) = doctor();
    assert_eq!((status, graded(&findings, "problem")), (Some(9), vec!["state directory".to_owned()]));
}

#[test]
fn colour_appears_only_where_it_was_asked_for() {
    let daemon = Daemon::start();
    let escapes = |arguments: &[&str]| daemon.cli(arguments).stdout.contains(&0x1b);
    assert!(!escapes(&["doctor"]), "a pipe is no terminal");
    assert!(escapes(&["--color", "always", "doctor"]));
    assert!(!escapes(&["--color", "never", "doctor"]));
}
