//! Secrets as the configuration writes them, and what that means.
//!
//! ```toml
//! [secrets.tickets]
//! source = "file"
//! path = "/etc/toolkeep/secrets/tickets"
//! origins = ["https://api.example.com"]
//! slot = "bearer"
//! ```
//!
//! The operator binds a secret to origins and to one slot here; no manifest and no guest can send it anywhere else.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toolkeep_core::id::{ChannelName, SecretName, TenantName};
use toolkeep_core::net::origin::{HostName, Origin, Scheme};

use super::Slot;

/// How long a helper may take where the configuration does not say.
const EXEC_TIME: Duration = Duration::from_secs(5);
/// Longest that the configuration may let a helper take, in seconds: a request waits for it.
const EXEC_TIME_MAX_S: u64 = 60;
/// Most origins of one secret.
const ORIGINS_MAX: usize = 64;

/// `[secrets.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretText {
    /// Where the value comes from.
    pub source: SourceKind,
    /// `file`: where it is. Absolute.
    pub path: Option<PathBuf>,
    /// `systemd`: the name of the credential; the secret's own name if absent.
    pub credential: Option<String>,
    /// `exec`: the program, absolute, and its arguments.
    pub command: Option<Vec<String>>,
    /// `exec`: seconds that the program may take; 5 if absent.
    pub timeout_s: Option<u64>,
    /// Where the secret may be sent: exact origins.
    #[serde(default)]
    pub origins: Vec<Origin>,
    /// Where in a request it stands: `bearer`, `basic`, `header:NAME`.
    pub slot: Option<Slot>,
    /// Channels that sign or log in with it, instead of `origins` and `slot`.
    #[serde(default)]
    pub channels: Vec<ChannelName>,
    /// Whose tools may use it; `local` if absent.
    pub tenant: Option<TenantName>,
}

/// The kinds of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A credential that systemd hands to the service (`LoadCredential=`, `SetCredentialEncrypted=`).
    Systemd,
    /// A file that only the daemon's user can read.
    File,
    /// What a program prints.
    Exec,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of this name in `$CREDENTIALS_DIRECTORY`.
    Systemd(String),
    /// This file.
    File(PathBuf),
    /// The standard output of this program.
    Exec {
        /// The program; absolute.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
        /// How long it may take.
        time: Duration,
    },
}

/// A checked `[secrets.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretConfig {
    /// Where the value comes from.
    pub source: Source,
    /// What it is for.
    pub purpose: SecretPurpose,
    /// Whose tools may use it.
    pub tenant: TenantName,
}

/// What a secret is for. It is never for both: what a request carries is seen by its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPurpose {
    /// Requests of tools.
    Requests {
        /// Where it may be sent.
        origins: Vec<Origin>,
        /// Where in a request it stands.
        slot: Slot,
    },
    /// These channels sign or log in with it.
    Channels(Vec<ChannelName>),
}

/// Why a `[secrets.NAME]` makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`secrets.{name}.{key}`: {problem}")]
pub struct SecretConfigError {
    /// Which secret.
    pub name: SecretName,
    /// Which key.
    pub key: &'static str,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl SecretText {
    /// What the text means. `local` is the tenant where the text names none.
    ///
    /// # Errors
    /// A key is missing, belongs to another source, or has a value that makes no sense.
    pub fn check(&self, name: &SecretName, local: &TenantName) -> Result<SecretConfig, SecretConfigError> {
        let refuse = |key, problem: &str| SecretConfigError { name: name.clone(), key, problem: problem.to_owned() };
        let (source, kind) = (self.source(name)?, self.source);
        let foreign = [
            ("path", self.path.is_some() && kind != SourceKind::File),
            ("credential", self.credential.is_some() && kind != SourceKind::Systemd),
            ("command", self.command.is_some() && kind != SourceKind::Exec),
            ("timeout_s", self.timeout_s.is_some() && kind != SourceKind::Exec),
        ];
        if let Some((key, _)) = foreign.iter().find(|(_, foreign)| *foreign) {
            return Err(refuse(key, "the key belongs to another `source`"));
        }
        let purpose = self.purpose(&refuse)?;
        let tenant = self.tenant.clone().unwrap_or_else(|| local.clone());
        Ok(SecretConfig { source, purpose, tenant })
    }

    fn purpose(
        &self,
        refuse: &impl Fn(&'static str, &str) -> SecretConfigError,
    ) -> Result<SecretPurpose, SecretConfigError> {
        if !self.channels.is_empty() {
            if !self.origins.is_empty() || self.slot.is_some() {
                return Err(refuse(
                    "channels",
                    "a secret is for channels or for requests; remove `origins` and `slot`",
                ));
            }
            if self.channels.len() > ORIGINS_MAX {
                return Err(refuse("channels", "name at most 64"));
            }
            return Ok(SecretPurpose::Channels(self.channels.clone()));
        }
        if self.origins.is_empty() || self.origins.len() > ORIGINS_MAX {
            return Err(refuse("origins", "name the origins that may get it, 1 to 64, for example `https://host`"));
        }
        if self.origins.iter().any(|origin| !protected(origin)) {
            return Err(refuse("origins", "without TLS everybody on the way reads it; write `https://`"));
        }
        let slot = self.slot.clone().ok_or_else(|| refuse("slot", "write `bearer`, `basic` or `header:NAME`"))?;
        Ok(SecretPurpose::Requests { origins: self.origins.clone(), slot })
    }

    fn source(&self, name: &SecretName) -> Result<Source, SecretConfigError> {
        let refuse = |key, problem: &str| SecretConfigError { name: name.clone(), key, problem: problem.to_owned() };
        match self.source {
            SourceKind::Systemd => {
                let credential = self.credential.clone().unwrap_or_else(|| name.to_string());
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                if credential.is_empty() || credential.starts_with('.') || !credential.chars().all(plain) {
                    return Err(refuse("credential", "write letters, digits, `.`, `_` and `-`"));
                }
                Ok(Source::Systemd(credential))
            }
            SourceKind::File => match &self.path {
                Some(path) if path.is_absolute() => Ok(Source::File(path.clone())),
                _ => Err(refuse("path", "write the absolute path of a file that only the daemon's user can read")),
            },
            SourceKind::Exec => {
                let command = self.command.as_deref().unwrap_or_default();
                let seconds = self.timeout_s.unwrap_or(EXEC_TIME.as_secs());
                if !(1..=EXEC_TIME_MAX_S).contains(&seconds) {
                    return Err(refuse("timeout_s", "write 1 to 60"));
                }
                match command.split_first() {
                    Some((program, arguments)) if program.starts_with('/') => Ok(Source::Exec {
                        program: PathBuf::from(program),
                        arguments: arguments.to_vec(),
                        time: Duration::from_secs(seconds),
                    }),
                    _ => Err(refuse("command", "write a list: an absolute path and its arguments; there is no shell")),
                }
            }
        }
    }
}

/// Whether nobody but the two ends reads what is sent there: TLS, or this very machine.
fn protected(origin: &Origin) -> bool {
    let here = match origin.host() {
        HostName::Address(address) => address.is_loopback(),
        HostName::Domain(name) => name == "localhost",
    };
    origin.scheme() == Scheme::Https || here
}

#[cfg(test)]
mod tests;
