//! Stage 7, decide: from [`Planned`] to what happens to the plan.
//!
//! The verdict is a pure function of core; this stage gathers its facts and turns it into the proof that the next stage
//! wants. A preview is decided about too, so that one that policy forbids is denied at once.

use toolkeep_core::call::Mode;
use toolkeep_core::policy::Verdict;

use crate::policy;
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

/// Whose consent a held plan needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// How many distinct people have to agree.
    pub approvers: u8,
    /// Why, for the approver.
    pub reason: String,
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
#[must_use]
pub fn decide(planned: Planned, undo_bytes: u64) -> Decision {
    let call = planned.ticket().grant().call();
    let mode = call.options().mode;
    let tool = call.tool();
    let verdict = policy::verdict(&planned.plan().body().effects, tool.tier, &tool.manifest.hold, undo_bytes);
    match (verdict, mode) {
        (Verdict::Deny { breach }, _) => Decision::Deny { planned, breach },
        (Verdict::Nothing, _) => Decision::Nothing(planned),
        (Verdict::Commit | Verdict::Hold { .. }, Mode::Preview) => Decision::Preview(planned),
        (Verdict::Commit, Mode::Commit) => Decision::Commit(Allowed(planned)),
        (Verdict::Hold { approvers, reason }, Mode::Commit) => {
            Decision::Hold { planned, need: Need { approvers, reason } }
        }
    }
}
