//! How far agents may go with tools: what operators set, and what holds where they set nothing.
//!
//! An agent is the program (tenant and agent name), whoever it works for. The map is replaced as a whole when an operator sets
//! something, so that a call reads it without waiting.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;
use toolkeep_core::autonomy::Autonomy;
use toolkeep_core::id::{AgentName, TenantName, ToolName};
use toolkeep_core::principal::Principal;

use crate::ledger::AutonomyRow;

type Levels = BTreeMap<(TenantName, AgentName, ToolName), Autonomy>;

/// How far agents may go.
#[derive(Debug)]
pub struct Autonomies {
    default: Autonomy,
    levels: ArcSwap<Levels>,
    /// One writer at a time: a map that was read before another change must not replace it.
    writing: Mutex<()>,
}

impl Autonomies {
    /// What operators set so far; `default` holds for everything else.
    #[must_use]
    pub fn new(default: Autonomy, rows: Vec<AutonomyRow>) -> Self {
        let levels = rows.into_iter().map(|row| ((row.tenant, row.agent, row.tool), row.level)).collect();
        Self { default, levels: ArcSwap::from_pointee(levels), writing: Mutex::new(()) }
    }

    /// What holds where no operator set anything.
    #[must_use]
    pub const fn default_level(&self) -> Autonomy {
        self.default
    }

    /// How far an agent may go with a tool.
    #[must_use]
    pub fn of(&self, principal: &Principal, tool: &ToolName) -> Autonomy {
        let levels = self.levels.load();
        if levels.is_empty() {
            return self.default;
        }
        let key = (principal.tenant.clone(), principal.agent.clone(), tool.clone());
        levels.get(&key).copied().unwrap_or(self.default)
    }

    /// An operator set it; from now on every question gets this answer.
    pub fn set(&self, row: &AutonomyRow) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut levels = Levels::clone(&self.levels.load());
        levels.insert((row.tenant.clone(), row.agent.clone(), row.tool.clone()), row.level);
        self.levels.store(levels.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r46_what_is_set_holds_for_one_agent_with_one_tool_and_the_default_for_the_rest() {
        let name = |text: &str| text.parse().expect("name");
        let row = |agent: &str, tool: &str, level| AutonomyRow {
            tenant: "acme".parse().expect("name"),
            agent: agent.parse().expect("name"),
            tool: tool.parse().expect("name"),
            level,
            set_by: "ops".parse().expect("name"),
            reason: "it did well".into(),
            set_ms: 1,
        };
        let of = |all: &Autonomies, tenant: &str, agent: &str, tool: &str| {
            let user = "ann".parse().expect("name");
            let principal =
                Principal { tenant: tenant.parse().expect("name"), user, agent: agent.parse().expect("name") };
            all.of(&principal, &name(tool))
        };
        let all = Autonomies::new(Autonomy::Approve, vec![row("bot", "pay", Autonomy::Draft)]);
        assert_eq!(of(&all, "acme", "bot", "pay"), Autonomy::Draft);
        for (tenant, agent, tool) in [("acme", "bot", "read"), ("acme", "cat", "pay"), ("globex", "bot", "pay")] {
            assert_eq!(of(&all, tenant, agent, tool), Autonomy::Approve);
        }
        all.set(&row("bot", "pay", Autonomy::Threshold));
        assert_eq!(of(&all, "acme", "bot", "pay"), Autonomy::Threshold);
    }
}
