//! Configuration: what the operator wrote, and what it means.
//!
//! Files are searched in one order (`--config`, `$TOOLKEEP_CONFIG`, the user's XDG folder, `/etc/toolkeep`), an
//! environment variable `TOOLKEEP__SECTION__KEY` overrides a key, and unknown keys are errors that point at the line. A
//! [`Config`] in hand is one whose folders are absolute, whose names parse and whose principals are
//! unambiguous. There is no default workspace and no default principal but the user who runs the daemon.

pub mod alerts;
pub mod audit;
pub mod kill;
mod limits;
mod oversight;
pub mod recording;
pub mod retention;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toolkeep_core::attention::AttentionRule;
use toolkeep_core::autonomy::Autonomy;
use toolkeep_core::breaker::BreakerRules;
use toolkeep_core::id::{AgentName, ChannelName, SecretName, TenantName, UserName, WorkspaceName};
use toolkeep_core::limit::CONCURRENT_MAX;
use toolkeep_core::manifest::BadManifest;
use toolkeep_core::principal::Principal;
use toolkeep_core::rate::{self, QuotaRule, RateRule};

use crate::alerts::AlertRules;
use crate::ambient::Ambient;
use crate::authenticate::issuer::{self, IssuerConfig};
use crate::budget::BudgetConfig;
use crate::channel::config::ChannelConfig;
use crate::daemon::http::config::HttpConfig;
use crate::egress::EgressConfig;
use crate::log::{self, LogText};
use crate::notify::Route;
use crate::policy::obligation::is_word;
use crate::secrets::config::SecretConfig;
use audit::CheckpointConfig;
use kill::KillConfig;
use recording::RecordingConfig;
use retention::{PrivacyConfig, RetentionRules};
use text::ConfigText;

pub use limits::DaemonLimits;
pub use oversight::ApprovalPage;

/// The commented configuration that `toolkeep config init` writes.
pub const TEMPLATE: &str = include_str!("config/template.toml");
/// Largest configuration file, in bytes.
pub const CONFIG_MAX_BYTES: u64 = 1024 * 1024;
/// The tenant, user and agent of the person who runs the daemon, where the configuration names none.
pub const LOCAL_NAME: &str = "local";

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Ledger, blobs and compiled artifacts; 0700.
    pub state_dir: PathBuf,
    /// Holds `agent/agent.sock` and `admin/admin.sock`.
    pub runtime_dir: PathBuf,
    /// Holds one manifest per tool, `*.toml`.
    pub tools_dir: PathBuf,
    /// The kind of deployment.
    pub environment: Environment,
    /// Group that may connect to the agent socket; the daemon's own if absent.
    pub agent_group: Option<u32>,
    /// Whether the requester may approve tier 3 alone, with a typed confirmation.
    pub solo: bool,
    /// Whether uids count for nothing on the agent socket, so that every agent shows a token.
    pub tokens_only: bool,
    /// Who may say by a signed statement who somebody is.
    pub issuers: Vec<IssuerConfig>,
    /// Directories that manifests may name, with the tenant that owns each.
    pub workspaces: BTreeMap<WorkspaceName, Workspace>,
    /// Holds policies, `*.cedar`; the built-in ones are in force without it.
    pub policy_dir: Option<PathBuf>,
    /// Who a peer of the agent socket is, by uid.
    pub principals: BTreeMap<u32, Principal>,
    /// Who a peer of the admin socket is, by uid.
    pub operators: BTreeMap<u32, OperatorIdentity>,
    /// Outgoing connections.
    pub egress: EgressConfig,
    /// Credentials that the host holds, each with where it may be sent.
    pub secrets: BTreeMap<SecretName, SecretConfig>,
    /// Ways by which messages leave.
    pub channels: BTreeMap<ChannelName, ChannelConfig>,
    /// What operators are told, and how.
    pub notify: Vec<Route>,
    /// Which alerts there are, and how they are told.
    pub alerts: AlertRules,
    /// The log.
    pub log: LogText,
    /// The HTTP door; nothing listens if absent.
    pub http: Option<HttpConfig>,
    /// How far agents may go where no operator set anything.
    pub autonomy: Autonomy,
    /// Where people decide about plans in a browser.
    pub approval_page: Option<ApprovalPage>,
    /// How many boundaries one run may test before it is held; nothing for any number.
    pub hold_run_after: Option<u32>,
    /// How much attention an approver is thought to have.
    pub attention: AttentionRule,
    /// Contracts, ceilings and the detector of spikes.
    pub budgets: BudgetConfig,
    /// Bounds of the daemon.
    pub limits: DaemonLimits,
    /// How long the ledger keeps what, and how large it may become.
    pub ledger: LedgerBounds,
    /// How long what is kept.
    pub retention: RetentionRules,
    /// Who may read payloads.
    pub privacy: PrivacyConfig,
    /// When checkpoints of the audit are made, and where they go.
    pub checkpoints: CheckpointConfig,
    /// How calls are recorded and checked.
    pub recording: RecordingConfig,
    /// The kill switch.
    pub kill: KillConfig,
    /// How often what may be called.
    pub rates: Vec<RateRule>,
    /// How many effects may be committed.
    pub quotas: Vec<QuotaRule>,
    /// When tools and grants of requests rest because they fail.
    pub breaker: BreakerRules,
}

/// A directory that tools may be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Absolute path of the host.
    pub path: PathBuf,
    /// The only tenant that sees it.
    pub tenant: TenantName,
}

/// Who operates the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorIdentity {
    /// The person.
    pub user: UserName,
    /// The tenant whose calls the operator sees.
    pub tenant: TenantName,
    /// The groups whose consent the operator can give, as policies name them.
    pub groups: BTreeSet<String>,
}

/// The kind of deployment. Wildcard origins are refused in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// One person's machine.
    Dev,
    /// A rehearsal.
    Staging,
    /// Real work.
    Prod,
}

impl Environment {
    /// How it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Staging => "staging",
            Self::Prod => "prod",
        }
    }
}

/// How long the ledger keeps what, and how large it may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerBounds {
    /// How long calls, plans, recordings and receipts are kept after their end, in milliseconds.
    pub keep_ms: u64,
    /// How long the contents are kept that undo needs, in milliseconds; without end if absent.
    pub undo_ms: Option<u64>,
    /// Size of the database, in bytes: beyond it nothing is committed until there is room.
    pub max_bytes: u64,
}

/// Most calls that may be configured to wait: each keeps its input in memory.
const WAITING_MAX: u64 = 100_000;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Least that the database may have, in bytes: recovery has to find room for what it decides.
const LEDGER_MIN_BYTES: u64 = 16 * 1024 * 1024;
/// Most that the database may have, in bytes: SQLite counts its pages of 4 KiB with 32 bits.
const LEDGER_MAX_BYTES: u64 = 1 << 43;
/// Most days that can be asked for: a hundred years.
const DAYS_MAX: u64 = 36_500;

impl Default for LedgerBounds {
    /// A quarter of a year, and 16 GiB.
    fn default() -> Self {
        Self { keep_ms: 90 * DAY_MS, undo_ms: None, max_bytes: 16 * 1024 * 1024 * 1024 }
    }
}

/// Where to look for a configuration.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `--config`.
    pub explicit: Option<PathBuf>,
}

/// A configuration with where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it means.
    pub config: Config,
    /// Which file or variable set each key that is not a default.
    pub origins: BTreeMap<String, String>,
    /// Files that were read, in order.
    pub files: Vec<PathBuf>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read the configuration `{path}`: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is too large.
    #[error("the configuration `{0}` is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// The text does not have the right shape; the message points at the line.
    #[error("in `{origin}`: {message}")]
    Shape {
        /// File or variable.
        origin: String,
        /// Line, column, excerpt and problem.
        message: String,
    },
    /// A value makes no sense.
    #[error("`{key}`: {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl ConfigError {
    pub(crate) fn value(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Value { key: key.into(), problem: problem.into() }
    }
}

/// Find, read, merge and check the configuration.
///
/// # Errors
/// A named file is missing, a text has the wrong shape, or a value makes no sense. A missing file in a search path is
/// no error: then the defaults apply.
pub fn load(options: &LoadOptions, ambient: &Ambient) -> Result<Loaded, ConfigError> {
    let mut table = toml::Table::new();
    let mut origins = BTreeMap::new();
    let files = text::files(options, ambient)?;
    for (path, content) in &files {
        let origin = path.display().to_string();
        text::merge(&mut table, &mut origins, content, &origin)?;
    }
    // Variables may say which environment this is, and come before what it says.
    text::apply_environment(&mut table, &mut origins, ambient)?;
    text::apply_section(&mut table, &mut origins)?;
    text::apply_environment(&mut table, &mut origins, ambient)?;
    let shaped = ConfigText::from_table(table, &origins)?;
    // Relative paths mean the folder of the first file, however the file itself was named.
    let base = files.first().and_then(|(path, _)| path.canonicalize().ok());
    let base = base.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let config = check(&shaped, base.as_deref(), ambient)?;
    Ok(Loaded { config, origins, files: files.into_iter().map(|(path, _)| path).collect() })
}

/// What a configuration text means. Relative paths are relative to `base`, the folder of the file.
///
/// # Errors
/// A value makes no sense.
pub fn check(text: &ConfigText, base: Option<&Path>, ambient: &Ambient) -> Result<Config, ConfigError> {
    let own = rustix::process::geteuid().as_raw();
    let folder = |key: &str, given: &Option<PathBuf>, default: Option<PathBuf>| match given.clone().or(default) {
        Some(path) => absolute(key, &path, base),
        None => Err(ConfigError::value(key, "is not set and there is no home folder; write an absolute path")),
    };
    let daemon = &text.daemon;
    let state_dir = folder("daemon.state_dir", &daemon.state_dir, default_state(ambient))?;
    let runtime_dir = folder("daemon.runtime_dir", &daemon.runtime_dir, default_runtime(ambient, &state_dir))?;
    let tools_dir = folder("daemon.tools_dir", &daemon.tools_dir, default_tools(ambient))?;
    let workspaces = check_workspaces(text, base, &state_dir)?;
    let policy_dir = text.policy.dir.as_deref().map(|path| absolute("policy.dir", path, base)).transpose()?;
    let folders = [Some(&tools_dir), Some(&runtime_dir), policy_dir.as_ref()];
    oversight::refuse_own_folders(&workspaces, folders.into_iter().flatten().map(PathBuf::as_path).chain(base))?;
    let mut principals = BTreeMap::new();
    for entry in &text.principals {
        let principal =
            Principal { tenant: entry.tenant.clone(), user: entry.user.clone(), agent: entry.agent.clone() };
        if principals.insert(entry.uid, principal).is_some() {
            return Err(ConfigError::value("principal", format!("uid {} is mapped twice", entry.uid)));
        }
    }
    let mut operators = check_operators(text)?;
    if principals.is_empty() {
        principals.insert(own, local_principal()?);
    }
    if operators.is_empty() {
        operators.insert(
            own,
            OperatorIdentity { user: operator_name()?, tenant: local_principal()?.tenant, groups: BTreeSet::new() },
        );
    }
    let channels = text.channels.iter().map(|(name, channel)| Ok((name.clone(), channel.check(name, base)?)));
    let channels = channels.collect::<Result<BTreeMap<_, _>, ConfigError>>()?;
    let ledger = check_ledger(text)?;
    let (retention, privacy) = retention::check(&text.retention, &text.privacy, ledger)?;
    let http = text.http.check_beside(base, [&state_dir, &runtime_dir])?;
    let kill = text.kill.check(base, &state_dir, workspaces.values())?;
    let checkpoints = text.audit.checkpoints.check(base, workspaces.values(), &channels)?;
    Ok(Config {
        kill,
        checkpoints,
        recording: text.recording.check()?,
        rates: rate::rates(&text.limits.rates, false).map_err(of_rule)?,
        quotas: check_quotas(text)?,
        breaker: text.breaker.check(BreakerRules::default()).map_err(of_rule)?,
        state_dir,
        runtime_dir,
        tools_dir,
        environment: daemon.environment.unwrap_or(Environment::Dev),
        agent_group: daemon.agent_gid,
        solo: daemon.solo.unwrap_or(false),
        tokens_only: daemon.tokens_only.unwrap_or(false),
        issuers: issuer::config::check_all(&text.issuers, base)?,
        workspaces,
        policy_dir,
        principals,
        operators,
        egress: EgressConfig {
            ca_file: text.egress.ca_file.as_ref().map(|path| absolute("egress.ca_file", path, base)).transpose()?,
        },
        secrets: check_secrets(text)?,
        notify: alerts::check_notify(text, &channels)?,
        alerts: text.alerts.check(&channels)?,
        log: check_log(&text.log)?,
        http,
        channels,
        autonomy: text.oversight.autonomy.unwrap_or_default(),
        approval_page: text.oversight.approval_page.as_deref().map(ApprovalPage::parse).transpose()?,
        hold_run_after: oversight::check_hold(text)?,
        attention: oversight::check_attention(text)?,
        budgets: BudgetConfig::of(text, base)?,
        limits: check_limits(text)?,
        ledger,
        retention,
        privacy,
    })
}

/// Who operates the daemon, by uid.
fn check_operators(text: &ConfigText) -> Result<BTreeMap<u32, OperatorIdentity>, ConfigError> {
    let mut operators = BTreeMap::new();
    for entry in &text.operators {
        if let Some(group) = entry.groups.iter().find(|group| !is_word(group)) {
            let problem = format!("`{group}` is not the name of a group; use a-z, 0-9, `.`, `_` and `-`");
            return Err(ConfigError::value("operator.groups", problem));
        }
        let groups = entry.groups.iter().cloned().collect();
        let identity = OperatorIdentity { user: entry.user.clone(), tenant: entry.tenant.clone(), groups };
        if operators.insert(entry.uid, identity).is_some() {
            return Err(ConfigError::value("operator", format!("uid {} is mapped twice", entry.uid)));
        }
    }
    Ok(operators)
}

fn check_secrets(text: &ConfigText) -> Result<BTreeMap<SecretName, SecretConfig>, ConfigError> {
    let local = local_principal()?.tenant;
    let checked = text.secrets.iter().map(|(name, secret)| {
        let secret = secret
            .check(name, &local)
            .map_err(|e| ConfigError::value(format!("secrets.{}.{}", e.name, e.key), e.problem))?;
        Ok((name.clone(), secret))
    });
    checked.collect()
}

fn check_limits(text: &ConfigText) -> Result<DaemonLimits, ConfigError> {
    let defaults = DaemonLimits::default();
    let within = |key: &str, value: Option<u64>, default: u64, most: u64| match value {
        None => Ok(default),
        Some(v) if (1..=most).contains(&v) => Ok(v),
        Some(v) => Err(ConfigError::value(format!("limits.{key}"), format!("{v} is not between 1 and {most}"))),
    };
    let count = |key: &str, value: Option<u64>, default: usize, most: u64| {
        within(key, value, default as u64, most).map(|v| usize::try_from(v).unwrap_or(default))
    };
    let limits = &text.limits;
    let executions = count("executions", limits.executions, defaults.executions, CONCURRENT_MAX)?;
    let per_tenant = limits.executions_per_tenant;
    Ok(DaemonLimits {
        executions,
        waiting: count("waiting", limits.waiting, executions, WAITING_MAX)?,
        wait_ms: within("wait_ms", limits.wait_ms, defaults.wait_ms, 600_000)?,
        executions_per_tenant: match per_tenant {
            None => None,
            some => Some(count("executions_per_tenant", some, executions, CONCURRENT_MAX)?),
        },
        connections: count("connections", limits.connections, defaults.connections, 10_000)?,
        approval_ttl_ms: within("approval_ttl_s", limits.approval_ttl_s, defaults.approval_ttl_ms / 1000, 2_592_000)?
            * 1000,
        undo_bytes: within("undo_bytes", limits.undo_bytes, defaults.undo_bytes, 1 << 40)?,
        drain_ms: within("drain_ms", limits.drain_ms, defaults.drain_ms, 600_000)?,
    })
}

fn check_log(text: &LogText) -> Result<LogText, ConfigError> {
    if let Some(level) = &text.level
        && let Err(problem) = log::check_level(level)
    {
        return Err(ConfigError::value("log.level", problem.to_string()));
    }
    Ok(text.clone())
}

fn of_rule(bad: BadManifest) -> ConfigError {
    ConfigError::value(bad.key, bad.problem)
}

fn check_quotas(text: &ConfigText) -> Result<Vec<QuotaRule>, ConfigError> {
    rate::quotas(&text.limits.quotas, false).map_err(of_rule)
}

fn check_ledger(text: &ConfigText) -> Result<LedgerBounds, ConfigError> {
    let defaults = LedgerBounds::default();
    let days = |key: &str, value: Option<u64>| match value {
        None => Ok(None),
        Some(days) if (1..=DAYS_MAX).contains(&days) => Ok(Some(days * DAY_MS)),
        Some(days) => {
            Err(ConfigError::value(format!("ledger.{key}"), format!("{days} is not between 1 and {DAYS_MAX}")))
        }
    };
    let max_bytes = text.ledger.max_bytes.unwrap_or(defaults.max_bytes);
    if !(LEDGER_MIN_BYTES..=LEDGER_MAX_BYTES).contains(&max_bytes) {
        let problem = format!("{max_bytes} is not between {LEDGER_MIN_BYTES} and {LEDGER_MAX_BYTES}");
        return Err(ConfigError::value("ledger.max_bytes", problem));
    }
    Ok(LedgerBounds {
        keep_ms: days("keep_days", text.ledger.keep_days)?.unwrap_or(defaults.keep_ms),
        undo_ms: days("undo_days", text.ledger.undo_days)?,
        max_bytes,
    })
}

fn check_workspaces(
    text: &ConfigText,
    base: Option<&Path>,
    state_dir: &Path,
) -> Result<BTreeMap<WorkspaceName, Workspace>, ConfigError> {
    let mut workspaces = BTreeMap::new();
    for entry in &text.workspaces {
        let key = format!("workspace.{}.path", entry.name);
        let path = absolute(&key, &entry.path, base)?;
        refuse_dangerous(&key, &path, state_dir)?;
        let tenant = match &entry.tenant {
            Some(tenant) => tenant.clone(),
            None => local_principal()?.tenant,
        };
        if workspaces.insert(entry.name.clone(), Workspace { path, tenant }).is_some() {
            return Err(ConfigError::value("workspace", format!("`{}` is defined twice", entry.name)));
        }
    }
    Ok(workspaces)
}

/// Roots that nobody means to hand to a tool, whatever they wrote.
fn refuse_dangerous(key: &str, path: &Path, state_dir: &Path) -> Result<(), ConfigError> {
    const NEVER: &[&str] = &[
        "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys",
        "/usr", "/var",
    ];
    if NEVER.iter().any(|never| path == Path::new(never)) {
        return Err(ConfigError::value(
            key,
            format!("`{}` is never a workspace; name a folder inside", path.display()),
        ));
    }
    if path.starts_with("/proc") || path.starts_with("/sys") || path.starts_with("/dev") {
        return Err(ConfigError::value(key, "kernel file systems are never workspaces"));
    }
    if path.starts_with(state_dir) || state_dir.starts_with(path) {
        return Err(ConfigError::value(key, "the daemon's own state folder must lie outside of every workspace"));
    }
    Ok(())
}

/// A path without `..`, absolute, or relative to the folder of the configuration.
pub(crate) fn absolute(key: &str, path: &Path, base: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let joined = match base {
        Some(base) if path.is_relative() => base.join(path),
        _ => path.to_path_buf(),
    };
    if !joined.is_absolute() {
        return Err(ConfigError::value(key, format!("`{}` is relative; write an absolute path", path.display())));
    }
    if joined.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
        return Err(ConfigError::value(key, format!("`{}` has `..`; write the path without", path.display())));
    }
    Ok(joined.components().collect())
}

fn local_principal() -> Result<Principal, ConfigError> {
    let bug = |_| ConfigError::value("principal", "BUG: the built-in name does not parse");
    let tenant: TenantName = LOCAL_NAME.parse().map_err(bug)?;
    let user: UserName = LOCAL_NAME.parse().map_err(bug)?;
    let agent: AgentName = LOCAL_NAME.parse().map_err(bug)?;
    Ok(Principal { tenant, user, agent })
}

fn operator_name() -> Result<UserName, ConfigError> {
    "operator".parse().map_err(|_| ConfigError::value("operator", "BUG: the built-in name does not parse"))
}

fn default_state(ambient: &Ambient) -> Option<PathBuf> {
    if rustix::process::geteuid().as_raw() == 0 {
        return Some(PathBuf::from("/var/lib/toolkeep"));
    }
    xdg(ambient, "XDG_STATE_HOME", ".local/state").map(|p| p.join("toolkeep"))
}

fn default_runtime(ambient: &Ambient, state_dir: &Path) -> Option<PathBuf> {
    if rustix::process::geteuid().as_raw() == 0 {
        return Some(PathBuf::from("/run/toolkeep"));
    }
    Some(match ambient.var("XDG_RUNTIME_DIR") {
        Some(dir) => PathBuf::from(dir).join("toolkeep"),
        None => state_dir.join("run"),
    })
}

fn default_tools(ambient: &Ambient) -> Option<PathBuf> {
    if rustix::process::geteuid().as_raw() == 0 {
        return Some(PathBuf::from("/etc/toolkeep/tools"));
    }
    xdg(ambient, "XDG_CONFIG_HOME", ".config").map(|p| p.join("toolkeep/tools"))
}

fn xdg(ambient: &Ambient, variable: &str, fallback: &str) -> Option<PathBuf> {
    match ambient.var(variable) {
        Some(dir) if Path::new(&dir).is_absolute() => Some(PathBuf::from(dir)),
        _ => ambient.var("HOME").map(|home| PathBuf::from(home).join(fallback)),
    }
}

#[cfg(test)]
mod tests;
