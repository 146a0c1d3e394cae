//! Quotas: what committed effects used up, counted in the transaction that makes them durable.
//!
//! A quota is exact over any period of its length, whatever runs at the same time, because the one writer counts, and it is
//! the same after a restart, because the count is rows. An intent that would exceed one is refused before anything of it
//! is written. What is taken back is given back.

use rusqlite::params;
use toolkeep_core::id::PlanId;

use super::batch::{Batch, Step, Stop};
use super::column::{Reading, id_bytes, integer};
use super::failure::IntentRefused;

/// What a plan uses up of one quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaCharge {
    /// Names rule and whom it counts.
    pub rule: String,
    /// How many of the plan's effects it counts.
    pub uses: u64,
    /// How many there may be in a period.
    pub most: u64,
    /// The period, in milliseconds.
    pub period_ms: u64,
    /// The rule as people read it.
    pub text: String,
}

impl Batch<'_> {
    /// Whether a plan fits into its quotas now. Nothing is written.
    pub(super) fn within_quotas(&self, charges: &[QuotaCharge]) -> Step<(), IntentRefused> {
        for charge in charges {
            let since_ms = self.now_ms.saturating_sub(charge.period_ms);
            let uses = self.rows(
                "SELECT at_ms, used FROM quota_uses WHERE rule = ?1 AND at_ms > ?2 ORDER BY at_ms DESC",
                params![charge.rule, integer(since_ms)],
                |row| {
                    let reading = Reading::new(row, "quota_uses");
                    Ok((reading.number("at_ms")?, reading.number("used")?))
                },
            )?;
            // From the latest back: as long as these and the new ones fit, the older ones do not have to be over.
            let mut sum = charge.uses;
            let crossing = uses.iter().find(|(_, used)| {
                sum = sum.saturating_add(*used);
                sum > charge.most
            });
            let too_large = charge.uses > charge.most;
            if let Some((at_ms, _)) = crossing.copied().or_else(|| too_large.then_some((self.now_ms, 0))) {
                let wait_ms = at_ms.saturating_add(charge.period_ms).saturating_sub(self.now_ms).max(1);
                return Err(Stop::Refused(IntentRefused::Quota {
                    text: charge.text.clone(),
                    wait_ms: (!too_large).then_some(wait_ms),
                }));
            }
        }
        Ok(())
    }

    /// Count what a plan uses, and forget what does not count any more.
    pub(super) fn charge_quotas(&self, plan: PlanId, charges: &[QuotaCharge]) -> Result<(), rusqlite::Error> {
        for charge in charges {
            let since_ms = self.now_ms.saturating_sub(charge.period_ms);
            self.execute(
                "DELETE FROM quota_uses WHERE rule = ?1 AND at_ms <= ?2",
                params![charge.rule, integer(since_ms)],
            )?;
            self.execute(
                "INSERT INTO quota_uses (rule, at_ms, plan, used) VALUES (?1, ?2, ?3, ?4)",
                params![charge.rule, integer(self.now_ms), id_bytes(plan.uuid()), integer(charge.uses)],
            )?;
        }
        Ok(())
    }

    /// A plan was taken back: its effects do not count.
    pub(super) fn give_back_quotas(&self, plan: PlanId) -> Result<(), rusqlite::Error> {
        self.execute("DELETE FROM quota_uses WHERE plan = ?1", params![id_bytes(plan.uuid())])?;
        Ok(())
    }
}
