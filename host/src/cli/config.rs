//! `toolkeep config`: what the daemon would run with, and why.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;
use crate::config::{self, Config, Loaded};

/// Check, show and begin configurations
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Read the configuration and say what is wrong with it
    Check,
    /// Show the configuration in force, defaults included
    Show {
        /// Also tell which file or variable set each key
        #[arg(long)]
        origin: bool,
    },
    /// Write a commented configuration to start from
    Init {
        /// Where; without it, `toolkeep.toml` in the working directory
        #[arg(default_value = "toolkeep.toml")]
        file: PathBuf,
    },
}

impl ConfigCommand {
    /// Do it.
    ///
    /// # Errors
    /// The configuration is wrong, or a file is in the way.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        match self {
            Self::Check => check(context),
            Self::Show { origin } => show(context, origin),
            Self::Init { file } => init(context, &file),
        }
    }
}

fn check(context: &Context<'_>) -> Result<Exit, Failure> {
    let loaded = context.config()?;
    let files: Vec<String> = loaded.files.iter().map(|file| file.display().to_string()).collect();
    let value = json!({"valid": true, "files": files});
    context.ui.value(&value, || match files.as_slice() {
        [] => "no configuration file: the defaults apply".to_owned(),
        files => format!("{}: valid", files.join(", ")),
    })?;
    Ok(Exit::Ok)
}

fn show(context: &Context<'_>, origin: bool) -> Result<Exit, Failure> {
    let Loaded { config, origins, .. } = context.config()?;
    let settings = settings(&config);
    let from = |key: &str| origin_of(&origins, key);
    let mut value = Map::new();
    for (key, setting) in &settings {
        let shown = if origin { json!({"value": setting, "origin": from(key)}) } else { setting.clone() };
        value.insert(key.clone(), shown);
    }
    context.ui.value(&Value::Object(value), || {
        let line = |(key, setting): (&String, &Value)| {
            let origin = if origin { format!("  # {}", from(key)) } else { String::new() };
            format!("{key} = {setting}{origin}\n")
        };
        settings.iter().map(line).collect()
    })?;
    Ok(Exit::Ok)
}

/// Every setting by its key, as it is written in a file. Lists are whole values.
fn settings(config: &Config) -> BTreeMap<String, Value> {
    let limits = &config.limits;
    let workspaces: Vec<Value> = config
        .workspaces
        .iter()
        .map(|(name, workspace)| json!({"name": name, "path": workspace.path, "tenant": workspace.tenant}))
        .collect();
    let principals: Vec<Value> = config
        .principals
        .iter()
        .map(|(uid, p)| json!({"uid": uid, "tenant": p.tenant, "user": p.user, "agent": p.agent}))
        .collect();
    let operators: Vec<Value> = config
        .operators
        .iter()
        .map(|(uid, operator)| json!({"uid": uid, "user": operator.user, "tenant": operator.tenant}))
        .collect();
    [
        ("daemon.state_dir", json!(config.state_dir)),
        ("daemon.runtime_dir", json!(config.runtime_dir)),
        ("daemon.tools_dir", json!(config.tools_dir)),
        ("daemon.environment", json!(config.environment)),
        ("daemon.agent_gid", json!(config.agent_group)),
        ("daemon.solo", json!(config.solo)),
        ("limits.executions", json!(limits.executions)),
        ("limits.connections", json!(limits.connections)),
        ("limits.approval_ttl_s", json!(limits.approval_ttl_ms / 1000)),
        ("limits.undo_bytes", json!(limits.undo_bytes)),
        ("limits.drain_ms", json!(limits.drain_ms)),
        ("workspace", Value::Array(workspaces)),
        ("principal", Value::Array(principals)),
        ("operator", Value::Array(operators)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn origin_of(origins: &BTreeMap<String, String>, key: &str) -> String {
    origins.get(key).cloned().unwrap_or_else(|| "default".to_owned())
}

fn init(context: &Context<'_>, file: &Path) -> Result<Exit, Failure> {
    let file = absolute(file)?;
    let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    let mut written = written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("`{}` exists already", file.display()), "name another file, or remove this one")
        }
        _ => Failure::file("write", &file)(error),
    })?;
    written.write_all(config::TEMPLATE.as_bytes()).map_err(Failure::file("write", &file))?;
    context.ui.value(&json!({"file": file}), || file.display().to_string())?;
    context.ui.note(&format!("edit it, then run `toolkeep --config {} config check`", file.display()));
    Ok(Exit::Ok)
}
