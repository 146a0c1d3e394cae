//! What every command shares: where to print, where the configuration is, how to reach the daemon.

use std::path::{Path, PathBuf};

use super::client::{AdminClient, AgentClient};
use super::failure::Failure;
use super::ui::{Colour, Output, Ui};
use crate::ambient::Ambient;
use crate::config::{self, LoadOptions, Loaded};
use crate::daemon::socket::SocketPaths;

/// Options that every command understands.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Configuration file; without it `$TOOLKEEP_CONFIG`, the user's and the system's are tried
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Form of the data on standard output
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORM",
        help_heading = "Global options"
    )]
    pub output: Output,
    /// When to use colours
    #[arg(
        long = "color",
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        help_heading = "Global options"
    )]
    pub colour: Colour,
    /// Agent socket of the daemon, instead of the configured one
    #[arg(long, global = true, value_name = "SOCKET", help_heading = "Global options")]
    pub agent_socket: Option<PathBuf>,
    /// Admin socket of the daemon, instead of the configured one
    #[arg(long, global = true, value_name = "SOCKET", help_heading = "Global options")]
    pub admin_socket: Option<PathBuf>,
}

/// What a command is handed.
#[derive(Debug)]
pub struct Context<'a> {
    /// Where to print.
    pub ui: Ui,
    /// Clock, randomness, environment.
    pub ambient: &'a Ambient,
    global: Global,
}

impl<'a> Context<'a> {
    /// From the options of the command line.
    #[must_use]
    pub fn new(global: Global, ambient: &'a Ambient) -> Self {
        let no_color = ambient.var("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { ui: Ui::new(global.output, global.colour, no_color), ambient, global }
    }

    /// The configuration, with where it came from.
    ///
    /// # Errors
    /// It cannot be read or makes no sense.
    pub fn config(&self) -> Result<Loaded, Failure> {
        let explicit = match &self.global.config {
            Some(path) => Some(absolute(path)?),
            None => None,
        };
        Ok(config::load(&LoadOptions { explicit }, self.ambient)?)
    }

    /// Where the configured daemon listens.
    ///
    /// # Errors
    /// See [`Self::config`].
    pub fn sockets(&self) -> Result<SocketPaths, Failure> {
        Ok(SocketPaths::beneath(&self.config()?.config.runtime_dir))
    }

    /// Connect as an agent.
    ///
    /// # Errors
    /// No daemon answers, or there is no configuration that says where.
    pub fn agent(&self) -> Result<AgentClient, Failure> {
        match &self.global.agent_socket {
            Some(socket) => AgentClient::connect(socket),
            None => AgentClient::connect(&self.sockets()?.agent),
        }
    }

    /// Connect as an operator.
    ///
    /// # Errors
    /// No daemon answers, or it does not take us for one.
    pub fn admin(&self) -> Result<AdminClient, Failure> {
        match &self.global.admin_socket {
            Some(socket) => AdminClient::connect(&self.ui, socket, &socket.with_file_name("token")),
            None => {
                let sockets = self.sockets()?;
                AdminClient::connect(&self.ui, &sockets.admin, &sockets.admin_token)
            }
        }
    }
}

/// A path that means the same from everywhere.
///
/// # Errors
/// There is no working directory.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(Failure::file("find", path))
}
