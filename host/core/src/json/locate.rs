//! Where in a JSON text an error lies. Only refused texts come here, so plainness wins over speed.
//!
//! The walk trusts the text only up to the byte in question: that part was read before, so its brackets and quotes
//! match. It makes no values and refuses nothing.

use super::QUOTED_MAX_CHARS;

/// The byte offset of a 1-based line and column; column 0 is the start of the line.
pub(super) fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    before.saturating_add(column.saturating_sub(1)).min(text.len())
}

/// Append one reference token to a JSON Pointer, escaped.
pub(super) fn push(pointer: &mut String, token: &str) {
    pointer.push('/');
    for c in token.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// The text, cut after [`QUOTED_MAX_CHARS`] characters.
pub(super) fn shorten(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(QUOTED_MAX_CHARS).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// One open bracket on the way to the place.
enum Open {
    /// In an array, at this index.
    Array(usize),
    /// In an object; the key of the member, once it was read.
    Object(Option<String>),
}

/// What a byte of a JSON text begins, outside of strings.
enum Token<'t> {
    String(&'t str),
    Number(&'t str),
    Mark(u8),
}

/// The tokens that matter here, each with its first byte's offset. An unfinished string ends with the text.
fn tokens(text: &str) -> impl Iterator<Item = (usize, Token<'_>)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at;
            let byte = *bytes.get(start)?;
            at += 1;
            match byte {
                b'"' => {
                    at += string_length(bytes.get(at..)?);
                    return Some((start, Token::String(text.get(start..at)?)));
                }
                b'-' | b'0'..=b'9' => {
                    let rest = bytes.get(at..)?;
                    at +=
                        rest.iter().take_while(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')).count();
                    return Some((start, Token::Number(text.get(start..at)?)));
                }
                b'{' | b'[' | b'}' | b']' | b',' | b':' => return Some((start, Token::Mark(byte))),
                _ => {}
            }
        }
    })
}

/// Bytes up to and with the closing quote, or all of them.
fn string_length(bytes: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

/// JSON Pointer of the value or member around byte `offset`, which itself no longer counts: reading stopped there.
pub(super) fn pointer_at(text: &str, offset: usize) -> String {
    let mut open: Vec<Open> = Vec::new();
    for (at, token) in tokens(text) {
        if at >= offset {
            break;
        }
        match token {
            Token::Mark(b'{') => open.push(Open::Object(None)),
            Token::Mark(b'[') => open.push(Open::Array(0)),
            Token::Mark(b'}' | b']') => {
                open.pop();
            }
            Token::Mark(b',') => match open.last_mut() {
                Some(Open::Array(index)) => *index += 1,
                Some(Open::Object(key)) => *key = None,
                None => {}
            },
            Token::String(literal) => {
                if let Some(Open::Object(key @ None)) = open.last_mut() {
                    *key = serde_json::from_str(literal).ok();
                }
            }
            Token::Mark(_) | Token::Number(_) => {}
        }
    }
    let mut pointer = String::new();
    for level in &open {
        match level {
            Open::Array(index) => push(&mut pointer, &index.to_string()),
            Open::Object(Some(key)) => push(&mut pointer, key),
            Open::Object(None) => {}
        }
    }
    shorten(&pointer)
}

/// The first integer of a valid text that neither `i64` nor `u64` holds.
pub(super) fn wide_integer(text: &str) -> Option<usize> {
    tokens(text).find_map(|(at, token)| {
        let Token::Number(literal) = token else { return None };
        let integer = !literal.contains(['.', 'e', 'E']);
        (integer && literal.parse::<i64>().is_err() && literal.parse::<u64>().is_err()).then_some(at)
    })
}
