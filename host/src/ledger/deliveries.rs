//! Deliveries and dead letters as callers hand them in and get them back, and the readers' side of both.
//!
//! What is due is looked up by channel and tenant, never by walking what waits: a tenant with a hundred thousand messages
//! costs another one nothing.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};
use tokio::sync::Notify as Signal;
use toolkeep_core::delivery::{DeliveryEvent, DeliveryKind, DeliveryState, Message, Progress};
use toolkeep_core::id::{AgentName, CallId, ChannelName, DeliveryId, NotAnId, TenantName, ToolName, UserName};
use toolkeep_core::kill::Workflow;
use uuid::Uuid;

use super::Ledger;
use super::column::{Reading, id_bytes, integer};
use super::failure::LedgerError;
use super::queue::{Done, Job, Work};
use super::read::bounds;
use super::rows::{Page, Paged, Scope};
use super::statement::{Failed, page, row, rows};

/// Something to be delivered after what it belongs to is on record.
#[derive(Debug, Clone)]
pub struct Enqueue {
    /// Its id for ever: at every attempt, after every restart.
    pub id: DeliveryId,
    /// For whom.
    pub tenant: TenantName,
    /// Why.
    pub kind: DeliveryKind,
    /// By which way.
    pub channel: ChannelName,
    /// The call whose plan holds it.
    pub call: Option<CallId>,
    /// What.
    pub message: Message,
}

/// A delivery, as it stands.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What was enqueued. The body of one that is at rest is empty.
    pub what: Enqueue,
    /// How far it is.
    pub progress: Progress,
    /// What came of the last attempt, in one line.
    pub note: Option<Arc<str>>,
    /// When it was enqueued.
    pub made_ms: u64,
}

/// A delivery whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Which one.
    pub id: DeliveryId,
    /// For whom.
    pub tenant: TenantName,
    /// By which way.
    pub channel: ChannelName,
    /// Why.
    pub kind: DeliveryKind,
    /// Whose call it is of; nothing for an alert, and where the call is not kept any more.
    pub sender: Option<Sender>,
}

/// The call that sends something, as far as a kill switch can be about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The agent.
    pub agent: AgentName,
    /// The tool.
    pub tool: ToolName,
    /// The workflow of its run.
    pub workflow: Workflow,
}

/// What happened to a delivery.
#[derive(Debug, Clone)]
pub struct DeliveryChange {
    /// Which one.
    pub id: DeliveryId,
    /// What happened.
    pub event: DeliveryEvent,
    /// How many attempts it may have.
    pub most: u32,
    /// What came of the attempt, in one line.
    pub note: Arc<str>,
}

/// How much there is in the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Deliveries that wait.
    pub queued: u64,
    /// Deliveries under way.
    pub sending: u64,
    /// Dead letters that rest.
    pub dead: u64,
    /// When the oldest of those that wait was enqueued.
    pub oldest_ms: Option<u64>,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadState {
    /// It waits for a person.
    Resting,
    /// A person had it tried again.
    Retried,
    /// A person threw it away.
    Discarded,
}

impl DeadState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Resting, Self::Retried, Self::Discarded];

    /// The word for it, in rows and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Resting => "resting",
            Self::Retried => "retried",
            Self::Discarded => "discarded",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// What is given up: a delivery, or a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeadId {
    /// A delivery.
    Delivery(DeliveryId),
    /// A call.
    Call(CallId),
}

impl DeadId {
    /// What is in the row.
    const fn uuid(&self) -> &Uuid {
        match self {
            Self::Delivery(id) => id.uuid(),
            Self::Call(id) => id.uuid(),
        }
    }
}

impl From<DeliveryId> for DeadId {
    fn from(id: DeliveryId) -> Self {
        Self::Delivery(id)
    }
}

impl TryFrom<String> for DeadId {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        if text.starts_with(CallId::PREFIX) { text.parse().map(Self::Call) } else { text.parse().map(Self::Delivery) }
    }
}

impl From<DeadId> for String {
    fn from(id: DeadId) -> Self {
        match id {
            DeadId::Delivery(id) => id.to_string(),
            DeadId::Call(id) => id.to_string(),
        }
    }
}

/// What kind of thing was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadKind {
    /// A message of a tool.
    Message,
    /// The host tells its operators of something.
    Alert,
    /// A call, after all its attempts.
    Call,
}

impl DeadKind {
    /// The word for it, in rows and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Alert => "alert",
            Self::Call => "call",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Message, Self::Alert, Self::Call].into_iter().find(|kind| kind.word() == word)
    }
}

/// A call that is given up.
#[derive(Debug, Clone)]
pub struct DeadCall {
    /// Which one. Its row holds everything that is needed to make it again.
    pub call: CallId,
    /// For whom.
    pub tenant: TenantName,
    /// Why, in one line.
    pub reason: Arc<str>,
    /// How often it was executed.
    pub attempts: u32,
}

/// Something that could not be delivered, or done.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// What; also its name for operators.
    pub id: DeadId,
    /// What kind of thing.
    pub kind: DeadKind,
    /// For whom.
    pub tenant: TenantName,
    /// By which way; nothing for a call.
    pub channel: Option<ChannelName>,
    /// Why it could not, in one line.
    pub reason: Arc<str>,
    /// Attempts that were made.
    pub attempts: u64,
    /// When it was given up.
    pub died_ms: u64,
    /// What became of it.
    pub state: DeadState,
    /// Who decided that.
    pub resolved_by: Option<UserName>,
}

/// Why a dead letter was not retried or discarded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeadLetterRefused {
    /// There is none of this id in this scope that rests.
    #[error("no such dead letter")]
    NotFound,
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A write to the outbox.
#[derive(Debug)]
pub(super) enum OutboxWork {
    /// Take something in.
    Enqueue(Box<Enqueue>),
    /// Begin an attempt at each of these that still waits.
    Claim(Vec<DeliveryId>),
    /// An attempt ended.
    Change(DeliveryChange),
    /// A person decides about a dead letter.
    Resolve { scope: Scope, id: DeliveryId, retry: bool, by: UserName },
    /// A call is given up.
    BuryCall(DeadCall),
    /// A person decides about one: it is made again as this call, or thrown away.
    ResolveCall { scope: Scope, call: CallId, again: Option<CallId>, by: UserName },
    /// The call as which this one was made again is over; of all of them, if none is named.
    EndRetries(Option<CallId>),
}

/// What a write to the outbox came to.
#[derive(Debug)]
pub(super) enum OutboxDone {
    /// It is in.
    Enqueued,
    /// These attempts began.
    Claimed(Vec<Delivery>),
    /// How far it is now.
    Changed(Progress),
    /// Whether there was a dead letter to decide about.
    Resolved(bool),
}

const COLUMNS: &str = "id, tenant, kind, channel, call, receivers, subject, media_type, body, state, attempts, next_ms, \
                       note, made_ms";

/// What is due, with whose call it is of.
const DUE: &str = "SELECT o.id AS id, o.tenant AS tenant, o.channel AS channel, o.kind AS kind, c.agent AS agent, \
                   c.tool AS tool, c.run AS run, r.workflow AS workflow FROM outbox o LEFT JOIN calls c ON c.id = o.call \
                   LEFT JOIN runs r ON r.id = c.run";

/// The statement for one delivery by its id, with the columns of [`delivery_of`].
pub(super) fn one_delivery() -> String {
    format!("SELECT {COLUMNS} FROM outbox WHERE id = ?1")
}

pub(super) fn delivery_of(row: &Row<'_>) -> Result<Delivery, LedgerError> {
    let reading = Reading::new(row, "outbox");
    let to = serde_json::from_str(reading.text("receivers")?)
        .map_err(|_| LedgerError::Damaged("a row of `outbox` has no valid `receivers`".into()))?;
    let message = Message {
        to,
        subject: reading.text("subject")?.to_owned(),
        media_type: reading.text("media_type")?.to_owned(),
        body: reading.bytes_or_null("body")?.unwrap_or_default().into(),
    };
    Ok(Delivery {
        what: Enqueue {
            id: DeliveryId::new(reading.uuid("id")?),
            tenant: reading.name("tenant")?,
            kind: reading.word("kind", DeliveryKind::from_word)?,
            channel: reading.name("channel")?,
            call: reading.uuid_or_null("call")?.map(CallId::new),
            message,
        },
        progress: progress_of(&reading)?,
        note: reading.text_or_null("note")?.map(Arc::from),
        made_ms: reading.number("made_ms")?,
    })
}

pub(super) fn progress_of(reading: &Reading<'_>) -> Result<Progress, LedgerError> {
    Ok(Progress {
        state: reading.word("state", DeliveryState::from_word)?,
        attempts: u32::try_from(reading.number("attempts")?).unwrap_or(u32::MAX),
        next_ms: reading.number("next_ms")?,
    })
}

fn due_of(row: &Row<'_>) -> Result<Due, LedgerError> {
    let reading = Reading::new(row, "outbox");
    let workflow = match (reading.uuid_or_null("run")?, reading.text_or_null("workflow")?) {
        (None, _) | (Some(_), Some("")) => Workflow::None,
        (Some(_), Some(_)) => Workflow::Of(reading.name("workflow")?),
        (Some(_), None) => Workflow::Unknown,
    };
    let sender = match reading.text_or_null("tool")? {
        None => None,
        Some(_) => Some(Sender { agent: reading.name("agent")?, tool: reading.name("tool")?, workflow }),
    };
    Ok(Due {
        id: DeliveryId::new(reading.uuid("id")?),
        tenant: reading.name("tenant")?,
        channel: reading.name("channel")?,
        kind: reading.word("kind", DeliveryKind::from_word)?,
        sender,
    })
}

fn dead_of(row: &Row<'_>) -> Result<DeadLetter, LedgerError> {
    let reading = Reading::new(row, "dead_letters");
    let (item, kind) = (reading.uuid("item")?, reading.word("kind", DeadKind::from_word)?);
    let call = kind == DeadKind::Call;
    Ok(DeadLetter {
        id: if call { DeadId::Call(CallId::new(item)) } else { DeadId::Delivery(DeliveryId::new(item)) },
        kind,
        tenant: reading.name("tenant")?,
        channel: if call { None } else { Some(reading.name("channel")?) },
        reason: Arc::from(reading.text("reason")?),
        attempts: reading.number("attempts")?,
        died_ms: reading.number("died_ms")?,
        state: reading.word("state", DeadState::from_word)?,
        resolved_by: match reading.text_or_null("resolved_by")? {
            Some(_) => Some(reading.name("resolved_by")?),
            None => None,
        },
    })
}

/// What is due, for each channel and tenant the first few. The pairs are found by hopping from one to the next.
fn due(conn: &Connection, now_ms: u64, each: u32) -> Result<Vec<Due>, Failed> {
    let hop = "SELECT channel, tenant FROM outbox WHERE state = 'queued' AND (channel, tenant) > (?1, ?2) \
               ORDER BY channel, tenant LIMIT 1";
    let first = format!(
        "{DUE} WHERE o.state = 'queued' AND o.channel = ?1 AND o.tenant = ?2 AND o.next_ms <= ?3 \
         ORDER BY o.next_ms, o.seq LIMIT ?4"
    );
    let (mut found, mut at) = (Vec::new(), (String::new(), String::new()));
    loop {
        let next = row(conn, hop, params![at.0, at.1], |row| {
            let reading = Reading::new(row, "outbox");
            Ok((reading.text("channel")?.to_owned(), reading.text("tenant")?.to_owned()))
        })?;
        let Some(next) = next else { return Ok(found) };
        found.extend(rows(conn, &first, params![next.0, next.1, integer(now_ms), i64::from(each)], due_of)?);
        at = next;
    }
}

impl Ledger {
    /// Enqueue something that belongs to no commit. Returns at once; written within about 20 ms. A delivery of this id that
    /// is there already stays as it is.
    ///
    /// # Errors
    /// The queue is full, or the ledger is poisoned or closed.
    pub fn enqueue_delivery(&self, what: Enqueue) -> Result<(), LedgerError> {
        self.shared.queue.push(Job::lazy(Work::Outbox(OutboxWork::Enqueue(Box::new(what)))))?;
        self.shared.outbox.notify_one();
        Ok(())
    }

    /// Told whenever something comes into the outbox that was not there.
    #[must_use]
    pub fn outbox_signal(&self) -> Arc<Signal> {
        Arc::clone(&self.shared.outbox)
    }

    /// Deliveries that are due at `now_ms`: for each channel and tenant the `each` that have waited longest.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn due_deliveries(&self, now_ms: u64, each: u32) -> Result<Vec<Due>, LedgerError> {
        self.settled().await?;
        self.read(move |conn| due(conn, now_ms, each)).await
    }

    /// When the next delivery is due, if one waits.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn next_delivery_ms(&self) -> Result<Option<u64>, LedgerError> {
        self.settled().await?;
        let sql = "SELECT next_ms FROM outbox WHERE state = 'queued' ORDER BY next_ms LIMIT 1";
        self.read(move |conn| row(conn, sql, &[], |row| Reading::new(row, "outbox").number("next_ms"))).await
    }

    /// Begin an attempt at each of these deliveries that still waits. Their attempts are counted on the disk when this returns.
    ///
    /// # Errors
    /// The ledger failed: nothing may be sent.
    pub async fn claim_deliveries(&self, ids: Vec<DeliveryId>) -> Result<Vec<Delivery>, LedgerError> {
        match self.outbox(OutboxWork::Claim(ids), true).await? {
            OutboxDone::Claimed(claimed) => Ok(claimed),
            _ => Err(LedgerError::Closed),
        }
    }

    /// Write down what came of an attempt. It is on the disk with the next flush: a power loss before it leads to one more
    /// attempt with the same id.
    ///
    /// # Errors
    /// There is no such delivery, the event has no place in its state, or the ledger failed.
    pub async fn change_delivery(&self, change: DeliveryChange) -> Result<Progress, LedgerError> {
        self.note_unsynced();
        match self.outbox(OutboxWork::Change(change), false).await? {
            OutboxDone::Changed(progress) => Ok(progress),
            _ => Err(LedgerError::Closed),
        }
    }

    /// Deliveries that are under way, or were when the last daemon stopped.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn deliveries_under_way(&self) -> Result<Vec<Due>, LedgerError> {
        self.settled().await?;
        let sql = format!("{DUE} WHERE o.state = 'sending' ORDER BY o.seq");
        self.read(move |conn| rows(conn, &sql, &[], due_of)).await
    }

    /// One delivery.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn delivery(&self, scope: &Scope, id: DeliveryId) -> Result<Option<Delivery>, LedgerError> {
        self.settled().await?;
        let scope = scope.clone();
        let found = self.read(move |conn| row(conn, &one_delivery(), params![id_bytes(id.uuid())], delivery_of));
        Ok(found.await?.filter(|delivery| scope.sees(&delivery.what.tenant)))
    }

    /// How much there is in the outbox.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn outbox_counts(&self) -> Result<OutboxCounts, LedgerError> {
        self.settled().await?;
        self.outbox_levels().await
    }

    /// As [`Ledger::outbox_counts`], without waiting for what is being written.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn outbox_levels(&self) -> Result<OutboxCounts, LedgerError> {
        let sql = "SELECT (SELECT count(*) FROM outbox WHERE state = 'queued') AS queued, \
                   (SELECT count(*) FROM outbox WHERE state = 'sending') AS sending, \
                   (SELECT count(*) FROM dead_letters WHERE state = 'resting') AS dead, \
                   (SELECT min(made_ms) FROM outbox WHERE state = 'queued') AS oldest";
        let counts = self.read(move |conn| {
            row(conn, sql, &[], |row| {
                let reading = Reading::new(row, "outbox");
                Ok(OutboxCounts {
                    queued: reading.number("queued")?,
                    sending: reading.number("sending")?,
                    dead: reading.number("dead")?,
                    oldest_ms: reading.number_or_null("oldest")?,
                })
            })
        });
        Ok(counts.await?.unwrap_or_default())
    }

    /// Dead letters, newest first: those that rest, or all that ever were.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn dead_letters(&self, scope: &Scope, all: bool, wanted: Page) -> Result<Paged<DeadLetter>, LedgerError> {
        self.settled().await?;
        let (from, ask, limit) = bounds(wanted, i64::MAX);
        let tenant = match scope {
            Scope::Tenant(tenant) => Some(tenant.clone()),
            Scope::Operator => None,
        };
        let sql = "SELECT * FROM dead_letters WHERE seq < ?1 AND (?3 IS NULL OR tenant = ?3) \
                   AND (?4 OR state = 'resting') ORDER BY seq DESC LIMIT ?2";
        self.read(move |conn| {
            let tenant = tenant.as_ref().map(TenantName::as_str);
            page(conn, sql, params![from, ask, tenant, all], limit, dead_of)
        })
        .await
    }

    /// The last death of a delivery.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn dead_letter(&self, scope: &Scope, id: impl Into<DeadId>) -> Result<Option<DeadLetter>, LedgerError> {
        self.settled().await?;
        let (scope, id) = (scope.clone(), id.into());
        let sql = "SELECT * FROM dead_letters WHERE item = ?1 ORDER BY seq DESC LIMIT 1";
        let found = self.read(move |conn| row(conn, sql, params![id_bytes(id.uuid())], dead_of));
        Ok(found.await?.filter(|letter| scope.sees(&letter.tenant)))
    }

    /// Have a dead letter tried again from the start, or throw it away; durable, and on record with who decided.
    ///
    /// # Errors
    /// No dead letter of this id rests in this scope, or the ledger failed.
    pub async fn resolve_dead_letter(
        &self,
        scope: &Scope,
        id: DeliveryId,
        retry: bool,
        by: &UserName,
    ) -> Result<(), DeadLetterRefused> {
        let work = OutboxWork::Resolve { scope: scope.clone(), id, retry, by: by.clone() };
        match self.outbox(work, true).await? {
            OutboxDone::Resolved(true) => {
                self.shared.outbox.notify_one();
                Ok(())
            }
            OutboxDone::Resolved(false) => Err(DeadLetterRefused::NotFound),
            _ => Err(LedgerError::Closed.into()),
        }
    }

    pub(super) async fn outbox(&self, work: OutboxWork, durable: bool) -> Result<OutboxDone, LedgerError> {
        match self.ask(Work::Outbox(work), durable).await? {
            Done::Outbox(done) => Ok(done),
            Done::Refused(error) => Err(error),
            _ => Err(LedgerError::Closed),
        }
    }
}
