//! The built-in policy: what happens to a plan by its tier, when no other policy says more.
//!
//! A pure function from facts about a plan to a verdict. The default is to deny: an effect above the declared tier is a
//! breach, whatever else is true. The strictest of tool tier, effect tiers and held kinds wins; nothing
//! here can make a verdict milder.

use crate::capability::SensitiveClass;
use crate::effect::Effect;
use crate::tier::{Tier, TierVerdict};

/// What is known when a plan is decided about.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The effects of the plan.
    pub effects: &'a [Effect],
    /// The tier that the manifest declares for the tool.
    pub declared: Tier,
    /// Effect kinds that the manifest wants held whatever their tier.
    pub hold: &'a [String],
    /// Bytes of before-contents that may be kept for undo.
    pub undo_bytes: u64,
}

/// What happens to the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It changes nothing.
    Nothing,
    /// Commit without asking.
    Commit,
    /// Wait for people.
    Hold {
        /// How many distinct people have to agree.
        approvers: u8,
        /// Why, for the approver.
        reason: String,
    },
    /// Never.
    Deny {
        /// What was tried, for the caller and the audit.
        breach: String,
    },
}

/// The tier of a plan: the highest of its effects.
///
/// Before-contents beyond `undo_bytes` cannot be kept, so from there on overwrites and deletions are consequential.
#[must_use]
pub fn plan_tier(effects: &[Effect], undo_bytes: u64) -> Tier {
    let mut kept = 0_u64;
    effects
        .iter()
        .map(|effect| {
            kept = kept.saturating_add(effect.destroyed().map_or(0, |before| before.size));
            effect.tier(kept <= undo_bytes, is_sensitive(effect))
        })
        .max()
        .unwrap_or(Tier::ReadOnly)
}

/// Whether the effect touches a sensitive path.
#[must_use]
pub fn is_sensitive(effect: &Effect) -> bool {
    effect.paths().any(|path| SensitiveClass::of(path).is_some())
}

/// Decide about a plan.
#[must_use]
pub fn decide(facts: &Facts<'_>) -> Verdict {
    if facts.effects.is_empty() {
        return Verdict::Nothing;
    }
    let tier = plan_tier(facts.effects, facts.undo_bytes);
    if tier > facts.declared {
        return Verdict::Deny {
            breach: format!(
                "the plan has effects of tier {}, but the tool is declared as tier {}",
                tier.number(),
                facts.declared.number()
            ),
        };
    }
    let held = facts.effects.iter().find(|effect| facts.hold.iter().any(|kind| kind == effect.kind()));
    match (facts.declared.default_verdict(), held) {
        (TierVerdict::Commit, None) => Verdict::Commit,
        (TierVerdict::Commit, Some(effect)) => {
            Verdict::Hold { approvers: 1, reason: format!("the manifest holds every `{}`", effect.kind()) }
        }
        (TierVerdict::Hold { approvers }, _) => {
            Verdict::Hold { approvers, reason: format!("the tool is tier {}", facts.declared.number()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::effect::FileState;

    fn write(path: &str, before: Option<u64>) -> Effect {
        let state = |size| FileState { sha256: Digest::of(b""), size, mode: 0o644 };
        Effect::FileWrite {
            workspace: "w".parse().expect("name"),
            path: path.parse().expect("path"),
            before: before.map(state),
            after: state(1),
        }
    }

    fn check(effects: &[Effect], declared: u8, hold: &[&str], undo_bytes: u64) -> Verdict {
        let hold: Vec<String> = hold.iter().map(|k| (*k).to_owned()).collect();
        let declared = Tier::try_from(declared).expect("tier");
        decide(&Facts { effects, declared, hold: &hold, undo_bytes })
    }

    #[test]
    fn r21_every_tier_decides_as_the_table_says() {
        let effects = [write("a", Some(10))];
        assert_eq!(check(&[], 0, &[], 0), Verdict::Nothing);
        assert!(matches!(check(&effects, 0, &[], 100), Verdict::Deny { .. }));
        assert_eq!(check(&effects, 1, &[], 100), Verdict::Commit);
        assert!(matches!(check(&effects, 2, &[], 100), Verdict::Hold { approvers: 1, .. }));
        assert!(matches!(check(&effects, 3, &[], 100), Verdict::Hold { approvers: 2, .. }));
    }

    #[test]
    fn an_effect_above_the_declared_tier_is_a_breach_not_a_raise() {
        assert_eq!(check(&[write("a", Some(10))], 1, &[], 10), Verdict::Commit);
        assert!(matches!(check(&[write("a", Some(10))], 1, &[], 9), Verdict::Deny { .. }), "beyond the undo quota");
        assert!(matches!(check(&[write(".git/hooks/x", None)], 1, &[], 9), Verdict::Deny { .. }), "sensitive");
        assert!(matches!(check(&[write(".git/hooks/x", None)], 2, &[], 9), Verdict::Hold { .. }));
        let many = [write("a", Some(6)), write("b", Some(6))];
        assert!(matches!(check(&many, 1, &[], 11), Verdict::Deny { .. }), "the quota is for the plan");
        assert_eq!(check(&many, 1, &[], 12), Verdict::Commit);
    }

    #[test]
    fn held_kinds_only_ever_make_it_stricter() {
        assert!(matches!(check(&[write("a", None)], 1, &["file.write"], 9), Verdict::Hold { approvers: 1, .. }));
        assert_eq!(check(&[write("a", None)], 1, &["file.delete"], 9), Verdict::Commit);
        assert!(matches!(check(&[write("a", None)], 3, &["file.write"], 9), Verdict::Hold { approvers: 2, .. }));
        assert!(matches!(check(&[write("a", None)], 0, &["file.write"], 9), Verdict::Deny { .. }));
    }
}
