//! Handing spans to a collector: OTLP over HTTP with protobuf, in batches, bounded, by a task of its own.
//!
//! A call that ends puts its way into a bounded queue and goes on; what finds no room is counted and lost. The task makes
//! spans of it, sends them by the one egress, and tries again where the collector asks for that, with a pause that grows.
//! What is still not taken then is lost too: a trace is not a record, the ledger is.

pub(super) mod encode;
pub(super) mod settings;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{Notify, mpsc};
use toolkeep_core::effect::Header;
use toolkeep_core::net::method::Method;
use toolkeep_core::net::reach::Network;

use super::{Context, Spans, Told};
use crate::egress::{Clearance, Egress, Limits, Outgoing, Purpose};
use crate::metrics::Metrics;
use encode::Batch;
use settings::{Sampler, Settings};

/// Attempts at one batch.
const ATTEMPTS: u32 = 5;
/// The pause after the first failed attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, whatever a collector asks for.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read: a collector answers with next to nothing.
const ANSWER_MAX_BYTES: u64 = 16 * 1024;
/// The tenant that requests of the daemon itself are for: they carry no secret of anybody's.
const NOBODY: &str = "local";

/// A sampled call that ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) spans: Spans,
    pub(super) told: Told,
    pub(super) end_ns: u64,
}

/// The way to a collector. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Exporter(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    queue: mpsc::Sender<Ended>,
    sampler: Sampler,
    metrics: Metrics,
    /// Somebody wants everything handed over now, and hears when it is.
    closing: Notify,
    closed: Notify,
}

impl Exporter {
    /// Start the task.
    pub(super) fn start(settings: Settings, egress: Egress, metrics: Metrics) -> Self {
        let (queue, waiting) = mpsc::channel(settings.queue);
        tracing::info!(endpoint = %settings.endpoint, sampler = ?settings.sampler, "spans are exported");
        let parts = Arc::new(Parts {
            queue,
            sampler: settings.sampler,
            metrics,
            closing: Notify::new(),
            closed: Notify::new(),
        });
        let task = Task { parts: Arc::clone(&parts), settings, egress, waiting };
        tokio::spawn(task.run());
        Self(parts)
    }

    /// Whether a call of this context is recorded.
    pub(super) fn samples(&self, context: &Context) -> bool {
        self.0.sampler.samples(context)
    }

    /// Take a call over. Never waits.
    pub(super) fn hand_over(&self, ended: Ended) {
        if self.0.queue.try_send(ended).is_err() {
            self.0.metrics.spans(1, false);
        }
    }

    /// Hand over what waits.
    pub(super) async fn close(&self, within: Duration) {
        let closed = self.0.closed.notified();
        tokio::pin!(closed);
        closed.as_mut().enable();
        self.0.closing.notify_one();
        if tokio::time::timeout(within, closed).await.is_err() {
            tracing::warn!("spans that were left were not taken in time");
        }
    }
}

struct Task {
    parts: Arc<Parts>,
    settings: Settings,
    egress: Egress,
    waiting: mpsc::Receiver<Ended>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let mut batch = Batch::new(&self.settings.resource);
            let closing = self.fill(&mut batch).await;
            if batch.spans() > 0 {
                self.export(batch).await;
            }
            if closing && self.waiting.is_empty() {
                self.parts.closed.notify_waiters();
                if self.parts.queue.is_closed() {
                    return;
                }
            } else if closing {
                self.parts.closing.notify_one();
            }
        }
    }

    /// Gather until the batch is full, or for as long as the delay from its first call on. True where all is wanted now.
    async fn fill(&mut self, batch: &mut Batch) -> bool {
        let Self { parts, settings, waiting, .. } = self;
        let first = tokio::select! {
            biased;
            first = waiting.recv() => first,
            () = parts.closing.notified() => return true,
        };
        let Some(first) = first else { return true };
        batch.add(&first);
        let delay = tokio::time::sleep(settings.delay);
        tokio::pin!(delay);
        while batch.spans() < settings.batch {
            tokio::select! {
                biased;
                next = waiting.recv() => match next {
                    Some(next) => batch.add(&next),
                    None => return true,
                },
                () = parts.closing.notified() => return true,
                () = &mut delay => return false,
            }
        }
        false
    }

    async fn export(&self, batch: Batch) {
        let spans = batch.spans() as u64;
        let body: Bytes = batch.bytes().into();
        let deadline = tokio::time::Instant::now() + self.settings.export_timeout;
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS {
            let wait = match self.attempt(body.clone()).await {
                Ok(()) => return self.parts.metrics.spans(spans, true),
                Err(Failed { why, retry: None }) => {
                    tracing::warn!(spans, why, "a collector did not take spans");
                    break;
                }
                Err(Failed { why, retry: Some(asked) }) => {
                    let wait = asked.unwrap_or(pause).min(PAUSE_MAX);
                    if attempt == ATTEMPTS || tokio::time::Instant::now() + wait >= deadline {
                        tracing::warn!(spans, why, attempt, "spans are lost: the collector did not take them");
                        break;
                    }
                    wait
                }
            };
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        self.parts.metrics.spans(spans, false);
    }

    async fn attempt(&self, body: Bytes) -> Result<(), Failed> {
        let Ok(tenant) = NOBODY.parse() else { return Err(Failed::for_good("BUG: the built-in name does not parse")) };
        let (origin, target) = self.settings.endpoint.parts();
        let kind = Header { name: "content-type".to_owned(), value: "application/x-protobuf".to_owned() };
        let request = Outgoing {
            tenant,
            origin,
            method: Method::Post,
            target,
            headers: vec![kind],
            body,
            idempotency_key: None,
            secrets: Vec::new(),
            network: Network::Private,
            purpose: Purpose::Write,
            clearance: Clearance::default(),
        };
        let limits = Limits { total: self.settings.timeout, response_bytes: ANSWER_MAX_BYTES, ..Limits::default() };
        let answer = self.egress.send_with(request, self.settings.headers.clone(), limits).await;
        let answer = answer.map_err(|error| Failed { why: error.to_string(), retry: Some(None) })?;
        let asked = answer.headers.iter().find(|field| field.name == "retry-after");
        let asked = asked.and_then(|field| field.value.trim().parse().ok()).map(Duration::from_secs);
        match answer.status {
            200..=299 => Ok(()),
            429 | 502 | 503 | 504 => Err(Failed { why: format!("status {}", answer.status), retry: Some(asked) }),
            status => Err(Failed { why: format!("status {status}"), retry: None }),
        }
    }
}

/// Why a batch was not taken, and whether and when to try again.
struct Failed {
    why: String,
    retry: Option<Option<Duration>>,
}

impl Failed {
    fn for_good(why: &str) -> Self {
        Self { why: why.to_owned(), retry: None }
    }
}

/// Fields that frame a message, which no variable sets.
const FRAMING: [&str; 8] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "te", "upgrade", "trailer"];

/// A field of the operator's for every request.
pub(super) fn field(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name: HeaderName = name.parse().ok()?;
    let mut value: HeaderValue = value.parse().ok()?;
    // It may be a credential.
    value.set_sensitive(true);
    (!FRAMING.contains(&name.as_str())).then_some((name, value))
}

/// Fields of the operator's.
pub(super) type Fields = HeaderMap;
