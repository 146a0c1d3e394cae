//! The two planes: who may connect, and that no method of one is known on the other.

use std::os::unix::fs::MetadataExt as _;

use serde_json::{Value, json};
use toolkeep::daemon::method::{AdminMethod, AgentMethod};

use super::running::Daemon;

fn code(answer: &Value) -> Option<i64> {
    answer.pointer("/error/code").and_then(Value::as_i64)
}

fn word(answer: &Value) -> Option<&str> {
    answer.pointer("/error/data/code").and_then(Value::as_str)
}

#[test]
fn r15_an_admin_method_on_the_agent_socket_is_as_unknown_as_one_that_nobody_wrote() {
    let daemon = Daemon::start();
    let mut agent = daemon.agent();
    let unknown = agent.ask("nobody.wrote", json!({}));
    assert_eq!(code(&unknown), Some(-32_601));
    for method in AdminMethod::ALL.iter().filter(|method| AgentMethod::named(method.name()).is_none()) {
        let answer = agent.ask(method.name(), json!({}));
        let told = answer.to_string().replace(method.name(), "nobody.wrote");
        assert_eq!(told, unknown.to_string(), "the answer tells nothing but the name that was asked");
    }
    let mut admin = daemon.admin();
    for method in AgentMethod::ALL.iter().filter(|method| AdminMethod::named(method.name()).is_none()) {
        assert_eq!(code(&admin.ask(method.name(), json!({}))), Some(-32_601), "{}", method.name());
    }
}

#[test]
fn every_method_exists_on_its_plane() {
    let daemon = Daemon::start();
    let mut agent = daemon.agent();
    for method in AgentMethod::ALL {
        let answer = agent.ask(method.name(), json!({"no such parameter": 1}));
        assert_eq!(code(&answer), Some(-32_602), "{}: {answer}", method.name());
    }
    let mut admin = daemon.admin();
    for method in AdminMethod::ALL {
        let answer = admin.ask(method.name(), json!({"no such parameter": 1}));
        assert_eq!(code(&answer), Some(-32_602), "{}: {answer}", method.name());
    }
}

#[test]
fn t_i6_where_agent_and_operator_share_a_uid_the_admin_plane_wants_the_token() {
    let daemon = Daemon::start();
    let mut stranger = daemon.stranger();
    for method in AdminMethod::ALL.iter().filter(|method| **method != AdminMethod::SessionAuthenticate) {
        let answer = stranger.ask(method.name(), json!({}));
        assert_eq!(word(&answer), Some("unauthorized"), "{}: {answer}", method.name());
    }
    for wrong in ["", "guess", "token"] {
        let answer = stranger.ask("session.authenticate", json!({"token": wrong}));
        assert_eq!(word(&answer), Some("unauthorized"), "{answer}");
        assert_eq!(word(&stranger.ask("health.get", json!({}))), Some("unauthorized"));
    }
    let mut admin = daemon.admin();
    assert_eq!(admin.ask("health.get", json!({})).pointer("/result/ready"), Some(&json!(true)));
    let answer = admin.ask("session.authenticate", json!({"token": "guess"}));
    assert_eq!(word(&answer), Some("unauthorized"), "a wrong token is never ignored");
    assert_eq!(word(&admin.ask("health.get", json!({}))), Some("unauthorized"), "and it closes the session");
}

#[test]
fn t_i6_a_uid_that_is_mapped_to_nobody_hears_why_and_is_closed() {
    let own = rustix::process::geteuid().as_raw();
    let daemon = Daemon::with(&format!(
        "[[principal]]\nuid = {}\ntenant = \"local\"\nuser = \"a\"\nagent = \"b\"\n\
         [[operator]]\nuid = {own}\nuser = \"o\"\ntenant = \"local\"\n",
        own + 1
    ));
    let mut stranger = daemon.agent();
    let answer = stranger.line().expect("a reason");
    assert_eq!((answer["id"].clone(), word(&answer)), (Value::Null, Some("unauthorized")), "{answer}");
    assert!(stranger.is_closed());
    // Nobody is both now, so the operator needs no token.
    assert_eq!(daemon.stranger().ask("health.get", json!({})).pointer("/result/ready"), Some(&json!(true)));
}

#[test]
fn t_i6_the_planes_are_apart_on_disk() {
    let daemon = Daemon::start();
    let mode = |path: &str| std::fs::metadata(daemon.home.path().join(path)).expect(path).mode() & 0o777;
    assert_eq!(mode("run/agent"), 0o750);
    assert_eq!(mode("run/agent/agent.sock"), 0o660);
    assert_eq!(mode("run/admin"), 0o700);
    assert_eq!(mode("run/admin/admin.sock"), 0o600);
    assert_eq!(mode("run/admin/token"), 0o600);
    assert_eq!(mode("run") & 0o022, 0);
    assert_eq!(mode("state"), 0o700);
}

#[test]
fn the_description_of_the_protocol_lists_every_method_once() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    let text = std::fs::read_to_string(path).expect("docs/protocol.md");
    let (_, agent) = text.split_once("## Methods of the agent plane").expect("the agent plane");
    let (agent, admin) = agent.split_once("## Methods of the admin plane").expect("the admin plane");
    let rows = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect()
    };
    assert_eq!(rows(agent), AgentMethod::ALL.map_names());
    assert_eq!(rows(admin), AdminMethod::ALL.map_names());
}

trait Names {
    fn map_names(&self) -> Vec<String>;
}

impl Names for [AgentMethod] {
    fn map_names(&self) -> Vec<String> {
        self.iter().map(|method| method.name().to_owned()).collect()
    }
}

impl Names for [AdminMethod] {
    fn map_names(&self) -> Vec<String> {
        self.iter().map(|method| method.name().to_owned()).collect()
    }
}
