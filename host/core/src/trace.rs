//! Traces: which trace a call belongs to, as W3C Trace Context (Level 2) writes it.
//!
//! A caller may hand in the context of its own trace; what is not exactly in the form is as good as none, and the call
//! begins a trace of its own. Everything that is kept of a caller's text is bounded. Nothing here decides what is sampled.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::hex;

/// Bytes of a trace id.
pub const TRACE_ID_BYTES: usize = 16;
/// Bytes of a span id.
pub const SPAN_ID_BYTES: usize = 8;
/// Characters of a `traceparent` of version 00; later ones may have more after a dash.
const PARENT_CHARS: usize = 55;
/// Longest `traceparent` of any version that is looked at, in bytes.
pub const PARENT_MAX_BYTES: usize = 256;
/// Longest `tracestate` that is kept, in bytes: what every implementation passes on.
pub const STATE_MAX_BYTES: usize = 512;
/// Most members of a `tracestate`.
pub const STATE_MEMBERS_MAX: usize = 32;
/// Longest key and longest value of a member, in bytes.
const MEMBER_MAX_BYTES: usize = 256;

/// Why a text is not the context of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a trace context of W3C: write `00-`, 32 and 16 lower-case hexadecimal digits, and flags")]
pub struct NotATrace;

macro_rules! trace_id {
    ($(#[$doc:meta])* $name:ident, $bytes:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// These bytes. All zero would be no id: then the last one is 1.
            #[must_use]
            pub fn of(mut bytes: [u8; $bytes]) -> Self {
                let zero = bytes.iter().all(|byte| *byte == 0);
                if let [.., last] = &mut bytes
                    && zero
                {
                    *last = 1;
                }
                Self(bytes)
            }

            /// The bytes; at least one is not zero.
            #[must_use]
            pub const fn bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotATrace;

            fn from_str(text: &str) -> Result<Self, NotATrace> {
                let mut bytes = [0; $bytes];
                if text.len() != 2 * $bytes {
                    return Err(NotATrace);
                }
                for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    *byte = byte_of(digits).ok_or(NotATrace)?;
                }
                if bytes.iter().all(|byte| *byte == 0) { Err(NotATrace) } else { Ok(Self(bytes)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotATrace;

            fn try_from(text: String) -> Result<Self, NotATrace> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                hex::text(&id.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(hex::digits(&self.0, &mut [0; 2 * $bytes]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

trace_id!(
    /// One trace: everything that was done for one task, in all systems.
    TraceId, TRACE_ID_BYTES
);
trace_id!(
    /// One span of a trace.
    SpanId, SPAN_ID_BYTES
);

/// Two lower-case hexadecimal digits.
fn byte_of(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    match digits {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// The span of a caller under which a call happens: a parsed `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub span: SpanId,
    /// Whether the caller may have recorded it.
    pub sampled: bool,
}

impl FromStr for TraceParent {
    type Err = NotATrace;

    /// Version 00 exactly; of a later one what version 00 has of it, as the recommendation says. Version ff is none.
    fn from_str(text: &str) -> Result<Self, NotATrace> {
        if text.len() > PARENT_MAX_BYTES || !text.is_ascii() {
            return Err(NotATrace);
        }
        let mut parts = text.splitn(5, '-');
        let mut part = |chars: usize| parts.next().filter(|part| part.len() == chars).ok_or(NotATrace);
        let version = byte_of(part(2)?.as_bytes()).filter(|version| *version != u8::MAX).ok_or(NotATrace)?;
        let trace = part(2 * TRACE_ID_BYTES)?.parse()?;
        let span = part(2 * SPAN_ID_BYTES)?.parse()?;
        let flags = byte_of(part(2)?.as_bytes()).ok_or(NotATrace)?;
        if version == 0 && text.len() != PARENT_CHARS {
            return Err(NotATrace);
        }
        Ok(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// What systems on the way said about a trace: a parsed `tracestate`, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceState(Arc<str>);

impl TraceState {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TraceState {
    type Err = NotATrace;

    fn from_str(text: &str) -> Result<Self, NotATrace> {
        if text.len() > STATE_MAX_BYTES {
            return Err(NotATrace);
        }
        let mut keys: Vec<&str> = Vec::new();
        for member in text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|m| !m.is_empty()) {
            let (key, value) = member.split_once('=').ok_or(NotATrace)?;
            if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == STATE_MEMBERS_MAX {
                return Err(NotATrace);
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(NotATrace) } else { Ok(Self(text.into())) }
    }
}

fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*' | b'/' | b'@');
    first && key.len() <= MEMBER_MAX_BYTES && bytes.all(rest)
}

fn is_value(value: &str) -> bool {
    let fits = |b: u8| (b' '..=b'~').contains(&b) && b != b',' && b != b'=';
    (1..=MEMBER_MAX_BYTES).contains(&value.len()) && value.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn r39_the_context_of_a_caller_is_read_exactly() {
        let parent: TraceParent = format!("00-{TRACE}-{SPAN}-01").parse().expect("the example of the recommendation");
        assert_eq!(
            (parent.trace.to_string(), parent.span.to_string(), parent.sampled),
            (TRACE.into(), SPAN.into(), true)
        );
        assert_eq!(parent.to_string(), format!("00-{TRACE}-{SPAN}-01"));
        let flags = |flags: &str| format!("00-{TRACE}-{SPAN}-{flags}").parse::<TraceParent>().map(|p| p.sampled);
        assert_eq!((flags("00"), flags("02"), flags("03"), flags("ff")), (Ok(false), Ok(false), Ok(true), Ok(true)));
        let later = format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like");
        assert!(later.parse::<TraceParent>().is_ok_and(|parent| parent.sampled));
        for wrong in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01 "),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}0-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-é{}-01", "0".repeat(14)),
            format!("cc-{TRACE}-{SPAN}-01-{}", "x".repeat(PARENT_MAX_BYTES)),
        ] {
            assert_eq!(wrong.parse::<TraceParent>(), Err(NotATrace), "{wrong}");
        }
    }

    #[test]
    fn what_others_say_of_a_trace_is_bounded() {
        let members = |n: usize| (0..n).map(|k| format!("k{k}=v")).collect::<Vec<_>>().join(",").parse::<TraceState>();
        assert!(members(STATE_MEMBERS_MAX).is_ok() && members(STATE_MEMBERS_MAX + 1).is_err());
        let value = |bytes: usize| format!("a={}", "v".repeat(bytes)).parse::<TraceState>().is_ok();
        assert!(value(MEMBER_MAX_BYTES) && !value(MEMBER_MAX_BYTES + 1) && value(1) && !value(0));
        let key = |bytes: usize| format!("{}=v", "k".repeat(bytes)).parse::<TraceState>().is_ok();
        assert!(key(MEMBER_MAX_BYTES) && !key(MEMBER_MAX_BYTES + 1) && !key(0));
        for fine in ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1, ,b=2", "t@v=1", "1a=1"] {
            assert_eq!(fine.parse::<TraceState>().map(|state| state.as_str().to_owned()), Ok(fine.to_owned()));
        }
        for wrong in ["", ",", "a", "A=1", "a=1,a=2", "a=b=c", "a=é", "a=\u{1}", "@a=1"] {
            assert!(wrong.parse::<TraceState>().is_err(), "{wrong}");
        }
        let whole = format!("a={},b={}", "v".repeat(256), "v".repeat(STATE_MAX_BYTES - 261));
        assert!(whole.len() == STATE_MAX_BYTES && whole.parse::<TraceState>().is_ok());
        assert!(format!("{whole}v").parse::<TraceState>().is_err());
    }

    #[test]
    fn no_id_is_all_zero() {
        assert_eq!(SpanId::of([0; SPAN_ID_BYTES]).to_string(), "0000000000000001");
        assert_eq!(TraceId::of([7; TRACE_ID_BYTES]).bytes(), &[7; TRACE_ID_BYTES]);
    }
}
