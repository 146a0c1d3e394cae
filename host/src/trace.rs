//! Traces of calls: which trace a call belongs to, and what of its way is recorded for a collector.
//!
//! Every call has a trace id, in its reply, its audit entry and the log, whether anything is exported or not: that of its
//! caller's context, or of its run, or its own; no id has to be drawn for it. Spans are made for sampled calls alone, from
//! marks that the path leaves as it goes from stage to stage; a call that is not sampled pays a look at an empty place. A
//! span names what was called and how it went. It never holds an input, an output or a reason in words.

#[cfg(feature = "otel")]
mod otlp;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use toolkeep_core::call::{Mode, Outcome, Status};
use toolkeep_core::id::{CallId, RunId};
use toolkeep_core::principal::Principal;
use toolkeep_core::refusal::Code;
use toolkeep_core::trace::{SpanId, TraceId, TraceParent, TraceState};
use uuid::Uuid;

use crate::ambient::Ambient;
use crate::egress::Egress;
use crate::metrics::Metrics;

/// Marks of one call that are kept: every stage a few times, for calls with live requests.
const MARKS_MAX: usize = 64;
/// The variable that says where a collector is, and the one for traces alone.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Why spans cannot be exported as the environment wants it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{variable}`: {problem}")]
pub struct BadSetting {
    /// The variable.
    pub variable: &'static str,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// The trace that a call belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span, if it has one.
    pub parent: Option<TraceParent>,
    /// What systems on the way said.
    pub state: Option<TraceState>,
}

impl Context {
    /// The context of a call: what its `_meta` says, or its run's, or its own.
    #[must_use]
    pub fn of(meta: Option<&Value>, run: Option<RunId>, call: CallId) -> Self {
        let text = |key: &str| meta?.get(key)?.as_str();
        let parent: Option<TraceParent> = text("traceparent").and_then(|text| text.parse().ok());
        let own = || TraceId::of(*run.as_ref().map_or(call.uuid(), RunId::uuid).as_bytes());
        Self {
            trace: parent.map_or_else(own, |parent| parent.trace),
            // Without a parent it has no meaning.
            state: parent.and_then(|_| text("tracestate")?.parse().ok()),
            parent,
        }
    }
}

/// The span of a call: the last half of its id, which is random.
#[must_use]
pub fn span_of(call: CallId) -> SpanId {
    let [.., a, b, c, d, e, f, g, h] = *call.uuid().as_bytes();
    SpanId::of([a, b, c, d, e, f, g, h])
}

/// The span of a stage of a call.
fn span_of_stage(call: CallId, place: usize) -> SpanId {
    let part = Uuid::new_v5(call.uuid(), format!("span {place}").as_bytes());
    span_of(CallId::new(part))
}

/// A stage of the path of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The request is known to be from somebody and is looked at.
    Receive,
    /// The tool is found and the input checked.
    Validate,
    /// Policy decides about the call.
    Authorize,
    /// It waits for its turn, and for its budget.
    Admit,
    /// The tool runs.
    Execute,
    /// What it returned is looked at.
    Screen,
    /// Its effects are sealed.
    Plan,
    /// Policy decides about the plan.
    Decide,
    /// The plan is kept for people.
    Approve,
    /// The plan is committed.
    Commit,
    /// What became of it is put on record.
    Record,
}

impl Stage {
    /// The name of its span.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Validate => "validate",
            Self::Authorize => "authorize",
            Self::Admit => "admit",
            Self::Execute => "execute",
            Self::Screen => "screen",
            Self::Plan => "plan",
            Self::Decide => "decide",
            Self::Approve => "approve",
            Self::Commit => "commit",
            Self::Record => "record",
        }
    }
}

/// The way of one sampled call so far. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Spans(Arc<Way>);

struct Way {
    context: Context,
    began_ns: u64,
    marks: Mutex<Vec<(Stage, u64)>>,
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").field("trace", &self.0.context.trace).finish_non_exhaustive()
    }
}

impl Spans {
    /// A stage begins, and the one before it ends.
    pub fn enter(&self, stage: Stage, now_ns: u64) {
        let mut marks = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() < MARKS_MAX {
            marks.push((stage, now_ns));
        }
    }

    /// Each stage with its beginning and its end.
    #[cfg(feature = "otel")]
    fn stages(&self, end_ns: u64) -> Vec<(Stage, u64, u64)> {
        let marks = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = marks.iter().skip(1).map(|(_, at_ns)| *at_ns).chain([end_ns]);
        marks.iter().zip(ends).map(|((stage, from_ns), to_ns)| (*stage, *from_ns, to_ns)).collect()
    }
}

/// What a span tells of a call.
#[derive(Debug, Clone)]
pub struct Told {
    /// The call.
    pub call: CallId,
    /// Its run.
    pub run: Option<RunId>,
    /// Who called.
    pub principal: Principal,
    /// The tool: the one that the catalog has, never what a caller wrote.
    pub tool: Option<String>,
    /// Commit or preview.
    pub mode: Mode,
    /// How it went.
    pub status: Status,
    /// What became of its effects.
    pub outcome: Outcome,
    /// Why it did not do what was asked.
    pub code: Option<Code>,
    /// How often it was executed.
    pub attempts: u32,
    /// Whether the reply was stored before.
    pub repeated: bool,
}

/// Decides what is sampled, and hands spans to a collector. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tracing {
    #[cfg(feature = "otel")]
    exporter: Option<otlp::Exporter>,
}

impl Tracing {
    /// As the environment says (`OTEL_…`). Exports nothing unless it names a collector.
    ///
    /// # Errors
    /// A variable asks for what there is not.
    #[cfg(feature = "otel")]
    pub fn start(ambient: &Ambient, egress: &Egress, metrics: &Metrics, about: &About<'_>) -> Result<Self, BadSetting> {
        let settings = otlp::settings::Settings::read(ambient, about)?;
        Ok(Self { exporter: settings.map(|settings| otlp::Exporter::start(settings, egress.clone(), metrics.clone())) })
    }

    /// This build exports nothing, and says so where the environment names a collector.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "otel"))]
    pub fn start(ambient: &Ambient, _: &Egress, _: &Metrics, _: &About<'_>) -> Result<Self, BadSetting> {
        if let Some(variable) = ENDPOINTS.into_iter().find(|name| ambient.var(name).is_some()) {
            tracing::warn!(variable, "this build was made without the feature `otel`; no spans are exported");
        }
        Ok(Self::default())
    }

    /// A call begins: a place for its marks, if it is sampled.
    #[must_use]
    #[cfg_attr(not(feature = "otel"), expect(clippy::unused_self, reason = "there is nobody who samples"))]
    pub fn begin(&self, context: &Context, now_ns: impl FnOnce() -> u64) -> Option<Spans> {
        #[cfg(feature = "otel")]
        if self.exporter.as_ref()?.samples(context) {
            let (context, began_ns) = (context.clone(), now_ns());
            let marks = Mutex::new(vec![(Stage::Receive, began_ns)]);
            return Some(Spans(Arc::new(Way { context, began_ns, marks })));
        }
        #[cfg(not(feature = "otel"))]
        let _nobody_asks = (context, now_ns);
        None
    }

    /// A sampled call ended.
    #[cfg_attr(not(feature = "otel"), expect(clippy::unused_self, reason = "there is nobody to hand it to"))]
    pub fn end(&self, spans: &Spans, told: Told, end_ns: u64) {
        #[cfg(feature = "otel")]
        if let Some(exporter) = &self.exporter {
            exporter.hand_over(otlp::Ended { spans: spans.clone(), told, end_ns });
        }
        #[cfg(not(feature = "otel"))]
        let _nobody_takes_it = (spans, told, end_ns);
    }

    /// Hand over what waits, for so long at most.
    pub async fn close(&self, within: Duration) {
        #[cfg(feature = "otel")]
        if let Some(exporter) = &self.exporter {
            exporter.close(within).await;
        }
        #[cfg(not(feature = "otel"))]
        let _nothing_waits = within;
    }
}

/// What spans say of the daemon.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The identity of the host.
    pub host_id: &'a str,
    /// `dev`, `staging` or `prod`.
    pub environment: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn r39_a_call_is_of_its_callers_trace_or_of_its_runs_or_of_its_own() {
        let (call, run) = (CallId::new(Uuid::from_u128(0xc)), RunId::new(Uuid::from_u128(0xa)));
        let of = |meta: Value, run| Context::of(Some(&meta), run, call);
        let handed = of(json!({"traceparent": PARENT, "tracestate": "a=1"}), Some(run));
        assert_eq!(handed.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(handed.state.map(|state| state.as_str().to_owned()).as_deref(), Some("a=1"));
        assert_eq!(Context::of(None, Some(run), call).trace.to_string(), format!("{:032x}", 0xa));
        assert_eq!(Context::of(None, None, call).trace.to_string(), format!("{:032x}", 0xc));
        for wrong in
            [json!({"traceparent": "00-x"}), json!({"traceparent": 7}), json!([]), json!({"tracestate": "a=1"})]
        {
            assert_eq!(of(wrong, None), Context::of(None, None, call), "what is no context is none");
        }
        let loud = "x=".to_owned() + &"y".repeat(600);
        assert_eq!(of(json!({"traceparent": PARENT, "tracestate": loud}), None).state, None);
    }

    #[test]
    fn spans_of_a_call_have_ids_of_their_own_that_follow_from_the_calls() {
        let call = CallId::new(Uuid::from_u128(0x0123_4567_89ab_cdef_1122_3344_5566_7788));
        assert_eq!(span_of(call).to_string(), "1122334455667788");
        let stages: std::collections::BTreeSet<_> = (0..MARKS_MAX).map(|place| span_of_stage(call, place)).collect();
        assert_eq!(stages.len(), MARKS_MAX);
    }

    #[test]
    fn n_marks_are_kept_and_the_next_is_not() {
        let context = Context::of(None, None, CallId::new(Uuid::from_u128(1)));
        let spans = Spans(Arc::new(Way { context, began_ns: 0, marks: Mutex::default() }));
        for at_ns in 0..=MARKS_MAX as u64 {
            spans.enter(Stage::Execute, at_ns);
        }
        assert_eq!(spans.0.marks.lock().expect("marks").len(), MARKS_MAX);
    }
}
