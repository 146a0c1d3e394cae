//! Channels: the ways by which messages leave, as the operator defined them.
//!
//! A channel makes one attempt at one delivery and says what came of it: taken, not now, or never. It keeps nothing,
//! counts nothing and repeats nothing; that is the outbox's. Whatever it sends carries the delivery's id, the same at every
//! attempt, where a receiver can find it: in `webhook-id`, in `Message-ID`, in the `id` of a line.

pub mod config;
mod file;
mod payload;
mod signature;
mod smtp;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use toolkeep_core::delivery::{DeliveryKind, Message};
use toolkeep_core::display::visible;
use toolkeep_core::id::{CallId, ChannelName, DeliveryId, TenantName};

use crate::egress::{Clearance, Egress};
use config::{ChannelConfig, Way};

pub(crate) use file::append as append_to_file;

pub use signature::{NotASigningKey, SIGNING_KEY_BYTES, SigningKey, signatures};

/// Characters of a receiver's answer that are kept: enough to see what it complains about.
pub const ANSWER_SHOWN_CHARS: usize = 300;

/// One attempt's worth of a delivery.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// The delivery, the same at every attempt.
    pub id: DeliveryId,
    /// For whom it is sent.
    pub tenant: TenantName,
    /// Why it is sent.
    pub kind: DeliveryKind,
    /// The call whose plan holds the message.
    pub call: Option<CallId>,
    /// When it was enqueued, in milliseconds since the Unix epoch.
    pub made_ms: u64,
    /// What is sent.
    pub message: Message,
    /// Asked right before it leaves.
    pub clearance: Clearance,
}

/// Why a receiver did not take a delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Another attempt may succeed.
    #[error("{why}")]
    Later {
        /// What went wrong, in one line that names no secret.
        why: String,
        /// What the receiver asked to wait, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// Every other attempt would fail too.
    #[error("{0}")]
    Never(String),
    /// It was stopped before anything left.
    #[error("withheld")]
    Withheld,
}

impl NotTaken {
    fn later(why: impl Into<String>) -> Self {
        Self::Later { why: why.into(), wait_ms: None }
    }
}

/// Every channel of the configuration. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Channels {
    configured: Arc<BTreeMap<ChannelName, ChannelConfig>>,
    egress: Egress,
}

impl Channels {
    /// The channels of a configuration, over the daemon's way to the outside.
    #[must_use]
    pub fn new(configured: BTreeMap<ChannelName, ChannelConfig>, egress: Egress) -> Self {
        Self { configured: Arc::new(configured), egress }
    }

    /// A channel that the tenant may use: its own or a shared one. That of somebody else looks missing.
    #[must_use]
    pub fn of(&self, name: &ChannelName, tenant: &TenantName) -> Option<&ChannelConfig> {
        self.configured.get(name).filter(|channel| channel.tenant.as_ref().is_none_or(|owner| owner == tenant))
    }

    /// Whose a channel is; nothing for a shared one, and where there is none.
    #[must_use]
    pub fn owner(&self, name: &ChannelName) -> Option<TenantName> {
        self.configured.get(name).and_then(|channel| channel.tenant.clone())
    }

    /// Make one attempt. `now_ms` is when it is made; what the receiver said comes back in one line.
    ///
    /// # Errors
    /// The receiver did not take it, as far as is known.
    pub async fn send(&self, name: &ChannelName, parcel: &Parcel, now_ms: u64) -> Result<String, NotTaken> {
        let channel = self.of(name, &parcel.tenant).ok_or_else(|| {
            NotTaken::Never(format!("there is no channel `{name}`; add `[channel.{name}]` and retry"))
        })?;
        parcel.message.check().map_err(|problem| NotTaken::Never(problem.to_string()))?;
        match &channel.way {
            Way::Webhook(webhook) => webhook.send(name, parcel, &self.egress, now_ms).await,
            Way::Smtp(smtp) => smtp.send(name, parcel, &self.egress).await,
            Way::File(file) => file.send(parcel).await,
        }
    }
}

/// The beginning of what a receiver said, in one harmless line.
fn shown(answer: &str) -> String {
    let line: String =
        answer.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(ANSWER_SHOWN_CHARS).collect();
    visible(&line).into_owned()
}
