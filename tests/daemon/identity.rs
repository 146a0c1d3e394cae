//! Who somebody is by what they show: tokens that operators mint, and how they end.

use serde_json::{Value, json};

use super::world::{Agent, Plot, World};
use crate::doors::running::Client;

/// A connection that shows this.
pub(super) fn shown(world: &World, token: &Value) -> Agent {
    let mut agent = stranger(world);
    agent.ok("session.authenticate", json!({"token": token}));
    agent
}

/// A connection that has shown nothing.
pub(super) fn stranger(world: &World) -> Agent {
    Agent(Client::connect(&world.path("run/agent/agent.sock")))
}

/// A token of the operator's tenant.
pub(super) fn mint(world: &World, user: &str, agent: &str) -> Value {
    world.admin().ok("tokens.mint", json!({"user": user, "agent": agent}))
}

fn unauthorized(refusal: &Value) {
    assert_eq!(refusal["code"], "unauthorized", "{refusal}");
}

#[test]
fn r15_one_uid_serves_several_agents_by_their_tokens() {
    let world = World::new();
    let tokens = ["one", "two"].map(|agent| mint(&world, "alice", agent)["token"].clone());
    let [mut one, mut two] = tokens.each_ref().map(|token| shown(&world, token));
    for (agent, name) in [(&mut one, "one"), (&mut two, "two")] {
        let session = agent.ok("session.get", json!({}));
        assert_eq!(session["principal"], json!({"tenant": "local", "user": "alice", "agent": name}));
        assert_eq!((&session["authenticated"], &session["session"]), (&json!("token"), &Value::Null));
    }
    assert_eq!(world.agent().ok("session.get", json!({}))["authenticated"], "uid");
    let note = json!({"title": "One", "body": "b"});
    let made = one.execute("notes.add", note).must("ok", "committed", "");
    for other in [&mut two, &mut world.agent()] {
        assert_eq!(other.no("calls.get", json!({"call": made.call()}))["code"], "not_found");
    }
    let again = shown(&world, &tokens[0]).reply("calls.get", json!({"call": made.call()}));
    assert_eq!(again.value, made.value, "another connection of the same agent");
    let explained = world.admin().ok("policy.explain", json!({"call": made.call()}));
    assert_eq!(explained["decision"], "commit", "{explained}");
    world.verified();
}

#[test]
fn t_i4_what_is_shown_is_a_token_of_this_plane_or_nobody() {
    let world = World::new();
    let agent = mint(&world, "alice", "one")["token"].clone();
    let operator = world.admin().ok("tokens.mint", json!({"plane": "admin", "user": "operator"}))["token"].clone();
    let text = agent.as_str().expect("a token");
    let last = if text.ends_with('0') { "1" } else { "0" };
    let almost = format!("{}{last}", &text[..text.len() - 1]);
    let other_id = text.replacen("_0", "_1", 1);
    for wrong in
        [almost.as_str(), &other_id, "tkp_", &text[..50], "guess", "a.b.c", operator.as_str().expect("a token")]
    {
        let mut peer = stranger(&world);
        unauthorized(&peer.no("session.authenticate", json!({"token": wrong})));
        unauthorized(&peer.no("tools.list", json!({})));
    }
    for blank in ["", " ", "\n"] {
        let refusal = stranger(&world).no("session.authenticate", json!({"token": blank}));
        unauthorized(&refusal);
        assert!(refusal["message"].as_str().is_some_and(|text| text.contains("blank")), "{refusal}");
    }
    let mut admin = Agent(Client::connect(&world.path("run/admin/admin.sock")));
    unauthorized(&admin.no("session.authenticate", json!({"token": agent})));
    unauthorized(&admin.no("health.get", json!({})));
    admin.ok("session.authenticate", json!({"token": operator}));
    assert_eq!(admin.ok("health.get", json!({}))["ready"], true);

    let mut used = world.agent();
    used.ok("tools.list", json!({}));
    assert_eq!(used.no("session.authenticate", json!({"token": agent}))["code"], "denied", "one name for a connection");
    assert_eq!(used.ok("session.get", json!({}))["authenticated"], "uid");
    world.verified();
}

#[test]
fn t_i4_a_revoked_token_stops_the_next_request_of_an_open_connection_for_good() {
    let mut world = World::new();
    let minted = mint(&world, "alice", "one");
    let mut agent = shown(&world, &minted["token"]);
    agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    let child = agent.ok("sessions.delegate", json!({}));
    let mut below = shown(&world, &child["token"]);
    below.ok("tools.list", json!({}));
    let listed = world.admin().ok("tokens.list", json!({}));
    assert_eq!(listed["tokens"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(world.admin().ok("tokens.revoke", json!({"token": minted["id"]})), json!({"revoked": true}));
    for peer in [&mut agent, &mut below] {
        unauthorized(&peer.no("tools.list", json!({})));
        unauthorized(&peer.no("calls.execute", json!({"tool": "text-stats", "input": {"text": "a"}})));
    }
    let refused = |world: &World| {
        for token in [&minted["token"], &child["token"]] {
            unauthorized(&stranger(world).no("session.authenticate", json!({"token": token})));
        }
    };
    refused(&world);
    assert_eq!(world.admin().no("tokens.revoke", json!({"token": minted["id"]}))["code"], "not_found");
    world.restart();
    refused(&world);
    let all = world.admin().ok("tokens.list", json!({"all": true}));
    assert!(all["tokens"][0]["revoked_at_ms"].is_u64(), "{all}");
    assert_eq!(world.admin().ok("tokens.list", json!({}))["tokens"], json!([]));
    world.verified();
}

#[test]
fn t_i4_a_token_is_kept_by_nobody() {
    let mut world = World::new();
    let minted = mint(&world, "alice", "one");
    let text = minted["token"].as_str().expect("a token").to_owned();
    shown(&world, &minted["token"]).execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    stranger(&world).no("session.authenticate", json!({"token": format!("{text}0")}));
    assert!(world.stop().success());
    let secret = &text[text.len() - 64..];
    let mut looked_at = 0;
    let mut folders = vec![world.path("state"), world.path("run")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let content = std::fs::read(&path).expect("file");
                let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} holds the secret", path.display());
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 3 && !world.log().contains(secret));
}

#[test]
fn r15_a_token_makes_nobody_more_than_its_maker() {
    let world = World::new();
    let mut admin = world.admin();
    let denied = [
        json!({"plane": "admin", "user": "mallory"}),
        json!({"plane": "admin", "user": "operator", "groups": ["finance"]}),
    ];
    for params in denied {
        assert_eq!(admin.no("tokens.mint", params.clone())["code"], "denied", "{params}");
    }
    let wrong = [
        (json!({"user": "alice"}), "/agent"),
        (json!({"user": "alice", "agent": "a", "groups": ["g"]}), "/groups"),
        (json!({"plane": "admin", "user": "operator", "agent": "a"}), "/agent"),
        (json!({"plane": "admin", "user": "operator", "max_tier": 0}), "/plane"),
        (json!({"user": "alice", "agent": "a", "expires_in_s": 0}), "/expires_in_s"),
        (json!({"user": "alice", "agent": "a", "expires_in_s": 365 * 24 * 3600 + 1}), "/expires_in_s"),
        (json!({"user": "alice", "agent": "a", "label": "x".repeat(257)}), "/label"),
    ];
    for (params, field) in wrong {
        let refusal = admin.no("tokens.mint", params.clone());
        assert_eq!(
            (&refusal["code"], &refusal["fields"][0]["pointer"]),
            (&json!("invalid_input"), &json!(field)),
            "{refusal}"
        );
    }
    for params in [json!({"user": "alice", "agent": "a", "tenant": "other"}), json!({"user": "Alice", "agent": "a"})] {
        assert_eq!(admin.no("tokens.mint", params)["code"], "invalid_input", "no parameter names a tenant");
    }
    let narrow = json!({"user": "alice", "agent": "a", "tools": ["text-stats"], "max_tier": 0, "expires_in_s": 60});
    let token = admin.ok("tokens.mint", narrow)["token"].clone();
    let mut agent = shown(&world, &token);
    agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    agent.execute("notes.list", json!({})).must("denied", "none", "denied");
    assert_eq!(agent.ok("tools.list", json!({}))["tools"].as_array().map(Vec::len), Some(1));
    let widened = agent.no("sessions.delegate", json!({"tools": ["text-stats", "notes.list"], "max_tier": 1}));
    assert_eq!(
        (&widened["code"], widened["fields"].as_array().map(Vec::len)),
        (&json!("denied"), Some(2)),
        "{widened}"
    );
    world.verified();
}

#[test]
fn r15_a_daemon_that_knows_tokens_only_knows_no_uid() {
    let world = World::of(Plot { daemon: "tokens_only = true", limits: "" });
    let mut peer = stranger(&world);
    unauthorized(&peer.no("tools.list", json!({})));
    let mut agent = shown(&world, &mint(&world, "alice", "one")["token"]);
    agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    let mut late = world.agent();
    unauthorized(&late.no("calls.execute", json!({"tool": "text-stats", "input": {"text": "a"}})));
    late.ok("session.authenticate", json!({"token": mint(&world, "alice", "two")["token"]}));
    assert_eq!(late.ok("session.get", json!({}))["principal"]["agent"], "two");
}

#[test]
fn t_i4_a_token_in_the_name_of_an_operator_ends_with_the_operator() {
    let mut world = World::new();
    let minted = world.admin().ok("tokens.mint", json!({"plane": "admin", "user": "operator"}));
    let agents = mint(&world, "alice", "one");
    let own = rustix::process::geteuid().as_raw();
    let config =
        world.text("toolkeep.toml") + &format!("[[operator]]\nuid = {own}\nuser = \"successor\"\ntenant = \"local\"\n");
    assert!(world.stop().success());
    world.home.put("toolkeep.toml", config.as_bytes());
    world.start();
    let mut former = Agent(Client::connect(&world.path("run/admin/admin.sock")));
    unauthorized(&former.no("session.authenticate", json!({"token": minted["token"]})));
    shown(&world, &agents["token"]).ok("tools.list", json!({}));
    assert_eq!(
        world.admin().ok("tokens.list", json!({}))["tokens"].as_array().map(Vec::len),
        Some(2),
        "it can be revoked"
    );
}

#[test]
fn what_is_refused_is_on_record_up_to_a_rate() {
    let world = World::new();
    let before = world.verified();
    for _ in 0..(toolkeep::host::FAILURES_ON_RECORD + 20) {
        stranger(&world).no("session.authenticate", json!({"token": "guess"}));
    }
    let noted = world.verified() - before;
    assert!(
        noted >= 1 && noted <= u64::from(toolkeep::host::FAILURES_ON_RECORD) * 2,
        "{noted}: a minute may have passed"
    );
}

#[test]
fn r53_the_command_line_mints_shows_and_revokes_tokens() {
    let world = World::new();
    let cli = |arguments: &[&str], wanted: i32| {
        let output = world.cli(arguments);
        assert_eq!(output.status.code(), Some(wanted), "{arguments:?}: {output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    let mint =
        ["-o", "json", "tokens", "mint", "--user", "alice", "--agent", "helper", "--to", "token", "--expires", "2h"];
    let minted = cli(&mint, 0);
    assert!(minted.get("token").is_none(), "it is in the file: {minted}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(world.path("token")).expect("file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let show = ["-o", "json", "--token-file", "token", "sessions", "show"];
    assert_eq!(cli(&show, 0)["principal"]["user"], "alice");
    cli(&["--token-file", "token", "call", "text-stats", "-i", "{\"text\":\"a\"}"], 0);
    let delegate = [
        "-o",
        "json",
        "--token-file",
        "token",
        "sessions",
        "delegate",
        "--tool",
        "text-stats",
        "--workspace",
        "notes",
        "--calls",
        "1",
        "--to",
        "session",
    ];
    let session = cli(&delegate, 0);
    assert_eq!(session["held"]["workspaces"], json!({"notes": "read"}));
    let listed = cli(&["-o", "json", "--token-file", "token", "sessions", "list"], 0);
    assert_eq!(listed["sessions"][0]["id"], session["session"], "{listed}");
    let call = ["--token-file", "session", "call", "text-stats", "-i", "{\"text\":\"a\"}"];
    cli(&call, 0);
    cli(&call, 7);
    cli(&["--token-file", "token", "sessions", "revoke", session["session"].as_str().expect("an id")], 0);
    cli(&call, 3);
    cli(&["tokens", "list", "--sessions", "--all"], 0);
    cli(&["tokens", "revoke", minted["id"].as_str().expect("an id")], 0);
    cli(&show, 3);
    world.home.put("blank", b" \n");
    cli(&["--token-file", "blank", "sessions", "show"], 2);
    cli(&["--token-file", "missing", "sessions", "show"], 5);
    cli(&["tokens", "revoke", "nonsense"], 2);
    let mut blank = crate::doors::running::command(world.home.path());
    blank.env("TOOLKEEP_TOKEN", "").args(["--config", "toolkeep.toml", "sessions", "show"]);
    assert_eq!(blank.output().expect("ran").status.code(), Some(2), "a blank secret is never nobody's");
    let token = mint_again(&world);
    let mut named = crate::doors::running::command(world.home.path());
    named.env("TOOLKEEP_TOKEN", token).args(["--config", "toolkeep.toml", "-o", "json", "sessions", "show"]);
    let told: Value = serde_json::from_slice(&named.output().expect("ran").stdout).expect("JSON");
    assert_eq!(told["principal"]["agent"], "again");
}

/// What a tool is told of its caller, whatever its input says.
#[test]
fn r15_nobody_becomes_somebody_else_by_saying_so() {
    let mut world = World::asleep(Plot::default());
    std::fs::copy(super::world::component("false-name"), world.path("tools/false-name.wasm")).expect("component");
    super::scenery::manifest(&world, ("false-name", "false-name", "tier = 0\n"));
    world.start();
    let claimed = json!({"tenant": "acme", "user": "root", "agent": "admin", "session": "ses_1"});
    let told = |agent: &mut Agent| {
        let output = agent.execute("false-name", claimed.clone()).must("ok", "none", "").value["output"].clone();
        assert_eq!(output["claimed"], claimed);
        ["tenant", "user", "agent", "session", "authenticated"]
            .map(|name| output[name].as_str().unwrap_or("?").to_owned())
    };
    assert_eq!(told(&mut world.agent()), ["local", "local", "local", "", "uid"]);
    let mut by_token = shown(&world, &mint(&world, "alice", "helper")["token"]);
    assert_eq!(told(&mut by_token), ["local", "alice", "helper", "", "token"]);
    let session = by_token.ok("sessions.delegate", json!({}));
    let id = session["session"].as_str().expect("an id");
    assert_eq!(told(&mut shown(&world, &session["token"])), ["local", "alice", "helper", id, "token"]);
    let known = json!({"tool": "false-name", "input": {}, "user": "root"});
    assert_eq!(by_token.no("calls.execute", known)["code"], "invalid_input", "identity is no parameter of anything");
}

/// A connection to the admin socket that shows a minted token.
fn admin_by(world: &World, token: &Value) -> Agent {
    let mut admin = Agent(Client::connect(&world.path("run/admin/admin.sock")));
    admin.ok("session.authenticate", json!({"token": token}));
    admin
}

#[test]
fn t_i5_what_a_token_mints_does_not_outlive_it() {
    let mut world = World::new();
    let operator = json!({"plane": "admin", "user": "operator", "expires_in_s": 600});
    let first = world.admin().ok("tokens.mint", operator.clone());
    let mut admin = admin_by(&world, &first["token"]);
    for (mut params, plane) in [(operator.clone(), "admin"), (json!({"user": "alice", "agent": "one"}), "agent")] {
        params["expires_in_s"] = json!(601);
        let refusal = admin.no("tokens.mint", params);
        assert_eq!(
            (&refusal["code"], &refusal["fields"][0]["pointer"]),
            (&json!("denied"), &json!("/expires_in_s")),
            "{plane}"
        );
    }
    let second = admin.ok("tokens.mint", json!({"plane": "admin", "user": "operator"}));
    let third = admin_by(&world, &second["token"]).ok("tokens.mint", json!({"user": "alice", "agent": "one"}));
    let ends = |minted: &Value| minted["expires_at_ms"].as_u64().expect("a time");
    assert!(ends(&second) <= ends(&first) && ends(&third) <= ends(&first), "{second} {third}");
    let other = mint(&world, "alice", "two")["token"].clone();
    world.restart();
    let (mut admin, mut agent) = (admin_by(&world, &second["token"]), shown(&world, &third["token"]));
    world.admin().ok("tokens.revoke", json!({"token": first["id"]}));
    unauthorized(&admin.no("tokens.list", json!({})));
    unauthorized(&agent.no("tools.list", json!({})));
    world.restart();
    unauthorized(&stranger(&world).no("session.authenticate", json!({"token": third["token"]})));
    let mut late = Agent(Client::connect(&world.path("run/admin/admin.sock")));
    unauthorized(&late.no("session.authenticate", json!({"token": second["token"]})));
    shown(&world, &other).ok("tools.list", json!({}));
    world.verified();
}

fn mint_again(world: &World) -> String {
    mint(world, "alice", "again")["token"].as_str().expect("a token").to_owned()
}
