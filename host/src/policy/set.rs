//! A policy set: read, validated, sliced, immutable.
//!
//! A set is made from texts and the shapes of the installed tools, all or nothing. It can be asked about any tool,
//! also one that was installed since. Tenants' own policies are in the slices of that tenant only, and so in no digest
//! of another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value, json};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{TenantName, ToolName};
use toolkeep_core::policy::{Facts, Verdict, floor};
use toolkeep_core::principal::Principal;

use super::compile;
use super::context::{Matter, PlanFacts};
use super::judgement::Judgement;
use super::rule::Rule;
use super::shape::ToolShape;
use super::slice::Slice;
use super::source::{self, Finding, Source};

/// The name of the file of the set that is in force without a directory.
const DEFAULT_NAME: &str = "default.cedar";
/// The policies that are in force without a directory.
pub const DEFAULT: &str = include_str!("default.cedar");

/// A validated policy set.
#[derive(Debug)]
pub struct Policies {
    sources: Vec<Source>,
    rules: Vec<Arc<Rule>>,
    /// Rules about every tool, and those about each: places in `rules`.
    general: Vec<usize>,
    by_tool: HashMap<String, Vec<usize>>,
    digest: Digest,
    digests: BTreeMap<TenantName, Digest>,
    warnings: Vec<Finding>,
    slices: RwLock<HashMap<TenantName, HashMap<ToolName, Arc<Slice>>>>,
}

/// What happens to a plan, and why.
#[derive(Debug, Clone)]
pub struct Ruling {
    /// What happens to it.
    pub verdict: Verdict,
    /// What the policies said to it; nothing where the floor alone decided.
    pub plan: Option<Arc<Judgement>>,
}

/// What the floor is told of a plan.
fn floor_of<'a>(matter: &Matter<'a>) -> Option<Facts<'a>> {
    let PlanFacts { effects, declared, hold, undo_bytes, .. } = matter.plan?;
    let (autonomy, taint) = (matter.around.autonomy, matter.around.taint);
    Some(Facts { effects, declared, hold, undo_bytes, autonomy, taint })
}

/// What a set says about a call and its plan.
#[derive(Debug)]
pub struct Answer {
    /// What the daemon itself says to the plan, whatever the policies say.
    pub floor: Option<Verdict>,
    /// To the call.
    pub call: Arc<Judgement>,
    /// To the plan.
    pub plan: Option<Arc<Judgement>>,
    /// What follows.
    pub verdict: Verdict,
}

impl Answer {
    /// What follows, in a word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        word(&self.verdict, self.plan.is_some())
    }

    /// The answer as it is shown.
    #[must_use]
    pub fn view(&self) -> Value {
        let floor = self.floor.as_ref().map(|floor| {
            let mut told = details(floor);
            if let Value::Object(members) = &mut told {
                members.insert("decision".to_owned(), json!(word(floor, true)));
            }
            told
        });
        let mut view = json!({"decision": self.word(), "call": self.call.view(),
            "plan": self.plan.as_ref().map(|plan| plan.view()), "floor": floor});
        let told = details(&self.verdict);
        if let (Value::Object(view), Value::Object(told)) = (&mut view, told) {
            view.extend(told);
        }
        view
    }
}

/// A verdict in a word.
#[must_use]
pub const fn word(verdict: &Verdict, of_plan: bool) -> &'static str {
    match verdict {
        Verdict::Nothing => "nothing",
        Verdict::Commit if of_plan => "commit",
        Verdict::Commit => "allow",
        Verdict::Hold(_) => "hold",
        Verdict::Preview { .. } => "preview",
        Verdict::Deny { .. } => "deny",
    }
}

/// Whose consent a verdict wants, or why it is as it is.
fn details(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Nothing | Verdict::Commit => json!({}),
        Verdict::Hold(need) => json!({"approvers": need.approvers, "groups": need.groups, "because": need.reason,
            "ttl_ms": need.ttl_ms, "confirm": need.confirm}),
        Verdict::Preview { reason: because } | Verdict::Deny { breach: because } => json!({"because": because}),
    }
}

impl Policies {
    /// Read and validate a set against the installed tools.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(sources: Vec<Source>, tools: &[Arc<ToolShape>]) -> Result<Self, Vec<Finding>> {
        let (rules, warnings) = compile::rules(&sources, tools)?;
        Ok(Self::of(sources, rules, warnings))
    }

    /// The set that is in force where the configuration names no directory.
    ///
    /// # Errors
    /// It is not valid. Tests say that it is.
    pub fn built_in(tools: &[Arc<ToolShape>]) -> Result<Self, Vec<Finding>> {
        Self::new(vec![Source::named(DEFAULT_NAME, DEFAULT).map_err(|finding| vec![finding])?], tools)
    }

    /// The set without policies: nobody may do anything.
    #[must_use]
    pub fn nothing() -> Self {
        Self::of(Vec::new(), Vec::new(), Vec::new())
    }

    fn of(sources: Vec<Source>, rules: Vec<Arc<Rule>>, warnings: Vec<Finding>) -> Self {
        let mut general = Vec::new();
        let mut by_tool: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, rule) in rules.iter().enumerate() {
            match rule.scope.tools() {
                None => general.push(at),
                Some(tools) => tools.iter().for_each(|tool| by_tool.entry(tool.clone()).or_default().push(at)),
            }
        }
        let applies = |tenant: Option<&TenantName>| {
            source::digest(sources.iter().filter(|source| source.tenant.is_none() || source.tenant.as_ref() == tenant))
        };
        let tenants: BTreeSet<&TenantName> = sources.iter().filter_map(|source| source.tenant.as_ref()).collect();
        let digests = tenants.into_iter().map(|tenant| (tenant.clone(), applies(Some(tenant)))).collect();
        let digest = applies(None);
        Self { sources, rules, general, by_tool, digest, digests, warnings, slices: RwLock::default() }
    }

    /// Names the policies that apply to a tenant.
    #[must_use]
    pub fn digest(&self, tenant: &TenantName) -> Digest {
        self.digests.get(tenant).copied().unwrap_or(self.digest)
    }

    /// Names the policies that apply to everybody.
    #[must_use]
    pub const fn digest_for_all(&self) -> Digest {
        self.digest
    }

    /// The tenants that have policies of their own, with the digests of what applies to them.
    pub fn tenants(&self) -> impl Iterator<Item = (&TenantName, Digest)> {
        self.digests.iter().map(|(tenant, digest)| (tenant, *digest))
    }

    /// Its files.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// How many policies it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// What looks wrong, but can be used.
    #[must_use]
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    /// What the policies say: to the call, or, where `matter` has a plan, to the plan.
    #[must_use]
    pub fn judge(&self, principal: &Principal, tool: &Arc<ToolShape>, matter: &Matter<'_>) -> Arc<Judgement> {
        match self.slice(&principal.tenant, tool) {
            Ok(slice) => slice.ask(principal, matter),
            Err(problem) => Arc::new(Judgement::failed(problem)),
        }
    }

    /// What happens to a plan: the strictest of what the daemon itself says, what was said to the call, and what the policies
    /// say to the plan.
    #[must_use]
    pub fn verdict(
        &self,
        principal: &Principal,
        tool: &Arc<ToolShape>,
        granted: &Judgement,
        matter: &Matter<'_>,
    ) -> Verdict {
        self.ruling(principal, tool, granted, matter).verdict
    }

    /// As [`Self::verdict`], with what the policies said to the plan.
    #[must_use]
    pub fn ruling(
        &self,
        principal: &Principal,
        tool: &Arc<ToolShape>,
        granted: &Judgement,
        matter: &Matter<'_>,
    ) -> Ruling {
        let Some(facts) = floor_of(matter) else { return Ruling { verdict: granted.verdict(), plan: None } };
        match floor(&facts) {
            decided @ (Verdict::Nothing | Verdict::Deny { .. }) => Ruling { verdict: decided, plan: None },
            floor => {
                let said = self.judge(principal, tool, matter);
                let verdict = floor.stricter(granted.verdict()).stricter(said.verdict());
                Ruling { verdict, plan: Some(said) }
            }
        }
    }

    /// Everything that the policies say: to the call, to its plan if there is one, and what follows.
    #[must_use]
    pub fn answer(&self, principal: &Principal, tool: &Arc<ToolShape>, matter: &Matter<'_>) -> Answer {
        let call = self.judge(principal, tool, &Matter { plan: None, ..*matter });
        let plan = matter.plan.map(|_| self.judge(principal, tool, matter));
        let verdict = self.verdict(principal, tool, &call, matter);
        let floor = floor_of(matter).map(|facts| floor(&facts));
        Answer { floor, call, plan, verdict }
    }

    /// The policies that may match a tool for a tenant.
    fn slice(&self, tenant: &TenantName, tool: &Arc<ToolShape>) -> Result<Arc<Slice>, String> {
        let known = |slices: &HashMap<TenantName, HashMap<ToolName, Arc<Slice>>>| {
            let slice = slices.get(tenant).and_then(|of_tenant| of_tenant.get(&tool.name));
            slice.filter(|slice| slice.shape().is_same(tool)).cloned()
        };
        if let Some(slice) = known(&self.slices.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(slice);
        }
        let named = self.by_tool.get(tool.name.as_str());
        let applies = |rule: &&Arc<Rule>| rule.tenant.is_none() || rule.tenant.as_ref() == Some(tenant);
        let places = self.general.iter().chain(named.into_iter().flatten());
        let rules: Vec<Arc<Rule>> = places.filter_map(|at| self.rules.get(*at)).filter(applies).cloned().collect();
        let slice = Arc::new(Slice::new(Arc::clone(tool), &rules)?);
        let mut slices = self.slices.write().unwrap_or_else(PoisonError::into_inner);
        slices.entry(tenant.clone()).or_default().insert(tool.name.clone(), Arc::clone(&slice));
        Ok(slice)
    }
}
