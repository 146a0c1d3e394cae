//! The broker of secrets: what a request may carry that nobody but its endpoint may see.
//!
//! The operator's configuration says where each secret comes from and binds it to tenant, origins and slot. The egress
//! asks for a value at the last moment, after everything was decided, and puts it into exactly that slot. No other part
//! of the host can ask; a guest, a plan, a log and a recording know names only. Values are read for each use.

pub mod config;
mod process;
mod redact;
mod secret;
mod slot;
mod source;

use std::collections::BTreeMap;

use toolkeep_core::id::{ChannelName, SecretName, TenantName};
use toolkeep_core::net::origin::Origin;

use crate::ambient::Ambient;
use config::{SecretConfig, SecretPurpose};
pub use process::keep_out_of_dumps;
pub use redact::Redactor;
pub use secret::{NotASecret, SECRET_MAX_BYTES, SECRET_MIN_BYTES, Secret};
pub use slot::{NotASlot, Slot};
pub use source::SourceError;
pub(crate) use source::{private_file, public_file};

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
    /// It is for channels.
    #[error("the secret `{0}` is for channels, not for requests")]
    Channels(SecretName),
    /// It is not for this channel.
    #[error("the secret `{0}` is not for this channel; add the channel to `secrets.{0}.channels`")]
    NotForChannel(SecretName),
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

    /// Where a request of this tenant to `origin` would carry the secret. Nothing is read.
    ///
    /// # Errors
    /// It may not carry it.
    pub fn slot(&self, tenant: &TenantName, origin: &Origin, name: &SecretName) -> Result<&Slot, SecretError> {
        self.bound(tenant, origin, name).map(|(_, slot)| slot)
    }

    /// The value, read now, for a request of this tenant to `origin`, and where it goes.
    pub(crate) async fn fetch(
        &self,
        tenant: &TenantName,
        origin: &Origin,
        name: &SecretName,
    ) -> Result<(Secret, &Slot), SecretError> {
        let (config, slot) = self.bound(tenant, origin, name)?;
        let read = source::read(&config.source, &self.ambient).await.map_err(|error| {
            tracing::error!(secret = %name, %error, "a secret cannot be read");
            SecretError::Unreadable(name.clone())
        });
        Ok((read?, slot))
    }

    /// The value, read now, for a channel that signs or logs in with it. Channels are the operator's, whatever the tenant.
    pub(crate) async fn for_channel(&self, channel: &ChannelName, name: &SecretName) -> Result<Secret, SecretError> {
        let config = self.configured.get(name).ok_or_else(|| SecretError::Unknown(name.clone()))?;
        match &config.purpose {
            SecretPurpose::Channels(channels) if channels.contains(channel) => {}
            SecretPurpose::Channels(_) | SecretPurpose::Requests { .. } => {
                return Err(SecretError::NotForChannel(name.clone()));
            }
        }
        source::read(&config.source, &self.ambient).await.map_err(|error| {
            tracing::error!(secret = %name, %channel, %error, "a secret cannot be read");
            SecretError::Unreadable(name.clone())
        })
    }

    /// What is wrong with the sources right now, for `doctor` and the start of the daemon. The texts name paths.
    pub async fn problems(&self) -> Vec<(SecretName, SourceError)> {
        let mut problems = Vec::new();
        for (name, config) in &self.configured {
            let read = source::read(&config.source, &self.ambient).await;
            let fits = read.and_then(|secret| match &config.purpose {
                SecretPurpose::Requests { slot, .. } => Ok(secret.field_value(slot).map(|_| ())?),
                SecretPurpose::Channels(_) => Ok(()),
            });
            problems.extend(fits.err().map(|error| (name.clone(), error)));
        }
        problems
    }

    fn bound(
        &self,
        tenant: &TenantName,
        origin: &Origin,
        name: &SecretName,
    ) -> Result<(&SecretConfig, &Slot), SecretError> {
        // A secret of another tenant looks like one that does not exist.
        let config = self.configured.get(name).filter(|config| config.tenant == *tenant);
        let config = config.ok_or_else(|| SecretError::Unknown(name.clone()))?;
        let SecretPurpose::Requests { origins, slot } = &config.purpose else {
            return Err(SecretError::Channels(name.clone()));
        };
        if !origins.contains(origin) {
            return Err(SecretError::Origin { secret: name.clone(), origin: origin.clone() });
        }
        Ok((config, slot))
    }
}
