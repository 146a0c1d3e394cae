//! Chains of delegations against a model that knows nothing but sets of what may be done.

use std::collections::BTreeSet;

use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

use super::*;

const TOOLS: [&str; 4] = ["a", "b", "c", "d"];
const WORKSPACES: [&str; 3] = ["x", "y", "z"];

/// Everything that can be done in the small world of the model: a tool of a tier, alone or with a workspace.
type Deed = (&'static str, u8, Option<(&'static str, Access)>);

fn deeds() -> BTreeSet<Deed> {
    let mut all = BTreeSet::new();
    for tool in TOOLS {
        for tier in 0..=3 {
            all.insert((tool, tier, None));
            for workspace in WORKSPACES {
                all.insert((tool, tier, Some((workspace, Access::Read))));
                all.insert((tool, tier, Some((workspace, Access::Write))));
            }
        }
    }
    all
}

fn name<N: std::str::FromStr<Err = crate::id::NotAnId>>(text: &str) -> N {
    text.parse().expect("a name")
}

/// What the words of one request allow, read alone.
fn alone(part: &Part) -> BTreeSet<Deed> {
    let tool_fits = |tool: &str| part.tools.as_ref().is_none_or(|tools| tools.iter().any(|held| held.as_str() == tool));
    let place_fits = |place: Option<(&str, Access)>| match (place, &part.workspaces) {
        (None, _) | (_, None) => true,
        (Some((at, access)), Some(held)) => held.iter().any(|(name, most)| name.as_str() == at && access <= *most),
    };
    let tier_fits = |tier: u8| part.max_tier.is_none_or(|most| tier <= most.number());
    deeds()
        .into_iter()
        .filter(|(tool, tier, place)| tool_fits(tool) && tier_fits(*tier) && place_fits(*place))
        .collect()
}

/// What the implementation lets a session do.
fn effective(held: &Held) -> BTreeSet<Deed> {
    let fits = |(tool, tier, place): &Deed| {
        let place_held = |(at, access): &(&str, Access)| held.access(&name(at)).is_some_and(|most| *access <= most);
        held.holds_tool(&name(tool))
            && held.holds_tier(Tier::try_from(*tier).expect("a tier"))
            && place.as_ref().is_none_or(place_held)
    };
    deeds().into_iter().filter(fits).collect()
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::Read), Just(Access::Write)]
}

fn part() -> impl Strategy<Value = Part> {
    let tools = option::of(prop::collection::btree_set(prop::sample::select(TOOLS.to_vec()).prop_map(name), 0..4));
    let workspaces =
        prop::collection::btree_map(prop::sample::select(WORKSPACES.to_vec()).prop_map(name), access(), 0..3);
    let tier = option::of((0_u8..4).prop_map(|tier| Tier::try_from(tier).expect("a tier")));
    let amount = || option::of(0_u64..5);
    (tools, option::of(workspaces), tier, amount(), amount(), option::of(0_u8..9)).prop_map(
        |(tools, workspaces, max_tier, calls, cost_micro_usd, delegations)| Part {
            tools,
            workspaces,
            max_tier,
            budget: SessionBudget { calls, cost_micro_usd },
            delegations,
        },
    )
}

/// The part with everything taken out that `held` does not have: a request that is granted.
fn fitted(part: Part, held: &Held) -> Part {
    let least = |own: Option<u64>, wanted: Option<u64>| wanted.map(|wanted| own.map_or(wanted, |own| wanted.min(own)));
    Part {
        tools: part.tools.map(|tools| tools.into_iter().filter(|tool| held.holds_tool(tool)).collect()),
        workspaces: part.workspaces.map(|workspaces| {
            let within =
                |(name, access): (WorkspaceName, Access)| held.access(&name).map(|most| (name, access.min(most)));
            workspaces.into_iter().filter_map(within).collect()
        }),
        max_tier: part.max_tier.map(|tier| tier.min(held.max_tier)),
        budget: SessionBudget {
            calls: least(held.budget.calls, part.budget.calls),
            cost_micro_usd: least(held.budget.cost_micro_usd, part.budget.cost_micro_usd),
        },
        delegations: part.delegations.map(|wanted| wanted.min(held.delegations.saturating_sub(1))),
    }
}

proptest! {
    /// What a chain holds is what everything that was asked for along it allows together; a request for more is refused.
    #[test]
    fn r18_a_chain_holds_the_intersection_of_all_that_was_asked_for(
        parts in prop::collection::vec((part(), any::<bool>()), 1..12),
    ) {
        let mut held = Held::default();
        let mut oracle = deeds();
        let mut levels = 0;
        for (part, fit) in parts {
            let part = if fit { fitted(part, &held) } else { part };
            let wanted = alone(&part);
            match held.part(&part) {
                Ok(child) => {
                    levels += 1;
                    oracle = oracle.intersection(&wanted).copied().collect();
                    assert_eq!(effective(&child), oracle, "{part:?}");
                    assert!(child.delegations < held.delegations);
                    for (own, theirs) in [
                        (held.budget.calls, child.budget.calls),
                        (held.budget.cost_micro_usd, child.budget.cost_micro_usd),
                    ] {
                        assert!(own.is_none_or(|own| theirs.is_some_and(|theirs| theirs <= own)));
                    }
                    held = child;
                }
                Err(refusal) => {
                    assert!(!refusal.fields.is_empty() && refusal.code == Code::Denied);
                    assert!(!fit || held.delegations == 0, "a part of what is held was refused: {refusal:?}");
                }
            }
        }
        assert!(levels <= usize::from(DELEGATIONS_MAX));
    }

    /// Whatever a request names beyond the parent is refused, member by member; nothing is dropped silently.
    #[test]
    fn r18_a_request_for_more_is_never_granted(first in part(), second in part()) {
        let root = Held::default();
        let Ok(parent) = root.part(&fitted(first, &root)) else { return Ok(()) };
        let beyond = second.tools.iter().flatten().any(|tool| !parent.holds_tool(tool))
            || second.workspaces.iter().flatten().any(|(at, access)| parent.access(at).is_none_or(|own| *access > own))
            || second.max_tier.is_some_and(|tier| tier > parent.max_tier)
            || second.budget.calls.zip(parent.budget.calls).is_some_and(|(wanted, own)| wanted > own)
            || second.budget.cost_micro_usd.zip(parent.budget.cost_micro_usd).is_some_and(|(wanted, own)| wanted > own)
            || second.delegations.is_some_and(|wanted| wanted >= parent.delegations)
            || parent.delegations == 0;
        assert_eq!(parent.part(&second).is_err(), beyond);
    }
}

#[test]
fn r18_delegations_end_at_their_bound() {
    let mut held = Held::default();
    for _ in 0..DELEGATIONS_MAX {
        held = held.part(&Part::default()).expect("room");
    }
    let refusal = held.part(&Part::default()).expect_err("no room");
    assert_eq!(refusal.fields.first().map(|field| field.pointer.as_str()), Some("/delegations"));
}

#[test]
fn r18_lists_are_as_long_as_they_may_be_and_not_one_longer() {
    let tools = |count: usize| Part {
        tools: Some((0..count).map(|number| name(&format!("t{number}"))).collect()),
        ..Part::default()
    };
    let workspaces = |count: usize| Part {
        workspaces: Some((0..count).map(|number| (name(&format!("w{number}")), Access::Read)).collect()),
        ..Part::default()
    };
    let root = Held::default();
    assert!(root.part(&tools(HELD_MAX)).is_ok() && root.part(&workspaces(HELD_MAX)).is_ok());
    assert!(root.part(&tools(HELD_MAX + 1)).is_err() && root.part(&workspaces(HELD_MAX + 1)).is_err());
}

#[test]
fn a_part_is_written_and_read_back() {
    let text = r#"{"tools":["a"],"workspaces":{"x":"read"},"max_tier":1,"budget":{"calls":3}}"#;
    let part: Part = serde_json::from_str(text).expect("a part");
    let held = Held::default().part(&part).expect("held");
    let written = serde_json::to_string(&held).expect("JSON");
    assert_eq!(serde_json::from_str::<Held>(&written).expect("held"), held);
    assert_eq!((held.access(&name("x")), held.access(&name("y"))), (Some(Access::Read), None));
    assert!(serde_json::from_str::<Part>(r#"{"user":"root"}"#).is_err(), "identity is no part of it");
}
