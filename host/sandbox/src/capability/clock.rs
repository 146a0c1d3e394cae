//! Clocks. Frozen by default: the wall clock stands at the time of admission, the monotonic clock is virtual (D18).
//!
//! Virtual time starts at 0 and moves only when the guest waits for it: a poll of nothing but timers jumps to the earliest
//! of them at once. Sleeping therefore costs no time, but each poll is a host call. Waiting for another system takes the
//! time that it really takes, and that is recorded with the exchange. A guest cannot time itself, so it learns nothing
//! about the machine. A manifest may grant the real clock; every reading is recorded then as well.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use toolkeep_core::capability::ClockGrant;
use toolkeep_core::event::Moment;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use crate::outbound::exchange::locked;
use crate::recording::Recorder;
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
    /// With the real clock: what real time decides is noted here, or was.
    timeline: Timeline,
}

/// What real time decides: noted for a replay, or told by a recording.
#[derive(Debug, Clone)]
pub(crate) enum Timeline {
    Noting(Recorder),
    Told(Arc<Mutex<Told>>),
}

/// What a recording tells.
#[derive(Debug, Default)]
pub(crate) struct Told {
    moments: VecDeque<Moment>,
    last_ns: u64,
    /// Whether something else was asked for than was recorded.
    off: bool,
}

impl Timeline {
    pub(crate) fn told(moments: VecDeque<Moment>) -> Self {
        Self::Told(Arc::new(Mutex::new(Told { moments, last_ns: 0, off: false })))
    }

    fn note(&self, moment: impl FnOnce() -> Moment) {
        if let Self::Noting(recorder) = self {
            recorder.moment(moment());
        }
    }

    /// What was recorded at this point, if `wanted` finds it there. Nothing outside of a replay.
    fn next<T>(&self, wanted: impl FnOnce(&Moment) -> Option<T>) -> Option<Option<T>> {
        let Self::Told(told) = self else { return None };
        let mut told = locked(told);
        let found = told.moments.pop_front().and_then(|moment| wanted(&moment));
        told.off |= found.is_none();
        Some(found)
    }
}

impl Clock {
    pub(crate) const fn new(grant: ClockGrant, wall_ns: u64, started: Instant, timeline: Timeline) -> Self {
        Self { grant, wall_ns, started, virtual_ns: 0, timers: BTreeMap::new(), timeline }
    }

    pub(crate) const fn is_real(&self) -> bool {
        matches!(self.grant, ClockGrant::Real)
    }

    /// Real time since the execution started, or as it was then.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_ns())
    }

    fn elapsed_ns(&self) -> u64 {
        let at = |moment: &Moment| if let Moment::At(ns) = moment { Some(*ns) } else { None };
        if let Some(told) = self.timeline.next(at) {
            let Timeline::Told(last) = &self.timeline else { return 0 };
            let mut last = locked(last);
            last.last_ns = told.unwrap_or(last.last_ns);
            return last.last_ns;
        }
        let elapsed_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.timeline.note(|| Moment::At(elapsed_ns));
        elapsed_ns
    }

    /// Whether something was ready, as it was recorded; nothing outside of a replay with the real clock.
    pub(crate) fn recorded_is(&self) -> Option<bool> {
        let is = |moment: &Moment| if let Moment::Is(is) = moment { Some(*is) } else { None };
        if self.is_real() { self.timeline.next(is).map(|is| is.unwrap_or(false)) } else { None }
    }

    pub(crate) fn note_is(&self, is: bool) {
        if self.is_real() {
            self.timeline.note(|| Moment::Is(is));
        }
    }

    /// What a poll found ready, as it was recorded; nothing outside of a replay, and nothing in it where the recording
    /// has no poll here.
    pub(crate) fn recorded_ready(&self) -> Option<Option<Vec<u32>>> {
        self.timeline.next(|moment| if let Moment::Ready(ready) = moment { Some(ready.clone()) } else { None })
    }

    pub(crate) fn note_ready(&self, ready: &[u32]) {
        self.timeline.note(|| Moment::Ready(ready.to_vec()));
    }

    /// Whether a replay asked real time for something else than was recorded.
    pub(crate) fn is_off(&self) -> bool {
        matches!(&self.timeline, Timeline::Told(told) if locked(told).off)
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
        let timeline = Timeline::told(VecDeque::new());
        let mut clock = Clock::new(ClockGrant::Frozen, 5 * SECOND_NS + 7, Instant::now(), timeline);
        assert_eq!((clock.now_ns(), clock.wall_ns()), (0, 5 * SECOND_NS + 7));
        clock.jump(40);
        clock.jump(30);
        assert_eq!(clock.now_ns(), 40);
        assert!(clock.reached(40) && !clock.reached(41));
        let wall = datetime(clock.wall_ns());
        assert_eq!((wall.seconds, wall.nanoseconds), (5, 7));
        assert!(!clock.is_off(), "virtual time asks nobody");
    }

    #[test]
    fn r41_the_real_clock_tells_a_replay_what_it_told_then_and_notices_another_question() {
        let moments = [Moment::At(5), Moment::Is(true), Moment::Ready(vec![1]), Moment::At(9)];
        let timeline = Timeline::told(moments.into());
        let clock = Clock::new(ClockGrant::Real, 100, Instant::now(), timeline);
        assert_eq!((clock.now_ns(), clock.recorded_is(), clock.recorded_ready()), (5, Some(true), Some(Some(vec![1]))));
        assert_eq!((clock.wall_ns(), clock.is_off()), (109, false));
        assert_eq!((clock.now_ns(), clock.is_off()), (9, true), "nothing is told any more: the clock stands still");
        assert_eq!((clock.recorded_is(), clock.recorded_ready()), (Some(false), Some(None)));
    }

    #[test]
    fn r41_what_the_real_clock_tells_is_noted() {
        let recorder = Recorder::new(0, toolkeep_core::event::Depth::Full);
        let clock = Clock::new(ClockGrant::Real, 0, Instant::now(), Timeline::Noting(recorder));
        let now_ns = clock.now_ns();
        clock.note_is(true);
        assert!(clock.recorded_is().is_none() && clock.recorded_ready().is_none() && clock.now_ns() >= now_ns);
    }
}
