//! Autonomy: how far an agent may go with a tool before a person looks (R46).
//!
//! Four stages, from showing to acting. An operator promotes an agent from one to the next, tool by tool; nothing that an
//! agent does promotes itself. The stage is part of the floor beneath every policy, so a policy cannot lift it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far an agent may go with a tool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Autonomy {
    /// Its plans are shown and kept; nobody may commit them.
    Draft,
    /// A person looks at every plan. A standing approval does not serve.
    Approve,
    /// Tier 1 goes as policy says; from tier 2 on only what a standing approval covers goes without a person.
    Threshold,
    /// What policy says.
    #[default]
    Autonomous,
}

impl Autonomy {
    /// All stages, from the least to the most.
    pub const ALL: [Self; 4] = [Self::Draft, Self::Approve, Self::Threshold, Self::Autonomous];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Approve => "approve",
            Self::Threshold => "threshold",
            Self::Autonomous => "autonomous",
        }
    }
}

impl fmt::Display for Autonomy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a text is not a stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a stage of autonomy: write `draft`, `approve`, `threshold` or `autonomous`")]
pub struct NotAutonomy(pub String);

impl FromStr for Autonomy {
    type Err = NotAutonomy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let short = || NotAutonomy(text.chars().take(40).collect());
        Self::ALL.into_iter().find(|level| level.word() == text).ok_or_else(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r46_the_stages_are_ordered_and_read_back() {
        assert!(Autonomy::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for level in Autonomy::ALL {
            assert_eq!(level.word().parse(), Ok(level));
            assert_eq!(serde_json::to_value(level).expect("json"), serde_json::json!(level.word()));
        }
        assert!("Draft".parse::<Autonomy>().is_err() && Autonomy::default() == Autonomy::Autonomous);
    }
}
