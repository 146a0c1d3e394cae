//! The floor of the socket: a server that echoes lines, or answers each with one bare call.
//!
//! It is this program in a second process, because the daemon is in one, and so that its CPU time can be told from ours.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;

use crate::client::{Client, text_stats_input};
use crate::raw::Raw;
use crate::world::{Scratch, component};

/// Tells the second process where to listen.
const SOCKET: &str = "TOOLKEEP_BENCH_FLOOR";
/// A line that begins with it is echoed.
pub const ECHO: char = 'E';

/// The server, from the outside.
#[derive(Debug)]
pub struct Floor {
    child: Child,
    scratch: Scratch,
}

impl Floor {
    /// Start it. The main function has called [`serve_if_asked`] first.
    #[must_use]
    pub fn start() -> Self {
        let scratch = Scratch::beneath(&std::env::temp_dir());
        let child = Command::new(std::env::current_exe().expect("this program has a path"))
            .env(SOCKET, scratch.path().join("floor.sock"))
            .stdin(Stdio::null())
            .spawn()
            .expect("started");
        let floor = Self { child, scratch };
        while Client::connect(&floor.socket()).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        floor
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.scratch.path().join("floor.sock")
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the floor ends");
    }
}

/// Be the server, for good, if this process was started as one.
pub fn serve_if_asked() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(Path::new(&socket)));
}

async fn serve(socket: &Path) {
    let raw = Arc::new(Raw::new(&component("text-stats")));
    let input: Arc<str> = text_stats_input().to_string().into();
    let listener = UnixListener::bind(socket).expect("listening");
    loop {
        let (stream, _) = listener.accept().await.expect("accepted");
        let (raw, input) = (Arc::clone(&raw), Arc::clone(&input));
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                if !line.starts_with(ECHO) {
                    line = raw.call("text-stats", &input).await;
                    line.push('\n');
                }
                if stream.get_mut().write_all(line.as_bytes()).await.is_err() {
                    return;
                }
                line.clear();
            }
        });
    }
}
