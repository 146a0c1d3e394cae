//! P14: a read-only call over MCP, by the stdio shim and by HTTP, against the same call over the native socket.
//!
//! One client each, in rounds that take turns. Everything is on, as in P1; the answers over MCP carry the same output twice,
//! as text and as a value, because the protocol says so. Both MCP clients speak revision 2026-07-28, which has no session.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use toolkeep_benches::client::{text_stats, text_stats_input};
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{PURE, World, component, program};
use toolkeep_benches::{median, timed};

/// At most so many times the native call, by stdio.
const STDIO: f64 = 3.0;
/// The same by HTTP on one connection that is kept.
const HTTP: f64 = 3.0;
const ROUNDS: usize = 30;
const WARM_UP_ROUNDS: usize = 5;
const PER_ROUND: usize = 100;
/// What every answer holds.
const WANTED: &str = r#""words":10"#;

/// The shim, as an agent starts it.
struct Shim {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: String,
}

impl Shim {
    fn start(world: &World) -> Self {
        let mut child = Command::new(program())
            .arg("--config")
            .arg(world.path("toolkeep.toml"))
            .arg("mcp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the shim starts");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
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
        self.child.kill().and_then(|()| self.child.wait()).expect("the shim ends");
    }
}

/// One HTTP connection that is kept.
struct Http {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
    body: Vec<u8>,
}

impl Http {
    fn connect(port: u16, token: &str, body: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the door");
        stream.set_nodelay(true).expect("an option");
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
             MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: text-stats\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { stream: BufReader::new(stream), request: head.into_bytes(), body: Vec::new() }
    }

    fn ask(&mut self) -> &str {
        self.stream.get_mut().write_all(&self.request).expect("sent");
        let (mut line, mut length) = (String::new(), 0_usize);
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("a head");
            if line.trim().is_empty() {
                break;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).expect("a body");
        std::str::from_utf8(&self.body).expect("text")
    }
}

fn call() -> String {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"name": "text-stats", "arguments": text_stats_input(), "_meta": meta});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

fn token(world: &World) -> String {
    let params = json!({"user": "web", "agent": "bench", "label": "bench"});
    let mint = json!({"jsonrpc": "2.0", "id": 2, "method": "tokens.mint", "params": params});
    let mut admin = world.operate().expect("the operator's connection");
    let answer: Value = serde_json::from_str(admin.ask(&mint.to_string())).expect("JSON");
    answer["result"]["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

fn main() {
    let world = World::new();
    world.install("text-stats", &component("text-stats"), PURE);
    // Free now; the daemon takes it a moment later.
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).expect("a port").port();
    world.configure(&format!("\n[http]\nlisten = \"127.0.0.1:{port}\"\n"));
    let _daemon = world.start();
    let mut native = world.connect().expect("connected");
    let (line, mcp) = (text_stats(), call());
    let mut shim = Shim::start(&world);
    let mut http = Http::connect(port, &token(&world), &mcp);
    for answer in [native.ask(&line), shim.ask(&mcp), http.ask()] {
        assert!(answer.contains(WANTED), "{answer}");
    }
    let [mut natives, mut shims, mut https] = [const { Vec::new() }; 3];
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        if round == WARM_UP_ROUNDS {
            [&mut natives, &mut shims, &mut https].into_iter().for_each(Vec::clear);
        }
        natives.extend((0..PER_ROUND).map(|_| timed(|| _ = native.ask(&line).len())));
        shims.extend((0..PER_ROUND).map(|_| timed(|| _ = shim.ask(&mcp).len())));
        https.extend((0..PER_ROUND).map(|_| timed(|| _ = http.ask().len())));
    }
    for answer in [native.ask(&line), shim.ask(&mcp), http.ask()] {
        assert!(answer.contains(WANTED), "{answer}");
    }
    let [natives, shims, https] = [natives, shims, https].map(median);
    publish(
        &[
            Row::at_most_times(
                "P14a",
                "a call over MCP by stdio, p50 (floor: native socket)",
                "µs",
                [shims, natives],
                STDIO,
            ),
            Row::at_most_times("P14b", "the same by HTTP on a kept connection", "µs", [https, natives], HTTP),
        ],
        &[],
    );
}
