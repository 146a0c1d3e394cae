//! Rules of rates and quotas, as an operator writes them: how often, for whom each, and of which tool or effect.
//!
//! A rate is about calls, before they run; a quota is about effects, when they are committed. Both count for a principal, a
//! person, an agent or a tenant, who are known by their authentication: there is nothing in a request by which somebody
//! could be counted as somebody else (T-I8).

use serde::{Deserialize, Serialize};

use crate::bucket::{Allowance, Rate};
use crate::effect::Effect;
use crate::id::ToolName;
use crate::manifest::BadManifest;
use crate::principal::Principal;

/// Most rules of one kind in one place: each is looked at with each call.
pub const RULES_MAX: usize = 16;

/// For whom each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Tenant, person and agent together.
    #[default]
    Principal,
    /// A person, whatever agent acts.
    User,
    /// An agent, whoever it acts for.
    Agent,
    /// A tenant.
    Tenant,
}

impl Per {
    /// Whom a rule counts when this principal acts: tenant first, and what is left of the others.
    #[must_use]
    pub fn counted(self, principal: &Principal) -> (&str, &str, &str) {
        let (tenant, user, agent) = (principal.tenant.as_str(), principal.user.as_str(), principal.agent.as_str());
        match self {
            Self::Principal => (tenant, user, agent),
            Self::User => (tenant, user, ""),
            Self::Agent => (tenant, "", agent),
            Self::Tenant => (tenant, "", ""),
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::User => "user",
            Self::Agent => "agent",
            Self::Tenant => "tenant",
        }
    }
}

/// `[[limits.rate]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateText {
    /// For whom each.
    #[serde(default)]
    pub per: Per,
    /// A tool, or all tools of a manifest; all tools if absent. Not in a manifest, which is about its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolName>,
    /// How often, for example `100/min`.
    pub rate: String,
    /// How many of them may come at once; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

/// `[[limits.quota]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaText {
    /// For whom each.
    #[serde(default)]
    pub per: Per,
    /// A tool, or all tools of a manifest; all tools if absent. Not in a manifest, which is about its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolName>,
    /// Which kind of effect is counted, for example `message.send`.
    pub effect: String,
    /// How many, for example `5/h`.
    pub quota: String,
}

/// How often something may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateRule {
    /// For whom each.
    pub per: Per,
    /// Calls of which tool; of all if absent.
    pub tool: Option<ToolName>,
    /// How often.
    pub rate: Rate,
}

/// How many effects may be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRule {
    /// For whom each.
    pub per: Per,
    /// Of which tool; of all if absent.
    pub tool: Option<ToolName>,
    /// The kind of effect.
    pub effect: String,
    /// How many, in any period of that length.
    pub allowance: Allowance,
}

/// Whether a rule about `named` is about `tool`: it is its own name, or that of its manifest.
fn is_about(named: Option<&ToolName>, tool: &ToolName) -> bool {
    named.is_none_or(|named| {
        let rest = tool.as_str().strip_prefix(named.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

impl RateRule {
    /// Whether it counts calls of this tool.
    #[must_use]
    pub fn is_about(&self, tool: &ToolName) -> bool {
        is_about(self.tool.as_ref(), tool)
    }
}

impl QuotaRule {
    /// Whether it counts effects of this tool.
    #[must_use]
    pub fn is_about(&self, tool: &ToolName) -> bool {
        is_about(self.tool.as_ref(), tool)
    }
}

fn allowance(key: &str, text: &str) -> Result<Allowance, BadManifest> {
    text.parse().map_err(|problem: crate::bucket::NotAnAllowance| BadManifest::new(key, problem.to_string()))
}

/// What the rates of one place mean. `own` says that it is a manifest, which is about its own tools.
///
/// # Errors
/// The first key that is wrong, and why.
pub fn rates(texts: &[RateText], own: bool) -> Result<Vec<RateRule>, BadManifest> {
    few("limits.rate", texts.len())?;
    let rule = |text: &RateText| {
        named("limits.rate.tool", text.tool.as_ref(), own)?;
        let rate = Rate::new(allowance("limits.rate.rate", &text.rate)?, text.burst);
        let rate = rate.ok_or_else(|| BadManifest::new("limits.rate.burst", "write 1 to 1000000, or leave it out"))?;
        Ok(RateRule { per: text.per, tool: text.tool.clone(), rate })
    };
    texts.iter().map(rule).collect()
}

/// What the quotas of one place mean. `own` says that it is a manifest, which is about its own tools.
///
/// # Errors
/// The first key that is wrong, and why.
pub fn quotas(texts: &[QuotaText], own: bool) -> Result<Vec<QuotaRule>, BadManifest> {
    few("limits.quota", texts.len())?;
    let rule = |text: &QuotaText| {
        named("limits.quota.tool", text.tool.as_ref(), own)?;
        if !Effect::KINDS.contains(&text.effect.as_str()) {
            let problem = format!("`{}` is not an effect kind; use {}", text.effect, Effect::KINDS.join(", "));
            return Err(BadManifest::new("limits.quota.effect", problem));
        }
        let allowance = allowance("limits.quota.quota", &text.quota)?;
        Ok(QuotaRule { per: text.per, tool: text.tool.clone(), effect: text.effect.clone(), allowance })
    };
    texts.iter().map(rule).collect()
}

fn few(key: &str, count: usize) -> Result<(), BadManifest> {
    if count > RULES_MAX { Err(BadManifest::new(key, format!("{count} rules; at most {RULES_MAX}"))) } else { Ok(()) }
}

fn named(key: &str, tool: Option<&ToolName>, own: bool) -> Result<(), BadManifest> {
    match tool {
        Some(_) if own => Err(BadManifest::new(key, "a manifest is about its own tools; leave `tool` out")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str, burst: Option<u64>) -> RateText {
        RateText { rate: text.to_owned(), burst, ..RateText::default() }
    }

    fn quota(effect: &str, text: &str) -> QuotaText {
        QuotaText { effect: effect.to_owned(), quota: text.to_owned(), ..QuotaText::default() }
    }

    #[test]
    fn r29_a_wrong_rule_is_refused_by_its_key() {
        let key = |result: Result<usize, BadManifest>| result.map_err(|bad| bad.key);
        let rate_key = |text| key(rates(&[text], false).map(|rules| rules.len()));
        assert_eq!(rate_key(rate("100/min", None)), Ok(1));
        assert_eq!(rate_key(rate("fast", None)), Err("limits.rate.rate".to_owned()));
        assert_eq!(rate_key(rate("1/s", Some(0))), Err("limits.rate.burst".to_owned()));
        let quota_key = |text| key(quotas(&[text], false).map(|rules| rules.len()));
        assert_eq!(quota_key(quota("message.send", "5/h")), Ok(1));
        assert_eq!(quota_key(quota("message", "5/h")), Err("limits.quota.effect".to_owned()));
        assert_eq!(quota_key(quota("message.send", "5")), Err("limits.quota.quota".to_owned()));
        let named = RateText { tool: Some("notes".parse().expect("name")), ..rate("1/s", None) };
        assert_eq!(key(rates(std::slice::from_ref(&named), true).map(|r| r.len())), Err("limits.rate.tool".to_owned()));
        assert!(rates(&[named], false).is_ok());
    }

    #[test]
    fn r29_there_are_as_many_rules_as_may_be_and_not_one_more() {
        assert!(rates(&vec![rate("1/s", None); RULES_MAX], false).is_ok());
        assert!(rates(&vec![rate("1/s", None); RULES_MAX + 1], false).is_err());
        assert!(quotas(&vec![quota("message.send", "1/s"); RULES_MAX], false).is_ok());
        assert!(quotas(&vec![quota("message.send", "1/s"); RULES_MAX + 1], false).is_err());
    }

    #[test]
    fn t_i8_who_is_counted_is_who_was_authenticated() {
        let principal = Principal {
            tenant: "acme".parse().expect("name"),
            user: "ann".parse().expect("name"),
            agent: "bot".parse().expect("name"),
        };
        assert_eq!(Per::Principal.counted(&principal), ("acme", "ann", "bot"));
        assert_eq!(Per::User.counted(&principal), ("acme", "ann", ""));
        assert_eq!(Per::Agent.counted(&principal), ("acme", "", "bot"));
        assert_eq!(Per::Tenant.counted(&principal), ("acme", "", ""));
    }

    #[test]
    fn r29_a_rule_about_a_manifest_is_about_all_of_its_tools() {
        let rule = RateText { tool: Some("notes".parse().expect("name")), ..rate("1/s", None) };
        let rule = rates(&[rule], false).expect("a rule").remove(0);
        let about = |tool: &str| rule.is_about(&tool.parse().expect("name"));
        assert!(about("notes") && about("notes.add") && !about("notes2") && !about("books"));
    }
}
