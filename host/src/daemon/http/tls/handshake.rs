//! The first bytes of a connection: a handshake that ends in time, or an answer to whoever speaks without TLS.
//!
//! Who asks a port of TLS in plain text has written a wrong address: it is told so in its own words and nothing of its
//! request is read. A handshake that is not done in time is closed, like everything that is no handshake.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::daemon::http::bounds::{FAREWELL, HEAD_MAX_BYTES};

/// What is said to a request without TLS.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 48\r\n\
                       connection: close\r\n\r\nthis port speaks TLS: write https:// before it.\n";

/// How a connection began.
#[derive(Debug)]
pub(in crate::daemon::http) enum Greeted {
    /// With a handshake.
    Secret(Box<TlsStream<TcpStream>>),
    /// In plain text: it was answered.
    Plain,
    /// Not at all in time, or with something else.
    Failed(io::Error),
}

/// Wait for the handshake of a connection, for `patience` at most.
pub(in crate::daemon::http) async fn greet(
    mut stream: TcpStream,
    acceptor: TlsAcceptor,
    patience: Duration,
) -> Greeted {
    let greeting = async {
        let mut first = [0_u8; 1];
        // A method of HTTP begins with a capital letter, a handshake with 22.
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            stream.write_all(PLAIN).await?;
            stream.shutdown().await?;
            // Closed over bytes that nobody read, a connection takes back what it said.
            let (mut rest, mut nowhere) = (stream.take(HEAD_MAX_BYTES as u64), tokio::io::sink());
            return match tokio::time::timeout(FAREWELL, tokio::io::copy(&mut rest, &mut nowhere)).await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(_)) | Err(_) => Ok(Greeted::Plain),
            };
        }
        acceptor.accept(stream).await.map(|stream| Greeted::Secret(Box::new(stream)))
    };
    match tokio::time::timeout(patience, greeting).await {
        Ok(greeted) => greeted.unwrap_or_else(Greeted::Failed),
        Err(_) => Greeted::Failed(io::Error::new(io::ErrorKind::TimedOut, "the handshake was not done in time")),
    }
}
