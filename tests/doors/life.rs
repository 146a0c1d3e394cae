//! Starting, stopping, starting again.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::running::{Daemon, until};

#[test]
fn a_second_daemon_on_the_same_directories_is_refused_and_harms_nothing() {
    let daemon = Daemon::start();
    let second = daemon.cli(&["serve"]);
    let told = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{told}");
    assert!(told.contains("another toolkeep daemon is using"), "{told}");
    assert!(daemon.agent().ask("host.info", json!({})).get("result").is_some(), "the first one still answers");
}

#[test]
fn a_killed_daemon_leaves_sockets_that_the_next_one_replaces() {
    let mut daemon = Daemon::start();
    daemon.signal(Signal::KILL);
    daemon.wait();
    assert!(daemon.agent_socket().exists(), "nobody was left to remove it");
    daemon.restart();
    assert!(daemon.agent().ask("host.info", json!({})).get("result").is_some());
}

#[test]
fn t_r4_connections_of_agents_do_not_use_up_what_else_the_daemon_opens() {
    let mut daemon = Daemon::start();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    daemon.restart_with_files(64);
    let mut agents: Vec<_> = (0..100).map(|_| daemon.agent()).collect();
    for agent in &mut agents {
        assert!(agent.ask("host.info", json!({})).get("result").is_some());
    }
}

#[test]
fn sigterm_and_an_operator_stop_the_daemon_gracefully() {
    let mut daemon = Daemon::start();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!daemon.agent_socket().exists() && !daemon.admin_socket().exists(), "no file is left behind");
    daemon.restart();
    let answer = daemon.admin().ask("daemon.drain", json!({}));
    assert_eq!(answer.pointer("/result/draining"), Some(&json!(true)));
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn manifests_are_read_again_when_they_change_and_when_asked() {
    let daemon = Daemon::start();
    let mut admin = daemon.admin();
    let problems = |answer: &Value| answer.pointer("/result/problems").and_then(Value::as_array).map_or(0, Vec::len);
    assert_eq!(problems(&admin.ask("tools.list", json!({}))), 0);
    daemon.home.put("tools/wrong.toml", b"format = 1\nname = \"wrong\"\n");
    until("the change is noticed", || problems(&admin.ask("tools.list", json!({}))) == 1);
    std::fs::remove_file(daemon.home.path().join("tools/wrong.toml")).expect("remove");
    let answer = admin.ask("tools.reload", json!({}));
    assert_eq!(problems(&answer), 0, "{answer}");
    daemon.home.put("tools/worse.toml", b"format = 2\n");
    daemon.signal(Signal::HUP);
    until("the signal is heard", || problems(&admin.ask("tools.list", json!({}))) == 1);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let daemon = Daemon::with("[limits]\nconnections = 2\n");
    let mut first = daemon.agent();
    let mut second = daemon.agent();
    for client in [&mut first, &mut second] {
        assert!(client.ask("host.info", json!({})).get("result").is_some());
    }
    let mut third = daemon.agent();
    let answer = third.line().expect("a reason");
    assert_eq!(answer.pointer("/error/data/code"), Some(&json!("overloaded")), "{answer}");
    assert!(third.is_closed());
    drop(first);
    until("there is room again", || {
        let mut client = daemon.agent();
        client.send(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"host.info\"}\n");
        client.line().is_some_and(|answer| answer.get("result").is_some())
    });
}

#[test]
fn a_socket_path_that_does_not_fit_is_explained() {
    let home = toolkeep_tests::support::scratch::Scratch::new();
    let long = "d".repeat(120);
    home.put(
        "toolkeep.toml",
        format!("[daemon]\nstate_dir = \"s\"\nruntime_dir = \"{long}\"\ntools_dir = \"t\"\n").as_bytes(),
    );
    let output = super::running::run(home.path(), &["--config", "toolkeep.toml", "serve", "--log", "pretty"], "");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("longer than 107 bytes; set a shorter one (`daemon.runtime_dir`)"), "{told}");
}

#[test]
fn a_service_manager_hears_of_ready_and_stopping() {
    let home = toolkeep_tests::support::scratch::Scratch::new();
    let socket = UnixDatagram::bind(home.path().join("notify")).expect("bind");
    home.put("toolkeep.toml", b"[daemon]\nstate_dir = \"s\"\nruntime_dir = \"r\"\ntools_dir = \"t\"\n");
    let mut child = super::running::command(home.path())
        .args(["--config", "toolkeep.toml", "serve"])
        .env("NOTIFY_SOCKET", home.path().join("notify"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the daemon starts");
    let mut heard = [0_u8; 64];
    socket.set_read_timeout(Some(std::time::Duration::from_secs(120))).expect("timeout");
    let count = socket.recv(&mut heard).expect("a message");
    assert_eq!(&heard[..count], b"READY=1");
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("id")).expect("id");
    rustix::process::kill_process(pid, Signal::TERM).expect("signal");
    let count = socket.recv(&mut heard).expect("a message");
    assert_eq!(&heard[..count], b"STOPPING=1");
    assert!(child.wait().expect("end").success());
}
