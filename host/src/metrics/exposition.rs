//! Metrics as text: OpenMetrics 1.0, which Prometheus and every collector read.
//!
//! One family after the other, in the order of `docs/observability.md`. Names, types and labels are a promise to
//! dashboards: they are added to and never changed.

use std::fmt::{self, Error};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use toolkeep_core::refusal::Code;

use super::histogram::Histogram;
use super::{
    APPROVALS, Decided, Levels, Metrics, OTHER, OUTCOMES, Replayed, STATUSES, TenantSeries, ToolSeries, UNKNOWN,
};
use crate::ledger::LedgerMeter;

/// Nanoseconds in a second.
const NS_PER_S: f64 = 1e9;
/// Milliseconds in a second.
const MS_PER_S: f64 = 1e3;
/// What every name begins with.
const PREFIX: &str = "toolkeep";
/// What no sample of ours has.
type NoExemplar = [(&'static str, &'static str); 0];

/// Everything as text, at the moment `now_ms`.
///
/// # Errors
/// The text cannot be written; there is no such case in memory.
pub fn text(metrics: &Metrics, meter: &LedgerMeter, levels: Levels, now_ms: u64) -> Result<String, Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Sheet { metrics: metrics.clone(), meter: meter.clone(), levels, now_ms }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

struct Sheet {
    metrics: Metrics,
    meter: LedgerMeter,
    levels: Levels,
    now_ms: u64,
}

impl fmt::Debug for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sheet").finish_non_exhaustive()
    }
}

/// One family after the other.
struct Page<'e>(DescriptorEncoder<'e>);

impl Page<'_> {
    /// Numbers that only grow, by labels.
    fn counter<L: EncodeLabelSet>(
        &mut self,
        (name, help): (&str, &str),
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_counter::<NoExemplar, u64, f64>(&value, None)?;
        }
        Ok(())
    }

    /// A number that only grows, of nothing in particular.
    fn total(&mut self, (name, help): (&str, &str), value: u64) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter::<NoExemplar, u64, f64>(&value, None)
    }

    /// How much there is, of nothing in particular.
    #[expect(clippy::cast_precision_loss, reason = "numbers of things are far below 2^53")]
    fn level(&mut self, (name, help): (&str, &str), value: u64) -> Result<(), Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&(value as f64))
    }

    /// How much there is, by labels.
    #[expect(clippy::cast_precision_loss, reason = "numbers of things are far below 2^53")]
    fn gauge<L: EncodeLabelSet>(
        &mut self,
        (name, help): (&str, &str),
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&(value as f64))?;
        }
        Ok(())
    }

    fn seconds(&mut self, (name, help): (&str, &str), value: Option<f64>) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        match value {
            Some(value) => family.encode_gauge(&value),
            None => Ok(()),
        }
    }

    fn histogram<'h, L: EncodeLabelSet>(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        values: impl IntoIterator<Item = (L, &'h Histogram)>,
    ) -> Result<(), Error> {
        let scale = if unit.is_some() { NS_PER_S } else { 1.0 };
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (labels, histogram) in values {
            let (sum, count, buckets) = read(histogram, scale);
            family.encode_family(&labels)?.encode_histogram::<NoExemplar>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn distribution(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        histogram: &Histogram,
    ) -> Result<(), Error> {
        let (sum, count, buckets) = read(histogram, if unit.is_some() { NS_PER_S } else { 1.0 });
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        family.encode_histogram::<NoExemplar>(sum, count, &buckets, None)
    }
}

/// Sum, count, and the buckets as the encoder wants them: the last one has no bound.
fn read(histogram: &Histogram, scale: f64) -> (f64, u64, Vec<(f64, u64)>) {
    let (sum, buckets) = histogram.read(scale);
    let count = buckets.iter().map(|(_, count)| *count).sum();
    (sum, count, buckets.into_iter().map(|(bound, count)| (bound.unwrap_or(f64::INFINITY), count)).collect())
}

impl Collector for Sheet {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut page = Page(encoder);
        self.about(&mut page)?;
        self.calls(&mut page)?;
        self.plans(&mut page)?;
        self.work(&mut page)?;
        self.ledger(&mut page)?;
        self.outside(&mut page)
    }
}

impl Sheet {
    /// How long ago something was, in seconds.
    #[expect(clippy::cast_precision_loss, reason = "ages are far below 2^53 ms")]
    fn age(&self, at_ms: Option<u64>) -> f64 {
        at_ms.map_or(0.0, |at_ms| self.now_ms.saturating_sub(at_ms) as f64 / MS_PER_S)
    }

    #[expect(clippy::cast_precision_loss, reason = "the time is far below 2^53 ms")]
    fn about(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauge(("build_info", "The version that runs"), [(version, 1)])?;
        let started = Some(self.levels.started_ms as f64 / MS_PER_S);
        page.seconds(("start_time", "When the daemon started, since the Unix epoch"), started)?;
        page.level(("ready", "1 while calls are taken"), u64::from(self.levels.ready))
    }

    fn calls(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let inner = &self.metrics.0;
        let tools = inner.tools.all();
        let named = tools.iter().map(|(name, series)| (name.as_str(), &**series));
        let every: Vec<(&str, &ToolSeries)> =
            named.chain([(OTHER, &*inner.tools.other), (UNKNOWN, &*inner.unknown)]).collect();
        let mut totals = Vec::new();
        for (s, (_, status)) in STATUSES.iter().enumerate() {
            for (o, (_, outcome)) in OUTCOMES.iter().enumerate() {
                let total: u64 = every.iter().map(|(_, series)| series.calls.get(s * OUTCOMES.len() + o)).sum();
                totals.extend((total > 0).then_some(([("status", *status), ("outcome", *outcome)], total)));
            }
        }
        page.counter(("calls", "Calls that were answered, by status and outcome"), totals)?;
        let codes = Code::ALL.iter().enumerate().map(|(at, code)| ([("code", code.word())], inner.errors.get(at)));
        let errors = ("errors", "Calls that did not do what was asked, by code");
        page.counter(errors, codes.filter(|(_, count)| *count > 0))?;
        page.total(("replies_repeated", "Replies that were stored before and given again"), inner.repeats.get())?;
        page.total(("results_cached", "Results that were kept instead of executing"), inner.cached.get())?;
        let by_tool = every.iter().flat_map(|(tool, series)| {
            STATUSES.iter().enumerate().map(|(s, (_, status))| {
                let of_status = (0..OUTCOMES.len()).map(|o| series.calls.get(s * OUTCOMES.len() + o)).sum();
                ([("tool", *tool), ("status", *status)], of_status)
            })
        });
        page.counter(("tool_calls", "Calls by tool and status"), by_tool.filter(|(_, count): &(_, u64)| *count > 0))?;
        let seconds = Some(&Unit::Seconds);
        let used = || every.iter().filter(|(_, series)| series.total.count() > 0);
        page.histogram(
            ("call_duration", "From the arrival of a call to its answer, by tool", seconds),
            used().map(|(tool, series)| ([("tool", *tool)], &series.total)),
        )?;
        page.histogram(
            ("execution_duration", "In the sandbox, by tool", seconds),
            used().map(|(tool, series)| ([("tool", *tool)], &series.execution)),
        )?;
        let tenants = inner.tenants.all();
        let named = tenants.iter().map(|(name, series)| (name.as_str(), &**series));
        let by_tenant = named.chain([(OTHER, &*inner.tenants.other)]).flat_map(|(tenant, TenantSeries(counts))| {
            let of = |(at, (_, status)): (usize, &(_, &'static str))| {
                ([("tenant", tenant.to_owned()), ("status", (*status).to_owned())], counts.get(at))
            };
            STATUSES.iter().enumerate().map(of).collect::<Vec<_>>()
        });
        page.counter(("tenant_calls", "Calls by tenant and status"), by_tenant.filter(|(_, count)| *count > 0))
    }

    fn plans(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let (inner, levels) = (&self.metrics.0, &self.levels);
        let decisions = Decided::ALL.iter().map(|(decided, word)| ([("decision", *word)], *decided as usize));
        page.counter(
            ("decisions", "What was decided about plans"),
            decisions.map(|(labels, at)| (labels, inner.decisions.get(at))),
        )?;
        let commits = OUTCOMES.iter().enumerate().map(|(at, (_, word))| ([("outcome", *word)], inner.commits.get(at)));
        page.counter(("commits", "Commits that ended, by outcome"), commits.filter(|(_, count)| *count > 0))?;
        page.distribution(
            ("commit_duration", "From the decision to the outcome", Some(&Unit::Seconds)),
            &inner.commit_times,
        )?;
        let ended = APPROVALS.iter().enumerate().map(|(at, word)| ([("result", *word)], inner.approvals.get(at)));
        page.counter(("approvals", "Requests for consent that ended, by result"), ended)?;
        page.level(("approvals_open", "Requests for consent that wait"), levels.approvals_open)?;
        page.seconds(
            ("approvals_oldest", "Age of the oldest request for consent that waits"),
            Some(self.age(levels.approvals_oldest_ms)),
        )?;
        page.level(("commits_halted", "Commits of this life that a person has to look at"), levels.halted)?;
        let replays =
            Replayed::ALL.iter().enumerate().map(|(at, (_, word))| ([("result", *word)], inner.replays.get(at)));
        page.counter(("replays", "Calls that were replayed, by result"), replays)
    }

    fn work(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let levels = &self.levels;
        page.level(("calls_in_flight", "Calls that are being worked on"), levels.in_flight)?;
        page.level(("executions", "Executions that hold a slot"), levels.slots.0)?;
        page.level(("executions_waiting", "Calls that wait for a slot"), levels.slots.1)?;
        page.level(("tools", "Tools that can be called"), levels.tools.0)?;
        page.level(("manifests_refused", "Manifests that cannot be used"), levels.tools.1)?;
        let (open, half, failing) = levels.circuits;
        let circuits = [("open", open), ("half_open", half), ("closed", failing)];
        page.gauge(
            ("breakers", "Circuits of which something is known, by state"),
            circuits.map(|(state, count)| ([("state", state)], count)),
        )?;
        page.gauge(
            ("tool_breaker_open", "1 for tools of which a circuit is open"),
            levels.open_tools.iter().map(|tool| ([("tool", tool.as_str())], 1)),
        )?;
        let switches = [("stop", levels.kill_switches.0), ("read_only", levels.kill_switches.1)];
        page.gauge(
            ("kill_switches", "Kill switches that are set, by mode"),
            switches.map(|(mode, count)| ([("mode", mode)], count)),
        )
    }

    fn ledger(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let (levels, meter) = (&self.levels, &self.meter);
        page.level(("ledger_well", "1 while the ledger writes"), u64::from(levels.ledger_well))?;
        page.level(("ledger_queue_jobs", "Writes that wait for the ledger"), levels.ledger_queue.0)?;
        page.level(("ledger_queue_bytes", "Bytes of them"), levels.ledger_queue.1)?;
        page.total(("ledger_rejections", "Writes that the ledger had no room for"), meter.rejections())?;
        page.total(("ledger_failures", "Batches that could not be written"), meter.failures())?;
        page.distribution(("ledger_batch_jobs", "Writes of one batch", None), meter.sizes())?;
        let times = [("true", meter.durable_times()), ("false", meter.lazy_times())];
        page.histogram(
            ("ledger_batch_duration", "Time of one batch, by whether it was flushed to the disk", Some(&Unit::Seconds)),
            times.map(|(durable, times)| ([("durable", durable)], times)),
        )?;
        page.total(("recordings", "Recordings that were written"), meter.recordings())?;
        page.total(("audit_entries", "Entries of the audit chain"), levels.audit_entries)?;
        page.level(("ledger_bytes", "Bytes of the ledger's database"), levels.ledger_bytes)?;
        page.level(("blobs", "Blobs that are kept, counted every ten minutes"), levels.blobs.0)?;
        page.level(("blobs_bytes", "Bytes of blobs, counted every ten minutes"), levels.blobs.1)
    }

    fn outside(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let (levels, inner) = (&self.levels, &self.metrics.0);
        let (queued, sending, dead) = levels.deliveries;
        let deliveries = [("queued", queued), ("sending", sending)];
        page.gauge(
            ("deliveries", "Messages and alerts on their way, by state"),
            deliveries.map(|(state, count)| ([("state", state)], count)),
        )?;
        page.seconds(
            ("deliveries_oldest", "Age of the oldest delivery that waits"),
            Some(self.age(levels.deliveries_oldest_ms)),
        )?;
        page.level(("dead_letters", "What could not be delivered or done, and rests"), dead)?;
        let alerts = levels.alerts;
        let alerts = [("info", alerts.info), ("warning", alerts.warning), ("critical", alerts.critical)];
        page.gauge(
            ("alerts_open", "Alerts that nobody acknowledged, by severity"),
            alerts.map(|(severity, count)| ([("severity", severity)], count)),
        )?;
        page.total(("spans_exported", "Spans that a collector took"), inner.spans_sent.get())?;
        page.total(("spans_dropped", "Spans that were lost on the way"), inner.spans_lost.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use toolkeep_core::call::{Outcome, Status};

    use crate::metrics::{Slot, Went};

    fn sheet(metrics: &Metrics) -> String {
        text(metrics, &LedgerMeter::default(), Levels::default(), 0).expect("text")
    }

    #[test]
    fn r44_calls_are_told_by_tool_tenant_status_and_time() {
        let metrics = Metrics::default();
        let (tool, tenant) = (Slot::default(), Slot::default());
        let series = metrics.of_tool(&"text-stats".parse().expect("name"), &tool);
        let tenants = metrics.of_tenant(&"acme".parse().expect("name"), &tenant);
        let fine = Went { status: Status::Ok, outcome: Outcome::None, code: None, repeated: false };
        let missing = Went { status: Status::Failed, code: Some(Code::NotFound), ..fine };
        metrics.called(Some(series), tenants, fine, Duration::from_micros(60));
        metrics.called(Some(series), tenants, Went { repeated: true, ..fine }, Duration::from_millis(3));
        metrics.called(None, tenants, missing, Duration::from_secs(100));
        series.executed(Duration::from_micros(40));
        let text = sheet(&metrics);
        for line in [
            "# TYPE toolkeep_calls counter\n",
            "toolkeep_calls_total{status=\"ok\",outcome=\"none\"} 2\n",
            "toolkeep_calls_total{status=\"failed\",outcome=\"none\"} 1\n",
            "toolkeep_errors_total{code=\"not_found\"} 1\n",
            "toolkeep_replies_repeated_total 1\n",
            "toolkeep_tool_calls_total{tool=\"text-stats\",status=\"ok\"} 2\n",
            "toolkeep_tool_calls_total{tool=\"_unknown\",status=\"failed\"} 1\n",
            "toolkeep_tenant_calls_total{tenant=\"acme\",status=\"ok\"} 2\n",
            "toolkeep_call_duration_seconds_bucket{le=\"0.00005\",tool=\"text-stats\"} 0\n",
            "toolkeep_call_duration_seconds_bucket{le=\"0.0001\",tool=\"text-stats\"} 1\n",
            "toolkeep_call_duration_seconds_bucket{le=\"+Inf\",tool=\"text-stats\"} 2\n",
            "toolkeep_call_duration_seconds_bucket{le=\"60.0\",tool=\"_unknown\"} 0\n",
            "toolkeep_call_duration_seconds_bucket{le=\"+Inf\",tool=\"_unknown\"} 1\n",
            "toolkeep_execution_duration_seconds_count{tool=\"text-stats\"} 1\n",
            "toolkeep_ready 0.0\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn every_family_is_told_before_anything_happened() {
        let text = sheet(&Metrics::default());
        let families = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
        let names: std::collections::BTreeSet<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        assert_eq!(families, names.len(), "no family is told twice");
        assert!(families > 30, "{text}");
    }
}
