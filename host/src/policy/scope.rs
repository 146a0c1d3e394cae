//! What a policy can be about, read off its scope and its conditions.
//!
//! The scope says which questions and tools a policy may match, so that the others are never asked (D16); the conditions say
//! which parts of a context they look at, so that the others are never made. Both err towards more: a policy that is kept
//! although it cannot match costs time, never an answer.

use std::collections::BTreeSet;

use cedar_policy::{ActionConstraint, EntityUid, Policy, PrincipalConstraint, ResourceConstraint};
use serde_json::Value;

/// Deepest nesting of one condition: conditions are evaluated by recursion where calls are served.
pub const CONDITION_DEPTH_MAX: usize = 100;

/// What policies are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Question {
    /// May it be called with this input?
    Call,
    /// May what it wants to change be committed?
    Commit,
}

impl Question {
    /// Both, in the order in which they are asked.
    pub const ALL: [Self; 2] = [Self::Call, Self::Commit];

    /// The name of the action that stands for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Commit => "commit",
        }
    }
}

/// The requests that a policy may match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    questions: BTreeSet<Question>,
    /// The tools; nothing for every tool.
    tools: Option<BTreeSet<String>>,
}

impl Scope {
    /// The scope of a policy.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let mut scope = match policy.action_constraint() {
            ActionConstraint::Any => Self { questions: Question::ALL.into(), tools: None },
            ActionConstraint::Eq(action) => Self::of_actions(&[action]),
            ActionConstraint::In(actions) => Self::of_actions(&actions),
        };
        let resource = match policy.resource_constraint() {
            ResourceConstraint::Eq(tool) | ResourceConstraint::In(tool) | ResourceConstraint::IsIn(_, tool) => {
                Some(tool)
            }
            ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        };
        if let Some(tool) = resource {
            scope.tools = Some(BTreeSet::from([tool.id().unescaped().to_owned()]));
        }
        scope
    }

    fn of_actions(actions: &[EntityUid]) -> Self {
        let mut scope = Self { questions: BTreeSet::new(), tools: Some(BTreeSet::new()) };
        for action in actions {
            let id = action.id().unescaped();
            for question in Question::ALL {
                match id.strip_prefix(question.word()) {
                    Some("") => {
                        scope.questions.insert(question);
                        scope.tools = None;
                    }
                    Some(rest) if rest.starts_with(':') => {
                        scope.questions.insert(question);
                        let tool = rest.trim_start_matches(':').to_owned();
                        scope.tools.iter_mut().for_each(|tools| drop(tools.replace(tool.clone())));
                    }
                    _ => {}
                }
            }
        }
        scope
    }

    /// Whether a request with this question may match.
    #[must_use]
    pub fn asks(&self, question: Question) -> bool {
        self.questions.contains(&question)
    }

    /// The tools that it names; nothing if it is about every tool.
    #[must_use]
    pub const fn tools(&self) -> Option<&BTreeSet<String>> {
        self.tools.as_ref()
    }
}

/// What conditions look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Whether the answer depends on who asks, beyond the tenant.
    pub principal: bool,
    /// The context as a whole.
    whole: bool,
    /// Parts of the context.
    parts: BTreeSet<String>,
}

impl Uses {
    /// What a policy looks at, from its JSON form.
    ///
    /// # Errors
    /// A condition is nested too deeply.
    pub fn of(policy: &Policy) -> Result<Self, String> {
        let json = policy.to_json().map_err(|error| error.to_string())?;
        let mut uses = Self {
            principal: !matches!(policy.principal_constraint(), PrincipalConstraint::Any | PrincipalConstraint::Is(_)),
            ..Self::default()
        };
        // Every operator is a member with its operands beneath: two levels of JSON for one of Cedar.
        uses.walk(json.get("conditions").unwrap_or(&Value::Null), 0)?;
        Ok(uses)
    }

    fn walk(&mut self, node: &Value, depth: usize) -> Result<(), String> {
        if depth > 2 * CONDITION_DEPTH_MAX {
            return Err(format!(
                "a condition is nested more than {CONDITION_DEPTH_MAX} deep; write several policies, or use a set"
            ));
        }
        match node {
            Value::Array(nodes) => nodes.iter().try_for_each(|node| self.walk(node, depth + 1)),
            Value::Object(members) => {
                if let Some(member) = member_of_time(node) {
                    self.parts.insert(format!("{TIME}.{member}"));
                    return Ok(());
                }
                if let Some(part) = part_of_context(node) {
                    self.parts.insert(part.to_owned());
                    return Ok(());
                }
                match members.get("Var").and_then(Value::as_str) {
                    Some("context") => self.whole = true,
                    Some("principal") => self.principal = true,
                    _ => {}
                }
                members.values().try_for_each(|node| self.walk(node, depth + 1))
            }
            _ => Ok(()),
        }
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.principal |= other.principal;
        self.whole |= other.whole;
        self.parts.extend(other.parts.iter().cloned());
    }

    /// Whether anything looks at this part of the context, or, where it is written `part.member`, at this member of it.
    #[must_use]
    pub fn part(&self, name: &str) -> bool {
        let looked_at = |name: &str| self.parts.contains(name);
        self.whole || looked_at(name) || name.split_once('.').is_some_and(|(part, _)| looked_at(part))
    }
}

/// The part whose members are told apart: a second is over sooner than an hour.
const TIME: &str = "time";

/// `context.time.member` or `context.time has member`: the member.
fn member_of_time(node: &Value) -> Option<&str> {
    let access = node.get(".").or_else(|| node.get("has"))?;
    let is_time = access.get("left").and_then(part_of_context) == Some(TIME);
    access.get("attr").and_then(Value::as_str).filter(|_| is_time)
}

/// `context.part` or `context has part`: the part.
fn part_of_context(node: &Value) -> Option<&str> {
    let access = node.get(".").or_else(|| node.get("has"))?;
    let is_context = access.pointer("/left/Var").and_then(Value::as_str) == Some("context");
    access.get("attr").and_then(Value::as_str).filter(|_| is_context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        Policy::parse(None, text).expect("a policy")
    }

    #[test]
    fn a_scope_keeps_every_request_that_may_match() {
        let scope = |text: &str| {
            let scope = Scope::of(&policy(text));
            let tools = scope.tools().map(|tools| tools.iter().cloned().collect::<Vec<_>>().join(","));
            (scope.asks(Question::Call), scope.asks(Question::Commit), tools)
        };
        let named = |tools: &str| Some(tools.to_owned());
        assert_eq!(scope("permit(principal, action, resource);"), (true, true, None));
        assert_eq!(scope("permit(principal, action in Action::\"call\", resource);"), (true, false, None));
        assert_eq!(scope("permit(principal, action == Action::\"call:a\", resource);"), (true, false, named("a")));
        let several = "permit(principal, action in [Action::\"call:a\", Action::\"commit:b\"], resource);";
        assert_eq!(scope(several), (true, true, named("a,b")));
        let mixed = "permit(principal, action in [Action::\"call:a\", Action::\"commit\"], resource);";
        assert_eq!(scope(mixed), (true, true, None));
        let one = "permit(principal, action in Action::\"commit\", resource == Tool::\"a\");";
        assert_eq!(scope(one), (false, true, named("a")));
        assert_eq!(scope("permit(principal, action == Action::\"fly\", resource);"), (false, false, named("")));
    }

    #[test]
    fn uses_name_the_parts_of_a_context_or_all_of_it() {
        let uses = |condition: &str| {
            Uses::of(&policy(&format!("permit(principal, action, resource) when {{ {condition} }};"))).expect("uses")
        };
        assert_eq!(uses("resource.tier > 1"), Uses::default());
        let some = uses("context.time.hour > 8 && context has run");
        assert!(some.part("time.hour") && some.part("run") && !some.part("input") && !some.principal);
        assert!(!some.part("time.epoch_s") && !some.part("time"), "only what it looks at");
        assert!(uses("context.time == context.time").part("time.hour"), "all of it");
        assert!(uses("context.time.hour > 8 && context has time").part("time.weekday"));
        assert!(uses("{\"a\": context}.a.input.b").part("anything"));
        assert!(uses("principal in User::\"a/b\"").principal);
        assert!(uses("[\"context\"].contains(\"context\")") == Uses::default());
        let scoped = policy("permit(principal in Tenant::\"a\", action, resource);");
        assert!(Uses::of(&scoped).expect("uses").principal);
    }

    #[test]
    fn conditions_are_refused_where_they_are_nested_too_deeply() {
        let chain = |n: usize| {
            let condition = vec!["true"; n].join(" && ");
            Uses::of(&policy(&format!("permit(principal, action, resource) when {{ {condition} }};"))).is_ok()
        };
        assert!(chain(CONDITION_DEPTH_MAX - 1) && !chain(CONDITION_DEPTH_MAX + 1));
    }
}
