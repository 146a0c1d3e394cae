//! Waiting. Shadows `wasi:io/poll`, so that virtual timers work and what was ready is recorded.
//!
//! What a guest can wait for is ready at once (streams over the stage, the console, answers in memory), a timer, or the
//! answer of another system. If nothing is ready, virtual time jumps to the earliest timer of the list, unless the list
//! holds an answer that is under way: then real time passes, at most up to that timer, and virtual time with it. A guest
//! that waits for something that never comes waits until its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::Resource;
use wasmtime_wasi_io::bindings::wasi::io::poll::{Host, HostPollable};
use wasmtime_wasi_io::poll::DynPollable;

use crate::fault::{Fault, Stop};
use crate::outbound::exchange::{Asked, first_arrival};
use crate::state::State;

/// Most pollables in one poll: the host walks them all.
pub(crate) const POLL_MAX: usize = 256;
/// Longest that a look at an answer under way waits for it, in nanoseconds: a guest that looks again and again lets time
/// pass (1 ms).
const LOOK_NS: u64 = 1_000_000;

fn again(pollable: &Resource<DynPollable>) -> Resource<DynPollable> {
    Resource::new_borrow(pollable.rep())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a list of pollables looks like at one moment of virtual time.
#[derive(Default)]
struct Look {
    ready: Vec<u32>,
    /// The earliest moment at which one more will be ready, as far as it is known.
    earliest: Option<u64>,
    under_way: Vec<Arc<Asked>>,
}

impl Look {
    fn due(&mut self, due_ns: u64) {
        self.earliest = Some(self.earliest.map_or(due_ns, |other| other.min(due_ns)));
    }
}

impl State {
    fn asked(&self, pollable: u32) -> Option<Arc<Asked>> {
        self.outbound.as_ref().and_then(|outbound| outbound.awaited.get(&pollable)).map(Arc::clone)
    }

    async fn look(&mut self, pollables: &[Resource<DynPollable>]) -> wasmtime::Result<Look> {
        let mut look = Look::default();
        let now_ns = self.clock.now_ns();
        for (index, pollable) in (0_u32..).zip(pollables) {
            let ready = if let Some(due_ns) = self.clock.due(pollable.rep()) {
                let reached = self.clock.reached(due_ns);
                if !reached {
                    look.due(due_ns);
                }
                reached
            } else if let Some(asked) = self.asked(pollable.rep()) {
                let is_due = asked.is_due(now_ns);
                if !is_due {
                    asked.missed(now_ns);
                    match asked.due_ns() {
                        Some(due_ns) => look.due(due_ns),
                        None if asked.is_under_way() => look.under_way.push(asked),
                        None => {}
                    }
                }
                is_due
            } else {
                self.table.ready(again(pollable)).await?
            };
            if ready {
                look.ready.push(index);
            }
        }
        Ok(look)
    }

    /// The indices that are ready; none if the guest has to wait for something that only real time can bring.
    /// Virtual time moves to `until` at most, if that is said.
    async fn poll_virtually(
        &mut self,
        pollables: &[Resource<DynPollable>],
        until_ns: Option<u64>,
    ) -> wasmtime::Result<Vec<u32>> {
        loop {
            let mut look = self.look(pollables).await?;
            if !look.ready.is_empty() || until_ns.is_some_and(|until_ns| self.clock.reached(until_ns)) {
                return Ok(look.ready);
            }
            if let Some(until_ns) = until_ns {
                look.due(until_ns);
            }
            if look.under_way.is_empty() {
                let Some(earliest) = look.earliest else { return Ok(look.ready) };
                self.clock.jump(earliest);
                continue;
            }
            let now_ns = self.clock.now_ns();
            let most_ns = look.earliest.map(|earliest| earliest.saturating_sub(now_ns));
            let started = Instant::now();
            if first_arrival(&look.under_way, most_ns.map(Duration::from_nanos)).await {
                let passed_ns = nanoseconds(started.elapsed()).min(most_ns.unwrap_or(u64::MAX));
                for asked in look.under_way {
                    asked.settle(now_ns.saturating_add(passed_ns));
                }
            } else if let Some(earliest) = look.earliest {
                self.clock.jump(earliest);
            }
        }
    }
}

impl State {
    /// Wait in real time, or for as long as it took when this was recorded: not at all.
    async fn poll_really(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        if let Some(ready) = self.clock.recorded_ready() {
            return ready.ok_or_else(|| Stop(Fault::Diverged("it waits for something else".to_owned())).into());
        }
        let ready = self.table.poll(pollables).await?;
        self.clock.note_ready(&ready);
        Ok(ready)
    }

    /// Only the deadline ends this waiting. A replay knows that without waiting.
    fn may_wait(&self) -> wasmtime::Result<()> {
        let replayed = self.outbound.as_ref().is_some_and(|outbound| outbound.exchanges.is_offline());
        if replayed || self.outward.offline.is_some() { Err(Stop(Fault::Deadline).into()) } else { Ok(()) }
    }
}

impl Host for State {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        if pollables.len() > POLL_MAX {
            return Err(Stop(Fault::Memory { what: "pollables in one poll" }).into());
        }
        if pollables.is_empty() {
            return Err(Stop(Fault::Trap("`poll` was called with an empty list".to_owned())).into());
        }
        let ready = if self.clock.is_real() {
            self.poll_really(pollables).await?
        } else {
            let ready = self.poll_virtually(&pollables, None).await?;
            if ready.is_empty() {
                self.may_wait()?;
                self.table.poll(pollables).await?
            } else {
                ready
            }
        };
        let text: Vec<String> = ready.iter().map(u32::to_string).collect();
        self.recorder.value("wasi:io/poll#poll", "", text.join(","));
        Ok(ready)
    }
}

impl HostPollable for State {
    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        if self.clock.is_real() {
            self.poll_really(vec![pollable]).await?;
        } else if self.poll_virtually(&[again(&pollable)], None).await?.is_empty() {
            self.may_wait()?;
            self.table.block(pollable).await?;
        }
        self.recorder.done("wasi:io/poll#pollable.block", "");
        Ok(())
    }

    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        let ready = if let Some(ready) = self.clock.recorded_is() {
            ready
        } else if let Some(due_ns) = self.clock.due(pollable.rep()) {
            self.clock.reached(due_ns)
        } else if self.asked(pollable.rep()).is_some() {
            let until_ns = self.clock.now_ns().saturating_add(LOOK_NS);
            !self.poll_virtually(&[pollable], Some(until_ns)).await?.is_empty()
        } else {
            self.table.ready(pollable).await?
        };
        self.clock.note_is(ready);
        self.recorder.value("wasi:io/poll#pollable.ready", "", ready.to_string());
        Ok(ready)
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.clock.forget(pollable.rep());
        if let Some(outbound) = &mut self.outbound {
            outbound.awaited.remove(&pollable.rep());
        }
        HostPollable::drop(&mut self.table, pollable)
    }
}
