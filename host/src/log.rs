//! The daemon's log: one line for each event, as JSON or for people, with the call that it happened in.
//!
//! A call is no span of the log: opening one would cost every call what only those pay that have something to say. Instead
//! the task of a call knows its call, its trace and its tenant, and a line that is written there says so. Text of others is
//! made visible: no character of it can end a line, hide, or change the direction of reading (T-S2). What may not be told
//! (secrets, contents) is not given to the log in the first place.

use std::fmt;
use std::future::Future;
use std::io;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::task_local;
use toolkeep_core::display::{is_hidden, visible_json};
use toolkeep_core::id::CallId;
use toolkeep_core::trace::TraceId;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::authenticate::Caller;

/// What follows an escape in the colours of the library: plain, bold, dim, italic, and a colour for each level.
const COLOURS: [&str; 9] = ["[0m", "[1m", "[2m", "[3m", "[31m", "[32m", "[33m", "[34m", "[35m"];
/// What is logged where nobody says.
pub const LEVEL: &str = "info";

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// `[log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogText {
    /// Its form: text on a terminal and JSON elsewhere, if absent.
    pub format: Option<LogFormat>,
    /// What is logged: a level, or a filter such as `toolkeep::daemon=debug`.
    pub level: Option<String>,
}

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is none.
    #[error("`{filter}` is not a level or a filter: {problem}; write `info`, or `warn,toolkeep::daemon=debug`")]
    Filter {
        /// What was written.
        filter: String,
        /// What is wrong.
        problem: String,
    },
    /// Something in this process logs already.
    #[error("the log was started twice")]
    Twice,
}

/// Begin to log to standard error, which is a `terminal` or not.
///
/// # Errors
/// The filter is none.
pub fn start(format: Option<LogFormat>, level: &str, terminal: bool) -> Result<(), LogError> {
    let filter = filter(level)?;
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(terminal);
    let started = match format {
        LogFormat::Json => lines.event_format(JsonLines).try_init(),
        LogFormat::Text => lines.event_format(TextLines::new(terminal)).try_init(),
    };
    started.map_err(|_| LogError::Twice)
}

/// Whether a text is a level or a filter.
///
/// # Errors
/// It is none.
pub fn check_level(level: &str) -> Result<(), LogError> {
    filter(level).map(drop)
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level).map_err(|error| LogError::Filter { filter: level.to_owned(), problem: error.to_string() })
}

/// The call that a task works on.
#[derive(Debug, Clone)]
pub struct About {
    /// The call.
    pub call: CallId,
    /// Its trace.
    pub trace: TraceId,
    /// Who called.
    pub caller: Caller,
}

task_local! {
    static ABOUT: Option<About>;
}

/// Do this as a part of a call: what it logs says so.
pub fn within<F: Future>(about: About, work: F) -> impl Future<Output = F::Output> {
    ABOUT.scope(Some(about), work)
}

/// Do this, in a task of its own, as a part of what this task works on.
pub fn along<F: Future>(work: F) -> impl Future<Output = F::Output> {
    ABOUT.scope(about(), work)
}

/// The call that this task works on, if it is one's.
#[must_use]
pub fn about() -> Option<About> {
    ABOUT.try_with(Clone::clone).ok().flatten()
}

/// Members of one line.
#[derive(Debug, Default)]
struct Members(Map<String, Value>);

impl Visit for Members {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), json!(format!("{value:?}")));
    }
}

/// One JSON object per line: `timestamp`, `level`, `target`, `message` and the fields of the event; `call_id`, `trace_id` and
/// `tenant` inside of a call.
#[derive(Debug)]
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut said = Members::default();
        event.record(&mut said);
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), json!(time));
        line.insert("level".to_owned(), json!(event.metadata().level().as_str()));
        line.insert("target".to_owned(), json!(event.metadata().target()));
        if let Some(About { call, trace, caller }) = about() {
            line.insert("call_id".to_owned(), json!(call));
            line.insert("trace_id".to_owned(), json!(trace));
            line.insert("tenant".to_owned(), json!(caller.principal().tenant));
        }
        line.extend(said.0);
        writeln!(writer, "{}", visible_json(&Value::Object(line).to_string()))
    }
}

/// For people: what the library writes, after the call that it happened in.
#[derive(Debug)]
struct TextLines {
    lines: Format<Full>,
    colours: bool,
}

impl TextLines {
    fn new(colours: bool) -> Self {
        Self { lines: Format::default().with_ansi(colours), colours }
    }
}

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if let Some(About { call, trace, caller }) = about() {
            write!(writer, "[{call} trace={trace} tenant={}] ", caller.principal().tenant)?;
        }
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&spelled(&line, self.colours))
    }
}

/// A line of the library with everything spelled out that hides, reorders or ends it. Its last line break is its own, and so
/// are its colours where it has any; the library leaves those of others in the values of fields.
fn spelled(line: &str, colours: bool) -> String {
    let (said, end) = line.strip_suffix('\n').map_or((line, ""), |said| (said, "\n"));
    let mut shown = String::with_capacity(line.len());
    let mut rest = said.chars();
    while let Some(c) = rest.next() {
        let colour = colours && c == '\u{1b}' && COLOURS.iter().any(|colour| rest.as_str().starts_with(colour));
        if is_hidden(c) && !colour {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown.push_str(end);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lines").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(json: bool, say: impl FnOnce()) -> String {
        let lines = Lines::default();
        let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone()).with_ansi(false);
        let registry = tracing_subscriber::registry();
        if json {
            tracing::subscriber::with_default(registry.with(layer.event_format(JsonLines)), say);
        } else {
            tracing::subscriber::with_default(registry.with(layer.event_format(TextLines::new(false))), say);
        }
        let written = lines.0.lock().expect("lines").clone();
        String::from_utf8(written).expect("text")
    }

    #[test]
    fn t_s2_no_character_of_others_ends_a_line_hides_or_reorders_in_either_form() {
        let hostile: String = (0..=0x0010_ffff).filter_map(char::from_u32).filter(|c| is_hidden(*c)).collect();
        for json in [true, false] {
            let text = logged(json, || {
                tracing::warn!(name = %hostile, "{hostile}");
                tracing::warn!(name = hostile, "and then");
            });
            assert_eq!(text.lines().count(), 2, "{json}");
            assert!(!text.chars().any(|c| is_hidden(c) && c != '\n'), "{json}");
        }
    }

    #[tokio::test]
    async fn r39_what_goes_on_in_a_task_of_its_own_is_of_the_same_call() {
        let call = CallId::new(uuid::Uuid::from_u128(7));
        let principal = serde_json::from_value(json!({"tenant": "acme", "user": "ann", "agent": "one"})).expect("one");
        let caller = Caller::resumed((&principal, &toolkeep_core::principal::Origin::record()), None);
        let of = |about: Option<About>| about.map(|about| about.call);
        let about = About { call, trace: TraceId::of(*call.uuid().as_bytes()), caller };
        let seen = within(about, async {
            let along = tokio::spawn(along(async { super::about() })).await.expect("ended");
            let alone = tokio::spawn(async { super::about() }).await.expect("ended");
            (of(along), of(alone))
        });
        assert_eq!(seen.await, (Some(call), None));
        assert_eq!(of(along(async { super::about() }).await), None, "of no call");
    }

    #[test]
    fn r39_a_json_line_has_its_fields_beside_its_message() {
        let text = logged(true, || tracing::info!(number = 7, fine = true, share = 0.5, "it is {}", "so"));
        let line: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&line["level"], &line["message"], &line["number"]),
            (&json!("INFO"), &json!("it is so"), &json!(7))
        );
        assert_eq!((&line["fine"], &line["share"], &line["call_id"]), (&json!(true), &json!(0.5), &Value::Null));
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(line["target"].as_str().is_some_and(|target| target.contains("log::tests")), "{line}");
    }
}
