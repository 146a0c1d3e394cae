//! Clocks. Frozen by default: the wall clock stands at the time of admission, the monotonic clock is virtual (D18).
//!
//! Virtual time starts at 0 and moves only when the guest waits for it: a poll of nothing but timers jumps to the earliest
//! of them at once. Sleeping therefore costs no time, but each poll is a host call. Waiting for another system takes the
//! time that it really takes, and that is recorded with the exchange. A guest cannot time itself, so it learns nothing
//! about the machine. A manifest may grant the real clock; every reading is recorded then as well.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use toolkeep_core::capability::ClockGrant;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use crate::state::State;

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;
/// What a clock says about its resolution: one millisecond, whichever clock it is.
const RESOLUTION_NS: u64 = 1_000_000;

/// The clocks of one execution.
#[derive(Debug)]
pub(crate) struct Clock {
    grant: ClockGrant,
    wall_ns: u64,
    started: Instant,
    virtual_ns: u64,
    /// Due times of the virtual timers, by the table key of their pollable.
    timers: BTreeMap<u32, u64>,
}

impl Clock {
    pub(crate) const fn new(grant: ClockGrant, wall_ns: u64, started: Instant) -> Self {
        Self { grant, wall_ns, started, virtual_ns: 0, timers: BTreeMap::new() }
    }

    pub(crate) const fn is_real(&self) -> bool {
        matches!(self.grant, ClockGrant::Real)
    }

    /// Real time since the execution started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The tool's monotonic time.
    pub(crate) fn now_ns(&self) -> u64 {
        if self.is_real() { self.elapsed_ns() } else { self.virtual_ns }
    }

    fn wall_ns(&self) -> u64 {
        if self.is_real() { self.wall_ns.saturating_add(self.elapsed_ns()) } else { self.wall_ns }
    }

    /// When the virtual timer behind a pollable is due; none if it is not one.
    pub(crate) fn due(&self, pollable: u32) -> Option<u64> {
        self.timers.get(&pollable).copied()
    }

    /// Whether virtual time has reached `due`.
    pub(crate) const fn reached(&self, due: u64) -> bool {
        due <= self.virtual_ns
    }

    /// Let virtual time jump to `due`, never back.
    pub(crate) fn jump(&mut self, due: u64) {
        self.virtual_ns = self.virtual_ns.max(due);
    }

    pub(crate) fn forget(&mut self, pollable: u32) {
        self.timers.remove(&pollable);
    }
}

/// A real timer; `None` never comes.
struct Sleep(Option<tokio::time::Instant>);

#[async_trait]
impl Pollable for Sleep {
    async fn ready(&mut self) {
        match self.0 {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

impl State {
    fn timer(&mut self, due_ns: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let due = self.clock.started.checked_add(Duration::from_nanos(due_ns)).map(tokio::time::Instant::from_std);
        let sleep = self.table.push(Sleep(due))?;
        let pollable = subscribe(&mut self.table, sleep)?;
        if !self.clock.is_real() {
            self.clock.timers.insert(pollable.rep(), due_ns);
        }
        Ok(pollable)
    }
}

impl monotonic_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        let now = self.clock.now_ns();
        self.recorder.value("wasi:clocks/monotonic-clock#now", "", now.to_string());
        Ok(now)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(RESOLUTION_NS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.recorder.done("wasi:clocks/monotonic-clock#subscribe-instant", when.to_string());
        self.timer(when)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.recorder.done("wasi:clocks/monotonic-clock#subscribe-duration", duration.to_string());
        self.timer(self.clock.now_ns().saturating_add(duration))
    }
}

const fn datetime(nanoseconds: u64) -> wall_clock::Datetime {
    // A remainder of a second fits 32 bits.
    let rest = (nanoseconds % SECOND_NS) as u32;
    wall_clock::Datetime { seconds: nanoseconds / SECOND_NS, nanoseconds: rest }
}

impl wall_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = self.clock.wall_ns();
        self.recorder.value("wasi:clocks/wall-clock#now", "", now.to_string());
        Ok(datetime(now))
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(datetime(RESOLUTION_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_time_starts_at_zero_jumps_forward_and_never_back() {
        let mut clock = Clock::new(ClockGrant::Frozen, 5 * SECOND_NS + 7, Instant::now());
        assert_eq!((clock.now_ns(), clock.wall_ns()), (0, 5 * SECOND_NS + 7));
        clock.jump(40);
        clock.jump(30);
        assert_eq!(clock.now_ns(), 40);
        assert!(clock.reached(40) && !clock.reached(41));
        let wall = datetime(clock.wall_ns());
        assert_eq!((wall.seconds, wall.nanoseconds), (5, 7));
    }
}
