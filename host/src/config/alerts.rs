//! `[alerts]`: which alerts there are, when they are told, and by which ways.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toolkeep_core::id::ChannelName;

use super::ConfigError;
use super::text::{ConfigText, NotifyText};
use crate::alerts::{AlertRule, AlertRules, RULES_MAX, Severity, THRESHOLD_MAX, WINDOW_MAX_MS, WINDOW_MS};
use crate::channel::config::ChannelConfig;
use crate::notify::{Event, Route};

/// Milliseconds in a second.
const MS_PER_S: u64 = 1_000;

/// `[alerts]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertsText {
    /// Names of channels by which alerts are told.
    #[serde(default)]
    pub channels: Vec<ChannelName>,
    /// Seconds within which the same fact is added to its alert.
    pub window_s: Option<u64>,
    /// `[[alerts.rule]]`.
    #[serde(default, rename = "rule")]
    pub rules: Vec<AlertRuleText>,
}

/// `[[alerts.rule]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertRuleText {
    /// Events that it is about.
    pub on: Vec<Event>,
    /// See [`AlertRule::enabled`].
    pub enabled: Option<bool>,
    /// See [`AlertRule::threshold`].
    pub threshold: Option<u32>,
    /// See [`AlertRule::severity`].
    pub severity: Option<Severity>,
    /// See [`AlertRule::channels`].
    pub channels: Option<Vec<ChannelName>>,
}

impl AlertsText {
    /// What it means.
    ///
    /// # Errors
    /// A channel that is not there, a number out of its bounds, two rules for one event, or one for what is no alert.
    pub(super) fn check(&self, channels: &BTreeMap<ChannelName, ChannelConfig>) -> Result<AlertRules, ConfigError> {
        let window_ms = self.window_s.map_or(WINDOW_MS, |seconds| seconds.saturating_mul(MS_PER_S));
        if !(MS_PER_S..=WINDOW_MAX_MS).contains(&window_ms) {
            let problem = format!("is not between 1 and {}", WINDOW_MAX_MS / MS_PER_S);
            return Err(ConfigError::value("alerts.window_s", problem));
        }
        if self.rules.len() > RULES_MAX {
            let problem = format!("there are {} rules; {RULES_MAX} are the most", self.rules.len());
            return Err(ConfigError::value("alerts.rule", problem));
        }
        for name in &self.channels {
            check_receives(channels, "alerts.channels", name)?;
        }
        for name in self.rules.iter().flat_map(|rule| rule.channels.iter().flatten()) {
            check_receives(channels, "alerts.rule.channels", name)?;
        }
        let mut ruled = BTreeSet::new();
        for event in self.rules.iter().flat_map(|rule| &rule.on) {
            if event.severity().is_none() {
                let problem = format!("`{}` is news and no alert; name it in `[[notify]]`", event.word());
                return Err(ConfigError::value("alerts.rule.on", problem));
            }
            if !ruled.insert(event.word()) {
                return Err(ConfigError::value("alerts.rule.on", format!("`{}` has two rules", event.word())));
            }
        }
        let rules = self.rules.iter().map(AlertRuleText::check).collect::<Result<_, _>>()?;
        Ok(AlertRules { window_ms, channels: self.channels.clone(), rules })
    }
}

impl AlertRuleText {
    fn check(&self) -> Result<AlertRule, ConfigError> {
        let threshold = self.threshold.unwrap_or(1);
        if !(1..=THRESHOLD_MAX).contains(&threshold) {
            let problem = format!("{threshold} is not between 1 and {THRESHOLD_MAX}");
            return Err(ConfigError::value("alerts.rule.threshold", problem));
        }
        if let Some(single) = self.on.iter().find(|event| threshold > 1 && event.is_single()) {
            let problem = format!(
                "`{}` is about one call or one change, which does not happen {threshold} times; it would never be told: write 1",
                single.word()
            );
            return Err(ConfigError::value("alerts.rule.threshold", problem));
        }
        Ok(AlertRule {
            on: self.on.clone(),
            enabled: self.enabled.unwrap_or(true),
            threshold,
            severity: self.severity,
            channels: self.channels.clone(),
        })
    }
}

/// A channel that operators are told by must be there, and have somebody at its other end.
fn check_receives(
    channels: &BTreeMap<ChannelName, ChannelConfig>,
    key: &str,
    name: &ChannelName,
) -> Result<(), ConfigError> {
    let problem = match channels.get(name) {
        None => format!("there is no channel `{name}`; add `[channel.{name}]`"),
        Some(channel) if !channel.way.has_receiver() => format!("the channel `{name}` has no receivers; set its `to`"),
        Some(_) => return Ok(()),
    };
    Err(ConfigError::value(key, problem))
}

/// What `[[notify]]` means.
pub(super) fn check_notify(
    text: &ConfigText,
    channels: &BTreeMap<ChannelName, ChannelConfig>,
) -> Result<Vec<Route>, ConfigError> {
    for name in text.notify.iter().flat_map(|route| &route.channels) {
        check_receives(channels, "notify.channels", name)?;
    }
    let route = |route: &NotifyText| Route {
        events: route.events.clone().unwrap_or_else(|| Event::ALL.to_vec()),
        channels: route.channels.clone(),
    };
    Ok(text.notify.iter().map(route).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(lines: &str) -> Result<AlertRules, String> {
        let text: AlertsText = toml::from_str(lines).expect("shape");
        text.check(&BTreeMap::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn r43_rules_are_taken_at_their_bounds() {
        assert_eq!(checked(""), Ok(AlertRules::default()));
        for (line, fits) in [
            ("window_s = 1", true),
            ("window_s = 0", false),
            ("window_s = 604800", true),
            ("window_s = 604801", false),
            ("[[rule]]\non = [\"boundary.breach\"]\nthreshold = 1", true),
            ("[[rule]]\non = [\"boundary.breach\"]\nthreshold = 0", false),
            ("[[rule]]\non = [\"boundary.breach\"]\nthreshold = 10000", true),
            ("[[rule]]\non = [\"boundary.breach\"]\nthreshold = 10001", false),
            ("[[rule]]\non = [\"approval.requested\"]", false),
            ("[[rule]]\non = [\"run.held\"]\n[[rule]]\non = [\"run.held\"]", false),
            ("channels = [\"nowhere\"]", false),
            ("[[rule]]\non = [\"run.held\"]\nchannels = [\"nowhere\"]", false),
        ] {
            assert_eq!(checked(line).is_ok(), fits, "{line}");
        }
        for (lines, key) in [
            ("channels = [\"nowhere\"]", "`alerts.channels`"),
            ("[[rule]]\non = [\"run.held\"]\nchannels = [\"nowhere\"]", "`alerts.rule.channels`"),
        ] {
            assert!(checked(lines).is_err_and(|error| error.contains(key)), "{lines}");
        }
        let rules = |n: usize| checked(&"[[rule]]\non = []\n".repeat(n)).is_ok();
        assert!(rules(RULES_MAX) && !rules(RULES_MAX + 1));
    }

    #[test]
    fn r43_what_does_not_happen_twice_has_no_threshold() {
        for event in Event::ALL.into_iter().filter(|event| event.severity().is_some()) {
            let rule =
                |threshold: u32| checked(&format!("[[rule]]\non = [\"{}\"]\nthreshold = {threshold}", event.word()));
            assert!(rule(1).is_ok(), "{event:?}");
            let single = rule(2).is_err_and(|error| error.contains("alerts.rule.threshold"));
            assert_eq!(single, event.is_single(), "{event:?}");
        }
    }
}
