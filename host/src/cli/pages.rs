//! `toolkeep completion` and `toolkeep man`: what is generated from the command line's own description.

use clap::CommandFactory as _;

use super::Cli;
use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;

/// Print a completion script
#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// The shell that reads it
    shell: clap_complete::Shell,
}

/// Print a manual page, for `man -l -`
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The command that it is about, for example `approvals approve`; without it, toolkeep itself
    command: Vec<String>,
}

impl CompletionArgs {
    /// Print it.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "toolkeep", &mut script);
        context.ui.bytes(&script)?;
        Ok(Exit::Ok)
    }
}

impl ManArgs {
    /// Print it.
    ///
    /// # Errors
    /// There is no such command, or standard output is gone.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let mut root = Cli::command();
        root.build();
        let mut command = &root;
        for word in &self.command {
            command = command.find_subcommand(word).ok_or_else(|| {
                Failure::usage(
                    format!("there is no command `{}`", self.command.join(" ").escape_default()),
                    "`toolkeep help` lists the commands",
                )
            })?;
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).render(&mut page).map_err(Failure::Output)?;
        context.ui.bytes(&page)?;
        Ok(Exit::Ok)
    }
}
