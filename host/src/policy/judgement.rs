//! What policies said to one question, and what follows from it.
//!
//! Default deny, forbid wins, and a policy that cannot be evaluated denies: skipping it could skip a `forbid` or the
//! obligation of a permit. Of several permits that allow, all obligations hold together.

use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::policy::Verdict;

use super::obligation::Obligations;
use super::rule::Rule;

/// The answer to one question.
#[derive(Debug, Clone)]
pub struct Judgement {
    allowed: bool,
    deciding: Vec<Arc<Rule>>,
    obligations: Obligations,
    problem: Option<String>,
}

impl Judgement {
    /// The deciding policies allow or forbid it; without any it is denied.
    #[must_use]
    pub fn new(allowed: bool, mut deciding: Vec<Arc<Rule>>) -> Self {
        deciding.sort_by(|one, two| one.at.cmp(&two.at));
        let obligations = deciding.iter().fold(Obligations::default(), |all, rule| all.and(&rule.notes.obligations));
        Self { allowed, deciding, obligations, problem: None }
    }

    /// The question could not be answered, so the answer is no.
    #[must_use]
    pub fn failed(problem: impl Into<String>) -> Self {
        Self {
            allowed: false,
            deciding: Vec::new(),
            obligations: Obligations::default(),
            problem: Some(problem.into()),
        }
    }

    /// Whether it is allowed, be it with obligations.
    #[must_use]
    pub const fn allowed(&self) -> bool {
        self.allowed
    }

    /// The policies that decided, in order of their places.
    #[must_use]
    pub fn deciding(&self) -> &[Arc<Rule>] {
        &self.deciding
    }

    /// What has to be done besides.
    #[must_use]
    pub const fn obligations(&self) -> &Obligations {
        &self.obligations
    }

    /// Why it is denied, for the caller. Nothing of the machine is in it.
    #[must_use]
    pub fn why_not(&self) -> String {
        match (&self.problem, self.deciding.first()) {
            (Some(problem), _) => format!("the policies could not be asked: {problem}"),
            (None, Some(rule)) => match &rule.notes.reason {
                Some(reason) => format!("policy {} forbids it: {reason}", rule.name()),
                None => format!("policy {} forbids it", rule.name()),
            },
            (None, None) => "no policy permits it".to_owned(),
        }
    }

    /// What follows for a plan.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if !self.allowed {
            return Verdict::Deny { breach: self.why_not() };
        }
        if self.obligations.preview_only {
            return Verdict::Preview { reason: self.reasons(|own| own.preview_only) };
        }
        let need = self.obligations.need(self.reasons(|own| own.approvers > 0));
        need.map_or(Verdict::Commit, Verdict::Hold)
    }

    fn reasons(&self, of: impl Fn(&Obligations) -> bool) -> String {
        let mut reasons: Vec<String> =
            self.deciding.iter().filter(|rule| of(&rule.notes.obligations)).map(|rule| rule.reason()).collect();
        reasons.dedup();
        reasons.join("; ")
    }

    /// The judgement as it is shown.
    #[must_use]
    pub fn view(&self) -> Value {
        let policies: Vec<Value> = self.deciding.iter().map(|rule| rule.view()).collect();
        json!({"decision": if self.allowed { "allow" } else { "deny" }, "policies": policies,
            "obligations": self.obligations, "problem": self.problem})
    }
}
