//! Connections of other users: a program that runs under their uid carries the bytes, so that the daemon sees what it would see.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::world::{Agent, World};

/// The group that may reach the agent socket.
pub(super) const GROUP: u32 = 7_000;

/// Whether this test may act as other users.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A copy of the relay that everybody may run: the place where it was built may be closed to others.
///
/// Another process copies it: a test beside this one that forks while it is open for writing here would keep it from being run.
fn relay(world: &World) -> PathBuf {
    let copy = world.path("relay");
    if !copy.exists() {
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_relay")).arg(&copy).status();
        assert!(copied.is_ok_and(|status| status.success()), "copied");
    }
    copy
}

/// A program that runs as this user, in this group alone.
pub(super) fn as_user(program: &Path, uid: u32, gid: u32) -> Command {
    let mut command = Command::new(program);
    command.env_clear().uid(uid).gid(gid).current_dir("/").stderr(Stdio::null());
    command
}

/// A connection under another uid.
pub(super) struct Relay {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Relay {
    pub(super) fn connect(world: &World, socket: &str, uid: u32, gid: u32) -> Self {
        let mut command = as_user(&relay(world), uid, gid);
        let command = command.arg(world.path(socket)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the relay starts");
        let (input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        Self { child, input, output: BufReader::new(output) }
    }

    /// The next line; nothing where the connection was not made or is over.
    pub(super) fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line).ok().filter(|length| *length > 0)?;
        serde_json::from_str(&line).ok()
    }

    pub(super) fn ask(&mut self, method: &str, params: &Value) -> Option<Value> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let _closed = self.input.write_all(format!("{request}\n").as_bytes());
        self.line()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Somebody who asks.
pub(super) enum Peer {
    Own(Agent),
    Other(Relay),
}

impl Peer {
    /// The whole answer.
    pub(super) fn ask(&mut self, method: &str, params: &Value) -> Value {
        let answer = match self {
            Self::Own(agent) => agent.raw(method, params.clone()),
            Self::Other(relay) => relay.ask(method, params),
        };
        answer.unwrap_or_else(|| panic!("{method} is not answered"))
    }

    /// What a method that must succeed gives.
    pub(super) fn ok(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, &params);
        assert!(answer.get("result").is_some(), "{method}: {answer}");
        answer["result"].take()
    }
}
