//! `toolkeep approvals`: what waits for a person, and saying yes or no to it.
//!
//! Nobody is asked to agree to what was not shown: `approve` without a confirmation shows the plan first where a person
//! sits at a terminal. Irreversible plans need the first 12 digits of the plan's digest, typed.

use serde_json::{Value, json};
use toolkeep_core::display::{visible, visible_json};
use toolkeep_core::refusal::Code;

use super::client::AdminClient;
use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plan_page;
use super::plan_page::PlanPages;
use super::plans::{heading, principal, show_page};
use super::ui::{Column, Output, text_at, time_at};
use crate::daemon::method::AdminMethod;

/// See what waits for a person, and decide
#[derive(Debug, clap::Subcommand)]
pub enum ApprovalsCommand {
    /// List approvals that wait
    List {
        /// Resolved ones too
        #[arg(long)]
        all: bool,
    },
    /// Show one approval with everything that its plan would change
    Show {
        /// The approval's id
        approval: String,
    },
    /// Agree to exactly this plan
    Approve {
        /// The approval's id
        approval: String,
        /// For the record
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// First 12 digits of the plan's digest: irreversible plans need them
        #[arg(long, value_name = "DIGITS")]
        confirm: Option<String>,
    },
    /// Refuse this plan; the agent gets the reason
    Reject {
        /// The approval's id
        approval: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

const COLUMNS: [Column; 6] = [
    Column::new("APPROVAL", |e| text_at(e, "/id")),
    Column::new("STATE", |e| text_at(e, "/state")),
    Column::new("TOOL", |e| text_at(e, "/tool")),
    Column::new("BY", |e| principal(e, "/requester")),
    Column::new("NEEDS", |e| text_at(e, "/approvers")),
    Column::new("EXPIRES", |e| time_at(e, "/expires_at_ms")),
];

impl ApprovalsCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no such approval, this operator may not decide it, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.admin()?;
        match self {
            Self::List { all } => {
                let page = client.ask(ui, AdminMethod::ApprovalsList, json!({"all": all}))?;
                show_page(ui, &page, "approvals", &COLUMNS)?;
            }
            Self::Show { approval } => {
                let shown = client.ask(ui, AdminMethod::ApprovalsShow, json!({"approval": approval}))?;
                let page = render(context, &mut client, &shown)?;
                ui.value(&shown, || page)?;
            }
            Self::Approve { approval, reason, confirm } => {
                let params = json!({"approval": approval, "reason": reason, "confirm": confirm});
                let answer = match client.ask(ui, AdminMethod::ApprovalsApprove, params) {
                    Err(Failure::Refused(refusal)) if refusal.code == Code::Denied && confirm.is_none() => {
                        confirmed(context, &mut client, &approval, &reason, Failure::Refused(refusal))?
                    }
                    answer => answer?,
                };
                return told(context, &answer);
            }
            Self::Reject { approval, reason } => {
                let params = json!({"approval": approval, "reason": reason});
                let answer = client.ask(ui, AdminMethod::ApprovalsReject, params)?;
                return told(context, &answer);
            }
        }
        Ok(Exit::Ok)
    }
}

/// Everything that a person should see before saying yes.
fn render(context: &Context<'_>, client: &mut AdminClient, shown: &Value) -> Result<String, Failure> {
    let ui = &context.ui;
    let plan = shown.get("plan").cloned().unwrap_or_default();
    let pages = match plan.get("next_cursor").and_then(Value::as_u64) {
        None => PlanPages::first(plan)?,
        Some(_) => plan_page::fetch_admin(context, client, &text_at(shown, "/plan/id"))?,
    };
    let lines = [
        ("approval", text_at(shown, "/id")),
        ("state", text_at(shown, "/state")),
        ("because", text_at(shown, "/reason")),
        ("asked by", principal(shown, "/requester")),
        ("needs", format!("{} to agree", text_at(shown, "/approvers"))),
        ("until", time_at(shown, "/expires_at_ms")),
    ];
    let head: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    let votes: String = shown
        .get("votes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|vote| {
            let word = if vote.get("approved") == Some(&Value::Bool(true)) { "agreed" } else { "refused" };
            let way = if text_at(vote, "/via") == "client" { " (through the client of the agent)" } else { "" };
            format!("{word:<10} {}{way} {}\n", text_at(vote, "/approver"), text_at(vote, "/reason"))
        })
        .collect();
    let input = shown.get("input").map(ToString::to_string).unwrap_or_default();
    let input = toolkeep_core::render::quoted("the agent", &format!("input: {}", visible_json(&input)));
    Ok(format!("{head}{votes}{}\n{input}\n{}", heading(&pages.head), pages.render(ui)))
}

/// Show the plan and ask for the digits; where nobody can be asked, the refusal stands.
fn confirmed(
    context: &Context<'_>,
    client: &mut AdminClient,
    approval: &str,
    reason: &str,
    refused: Failure,
) -> Result<Value, Failure> {
    let ui = &context.ui;
    let shown = client.ask(ui, AdminMethod::ApprovalsShow, json!({"approval": approval}))?;
    if shown.get("state").and_then(Value::as_str) != Some("pending") {
        return Err(refused);
    }
    if ui.output() == Output::Table {
        let page = render(context, client, &shown)?;
        ui.note(&page);
    }
    match ui.ask("This plan cannot be undone. Type the first 12 digits of its digest to agree: ")? {
        Some(typed) if !typed.is_empty() => {
            let params = json!({"approval": approval, "reason": reason, "confirm": typed});
            client.ask(ui, AdminMethod::ApprovalsApprove, params)
        }
        Some(_) | None => Err(refused),
    }
}

/// What became of the approval. The call's own status is the agent's affair, except where its commit failed.
fn told(context: &Context<'_>, answer: &Value) -> Result<Exit, Failure> {
    let ui = &context.ui;
    ui.value(answer, || {
        let state = text_at(answer, "/state");
        match (answer.get("have"), answer.pointer("/reply/outcome")) {
            (Some(have), _) => format!("{state}: {have} of {} agreed", text_at(answer, "/need")),
            (None, Some(_)) => {
                let outcome = text_at(answer, "/reply/outcome");
                match answer.pointer("/reply/error/message").and_then(Value::as_str) {
                    Some(why) => format!("{state}: the call is {outcome}: {}", visible(why)),
                    None => format!("{state}: the call is {outcome}"),
                }
            }
            (None, None) => state,
        }
    })?;
    let code = answer.pointer("/reply/error/code").cloned();
    let code: Option<Code> = code.and_then(|code| serde_json::from_value(code).ok());
    Ok(code.map_or(Exit::Ok, Exit::of_code))
}
