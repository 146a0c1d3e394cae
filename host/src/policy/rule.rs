//! One policy of a set: what it says, where it stands, and what can be known about it before it is asked.

use std::sync::Arc;

use cedar_policy::{Effect, Policy, PolicyId};
use serde_json::{Value, json};
use toolkeep_core::id::TenantName;

use super::obligation::Notes;
use super::scope::{Scope, Uses};

/// One policy.
#[derive(Debug)]
pub struct Rule {
    /// Where it stands, `file.cedar:line`: its name in a set.
    pub at: Arc<str>,
    /// The tenant whose callers it applies to; everybody's without one.
    pub tenant: Option<TenantName>,
    /// What its annotations say.
    pub notes: Notes,
    /// Which requests it may match.
    pub scope: Scope,
    /// What it looks at.
    pub uses: Uses,
    /// The policy under the name `at`.
    pub policy: Policy,
}

impl Rule {
    /// Read a policy.
    ///
    /// # Errors
    /// An annotation is wrong, or a condition is nested too deeply.
    pub fn new(at: &str, tenant: Option<TenantName>, policy: &Policy) -> Result<Self, String> {
        Ok(Self {
            at: at.into(),
            tenant,
            notes: Notes::of(policy)?,
            scope: Scope::of(policy),
            uses: Uses::of(policy)?,
            policy: policy.new_id(PolicyId::new(at)),
        })
    }

    /// Whether it forbids.
    #[must_use]
    pub fn forbids(&self) -> bool {
        self.policy.effect() == Effect::Forbid
    }

    /// Why it exists, for whoever it stops.
    #[must_use]
    pub fn reason(&self) -> String {
        self.notes.reason.clone().unwrap_or_else(|| format!("policy {}", self.name()))
    }

    /// What people call it, and where it stands.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.notes.id {
            Some(id) => format!("`{id}` ({})", self.at),
            None => format!("`{}`", self.at),
        }
    }

    /// The rule as it is shown.
    #[must_use]
    pub fn view(&self) -> Value {
        json!({"policy": &*self.at, "id": self.notes.id, "reason": self.notes.reason,
            "effect": if self.forbids() { "forbid" } else { "permit" }})
    }
}
