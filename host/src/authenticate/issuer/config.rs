//! Issuers as the configuration writes them, and what that means.
//!
//! ```toml
//! [[issuer]]
//! name = "corp"
//! issuer = "https://login.example.com"
//! audience = "toolkeep"
//! jwks_url = "https://login.example.com/keys"
//! tenant = "acme"
//! agent = "helper"
//! ```
//!
//! Whatever a statement may choose is written down: an issuer that names tenants has a list of those that it may name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toolkeep_core::id::{AgentName, TenantName, UserName};
use toolkeep_core::net::origin::{Origin, Scheme};
use toolkeep_core::net::reach::Network;

use super::{Algorithm, IssuerConfig, KeySource, Named};
use crate::config::{ConfigError, absolute};

/// Most issuers of one daemon: each has a task that keeps its keys fresh.
pub const ISSUERS_MAX: usize = 16;
/// Most users and tenants that one issuer may be mapped to.
pub const MAPPED_MAX: usize = 10_000;
/// How far clocks may be apart, in seconds: what is usual, and the most.
const LEEWAY_S: (u64, u64) = (30, 300);
/// How long one statement may be used on a connection, in seconds: a day, and the most.
const LIFETIME_S: (u64, u64) = (86_400, 7 * 86_400);
/// How often keys are read again, in seconds: an hour, and the most.
const REFRESH_S: (u64, u64) = (3_600, 86_400);
/// How soon keys are read again for an id that is not known, in seconds: a minute, and the most.
const REFRESH_MIN_S: (u64, u64) = (60, 3_600);

/// `[[issuer]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerText {
    /// What records and logs call it.
    pub name: String,
    /// The exact `iss` of its statements.
    pub issuer: String,
    /// What `aud` has to contain.
    pub audience: String,
    /// Where its keys are: a file.
    pub jwks_file: Option<PathBuf>,
    /// Where its keys are: a URL, `https` or on this machine.
    pub jwks_url: Option<String>,
    /// Whether `jwks_url` may have a private address.
    #[serde(default)]
    pub allow_private: bool,
    /// How it may sign; `EdDSA`, `ES256` and `RS256` if absent.
    pub algorithms: Option<BTreeSet<Algorithm>>,
    /// The tenant of everybody whom it knows.
    pub tenant: Option<TenantName>,
    /// Or the claim that names it,
    pub tenant_claim: Option<String>,
    /// and those that it may name.
    #[serde(default)]
    pub tenants: Vec<TenantName>,
    /// The claim that names the person; `sub` if absent.
    pub user_claim: Option<String>,
    /// What people are called here; without it the claim says their names.
    #[serde(default)]
    pub users: BTreeMap<String, UserName>,
    /// The agent of everybody whom it knows.
    pub agent: Option<AgentName>,
    /// Or the claim that names it.
    pub agent_claim: Option<String>,
    /// How far clocks may be apart, in seconds; 30 if absent.
    pub leeway_s: Option<u64>,
    /// How long a connection may use a statement at most, in seconds; a day if absent.
    pub max_lifetime_s: Option<u64>,
    /// How often keys are read again, in seconds; an hour if absent.
    pub refresh_s: Option<u64>,
    /// How soon keys are read again for an id that is not known, in seconds; 60 if absent.
    pub refresh_min_s: Option<u64>,
}

impl IssuerText {
    fn bad(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::value(format!("issuer.{}.{key}", self.name), problem)
    }

    fn filled(&self, key: &str, text: &str) -> Result<(), ConfigError> {
        let fits = !text.trim().is_empty() && text.len() <= 512 && !text.chars().any(char::is_control);
        if fits { Ok(()) } else { Err(self.bad(key, "is blank, too long or has control characters")) }
    }

    fn within(&self, key: &str, value: Option<u64>, (default, most): (u64, u64)) -> Result<u64, ConfigError> {
        match value.unwrap_or(default) {
            seconds if (1..=most).contains(&seconds) => Ok(seconds * 1_000),
            seconds => Err(self.bad(key, format!("{seconds} is not between 1 and {most}"))),
        }
    }

    /// What it means. Relative paths are relative to `base`.
    ///
    /// # Errors
    /// A value makes no sense, or two do not go together.
    pub fn check(&self, base: Option<&Path>) -> Result<IssuerConfig, ConfigError> {
        let is_name = self.name.parse::<AgentName>().is_ok();
        if !is_name {
            return Err(ConfigError::value(
                "issuer.name",
                format!("`{}` is not a name: use a-z, 0-9, `.`, `_`, `-`", self.name),
            ));
        }
        self.filled("issuer", &self.issuer)?;
        self.filled("audience", &self.audience)?;
        let algorithms: Vec<Algorithm> = match &self.algorithms {
            None => Algorithm::ALL.to_vec(),
            Some(listed) if listed.is_empty() => {
                return Err(self.bad("algorithms", "is empty: nothing could be signed"));
            }
            Some(listed) => listed.iter().copied().collect(),
        };
        if self.users.len() > MAPPED_MAX || self.tenants.len() > MAPPED_MAX {
            return Err(self.bad("users", format!("at most {MAPPED_MAX} users and tenants are mapped")));
        }
        let user_claim = self.user_claim.clone().unwrap_or_else(|| "sub".to_owned());
        self.filled("user_claim", &user_claim)?;
        Ok(IssuerConfig {
            name: self.name.clone(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            keys: self.keys(base)?,
            algorithms,
            tenant: self.tenant()?,
            tenants: self.tenants.clone(),
            user_claim,
            users: self.users.clone(),
            agent: self.named(("agent", self.agent.as_ref()), ("agent_claim", self.agent_claim.as_deref()))?,
            leeway_ms: self.within("leeway_s", self.leeway_s, LEEWAY_S)?,
            lifetime_ms: self.within("max_lifetime_s", self.max_lifetime_s, LIFETIME_S)?,
            refresh_ms: self.within("refresh_s", self.refresh_s, REFRESH_S)?,
            refresh_min_ms: self.within("refresh_min_s", self.refresh_min_s, REFRESH_MIN_S)?,
        })
    }

    fn named<T: Clone>(
        &self,
        (fixed_key, fixed): (&str, Option<&T>),
        (claim_key, claim): (&str, Option<&str>),
    ) -> Result<Named<T>, ConfigError> {
        match (fixed, claim) {
            (Some(fixed), None) => Ok(Named::Fixed(fixed.clone())),
            (None, Some(claim)) => {
                self.filled(claim_key, claim)?;
                Ok(Named::Claim(claim.to_owned()))
            }
            _ => Err(self.bad(fixed_key, format!("write exactly one of `{fixed_key}` and `{claim_key}`"))),
        }
    }

    fn tenant(&self) -> Result<Named<TenantName>, ConfigError> {
        let tenant = self.named(("tenant", self.tenant.as_ref()), ("tenant_claim", self.tenant_claim.as_deref()))?;
        match (&tenant, self.tenants.is_empty()) {
            (Named::Claim(_), true) => {
                Err(self.bad("tenants", "is missing: list the tenants that the claim may name, or write `tenant`"))
            }
            (Named::Fixed(_), false) => Err(self.bad("tenants", "goes with `tenant_claim` only")),
            _ => Ok(tenant),
        }
    }

    fn keys(&self, base: Option<&Path>) -> Result<KeySource, ConfigError> {
        match (&self.jwks_file, &self.jwks_url) {
            (Some(path), None) => absolute("issuer.jwks_file", path, base).map(KeySource::File),
            (None, Some(url)) => self.url(url),
            _ => Err(self.bad("jwks_url", "write exactly one of `jwks_file` and `jwks_url`")),
        }
    }

    fn url(&self, url: &str) -> Result<KeySource, ConfigError> {
        let (origin, _) = Origin::split_url(url).map_err(|error| self.bad("jwks_url", error.to_string()))?;
        let local = origin.host().address().is_some_and(|address| address.is_loopback());
        if origin.scheme() == Scheme::Http && !local {
            return Err(self.bad("jwks_url", "write `https`: whoever can change the keys can be anybody"));
        }
        let network = if local || self.allow_private { Network::Private } else { Network::Global };
        Ok(KeySource::Url { url: url.to_owned(), network })
    }
}

/// All issuers of a configuration.
///
/// # Errors
/// One makes no sense, or two have one name or one `iss`.
pub fn check_all(texts: &[IssuerText], base: Option<&Path>) -> Result<Vec<IssuerConfig>, ConfigError> {
    if texts.len() > ISSUERS_MAX {
        return Err(ConfigError::value("issuer", format!("at most {ISSUERS_MAX} issuers are known")));
    }
    let mut seen = BTreeSet::new();
    for text in texts {
        for (key, value) in [("name", &text.name), ("issuer", &text.issuer)] {
            if !seen.insert((key, value.as_str())) {
                return Err(text.bad(key, format!("`{value}` is defined twice")));
            }
        }
    }
    texts.iter().map(|text| text.check(base)).collect()
}
