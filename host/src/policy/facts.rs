//! What policies are told: the parts of a context, each made only where a policy looks at it.
//!
//! A question is answered from facts alone: they are gathered first, then made into Cedar's context. So an answer that is
//! remembered under its facts is the answer that would be given again. What cannot be told exactly (a number beyond
//! 64 bits, an amount that is none) fails the question instead of being left out.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use cedar_policy::{Context, RestrictedExpression as Told};
use serde_json::Value;
use toolkeep_core::capability::SensitiveClass;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::RunId;
use toolkeep_core::plan::Totals;
use toolkeep_core::policy::plan_tier;

use super::context::{Circumstances, Matter, PlanFacts};
use super::entity::{self, Kind};
use super::scope::Uses;
use super::shape::ToolShape;

/// Most members of one set of a context; beyond it `more` is true. A policy names a few.
pub const MEMBERS_MAX: usize = 256;
/// The part whose members are told one by one.
const TIME: &str = "time";
const SECONDS_OF_A_DAY: u64 = 86_400;
const SECONDS_OF_AN_HOUR: u64 = 3_600;

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Fact {
    Word(&'static str),
    Text(String),
    Number(u64),
    /// One for each kind of effect.
    Counts(Vec<u64>),
    Truth(bool),
    Set(BTreeSet<String>),
    Run(RunId),
    /// Typed, from this canonical input.
    Input(String),
    /// What the manifest calls amounts, from this canonical input.
    Amounts(String),
    /// The tool has none.
    NoAmounts,
}

/// A part of the context, and how it is learned. `time.hour` is the member `hour` of the part `time`.
#[derive(Debug)]
struct Part {
    name: &'static str,
    of: fn(&Look<'_>) -> Result<Option<Fact>, String>,
}

/// The parts that the policies of one question look at.
#[derive(Debug, Default)]
pub struct Parts(Vec<&'static Part>);

/// What was learned for [`Parts`], in their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Facts(Vec<Option<Fact>>);

/// A question while its facts are gathered.
struct Look<'m> {
    shape: &'m ToolShape,
    matter: &'m Matter<'m>,
    totals: OnceCell<Totals>,
}

impl Parts {
    /// The parts that policies look at.
    #[must_use]
    pub fn of(uses: &Uses) -> Self {
        Self(PARTS.iter().filter(|part| uses.part(part.name)).collect())
    }

    /// Whether none is looked at.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gather what they come to.
    ///
    /// # Errors
    /// The policies want to know what cannot be known of this question.
    pub fn facts(&self, shape: &ToolShape, matter: &Matter<'_>) -> Result<Facts, String> {
        let look = Look { shape, matter, totals: OnceCell::new() };
        self.0.iter().map(|part| (part.of)(&look)).collect::<Result<_, _>>().map(Facts)
    }

    /// The context that says these facts, which were gathered for these parts.
    ///
    /// # Errors
    /// Something cannot be told exactly; the message says what.
    pub fn context(&self, shape: &ToolShape, facts: &Facts) -> Result<Context, String> {
        let mut pairs = Vec::with_capacity(self.0.len());
        let mut time = Vec::new();
        for (part, fact) in self.0.iter().zip(&facts.0) {
            let Some(fact) = fact else { continue };
            let told = fact.told(shape)?;
            match part.name.split_once('.') {
                Some((TIME, member)) => time.push((member.to_owned(), told)),
                _ => pairs.push((part.name.to_owned(), told)),
            }
        }
        if !time.is_empty() {
            pairs.push((TIME.to_owned(), record(time)?));
        }
        Context::from_pairs(pairs).map_err(|error| error.to_string())
    }
}

impl Facts {
    /// How much memory they take, roughly, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let of = |fact: &Fact| match fact {
            Fact::Text(text) | Fact::Input(text) | Fact::Amounts(text) => text.len(),
            Fact::Set(set) => set.iter().map(|member| member.len() + size_of::<String>()).sum(),
            Fact::Counts(counts) => counts.len() * size_of::<u64>(),
            Fact::Word(_) | Fact::Number(_) | Fact::Truth(_) | Fact::Run(_) | Fact::NoAmounts => 0,
        };
        self.0.iter().map(|fact| size_of::<Option<Fact>>() + fact.as_ref().map_or(0, of)).sum()
    }
}

impl Fact {
    fn told(&self, shape: &ToolShape) -> Result<Told, String> {
        let read = |input: &str| serde_json::from_str::<Value>(input).map_err(|error| error.to_string());
        Ok(match self {
            Self::Word(word) => Told::new_string((*word).to_owned()),
            Self::Text(text) => Told::new_string(text.clone()),
            Self::Number(number) => long(*number),
            Self::Truth(truth) => Told::new_bool(*truth),
            Self::Set(set) => Told::new_set(set.iter().map(|member| Told::new_string(member.clone()))),
            Self::Run(run) => Told::new_entity_uid(entity::uid(Kind::Run, &run.to_string())),
            Self::Counts(counts) => {
                record(Effect::KINDS.iter().zip(counts).map(|(kind, count)| ((*kind).to_owned(), long(*count))))?
            }
            Self::Input(input) => shape.input_of(&read(input)?).map_err(|unfit| unfit.to_string())?,
            Self::Amounts(input) => shape.amounts_of(&read(input)?).map_err(|unfit| unfit.to_string())?,
            Self::NoAmounts => record([])?,
        })
    }
}

impl<'m> Look<'m> {
    const fn around(&self) -> &'m Circumstances {
        &self.matter.around
    }

    const fn seconds(&self) -> u64 {
        self.around().now_ms / 1_000
    }

    fn amounts(&self) -> Result<Fact, String> {
        if self.shape.amounts.is_empty() {
            return Ok(Fact::NoAmounts);
        }
        let missing = "policies want the amounts of a call that is part of a transaction; make it alone";
        self.matter.input.map(|input| Fact::Amounts(input.to_owned())).ok_or_else(|| missing.to_owned())
    }

    fn plan<T>(&self, of: impl FnOnce(&PlanFacts<'m>) -> T) -> Option<T> {
        self.matter.plan.as_ref().map(of)
    }

    fn total(&self, of: impl FnOnce(&Totals) -> u64) -> Option<Fact> {
        self.plan(|plan| Fact::Number(of(self.totals.get_or_init(|| Totals::of(plan.effects)))))
    }

    /// A set of what the effects name, cut at its bound.
    fn set(&self, of: Members) -> Option<Fact> {
        self.plan(|plan| Fact::Set(members(plan.effects, of).into_iter().take(MEMBERS_MAX).collect()))
    }
}

type Members = fn(&Effect) -> Vec<String>;

fn members(effects: &[Effect], of: Members) -> BTreeSet<String> {
    effects.iter().flat_map(of).collect()
}

const fn part(name: &'static str, of: fn(&Look<'_>) -> Result<Option<Fact>, String>) -> Part {
    Part { name, of }
}

/// Every part that there is, in the words of the schema that [`super::vocabulary`] makes.
const PARTS: &[Part] = &[
    part("input", |look| {
        Ok(look.matter.input.filter(|_| look.matter.plan.is_none()).map(|input| Fact::Input(input.to_owned())))
    }),
    part("amounts", |look| look.amounts().map(Some)),
    part("time.epoch_s", |look| Ok(Some(Fact::Number(look.seconds())))),
    part("time.hour", |look| Ok(Some(Fact::Number(look.seconds() % SECONDS_OF_A_DAY / SECONDS_OF_AN_HOUR)))),
    // From 1 for Monday, in UTC. The epoch was a Thursday.
    part("time.weekday", |look| Ok(Some(Fact::Number((look.seconds() / SECONDS_OF_A_DAY + 3) % 7 + 1)))),
    part("mode", |look| Ok(Some(Fact::Word(look.around().mode.word())))),
    part("environment", |look| Ok(Some(Fact::Word(look.around().environment.word())))),
    part("autonomy", |look| Ok(Some(Fact::Word(look.around().autonomy.word())))),
    part("authenticated", |look| Ok(Some(Fact::Word(look.around().means.word())))),
    part("workflow", |look| Ok(Some(Fact::Text(look.around().facts.workflow().to_owned())))),
    part("contract", |look| Ok(Some(Fact::Text(look.around().facts.contract().to_owned())))),
    part("delegations", |look| Ok(Some(Fact::Number(look.around().delegations.into())))),
    part("steps", |look| Ok(Some(Fact::Number(look.around().facts.steps)))),
    part("cost_left", |look| Ok(look.around().facts.cost_left.map(Fact::Number))),
    part("untrusted", |look| Ok(Some(Fact::Truth(look.around().taint.untrusted)))),
    part("private", |look| Ok(Some(Fact::Truth(look.around().taint.private)))),
    part("run", |look| Ok(look.around().run.map(Fact::Run))),
    part("tier", |look| Ok(look.plan(|plan| Fact::Number(plan_tier(plan.effects, plan.undo_bytes).number().into())))),
    part("declared", |look| Ok(look.plan(|plan| Fact::Number(plan.declared.number().into())))),
    part("effects", |look| Ok(look.total(|totals| totals.effects))),
    part("creates", |look| Ok(look.total(|totals| totals.creates))),
    part("overwrites", |look| Ok(look.total(|totals| totals.overwrites))),
    part("deletes", |look| Ok(look.total(|totals| totals.deletes))),
    part("renames", |look| Ok(look.total(|totals| totals.renames))),
    part("bytes_written", |look| Ok(look.total(|totals| totals.bytes_written))),
    part("requests", |look| Ok(look.total(|totals| totals.requests))),
    part("messages", |look| Ok(look.total(|totals| totals.messages))),
    part("keys", |look| Ok(look.total(|totals| totals.keys))),
    part("reads", |look| Ok(look.plan(|plan| Fact::Number(plan.reads as u64)))),
    part("segment", |look| Ok(look.plan(|plan| Fact::Number(plan.segment.into())))),
    part("count", |look| Ok(look.plan(|plan| Fact::Counts(counts(plan.effects))))),
    part("kinds", |look| Ok(look.set(kinds))),
    part("workspaces", |look| Ok(look.set(workspaces))),
    part("paths", |look| Ok(look.set(paths))),
    part("sensitive", |look| Ok(look.set(sensitive))),
    part("hosts", |look| Ok(look.set(hosts))),
    part("methods", |look| Ok(look.set(methods))),
    part("channels", |look| Ok(look.set(channels))),
    part("buckets", |look| Ok(look.set(buckets))),
    part("more", |look| Ok(look.plan(|plan| Fact::Truth(is_cut(plan.effects))))),
];

fn kinds(effect: &Effect) -> Vec<String> {
    vec![effect.kind().to_owned()]
}

fn workspaces(effect: &Effect) -> Vec<String> {
    effect.workspace().map(|name| name.as_str().to_owned()).into_iter().collect()
}

fn paths(effect: &Effect) -> Vec<String> {
    effect.places().map(|place| format!("{}/{}", place.workspace, place.path)).collect()
}

fn sensitive(effect: &Effect) -> Vec<String> {
    effect.paths().filter_map(SensitiveClass::of).map(|class| class.name().to_owned()).collect()
}

fn hosts(effect: &Effect) -> Vec<String> {
    match effect {
        Effect::HttpRequest(request) => vec![host_of(&request.url)],
        _ => Vec::new(),
    }
}

fn methods(effect: &Effect) -> Vec<String> {
    match effect {
        Effect::HttpRequest(request) => vec![request.method.clone()],
        _ => Vec::new(),
    }
}

fn channels(effect: &Effect) -> Vec<String> {
    match effect {
        Effect::MessageSend(message) => vec![message.channel.to_string()],
        _ => Vec::new(),
    }
}

fn buckets(effect: &Effect) -> Vec<String> {
    effect.key().map(|(bucket, _)| bucket.to_string()).into_iter().collect()
}

/// Whether a set has more members than it shows.
fn is_cut(effects: &[Effect]) -> bool {
    let sets: [Members; 8] = [kinds, workspaces, paths, sensitive, hosts, methods, channels, buckets];
    sets.into_iter().any(|of| members(effects, of).len() > MEMBERS_MAX)
}

fn counts(effects: &[Effect]) -> Vec<u64> {
    let of = |kind: &str| effects.iter().filter(|effect| effect.kind() == kind).count() as u64;
    Effect::KINDS.iter().map(|kind| of(kind)).collect()
}

/// The host of a URL in lower case; a URL that has none gives itself, which no policy permits by name.
fn host_of(url: &str) -> String {
    let parsed = url::Url::parse(url).ok();
    parsed.and_then(|parsed| parsed.host_str().map(str::to_owned)).unwrap_or_else(|| url.to_owned())
}

fn long(number: u64) -> Told {
    Told::new_long(i64::try_from(number).unwrap_or(i64::MAX))
}

fn record(members: impl IntoIterator<Item = (String, Told)>) -> Result<Told, String> {
    Told::new_record(members).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::policy::scope::Question;
    use crate::policy::vocabulary;
    use cedar_policy::Policy;
    use serde_json::json;
    use toolkeep_core::call::Mode;
    use toolkeep_core::digest::Digest;
    use toolkeep_core::tier::Tier;

    fn context(shape: &ToolShape, matter: &Matter<'_>, uses: &Uses) -> Result<Context, String> {
        let parts = Parts::of(uses);
        parts.context(shape, &parts.facts(shape, matter)?)
    }

    fn everything() -> Uses {
        let policy = Policy::parse(None, "permit(principal, action, resource) when { context == context };");
        Uses::of(&policy.expect("a policy")).expect("uses")
    }

    fn shape() -> ToolShape {
        let manifest = json!({"format": 1, "name": "pay", "component": "c", "amounts": {"total": "/input/total"}});
        let manifest: toolkeep_core::manifest::ManifestText = serde_json::from_value(manifest).expect("a manifest");
        let manifest = manifest.check(Digest::of(b"")).expect("valid");
        let schema = json!({"type": "object", "properties": {"to": {"type": "string"}, "total": {"type": "number"}}});
        ToolShape::new(manifest.name.clone(), Tier::Reversible, Digest::of(b""), &manifest, &schema)
    }

    fn write(path: &str) -> Effect {
        Effect::DirCreate { workspace: "w".parse().expect("name"), path: path.parse().expect("path") }
    }

    #[test]
    fn r17_every_part_of_both_contexts_is_what_the_schema_says() {
        let shape = shape();
        let schema = vocabulary::schema([&shape].into_iter()).expect("a schema");
        let around =
            Circumstances::now(0, Environment::Dev, Mode::Commit).of_run(Some(RunId::new(uuid::Uuid::from_u128(1))));
        let effects = [write(".git/hooks/a"), write("b")];
        let plan = PlanFacts {
            effects: &effects,
            reads: 1,
            segment: 0,
            declared: Tier::Consequential,
            hold: &[],
            undo_bytes: 0,
        };
        for (question, plan) in [(Question::Call, None), (Question::Commit, Some(plan))] {
            let matter = Matter { input: Some(r#"{"to":"x","total":12.5}"#), plan, around };
            let context = context(&shape, &matter, &everything()).expect("a context");
            let action = entity::action(question, &shape);
            context.validate(&schema, &action).expect("exactly what the schema says");
        }
    }

    #[test]
    fn only_what_is_looked_at_is_told_and_what_cannot_be_told_fails() {
        let uses = |condition: &str| {
            let text = format!("permit(principal, action, resource) when {{ {condition} }};");
            Uses::of(&Policy::parse(None, text).expect("a policy")).expect("uses")
        };
        let around = Circumstances::now(0, Environment::Dev, Mode::Commit);
        let told = |condition: &str, input: &str| {
            context(&shape(), &Matter { input: Some(input), plan: None, around }, &uses(condition))
        };
        assert!(told("context.mode == \"commit\"", "no JSON").is_ok(), "the input is not even read");
        assert!(told("context.input.to == \"x\"", "no JSON").is_err());
        assert!(told("context.amounts has total", r#"{"total":0.12345}"#).is_err());
        assert!(told("context.amounts has total", r#"{"total":null}"#).is_ok());
        let several = Matter { input: None, plan: None, around };
        assert!(context(&shape(), &several, &uses("context.mode == \"commit\"")).is_ok());
        assert!(context(&shape(), &several, &uses("context.amounts has total")).is_err(), "never unseen");
        let some = told("context.mode == \"commit\"", "{}").expect("a context");
        assert!(some.get("mode").is_some() && some.get("time").is_none());
        let hour = told("context.time.hour > 8", "{}").expect("a context").get("time").map(|time| time.to_string());
        assert_eq!(hour.as_deref(), Some("{\"hour\": 0}"), "the second would be another fact each second");
    }

    #[test]
    fn sets_are_cut_at_their_bound_and_say_so() {
        let more = |n: usize| {
            let effects: Vec<Effect> = (0..n).map(|at| write(&format!("d{at}"))).collect();
            let plan = PlanFacts {
                effects: &effects,
                reads: 0,
                segment: 0,
                declared: Tier::Reversible,
                hold: &[],
                undo_bytes: 0,
            };
            let around = Circumstances::now(0, Environment::Dev, Mode::Commit);
            let told = context(&shape(), &Matter { input: Some("{}"), plan: Some(plan), around }, &everything())
                .expect("told");
            told.get("more").map(|more| more.to_string())
        };
        assert_eq!((more(MEMBERS_MAX), more(MEMBERS_MAX + 1)), (Some("false".into()), Some("true".into())));
    }

    #[test]
    fn the_hour_and_the_weekday_are_those_of_utc() {
        let at = |ms: u64| {
            let around = Circumstances::now(ms, Environment::Dev, Mode::Commit);
            let matter = Matter { input: Some("{}"), plan: None, around };
            let context = context(&shape(), &matter, &everything()).expect("a context");
            context.get("time").map(|time| time.to_string()).unwrap_or_default()
        };
        // Thursday 1970-01-01 00:00, Sunday 2000-01-02 23:59:59, Monday one second later.
        assert!(at(0).contains("\"hour\": 0") && at(0).contains("\"weekday\": 4"), "{}", at(0));
        let sunday = at(946_857_599_000);
        assert!(sunday.contains("\"hour\": 23") && sunday.contains("\"weekday\": 7"), "{sunday}");
        let monday = at(946_857_600_000);
        assert!(monday.contains("\"hour\": 0") && monday.contains("\"weekday\": 1"), "{monday}");
    }
}
