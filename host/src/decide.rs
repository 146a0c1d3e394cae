//! Stage 7, decide: from [`Planned`] to what happens to the plan.
//!
//! The policies say what may happen, the daemon's own floor beneath them; this stage gathers the facts and turns the verdict
//! into the proof that the next stage wants. A preview is decided about too, so that one that policy forbids is denied at
//! once. A plan is decided about by the set that its call was authorized under, or not at all.

use toolkeep_core::call::Mode;
use toolkeep_core::effect::{Delivery, Effect};
use toolkeep_core::id::StandingId;
use toolkeep_core::policy::{Need, Verdict};
use toolkeep_core::refusal::{Code, Refusal};

use crate::ledger::StandingUse;
use crate::policy::{Circumstances, Matter, PlanFacts, Policies, Ruling};
use crate::seal::Planned;

/// Proof: policy let this plan through without a human, or people agreed to such plans in advance.
#[derive(Debug)]
pub struct Allowed {
    planned: Planned,
    standing: Option<StandingUse>,
}

impl Allowed {
    /// The plan and all that goes with it, and the standing approval that its commit uses.
    #[must_use]
    pub fn into_parts(self) -> (Planned, Option<StandingUse>) {
        (self.planned, self.standing)
    }
}

/// What happens to a plan.
#[derive(Debug)]
pub enum Decision {
    /// It changes nothing.
    Nothing(Planned),
    /// Commit it now.
    Commit(Allowed),
    /// Keep it until its owner commits it.
    Preview(Planned),
    /// Keep it until people agree.
    Hold {
        /// The plan.
        planned: Planned,
        /// Whose consent.
        need: Need,
    },
    /// Throw it away.
    Deny {
        /// The plan.
        planned: Planned,
        /// What was tried.
        breach: String,
    },
}

impl Decision {
    /// The plan that it is about.
    #[must_use]
    pub const fn planned(&self) -> &Planned {
        match self {
            Self::Nothing(planned) | Self::Preview(planned) => planned,
            Self::Commit(allowed) => &allowed.planned,
            Self::Hold { planned, .. } | Self::Deny { planned, .. } => planned,
        }
    }

    /// The standing approval that stands for people.
    #[must_use]
    pub fn standing(&self) -> Option<StandingId> {
        match self {
            Self::Commit(allowed) => allowed.standing.map(|standing| standing.id),
            Self::Nothing(_) | Self::Preview(_) | Self::Hold { .. } | Self::Deny { .. } => None,
        }
    }

    /// A plan that would wait, but that a standing approval covers, does not. `find` looks for one.
    #[must_use]
    pub fn covered(self, find: impl FnOnce(&Planned, &Need) -> Option<StandingUse>) -> Self {
        match self {
            Self::Hold { planned, need } => match find(&planned, &need) {
                Some(standing) => Self::Commit(Allowed { planned, standing: Some(standing) }),
                None => Self::Hold { planned, need },
            },
            other => other,
        }
    }
}

/// Decide about a plan. `undo_bytes` is how much before-content may be kept for undo. What the policies hide of the output
/// is hidden.
///
/// # Errors
/// `stale_plan`: the policies changed since the call was authorized.
pub fn decide(
    mut planned: Planned,
    policies: &Policies,
    around: Circumstances,
    undo_bytes: u64,
) -> Result<(Decision, Ruling), Refusal> {
    let grant = planned.ticket().grant();
    let call = grant.call();
    let (mode, tool, principal) = (call.options().mode, call.tool(), call.caller().principal());
    let body = planned.plan().body();
    if policies.digest(&principal.tenant) != body.policy_set {
        return Err(Refusal::new(Code::StalePlan, "the policy changed while the call ran").hint("call again"));
    }
    let plan = PlanFacts {
        effects: &body.effects,
        reads: body.read_set.len(),
        segment: body.segment,
        declared: tool.tier,
        hold: &tool.manifest.hold,
        undo_bytes,
    };
    let matter = Matter { input: Some(call.input()), plan: Some(plan), around };
    let ruling = policies.ruling(principal, &tool.shape, grant.judgement(), &matter);
    if let Some(said) = &ruling.plan {
        planned.redact(&said.obligations().redact);
    }
    let decision = match (ruling.verdict.clone(), mode) {
        (Verdict::Deny { breach }, _) => Decision::Deny { planned, breach },
        (Verdict::Nothing, _) => Decision::Nothing(planned),
        // The tool waits for the answer to a request that nobody may send: there is nothing to show beyond it.
        (Verdict::Preview { reason }, Mode::Commit) if has_live_request(&planned) => {
            let breach = format!("the tool may be previewed, but its request may not be sent: {reason}");
            Decision::Deny { planned, breach }
        }
        (Verdict::Commit | Verdict::Hold(_), Mode::Preview) | (Verdict::Preview { .. }, _) => {
            Decision::Preview(planned)
        }
        (Verdict::Commit, Mode::Commit) => Decision::Commit(Allowed { planned, standing: None }),
        (Verdict::Hold(need), Mode::Commit) => Decision::Hold { planned, need },
    };
    Ok((decision, ruling))
}

fn has_live_request(planned: &Planned) -> bool {
    let live = |effect: &Effect| matches!(effect, Effect::HttpRequest(request) if request.delivery == Delivery::Live);
    planned.plan().body().effects.iter().any(live)
}
