//! Names of the configuration that a manifest uses: its secrets and its channels.
//!
//! A name that nobody defined would be found out when a request is sent or a message delivered, after people agreed to it.
//! So it is refused when the manifest is read. Whose a secret or a channel is, is asked at each use: a manifest belongs
//! to no tenant.

use std::collections::{BTreeMap, BTreeSet};

use toolkeep_core::grant::HttpGrant;
use toolkeep_core::id::{ChannelName, SecretName};
use toolkeep_core::manifest::{BadManifest, Manifest};
use toolkeep_core::net::origin::Origin;

use crate::config::Config;
use crate::secrets::config::SecretPurpose;

/// The secrets and channels that the configuration defines.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    secrets: BTreeMap<SecretName, SecretPurpose>,
    channels: BTreeSet<ChannelName>,
}

impl Configured {
    /// What a configuration defines.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            secrets: config.secrets.iter().map(|(name, secret)| (name.clone(), secret.purpose.clone())).collect(),
            channels: config.channels.keys().cloned().collect(),
        }
    }

    /// Whether everything that the manifest names is defined, and a secret is for the origin that it is granted to.
    ///
    /// # Errors
    /// The first name that is not.
    pub fn check(&self, manifest: &Manifest) -> Result<(), BadManifest> {
        for grant in &*manifest.http {
            self.check_secret(grant)?;
        }
        let unknown = manifest.messages.iter().find(|grant| !self.channels.contains(&grant.channel));
        unknown.map_or(Ok(()), |grant| {
            let channel = &grant.channel;
            Err(BadManifest {
                key: format!("message.{channel}.channel"),
                problem: format!("the configuration has no channel `{channel}`; add `[channel.{channel}]` to it"),
            })
        })
    }

    fn check_secret(&self, grant: &HttpGrant) -> Result<(), BadManifest> {
        let Some(name) = &grant.credential else { return Ok(()) };
        let problem = match self.secrets.get(name) {
            None => format!("the configuration has no secret `{name}`; add `[secrets.{name}]` to it"),
            Some(SecretPurpose::Channels(_)) => {
                format!("the secret `{name}` is for channels; name one with `origins` and a `slot`")
            }
            Some(SecretPurpose::Requests { origins, .. }) => {
                if grant.origin.parse::<Origin>().is_ok_and(|origin| origins.contains(&origin)) {
                    return Ok(());
                }
                format!("the secret `{name}` does not go to `{}`; add that to `secrets.{name}.origins`", grant.origin)
            }
        };
        Err(BadManifest { key: format!("http.{}.credential", grant.name), problem })
    }
}
