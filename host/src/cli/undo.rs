//! `toolkeep undo`: take back what a call committed, as a plan like any other.

use serde_json::json;
use toolkeep_core::id::{CallId, RunId};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plan_page;
use super::reply;
use crate::daemon::method::AdminMethod;

/// Undo a committed call, or the latest call of a run
///
/// Files that somebody changed since are never overwritten: the undo is refused and says which.
#[derive(Debug, clap::Args)]
pub struct UndoArgs {
    /// A call (`call_…`) or a run (`run_…`)
    target: String,
    /// Show what would change and change nothing
    #[arg(long)]
    preview: bool,
}

impl UndoArgs {
    /// Undo it.
    ///
    /// # Errors
    /// The target is no id, it cannot be undone, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let params = if let Ok(call) = self.target.parse::<CallId>() {
            json!({"call": call, "preview": self.preview})
        } else if let Ok(run) = self.target.parse::<RunId>() {
            json!({"run": run, "preview": self.preview})
        } else {
            return Err(Failure::usage(
                format!("`{}` is neither a call nor a run", self.target.escape_default()),
                "use an id from `toolkeep runs show`, or the call id that the call told",
            ));
        };
        let mut client = context.admin()?;
        let result = client.ask(&context.ui, AdminMethod::UndoCall, params)?;
        let next = format!("toolkeep undo {}", self.target);
        reply::show(context, &result, Some(&next), |plan| plan_page::fetch_admin(context, &mut client, plan))
    }
}
