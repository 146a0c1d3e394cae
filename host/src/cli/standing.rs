//! `toolkeep standing`: consent in advance to plans that are small and ordinary enough.
//!
//! A standing approval is a file of TOML. `make` shows first which of the last calls it would have let through, and makes
//! nothing until the digits that this gave are typed.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use toolkeep_core::display::{visible, visible_json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::{principal, show_page};
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AdminMethod;
use crate::host::ProposedStanding;

/// Agree in advance to plans of a kind, look at such consent, end it
#[derive(Debug, clap::Subcommand)]
pub enum StandingCommand {
    /// List standing approvals that may still be used
    List {
        /// Those that ended, too
        #[arg(long)]
        all: bool,
    },
    /// Show what a standing approval would have let through of the last calls
    Preview {
        /// TOML file: `uses`, `ttl_s`, and what it `covers`
        file: PathBuf,
        /// How many of the last calls to look at
        #[arg(long, value_name = "N", default_value_t = 500)]
        calls: u32,
    },
    /// Make a standing approval, after showing what it would have let through
    Make {
        /// TOML file: `uses`, `ttl_s`, and what it `covers`
        file: PathBuf,
        /// For the record
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// The 12 digits that its preview gave
        #[arg(long, value_name = "DIGITS")]
        confirm: Option<String>,
    },
    /// Agree to a standing approval that waits for another person
    Agree {
        /// Its id
        standing: String,
    },
    /// End a standing approval
    Revoke {
        /// Its id
        standing: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

const COLUMNS: [Column; 6] = [
    Column::new("STANDING", |e| text_at(e, "/id")),
    Column::new("STATE", |e| text_at(e, "/state")),
    Column::new("TOOL", |e| text_at(e, "/covers/tool")),
    Column::new("USED", |e| format!("{} of {}", text_at(e, "/used"), text_at(e, "/uses"))),
    Column::new("ENDS", |e| time_at(e, "/expires_at_ms")),
    Column::new("REASON", |e| text_at(e, "/reason")),
];

const CALLS: [Column; 5] = [
    Column::new("CALL", |e| text_at(e, "/call_id")),
    Column::new("BY", |e| principal(e, "/principal")),
    Column::new("WHEN", |e| time_at(e, "/at_ms")),
    Column::new("EFFECTS", |e| text_at(e, "/totals/effects")),
    Column::new("BECAME", |e| {
        if e.get("rejected") == Some(&Value::Bool(true)) { "rejected".to_owned() } else { text_at(e, "/outcome") }
    }),
];

impl StandingCommand {
    /// Do it.
    ///
    /// # Errors
    /// The file is no standing approval, there is none of that id, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        match self {
            Self::List { all } => {
                let page = context.admin()?.ask(ui, AdminMethod::StandingList, json!({"all": all}))?;
                show_page(ui, &page, "standing", &COLUMNS)?;
            }
            Self::Preview { file, calls } => {
                let params = json!({"standing": read(&file)?, "calls": calls});
                let shown = context.admin()?.ask(ui, AdminMethod::StandingPreview, params)?;
                ui.value(&shown, || preview(context, &shown))?;
            }
            Self::Make { file, reason, confirm } => return make(context, &file, &reason, confirm),
            Self::Agree { standing } => {
                let agreed = context.admin()?.ask(ui, AdminMethod::StandingAgree, json!({"standing": standing}))?;
                ui.value(&agreed, || text_at(&agreed, "/state"))?;
            }
            Self::Revoke { standing, reason } => {
                let params = json!({"standing": standing, "reason": reason});
                let revoked = context.admin()?.ask(ui, AdminMethod::StandingRevoke, params)?;
                ui.value(&revoked, || text_at(&revoked, "/state"))?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn read(file: &Path) -> Result<ProposedStanding, Failure> {
    let unreadable = |source| Failure::File { what: "read", path: file.to_path_buf(), source };
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let hint = "write `uses`, `ttl_s` and a table `[covers]`; see docs/approvals.md";
    toml::from_str(&text).map_err(|error| Failure::usage(format!("`{}`: {error}", file.display()), hint))
}

fn make(context: &Context<'_>, file: &Path, reason: &str, confirm: Option<String>) -> Result<Exit, Failure> {
    let ui = &context.ui;
    let mut client = context.admin()?;
    let standing = json!(read(file)?);
    let confirm = if let Some(confirm) = confirm {
        confirm
    } else {
        let shown = client.ask(ui, AdminMethod::StandingPreview, json!({"standing": standing}))?;
        ui.note(&preview(context, &shown));
        let question = format!("Type {} to make it: ", text_at(&shown, "/confirm"));
        match ui.ask(&question)? {
            Some(typed) if !typed.is_empty() => typed,
            Some(_) | None => {
                ui.note("nothing was made; repeat with `--confirm` and the digits above");
                return Ok(Exit::Denied);
            }
        }
    };
    let params = json!({"standing": standing, "reason": reason, "confirm": confirm});
    let made = client.ask(ui, AdminMethod::StandingMake, params)?;
    ui.value(&made, || match text_at(&made, "/state").as_str() {
        "pending" => format!("{} waits for another person to agree", text_at(&made, "/id")),
        state => format!("{} is {state}", text_at(&made, "/id")),
    })?;
    Ok(Exit::Ok)
}

/// What it covers, and what it would have let through.
fn preview(context: &Context<'_>, shown: &Value) -> String {
    let covers = shown.pointer("/standing/covers").map(ToString::to_string).unwrap_or_default();
    let calls = shown.get("calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let others = shown.get("not_covered").and_then(Value::as_object);
    let others: String =
        others.into_iter().flatten().map(|(why, count)| format!("  {count} not: {}\n", visible(why))).collect();
    let table = if calls.is_empty() { String::new() } else { format!("{}\n", context.ui.table(calls, &CALLS)) };
    format!(
        "covers     {}\nuses       {}\nstands     {} s\npeople     {}\nof the last {} calls, {} had a plan of this tool, and it would have let through {}\n{others}{table}confirm    {}",
        visible_json(&covers),
        text_at(shown, "/standing/uses"),
        text_at(shown, "/standing/ttl_s"),
        text_at(shown, "/people"),
        text_at(shown, "/looked_at"),
        text_at(shown, "/plans"),
        text_at(shown, "/covered"),
        text_at(shown, "/confirm"),
    )
}
