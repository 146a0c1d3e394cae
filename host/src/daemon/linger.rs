//! The moment after a reply: a connection that is alone looks for the next request itself before it sleeps.
//!
//! An agent that works on a reply sends its next request soon, and on a virtual machine to be woken for it costs more than
//! the request itself: about 25 µs, where a call needs 45. So the connection asks its socket again and again for a short while and
//! gives the processor away between two looks, to the client too if they share one. It does so only while nothing else is in
//! flight on its door, and goes back to the runtime as soon as something is: a busy daemon never spends anything on this.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, recv};
use tokio::net::UnixStream;

/// The longest that a connection looks, from its reply on: what it costs to be woken, twice.
const LINGER: Duration = Duration::from_micros(50);

/// How many requests of one door are in flight.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<AtomicUsize>);

/// One request in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Underway(Busy);

impl Busy {
    /// One more is in flight.
    pub(super) fn enter(&self) -> Underway {
        self.0.fetch_add(1, Ordering::Relaxed);
        Underway(self.clone())
    }

    fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Look for what the peer sends next and append it to `input`. Returns whether there was anything; an end or an error of
/// the socket is left for whoever reads it in the ordinary way.
pub(super) async fn linger(busy: &Busy, stream: &UnixStream, input: &mut Vec<u8>) -> bool {
    let until = tokio::time::Instant::now() + LINGER;
    while busy.is_idle() {
        if take(stream, input).is_ok_and(|taken| taken > 0) {
            // A client that is always quick must not keep the others of this worker waiting.
            tokio::task::consume_budget().await;
            return true;
        }
        if tokio::time::Instant::now() >= until {
            return false;
        }
        std::thread::yield_now();
    }
    false
}

fn take(stream: &UnixStream, input: &mut Vec<u8>) -> io::Result<usize> {
    let (taken, _length) = recv(stream, spare_capacity(input), RecvFlags::DONTWAIT)?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_lone_connection_takes_what_is_there_and_a_busy_one_leaves_it() {
        let (mut client, ours) = UnixStream::pair().expect("a pair");
        client.write_all(b"next\n").await.expect("sent");
        let (busy, mut input) = (Busy::default(), Vec::with_capacity(64));
        let underway = busy.enter();
        assert!(!linger(&busy, &ours, &mut input).await && input.is_empty());
        drop(underway);
        assert!(linger(&busy, &ours, &mut input).await);
        assert_eq!(input, b"next\n");
    }

    #[tokio::test]
    async fn who_sends_nothing_or_leaves_is_not_waited_for() {
        let (client, ours) = UnixStream::pair().expect("a pair");
        let mut input = Vec::with_capacity(64);
        assert!(!linger(&Busy::default(), &ours, &mut input).await);
        drop(client);
        assert!(!linger(&Busy::default(), &ours, &mut input).await && input.is_empty());
    }
}
