//! From texts to rules: parsing, reading annotations, and strict validation against the schema of the installed tools.
//!
//! Parser and validator recurse over what people wrote, so they run on a thread whose stack is as large as the largest file
//! can make them need. What is deeper than conditions may be is refused there and never reaches a thread that serves calls. A
//! policy that can never match is an error: a `forbid` with a typing mistake must not look like protection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{EntityUid, Policy, PolicyId, PolicySet, ValidationMode, ValidationWarning, Validator};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::ToolName;
use toolkeep_core::tier::Tier;

use super::rule::Rule;
use super::shape::ToolShape;
use super::source::{Finding, Source};
use super::vocabulary;

/// Stack of the thread that reads policies, in bytes: what a file full of nested conditions needs, and as much again.
const STACK_BYTES: usize = 256 * 1024 * 1024;
/// Most findings that are told: nobody reads more before mending some.
pub const FINDINGS_MAX: usize = 50;
/// Most policies of one set.
pub const POLICIES_MAX: usize = 10_000;

/// The tool of the daemon itself that policies can name.
pub const UNDO: &str = "toolkeep.undo";

/// The rules of a set, and what looks wrong with it.
pub(super) type Compiled = Result<(Vec<Arc<Rule>>, Vec<Finding>), Vec<Finding>>;

/// Read and validate.
pub(super) fn rules(sources: &[Source], tools: &[Arc<ToolShape>]) -> Compiled {
    let compiled = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("policies".to_owned()).stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, || compile(sources, tools)) {
            Ok(thread) => thread.join().unwrap_or_else(|_| Err(vec![Finding::whole(".", "BUG: reading it panicked")])),
            Err(error) => Err(vec![Finding::whole(".", format!("no thread could be started to read it: {error}"))]),
        }
    });
    compiled.map_err(|mut findings| {
        findings.truncate(FINDINGS_MAX);
        findings
    })
}

fn compile(sources: &[Source], tools: &[Arc<ToolShape>]) -> Compiled {
    let mut rules = Vec::new();
    let mut findings = Vec::new();
    for source in sources {
        match source.check().map_err(|finding| vec![finding]).and_then(|()| parse(source)) {
            Ok(parsed) => rules.extend(parsed),
            Err(wrong) => findings.extend(wrong),
        }
    }
    if rules.len() > POLICIES_MAX {
        findings.push(Finding::whole(".", format!("has {} policies; at most {POLICIES_MAX}", rules.len())));
    }
    findings.extend(same_ids(&rules));
    if !findings.is_empty() {
        return Err(findings);
    }
    let warnings = validate(sources, &rules, tools)?;
    Ok((rules, warnings))
}

/// The policies of one file.
fn parse(source: &Source) -> Result<Vec<Arc<Rule>>, Vec<Finding>> {
    let set: PolicySet = source.text.parse().map_err(|errors: cedar_policy::ParseErrors| {
        errors.iter().map(|error| finding(source, &DetailedError::from(error))).collect::<Vec<_>>()
    })?;
    if let Some(template) = set.templates().next() {
        let at = source.text.find(&template.to_string()).unwrap_or_default();
        return Err(vec![source.at(at, "is a template; write the principal or the tool where it has a slot")]);
    }
    let mut policies: Vec<&Policy> = set.policies().collect();
    // Cedar numbers them in the order of the text.
    policies.sort_by_key(|policy| number(policy.id()));
    let (mut rules, mut wrong, mut from) = (Vec::new(), Vec::new(), 0);
    for policy in policies {
        let text = policy.to_string();
        let at = source.text.get(from..).and_then(|rest| rest.find(&text)).map_or(from, |at| from + at);
        from = at;
        let place = source.at(at, "");
        let taken = |name: &str| rules.iter().any(|rule: &Arc<Rule>| *rule.at == *name);
        let line = format!("{}:{}", source.name, place.line);
        let name = if taken(&line) { format!("{line}:{}", place.column) } else { line };
        match Rule::new(&name, source.tenant.clone(), policy) {
            Ok(rule) => rules.push(Arc::new(rule)),
            Err(message) => wrong.push(source.at(at, message)),
        }
        from += 1;
    }
    if wrong.is_empty() { Ok(rules) } else { Err(wrong) }
}

fn number(id: &PolicyId) -> usize {
    let text: &str = id.as_ref();
    text.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap_or(usize::MAX)
}

/// Names that two policies have: whoever reads a decision must know which one decided.
fn same_ids(rules: &[Arc<Rule>]) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let of = |rule: &Rule| rule.notes.id.clone().map(|id| (rule.tenant.clone(), id));
    rules
        .iter()
        .filter_map(|rule| of(rule).filter(|own| !seen.insert(own.clone())).map(|(_, id)| (rule, id)))
        .map(|(rule, id)| placed(rule, format!("another policy has `@id(\"{id}\")` too")))
        .collect()
}

/// A finding about a rule as a whole.
fn placed(rule: &Rule, message: impl Into<String>) -> Finding {
    let mut parts = rule.at.splitn(2, ':');
    let mut finding = Finding::whole(parts.next().unwrap_or_default(), message);
    let line = parts.next().and_then(|place| place.split(':').next()).and_then(|line| line.parse().ok());
    finding.line = line.unwrap_or_default();
    finding
}

/// Validate the rules against the schema of the tools. Gives what looks wrong.
///
/// The validator tries every policy with every action of a schema. So the policies of a tool are validated with the actions
/// of that tool, and only those about every tool with one tool of each kind.
fn validate(sources: &[Source], rules: &[Arc<Rule>], tools: &[Arc<ToolShape>]) -> Result<Vec<Finding>, Vec<Finding>> {
    let undo: ToolName = UNDO.parse().map_err(|_| vec![Finding::whole(".", "BUG: the name of the undo tool")])?;
    let none = Digest::of(b"");
    let undo = Arc::new(ToolShape::internal(undo, Tier::Irreversible, none, none));
    let by_name: BTreeMap<&str, &Arc<ToolShape>> =
        tools.iter().chain([&undo]).map(|tool| (tool.name.as_str(), tool)).collect();
    let mut groups: BTreeMap<Option<BTreeSet<String>>, Vec<&Arc<Rule>>> = BTreeMap::new();
    let mut general = BTreeSet::new();
    let mut wrong = Vec::new();
    for rule in rules {
        let named: BTreeSet<String> = rule.policy.entity_literals().iter().filter_map(tool_of).collect();
        let missing = named.iter().filter(|tool| !by_name.contains_key(tool.as_str()));
        wrong.extend(missing.map(|tool| placed(rule, format!("no tool is called `{tool}`"))));
        let key = rule.scope.tools().filter(|tools| !tools.is_empty()).map(|_| named.clone());
        if key.is_none() {
            general.extend(named);
        }
        groups.entry(key).or_default().push(rule);
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut warnings = Vec::new();
    for (named, rules) in &groups {
        let shown: Vec<&ToolShape> = match named {
            Some(named) => named.iter().filter_map(|name| by_name.get(name.as_str())).map(|tool| &***tool).collect(),
            None => vocabulary::representatives(by_name.values().copied(), &general),
        };
        let (errors, others) = validate_with(sources, rules, &shown);
        wrong.extend(errors);
        warnings.extend(others);
    }
    if wrong.is_empty() { Ok(warnings) } else { Err(wrong) }
}

/// Validate rules with the actions of these tools: what is wrong, and what looks wrong.
fn validate_with(sources: &[Source], rules: &[&Arc<Rule>], tools: &[&ToolShape]) -> (Vec<Finding>, Vec<Finding>) {
    let whole = |message: String| (vec![Finding::whole(".", message)], Vec::new());
    let schema = match vocabulary::schema(tools.iter().copied()) {
        Ok(schema) => schema,
        Err(message) => return whole(message),
    };
    let set = match PolicySet::from_policies(rules.iter().map(|rule| rule.policy.clone())) {
        Ok(set) => set,
        Err(error) => return whole(error.to_string()),
    };
    let result = Validator::new(schema).validate(&set, ValidationMode::default());
    let place = |id: &PolicyId, detail: &DetailedError| {
        let rule = rules.iter().find(|rule| *rule.at == *AsRef::<str>::as_ref(id));
        let source =
            rule.and_then(|rule| sources.iter().find(|source| rule.at.starts_with(&format!("{}:", source.name))));
        match (source, rule, detail.source_locations.is_empty()) {
            (Some(source), _, false) => finding(source, detail),
            (_, Some(rule), _) => placed(rule, message(detail)),
            _ => Finding::whole(".", message(detail)),
        }
    };
    let mut wrong: Vec<Finding> =
        result.validation_errors().map(|error| place(error.policy_id(), &DetailedError::from(error))).collect();
    let mut warnings = Vec::new();
    for warning in result.validation_warnings() {
        let mut found = place(warning.policy_id(), &DetailedError::from(warning));
        if matches!(warning, ValidationWarning::ImpossiblePolicy(_)) {
            "can never match: no tool and no context makes it true".clone_into(&mut found.message);
            wrong.push(found);
        } else {
            found.warning = true;
            warnings.push(found);
        }
    }
    (wrong, warnings)
}

/// The tool that an entity names: a tool, or the action of one.
fn tool_of(literal: &EntityUid) -> Option<String> {
    let id = literal.id().unescaped();
    match literal.type_name().to_string().as_str() {
        "Tool" => Some(id.to_owned()),
        "Action" => id.split_once(':').map(|(_, tool)| tool.to_owned()),
        _ => None,
    }
}

fn message(detail: &DetailedError) -> String {
    let help = detail.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{}{help}", detail.message).replace('\n', " ")
}

fn finding(source: &Source, detail: &DetailedError) -> Finding {
    match detail.source_locations.first() {
        Some(place) => source.at(place.loc.start, message(detail)),
        None => Finding::whole(&source.name, message(detail)),
    }
}
