//! Risk tiers: how consequential a tool or an effect is, and what happens by default.
//!
//! A tool declares a tier in its manifest; every effect has a tier of its own. An effect above the declared tier
//! is a breach: the plan is denied and recorded, the tier is never raised silently. A tool without a
//! tier is tier 3.

use serde::{Deserialize, Serialize};

/// How consequential something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Tier {
    /// Reads only. Any effect in the plan is a breach.
    ReadOnly,
    /// Can be undone: committed automatically.
    Reversible,
    /// Can be undone only in part or with care: held for an approval.
    Consequential,
    /// Cannot be undone: held for two people.
    Irreversible,
}

impl Tier {
    /// What happens to a plan of this tier when no policy says otherwise.
    #[must_use]
    pub const fn default_verdict(self) -> TierVerdict {
        match self {
            Self::ReadOnly | Self::Reversible => TierVerdict::Commit,
            Self::Consequential => TierVerdict::Hold { approvers: 1 },
            Self::Irreversible => TierVerdict::Hold { approvers: 2 },
        }
    }

    /// The number people know it by.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::ReadOnly => 0,
            Self::Reversible => 1,
            Self::Consequential => 2,
            Self::Irreversible => 3,
        }
    }
}

/// What the tier table says about a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TierVerdict {
    /// Commit without asking.
    Commit,
    /// Wait until so many distinct people agreed.
    Hold {
        /// How many distinct approvers are needed.
        approvers: u8,
    },
}

/// Why a number is not a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a risk tier: write 0 (read-only), 1 (reversible), 2 (consequential) or 3 (irreversible)")]
pub struct NotATier(pub u8);

impl TryFrom<u8> for Tier {
    type Error = NotATier;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            0 => Ok(Self::ReadOnly),
            1 => Ok(Self::Reversible),
            2 => Ok(Self::Consequential),
            3 => Ok(Self::Irreversible),
            other => Err(NotATier(other)),
        }
    }
}

impl From<Tier> for u8 {
    fn from(tier: Tier) -> Self {
        tier.number()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r21_the_default_of_each_tier_is_enforced() {
        assert_eq!(Tier::ReadOnly.default_verdict(), TierVerdict::Commit);
        assert_eq!(Tier::Reversible.default_verdict(), TierVerdict::Commit);
        assert_eq!(Tier::Consequential.default_verdict(), TierVerdict::Hold { approvers: 1 });
        assert_eq!(Tier::Irreversible.default_verdict(), TierVerdict::Hold { approvers: 2 });
        assert!(Tier::try_from(3).is_ok() && Tier::try_from(4) == Err(NotATier(4)));
    }
}
