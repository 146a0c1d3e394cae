//! How the daemon is, for probes and metrics.
//!
//! Numbers that grow are counted where things happen; here the rest is read off the parts, once for all who ask within a
//! second, so that whoever asks often costs no more than one who asks now and then.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use toolkeep_core::breaker::Phase;
use toolkeep_core::id::ToolName;
use toolkeep_core::kill::KillMode;
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use crate::ambient::{Ambient, Stopwatch};
use crate::authenticate::{Caller, Operator};
use crate::execute::Line;
use crate::ledger::LedgerHealth;
use crate::metrics::{AlertLevels, Levels, Metrics, Went, exposition};
use crate::record::{Answer, Entry};
use crate::trace::{Spans, Told, Tracing};

/// How long an exposition is given again.
const FRESH: Duration = Duration::from_secs(1);

/// What the measuring of this daemon keeps.
pub(super) struct Measured {
    started_ms: u64,
    /// Blobs and their bytes, as they were counted last.
    blobs: (AtomicU64, AtomicU64),
    last: tokio::sync::Mutex<Option<(Stopwatch, Arc<str>)>>,
}

impl fmt::Debug for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measured").field("started_ms", &self.started_ms).finish_non_exhaustive()
    }
}

impl Measured {
    /// The daemon starts.
    pub(super) fn begun(ambient: &Ambient) -> Self {
        Self { started_ms: ambient.now_ms(), blobs: Default::default(), last: tokio::sync::Mutex::default() }
    }
}

impl Host {
    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// A call of a tool of this `name` is answered. One that was refused before it was known is counted with the tool all the
    /// same, where there is one.
    pub(crate) fn measure(
        &self,
        caller: &Caller,
        (name, line): (&ToolName, &Line),
        answer: &Answer,
        began: &Stopwatch,
    ) {
        let metrics = self.metrics();
        let called = line.tool().or_else(|| self.catalog().current().tool(name));
        let tool = called.as_ref().map(|tool| &**metrics.of_tool(&tool.name, &tool.series));
        let tenant = metrics.of_tenant(&caller.principal().tenant, caller.series());
        let Answer { status, outcome, code, replayed, .. } = *answer;
        metrics.called(tool, tenant, Went { status, outcome, code, repeated: replayed }, began.elapsed());
    }

    pub(crate) fn tracing(&self) -> &Tracing {
        &self.0.tracing
    }

    /// What its spans will tell of a sampled call, as far as it came.
    pub(crate) fn traced(&self, entry: &Entry) -> Option<(Spans, Told)> {
        let spans = entry.spans()?.clone();
        let row = entry.row();
        let told = Told {
            call: row.call,
            run: row.run,
            principal: row.principal.clone(),
            // A name that no tool has is the caller's own text.
            tool: row.component.map(|_| row.tool.to_string()),
            mode: row.mode,
            status: row.status,
            outcome: row.outcome,
            code: row.error_code,
            attempts: entry.attempts(),
            repeated: false,
        };
        Some((spans, told))
    }

    /// A sampled call ended: its spans go to the collector.
    pub(crate) fn hand_over(&self, (spans, told): (Spans, Told), answer: &Answer) {
        let Answer { status, outcome, code, replayed, .. } = *answer;
        let told = Told { status, outcome, code, repeated: replayed, ..told };
        self.tracing().end(&spans, told, self.ambient().now_ns());
    }

    /// Why no calls are taken now, in one word; nothing while they are. What the last life left is settled before anybody
    /// can ask.
    #[must_use]
    pub fn unready(&self) -> Option<&'static str> {
        if self.admission().draining() {
            return Some("draining");
        }
        match self.ledger().health() {
            LedgerHealth::Well => {}
            LedgerHealth::DiskFull => return Some("disk_full"),
            LedgerHealth::Poisoned(_) => return Some("ledger_poisoned"),
        }
        (!self.committer().is_well()).then_some("commit_poisoned")
    }

    /// The operator of a token that was minted for the admin plane. The token of the admin folder is for its socket alone.
    ///
    /// # Errors
    /// `unauthorized`: it is no such token, or does not stand any more.
    pub fn operator_of_token(&self, token: &str) -> Result<Operator, Refusal> {
        self.0.authenticator.operator_of_token(token, self.ambient().now_ms())
    }

    /// Everything that is measured, as OpenMetrics text.
    ///
    /// # Errors
    /// `internal`: the text cannot be made. What the ledger cannot be asked is left at nothing: the text says how it is.
    pub async fn exposition(&self) -> Result<Arc<str>, Refusal> {
        let mut last = self.0.measured.last.lock().await;
        if let Some((since, text)) = last.as_ref()
            && since.elapsed() < FRESH
        {
            return Ok(Arc::clone(text));
        }
        let levels = self.levels().await;
        let text = exposition::text(self.metrics(), self.ledger().meter(), levels, self.ambient().now_ms());
        let text: Arc<str> = text
            .map_err(|error| Refusal::new(Code::Internal, format!("metrics could not be written: {error}")))?
            .into();
        *last = Some((self.ambient().stopwatch(), Arc::clone(&text)));
        Ok(text)
    }

    async fn levels(&self) -> Levels {
        let ledger = self.ledger().levels().await.unwrap_or_default();
        let outbox = self.ledger().outbox_levels().await.unwrap_or_default();
        let catalog = self.catalog().current();
        let standing = self.kill().standing();
        let stops = |mode: KillMode| standing.switches().filter(|switch| switch.mode == mode).count() as u64;
        let circuits = self.breakers().phases();
        let in_phase = |is: fn(Phase) -> bool| circuits.iter().filter(|(_, phase)| is(*phase)).count() as u64;
        let open = circuits.iter().filter(|(_, phase)| matches!(phase, Phase::Open { .. }));
        let mut open_tools: Vec<String> = open
            .filter_map(|(tool, _)| tool.as_ref())
            .filter(|tool| self.metrics().has_series(tool))
            .map(ToString::to_string)
            .collect();
        open_tools.sort();
        open_tools.dedup();
        let (info, warning, critical) = ledger.alerts;
        let measured = &self.0.measured;
        Levels {
            started_ms: measured.started_ms,
            ready: self.unready().is_none(),
            in_flight: self.flights().count() as u64,
            slots: self.admission().occupancy(),
            tools: (catalog.tools().count() as u64, catalog.problems().len() as u64),
            approvals_open: ledger.approvals_open,
            approvals_oldest_ms: ledger.approvals_oldest_ms,
            circuits: (
                in_phase(|phase| matches!(phase, Phase::Open { .. })),
                in_phase(|phase| matches!(phase, Phase::HalfOpen { .. })),
                in_phase(|phase| matches!(phase, Phase::Closed { .. })),
            ),
            open_tools,
            kill_switches: (stops(KillMode::Stop), stops(KillMode::ReadOnly)),
            deliveries: (outbox.queued, outbox.sending, outbox.dead),
            deliveries_oldest_ms: outbox.oldest_ms,
            alerts: AlertLevels { info, warning, critical },
            audit_entries: ledger.audit_entries,
            ledger_bytes: ledger.bytes,
            blobs: (measured.blobs.0.load(Ordering::Relaxed), measured.blobs.1.load(Ordering::Relaxed)),
            ledger_queue: self.ledger().queued(),
            ledger_well: self.ledger().health() == LedgerHealth::Well,
            halted: self.committer().halted() as u64,
        }
    }

    /// Count the blobs.
    pub(super) async fn count_blobs(&self) {
        match self.ledger().blob_totals().await {
            Ok((blobs, bytes)) => {
                self.0.measured.blobs.0.store(blobs, Ordering::Relaxed);
                self.0.measured.blobs.1.store(bytes, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(%error, "blobs could not be counted"),
        }
    }
}
