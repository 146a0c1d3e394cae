//! Replay: a recorded call executed again, offline, and compared with what was recorded.
//!
//! The execution is the ordinary one: same component, same fuel, same clock, same grants. Only the world is gone: files, keys,
//! other systems and real time answer from the recording, and what that does not hold ends the execution. A replay
//! has no ticket and no entry: it takes no slot, no budget and no idempotency key, and what it stages is compared and
//! dropped.

mod verdict;
mod version;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use toolkeep_core::capability::Access;
use toolkeep_core::digest::{DIGEST_BYTES, Digest};
use toolkeep_core::event::{Depth, How, Recording, unhex};
use toolkeep_core::limit::ExecutionLimits;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::tier::Tier;
use toolkeep_sandbox::capability::context::Context;
use toolkeep_sandbox::execution::{Cancel, Execution, Layer, Order, Outward, Playing};
use toolkeep_sandbox::fault::HostFault;
use toolkeep_sandbox::pool::Loaded;
use toolkeep_sandbox::port::Ports;
use toolkeep_sandbox::stage::{Content, Mount, Root};
use toolkeep_sandbox::tape::{Matching, Tape};

use crate::blobs::{BlobError, Blobs};
use crate::execute::Executor;
use crate::ledger::{Attested, CallRow, Ledger, Recorded};
use crate::transaction;

pub use verdict::{Divergence, Verdict, compare};
pub(crate) use version::proposed;
pub use version::{Version, keep_versions};

/// How often a component is loaded again because its pool was released in between.
const RELOADS_MAX: u32 = 2;

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
    /// What a replay of this call needs, read and verified. `attest` asks the audit chain as well.
    ///
    /// # Errors
    /// `not_replayable` with the reason: it has no recording, lost a part of it, or the recording was changed.
    pub async fn read(ledger: &Ledger, blobs: &Blobs, recorded: Recorded, attest: bool) -> Result<Self, Refusal> {
        let row = recorded.call.row;
        let body = recorded.body.ok_or_else(|| not_replayable(why_unrecorded(&row)))?;
        if row.readable_input().is_none() {
            return Err(not_replayable("its input is sealed to operators, or was let go of"));
        }
        if attest {
            let digest = Digest::of(body.as_bytes());
            let times = (row.started_ms, row.ended_ms);
            let attested = ledger.attested(row.call, times, digest).await.map_err(|e| e.refusal())?;
            if attested == Attested::Changed {
                return Err(not_replayable("its recording is not the one that the audit names; it was changed"));
            }
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
        Ok(Self { row, recording, parts, layer })
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
/// `not_replayable`: the recording is damaged. Others where the component cannot be loaded or the host fails.
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
        match executor.sandbox.execute(order).await {
            Ok(execution) => return Ok(execution),
            Err(HostFault::Retired) if reloads < RELOADS_MAX => reloads += 1,
            Err(HostFault::Cancelled) => return Err(Refusal::new(Code::Overloaded, "the replay was cancelled")),
            Err(HostFault::Overloaded) => {
                return Err(Refusal::new(Code::Overloaded, "no sandbox became free in time").after_ms(1_000));
            }
            Err(fault) => {
                tracing::error!(call = %subject.row.call, error = %fault, "the host failed while it replayed a call");
                return Err(Refusal::new(Code::Internal, "the host failed while it replayed the call"));
            }
        }
    }
}

fn order(
    executor: &Executor,
    subject: &Subject,
    version: &Version,
    (loaded, tape, manner): (Arc<Loaded>, &Arc<Tape>, &Manner),
) -> Result<Order, Refusal> {
    let Subject { row, recording, .. } = subject;
    let (given, manifest) = (&recording.given, &version.manifest);
    let damaged = || not_replayable("its recording has no valid seed or clock");
    let seed = unhex(&recording.seed).and_then(|seed| <[u8; DIGEST_BYTES]>::try_from(seed).ok()).ok_or_else(damaged)?;
    let limits = ExecutionLimits { fuel: given.fuel, ..manifest.limits };
    let stopped_at = (recording.end.how == How::Stopped).then_some(recording.end.fuel);
    Ok(Order {
        loaded,
        tool: version.local.clone(),
        input: Arc::clone(&row.input),
        context: Context {
            principal: row.principal.clone(),
            origin: row.origin.clone(),
            run: row.run.map(|run| run.to_string()).unwrap_or_default(),
            call: row.call,
            mode: row.mode,
        },
        limits,
        deadline: Duration::from_millis(given.deadline_ms),
        clock: manifest.clock,
        wall_clock_ns: recording.wall_clock_ns.parse().map_err(|_| damaged())?,
        seed,
        mounts: mounts(version, recording, tape),
        outward: Outward {
            http: version.requests(&given.requests),
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

/// The workspaces of a version, over the tape. No call gets more of one than it had then.
fn mounts(version: &Version, recording: &Recording, tape: &Arc<Tape>) -> Vec<Mount> {
    let mount = |grant: &toolkeep_core::capability::FileGrant| {
        let had = recording.given.mounts.iter().find(|(name, _)| *name == grant.workspace);
        let most = if version.tier == Tier::ReadOnly { Access::Read } else { Access::Write };
        let mut grant = grant.clone();
        grant.access = grant.access.min(most).min(had.map_or(Access::Write, |(_, access)| *access));
        Mount { root: Root::Recorded(grant.workspace.clone(), Arc::clone(tape)), grant }
    };
    version.manifest.files.iter().map(mount).collect()
}
