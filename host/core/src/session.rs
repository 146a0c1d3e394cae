//! What a session holds: a part of what its parent holds, never more (R18).
//!
//! A delegation asks for a part and gets exactly that part, or is refused with every member that its parent does not have:
//! nothing is dropped silently, and nothing that is left out becomes more than the parent's. What a chain of delegations
//! holds is therefore the intersection of everything that was asked for along it. Everything here is pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::capability::Access;
use crate::id::{ToolName, WorkspaceName};
use crate::refusal::{Code, FieldProblem, Refusal};
use crate::tier::Tier;

/// Most delegations between a credential and whoever acts: each level is one more intersection for every call.
pub const DELEGATIONS_MAX: u8 = 8;
/// Most tools, and most workspaces, that a delegation may list: beyond it a policy is the better place.
pub const HELD_MAX: usize = 256;

/// What a session, or a token, may use at most in all. Nothing means no bound of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionBudget {
    /// Calls, previews included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Millionths of a US dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
}

/// What a credential holds of what its principal may do. Policies and manifests still decide about each call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The only tools; nothing for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<BTreeSet<ToolName>>,
    /// The only workspaces, with the most that may be done in each; nothing for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspaces: Option<BTreeMap<WorkspaceName, Access>>,
    /// The highest tier of a tool.
    pub max_tier: Tier,
    /// What may be used in all.
    #[serde(default)]
    pub budget: SessionBudget,
    /// How many further delegations may follow.
    pub delegations: u8,
}

impl Default for Held {
    /// Everything that the principal may do.
    fn default() -> Self {
        Self {
            tools: None,
            workspaces: None,
            max_tier: Tier::Irreversible,
            budget: SessionBudget::default(),
            delegations: DELEGATIONS_MAX,
        }
    }
}

/// A part that is asked for. What is left out is as the parent has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The only tools.
    #[serde(default)]
    pub tools: Option<BTreeSet<ToolName>>,
    /// The only workspaces.
    #[serde(default)]
    pub workspaces: Option<BTreeMap<WorkspaceName, Access>>,
    /// The highest tier.
    #[serde(default)]
    pub max_tier: Option<Tier>,
    /// What may be used in all.
    #[serde(default)]
    pub budget: SessionBudget,
    /// How many further delegations may follow.
    #[serde(default)]
    pub delegations: Option<u8>,
}

impl Part {
    /// Whether anything is asked for that narrows.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }
}

fn problem(pointer: impl Into<String>, problem: impl Into<String>, expected: impl Into<String>) -> FieldProblem {
    FieldProblem { pointer: pointer.into(), problem: problem.into(), expected: expected.into() }
}

/// A bound that a child may lower and never raise. Nothing is no bound.
fn lowered(own: Option<u64>, wanted: Option<u64>, pointer: &str, problems: &mut Vec<FieldProblem>) -> Option<u64> {
    if let (Some(own), Some(wanted)) = (own, wanted)
        && wanted > own
    {
        problems.push(problem(pointer, "is more than your own", format!("at most {own}")));
    }
    wanted.or(own)
}

impl Held {
    /// The part of it that is asked for, for a child.
    ///
    /// # Errors
    /// `denied`, with a field for everything that the child would have and this does not, or for a list that is too long.
    pub fn part(&self, wanted: &Part) -> Result<Self, Refusal> {
        let mut problems = Vec::new();
        let part = Self {
            tools: self.tools_of(wanted, &mut problems),
            workspaces: self.workspaces_of(wanted, &mut problems),
            max_tier: wanted.max_tier.unwrap_or(self.max_tier),
            budget: SessionBudget {
                calls: lowered(self.budget.calls, wanted.budget.calls, "/budget/calls", &mut problems),
                cost_micro_usd: lowered(
                    self.budget.cost_micro_usd,
                    wanted.budget.cost_micro_usd,
                    "/budget/cost_micro_usd",
                    &mut problems,
                ),
            },
            delegations: self.delegations_of(wanted, &mut problems),
        };
        if !self.holds_tier(part.max_tier) {
            problems.push(problem(
                "/max_tier",
                "is higher than your own",
                format!("at most {}", self.max_tier.number()),
            ));
        }
        if problems.is_empty() {
            return Ok(part);
        }
        let mut refusal = Refusal::new(Code::Denied, "a session cannot hold more than the one that it comes from")
            .hint("ask for a part of what you hold; `session.get` tells it");
        refusal.fields = problems;
        Err(refusal)
    }

    fn tools_of(&self, wanted: &Part, problems: &mut Vec<FieldProblem>) -> Option<BTreeSet<ToolName>> {
        let Some(tools) = &wanted.tools else { return self.tools.clone() };
        too_long("/tools", tools.len(), problems);
        for tool in tools.iter().filter(|tool| !self.holds_tool(tool)).take(HELD_MAX) {
            problems.push(problem("/tools", format!("`{tool}` is not yours to give"), "tools that you hold"));
        }
        Some(tools.clone())
    }

    fn workspaces_of(
        &self,
        wanted: &Part,
        problems: &mut Vec<FieldProblem>,
    ) -> Option<BTreeMap<WorkspaceName, Access>> {
        let Some(workspaces) = &wanted.workspaces else { return self.workspaces.clone() };
        too_long("/workspaces", workspaces.len(), problems);
        for (name, access) in workspaces.iter().take(HELD_MAX) {
            let expected = match self.access(name) {
                Some(own) if *access <= own => continue,
                Some(_) => "`read`: you may not write there yourself",
                None => "a workspace that you hold",
            };
            problems.push(problem(format!("/workspaces/{name}"), "is not yours to give so", expected));
        }
        Some(workspaces.clone())
    }

    fn delegations_of(&self, wanted: &Part, problems: &mut Vec<FieldProblem>) -> u8 {
        let Some(left) = self.delegations.checked_sub(1) else {
            problems.push(problem("/delegations", "you may not delegate any further", "nothing"));
            return 0;
        };
        let delegations = wanted.delegations.unwrap_or(left);
        if delegations > left {
            problems.push(problem("/delegations", "is more than you have left", format!("at most {left}")));
        }
        delegations
    }

    /// Whether the tool is among those held.
    #[must_use]
    pub fn holds_tool(&self, tool: &ToolName) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.contains(tool))
    }

    /// The most that may be done in a workspace; nothing if it is not held.
    #[must_use]
    pub fn access(&self, workspace: &WorkspaceName) -> Option<Access> {
        match &self.workspaces {
            None => Some(Access::Write),
            Some(workspaces) => workspaces.get(workspace).copied(),
        }
    }

    /// Whether tools of this tier are held.
    #[must_use]
    pub fn holds_tier(&self, tier: Tier) -> bool {
        tier <= self.max_tier
    }
}

fn too_long(pointer: &str, length: usize, problems: &mut Vec<FieldProblem>) {
    if length > HELD_MAX {
        problems.push(problem(pointer, format!("has {length} members"), format!("at most {HELD_MAX}")));
    }
}

#[cfg(test)]
mod tests;
