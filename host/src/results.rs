//! Results of deterministic tools, kept in memory: the same component with the same grants and the same input over the same
//! world returns the same.
//!
//! The operator declares a tool deterministic; the host holds it to that. Its randomness follows from what names the result,
//! and a result is kept only if the execution asked for nothing else that changes: no clock, no context of its call, no
//! keys, no other system. Before a result is given again everything that was read is looked at again, as before a
//! commit.

use std::sync::Arc;

use moka::sync::Cache;
use toolkeep_core::call::Usage;
use toolkeep_core::digest::{DIGEST_BYTES, Digest};
use toolkeep_core::event::Recording;
use toolkeep_core::id::TenantName;
use toolkeep_core::plan::ReadEntry;
use toolkeep_sandbox::execution::{Ended, Execution};
use toolkeep_sandbox::recording::Kept as Contents;
use toolkeep_sandbox::stage::{Staged, Witness};

use crate::validate::Call;

/// Bytes of results that are kept, at most.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one result that is kept, at most: large ones are rare, and would drive out many small ones.
const RESULT_BYTES_MAX: usize = 1024 * 1024;
/// What one event, one observation and the entry itself count for, in bytes.
const ENTRY_BYTES: usize = 256;
/// Interfaces whose answers follow from the name of a result and from what it read.
const HARMLESS: [&str; 5] = ["wasi:filesystem/", "wasi:random/", "wasi:io/", "wasi:cli/", "toolkeep:tool/log"];

/// What names a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResultName(Digest);

impl ResultName {
    /// The result of a call, if its tool is declared deterministic.
    #[must_use]
    pub fn of(call: &Call) -> Option<Self> {
        let tool = call.tool();
        if !tool.manifest.deterministic || call.options().expect_plan.is_some() {
            return None;
        }
        let tenant: &TenantName = &call.caller().principal().tenant;
        let input = call.input_digest();
        let parts = [
            tenant.as_str().as_bytes(),
            tool.component.digest.as_bytes(),
            tool.manifest.digest.as_bytes(),
            tool.local.as_str().as_bytes(),
            input.as_bytes(),
        ];
        Some(Self(Digest::of_parts("toolkeep.result.v1", &parts)))
    }

    /// The seed of the execution's randomness.
    #[must_use]
    pub const fn seed(&self) -> [u8; DIGEST_BYTES] {
        *self.0.as_bytes()
    }
}

/// A result that is kept.
#[derive(Debug)]
pub struct Kept {
    output: String,
    recording: Recording,
    contents: Contents,
    /// What the execution learned about the world.
    pub read_set: Vec<ReadEntry>,
    /// The states that it was learned from.
    pub witnesses: Vec<Witness>,
    /// When the call began, in nanoseconds since the Unix epoch.
    pub since_ns: i64,
}

impl Kept {
    /// The execution as if it had happened again, and used nothing.
    #[must_use]
    pub fn again(&self) -> Execution {
        let staged = Staged { read_set: self.read_set.clone(), witnesses: self.witnesses.clone(), ..Staged::default() };
        Execution {
            ended: Ended::Output(self.output.clone()),
            staged,
            recording: self.recording.clone(),
            kept: self.contents.clone(),
            exchanges: Vec::new(),
            usage: Usage::default(),
            log: Vec::new(),
            log_dropped: 0,
        }
    }

    fn weight(&self) -> usize {
        let entries = self.recording.events.len() + self.read_set.len() + self.witnesses.len() + 1;
        let inline: u64 = self.recording.heard.files.iter().flat_map(|file| &file.pieces).map(|p| p.bytes.size()).sum();
        let beside: usize = self.contents.values().map(|content| content.len()).sum();
        let kept = usize::try_from(inline).unwrap_or(usize::MAX).saturating_add(beside);
        self.output.len() + kept + entries * ENTRY_BYTES
    }
}

/// Results. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Results(Cache<ResultName, Arc<Kept>>);

impl Default for Results {
    fn default() -> Self {
        let weigh = |_: &ResultName, kept: &Arc<Kept>| u32::try_from(kept.weight()).unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(BYTES_MAX).weigher(weigh).build())
    }
}

impl Results {
    /// A result, if it is kept. Whether the world is still the same is for the caller to see.
    #[must_use]
    pub fn get(&self, name: &ResultName) -> Option<Arc<Kept>> {
        self.0.get(name)
    }

    /// Forget a result: the world changed.
    pub fn forget(&self, name: &ResultName) {
        self.0.invalidate(name);
    }

    /// Forget every result.
    pub fn clear(&self) {
        self.0.invalidate_all();
    }

    /// Keep what an execution returned, if it depends on nothing else.
    pub fn keep(&self, name: ResultName, execution: &Execution, since_ns: i64) {
        let Ended::Output(output) = &execution.ended else { return };
        let staged = &execution.staged;
        let touched = !staged.effects.is_empty() || !staged.keys_read.is_empty() || !staged.breaches.is_empty();
        let harmless = |import: &str| HARMLESS.iter().any(|allowed| import.starts_with(allowed));
        let recording = &execution.recording;
        let depends = recording.dropped_events > 0 || !recording.events.iter().all(|event| harmless(&event.import));
        if touched || depends || !execution.exchanges.is_empty() {
            return;
        }
        let kept = Kept {
            output: output.clone(),
            recording: recording.clone(),
            contents: execution.kept.clone(),
            read_set: staged.read_set.clone(),
            witnesses: staged.witnesses.clone(),
            since_ns,
        };
        if kept.weight() <= RESULT_BYTES_MAX {
            self.0.insert(name, Arc::new(kept));
        }
    }
}
