//! Spikes: looking now and then whether the window of this moment is far above the windows before it.
//!
//! The look costs the calls nothing: it reads the charges that they leave, and only when there were any. A spike is told once in
//! its window; where the operator wants it, spending of that workflow (or of what has none) pauses until it is resumed. A
//! restart is no gap: what was spent and what was told is on record, and the first look after it comes without a charge.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use toolkeep_core::id::{TenantName, WorkflowName};
use toolkeep_core::price::Usd;
use toolkeep_core::refusal::Refusal;
use toolkeep_core::spike::{Spent, Spike};

use super::Budgets;
use crate::ledger::{LedgerError, PauseRow};
use crate::notify::Event;

/// Whose spending is looked at apart.
type Spender = (TenantName, Option<WorkflowName>);

/// What the detector remembers.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The window that `before` was made for.
    window: Option<u64>,
    before: HashMap<Spender, Spent>,
    told: HashSet<Spender>,
}

impl Budgets {
    /// Look for spikes, if anything was charged since the last look.
    pub async fn look_for_spikes(&self) {
        if self.0.config.spike.is_none() || !self.0.active.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.look().await {
            tracing::error!(%error, "spending could not be looked at");
        }
    }

    async fn look(&self) -> Result<(), LedgerError> {
        let Some(rule) = self.0.config.spike else { return Ok(()) };
        let mut watched = self.0.watched.lock().await;
        let now_ms = self.0.ambient.now_ms();
        let window = now_ms / rule.window_ms;
        let begins = window * rule.window_ms;
        if watched.window != Some(window) {
            let since = begins.saturating_sub(rule.window_ms.saturating_mul(rule.baseline.into()));
            let before = self.0.ledger.spent_between(since, begins).await?;
            watched.before = before.into_iter().map(|(tenant, workflow, spent)| ((tenant, workflow), spent)).collect();
            watched.told = self.0.ledger.spikes_since(begins).await?.into_iter().collect();
            watched.window = Some(window);
        }
        for (tenant, workflow, spent) in self.0.ledger.spent_between(begins, now_ms.saturating_add(1)).await? {
            let spender = (tenant, workflow);
            let before = watched.before.get(&spender).copied().unwrap_or_default();
            let Some(spike) = rule.judge(spent, before) else { continue };
            if watched.told.insert(spender.clone()) {
                self.tell(&spender, &spike, (now_ms, rule.pause)).await;
            }
        }
        Ok(())
    }

    async fn tell(&self, (tenant, workflow): &Spender, spike: &Spike, (now_ms, pause): (u64, bool)) {
        let text = |amount| if spike.what == "calls" { amount_text(amount) } else { Usd::of_micro(amount).to_string() };
        let facts = json!({"meter": spike.what, "now": text(spike.now), "paused": pause, "tenant": tenant,
            "usual": text(spike.usual), "what": "spike", "workflow": workflow});
        tracing::warn!(%facts, "spending is far above what is usual");
        self.0.notify.event(Event::BudgetSpike, tenant, facts.clone());
        let reason = format!("{} {} in this window, where {} is usual", text(spike.now), spike.what, text(spike.usual));
        let _changing = self.0.pausing.lock().await;
        if pause {
            // It holds from here on, also where it cannot be put on record.
            let mut pauses = (**self.0.pauses.load()).clone();
            if !pauses.iter().any(|other| other.tenant == *tenant && other.workflow == *workflow) {
                let (tenant, workflow) = (tenant.clone(), workflow.clone());
                pauses.push(PauseRow { tenant, workflow, reason: reason.as_str().into(), at_ms: now_ms });
                self.0.pauses.store(Arc::new(pauses));
            }
        }
        let spender = (tenant, workflow.as_ref());
        if let Err(error) = self.0.ledger.spike(spender, now_ms, pause.then_some(reason), &facts).await {
            tracing::error!(%error, "a spike could not be put on record");
        }
    }

    /// Resume spending that is paused. False if it was not.
    ///
    /// # Errors
    /// The ledger failed: it stays paused.
    pub async fn resume(
        &self,
        tenant: &TenantName,
        workflow: Option<&WorkflowName>,
        by: &str,
    ) -> Result<bool, Refusal> {
        let _changing = self.0.pausing.lock().await;
        let facts = json!({"by": by, "tenant": tenant, "what": "resumed", "workflow": workflow});
        let resumed = self.0.ledger.resume_spending(tenant, workflow, &facts).await.map_err(|error| error.refusal())?;
        let mut pauses = (**self.0.pauses.load()).clone();
        let before = pauses.len();
        pauses.retain(|pause| pause.tenant != *tenant || pause.workflow.as_ref() != workflow);
        let known = pauses.len() != before;
        self.0.pauses.store(Arc::new(pauses));
        Ok(resumed || known)
    }
}

fn amount_text(amount: u64) -> String {
    amount.to_string()
}
