//! `toolkeep plans`: what calls wanted, want or did change.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plan_page;
use super::ui::{Column, Ui, text_at, time_at};
use crate::daemon::method::AdminMethod;

/// Look at plans
#[derive(Debug, clap::Subcommand)]
pub enum PlansCommand {
    /// List plans, newest first
    List {
        /// Continue after the page that told this cursor
        #[arg(long, value_name = "N")]
        cursor: Option<u64>,
    },
    /// Show one plan with everything that it changes
    Show {
        /// The plan's id, or its digest
        plan: String,
    },
}

const COLUMNS: [Column; 6] = [
    Column::new("PLAN", |e| text_at(e, "/id")),
    Column::new("STATE", |e| text_at(e, "/state")),
    Column::new("TOOL", |e| text_at(e, "/tool")),
    Column::new("EFFECTS", |e| text_at(e, "/effects")),
    Column::new("MADE", |e| time_at(e, "/made_at_ms")),
    Column::new("EXPIRES", |e| time_at(e, "/expires_at_ms")),
];

impl PlansCommand {
    /// Look.
    ///
    /// # Errors
    /// There is no such plan, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let mut client = context.admin()?;
        match self {
            Self::List { cursor } => {
                let page = client.ask(&context.ui, AdminMethod::PlansList, json!({"cursor": cursor}))?;
                show_page(&context.ui, &page, "plans", &COLUMNS)?;
            }
            Self::Show { plan } => {
                let pages = plan_page::fetch_admin(context, &mut client, &plan)?;
                context.ui.value(&pages.head, || format!("{}\n{}", heading(&pages.head), pages.render(&context.ui)))?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// A page of a list, and on standard error how to get the next one.
pub(super) fn show_page(ui: &Ui, page: &Value, member: &str, columns: &[Column]) -> Result<(), Failure> {
    let entries = page.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    ui.list(page, entries, columns)?;
    if let Some(next) = page.get("next_cursor").and_then(Value::as_u64) {
        ui.note(&format!("there is more: repeat with `--cursor {next}`"));
    }
    Ok(())
}

/// What a plan is, before what it changes.
pub(super) fn heading(plan: &Value) -> String {
    let lines = [
        ("plan", text_at(plan, "/id")),
        ("digest", text_at(plan, "/digest")),
        ("state", text_at(plan, "/state")),
        ("call", text_at(plan, "/call_id")),
        ("tool", text_at(plan, "/tool")),
        ("component", text_at(plan, "/component")),
        ("by", principal(plan, "/principal")),
        ("expires", time_at(plan, "/expires_at_ms")),
    ];
    let steps = plan.get("steps").and_then(Value::as_array).into_iter().flatten();
    let steps = (1..).zip(steps).map(|(at, step)| (format!("call {at}"), text_at(step, "/tool")));
    let head: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    steps.fold(head, |head, (name, tool)| format!("{head}{name:<10} {tool}\n"))
}

/// A principal as `tenant/user/agent`.
pub(super) fn principal(entry: &Value, pointer: &str) -> String {
    let part = |name: &str| text_at(entry, &format!("{pointer}/{name}"));
    format!("{}/{}/{}", part("tenant"), part("user"), part("agent"))
}
