//! Issuers: who may say by a signed statement who somebody is, and what of the statement is believed.
//!
//! The configuration names each issuer with its audience, its keys and what its claims mean; a statement can only choose
//! among what is written there. Keys come from a file or by the egress, are read in the background and kept; a key id that
//! is not known has them read again, at most once in `refresh_min_s`. Nothing that is shown waits for the network.

pub mod config;
mod look;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Map, Value, json};
use tokio::sync::Notify as Signal;
use toolkeep_core::id::{AgentName, TenantName, UserName};
use toolkeep_core::net::reach::Network;
use toolkeep_core::principal::Principal;
use toolkeep_core::refusal::Refusal;

pub use self::look::Look;
pub use super::jwks::Algorithm;
use super::jwks::{KEY_SET_MAX_BYTES, Keys};
use super::jws::{self, Statement};
pub use super::jws::{HEADERS_REFUSED, Rejected, STATEMENT_MAX_BYTES};
use crate::ambient::Ambient;
use crate::egress::{Egress, Incoming, Limits, Outgoing};

/// How old keys may become that cannot be read again, in milliseconds: a day.
pub(crate) const STALE_MS: u64 = 24 * 3600 * 1000;
/// How long reading keys from a URL may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file on this machine.
    File(PathBuf),
    /// A URL, asked through the egress.
    Url {
        /// `https`, or `http` on this machine.
        url: String,
        /// Whether it may have a loopback or private address.
        network: Network,
    },
}

/// A name that is fixed, or read from a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named<T> {
    /// Always this.
    Fixed(T),
    /// What the claim says.
    Claim(String),
}

/// An issuer as the configuration means it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What records and logs call it.
    pub name: String,
    /// The exact `iss`.
    pub issuer: String,
    /// What `aud` has to contain.
    pub audience: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// How it may sign.
    pub algorithms: Vec<Algorithm>,
    /// The tenant.
    pub tenant: Named<TenantName>,
    /// The only tenants that a claim may name.
    pub tenants: Vec<TenantName>,
    /// The person.
    pub user_claim: String,
    /// What users are called here; empty where the claim says their names.
    pub users: BTreeMap<String, UserName>,
    /// The agent.
    pub agent: Named<AgentName>,
    /// How far clocks may be apart, in milliseconds.
    pub leeway_ms: u64,
    /// How long a connection may use a statement at most, in milliseconds.
    pub lifetime_ms: u64,
    /// How often keys are read again, in milliseconds.
    pub refresh_ms: u64,
    /// How soon keys are read again for an id that is not known, in milliseconds.
    pub refresh_min_ms: u64,
}

/// Who somebody is, as an issuer stated it and the configuration understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// Who.
    pub principal: Principal,
    /// Until when, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Who stated it, as the configuration calls it.
    pub issuer: Arc<str>,
}

#[derive(Debug)]
struct Issuer {
    config: IssuerConfig,
    name: Arc<str>,
    keys: ArcSwap<Keys>,
    /// When the keys were read, and when that was tried, in milliseconds since the Unix epoch.
    read_ms: AtomicU64,
    tried_ms: AtomicU64,
    problem: RwLock<Option<String>>,
    wanted: Signal,
}

/// All issuers of the configuration. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Issuers(Arc<[Arc<Issuer>]>);

impl Issuers {
    /// The issuers of the configuration, without keys yet.
    #[must_use]
    pub fn new(configs: Vec<IssuerConfig>) -> Self {
        let issuer = |config: IssuerConfig| {
            Arc::new(Issuer {
                name: config.name.as_str().into(),
                config,
                keys: ArcSwap::default(),
                read_ms: AtomicU64::new(0),
                tried_ms: AtomicU64::new(0),
                problem: RwLock::new(Some("the keys were not read yet".to_owned())),
                wanted: Signal::new(),
            })
        };
        Self(configs.into_iter().map(issuer).collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the configuration names an issuer so.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|issuer| &*issuer.name == name)
    }

    /// Read the keys now, then keep them fresh in the background, each issuer for itself. Only files are waited for.
    pub async fn start(&self, egress: &Egress, ambient: &Ambient) {
        for issuer in self.0.iter() {
            if matches!(issuer.config.keys, KeySource::File(_)) {
                issuer.refresh(egress, ambient).await;
            }
            let (weak, egress, ambient) = (Arc::downgrade(issuer), egress.clone(), ambient.clone());
            let first = matches!(issuer.config.keys, KeySource::Url { .. });
            tokio::spawn(async move {
                let mut due = first;
                while let Some(issuer) = weak.upgrade() {
                    if due {
                        issuer.refresh(&egress, &ambient).await;
                    }
                    due = true;
                    let pause = Duration::from_millis(issuer.config.refresh_ms);
                    let asked = tokio::time::timeout(pause, issuer.wanted.notified()).await.is_ok();
                    if asked {
                        tracing::info!(issuer = %issuer.name, "a key is not known; the keys are read again");
                    }
                }
            });
        }
    }

    /// Who a statement says that somebody is.
    ///
    /// # Errors
    /// `unauthorized`: it says so to nobody here, or says what is not believed.
    pub fn verify(&self, text: &str, now_ms: u64) -> Result<Stated, Refusal> {
        self.judge(text, now_ms).map_err(|rejected| rejected.refusal())
    }

    fn judge(&self, text: &str, now_ms: u64) -> Result<Stated, Rejected> {
        let statement = jws::read(text)?;
        // Which issuer's keys and rules apply; the signature by one of its keys says that it is not a lie.
        let named = statement.claims.get("iss").and_then(Value::as_str);
        let issuer = self.0.iter().find(|issuer| named == Some(issuer.config.issuer.as_str()));
        issuer.ok_or(Rejected::Issuer)?.judge(&statement, now_ms)
    }

    /// How each is, for the operator.
    #[must_use]
    pub fn health(&self) -> Value {
        let each = self.0.iter().map(|issuer| {
            json!({"name": &*issuer.name, "keys": issuer.keys.load().len(),
                "read_at_ms": issuer.read_ms.load(Ordering::Acquire), "problem": issuer.problem()})
        });
        each.collect()
    }
}

impl Issuer {
    fn problem(&self) -> Option<String> {
        self.problem.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn judge(&self, statement: &Statement<'_>, now_ms: u64) -> Result<Stated, Rejected> {
        let keys = self.keys.load();
        let Some(key) = keys.get(&statement.key) else {
            return Err(Rejected::Key { again: self.want(now_ms) });
        };
        key.check(statement)?;
        self.config.believe(&statement.claims, &self.name, now_ms)
    }

    /// Have the keys read again for an id that is not known, unless that was tried just now. Returns whether they are.
    fn want(&self, now_ms: u64) -> bool {
        let tried = self.tried_ms.load(Ordering::Acquire);
        if now_ms.saturating_sub(tried) < self.config.refresh_min_ms {
            return false;
        }
        // Whoever wins asks; the others wait with it.
        if self.tried_ms.compare_exchange(tried, now_ms, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.wanted.notify_one();
        }
        true
    }

    async fn refresh(&self, egress: &Egress, ambient: &Ambient) {
        self.tried_ms.store(ambient.now_ms(), Ordering::Release);
        let read = match &self.config.keys {
            KeySource::File(path) => read_file(path.clone()).await,
            KeySource::Url { url, network } => self.ask(egress, url, *network).await.map(|answer| answer.body.to_vec()),
        };
        let keys = read.and_then(|text| Keys::read(&text, &self.config.algorithms).map_err(|bad| bad.to_string()));
        let problem = match keys {
            Ok(keys) => {
                self.keys.store(Arc::new(keys));
                self.read_ms.store(ambient.now_ms(), Ordering::Release);
                None
            }
            Err(problem) => {
                let age = ambient.now_ms().saturating_sub(self.read_ms.load(Ordering::Acquire));
                if age > STALE_MS {
                    self.keys.store(Arc::default());
                }
                tracing::error!(issuer = %self.name, %problem, "the keys of an issuer cannot be read");
                Some(problem)
            }
        };
        *self.problem.write().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    async fn ask(&self, egress: &Egress, url: &str, network: Network) -> Result<Incoming, String> {
        let tenant = match &self.config.tenant {
            Named::Fixed(tenant) => Some(tenant),
            Named::Claim(_) => self.config.tenants.first(),
        };
        let tenant = tenant.cloned().ok_or("no tenant is named")?;
        let request = Outgoing::new(tenant, "GET", url).map_err(|error| error.to_string())?;
        let limits = Limits { total: FETCH_TIMEOUT, response_bytes: KEY_SET_MAX_BYTES, ..Limits::default() };
        let answer = egress.send(Outgoing { network, ..request }, limits).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer) } else { Err(format!("the server answers {}", answer.status)) }
    }
}

async fn read_file(path: PathBuf) -> Result<Vec<u8>, String> {
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let mut text = Vec::new();
        let file = std::fs::File::open(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        let read = file.take(KEY_SET_MAX_BYTES + 1).read_to_end(&mut text);
        read.map(|_| text).map_err(|error| format!("`{}`: {error}", path.display()))
    });
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

impl IssuerConfig {
    /// What of the claims is believed. The signature was checked.
    fn believe(&self, claims: &Map<String, Value>, name: &Arc<str>, now_ms: u64) -> Result<Stated, Rejected> {
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer.as_str()) {
            return Err(Rejected::Issuer);
        }
        let audience = match claims.get("aud") {
            Some(Value::String(one)) => *one == self.audience,
            Some(Value::Array(many)) => {
                many.iter().all(Value::is_string) && many.iter().any(|one| *one == self.audience)
            }
            _ => false,
        };
        if !audience {
            return Err(Rejected::claim("aud", "does not name this daemon"));
        }
        let expires_ms = time(claims, "exp")?.ok_or(Rejected::claim("exp", "is missing"))?;
        if expires_ms.saturating_add(self.leeway_ms) <= now_ms {
            return Err(Rejected::Expired);
        }
        for name in ["nbf", "iat"] {
            if time(claims, name)?.is_some_and(|from| from > now_ms.saturating_add(self.leeway_ms)) {
                return Err(Rejected::Early);
            }
        }
        let tenant = match &self.tenant {
            Named::Fixed(tenant) => tenant.clone(),
            Named::Claim(claim) => {
                let named: TenantName = parsed(claims, claim)?;
                let known = self.tenants.contains(&named).then_some(named);
                known.ok_or(Rejected::claim(claim, "names a tenant that the issuer may not speak for"))?
            }
        };
        let user = match (self.users.is_empty(), text(claims, &self.user_claim)?) {
            (true, _) => parsed(claims, &self.user_claim)?,
            (false, text) => {
                let known = self.users.get(text).cloned();
                known.ok_or(Rejected::claim(&self.user_claim, "is not one of `users`"))?
            }
        };
        let agent = match &self.agent {
            Named::Fixed(agent) => agent.clone(),
            Named::Claim(claim) => parsed(claims, claim)?,
        };
        let expires_ms = expires_ms.saturating_add(self.leeway_ms).min(now_ms.saturating_add(self.lifetime_ms));
        Ok(Stated { principal: Principal { tenant, user, agent }, expires_ms, issuer: Arc::clone(name) })
    }
}

/// A time in milliseconds. Only whole seconds after the epoch are one: whoever writes a text or a fraction means to be read
/// in two ways.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Rejected> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            let seconds = value.as_u64().ok_or(Rejected::claim(name, "is not a whole number of seconds"))?;
            Ok(Some(seconds.saturating_mul(1_000)))
        }
    }
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<&'c str, Rejected> {
    claims.get(name).and_then(Value::as_str).ok_or(Rejected::claim(name, "is missing or not a text"))
}

fn parsed<T: std::str::FromStr>(claims: &Map<String, Value>, name: &str) -> Result<T, Rejected> {
    text(claims, name)?
        .parse()
        .map_err(|_| Rejected::claim(name, "is not a name (a-z, 0-9, `.`, `_`, `-`); map it in `users`"))
}

#[cfg(test)]
mod tests;
