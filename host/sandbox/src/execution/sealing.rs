//! From what an execution did to what its plan is made of: files, keys, messages and requests as one ordered list, over
//! what earlier calls of the transaction staged.

use std::collections::BTreeMap;

use toolkeep_core::digest::Digest;
use toolkeep_core::effect::Effect;

use super::{Ended, Layer};
use crate::fault::{self, Fault, HostFault};
use crate::outbound::Outbound;
use crate::port::Exchange;
use crate::stage::{BREACHES_MAX, Content, Stage, StageLimits, Staged};

/// Effects of earlier calls in workspaces that this call does not see: they go through as they are.
#[derive(Debug, Default)]
pub(super) struct Carried {
    effects: Vec<Effect>,
    contents: BTreeMap<Digest, Content>,
}

impl Carried {
    /// Put a layer beneath a stage; what does not fit in there is carried. A world that moved on fails the stage, so that
    /// the execution ends as stale.
    pub(super) fn beneath(layer: &Layer, stage: Option<&Stage>) -> Result<Self, HostFault> {
        let effects = match stage {
            None => layer.effects.iter().filter(|effect| effect.workspace().is_some()).cloned().collect(),
            Some(stage) => match stage.lay(&layer.effects, &layer.contents) {
                Ok(carried) => carried,
                Err(error) if fault::of_stage(&error).is_some() => Vec::new(),
                Err(error) => return Err(HostFault::Stage(error.to_string())),
            },
        };
        let written = effects.iter().filter_map(|effect| effect.contents().1);
        let contents = written.filter_map(|state| Some((state.sha256, layer.contents.get(&state.sha256)?.clone())));
        Ok(Self { contents: contents.collect(), effects })
    }

    /// Both, what is carried in front.
    fn over(mut self, mut staged: Staged) -> Staged {
        self.effects.append(&mut staged.effects);
        staged.effects = self.effects;
        staged.contents.append(&mut self.contents);
        staged
    }
}

/// An execution that asks for less than the one before took another path, too: what was sent then was for nothing.
/// The same goes for one that asked the clock for something else: `(unasked, off)`.
pub(super) fn diverged(ended: Ended, (unasked, off): (bool, bool), outbound: Option<&Outbound>) -> Ended {
    let behind = unasked || outbound.is_some_and(|outbound| outbound.exchanges.is_behind());
    if matches!(ended, Ended::Fault(_)) || !(behind || off) {
        return ended;
    }
    if off {
        return Ended::Fault(Fault::Diverged("it asked the clock otherwise than before".to_owned()));
    }
    Ended::Fault(Fault::Diverged("it ended before it asked for everything that it had asked for".to_owned()))
}

/// Only an output or a live request seals what was staged; anything else keeps nothing but the refused attempts.
pub(super) async fn sealed(
    ended: Ended,
    stage: Option<Stage>,
    carried: Carried,
    outbound: Option<Box<Outbound>>,
    limits: StageLimits,
) -> Result<(Ended, Staged, Vec<Exchange>), HostFault> {
    let mut breaches = stage.as_ref().map(Stage::breaches).unwrap_or_default();
    breaches.extend_from_slice(outbound.as_ref().map(|outbound| outbound.breaches()).unwrap_or_default());
    breaches.truncate(BREACHES_MAX);
    let (beside, exchanges) = outbound.map(|outbound| outbound.finish()).unwrap_or_default();
    let unsealed = |breaches| Staged { breaches, ..Staged::default() };
    if !matches!(ended, Ended::Output(_) | Ended::Live(_)) {
        return Ok((ended, unsealed(breaches), exchanges));
    }
    let files = match stage {
        None => Ok(Staged::default()),
        // Sealing reads and hashes what is overwritten: not on a thread that serves others, unless it is less than the
        // guest's own small reads, for which waking another thread would take longer.
        Some(stage) if stage.seals_quickly() => stage.seal(),
        Some(stage) => {
            let sealed = tokio::task::spawn_blocking(move || stage.seal()).await;
            sealed.map_err(|error| HostFault::Panicked(error.to_string()))?
        }
    };
    match files.and_then(|files| beside.join(carried.over(files), limits)) {
        Ok(staged) => Ok((ended, Staged { breaches, ..staged }, exchanges)),
        Err(error) => match fault::of_stage(&error) {
            Some(fault) => Ok((Ended::Fault(fault), unsealed(breaches), exchanges)),
            None => Err(HostFault::Stage(error.to_string())),
        },
    }
}
