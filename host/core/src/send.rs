//! Sending the requests of a plan: which state each is in, what an answer means, and what is done next.
//!
//! Pure functions, so that the same code decides while a plan is committed, after a crash and after an operator looked.
//! Requests are sent in the order of the plan, before anything else of the plan is applied: while one can still be
//! refused, nothing has changed here. A request is attempted once, unless its endpoint promises that a repetition with
//! the same `Idempotency-Key` has no further effect; what is not known stays so until a repetition is done or a person says.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::effect::Reversal;
use crate::grant::{CompensationText, HttpGrant, HttpTimes};
use crate::id::SecretName;
use crate::price::Usd;

/// Attempts of one request whose endpoint is idempotent.
pub const ATTEMPTS_MAX: u32 = 3;

/// What sending a request needs besides its effect. Kept with the intent: a manifest that changes later changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    /// Scheme, host and port.
    pub origin: String,
    /// How long each part of the exchange may take.
    pub times: HttpTimes,
    /// Bytes of an answer's body, at most.
    pub response_bytes: u64,
    /// Whether a repetition with the same `Idempotency-Key` has no further effect.
    pub idempotent: bool,
    /// The request that undoes it.
    pub compensation: Option<CompensationText>,
    /// What undoes it.
    pub reversal: Reversal,
    /// The credential that the host adds.
    pub credential: Option<SecretName>,
    /// Whether the host may be a loopback or private address.
    pub allow_private: bool,
    /// The value of `Idempotency-Key`.
    pub key: String,
    /// Names the request as its tool made it.
    pub request: Digest,
    /// What it costs.
    #[serde(default)]
    pub price: Usd,
}

impl Dispatch {
    /// What a grant says about sending the request of this digest, with this `Idempotency-Key`.
    #[must_use]
    pub fn of(grant: &HttpGrant, key: String, request: Digest) -> Self {
        Self {
            origin: grant.origin.clone(),
            times: grant.times,
            response_bytes: grant.response_bytes,
            idempotent: grant.idempotent,
            compensation: grant.compensation.clone(),
            reversal: grant.reversal,
            credential: grant.credential.clone(),
            allow_private: grant.allow_private,
            key,
            request,
            price: grant.price,
        }
    }
}

/// How far one request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendState {
    /// It is to be sent. No byte has left, unless an attempt was made before a crash and may be repeated.
    Pending,
    /// Bytes may have left; the answer is not known yet.
    Sending,
    /// The other system took it.
    Sent,
    /// The other system refused it, or no byte could be sent: nothing happened there.
    Refused,
    /// Nobody knows.
    Unknown,
    /// Its compensation may have left.
    Compensating,
    /// It was undone.
    Compensated,
    /// It was sent and stays: nothing undoes it, or undoing it failed.
    Stuck,
}

impl SendState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Sending,
        Self::Sent,
        Self::Refused,
        Self::Unknown,
        Self::Compensating,
        Self::Compensated,
        Self::Stuck,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::Stuck => "stuck",
        }
    }

    /// What it is after a crash, where nobody can be asked what left before it.
    #[must_use]
    pub const fn after_crash(self, idempotent: bool) -> Self {
        match (self, idempotent) {
            (Self::Sending, true) => Self::Pending,
            (Self::Sending, false) => Self::Unknown,
            (Self::Compensating, true) => Self::Sent,
            (Self::Compensating, false) => Self::Stuck,
            (other, _) => other,
        }
    }

    /// What the end of an attempt says about the request, where an attempt before it may have arrived: an answer that
    /// refuses is about the repetition alone, and so is a connection that nobody takes.
    #[must_use]
    pub const fn of_attempt(self, repeated: bool) -> Self {
        match (self, repeated) {
            (Self::Refused, true) => Self::Unknown,
            (other, _) => other,
        }
    }
}

/// What an answer says about a request that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It was done.
    Done,
    /// It was not done.
    Refused,
    /// It may have been done.
    Unclear,
}

/// Judge a status code (RFC 9110, section 15).
///
/// Success is 2xx and 303, which points to the result. Other redirects were not followed, so nothing happened. A client
/// error says that nothing happened, except 408, after which the server may have the request. A server error says nothing.
#[must_use]
pub const fn judge(status: u16) -> Judgement {
    match status {
        200..=299 | 303 => Judgement::Done,
        408 => Judgement::Unclear,
        300..=499 => Judgement::Refused,
        _ => Judgement::Unclear,
    }
}

/// Where a plan is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Forward, until something says otherwise.
    Apply,
    /// Back: what else belongs to the plan cannot be applied.
    TakeBack,
}

/// What is done next for a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Send this request.
    Send(usize),
    /// Every request is sent: apply the rest of the plan.
    Apply,
    /// A person has to say what became of this request.
    Ask(usize),
    /// Undo this request.
    Compensate(usize),
    /// Everything that was sent is undone or may stay: throw the rest of the plan away.
    TakeBack,
    /// Something that was sent stays, and the plan is not applied: say so.
    Halt,
}

/// What is done next, from the states of a plan's requests in their order and what undoes each.
///
/// Nothing is in [`SendState::Sending`] or [`SendState::Compensating`] when this is asked: [`SendState::after_crash`] has
/// settled those.
#[must_use]
pub fn next(goal: Goal, sends: &[(SendState, Reversal)]) -> Next {
    let find = |wanted: SendState| sends.iter().position(|(state, _)| *state == wanted);
    if let Some(at) = find(SendState::Unknown).or_else(|| find(SendState::Sending)) {
        return Next::Ask(at);
    }
    let refused = |(state, _): &(SendState, Reversal)| {
        matches!(state, SendState::Refused | SendState::Compensated | SendState::Stuck)
    };
    let backwards = goal == Goal::TakeBack || sends.iter().any(refused);
    if !backwards {
        return find(SendState::Pending).map_or(Next::Apply, Next::Send);
    }
    let compensable = |(state, reversal): &(SendState, Reversal)| {
        matches!((state, reversal), (SendState::Sent | SendState::Compensating, Reversal::Compensated))
    };
    if let Some(at) = sends.iter().rposition(compensable) {
        return Next::Compensate(at);
    }
    let stays = |(state, reversal): &(SendState, Reversal)| {
        matches!((state, reversal), (SendState::Stuck, _) | (SendState::Sent, Reversal::None))
    };
    if sends.iter().any(stays) { Next::Halt } else { Next::TakeBack }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVERSALS: [Reversal; 3] = [Reversal::None, Reversal::Compensated, Reversal::Reversible];

    /// Follow `next` to its end; `answers` says what becomes of each request that is sent and of each compensation.
    fn run(mut sends: Vec<(SendState, Reversal)>, sent: &[SendState], undone: SendState) -> (Next, Vec<SendState>) {
        for _ in 0..32 {
            let next = next(Goal::Apply, &sends);
            match next {
                Next::Send(at) => sends[at].0 = sent[at],
                Next::Compensate(at) => sends[at].0 = undone,
                Next::Apply | Next::Ask(_) | Next::TakeBack | Next::Halt => {
                    return (next, sends.iter().map(|(state, _)| *state).collect());
                }
            }
        }
        panic!("does not end: {sends:?}");
    }

    #[test]
    fn r08_every_plan_of_three_requests_ends_applied_asked_taken_back_or_halted_and_never_otherwise() {
        let outcomes = [SendState::Sent, SendState::Refused, SendState::Unknown];
        for code in 0..27 * 27 * 2 {
            let pick = |at: u32| [code / 3_usize.pow(at) % 3, code / 27 / 3_usize.pow(at) % 3];
            let sends: Vec<_> = (0..3).map(|at| (SendState::Pending, REVERSALS[pick(at)[1]])).collect();
            let answers: Vec<_> = (0..3).map(|at| outcomes[pick(at)[0]]).collect();
            let undone = if code / 729 == 0 { SendState::Compensated } else { SendState::Stuck };
            let (end, states) = run(sends.clone(), &answers, undone);
            let first_bad = answers.iter().position(|state| *state != SendState::Sent);
            let attempted = first_bad.map_or(3, |at| at + 1);
            assert!(
                states[attempted..].iter().all(|s| *s == SendState::Pending),
                "nothing is sent after {first_bad:?}"
            );
            match first_bad.map(|at| answers[at]) {
                None => assert_eq!(end, Next::Apply),
                Some(SendState::Unknown) => assert_eq!(end, Next::Ask(attempted - 1)),
                _ => {
                    let before = &sends[..attempted - 1];
                    let stays = before.iter().any(|(_, reversal)| match reversal {
                        Reversal::None => true,
                        Reversal::Compensated => undone == SendState::Stuck,
                        Reversal::Reversible => false,
                    });
                    assert_eq!(end, if stays { Next::Halt } else { Next::TakeBack }, "{sends:?} {answers:?}");
                }
            }
        }
    }

    #[test]
    fn compensations_run_in_the_reverse_order() {
        let mut sends = vec![(SendState::Sent, Reversal::Compensated); 3];
        sends.push((SendState::Refused, Reversal::None));
        let mut order = Vec::new();
        while let Next::Compensate(at) = next(Goal::Apply, &sends) {
            order.push(at);
            sends[at].0 = SendState::Compensated;
        }
        assert_eq!((order, next(Goal::Apply, &sends)), (vec![2, 1, 0], Next::TakeBack));
        let stays = [(SendState::Sent, Reversal::None)];
        assert_eq!((next(Goal::Apply, &stays), next(Goal::TakeBack, &stays)), (Next::Apply, Next::Halt));
        let undone = [(SendState::Sent, Reversal::Compensated)];
        assert_eq!(next(Goal::TakeBack, &undone), Next::Compensate(0));
    }

    #[test]
    fn g07_after_a_crash_nothing_that_may_have_left_counts_as_not_sent_unless_it_may_be_repeated() {
        for state in SendState::ALL {
            let settled = state.after_crash(false);
            assert!(!matches!(settled, SendState::Sending | SendState::Compensating), "{state:?}");
            assert_eq!(settled == SendState::Pending, state == SendState::Pending, "{state:?}");
        }
        assert_eq!(SendState::Sending.after_crash(false), SendState::Unknown);
        assert_eq!(SendState::Sending.after_crash(true), SendState::Pending);
        assert_eq!(SendState::Compensating.after_crash(false), SendState::Stuck);
    }

    #[test]
    fn g07_what_refuses_a_repetition_says_nothing_about_the_attempt_before_it() {
        for state in SendState::ALL {
            assert_eq!(state.of_attempt(false), state, "{state:?}");
            let repeated = state.of_attempt(true);
            assert_eq!(repeated, if state == SendState::Refused { SendState::Unknown } else { state });
        }
    }

    #[test]
    fn every_status_is_judged() {
        for (status, judgement) in [
            (200, Judgement::Done),
            (299, Judgement::Done),
            (303, Judgement::Done),
            (301, Judgement::Refused),
            (307, Judgement::Refused),
            (400, Judgement::Refused),
            (409, Judgement::Refused),
            (429, Judgement::Refused),
            (408, Judgement::Unclear),
            (500, Judgement::Unclear),
            (503, Judgement::Unclear),
            (599, Judgement::Unclear),
            (100, Judgement::Unclear),
            (999, Judgement::Unclear),
        ] {
            assert_eq!(judge(status), judgement, "{status}");
        }
    }
}
