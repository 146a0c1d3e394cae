//! Sessions of the older era over HTTP: from `initialize` to their end, with the stream of changes, what is asked over the stream
//! of a request, and everything that is no session.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::world::{World, component};
use super::elicit;
use super::http::{Answer, lines, open, opened, say, token};

/// Longest that a test waits for an event.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client of the older era says first.
fn hello(version: &str, capabilities: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": version,
        "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}}})
    .to_string()
}

/// A client with a session.
struct Session {
    port: u16,
    lines: Vec<String>,
}

impl Session {
    fn begin(port: u16, token: &str, capabilities: &Value) -> Self {
        Self::of(port, token, ("2025-11-25", capabilities))
    }

    fn of(port: u16, token: &str, (version, capabilities): (&str, &Value)) -> Self {
        let greeted = say(port, "POST /mcp", &lines(port, token), &hello(version, capabilities));
        assert_eq!(greeted.status, 200, "{greeted:?}");
        let mut lines = lines(port, token);
        lines.push(format!("Mcp-Session-Id: {}", name_of(&greeted)));
        lines.push(format!("MCP-Protocol-Version: {version}"));
        Self { port, lines }
    }

    fn post(&self, body: &Value) -> Answer {
        say(self.port, "POST /mcp", &self.lines, &body.to_string())
    }

    fn ask(&self, id: u64, method: &str, params: Value) -> Answer {
        self.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    /// An answer as it comes.
    fn stream(&self, start: &str, more: &[&str], body: &str) -> Stream {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).expect("the door");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut request = format!("{start} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
        for line in self.lines.iter().map(String::as_str).chain(more.iter().copied()) {
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        request.push_str(body);
        socket.write_all(request.as_bytes()).expect("sent");
        Stream { socket, read: String::new(), at: 0 }
    }

    fn call(&self, id: u64, name: &str, arguments: &Value) -> Stream {
        let params = json!({"name": name, "arguments": arguments});
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        self.stream("POST /mcp", &[], &body.to_string())
    }
}

/// The session that an answer to `initialize` names. Names are in letters of both cases, so not by the folded head.
fn name_of(answer: &Answer) -> String {
    let line = answer.raw.lines().find(|line| line.to_ascii_lowercase().starts_with("mcp-session-id: "));
    line.and_then(|line| line.split_once(": ")).expect("a session").1.to_owned()
}

/// An answer that is read line by line.
struct Stream {
    socket: TcpStream,
    read: String,
    at: usize,
}

impl Stream {
    /// The next line that begins so, or nothing where the stream ends before it.
    fn line(&mut self, begin: &str) -> Option<String> {
        loop {
            while let Some(end) = self.read[self.at..].find('\n') {
                let line = self.read[self.at..self.at + end].trim_end().to_owned();
                self.at += end + 1;
                if let Some(rest) = line.strip_prefix(begin) {
                    return Some(rest.to_owned());
                }
                // The end of a body in chunks.
                if line == "0" {
                    return None;
                }
            }
            let mut bytes = [0; 4096];
            let count = self.socket.read(&mut bytes).expect("in time");
            if count == 0 {
                return None;
            }
            self.read.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
        }
    }

    /// The next message.
    fn message(&mut self) -> Value {
        loop {
            let data = self.line("data: ").expect("an event");
            if !data.is_empty() {
                return serde_json::from_str(&data).expect("JSON");
            }
        }
    }

    fn status(&mut self) -> u16 {
        self.line("HTTP/1.1 ").and_then(|line| line.split(' ').next()?.parse().ok()).expect("a status")
    }
}

/// Offer one tool more.
fn offer(world: &World, name: &str) {
    std::fs::copy(component("text-stats"), world.path(&format!("tools/{name}.wasm"))).expect("component");
    let manifest = format!("format = 1\nname = \"{name}\"\ncomponent = \"{name}.wasm\"\ntier = 0\n");
    world.home.put(&format!("tools/{name}.toml"), manifest.as_bytes());
    world.admin().ok("tools.reload", json!({}));
}

#[test]
fn r51_a_session_lasts_from_its_handshake_to_its_end() {
    let (world, port) = open("");
    let token = token(&world);
    let session = Session::begin(port, &token, &json!({}));
    let quiet = session.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert_eq!((quiet.status, quiet.body.as_str()), (202, ""));
    let listed = session.ask(1, "tools/list", json!({}));
    assert_eq!((listed.status, listed.json()["result"]["tools"].is_array()), (200, true), "{listed:?}");
    let done = session.ask(2, "tools/call", json!({"name": "text-stats", "arguments": {"text": "a"}}));
    assert_eq!(done.json()["result"]["isError"], json!(false), "{done:?}");
    assert_eq!(session.ask(3, "ping", json!({})).json()["result"], json!({}));
    let ended = say(port, "DELETE /mcp", &session.lines, "");
    assert_eq!((ended.status, ended.body.as_str()), (204, ""));
    for start in ["POST /mcp", "GET /mcp", "DELETE /mcp"] {
        let after = say(port, start, &session.lines, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        assert_eq!(after.status, 404, "{start}: {after:?}");
    }
}

#[test]
fn t_i3_t_i9_every_session_that_is_none_has_its_status() {
    let (world, port) = open("");
    let (token, theirs) = (token(&world), {
        let minted = world.admin().ok("tokens.mint", json!({"user": "bob", "agent": "other", "label": "t"}));
        minted["token"].as_str().expect("a token").to_owned()
    });
    let mine = Session::begin(port, &token, &json!({}));
    let id = mine.lines.iter().find(|line| line.starts_with("Mcp-Session-Id")).expect("a session").clone();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_owned();
    let with = |token: &str, more: &[&str]| -> Vec<String> {
        lines(port, token).into_iter().chain(more.iter().map(|line| (*line).to_owned())).collect()
    };
    let version = "MCP-Protocol-Version: 2025-11-25";
    let response =
        r#"{"jsonrpc":"2.0","id":"toolkeep-1","result":{"action":"accept","content":{"ok":true}}}"#.to_owned();
    let note = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#.to_owned();
    let stateless = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": super::stateless()}});
    let newer = ["MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/list"];
    let unknown = format!("Mcp-Session-Id: {}", "A".repeat(43));
    let rows: Vec<(&str, &str, Vec<String>, String, u16)> = vec![
        ("its own", "POST", with(&token, &[&id, version]), ping.clone(), 200),
        ("its own, without a revision", "POST", with(&token, &[&id]), ping.clone(), 200),
        ("none at all", "POST", with(&token, &[version]), ping.clone(), 200),
        ("unknown", "POST", with(&token, &[&unknown]), ping.clone(), 404),
        ("empty", "POST", with(&token, &["Mcp-Session-Id: "]), ping.clone(), 404),
        ("twice", "POST", with(&token, &[&id, &id]), ping.clone(), 400),
        ("somebody else's", "POST", with(&theirs, &[&id]), ping.clone(), 404),
        ("somebody else's stream", "GET", with(&theirs, &[&id]), String::new(), 404),
        ("somebody else's end", "DELETE", with(&theirs, &[&id]), String::new(), 404),
        ("somebody else's question", "POST", with(&theirs, &[&id]), response.clone(), 404),
        ("somebody else's request", "POST", with(&theirs, &[&id]), note.clone(), 404),
        (
            "no token",
            "POST",
            with(&token, &[&id]).into_iter().filter(|l| !l.starts_with("Auth")).collect(),
            ping.clone(),
            401,
        ),
        ("no token, its stream", "GET", vec![format!("Host: 127.0.0.1:{port}"), id.clone()], String::new(), 401),
        ("no token, its end", "DELETE", vec![format!("Host: 127.0.0.1:{port}"), id.clone()], String::new(), 401),
        ("another revision", "POST", with(&token, &[&id, "MCP-Protocol-Version: 2025-06-18"]), ping.clone(), 400),
        (
            "another revision, its stream",
            "GET",
            with(&token, &[&id, "MCP-Protocol-Version: 2025-06-18"]),
            String::new(),
            400,
        ),
        (
            "another revision, a note",
            "POST",
            with(&token, &[&id, "MCP-Protocol-Version: 2025-06-18"]),
            note.clone(),
            400,
        ),
        ("of the era without", "POST", with(&token, &[&id, newer[0], newer[1]]), stateless.to_string(), 400),
        ("initialized again", "POST", with(&token, &[&id]), hello("2025-11-25", &json!({})), 400),
        ("a note", "POST", with(&token, &[&id]), note, 202),
        ("an answer that nobody asked for", "POST", with(&token, &[&id]), response, 202),
        ("a stream of none", "GET", with(&token, &[]), String::new(), 405),
        ("the end of none", "DELETE", with(&token, &[]), String::new(), 405),
        ("an event that is none", "GET", with(&token, &[&id, "Last-Event-ID: x"]), String::new(), 400),
        (
            "no events",
            "GET",
            with(&token, &[&id]).into_iter().filter(|l| !l.starts_with("Accept")).collect(),
            String::new(),
            406,
        ),
    ];
    for (what, verb, lines, body, status) in rows {
        let answer = say(port, &format!("{verb} /mcp"), &lines, &body);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    }
    assert_eq!(mine.ask(9, "ping", json!({})).status, 200, "it stands after all of that");
}

#[test]
fn r51_a_session_hears_of_changes_on_one_stream_and_takes_it_up_where_it_broke() {
    let (world, port) = open("");
    let session = Session::begin(port, &token(&world), &json!({}));
    let mut first = session.stream("GET /mcp", &[], "");
    assert_eq!(first.status(), 200);
    let begun = first.line("id: ").expect("a number");
    offer(&world, "later");
    let heard = first.line("id: ").expect("a number");
    assert_eq!(first.message()["method"], "notifications/tools/list_changed");
    assert_ne!(begun, heard);
    // Another one takes its place, and is told nothing twice.
    let mut second = session.stream("GET /mcp", &[&format!("Last-Event-ID: {heard}")], "");
    assert_eq!((second.status(), second.line("id: ")), (200, Some(heard.clone())));
    assert_eq!(first.line("id: "), None, "the one before ends");
    drop(second);
    offer(&world, "still-later");
    let mut third = session.stream("GET /mcp", &[&format!("Last-Event-ID: {heard}")], "");
    assert_eq!(third.status(), 200);
    assert_eq!(third.message()["method"], "notifications/tools/list_changed", "what it missed");
    assert_eq!(say(port, "DELETE /mcp", &session.lines, "").status, 204);
    assert_eq!(third.line("id: "), None, "it ends with its session");
}

#[test]
fn r51_a_stream_of_the_revision_before_has_no_event_without_data() {
    let (world, port) = open("");
    let session = Session::of(port, &token(&world), ("2025-06-18", &json!({})));
    let mut stream = session.stream("GET /mcp", &[], "");
    assert_eq!((stream.status(), stream.line(": ")), (200, Some("begun".to_owned())));
    offer(&world, "later");
    assert!(stream.line("id: ").is_some());
    // Every event has data that is JSON: the first that there is.
    let data = stream.line("data:").expect("an event");
    let first: Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(first["method"], "notifications/tools/list_changed");
    assert_eq!(stream.read.matches("data:").count(), 1, "{}", stream.read);
}

#[test]
fn streams_of_all_sessions_of_a_client_leave_room_for_its_calls_and_for_others() {
    const OWN: usize = 16;
    let (world, port) = open("");
    let token = token(&world);
    let sessions: Vec<Session> = (0..OWN).map(|_| Session::begin(port, &token, &json!({}))).collect();
    let mut streams: Vec<Stream> = sessions.iter().map(|session| session.stream("GET /mcp", &[], "")).collect();
    assert!(streams.iter_mut().all(|stream| stream.status() == 200));
    // A call that tells of its progress is a stream as well.
    let call = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call",
        "params": {"name": "text-stats", "arguments": {"text": "a"}, "_meta": {"progressToken": "p"}}});
    assert_eq!(sessions[0].stream("POST /mcp", &[], &call.to_string()).status(), 200, "a call beside them");
    offer(&world, "later");
    for stream in &mut streams {
        assert_eq!(stream.message()["method"], "notifications/tools/list_changed", "all of them go on");
    }
    let minted = world.admin().ok("tokens.mint", json!({"user": "bob", "agent": "other", "label": "t"}));
    let other = Session::begin(port, minted["token"].as_str().expect("a token"), &json!({}));
    assert_eq!(other.stream("GET /mcp", &[], "").status(), 200, "somebody else has a share, too");
}

#[test]
fn r51_what_is_asked_in_a_session_ends_with_it() {
    let world = elicit::confirming();
    let port = opened(&world);
    let session = Session::begin(port, &token(&world), &json!({"elicitation": {}}));
    let mut asked = session.call(2, "notes.add", &json!({"title": "One", "body": "b"}));
    let question = asked.message();
    assert_eq!(say(port, "DELETE /mcp", &session.lines, "").status, 204);
    let withdrawn = asked.message();
    assert_eq!(
        (&withdrawn["method"], &withdrawn["params"]["requestId"]),
        (&json!("notifications/cancelled"), &question["id"])
    );
    assert_eq!(asked.line("data: "), None, "and nothing is waited for");
}

#[test]
fn r51_a_request_of_a_session_is_cancelled_by_its_id_and_has_no_answer() {
    let (world, port) = open("");
    let session = Session::begin(port, &token(&world), &json!({}));
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    let done = AtomicBool::new(false);
    // Said again and again: it may come before the request is under way.
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(session.post(&cancel).status, 202);
            }
        });
        let status = session.call(7, "spin-long", &json!({})).status();
        done.store(true, Ordering::Relaxed);
        status
    });
    assert_eq!(status, 202, "taken, and not answered");
    assert_eq!(session.ask(7, "ping", json!({})).status, 200);
}

#[test]
fn r51_a_session_is_asked_over_the_stream_of_its_request_and_answers_with_another() {
    let world = elicit::confirming();
    let port = opened(&world);
    let (token, form) = (token(&world), json!({"elicitation": {}}));
    let session = Session::begin(port, &token, &form);
    // A quick answer is one JSON value as ever.
    let quick = session.ask(1, "tools/call", json!({"name": "text-stats", "arguments": {"text": "a"}}));
    assert!(quick.head.contains("content-type: application/json"), "{quick:?}");
    let mut asked = session.call(2, "notes.add", &json!({"title": "One", "body": "b"}));
    let question = asked.message();
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let yes = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"ok": true}}});
    // An answer to the same id in another session of the same client, and without one, answers nothing: were one of these taken,
    // the plan would be rejected, and the yes that comes after them too late.
    let no = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}});
    let other = Session::begin(port, &token, &form);
    assert_eq!(other.post(&no).status, 202);
    assert_eq!(say(port, "POST /mcp", &lines(port, &token), &no.to_string()).status, 202);
    assert_eq!(session.post(&yes).status, 202);
    let done = asked.message();
    assert_eq!(
        (&done["id"], &done["result"]["structuredContent"]["outcome"]),
        (&json!(2), &json!("committed")),
        "{done}"
    );
    assert_eq!(asked.line("data: "), None, "the answer is the last event");
    assert!(world.path("notes/one.md").exists());
    // One that cannot be asked, and one without a session, are told that it waits.
    let silent = Session::begin(port, &token, &json!({}));
    for told in [
        silent.ask(3, "tools/call", json!({"name": "notes.add", "arguments": {"title": "Two", "body": "b"}})),
        say(
            port,
            "POST /mcp",
            &lines(port, &token),
            &json!({"jsonrpc": "2.0", "id": 4, "method": "tools/call",
            "params": {"name": "notes.add", "arguments": {"title": "Two", "body": "b"}}})
            .to_string(),
        ),
    ] {
        assert_eq!(told.json()["result"]["structuredContent"]["status"], "approval_required", "{told:?}");
    }
    world.verified();
}

#[test]
fn t_i3_a_session_whose_token_was_taken_back_answers_nothing() {
    let world = elicit::confirming();
    let port = opened(&world);
    let minted = world.admin().ok("tokens.mint", json!({"user": "bob", "agent": "other", "label": "t"}));
    let token = minted["token"].as_str().expect("a token");
    let session = Session::begin(port, token, &json!({"elicitation": {}}));
    let mut asked = session.call(2, "notes.add", &json!({"title": "One", "body": "b"}));
    let question = asked.message();
    world.admin().ok("tokens.revoke", json!({"token": minted["id"]}));
    let yes = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"ok": true}}});
    assert_eq!(session.post(&yes).status, 401);
    let waiting = world.admin().ok("approvals.list", json!({}));
    assert_eq!(waiting["approvals"].as_array().expect("all").len(), 1, "it waits as before: {waiting}");
    assert!(!world.path("notes/one.md").exists());
}

#[test]
fn n_sessions_of_one_client_stand_and_the_next_ends_the_oldest() {
    const OWN: usize = 16;
    let (world, port) = open("");
    let token = token(&world);
    let sessions: Vec<Session> = (0..OWN).map(|_| Session::begin(port, &token, &json!({}))).collect();
    let stands = |session: &Session| session.ask(1, "ping", json!({})).status == 200;
    for session in &sessions {
        assert!(stands(session));
        // Which one is used last is told apart by the millisecond.
        std::thread::sleep(Duration::from_millis(2));
    }
    let next = Session::begin(port, &token, &json!({}));
    assert!(stands(&next) && !stands(&sessions[0]) && sessions[1..].iter().all(stands));
}
