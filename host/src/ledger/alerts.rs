//! Alerts on record: raised, counted, acknowledged, forgotten (R43).
//!
//! An alert that is told is written with its deliveries in one transaction. Who acknowledged what is in the audit; what an
//! alert is about is on record by itself, so that raising one adds nothing there.

use std::sync::Arc;

use rusqlite::{Row, params};
use serde_json::json;
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::delivery::DeliveryKind;
use toolkeep_core::id::{AlertId, ChannelName, DeliveryId, TenantName, UserName};

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, id_bytes, integer};
use super::deliveries::Enqueue;
use super::failure::LedgerError;
use super::queue::{Done, Job, Work};
use super::read::bounds;
use super::rows::{Page, Paged, Scope};
use super::statement::{page, row};
use crate::alerts::Severity;
use crate::notify::Event;

/// Alerts of one tenant about one event that are not acknowledged, at most. What comes then is added to the one about
/// [`OVERFLOW`]. Each event has its own: what an agent can make happen often does not mute another.
pub const ALERTS_OPEN_MAX: i64 = 1_000;
/// The subject of what has no row of its own.
pub const OVERFLOW: &str = "more than can be listed";

/// An alert as it is raised.
#[derive(Debug, Clone)]
pub struct AlertRaised {
    /// Its id, if it is a new one.
    pub id: AlertId,
    /// Whom it concerns.
    pub tenant: TenantName,
    /// What happened.
    pub event: Event,
    /// To what; the same words when it happens again.
    pub subject: Arc<str>,
    /// How much it matters.
    pub severity: Severity,
    /// How often it must happen before it is told.
    pub threshold: u32,
    /// How long it is added to the same alert, in milliseconds from the last time.
    pub window_ms: u64,
    /// The facts, a JSON object.
    pub detail: Arc<str>,
    /// How it is told when it is.
    pub deliveries: Vec<(DeliveryId, ChannelName)>,
}

/// An alert as it stands.
#[derive(Debug, Clone)]
pub struct StoredAlert {
    /// Its id.
    pub id: AlertId,
    /// Whom it concerns.
    pub tenant: TenantName,
    /// What happened.
    pub event: Arc<str>,
    /// To what.
    pub subject: Arc<str>,
    /// How much it matters.
    pub severity: Severity,
    /// `counting`, `open` or `acked`.
    pub state: Arc<str>,
    /// How often.
    pub count: u64,
    /// The facts of the last time, a JSON object.
    pub detail: Arc<str>,
    /// When it happened first, in milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// When it happened last.
    pub last_ms: u64,
    /// Who said that it was seen.
    pub acked_by: Option<UserName>,
    /// When.
    pub acked_ms: Option<u64>,
    /// And what about it.
    pub note: Option<Arc<str>>,
}

/// One write of this kind.
#[derive(Debug)]
pub(super) enum AlertWork {
    Raise(Box<AlertRaised>),
    Ack { scope: Scope, id: AlertId, by: UserName, note: Arc<str> },
    Forget { before_ms: u64 },
}

fn alert_of(row: &Row<'_>) -> Result<StoredAlert, LedgerError> {
    let reading = Reading::new(row, "alerts");
    let acked_by = match reading.text_or_null("acked_by")? {
        Some(_) => Some(reading.name("acked_by")?),
        None => None,
    };
    Ok(StoredAlert {
        id: AlertId::new(reading.uuid("id")?),
        tenant: reading.name("tenant")?,
        event: Arc::from(reading.text("event")?),
        subject: Arc::from(reading.text("subject")?),
        severity: reading.word("severity", Severity::from_word)?,
        state: Arc::from(reading.text("state")?),
        count: reading.number("count")?,
        detail: Arc::from(reading.text("detail")?),
        first_ms: reading.number("first_ms")?,
        last_ms: reading.number("last_ms")?,
        acked_by,
        acked_ms: reading.number_or_null("acked_ms")?,
        note: reading.text_or_null("note")?.map(Arc::from),
    })
}

/// A row that counts what happens again.
struct Counting {
    seq: i64,
    id: AlertId,
    told: bool,
    count: u64,
    first_ms: u64,
}

impl Batch<'_> {
    /// One write of an alert.
    pub(super) fn alert(&mut self, work: &AlertWork) -> Step<bool, LedgerError> {
        match work {
            AlertWork::Raise(raised) => self.raise(raised),
            AlertWork::Ack { scope, id, by, note } => self.ack(scope, *id, by, note),
            AlertWork::Forget { before_ms } => {
                let sql = "DELETE FROM alerts WHERE last_ms < ?1";
                Ok(self.execute(sql, params![integer(*before_ms)])? > 0)
            }
        }
    }

    /// Whether it is told now.
    fn raise(&mut self, raised: &AlertRaised) -> Step<bool, LedgerError> {
        let mut subject: &str = &raised.subject;
        let mut counting = self.counting(raised, subject)?;
        if counting.is_none() && self.is_full(raised)? {
            subject = OVERFLOW;
            counting = self.counting(raised, subject)?;
        }
        let (id, told, count, first_ms) = match counting {
            Some(Counting { seq, id, told, count, first_ms }) => {
                let state = if told || count + 1 >= u64::from(raised.threshold) { "open" } else { "counting" };
                self.execute(
                    "UPDATE alerts SET count = ?1, last_ms = ?2, detail = ?3, severity = ?4, state = ?5 WHERE seq = ?6",
                    params![
                        integer(count + 1),
                        integer(self.now_ms),
                        raised.detail,
                        raised.severity.word(),
                        state,
                        seq
                    ],
                )?;
                (id, told, count + 1, first_ms)
            }
            None => {
                let state = if raised.threshold > 1 { "counting" } else { "open" };
                self.execute(
                    "INSERT INTO alerts (id, tenant, event, subject, severity, state, count, detail, first_ms, last_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8, ?8)",
                    params![
                        id_bytes(raised.id.uuid()),
                        raised.tenant.as_str(),
                        raised.event.word(),
                        subject,
                        raised.severity.word(),
                        state,
                        raised.detail,
                        integer(self.now_ms)
                    ],
                )?;
                (raised.id, false, 1, self.now_ms)
            }
        };
        if told || count < u64::from(raised.threshold) {
            return Ok(false);
        }
        let alert = AlertRaised { id, subject: subject.into(), ..raised.clone() };
        let message = alert.message((count, first_ms, self.now_ms));
        for (delivery, channel) in &raised.deliveries {
            self.enqueue(&Enqueue {
                id: *delivery,
                tenant: raised.tenant.clone(),
                kind: DeliveryKind::Alert,
                channel: channel.clone(),
                call: None,
                message: message.clone(),
            })?;
        }
        Ok(true)
    }

    /// The row that still counts this fact.
    fn counting(&self, raised: &AlertRaised, subject: &str) -> Step<Option<Counting>, LedgerError> {
        let sql = "SELECT seq, id, state, count, first_ms FROM alerts WHERE tenant = ?1 AND event = ?2 AND subject = ?3 \
                   AND state <> 'acked' AND last_ms >= ?4 ORDER BY last_ms DESC LIMIT 1";
        let since = self.now_ms.saturating_sub(raised.window_ms);
        let values = params![raised.tenant.as_str(), raised.event.word(), subject, integer(since)];
        Ok(self.row(sql, values, |row| {
            let reading = Reading::new(row, "alerts");
            Ok(Counting {
                seq: integer(reading.number("seq")?),
                id: AlertId::new(reading.uuid("id")?),
                told: reading.text("state")? == "open",
                count: reading.number("count")?,
                first_ms: reading.number("first_ms")?,
            })
        })?)
    }

    fn is_full(&self, raised: &AlertRaised) -> Step<bool, LedgerError> {
        let sql = "SELECT count(*) AS open FROM \
                   (SELECT 1 FROM alerts WHERE tenant = ?1 AND event = ?2 AND state <> 'acked' LIMIT ?3)";
        let values = params![raised.tenant.as_str(), raised.event.word(), ALERTS_OPEN_MAX];
        let open = self.row(sql, values, |row| Reading::new(row, "alerts").number("open"))?;
        Ok(open.is_some_and(|open| integer(open) >= ALERTS_OPEN_MAX))
    }

    /// Whether there was one to acknowledge.
    fn ack(&mut self, scope: &Scope, id: AlertId, by: &UserName, note: &str) -> Step<bool, LedgerError> {
        let found = self.row(
            "SELECT * FROM alerts WHERE id = ?1 AND state <> 'acked'",
            params![id_bytes(id.uuid())],
            alert_of,
        )?;
        let Some(alert) = found.filter(|alert| scope.sees(&alert.tenant)) else { return Ok(false) };
        self.execute(
            "UPDATE alerts SET state = 'acked', acked_by = ?1, acked_ms = ?2, note = ?3 WHERE id = ?4",
            params![by.as_str(), integer(self.now_ms), note, id_bytes(id.uuid())],
        )?;
        let facts = json!({"alert": id, "by": by, "count": alert.count, "event": &*alert.event, "note": note,
            "subject": &*alert.subject, "tenant": alert.tenant});
        self.append(AuditKind::Alert, canonical_body(&facts));
        Ok(true)
    }
}

impl Ledger {
    /// Raise an alert, or count it. Returns at once; written within about 20 ms, with its deliveries if it is told.
    ///
    /// # Errors
    /// The queue is full, or the ledger is poisoned or closed: the alert is given back.
    pub fn raise_alert(&self, raised: AlertRaised) -> Result<(), (LedgerError, Box<AlertRaised>)> {
        let spare = Box::new(raised.clone());
        match self.shared.queue.push(Job::lazy(Work::Alert(AlertWork::Raise(Box::new(raised))))) {
            Ok(()) => {
                self.shared.outbox.notify_one();
                Ok(())
            }
            Err(error) => Err((error, spare)),
        }
    }

    /// Alerts that were taken and could not be written, each once: they are to be told without the ledger.
    #[must_use]
    pub fn unkept_alerts(&self) -> Vec<AlertRaised> {
        self.shared.pulse.take_unkept()
    }

    /// Alerts, newest first: those that nobody acknowledged, or all.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn alerts(
        &self,
        tenant: &TenantName,
        all: bool,
        wanted: Page,
    ) -> Result<Paged<StoredAlert>, LedgerError> {
        self.settled().await?;
        let (from, ask, limit) = bounds(wanted, i64::MAX);
        let tenant = tenant.clone();
        let sql = "SELECT * FROM alerts WHERE tenant = ?3 AND seq < ?1 AND (?4 OR state = 'open') \
                   ORDER BY seq DESC LIMIT ?2";
        self.read(move |conn| page(conn, sql, params![from, ask, tenant.as_str(), all], limit, alert_of)).await
    }

    /// One alert.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn alert(&self, scope: &Scope, id: AlertId) -> Result<Option<StoredAlert>, LedgerError> {
        self.settled().await?;
        let scope = scope.clone();
        let sql = "SELECT * FROM alerts WHERE id = ?1";
        let found = self.read(move |conn| row(conn, sql, params![id_bytes(id.uuid())], alert_of)).await?;
        Ok(found.filter(|alert| scope.sees(&alert.tenant)))
    }

    /// Say that an alert was seen; durable, and on record with who. False if there is none that nobody acknowledged.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn ack_alert(&self, scope: &Scope, id: AlertId, by: &UserName, note: &str) -> Result<bool, LedgerError> {
        let work = AlertWork::Ack { scope: scope.clone(), id, by: by.clone(), note: note.into() };
        match self.ask(Work::Alert(work), true).await? {
            Done::Changed(changed) => Ok(changed),
            Done::Refused(error) => Err(error),
            _ => Err(LedgerError::Closed),
        }
    }

    /// Forget alerts about what happened last before this moment.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn forget_alerts(&self, before_ms: u64) -> Result<(), LedgerError> {
        match self.ask(Work::Alert(AlertWork::Forget { before_ms }), false).await? {
            Done::Refused(error) => Err(error),
            _ => Ok(()),
        }
    }
}
