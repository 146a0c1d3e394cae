//! `toolkeep retention`: how long what is kept, what is held for the law, and letting go of the rest.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AdminMethod;

/// See how long what is kept, hold what must stay, and let go of the rest
#[derive(Debug, clap::Subcommand)]
pub enum RetentionCommand {
    /// Show the age at which each class goes, what is held, and how large the ledger is
    Show,
    /// Let go of what is over now, instead of within ten minutes
    Run {
        /// Say what would go, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Hold a call or a run: nothing of it goes until it is released
    Hold {
        /// The id of a call or of a run
        id: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Release what is held
    Release {
        /// The id of a call or of a run
        id: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

const CLASSES: [Column; 2] =
    [Column::new("CLASS", |e| text_at(e, "/class")), Column::new("KEPT FOR", |e| age(e.get("age_ms")))];

const HOLDS: [Column; 4] = [
    Column::new("HELD", |e| [text_at(e, "/call_id"), text_at(e, "/run")].concat()),
    Column::new("BY", |e| text_at(e, "/set_by")),
    Column::new("SINCE", |e| time_at(e, "/set_at_ms")),
    Column::new("REASON", |e| text_at(e, "/reason")),
];

const GONE: [(&str, &str); 5] = [
    ("/calls", "calls"),
    ("/payloads", "payloads"),
    ("/recordings", "recordings"),
    ("/keys", "idempotency keys"),
    ("/contents", "undo contents of plans"),
];

fn age(of: Option<&Value>) -> String {
    let Some(ms) = of.and_then(Value::as_u64) else { return "as long as its call".to_owned() };
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    units
        .iter()
        .find(|(unit, _)| ms >= *unit && ms % unit == 0)
        .map_or_else(|| format!("{ms}ms"), |(unit, word)| format!("{}{word}", ms / unit))
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn gone(of: &Value) -> String {
    let lines: Vec<String> =
        GONE.iter().map(|(pointer, words)| format!("{:>12} {words}", text_at(of, pointer))).collect();
    lines.join("\n")
}

fn thing(id: &str, reason: &str) -> Value {
    let kind = if id.starts_with("run_") { "run" } else { "call" };
    json!({kind: id, "reason": reason})
}

impl RetentionCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no such call, run or hold, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.admin()?;
        match self {
            Self::Show => {
                let shown = client.ask(ui, AdminMethod::RetentionShow, json!({}))?;
                ui.value(&shown, || {
                    let classes = ui.table(list(&shown, "classes"), &CLASSES);
                    let holds = ui.table(list(&shown, "holds"), &HOLDS);
                    let room = format!(
                        "ledger     {} of {} bytes, {} free inside",
                        text_at(&shown, "/room/bytes"),
                        text_at(&shown, "/room/max_bytes"),
                        text_at(&shown, "/room/free_bytes")
                    );
                    let payloads = match shown.get("encrypted").and_then(Value::as_bool) {
                        Some(true) => format!(
                            "payloads   encrypted to operators; the daemon reads them for {} more",
                            age(shown.get("readable_ms"))
                        ),
                        _ => "payloads   not encrypted".to_owned(),
                    };
                    [classes, holds, room, payloads].join("\n")
                })?;
            }
            Self::Run { dry_run } => {
                let ran = client.ask(ui, AdminMethod::RetentionRun, json!({"dry_run": dry_run}))?;
                let (name, word) =
                    if dry_run { ("would", "would go, of the next 20,000 calls") } else { ("gone", "gone") };
                ui.value(&ran, || format!("{word}:\n{}", gone(ran.get(name).unwrap_or(&Value::Null))))?;
            }
            Self::Hold { id, reason } => {
                let held = client.ask(ui, AdminMethod::RetentionHold, thing(&id, &reason))?;
                let was = held.get("was_held") == Some(&Value::Bool(true));
                ui.value(&held, || if was { "was held before".to_owned() } else { "held".to_owned() })?;
            }
            Self::Release { id, reason } => {
                let released = client.ask(ui, AdminMethod::RetentionRelease, thing(&id, &reason))?;
                ui.value(&released, || "released".to_owned())?;
            }
        }
        Ok(Exit::Ok)
    }
}
