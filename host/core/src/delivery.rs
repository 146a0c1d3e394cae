//! Deliveries: what is sent after a commit, in which state it is, and when it is tried again.
//!
//! A delivery has one id for its whole life, over all attempts and retries, so that a receiver can drop what it has seen:
//! at least once for the sender, once for whoever looks at the id. Its life is one total function over states and events;
//! whatever happens in whatever state has an answer here, and no other place changes a state. A delivery that cannot be
//! made ends as a dead letter, never as nothing.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{DeliveryId, PlanId};

/// Attempts before a delivery is a dead letter, where the channel does not say: with the backoff below about a day.
pub const ATTEMPTS_DEFAULT: u32 = 8;
/// Most attempts that a channel may ask for: beyond these the longest pause alone makes it a week.
pub const ATTEMPTS_MOST: u32 = 20;
/// Longest pause after the first failed attempt, in milliseconds: a restart of the receiver.
pub const BACKOFF_BASE_MS: u64 = 5_000;
/// What each further failure multiplies the longest pause with.
pub const BACKOFF_FACTOR: u64 = 6;
/// Longest pause after any failed attempt, in milliseconds: half a day.
pub const BACKOFF_MOST_MS: u64 = 12 * 3_600 * 1_000;
/// Bytes of a message's body: it is a row of the ledger, and what is larger is a file.
pub const BODY_MAX_BYTES: usize = 256 * 1024;
/// Bytes of a subject: with the name of its field one line of a mail, which has 998 (RFC 5322, section 2.1.1).
pub const SUBJECT_MAX_BYTES: usize = 900;
/// Bytes of one receiver: the longest address of mail has 254 (RFC 5321), other channels have longer ones.
pub const RECEIVER_MAX_BYTES: usize = 320;
/// Receivers of one message: as many as one transaction of SMTP is promised (RFC 5321, section 4.5.3.1.8).
pub const RECEIVERS_MAX: usize = 100;
/// Bytes of a media type: twice the 127 of RFC 6838, section 4.2, and a slash.
pub const MEDIA_TYPE_MAX_BYTES: usize = 255;

/// The id of what an effect sends: follows from the plan and the effect's place in it, so that whoever enqueues it, and
/// however often, means the same delivery.
#[must_use]
pub fn delivery_id(plan: PlanId, ordinal: u64) -> DeliveryId {
    let digest = Digest::of_parts("toolkeep.delivery.v1", &[plan.uuid().as_bytes(), &ordinal.to_be_bytes()]);
    let mut bytes = [0_u8; 16];
    bytes.iter_mut().zip(digest.as_bytes()).for_each(|(byte, of)| *byte = *of);
    DeliveryId::new(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// Why something is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryKind {
    /// A tool sent it, in a plan that was committed.
    Message,
    /// The host tells its operators of something.
    Alert,
}

impl DeliveryKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Message, Self::Alert];

    /// The word for it, in rows and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Alert => "alert",
        }
    }

    /// The kind that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It waits for its time.
    Queued,
    /// An attempt is under way, or was when the daemon stopped.
    Sending,
    /// The receiver took it.
    Delivered,
    /// It rests: a person has to retry or discard it.
    Dead,
    /// A person threw it away.
    Discarded,
}

impl DeliveryState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Sending, Self::Delivered, Self::Dead, Self::Discarded];

    /// The word for it, in rows and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Discarded => "discarded",
        }
    }

    /// The state that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What happens to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryEvent {
    /// An attempt begins. It is counted, durably, before the first byte leaves.
    Claim,
    /// The attempt was called off before anything was sent: a kill switch, a stop of the daemon.
    Withhold,
    /// The receiver took it.
    Accept,
    /// The attempt failed and another one may succeed.
    Fail {
        /// Unpredictable bits, for the jitter.
        draw: u64,
        /// What the receiver asked to wait, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// The attempt failed and every other one would: the receiver refused it for good.
    Refuse,
    /// The daemon stopped while the attempt was under way; whether it arrived is not known.
    Lose,
    /// A person wants it tried again from the start.
    Retry,
    /// A person throws it away.
    Discard,
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts that began, since it was enqueued or last retried by a person.
    pub attempts: u32,
    /// When the next attempt is due, in milliseconds since the Unix epoch; means nothing unless it is queued.
    pub next_ms: u64,
}

/// An event that the state has no place for: somebody else was faster, or the caller is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery is {0}")]
pub struct OutOfPlace(pub DeliveryState);

impl Progress {
    /// A delivery that was just enqueued.
    #[must_use]
    pub const fn new(now_ms: u64) -> Self {
        Self { state: DeliveryState::Queued, attempts: 0, next_ms: now_ms }
    }

    /// What an event at `now_ms` makes of it; `most` is how many attempts it may have (at least 1 is granted).
    ///
    /// # Errors
    /// The event has no place in this state; nothing changes.
    pub fn after(self, event: DeliveryEvent, now_ms: u64, most: u32) -> Result<Self, OutOfPlace> {
        use DeliveryState::{Dead, Delivered, Discarded, Queued, Sending};
        let queued = |attempts, next_ms| Self { state: Queued, attempts, next_ms };
        let at_rest = |state| Self { state, ..self };
        let spent = self.attempts >= most;
        Ok(match (self.state, event) {
            (Queued, DeliveryEvent::Claim) => {
                Self { state: Sending, attempts: self.attempts.saturating_add(1), next_ms: self.next_ms }
            }
            (Sending, DeliveryEvent::Withhold) => queued(self.attempts.saturating_sub(1), now_ms),
            (Sending, DeliveryEvent::Accept) => at_rest(Delivered),
            (Sending, DeliveryEvent::Refuse) => at_rest(Dead),
            (Sending, DeliveryEvent::Fail { .. } | DeliveryEvent::Lose) if spent => at_rest(Dead),
            (Sending, DeliveryEvent::Fail { draw, wait_ms }) => {
                let wait = wait_ms.unwrap_or(0).min(BACKOFF_MOST_MS).max(backoff_ms(self.attempts, draw));
                queued(self.attempts, now_ms.saturating_add(wait))
            }
            // Nobody waited for an answer that said no: the stop was ours, so it is tried at once.
            (Sending, DeliveryEvent::Lose) => queued(self.attempts, now_ms),
            (Dead, DeliveryEvent::Retry) => queued(0, now_ms),
            (Dead, DeliveryEvent::Discard) => at_rest(Discarded),
            (state, _) => return Err(OutOfPlace(state)),
        })
    }
}

/// Longest pause after the given number of attempts, in milliseconds.
#[must_use]
pub fn backoff_window_ms(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1);
    BACKOFF_FACTOR.saturating_pow(doublings).saturating_mul(BACKOFF_BASE_MS).min(BACKOFF_MOST_MS)
}

/// The pause after the given number of attempts, in milliseconds: anywhere in the window with equal probability ("full
/// jitter"), so that what failed together is not tried again together. `draw` is 64 unpredictable bits.
#[must_use]
pub fn backoff_ms(attempts: u32, draw: u64) -> u64 {
    let window = u128::from(backoff_window_ms(attempts)) + 1;
    u64::try_from((u128::from(draw) * window) >> 64).unwrap_or(BACKOFF_MOST_MS)
}

/// What is delivered, in the words of every channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Receivers in the channel's own form; empty where the channel has its own.
    pub to: Vec<String>,
    /// Its subject; may be empty.
    pub subject: String,
    /// Its media type.
    pub media_type: String,
    /// Its content.
    pub body: Arc<[u8]>,
}

/// Why a message cannot be sent by any channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// A text that becomes part of a head has a line break or another control character.
    #[error("`{0}` has a line break or another control character; remove it")]
    Control(&'static str),
    /// A text is too long.
    #[error("`{what}` has {size} bytes; at most {most}")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The bound.
        most: usize,
    },
    /// Too many receivers.
    #[error("{0} receivers; a message has at most {RECEIVERS_MAX}")]
    TooMany(usize),
    /// A receiver without a name.
    #[error("`to` names an empty receiver; remove it")]
    NoReceiver,
    /// Not a media type.
    #[error("`{0}` is not a media type; write one like `text/plain`")]
    MediaType(String),
}

impl Message {
    /// As [`check`].
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), BadMessage> {
        check(&self.to, &self.subject, &self.media_type, self.body.len())
    }
}

/// Whether every channel can carry a message: bounded, and nothing in it can end a line of a head.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(to: &[String], subject: &str, media_type: &str, body_bytes: usize) -> Result<(), BadMessage> {
    if to.len() > RECEIVERS_MAX {
        return Err(BadMessage::TooMany(to.len()));
    }
    for receiver in to {
        line("to", receiver, RECEIVER_MAX_BYTES)?;
        if receiver.trim().is_empty() {
            return Err(BadMessage::NoReceiver);
        }
    }
    line("subject", subject, SUBJECT_MAX_BYTES)?;
    line("media_type", media_type, MEDIA_TYPE_MAX_BYTES)?;
    if !is_media_type(media_type) {
        return Err(BadMessage::MediaType(media_type.to_owned()));
    }
    fits("body", body_bytes, BODY_MAX_BYTES)
}

fn fits(what: &'static str, size: usize, most: usize) -> Result<(), BadMessage> {
    if size > most { Err(BadMessage::TooLong { what, size, most }) } else { Ok(()) }
}

fn line(what: &'static str, text: &str, most: usize) -> Result<(), BadMessage> {
    // U+2028 and U+2029 end a line for some readers, and are no control characters.
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(BadMessage::Control(what));
    }
    fits(what, text.len(), most)
}

/// `type/subtype`, and parameters `name=value` whose values need no quotes (RFC 9110, section 8.3.1).
fn is_media_type(text: &str) -> bool {
    let token =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().and_then(|essence| essence.split_once('/'));
    essence.is_some_and(|(kind, subtype)| token(kind) && token(subtype))
        && parts.all(|part| part.split_once('=').is_some_and(|(name, value)| token(name) && token(value)))
}

#[cfg(test)]
mod tests;
