//! `toolkeep commit` and `toolkeep discard`: what becomes of a previewed plan.

use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::reply;
use crate::daemon::method::AgentMethod;

/// Commit a previewed plan, exactly as it was shown
#[derive(Debug, clap::Args)]
pub struct CommitArgs {
    /// The plan's id, or its digest
    plan: String,
    /// If the plan is held, wait until people decided
    #[arg(long)]
    wait: bool,
}

/// Throw a previewed plan away
#[derive(Debug, clap::Args)]
pub struct DiscardArgs {
    /// The plan's id
    plan: String,
}

impl CommitArgs {
    /// Commit it.
    ///
    /// # Errors
    /// There is no such plan, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let mut client = context.agent()?;
        let mut result = client.ask(&context.ui, AgentMethod::PlansCommit, json!({"plan": self.plan}))?;
        if self.wait {
            result = reply::wait(context, &mut client, result)?;
        }
        reply::show_own(context, &result, &mut client)
    }
}

impl DiscardArgs {
    /// Throw it away.
    ///
    /// # Errors
    /// There is no such plan, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let mut client = context.agent()?;
        let result = client.ask(&context.ui, AgentMethod::PlansDiscard, json!({"plan": self.plan}))?;
        reply::show_own(context, &result, &mut client)
    }
}
