//! Listening, one task per connection, and ending them in order.
//!
//! A connection is served by hyper's HTTP/1.1 with every bound set; one beyond the cap is told so and closed. When the
//! daemon stops, the listener goes first, then each connection ends with the request that it is answering.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::bounds::{FAREWELL, FIELDS_MAX, HEAD_MAX_BYTES, HttpBounds};
use super::config::{HttpConfig, Listen};
use super::front::{Front, Named};
use super::intake::Intake;
use super::stall::Stalls;
use super::tls::{DoorTls, Greeted, TlsAcceptor, TlsStream, greet};
use super::{Body, BodyError, HttpError, Response};
use crate::daemon::server::{ACCEPT_REST, stop_asked};
use crate::daemon::socket::{Access, DirectoryLock, Door};

/// What a connection beyond the cap is told.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

/// A request that passed the front.
pub(super) type Passed = hyper::Request<Intake<Incoming>>;

/// Something that listens.
#[derive(Debug)]
pub(super) enum HttpDoor {
    /// On an address, with TLS or without.
    Tcp(TcpListener, SocketAddr, Option<Arc<DoorTls>>),
    /// On a socket file, which goes away with it.
    Unix(Door, String),
}

/// A connection that was accepted.
enum Accepted {
    Tcp(TcpStream),
    Tls(TcpStream, TlsAcceptor),
    Unix(UnixStream),
}

impl HttpDoor {
    /// Listen.
    ///
    /// # Errors
    /// Something else listens there, or the place cannot be used.
    pub(super) async fn open(
        config: &HttpConfig,
        tls: Option<Arc<DoorTls>>,
        lock: &DirectoryLock,
    ) -> Result<Self, HttpError> {
        match &config.listen {
            Listen::Tcp(address) => {
                let failed = |source| HttpError::Listen { address: address.to_string(), source };
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Ok(Self::Tcp(listener, address, tls))
            }
            Listen::Unix(path) => {
                let door = Door::open_in(path, Access::agent(config.group), lock)?;
                Ok(Self::Unix(door, config.listen.to_string()))
            }
        }
    }

    /// The port, where there is one.
    pub(super) const fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(_, address, _) => Some(address.port()),
            Self::Unix(..) => None,
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(_, address, None) => format!("http://{address}"),
            Self::Tcp(_, address, Some(_)) => format!("https://{address}"),
            Self::Unix(_, path) => path.clone(),
        }
    }

    async fn accept(&self) -> std::io::Result<Accepted> {
        match self {
            Self::Tcp(listener, _, tls) => {
                let (stream, _) = listener.accept().await?;
                // Without it an answer waits for an acknowledgement of the one before it.
                stream.set_nodelay(true)?;
                Ok(match tls {
                    None => Accepted::Tcp(stream),
                    Some(tls) => Accepted::Tls(stream, tls.acceptor()),
                })
            }
            Self::Unix(door, _) => Ok(Accepted::Unix(door.listener.accept().await?.0)),
        }
    }
}

/// Serve one door until `stop` says so and every connection has ended. Dropping the future drops the connections. What passes
/// the front is given to `answers`.
pub(super) async fn serve<A, F>(
    door: HttpDoor,
    front: Arc<Front>,
    answers: A,
    bounds: HttpBounds,
    mut stop: watch::Receiver<bool>,
) where
    A: Fn(Passed, Named) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let for_connections = stop.clone();
    let handshakes = Arc::new(Semaphore::new(bounds.handshakes));
    loop {
        tokio::select! {
            accepted = door.accept() => match accepted {
                Ok(accepted) if connections.len() < bounds.connections => {
                    let (front, answers, stop) = (Arc::clone(&front), answers.clone(), for_connections.clone());
                    match accepted {
                        Accepted::Tcp(stream) => {
                            connections.spawn(converse(stream, front, answers, bounds, stop));
                        }
                        Accepted::Unix(stream) => {
                            connections.spawn(converse(stream, front, answers, bounds, stop));
                        }
                        Accepted::Tls(stream, acceptor) => match Arc::clone(&handshakes).try_acquire_owned() {
                            Ok(seat) => {
                                let begins = secret(stream, acceptor, seat, bounds, stop.clone());
                                connections.spawn(async move {
                                    if let Some(stream) = begins.await {
                                        converse(stream, front, answers, bounds, stop).await;
                                    }
                                });
                            }
                            Err(_) => tracing::warn!("an HTTPS connection is closed: too many handshakes are under way"),
                        },
                    }
                }
                Ok(accepted) => {
                    tracing::warn!(connections = connections.len(), "an HTTP connection is turned away");
                    match accepted {
                        Accepted::Tcp(stream) => turn_away(stream).await,
                        Accepted::Unix(stream) => turn_away(stream).await,
                        // Without a handshake nothing can be said that it would believe.
                        Accepted::Tls(stream, _) => drop(stream),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection was not accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => note(ended),
            () = stop_asked(&mut stop) => break,
        }
    }
    drop(door);
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "BUG: an HTTP connection's task failed");
    }
}

/// The handshake of a connection, which ends when the daemon stops, too. Its seat is free afterwards.
async fn secret(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    _seat: OwnedSemaphorePermit,
    bounds: HttpBounds,
    mut stop: watch::Receiver<bool>,
) -> Option<TlsStream<TcpStream>> {
    let greeted = tokio::select! {
        greeted = greet(stream, acceptor, bounds.handshake) => greeted,
        () = stop_asked(&mut stop) => return None,
    };
    match greeted {
        Greeted::Secret(stream) => return Some(*stream),
        Greeted::Plain => tracing::debug!("a request without TLS was told to use it"),
        Greeted::Failed(error) => tracing::debug!(%error, "a connection was closed before it was secret"),
    }
    None
}

async fn turn_away<S: AsyncWrite + Unpin>(mut stream: S) {
    let told = tokio::time::timeout(FAREWELL, stream.write_all(FULL)).await;
    if !matches!(told, Ok(Ok(()))) {
        tracing::debug!("the peer left before it heard that the door is full");
    }
}

/// One connection to its end.
async fn converse<S, A, F>(
    stream: S,
    front: Arc<Front>,
    answers: A,
    bounds: HttpBounds,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Passed, Named) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let busy = Arc::new(AtomicBool::new(false));
    let answering = Arc::clone(&busy);
    let service = service_fn(move |request| {
        let (front, answers, answering) = (Arc::clone(&front), answers.clone(), Answering::begin(&answering));
        async move {
            let response = answer(&front, answers, bounds, request).await;
            Ok::<_, Infallible>(response.map(|body| Answered { body, _answering: answering }))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_headers(FIELDS_MAX)
        .max_header_size(HEAD_MAX_BYTES)
        .max_buf_size(HEAD_MAX_BYTES)
        .half_close(false);
    let mut connection = pin!(http.serve_connection(TokioIo::new(Stalls::new(stream, bounds.write)), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop_asked(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            loop {
                match tokio::time::timeout(FAREWELL, connection.as_mut()).await {
                    Ok(ended) => break ended,
                    // Half a head keeps nobody from stopping.
                    Err(_) if !busy.load(Ordering::Acquire) => break Ok(()),
                    Err(_) => {}
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection was closed");
    }
}

/// A request of a connection is being answered, as long as this is there.
struct Answering(Arc<AtomicBool>);

impl Answering {
    fn begin(busy: &Arc<AtomicBool>) -> Self {
        busy.store(true, Ordering::Release);
        Self(Arc::clone(busy))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The body of an answer: the request is being answered until its last byte is handed over.
struct Answered {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One request: the front, then the route.
async fn answer<A, F>(front: &Front, answers: A, bounds: HttpBounds, request: hyper::Request<Incoming>) -> Response
where
    A: Fn(Passed, Named) -> F,
    F: Future<Output = Response>,
{
    let (passed, origin) = match front.check(&request) {
        Ok(mut passed) => {
            let origin = passed.origin.take();
            (passed, origin)
        }
        Err(turned) => {
            tracing::info!(status = turned.status.as_u16(), why = turned.why, "an HTTP request is turned away");
            let mut response = Response::from(turned);
            Front::mark(&mut response, None);
            return response;
        }
    };
    let mut response = if passed.preflight {
        Front::permission()
    } else {
        answers(request.map(|body| Intake::new(body, bounds.body_bytes, bounds.body)), passed.named).await
    };
    Front::mark(&mut response, origin);
    response
}
