//! `toolkeep:tool/messages`: staged, never sent from here.
//!
//! What a channel does with a message is the outbox's to know. Here a message is held to the bounds that every channel
//! keeps, so that what is staged can be sent.

use bytes::Bytes;
use toolkeep_core::delivery;
use toolkeep_core::effect::{BodyState, MessageEffect};
use toolkeep_core::id::ChannelName;

use crate::bindings::toolkeep::tool::messages::{self, Error, Message};
use crate::outbound::Outbound;
use crate::state::State;

const SEND: &str = "toolkeep:tool/messages#send";

fn invalid(problem: impl Into<String>) -> Error {
    Error::Invalid(problem.into())
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
        let size = message.body.len();
        if let Err(problem) = delivery::check(&message.to, &message.subject, &message.media_type, size) {
            return Ok(Err(invalid(problem.to_string())));
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
