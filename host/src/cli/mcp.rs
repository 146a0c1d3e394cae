//! `toolkeep mcp`: what an MCP client starts, and what its configuration needs for that.
//!
//! The client's standard input and output are joined to the daemon's socket, byte for byte; nothing is read, changed or started
//! here. A daemon that is not there is an error at once, on standard error, because a client shows that and nothing else.

mod address;
mod clients;

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::clients::Client;
use super::client::AgentClient;
use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;

/// Bytes that are carried at a time: an ordinary request at once.
const CARRY_BYTES: usize = 64 * 1024;

/// Speak MCP on standard input and output, for the client that starts this
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct McpArgs {
    #[command(subcommand)]
    command: Option<McpCommand>,
}

/// What else there is.
#[derive(Debug, clap::Subcommand)]
enum McpCommand {
    /// Print what the configuration of an MCP client needs
    Config {
        /// The client
        #[arg(long, value_enum, value_name = "CLIENT")]
        client: Client,
        /// Connect by HTTP to this address instead of starting `toolkeep mcp`: https://keep.example.com/mcp; without a value,
        /// to the one of `[http]`
        #[arg(long, value_name = "URL", num_args = 0..=1)]
        url: Option<Option<String>>,
    },
}

impl McpArgs {
    /// Run.
    ///
    /// # Errors
    /// No daemon answers, or it does not take the token.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        match self.command {
            None => join(context),
            Some(McpCommand::Config { client, url }) => {
                let place = match url {
                    Some(Some(url)) => client.by_http(&address::checked(&url)?),
                    Some(None) => client.by_http(&address::of(context.config()?.config.http.as_ref())?),
                    None => {
                        let program = std::env::current_exe().map_err(Failure::file("find", "toolkeep"))?;
                        let mut arguments = context.same_daemon()?;
                        arguments.push("mcp".to_owned());
                        client.by_command(&program.display().to_string(), &arguments)
                    }
                };
                context.ui.note(place.hint);
                context.ui.text(&place.text)?;
                Ok(Exit::Ok)
            }
        }
    }
}

/// Carry bytes both ways until both ends are done.
fn join(context: &Context<'_>) -> Result<Exit, Failure> {
    let socket = context.mcp_socket()?;
    let mut down = AgentClient::connect(&context.ui, &socket, context.token()?.as_deref())?.into_stream();
    let broken = |what: &str, error: &io::Error| broken(&socket, format!("{what}: {error}"));
    let up = down.get_ref().try_clone().map_err(|error| broken("cannot be written to", &error))?;
    let asked = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&asked);
    // It ends with this process: nobody can wait for somebody else's standard input.
    let carrier = std::thread::Builder::new().spawn(move || {
        let carried = carry_up(up, &done);
        done.store(true, Ordering::Release);
        carried
    });
    carrier.map_err(|error| Failure::Other(format!("cannot start a thread: {error}")))?;
    let mut out = io::stdout().lock();
    loop {
        let taken = match down.fill_buf() {
            Ok([]) if asked.load(Ordering::Acquire) => return Ok(Exit::Ok),
            Ok([]) => return Err(self::broken(&socket, "ended the connection".to_owned())),
            Ok(bytes) => {
                out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::Output)?;
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(broken("cannot be read", &error)),
        };
        down.consume(taken);
    }
}

/// What the client says, until it has said everything.
fn carry_up(mut up: UnixStream, done: &AtomicBool) -> io::Result<()> {
    let (mut input, mut bytes) = (io::stdin().lock(), vec![0; CARRY_BYTES]);
    loop {
        match input.read(&mut bytes) {
            Ok(0) => {
                // Before the daemon hears of it and ends the connection: that is then no surprise.
                done.store(true, Ordering::Release);
                return Ok(rustix::net::shutdown(&up, rustix::net::Shutdown::Write)?);
            }
            Ok(count) => up.write_all(bytes.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn broken(socket: &Path, problem: String) -> Failure {
    Failure::Protocol { socket: socket.to_path_buf(), problem }
}
