//! P1 over MCP: the same read-only call through `toolkeep mcp`, its socket and HTTP, against the native socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use toolkeep_benches::client::{Client, text_stats, text_stats_input};
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{PURE, World, component, program};
use toolkeep_benches::{median, timed};

/// At most so many times the native socket.
const PROMISE: f64 = 3.0;
const ROUNDS: usize = 30;
const WARM_UP_ROUNDS: usize = 5;
const PER_ROUND: usize = 200;

/// The call in the newer era.
fn request() -> String {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"name": "text-stats", "arguments": text_stats_input(), "_meta": meta});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

fn check(answer: &str) {
    let value: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let status = value.pointer("/result/structuredContent/status").and_then(Value::as_str);
    assert_eq!(status, Some("ok"), "{answer}");
}

/// What a client starts.
struct Shim {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: String,
}

impl Shim {
    fn start(world: &World) -> Self {
        let mut command = Command::new(program());
        command.arg("--config").arg(world.path("toolkeep.toml")).arg("mcp");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the shim");
        let (input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        Self { child, input, output: BufReader::new(output), line: String::new() }
    }

    fn ask(&mut self, line: &str) -> &str {
        self.line.clear();
        self.line.push_str(line);
        self.line.push('\n');
        self.input.write_all(self.line.as_bytes()).expect("sent");
        self.line.clear();
        self.output.read_line(&mut self.line).expect("answered");
        &self.line
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("the shim stays");
        }
    }
}

/// A connection that is kept.
struct Web {
    stream: BufReader<TcpStream>,
    request: String,
    body: Vec<u8>,
}

impl Web {
    fn connect(port: u16, token: &str, body: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the door");
        stream.set_nodelay(true).expect("a socket");
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
             MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: text-stats\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { stream: BufReader::new(stream), request, body: Vec::new() }
    }

    fn ask(&mut self) -> &[u8] {
        self.stream.get_mut().write_all(self.request.as_bytes()).expect("sent");
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("a head");
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a length");
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).expect("a body");
        &self.body
    }
}

fn main() {
    let world = World::new();
    world.install("text-stats", &component("text-stats"), PURE);
    // Free a moment ago, and free again.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    world.configure(&format!("\n[http]\nlisten = \"127.0.0.1:{port}\"\n"));
    let _daemon = world.start();
    let mint = json!({"jsonrpc": "2.0", "id": 1, "method": "tokens.mint",
        "params": {"user": "bench", "agent": "bench", "label": "bench"}});
    let minted: Value =
        serde_json::from_str(world.operate().expect("the operator").ask(&mint.to_string())).expect("JSON");
    let token = minted.pointer("/result/token").and_then(Value::as_str).expect("a token").to_owned();

    let (native_line, line) = (text_stats(), request());
    let mut native = world.connect().expect("connected");
    let mut socket = Client::connect(&world.agent_socket().with_file_name("mcp.sock")).expect("connected");
    let mut shim = Shim::start(&world);
    let mut web = Web::connect(port, &token, &line);
    native.call(&native_line, "none");
    check(socket.ask(&line));
    check(shim.ask(&line));
    check(std::str::from_utf8(web.ask()).expect("text"));

    let [mut natives, mut sockets, mut shims, mut webs] = [const { Vec::new() }; 4];
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        if round == WARM_UP_ROUNDS {
            [&mut natives, &mut sockets, &mut shims, &mut webs].into_iter().for_each(Vec::clear);
        }
        natives.extend((0..PER_ROUND).map(|_| timed(|| _ = native.ask(&native_line).len())));
        sockets.extend((0..PER_ROUND).map(|_| timed(|| _ = socket.ask(&line).len())));
        shims.extend((0..PER_ROUND).map(|_| timed(|| _ = shim.ask(&line).len())));
        webs.extend((0..PER_ROUND).map(|_| timed(|| _ = web.ask().len())));
    }
    check(shim.ask(&line));
    check(std::str::from_utf8(web.ask()).expect("text"));
    let [natives, sockets, shims, webs] = [natives, sockets, shims, webs].map(median);
    let what = "a read-only call through `toolkeep mcp`, p50, against the native socket";
    let row = Row::at_most_times("P1s", what, "µs", [shims, natives], PROMISE);
    let http = Row::at_most_times("P1w", "the same over HTTP, kept alive, p50", "µs", [webs, natives], PROMISE);
    let note = format!("native {natives:.1} µs, mcp.sock {sockets:.1} µs, stdio {shims:.1} µs, HTTP {webs:.1} µs");
    publish(&[row, http], &[note]);
}
