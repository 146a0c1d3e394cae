//! MCP over HTTP: what is answered, and a table of everything that is not, each row with its status and the number of its error.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::super::world::{Plot, World};
use super::stateless;
use crate::doors::running::until;

/// A daemon whose HTTP door is open, and the port.
pub(super) fn open(more: &str) -> (World, u16) {
    let text = format!("[http]\nlisten = \"127.0.0.1:0\"\n{more}");
    let world = World::of(Plot { limits: Box::leak(text.into_boxed_str()), ..Plot::default() });
    let port = opened(&world);
    (world, port)
}

/// The port of a door that opens.
pub(super) fn opened(world: &World) -> u16 {
    let mut found = None;
    until("the door says where it is", || {
        found = port(world);
        found.is_some()
    });
    found.expect("a port")
}

/// Where the door listens, if it does.
pub(super) fn port(world: &World) -> Option<u16> {
    let lines: Vec<Value> = world.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let address = lines.iter().find_map(|line| line["address"].as_str().filter(|a| a.starts_with("http://")));
    address.and_then(|address| address.rsplit(':').next()?.parse().ok())
}

/// A token of an agent.
pub(super) fn token(world: &World) -> String {
    let minted = world.admin().ok("tokens.mint", json!({"user": "web", "agent": "page", "label": "t"}));
    minted["token"].as_str().expect("a token").to_owned()
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Folded to small letters.
    pub(super) head: String,
    pub(super) body: String,
    /// The head as it came.
    pub(super) raw: String,
}

impl Answer {
    /// The one JSON value of its body.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The JSON of each event.
    fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Send these header lines and this body; one request on a connection of its own.
pub(super) fn say(port: u16, start: &str, lines: &[String], body: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the door");
    let mut request = format!("{start} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for line in lines {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    // What is turned away early may be closed before everything is sent.
    let _closed = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut bytes = Vec::new();
    let _cut_off = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let (raw, head) = (head.to_owned(), head.to_ascii_lowercase());
    let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() };
    Answer { status, head, body, raw }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || size > rest.len() {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// What every good request has.
pub(super) fn lines(port: u16, token: &str) -> Vec<String> {
    vec![
        format!("Host: 127.0.0.1:{port}"),
        format!("Authorization: Bearer {token}"),
        "Content-Type: application/json".to_owned(),
        "Accept: application/json, text/event-stream".to_owned(),
    ]
}

/// The lines of a good request of the newer era.
pub(super) fn newer(port: u16, token: &str, method: &str, name: Option<&str>) -> Vec<String> {
    let mut all = lines(port, token);
    all.push("MCP-Protocol-Version: 2026-07-28".to_owned());
    all.push(format!("Mcp-Method: {method}"));
    all.extend(name.map(|name| format!("Mcp-Name: {name}")));
    all
}

/// A request of the newer era.
pub(super) fn request(method: &str, mut params: Value) -> String {
    let mut meta = stateless();
    for (key, value) in params["_meta"].take().as_object().into_iter().flatten() {
        meta[key] = value.clone();
    }
    params["_meta"] = meta;
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

#[test]
fn r51_both_eras_are_answered_at_one_address_and_need_no_session() {
    let (world, port) = open("");
    let token = token(&world);
    let post = |lines: &[String], body: &str| say(port, "POST /mcp", lines, body);
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params":
        {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let greeted = post(&lines(port, &token), &hello.to_string());
    assert_eq!(
        (greeted.status, &greeted.json()["result"]["protocolVersion"]),
        (200, &json!("2025-11-25")),
        "{greeted:?}"
    );
    assert!(greeted.head.contains("mcp-session-id: "), "{greeted:?}");
    let quiet = post(&lines(port, &token), r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!((quiet.status, quiet.body.as_str()), (202, ""));
    let mut older = lines(port, &token);
    older.push("MCP-Protocol-Version: 2025-11-25".to_owned());
    let listed = post(&older, r#"{"jsonrpc":"2.0","id":"a","method":"tools/list"}"#);
    assert_eq!((listed.status, &listed.json()["id"]), (200, &json!("a")));
    let again = post(&newer(port, &token, "tools/list", None), &request("tools/list", json!({})));
    assert_eq!(again.json()["result"]["tools"], listed.json()["result"]["tools"]);
    assert_eq!(again.json()["result"]["resultType"], "complete");
    let call = json!({"name": "notes.add", "arguments": {"title": "One", "body": "b"}});
    let done = post(&newer(port, &token, "tools/call", Some("notes.add")), &request("tools/call", call));
    assert_eq!(done.json()["result"]["structuredContent"]["outcome"], "committed", "{done:?}");
    let spelled = "=?base64?dGV4dC1zdGF0cw==?=";
    let call = json!({"name": "text-stats", "arguments": {"text": "a"}});
    let done = post(&newer(port, &token, "tools/call", Some(spelled)), &request("tools/call", call));
    assert_eq!(done.json()["result"]["isError"], json!(false), "{done:?}");
    world.verified();
}

#[test]
fn r51_news_come_as_events_before_the_answer_and_who_listens_hears_the_end() {
    let (world, port) = open("");
    let token = token(&world);
    let call = json!({"name": "csv-report", "arguments": {"input": "ledger", "output": "reports/all.md"},
        "_meta": {"progressToken": 7}});
    let told =
        say(port, "POST /mcp", &newer(port, &token, "tools/call", Some("csv-report")), &request("tools/call", call));
    assert!(told.head.contains("content-type: text/event-stream"), "{told:?}");
    let events = told.events();
    let (last, news) = events.split_last().expect("events");
    assert!(!news.is_empty() && news.iter().all(|event| event["params"]["progressToken"] == json!(7)), "{events:?}");
    assert_eq!((&last["id"], &last["result"]["isError"]), (&json!(1), &json!(false)));
    let wanted = request("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let head = newer(port, &token, "subscriptions/listen", None);
    let listener = std::thread::spawn(move || say(port, "POST /mcp", &head, &wanted));
    // The door is closed for new requests when the daemon drains; this one was there before.
    until("somebody listens", || {
        world.home.put("tools/late.toml", b"format = 1\nname = \"late\"\ncomponent = \"text-stats.wasm\"\ntier = 0\n");
        world.admin().ok("tools.reload", json!({}));
        std::fs::remove_file(world.path("tools/late.toml")).expect("remove");
        world.admin().ok("tools.reload", json!({}));
        !listener.is_finished()
    });
    world.admin().ok("daemon.drain", json!({}));
    let events = listener.join().expect("heard").events();
    assert_eq!(
        events.first().map(|e| &e["method"]),
        Some(&json!("notifications/subscriptions/acknowledged")),
        "{events:?}"
    );
    assert_eq!(events.last().map(|e| &e["result"]["resultType"]), Some(&json!("complete")), "{events:?}");
}

/// A row: what is wrong, the request, and what is answered: a status, and a number of JSON-RPC where there is one.
struct Row {
    what: &'static str,
    start: &'static str,
    lines: Vec<String>,
    body: String,
    status: u16,
    number: Option<i64>,
}

/// A request that is right in everything, to be bent at one place.
struct Right<'t> {
    port: u16,
    token: &'t str,
}

impl Right<'_> {
    fn head(&self) -> Vec<String> {
        newer(self.port, self.token, "tools/list", None)
    }

    fn calling(&self, name: Option<&str>) -> Vec<String> {
        newer(self.port, self.token, "tools/call", name)
    }

    fn without(&self, name: &str) -> Vec<String> {
        let named = |line: &String| line.to_ascii_lowercase().starts_with(&name.to_ascii_lowercase());
        self.head().into_iter().filter(|line| !named(line)).collect()
    }

    fn instead(&self, name: &str, line: &str) -> Vec<String> {
        let mut lines = self.without(name);
        lines.push(line.to_owned());
        lines
    }

    fn and(&self, line: String) -> Vec<String> {
        let mut lines = self.head();
        lines.push(line);
        lines
    }
}

fn row(what: &'static str, lines: Vec<String>, body: &str, status: u16, number: Option<i64>) -> Row {
    Row { what, start: "POST /mcp", lines, body: body.to_owned(), status, number }
}

/// Who asks, where, and in which form.
fn rows_of_the_front(right: &Right<'_>, admin_token: &str) -> Vec<Row> {
    let good = request("tools/list", json!({}));
    vec![
        row("nothing", right.head(), &good, 200, None),
        row("no token", right.without("authorization"), &good, 401, None),
        row(
            "a wrong token",
            right.instead("authorization", &format!("Authorization: Bearer {}", "tk_nonsense")),
            &good,
            401,
            None,
        ),
        row(
            "a blank token",
            right.instead("authorization", &format!("Authorization: Bearer {}", "")),
            &good,
            401,
            None,
        ),
        row(
            "a token of the admin plane",
            right.instead("authorization", &format!("Authorization: Bearer {}", admin_token)),
            &good,
            401,
            None,
        ),
        row("another scheme", right.instead("authorization", "Authorization: Basic dTpw"), &good, 401, None),
        row("two tokens", right.and(format!("Authorization: Bearer {}", right.token)), &good, 401, None),
        row("a cookie", right.instead("authorization", &format!("Cookie: token={}", right.token)), &good, 401, None),
        row("no host", right.without("host"), &good, 400, None),
        row("two hosts", right.and(format!("Host: 127.0.0.1:{}", right.port)), &good, 400, None),
        row("another host", right.instead("host", &format!("Host: evil.example:{}", right.port)), &good, 421, None),
        row("another port", right.instead("host", "Host: 127.0.0.1:1"), &good, 421, None),
        row("another origin", right.and("Origin: https://evil.example".to_owned()), &good, 403, None),
        row("no origin that has a name", right.and("Origin: null".to_owned()), &good, 403, None),
        row("another site", right.and("Sec-Fetch-Site: cross-site".to_owned()), &good, 403, None),
        row("no type", right.without("content-type"), &good, 415, None),
        row("text", right.instead("content-type", "Content-Type: text/plain"), &good, 415, None),
        row(
            "a form",
            right.instead("content-type", "Content-Type: application/x-www-form-urlencoded"),
            &good,
            415,
            None,
        ),
        row(
            "another charset",
            right.instead("content-type", "Content-Type: application/json; charset=utf-16"),
            &good,
            415,
            None,
        ),
        row("two types", right.and("Content-Type: application/json".to_owned()), &good, 415, None),
        row("packed", right.and("Content-Encoding: gzip".to_owned()), &good, 415, None),
        row("no events", right.instead("accept:", "Accept: application/json"), &good, 406, None),
        row("only text", right.instead("accept:", "Accept: text/html"), &good, 406, None),
    ]
}

/// Bodies.
fn rows_of_bodies(right: &Right<'_>) -> Vec<Row> {
    let good = request("tools/list", json!({}));
    vec![
        row("nothing to read", right.head(), "", 400, Some(-32_700)),
        row("half a value", right.head(), "{", 400, Some(-32_700)),
        row("two values", right.head(), &format!("{good}{good}"), 400, Some(-32_700)),
        row("a key twice", right.head(), &good.replacen("\"id\":1", "\"id\":1,\"id\":1", 1), 400, Some(-32_700)),
        row("a byte-order mark", right.head(), &format!("\u{feff}{good}"), 400, Some(-32_700)),
        row("too deep", right.head(), &format!("{}{}", "[".repeat(70), "]".repeat(70)), 400, Some(-32_700)),
        row("a batch", right.head(), &format!("[{good}]"), 400, Some(-32_600)),
        row(
            "no id that names anything",
            right.head(),
            &good.replacen("\"id\":1", "\"id\":null", 1),
            400,
            Some(-32_600),
        ),
        row("another version of JSON-RPC", right.head(), &good.replacen("\"2.0\"", "\"1.0\"", 1), 400, Some(-32_600)),
        row("no object", right.head(), "7", 400, Some(-32_600)),
    ]
}

/// What the head says of the body.
fn rows_of_the_era(right: &Right<'_>) -> Vec<Row> {
    let good = request("tools/list", json!({}));
    let call = request("tools/call", json!({"name": "text-stats", "arguments": {"text": "a"}}));
    let mut rows = vec![
        row("a revision of the body alone", right.without("mcp-protocol"), &good, 400, Some(-32_020)),
        row(
            "two revisions",
            right.instead("mcp-protocol", "MCP-Protocol-Version: 2025-11-25"),
            &good,
            400,
            Some(-32_020),
        ),
        row("a revision twice", right.and("MCP-Protocol-Version: 2026-07-28".to_owned()), &good, 400, Some(-32_020)),
        row("no method in the head", right.without("mcp-method"), &good, 400, Some(-32_020)),
        row(
            "another method in the head",
            right.instead("mcp-method", "Mcp-Method: tools/call"),
            &good,
            400,
            Some(-32_020),
        ),
        row("a name of nothing", right.and("Mcp-Name: text-stats".to_owned()), &good, 400, Some(-32_020)),
        row("no name in the head", right.calling(None), &call, 400, Some(-32_020)),
        row("another name in the head", right.calling(Some("notes.list")), &call, 400, Some(-32_020)),
        row("a name that is no Base64", right.calling(Some("=?base64?!?=")), &call, 400, Some(-32_020)),
        row("a session", right.and("Mcp-Session-Id: x".to_owned()), &good, 404, Some(1003)),
        row(
            "no such method",
            newer(right.port, right.token, "tokens.mint", None),
            &request("tokens.mint", json!({})),
            404,
            Some(-32_601),
        ),
        row(
            "no such tool",
            right.calling(Some("tokens.mint")),
            &request("tools/call", json!({"name": "tokens.mint"})),
            400,
            Some(-32_602),
        ),
        row("too long", right.head(), &"x".repeat(4 * 1024 * 1024 + 1), 413, None),
    ];
    let unspoken = good.replace("2026-07-28", "2199-01-01");
    rows.push(row(
        "a revision that is not spoken",
        right.instead("mcp-protocol", "MCP-Protocol-Version: 2199-01-01"),
        &unspoken,
        400,
        Some(-32_022),
    ));
    rows.push(row(
        "a revision that is not spoken, and another in the head",
        right.head(),
        &unspoken,
        400,
        Some(-32_020),
    ));
    let older = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    rows.push(row("a head of the newer era before a body of the older", right.head(), older, 400, Some(-32_602)));
    rows.push(row(
        "a revision of long ago",
        right.instead("mcp-protocol", "MCP-Protocol-Version: 2024-11-05"),
        older,
        400,
        Some(-32_022),
    ));
    rows
}

/// Other verbs and other places.
fn rows_of_places(right: &Right<'_>) -> Vec<Row> {
    let good = request("tools/list", json!({}));
    let mut rows = Vec::new();
    for start in ["GET /mcp", "DELETE /mcp", "PUT /mcp", "HEAD /mcp"] {
        rows.push(Row {
            what: "another verb",
            start,
            lines: right.head(),
            body: good.clone(),
            status: 405,
            number: None,
        });
    }
    for start in ["POST /mcp/", "POST /MCP", "POST //mcp"] {
        rows.push(Row {
            what: "another place",
            start,
            lines: right.head(),
            body: good.clone(),
            status: 404,
            number: None,
        });
    }
    rows
}

#[test]
fn t_i7_t_i9_every_request_that_is_not_right_has_its_status_and_nothing_happens() {
    let (world, port) = open("");
    let token = token(&world);
    let minted = world.admin().ok("tokens.mint", json!({"plane": "admin", "user": "operator"}));
    let before = world.snapshot();
    let right = Right { port, token: &token };
    let front = rows_of_the_front(&right, minted["token"].as_str().expect("a token"));
    for row in
        front.into_iter().chain(rows_of_bodies(&right)).chain(rows_of_the_era(&right)).chain(rows_of_places(&right))
    {
        let answer = say(port, row.start, &row.lines, &row.body);
        let number = answer.json()["error"]["code"].as_i64();
        assert_eq!((answer.status, number), (row.status, row.number), "{}: {answer:?}", row.what);
        let challenged = answer.head.contains("www-authenticate: bearer");
        assert_eq!(challenged, row.status == 401, "{}: {answer:?}", row.what);
    }
    assert_eq!(world.snapshot(), before);
}

#[test]
fn t_i4_a_token_that_was_taken_back_opens_nothing_any_more() {
    let (world, port) = open("");
    let minted = world.admin().ok("tokens.mint", json!({"user": "web", "agent": "page", "label": "t"}));
    let token = minted["token"].as_str().expect("a token");
    let ask =
        || say(port, "POST /mcp", &newer(port, token, "tools/list", None), &request("tools/list", json!({}))).status;
    assert_eq!(ask(), 200);
    let id = minted.get("id").or_else(|| minted.get("token_id")).cloned().unwrap_or_default();
    world.admin().ok("tokens.revoke", json!({"token": id}));
    assert_eq!(ask(), 401);
}

#[test]
fn r51_who_gives_tokens_is_told_where_somebody_does() {
    let (_world, port) = open("");
    let path = "GET /.well-known/oauth-protected-resource/mcp";
    let host = vec![format!("Host: localhost:{port}")];
    assert_eq!(say(port, path, &host, "").status, 404, "nobody does here");
    let keys = "jwks_url = \"https://127.0.0.1:1/keys\"";
    let (_world, port) = open(&super::super::signer::issuer(keys));
    let host = vec![format!("Host: localhost:{port}")];
    let told = say(port, path, &host, "");
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(told.json()["resource"], format!("http://localhost:{port}/mcp"));
    assert_eq!(told.json()["authorization_servers"].as_array().map(Vec::len), Some(1));
    let refused = say(port, "POST /mcp", &host, "");
    let wanted = format!("resource_metadata=\"http://localhost:{port}/.well-known/oauth-protected-resource/mcp\"");
    assert!(refused.status == 401 && refused.head.contains(&wanted), "{refused:?}");
}
