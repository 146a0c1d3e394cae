//! The front doors: JSON-RPC 2.0 over two Unix sockets, one for agents and one for operators.
//!
//! This part knows lines, requests and connections and hands typed requests to [`Host`]; what they do is decided there.
//! Each socket lies in a directory of its own, so that the permissions of the file system separate the
//! planes before a byte is read. Nothing here grows beyond a bound of [`bounds`]. Where it is configured, [`http`] listens as
//! well.

mod admin;
mod agent;
mod alerts;
mod apart;
mod audit;
pub mod bounds;
mod connection;
pub mod descriptors;
mod envelope;
pub mod http;
mod line;
mod linger;
mod mcp;
pub mod method;
mod outbox;
mod oversight;
mod params;
mod plane;
mod privacy;
mod replay;
mod reply;
mod server;
mod signal;
pub mod socket;
pub mod watch;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use toolkeep_core::refusal::{Code, Refusal};

use self::admin::AdminPlane;
use self::agent::AgentPlane;
use self::apart::Apart;
use self::bounds::Bounds;
use self::http::bounds::HttpBounds;
use self::http::config::HttpConfig;
use self::http::tls::DoorTls;
use self::http::{Http, HttpError};
use self::mcp::McpPlane;
use self::signal::{Asked, KillSignal, Signals};
use self::socket::{Access, DirectoryLock, Door, SocketError, SocketPaths};
use self::watch::Watch;
use crate::authenticate::Operator;
use crate::host::Host;
use crate::kill::file::FileWatch;

/// How long replies that are ready may take to be written when the daemon stops.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// What the doors need besides the [`Host`].
#[derive(Debug)]
pub struct Doors {
    /// Holds `agent/` and `admin/`.
    pub runtime_dir: PathBuf,
    /// Watches the manifests, since before the [`Host`] read them.
    pub manifests: Watch,
    /// Group that may connect as an agent.
    pub agent_group: Option<u32>,
    /// See [`Bounds`].
    pub bounds: Bounds,
    /// The HTTP door, where there is one.
    pub http: Option<HttpConfig>,
    /// The lock of `runtime_dir`, claimed before the [`Host`] started.
    pub lock: DirectoryLock,
    /// Where a service manager listens: the value of `$NOTIFY_SOCKET`.
    pub notify_socket: Option<String>,
}

/// Why the daemon could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket could not be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The HTTP door could not be opened.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The signal handlers could not be installed.
    #[error("cannot install signal handlers: {0}")]
    Signals(#[source] std::io::Error),
    /// The threads of the admin plane could not be started.
    #[error("cannot start the threads of the admin plane: {0}")]
    Threads(#[source] std::io::Error),
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything in flight was answered.
    Gracefully,
    /// The time or the patience ran out; executions were cancelled, commits finish or are recovered at the next start.
    InHaste,
}

/// Open both doors and serve until told to stop.
///
/// # Errors
/// A socket cannot be opened. Afterwards nothing that a peer does is an error.
pub async fn serve(host: Host, mut doors: Doors) -> Result<Stopped, ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let paths = SocketPaths::beneath(&doors.runtime_dir);
    let agent_door = Door::open(&paths.agent, Access::agent(doors.agent_group), &doors.lock)?;
    let mcp_door = Door::open(&paths.mcp, Access::agent(doors.agent_group), &doors.lock)?;
    let apart = Apart::new().map_err(ServeError::Threads)?;
    let mut kill = apart.inside(KillSignal::new).map_err(ServeError::Signals)?;
    // The admin door is the last: whoever sees it finds the others open.
    let http = match &doors.http {
        Some(config) => Some(Http::open(config, HttpBounds::default(), host.clone(), &doors.lock).await?),
        None => None,
    };
    let tls = http.as_ref().and_then(Http::tls);
    let admin_door = apart.inside(|| Door::open(&paths.admin, Access::admin(), &doors.lock))?;
    let (stop, stopped) = channel::channel(false);
    let stop = Arc::new(stop);
    let agent = Arc::new(AgentPlane::new(host.clone(), stopped.clone()));
    let mcp = Arc::new(McpPlane::new(host.clone(), stopped.clone()));
    let admin = Arc::new(AdminPlane::new(host.clone(), Arc::clone(&stop)));
    let mut serving = JoinSet::new();
    serving.spawn(server::serve(agent_door, agent, doors.bounds, stopped.clone()));
    if let Some(http) = http {
        tracing::info!(address = %http.address(), "the HTTP door is open");
        serving.spawn(http.serve(stopped.clone()));
    }
    if let Some(tls) = tls.clone() {
        serving.spawn(http::renew(tls, host.clone(), stopped.clone()));
    }
    serving.spawn(server::serve(mcp_door, mcp, doors.bounds, stopped.clone()));
    let operators = apart.spawn(server::serve(admin_door, admin, doors.bounds, stopped.clone()));
    let stopping = host.clone();
    let signalled = apart.spawn(async move {
        loop {
            kill.next().await;
            stopping.kill_by_signal();
        }
    });
    let watched = host.clone();
    let (file, said) = host.kill_file();
    let watch = FileWatch::start(file, said, move |said| watched.kill_by_file(said)).map_err(ServeError::Threads)?;
    tracing::info!(agent = %paths.agent.display(), admin = %paths.admin.display(), "ready");
    tell_manager(&doors, "READY=1");

    until_stop(&host, &mut doors.manifests, tls, &mut signals, stopped).await;

    tracing::info!("stopping: calls in flight are finished");
    tell_manager(&doors, "STOPPING=1");
    stop.send_replace(true);
    host.drain();
    let finish = async {
        let in_time = host.drained(doors.bounds.drain).await;
        // Everything has its reply; what remains is to write them.
        let written = async {
            while serving.join_next().await.is_some() {}
            let _ended = operators.await;
        };
        tokio::time::timeout(LAST_WRITES, written).await.is_ok() && in_time
    };
    let stopped = tokio::select! {
        graceful = finish => if graceful { Stopped::Gracefully } else { Stopped::InHaste },
        () = signals.stop() => Stopped::InHaste,
    };
    signalled.abort();
    drop(watch);
    tracing::info!(?stopped, "stopped");
    Ok(stopped)
}

/// Reload when asked or when a file changes, until a signal or an operator says stop.
async fn until_stop(
    host: &Host,
    manifests: &mut Watch,
    tls: Option<Arc<DoorTls>>,
    signals: &mut Signals,
    mut stopped: channel::Receiver<bool>,
) {
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => return,
                Asked::Reload => reload_because(host, tls.as_ref(), "SIGHUP").await,
            },
            () = manifests.changed() => reload_because(host, tls.as_ref(), "a file changed").await,
            () = server::stop_asked(&mut stopped) => return,
        }
    }
}

async fn reload_because(host: &Host, tls: Option<&Arc<DoorTls>>, why: &str) {
    if let Some(tls) = tls {
        http::reload(tls, host.now_ms()).await;
    }
    match reload(host, None).await {
        Ok(report) => tracing::info!(why, %report, "manifests and policies were read again"),
        Err(refusal) => tracing::error!(why, message = refusal.message, "the manifests were not read"),
    }
}

/// Read the manifests again, where files may be waited for.
async fn reload(host: &Host, by: Option<Arc<Operator>>) -> Result<Value, Refusal> {
    let host = host.clone();
    tokio::task::spawn_blocking(move || host.reload(by.as_deref()))
        .await
        .map_err(|error| Refusal::new(Code::Internal, format!("reading the manifests failed: {error}")))
}

fn tell_manager(doors: &Doors, state: &str) {
    if let Some(socket) = &doors.notify_socket {
        signal::notify_manager(socket, state);
    }
}
