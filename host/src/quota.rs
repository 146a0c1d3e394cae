//! Which quotas a plan uses up, and how much of each.
//!
//! The rules are those of the configuration and of the manifests of the plan's tools. In a transaction an effect does not
//! say by which of its tools it was made, so a rule about one of them counts all effects of its kind.

use std::collections::BTreeMap;

use toolkeep_core::plan::Plan;
use toolkeep_core::rate::QuotaRule;
use toolkeep_core::refusal::{Code, Refusal};

use crate::ledger::QuotaCharge;

/// Where a rule stands, as a part of what names its count.
#[derive(Debug, Clone)]
pub struct Quota {
    /// `configuration`, or the name of a manifest.
    pub source: String,
    /// Its place there.
    pub place: usize,
    /// The rule.
    pub rule: QuotaRule,
}

impl Quota {
    /// The rules of one place.
    pub fn all<'r>(source: &str, rules: &'r [QuotaRule]) -> impl Iterator<Item = Self> + use<'r> {
        let source = source.to_owned();
        rules.iter().enumerate().map(move |(place, rule)| Self { source: source.clone(), place, rule: rule.clone() })
    }

    /// What names the count: the rule with what it says, so that a changed rule begins anew, and whom it counts.
    fn name(&self, plan: &Plan) -> String {
        let Self { source, place, rule } = self;
        let (tenant, user, agent) = rule.per.counted(&plan.body().principal);
        format!("{source}/{place} {} {} {} {tenant}/{user}/{agent}", rule.effect, rule.allowance, rule.per.word())
    }
}

/// What a plan uses up.
#[must_use]
pub fn charges(plan: &Plan, quotas: &[Quota], own: &[Quota]) -> Vec<QuotaCharge> {
    if quotas.is_empty() && own.is_empty() {
        return Vec::new();
    }
    let body = plan.body();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for effect in &body.effects {
        *counts.entry(effect.kind()).or_default() += 1;
    }
    let about = |rule: &QuotaRule| rule.is_about(&body.tool) || body.steps.iter().any(|step| rule.is_about(&step.tool));
    let general = quotas.iter().filter(|quota| about(&quota.rule));
    let charge = |quota: &Quota| {
        let uses = counts.get(quota.rule.effect.as_str()).copied()?;
        let of = quota.rule.tool.as_ref().map_or_else(String::new, |tool| format!(" of `{tool}`"));
        Some(QuotaCharge {
            rule: quota.name(plan),
            uses,
            most: quota.rule.allowance.most(),
            period_ms: quota.rule.allowance.period_ms(),
            text: format!("{} `{}`{of} for each {}", quota.rule.allowance, quota.rule.effect, quota.rule.per.word()),
        })
    };
    general.chain(own).filter_map(charge).collect()
}

/// What a caller is told whose plan does not fit. `wait_ms` is how long until it does; nothing if it never will.
#[must_use]
pub fn refusal(message: String, wait_ms: Option<u64>) -> Refusal {
    let refusal = Refusal::new(Code::RateLimited, message);
    match wait_ms {
        Some(wait_ms) => refusal.after_ms(wait_ms),
        None => {
            let never = refusal.hint("the plan alone has more of them than the quota allows; do less at a time");
            Refusal { retryable: false, ..never }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r29_a_plan_that_never_fits_is_not_told_to_come_back() {
        let later = refusal("used up".to_owned(), Some(7));
        assert_eq!((later.retryable, later.retry_after_ms), (true, Some(7)));
        let never = refusal("used up".to_owned(), None);
        assert_eq!((never.code, never.retryable, never.retry_after_ms), (Code::RateLimited, false, None));
    }
}
