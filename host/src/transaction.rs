//! What several calls have staged together (D11): the layer that the next call of a transaction starts over, and that its
//! commit seals as one plan.
//!
//! A [`Layer`] is a value: a call that ends well gives the next one, a call that fails gives none, so there is nothing to
//! take back. Its digest names it in recordings and in the ledger, which keeps it between calls. Nothing here reads the
//! world, executes or decides; [`crate::host`] does that with the stages of an ordinary call.

mod difference;
mod turns;
mod world;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{RunId, ToolName, TransactionId};
use toolkeep_core::limit::{EFFECTS_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_CALLS_MAX, TRANSACTION_READS_MAX};
use toolkeep_core::plan::{KeyRead, PlanBody, PlanStep, ReadEntry};
use toolkeep_core::principal::Principal;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::taint::Taint;
use toolkeep_core::tier::Tier;
use toolkeep_sandbox::stage::{Staged, Witness};

use difference::Difference;

pub use turns::{Turn, Turns};

/// What calls that commit a transaction name as their tool. No manifest can give this name.
pub const TRANSACTION_TOOL: &str = "toolkeep.transaction";

/// How much one transaction may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Calls.
    pub calls: u32,
    /// Bytes of what its effects write, each content counted once.
    pub bytes: u64,
    /// Effects of all calls together.
    pub effects: usize,
    /// Observations of files and keys, of all calls together.
    pub reads: usize,
}

impl Room {
    /// What every transaction has.
    pub const ORDINARY: Self = Self {
        calls: TRANSACTION_CALLS_MAX,
        bytes: TRANSACTION_BYTES_MAX,
        effects: EFFECTS_MAX,
        reads: TRANSACTION_READS_MAX,
    };
}

/// The input of a call of [`TRANSACTION_TOOL`].
#[derive(Debug, Serialize, Deserialize)]
pub struct TransactionInput {
    /// The transaction to commit.
    pub transaction: TransactionId,
}

/// What the calls of a transaction have staged so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The calls, in their order.
    pub steps: Vec<PlanStep>,
    /// What all of them together change, as one stage seals it.
    pub effects: Vec<Effect>,
    /// What they learned about the world; the first observation of each thing.
    pub read_set: Vec<ReadEntry>,
    /// The keys that they read; the first value of each.
    pub keys_read: Vec<KeyRead>,
    /// Stat tuples of those files whose last change was settled when they were first read.
    pub witnesses: Vec<Witness>,
    /// What the calls have seen, and their runs before them.
    #[serde(default, skip_serializing_if = "Taint::is_none")]
    pub taint: Taint,
    /// The runs that the calls belong to: what they see until the commit counts too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub runs: BTreeSet<RunId>,
}

/// What a call has seen, and in which run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exposed {
    /// The run that it belongs to.
    pub run: Option<RunId>,
    /// What it has seen, its run before it included.
    pub taint: Taint,
}

/// One call that ended well over a layer.
#[derive(Debug)]
pub struct Step<'a> {
    /// What it was.
    pub step: PlanStep,
    /// The tier that its tool declares.
    pub tier: Tier,
    /// The layer's effects and its own, sealed as one, with what it read itself.
    pub staged: &'a Staged,
    /// When it arrived, in nanoseconds since the Unix epoch: nothing was read earlier.
    pub since_ns: i64,
    /// What it has seen.
    pub seen: Exposed,
}

impl Layer {
    /// The layer after a call.
    ///
    /// # Errors
    /// `stale_plan`: the call saw another world than calls before it. `denied`: its own effects are above the tier of its
    /// tool. `memory_exceeded`: the transaction is full.
    pub fn after(&self, step: Step<'_>, undo_bytes: u64, room: Room) -> Result<Self, Refusal> {
        let Step { step, tier, staged, since_ns, seen } = step;
        let own = Difference::between(&self.effects, &staged.effects).map_err(|thing| world::moved(&thing))?;
        let own_tier = own.tier(undo_bytes);
        if own_tier > tier {
            return Err(Refusal::new(
                Code::Denied,
                format!(
                    "the call has effects of tier {}, but `{}` is declared as tier {}",
                    own_tier.number(),
                    step.tool,
                    tier.number()
                ),
            )
            .hint("the transaction is as it was before the call"));
        }
        let mut next = self.clone();
        next.observe(staged, since_ns)?;
        next.taint = next.taint.and(seen.taint);
        next.runs.extend(seen.run);
        next.steps.push(step);
        next.effects.clone_from(&staged.effects);
        next.fits(room)?;
        Ok(next)
    }

    /// Whether it is no more than a transaction may hold.
    fn fits(&self, room: Room) -> Result<(), Refusal> {
        let full = |message: String| {
            let hint = "commit the transaction and go on in another one";
            Err(Refusal::new(Code::MemoryExceeded, message).hint(hint))
        };
        let (calls, bytes, effects) = (self.calls(), self.bytes(), self.effects.len());
        if calls > room.calls {
            return full(format!("a transaction has at most {} calls", room.calls));
        }
        if bytes > room.bytes {
            return full(format!("the transaction would hold {bytes} bytes; it may hold {}", room.bytes));
        }
        if effects > room.effects {
            return full(format!("the transaction would have {effects} effects; it may have {}", room.effects));
        }
        let reads = self.read_set.len().saturating_add(self.keys_read.len());
        if reads > room.reads {
            return full(format!("the transaction would rest on {reads} observations; it may rest on {}", room.reads));
        }
        Ok(())
    }

    /// How many calls it holds.
    #[must_use]
    pub fn calls(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of what its effects write, each content counted once.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let states = self.effects.iter().filter_map(|effect| effect.contents().1);
        let distinct: BTreeSet<(Digest, u64)> = states.map(|state| (state.sha256, state.size)).collect();
        distinct.iter().fold(0, |sum, (_, size)| sum.saturating_add(*size))
    }

    /// The contents that its effects write.
    #[must_use]
    pub fn contents(&self) -> Vec<Digest> {
        let wanted: BTreeSet<Digest> =
            self.effects.iter().filter_map(|effect| effect.contents().1).map(|state| state.sha256).collect();
        wanted.into_iter().collect()
    }

    /// The layer as the ledger keeps it, JSON, and the digest that names it.
    ///
    /// # Errors
    /// `internal`: it cannot be written.
    pub fn encode(&self) -> Result<(String, Digest), Refusal> {
        // Not canonical JSON: stat tuples have numbers beyond 2^53.
        let text = serde_json::to_string(self)
            .map_err(|e| Refusal::new(Code::Internal, format!("the transaction cannot be written: {e}")))?;
        let digest = Digest::of_parts("toolkeep.layer.v1", &[text.as_bytes()]);
        Ok((text, digest))
    }

    /// Read a layer back and verify that `digest` names it.
    ///
    /// # Errors
    /// `internal`: it is not the layer that was kept.
    pub fn decode(text: &str, digest: Digest) -> Result<Self, Refusal> {
        if Digest::of_parts("toolkeep.layer.v1", &[text.as_bytes()]) != digest {
            return Err(Refusal::new(Code::Internal, "the transaction is not what was kept; roll it back"));
        }
        serde_json::from_str(text)
            .map_err(|e| Refusal::new(Code::Internal, format!("the transaction cannot be read: {e}")))
    }

    /// All of it as one plan of `principal`.
    ///
    /// Component, manifest and input are those of the steps, in their order, as one digest each: the same calls on the
    /// same world give the same plan.
    #[must_use]
    pub fn into_body(self, principal: Principal, tool: ToolName, policy_set: Digest) -> PlanBody {
        let of = |domain: &str, part: fn(&PlanStep) -> &Digest| {
            let parts: Vec<&[u8]> = self.steps.iter().map(|step| part(step).as_bytes().as_slice()).collect();
            Digest::of_parts(domain, &parts)
        };
        PlanBody {
            format: toolkeep_core::plan::FORMAT,
            principal,
            tool,
            component: of("toolkeep.transaction.components.v1", |step| &step.component),
            manifest: of("toolkeep.transaction.manifests.v1", |step| &step.manifest),
            policy_set,
            input: of("toolkeep.transaction.inputs.v1", |step| &step.input),
            read_set: self.read_set,
            keys_read: self.keys_read,
            segment: 0,
            steps: self.steps,
            taint: self.taint,
            effects: self.effects,
        }
    }
}

#[cfg(test)]
mod tests;
