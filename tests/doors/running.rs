//! A daemon of the built binary on directories of its own, and raw clients of its sockets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_tests::support::scratch::Scratch;

/// How long a test waits for the daemon before it gives up: far more than a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The built program, beside the directory of the test program.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the test program's path");
    let program = test.parent().and_then(Path::parent).expect("a target directory").join("toolkeep");
    assert!(program.is_file(), "{} is not built; run `cargo build -p toolkeep`", program.display());
    program
}

/// Run the program to its end with the environment of a test: nothing but a home.
pub(crate) fn run(home: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = command(home);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("stdin");
    let _closed_early = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

/// The program with the environment of a test: a home, and where programs are.
pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new(program());
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("HOME", home).env("PATH", path).current_dir(home);
    command
}

/// Wait until something is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..(PATIENCE.as_millis() / LOOK_EVERY.as_millis()) {
        if so() {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    panic!("gave up waiting until {what}");
}

/// A daemon that is killed when the test is over.
pub(crate) struct Daemon {
    pub(crate) home: Scratch,
    child: Child,
}

impl Daemon {
    /// A daemon for the user of the test, with the workspaces `work` and `notes`.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// The same with more configuration.
    pub(crate) fn with(more: &str) -> Self {
        Self::configured("", more)
    }

    /// The same where one person approves alone.
    pub(crate) fn solo(more: &str) -> Self {
        Self::configured("solo = true\n", more)
    }

    fn configured(daemon: &str, more: &str) -> Self {
        let home = Scratch::new();
        for directory in ["work", "notes", "tools"] {
            std::fs::create_dir(home.path().join(directory)).expect("directory");
        }
        let config = format!(
            "[daemon]\nstate_dir = \"state\"\nruntime_dir = \"run\"\ntools_dir = \"tools\"\n{daemon}\
             [[workspace]]\nname = \"work\"\npath = \"work\"\n\
             [[workspace]]\nname = \"notes\"\npath = \"notes\"\n{more}"
        );
        home.put("toolkeep.toml", config.as_bytes());
        let child = serve(home.path());
        let mut daemon = Self { home, child };
        daemon.until_ready();
        daemon
    }

    /// Start it again where a process may have so many files open, unless it raises that itself.
    pub(crate) fn restart_with_files(&mut self, most: u32) {
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -S -n {most} && exec \"$0\" \"$@\"")]).arg(program());
        let path = std::env::var_os("PATH").unwrap_or_default();
        limited.env_clear().env("HOME", self.home.path()).env("PATH", path).current_dir(self.home.path());
        self.child = begin(self.home.path(), limited);
        self.until_ready();
    }

    /// Start it again on the same directories.
    pub(crate) fn restart(&mut self) {
        self.child = serve(self.home.path());
        self.until_ready();
    }

    fn until_ready(&mut self) {
        let socket = self.admin_socket();
        until("the daemon listens", || {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
                panic!("the daemon ended with {status}: {log}");
            }
            UnixStream::connect(&socket).is_ok()
        });
    }

    /// Run the command line against it.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        self.cli_with(arguments, "")
    }

    /// The same with standard input.
    pub(crate) fn cli_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut all = vec!["--config", "toolkeep.toml"];
        all.extend(arguments);
        run(self.home.path(), &all, input)
    }

    pub(crate) fn agent_socket(&self) -> PathBuf {
        self.home.path().join("run/agent/agent.sock")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.home.path().join("run/admin/admin.sock")
    }

    /// A connection to the agent socket.
    pub(crate) fn agent(&self) -> Client {
        Client::connect(&self.agent_socket())
    }

    /// A connection to the admin socket that has shown nothing.
    pub(crate) fn stranger(&self) -> Client {
        Client::connect(&self.admin_socket())
    }

    /// A connection to the admin socket that has shown the token.
    pub(crate) fn admin(&self) -> Client {
        let token = std::fs::read_to_string(self.home.path().join("run/admin/token")).expect("the token");
        let mut client = self.stranger();
        let answer = client.ask("session.authenticate", json!({"token": token.trim()}));
        assert!(answer.get("result").is_some(), "{answer}");
        client
    }

    /// Send a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        let pid = rustix::process::Pid::from_raw(id).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("signal");
    }

    /// Wait for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the daemon ends", || {
            ended = self.child.try_wait().expect("the child is ours");
            ended.is_some()
        });
        ended.expect("ended")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

fn serve(home: &Path) -> Child {
    begin(home, command(home))
}

fn begin(home: &Path, mut command: Command) -> Child {
    let log = std::fs::File::create(home.join("log")).expect("log");
    command.args(["--config", "toolkeep.toml", "serve", "--log", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
    command.spawn().expect("the daemon starts")
}

/// One connection, raw.
pub(crate) struct Client(BufReader<UnixStream>);

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self(BufReader::new(stream))
    }

    /// The same, where nobody may be listening.
    pub(crate) fn try_connect(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Some(Self(BufReader::new(stream)))
    }

    /// The connection, to write on beside it.
    pub(crate) fn stream(&self) -> UnixStream {
        self.0.get_ref().try_clone().expect("a copy")
    }

    /// Send bytes as they are. A daemon that closed the connection meanwhile is no failure here.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _closed = self.0.get_mut().write_all(bytes);
    }

    /// The next line; nothing at the end.
    pub(crate) fn line(&mut self) -> Option<Value> {
        let mut line = Vec::new();
        match self.0.read_until(b'\n', &mut line) {
            Ok(0) => None,
            // Cut off with the daemon.
            Ok(_) if !line.ends_with(b"\n") => None,
            Ok(_) => Some(serde_json::from_slice(&line).expect("a line of JSON")),
            // Closed while bytes of ours were unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("the daemon does not answer: {error}"),
        }
    }

    /// Whether the daemon closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_ok_and(|count| count == 0) || rest.is_empty()
    }

    /// Send one line and take the answer.
    pub(crate) fn exchange(&mut self, line: &str) -> Value {
        self.send(format!("{line}\n").as_bytes());
        self.line().expect("an answer")
    }

    /// Send a request and take the answer.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.exchange(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string())
    }
}
