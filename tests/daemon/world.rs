//! A daemon with all sample tools on directories of its own, and clients that speak in calls and replies.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};
use toolkeep_tests::support::scratch::Scratch;

use super::scenery;
use crate::doors::running::{Client, command, program, run, until};

/// Bytes of the key of the cache of compiled components.
const KEY_BYTES: usize = 32;

/// What a world is made of besides the scenery.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Plot {
    /// Lines of `[daemon]`.
    pub(super) daemon: &'static str,
    /// Lines of `[limits]`.
    pub(super) limits: &'static str,
}

/// Directories, manifests and a daemon that is killed when the test is over.
pub(super) struct World {
    pub(super) home: Scratch,
    child: Option<Child>,
    /// Variables of the daemon besides those of every test.
    env: Vec<(String, String)>,
}

impl World {
    /// With nothing special about it.
    pub(super) fn new() -> Self {
        Self::of(Plot::default())
    }

    /// With special configuration.
    pub(super) fn of(plot: Plot) -> Self {
        let mut world = Self::asleep(plot);
        world.start();
        world
    }

    /// Without a daemon yet.
    pub(super) fn asleep(plot: Plot) -> Self {
        let home = Scratch::new();
        let Plot { daemon, limits } = plot;
        let mut config = format!(
            "[daemon]\nstate_dir = \"state\"\nruntime_dir = \"run\"\ntools_dir = \"tools\"\n{daemon}\n\
             [limits]\n{limits}\n"
        );
        for name in ["notes", "src", "books"] {
            std::fs::create_dir(home.path().join(name)).expect("workspace");
            config.push_str(&format!("[[workspace]]\nname = \"{name}\"\npath = \"{name}\"\n"));
        }
        home.put("toolkeep.toml", config.as_bytes());
        let world = Self { home, child: None, env: Vec::new() };
        scenery::furnish(&world);
        world.warm();
        world
    }

    /// Put what earlier worlds compiled into the cache.
    fn warm(&self) {
        let cache = self.path("state/artifacts");
        std::fs::create_dir_all(&cache).expect("cache");
        for private in ["state", "state/artifacts"] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(self.path(private), mode).expect("mode");
        }
        copy_missing(compiled(), &cache);
    }

    /// Set a variable of the daemon.
    pub(super) fn env(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// What starts the daemon.
    pub(super) fn serve(&self) -> Command {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("log");
        let mut serve = command(self.home.path());
        serve.args(["--config", "toolkeep.toml", "serve", "--log", "json"]);
        serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        serve.envs(self.env.iter().map(|(name, value)| (name, value)));
        serve
    }

    /// Start the daemon and wait for nothing.
    pub(super) fn spawn(&mut self) {
        self.child = Some(self.serve().spawn().expect("the daemon starts"));
    }

    /// Start the daemon and wait until it answers.
    pub(super) fn start(&mut self) {
        self.spawn();
        // The admin socket is the second to be opened.
        let socket = self.path("run/admin/admin.sock");
        until("the daemon listens", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("the child is ours"));
            assert!(ended.is_none(), "the daemon ended: {}", self.log());
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    /// Kill the daemon where it stands.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill");
            child.wait().expect("end");
        }
    }

    /// Ask the daemon to stop and wait for its end.
    pub(super) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Wait for the daemon's end.
    pub(super) fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a daemon");
        let mut ended = None;
        until("the daemon ends", || {
            ended = child.try_wait().expect("the child is ours");
            ended.is_some()
        });
        ended.expect("ended")
    }

    /// Kill and start again.
    pub(super) fn restart(&mut self) {
        self.kill();
        self.start();
    }

    pub(super) fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().expect("a daemon").id();
        let pid = rustix::process::Pid::from_raw(i32::try_from(id).expect("id")).expect("id");
        rustix::process::kill_process(pid, signal).expect("signal");
    }

    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.home.path().join(relative)
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A new connection of an agent.
    pub(super) fn agent(&self) -> Agent {
        Agent(Client::connect(&self.path("run/agent/agent.sock")))
    }

    /// A new connection of the operator.
    pub(super) fn admin(&self) -> Agent {
        let token = std::fs::read_to_string(self.path("run/admin/token")).expect("the token");
        let mut admin = Agent(Client::connect(&self.path("run/admin/admin.sock")));
        admin.ok("session.authenticate", json!({"token": token.trim()}));
        admin
    }

    /// Run the command line against it.
    pub(super) fn cli(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["--config", "toolkeep.toml"];
        all.extend(arguments);
        run(self.home.path(), &all, "")
    }

    /// Every file and directory of the workspaces, with content and mode.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut found = Snapshot::new();
        for workspace in ["notes", "src", "books"] {
            look(&self.path(workspace), workspace, &mut found);
        }
        found
    }

    /// A workspace file's text.
    pub(super) fn text(&self, relative: &str) -> String {
        std::fs::read_to_string(self.path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
    }

    /// The audit chain is whole; how many entries it has.
    pub(super) fn verified(&self) -> u64 {
        let answer = self.admin().ok("audit.verify", json!({}));
        answer["verified"].as_u64().expect("a number")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended_already = child.kill();
            let _status = child.wait();
        }
        copy_missing(&self.path("state/artifacts"), compiled());
    }
}

/// Paths of workspaces and what is there.
pub(super) type Snapshot = BTreeMap<String, String>;

fn look(directory: &Path, name: &str, found: &mut Snapshot) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in std::fs::read_dir(directory).expect("directory") {
        let entry = entry.expect("entry");
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().expect("type");
        let mode = entry.metadata().expect("metadata").permissions().mode() & 0o7777;
        if kind.is_dir() {
            found.insert(name.clone(), format!("directory {mode:o}"));
            look(&entry.path(), &name, found);
        } else if kind.is_symlink() {
            found.insert(name, format!("link to {}", std::fs::read_link(entry.path()).expect("link").display()));
        } else {
            let bytes = std::fs::read(entry.path()).expect("file");
            found.insert(name, format!("{mode:o} {}", String::from_utf8_lossy(&bytes)));
        }
    }
}

/// The `target` directory.
pub(super) fn target() -> PathBuf {
    program().parent().and_then(Path::parent).expect("a target directory").to_path_buf()
}

/// A packed sample tool.
pub(super) fn component(name: &str) -> PathBuf {
    let path = target().join(format!("tools/{name}.wasm"));
    assert!(path.is_file(), "{} is not built; run `make guests`", path.display());
    path
}

/// What all worlds compiled: one key, so that each believes the others.
fn compiled() -> &'static Path {
    static COMPILED: OnceLock<PathBuf> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let cache = target().join("daemon-artifacts");
        std::fs::create_dir_all(&cache).expect("cache");
        let mut key = std::fs::OpenOptions::new();
        if let Ok(mut file) = key.write(true).create_new(true).mode(0o600).open(cache.join("mac.key")) {
            std::io::Write::write_all(&mut file, &[7; KEY_BYTES]).expect("key");
        }
        cache
    })
}

static PARTS: AtomicU64 = AtomicU64::new(0);

fn copy_missing(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let wanted = name.to_string_lossy().ends_with(".cwasm") || name == "mac.key";
        if wanted && !to.join(&name).exists() {
            let number = PARTS.fetch_add(1, Ordering::Relaxed);
            let part = to.join(format!("{}-{number}.part", std::process::id()));
            if std::fs::copy(entry.path(), &part).is_ok() {
                let _other_was_faster = std::fs::rename(part, to.join(&name));
            }
        }
    }
}

/// A connection that asks in calls.
pub(super) struct Agent(pub(super) Client);

impl Agent {
    /// A method that must succeed: its result.
    pub(super) fn ok(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.0.ask(method, params);
        assert!(answer.get("result").is_some(), "{method}: {answer}");
        answer["result"].take()
    }

    /// A method that must fail: the refusal.
    pub(super) fn no(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.0.ask(method, params);
        assert!(answer.get("error").is_some(), "{method}: {answer}");
        answer["error"]["data"].take()
    }

    /// A call-like method: the reply.
    pub(super) fn reply(&mut self, method: &str, params: Value) -> Reply {
        let result = self.ok(method, params);
        Reply { replayed: result["replayed"] == json!(true), value: result["reply"].clone() }
    }

    pub(super) fn execute(&mut self, tool: &str, input: Value) -> Reply {
        self.reply("calls.execute", json!({"tool": tool, "input": input}))
    }

    pub(super) fn preview(&mut self, tool: &str, input: Value) -> Reply {
        self.reply("calls.preview", json!({"tool": tool, "input": input}))
    }

    pub(super) fn commit(&mut self, plan: &str) -> Reply {
        self.reply("plans.commit", json!({"plan": plan}))
    }

    /// One method, the answer as the bytes that came.
    pub(super) fn raw(&mut self, method: &str, params: Value) -> Option<Value> {
        let line = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.0.send(format!("{line}\n").as_bytes());
        self.0.line()
    }
}

/// An envelope.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) value: Value,
    pub(super) replayed: bool,
}

impl Reply {
    /// A text in it; empty if there is none.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Status, outcome and error code.
    pub(super) fn ended(&self) -> (&str, &str, &str) {
        (self.text("/status"), self.text("/outcome"), self.text("/error/code"))
    }

    /// It must have ended so.
    #[track_caller]
    pub(super) fn must(self, status: &str, outcome: &str, code: &str) -> Self {
        assert_eq!(self.ended(), (status, outcome, code), "{}", self.value);
        self
    }

    pub(super) fn call(&self) -> &str {
        self.text("/call_id")
    }

    pub(super) fn plan(&self) -> &str {
        self.text("/plan/id")
    }

    pub(super) fn digest(&self) -> &str {
        self.text("/plan/digest")
    }

    pub(super) fn approval(&self) -> &str {
        self.text("/approval/id")
    }
}
