//! What the process is told from outside: stop, stop now, reload.
//!
//! SIGTERM and SIGINT ask for a graceful stop; the second of them ends the wait. SIGHUP reads the manifests
//! again. SIGUSR1 sets the global kill switch. Readiness is announced to a service manager over `$NOTIFY_SOCKET`, one datagram, as `sd_notify(3)` describes.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Stop.
    Stop,
    /// Read the manifests again.
    Reload,
}

/// Signals of the process. The handlers are installed from here on.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Install the handlers.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next thing that is asked. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Wait until a stop is asked, whatever else is.
    pub(super) async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

/// The signal that stops everything that tools do. The handler is installed from here on.
#[derive(Debug)]
pub(super) struct KillSignal(Signal);

impl KillSignal {
    /// Install the handler of SIGUSR1.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new() -> io::Result<Self> {
        signal(SignalKind::user_defined1()).map(Self)
    }

    /// Wait for the next one.
    pub(super) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tell the service manager at `socket` (the value of `$NOTIFY_SOCKET`) about a `state` such as `READY=1`.
pub(super) fn notify_manager(socket: &str, state: &str) {
    let sent = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    }
    .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager was not told `{state}`");
    }
}
