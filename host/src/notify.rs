//! Telling operators what happened, by the channels that the configuration names for it.
//!
//! An alert is a delivery like any other: kept in the ledger, tried again, given up as a dead letter. It is enqueued right
//! after what it tells of, which is on record by itself: a crash between the two loses the alert and nothing else. Whoever has
//! something to tell calls [`Notify::event`] and does not wait. What an operator has to know is an alert besides, and is told
//! as one where alerts go ([`crate::alerts`]). That the audit failed is told even where the ledger cannot write: then it is
//! sent at once, without being kept.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use toolkeep_core::delivery::{DeliveryKind, Message};
use toolkeep_core::id::{ChannelName, DeliveryId, TenantName};

use crate::alerts::{AlertRules, Alerts, Severity, subject_of};
use crate::ambient::Ambient;
use crate::channel::{Channels, Parcel};
use crate::egress::Clearance;
use crate::ledger::{Enqueue, Ledger, LedgerHealth};

/// What operators may be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Event {
    /// A plan waits for people.
    #[serde(rename = "approval.requested")]
    ApprovalRequested,
    /// People, or the clock, decided about a plan.
    #[serde(rename = "approval.resolved")]
    ApprovalResolved,
    /// Nobody answered for a plan in time: it counts as rejected.
    #[serde(rename = "approval.expired")]
    ApprovalExpired,
    /// Somebody agrees faster than anybody can read.
    #[serde(rename = "approval.hasty")]
    ApprovalHasty,
    /// It is not known what became of a commit.
    #[serde(rename = "outcome.unknown")]
    OutcomeUnknown,
    /// A commit could be neither finished nor taken back.
    #[serde(rename = "outcome.halted")]
    OutcomeHalted,
    /// A tool tried what it is not granted.
    #[serde(rename = "boundary.breach")]
    BoundaryBreach,
    /// Something was found in what a tool returned.
    #[serde(rename = "content.suspicious")]
    ContentSuspicious,
    /// A run went too far.
    #[serde(rename = "run.escalated")]
    RunEscalated,
    /// A tool's message was given up.
    #[serde(rename = "delivery.dead")]
    DeliveryDead,
    /// A kill switch was set or cleared.
    #[serde(rename = "kill.changed")]
    KillChanged,
    /// A circuit opened: a tool or a grant of requests failed too often.
    #[serde(rename = "breaker.opened")]
    BreakerOpened,
    /// A budget or a ceiling is used up.
    #[serde(rename = "budget.exceeded")]
    BudgetExceeded,
    /// Spending is far above what is usual.
    #[serde(rename = "budget.spike")]
    BudgetSpike,
    /// A run waits for an operator to release it.
    #[serde(rename = "run.held")]
    RunHeld,
    /// The record cannot be kept, or is not what was written.
    #[serde(rename = "audit.failed")]
    AuditFailed,
    /// Golden cases pass less often than they did.
    #[serde(rename = "eval.drift")]
    EvalDrift,
    /// A recorded call does not replay to what was recorded.
    #[serde(rename = "replay.failed")]
    ReplayFailed,
    /// An operator read the payloads of a call in full.
    #[serde(rename = "privacy.break_glass")]
    BreakGlass,
    /// The ledger is nearly as large as it may become.
    #[serde(rename = "ledger.nearly_full")]
    LedgerNearlyFull,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::ApprovalRequested,
        Self::ApprovalResolved,
        Self::ApprovalExpired,
        Self::ApprovalHasty,
        Self::ContentSuspicious,
        Self::RunEscalated,
        Self::OutcomeUnknown,
        Self::OutcomeHalted,
        Self::BoundaryBreach,
        Self::DeliveryDead,
        Self::KillChanged,
        Self::BreakerOpened,
        Self::BudgetExceeded,
        Self::BudgetSpike,
        Self::RunHeld,
        Self::AuditFailed,
        Self::EvalDrift,
        Self::ReplayFailed,
        Self::BreakGlass,
        Self::LedgerNearlyFull,
    ];

    /// Its name, in the configuration and as the `type` of what is sent.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::ApprovalRequested => "approval.requested",
            Self::ApprovalResolved => "approval.resolved",
            Self::ApprovalExpired => "approval.expired",
            Self::ApprovalHasty => "approval.hasty",
            Self::ContentSuspicious => "content.suspicious",
            Self::RunEscalated => "run.escalated",
            Self::OutcomeUnknown => "outcome.unknown",
            Self::OutcomeHalted => "outcome.halted",
            Self::BoundaryBreach => "boundary.breach",
            Self::DeliveryDead => "delivery.dead",
            Self::KillChanged => "kill.changed",
            Self::BreakerOpened => "breaker.opened",
            Self::BudgetExceeded => "budget.exceeded",
            Self::BudgetSpike => "budget.spike",
            Self::RunHeld => "run.held",
            Self::AuditFailed => "audit.failed",
            Self::EvalDrift => "eval.drift",
            Self::ReplayFailed => "replay.failed",
            Self::BreakGlass => "privacy.break_glass",
            Self::LedgerNearlyFull => "ledger.nearly_full",
        }
    }

    /// How much it matters to operators; nothing for what is news and no alert.
    #[must_use]
    pub const fn severity(self) -> Option<Severity> {
        match self {
            Self::ApprovalRequested | Self::ApprovalResolved => None,
            Self::ApprovalExpired
            | Self::ApprovalHasty
            | Self::ContentSuspicious
            | Self::BoundaryBreach
            | Self::RunEscalated
            | Self::RunHeld
            | Self::DeliveryDead
            | Self::BreakerOpened
            | Self::BudgetExceeded
            | Self::BudgetSpike
            | Self::EvalDrift
            | Self::ReplayFailed
            | Self::BreakGlass
            | Self::LedgerNearlyFull => Some(Severity::Warning),
            Self::OutcomeUnknown | Self::OutcomeHalted | Self::AuditFailed | Self::KillChanged => {
                Some(Severity::Critical)
            }
        }
    }

    /// Whether each is about a call or a change of its own, so that nothing adds up to a number of occurrences.
    #[must_use]
    pub const fn is_single(self) -> bool {
        matches!(
            self,
            Self::ApprovalRequested
                | Self::ApprovalResolved
                | Self::ApprovalExpired
                | Self::OutcomeUnknown
                | Self::OutcomeHalted
                | Self::KillChanged
                | Self::BreakGlass
                | Self::ReplayFailed
        )
    }
}

/// Which events go by which channels: a checked `[[notify]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What is told.
    pub events: Vec<Event>,
    /// By which ways.
    pub channels: Vec<ChannelName>,
}

/// Tells operators. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notify {
    routes: Arc<[Route]>,
    channels: Channels,
    alerts: Alerts,
    ledger: Ledger,
    ambient: Ambient,
}

impl Notify {
    /// The routes of a configuration. Alerts are raised, and told nowhere.
    #[must_use]
    pub fn new(routes: Vec<Route>, channels: Channels, ledger: Ledger, ambient: Ambient) -> Self {
        let alerts = Alerts::new(AlertRules::default(), channels.clone(), ledger.clone(), ambient.clone());
        Self { routes: routes.into(), channels, alerts, ledger, ambient }
    }

    /// The same with rules of alerts.
    #[must_use]
    pub fn with_alerts(self, rules: AlertRules) -> Self {
        let alerts = Alerts::new(rules, self.channels.clone(), self.ledger.clone(), self.ambient.clone());
        Self { alerts, ..self }
    }

    /// Tell of an event that concerns a tenant. `facts` is an object of what a person needs to act; it holds no content and
    /// no secret. A channel of another tenant is not told. Where alerts of it go, it is told as an alert and not besides, unless
    /// it has to happen more than once first.
    pub fn event(&self, event: Event, tenant: &TenantName, facts: Value) {
        let Value::Object(mut facts) = facts else { return };
        let cleared = event == Event::KillChanged && facts.get("set") == Some(&Value::Bool(false));
        let alert = event.severity().is_some() && !cleared;
        if alert {
            self.alerts.raise(event, tenant, &subject_of(event, &facts), &facts);
        }
        let mut told: Vec<ChannelName> = if alert { self.alerts.instead(event, tenant) } else { Vec::new() };
        facts.insert("tenant".to_owned(), json!(tenant));
        let body: Arc<[u8]> = Value::Object(facts).to_string().into_bytes().into();
        for channel in
            self.routes.iter().filter(|route| route.events.contains(&event)).flat_map(|route| &route.channels)
        {
            if told.contains(channel) || self.channels.of(channel, tenant).is_none() {
                continue;
            }
            told.push(channel.clone());
            let message = Message {
                to: Vec::new(),
                subject: event.word().to_owned(),
                media_type: "application/json".to_owned(),
                body: Arc::clone(&body),
            };
            let alert = Enqueue {
                id: DeliveryId::new(self.ambient.uuid_v7()),
                tenant: tenant.clone(),
                kind: DeliveryKind::Alert,
                channel: channel.clone(),
                call: None,
                message,
            };
            if event == Event::AuditFailed && self.ledger.health() != LedgerHealth::Well {
                self.send_at_once(alert);
                continue;
            }
            match self.ledger.enqueue_delivery(alert.clone()) {
                Ok(()) => {}
                Err(error) if event == Event::AuditFailed => {
                    tracing::error!(%error, %channel, "an alert is sent without being kept");
                    self.send_at_once(alert);
                }
                Err(error) => tracing::error!(%error, event = event.word(), %channel, "an alert is lost"),
            }
        }
    }

    /// Tell what the ledger took and could not write after all.
    pub(crate) fn tell_unkept(&self) {
        self.alerts.tell_unkept();
    }

    fn send_at_once(&self, alert: Enqueue) {
        let Enqueue { id, tenant, kind, channel, call, message } = alert;
        let (made_ms, clearance) = (self.ambient.now_ms(), Clearance::default());
        self.alerts.direct().send(channel, Parcel { id, tenant, kind, call, made_ms, message, clearance });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_by_the_names_they_are_sent_with() {
        for event in Event::ALL {
            assert_eq!(serde_json::from_value::<Event>(json!(event.word())).ok(), Some(event));
        }
    }
}
