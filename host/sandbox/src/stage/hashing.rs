//! Digests of what is served, computed beside the guest.
//!
//! SHA-256 of one text cannot be computed by two threads, so what is served is hashed in pieces that begin at multiples of
//! [`PIECE_BYTES`]: where they end depends on the file alone, never on how fast somebody was. Small reads are hashed where
//! they are made. A guest that reads on from one piece into the next hands the next one to a thread of its stage, and as
//! long as that thread is busy it hashes a piece itself, so that both have work. What waits for the thread is copied into
//! a bounded number of buffers that are used again. The thread ends with its stage, or with the last piece that it was given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use toolkeep_core::digest::{Digest, Hasher};

/// Bytes of a file that have one digest, at most. A few hundred digests name a large file, and one piece is a millisecond
/// of hashing: short enough to share the work evenly, long enough that a thread is worth it.
pub(super) const PIECE_BYTES: u64 = 2 * 1024 * 1024;
/// Bytes that are handed to the thread at a time: one full read.
const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that wait for the thread, at most: two pieces, 4 MiB.
const QUEUE_MAX: usize = 64;
/// Bytes that may wait when another piece is given to the thread: one piece, so that the queue holds both.
const BACKLOG_MAX_BYTES: usize = 2 * 1024 * 1024;

/// The digest of a growing range.
#[derive(Debug)]
pub(super) enum Running {
    /// Hashed here.
    Here(Hasher),
    /// Hashed by the thread, under this number.
    Beside(u64),
    /// Done.
    Known(Digest),
}

impl Running {
    /// The digest; nothing while the thread has it.
    pub(super) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Here(hasher) => Some(hasher.clone().finish()),
            Self::Beside(_) => None,
            Self::Known(digest) => Some(*digest),
        }
    }
}

#[derive(Debug)]
enum Order {
    More(u64, Vec<u8>),
    Finish(Sender<BTreeMap<u64, Digest>>),
}

/// The end of the stage of the way to its thread.
#[derive(Debug)]
struct Line {
    orders: SyncSender<Order>,
    /// Buffers that the thread is done with.
    empty: Receiver<Vec<u8>>,
    /// Bytes that the thread was given and has not hashed yet.
    backlog: Arc<AtomicUsize>,
    /// What is collected until it fills a buffer, and the range that it belongs to.
    filling: (u64, Vec<u8>),
}

/// The hashing of one stage.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    line: Option<Line>,
    next: u64,
}

impl Hashing {
    /// Begin the digest of a range. `goes_on` says that it begins where a whole piece that was served before ends.
    pub(super) fn begin(&mut self, goes_on: bool) -> Running {
        if !goes_on {
            return Running::Here(Hasher::new());
        }
        if self.line.is_none() {
            self.line = Line::new();
        }
        match &self.line {
            Some(line) if line.backlog.load(Ordering::Relaxed) <= BACKLOG_MAX_BYTES => {
                self.next += 1;
                Running::Beside(self.next)
            }
            _ => Running::Here(Hasher::new()),
        }
    }

    /// Take more bytes of a range.
    pub(super) fn update(&mut self, running: &mut Running, bytes: &[u8]) {
        match (running, &mut self.line) {
            (Running::Here(hasher), _) => hasher.update(bytes),
            (Running::Beside(number), Some(line)) => line.give(*number, bytes),
            (Running::Beside(_), None) | (Running::Known(_), _) => {}
        }
    }

    /// Whether the thread was given anything, so that somebody has to wait for it.
    pub(super) const fn is_beside(&self) -> bool {
        self.line.is_some()
    }

    /// The digests of all ranges that the thread was given, by number. Nothing if it broke down.
    pub(super) fn finish(&mut self) -> Option<BTreeMap<u64, Digest>> {
        let Some(mut line) = self.line.take() else { return Some(BTreeMap::new()) };
        line.flush();
        let (sender, receiver) = channel();
        line.orders.send(Order::Finish(sender)).ok()?;
        receiver.recv().ok()
    }
}

impl Line {
    fn new() -> Option<Self> {
        let (orders, given) = sync_channel(QUEUE_MAX);
        let (done, empty) = channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&backlog);
        let thread = std::thread::Builder::new().name("stage-hashing".to_owned());
        thread.spawn(move || serve(&given, &done, &left)).ok()?;
        Some(Self { orders, empty, backlog, filling: (0, Vec::new()) })
    }

    fn give(&mut self, number: u64, mut bytes: &[u8]) {
        if self.filling.0 != number {
            self.flush();
            self.filling.0 = number;
        }
        while !bytes.is_empty() {
            let buffer = &mut self.filling.1;
            if buffer.capacity() == 0 {
                *buffer = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES));
            }
            let room = BUFFER_BYTES.saturating_sub(buffer.len());
            let (part, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            buffer.extend_from_slice(part);
            bytes = rest;
            if buffer.len() >= BUFFER_BYTES {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let (number, buffer) = &mut self.filling;
        if buffer.is_empty() {
            return;
        }
        let buffer = std::mem::take(buffer);
        self.backlog.fetch_add(buffer.len(), Ordering::Relaxed);
        // The thread ends only after its sender; if it is gone, `finish` says so.
        let _given = self.orders.send(Order::More(*number, buffer));
    }
}

fn serve(orders: &Receiver<Order>, empty: &Sender<Vec<u8>>, backlog: &AtomicUsize) {
    let mut running: BTreeMap<u64, Hasher> = BTreeMap::new();
    while let Ok(order) = orders.recv() {
        match order {
            Order::More(number, mut bytes) => {
                running.entry(number).or_default().update(&bytes);
                backlog.fetch_sub(bytes.len(), Ordering::Relaxed);
                bytes.clear();
                // A stage that is gone needs no buffers.
                let _unwanted = empty.send(bytes);
            }
            Order::Finish(answer) => {
                let done = std::mem::take(&mut running).into_iter().map(|(number, h)| (number, h.finish())).collect();
                let _nobody_waits = answer.send(done);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hashed_beside_in_turns_have_the_digests_of_all_their_bytes() {
        let mut hashing = Hashing::default();
        let mut ranges = [hashing.begin(true), hashing.begin(true), hashing.begin(false)];
        assert!(matches!(ranges, [Running::Beside(_), Running::Beside(_), Running::Here(_)]));
        let (odd, full) = (vec![1_u8; 777], vec![2_u8; BUFFER_BYTES + 1]);
        for _ in 0..QUEUE_MAX {
            for range in &mut ranges {
                hashing.update(range, &odd);
                hashing.update(range, &full);
            }
        }
        let digests = hashing.finish().expect("the thread answers");
        assert_eq!(digests.len(), 2);
        let expect = Digest::of(&[odd, full].concat().repeat(QUEUE_MAX));
        for range in ranges {
            let found = match &range {
                Running::Beside(number) => digests.get(number).copied(),
                other => other.digest(),
            };
            assert_eq!(found, Some(expect));
        }
    }

    #[test]
    fn a_busy_thread_is_not_given_more() {
        let mut hashing = Hashing::default();
        let first = hashing.begin(true);
        assert!(matches!(first, Running::Beside(_)));
        let backlog = Arc::clone(&hashing.line.as_ref().expect("a line").backlog);
        backlog.store(BACKLOG_MAX_BYTES, Ordering::Relaxed);
        assert!(matches!(hashing.begin(true), Running::Beside(_)));
        backlog.store(BACKLOG_MAX_BYTES + 1, Ordering::Relaxed);
        assert!(matches!(hashing.begin(true), Running::Here(_)));
    }
}
