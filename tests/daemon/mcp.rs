//! MCP over its socket and through `toolkeep mcp`: both eras, from the list of tools to a commit that people agreed to.

mod elicit;
mod http;
mod lines;
mod python;
mod rebinding;
mod remote;
mod sessions;
mod strict;
mod tls;
mod typed;
mod typescript;
mod via;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde_json::{Value, json};
use toolkeep::daemon::method::{AdminMethod, AgentMethod};

pub(super) use self::python::by_shim;
use super::approvals::approve;
use super::world::{Plot, World, component};
use crate::doors::running::{Client, command};

/// What a request of the newer era says about itself.
fn stateless() -> Value {
    json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}})
}

/// A client that speaks one era, strictly.
pub(super) struct Mcp {
    connection: Client,
    stateless: bool,
    next: u64,
}

impl Mcp {
    fn connect(world: &World, stateless: bool) -> Self {
        let mut mcp = Self { connection: Client::connect(&world.path("run/agent/mcp.sock")), stateless, next: 0 };
        if !stateless {
            mcp.greet("2025-11-25");
        }
        mcp
    }

    fn old(world: &World) -> Self {
        Self::connect(world, false)
    }

    fn new(world: &World) -> Self {
        Self::connect(world, true)
    }

    fn greet(&mut self, version: &str) {
        self.greet_as(version, &json!({}));
    }

    /// As a client that can do this.
    fn greet_as(&mut self, version: &str, capabilities: &Value) {
        let client = json!({"name": "t", "version": "1"});
        let params = json!({"protocolVersion": version, "capabilities": capabilities, "clientInfo": client});
        let told = self.ok("initialize", params);
        assert_eq!((&told["protocolVersion"], &told["serverInfo"]["name"]), (&json!(version), &json!("toolkeep")));
        self.connection.send(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
    }

    /// Send a request; its id.
    fn send(&mut self, method: &str, mut params: Value) -> u64 {
        self.next += 1;
        if self.stateless {
            let mut meta = stateless();
            let own = params["_meta"].take();
            for (key, value) in own.as_object().into_iter().flatten() {
                meta[key] = value.clone();
            }
            params["_meta"] = meta;
        }
        let line = json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params});
        self.connection.send(format!("{line}\n").as_bytes());
        self.next
    }

    /// The whole answer; nothing else may come before it.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params);
        let answer = self.connection.line().expect("an answer");
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(id)), "{answer}");
        answer
    }

    fn ok(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        let result = answer["result"].take();
        if self.stateless {
            assert_eq!(result["resultType"], "complete", "{result}");
            assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "toolkeep");
        } else {
            assert!(result.get("resultType").is_none() && result.get("ttlMs").is_none(), "{result}");
        }
        result
    }

    /// The number of an error.
    fn no(&mut self, method: &str, params: Value) -> i64 {
        let answer = self.ask(method, params);
        answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{method}: {answer}"))
    }

    /// The result of a tool.
    fn call(&mut self, name: &str, arguments: Value) -> Value {
        self.ok("tools/call", json!({"name": name, "arguments": arguments}))
    }

    /// What a tool says.
    fn said(&mut self, name: &str, arguments: Value) -> Value {
        let mut result = self.call(name, arguments);
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().expect("text")).expect("JSON");
        assert_eq!(text, result["structuredContent"], "a client that only shows text shows the same");
        result["structuredContent"].take()
    }

    fn tools(&mut self) -> Vec<Value> {
        let (mut tools, mut cursor) = (Vec::new(), json!({}));
        loop {
            let page = self.ok("tools/list", cursor);
            tools.extend(page["tools"].as_array().expect("tools").clone());
            match page.get("nextCursor") {
                Some(next) => cursor = json!({"cursor": next}),
                None => return tools,
            }
        }
    }

    fn tool(&mut self, name: &str) -> Value {
        self.tools().into_iter().find(|tool| tool["name"] == name).unwrap_or_else(|| panic!("{name} is not listed"))
    }
}

#[test]
fn r51_both_eras_list_the_same_tools_in_one_order_and_the_daemon_says_what_it_speaks() {
    let world = World::new();
    let (mut old, mut new) = (Mcp::old(&world), Mcp::new(&world));
    let tools = new.tools();
    assert_eq!(old.tools(), tools);
    let names: Vec<&str> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(new.tools(), tools, "asked twice");
    let found = new.ok("server/discover", json!({}));
    assert_eq!(found["supportedVersions"], json!(["2026-07-28", "2025-11-25", "2025-06-18"]));
    assert_eq!(
        (&found["cacheScope"], &found["capabilities"]["tools"]["listChanged"]),
        (&json!("private"), &json!(true))
    );
    assert!(found["ttlMs"].is_u64());
    assert_eq!(old.ok("ping", json!({})), json!({}));
    assert_eq!((new.no("ping", json!({})), old.no("server/discover", json!({}))), (-32_601, -32_601));
    let mut older = Mcp { connection: Client::connect(&world.path("run/agent/mcp.sock")), stateless: false, next: 0 };
    older.greet("2025-06-18");
    assert_eq!(older.tools(), tools);
}

#[test]
fn r51_hints_follow_from_grants_and_tools_with_effects_have_a_preview() {
    let world = World::new();
    let mut mcp = Mcp::new(&world);
    let reads = json!({"readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false});
    let writes =
        json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": false, "openWorldHint": false});
    assert_eq!(mcp.tool("text-stats")["annotations"], reads);
    assert_eq!(mcp.tool("notes.list")["annotations"], reads, "of its own tier");
    assert_eq!(mcp.tool("notes.add")["annotations"], writes);
    assert_eq!(mcp.tool("notes.add.preview")["annotations"], reads);
    let names: Vec<String> = mcp.tools().iter().filter_map(|tool| Some(tool["name"].as_str()?.to_owned())).collect();
    assert!(!names.contains(&"text-stats.preview".to_owned()));
    for tool in mcp.tools() {
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
        assert!(tool.get("outputSchema").is_none_or(|schema| schema["type"] == "object"), "{tool}");
    }
}

#[test]
fn r51_what_a_tool_answers_fits_the_schema_that_is_listed_held_or_not() {
    let world = World::new();
    let mut mcp = Mcp::old(&world);
    for (name, arguments) in [
        ("text-stats", json!({"text": "a b"})),
        ("notes.list", json!({})),
        ("notes.add.preview", json!({"title": "One", "body": "b"})),
        ("notes.add", json!({"title": "One", "body": "b"})),
        ("held-rename", json!({"from": "old_name", "to": "new_name"})),
    ] {
        let schema = mcp.tool(name)["outputSchema"].take();
        let result = mcp.call(name, arguments);
        assert_eq!(result["isError"], json!(false), "{result}");
        let validator = jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        let wrong: Vec<String> =
            validator.iter_errors(&result["structuredContent"]).map(|error| error.to_string()).collect();
        assert_eq!(wrong, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn r51_a_preview_is_committed_as_it_was_shown_or_dropped() {
    let world = World::new();
    let before = world.snapshot();
    let mut mcp = Mcp::new(&world);
    let note = json!({"title": "One", "body": "text"});
    let dropped = mcp.said("notes.add.preview", note.clone());
    assert_eq!((&dropped["status"], &dropped["outcome"]), (&json!("ok"), &json!("previewed")), "{dropped}");
    assert_eq!(world.snapshot(), before);
    let gone = mcp.said("toolkeep.discard", json!({"plan": dropped["plan"]["id"]}));
    assert_eq!(gone["outcome"], "discarded", "{gone}");
    let again = mcp.call("toolkeep.commit", json!({"plan": dropped["plan"]["id"]}));
    assert_eq!(again["isError"], json!(true), "{again}");
    let shown = mcp.call("notes.add.preview", note.clone());
    let plan = shown["structuredContent"]["plan"].clone();
    assert_eq!(shown["content"][1]["uri"], format!("toolkeep://plans/{}", plan["id"].as_str().expect("id")));
    let done = mcp.call("toolkeep.commit", json!({"plan": plan["digest"]}));
    assert_eq!(done["structuredContent"]["outcome"], "committed", "{done}");
    assert_ne!(world.snapshot(), before);
    // By `_meta`, for clients that can set it.
    let meta =
        json!({"name": "notes.add", "arguments": {"title": "Two", "body": "b"}, "_meta": {"toolkeep/mode": "preview"}});
    assert_eq!(mcp.ok("tools/call", meta)["structuredContent"]["outcome"], "previewed");
    world.verified();
}

#[test]
fn r51_a_held_call_is_waited_for_and_committed_when_people_agree() {
    let world = World::new();
    let before = world.snapshot();
    let (mut mcp, mut admin) = (Mcp::new(&world), world.admin());
    let held = mcp.call("held-rename", json!({"from": "old_name", "to": "new_name"}));
    let said = &held["structuredContent"];
    assert_eq!((&held["isError"], &said["status"]), (&json!(false), &json!("approval_required")), "{held}");
    assert!(said["expires_at"].is_string() && said["preview"]["digest"].is_string(), "{said}");
    let approval = said["approval_id"].as_str().expect("an approval").to_owned();
    let wait = json!({"approval_id": approval, "timeout_ms": 1});
    assert_eq!(mcp.said("toolkeep.wait", wait)["status"], "approval_required", "nobody has decided");
    let early = mcp.said("toolkeep.commit", json!({"plan": said["preview"]["id"]}));
    assert_eq!(early["status"], "approval_required", "its owner cannot release it: {early}");
    assert_eq!(world.snapshot(), before);
    approve(&mut admin, &approval);
    let done = mcp.call("toolkeep.wait", json!({"approval_id": approval}));
    assert_eq!(done["structuredContent"]["outcome"], "committed", "{done}");
    assert!(world.path("src/shop/new_name.py").exists());
    // The undo is a plan like any other: it is proposed, and then committed.
    let call = done["structuredContent"]["call_id"].clone();
    let undo = mcp.said("toolkeep.undo", json!({"call": call}));
    assert_eq!(undo["outcome"], "previewed", "{undo}");
    assert!(world.path("src/shop/new_name.py").exists());
    world.verified();
}

#[test]
fn r51_a_rejected_call_says_why_as_an_error_of_the_tool() {
    let world = World::new();
    let (mut mcp, mut admin) = (Mcp::old(&world), world.admin());
    let held = mcp.said("held-rename", json!({"from": "old_name", "to": "new_name"}));
    let approval = held["approval_id"].clone();
    admin.ok("approvals.reject", json!({"approval": approval, "reason": "not on a Friday"}));
    let told = mcp.call("toolkeep.wait", json!({"approval_id": approval}));
    assert_eq!(told["isError"], json!(true), "{told}");
    assert_eq!(told["structuredContent"]["error"]["code"], "approval_rejected", "{told}");
    assert!(told["content"][0]["text"].as_str().expect("text").contains("not on a Friday"), "{told}");
}

#[test]
fn r51_wrong_input_points_at_the_field_and_an_unknown_tool_is_an_error_of_the_protocol() {
    let world = World::new();
    let mut mcp = Mcp::new(&world);
    let wrong = mcp.call("text-stats", json!({"text": 7}));
    assert_eq!(wrong["isError"], json!(true));
    let error = &wrong["structuredContent"]["error"];
    assert_eq!(
        (&error["code"], &error["fields"][0]["pointer"]),
        (&json!("invalid_input"), &json!("/input/text")),
        "{error}"
    );
    for name in ["nothing", "text-stats.preview", "Text-Stats", "", "toolkeep.approve", "a\nb"] {
        assert_eq!(mcp.no("tools/call", json!({"name": name, "arguments": {}})), -32_602, "{name}");
    }
    for params in [json!({}), json!({"name": 7}), json!({"name": "text-stats", "arguments": []})] {
        assert_eq!(mcp.no("tools/call", params.clone()), -32_602, "{params}");
    }
    for own in ["toolkeep.commit", "toolkeep.discard", "toolkeep.undo", "toolkeep.wait"] {
        let refused = mcp.call(own, json!({"x": 1}));
        assert_eq!(refused["structuredContent"]["error"]["code"], "invalid_input", "{own}: {refused}");
    }
    assert_eq!(mcp.no("tools/list", json!({"cursor": 7})), -32_602);
}

#[test]
fn r51_plans_receipts_and_their_contents_are_resources_of_their_owner() {
    let world = World::new();
    let (mut mcp, mut old) = (Mcp::new(&world), Mcp::old(&world));
    assert_eq!(mcp.ok("resources/list", json!({}))["resources"], json!([]));
    assert_eq!(mcp.ok("resources/templates/list", json!({}))["resourceTemplates"].as_array().map(Vec::len), Some(3));
    let done = mcp.call("notes.add", json!({"title": "One", "body": "words of mine"}));
    let uris: Vec<String> =
        done["content"].as_array().into_iter().flatten().filter_map(|c| Some(c["uri"].as_str()?.to_owned())).collect();
    assert_eq!(uris.len(), 2, "{done}");
    let mut read = |uri: &str| -> Value {
        let content = mcp.ok("resources/read", json!({"uri": uri}))["contents"][0].take();
        assert_eq!(content["uri"], uri);
        serde_json::from_str(content["text"].as_str().expect("text")).expect("JSON")
    };
    let plan = read(&uris[0]);
    assert!(plan["contents"].to_string().contains("words of mine"), "{plan}");
    assert_eq!(read(&uris[1])["statement"]["call"], done["structuredContent"]["call_id"]);
    for none in ["toolkeep://plans/plan_00000000-0000-7000-8000-000000000000", "toolkeep://x/y", "file:///etc/passwd"] {
        assert_eq!(old.no("resources/read", json!({"uri": none})), -32_002, "{none}");
        assert_eq!(mcp.no("resources/read", json!({"uri": none})), -32_602, "{none}");
    }
}

#[test]
fn r51_no_method_and_no_tool_of_mcp_reaches_the_admin_plane_or_the_native_one() {
    let world = World::new();
    let (mut old, mut new) = (Mcp::old(&world), Mcp::new(&world));
    let listed: Vec<Value> = new.tools();
    let natives = AdminMethod::ALL.iter().map(|m| m.name()).chain(AgentMethod::ALL.iter().map(|m| m.name()));
    for name in natives.filter(|name| *name != "session.authenticate") {
        assert!(listed.iter().all(|tool| tool["name"] != name), "{name}");
        assert_eq!((old.no(name, json!({})), new.no(name, json!({}))), (-32_601, -32_601), "{name}");
        assert_eq!(new.no("tools/call", json!({"name": name, "arguments": {}})), -32_602, "{name}");
    }
}

#[test]
fn t_i3_plans_and_approvals_of_another_agent_are_ones_that_do_not_exist() {
    let world = World::new();
    let mut owner = Mcp::new(&world);
    let shown = owner.said("notes.add.preview", json!({"title": "One", "body": "b"}));
    let held = owner.said("held-rename", json!({"from": "old_name", "to": "new_name"}));
    let mint = json!({"user": "bob", "agent": "other", "label": "t"});
    let token = world.admin().ok("tokens.mint", mint)["token"].clone();
    let mut other = Mcp { connection: Client::connect(&world.path("run/agent/mcp.sock")), stateless: true, next: 0 };
    let show = json!({"jsonrpc": "2.0", "id": 0, "method": "session.authenticate", "params": {"token": token}});
    assert!(other.connection.exchange(&show.to_string()).get("result").is_some());
    for (tool, key, real) in [
        ("toolkeep.commit", "plan", &shown["plan"]["id"]),
        ("toolkeep.commit", "plan", &shown["plan"]["digest"]),
        ("toolkeep.discard", "plan", &shown["plan"]["id"]),
        ("toolkeep.undo", "call", &shown["call_id"]),
        ("toolkeep.wait", "approval_id", &held["approval_id"]),
    ] {
        let real = real.as_str().expect("an id");
        // One that nobody made, of the same form.
        let tail = if real.ends_with('0') { "1" } else { "0" };
        let made_up = format!("{}{tail}", &real[..real.len() - 1]);
        let mut ask = |id: &str| other.said(tool, json!({key: id}));
        let (theirs, nobodys) = (ask(real), ask(&made_up));
        assert_eq!(theirs, nobodys, "{tool}");
        assert_eq!(theirs["error"]["code"], "not_found", "{tool}: {theirs}");
    }
}

#[test]
fn r51_progress_is_told_to_who_asked_for_it_and_goes_forward() {
    let world = World::new();
    let mut mcp = Mcp::new(&world);
    let params = json!({"name": "csv-report", "arguments": {"input": "ledger", "output": "reports/all.md"},
        "_meta": {"progressToken": "p"}});
    let id = mcp.send("tools/call", params);
    let (mut last, mut told) = (-1.0, 0);
    let answer = loop {
        let line = mcp.connection.line().expect("a line");
        if line["method"] != "notifications/progress" {
            break line;
        }
        let done = line["params"]["progress"].as_f64().expect("a number");
        assert!(line["params"]["progressToken"] == "p" && done > last, "{line}");
        (last, told) = (done, told + 1);
    };
    assert!(told > 0 && answer["id"] == json!(id) && answer["result"]["isError"] == json!(false), "{told}: {answer}");
}

#[test]
fn r51_a_cancelled_call_is_not_answered_and_its_id_is_free_again() {
    let world = World::new();
    let mut mcp = Mcp::new(&world);
    let id = mcp.send("tools/call", json!({"name": "spin-long", "arguments": {}}));
    let cancel =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id, "reason": "t"}});
    mcp.connection.send(format!("{cancel}\n").as_bytes());
    loop {
        mcp.next = id - 1;
        let answer = mcp.ask("tools/call", json!({"name": "text-stats", "arguments": {"text": "a"}}));
        match answer.get("result") {
            Some(result) => {
                assert_eq!(result["isError"], json!(false), "the answer of the cancelled call came: {answer}");
                break;
            }
            None => assert_eq!(answer["error"]["code"], -32_600, "{answer}"),
        }
    }
}

#[test]
fn r51_who_listens_hears_that_other_tools_are_offered() {
    let world = World::new();
    let (mut old, mut new) = (Mcp::old(&world), Mcp::new(&world));
    let id = new
        .send("subscriptions/listen", json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true}}));
    let key = "io.modelcontextprotocol/subscriptionId";
    let first = new.connection.line().expect("a line");
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
    assert_eq!(
        (&first["params"]["_meta"][key], &first["params"]["notifications"]),
        (&json!(id), &json!({"toolsListChanged": true}))
    );
    assert!(old.tools().iter().all(|tool| tool["name"] != "later"), "and its handshake was heard");
    std::fs::copy(component("text-stats"), world.path("tools/later.wasm")).expect("component");
    world.home.put("tools/later.toml", b"format = 1\nname = \"later\"\ncomponent = \"later.wasm\"\ntier = 0\n");
    world.admin().ok("tools.reload", json!({}));
    let told = new.connection.line().expect("a line");
    assert_eq!(
        (&told["method"], &told["params"]["_meta"][key]),
        (&json!("notifications/tools/list_changed"), &json!(id))
    );
    assert_eq!(old.connection.line().expect("a line")["method"], "notifications/tools/list_changed");
    new.tool("later");
    world.admin().ok("daemon.drain", json!({}));
    let last = new.connection.line().expect("a line");
    assert_eq!((&last["id"], &last["result"]["_meta"][key]), (&json!(id), &json!(id)), "{last}");
}

#[test]
fn r51_a_long_list_comes_in_pages_that_neither_repeat_nor_skip() {
    let world = World::asleep(Plot::default());
    for n in 0..120 {
        let text = format!("format = 1\nname = \"many-{n:03}\"\ncomponent = \"text-stats.wasm\"\ntier = 0\n");
        world.home.put(&format!("tools/many-{n:03}.toml"), text.as_bytes());
    }
    let mut world = world;
    world.start();
    let mut mcp = Mcp::new(&world);
    let first = mcp.ok("tools/list", json!({}));
    assert_eq!(first["tools"].as_array().map(Vec::len), Some(100));
    let names: Vec<String> = mcp.tools().iter().filter_map(|tool| Some(tool["name"].as_str()?.to_owned())).collect();
    assert!(names.is_sorted() && names.len() > 120);
    let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
}

#[test]
fn r51_the_shim_carries_bytes_and_ends_with_its_client() {
    let world = World::new();
    let mut shim = command(world.home.path());
    shim.args(["--config", "toolkeep.toml", "mcp"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shim.spawn().expect("the shim starts");
    let (mut input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    let request = json!({"jsonrpc": "2.0", "id": 7, "method": "server/discover", "params": {"_meta": stateless()}});
    input.write_all(format!("{request}\n").as_bytes()).expect("sent");
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("an answer");
    let answer: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&answer["id"], &answer["result"]["resultType"]), (&json!(7), &json!("complete")), "{answer}");
    drop(input);
    assert!(child.wait().expect("ends").success());
}

#[test]
fn r51_without_a_daemon_the_shim_says_so_and_starts_nothing() {
    let world = World::asleep(Plot::default());
    let said = world.cli(&["mcp"]);
    assert_eq!(said.status.code(), Some(8));
    assert!(said.stdout.is_empty() && String::from_utf8_lossy(&said.stderr).contains("no daemon answers"), "{said:?}");
}

#[test]
fn r51_what_a_client_needs_is_printed_for_the_daemon_that_is_meant() {
    let world = World::asleep(Plot::default());
    for client in ["claude", "codex", "vscode", "cursor"] {
        let said = world.cli(&["mcp", "config", "--client", client]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(
            said.status.success() && text.contains("toolkeep.toml") && text.contains("\"mcp\""),
            "{client}: {text}"
        );
        let said = world.cli(&["mcp", "config", "--client", client, "--url", "http://127.0.0.1:9464/mcp"]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(
            text.contains("http://127.0.0.1:9464/mcp") && text.to_lowercase().contains("token"),
            "{client}: {text}"
        );
    }
}
