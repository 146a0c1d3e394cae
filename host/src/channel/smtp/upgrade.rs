//! `STARTTLS` (RFC 3207), so strictly that nothing unprotected can be taken for an answer.
//!
//! The few lines before the handshake are read byte by byte, so that whatever a stranger sends along with the server's last
//! one is still in the connection when the handshake begins, and breaks it. What was said before is forgotten.

use core::net::SocketAddr;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::super::{NotTaken, shown};
use super::{Smtp, unreachable};
use crate::egress::{Egress, GuardedStream, Limits};

/// Bytes of one reply of a server: RFC 5321 promises lines of 512, and few of them are needed here.
const REPLY_MAX_BYTES: usize = 4 * 1024;
/// What stands for the greeting that a server does not repeat after the handshake.
const GREETING: &[u8] = b"220 protected\r\n";

/// Ask the server for TLS and make the handshake.
pub(super) async fn start_tls(mut stream: GuardedStream, smtp: &Smtp, egress: &Egress) -> Result<Greeted, NotTaken> {
    expect(&mut stream, "220", "its greeting").await?;
    say(&mut stream, &format!("EHLO {}\r\n", smtp.domain())).await?;
    let offers = expect(&mut stream, "250", "EHLO").await?;
    if !offers.lines().any(|line| line.get(4..).is_some_and(|word| word.trim().eq_ignore_ascii_case("STARTTLS"))) {
        return Err(NotTaken::later("the mail server does not offer STARTTLS; nothing is sent without TLS"));
    }
    say(&mut stream, "STARTTLS\r\n").await?;
    expect(&mut stream, "220", "STARTTLS").await?;
    let protected = egress.protect(stream, &smtp.host, &Limits::default()).await;
    Ok(Greeted { greeting: GREETING, stream: protected.map_err(|error| unreachable(&error))? })
}

async fn say(stream: &mut GuardedStream, line: &str) -> Result<(), NotTaken> {
    let said = async {
        stream.write_all(line.as_bytes()).await?;
        stream.flush().await
    };
    said.await.map_err(|error: io::Error| NotTaken::later(format!("the mail server went away: {}", error.kind())))
}

/// One reply, which has to have this code.
async fn expect(stream: &mut GuardedStream, code: &str, to: &str) -> Result<String, NotTaken> {
    let reply = reply(stream).await.map_err(|error| {
        NotTaken::later(format!("the mail server went away before it answered {to}: {}", error.kind()))
    })?;
    if reply.starts_with(code) {
        return Ok(reply);
    }
    Err(NotTaken::later(shown(&format!("the mail server answers {to} with {reply}"))))
}

/// The lines of one reply, and not a byte more.
async fn reply(stream: &mut GuardedStream) -> io::Result<String> {
    let mut text = Vec::new();
    let mut line = 0;
    loop {
        if text.len() >= REPLY_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let byte = stream.read_u8().await?;
        text.push(byte);
        if byte == b'\n' {
            // The fourth character of the last line is no hyphen.
            if text.get(line + 3) != Some(&b'-') {
                return String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into());
            }
            line = text.len();
        }
    }
}

/// A protected connection on which the server seems to greet once more, as it does where TLS comes first.
#[derive(Debug)]
pub(super) struct Greeted {
    greeting: &'static [u8],
    stream: GuardedStream,
}

impl AsyncRead for Greeted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.greeting.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let (now, later) = self.greeting.split_at(self.greeting.len().min(buf.remaining()));
        buf.put_slice(now);
        self.greeting = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for Greeted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.stream.peer())
    }
}
