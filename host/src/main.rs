//! The one binary: the daemon, the command line, and the child that compiles components.
//!
//! The child comes first, before anything is opened or started, because it must have nothing but its three streams.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use toolkeep::ambient::Ambient;
use toolkeep::cli::serve::{LogForm, ServeArgs};
use toolkeep::cli::{Cli, Command};
use toolkeep_sandbox::compile;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args();
    if arguments.nth(1).as_deref() == Some(compile::SUBCOMMAND) {
        return Ok(compile::child_main(arguments));
    }
    let cli = Cli::parse();
    match &cli.command {
        Command::Serve(serve) => log(serve)?,
        _ => quiet_log(),
    }
    Ok(toolkeep::cli::run(cli, &Ambient::real()).into())
}

/// The daemon's log: standard error, as the operator wants it.
fn log(serve: &ServeArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&serve.log_level)
        .with_context(|| format!("`--log-level {}` is not a filter", serve.log_level))?;
    let json = match serve.log {
        LogForm::Auto => !io::stderr().is_terminal(),
        LogForm::Json => true,
        LogForm::Pretty => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if json {
        builder.json().flatten_event(true).with_current_span(false).init();
    } else {
        builder.with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(())
}

/// Commands speak for themselves; only what went wrong underneath is logged.
fn quiet_log() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(io::stderr).with_ansi(false).init();
}
