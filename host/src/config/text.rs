//! The configuration as it is written: TOML files in search order, `conf.d` fragments, environment variables.
//!
//! This layer only knows shapes. What the values mean, and which of them make no sense together, is the layer above.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toolkeep_core::autonomy::Autonomy;
use toolkeep_core::breaker::BreakerText;
use toolkeep_core::id::{AgentName, ChannelName, ContractName, SecretName, TenantName, UserName, WorkspaceName};
use toolkeep_core::rate::{QuotaText, RateText};

use super::alerts::AlertsText;
use super::audit::AuditText;
use super::kill::KillText;
use super::recording::RecordingText;
use super::retention::{PrivacyText, RetentionText};
use super::{CONFIG_MAX_BYTES, ConfigError, Environment, LoadOptions};
use crate::ambient::Ambient;
use crate::authenticate::issuer::config::IssuerText;
use crate::budget::ceiling::{CeilingText, SpikeText};
use crate::channel::config::ChannelText;
use crate::daemon::http::config::HttpText;
use crate::log::LogText;
use crate::notify::Event;
use crate::secrets::config::SecretText;

/// What every variable that overrides a key starts with.
pub const ENV_PREFIX: &str = "TOOLKEEP__";

/// A configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigText {
    /// `[daemon]`.
    #[serde(default)]
    pub daemon: DaemonText,
    /// `[limits]`.
    #[serde(default)]
    pub limits: LimitsText,
    /// `[oversight]`.
    #[serde(default)]
    pub oversight: OversightText,
    /// `[policy]`.
    #[serde(default)]
    pub policy: PolicyText,
    /// `[ledger]`.
    #[serde(default)]
    pub ledger: LedgerText,
    /// `[retention]`.
    #[serde(default)]
    pub retention: RetentionText,
    /// `[privacy]`.
    #[serde(default)]
    pub privacy: PrivacyText,
    /// `[audit]`.
    #[serde(default)]
    pub audit: AuditText,
    /// `[recording]`.
    #[serde(default)]
    pub recording: RecordingText,
    /// `[kill]`.
    #[serde(default)]
    pub kill: KillText,
    /// `[breaker]`.
    #[serde(default)]
    pub breaker: BreakerText,
    /// `[contracts]`.
    #[serde(default)]
    pub contracts: ContractsText,
    /// `[[ceiling]]`.
    #[serde(default, rename = "ceiling")]
    pub ceilings: Vec<CeilingText>,
    /// `[spike]`.
    #[serde(default)]
    pub spike: Option<SpikeText>,
    /// `[egress]`.
    #[serde(default)]
    pub egress: EgressText,
    /// `[secrets.NAME]`.
    #[serde(default)]
    pub secrets: BTreeMap<SecretName, SecretText>,
    /// `[channel.NAME]`.
    #[serde(default, rename = "channel")]
    pub channels: BTreeMap<ChannelName, ChannelText>,
    /// `[[notify]]`.
    #[serde(default)]
    pub notify: Vec<NotifyText>,
    /// `[alerts]`.
    #[serde(default)]
    pub alerts: AlertsText,
    /// `[log]`.
    #[serde(default)]
    pub log: LogText,
    /// `[http]`.
    #[serde(default)]
    pub http: HttpText,
    /// `[[workspace]]`.
    #[serde(default, rename = "workspace")]
    pub workspaces: Vec<WorkspaceText>,
    /// `[[principal]]`.
    #[serde(default, rename = "principal")]
    pub principals: Vec<PrincipalText>,
    /// `[[operator]]`.
    #[serde(default, rename = "operator")]
    pub operators: Vec<OperatorText>,
    /// `[[issuer]]`.
    #[serde(default, rename = "issuer")]
    pub issuers: Vec<IssuerText>,
    /// `[environment.NAME]`: what is different there. Gone once the environment is known.
    #[serde(default, rename = "environment")]
    pub environments: BTreeMap<Environment, EnvironmentText>,
}

/// `[environment.NAME]`: sections whose keys take the place of the common ones.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentText {
    /// `[environment.NAME.daemon]`; its `environment` has no meaning there.
    #[serde(default)]
    pub daemon: DaemonText,
    /// `[environment.NAME.limits]`.
    #[serde(default)]
    pub limits: LimitsText,
    /// `[environment.NAME.policy]`.
    #[serde(default)]
    pub policy: PolicyText,
    /// `[environment.NAME.ledger]`.
    #[serde(default)]
    pub ledger: LedgerText,
    /// `[environment.NAME.retention]`.
    #[serde(default)]
    pub retention: RetentionText,
    /// `[environment.NAME.privacy]`.
    #[serde(default)]
    pub privacy: PrivacyText,
    /// `[environment.NAME.recording]`.
    #[serde(default)]
    pub recording: RecordingText,
    /// `[environment.NAME.egress]`.
    #[serde(default)]
    pub egress: EgressText,
}

/// `[daemon]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonText {
    /// See [`super::Config::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`super::Config::runtime_dir`].
    pub runtime_dir: Option<PathBuf>,
    /// See [`super::Config::tools_dir`].
    pub tools_dir: Option<PathBuf>,
    /// `dev`, `staging` or `prod`.
    pub environment: Option<Environment>,
    /// Group id that may connect to the agent socket.
    pub agent_gid: Option<u32>,
    /// See [`super::Config::solo`].
    pub solo: Option<bool>,
    /// See [`super::Config::tokens_only`].
    pub tokens_only: Option<bool>,
}

/// `[oversight]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OversightText {
    /// How far agents may go where no operator set anything: `draft`, `approve`, `threshold` or `autonomous`.
    pub autonomy: Option<Autonomy>,
    /// Boundaries that one run may test before it is held; 0 for any number.
    pub hold_run_after: Option<u32>,
    /// See [`super::ApprovalPage`].
    pub approval_page: Option<String>,
    /// Plans that one person may agree to in an hour; 0 for any number.
    pub approvals_per_hour: Option<u32>,
    /// Seconds between two agreements of one person that are too few to have read the second; 0 for none.
    pub hasty_s: Option<u32>,
    /// So many hasty agreements in a row are told of.
    pub hasty_in_a_row: Option<u32>,
}

/// `[limits]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsText {
    /// See [`super::DaemonLimits::executions`].
    pub executions: Option<u64>,
    /// See [`super::DaemonLimits::connections`].
    pub connections: Option<u64>,
    /// Seconds that a held plan waits for an approval.
    pub approval_ttl_s: Option<u64>,
    /// See [`super::DaemonLimits::undo_bytes`].
    pub undo_bytes: Option<u64>,
    /// See [`super::DaemonLimits::drain_ms`].
    pub drain_ms: Option<u64>,
    /// See [`super::DaemonLimits::waiting`].
    pub waiting: Option<u64>,
    /// See [`super::DaemonLimits::wait_ms`].
    pub wait_ms: Option<u64>,
    /// See [`super::DaemonLimits::executions_per_tenant`].
    pub executions_per_tenant: Option<u64>,
    /// `[[limits.rate]]`.
    #[serde(default, rename = "rate")]
    pub rates: Vec<RateText>,
    /// `[[limits.quota]]`.
    #[serde(default, rename = "quota")]
    pub quotas: Vec<QuotaText>,
}

/// `[ledger]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerText {
    /// Days that what is over is kept.
    pub keep_days: Option<u64>,
    /// Days that a commit can be undone.
    pub undo_days: Option<u64>,
    /// See [`super::LedgerBounds::max_bytes`].
    pub max_bytes: Option<u64>,
}

/// `[egress]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressText {
    /// Certificates, PEM, of authorities that are trusted beside the public ones.
    pub ca_file: Option<PathBuf>,
}

/// `[policy]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// See [`super::Config::policy_dir`].
    pub dir: Option<PathBuf>,
}

/// `[contracts]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractsText {
    /// See [`crate::budget::BudgetConfig::contracts`].
    pub dir: Option<PathBuf>,
    /// See [`crate::budget::BudgetConfig::default_contract`].
    pub default: Option<ContractName>,
}

/// `[[notify]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyText {
    /// What is told; everything if absent.
    pub events: Option<Vec<Event>>,
    /// Names of channels.
    pub channels: Vec<ChannelName>,
}

/// `[[workspace]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceText {
    /// What manifests call it.
    pub name: WorkspaceName,
    /// Where it is.
    pub path: PathBuf,
    /// Who owns it; `local` if absent.
    pub tenant: Option<TenantName>,
}

/// `[[principal]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalText {
    /// The uid of the connecting process.
    pub uid: u32,
    /// The tenant.
    pub tenant: TenantName,
    /// The person.
    pub user: UserName,
    /// The agent.
    pub agent: AgentName,
}

/// `[[operator]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorText {
    /// The uid of the connecting process.
    pub uid: u32,
    /// The person.
    pub user: UserName,
    /// The tenant whose calls the operator sees.
    pub tenant: TenantName,
    /// Groups whose consent the operator can give; none if absent.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl ConfigText {
    /// Read the merged table.
    ///
    /// # Errors
    /// A key is unknown or a value has the wrong type; the message names the key and what set it.
    pub fn from_table(table: toml::Table, origins: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|e| {
            let key = e.path().to_string();
            let origin = origins
                .iter()
                .filter(|(known, _)| key.starts_with(known.as_str()) || known.starts_with(&key))
                .map(|(_, origin)| origin.clone())
                .next_back()
                .unwrap_or_else(|| "the configuration".to_owned());
            ConfigError::Shape { origin, message: format!("`{key}`: {}", e.inner().message()) }
        })
    }
}

/// The files that apply, with their texts: one base file and its `conf.d` fragments in order of their names.
pub(super) fn files(options: &LoadOptions, ambient: &Ambient) -> Result<Vec<(PathBuf, String)>, ConfigError> {
    let named = options.explicit.clone().or_else(|| ambient.var("TOOLKEEP_CONFIG").map(PathBuf::from));
    if let Some(path) = named {
        let text = read(&path)?;
        return Ok(vec![(path, text)]);
    }
    let user = super::xdg(ambient, "XDG_CONFIG_HOME", ".config").map(|p| p.join("toolkeep/toolkeep.toml"));
    let candidates = user.into_iter().chain([PathBuf::from("/etc/toolkeep/toolkeep.toml")]);
    for path in candidates {
        match read(&path) {
            Ok(text) => return with_fragments(path, text),
            Err(ConfigError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Vec::new())
}

fn with_fragments(path: PathBuf, text: String) -> Result<Vec<(PathBuf, String)>, ConfigError> {
    let folder = path.with_file_name("conf.d");
    let mut files = vec![(path, text)];
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(files) };
    let mut fragments: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    fragments.sort();
    for fragment in fragments {
        let text = read(&fragment)?;
        files.push((fragment, text));
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(CONFIG_MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > CONFIG_MAX_BYTES {
        return Err(ConfigError::TooLarge(path.to_path_buf()));
    }
    Ok(text)
}

/// Merge one file: tables by key, arrays of tables appended, everything else replaced.
///
/// The file is also read on its own, so that an unknown key is reported with its line.
pub(super) fn merge(
    into: &mut toml::Table,
    origins: &mut BTreeMap<String, String>,
    text: &str,
    origin: &str,
) -> Result<(), ConfigError> {
    let shape = |message: String| ConfigError::Shape { origin: origin.to_owned(), message };
    toml::from_str::<ConfigText>(text).map_err(|e| shape(e.to_string()))?;
    let table: toml::Table = toml::from_str(text).map_err(|e| shape(e.to_string()))?;
    for (section, value) in table {
        match (into.get_mut(&section), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => {
                for (key, value) in new {
                    origins.insert(format!("{section}.{key}"), origin.to_owned());
                    old.insert(key, value);
                }
            }
            (Some(toml::Value::Array(old)), toml::Value::Array(new)) => old.extend(new),
            (_, value) => {
                if let toml::Value::Table(new) = &value {
                    for key in new.keys() {
                        origins.insert(format!("{section}.{key}"), origin.to_owned());
                    }
                } else {
                    origins.insert(section.clone(), origin.to_owned());
                }
                into.insert(section, value);
            }
        }
    }
    Ok(())
}

/// Apply what the environment of the daemon says differently, and let go of what the others say.
pub(super) fn apply_section(
    table: &mut toml::Table,
    origins: &mut BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    let named = table.get("daemon").and_then(|daemon| daemon.get("environment")).and_then(toml::Value::as_str);
    let named = named.unwrap_or(Environment::Dev.word()).to_owned();
    let Some(mut sections) = table.remove("environment") else { return Ok(()) };
    let own = sections.as_table_mut().and_then(|sections| sections.remove(&named));
    for (section, keys) in own.and_then(|own| own.as_table().cloned()).into_iter().flatten() {
        let (toml::Value::Table(keys), place) = (keys, format!("environment.{named}.{section}")) else {
            return Err(ConfigError::value(format!("environment.{named}.{section}"), "is not a section"));
        };
        let common = table.entry(section.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(common) = common else {
            return Err(ConfigError::value(place, "is a list; write it without an environment"));
        };
        for (key, value) in keys {
            if (section.as_str(), key.as_str()) == ("daemon", "environment") {
                return Err(ConfigError::value(format!("{place}.{key}"), "an environment does not choose another"));
            }
            origins.insert(format!("{section}.{key}"), format!("[{place}]"));
            common.insert(key, value);
        }
    }
    Ok(())
}

/// Apply `TOOLKEEP__SECTION__KEY`. Values are read as TOML where they parse, as plain strings otherwise.
pub(super) fn apply_environment(
    table: &mut toml::Table,
    origins: &mut BTreeMap<String, String>,
    ambient: &Ambient,
) -> Result<(), ConfigError> {
    for (name, value) in ambient.vars(ENV_PREFIX) {
        let path = name.strip_prefix(ENV_PREFIX).unwrap_or_default().to_ascii_lowercase();
        let Some((section, key)) = path.split_once("__") else {
            return Err(ConfigError::Shape {
                origin: name.clone(),
                message: "write `TOOLKEEP__SECTION__KEY`, for example `TOOLKEEP__DAEMON__STATE_DIR`".to_owned(),
            });
        };
        let parsed = toml::from_str::<toml::Table>(&format!("v = {value}"))
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.clone()));
        let entry = table.entry(section.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(section_table) = entry else {
            return Err(ConfigError::Shape {
                origin: name.clone(),
                message: format!("`{section}` is a list; a variable can set single keys only"),
            });
        };
        section_table.insert(key.to_owned(), parsed);
        origins.insert(format!("{section}.{key}"), name.clone());
    }
    Ok(())
}
