//! The policies that may match one tool for one tenant, ready to be asked (D16).
//!
//! A slice is immutable but for what it remembers: the entities of callers, and answers, under all the facts that they were
//! made from. A question whose facts were seen before therefore costs a look into a map; one that looks at
//! what is never the same twice, like the second, is put to Cedar.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use cedar_policy::{Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicySet, Request};
use toolkeep_core::id::{AgentName, UserName};
use toolkeep_core::principal::Principal;

use super::context::Matter;
use super::entity::{self, Kind};
use super::facts::{Facts, Parts};
use super::judgement::Judgement;
use super::rule::Rule;
use super::scope::{Question, Uses};
use super::shape::ToolShape;

/// Most callers that one slice remembers; beyond it entities are made anew.
const CALLERS_MAX: usize = 1_024;
/// Most answers that one slice remembers under their facts, half a megabyte; the next one drops all of them: what is asked
/// again and again is back at once.
const ANSWERS_MAX: usize = 256;
/// Most memory of the facts of an answer that is remembered, in bytes: larger ones, such as many paths, are rarely the same.
const REMEMBERED_MAX_BYTES: usize = 2_048;

/// The policies for one tool and tenant.
#[derive(Debug)]
pub struct Slice {
    shape: Arc<ToolShape>,
    tool: Vec<Entity>,
    call: Half,
    commit: Half,
    callers: RwLock<HashMap<(UserName, AgentName), Arc<Caller>>>,
    answers: RwLock<HashMap<Asked, Arc<Judgement>>>,
    authorizer: Authorizer,
}

/// What was asked.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked {
    question: Question,
    /// Who asked, where the answer depends on it.
    caller: Option<usize>,
    facts: Facts,
}

/// The policies for one question.
#[derive(Debug)]
struct Half {
    action: EntityUid,
    set: PolicySet,
    rules: HashMap<Arc<str>, Arc<Rule>>,
    /// Whether the answer depends on who asks.
    personal: bool,
    parts: Parts,
    /// The answer, where it is the same for everybody and nothing of a context is looked at.
    fixed: OnceLock<Arc<Judgement>>,
}

/// What is remembered about a caller.
#[derive(Debug)]
struct Caller {
    /// Which one it is; nothing for one that is not remembered.
    number: Option<usize>,
    agent: EntityUid,
    entities: Entities,
    call: OnceLock<Arc<Judgement>>,
    commit: OnceLock<Arc<Judgement>>,
}

impl Slice {
    /// The slice of these rules, all of which apply to the tenant.
    ///
    /// # Errors
    /// Cedar refuses a set that it took before. It has no reason to.
    pub fn new(shape: Arc<ToolShape>, rules: &[Arc<Rule>]) -> Result<Self, String> {
        Ok(Self {
            tool: entity::tool(&shape)?,
            call: Half::new(Question::Call, &shape, rules)?,
            commit: Half::new(Question::Commit, &shape, rules)?,
            shape,
            callers: RwLock::default(),
            answers: RwLock::default(),
            authorizer: Authorizer::new(),
        })
    }

    /// The tool.
    #[must_use]
    pub const fn shape(&self) -> &Arc<ToolShape> {
        &self.shape
    }

    /// Ask. `matter` has a plan where it is about one.
    #[must_use]
    pub fn ask(&self, principal: &Principal, matter: &Matter<'_>) -> Arc<Judgement> {
        let (half, question) = match matter.plan {
            None => (&self.call, Question::Call),
            Some(_) => (&self.commit, Question::Commit),
        };
        if let Some(fixed) = half.fixed.get() {
            return Arc::clone(fixed);
        }
        let caller = match self.caller(principal) {
            Ok(caller) => caller,
            Err(problem) => return Arc::new(Judgement::failed(problem)),
        };
        if half.parts.is_empty() {
            let fixed = if half.personal { caller.fixed(question) } else { &half.fixed };
            return Arc::clone(fixed.get_or_init(|| Arc::new(self.judge(half, &caller, Context::empty()))));
        }
        match half.parts.facts(&self.shape, matter) {
            Ok(facts) => self.judge_by(half, &caller, question, facts),
            Err(problem) => Arc::new(Judgement::failed(problem)),
        }
    }

    /// The answer that these facts had before, or a new one.
    fn judge_by(&self, half: &Half, caller: &Caller, question: Question, facts: Facts) -> Arc<Judgement> {
        let nameless = half.personal && caller.number.is_none();
        let asked = Asked { question, caller: caller.number.filter(|_| half.personal), facts };
        let remembers = !nameless && asked.facts.weight() <= REMEMBERED_MAX_BYTES;
        let known = || self.answers.read().unwrap_or_else(PoisonError::into_inner).get(&asked).cloned();
        if let Some(known) = remembers.then(known).flatten() {
            return known;
        }
        let judgement = match half.parts.context(&self.shape, &asked.facts) {
            Ok(context) => Arc::new(self.judge(half, caller, context)),
            Err(problem) => return Arc::new(Judgement::failed(problem)),
        };
        if remembers {
            let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
            if answers.len() >= ANSWERS_MAX {
                answers.clear();
            }
            answers.insert(asked, Arc::clone(&judgement));
        }
        judgement
    }

    fn caller(&self, principal: &Principal) -> Result<Arc<Caller>, String> {
        let key = (principal.user.clone(), principal.agent.clone());
        if let Some(known) = self.callers.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(known));
        }
        let all = self.tool.iter().cloned().chain(entity::principal(principal));
        let entities = Entities::from_entities(all, None).map_err(|error| error.to_string())?;
        let mut callers = self.callers.write().unwrap_or_else(PoisonError::into_inner);
        let number = Some(callers.len()).filter(|number| *number < CALLERS_MAX);
        let agent = entity::agent(principal);
        let caller = Caller { number, agent, entities, call: OnceLock::new(), commit: OnceLock::new() };
        if number.is_none() {
            return Ok(Arc::new(caller));
        }
        // Somebody may have made it in the meantime: one caller has one number.
        Ok(Arc::clone(callers.entry(key).or_insert_with(|| Arc::new(caller))))
    }

    fn judge(&self, half: &Half, caller: &Caller, context: Context) -> Judgement {
        let resource = entity::uid(Kind::Tool, self.shape.name.as_str());
        let request = match Request::new(caller.agent.clone(), half.action.clone(), resource, context, None) {
            Ok(request) => request,
            Err(error) => return Judgement::failed(error.to_string()),
        };
        let response = self.authorizer.is_authorized(&request, &half.set, &caller.entities);
        if let Some(error) = response.diagnostics().errors().next() {
            return Judgement::failed(error.to_string());
        }
        let deciding = response.diagnostics().reason();
        let rules = deciding.filter_map(|id| half.rules.get(AsRef::<str>::as_ref(id)).cloned()).collect();
        Judgement::new(response.decision() == Decision::Allow, rules)
    }
}

impl Caller {
    const fn fixed(&self, question: Question) -> &OnceLock<Arc<Judgement>> {
        match question {
            Question::Call => &self.call,
            Question::Commit => &self.commit,
        }
    }
}

impl Half {
    fn new(question: Question, shape: &ToolShape, rules: &[Arc<Rule>]) -> Result<Self, String> {
        let mut uses = Uses::default();
        let mut own = HashMap::new();
        for rule in rules.iter().filter(|rule| rule.scope.asks(question)) {
            uses.add(&rule.uses);
            own.insert(Arc::clone(&rule.at), Arc::clone(rule));
        }
        let set = PolicySet::from_policies(own.values().map(|rule| rule.policy.clone()));
        Ok(Self {
            action: entity::action(question, shape),
            set: set.map_err(|error| error.to_string())?,
            rules: own,
            personal: uses.principal,
            parts: Parts::of(&uses),
            fixed: OnceLock::new(),
        })
    }
}
