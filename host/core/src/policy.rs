//! What may happen to a plan, whatever policies are written: the floor beneath every policy set.
//!
//! A pure function from facts about a plan to the mildest verdict that a policy can reach. An effect above the declared
//! tier is a breach, whatever else is true; sensitive paths, held kinds and irreversible tools always wait for a person.
//! Policies only ever add to it: [`Verdict::stricter`] is the one way in which two verdicts meet.

use std::collections::BTreeSet;

use crate::autonomy::Autonomy;
use crate::capability::SensitiveClass;
use crate::effect::Effect;
use crate::taint::Taint;
use crate::tier::Tier;

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
    /// How far the agent may go with the tool.
    pub autonomy: Autonomy,
    /// What the run, or the call alone, has seen.
    pub taint: Taint,
}

/// Whose consent a held plan needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// How many distinct people have to agree; at least one.
    pub approvers: u8,
    /// Every one of them belongs to all of these groups.
    pub groups: BTreeSet<String>,
    /// How long the request stands, in milliseconds; nothing for as long as the daemon lets requests stand.
    pub ttl_ms: Option<u64>,
    /// Why, for the approver.
    pub reason: String,
    /// A person looks at this very plan: a standing approval does not serve.
    pub person: bool,
    /// Whoever uses the agent may be that person, asked through the agent's client; see [`Need::confirmable`].
    pub confirm: bool,
}

impl Need {
    /// Any one person, for this reason.
    #[must_use]
    pub fn one(reason: impl Into<String>) -> Self {
        let (groups, reason) = (BTreeSet::new(), reason.into());
        Self { approvers: 1, groups, ttl_ms: None, reason, person: false, confirm: false }
    }

    /// Whether the answer of whoever uses the agent is enough, for a plan of `tier` by a tool that is declared as `declared`.
    /// The answer comes through the client of the agent, which could give it by itself: so this is care, not control, and ends
    /// where a plan cannot simply be undone.
    #[must_use]
    pub fn confirmable(&self, tier: Tier, declared: Tier) -> bool {
        let anybody = self.approvers == 1 && self.groups.is_empty() && !self.person;
        self.confirm && anybody && tier.max(declared) <= Tier::Reversible
    }

    /// Why, and of whom the consent is wanted, where not of anybody.
    #[must_use]
    pub fn text(&self) -> String {
        let groups: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        match groups.is_empty() {
            true => self.reason.clone(),
            false => format!("{} (for {})", self.reason, groups.join(" and ")),
        }
    }

    /// What satisfies both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let ttl_ms = match (self.ttl_ms, other.ttl_ms) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        let approvers = self.approvers.max(other.approvers);
        let groups = self.groups.into_iter().chain(other.groups).collect();
        let (person, confirm) = (self.person || other.person, self.confirm && other.confirm);
        Self { approvers, groups, ttl_ms, reason: both(self.reason, &other.reason), person, confirm }
    }
}

/// What happens to the plan, from the mildest to the strictest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It changes nothing.
    Nothing,
    /// Commit without asking.
    Commit,
    /// Wait for people.
    Hold(Need),
    /// Show it and keep it; nobody may commit it.
    Preview {
        /// Why, for the caller.
        reason: String,
    },
    /// Never.
    Deny {
        /// What was tried, for the caller and the audit.
        breach: String,
    },
}

impl Verdict {
    const fn rank(&self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Commit => 1,
            Self::Hold(_) => 2,
            Self::Preview { .. } => 3,
            Self::Deny { .. } => 4,
        }
    }

    /// The stricter of two; of two that are equally strict, what satisfies both.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Hold(one), Self::Hold(two)) => Self::Hold(one.and(two)),
            (Self::Preview { reason }, Self::Preview { reason: other }) => {
                Self::Preview { reason: both(reason, &other) }
            }
            (Self::Deny { breach }, Self::Deny { breach: other }) => Self::Deny { breach: both(breach, &other) },
            (one, two) if two.rank() > one.rank() => two,
            (one, _) => one,
        }
    }
}

/// Two reasons, each said once.
fn both(one: String, two: &str) -> String {
    if two.is_empty() || one.split("; ").any(|said| said == two) {
        return one;
    }
    if one.is_empty() { two.to_owned() } else { format!("{one}; {two}") }
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

/// The mildest verdict that any policy can reach.
#[must_use]
pub fn floor(facts: &Facts<'_>) -> Verdict {
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
    let mut floor = Verdict::Commit;
    if facts.declared == Tier::Irreversible {
        floor = floor.stricter(Verdict::Hold(Need { approvers: 2, ..Need::one("the tool is tier 3") }));
    }
    if facts.effects.iter().any(is_sensitive) {
        floor = floor.stricter(Verdict::Hold(Need::one("the plan touches a sensitive path")));
    }
    if let Some(effect) = facts.effects.iter().find(|effect| facts.hold.iter().any(|kind| kind == effect.kind())) {
        let reason = format!("the manifest holds every `{}`", effect.kind());
        floor = floor.stricter(Verdict::Hold(Need::one(reason)));
    }
    if facts.taint.untrusted && facts.declared >= Tier::Consequential {
        floor = floor.stricter(Verdict::Hold(Need::one(TAINTED)));
    }
    floor.stricter(staged(facts))
}

/// Why a plan of a tainted run waits.
const TAINTED: &str = "the run has read untrusted content, and the tool is tier 2 or 3";

/// What the stage of the agent's autonomy says.
fn staged(facts: &Facts<'_>) -> Verdict {
    match facts.autonomy {
        Autonomy::Draft => {
            Verdict::Preview { reason: "the agent may only draft with this tool (autonomy `draft`)".to_owned() }
        }
        Autonomy::Approve => {
            let need = Need::one("a person looks at every plan of the agent with this tool (autonomy `approve`)");
            Verdict::Hold(Need { person: true, ..need })
        }
        Autonomy::Threshold if facts.declared >= Tier::Consequential => {
            Verdict::Hold(Need::one("the agent goes as far as standing approvals (autonomy `threshold`)"))
        }
        Autonomy::Threshold | Autonomy::Autonomous => Verdict::Commit,
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
        let (autonomy, taint) = (Autonomy::Autonomous, Taint::NONE);
        floor(&Facts { effects, declared, hold: &hold, undo_bytes, autonomy, taint })
    }

    fn around(declared: u8, autonomy: Autonomy, taint: Taint) -> Verdict {
        let declared = Tier::try_from(declared).expect("tier");
        floor(&Facts { effects: &[write("a", None)], declared, hold: &[], undo_bytes: 9, autonomy, taint })
    }

    #[test]
    fn r24_whoever_uses_the_agent_confirms_what_can_be_undone_and_nothing_else() {
        let confirm = || Need { confirm: true, ..Need::one("r") };
        let (low, high) = ([Tier::ReadOnly, Tier::Reversible], [Tier::Consequential, Tier::Irreversible]);
        for tier in low.into_iter().chain(high) {
            for declared in low.into_iter().chain(high) {
                let expected = low.contains(&tier) && low.contains(&declared);
                assert_eq!(confirm().confirmable(tier, declared), expected, "{tier:?} {declared:?}");
            }
        }
        let fine = |need: &Need| need.confirmable(Tier::Reversible, Tier::Reversible);
        assert!(fine(&confirm().and(confirm())));
        for other in [
            Need::one("a plain hold"),
            Need { approvers: 2, ..confirm() },
            Need { person: true, ..confirm() },
            Need { groups: BTreeSet::from(["finance".to_owned()]), ..confirm() },
        ] {
            assert!(!fine(&other), "{other:?}");
            assert!(!fine(&confirm().and(other.clone())) && !fine(&other.clone().and(confirm())), "{other:?}");
        }
    }

    #[test]
    fn r37_a_tainted_run_loses_tier_2_and_3_whatever_policies_say() {
        for taint in [Taint::UNTRUSTED, Taint { untrusted: true, private: true }] {
            assert_eq!(around(1, Autonomy::Autonomous, taint), Verdict::Commit, "tier 1 can be undone");
            for declared in [2, 3] {
                let verdict = around(declared, Autonomy::Autonomous, taint);
                assert!(matches!(&verdict, Verdict::Hold(need) if need.reason.contains("untrusted")), "{verdict:?}");
            }
        }
        assert_eq!(around(2, Autonomy::Autonomous, Taint::PRIVATE), Verdict::Commit, "private alone is ordinary");
    }

    #[test]
    fn r46_the_stage_of_autonomy_is_part_of_the_floor() {
        let at = |declared, autonomy| around(declared, autonomy, Taint::NONE);
        for declared in 1..=3 {
            assert!(matches!(at(declared, Autonomy::Draft), Verdict::Preview { .. }), "{declared}");
            assert!(matches!(at(declared, Autonomy::Approve), Verdict::Hold(Need { person: true, .. })), "{declared}");
        }
        assert_eq!((at(1, Autonomy::Threshold), at(2, Autonomy::Autonomous)), (Verdict::Commit, Verdict::Commit));
        assert!(matches!(at(2, Autonomy::Threshold), Verdict::Hold(Need { person: false, .. })));
        let nothing = Facts {
            effects: &[],
            declared: Tier::ReadOnly,
            hold: &[],
            undo_bytes: 0,
            autonomy: Autonomy::Draft,
            taint: Taint::UNTRUSTED,
        };
        assert_eq!(floor(&nothing), Verdict::Nothing, "reading is not held");
    }

    #[test]
    fn r21_no_policy_gets_beneath_the_floor_of_a_tier() {
        let effects = [write("a", Some(10))];
        assert_eq!(check(&[], 0, &[], 0), Verdict::Nothing);
        assert!(matches!(check(&effects, 0, &[], 100), Verdict::Deny { .. }));
        assert_eq!(check(&effects, 1, &[], 100), Verdict::Commit);
        assert_eq!(check(&effects, 2, &[], 100), Verdict::Commit, "a policy may free it");
        assert!(matches!(check(&effects, 3, &[], 100), Verdict::Hold(Need { approvers: 2, .. })), "never one click");
    }

    #[test]
    fn an_effect_above_the_declared_tier_is_a_breach_not_a_raise() {
        assert_eq!(check(&[write("a", Some(10))], 1, &[], 10), Verdict::Commit);
        assert!(matches!(check(&[write("a", Some(10))], 1, &[], 9), Verdict::Deny { .. }), "beyond the undo quota");
        assert!(matches!(check(&[write(".git/hooks/x", None)], 1, &[], 9), Verdict::Deny { .. }), "sensitive");
        assert!(matches!(check(&[write(".git/hooks/x", None)], 2, &[], 9), Verdict::Hold(_)));
        let many = [write("a", Some(6)), write("b", Some(6))];
        assert!(matches!(check(&many, 1, &[], 11), Verdict::Deny { .. }), "the quota is for the plan");
        assert_eq!(check(&many, 1, &[], 12), Verdict::Commit);
    }

    #[test]
    fn held_kinds_only_ever_make_it_stricter() {
        assert!(matches!(check(&[write("a", None)], 1, &["file.write"], 9), Verdict::Hold(Need { approvers: 1, .. })));
        assert_eq!(check(&[write("a", None)], 1, &["file.delete"], 9), Verdict::Commit);
        assert!(matches!(check(&[write("a", None)], 0, &["file.write"], 9), Verdict::Deny { .. }));
    }

    #[test]
    fn the_stricter_verdict_wins_and_two_needs_have_to_be_met_together() {
        let need = |approvers, group: &str, ttl_ms, reason: &str| Need {
            approvers,
            groups: BTreeSet::from([group.to_owned()]),
            ttl_ms,
            reason: reason.to_owned(),
            person: false,
            confirm: false,
        };
        let met = need(1, "legal", Some(9), "x").and(need(2, "finance", Some(5), "y"));
        assert_eq!((met.approvers, met.ttl_ms, met.reason.as_str()), (2, Some(5), "x; y"));
        assert_eq!(met.groups, BTreeSet::from(["finance".to_owned(), "legal".to_owned()]));
        let person = Need { person: true, ..Need::one("p") };
        assert!(person.clone().and(Need::one("q")).person && Need::one("q").and(person).person);
        assert_eq!(need(1, "a", None, "x").and(need(1, "a", Some(5), "x")), need(1, "a", Some(5), "x"));
        let ladder = [
            Verdict::Nothing,
            Verdict::Commit,
            Verdict::Hold(Need::one("")),
            Verdict::Preview { reason: String::new() },
            Verdict::Deny { breach: String::new() },
        ];
        for (at, one) in ladder.iter().enumerate() {
            for (other, two) in ladder.iter().enumerate() {
                assert_eq!(one.clone().stricter(two.clone()), ladder[at.max(other)]);
            }
        }
    }
}
