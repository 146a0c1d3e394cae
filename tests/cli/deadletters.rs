//! The operator's way with what could not be delivered: alerts to a file that cannot be written.

use serde_json::{Value, json as value};

use super::tool::{MILK, json, offering_notes};
use crate::doors::running::{Daemon, until};

const ALERTS: &str = "[channel.ops]\nkind = \"file\"\npath = \"missing/alerts.jsonl\"\nattempts = 1\n\
                      [[notify]]\nevents = [\"approval.requested\"]\nchannels = [\"ops\"]\n";

/// Ask until so many dead letters rest.
fn resting(daemon: &Daemon, count: usize) -> Vec<Value> {
    let mut letters = Vec::new();
    until("dead letters rest", || {
        let (status, list) = json(daemon, &["deadletters", "list"]);
        assert_eq!(status, Some(0), "{list}");
        letters = list["dead_letters"].as_array().expect("a list").clone();
        letters.len() == count
    });
    letters
}

#[test]
fn an_alert_that_cannot_be_written_is_listed_shown_retried_and_discarded() {
    let daemon = offering_notes(Daemon::with(ALERTS), 2);
    let (_, held) = json(&daemon, &["call", "notes.add", "-i", MILK]);
    let (_, other) = json(&daemon, &["call", "notes.add", "-i", r#"{"title": "Other", "body": ""}"#]);
    let letters = resting(&daemon, 2);
    let of = |letter: &Value, member: &str| letter[member].as_str().unwrap_or_default().to_owned();
    let (second, first) = (of(&letters[0], "id"), of(&letters[1], "id"));
    assert_eq!((of(&letters[1], "kind"), of(&letters[1], "channel")), ("alert".to_owned(), "ops".to_owned()));
    assert_eq!((&letters[1]["attempts"], &letters[1]["state"]), (&value!(1), &value!("resting")));
    assert!(of(&letters[1], "reason").contains("cannot be written"), "{letters:?}");

    let (_, shown) = json(&daemon, &["deadletters", "show", &first]);
    let facts: Value = serde_json::from_str(shown["message"]["text"].as_str().expect("text")).expect("JSON");
    assert_eq!(facts["approval"], held["approval"]["id"], "{shown}");
    assert_eq!(facts["call_id"], held["call_id"]);
    let page = String::from_utf8(daemon.cli(&["deadletters", "show", &first]).stdout).expect("text");
    assert!(page.contains("approval.requested") && page.contains(&first), "{page}");

    std::fs::create_dir(daemon.home.path().join("missing")).expect("directory");
    assert_eq!(json(&daemon, &["deadletters", "retry", &first]).0, Some(0));
    assert_eq!(json(&daemon, &["deadletters", "discard", &second]).0, Some(0));
    let file = daemon.home.path().join("missing/alerts.jsonl");
    until("the alert is written", || file.exists() && std::fs::metadata(&file).expect("metadata").len() > 0);
    let line: Value = serde_json::from_str(std::fs::read_to_string(&file).expect("the file").trim()).expect("one line");
    assert_eq!((&line["id"], &line["type"]), (&value!(first), &value!("approval.requested")));
    assert_eq!(line["data"]["call_id"], held["call_id"]);
    assert_ne!(held["call_id"], other["call_id"]);

    assert!(resting(&daemon, 0).is_empty());
    let (_, all) = json(&daemon, &["deadletters", "list", "--all"]);
    let states: Vec<String> = all["dead_letters"].as_array().expect("a list").iter().map(|l| of(l, "state")).collect();
    assert_eq!(states, ["discarded", "retried"]);
    for verb in ["retry", "discard"] {
        assert_eq!(daemon.cli(&["deadletters", verb, &second]).status.code(), Some(5), "it rests no more");
    }
    assert_eq!(daemon.cli(&["deadletters", "show", "msg_00000000-0000-7000-8000-000000000000"]).status.code(), Some(5));
    assert_eq!(daemon.cli(&["deadletters", "show", "nonsense"]).status.code(), Some(2));
    assert!(daemon.cli(&["audit", "verify"]).status.success());
}

#[test]
fn alerts_go_to_channels_that_exist_and_have_receivers() {
    use toolkeep_tests::support::scratch::Scratch;

    let home = Scratch::new();
    let check = |more: &str| {
        home.put(
            "a.toml",
            format!("[daemon]\nstate_dir = \"s\"\nruntime_dir = \"r\"\ntools_dir = \"t\"\n{more}").as_bytes(),
        );
        let output = crate::doors::running::run(home.path(), &["--config", "a.toml", "config", "check"], "");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mail = "[channel.mail]\nkind = \"smtp\"\nhost = \"mail.example.com\"\nfrom = \"a@example.com\"\n";
    let notify = "[[notify]]\nchannels = [\"mail\"]\n";
    assert_eq!(check(&format!("{mail}to = [\"b@example.com\"]\n{notify}")).0, Some(0));
    for (text, problem) in [
        (notify.to_owned(), "there is no channel `mail`"),
        (format!("{mail}{notify}"), "has no receivers"),
        (format!("{mail}url = \"https://x\"\n"), "channel.mail.url"),
        (format!("{mail}[[notify]]\nevents = [\"birthday\"]\nchannels = []\n"), "birthday"),
    ] {
        let (status, said) = check(&text);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(problem), "{said}");
    }
}
