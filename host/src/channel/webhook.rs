//! Webhooks: one signed request for each attempt, as Standard Webhooks 1.0 defines it.
//!
//! `webhook-id` is the delivery's id at every attempt, so that a receiver can tell a repetition; `webhook-timestamp` is the
//! attempt's own time, so that it can refuse an old one that somebody replays. Nothing of an answer but its status decides.

use std::time::Duration;

use toolkeep_core::effect::Header;
use toolkeep_core::id::{ChannelName, SecretName};
use toolkeep_core::net::method::Method;
use toolkeep_core::net::origin::Origin;
use toolkeep_core::net::reach::Network;
use toolkeep_core::net::target::Target;

use super::payload::payload;
use super::signature::{SigningKey, signatures};
use super::{NotTaken, Parcel, shown};
use crate::egress::{Egress, Incoming, Limits, Outgoing, Purpose, Reason, SendError};

/// Bytes of an answer that are read: more than is ever shown.
const ANSWER_MAX_BYTES: u64 = 4 * 1024;
/// How long one attempt may take; Standard Webhooks recommends 15 to 30 seconds.
const TOTAL: Duration = Duration::from_secs(30);
/// Milliseconds in a second.
const MS_PER_S: u64 = 1_000;

/// A receiver of requests.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub(super) origin: Origin,
    pub(super) target: Target,
    pub(super) secrets: Vec<SecretName>,
    pub(super) network: Network,
}

impl Webhook {
    pub(super) async fn send(
        &self,
        channel: &ChannelName,
        parcel: &Parcel,
        egress: &Egress,
        now_ms: u64,
    ) -> Result<String, NotTaken> {
        let keys = self.keys(channel, egress).await?;
        let (id, seconds) = (parcel.id.to_string(), now_ms / MS_PER_S);
        let body = payload(parcel).to_string();
        let headers = [
            ("content-type", "application/json".to_owned()),
            ("webhook-id", id.clone()),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-signature", signatures(&keys, &id, seconds, body.as_bytes())),
        ];
        let request = Outgoing {
            tenant: parcel.tenant.clone(),
            origin: self.origin.clone(),
            method: Method::Post,
            target: self.target.clone(),
            headers: headers.into_iter().map(|(name, value)| Header { name: name.to_owned(), value }).collect(),
            body: body.into(),
            idempotency_key: Some(id),
            secrets: Vec::new(),
            network: self.network,
            purpose: Purpose::Write,
            clearance: parcel.clearance.clone(),
        };
        let limits = Limits { total: TOTAL, response_bytes: ANSWER_MAX_BYTES, ..Limits::default() };
        match egress.send(request, limits).await {
            Ok(answer) => judge(&answer),
            Err(SendError::NotSent(Reason::Withheld)) => Err(NotTaken::Withheld),
            Err(error) => Err(failure(&error)),
        }
    }

    /// The keys in force. A rotation is in force with the next attempt; a secret that cannot be read now may be later.
    async fn keys(&self, channel: &ChannelName, egress: &Egress) -> Result<Vec<SigningKey>, NotTaken> {
        let mut keys = Vec::with_capacity(self.secrets.len());
        for name in &self.secrets {
            let secret = egress.secrets().for_channel(channel, name).await;
            let secret = secret.map_err(|error| NotTaken::later(error.to_string()))?;
            let key = SigningKey::parse(secret.bytes());
            keys.push(key.map_err(|problem| NotTaken::later(format!("`{name}`: {problem}")))?);
        }
        Ok(keys)
    }
}

/// What a status means: 2xx took it; 4xx will not take it at all, but for those that ask for another time.
fn judge(answer: &Incoming) -> Result<String, NotTaken> {
    let said = String::from_utf8_lossy(&answer.body);
    let said = shown(&said);
    let line = if said.is_empty() { answer.status.to_string() } else { format!("{}: {said}", answer.status) };
    match answer.status {
        200..=299 => Ok(line),
        408 | 409 | 425 | 429 => Err(NotTaken::Later { why: line, wait_ms: retry_after_ms(answer) }),
        400..=499 => Err(NotTaken::Never(line)),
        _ => Err(NotTaken::Later { why: line, wait_ms: retry_after_ms(answer) }),
    }
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3). A date is ignored: it trusts another clock.
fn retry_after_ms(answer: &Incoming) -> Option<u64> {
    let field = answer.headers.iter().find(|field| field.name == "retry-after")?;
    field.value.trim().parse::<u64>().ok()?.checked_mul(MS_PER_S)
}

/// Our own refusal stays one; everything else is the network's mood.
fn failure(error: &SendError) -> NotTaken {
    let why = error.to_string();
    if error.reason().is_refusal() { NotTaken::Never(why) } else { NotTaken::later(why) }
}
