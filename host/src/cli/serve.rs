//! `toolkeep serve`: the daemon.
//!
//! The order matters: locks before anything is opened, so that a second daemon is refused before it could recover what the
//! first one is doing; then the host, which recovers; then the doors.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use super::context::{Context, Global};
use super::exit::Exit;
use super::failure::Failure;
use crate::ambient::Ambient;
use crate::config::{self, Config, LoadOptions, Loaded};
use crate::daemon::bounds::Bounds;
use crate::daemon::http::config::TlsConfig;
use crate::daemon::watch::Watch;
use crate::daemon::{self, Doors, Stopped, socket};
use crate::host::Host;
use crate::log::{self, LogError, LogFormat};
use crate::secrets::keep_out_of_dumps;

/// Permissions of a runtime directory that is made: anybody may pass through to the sockets' own directories.
const RUNTIME_MODE: u32 = 0o711;
/// Permissions of a state directory that is made.
const STATE_MODE: u32 = 0o700;
/// How long blocking work may still take after the doors are closed.
const LAST_WORK: Duration = Duration::from_secs(2);

/// Run the daemon until it is told to stop
///
/// SIGTERM and SIGINT stop it gracefully, SIGHUP reads manifests, policies and certificates again.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Form of the log on standard error; `log.format` of the configuration if absent
    #[arg(long, value_enum, value_name = "FORM")]
    pub log: Option<LogForm>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as `toolkeep::daemon=debug`; `log.level` of the
    /// configuration if absent
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogForm {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Pretty,
}

impl ServeArgs {
    /// Begin to log, as these options or else the configuration say. One that cannot be read says nothing here: whoever runs
    /// with it says why.
    ///
    /// # Errors
    /// The filter is none.
    pub fn log(&self, global: &Global, ambient: &Ambient) -> Result<(), LogError> {
        let loaded = config::load(&LoadOptions { explicit: global.config.clone() }, ambient);
        let configured = loaded.map(|loaded| loaded.config.log).unwrap_or_default();
        let format = match self.log {
            None => configured.format,
            Some(LogForm::Auto) => None,
            Some(LogForm::Json) => Some(LogFormat::Json),
            Some(LogForm::Pretty) => Some(LogFormat::Text),
        };
        let level = self.log_level.as_deref().or(configured.level.as_deref());
        log::start(format, level.unwrap_or(log::LEVEL), io::stderr().is_terminal())
    }

    /// Run.
    ///
    /// # Errors
    /// The configuration is wrong, another daemon runs, or something of the daemon's cannot be opened.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let Loaded { config, files, .. } = context.config()?;
        tracing::info!(files = ?files, version = env!("CARGO_PKG_VERSION"), "starting");
        // Whatever is created from here on is the daemon's alone; what others may use is opened up by name.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let other = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
        // Before a secret is read, and before there is another thread.
        keep_out_of_dumps().map_err(|error| other(&error))?;
        daemon::descriptors::raise(config.limits.connections).map_err(|error| other(&error))?;
        let _state = socket::claim(&config.state_dir, STATE_MODE).map_err(|e| other(&e))?;
        let lock = socket::claim(&config.runtime_dir, RUNTIME_MODE).map_err(|e| other(&e))?;
        // Without it nothing could be watched; where it cannot be made, the log says that nothing is.
        if let Err(error) = std::fs::create_dir_all(&config.tools_dir) {
            tracing::warn!(%error, directory = %config.tools_dir.display(), "there is no directory for manifests");
        }
        let mut manifests =
            Watch::new(&config.tools_dir, config.policy_dir.as_deref(), config.budgets.contracts.as_deref());
        for folder in config.http.iter().filter_map(|http| http.tls.as_ref()).flat_map(TlsConfig::folders) {
            manifests = manifests.and(folder);
        }
        let doors = Doors {
            runtime_dir: config.runtime_dir.clone(),
            manifests,
            agent_group: config.agent_group,
            bounds: bounds(&config),
            http: config.http.clone(),
            lock,
            notify_socket: context.ambient.var("NOTIFY_SOCKET"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("toolkeep")
            .build()
            .map_err(|error| other(&error))?;
        let ambient = context.ambient.clone();
        let stopped = runtime.block_on(async move {
            let host = Host::start(config, ambient).await.map_err(|error| other(&error))?;
            daemon::serve(host, doors).await.map_err(|error| other(&error))
        });
        runtime.shutdown_timeout(LAST_WORK);
        match stopped? {
            Stopped::Gracefully => Ok(Exit::Ok),
            Stopped::InHaste => Err(Failure::Other(
                "stopped before everything in flight was answered; commits are finished at the next start".to_owned(),
            )),
        }
    }
}

fn bounds(config: &Config) -> Bounds {
    Bounds {
        connections: config.limits.connections,
        drain: Duration::from_millis(config.limits.drain_ms),
        ..Bounds::default()
    }
}
