//! What a webhook and a line of a file say: one JSON object, the same at every attempt.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use toolkeep_core::delivery::DeliveryKind;

use super::Parcel;

/// The type of what a tool sent; an alert has the type of what happened.
const MESSAGE_TYPE: &str = "message.sent";

/// `type`, `timestamp` and `data`, as Standard Webhooks recommends.
pub(super) fn payload(parcel: &Parcel) -> Value {
    let message = &parcel.message;
    let kind = match parcel.kind {
        DeliveryKind::Message => MESSAGE_TYPE,
        DeliveryKind::Alert => &message.subject,
    };
    json!({"type": kind, "timestamp": moment(parcel.made_ms), "data": data(parcel)})
}

/// When it was enqueued, as RFC 3339 writes it.
pub(super) fn moment(made_ms: u64) -> String {
    i64::try_from(made_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default().to_string()
}

fn data(parcel: &Parcel) -> Value {
    let message = &parcel.message;
    if parcel.kind == DeliveryKind::Alert {
        return serde_json::from_slice(&message.body).unwrap_or_default();
    }
    let mut data = json!({
        "tenant": parcel.tenant, "call_id": parcel.call, "to": message.to, "subject": message.subject,
        "media_type": message.media_type,
    });
    let (name, body) = match std::str::from_utf8(&message.body) {
        Ok(text) => ("body", text.to_owned()),
        Err(_) => ("body_base64", STANDARD.encode(&message.body)),
    };
    if let Value::Object(members) = &mut data {
        members.insert(name.to_owned(), Value::String(body));
    }
    data
}
