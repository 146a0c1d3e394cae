//! Kill chain 4: a page in somebody's browser drives the daemon. It is broken by independent controls: there is no door unless
//! one was configured, the door has names, pages have origins, everybody shows a token, and nothing there approves. With any one
//! of host, origin and token switched off the others still hold; with all of them off the attack is real.

use serde_json::{Value, json};

use super::super::world::World;
use super::http::{Answer, open, port, say, token};
use super::stateless;

/// What the page wants written.
fn attack(method: &str, params: Value) -> String {
    let mut params = params;
    params["_meta"] = stateless();
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

/// The request of a page at `origin` that reaches the door as `host`, with what else it could get hold of.
fn page(port: u16, host: &str, origin: &str, more: &[String]) -> Answer {
    let mut lines = vec![
        format!("Host: {host}"),
        format!("Origin: {origin}"),
        "Content-Type: application/json".to_owned(),
        "Accept: */*".to_owned(),
        "MCP-Protocol-Version: 2026-07-28".to_owned(),
        "Mcp-Method: tools/call".to_owned(),
        "Mcp-Name: notes.add".to_owned(),
    ];
    lines.extend_from_slice(more);
    let body = attack("tools/call", json!({"name": "notes.add", "arguments": {"title": "Pwned", "body": "by a page"}}));
    say(port, "POST /mcp", &lines, &body)
}

fn bearer(token: &str) -> Vec<String> {
    vec![format!("Authorization: Bearer {token}")]
}

#[test]
fn t_i7_kill_chain_4_a_page_cannot_drive_the_daemon_with_any_one_control_switched_off() {
    let (world, door) = open("");
    let (before, token) = (world.snapshot(), token(&world));
    let rebound = format!("evil.example:{door}");
    let local = format!("127.0.0.1:{door}");
    // All on, by rebinding and straight across origins.
    assert_eq!(page(door, &rebound, &format!("http://{rebound}"), &[]).status, 421);
    assert_eq!(page(door, &local, "http://evil.example", &[]).status, 403);
    // The token is known to the page: its host, or its origin, is still wrong.
    assert_eq!(page(door, &rebound, &format!("http://{rebound}"), &bearer(&token)).status, 421);
    assert_eq!(page(door, &local, "http://evil.example", &bearer(&token)).status, 403);
    assert_eq!(page(door, &local, &format!("http://{rebound}"), &bearer(&token)).status, 403);
    assert_eq!(world.snapshot(), before);
    // The cookie of an operator is no token, whatever it is called.
    let cookie = vec!["Cookie: session=1; toolkeep=1".to_owned()];
    assert_eq!(page(door, &local, &format!("http://{local}"), &cookie).status, 401);

    // The host is allowed: its pages are then of this door's own origin, and the token is missing.
    let (named, door) = open("hosts = [\"evil.example\"]\n");
    let rebound = format!("evil.example:{door}");
    assert_eq!(page(door, &rebound, &format!("http://{rebound}"), &[]).status, 401);
    // The origin is allowed: the host, and the token.
    let (named_origin, door) = open("origins = [\"http://evil.example\"]\n");
    assert_eq!(page(door, &format!("evil.example:{door}"), "http://evil.example", &[]).status, 421);
    assert_eq!(page(door, &format!("127.0.0.1:{door}"), "http://evil.example", &[]).status, 401);
    for world in [&named, &named_origin] {
        assert!(!world.path("notes/pwned.md").exists());
        assert_eq!(world.admin().ok("runs.list", json!({}))["runs"], json!([]));
    }
}

#[test]
fn t_i7_kill_chain_4_with_all_controls_off_the_attack_is_real_and_still_approves_nothing() {
    let (world, door) = open("hosts = [\"evil.example\"]\n");
    let (before, token) = (world.snapshot(), token(&world));
    let rebound = format!("evil.example:{door}");
    let done = page(door, &rebound, &format!("http://{rebound}"), &bearer(&token));
    assert_eq!(done.json()["result"]["structuredContent"]["outcome"], "committed", "{done:?}");
    assert_ne!(world.snapshot(), before);
    // What has to be agreed to is held, and there is no way from here to agree.
    let mut lines = vec![format!("Host: {rebound}"), "Content-Type: application/json".to_owned()];
    lines.extend(bearer(&token));
    lines.push("MCP-Protocol-Version: 2026-07-28".to_owned());
    let with = |method: &str, name: Option<&str>| {
        let mut lines = lines.clone();
        lines.push(format!("Mcp-Method: {method}"));
        lines.extend(name.map(|name| format!("Mcp-Name: {name}")));
        lines
    };
    let rename = json!({"name": "held-rename", "arguments": {"from": "old_name", "to": "new_name"}});
    let held = say(door, "POST /mcp", &with("tools/call", Some("held-rename")), &attack("tools/call", rename));
    let said = held.json()["result"]["structuredContent"].clone();
    assert_eq!(said["status"], "approval_required", "{said}");
    let approve = json!({"approval": said["approval_id"], "reason": "because"});
    let tried = say(door, "POST /mcp", &with("approvals.approve", None), &attack("approvals.approve", approve.clone()));
    assert_eq!((tried.status, &tried.json()["error"]["code"]), (404, &json!(-32_601)));
    let call = json!({"name": "approvals.approve", "arguments": approve});
    let tried = say(door, "POST /mcp", &with("tools/call", Some("approvals.approve")), &attack("tools/call", call));
    assert_eq!((tried.status, &tried.json()["error"]["code"]), (400, &json!(-32_602)));
    assert!(world.path("src/shop/old_name.py").exists());
}

#[test]
fn t_i7_kill_chain_4_nothing_listens_unless_it_was_configured() {
    let world = World::new();
    assert_eq!(port(&world), None);
}
