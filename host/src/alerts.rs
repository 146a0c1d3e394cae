//! Alerts: what an operator has to know, once for each fact, until somebody says that it was seen (R43).
//!
//! An alert is a row of the ledger that counts. What happens again to the same subject within the window is added to the
//! row and not told again; where the rules want a number of occurrences first, it is told when there are as many. The row
//! and its deliveries are written in one transaction, so that neither is there without the other; whoever raises one does
//! not wait. Where the ledger cannot write now, the alert goes out directly (`direct`) and into the log: that the record is
//! not kept is what must be heard above all.

mod direct;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use toolkeep_core::delivery::Message;
use toolkeep_core::id::{AlertId, ChannelName, DeliveryId, TenantName};

use crate::ambient::Ambient;
use crate::channel::Channels;
use crate::ledger::{AlertRaised, Ledger, LedgerError, LedgerHealth};
use crate::notify::Event;

pub(crate) use direct::Direct;

/// How long the same fact is added to its alert, if the configuration does not say: an hour, in milliseconds.
pub const WINDOW_MS: u64 = 3_600_000;
/// Longest window, in milliseconds: a week.
pub const WINDOW_MAX_MS: u64 = 7 * 24 * 3_600_000;
/// Most occurrences that a rule can want before it tells.
pub const THRESHOLD_MAX: u32 = 10_000;
/// Most rules of a configuration: a few for each kind.
pub const RULES_MAX: usize = 100;
/// Longest subject, in bytes: a name or an id with a word; a longer one is cut.
pub const SUBJECT_MAX_BYTES: usize = 200;
/// Longest text of the facts, in bytes: they name things, and hold no contents.
pub const DETAIL_MAX_BYTES: usize = 8 * 1024;

/// How much an alert matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To know.
    Info,
    /// To look at.
    Warning,
    /// To act on now.
    Critical,
}

impl Severity {
    /// All, from the least.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// How it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.word() == word)
    }
}

/// A checked `[[alerts.rule]]`: what it says of these events in place of what is said of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRule {
    /// Of what.
    pub on: Vec<Event>,
    /// Whether there are alerts of it at all.
    pub enabled: bool,
    /// How often it must happen within the window before it is told.
    pub threshold: u32,
    /// How much it matters; the event's own severity if absent.
    pub severity: Option<Severity>,
    /// By which ways it is told; those of all alerts if absent.
    pub channels: Option<Vec<ChannelName>>,
}

/// A checked `[alerts]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRules {
    /// How long the same fact is added to its alert, in milliseconds.
    pub window_ms: u64,
    /// By which ways alerts are told.
    pub channels: Vec<ChannelName>,
    /// What is different for some events.
    pub rules: Vec<AlertRule>,
}

impl Default for AlertRules {
    fn default() -> Self {
        Self { window_ms: WINDOW_MS, channels: Vec::new(), rules: Vec::new() }
    }
}

/// What applies to one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms<'r> {
    /// How much it matters.
    pub severity: Severity,
    /// How often it must happen first.
    pub threshold: u32,
    /// By which ways it is told.
    pub channels: &'r [ChannelName],
}

impl AlertRules {
    /// What applies to an event; nothing where it is no alert, or none is wanted.
    #[must_use]
    pub fn of(&self, event: Event) -> Option<Terms<'_>> {
        let severity = event.severity()?;
        let Some(rule) = self.rules.iter().find(|rule| rule.on.contains(&event)) else {
            return Some(Terms { severity, threshold: 1, channels: &self.channels });
        };
        rule.enabled.then(|| Terms {
            severity: rule.severity.unwrap_or(severity),
            threshold: rule.threshold,
            channels: rule.channels.as_deref().unwrap_or(&self.channels),
        })
    }
}

/// Raises alerts. Cheap to clone.
#[derive(Clone)]
pub struct Alerts {
    rules: Arc<AlertRules>,
    channels: Channels,
    ledger: Ledger,
    ambient: Ambient,
    direct: Direct,
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alerts").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Alerts {
    /// With the rules of a configuration.
    #[must_use]
    pub fn new(rules: AlertRules, channels: Channels, ledger: Ledger, ambient: Ambient) -> Self {
        let direct = Direct::new(channels.clone(), ambient.clone());
        Self { rules: Arc::new(rules), channels, ledger, ambient, direct }
    }

    /// The ways by which an event of this tenant is told as an alert.
    pub fn ways(&self, event: Event, tenant: &TenantName) -> Vec<ChannelName> {
        let named = self.rules.of(event).map(|terms| terms.channels).unwrap_or_default();
        named.iter().filter(|name| self.channels.of(name, tenant).is_some()).cloned().collect()
    }

    /// What sends without the ledger.
    pub(crate) const fn direct(&self) -> &Direct {
        &self.direct
    }

    /// The ways by which an event is told as an alert and not besides. Where it has to happen more than once first, it is
    /// news each time.
    pub fn instead(&self, event: Event, tenant: &TenantName) -> Vec<ChannelName> {
        match self.rules.of(event) {
            Some(terms) if terms.threshold == 1 => self.ways(event, tenant),
            _ => Vec::new(),
        }
    }

    /// Raise an alert about a fact that is on record by itself. `subject` says of what, in few words that are the same when
    /// it happens again; `detail` is an object of what a person needs to act and holds no content and no secret.
    pub fn raise(&self, event: Event, tenant: &TenantName, subject: &str, detail: &Map<String, Value>) {
        let Some(terms) = self.rules.of(event) else { return };
        let ways = self.ways(event, tenant);
        let subject = cut(subject, SUBJECT_MAX_BYTES).to_owned();
        tracing::warn!(alert = event.word(), severity = terms.severity.word(), %tenant, %subject, "an alert is raised");
        let mut text = Value::Object(detail.clone()).to_string();
        if text.len() > DETAIL_MAX_BYTES {
            text = json!({"too_long": text.len()}).to_string();
        }
        let raised = AlertRaised {
            id: AlertId::new(self.ambient.uuid_v7()),
            tenant: tenant.clone(),
            event,
            subject: subject.into(),
            severity: terms.severity,
            threshold: terms.threshold,
            window_ms: self.rules.window_ms,
            detail: text.into(),
            deliveries: ways.into_iter().map(|way| (DeliveryId::new(self.ambient.uuid_v7()), way)).collect(),
        };
        let unwell = self.ledger.health() != LedgerHealth::Well;
        let kept = if unwell && self.direct.tell(&raised) {
            // It waits for room in the ledger, and is not told again when there is some.
            AlertRaised { threshold: 1, deliveries: Vec::new(), ..raised }
        } else {
            raised
        };
        if let Err((error, raised)) = self.ledger.raise_alert(kept) {
            not_kept(&raised, &error);
            if !unwell {
                self.direct.tell(&raised);
            }
        }
    }

    /// Tell what the ledger took and could not write after all.
    pub(crate) fn tell_unkept(&self) {
        for raised in self.ledger.unkept_alerts() {
            self.direct.tell(&raised);
        }
    }
}

fn not_kept(raised: &AlertRaised, error: &LedgerError) {
    tracing::error!(%error, alert = raised.event.word(), subject = %raised.subject, detail = %raised.detail,
        "an alert is not on record");
}

impl AlertRaised {
    /// What a channel is told: the facts, and how often and since when.
    pub(crate) fn message(&self, (count, first_ms, last_ms): (u64, u64, u64)) -> Message {
        let mut facts: Map<String, Value> = serde_json::from_str(&self.detail).unwrap_or_default();
        facts.insert("tenant".to_owned(), json!(self.tenant));
        let alert = json!({"id": self.id, "severity": self.severity, "subject": &*self.subject, "count": count,
            "first_at_ms": first_ms, "last_at_ms": last_ms});
        facts.insert("alert".to_owned(), alert);
        Message {
            to: Vec::new(),
            subject: self.event.word().to_owned(),
            media_type: "application/json".to_owned(),
            body: Value::Object(facts).to_string().into_bytes().into(),
        }
    }
}

/// The beginning of a text that is not longer than so many bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// What an event is about: the same words when it happens again.
#[must_use]
pub fn subject_of(event: Event, facts: &Map<String, Value>) -> String {
    let text = |key: &str| match facts.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let of = |key: &str, name: &str| text(key).map(|value| format!("{name} {value}"));
    let agent = || facts.get("principal")?.get("agent")?.as_str().map(|agent| format!("agent {agent}"));
    let parts: Vec<Option<String>> = match event {
        Event::ApprovalRequested
        | Event::ApprovalResolved
        | Event::ApprovalExpired
        | Event::OutcomeUnknown
        | Event::OutcomeHalted
        | Event::ReplayFailed => vec![of("call_id", "call").or_else(|| of("call", "call"))],
        Event::ApprovalHasty => vec![of("by", "by")],
        // Another reader of the same call is another fact.
        Event::BreakGlass => vec![of("call_id", "call"), of("by", "by")],
        Event::BoundaryBreach | Event::ContentSuspicious => vec![of("tool", "tool"), agent()],
        Event::RunEscalated | Event::RunHeld => vec![of("run", "run")],
        Event::DeliveryDead => vec![of("channel", "channel").or_else(|| of("tool", "tool"))],
        // A switch that is set harder, or again after it was cleared, is another fact.
        Event::KillChanged => {
            vec![of("level", "level"), of("name", "name"), text("mode"), of("set_at_ms", "set at")]
        }
        Event::BreakerOpened => vec![of("tool", "tool"), of("grant", "grant"), of("origin", "origin")],
        Event::BudgetExceeded => {
            vec![text("balance"), of("run", "run"), of("user", "user"), of("workflow", "workflow")]
        }
        Event::BudgetSpike => vec![text("meter"), of("workflow", "workflow")],
        Event::AuditFailed => vec![text("what")],
        Event::EvalDrift => vec![of("tool", "tool"), of("suite", "suite")],
        Event::LedgerNearlyFull => Vec::new(),
    };
    let said: Vec<String> = parts.into_iter().flatten().collect();
    if said.is_empty() { event.word().to_owned() } else { said.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(facts) => facts,
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn r43_a_rule_says_what_is_different_for_its_events_and_nothing_of_others() {
        let ops: ChannelName = "ops".parse().expect("name");
        let pager: ChannelName = "pager".parse().expect("name");
        let rules = AlertRules {
            channels: vec![ops.clone()],
            rules: vec![
                AlertRule {
                    on: vec![Event::ContentSuspicious],
                    enabled: true,
                    threshold: 3,
                    severity: Some(Severity::Critical),
                    channels: Some(vec![pager.clone()]),
                },
                AlertRule {
                    on: vec![Event::RunHeld, Event::DeliveryDead],
                    enabled: false,
                    threshold: 1,
                    severity: None,
                    channels: None,
                },
            ],
            ..AlertRules::default()
        };
        let of = |event| rules.of(event).map(|terms| (terms.severity, terms.threshold, terms.channels.to_vec()));
        assert_eq!(of(Event::ContentSuspicious), Some((Severity::Critical, 3, vec![pager])));
        assert_eq!(of(Event::OutcomeHalted), Some((Severity::Critical, 1, vec![ops])));
        assert_eq!((of(Event::RunHeld), of(Event::DeliveryDead)), (None, None));
        assert_eq!(of(Event::ApprovalRequested), None, "that is news and no alert");
    }

    #[test]
    fn r43_what_happens_again_has_the_same_subject_and_what_happens_to_others_another() {
        let breach = |tool: &str, call: u32| {
            let about = json!({"call_id": call, "tool": tool, "principal": {"agent": "a"}, "tried": call});
            subject_of(Event::BoundaryBreach, &facts(about))
        };
        assert_eq!(breach("x", 1), breach("x", 2));
        assert_ne!(breach("x", 1), breach("y", 1));
        for event in Event::ALL {
            assert!(!subject_of(event, &Map::new()).is_empty(), "{event:?}");
        }
        let spent = facts(json!({"balance": "the run's budget", "run": "run_1", "user": null}));
        assert_eq!(subject_of(Event::BudgetExceeded, &spent), "the run's budget, run run_1");
    }

    #[test]
    fn r43_a_switch_that_is_set_again_and_another_reader_are_facts_of_their_own() {
        let switch = |mode: &str, set: u64| {
            let told = json!({"level": "tool", "name": "a", "mode": mode, "set_at_ms": set, "set": true});
            subject_of(Event::KillChanged, &facts(told))
        };
        assert_eq!(switch("stop", 1), switch("stop", 1));
        assert_ne!(switch("read-only", 1), switch("stop", 1), "it is set harder");
        assert_ne!(switch("stop", 1), switch("stop", 2), "it is set again");
        let read = |by: &str| subject_of(Event::BreakGlass, &facts(json!({"call_id": "call_1", "by": by})));
        assert_eq!(read("ann"), read("ann"));
        assert_ne!(read("ann"), read("bob"));
    }

    #[test]
    fn a_subject_is_cut_between_characters() {
        let text = "é".repeat(150);
        assert_eq!(cut(&text, SUBJECT_MAX_BYTES).len(), SUBJECT_MAX_BYTES);
        assert_eq!(cut(&text, SUBJECT_MAX_BYTES - 1).len(), SUBJECT_MAX_BYTES - 2);
        assert_eq!(cut("x", 1), "x");
    }
}
