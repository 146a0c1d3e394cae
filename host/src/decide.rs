//! Stage 7, decide: from [`Planned`] to what happens to the plan.
//!
//! The policies say what may happen, the daemon's own floor beneath them; this stage gathers the facts and turns the verdict
//! into the proof that the next stage wants. A preview is decided about too, so that one that policy forbids is denied at
//! once. A plan is decided about by the set that its call was authorized under, or not at all.

use toolkeep_core::call::Mode;
use toolkeep_core::effect::{Delivery, Effect};
use toolkeep_core::policy::{Need, Verdict};
use toolkeep_core::refusal::{Code, Refusal};

use crate::policy::{Circumstances, Matter, PlanFacts, Policies};
use crate::seal::Planned;

/// Proof: policy let this plan through without a human.
#[derive(Debug)]
pub struct Allowed(Planned);

impl Allowed {
    /// The plan and all that goes with it.
    #[must_use]
    pub fn into_planned(self) -> Planned {
        self.0
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

/// Decide about a plan. `undo_bytes` is how much before-content may be kept for undo.
///
/// # Errors
/// `stale_plan`: the policies changed since the call was authorized.
pub fn decide(
    planned: Planned,
    policies: &Policies,
    around: Circumstances,
    undo_bytes: u64,
) -> Result<Decision, Refusal> {
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
    let verdict = policies.verdict(principal, &tool.shape, grant.judgement(), &matter);
    Ok(match (verdict, mode) {
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
        (Verdict::Commit, Mode::Commit) => Decision::Commit(Allowed(planned)),
        (Verdict::Hold(need), Mode::Commit) => Decision::Hold { planned, need },
    })
}

fn has_live_request(planned: &Planned) -> bool {
    let live = |effect: &Effect| matches!(effect, Effect::HttpRequest(request) if request.delivery == Delivery::Live);
    planned.plan().body().effects.iter().any(live)
}
