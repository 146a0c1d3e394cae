//! The outbox: makes the deliveries that the ledger holds, until each is taken, given up, or decided about by a person.
//!
//! What is to be delivered is in the ledger before anybody hears of it, and every attempt is counted there before its
//! first byte leaves. So a crash anywhere leads to one more attempt with the same id and never to none. A kill switch
//! is asked before every single attempt. Deliveries of one channel are made side by side: their order is not promised.

mod turn;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify as Signal;
use toolkeep_core::delivery::{ATTEMPTS_DEFAULT, DeliveryEvent, DeliveryKind, DeliveryState};
use toolkeep_core::id::{ChannelName, TenantName};

use crate::ambient::Ambient;
use crate::channel::{Channels, NotTaken, Parcel};
use crate::egress::Clearance;
use crate::ledger::{Delivery, DeliveryChange, Due, Ledger, LedgerError, OutboxCounts};
use crate::notify::{Event, Notify};
use turn::Busy;

/// Deliveries of one channel and tenant that one look finds: more than any channel makes at one time.
const EACH: u32 = 16;
/// The same while some are withheld: those of others may stand behind as many that a kill switch keeps.
const EACH_PAST_WITHHELD: u32 = 1_000;
/// How long to wait where something is due that cannot be begun now: a kill switch tells nobody when it opens.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest wait, whatever the clock says: it may be set back.
const LOOK_AT_LEAST: Duration = Duration::from_secs(60);
/// How long to wait before something that the ledger did not take is written again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// Attempts at one time for a channel that is not configured: they only fail.
const AT_ONCE_UNKNOWN: usize = 4;

/// Whether a delivery may leave now. Asked before every attempt, and by it right before anything leaves; it must not wait.
pub type Gate = Arc<dyn Fn(&Due) -> bool + Send + Sync>;

/// How the outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxHealth {
    /// How much there is in it.
    pub counts: OutboxCounts,
    /// Whether nothing leaves at present.
    pub paused: bool,
}

/// The outbox. Cheap to clone.
#[derive(Clone)]
pub struct Outbox(Arc<Parts>);

struct Parts {
    ledger: Ledger,
    channels: Channels,
    notify: Notify,
    ambient: Ambient,
    gate: Gate,
    paused: AtomicBool,
    stopping: AtomicBool,
    /// Whether the last look found something that may not leave.
    withheld: AtomicBool,
    busy: Mutex<Busy>,
    /// Something is in the outbox that was not there, or an attempt ended.
    changed: Arc<Signal>,
    /// An attempt ended.
    ended: Signal,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("paused", &self.is_paused()).finish_non_exhaustive()
    }
}

impl Outbox {
    /// Take up what the last daemon left, and begin.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub async fn start(
        ledger: Ledger,
        channels: Channels,
        notify: Notify,
        ambient: Ambient,
        gate: Gate,
    ) -> Result<Self, LedgerError> {
        let changed = ledger.outbox_signal();
        let parts = Parts {
            ledger,
            channels,
            notify,
            ambient,
            gate,
            paused: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            withheld: AtomicBool::new(false),
            busy: Mutex::default(),
            changed,
            ended: Signal::new(),
        };
        let outbox = Self(Arc::new(parts));
        outbox.take_up().await?;
        let task = outbox.clone();
        tokio::spawn(async move { task.run().await });
        Ok(outbox)
    }

    /// Begin no more attempts; those under way go on.
    pub fn pause(&self) {
        self.0.paused.store(true, Ordering::SeqCst);
    }

    /// Begin attempts again.
    pub fn resume(&self) {
        self.0.paused.store(false, Ordering::SeqCst);
        self.wake();
    }

    /// Whether no attempts begin.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.0.paused.load(Ordering::SeqCst)
    }

    /// Look again now: a kill switch opened, or a clock was moved.
    pub fn wake(&self) {
        self.0.changed.notify_one();
    }

    /// How it is.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn health(&self) -> Result<OutboxHealth, LedgerError> {
        Ok(OutboxHealth { counts: self.0.ledger.outbox_counts().await?, paused: self.is_paused() })
    }

    /// Begin no more attempts and wait for those under way. False if some did not end in time: they are taken up by the
    /// next daemon, with the same ids.
    pub async fn close(&self, within: Duration) -> bool {
        self.0.stopping.store(true, Ordering::SeqCst);
        self.wake();
        let all = async {
            loop {
                let ended = self.0.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if self.busy().is_idle() {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(within, all).await.is_ok()
    }

    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst)
    }

    /// Whether an attempt may begin now.
    fn may_leave(&self, due: &Due) -> bool {
        !self.is_stopping() && !self.is_paused() && (self.0.gate)(due)
    }

    fn attempts(&self, channel: &ChannelName, tenant: &TenantName) -> u32 {
        self.0.channels.of(channel, tenant).map_or(ATTEMPTS_DEFAULT, |channel| channel.attempts)
    }

    fn at_once(&self, channel: &ChannelName, tenant: &TenantName) -> usize {
        self.0.channels.of(channel, tenant).map_or(AT_ONCE_UNKNOWN, |channel| channel.way.at_once())
    }

    /// Attempts during which the last daemon stopped: whether they arrived is not known, so they are made again.
    async fn take_up(&self) -> Result<(), LedgerError> {
        for Due { id, tenant, channel, .. } in self.0.ledger.deliveries_under_way().await? {
            let note = Arc::from("the daemon stopped during the attempt");
            let change =
                DeliveryChange { id, event: DeliveryEvent::Lose, most: self.attempts(&channel, &tenant), note };
            self.0.ledger.change_delivery(change).await?;
        }
        Ok(())
    }

    async fn run(&self) {
        while !self.is_stopping() {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let wait = self.look().await.unwrap_or_else(|error| {
                if !matches!(error, LedgerError::Closed) {
                    tracing::error!(%error, "the outbox cannot be looked through");
                }
                LOOK_AGAIN
            });
            let _changed_or_due = tokio::time::timeout(wait, changed).await;
        }
    }

    /// Begin what is due and may leave. Says when to look again.
    async fn look(&self) -> Result<Duration, LedgerError> {
        if self.is_paused() || self.is_stopping() {
            return Ok(LOOK_AT_LEAST);
        }
        let now_ms = self.0.ambient.now_ms();
        let each = if self.0.withheld.load(Ordering::Relaxed) { EACH_PAST_WITHHELD } else { EACH };
        let mut due = self.0.ledger.due_deliveries(now_ms, each).await?;
        let found = due.len();
        due.retain(|due| self.may_leave(due));
        self.0.withheld.store(due.len() < found, Ordering::Relaxed);
        let chosen = self.busy().choose(due, |channel, tenant| self.at_once(channel, tenant));
        self.begin(chosen).await?;
        Ok(match self.0.ledger.next_delivery_ms().await? {
            None => LOOK_AT_LEAST,
            Some(next_ms) if next_ms <= now_ms => LOOK_AGAIN,
            Some(next_ms) => Duration::from_millis(next_ms - now_ms).min(LOOK_AT_LEAST),
        })
    }

    async fn begin(&self, chosen: Vec<Due>) -> Result<(), LedgerError> {
        if chosen.is_empty() {
            return Ok(());
        }
        let ids = chosen.iter().map(|due| due.id).collect();
        let claimed = self.0.ledger.claim_deliveries(ids).await;
        let claimed =
            claimed.inspect_err(|_| chosen.iter().for_each(|due| self.busy().end(&due.channel, &due.tenant)))?;
        let begun: Vec<_> = claimed.iter().map(|delivery| delivery.what.id).collect();
        for due in chosen.iter().filter(|due| !begun.contains(&due.id)) {
            self.busy().end(&due.channel, &due.tenant);
        }
        for delivery in claimed {
            let Some(due) = chosen.iter().find(|due| due.id == delivery.what.id).cloned() else { continue };
            let outbox = self.clone();
            tokio::spawn(async move { outbox.deliver(due, delivery).await });
        }
        Ok(())
    }

    /// One attempt at one delivery, and what came of it.
    async fn deliver(&self, due: Due, delivery: Delivery) {
        let (tenant, channel) = (delivery.what.tenant.clone(), delivery.what.channel.clone());
        let outbox = self.clone();
        // A panic of a channel must not leave a delivery under way until the next start.
        let attempt = tokio::spawn(async move {
            let (event, note) = outbox.attempt(due, &delivery).await;
            (event, note, delivery)
        });
        match attempt.await {
            Ok((event, note, delivery)) => self.ended(&delivery, event, note.into()).await,
            Err(error) => {
                tracing::error!(%error, %channel, "BUG: an attempt panicked; it is made again by the next daemon");
            }
        }
        self.busy().end(&channel, &tenant);
        self.0.ended.notify_waiters();
        self.wake();
    }

    async fn attempt(&self, due: Due, delivery: &Delivery) -> (DeliveryEvent, String) {
        let what = &delivery.what;
        if !self.may_leave(&due) {
            return (DeliveryEvent::Withhold, "withheld".to_owned());
        }
        let outbox = self.clone();
        let parcel = Parcel {
            id: what.id,
            tenant: what.tenant.clone(),
            kind: what.kind,
            call: what.call,
            made_ms: delivery.made_ms,
            message: what.message.clone(),
            // An attempt that was begun goes on when the daemon stops or the outbox is paused, but not past the gate.
            clearance: Clearance::new(move || (outbox.0.gate)(&due)),
        };
        match self.0.channels.send(&what.channel, &parcel, self.0.ambient.now_ms()).await {
            Ok(note) => (DeliveryEvent::Accept, note),
            Err(NotTaken::Later { why, wait_ms }) => {
                let draw = u64::from_le_bytes(self.0.ambient.random());
                (DeliveryEvent::Fail { draw, wait_ms }, why)
            }
            Err(NotTaken::Never(why)) => (DeliveryEvent::Refuse, why),
            Err(NotTaken::Withheld) => (DeliveryEvent::Withhold, "withheld".to_owned()),
        }
    }

    /// Write down what came of an attempt, until the ledger takes it.
    async fn ended(&self, delivery: &Delivery, event: DeliveryEvent, note: Arc<str>) {
        let what = &delivery.what;
        let most = self.attempts(&what.channel, &what.tenant);
        loop {
            let change = DeliveryChange { id: what.id, event, most, note: Arc::clone(&note) };
            match self.0.ledger.change_delivery(change).await {
                Ok(progress) => {
                    let state = progress.state;
                    tracing::info!(delivery = %what.id, channel = %what.channel, %state, attempts = progress.attempts, "{note}");
                    if state == DeliveryState::Dead {
                        self.given_up(delivery, &note);
                    }
                    return;
                }
                Err(error @ (LedgerError::Poisoned(_) | LedgerError::Closed | LedgerError::Refused(_))) => {
                    tracing::error!(%error, delivery = %what.id, "what came of an attempt could not be written down");
                    return;
                }
                Err(error) => tracing::error!(%error, delivery = %what.id, "what came of an attempt is written later"),
            }
            tokio::time::sleep(WRITE_AGAIN).await;
        }
    }

    /// Tell the operators, unless it was they who could not be told.
    fn given_up(&self, delivery: &Delivery, reason: &str) {
        let what = &delivery.what;
        tracing::warn!(delivery = %what.id, channel = %what.channel, reason, "a delivery is given up");
        if what.kind == DeliveryKind::Message {
            let facts = json!({"delivery": what.id, "channel": what.channel, "call_id": what.call, "reason": reason});
            self.0.notify.event(Event::DeliveryDead, &what.tenant, facts);
        }
    }
}
