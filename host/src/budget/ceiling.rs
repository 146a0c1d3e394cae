//! Ceilings: what a tenant, a person or a workflow may use in a day, whatever its runs are allowed.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toolkeep_core::budget::{AMOUNT_MAX, Limits, Meter, OverBudget};
use toolkeep_core::id::{TenantName, UserName, WorkflowName};
use toolkeep_core::price::Usd;
use toolkeep_core::spike::SpikeRule;

use super::BudgetConfig;
use crate::config::text::ConfigText;
use crate::config::{ConfigError, absolute};
use crate::ledger::{CeilingUse, Charged};

/// Most ceilings: each is looked at by every call.
pub const CEILINGS_MAX: usize = 64;
/// Longest name of a ceiling, in bytes.
const NAME_MAX_BYTES: usize = 64;
/// Longest window of the detector of spikes, in seconds: a day.
const WINDOW_MAX_S: u64 = 86_400;
/// Most windows of a baseline: they are read together.
const BASELINE_MAX: u32 = 168;

/// Which subjects have a ceiling each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Every tenant.
    #[default]
    Tenant,
    /// Every person of a tenant.
    User,
    /// Every workflow of a tenant.
    Workflow,
}

/// `[[ceiling]]` as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "limits are those of the meters of the same name, documented in core")]
pub struct CeilingText {
    /// What refusals call it.
    pub name: String,
    /// What has one each: `tenant` (default), `user` or `workflow`.
    #[serde(default)]
    pub per: Per,
    /// Only for this tenant.
    pub tenant: Option<TenantName>,
    /// Only for this person.
    pub user: Option<UserName>,
    /// Only for this workflow.
    pub workflow: Option<WorkflowName>,
    /// `stop` (default), `hold` or `degrade`.
    #[serde(default)]
    pub over_budget: OverBudget,
    pub steps: Option<u64>,
    pub calls: Option<u64>,
    pub wall_ms: Option<u64>,
    pub fuel: Option<u64>,
    pub cost_usd: Option<Usd>,
    pub tokens: Option<u64>,
    pub bytes_written: Option<u64>,
    pub requests: Option<u64>,
}

/// A checked `[[ceiling]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceiling {
    /// What refusals call it.
    pub name: Arc<str>,
    /// What happens to calls that do not fit.
    pub over: OverBudget,
    /// What each subject may use in a day.
    pub limits: Limits,
    per: Per,
    tenant: Option<TenantName>,
    user: Option<UserName>,
    workflow: Option<WorkflowName>,
}

impl CeilingText {
    /// What it means.
    ///
    /// # Errors
    /// The first key that makes no sense.
    pub fn check(&self) -> Result<Ceiling, ConfigError> {
        let wrong = |key: &str, problem: String| Err(ConfigError::value(format!("ceiling.{key}"), problem));
        if self.name.is_empty() || self.name.len() > NAME_MAX_BYTES || self.name.chars().any(char::is_control) {
            return wrong("name", format!("write 1 to {NAME_MAX_BYTES} bytes"));
        }
        let limits = Limits {
            steps: self.steps,
            calls: self.calls,
            wall_ms: self.wall_ms,
            fuel: self.fuel,
            cost_usd: self.cost_usd,
            tokens: self.tokens,
            bytes_written: self.bytes_written,
            requests: self.requests,
            approvals: None,
        };
        if limits.is_empty() {
            let meters: Vec<&str> = Meter::ALL.into_iter().map(Meter::word).collect();
            return wrong("name", format!("`{}` limits nothing; write one of {}", self.name, meters.join(", ")));
        }
        if let Err(meter) = limits.check() {
            return wrong(meter.word(), format!("is more than {AMOUNT_MAX}; leave it out instead"));
        }
        Ok(Ceiling {
            name: self.name.as_str().into(),
            over: self.over_budget,
            limits,
            per: self.per,
            tenant: self.tenant.clone(),
            user: self.user.clone(),
            workflow: self.workflow.clone(),
        })
    }
}

/// All ceilings of a configuration.
///
/// # Errors
/// One makes no sense, two have one name, or there are too many.
pub fn check(texts: &[CeilingText]) -> Result<Vec<Ceiling>, ConfigError> {
    if texts.len() > CEILINGS_MAX {
        return Err(ConfigError::value("ceiling", format!("{} ceilings; at most {CEILINGS_MAX}", texts.len())));
    }
    let mut ceilings: Vec<Ceiling> = Vec::with_capacity(texts.len());
    for text in texts {
        let ceiling = text.check()?;
        if ceilings.iter().any(|other| other.name == ceiling.name) {
            return Err(ConfigError::value("ceiling.name", format!("`{}` is defined twice", ceiling.name)));
        }
        ceilings.push(ceiling);
    }
    Ok(ceilings)
}

impl Ceiling {
    /// Whose use counts where this is charged; nothing if the ceiling is not about it.
    #[must_use]
    pub fn subject(&self, to: &Charged) -> Option<Arc<str>> {
        let other = |wanted: Option<&str>, found: Option<&str>| wanted.is_some_and(|wanted| found != Some(wanted));
        let workflow = to.workflow.as_ref().map(WorkflowName::as_str);
        if other(self.tenant.as_ref().map(TenantName::as_str), Some(to.tenant.as_str()))
            || other(self.user.as_ref().map(UserName::as_str), Some(to.user.as_str()))
            || other(self.workflow.as_ref().map(WorkflowName::as_str), workflow)
        {
            return None;
        }
        match self.per {
            Per::Tenant => Some(to.tenant.as_str().into()),
            Per::User => Some(format!("{}/{}", to.tenant, to.user).into()),
            Per::Workflow => workflow.map(|workflow| format!("{}/{workflow}", to.tenant).into()),
        }
    }

    /// The charges that count where this is charged.
    #[must_use]
    pub fn counts(&self, to: &Charged) -> CeilingUse {
        CeilingUse {
            tenant: to.tenant.clone(),
            user: if self.per == Per::User { Some(to.user.clone()) } else { self.user.clone() },
            workflow: if self.per == Per::Workflow { to.workflow.clone() } else { self.workflow.clone() },
            day: to.day,
        }
    }

    /// Whether subjects of this tenant can have it.
    #[must_use]
    pub fn concerns(&self, tenant: &TenantName) -> bool {
        self.tenant.as_ref().is_none_or(|own| own == tenant)
    }
}

impl BudgetConfig {
    /// What a configuration says about budgets. Relative paths are relative to `base`.
    ///
    /// # Errors
    /// A value makes no sense.
    pub fn of(text: &ConfigText, base: Option<&Path>) -> Result<Self, ConfigError> {
        let contracts = text.contracts.dir.as_deref().map(|path| absolute("contracts.dir", path, base)).transpose()?;
        if text.contracts.default.is_some() && contracts.is_none() {
            return Err(ConfigError::value("contracts.default", "names a contract, but `contracts.dir` is not set"));
        }
        Ok(Self {
            contracts,
            default_contract: text.contracts.default.clone(),
            ceilings: check(&text.ceilings)?,
            spike: text.spike.as_ref().map(SpikeText::check).transpose()?,
        })
    }
}

/// `[spike]` as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpikeText {
    /// Seconds of a window; an hour if absent.
    pub window_s: Option<u64>,
    /// Windows of the baseline; 24 if absent.
    pub baseline: Option<u32>,
    /// How many times the baseline is too much.
    pub factor: u32,
    /// A baseline of fewer calls counts as so many; 100 if absent.
    pub calls: Option<u64>,
    /// A baseline of less money counts as so much; a dollar if absent.
    pub cost_usd: Option<Usd>,
    /// Whether to pause; only alerts if absent.
    #[serde(default)]
    pub pause: bool,
}

impl SpikeText {
    /// What it means.
    ///
    /// # Errors
    /// The first key that makes no sense.
    pub fn check(&self) -> Result<SpikeRule, ConfigError> {
        let within = |key: &str, value: u64, most: u64| {
            if (1..=most).contains(&value) {
                return Ok(value);
            }
            Err(ConfigError::value(format!("spike.{key}"), format!("{value} is not between 1 and {most}")))
        };
        let window_s = within("window_s", self.window_s.unwrap_or(3_600), WINDOW_MAX_S)?;
        within("baseline", self.baseline.unwrap_or(24).into(), BASELINE_MAX.into())?;
        within("factor", self.factor.into(), 1_000)?;
        Ok(SpikeRule {
            window_ms: window_s * 1_000,
            baseline: self.baseline.unwrap_or(24),
            factor: self.factor,
            calls: within("calls", self.calls.unwrap_or(100), AMOUNT_MAX)?,
            cost: self.cost_usd.unwrap_or(Usd::of_micro(1_000_000)),
            pause: self.pause,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ceiling(value: Value) -> Result<Ceiling, String> {
        let text: CeilingText = serde_json::from_value(value).map_err(|error| error.to_string())?;
        text.check().map_err(|error| error.to_string())
    }

    fn charged(user: &str, workflow: Option<&str>) -> Charged {
        Charged {
            tenant: "acme".parse().expect("name"),
            user: user.parse().expect("name"),
            workflow: workflow.map(|name| name.parse().expect("name")),
            run: None,
            session: toolkeep_core::principal::SessionPath::default(),
            day: 7,
        }
    }

    #[test]
    fn r27_a_ceiling_is_one_for_each_tenant_person_or_workflow_that_it_is_about() {
        let subject =
            |value: Value, to: &Charged| ceiling(value).expect("valid").subject(to).map(|text| text.to_string());
        let (ann, paying) = (charged("ann", None), charged("ann", Some("pay")));
        let named = |text: &str| Some(text.to_owned());
        assert_eq!(subject(json!({"name": "a", "calls": 1}), &ann), named("acme"));
        assert_eq!(subject(json!({"name": "a", "calls": 1, "per": "user"}), &ann), named("acme/ann"));
        assert_eq!(subject(json!({"name": "a", "calls": 1, "per": "workflow"}), &paying), named("acme/pay"));
        assert_eq!(subject(json!({"name": "a", "calls": 1, "per": "workflow"}), &ann), None, "it has no workflow");
        assert_eq!(subject(json!({"name": "a", "calls": 1, "tenant": "other"}), &ann), None);
        assert_eq!(subject(json!({"name": "a", "calls": 1, "user": "bob"}), &ann), None);
        assert_eq!(subject(json!({"name": "a", "calls": 1, "workflow": "pay"}), &paying), named("acme"));
        let counts = ceiling(json!({"name": "a", "calls": 1, "per": "user", "workflow": "pay"})).expect("valid");
        let counts = counts.counts(&paying);
        assert!(counts.user.is_some() && counts.workflow.is_some() && counts.day == 7);
    }

    #[test]
    fn r27_ceilings_that_mean_nothing_are_refused_with_the_key() {
        for (value, says) in [
            (json!({"name": "", "calls": 1}), "ceiling.name"),
            (json!({"name": "a"}), "limits nothing"),
            (json!({"name": "a", "calls": AMOUNT_MAX + 1}), "ceiling.calls"),
            (json!({"name": "a", "calls": -1}), "invalid value"),
            (json!({"name": "a", "approvals": 1}), "unknown field"),
            (json!({"name": "a", "calls": 1, "per": "planet"}), "unknown variant"),
        ] {
            let message = ceiling(value).expect_err(says);
            assert!(message.contains(says), "{message}");
        }
        let many = |n: usize| {
            let one = |at: usize| serde_json::from_value(json!({"name": at.to_string(), "calls": 1})).expect("shape");
            check(&(0..n).map(one).collect::<Vec<_>>()).is_ok()
        };
        assert!(many(CEILINGS_MAX) && !many(CEILINGS_MAX + 1));
        let twice: CeilingText = serde_json::from_value(json!({"name": "a", "calls": 1})).expect("shape");
        assert!(check(&[twice.clone(), twice]).is_err());
    }

    #[test]
    fn r28_the_bounds_of_a_spike_hold_at_n_and_not_above() {
        let rule = |value: Value| serde_json::from_value::<SpikeText>(value).expect("shape").check().is_ok();
        assert!(rule(json!({"factor": 1})) && rule(json!({"factor": 1_000})));
        assert!(!rule(json!({"factor": 0})) && !rule(json!({"factor": 1_001})));
        assert!(rule(json!({"factor": 2, "window_s": WINDOW_MAX_S})));
        assert!(
            !rule(json!({"factor": 2, "window_s": WINDOW_MAX_S + 1})) && !rule(json!({"factor": 2, "window_s": 0}))
        );
        assert!(rule(json!({"factor": 2, "baseline": BASELINE_MAX})));
        assert!(!rule(json!({"factor": 2, "baseline": BASELINE_MAX + 1})));
    }
}
