//! `toolkeep:tool/messages`: staged, never sent from here.
//!
//! What a channel does with a message is the outbox's to know. Here a message is bounded in every part and cannot carry
//! a line of its own into a header: subject, receivers and media type have no control characters.

use bytes::Bytes;
use toolkeep_core::effect::{BodyState, MessageEffect};
use toolkeep_core::id::ChannelName;

use crate::bindings::toolkeep::tool::messages::{self, Error, Message};
use crate::outbound::Outbound;
use crate::state::State;

/// Receivers of one message.
pub const RECEIVERS_MAX: usize = 100;
/// Bytes of one receiver: the longest address has 254, with room for a name.
pub const RECEIVER_MAX_BYTES: usize = 320;
/// Bytes of a subject: the longest line of RFC 5322.
pub const SUBJECT_MAX_BYTES: usize = 998;
/// Bytes of a media type: twice the 127 of RFC 6838, section 4.2, and a slash.
pub const MEDIA_TYPE_MAX_BYTES: usize = 255;
/// Bytes of a body.
pub const BODY_MAX_BYTES: usize = 256 * 1024;

const SEND: &str = "toolkeep:tool/messages#send";

fn invalid(problem: impl Into<String>) -> Error {
    Error::Invalid(problem.into())
}

/// A text of at most `most` bytes that stays on its line.
fn line(what: &str, text: &str, most: usize) -> Result<(), Error> {
    if text.len() > most {
        return Err(invalid(format!("{what} has {} bytes; at most {most}", text.len())));
    }
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(invalid(format!("{what} has control characters")));
    }
    Ok(())
}

/// A media type: type, slash, subtype and parameters, in visible ASCII.
fn media_type(text: &str) -> Result<(), Error> {
    line("the media type", text, MEDIA_TYPE_MAX_BYTES)?;
    let name = text.split(';').next().unwrap_or_default();
    let token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    let whole = name.split_once('/').is_some_and(|(first, second)| token(first) && token(second));
    if whole && text.is_ascii() { Ok(()) } else { Err(invalid("write a media type like `text/plain`")) }
}

fn check(message: &Message) -> Result<(), Error> {
    if message.to.len() > RECEIVERS_MAX {
        return Err(invalid(format!("{} receivers; at most {RECEIVERS_MAX}", message.to.len())));
    }
    for receiver in &message.to {
        line("a receiver", receiver, RECEIVER_MAX_BYTES)?;
        if receiver.trim().is_empty() {
            return Err(invalid("a receiver is empty"));
        }
    }
    line("the subject", &message.subject, SUBJECT_MAX_BYTES)?;
    media_type(&message.media_type)?;
    if message.body.len() > BODY_MAX_BYTES {
        return Err(invalid(format!("the body has {} bytes; at most {BODY_MAX_BYTES}", message.body.len())));
    }
    Ok(())
}

/// The channel that a grant allows for all receivers.
fn granted(outbound: &mut Outbound, message: &Message) -> Result<ChannelName, Error> {
    let denied = |why: String| Err(Error::Denied(why));
    let grants = outbound.outward.messages.clone();
    let mut named = grants.iter().filter(|grant| grant.channel.as_str() == message.channel).peekable();
    if named.peek().is_none() {
        return denied("no grant names this channel".to_owned());
    }
    let fits = |receiver: &String| named.clone().any(|grant| grant.allows(receiver));
    if let Some(foreign) = message.to.iter().find(|receiver| !fits(receiver)) {
        return denied(format!("the receiver `{foreign}` is not granted"));
    }
    let Some(grant) = named.next() else { return denied("no grant names this channel".to_owned()) };
    let own_receiver = grant.to.is_empty();
    if message.to.is_empty() != own_receiver {
        let why = if own_receiver { "this channel has a receiver of its own" } else { "name at least one receiver" };
        return Err(invalid(why));
    }
    if outbound.count_message(&grant.channel, grant.messages) { Ok(grant.channel.clone()) } else { Err(Error::TooMany) }
}

impl State {
    fn stage_message(&mut self, message: Message) -> wasmtime::Result<Result<(), Error>> {
        if let Err(error) = check(&message) {
            return Ok(Err(error));
        }
        let outbound = self.outbound()?;
        let channel = match granted(outbound, &message) {
            Ok(channel) => channel,
            Err(error) => {
                let what = format!("{} to {}", message.channel, message.to.join(", "));
                match &error {
                    Error::Denied(why) => outbound.breach("message", &what, why),
                    Error::TooMany => outbound.breach("message", &what, "more messages than one call may send"),
                    Error::Invalid(_) => {}
                }
                return Ok(Err(error));
            }
        };
        let Message { to, subject, media_type, body, .. } = message;
        let effect = MessageEffect { channel, to, subject, media_type, body: BodyState::of(&body) };
        outbound.stage_message(effect, Bytes::from(body))?;
        Ok(Ok(()))
    }
}

impl messages::Host for State {
    fn send(&mut self, message: Message) -> wasmtime::Result<Result<(), Error>> {
        let about: String = message.channel.chars().take(100).collect();
        let answer = self.stage_message(message)?;
        match &answer {
            Ok(()) => self.recorder.done(SEND, about),
            Err(Error::Denied(why)) => self.recorder.error(SEND, about, format!("denied: {why}")),
            Err(Error::Invalid(why)) => self.recorder.error(SEND, about, format!("invalid: {why}")),
            Err(Error::TooMany) => self.recorder.error(SEND, about, "too-many"),
        }
        Ok(answer)
    }
}
