//! Replay: a recorded call executed again, offline, and compared with what was recorded.
//!
//! The execution is the ordinary one: same component, same fuel, same clock, same grants. Only the world is gone: files, keys,
//! other systems and real time answer from the recording, and what that does not hold ends the execution. A replay
//! has no ticket and no entry: it takes no slot, no budget and no idempotency key, and what it stages is compared and
//! dropped.

mod proposal;
#[cfg(test)]
pub(crate) mod sample;
mod terms;
mod verdict;
mod version;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use toolkeep_core::capability::FileGrant;
use toolkeep_core::digest::{DIGEST_BYTES, Digest};
use toolkeep_core::event::{Depth, Given, How, Recording, unhex};
use toolkeep_core::limit::ExecutionLimits;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::capability::context::Context;
use toolkeep_sandbox::execution::{Cancel, Ended, Execution, Layer, Order, Outward, Playing, patience};
use toolkeep_sandbox::fault::{Fault, HostFault};
use toolkeep_sandbox::pool::Loaded;
use toolkeep_sandbox::port::Ports;
use toolkeep_sandbox::stage::{Content, Mount, Root};
use toolkeep_sandbox::tape::{Matching, Tape};

use crate::blobs::{BlobError, Blobs};
use crate::execute::Executor;
use crate::ledger::{Attested, CallRow, Ledger, Recorded};
use crate::transaction;

pub(crate) use proposal::{Proposal, proposed};
pub use verdict::{Divergence, Verdict, compare};
pub use version::{Version, keep_versions};

/// How often a component is loaded again because its pool was released in between.
const RELOADS_MAX: u32 = 2;
/// When to try again what the machine had no time for, in milliseconds.
const AGAIN_MS: u64 = 1_000;

/// A call that can be executed again.
#[derive(Debug)]
pub struct Subject {
    /// The call.
    pub row: CallRow,
    /// Its recording.
    pub recording: Recording,
    /// What is kept beside it.
    pub parts: Parts,
    /// What was staged before it, in a transaction.
    pub layer: Option<Layer>,
    /// What the manifest allowed that it was made with; that of the version that runs if absent.
    pub allowed: Option<Given>,
    /// What the audit says about the recording; a golden case is its own witness.
    pub attested: Attested,
}

/// Contents by digest. Those of a golden case come with it.
#[derive(Debug, Clone, Default)]
pub struct Parts(pub HashMap<Digest, Arc<[u8]>>);

impl Parts {
    fn find(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.0.get(digest).map(|content| content.to_vec())
    }
}

/// The refusal for a call that cannot be replayed.
#[must_use]
pub fn not_replayable(why: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::NotReplayable, format!("the call cannot be replayed: {why}"))
}

impl Subject {
    /// What a replay of this call needs, read, and verified against the audit chain.
    ///
    /// # Errors
    /// `not_replayable` with the reason: it has no recording, lost a part of it, or the recording was changed.
    pub async fn read(ledger: &Ledger, blobs: &Blobs, recorded: Recorded) -> Result<Self, Refusal> {
        let row = recorded.call.row;
        let body = recorded.body.ok_or_else(|| not_replayable(why_unrecorded(&row)))?;
        if row.readable_input().is_none() {
            return Err(not_replayable("its input is sealed to operators, or was let go of"));
        }
        let (digest, times) = (Digest::of(body.as_bytes()), (row.started_ms, row.ended_ms));
        let attested = ledger.attested(row.call, times, digest).await.map_err(|e| e.refusal())?;
        if attested == Attested::Changed {
            return Err(not_replayable("its recording is not the one that the audit names; it was changed"));
        }
        let recording: Recording = serde_json::from_str(&body)
            .map_err(|_| not_replayable("its recording is of another version or damaged"))?;
        if let Some(why) = recording.not_replayable() {
            return Err(not_replayable(why));
        }
        let wanted: BTreeSet<Digest> = recording.kept().copied().collect();
        let mut parts = Parts(ledger.inline_contents(wanted.iter().copied().collect()).await.map_err(|e| e.refusal())?);
        parts.0.extend(ledger.sealed_contents(row.call).await.map_err(|e| e.refusal())?);
        for digest in wanted {
            // What a plan wrote, too, may lie in a file.
            if !parts.0.contains_key(&digest)
                && let Some(content) = blobs.read(&digest).await.map_err(not_replayable)?
            {
                parts.0.insert(digest, content.into());
            }
        }
        let layer = layer_of(&recording, blobs).await?;
        Ok(Self { row, recording, parts, layer, allowed: None, attested })
    }

    /// The tape of its recording.
    ///
    /// # Errors
    /// `not_replayable`: a content is missing or changed.
    pub fn tape(&self, matching: Matching) -> Result<Arc<Tape>, Refusal> {
        let tape = Tape::of(&self.recording, matching, |digest| self.parts.find(digest));
        tape.map(Arc::new).map_err(not_replayable)
    }
}

/// Why a call has no recording.
fn why_unrecorded(row: &CallRow) -> &'static str {
    let ran = row.usage.fuel > 0 || row.usage.host_calls > 0;
    if ran {
        "it was not recorded, or its recording is sealed to operators or not kept any more"
    } else {
        "it was refused before anything ran"
    }
}

/// What earlier calls of the transaction had staged.
async fn layer_of(recording: &Recording, blobs: &Blobs) -> Result<Option<Layer>, Refusal> {
    let Some(name) = recording.layer else { return Ok(None) };
    let gone = |_: BlobError| gone_layer();
    let text = blobs.read(&name.text).await.map_err(gone)?.ok_or_else(gone_layer)?;
    let text = String::from_utf8(text).map_err(|_| gone_layer())?;
    let layer = transaction::Layer::decode(&text, name.digest)?;
    let mut contents = BTreeMap::new();
    for digest in layer.contents() {
        let found: Option<Content> = blobs.content(&digest).await.map_err(gone)?;
        contents.insert(digest, found.ok_or_else(gone_layer)?);
    }
    Ok(Some(Layer { effects: layer.effects.clone(), contents }))
}

fn gone_layer() -> Refusal {
    not_replayable("what its transaction had staged before it is not kept any more")
}

/// How a call is executed again.
#[derive(Debug, Clone)]
pub struct Manner {
    /// How requests find their answers.
    pub matching: Matching,
    /// Behind the calls of others.
    pub behind: bool,
    /// Ends it early.
    pub cancel: Cancel,
}

/// Execute a recorded call again with a version of its tool: the one that it was made with, or another.
///
/// # Errors
/// `not_replayable`: the recording is damaged. `overloaded`: it was cancelled, or the machine had no time to finish it; what
/// was cut off so says nothing about the tool. Others where the component cannot be loaded or the host fails.
pub async fn play(
    executor: &Executor,
    subject: &Subject,
    version: &Version,
    manner: &Manner,
) -> Result<Execution, Refusal> {
    let tape = subject.tape(manner.matching)?;
    let mut reloads = 0;
    loop {
        let loaded = executor.loader.load(&subject.row.principal.tenant, &version.component).await?;
        let order = order(executor, subject, version, (loaded, &tape, manner))?;
        let deadline = order.deadline;
        match executor.sandbox.execute(order).await {
            Ok(execution) => {
                let wall = Duration::from_millis(execution.usage.wall_ms);
                return cut_off(&execution.ended, wall, deadline).map_or(Ok(execution), Err);
            }
            Err(HostFault::Retired) if reloads < RELOADS_MAX => reloads += 1,
            Err(HostFault::Cancelled) => return Err(cancelled()),
            Err(HostFault::Overloaded) => {
                return Err(Refusal::new(Code::Overloaded, "no sandbox became free in time").after_ms(AGAIN_MS));
            }
            Err(fault) => {
                tracing::error!(call = %subject.row.call, error = %fault, "the host failed while it replayed a call");
                return Err(Refusal::new(Code::Internal, "the host failed while it replayed the call"));
            }
        }
    }
}

fn cancelled() -> Refusal {
    Refusal::new(Code::Overloaded, "the replay was cancelled")
}

/// The refusal for an execution that somebody or the machine cut off, so that its end is not the tool's.
fn cut_off(ended: &Ended, took: Duration, deadline: Duration) -> Option<Refusal> {
    match ended {
        Ended::Fault(Fault::Cancelled) => Some(cancelled()),
        // One that waits for what never comes ends with its deadline as well, and at once.
        Ended::Fault(Fault::Deadline) if took >= patience(deadline) => {
            let message = "the machine was too busy to finish the replay in time";
            Some(Refusal::new(Code::Overloaded, message).after_ms(AGAIN_MS))
        }
        _ => None,
    }
}

fn order(
    executor: &Executor,
    subject: &Subject,
    version: &Version,
    (loaded, tape, manner): (Arc<Loaded>, &Arc<Tape>, &Manner),
) -> Result<Order, Refusal> {
    let Subject { row, recording, .. } = subject;
    let manifest = &version.manifest;
    let damaged = || not_replayable("its recording has no valid seed or clock");
    let seed = unhex(&recording.seed).and_then(|seed| <[u8; DIGEST_BYTES]>::try_from(seed).ok()).ok_or_else(damaged)?;
    let allowed = subject.allowed.clone().unwrap_or_else(|| version.allows());
    let terms = terms::terms(&recording.given, &allowed, version);
    let limits = ExecutionLimits { fuel: terms.fuel, ..manifest.limits };
    let stopped_at = (recording.end.how == How::Stopped).then_some(recording.end.fuel);
    Ok(Order {
        loaded,
        entry: version.entry.clone(),
        input: Arc::clone(&row.input),
        context: Context {
            principal: row.principal.clone(),
            origin: row.origin.clone(),
            run: row.run.map(|run| run.to_string()).unwrap_or_default(),
            call: row.call,
            mode: row.mode,
        },
        limits,
        deadline: Duration::from_millis(terms.deadline_ms),
        clock: manifest.clock,
        wall_clock_ns: recording.wall_clock_ns.parse().map_err(|_| damaged())?,
        seed,
        mounts: terms.files.into_iter().map(|grant| mount(grant, tape)).collect(),
        outward: Outward {
            http: terms.http,
            messages: Arc::clone(&manifest.messages),
            keys: Arc::clone(&manifest.keys),
            ports: Ports::default(),
            exchanges: Vec::new(),
            offline: None,
            layer: subject.layer.clone(),
        },
        spool: executor.spool.open(),
        tape: Some(Playing { tape: Arc::clone(tape), stopped_at, behind: manner.behind }),
        depth: Depth::Off,
        progress: None,
        cancel: manner.cancel.clone(),
    })
}

/// A workspace over the tape.
fn mount(grant: FileGrant, tape: &Arc<Tape>) -> Mount {
    Mount { root: Root::Recorded(grant.workspace.clone(), Arc::clone(tape)), grant }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r47_what_the_machine_or_somebody_cut_off_is_no_finding_about_the_tool() {
        let deadline = Duration::from_millis(100);
        let code = |fault: Fault, took: Duration| cut_off(&Ended::Fault(fault), took, deadline).map(|it| it.code);
        let enough = patience(deadline);
        assert_eq!(code(Fault::Cancelled, Duration::ZERO), Some(Code::Overloaded));
        assert_eq!(code(Fault::Deadline, enough), Some(Code::Overloaded));
        assert_eq!(code(Fault::Deadline, enough.saturating_sub(Duration::from_millis(1))), None, "it waits in vain");
        assert_eq!(code(Fault::OutOfFuel, enough), None);
    }
}
