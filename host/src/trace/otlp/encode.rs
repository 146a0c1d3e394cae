//! Spans as OTLP writes them: `opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest`.
//!
//! The few messages that a span is made of are written by their field numbers, which never change; the tests read them with
//! the official types. Attribute names are those of the semantic conventions for generative AI (`gen_ai.…`, state of 2026)
//! and `error.type`; what they have no word for begins with `toolkeep.`.

use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::refusal::Code;
use toolkeep_core::trace::{SpanId, TraceState};

use super::super::{span_of, span_of_stage};
use super::Ended;
use super::wire::Message;

/// The name of what made the spans.
const SCOPE: &str = "toolkeep";
/// `SPAN_KIND_INTERNAL`: the conventions want it for tools that are executed here.
const INTERNAL: u64 = 1;
/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;
/// The bit of the flags that says that the next one is known, and the one for a parent in another process.
const REMOTE_KNOWN: u32 = 1 << 8;
const REMOTE: u32 = 1 << 9;
/// The bit for a sampled span.
const SAMPLED: u32 = 1;

/// Field numbers of `KeyValue`, and of the kinds of `AnyValue`.
const KEY: u32 = 1;
const VALUE: u32 = 2;
const TEXT: u32 = 1;
const TRUTH: u32 = 2;
const NUMBER: u32 = 3;

/// Field numbers of `Span`.
mod span {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START: u32 = 7;
    pub(super) const END: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;
}

/// An attribute: its name and its value.
type Attribute = (&'static str, Value);

/// The value of an attribute.
enum Value {
    Text(String),
    Truth(bool),
    Number(u64),
}

fn text(key: &'static str, value: impl Into<String>) -> Attribute {
    (key, Value::Text(value.into()))
}

fn key_value(key: &str, value: &Value) -> Message {
    let any = match value {
        // An empty text is one, too: which kind it is counts.
        Value::Text(text) if text.is_empty() => Message::default().message(TEXT, &Message::default()),
        Value::Text(text) => Message::default().bytes(TEXT, text),
        Value::Truth(truth) => Message::default().chosen(TRUTH, u64::from(*truth)),
        Value::Number(number) => Message::default().chosen(NUMBER, *number),
    };
    Message::default().bytes(KEY, key).message(VALUE, &any)
}

/// Spans that are sent together.
#[derive(Debug)]
pub(super) struct Batch {
    resource: Message,
    /// `ScopeSpans` with its scope, and with every span so far.
    scope: Message,
    spans: usize,
}

impl Batch {
    /// Nothing yet, of a resource with these attributes.
    pub(super) fn new(attributes: &[(String, String)]) -> Self {
        let mut resource = Message::default();
        for (name, value) in attributes {
            resource.push(1, &key_value(name, &Value::Text(value.clone())));
        }
        let scope = Message::default().bytes(1, SCOPE).bytes(2, env!("CARGO_PKG_VERSION"));
        Self { resource, scope: Message::default().message(1, &scope), spans: 0 }
    }

    /// How many there are.
    pub(super) const fn spans(&self) -> usize {
        self.spans
    }

    /// A call that ended: a span for it, and one within for each stage that it came to.
    pub(super) fn add(&mut self, ended: &Ended) {
        let (way, told) = (&ended.spans.0, &ended.told);
        let (own, parent) = (span_of(told.call), way.context.parent.map(|parent| parent.span));
        let name = told.tool.as_ref().map_or_else(|| "execute_tool".to_owned(), |tool| format!("execute_tool {tool}"));
        let remote = if parent.is_some() { REMOTE } else { 0 };
        let mut whole = begun(ended, own, parent, &name, (way.began_ns, ended.end_ns));
        for (key, value) in attributes(ended) {
            whole.push(span::ATTRIBUTES, &key_value(key, &value));
        }
        if let Some(status) = status(ended) {
            whole.push(span::STATUS, &status);
        }
        self.push(&whole.fixed32(span::FLAGS, SAMPLED | REMOTE_KNOWN | remote));
        for (place, (stage, from_ns, to_ns)) in ended.spans.stages(ended.end_ns).into_iter().enumerate() {
            let id = span_of_stage(told.call, place);
            let stage = begun(ended, id, Some(own), stage.word(), (from_ns, to_ns));
            self.push(&stage.fixed32(span::FLAGS, SAMPLED | REMOTE_KNOWN));
        }
    }

    fn push(&mut self, span: &Message) {
        self.scope.push(2, span);
        self.spans += 1;
    }

    /// The request that sends them.
    pub(super) fn bytes(self) -> Vec<u8> {
        let of_resource = Message::default().message(1, &self.resource).message(2, &self.scope);
        Message::default().message(1, &of_resource).finish()
    }
}

/// A span without attributes.
fn begun(ended: &Ended, id: SpanId, parent: Option<SpanId>, name: &str, (from_ns, to_ns): (u64, u64)) -> Message {
    let context = &ended.spans.0.context;
    let state = context.state.as_ref().map(TraceState::as_str).unwrap_or_default();
    let parent = parent.map(|parent| *parent.bytes());
    Message::default()
        .bytes(span::TRACE_ID, context.trace.bytes())
        .bytes(span::SPAN_ID, id.bytes())
        .bytes(span::TRACE_STATE, state)
        .bytes(span::PARENT_SPAN_ID, parent.as_ref().map(<[u8; 8]>::as_slice).unwrap_or_default())
        .bytes(span::NAME, name)
        .number(span::KIND, INTERNAL)
        .fixed64(span::START, from_ns)
        .fixed64(span::END, to_ns.max(from_ns))
}

fn attributes(ended: &Ended) -> Vec<Attribute> {
    let told = &ended.told;
    let mut attributes = vec![
        text("gen_ai.operation.name", "execute_tool"),
        text("gen_ai.tool.call.id", told.call.to_string()),
        text("gen_ai.tool.type", "function"),
        text("gen_ai.agent.name", told.principal.agent.as_str()),
        text("toolkeep.tenant", told.principal.tenant.as_str()),
        text("toolkeep.mode", told.mode.word()),
        text("toolkeep.status", word_of_status(told.status)),
        text("toolkeep.outcome", word_of_outcome(told.outcome)),
        ("toolkeep.attempts", Value::Number(told.attempts.into())),
    ];
    attributes.extend(told.tool.as_ref().map(|tool| text("gen_ai.tool.name", tool.clone())));
    attributes.extend(told.run.map(|run| text("gen_ai.conversation.id", run.to_string())));
    attributes.extend(told.code.map(|code| text("error.type", code.word())));
    if told.repeated {
        attributes.push(("toolkeep.replayed", Value::Truth(true)));
    }
    attributes
}

/// An error where the call did not do what was asked, other than waiting. The message is the code, never a text.
fn status(ended: &Ended) -> Option<Message> {
    let failed = matches!(ended.told.status, Status::Denied | Status::Failed | Status::Unknown);
    let message = ended.told.code.map(Code::word).unwrap_or_default();
    failed.then(|| Message::default().bytes(2, message).number(3, ERROR))
}

const fn word_of_status(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Held => "held",
        Status::Denied => "denied",
        Status::Failed => "failed",
        Status::Unknown => "unknown",
    }
}

const fn word_of_outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::None => "none",
        Outcome::Previewed => "previewed",
        Outcome::Staged => "staged",
        Outcome::Pending => "pending",
        Outcome::Committed => "committed",
        Outcome::Discarded => "discarded",
        Outcome::Unknown => "unknown",
        Outcome::Halted => "halted",
    }
}
