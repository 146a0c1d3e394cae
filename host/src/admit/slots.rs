//! Slots: who runs now, who waits, and whose turn it is.
//!
//! As long as nobody waits a slot is one compare-and-swap. Whoever waits stands in the line of its tenant, and freed slots
//! go round the lines: a tenant with a thousand calls and one with a single one take turns. Where all lines together are
//! full, the last of the longest makes room for a tenant with a shorter one. A tenant may have a most of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use toolkeep_core::id::TenantName;

/// Slots for calls.
#[derive(Debug)]
pub struct Slots(Arc<Board>);

/// The right to run; given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    /// Nothing once it is given back.
    board: Option<Arc<Board>>,
    /// Whose, where tenants are counted.
    tenant: Option<TenantName>,
}

#[derive(Debug)]
struct Board {
    most: usize,
    most_waiting: usize,
    most_of_tenant: Option<usize>,
    running: AtomicUsize,
    waiting: AtomicUsize,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// Tenants that wait, the next first. Every line has somebody in it.
    turns: VecDeque<(TenantName, VecDeque<Waiter>)>,
    /// How many run of each tenant, where that is counted.
    running: HashMap<TenantName, usize>,
    number: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    tell: oneshot::Sender<Slot>,
}

/// A place in a line; given up when it is dropped.
#[derive(Debug)]
pub struct Place {
    board: Arc<Board>,
    number: u64,
    told: oneshot::Receiver<Slot>,
}

/// What whoever wants a slot gets.
#[derive(Debug)]
pub enum Entered {
    /// It runs now.
    Runs(Slot),
    /// It waits.
    Waits(Place),
    /// There is no room, not even to wait.
    Full,
}

impl Slots {
    /// `most` calls run, of each tenant at most `most_of_tenant`, and `most_waiting` wait.
    #[must_use]
    pub fn new(most: usize, most_waiting: usize, most_of_tenant: Option<usize>) -> Self {
        Self(Arc::new(Board {
            most,
            most_waiting,
            most_of_tenant,
            running: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            lines: Mutex::default(),
        }))
    }

    /// How many run, and how many wait.
    #[must_use]
    pub fn occupancy(&self) -> (u64, u64) {
        let read = |number: &AtomicUsize| number.load(Ordering::Relaxed) as u64;
        (read(&self.0.running), read(&self.0.waiting))
    }

    /// Run, or stand in line.
    #[must_use]
    pub fn enter(&self, tenant: &TenantName) -> Entered {
        let board = &self.0;
        if board.most_of_tenant.is_none() && board.waiting.load(Ordering::SeqCst) == 0 && board.take() {
            return Entered::Runs(Slot { board: Some(Arc::clone(board)), tenant: None });
        }
        let mut lines = board.lines();
        if lines.waiting() >= board.most_waiting && !lines.make_room_for(tenant, board) {
            // A slot may be free for it all the same.
            return match board.most_waiting == 0 && board.admits(&lines, tenant) && board.take() {
                true => Entered::Runs(board.slot_for(&mut lines, tenant)),
                false => Entered::Full,
            };
        }
        let (tell, told) = oneshot::channel();
        let number = lines.join(tenant, tell);
        board.waiting.fetch_add(1, Ordering::SeqCst);
        board.serve(&mut lines);
        drop(lines);
        let mut place = Place { board: Arc::clone(board), number, told };
        match place.told.try_recv() {
            Ok(slot) => Entered::Runs(slot),
            Err(_) => Entered::Waits(place),
        }
    }
}

impl Place {
    /// Wait for the turn. Nothing if somebody else's tenant was given the place.
    pub async fn turn(&mut self) -> Option<Slot> {
        (&mut self.told).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.board.lines();
        if lines.leave(self.number) {
            self.board.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        drop(lines);
        // A slot that was given in this moment is given back.
        drop(self.told.try_recv());
    }
}

impl Board {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Count one more that runs, if there is room.
    fn take(&self) -> bool {
        let more = |running: usize| (running < self.most).then_some(running + 1);
        self.running.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    fn admits(&self, lines: &Lines, tenant: &TenantName) -> bool {
        self.most_of_tenant.is_none_or(|most| lines.running.get(tenant).copied().unwrap_or(0) < most)
    }

    /// The slot that was just taken.
    fn slot_for(self: &Arc<Self>, lines: &mut Lines, tenant: &TenantName) -> Slot {
        let counted = self.most_of_tenant.map(|_| tenant.clone());
        if counted.is_some() {
            *lines.running.entry(tenant.clone()).or_default() += 1;
        }
        Slot { board: Some(Arc::clone(self)), tenant: counted }
    }

    /// Give free slots to whoever waits, one tenant after the other.
    fn serve(self: &Arc<Self>, lines: &mut Lines) {
        loop {
            let next = lines.turns.iter().position(|(tenant, _)| self.admits(lines, tenant));
            let Some(next) = next.filter(|_| self.take()) else { return };
            let Some((tenant, mut line)) = lines.turns.remove(next) else { return };
            let Some(waiter) = line.pop_front() else { return };
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            let slot = self.slot_for(lines, &tenant);
            if !line.is_empty() {
                lines.turns.push_back((tenant, line));
            }
            if let Err(mut slot) = waiter.tell.send(slot) {
                // It does not wait any more.
                self.count_down(lines, slot.tenant.take().as_ref());
                slot.board = None;
            }
        }
    }

    fn count_down(&self, lines: &mut Lines, tenant: Option<&TenantName>) {
        self.running.fetch_sub(1, Ordering::SeqCst);
        let Some(tenant) = tenant else { return };
        if let Some(count) = lines.running.get_mut(tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                lines.running.remove(tenant);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(board) = self.board.take() else { return };
        if self.tenant.is_none() {
            board.running.fetch_sub(1, Ordering::SeqCst);
            if board.waiting.load(Ordering::SeqCst) == 0 {
                return;
            }
            let mut lines = board.lines();
            board.serve(&mut lines);
        } else {
            let mut lines = board.lines();
            board.count_down(&mut lines, self.tenant.as_ref());
            board.serve(&mut lines);
        }
    }
}

impl Lines {
    fn waiting(&self) -> usize {
        self.turns.iter().map(|(_, line)| line.len()).sum()
    }

    fn join(&mut self, tenant: &TenantName, tell: oneshot::Sender<Slot>) -> u64 {
        self.number += 1;
        let waiter = Waiter { number: self.number, tell };
        match self.turns.iter_mut().find(|(other, _)| other == tenant) {
            Some((_, line)) => line.push_back(waiter),
            None => self.turns.push_back((tenant.clone(), VecDeque::from([waiter]))),
        }
        self.number
    }

    fn leave(&mut self, number: u64) -> bool {
        let before = self.waiting();
        for (_, line) in &mut self.turns {
            line.retain(|waiter| waiter.number != number);
        }
        self.turns.retain(|(_, line)| !line.is_empty());
        self.waiting() < before
    }

    /// Send the last of the longest line away, if that of `tenant` would still be shorter.
    fn make_room_for(&mut self, tenant: &TenantName, board: &Board) -> bool {
        let own = self.turns.iter().find(|(other, _)| other == tenant).map_or(0, |(_, line)| line.len());
        let longest = self.turns.iter_mut().max_by_key(|(_, line)| line.len());
        let Some((_, line)) = longest.filter(|(_, line)| line.len() > own + 1) else { return false };
        // Its sender is dropped: that tells it.
        drop(line.pop_back());
        board.waiting.fetch_sub(1, Ordering::SeqCst);
        true
    }
}

#[cfg(test)]
mod tests;
