//! The life of an approval, as one total function over states and events.
//!
//! `pending → approved → consumed`, with `rejected` and `expired` as the other ends. Whatever the table does not name is
//! refused, so a new caller cannot invent a way to consent. It knows no database: the ledger's
//! writer applies it inside the transaction that stores the result.

use std::fmt;

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApprovalState {
    /// People are asked.
    Pending,
    /// Enough of them agreed; a commit may use it up once.
    Approved,
    /// Somebody said no.
    Rejected,
    /// Nobody answered, or nobody committed, in time.
    Expired,
    /// A commit used it up.
    Consumed,
}

impl ApprovalState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Approved, Self::Rejected, Self::Expired, Self::Consumed];

    /// The word for it, in rows and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Consumed => "consumed",
        }
    }

    /// The state that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

impl fmt::Display for ApprovalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What happens to an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalEvent {
    /// One more person agrees.
    Agree {
        /// Distinct people who agreed, this one included.
        have: u8,
        /// How many have to, at least 1.
        need: u8,
    },
    /// Somebody says no.
    Refuse,
    /// Its time is over.
    Expire,
    /// A commit uses it up.
    Consume {
        /// Whether the seal that it leases is that of the plan to be committed.
        seal_matches: bool,
        /// Whether its time is over.
        expired: bool,
    },
}

/// An event that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the approval is {0}")]
pub struct NotAllowed(pub ApprovalState);

impl ApprovalState {
    /// The state after an event.
    ///
    /// # Errors
    /// The state does not allow the event; it stays as it is.
    pub const fn after(self, event: ApprovalEvent) -> Result<Self, NotAllowed> {
        match (self, event) {
            (Self::Pending, ApprovalEvent::Agree { have, need }) if have >= need && have > 0 => Ok(Self::Approved),
            (Self::Pending, ApprovalEvent::Agree { .. }) => Ok(Self::Pending),
            (Self::Pending, ApprovalEvent::Refuse) => Ok(Self::Rejected),
            (Self::Pending | Self::Approved, ApprovalEvent::Expire) => Ok(Self::Expired),
            (Self::Approved, ApprovalEvent::Consume { seal_matches: true, expired: false }) => Ok(Self::Consumed),
            (Self::Pending | Self::Approved, ApprovalEvent::Consume { .. })
            | (Self::Approved, ApprovalEvent::Agree { .. } | ApprovalEvent::Refuse)
            | (Self::Rejected | Self::Expired | Self::Consumed, _) => Err(NotAllowed(self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<ApprovalEvent> {
        let mut events = vec![ApprovalEvent::Refuse, ApprovalEvent::Expire];
        for have in 0..=3 {
            for need in 0..=3 {
                events.push(ApprovalEvent::Agree { have, need });
            }
        }
        for seal_matches in [false, true] {
            for expired in [false, true] {
                events.push(ApprovalEvent::Consume { seal_matches, expired });
            }
        }
        events
    }

    #[test]
    fn t_p6_only_the_written_transitions_exist() {
        for state in ApprovalState::ALL {
            for event in events() {
                let expected = match (state, event) {
                    (ApprovalState::Pending, ApprovalEvent::Agree { have, need }) => {
                        Some(if have >= need.max(1) { ApprovalState::Approved } else { ApprovalState::Pending })
                    }
                    (ApprovalState::Pending, ApprovalEvent::Refuse) => Some(ApprovalState::Rejected),
                    (ApprovalState::Pending | ApprovalState::Approved, ApprovalEvent::Expire) => {
                        Some(ApprovalState::Expired)
                    }
                    (ApprovalState::Approved, ApprovalEvent::Consume { seal_matches: true, expired: false }) => {
                        Some(ApprovalState::Consumed)
                    }
                    _ => None,
                };
                assert_eq!(state.after(event).ok(), expected, "{state} {event:?}");
                if expected.is_none() {
                    assert_eq!(state.after(event), Err(NotAllowed(state)));
                }
            }
        }
    }

    #[test]
    fn r22_every_way_to_consumed_passes_through_approved() {
        // Walk the whole graph from the start: no state but `approved` leads to `consumed`, and the ends lead nowhere.
        let mut seen = vec![ApprovalState::Pending];
        let mut at = 0;
        while at < seen.len() {
            let state = seen[at];
            for next in events().into_iter().filter_map(|event| state.after(event).ok()) {
                if next == ApprovalState::Consumed {
                    assert_eq!(state, ApprovalState::Approved);
                }
                if !seen.contains(&next) {
                    seen.push(next);
                }
            }
            at += 1;
        }
        assert_eq!(seen.len(), ApprovalState::ALL.len());
        for end in [ApprovalState::Rejected, ApprovalState::Expired, ApprovalState::Consumed] {
            assert!(events().into_iter().all(|event| end.after(event).is_err()));
        }
    }

    #[test]
    fn words_read_back() {
        for state in ApprovalState::ALL {
            assert_eq!(ApprovalState::from_word(state.word()), Some(state));
        }
        assert_eq!(ApprovalState::from_word("Approved"), None);
    }
}
