//! A daemon of this build on a scratch folder: configuration, manifests, start, stop.
//!
//! Everything that is synced lies in one folder below the target directory, so that daemon and floor use one file
//! system. The sockets lie in the system's folder for temporary files, because their paths must be short.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;

/// How long a daemon may take to become ready: it may have a hundred components to compile.
const READY_MAX: Duration = Duration::from_secs(180);

/// Rest of the manifest of a tool that changes nothing and sees nothing.
pub const PURE: &str = "tier = 0\n";
/// Rest of the manifest of `notes`.
pub const NOTES: &str =
    "tier = 1\n\n[tiers]\nlist = 0\nsearch = 0\n\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n";

/// The target directory of this build.
#[must_use]
pub fn target() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    own.ancestors().nth(3).expect("target/<profile>/deps/<bench>").to_path_buf()
}

/// The daemon of this build.
#[must_use]
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let program = own.ancestors().nth(2).expect("target/<profile>/deps/<bench>").join("toolkeep");
    assert!(program.is_file(), "{} is missing: run `make bench`", program.display());
    program
}

/// The bytes of a packed tool.
#[must_use]
pub fn component(name: &str) -> Vec<u8> {
    let path = target().join(format!("tools/{name}.wasm"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: run `make bench`", path.display()))
}

/// A folder that goes away with this, unless it is kept.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    /// A new folder beneath `parent`.
    #[must_use]
    pub fn beneath(parent: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("tk-bench-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a scratch folder");
        Self { path, kept: false }
    }

    /// A folder for what takes long to make: it stays.
    #[must_use]
    pub fn kept(path: PathBuf) -> Self {
        fs::create_dir_all(&path).expect("a folder");
        Self { path, kept: true }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("{} stays: {error}", self.path.display());
        }
    }
}

/// Configuration and tools of a daemon.
#[derive(Debug)]
pub struct World {
    data: Scratch,
    run: Scratch,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Without tools; with the workspaces `notes` and `data`, both empty.
    #[must_use]
    pub fn new() -> Self {
        Self::on(Scratch::beneath(&target().join("tmp")))
    }

    /// The same in a folder that stays when the bench is over.
    #[must_use]
    pub fn kept(name: &str) -> Self {
        Self::on(Scratch::kept(target().join("tmp").join(name)))
    }

    fn on(data: Scratch) -> Self {
        let world = Self { data, run: Scratch::beneath(&std::env::temp_dir()) };
        for part in ["notes", "data", "tools"] {
            fs::create_dir_all(world.path(part)).expect("a folder");
        }
        let mut config = format!(
            "[daemon]\nstate_dir = \"state\"\nruntime_dir = {:?}\ntools_dir = \"tools\"\n",
            world.run.path().display().to_string()
        );
        for name in ["notes", "data"] {
            config.push_str(&format!("\n[[workspace]]\nname = \"{name}\"\npath = \"{name}\"\n"));
        }
        fs::write(world.path("toolkeep.toml"), config).expect("a configuration");
        world
    }

    /// A path beneath its folder.
    #[must_use]
    pub fn path(&self, part: &str) -> PathBuf {
        self.data.path().join(part)
    }

    /// Where agents connect.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.run.path().join("agent/agent.sock")
    }

    /// A connection of the operator.
    ///
    /// # Errors
    /// The daemon does not listen, or its token cannot be read.
    pub fn operate(&self) -> io::Result<Client> {
        let token = fs::read_to_string(self.run.path().join("admin/token"))?;
        let mut admin = Client::connect(&self.run.path().join("admin/admin.sock"))?;
        let params = serde_json::json!({"token": token.trim()});
        let show = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "session.authenticate", "params": params});
        admin.ask(&show.to_string());
        Ok(admin)
    }

    /// Add to its configuration.
    pub fn configure(&self, text: &str) {
        let path = self.path("toolkeep.toml");
        let mut config = fs::read_to_string(&path).expect("a configuration");
        config.push_str(text);
        fs::write(path, config).expect("a configuration");
    }

    /// Install a component under a name; `rest` of the manifest follows its head.
    pub fn install(&self, name: &str, wasm: &[u8], rest: &str) {
        fs::write(self.path(&format!("tools/{name}.wasm")), wasm).expect("a component");
        let manifest = format!("format = 1\nname = \"{name}\"\ncomponent = \"{name}.wasm\"\n{rest}");
        fs::write(self.path(&format!("tools/{name}.toml")), manifest).expect("a manifest");
    }

    /// Start the daemon and wait until it answers.
    #[must_use]
    pub fn start(&self) -> Daemon {
        let log = self.path("daemon.log");
        let started = Instant::now();
        let child = Command::new(program())
            .arg("--config")
            .arg(self.path("toolkeep.toml"))
            .args(["serve", "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("the daemon starts");
        let mut daemon = Daemon { child, ready: Duration::ZERO };
        loop {
            match self.connect() {
                Ok(mut client) => {
                    client.ask(r#"{"jsonrpc":"2.0","id":1,"method":"host.info","params":{}}"#);
                    daemon.ready = started.elapsed();
                    return daemon;
                }
                Err(_) if started.elapsed() < READY_MAX && matches!(daemon.child.try_wait(), Ok(None)) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => {
                    let log = fs::read_to_string(&log).unwrap_or_default();
                    panic!("the daemon is not ready: {error}\n{log}");
                }
            }
        }
    }

    /// A connection to the agent socket.
    ///
    /// # Errors
    /// No daemon listens.
    pub fn connect(&self) -> io::Result<Client> {
        Client::connect(&self.agent_socket())
    }
}

/// A running daemon; stopped when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// Time from its start to its first answer.
    pub ready: Duration,
}

impl Daemon {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::TERM).expect("the daemon is stopped");
        let ended = self.child.wait().expect("the daemon ends");
        if !ended.success() {
            eprintln!("the daemon ended with {ended}");
        }
    }
}

/// Install 100 tools, each a component of its own, as `tool-000` to `tool-099`.
pub fn hundred_tools(world: &World, rest: &str) {
    let wasm = component("text-stats");
    for number in 0..100 {
        let name = format!("tool-{number:03}");
        world.install(&name, &another(&wasm, &name), rest);
    }
}

/// A component that does the same, with a digest of its own: it has a custom section that nothing reads.
fn another(wasm: &[u8], name: &str) -> Vec<u8> {
    let mut other = wasm.to_vec();
    let length = u8::try_from(name.len()).expect("a short name");
    section(&mut other, 0, &[&[length][..], name.as_bytes()].concat());
    other
}

/// Install as many tools as a daemon takes beside one other: `many-0000` to `many-9998`, of 100 components.
pub fn ten_thousand_tools(world: &World, rest: &str) {
    let wasm = component("text-stats");
    for kind in 0..100 {
        let component = format!("many-{kind:02}.wasm");
        fs::write(world.path("tools").join(&component), another(&wasm, &format!("many-{kind:02}"))).expect("written");
        for copy in 0..if kind == 99 { 99 } else { 100 } {
            let name = format!("many-{kind:02}{copy:02}");
            let manifest = format!("format = 1\nname = \"{name}\"\ncomponent = \"{component}\"\n{rest}");
            fs::write(world.path("tools").join(format!("{name}.toml")), manifest).expect("a manifest");
        }
    }
}

/// A component with copies of its largest module, so that it has at least `bytes`. Nothing instantiates
/// the copies, but they are compiled like the first.
#[must_use]
pub fn padded_with_code(wasm: &[u8], bytes: usize) -> Vec<u8> {
    let module = largest_module(wasm);
    let mut padded = wasm.to_vec();
    while padded.len() < bytes {
        section(&mut padded, MODULE_SECTION, module);
    }
    padded
}

/// Section of a component that holds a core module.
const MODULE_SECTION: u8 = 1;
/// Bytes before the first section.
const HEADER_BYTES: usize = 8;

fn largest_module(wasm: &[u8]) -> &[u8] {
    let mut largest: &[u8] = &[];
    let mut rest = &wasm[HEADER_BYTES..];
    while let Some((&id, after)) = rest.split_first() {
        let (mut size, mut shift, mut read) = (0_usize, 0, 0);
        for byte in after {
            size |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            read += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (body, next) = after[read..].split_at(size);
        if id == MODULE_SECTION && body.len() > largest.len() {
            largest = body;
        }
        rest = next;
    }
    largest
}

fn section(wasm: &mut Vec<u8>, id: u8, body: &[u8]) {
    wasm.push(id);
    let mut size = body.len();
    while size >= 0x80 {
        wasm.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    wasm.push(size as u8);
    wasm.extend_from_slice(body);
}
