//! Request methods. A closed list: `CONNECT` and `TRACE` are tunnels and mirrors, and nothing else is in common use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A request method (RFC 9110, section 9; RFC 5789).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    Get,
    /// Reads the fields of an answer only.
    Head,
    /// Asks what is possible.
    Options,
    /// Writes: whatever the endpoint says.
    Post,
    /// Writes: replaces.
    Put,
    /// Writes: changes a part.
    Patch,
    /// Writes: removes.
    Delete,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 7] = [Self::Get, Self::Head, Self::Options, Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// The method as it stands in a request.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether HTTP calls it safe: it asks for nothing to be changed.
    #[must_use]
    pub const fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }

    /// Whether a request of this method says how long its body is even where it is empty (RFC 9110, section 8.6).
    #[must_use]
    pub const fn expects_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

/// Why a text is not a method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a method: write GET, HEAD, OPTIONS, POST, PUT, PATCH or DELETE")]
pub struct NotAMethod {
    /// The refused text, shortened to 40 characters.
    pub text: String,
}

impl FromStr for Method {
    type Err = NotAMethod;

    /// Methods are case-sensitive.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|method| method.as_str() == text);
        known.ok_or_else(|| NotAMethod { text: text.escape_debug().take(40).collect() })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_read_back_and_others_are_refused() {
        for method in Method::ALL {
            assert_eq!(method.as_str().parse(), Ok(method));
            assert_eq!(serde_json::to_value(method).expect("json"), method.as_str());
        }
        for wrong in ["get", "CONNECT", "TRACE", "GET ", "GET\r\nX: y", "", "PROPFIND"] {
            assert!(wrong.parse::<Method>().is_err(), "{wrong:?}");
        }
        let reads: Vec<Method> = Method::ALL.into_iter().filter(|method| method.is_read()).collect();
        assert_eq!(reads, [Method::Get, Method::Head, Method::Options]);
    }
}
