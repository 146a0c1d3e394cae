//! What policies are told: the parts of a context, each made only where a policy looks at it.
//!
//! Everything comes from the host: the input as it was validated, the plan as it was sealed, the clock of the daemon. What
//! cannot be told exactly (a number beyond 64 bits, an amount that is none) fails the question instead of being left out.

use std::collections::BTreeSet;

use cedar_policy::{Context, RestrictedExpression as Told};
use serde_json::Value;
use toolkeep_core::autonomy::Autonomy;
use toolkeep_core::call::Mode;
use toolkeep_core::capability::SensitiveClass;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{ContractName, NAME_MAX_BYTES, RunId, WorkflowName};
use toolkeep_core::plan::Totals;
use toolkeep_core::policy::plan_tier;
use toolkeep_core::principal::{Means, Origin};
use toolkeep_core::taint::Taint;
use toolkeep_core::tier::Tier;

use super::entity::{self, Kind};
use super::scope::Uses;
use super::shape::ToolShape;
use crate::config::Environment;

/// Most members of one set of a context; beyond it `more` is true. A policy names a few.
pub const MEMBERS_MAX: usize = 256;

/// What is known besides tool, input and plan.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The kind of deployment.
    pub environment: Environment,
    /// Commit or preview.
    pub mode: Mode,
    /// The run that the call belongs to.
    pub run: Option<RunId>,
    /// How the principal was authenticated.
    pub means: Means,
    /// How many delegations lie between that and whoever acts.
    pub delegations: u8,
    /// What the run, or the call alone, has seen.
    pub taint: Taint,
    /// How far the agent may go with the tool.
    pub autonomy: Autonomy,
    /// What is known of the run.
    pub facts: RunFacts,
}

/// What policies are told of a run. Outside of one nothing is used and nothing has a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// Steps that it has made.
    pub steps: u64,
    /// What is left of its budget of money, in millionths of a dollar; nothing where it has none.
    pub cost_left: Option<u64>,
    workflow: Word,
    contract: Word,
}

/// A name, by value: at most [`NAME_MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    bytes: [u8; NAME_MAX_BYTES],
    length: usize,
}

impl Default for Word {
    fn default() -> Self {
        Self { bytes: [0; NAME_MAX_BYTES], length: 0 }
    }
}

impl Word {
    fn of(text: &str) -> Self {
        let mut word = Self::default();
        if let Some(place) = word.bytes.get_mut(..text.len()) {
            place.copy_from_slice(text.as_bytes());
            word.length = text.len();
        }
        word
    }

    fn text(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl RunFacts {
    /// Of a run with these names.
    #[must_use]
    pub fn of(workflow: Option<&WorkflowName>, contract: Option<&ContractName>) -> Self {
        let (workflow, contract) = (workflow.map(WorkflowName::as_str), contract.map(ContractName::as_str));
        let word = |name: Option<&str>| Word::of(name.unwrap_or_default());
        Self { workflow: word(workflow), contract: word(contract), ..Self::default() }
    }
}

impl Circumstances {
    /// Outside of any run, untainted, of an agent that goes as far as policy says.
    #[must_use]
    pub const fn now(now_ms: u64, environment: Environment, mode: Mode) -> Self {
        let (means, delegations) = (Means::Record, 0);
        let (taint, autonomy) = (Taint::NONE, Autonomy::Autonomous);
        let none = Word { bytes: [0; NAME_MAX_BYTES], length: 0 };
        let facts = RunFacts { steps: 0, cost_left: None, workflow: none, contract: none };
        Self { now_ms, environment, mode, run: None, means, delegations, taint, autonomy, facts }
    }

    /// By whoever came to act so.
    #[must_use]
    pub fn by(self, origin: &Origin) -> Self {
        let delegations = u8::try_from(origin.session.depth()).unwrap_or(u8::MAX);
        Self { means: origin.credential.means(), delegations, ..self }
    }

    /// With this taint, too.
    #[must_use]
    pub const fn tainted(self, taint: Taint) -> Self {
        Self { taint: self.taint.and(taint), ..self }
    }

    /// In a run of which this is known.
    #[must_use]
    pub const fn knowing(self, facts: RunFacts) -> Self {
        Self { facts, ..self }
    }

    /// Of an agent that goes so far.
    #[must_use]
    pub const fn as_far_as(self, autonomy: Autonomy) -> Self {
        Self { autonomy, ..self }
    }

    /// In this run.
    #[must_use]
    pub const fn of_run(self, run: Option<RunId>) -> Self {
        Self { run, ..self }
    }
}

/// A plan as policies see it.
#[derive(Debug, Clone, Copy)]
pub struct PlanFacts<'a> {
    /// What it would change.
    pub effects: &'a [Effect],
    /// How many observations it depends on.
    pub reads: usize,
    /// Which part of an execution with live requests it is.
    pub segment: u32,
    /// The tier that is declared for it.
    pub declared: Tier,
    /// Effect kinds that the manifest wants held whatever their tier.
    pub hold: &'a [String],
    /// Bytes of before-contents that may be kept for undo.
    pub undo_bytes: u64,
}

/// What a question is about.
#[derive(Debug, Clone, Copy)]
pub struct Matter<'a> {
    /// The canonical input of the call, JSON. Nothing for a plan of several calls.
    pub input: Option<&'a str>,
    /// The plan, where it is asked about.
    pub plan: Option<PlanFacts<'a>>,
    /// What is known besides.
    pub around: Circumstances,
}

/// The parts of the context that policies look at.
///
/// # Errors
/// Something cannot be told exactly; the message says what.
pub fn context(shape: &ToolShape, matter: &Matter<'_>, uses: &Uses) -> Result<Context, String> {
    let mut parts = Parts { uses, pairs: Vec::new() };
    if uses.part("input") || (uses.part("amounts") && !shape.amounts.is_empty()) {
        let input =
            matter.input.ok_or("policies want the amounts of a call that is part of a transaction; make it alone")?;
        let input: Value = serde_json::from_str(input).map_err(|error| error.to_string())?;
        if matter.plan.is_none() && uses.part("input") {
            let told = shape.input_of(&input).map_err(|unfit| unfit.to_string())?;
            parts.add("input", || told);
        }
        let told = shape.amounts_of(&input).map_err(|unfit| unfit.to_string())?;
        parts.add("amounts", || told);
    } else if uses.part("amounts") {
        let none = Told::new_record([]).map_err(|error| error.to_string())?;
        parts.add("amounts", || none);
    }
    parts.around(&matter.around)?;
    if let Some(plan) = &matter.plan {
        parts.plan(plan)?;
    }
    Context::from_pairs(parts.pairs).map_err(|error| error.to_string())
}

struct Parts<'u> {
    uses: &'u Uses,
    pairs: Vec<(String, Told)>,
}

impl Parts<'_> {
    fn add(&mut self, name: &str, told: impl FnOnce() -> Told) {
        if self.uses.part(name) {
            self.pairs.push((name.to_owned(), told()));
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        self.add(name, || Told::new_string(text.to_owned()));
    }

    fn number(&mut self, name: &str, number: u64) {
        self.add(name, || long(number));
    }

    fn set(&mut self, name: &str, members: &BTreeSet<&str>) {
        self.add(name, || Told::new_set(members.iter().map(|member| Told::new_string((*member).to_owned()))));
    }

    fn around(&mut self, around: &Circumstances) -> Result<(), String> {
        if self.uses.part("time") {
            let time = time(around.now_ms)?;
            self.add("time", || time);
        }
        self.text("mode", around.mode.word());
        self.text("environment", around.environment.word());
        self.text("autonomy", around.autonomy.word());
        self.text("authenticated", around.means.word());
        self.number("delegations", around.delegations.into());
        self.text("workflow", around.facts.workflow.text());
        self.text("contract", around.facts.contract.text());
        self.number("steps", around.facts.steps);
        if let Some(left) = around.facts.cost_left {
            self.number("cost_left", left);
        }
        self.add("untrusted", || Told::new_bool(around.taint.untrusted));
        self.add("private", || Told::new_bool(around.taint.private));
        if let Some(run) = around.run.filter(|_| self.uses.part("run")) {
            let run = entity::uid(Kind::Run, &run.to_string());
            self.add("run", || Told::new_entity_uid(run));
        }
        Ok(())
    }

    fn plan(&mut self, plan: &PlanFacts<'_>) -> Result<(), String> {
        let totals = Totals::of(plan.effects);
        if self.uses.part("tier") {
            self.number("tier", plan_tier(plan.effects, plan.undo_bytes).number().into());
        }
        for (name, number) in [
            ("declared", u64::from(plan.declared.number())),
            ("effects", totals.effects),
            ("creates", totals.creates),
            ("overwrites", totals.overwrites),
            ("deletes", totals.deletes),
            ("renames", totals.renames),
            ("bytes_written", totals.bytes_written),
            ("requests", totals.requests),
            ("messages", totals.messages),
            ("keys", totals.keys),
            ("reads", plan.reads as u64),
            ("segment", plan.segment.into()),
        ] {
            self.number(name, number);
        }
        if self.uses.part("count") {
            let count = |kind: &str| plan.effects.iter().filter(|effect| effect.kind() == kind).count() as u64;
            let counts = Effect::KINDS.iter().map(|kind| ((*kind).to_owned(), long(count(kind))));
            let counts = Told::new_record(counts).map_err(|error| error.to_string())?;
            self.add("count", || counts);
        }
        self.places(plan.effects);
        Ok(())
    }

    /// Where effects go. `more` says that a set has more members than it shows.
    fn places(&mut self, effects: &[Effect]) {
        let mut more = false;
        let mut told = |parts: &mut Self, name: &str, of: &dyn Fn(&Effect) -> Vec<String>| {
            if !parts.uses.part(name) && !parts.uses.part("more") {
                return;
            }
            let all: BTreeSet<String> = effects.iter().flat_map(of).collect();
            more |= all.len() > MEMBERS_MAX;
            parts.set(name, &all.iter().take(MEMBERS_MAX).map(String::as_str).collect());
        };
        told(self, "kinds", &|effect| vec![effect.kind().to_owned()]);
        told(self, "workspaces", &|effect| {
            effect.workspace().map(|name| name.as_str().to_owned()).into_iter().collect()
        });
        told(self, "paths", &|effect| {
            effect.places().map(|place| format!("{}/{}", place.workspace, place.path)).collect()
        });
        told(self, "sensitive", &|effect| {
            effect.paths().filter_map(SensitiveClass::of).map(|class| class.name().to_owned()).collect()
        });
        told(self, "hosts", &|effect| match effect {
            Effect::HttpRequest(request) => vec![host_of(&request.url)],
            _ => Vec::new(),
        });
        told(self, "methods", &|effect| match effect {
            Effect::HttpRequest(request) => vec![request.method.clone()],
            _ => Vec::new(),
        });
        told(self, "channels", &|effect| match effect {
            Effect::MessageSend(message) => vec![message.channel.to_string()],
            _ => Vec::new(),
        });
        told(self, "buckets", &|effect| effect.key().map(|(bucket, _)| bucket.to_string()).into_iter().collect());
        self.add("more", || Told::new_bool(more));
    }
}

/// The host of a URL in lower case; a URL that has none gives itself, which no policy permits by name.
fn host_of(url: &str) -> String {
    let parsed = url::Url::parse(url).ok();
    parsed.and_then(|parsed| parsed.host_str().map(str::to_owned)).unwrap_or_else(|| url.to_owned())
}

fn long(number: u64) -> Told {
    Told::new_long(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The time in UTC: seconds since the epoch, the hour from 0, the weekday from 1 for Monday.
fn time(now_ms: u64) -> Result<Told, String> {
    let seconds = now_ms / 1_000;
    let (days, hour) = (seconds / 86_400, seconds % 86_400 / 3_600);
    // The epoch was a Thursday.
    let weekday = (days + 3) % 7 + 1;
    let members = [("epoch_s", seconds), ("hour", hour), ("weekday", weekday)];
    Told::new_record(members.map(|(name, number)| (name.to_owned(), long(number)))).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::scope::Question;
    use crate::policy::vocabulary;
    use cedar_policy::Policy;
    use serde_json::json;
    use toolkeep_core::digest::Digest;

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
        let context = told("context.mode == \"commit\"", "{}").expect("a context");
        assert!(context.get("mode").is_some() && context.get("time").is_none());
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
            let context = Context::from_pairs([("t".to_owned(), time(ms).expect("a time"))]).expect("a context");
            context.get("t").map(|time| time.to_string()).unwrap_or_default()
        };
        // Thursday 1970-01-01 00:00, Sunday 2000-01-02 23:59:59, Monday one second later.
        assert!(at(0).contains("\"hour\": 0") && at(0).contains("\"weekday\": 4"), "{}", at(0));
        let sunday = at(946_857_599_000);
        assert!(sunday.contains("\"hour\": 23") && sunday.contains("\"weekday\": 7"), "{sunday}");
        let monday = at(946_857_600_000);
        assert!(monday.contains("\"hour\": 0") && monday.contains("\"weekday\": 1"), "{monday}");
    }
}
