//! The HTTP door: off until it is configured, on an address or a Unix socket, HTTP/1.1 only.
//!
//! Whatever is served here stands behind one strict front: a request for a host that nobody named, from an origin that
//! nobody named, too large, too slow or in another version of the protocol ends before a route sees it. Routes are one
//! `match` in `probes`, and `mcp` beside it; what is added gets the same front. There is no HTTP/2 and no upgrade; an
//! address that others can reach is refused at start without TLS.

pub mod bounds;
pub mod config;
mod door;
mod front;
mod intake;
mod probes;
mod stall;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::watch;

use self::bounds::HttpBounds;
use self::config::HttpConfig;
use self::door::{HttpDoor, Passed};
use self::front::Front;
pub(super) use self::front::{Named, refused};
pub(super) use self::intake::Cut;
use self::probes::Routes;
use self::tls::{DoorTls, News, TlsError};
use super::mcp::{self, McpRoute};
use super::server::stop_asked;
use super::socket::{DirectoryLock, SocketError};
use crate::host::Host;

/// Milliseconds of a second.
const MS_PER_S: u64 = 1_000;
/// How often the certificate is looked at: what a link leads to is not watched, and a certificate ends without a change.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long a reload waits for the files of the certificate; a file system that hangs keeps nobody from stopping.
const READ_MAX: Duration = Duration::from_secs(5);

/// What went wrong with a body.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer: at once, or as it comes.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;
/// An answer.
pub(super) type Response = http::Response<Body>;

/// A body that is there.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Why the HTTP door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The certificate, its key, or the authority of clients.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The Unix socket.
    #[error("`http.listen`: {0}")]
    Socket(#[from] SocketError),
    /// The address.
    #[error("`http.listen`: cannot listen on `{address}`: {source}; stop what listens there, or choose another port")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}

/// The door, open, with everything behind it, before anybody is let in.
#[derive(Debug)]
pub(super) struct Http {
    door: HttpDoor,
    front: Arc<Front>,
    routes: Routes,
    host: Host,
    bounds: HttpBounds,
    tls: Option<Arc<DoorTls>>,
}

impl Http {
    /// Open the door. Connections wait until [`Http::serve`] is called.
    ///
    /// # Errors
    /// Nothing can listen there, or TLS cannot be used as it is configured.
    pub(super) async fn open(
        config: &HttpConfig,
        bounds: HttpBounds,
        host: Host,
        lock: &DirectoryLock,
    ) -> Result<Self, HttpError> {
        let tls = config.tls.clone().map(DoorTls::read).transpose()?.map(Arc::new);
        if let Some(tls) = &tls {
            say(tls, host.now_ms());
        }
        let door = HttpDoor::open(config, tls.clone(), lock).await?;
        let front = Arc::new(Front::new(config, door.port(), bounds));
        let routes = Routes::new(host.clone(), config.metrics_token, bounds.answer);
        Ok(Self { door, front, routes, host, bounds, tls })
    }

    /// What it is protected with, to be read again.
    pub(super) fn tls(&self) -> Option<Arc<DoorTls>> {
        self.tls.clone()
    }

    /// Where it listens, for the log.
    pub(super) fn address(&self) -> String {
        self.door.address()
    }

    /// Serve until `stop` says so and every request under way is answered. Dropping the future drops the connections.
    pub(super) async fn serve(self, stop: watch::Receiver<bool>) {
        let (routes, agents) = (self.routes, McpRoute::new(self.host, self.tls.is_some(), stop.clone()));
        let answers = move |request: Passed, named| {
            let (routes, agents) = (routes.clone(), agents.clone());
            async move {
                let path = request.uri().path();
                if path == mcp::PATH {
                    agents.answer(request, named).await
                } else if mcp::METADATA.contains(&path) && request.method() == Method::GET {
                    agents.metadata(request.headers(), named)
                } else {
                    routes.answer(&request, named).await
                }
            }
        };
        door::serve(self.door, self.front, answers, self.bounds, stop).await;
    }
}

/// Read certificate and key again, and say what came of it.
pub(super) async fn reload(tls: &Arc<DoorTls>, now_ms: u64) {
    let reading = Arc::clone(tls);
    let read = tokio::task::spawn_blocking(move || say(&reading, now_ms));
    match tokio::time::timeout(READ_MAX, read).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "BUG: reading the certificate failed"),
        Err(_) => tracing::error!("the certificate of the HTTP door cannot be read in time; look at its file system"),
    }
}

/// Look at the certificate again and again, until `stop` says so.
pub(super) async fn renew(tls: Arc<DoorTls>, host: Host, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => reload(&tls, host.now_ms()).await,
            () = stop_asked(&mut stop) => return,
        }
    }
}

/// Look at the certificate, and say what is new.
fn say(tls: &DoorTls, now_ms: u64) {
    for news in tls.look(now_ms / MS_PER_S) {
        match news {
            News::Renewed => tracing::info!("the certificate of the HTTP door was read again"),
            News::Stays(error) => tracing::error!(%error, "the certificate of the HTTP door stays as it was"),
            News::Stands(standing) => {
                tracing::warn!(
                    "the certificate of the HTTP door {standing}; clients refuse one that is not good: renew it"
                );
            }
        }
    }
}
