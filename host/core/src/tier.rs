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
    fn r21_there_are_four_tiers_and_no_other_number_is_one() {
        for number in 0..=3 {
            assert_eq!(Tier::try_from(number).map(Tier::number), Ok(number));
        }
        assert_eq!(Tier::try_from(4), Err(NotATier(4)));
        assert!(Tier::ReadOnly < Tier::Reversible && Tier::Consequential < Tier::Irreversible);
    }
}
