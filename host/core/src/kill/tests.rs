//! Every level in both modes against everything that is known or not, and any set of switches against a plain reading.

use proptest::prelude::*;

use super::*;

fn name<T: std::str::FromStr<Err = NotAnId>>(text: &str) -> T {
    text.parse().expect("a name")
}

fn target(level: KillLevel, tenant: &str, of: &str) -> KillTarget {
    let named = !matches!(level, KillLevel::Global | KillLevel::Tenant);
    KillTarget::new(level, name(tenant), named.then_some(of)).expect("a target")
}

fn switch(target: KillTarget, mode: KillMode) -> Switch {
    Switch { target, mode, reason: "because".into(), by: "ann".into(), set_ms: 1 }
}

struct Names {
    tenant: TenantName,
    agent: AgentName,
    tool: ToolName,
    workflow: Workflow,
}

fn names(tenant: &str, of: &str) -> Names {
    Names { tenant: name(tenant), agent: name(of), tool: name(of), workflow: Workflow::Of(name(of)) }
}

impl Names {
    fn subject(&self, reads: Option<bool>) -> Subject<'_> {
        Subject {
            tenant: &self.tenant,
            agent: Some(&self.agent),
            tool: Some(&self.tool),
            workflow: &self.workflow,
            reads,
        }
    }
}

#[test]
fn r25_each_level_stops_its_own_and_nothing_else_in_both_modes() {
    for level in KillLevel::ALL {
        for mode in KillMode::ALL {
            let standing = Standing::of([switch(target(level, "acme", "one"), mode)]);
            let stopped = |names: &Names, reads| standing.of_subject(&names.subject(reads)).is_some();
            let (own, other, foreign) = (names("acme", "one"), names("acme", "two"), names("other", "one"));
            let stop = mode == KillMode::Stop;
            assert!(stopped(&own, Some(false)), "{level:?} {mode:?}");
            assert_eq!(stopped(&own, Some(true)), stop, "{level:?} {mode:?}: reading");
            assert_eq!(stopped(&own, None), stop, "{level:?} {mode:?}: not known");
            let wide = matches!(level, KillLevel::Global | KillLevel::Tenant);
            assert_eq!(stopped(&other, Some(false)), wide, "{level:?}: another of the tenant");
            assert_eq!(stopped(&foreign, Some(false)), level == KillLevel::Global, "{level:?}: another tenant");
        }
    }
}

#[test]
fn r25_what_is_not_known_is_not_matched_but_what_never_can_be_is() {
    let acme: TenantName = name("acme");
    for level in [KillLevel::Workflow, KillLevel::Agent, KillLevel::Tool] {
        let standing = Standing::of([switch(target(level, "acme", "one"), KillMode::Stop)]);
        let bare = Subject { tenant: &acme, agent: None, tool: None, workflow: &Workflow::None, reads: None };
        assert!(standing.of_subject(&bare).is_none(), "{level:?}");
        assert!(standing.of_unknown(&acme).is_some(), "{level:?}");
        assert!(standing.of_unknown(&name("other")).is_none(), "{level:?}");
    }
    let global = Standing::of([switch(KillTarget::Global, KillMode::ReadOnly)]);
    assert!(global.of_unknown(&acme).is_some());
}

#[test]
fn t_o3_a_run_whose_workflow_nobody_can_say_is_stopped_with_any_workflow_of_its_tenant_and_by_no_more() {
    let unknown = Names { workflow: Workflow::Unknown, ..names("acme", "one") };
    for (level, tenant, of, wanted) in [
        (KillLevel::Workflow, "acme", "one", true),
        (KillLevel::Workflow, "acme", "other", true),
        (KillLevel::Workflow, "other", "one", false),
        (KillLevel::Tool, "acme", "other", false),
        (KillLevel::Agent, "acme", "other", false),
    ] {
        let standing = Standing::of([switch(target(level, tenant, of), KillMode::Stop)]);
        assert_eq!(standing.of_subject(&unknown.subject(Some(true))).is_some(), wanted, "{level:?} {tenant} {of}");
    }
}

#[test]
fn r25_the_name_of_a_manifest_is_about_all_of_its_tools_and_of_no_other() {
    let acme: TenantName = name("acme");
    let standing = Standing::of([switch(target(KillLevel::Tool, "acme", "notes"), KillMode::Stop)]);
    let stopped = |tool: &str| {
        let tool: ToolName = name(tool);
        let subject = Subject { tenant: &acme, agent: None, tool: Some(&tool), workflow: &Workflow::None, reads: None };
        standing.of_subject(&subject).is_some()
    };
    assert!(stopped("notes") && stopped("notes.add") && stopped("notes.list.all"));
    assert!(!stopped("notes2") && !stopped("note") && !stopped("notes-add") && !stopped("my.notes"));
}

#[test]
fn r25_names_and_words_that_are_none_are_refused() {
    let acme = || name::<TenantName>("acme");
    for level in [KillLevel::Global, KillLevel::Tenant] {
        assert_eq!(KillTarget::new(level, acme(), Some("x")), Err(NotATarget::Named(level)));
    }
    for level in [KillLevel::Workflow, KillLevel::Agent, KillLevel::Tool] {
        assert_eq!(KillTarget::new(level, acme(), None), Err(NotATarget::Nameless(level)));
        for hostile in ["", "*", "A", "a/b", "..", "a\n", "\u{202e}a", &"x".repeat(65)] {
            let refused = KillTarget::new(level, acme(), Some(hostile)).expect_err(hostile);
            assert!(matches!(refused, NotATarget::Name(_)), "{level:?} {hostile:?}");
        }
    }
    for level in KillLevel::ALL {
        assert_eq!(KillLevel::from_word(level.word()), Some(level));
    }
    for mode in KillMode::ALL {
        assert_eq!(KillMode::from_word(mode.word()), Some(mode));
    }
    assert_eq!((KillMode::from_word("Stop"), KillLevel::from_word("all")), (None, None));
}

#[test]
fn r25_there_are_as_many_switches_as_may_be_and_not_one_more() {
    let at = |number: usize| switch(target(KillLevel::Tool, "acme", &format!("t{number}")), KillMode::Stop);
    let full = Standing::of((0..SWITCHES_MAX).map(at));
    assert_eq!(full.with(at(SWITCHES_MAX)), Err(TooMany));
    assert_eq!(full.with(at(0)).map(|same| same.switches().count()), Ok(SWITCHES_MAX), "in the place of its own");
    let less = full.without(&at(7)).expect("the same");
    assert!(less.with(at(SWITCHES_MAX)).is_ok());
}

#[test]
fn t_o3_no_tenant_uses_up_the_room_of_another_or_of_a_stop_of_everything() {
    let of = |level, tenant: &str, number: usize| switch(target(level, tenant, &format!("n{number}")), KillMode::Stop);
    let named = [KillLevel::Workflow, KillLevel::Agent, KillLevel::Tool];
    let full = Standing::of((0..SWITCHES_MAX).map(|at| of(named[at % 3], "acme", at)));
    for level in named {
        assert_eq!(full.with(of(level, "acme", SWITCHES_MAX)), Err(TooMany), "{level:?}");
        assert!(full.with(of(level, "other", 0)).is_ok(), "{level:?}");
    }
    for level in [KillLevel::Global, KillLevel::Tenant] {
        for tenant in ["acme", "other"] {
            let stopped = full.with(of(level, tenant, 0)).expect("always room");
            assert!(stopped.of_unknown(&name(tenant)).is_some(), "{level:?}");
            // And it does not take the room of the others.
            let less = stopped.without(&of(named[0], "acme", 0)).expect("the same");
            assert!(less.with(of(KillLevel::Tool, "acme", SWITCHES_MAX)).is_ok(), "{level:?} {tenant}");
        }
    }
}

#[test]
fn t_o3_a_switch_that_was_set_again_is_not_removed_with_the_one_before() {
    let one = switch(target(KillLevel::Tool, "acme", "notes"), KillMode::Stop);
    let again = Switch { reason: "it goes on".into(), ..one.clone() };
    let standing = Standing::of([again.clone()]);
    assert_eq!(standing.without(&one), Err(SetAgain(again.clone())));
    assert!(standing.without(&again).is_ok_and(|cleared| cleared.is_clear()));
    assert!(Standing::default().without(&one).is_ok_and(|cleared| cleared.is_clear()), "somebody else removed it");
}

#[test]
fn r25_only_its_removal_clears_the_switch_of_a_file() {
    let file = switch(KillTarget::Global, KillMode::Stop);
    let standing = Standing::default().with_file(Some(file.clone()));
    assert!(!standing.is_clear() && standing.is_of_file(&file));
    assert!(!standing.without(&file).expect("none of its own").is_clear());
    assert!(standing.with_file(None).is_clear());
}

fn any_target() -> impl Strategy<Value = KillTarget> {
    let level = prop::sample::select(KillLevel::ALL.to_vec());
    (level, prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["x", "x.y", "z"]))
        .prop_map(|(level, tenant, of)| target(level, tenant, of))
}

fn any_switch() -> impl Strategy<Value = Switch> {
    (any_target(), prop::sample::select(KillMode::ALL.to_vec())).prop_map(|(target, mode)| switch(target, mode))
}

proptest! {
    #[test]
    fn r25_the_strictest_of_all_that_match_is_the_answer(
        switches in prop::collection::vec(any_switch(), 0..8),
        tenant in prop::sample::select(vec!["a", "b", "c"]),
        of in prop::sample::select(vec!["x", "x.y", "z", "w"]),
        reads in any::<Option<bool>>(),
    ) {
        let standing = Standing::of(switches);
        let names = names(tenant, of);
        let subject = names.subject(reads);
        let plain = |switch: &&Switch| {
            let target = match &switch.target {
                KillTarget::Global => true,
                KillTarget::Tenant(own) => own.as_str() == tenant,
                KillTarget::Workflow(own, name) => own.as_str() == tenant && name.as_str() == of,
                KillTarget::Agent(own, name) => own.as_str() == tenant && name.as_str() == of,
                KillTarget::Tool(own, name) => {
                    own.as_str() == tenant && (name.as_str() == of || of.starts_with(&format!("{name}.")))
                }
            };
            target && (switch.mode == KillMode::Stop || reads == Some(false))
        };
        let all: Vec<&Switch> = standing.switches().filter(plain).collect();
        let found = standing.of_subject(&subject);
        prop_assert_eq!(found.is_some(), !all.is_empty());
        if let Some(found) = found {
            prop_assert!(all.contains(&found));
            prop_assert!(all.iter().all(|other| other.mode <= found.mode));
        }
        // One more switch never lets more through.
        let more = standing.with(switch(KillTarget::Global, KillMode::Stop)).expect("room");
        prop_assert!(more.of_subject(&subject).is_some());
    }
}
