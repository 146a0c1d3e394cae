//! The built-in policies against the table of tiers that the documentation prints, for every tier and every kind of effect.

use toolkeep::config::Environment;
use toolkeep::policy::case::CaseEffect;
use toolkeep::policy::{Circumstances, Matter, PlanFacts, Policies};
use toolkeep_core::call::Mode;
use toolkeep_core::effect::Effect;
use toolkeep_core::policy::{Need, Verdict};
use toolkeep_core::tier::Tier;

use super::tools::{plain, principal};

/// Effects in few words, with the tier that decision D7 gives them where 10 bytes may be kept for undo.
const EFFECTS: [(&str, u8); 20] = [
    ("kind = \"file.write\"\npath = \"a\"\nbytes = 1", 1),
    ("kind = \"file.write\"\npath = \"a\"\nbefore = 10", 1),
    ("kind = \"file.write\"\npath = \"a\"\nbefore = 11", 2),
    ("kind = \"file.write\"\npath = \".git/hooks/a\"", 2),
    ("kind = \"file.delete\"\npath = \"a\"\nbefore = 10", 1),
    ("kind = \"file.delete\"\npath = \"a\"\nbefore = 11", 2),
    ("kind = \"file.delete\"\npath = \".env\"", 2),
    ("kind = \"file.rename\"\npath = \"a\"\nto = \"b\"", 1),
    ("kind = \"file.rename\"\npath = \"a\"\nto = \".mcp.json\"", 2),
    ("kind = \"file.metadata\"\npath = \"a\"", 1),
    ("kind = \"dir.create\"\npath = \"a\"", 1),
    ("kind = \"dir.delete\"\npath = \"a\"", 1),
    ("kind = \"http.request\"\nurl = \"https://a.example/\"\nreversal = \"compensated\"", 2),
    ("kind = \"http.request\"\nurl = \"https://a.example/\"\nreversal = \"reversible\"", 2),
    ("kind = \"http.request\"\nurl = \"https://a.example/\"", 3),
    ("kind = \"http.request\"\nurl = \"https://a.example/\"\nreversal = \"reversible\"\ndelivery = \"live\"", 3),
    ("kind = \"message.send\"\nchannel = \"mail\"", 3),
    ("kind = \"kv.set\"\nbucket = \"b\"", 1),
    ("kind = \"kv.delete\"\nbucket = \"b\"", 1),
    ("kind = \"kv.add\"\nbucket = \"b\"", 1),
];

fn effect(text: &str) -> Effect {
    let parsed: CaseEffect = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    parsed.effect().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn verdict(policies: &Policies, declared: u8, effects: &[Effect]) -> Verdict {
    let tool = plain("tool", declared);
    let plan = PlanFacts {
        effects,
        reads: 0,
        segment: 0,
        declared: Tier::try_from(declared).expect("a tier"),
        hold: &[],
        undo_bytes: 10,
    };
    let around = Circumstances::now(0, Environment::Prod, Mode::Commit);
    let answer =
        policies.answer(&principal("acme/ann/bot"), &tool, &Matter { input: Some("{}"), plan: Some(plan), around });
    assert!(answer.call.allowed(), "every call is permitted");
    answer.verdict
}

#[test]
fn r21_the_built_in_policies_are_the_table_of_tiers_for_every_tier_and_every_kind() {
    let policies = Policies::built_in(&[plain("tool", 0)]).expect("valid");
    assert!(policies.warnings().is_empty(), "{:?}", policies.warnings());
    for (text, own) in EFFECTS {
        for declared in 0..=3_u8 {
            let verdict = verdict(&policies, declared, &[effect(text)]);
            let approvers = match &verdict {
                Verdict::Commit => Some(0),
                Verdict::Hold(Need { approvers, groups, ttl_ms: None, .. }) if groups.is_empty() => Some(*approvers),
                Verdict::Deny { .. } => None,
                other => panic!("{text} in tier {declared}: {other:?}"),
            };
            let expected = match declared {
                _ if own > declared => None,
                0 | 1 => Some(0),
                2 => Some(1),
                _ => Some(2),
            };
            assert_eq!(approvers, expected, "{text} in tier {declared}: {verdict:?}");
        }
    }
    let kinds: std::collections::BTreeSet<&str> = EFFECTS.iter().map(|(text, _)| effect(text).kind()).collect();
    assert_eq!(kinds.len(), Effect::KINDS.len(), "every kind is in the table");
    for declared in 0..=3 {
        assert_eq!(verdict(&policies, declared, &[]), Verdict::Nothing);
    }
}

#[test]
fn t_f9_no_policy_frees_sensitive_paths_or_tier_3_or_what_exceeds_a_tier() {
    let all = "permit (principal, action, resource);";
    let policies = super::tools::set(&[("all.cedar", all)], &[plain("tool", 0)]).expect("valid");
    let of = |declared, text: &str| verdict(&policies, declared, &[effect(text)]);
    let (plain, hook) = ("kind = \"file.write\"\npath = \"a\"", "kind = \"file.write\"\npath = \".git/hooks/a\"");
    assert_eq!(of(2, plain), Verdict::Commit, "a policy frees tier 2");
    assert!(matches!(of(2, hook), Verdict::Hold(Need { approvers: 1, .. })));
    assert!(matches!(of(3, plain), Verdict::Hold(Need { approvers: 2, .. })), "never without two people");
    assert!(matches!(of(1, hook), Verdict::Deny { .. }) && matches!(of(0, plain), Verdict::Deny { .. }));
}
