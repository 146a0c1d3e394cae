//! The command line's end of a socket: one request at a time, over the same protocol as everybody else.
//!
//! There is no other way in: what the command line can do, any client can. Interrupting the program closes
//! the connection, which cancels an execution and never a commit.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_core::refusal::Refusal;

use super::failure::Failure;
use super::ui::Ui;
use crate::daemon::method::{AdminMethod, AgentMethod};

/// Longest line that is taken from the daemon, in bytes: a page of a plan with its contents, and room.
const REPLY_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// How often a token is shown while the daemon reads the keys of its issuer again.
const TOKEN_TRIES: u32 = 3;
/// The longest pause between, in milliseconds.
const TRY_AGAIN_MAX_MS: u64 = 5_000;

/// A connection to the agent socket.
#[derive(Debug)]
pub struct AgentClient(Connection);

/// A connection to the admin socket.
#[derive(Debug)]
pub struct AdminClient(Connection);

#[derive(Debug)]
struct Connection {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl AgentClient {
    /// Connect, and show the token if there is one. Keys that are read again meanwhile are waited for.
    ///
    /// # Errors
    /// No daemon answers there, or the token is refused.
    pub fn connect(ui: &Ui, socket: &Path, token: Option<&str>) -> Result<Self, Failure> {
        let mut client = Self(Connection::open(socket)?);
        let Some(token) = token else { return Ok(client) };
        for left in (0..TOKEN_TRIES).rev() {
            match client.ask(ui, AgentMethod::SessionAuthenticate, json!({"token": token})) {
                Ok(_) => break,
                Err(Failure::Refused(refusal)) if refusal.retryable && left > 0 => {
                    rest(refusal.retry_after_ms.unwrap_or(0).min(TRY_AGAIN_MAX_MS));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(client)
    }

    /// The connection itself, for whoever speaks another protocol over it from here on.
    #[must_use]
    pub fn into_stream(self) -> BufReader<UnixStream> {
        self.0.stream
    }

    /// Ask and wait for the answer. Progress is shown by `ui`.
    ///
    /// # Errors
    /// The daemon refuses, or ends the connection.
    pub fn ask(&mut self, ui: &Ui, method: AgentMethod, params: Value) -> Result<Value, Failure> {
        self.0.ask(ui, method.name(), params)
    }
}

impl AdminClient {
    /// Connect, and show the token if there is one.
    ///
    /// # Errors
    /// No daemon answers there, or the token is refused.
    pub fn connect(ui: &Ui, socket: &Path, token: Option<&str>) -> Result<Self, Failure> {
        let mut client = Self(Connection::open(socket)?);
        if let Some(token) = token {
            client.ask(ui, AdminMethod::SessionAuthenticate, json!({"token": token.trim()}))?;
        }
        Ok(client)
    }

    /// Ask and wait for the answer.
    ///
    /// # Errors
    /// The daemon refuses, or ends the connection.
    pub fn ask(&mut self, ui: &Ui, method: AdminMethod, params: Value) -> Result<Value, Failure> {
        self.0.ask(ui, method.name(), params)
    }
}

#[expect(clippy::disallowed_methods, reason = "the command line has one thread, and whoever waits ends the program")]
pub(super) fn rest(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

impl Connection {
    fn open(socket: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(socket)
            .map_err(|source| Failure::Unreachable { socket: socket.to_path_buf(), source })?;
        Ok(Self { socket: socket.to_path_buf(), stream: BufReader::new(stream), next_id: 1 })
    }

    fn ask(&mut self, ui: &Ui, method: &str, params: Value) -> Result<Value, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = json!({"jsonrpc": "2.0", "id": id, "method": method});
        if let Value::Object(members) = &mut request {
            members.insert("params".to_owned(), params);
        }
        // A daemon that refuses the connection has said why and closed it; that is read below.
        let sent = self.stream.get_mut().write_all(format!("{request}\n").as_bytes());
        let progress = ui.progress();
        let answer = loop {
            let message = self.read().map_err(|failure| match &sent {
                Err(error) => self.broken(&format!("closed the connection: {error}")),
                Ok(()) => failure,
            })?;
            if message.get("method").and_then(Value::as_str) == Some("call.progress") {
                let text = message.pointer("/params/message").and_then(Value::as_str).unwrap_or_default();
                let number = |pointer| message.pointer(pointer).and_then(Value::as_u64);
                progress.show(number("/params/done").unwrap_or(0), number("/params/total"), text);
            } else if message.get("id").is_some_and(|answered| *answered == json!(id) || answered.is_null()) {
                break message;
            }
        };
        progress.clear();
        self.result(answer)
    }

    fn result(&self, mut answer: Value) -> Result<Value, Failure> {
        if let Some(result) = answer.get_mut("result") {
            return Ok(result.take());
        }
        let data = answer.pointer("/error/data").cloned().unwrap_or_default();
        match serde_json::from_value::<Refusal>(data) {
            Ok(refusal) => Err(refusal.into()),
            Err(_) => Err(self.broken("answered an error without its reason")),
        }
    }

    fn read(&mut self) -> Result<Value, Failure> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(REPLY_MAX_BYTES).read_until(b'\n', &mut line);
        match read {
            Ok(0) => Err(self.broken("closed the connection")),
            Ok(_) => serde_json::from_slice(&line).map_err(|error| self.broken(&format!("answered no JSON: {error}"))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.read(),
            Err(error) => Err(self.broken(&format!("cannot be read: {error}"))),
        }
    }

    fn broken(&self, problem: &str) -> Failure {
        Failure::Protocol { socket: self.socket.clone(), problem: problem.to_owned() }
    }
}
