//! A reference model: policies as a list that is gone through from the first to the last, without slices, caches or Cedar.
//!
//! Whatever sets and requests are drawn, the policies must say what the model says; and neither taking a permit away nor
//! adding a forbid may ever allow more.

use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use toolkeep::config::Environment;
use toolkeep::policy::{Circumstances, Matter, PlanFacts, Policies, ToolShape};
use toolkeep_core::call::Mode;
use toolkeep_core::effect::Effect;
use toolkeep_core::taint::Taint;
use toolkeep_core::tier::Tier;

use super::tools::{plain, principal, set};

const TENANTS: [&str; 2] = ["acme", "globex"];
const PEOPLE: [&str; 2] = ["ann", "bob"];
const TOOLS: [&str; 3] = ["t0", "t1", "t2"];
/// Questions are asked within these seconds, two days.
const SECONDS: u64 = 2 * 86_400;

/// Who a policy is about.
#[derive(Debug, Clone, Copy)]
enum Who {
    Anybody,
    Tenant(usize),
    User(usize, usize),
    Agent(usize, usize),
}

/// When it applies.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    TierAtLeast(u8),
    Preview,
    Flagged,
    CreatesMoreThan(usize),
    HourAtLeast(u64),
    SecondAfter(u64),
    Untrusted,
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    permits: bool,
    /// Whose file it stands in.
    file: Option<usize>,
    who: Who,
    /// Whether it is about calls, plans or both.
    calls: bool,
    plans: bool,
    /// The tool of its action, and the tool of its resource.
    action: Option<usize>,
    resource: Option<usize>,
    when: When,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    tenant: usize,
    person: usize,
    tool: usize,
    preview: bool,
    flag: bool,
    /// Seconds since the epoch.
    second: u64,
    untrusted: bool,
    /// Directories that its plan creates; nothing for a question about the call.
    creates: Option<usize>,
}

fn shapes() -> Vec<Arc<ToolShape>> {
    TOOLS.iter().zip(1..).map(|(name, tier)| plain(name, tier)).collect()
}

impl Rule {
    fn text(&self) -> String {
        let who = match self.who {
            Who::Anybody => "principal".to_owned(),
            Who::Tenant(t) => format!("principal in Tenant::\"{}\"", TENANTS[t]),
            Who::User(t, p) => format!("principal in User::\"{}/{}\"", TENANTS[t], PEOPLE[p]),
            Who::Agent(t, p) => format!("principal == Agent::\"{}/{}/bot\"", TENANTS[t], PEOPLE[p]),
        };
        let mut actions = Vec::new();
        for (wanted, word) in [(self.calls, "call"), (self.plans, "commit")] {
            let tool = self.action.map(|tool| format!(":{}", TOOLS[tool])).unwrap_or_default();
            actions.extend(wanted.then(|| format!("Action::\"{word}{tool}\"")));
        }
        let resource = self.resource.map(|tool| format!(" == Tool::\"{}\"", TOOLS[tool])).unwrap_or_default();
        let when = match self.when {
            When::Always => String::new(),
            When::TierAtLeast(tier) => format!(" when {{ resource.tier >= {tier} }}"),
            When::Preview => " when { context.mode == \"preview\" }".to_owned(),
            When::Flagged => " when { context.input has flag && context.input.flag }".to_owned(),
            When::CreatesMoreThan(n) => format!(" when {{ context.count[\"dir.create\"] > {n} }}"),
            When::HourAtLeast(hour) => format!(" when {{ context.time.hour >= {hour} }}"),
            When::SecondAfter(second) => format!(" when {{ context.time.epoch_s > {second} }}"),
            When::Untrusted => " when { context.untrusted }".to_owned(),
        };
        let effect = if self.permits { "permit" } else { "forbid" };
        format!("{effect} ({who}, action in [{}], resource{resource}){when};\n", actions.join(", "))
    }

    fn matches(&self, asked: &Asked) -> bool {
        let who = match self.who {
            Who::Anybody => true,
            Who::Tenant(t) => t == asked.tenant,
            Who::User(t, p) | Who::Agent(t, p) => (t, p) == (asked.tenant, asked.person),
        };
        let when = match self.when {
            When::Always => true,
            When::TierAtLeast(tier) => asked.tool + 1 >= usize::from(tier),
            When::Preview => asked.preview,
            When::Flagged => asked.flag,
            When::CreatesMoreThan(n) => asked.creates.is_some_and(|creates| creates > n),
            When::HourAtLeast(hour) => asked.second / 3_600 % 24 >= hour,
            When::SecondAfter(second) => asked.second > second,
            When::Untrusted => asked.untrusted,
        };
        let asks = if asked.creates.is_some() { self.plans } else { self.calls };
        let own = self.file.is_none_or(|tenant| tenant == asked.tenant);
        let tool =
            self.action.is_none_or(|tool| tool == asked.tool) && self.resource.is_none_or(|tool| tool == asked.tool);
        who && when && asks && own && tool
    }
}

fn model(rules: &[Rule], asked: &Asked) -> bool {
    let matching = |permits: bool| rules.iter().any(|rule| rule.permits == permits && rule.matches(asked));
    matching(true) && !matching(false)
}

/// The rules as files: those of everybody, and those of each tenant.
fn policies(rules: &[Rule]) -> Policies {
    let mut texts = vec![("all.cedar".to_owned(), String::new())];
    texts.extend(TENANTS.iter().map(|tenant| (format!("{tenant}/own.cedar"), String::new())));
    for rule in rules {
        let at = rule.file.map_or(0, |tenant| tenant + 1);
        texts[at].1.write_str(&rule.text()).expect("text");
    }
    let files: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    set(&files, &shapes()).unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn says(policies: &Policies, shapes: &[Arc<ToolShape>], asked: &Asked) -> bool {
    let mode = if asked.preview { Mode::Preview } else { Mode::Commit };
    let create =
        |at| Effect::DirCreate { workspace: "w".parse().expect("name"), path: format!("d{at}").parse().expect("path") };
    let effects: Vec<Effect> = (0..asked.creates.unwrap_or_default()).map(create).collect();
    let plan =
        PlanFacts { effects: &effects, reads: 0, segment: 0, declared: Tier::Reversible, hold: &[], undo_bytes: 0 };
    let input = if asked.flag { r#"{"flag":true}"# } else { "{}" };
    let taint = Taint { untrusted: asked.untrusted, ..Taint::NONE };
    let around = Circumstances::now(asked.second * 1_000, Environment::Dev, mode).tainted(taint);
    let matter = Matter { input: Some(input), plan: asked.creates.map(|_| plan), around };
    let principal = principal(&format!("{}/{}/bot", TENANTS[asked.tenant], PEOPLE[asked.person]));
    policies.judge(&principal, &shapes[asked.tool], &matter).allowed()
}

fn rule() -> impl Strategy<Value = Rule> {
    let who = prop_oneof![
        Just(Who::Anybody),
        (0..2_usize).prop_map(Who::Tenant),
        (0..2_usize, 0..2_usize).prop_map(|(t, p)| Who::User(t, p)),
        (0..2_usize, 0..2_usize).prop_map(|(t, p)| Who::Agent(t, p)),
    ];
    let when = prop_oneof![
        3 => Just(When::Always),
        1 => (1..=3_u8).prop_map(When::TierAtLeast),
        1 => Just(When::Preview),
        1 => Just(When::Flagged),
        1 => (0..3_usize).prop_map(When::CreatesMoreThan),
        1 => (0..24_u64).prop_map(When::HourAtLeast),
        1 => (0..SECONDS).prop_map(When::SecondAfter),
        1 => Just(When::Untrusted),
    ];
    let tool = || proptest::option::of(0..3_usize);
    let file = proptest::option::weighted(0.3, 0..2_usize);
    (proptest::bool::weighted(0.7), file, who, 0..3_u8, tool(), tool(), when).prop_map(
        |(permits, file, who, about, action, resource, when)| {
            // The input is known when a call is asked about, effects when a plan is: elsewhere they do not validate.
            let (calls, plans) = match when {
                When::Flagged => (true, false),
                When::CreatesMoreThan(_) => (false, true),
                _ => (about != 1, about != 0),
            };
            Rule { permits, file, who, calls, plans, action, resource, when }
        },
    )
}

fn asked() -> impl Strategy<Value = Asked> {
    let creates = proptest::option::of(1..4_usize);
    let what = (0..3_usize, any::<bool>(), any::<bool>(), any::<bool>(), creates);
    (0..2_usize, 0..2_usize, 0..SECONDS, what).prop_map(
        |(tenant, person, second, (tool, preview, flag, untrusted, creates))| Asked {
            tenant,
            person,
            tool,
            preview,
            flag,
            second,
            untrusted,
            creates,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn r17_t_i1_policies_say_what_the_model_says_and_fewer_permits_or_more_forbids_never_allow_more(
        rules in proptest::collection::vec(rule(), 0..12),
        forbid in rule(),
        removed in any::<prop::sample::Index>(),
        questions in proptest::collection::vec(asked(), 1..24),
    ) {
        let shapes = shapes();
        let full = policies(&rules);
        let mut fewer = rules.clone();
        if !fewer.is_empty() {
            fewer.remove(removed.index(rules.len()));
        }
        // A forbid that was taken away allows more by design; only permits are compared.
        let fewer = (rules.len() > fewer.len() && rules[removed.index(rules.len())].permits).then(|| policies(&fewer));
        let mut stricter = rules.clone();
        stricter.push(Rule { permits: false, ..forbid });
        let stricter = policies(&stricter);
        for asked in &questions {
            let allowed = says(&full, &shapes, asked);
            prop_assert_eq!(allowed, model(&rules, asked), "{:?}", asked);
            prop_assert_eq!(allowed, says(&full, &shapes, asked), "the same question has the same answer");
            if let Some(fewer) = &fewer {
                prop_assert!(allowed || !says(fewer, &shapes, asked), "a permit less allows {:?}", asked);
            }
            prop_assert!(allowed || !says(&stricter, &shapes, asked), "a forbid more allows {:?}", asked);
        }
    }
}

#[test]
fn r17_an_answer_is_never_that_to_another_question_however_many_were_asked() {
    let shapes = shapes();
    let rule = Rule {
        permits: true,
        file: None,
        who: Who::User(0, 0),
        calls: true,
        plans: true,
        action: None,
        resource: None,
        when: When::SecondAfter(500),
    };
    let policies = policies(&[rule]);
    for round in 0..2 {
        for at in 0..1_000 {
            let creates = (at % 3 > 0).then_some(at % 3);
            let second = u64::try_from(at).expect("a small number");
            let asked = Asked {
                tenant: 0,
                person: at % 2,
                tool: at % 3,
                preview: false,
                flag: false,
                second,
                untrusted: false,
                creates,
            };
            assert_eq!(says(&policies, &shapes, &asked), second > 500 && at % 2 == 0, "round {round}: {asked:?}");
        }
    }
}
