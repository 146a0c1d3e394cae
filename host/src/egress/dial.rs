//! The guarded way to a connection: resolve once, judge every answer, connect to a judged address, check who is there.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use toolkeep_core::net::origin::HostName;
use toolkeep_core::net::reach::admit;

use super::stream::GuardedStream;
use super::{Egress, Endpoint, Limits, Protection, Reason};

/// Addresses of one host that are tried: the first may be down, or of a family that this machine does not speak.
const TRIED_MAX: usize = 4;

impl Egress {
    /// A connection that was checked, and protected where the endpoint is.
    pub(super) async fn dial(
        &self,
        endpoint: &Endpoint,
        limits: &Limits,
        tls: &Arc<ClientConfig>,
    ) -> Result<GuardedStream, Reason> {
        let deadline = tokio::time::Instant::now() + limits.connect;
        let in_time = |slow: Reason| move |_| slow;
        let resolved = timeout_at(deadline, self.0.resolver.resolve(&endpoint.host));
        let answers = resolved.await.map_err(in_time(Reason::Resolve))??;
        // One answer that may not be reached spoils them all: somebody wants to be taken for somebody else.
        let judged: Result<Vec<IpAddr>, _> =
            answers.into_iter().map(|answer| admit(&endpoint.host, answer, endpoint.network)).collect();
        let judged = judged.inspect_err(|refused| {
            tracing::warn!(host = %refused.host, address = %refused.address, "an address may not be reached");
        })?;
        let (stream, peer) = connect(&judged, endpoint.port, deadline).await?;
        match endpoint.protection {
            Protection::Plain => Ok(GuardedStream::plain(stream, peer)),
            Protection::Tls => handshake(stream, peer, &endpoint.host, tls, deadline).await,
        }
    }

    /// Protect a connection that began without: what STARTTLS asks for.
    pub(super) async fn upgrade(
        &self,
        stream: GuardedStream,
        host: &HostName,
        limits: &Limits,
        tls: &Arc<ClientConfig>,
    ) -> Result<GuardedStream, Reason> {
        let deadline = tokio::time::Instant::now() + limits.connect;
        let (stream, peer) = stream.bare().ok_or_else(|| Reason::Tls("it is protected already".to_owned()))?;
        handshake(stream, peer, host, tls, deadline).await
    }
}

async fn handshake(
    stream: TcpStream,
    peer: SocketAddr,
    host: &HostName,
    tls: &Arc<ClientConfig>,
    deadline: Instant,
) -> Result<GuardedStream, Reason> {
    let name = super::tls::server_name(host)?;
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
    let protected = timeout_at(deadline, handshake).await.map_err(|_| Reason::ConnectTimeout)?;
    Ok(GuardedStream::tls(protected.map_err(|error| super::tls::reason(&error))?, peer))
}

/// Connect to the first address that accepts. Each attempt gets an equal share of what is left of the time.
async fn connect(addresses: &[IpAddr], port: u16, deadline: Instant) -> Result<(TcpStream, SocketAddr), Reason> {
    let mut last = Reason::NoAddress;
    let tried = addresses.len().min(TRIED_MAX);
    for (address, left) in addresses.iter().zip((1..=tried).rev()) {
        let now = tokio::time::Instant::now();
        let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(1);
        let address = SocketAddr::new(*address, port);
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return checked(stream, address),
            Ok(Err(error)) => last = Reason::Connect(error.kind()),
            Err(_) => last = Reason::ConnectTimeout,
        }
    }
    Err(last)
}

/// The peer is who it was connected to. On loopback a connection to a free port can even meet itself.
fn checked(stream: TcpStream, wanted: SocketAddr) -> Result<(TcpStream, SocketAddr), Reason> {
    let io = |error: std::io::Error| Reason::Connect(error.kind());
    let peer = stream.peer_addr().map_err(io)?;
    let same = peer.ip().to_canonical() == wanted.ip().to_canonical() && peer.port() == wanted.port();
    if !same || (peer.ip().is_loopback() && stream.local_addr().map_err(io)? == peer) {
        return Err(Reason::OtherPeer);
    }
    stream.set_nodelay(true).map_err(io)?;
    Ok((stream, peer))
}
