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
    /// File with the token to show as an agent; without it `$TOOLKEEP_TOKEN`, and without that the uid counts
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub token_file: Option<PathBuf>,
    /// File with the token to show as an operator, instead of the daemon's own
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub admin_token_file: Option<PathBuf>,
}

/// The variable that holds the token of an agent.
const TOKEN_VARIABLE: &str = "TOOLKEEP_TOKEN";
/// Longest token, in bytes: a signed statement, and room for a line's end.
const TOKEN_MAX_BYTES: u64 = 17 * 1024;

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
        let token = self.token()?;
        let socket = match &self.global.agent_socket {
            Some(socket) => socket.clone(),
            None => self.sockets()?.agent,
        };
        AgentClient::connect(&self.ui, &socket, token.as_deref())
    }

    /// Where MCP is spoken: beside the agent socket.
    ///
    /// # Errors
    /// There is no configuration that says where.
    pub fn mcp_socket(&self) -> Result<PathBuf, Failure> {
        match &self.global.agent_socket {
            Some(socket) => Ok(socket.with_file_name("mcp.sock")),
            None => Ok(self.sockets()?.mcp),
        }
    }

    /// The options that lead another process to the same daemon, in the same name. A token in the environment is not among them.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn same_daemon(&self) -> Result<Vec<String>, Failure> {
        let mut options = Vec::new();
        let given = [
            ("--config", &self.global.config),
            ("--agent-socket", &self.global.agent_socket),
            ("--token-file", &self.global.token_file),
        ];
        for (option, path) in given {
            if let Some(path) = path {
                options.extend([option.to_owned(), absolute(path)?.display().to_string()]);
            }
        }
        Ok(options)
    }

    /// The token to show as an agent, if one is set. A blank one is a mistake, never nobody's.
    ///
    /// # Errors
    /// It is blank, or its file cannot be read.
    pub fn token(&self) -> Result<Option<String>, Failure> {
        let (token, origin) = match (&self.global.token_file, self.ambient.var(TOKEN_VARIABLE)) {
            (Some(path), _) => (token_in(path)?, path.display().to_string()),
            (None, Some(token)) => (token, format!("${TOKEN_VARIABLE}")),
            (None, None) => return Ok(None),
        };
        let token = token.trim();
        if token.is_empty() {
            let hint = "put the token there that `toolkeep tokens mint` gave, or unset it to be known by your uid";
            return Err(Failure::usage(format!("the token in `{origin}` is blank"), hint));
        }
        Ok(Some(token.to_owned()))
    }

    /// Connect as an operator.
    ///
    /// # Errors
    /// No daemon answers, or it does not take us for one.
    pub fn admin(&self) -> Result<AdminClient, Failure> {
        let (socket, token) = match &self.global.admin_socket {
            Some(socket) => (socket.clone(), socket.with_file_name("token")),
            None => {
                let sockets = self.sockets()?;
                (sockets.admin, sockets.admin_token)
            }
        };
        let token = match &self.global.admin_token_file {
            Some(path) => Some(token_in(path)?),
            // Whoever cannot read it is known by the uid alone.
            None => token_in(&token).ok(),
        };
        AdminClient::connect(&self.ui, &socket, token.as_deref())
    }
}

fn token_in(path: &Path) -> Result<String, Failure> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(Failure::file("read", path))?;
    let mut text = String::new();
    file.take(TOKEN_MAX_BYTES).read_to_string(&mut text).map_err(Failure::file("read", path))?;
    Ok(text)
}

/// A path that means the same from everywhere.
///
/// # Errors
/// There is no working directory.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(Failure::file("find", path))
}
