//! Contracts: what a run may do, written by the operator. Two layers, as with manifests: the text, and what it means.
//!
//! A run is bound by [`Terms`], a contract and what its opener asked for besides; asking only narrows. Terms are kept with
//! their run, so that a contract that is changed later binds later runs. What a run did so far, and what becomes of a call
//! that breaks its terms, is for the host.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::budget::{AMOUNT_MAX, Limits, OverBudget};
use crate::digest::Digest;
use crate::id::{ContractName, TenantName, ToolName, WorkflowName};
use crate::manifest::BadManifest;
use crate::tier::Tier;

/// The only format that this version reads.
pub const FORMAT: u32 = 1;
/// Largest contract, in bytes.
pub const CONTRACT_MAX_BYTES: usize = 256 * 1024;
/// Most gates of one contract: a person reads them.
pub const GATES_MAX: usize = 64;
/// Most names or patterns in one list of a contract.
pub const NAMES_MAX: usize = 256;
/// Most arguments that one gate binds.
pub const BINDS_MAX: usize = 16;
/// Longest pattern, in bytes: a tool name, and stars.
pub const PATTERN_MAX_BYTES: usize = 128;
/// Longest JSON Pointer, in bytes.
const POINTER_MAX_BYTES: usize = 256;
/// Most patterns lists of one run: the contract's and that of whoever opened it.
const LISTS_MAX: usize = 2;

/// A contract as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractText {
    /// Always 1.
    pub format: u32,
    /// What `runs.open` calls it.
    pub name: ContractName,
    /// The tenants whose runs may name it; every tenant's if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<TenantName>>,
    /// What spending of its runs is added up under; the contract's name if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowName>,
    /// Tools that may be called: names, `*` stands for any characters. Every tool if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// Tools above this tier are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tier: Option<Tier>,
    /// Tools that must have succeeded before the run can be closed with an outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<ToolName>,
    /// `optional` (default) or `required`: whether every call must say what the caller's model used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_report: Option<UsageReport>,
    /// `stop` (default), `hold` or `degrade`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_budget: Option<OverBudget>,
    /// What a run may use.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub budget: Limits,
    /// What must come before what.
    #[serde(default, rename = "gate", skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// When a run turns in circles.
    #[serde(default, skip_serializing_if = "Loops::is_empty")]
    pub loops: Loops,
}

/// `usage_report = "…"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageReport {
    /// Calls may say what the caller's model used.
    Optional,
    /// Calls must.
    Required,
}

/// `[[gate]]`: tools that may be called only after others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The tools that it is before: a name, `*` stands for any characters.
    pub tool: String,
    /// Each of these must have succeeded in the run before.
    pub after: Vec<ToolName>,
    /// Arguments that must be the same in both calls.
    #[serde(default, rename = "bind", skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<Bind>,
}

/// `[[gate.bind]]`: an argument of this call that equals one of the call before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// Where it is in the input of this call: a JSON Pointer (RFC 6901).
    pub here: String,
    /// Where it is in the input of the call before.
    pub there: String,
}

/// `[loops]`: when a run turns in circles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loops {
    /// How often one tool may be called with one input in a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_call: Option<u32>,
    /// How often one tool may fail in a row before it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// How many escalations (calls against the contract, loops, breaches) hold the run until an operator releases it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalations: Option<u32>,
}

impl Loops {
    /// Whether nothing is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn narrowed(&self, asked: &Self) -> Self {
        let less = |have: Option<u32>, asked: Option<u32>| match (have, asked) {
            (Some(have), Some(asked)) => Some(have.min(asked)),
            (have, asked) => have.or(asked),
        };
        Self {
            same_call: less(self.same_call, asked.same_call),
            failures: less(self.failures, asked.failures),
            escalations: less(self.escalations, asked.escalations),
        }
    }

    fn check(&self) -> Result<(), BadManifest> {
        let zero = |(_, limit): &(&str, Option<u32>)| *limit == Some(0);
        let all = [("same_call", self.same_call), ("failures", self.failures), ("escalations", self.escalations)];
        match all.into_iter().find(zero) {
            Some((key, _)) => Err(BadManifest::new(format!("loops.{key}"), "is 0; write at least 1, or leave it out")),
            None => Ok(()),
        }
    }
}

/// A checked contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    /// What `runs.open` calls it.
    pub name: ContractName,
    /// What spending of its runs is added up under.
    pub workflow: WorkflowName,
    /// What its runs are bound by, if nothing narrower is asked for.
    pub terms: Terms,
    tenants: Option<Vec<TenantName>>,
}

impl Contract {
    /// Whether runs of this tenant may name it.
    #[must_use]
    pub fn is_for(&self, tenant: &TenantName) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }
}

impl ContractText {
    /// What the text means. `digest` is the SHA-256 of the text.
    ///
    /// # Errors
    /// The first key that is wrong, and why.
    pub fn check(&self, digest: Digest) -> Result<Contract, BadManifest> {
        if self.format != FORMAT {
            return Err(BadManifest::new("format", format!("{} is not known; write `format = 1`", self.format)));
        }
        check_limits("budget", &self.budget)?;
        self.loops.check()?;
        check_patterns("tools", self.tools.as_deref().unwrap_or_default())?;
        let too_many = [("required", self.required.len()), ("tenants", self.tenants.as_ref().map_or(0, Vec::len))];
        if let Some((key, found)) = too_many.into_iter().find(|(_, found)| *found > NAMES_MAX) {
            return Err(BadManifest::new(key, format!("{found} names; at most {NAMES_MAX}")));
        }
        if self.gates.len() > GATES_MAX {
            return Err(BadManifest::new("gate", format!("{} gates; at most {GATES_MAX}", self.gates.len())));
        }
        self.gates.iter().try_for_each(Gate::check)?;
        let workflow = match &self.workflow {
            Some(workflow) => workflow.clone(),
            None => self
                .name
                .as_str()
                .parse()
                .map_err(|_| BadManifest::new("name", "is no name of a workflow; write `workflow`"))?,
        };
        Ok(Contract {
            name: self.name.clone(),
            workflow,
            tenants: self.tenants.clone(),
            terms: Terms {
                format: FORMAT,
                contract: Some(self.name.clone()),
                digest: Some(digest),
                tools: self.tools.iter().cloned().collect(),
                max_tier: self.max_tier,
                budget: self.budget,
                over_budget: self.over_budget.unwrap_or_default(),
                gates: self.gates.clone(),
                required: self.required.clone(),
                loops: self.loops,
                usage_required: self.usage_report == Some(UsageReport::Required),
            },
        })
    }
}

fn check_limits(key: &str, limits: &Limits) -> Result<(), BadManifest> {
    limits.check().map_err(|meter| {
        BadManifest::new(format!("{key}.{}", meter.word()), format!("is more than {AMOUNT_MAX}; leave it out instead"))
    })
}

fn check_patterns(key: &str, patterns: &[String]) -> Result<(), BadManifest> {
    if patterns.len() > NAMES_MAX {
        return Err(BadManifest::new(key, format!("{} patterns; at most {NAMES_MAX}", patterns.len())));
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*".contains(&byte);
    let wrong =
        |pattern: &&String| pattern.is_empty() || pattern.len() > PATTERN_MAX_BYTES || !pattern.bytes().all(plain);
    match patterns.iter().find(wrong) {
        Some(pattern) => Err(BadManifest::new(
            key,
            format!("`{pattern}` is not a pattern of tool names; use a-z, 0-9, `.`, `_`, `-` and `*`"),
        )),
        None => Ok(()),
    }
}

impl Gate {
    fn check(&self) -> Result<(), BadManifest> {
        check_patterns("gate.tool", std::slice::from_ref(&self.tool))?;
        if self.after.is_empty() || self.after.len() > NAMES_MAX {
            return Err(BadManifest::new("gate.after", format!("write 1 to {NAMES_MAX} names of tools")));
        }
        if self.binds.len() > BINDS_MAX {
            return Err(BadManifest::new("gate.bind", format!("{} arguments; at most {BINDS_MAX}", self.binds.len())));
        }
        let pointer = |text: &String| text.starts_with('/') && text.len() <= POINTER_MAX_BYTES;
        match self.binds.iter().flat_map(|bind| [&bind.here, &bind.there]).find(|text| !pointer(text)) {
            Some(text) => {
                Err(BadManifest::new("gate.bind", format!("`{text}` is not a JSON Pointer; write it like `/invoice`")))
            }
            None => Ok(()),
        }
    }
}

/// What one run is bound by. Kept with the run as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Always 1.
    pub format: u32,
    /// The contract, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<ContractName>,
    /// SHA-256 of the contract's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Lists of patterns; a tool has to match one of each list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Vec<String>>,
    /// Tools above this tier are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tier: Option<Tier>,
    /// What the run may use.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub budget: Limits,
    /// What happens to calls that do not fit.
    #[serde(default)]
    pub over_budget: OverBudget,
    /// What must come before what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// Tools that must have succeeded before the run can be closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<ToolName>,
    /// When the run turns in circles.
    #[serde(default, skip_serializing_if = "Loops::is_empty")]
    pub loops: Loops,
    /// Whether every call must say what the caller's model used.
    #[serde(default)]
    pub usage_required: bool,
}

/// What whoever opens a run asks for. It can only narrow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Narrowing {
    /// At most so much.
    #[serde(default)]
    pub budget: Limits,
    /// Only these tools.
    #[serde(default)]
    pub tools: Option<Vec<String>>,
    /// No tool above this tier.
    #[serde(default)]
    pub max_tier: Option<Tier>,
    /// When the run turns in circles.
    #[serde(default)]
    pub loops: Loops,
    /// What happens to calls that do not fit; the stricter of this and the contract's.
    #[serde(default)]
    pub over_budget: Option<OverBudget>,
}

/// How strict a way of being over budget is: refusing everything is strictest.
const fn strictness(over: OverBudget) -> u8 {
    match over {
        OverBudget::Degrade => 0,
        OverBudget::Hold => 1,
        OverBudget::Stop => 2,
    }
}

impl Terms {
    /// The terms of a run without a contract.
    #[must_use]
    pub fn free() -> Self {
        Self { format: FORMAT, ..Self::default() }
    }

    /// With what whoever opens the run asks for.
    ///
    /// # Errors
    /// A key of it makes no sense.
    pub fn narrowed(&self, asked: &Narrowing) -> Result<Self, BadManifest> {
        check_limits("budget", &asked.budget)?;
        asked.loops.check()?;
        check_patterns("tools", asked.tools.as_deref().unwrap_or_default())?;
        let mut terms = self.clone();
        terms.budget = terms.budget.narrowed(&asked.budget);
        terms.loops = terms.loops.narrowed(&asked.loops);
        terms.tools.extend(asked.tools.clone());
        terms.tools.truncate(LISTS_MAX);
        terms.max_tier = match (terms.max_tier, asked.max_tier) {
            (Some(have), Some(asked)) => Some(have.min(asked)),
            (have, asked) => have.or(asked),
        };
        // Without a contract there is nothing that a milder behaviour could widen.
        terms.over_budget = match asked.over_budget {
            Some(over) if terms.contract.is_none() || strictness(over) > strictness(terms.over_budget) => over,
            _ => terms.over_budget,
        };
        Ok(terms)
    }

    /// Why a tool is outside of the terms, if it is.
    #[must_use]
    pub fn refuses(&self, tool: &ToolName, tier: Tier) -> Option<String> {
        let listed = |list: &Vec<String>| list.iter().any(|pattern| matches(pattern, tool.as_str()));
        if !self.tools.iter().all(listed) {
            return Some(format!("`{tool}` is not a tool of this run{}", self.by()));
        }
        let most = self.max_tier.filter(|most| tier > *most)?;
        Some(format!(
            "`{tool}` is of tier {}, and this run may call tools up to tier {}{}",
            tier.number(),
            most.number(),
            self.by()
        ))
    }

    fn by(&self) -> String {
        self.contract.as_ref().map_or_else(String::new, |name| format!(" (contract `{name}`)"))
    }

    /// The gates before a tool.
    pub fn gates_of<'t>(&'t self, tool: &'t ToolName) -> impl Iterator<Item = &'t Gate> {
        self.gates.iter().filter(|gate| matches(&gate.tool, tool.as_str()))
    }

    /// Whether it matters later that this tool succeeded.
    #[must_use]
    pub fn remembers(&self, tool: &ToolName) -> bool {
        self.required.contains(tool) || self.gates.iter().any(|gate| gate.after.contains(tool))
    }
}

impl Gate {
    /// Whether a call that succeeded before has the same arguments as this one, where they are bound.
    #[must_use]
    pub fn binds(&self, this: &Value, before: &Value) -> bool {
        self.binds.iter().all(|bind| {
            let here = this.pointer(&bind.here);
            here.is_some() && here == before.pointer(&bind.there)
        })
    }
}

/// Whether a pattern matches a whole name; `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part).filter(|_| !part.is_empty()) {
            Some((_, after)) => rest = after,
            None if part.is_empty() => {}
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::Usd;
    use serde_json::json;

    fn contract(edit: impl FnOnce(&mut Value)) -> Result<Contract, String> {
        let mut value = json!({"format": 1, "name": "invoices", "tools": ["invoices.*"], "max_tier": 1,
            "budget": {"calls": 10, "cost_usd": "0.5"}, "loops": {"same_call": 3},
            "gate": [{"tool": "invoices.pay", "after": ["invoices.check"],
                "bind": [{"here": "/invoice", "there": "/id"}]}]});
        edit(&mut value);
        let text: ContractText = serde_json::from_value(value).map_err(|e| e.to_string())?;
        text.check(Digest::of(b"")).map_err(|e| e.to_string())
    }

    fn name(text: &str) -> ToolName {
        text.parse().expect("a name")
    }

    #[test]
    fn r19_a_contract_says_which_tools_up_to_which_tier() {
        let terms = contract(|_| ()).expect("valid").terms;
        assert_eq!(terms.refuses(&name("invoices.pay"), Tier::Reversible), None);
        assert!(
            terms.refuses(&name("invoices.pay"), Tier::Consequential).is_some_and(|why| why.contains("up to tier 1"))
        );
        assert!(terms.refuses(&name("mailer"), Tier::ReadOnly).is_some_and(|why| why.contains("contract `invoices`")));
        let everything = contract(|v| drop(v.as_object_mut().expect("object").remove("tools"))).expect("valid");
        assert_eq!(everything.terms.refuses(&name("mailer"), Tier::Reversible), None);
    }

    #[test]
    fn r19_whoever_opens_a_run_narrows_the_contract_and_never_widens_it() {
        let terms = contract(|_| ()).expect("valid").terms;
        let asked: Narrowing = serde_json::from_value(json!({
            "budget": {"calls": 99, "cost_usd": "0.2", "fuel": 5}, "tools": ["*"], "max_tier": 3,
            "loops": {"same_call": 9, "failures": 2}, "over_budget": "degrade"
        }))
        .expect("asked");
        let narrowed = terms.narrowed(&asked).expect("terms");
        assert_eq!((narrowed.budget.calls, narrowed.budget.fuel), (Some(10), Some(5)));
        assert_eq!(narrowed.budget.cost_usd, Some(Usd::of_micro(200_000)));
        assert_eq!((narrowed.loops.same_call, narrowed.loops.failures), (Some(3), Some(2)));
        assert_eq!((narrowed.max_tier, narrowed.over_budget), (Some(Tier::Reversible), OverBudget::Stop));
        assert!(narrowed.refuses(&name("mailer"), Tier::ReadOnly).is_some(), "every list has to match");
        let less = terms.narrowed(&Narrowing { tools: Some(vec!["invoices.check".into()]), ..asked.clone() });
        assert!(less.expect("terms").refuses(&name("invoices.pay"), Tier::Reversible).is_some());
        let none = terms.narrowed(&Narrowing { tools: Some(Vec::new()), ..Narrowing::default() }).expect("terms");
        assert!(none.refuses(&name("invoices.pay"), Tier::ReadOnly).is_some(), "an empty list allows nothing");
        let free = Terms::free().narrowed(&asked).expect("terms");
        assert_eq!((free.budget.calls, free.over_budget), (Some(99), OverBudget::Degrade));
        let kept: Terms = serde_json::from_str(&serde_json::to_string(&narrowed).expect("text")).expect("terms");
        assert_eq!(kept, narrowed, "terms survive being kept");
    }

    #[test]
    fn r19_a_gate_binds_arguments_and_what_is_missing_equals_nothing() {
        let terms = contract(|_| ()).expect("valid").terms;
        let pay = name("invoices.pay");
        let gate = terms.gates_of(&pay).next().expect("a gate");
        let ok = |this: Value, before: Value| gate.binds(&this, &before);
        assert!(ok(json!({"invoice": {"no": 7}}), json!({"id": {"no": 7}})));
        assert!(!ok(json!({"invoice": 7}), json!({"id": 8})));
        assert!(!ok(json!({"invoice": 7}), json!({"id": "7"})));
        assert!(!ok(json!({}), json!({})), "two that are missing are not the same");
        assert!(ok(json!({"invoice": null}), json!({"id": null})));
        assert!(terms.remembers(&name("invoices.check")) && !terms.remembers(&pay));
        assert_eq!(terms.gates_of(&name("invoices.check")).count(), 0);
    }

    #[test]
    fn contradictions_and_unknown_keys_are_refused_with_the_key() {
        for (edit, says) in [
            ((|v| v["format"] = json!(2)) as fn(&mut Value), "`format`"),
            (|v| v["name"] = json!("Invoices"), "is not a contract name"),
            (|v| v["tools"] = json!(["Invoices"]), "`tools`"),
            (|v| v["tools"] = json!([""]), "`tools`"),
            (|v| v["budget"] = json!({"calls": -1}), "invalid value"),
            (|v| v["budget"] = json!({"fuel": AMOUNT_MAX + 1}), "`budget.fuel`"),
            (|v| v["budget"] = json!({"cals": 1}), "unknown field `cals`"),
            (|v| v["loops"] = json!({"same_call": 0}), "`loops.same_call`"),
            (|v| v["loops"] = json!({"escalations": 0}), "`loops.escalations`"),
            (|v| v["gate"][0]["after"] = json!([]), "`gate.after`"),
            (|v| v["gate"][0]["bind"][0]["here"] = json!("invoice"), "`gate.bind`"),
            (|v| v["gate"][0]["befor"] = json!("x"), "unknown field `befor`"),
            (|v| v["over_budget"] = json!("warn"), "unknown variant `warn`"),
            (|v| v["usage_report"] = json!("always"), "unknown variant `always`"),
            (|v| v["max_tier"] = json!(4), "not a risk tier"),
        ] {
            let message = contract(edit).map(|_| ()).expect_err(says);
            assert!(message.contains(says), "{message} should contain {says}");
        }
        let gates = |n: usize| contract(|v| v["gate"] = json!(vec![v["gate"][0].clone(); n])).is_ok();
        assert!(gates(GATES_MAX) && !gates(GATES_MAX + 1));
        let binds =
            |n: usize| contract(|v| v["gate"][0]["bind"] = json!(vec![v["gate"][0]["bind"][0].clone(); n])).is_ok();
        assert!(binds(BINDS_MAX) && !binds(BINDS_MAX + 1));
        let names = |n: usize| contract(|v| v["tools"] = json!(vec!["a"; n])).is_ok();
        assert!(names(NAMES_MAX) && !names(NAMES_MAX + 1));
        let long = |n: usize| contract(|v| v["tools"] = json!(["a".repeat(n)])).is_ok();
        assert!(long(PATTERN_MAX_BYTES) && !long(PATTERN_MAX_BYTES + 1));
    }

    #[test]
    fn a_star_stands_for_any_characters_and_everything_else_for_itself() {
        for (pattern, name, wanted) in [
            ("pay", "pay", true),
            ("pay", "pays", false),
            ("pay", "repay", false),
            ("*", "anything", true),
            ("notes.*", "notes.add", true),
            ("notes.*", "notes", false),
            ("*.add", "notes.add", true),
            ("*.add", "add", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("**", "x", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*a", "aba", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
