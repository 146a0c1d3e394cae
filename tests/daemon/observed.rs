//! The daemon as whoever watches it sees it: probes, metrics, traces and its log.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::world::{Plot, World, target};
use crate::doors::running::until;

/// How long a line of the collector is waited for: far more than a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Text that is in inputs and outputs, and may be nowhere else.
const PAYLOAD: &str = "the-payload-of-a-call";
const HTTP: &str = "[http]\nlisten = \"unix:http/http.sock\"\n";
const PROXY: &str = "hosts = [\"keep.example.com\"]\n";
const PARENT: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn world(more: &str) -> World {
    World::of(Plot { limits: Box::leak(format!("{HTTP}{more}").into_boxed_str()), ..Plot::default() })
}

/// One request over the Unix socket: status and body.
fn ask(world: &World, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(world.path("http/http.sock")).expect("the door");
    stream.write_all(format!("{request}connection: close\r\n\r\n").as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

fn get(world: &World, path: &str) -> (u16, String) {
    ask(world, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n"))
}

/// The metrics, when they are fresh enough to hold `line`.
fn metrics(world: &World, line: &str) -> String {
    let mut text = String::new();
    until(line, || {
        text = get(world, "/metrics").1;
        text.lines().any(|l| l == line)
    });
    text
}

#[test]
fn r44_what_calls_do_is_counted_by_tool_and_told_without_their_content() {
    let world = world("");
    let mut agent = world.agent();
    for _ in 0..3 {
        agent.execute("text-stats", json!({"text": PAYLOAD})).must("ok", "none", "");
    }
    agent.execute("notes.add", json!({"title": PAYLOAD, "body": "b"})).must("ok", "committed", "");
    agent.execute("notes2.add", json!({"title": "held", "body": "b"})).must("held", "pending", "approval_required");
    agent.execute("trap", json!({})).must("failed", "none", "tool_trapped");
    agent.execute("no-such-tool-of-mine", json!({})).must("failed", "none", "not_found");
    agent.execute("text-stats", json!({"txt": PAYLOAD})).must("failed", "none", "invalid_input");
    let text = metrics(&world, "toolkeep_tool_calls_total{tool=\"text-stats\",status=\"failed\"} 1");
    for line in [
        "toolkeep_calls_total{status=\"ok\",outcome=\"none\"} 3",
        "toolkeep_calls_total{status=\"ok\",outcome=\"committed\"} 1",
        "toolkeep_calls_total{status=\"held\",outcome=\"pending\"} 1",
        "toolkeep_errors_total{code=\"tool_trapped\"} 1",
        "toolkeep_tool_calls_total{tool=\"text-stats\",status=\"ok\"} 3",
        "toolkeep_tool_calls_total{tool=\"_unknown\",status=\"failed\"} 1",
        "toolkeep_tenant_calls_total{tenant=\"local\",status=\"ok\"} 4",
        "toolkeep_call_duration_seconds_count{tool=\"text-stats\"} 4",
        "toolkeep_execution_duration_seconds_count{tool=\"text-stats\"} 3",
        "toolkeep_commit_duration_seconds_count 1",
        "toolkeep_commits_total{outcome=\"committed\"} 1",
        "toolkeep_decisions_total{decision=\"hold\"} 1",
        "toolkeep_approvals_open 1.0",
        "toolkeep_breakers{state=\"closed\"} 1.0",
        "toolkeep_ready 1.0",
        "toolkeep_ledger_well 1.0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    for told in [PAYLOAD, "no-such-tool-of-mine"] {
        assert!(!text.contains(told), "{told} is a caller's own text");
    }
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    for line in samples {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("toolkeep_") && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn r44_probes_say_one_word_and_nothing_else_is_there() {
    let world = world("");
    assert_eq!(get(&world, "/livez"), (200, "live\n".to_owned()));
    assert_eq!(get(&world, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(ask(&world, "HEAD /livez HTTP/1.1\r\nhost: localhost\r\n"), (200, String::new()));
    for path in ["/", "/metrics/", "/livez?x", "/LIVEZ"] {
        let expected = if path == "/livez?x" { 200 } else { 404 };
        assert_eq!(get(&world, path).0, expected, "{path}");
    }
    assert_eq!(ask(&world, "POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n").0, 405);
    assert_eq!(ask(&world, "GET /livez HTTP/1.1\r\nhost: evil.example\r\n").0, 421);
    assert_eq!(ask(&world, "GET /livez HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\n").0, 403);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(world.path("http/http.sock")).expect("the socket").permissions(),
    );
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn t_i7_behind_a_proxy_metrics_want_a_token_of_the_admin_plane_whatever_name_is_asked_for() {
    let world = world(PROXY);
    let mut admin = world.admin();
    let operators = admin.ok("tokens.mint", json!({"plane": "admin", "user": "operator", "label": "scraper"}));
    let agents = admin.ok("tokens.mint", json!({"user": "local", "agent": "one", "label": "agent"}));
    let file = std::fs::read_to_string(world.path("run/admin/token")).expect("the token");
    let named = |token: Option<&str>| {
        let shown = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        ask(&world, &format!("GET /metrics HTTP/1.1\r\nhost: keep.example.com\r\n{shown}")).0
    };
    assert_eq!((named(None), named(Some("")), named(Some("tkp_x")), named(Some(file.trim()))), (401, 401, 401, 401));
    assert_eq!(named(agents["token"].as_str()), 401, "it is for the other plane");
    let secret = operators["token"].as_str().expect("a secret");
    assert_eq!(named(Some(secret)), 200);
    assert_eq!(get(&world, "/metrics").0, 401, "a name in `Host` is written by whoever asks");
    assert_eq!(get(&world, "/readyz").0, 200);
    admin.ok("tokens.revoke", json!({"token": operators["id"]}));
    assert_eq!(named(Some(secret)), 401);
    assert!(!world.log().contains(secret), "a token is not logged");
}

#[test]
fn metrics_want_a_token_from_everybody_where_the_configuration_says_so() {
    let world = world("metrics_token = true\n");
    assert_eq!((get(&world, "/metrics").0, get(&world, "/readyz").0), (401, 200));
}

#[test]
fn r20_a_door_that_others_can_reach_or_that_lets_everybody_in_does_not_open() {
    for (lines, told) in [
        ("[http]\nlisten = \"0.0.0.0:0\"\n", "TLS"),
        ("[http]\nlisten = \"127.0.0.1:0\"\norigins = [\"*\"]\n", "everybody"),
        ("[http]\nlisten = \"unix:run/admin/http.sock\"\n", "http.listen"),
    ] {
        let world = World::asleep(Plot { limits: lines, ..Plot::default() });
        let ended = world.cli(&["serve"]);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains(told), "{said}");
    }
}

/// A receiver of spans that ends with the test.
struct Collector {
    child: Child,
    endpoint: String,
    lines: Receiver<Value>,
}

impl Collector {
    /// One that refuses the first `failures` requests for now.
    fn start(failures: u32) -> Self {
        let program = target().join("collector/debug/collector");
        assert!(program.is_file(), "{} is not built; run `make collector`", program.display());
        let mut command = Command::new(program);
        command.arg(failures.to_string()).stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().expect("the collector starts");
        let mut out = BufReader::new(child.stdout.take().expect("stdout"));
        let mut first = String::new();
        out.read_line(&mut first).expect("where it listens");
        let endpoint: String = serde_json::from_str(&first).expect("an address");
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let told = tell.send(serde_json::from_str(&line).expect("JSON"));
                if told.is_err() {
                    return;
                }
            }
        });
        Self { child, endpoint, lines }
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).expect("a request")
    }

    /// A daemon that hands its spans to it.
    fn daemon(&self, more: &[(&str, &str)]) -> World {
        let mut world = World::asleep(Plot::default());
        world.env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint);
        world.env("OTEL_BSP_SCHEDULE_DELAY", "50");
        for (name, value) in more {
            world.env(name, value);
        }
        world.start();
        world
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

fn spans(request: &Value) -> Vec<Value> {
    let scopes = &request["request"]["resourceSpans"][0]["scopeSpans"];
    scopes[0]["spans"].as_array().cloned().unwrap_or_else(|| panic!("no spans in {request}"))
}

fn attribute<'v>(of: &'v Value, key: &str) -> &'v Value {
    let found = of["attributes"].as_array().and_then(|all| all.iter().find(|one| one["key"] == key));
    found.and_then(|one| one["value"].as_object()?.values().next()).unwrap_or(&Value::Null)
}

#[test]
fn r39_the_way_of_a_call_arrives_at_a_real_receiver_within_its_callers_trace() {
    let collector = Collector::start(0);
    let world = collector.daemon(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20to-the-collector"),
        ("OTEL_SERVICE_NAME", "keeper"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=books"),
    ]);
    let mut agent = world.agent();
    let meta = json!({"traceparent": format!("00-{PARENT}-00f067aa0ba902b7-01"), "tracestate": "vendor=1"});
    let input = json!({"title": PAYLOAD, "body": "b"});
    let reply = agent.reply("calls.execute", json!({"tool": "notes.add", "input": input, "_meta": meta}));
    let reply = reply.must("ok", "committed", "");
    assert_eq!(reply.text("/trace_id"), PARENT);

    let request = collector.next();
    assert_eq!(request["line"], "POST /v1/traces HTTP/1.1", "{request}");
    assert_eq!(request["fields"]["content-type"], "application/x-protobuf");
    assert_eq!(request["fields"]["authorization"], "Bearer to-the-collector");
    let resource = &request["request"]["resourceSpans"][0]["resource"];
    assert_eq!((attribute(resource, "service.name"), attribute(resource, "team")), (&json!("keeper"), &json!("books")));
    let spans = spans(&request);
    let whole = &spans[0];
    assert_eq!((&whole["name"], &whole["kind"]), (&json!("execute_tool notes.add"), &json!(1)), "{whole}");
    assert_eq!((&whole["traceId"], &whole["parentSpanId"]), (&json!(PARENT), &json!("00f067aa0ba902b7")), "{whole}");
    assert_eq!(whole["traceState"], "vendor=1");
    for (key, value) in [
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "notes.add"),
        ("gen_ai.tool.call.id", reply.call()),
        ("gen_ai.tool.type", "function"),
        ("toolkeep.outcome", "committed"),
        ("toolkeep.tenant", "local"),
    ] {
        assert_eq!(attribute(whole, key), &json!(value), "{key} in {whole}");
    }
    let names: Vec<&str> = spans.iter().skip(1).filter_map(|span| span["name"].as_str()).collect();
    let path = ["receive", "validate", "authorize", "admit", "execute", "screen", "plan", "decide", "commit", "record"];
    assert_eq!(names, path);
    let time = |span: &Value, which: &str| span[which].as_str().and_then(|t| t.parse::<u64>().ok()).expect("a time");
    for span in &spans[1..] {
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&whole["traceId"], &whole["spanId"]), "{span}");
        assert!(time(span, "startTimeUnixNano") >= time(whole, "startTimeUnixNano"), "{span}");
        assert!(time(span, "endTimeUnixNano") <= time(whole, "endTimeUnixNano"), "{span}");
    }
    assert!(!request.to_string().contains(PAYLOAD), "a span holds no payload");

    let failed = agent.execute("trap", json!({})).must("failed", "none", "tool_trapped");
    let request = collector.next();
    let span = &self::spans(&request)[0];
    assert_eq!((attribute(span, "error.type"), &span["status"]["code"]), (&json!("tool_trapped"), &json!(2)), "{span}");
    assert_eq!(span["traceId"], json!(failed.text("/trace_id")));
    assert_eq!(span["parentSpanId"], json!(""), "it began a trace of its own");
    assert!(!world.log().contains("to-the-collector"), "a credential is not logged");
}

#[test]
fn r39_a_trace_id_is_in_the_reply_the_audit_and_the_log_without_any_collector() {
    let world = World::new();
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({}))["run"].as_str().expect("a run").to_owned();
    let of_run: String = run.trim_start_matches("run_").chars().filter(|c| *c != '-').collect();
    let call = agent.reply("calls.execute", json!({"tool": "path-escape", "input": {}, "run": run}));
    assert_eq!(call.text("/trace_id"), of_run, "calls of a run share a trace");
    let alone = agent.execute("text-stats", json!({"text": "a"}));
    let own: String = alone.call().trim_start_matches("call_").chars().filter(|c| *c != '-').collect();
    assert_eq!(alone.text("/trace_id"), own);
    let stored = agent.reply("calls.get", json!({"call": alone.call()}));
    assert_eq!(stored.text("/trace_id"), own);
    let lines: Vec<Value> = world.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let line = lines.iter().find(|line| line["message"] == "boundaries were tested").expect("a line");
    assert_eq!((&line["trace_id"], &line["call_id"]), (&json!(of_run), &json!(call.call())), "{line}");
    assert_eq!(line["tenant"], "local");
    assert!(lines.iter().any(|line| line["message"] == "ready" && line["trace_id"].is_null()), "it is of no call");
    let mut seen = false;
    until("the audit has it", || {
        let database = std::fs::read(world.path("state/ledger/ledger.sqlite")).unwrap_or_default();
        let log = std::fs::read(world.path("state/ledger/ledger.sqlite-wal")).unwrap_or_default();
        let wanted = format!("\"trace\":\"{own}\"");
        seen = [database, log].iter().any(|bytes| bytes.windows(wanted.len()).any(|w| w == wanted.as_bytes()));
        seen
    });
}

#[test]
fn r39_a_caller_decides_whether_its_trace_is_recorded() {
    let collector = Collector::start(0);
    let world = collector.daemon(&[]);
    let mut agent = world.agent();
    let mut call = |flags: &str| {
        let meta = json!({"traceparent": format!("00-{PARENT}-00f067aa0ba902b7-{flags}")});
        agent.reply("calls.execute", json!({"tool": "text-stats", "input": {"text": "a"}, "_meta": meta}))
    };
    let (unseen, seen) = (call("00"), call("01"));
    assert_eq!(unseen.text("/trace_id"), PARENT, "it is of the trace all the same");
    let request = collector.next();
    assert!(request.to_string().contains(seen.call()) && !request.to_string().contains(unseen.call()), "{request}");
}

#[test]
fn r39_a_collector_that_is_busy_is_asked_again_and_a_stop_hands_over_what_is_left() {
    let collector = Collector::start(2);
    let mut world = collector.daemon(&[("OTEL_BSP_SCHEDULE_DELAY", "600000")]);
    let call = world.agent().execute("text-stats", json!({"text": "a"}));
    world.stop();
    let answers: Vec<Value> = (0..3).map(|_| collector.next()).collect();
    let statuses: Vec<_> = answers.iter().map(|answer| answer["status"].as_u64()).collect();
    assert_eq!(statuses, [Some(503), Some(503), Some(200)]);
    assert!(answers[2].to_string().contains(call.call()));
    assert_eq!(answers[0]["request"], answers[2]["request"], "nothing is lost on the way");
}

#[test]
fn what_the_environment_wants_and_there_is_not_refuses_the_start() {
    let mut world = World::asleep(Plot::default());
    world.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    world.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    world.spawn();
    let ended = world.ended();
    assert!(!ended.success() && world.log().contains("http/protobuf"), "{}", world.log());
}

#[test]
fn the_log_has_the_form_and_the_level_of_the_configuration_unless_an_option_says_otherwise() {
    let mut world = World::asleep(Plot { limits: "[log]\nformat = \"text\"\nlevel = \"warn\"\n", ..Plot::default() });
    world.start();
    world.agent().execute("path-escape", json!({}));
    let line =
        |world: &World| world.log().lines().find(|line| line.contains("boundaries were tested")).map(str::to_owned);
    until("it is logged", || line(&world).is_some());
    let text = line(&world).expect("a line");
    assert!(serde_json::from_str::<Value>(&text).is_ok(), "the option of the test comes first: {text}");
    assert!(!world.log().contains("\"INFO\""), "{}", world.log());
    let wrong = World::asleep(Plot { limits: "[log]\nlevel = \"toolkeep=shout\"\n", ..Plot::default() });
    let said = wrong.cli(&["config", "check"]);
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains("log.level"), "{said:?}");
}
