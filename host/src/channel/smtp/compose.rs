//! From a delivery to a mail (RFC 5322). Everything that a tool chose is checked again here, where it becomes a head.

use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, Mailbox};
use lettre::{Address, Message};
use serde_json::Value;
use toolkeep_core::delivery::DeliveryKind;

use super::super::Parcel;
use super::Smtp;

/// What an alert's subject starts with, for the filters of mailboxes.
const ALERT_PREFIX: &str = "[toolkeep] ";

/// An address of the plain form `local@domain`: quoted forms have a second reading in too many programs.
pub(super) fn address(text: &str) -> Result<Address, String> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"\"()<>[]:;,\\".contains(&b));
    let parsed = if plain { text.parse::<Address>().ok() } else { None };
    parsed.ok_or_else(|| format!("`{}` is not a mail address; write one like `ann@example.com`", text.escape_debug()))
}

/// The mail of a delivery; the same bytes at every attempt.
pub(super) fn mail(smtp: &Smtp, parcel: &Parcel) -> Result<Message, String> {
    let message = &parcel.message;
    let (subject, media_type, body) = match parcel.kind {
        DeliveryKind::Message => (message.subject.clone(), message.media_type.as_str(), message.body.to_vec()),
        DeliveryKind::Alert => {
            (format!("{ALERT_PREFIX}{}", message.subject), "text/plain; charset=utf-8", readable(&message.body))
        }
    };
    let receivers = if message.to.is_empty() { &smtp.to } else { &message.to };
    if receivers.is_empty() {
        return Err("the message names no receiver, and the channel has none; add `to`".to_owned());
    }
    let content_type = ContentType::parse(media_type).map_err(|_| format!("`{media_type}` is not a media type"))?;
    let mut builder = Message::builder()
        .from(Mailbox::new(None, address(&smtp.from)?))
        .subject(subject)
        .date(SystemTime::UNIX_EPOCH + Duration::from_millis(parcel.made_ms))
        .message_id(Some(format!("<{}@{}>", parcel.id, smtp.domain())))
        .header(content_type);
    for receiver in receivers {
        builder = builder.to(Mailbox::new(None, address(receiver)?));
    }
    builder.body(content(media_type, body)?).map_err(|error| format!("the mail cannot be written: {error}"))
}

/// A body as it is transported. Text gets the line ends of mail: a line feed or a carriage return alone ends a line for some
/// servers and not for others, which is how a body is made to end early. Everything else is Base64.
fn content(media_type: &str, body: Vec<u8>) -> Result<Body, String> {
    let is_text = media_type.to_ascii_lowercase().starts_with("text/");
    match String::from_utf8(body) {
        Ok(text) if is_text => Ok(Body::new(text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n"))),
        other => {
            let bytes = other.map_or_else(std::string::FromUtf8Error::into_bytes, String::into_bytes);
            Body::new_with_encoding(bytes, ContentTransferEncoding::Base64)
                .map_err(|_| "the body cannot be written in Base64".to_owned())
        }
    }
}

/// The facts of an alert, for people: a line for each.
fn readable(facts: &[u8]) -> Vec<u8> {
    let facts: Value = serde_json::from_slice(facts).unwrap_or_default();
    let Value::Object(members) = &facts else { return facts.to_string().into_bytes() };
    let line = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name}: {}\r\n", toolkeep_core::display::visible(text)),
        other => format!("{name}: {other}\r\n"),
    };
    members.iter().map(line).collect::<String>().into_bytes()
}
