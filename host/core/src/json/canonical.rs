//! Canonical JSON (RFC 8785) of a value that was already read, and the digest that names an input.
//!
//! RFC 8785 writes every number as an IEEE double. Integers beyond 2^53 − 1 would then share one text, and two inputs
//! one digest, so they are refused here (RFC 7493 says the same); they travel as strings. The canonical text is also
//! what the guest receives: what was digested is what is executed.

use serde::Serialize;
use serde_json::{Map, Number, Value};

use super::locate;
use crate::digest::Digest;
use crate::limit::JSON_DEPTH_MAX;
use crate::refusal::{Code, Refusal};

/// Largest size of an integer: 2^53 − 1, the last that a double tells from its neighbours.
pub const INTEGER_MAX: u64 = 9_007_199_254_740_991;

/// Why a value has no canonical text of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// An integer beyond [`INTEGER_MAX`].
    #[error("the integer {number} at `{}` is beyond 2^53 - 1; send it as a string", crate::display::Untrusted(.pointer))]
    WideInteger {
        /// JSON Pointer (RFC 6901).
        pointer: String,
        /// The number.
        number: String,
    },
    /// Nested beyond [`JSON_DEPTH_MAX`].
    #[error("nested deeper than 64 levels")]
    TooDeep,
}

impl From<NotCanonical> for Refusal {
    fn from(error: NotCanonical) -> Self {
        let refusal = Self::new(Code::InvalidInput, error.to_string());
        match error {
            NotCanonical::WideInteger { pointer, number } => {
                refusal.field(pointer, format!("{number} is beyond 2^53 - 1"), "a smaller integer, or a string")
            }
            NotCanonical::TooDeep => refusal.field("", "nested deeper than 64 levels", "a flatter value"),
        }
    }
}

/// The canonical text of `value`.
///
/// # Errors
/// An integer is too wide, or the value is nested too deeply.
pub fn canonical(value: &Value) -> Result<String, NotCanonical> {
    let mut text = String::with_capacity(128);
    match write(&mut text, value, JSON_DEPTH_MAX) {
        Ok(()) => Ok(text),
        Err(Unwritable::TooDeep) => Err(NotCanonical::TooDeep),
        Err(Unwritable::Wide(number)) => Err(NotCanonical::WideInteger {
            pointer: find_wide(value, &mut String::new()).unwrap_or_default(),
            number: number.to_string(),
        }),
    }
}

/// The canonical text of what serialises to JSON. An integer beyond [`INTEGER_MAX`] is written as RFC 8785 says, as the
/// double next to it: whoever digests the text keeps such integers out, or does not need to tell them apart.
///
/// # Errors
/// It does not serialise to JSON.
pub fn canonical_text<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    // Sorting what stands in memory takes a third of the time that sorting while it is written does.
    match canonical(&serde_json::to_value(value)?) {
        Ok(text) => Ok(text),
        Err(NotCanonical::WideInteger { .. } | NotCanonical::TooDeep) => serde_json_canonicalizer::to_string(value),
    }
}

/// The canonical text of an input, and its SHA-256: what plans, keys and records name the input by.
///
/// # Errors
/// See [`canonical`].
pub fn input_digest(value: &Value) -> Result<(String, Digest), NotCanonical> {
    let text = canonical(value)?;
    let digest = Digest::of(text.as_bytes());
    Ok((text, digest))
}

enum Unwritable<'v> {
    TooDeep,
    Wide(&'v Number),
}

fn write<'v>(text: &mut String, value: &'v Value, levels: usize) -> Result<(), Unwritable<'v>> {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(true) => text.push_str("true"),
        Value::Bool(false) => text.push_str("false"),
        Value::Number(number) => write_number(text, number)?,
        Value::String(string) => write_string(text, string),
        Value::Array(items) => {
            let levels = levels.checked_sub(1).ok_or(Unwritable::TooDeep)?;
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write(text, item, levels)?;
            }
            text.push(']');
        }
        Value::Object(members) => {
            let levels = levels.checked_sub(1).ok_or(Unwritable::TooDeep)?;
            write_object(text, members, levels)?;
        }
    }
    Ok(())
}

fn write_object<'v>(text: &mut String, members: &'v Map<String, Value>, levels: usize) -> Result<(), Unwritable<'v>> {
    let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
    // RFC 8785 sorts by UTF-16 units; for ASCII that is the order of the bytes.
    sorted.sort_unstable_by(|(a, _), (b, _)| {
        if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
    });
    text.push('{');
    for (at, (key, value)) in sorted.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        write_string(text, key);
        text.push(':');
        write(text, value, levels)?;
    }
    text.push('}');
    Ok(())
}

/// Whether the number's canonical text would be an integer that a double does not tell from its neighbours. Doubles of
/// that size count too: written without an exponent, they would be read back as such integers.
fn wide(number: &Number) -> bool {
    /// From here on RFC 8785 writes an exponent.
    const EXPONENT_FROM: f64 = 1e21;
    const MAX: f64 = 9_007_199_254_740_991.0;
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(integer), _, _) => integer.unsigned_abs() > INTEGER_MAX,
        (None, Some(_), _) => true,
        (None, None, Some(float)) => float.abs() > MAX && float.abs() < EXPONENT_FROM,
        (None, None, None) => false,
    }
}

fn write_number<'v>(text: &mut String, number: &'v Number) -> Result<(), Unwritable<'v>> {
    if wide(number) {
        return Err(Unwritable::Wide(number));
    }
    if number.is_f64() {
        // ECMAScript's notation of doubles has many cases; the canonicaliser knows them all. Doubles of JSON are finite.
        text.push_str(&serde_json_canonicalizer::to_string(number).unwrap_or_default());
    } else {
        text.push_str(&number.to_string());
    }
    Ok(())
}

/// Most text needs no escape, so it is copied from one character that does to the next.
fn write_string(text: &mut String, string: &str) {
    text.push('"');
    let mut rest = string;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        let (plain, escaped) = rest.split_at_checked(at).unwrap_or((rest, ""));
        text.push_str(plain);
        let mut left = escaped.chars();
        if let Some(c) = left.next() {
            write_escape(text, c);
        }
        rest = left.as_str();
    }
    text.push_str(rest);
    text.push('"');
}

fn write_escape(text: &mut String, c: char) {
    match c {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\u{8}' => text.push_str("\\b"),
        '\t' => text.push_str("\\t"),
        '\n' => text.push_str("\\n"),
        '\u{c}' => text.push_str("\\f"),
        '\r' => text.push_str("\\r"),
        c => {
            text.push_str("\\u00");
            text.extend([u32::from(c) >> 4, u32::from(c) & 0xf].map(|n| char::from_digit(n, 16).unwrap_or('0')));
        }
    }
}

fn find_wide(value: &Value, pointer: &mut String) -> Option<String> {
    match value {
        Value::Number(number) if wide(number) => Some(locate::shorten(pointer)),
        Value::Array(items) => items.iter().enumerate().find_map(|(at, v)| find_below(&at.to_string(), v, pointer)),
        Value::Object(members) => members.iter().find_map(|(key, v)| find_below(key, v, pointer)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn find_below(token: &str, value: &Value, pointer: &mut String) -> Option<String> {
    let length = pointer.len();
    locate::push(pointer, token);
    let found = find_wide(value, pointer);
    pointer.truncate(length);
    found
}
