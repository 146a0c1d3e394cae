//! The policy in force: the built-in tier table, until operators can write policies of their own.
//!
//! Its digest stands in every plan, so that a plan which was made under another policy is stale.

use toolkeep_core::digest::Digest;
use toolkeep_core::effect::Effect;
use toolkeep_core::policy::{Facts, Verdict, decide};
use toolkeep_core::tier::Tier;

/// Names the policy set in force.
#[must_use]
pub fn digest() -> Digest {
    Digest::of(b"toolkeep.policy.tier-table.v1")
}

/// What the policy says about effects of a tool of this tier. `undo_bytes` is how much before-content may be kept.
#[must_use]
pub fn verdict(effects: &[Effect], declared: Tier, hold: &[String], undo_bytes: u64) -> Verdict {
    decide(&Facts { effects, declared, hold, undo_bytes })
}
