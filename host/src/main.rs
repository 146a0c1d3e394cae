//! The one binary: the daemon, the command line, and the child that compiles components.
//!
//! The child comes first, before anything is opened or started, because it must have nothing but its three streams.

use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use toolkeep::ambient::Ambient;
use toolkeep::cli::{Cli, Command};
use toolkeep_sandbox::compile;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args();
    if arguments.nth(1).as_deref() == Some(compile::SUBCOMMAND) {
        return Ok(compile::child_main(arguments));
    }
    let (cli, ambient) = (Cli::parse(), Ambient::real());
    match &cli.command {
        Command::Serve(serve) => serve.log(&cli.global, &ambient)?,
        _ => quiet_log(),
    }
    Ok(toolkeep::cli::run(cli, &ambient).into())
}

/// Commands speak for themselves; only what went wrong underneath is logged.
fn quiet_log() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(io::stderr).with_ansi(false).init();
}
