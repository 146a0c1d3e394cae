//! Waiting. Shadows `wasi:io/poll`, so that virtual timers work and what was ready is recorded.
//!
//! Everything that a guest can wait for in this version is ready at once (streams over the stage, the console) or a timer.
//! If nothing else is ready, virtual time jumps to the earliest timer of the list. A guest that waits for
//! something that never comes waits until its deadline.

use wasmtime::component::Resource;
use wasmtime_wasi_io::bindings::wasi::io::poll::{Host, HostPollable};
use wasmtime_wasi_io::poll::DynPollable;

use crate::fault::{Fault, Stop};
use crate::state::State;

/// Most pollables in one poll: the host walks them all.
pub(crate) const POLL_MAX: usize = 256;

fn again(pollable: &Resource<DynPollable>) -> Resource<DynPollable> {
    Resource::new_borrow(pollable.rep())
}

impl State {
    /// The indices that are ready; none if the guest has to wait for something that is not a virtual timer.
    async fn poll_virtually(&mut self, pollables: &[Resource<DynPollable>]) -> wasmtime::Result<Vec<u32>> {
        let mut ready = Vec::new();
        let mut earliest: Option<u64> = None;
        for (index, pollable) in (0_u32..).zip(pollables) {
            let is_ready = match self.clock.due(pollable.rep()) {
                Some(due) if !self.clock.reached(due) => {
                    earliest = Some(earliest.map_or(due, |other| other.min(due)));
                    false
                }
                Some(_) => true,
                None => self.table.ready(again(pollable)).await?,
            };
            if is_ready {
                ready.push(index);
            }
        }
        let Some(due) = earliest.filter(|_| ready.is_empty()) else { return Ok(ready) };
        self.clock.jump(due);
        for (index, pollable) in (0_u32..).zip(pollables) {
            if self.clock.due(pollable.rep()).is_some_and(|due| self.clock.reached(due)) {
                ready.push(index);
            }
        }
        Ok(ready)
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
        let mut ready = self.poll_virtually(&pollables).await?;
        if ready.is_empty() {
            ready = self.table.poll(pollables).await?;
        }
        let text: Vec<String> = ready.iter().map(u32::to_string).collect();
        self.recorder.value("wasi:io/poll#poll", "", text.join(","));
        Ok(ready)
    }
}

impl HostPollable for State {
    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        match self.clock.due(pollable.rep()) {
            Some(due) => self.clock.jump(due),
            None => self.table.block(pollable).await?,
        }
        self.recorder.done("wasi:io/poll#pollable.block", "");
        Ok(())
    }

    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        let ready = match self.clock.due(pollable.rep()) {
            Some(due) => self.clock.reached(due),
            None => self.table.ready(pollable).await?,
        };
        self.recorder.value("wasi:io/poll#pollable.ready", "", ready.to_string());
        Ok(ready)
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.clock.forget(pollable.rep());
        HostPollable::drop(&mut self.table, pollable)
    }
}
