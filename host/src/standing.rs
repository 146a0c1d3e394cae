//! Standing approvals that may be used now, ready to be compared with plans.
//!
//! The ledger keeps and counts them; this is what a plan that would wait is compared with. A look that is a moment old does no
//! harm: the use is counted in the transaction of the intent, and what was revoked or used up by then refuses there. The
//! predicate is pure and lives in `toolkeep_core::standing`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use serde_json::Value;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{TenantName, ToolName};
use toolkeep_core::policy::Need;
use toolkeep_core::principal::Principal;
use toolkeep_core::standing::{BadStanding, Offer, Standing, StandingText};
use toolkeep_core::taint::Taint;
use toolkeep_core::tier::Tier;

use crate::ledger::{StandingRow, StandingState, StandingUse};
use crate::policy::ToolShape;

/// A plan that would wait for people.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    /// Who acts.
    pub principal: &'a Principal,
    /// With which tool.
    pub tool: &'a ToolName,
    /// What policies see of it.
    pub shape: &'a ToolShape,
    /// The tier that is declared for it.
    pub declared: Tier,
    /// The canonical input.
    pub input: &'a str,
    /// What it wants to change.
    pub effects: &'a [Effect],
    /// What the run has seen.
    pub taint: Taint,
}

/// A standing approval with its predicate, compiled.
#[derive(Debug, Clone)]
pub struct Active {
    row: StandingRow,
    standing: Standing,
    /// Uses that nobody has taken since the ledger was read.
    left: Arc<AtomicU32>,
}

impl Active {
    /// From its row.
    ///
    /// # Errors
    /// What is kept is no predicate of this version.
    pub fn of(row: StandingRow) -> Result<Self, BadStanding> {
        let text: StandingText = serde_json::from_str(&row.body)
            .map_err(|error| BadStanding { field: "body", problem: error.to_string() })?;
        let left = Arc::new(AtomicU32::new(row.uses.saturating_sub(row.used)));
        Ok(Self { row, standing: text.check()?, left })
    }

    /// Take one of the uses that are left. The ledger counts; this only keeps a crowd from running into its refusal.
    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }

    /// Whether it covers a plan that waits with this need.
    ///
    /// # Errors
    /// The first thing that it does not cover.
    pub fn serves(&self, plan: &Waiting<'_>, need: &Need, solo: bool) -> Result<(), String> {
        if need.person {
            return Err("a person has to look at every plan of this agent with this tool".to_owned());
        }
        let (row, people) = (&self.row, if solo { 1 } else { need.approvers });
        if usize::from(people) > row.makers.len() {
            return Err(format!("it was made by {}; {people} have to agree", row.makers.len()));
        }
        if people > 1 && row.makers.contains(&plan.principal.user) {
            return Err("the requester is one of those who made it".to_owned());
        }
        if let Some(group) = need.groups.iter().find(|group| !row.groups.contains(*group)) {
            return Err(format!("it was not made by the group `{group}`"));
        }
        covers(&self.standing, plan)
    }
}

/// Whether a predicate covers a plan.
///
/// # Errors
/// The first thing that it does not cover.
pub fn covers(standing: &Standing, plan: &Waiting<'_>) -> Result<(), String> {
    let input: Value = serde_json::from_str(plan.input).unwrap_or_default();
    let amounts = plan.shape.amount_texts(&input);
    standing.covers(&Offer {
        principal: plan.principal,
        tool: plan.tool,
        declared: plan.declared,
        effects: plan.effects,
        amounts: &amounts,
        taint: plan.taint,
    })
}

type ByTool = BTreeMap<(TenantName, ToolName), Vec<Arc<Active>>>;

/// Those that may be used now.
#[derive(Debug, Default)]
pub struct StandingBook(ArcSwap<ByTool>);

impl StandingBook {
    /// Replace all of them by what the ledger says.
    pub fn fill(&self, rows: Vec<StandingRow>) {
        let mut all = ByTool::new();
        for row in rows.into_iter().filter(|row| row.state == StandingState::Active) {
            let (id, tenant) = (row.id, row.tenant.clone());
            match Active::of(row) {
                Ok(active) => {
                    let tool = active.standing.text().tool.clone();
                    all.entry((tenant, tool)).or_default().push(Arc::new(active));
                }
                Err(error) => tracing::error!(standing = %id, %error, "a standing approval cannot be read"),
            }
        }
        self.0.store(all.into());
    }

    /// One that covers a plan which waits with this need, oldest first; with `solo` one person agrees alone. Whoever does not use it has to fill the book anew.
    #[must_use]
    pub fn find(&self, plan: &Waiting<'_>, need: &Need, solo: bool, now_ms: u64) -> Option<StandingUse> {
        let all = self.0.load();
        if all.is_empty() {
            return None;
        }
        let own = all.get(&(plan.principal.tenant.clone(), plan.tool.clone()))?;
        let fits = |active: &&Arc<Active>| active.row.expires_ms > now_ms && active.serves(plan, need, solo).is_ok();
        own.iter().rev().filter(fits).find(|active| active.take()).map(|active| StandingUse { id: active.row.id })
    }
}
