//! The moment after a reply: a connection that is alone looks for the next request itself before it sleeps.
//!
//! An agent that works on a reply sends its next request soon, and on a virtual machine to be woken for it costs more than
//! the request itself: about 25 µs, where a call needs 45. So the connection asks its socket again and again for a short while and
//! gives the processor away between two looks, to the client too if they share one. It does so only while nobody else asks
//! anything at its door, and goes back to the runtime as soon as somebody does: a busy daemon spends nothing on this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::wire::Reader;

/// The longest that a connection looks, from its reply on: what it costs to be woken, twice.
const LINGER: Duration = Duration::from_micros(50);

/// What is in flight on one door, as one of its connections sees it.
#[derive(Debug, Default)]
pub(super) struct Busy {
    door: Arc<Door>,
    /// Which connection of the door this is.
    connection: u64,
    /// Whether the request before its last one was its own, too: nobody else asks anything.
    alone: bool,
}

#[derive(Debug, Default)]
struct Door {
    in_flight: AtomicUsize,
    connections: AtomicU64,
    /// The connection that asked last.
    last: AtomicU64,
}

/// One request in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Underway(Arc<Door>);

impl Busy {
    /// As a new connection of this door sees it.
    pub(super) fn connect(&self) -> Self {
        let connection = self.door.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Self { door: Arc::clone(&self.door), connection, alone: false }
    }

    /// One more is in flight.
    pub(super) fn enter(&mut self) -> Underway {
        self.door.in_flight.fetch_add(1, Ordering::Relaxed);
        self.alone = self.door.last.swap(self.connection, Ordering::Relaxed) == self.connection;
        Underway(Arc::clone(&self.door))
    }

    /// Whether this connection is the only one that asks.
    fn is_alone(&self) -> bool {
        self.alone
            && self.door.in_flight.load(Ordering::Relaxed) == 0
            && self.door.last.load(Ordering::Relaxed) == self.connection
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Look for what the peer sends next and append it to `input`. Returns whether there was anything; an end or an error of
/// the socket is left for whoever reads it in the ordinary way.
pub(super) async fn linger(busy: &Busy, reader: &mut Reader, input: &mut Vec<u8>) -> bool {
    let until = tokio::time::Instant::now() + LINGER;
    while busy.is_alone() {
        if reader.take(input).is_ok_and(|taken| taken > 0) {
            // What comes next is looked for as well, and nobody else need be woken for it.
            reader.unwatch();
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::super::wire::ends;
    use super::*;

    /// A client, and the end of its connection that reads.
    fn pair() -> (UnixStream, Reader) {
        let (client, ours) = UnixStream::pair().expect("a pair");
        let (reader, _writer) = ends(ours).expect("ends");
        (client, reader)
    }

    /// A connection that has asked twice in a row, and been answered.
    fn alone(door: &Busy) -> Busy {
        let mut busy = door.connect();
        drop(busy.enter());
        drop(busy.enter());
        busy
    }

    #[tokio::test]
    async fn a_lone_connection_takes_what_is_there_and_a_busy_one_leaves_it() {
        let (mut client, mut ours) = pair();
        client.write_all(b"next\n").await.expect("sent");
        let (mut busy, mut input) = (alone(&Busy::default()), Vec::with_capacity(64));
        let underway = busy.enter();
        assert!(!linger(&busy, &mut ours, &mut input).await && input.is_empty());
        drop(underway);
        assert!(linger(&busy, &mut ours, &mut input).await);
        assert_eq!(input, b"next\n");
    }

    #[tokio::test]
    async fn one_that_takes_turns_with_others_does_not_look() {
        let (mut client, mut ours) = pair();
        client.write_all(b"next\n").await.expect("sent");
        let (door, mut input) = (Busy::default(), Vec::with_capacity(64));
        let (mut one, mut other) = (door.connect(), door.connect());
        for _ in 0..3 {
            drop(one.enter());
            assert!(!linger(&one, &mut ours, &mut input).await, "the request before was another's");
            drop(other.enter());
            assert!(!linger(&one, &mut ours, &mut input).await, "another asked since");
        }
        drop(one.enter());
        drop(one.enter());
        assert!(linger(&one, &mut ours, &mut input).await);
    }

    #[tokio::test]
    async fn who_sends_nothing_or_leaves_is_not_waited_for() {
        let (client, mut ours) = pair();
        let (busy, mut input) = (alone(&Busy::default()), Vec::with_capacity(64));
        assert!(!linger(&busy, &mut ours, &mut input).await);
        drop(client);
        assert!(!linger(&busy, &mut ours, &mut input).await && input.is_empty());
    }
}
