//! Replies on their way out: one buffer per connection, written in as few system calls as the peer allows.
//!
//! Nothing here waits. How many bytes may gather is bounded by the connection, which stops reading requests from a peer
//! that does not read replies.

use std::io;

use super::bounds::BUFFER_KEPT_BYTES;
use super::envelope::RequestId;
use super::reply::{self, Body};
use super::wire::Writer;

/// Bytes that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
}

impl Outbox {
    /// Add the line that answers `id`.
    pub(super) fn push(&mut self, id: Option<&RequestId>, body: &Body) {
        reply::write_line(&mut self.bytes, id, body);
    }

    /// Add a line that is already written as such.
    pub(super) fn push_line(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether none wait.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Write what the socket takes now; the number of bytes.
    ///
    /// # Errors
    /// The socket failed or the peer is gone.
    pub(super) fn write(&mut self, writer: &Writer) -> io::Result<usize> {
        let before = self.written;
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match writer.give(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let count = self.written - before;
        // A peer that never lets it become empty must not make it keep what was written; moving the rest costs less than
        // writing it did.
        if self.written > BUFFER_KEPT_BYTES && self.written > self.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        if self.is_empty() {
            self.written = 0;
            self.bytes.clear();
            if self.bytes.capacity() > BUFFER_KEPT_BYTES {
                self.bytes = Vec::new();
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::super::wire::ends;
    use super::*;

    #[tokio::test]
    async fn t_r4_what_was_written_is_given_back_although_it_is_never_empty() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let (_reader, mut writer) = ends(ours).expect("ends");
        let (mut outbox, mut read) = (Outbox::default(), vec![0; 64 * 1024]);
        outbox.push_line(&vec![b'x'; 4 * BUFFER_KEPT_BYTES]);
        let mut passed = 0;
        while passed < 64 * BUFFER_KEPT_BYTES {
            // Whoever reads asks for as much again, so that something always waits.
            tokio::select! {
                writable = writer.writable() => {
                    writable.expect("the peer is there");
                    outbox.write(&writer).expect("written");
                    assert!(!outbox.is_empty(), "the peer keeps it filled");
                }
                count = theirs.read(&mut read) => {
                    let count = count.expect("read");
                    passed += count;
                    outbox.push_line(&vec![b'x'; count]);
                }
            }
        }
        let kept = outbox.bytes.capacity();
        assert!(kept <= 16 * BUFFER_KEPT_BYTES, "{kept} bytes are kept of {passed}");
    }
}
