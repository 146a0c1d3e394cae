//! Slots: where in a request a secret goes. The operator says it once, beside the origins; requests name the secret alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use toolkeep_core::net::field::{FieldName, FieldRule, owned};

/// Where in a request a secret goes: `bearer`, `basic` or `header:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Slot {
    /// `Authorization: Bearer SECRET` (RFC 6750).
    Bearer,
    /// `Authorization: Basic BASE64`; the secret is `user:password` (RFC 7617).
    Basic,
    /// A field of its own.
    Header(FieldName),
}

impl Slot {
    /// The field that carries it.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Bearer | Self::Basic => "authorization",
            Self::Header(name) => name.as_str(),
        }
    }
}

impl FromStr for Slot {
    type Err = NotASlot;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || NotASlot { text: text.escape_debug().take(80).collect() };
        match text {
            "bearer" => Ok(Self::Bearer),
            "basic" => Ok(Self::Basic),
            other => {
                let name: FieldName =
                    other.strip_prefix("header:").and_then(|name| name.parse().ok()).ok_or_else(refuse)?;
                match owned(&name) {
                    None | Some(FieldRule::Credential) => Ok(Self::Header(name)),
                    Some(_) => Err(refuse()),
                }
            }
        }
    }
}

impl TryFrom<String> for Slot {
    type Error = NotASlot;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Slot> for String {
    fn from(slot: Slot) -> Self {
        slot.to_string()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("bearer"),
            Self::Basic => f.write_str("basic"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// Why a text is not a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a slot: write `bearer`, `basic`, or `header:NAME` with a field that does not frame the message"
)]
pub struct NotASlot {
    /// The refused text, escaped and shortened to 80 characters.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_read_back_and_none_frames_a_message() {
        for (text, field) in [
            ("bearer", "authorization"),
            ("basic", "authorization"),
            ("header:x-api-key", "x-api-key"),
            ("header:cookie", "cookie"),
        ] {
            let slot: Slot = text.parse().expect(text);
            assert_eq!((slot.to_string().as_str(), slot.field()), (text, field));
        }
        assert_eq!("header:X-Api-Key".parse::<Slot>().expect("slot").to_string(), "header:x-api-key");
        for wrong in ["", "Bearer", "header:", "header:a b", "header:host", "header:proxy-authorization", "query:key"] {
            assert!(wrong.parse::<Slot>().is_err(), "{wrong}");
        }
    }
}
