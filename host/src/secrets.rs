//! The broker of secrets: what a request may carry that nobody but its endpoint may see.
//!
//! The operator's configuration says where each secret comes from and binds it to tenant, origins and slot. The egress
//! asks for a value at the last moment, after everything was decided, and puts it into exactly that slot. No other part
//! of the host can ask; a guest, a plan, a log and a recording know names only. Values are read for each use.

pub mod config;
mod process;
mod redact;
mod secret;
mod source;

use std::collections::BTreeMap;

use toolkeep_core::id::{SecretName, TenantName};
use toolkeep_core::net::origin::Origin;
use toolkeep_core::net::slot::{SecretUse, Slot};

use crate::ambient::Ambient;
use config::SecretConfig;
pub use process::keep_out_of_dumps;
pub use redact::Redactor;
pub use secret::{NotASecret, SECRET_MAX_BYTES, SECRET_MIN_BYTES, Secret};
pub use source::SourceError;

/// Every secret that the operator configured.
#[derive(Debug)]
pub struct Secrets {
    configured: BTreeMap<SecretName, SecretConfig>,
    ambient: Ambient,
}

/// Why a secret is not sent. The text is fit for an agent: it names no path and no other tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is none of that name for this tenant.
    #[error("there is no secret `{0}`; add `[secrets.{0}]` to the configuration")]
    Unknown(SecretName),
    /// It belongs to other origins.
    #[error("the secret `{secret}` may not be sent to `{origin}`; only its own `origins` get it")]
    Origin {
        /// Which secret.
        secret: SecretName,
        /// Where it was to go.
        origin: Origin,
    },
    /// It belongs into another slot.
    #[error("the secret `{secret}` may not be sent as `{slot}`; only its own `slot` carries it")]
    Slot {
        /// Which secret.
        secret: SecretName,
        /// Where it was to stand.
        slot: Slot,
    },
    /// Its source gives nothing that can be sent.
    #[error("the secret `{0}` cannot be read; the daemon's log says why")]
    Unreadable(SecretName),
}

impl Secrets {
    /// A broker for what the configuration names.
    #[must_use]
    pub const fn new(configured: BTreeMap<SecretName, SecretConfig>, ambient: Ambient) -> Self {
        Self { configured, ambient }
    }

    /// Whether a request of this tenant to `origin` may carry the secret in that slot. Nothing is read.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self, tenant: &TenantName, origin: &Origin, wanted: &SecretUse) -> Result<(), SecretError> {
        self.bound(tenant, origin, wanted).map(|_| ())
    }

    /// The value, read now, for a request of this tenant to `origin`.
    pub(crate) async fn fetch(
        &self,
        tenant: &TenantName,
        origin: &Origin,
        wanted: &SecretUse,
    ) -> Result<Secret, SecretError> {
        let config = self.bound(tenant, origin, wanted)?;
        source::read(&config.source, &self.ambient).await.map_err(|error| {
            tracing::error!(secret = %wanted.secret, %error, "a secret cannot be read");
            SecretError::Unreadable(wanted.secret.clone())
        })
    }

    /// What is wrong with the sources right now, for `doctor` and the start of the daemon. The texts name paths.
    pub async fn problems(&self) -> Vec<(SecretName, SourceError)> {
        let mut problems = Vec::new();
        for (name, config) in &self.configured {
            let read = source::read(&config.source, &self.ambient).await;
            let fits = read.and_then(|secret| Ok(secret.field_value(&config.slot).map(|_| ())?));
            problems.extend(fits.err().map(|error| (name.clone(), error)));
        }
        problems
    }

    fn bound(&self, tenant: &TenantName, origin: &Origin, wanted: &SecretUse) -> Result<&SecretConfig, SecretError> {
        let SecretUse { secret, slot } = wanted;
        // A secret of another tenant looks like one that does not exist.
        let config = self.configured.get(secret).filter(|config| config.tenant == *tenant);
        let config = config.ok_or_else(|| SecretError::Unknown(secret.clone()))?;
        if !config.origins.contains(origin) {
            return Err(SecretError::Origin { secret: secret.clone(), origin: origin.clone() });
        }
        if config.slot != *slot {
            return Err(SecretError::Slot { secret: secret.clone(), slot: slot.clone() });
        }
        Ok(config)
    }
}
