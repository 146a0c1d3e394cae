//! Clients: one that waits for each answer, and many in flight at one time.
//!
//! Daemon and floor are asked by the same code, so that its own cost is in both.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

/// A connection with one request in flight.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    line: String,
}

impl Client {
    /// Connect.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        Ok(Self { stream: BufReader::new(UnixStream::connect(socket)?), line: String::new() })
    }

    /// Send one line and wait for one line.
    pub fn ask(&mut self, line: &str) -> &str {
        self.line.clear();
        self.line.push_str(line);
        self.line.push('\n');
        self.stream.get_mut().write_all(self.line.as_bytes()).expect("sent");
        self.line.clear();
        self.stream.read_line(&mut self.line).expect("answered");
        &self.line
    }

    /// Send a call and check that it ended as it should.
    pub fn call(&mut self, line: &str, outcome: &str) -> Value {
        let answer = self.ask(line);
        let value: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        let found = value.pointer("/result/reply/outcome").and_then(Value::as_str);
        assert_eq!(found, Some(outcome), "{answer}");
        value
    }
}

/// A request, as one line.
#[must_use]
pub fn request(method: &str, tool: &str, input: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"tool": tool, "input": input}}).to_string()
}

/// The request of P1 and P2.
#[must_use]
pub fn text_stats() -> String {
    request("calls.execute", "text-stats", &text_stats_input())
}

/// Its input.
#[must_use]
pub fn text_stats_input() -> Value {
    json!({"text": "to be or not to be, that is the question", "top": 2})
}

/// A request that adds a note of 4 KiB under a title of its own.
#[must_use]
pub fn add_note(method: &str, number: usize) -> String {
    let body = "all work and no play makes a dull day. ".repeat(105);
    request(method, "notes.add", &json!({"title": format!("note {number}"), "body": body}))
}

/// What became of many requests.
#[derive(Debug, Clone, Copy)]
pub struct Drove {
    /// Time for all of them.
    pub wall: Duration,
    /// How many answers do not hold the wanted text.
    pub wrong: usize,
}

/// Send `total` lines over `clients` connections, one in flight on each. Each answer should hold `wanted`.
#[must_use]
pub fn drive(
    socket: &Path,
    clients: usize,
    total: usize,
    wanted: &'static str,
    line: impl Fn(usize) -> String + Send + Sync + 'static,
) -> Drove {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (next, wrong, line) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(line));
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..clients {
            streams.push(tokio::net::UnixStream::connect(socket).await.expect("connected"));
        }
        let started = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for stream in streams {
            let (next, wrong, line) = (Arc::clone(&next), Arc::clone(&wrong), Arc::clone(&line));
            tasks.spawn(async move {
                let mut stream = tokio::io::BufReader::new(stream);
                let mut answer = String::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        return;
                    }
                    let mut text = line(number);
                    text.push('\n');
                    stream.get_mut().write_all(text.as_bytes()).await.expect("sent");
                    answer.clear();
                    stream.read_line(&mut answer).await.expect("answered");
                    if !answer.contains(wanted) && wrong.fetch_add(1, Ordering::Relaxed) == 0 {
                        eprintln!("unexpected: {answer}");
                    }
                }
            });
        }
        tasks.join_all().await;
        Drove { wall: started.elapsed(), wrong: wrong.load(Ordering::Relaxed) }
    })
}
