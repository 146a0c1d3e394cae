//! The command line: noun and verb, one file each.
//!
//! A command asks the daemon over its sockets, as every other client does, and shows the answer through one [`ui::Ui`].
//! Data goes to standard output, everything else to standard error, and the exit status derives from status, outcome and
//! code. Nothing here decides anything, and nothing reaches the daemon's state by another way.

mod alerts;
mod approvals;
mod audit;
mod audit_read;
mod autonomy;
mod breakers;
mod budgets;
mod call;
mod client;
mod commit;
mod config;
pub mod context;
mod deadletters;
mod demo;
mod doctor;
mod eval;
pub mod exit;
pub mod failure;
mod forget;
mod incident;
mod kill;
mod mcp;
mod new;
mod outcomes;
mod pages;
mod plan_page;
mod plans;
mod policy;
mod receipts;
mod replay;
mod reply;
mod retention;
mod runs;
pub mod serve;
mod sessions;
mod standing;
mod stats;
mod tokens;
mod tools;
mod transactions;
pub mod ui;
mod undo;
mod who;

use self::context::{Context, Global};
use self::exit::Exit;
use self::failure::Failure;
use crate::ambient::Ambient;

/// Run the tools of AI agents: stage, plan, decide, commit, record
#[derive(Debug, clap::Parser)]
#[command(name = "toolkeep", version, max_term_width = 100, disable_help_subcommand = false)]
#[command(
    after_help = "Exit status: 0 ok, 1 error, 2 usage, 3 denied, 4 held, 5 not found, 6 stale, 7 limited, 8 daemon unreachable, 9 findings"
)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
#[expect(missing_docs, reason = "the commands are documented where they are defined, for the help")]
pub enum Command {
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Doctor(doctor::DoctorArgs),
    Call(call::CallArgs),
    Preview(call::PreviewArgs),
    Commit(commit::CommitArgs),
    Discard(commit::DiscardArgs),
    Undo(undo::UndoArgs),
    #[command(subcommand)]
    Plans(plans::PlansCommand),
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    #[command(subcommand)]
    Budgets(budgets::BudgetsCommand),
    #[command(subcommand)]
    Transactions(transactions::TransactionsCommand),
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    #[command(subcommand)]
    Approvals(approvals::ApprovalsCommand),
    #[command(subcommand)]
    Standing(standing::StandingCommand),
    #[command(subcommand)]
    Autonomy(autonomy::AutonomyCommand),
    Incident(incident::IncidentArgs),
    #[command(subcommand)]
    Alerts(alerts::AlertsCommand),
    #[command(subcommand)]
    Deadletters(deadletters::DeadlettersCommand),
    #[command(subcommand)]
    Breakers(breakers::BreakersCommand),
    #[command(subcommand)]
    Kill(kill::KillCommand),
    #[command(subcommand)]
    Outcomes(outcomes::OutcomesCommand),
    #[command(subcommand)]
    Tokens(tokens::TokensCommand),
    #[command(subcommand)]
    Tools(tools::ToolsCommand),
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    Replay(replay::ReplayArgs),
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    #[command(subcommand)]
    Receipts(receipts::ReceiptsCommand),
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    #[command(subcommand)]
    Retention(retention::RetentionCommand),
    Forget(forget::ForgetArgs),
    #[command(subcommand)]
    Stats(stats::StatsCommand),
    Who(who::WhoArgs),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Mcp(mcp::McpArgs),
    New(new::NewArgs),
    Completion(pages::CompletionArgs),
    Man(pages::ManArgs),
}

/// Run a command; what it has to say is said when this returns.
#[must_use]
pub fn run(cli: Cli, ambient: &Ambient) -> Exit {
    let context = Context::new(cli.global, ambient);
    match dispatch(cli.command, &context) {
        Ok(exit) => exit,
        Err(failure) => {
            context.ui.failure(&failure);
            failure.exit()
        }
    }
}

fn dispatch(command: Command, context: &Context<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Serve(args) => args.run(context),
        Command::Demo(args) => args.run(context),
        Command::Doctor(args) => args.run(context),
        Command::Call(args) => args.run(context),
        Command::Preview(args) => args.run(context),
        Command::Commit(args) => args.run(context),
        Command::Discard(args) => args.run(context),
        Command::Undo(args) => args.run(context),
        Command::Plans(command) => command.run(context),
        Command::Runs(command) => command.run(context),
        Command::Budgets(command) => command.run(context),
        Command::Transactions(command) => command.run(context),
        Command::Sessions(command) => command.run(context),
        Command::Approvals(command) => command.run(context),
        Command::Standing(command) => command.run(context),
        Command::Autonomy(command) => command.run(context),
        Command::Incident(args) => args.run(context),
        Command::Alerts(command) => command.run(context),
        Command::Deadletters(command) => command.run(context),
        Command::Breakers(command) => command.run(context),
        Command::Kill(command) => command.run(context),
        Command::Outcomes(command) => command.run(context),
        Command::Tokens(command) => command.run(context),
        Command::Tools(command) => command.run(context),
        Command::Policy(command) => command.run(context),
        Command::Replay(args) => args.run(context),
        Command::Eval(command) => command.run(context),
        Command::Receipts(command) => command.run(context),
        Command::Audit(command) => command.run(context),
        Command::Retention(command) => command.run(context),
        Command::Forget(args) => args.run(context),
        Command::Stats(command) => command.run(context),
        Command::Who(args) => args.run(context),
        Command::Config(command) => command.run(context),
        Command::Mcp(args) => args.run(context),
        Command::New(args) => args.run(context),
        Command::Completion(args) => args.run(context),
        Command::Man(args) => args.run(context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_description_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
