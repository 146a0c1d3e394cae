//! The two ends of one connection's socket, each watched only while somebody waits for it.
//!
//! A stream that is registered for both directions wakes a thread of the runtime whenever the peer takes a reply, although
//! nobody waits to write: one wake-up per reply, for nothing. Here the reading end is watched from the first time that a
//! read has to wait, the writing end from the first reply that the peer does not take at once. A connection that finds its
//! next request by looking itself ([`super::linger`]) is not watched at all meanwhile. The runtime's types for the ends of
//! a pipe watch one direction of whatever descriptor they are given, which is what is wanted; each has a descriptor of its
//! own, because one can be watched only once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as Socket;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// Where requests come from.
#[derive(Debug)]
pub(super) struct Reader {
    socket: Arc<Socket>,
    watch: Option<pipe::Receiver>,
}

/// Where replies go.
#[derive(Debug)]
pub(super) struct Writer {
    socket: Arc<Socket>,
    watch: Option<pipe::Sender>,
}

/// Both ends of a stream.
///
/// # Errors
/// The runtime cannot let go of the stream.
pub(super) fn ends(stream: UnixStream) -> io::Result<(Reader, Writer)> {
    // It stays one that does not block, and so do the descriptors that are made of it.
    let socket = Arc::new(stream.into_std()?);
    Ok((Reader { socket: Arc::clone(&socket), watch: None }, Writer { socket, watch: None }))
}

fn another(socket: &Socket) -> io::Result<OwnedFd> {
    socket.try_clone().map(OwnedFd::from)
}

impl Reader {
    /// Append what has arrived to `input`, as far as there is room. 0: the peer sends nothing more.
    ///
    /// # Errors
    /// `WouldBlock` where nothing has arrived; the socket failed.
    pub(super) fn take(&self, input: &mut Vec<u8>) -> io::Result<usize> {
        let (taken, _length) = recv(&self.socket, spare_capacity(input), RecvFlags::DONTWAIT)?;
        Ok(taken)
    }

    /// Wait for bytes and append them. Nothing is lost where it is dropped before it is done.
    ///
    /// # Errors
    /// The socket failed, or cannot be watched.
    pub(super) async fn read(&mut self, input: &mut Vec<u8>) -> io::Result<usize> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            none => none.insert(pipe::Receiver::from_owned_fd_unchecked(another(&self.socket)?)?),
        };
        watch.read_buf(input).await
    }

    /// Nobody waits for this end for now.
    pub(super) fn unwatch(&mut self) {
        self.watch = None;
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Writer {
    /// Give the peer what it takes now; the number of bytes.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing; the socket failed or the peer is gone.
    pub(super) fn give(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.watch {
            // What is watched has to learn that nothing is taken, or it would say for ever that something may be.
            Some(watch) => watch.try_write(bytes),
            None => Ok(send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?),
        }
    }

    /// Everything is written: nobody waits for this end for now.
    pub(super) fn unwatch(&mut self) {
        self.watch = None;
    }

    /// Wait until the peer may take more.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub(super) async fn writable(&mut self) -> io::Result<()> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            none => none.insert(pipe::Sender::from_owned_fd_unchecked(another(&self.socket)?)?),
        };
        watch.writable().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn connected() -> (UnixStream, Reader, Writer) {
        let (client, ours) = UnixStream::pair().expect("a pair");
        let (reader, writer) = ends(ours).expect("ends");
        (client, reader, writer)
    }

    #[tokio::test]
    async fn what_is_sent_is_read_whether_it_is_watched_or_looked_for() {
        let (mut client, mut reader, _writer) = connected();
        let mut input = Vec::with_capacity(64);
        assert_eq!(reader.take(&mut input).map_err(|e| e.kind()), Err(io::ErrorKind::WouldBlock));
        for (watched, sent) in [(true, "a"), (false, "b"), (true, "c"), (true, "d"), (false, "e")] {
            client.write_all(sent.as_bytes()).await.expect("sent");
            if watched {
                assert_eq!(reader.read(&mut input).await.expect("read"), 1);
            } else {
                assert_eq!(reader.take(&mut input).expect("taken"), 1);
                reader.unwatch();
            }
        }
        assert_eq!(input, b"abcde");
        drop(client);
        assert_eq!(reader.read(&mut input).await.expect("an end"), 0);
        assert_eq!(reader.take(&mut input).expect("an end"), 0);
    }

    #[tokio::test]
    async fn a_read_that_waits_is_woken_and_loses_nothing_when_it_is_dropped() {
        let (mut client, mut reader, _writer) = connected();
        let mut input = Vec::with_capacity(64);
        tokio::select! {
            biased;
            _ = reader.read(&mut input) => panic!("nothing was sent"),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
        let ((), read) =
            tokio::join!(async { client.write_all(b"late").await.expect("sent") }, reader.read(&mut input));
        assert_eq!((read.expect("read"), input.as_slice()), (4, &b"late"[..]));
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_waited_for_without_turning() {
        let (client, _reader, mut writer) = connected();
        let chunk = vec![7_u8; 64 * 1024];
        let mut given = 0;
        for watched in [false, true] {
            while let Ok(count) = writer.give(&chunk) {
                given += count;
            }
            // The first look at a watch may say that something may be taken; then it is tried, and known better.
            for _ in 0..2 {
                let waited = tokio::time::timeout(Duration::from_millis(20), writer.writable()).await;
                assert_eq!(writer.give(&chunk).map_err(|e| e.kind()), Err(io::ErrorKind::WouldBlock), "{watched}");
                if waited.is_err() {
                    break;
                }
            }
            assert!(tokio::time::timeout(Duration::from_millis(20), writer.writable()).await.is_err(), "{watched}");
        }
        let mut read = 0;
        let mut buffer = vec![0; chunk.len()];
        while read < given {
            client.readable().await.expect("readable");
            match client.try_read(&mut buffer) {
                Ok(count) => read += count,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        writer.writable().await.expect("there is room again");
        assert!(writer.give(&chunk).expect("given") > 0);
        writer.unwatch();
        assert!(writer.give(b"x").is_ok());
        drop(client);
        assert!(writer.give(&chunk).is_err());
    }
}
