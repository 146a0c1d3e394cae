//! Digests of what is served, computed beside the guest.
//!
//! Small reads are hashed where they are made. A range that grows long is handed to one thread of the stage, so that a
//! guest that reads a large file waits for the disk and not for SHA-256. The queue between them is short: a
//! guest that reads faster than the thread hashes waits, and the host holds a few megabytes at most. The thread ends with
//! its stage, or with the last range that it was given.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use toolkeep_core::digest::{Digest, Hasher};

/// From this length on, in bytes, a range is hashed by the thread: below it, starting one costs more than it saves.
pub(super) const BESIDE_MIN_BYTES: u64 = 2 * 1024 * 1024;
/// Reads that wait to be hashed, of at most 64 KiB each: enough to even out, 2 MiB in all.
const QUEUE_MAX: usize = 32;

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
    Begin(u64, Hasher),
    More(u64, Vec<u8>),
    Finish(Sender<BTreeMap<u64, Digest>>),
}

/// The hashing of one stage.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    orders: Option<SyncSender<Order>>,
    next: u64,
}

impl Hashing {
    /// Take more bytes of a range that had `length` bytes before.
    pub(super) fn update(&mut self, running: &mut Running, length: u64, bytes: &[u8]) {
        if length >= BESIDE_MIN_BYTES
            && let Running::Here(hasher) = running
            && let Some(number) = self.begin(hasher)
        {
            *running = Running::Beside(number);
        }
        match running {
            Running::Here(hasher) => hasher.update(bytes),
            Running::Beside(number) => self.give(Order::More(*number, bytes.to_vec())),
            Running::Known(_) => {}
        }
    }

    fn begin(&mut self, hasher: &Hasher) -> Option<u64> {
        if self.orders.is_none() {
            let (sender, receiver) = sync_channel(QUEUE_MAX);
            std::thread::Builder::new().name("stage-hashing".to_owned()).spawn(move || serve(&receiver)).ok()?;
            self.orders = Some(sender);
        }
        let number = self.next;
        self.next += 1;
        self.give(Order::Begin(number, hasher.clone()));
        Some(number)
    }

    fn give(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The thread ends only after its sender; if it is gone, `finish` says so.
            let _given = orders.send(order);
        }
    }

    /// The digests of all ranges that the thread was given, by number. Nothing if it broke down.
    pub(super) fn finish(&mut self) -> Option<BTreeMap<u64, Digest>> {
        let Some(orders) = self.orders.take() else { return Some(BTreeMap::new()) };
        let (sender, receiver) = channel();
        orders.send(Order::Finish(sender)).ok()?;
        receiver.recv().ok()
    }
}

fn serve(orders: &Receiver<Order>) {
    let mut running: BTreeMap<u64, Hasher> = BTreeMap::new();
    while let Ok(order) = orders.recv() {
        match order {
            Order::Begin(number, hasher) => {
                running.insert(number, hasher);
            }
            Order::More(number, bytes) => {
                if let Some(hasher) = running.get_mut(&number) {
                    hasher.update(&bytes);
                }
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
    fn a_range_hashed_beside_has_the_digest_of_all_its_bytes() {
        let mut hashing = Hashing::default();
        let mut ranges = [Running::Here(Hasher::new()), Running::Here(Hasher::new())];
        let chunk: Vec<u8> = (0..=255_u8).cycle().take(64 * 1024).collect();
        let chunks = usize::try_from(BESIDE_MIN_BYTES).expect("small") / chunk.len() + 40;
        for at in 0..chunks {
            for range in &mut ranges {
                hashing.update(range, (at * chunk.len()) as u64, &chunk);
            }
        }
        let digests = hashing.finish().expect("the thread answers");
        assert_eq!(digests.len(), 2);
        let expect = Digest::of(&chunk.repeat(chunks));
        for range in ranges {
            assert!(matches!(range, Running::Beside(number) if digests.get(&number) == Some(&expect)));
        }
    }
}
