//! How a call ends whose plan is never committed: status, outcome and final reply.
//!
//! The reply that the caller got while the plan was open is rewritten once, from the envelope of core; everything in it
//! that stays true (output, usage, the plan) stays. Pure: it reads and writes nothing.

use std::sync::Arc;

use toolkeep_core::call::{Outcome, Reply, Status};
use toolkeep_core::id::CallId;
use toolkeep_core::refusal::{Code, Refusal};

use super::rows::{Discard, PlanState};

/// Why a plan was never committed.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    /// Its owner dropped it.
    Dropped,
    /// It could not be committed any more.
    Refused(Refusal),
    /// An approver said no, with this reason.
    Rejected(Arc<str>),
    /// Nobody approved in time, or nobody committed what was approved.
    ApprovalExpired,
    /// A preview got too old.
    PlanExpired,
}

impl From<&Discard> for Ending {
    fn from(why: &Discard) -> Self {
        match why {
            Discard::Dropped => Self::Dropped,
            Discard::Stale => Self::Refused(Refusal::new(Code::StalePlan, "what the plan was made from changed since")),
            Discard::Refused(refusal) => Self::Refused(refusal.as_ref().clone()),
        }
    }
}

impl Ending {
    /// The state of the plan.
    pub(super) const fn plan_state(&self) -> PlanState {
        match self {
            Self::Dropped | Self::Refused(_) | Self::Rejected(_) => PlanState::Discarded,
            Self::ApprovalExpired | Self::PlanExpired => PlanState::Expired,
        }
    }

    /// The word for it in the audit chain.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Refused(_) => "refused",
            Self::Rejected(_) => "rejected",
            Self::ApprovalExpired => "approval_expired",
            Self::PlanExpired => "plan_expired",
        }
    }

    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Dropped | Self::PlanExpired => None,
            Self::Refused(refusal) => Some(refusal.clone()),
            Self::Rejected(reason) => {
                let message = if reason.is_empty() {
                    "the plan was rejected".to_owned()
                } else {
                    format!("the plan was rejected: {reason}")
                };
                Some(Refusal::new(Code::ApprovalRejected, message))
            }
            Self::ApprovalExpired => Some(Refusal::new(Code::ApprovalExpired, "nobody approved the plan in time")),
        }
    }

    /// How the call went.
    pub(super) const fn status(&self) -> Status {
        match self {
            Self::Dropped | Self::PlanExpired => Status::Ok,
            Self::Rejected(_) | Self::ApprovalExpired => Status::Denied,
            Self::Refused(refusal) => match refusal.code {
                Code::Denied
                | Code::Unauthorized
                | Code::Killed
                | Code::GateUnmet
                | Code::ApprovalRejected
                | Code::ApprovalExpired => Status::Denied,
                _ => Status::Failed,
            },
        }
    }

    /// The code of the refusal, if it is one.
    pub(super) fn code(&self) -> Option<Code> {
        self.refusal().map(|refusal| refusal.code)
    }

    /// The final reply, from the one that the caller got before.
    pub(super) fn reply(&self, call: CallId, before: &str) -> Arc<str> {
        let mut reply: Reply =
            serde_json::from_str(before).unwrap_or_else(|_| Reply::of(call, Status::Ok, Outcome::Discarded));
        reply.status = self.status();
        reply.outcome = Outcome::Discarded;
        reply.approval = None;
        reply.error = self.refusal();
        if matches!(self, Self::PlanExpired) {
            reply.warnings.push("the plan expired before it was committed".to_owned());
        }
        serde_json::to_string(&reply).map_or_else(|_| Arc::from(before), Arc::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn r12_every_ending_is_an_allowed_pair_and_keeps_what_stays_true() {
        let call = CallId::new(Uuid::from_u128(1));
        let before = format!(
            r#"{{"status":"held","outcome":"pending","call_id":"{call}","output":{{"a":1}},
                "approval":{{"id":"appr_00000000-0000-0000-0000-000000000001","approvers":1,"expires_at_ms":5}},
                "usage":{{"fuel":7,"wall_ms":0,"memory_peak":0,"host_calls":0}}}}"#
        );
        let mut endings = vec![
            Ending::Dropped,
            Ending::Rejected("too much".into()),
            Ending::Rejected("".into()),
            Ending::ApprovalExpired,
            Ending::PlanExpired,
        ];
        endings.extend(Code::ALL.iter().map(|code| Ending::Refused(Refusal::new(*code, "x"))));
        for ending in endings {
            let reply: Reply = serde_json::from_str(&ending.reply(call, &before)).expect("reply");
            assert!(Outcome::allowed(reply.status, reply.outcome), "{ending:?}");
            assert_eq!((reply.usage.fuel, reply.approval.is_none(), reply.output.is_some()), (7, true, true));
            assert_eq!(reply.error.map(|error| error.code), ending.code());
            let fresh: Reply = serde_json::from_str(&ending.reply(call, "not a reply")).expect("reply");
            assert_eq!(fresh.call_id, call);
        }
    }
}
