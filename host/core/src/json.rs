//! Strict JSON: the one reader of texts that come from outside (RFC 8259, narrowed).
//!
//! Two programs that read one text differently are an attack surface: what was checked is not what is used. So every
//! text that has more than one reading is refused: duplicate keys at any depth (compared after unescaping), lone
//! surrogates, a byte-order mark, anything after the value, integers that no 64-bit type holds, numbers that are not
//! finite, invalid UTF-8, and nesting beyond [`JSON_DEPTH_MAX`]. One pass over the text makes the value; where in the
//! text an error lies is only computed when there is one. There is no size limit here: readers of sockets and files
//! bound their lines before they call.

use std::cell::Cell;
use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use crate::display::Untrusted;
use crate::limit::JSON_DEPTH_MAX;
use crate::refusal::{Code, Refusal};

mod canonical;
mod locate;

pub use canonical::{INTEGER_MAX, NotCanonical, canonical, canonical_text, input_digest};

/// Longest pointer or key that an error quotes, in characters: an error must not be as large as the text.
pub const QUOTED_MAX_CHARS: usize = 200;

/// What a record of one call takes, bytes: a text that begins with this room is rarely moved while it grows.
const RECORD_BYTES: usize = 1024;

/// The JSON text of what is written for every call: as `serde_json::to_string`, with room for a record from the start.
///
/// # Errors
/// It does not serialise to JSON.
pub fn record_text<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    serde_json::to_writer(&mut bytes, value)?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// Why a text is not strict JSON, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not valid JSON at byte {offset}{}: {problem}", At(.pointer))]
pub struct Malformed {
    /// Byte at which reading stopped, from 0.
    pub offset: usize,
    /// JSON Pointer (RFC 6901) of the value or member around that byte; empty for the whole text.
    pub pointer: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a JSON text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Some bytes are not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The text starts with U+FEFF.
    #[error("the text starts with a byte-order mark; leave it out")]
    ByteOrderMark,
    /// The grammar of JSON is broken; the parser's own words.
    #[error("{0}")]
    Syntax(String),
    /// An object names a member twice.
    #[error("the key `{}` occurs twice in one object", Untrusted(.0))]
    DuplicateKey(String),
    /// Nested beyond [`JSON_DEPTH_MAX`].
    #[error("nested deeper than 64 levels")]
    TooDeep,
    /// An integer that neither `i64` nor `u64` holds.
    #[error("the integer does not fit 64 bits; send it as a string")]
    WideInteger,
}

/// Why a value has the wrong shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wrong value{}: {problem}", At(.pointer))]
pub struct Mistyped {
    /// JSON Pointer (RFC 6901) of the value that does not fit; empty for the whole text.
    pub pointer: String,
    /// What is wrong with it and what was expected.
    pub problem: String,
}

/// Why a text is not a value of a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Not strict JSON.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Strict JSON of another shape.
    #[error(transparent)]
    Mistyped(#[from] Mistyped),
}

/// A pointer as messages show it: nothing for the whole text.
struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (`{}`)", Untrusted(self.0)) }
    }
}

/// Read one JSON value from the whole of `text`.
///
/// # Errors
/// The text breaks a rule of the module; the error says which and where.
pub fn parse(text: &[u8]) -> Result<Value, Malformed> {
    let whole = |offset, problem| Malformed { offset, pointer: String::new(), problem };
    let text = std::str::from_utf8(text).map_err(|e| whole(e.valid_up_to(), Problem::NotUtf8))?;
    if text.starts_with('\u{feff}') {
        return Err(whole(0, Problem::ByteOrderMark));
    }
    let notes = Notes::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { notes: &notes, levels: JSON_DEPTH_MAX }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| notes.malformed(text, &error))?;
    let wide = if notes.wide.get() { locate::wide_integer(text) } else { None };
    if let Some(offset) = wide {
        return Err(Malformed { offset, pointer: locate::pointer_at(text, offset), problem: Problem::WideInteger });
    }
    Ok(value)
}

/// Read one `T` from the whole of `text`.
///
/// # Errors
/// The text is not strict JSON, or the value has another shape; the error points at it.
pub fn parse_typed<T: DeserializeOwned>(text: &[u8]) -> Result<T, Unfit> {
    let value = parse(text)?;
    if let Ok(typed) = T::deserialize(value) {
        return Ok(typed);
    }
    // Only a text that is refused is read again, this time with a note of where the reader is.
    Ok(typed(parse(text)?)?)
}

/// Turn a value that was already read into a `T`.
///
/// # Errors
/// The value has another shape; the error points at the part that does not fit.
pub fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Mistyped> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut pointer = String::new();
        for segment in error.path() {
            match segment {
                serde_path_to_error::Segment::Seq { index } => locate::push(&mut pointer, &index.to_string()),
                serde_path_to_error::Segment::Map { key } => locate::push(&mut pointer, key),
                serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => {}
            }
        }
        Mistyped { pointer: locate::shorten(&pointer), problem: locate::shorten(&error.inner().to_string()) }
    })
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        let (pointer, problem) = (error.pointer.clone(), error.problem.to_string());
        Self::new(Code::InvalidInput, error.to_string()).field(pointer, problem, "strict JSON (RFC 8259)")
    }
}

impl From<Mistyped> for Refusal {
    fn from(error: Mistyped) -> Self {
        let message = error.to_string();
        Self::new(Code::InvalidInput, message).field(error.pointer, error.problem, "a value of the documented type")
    }
}

impl From<Unfit> for Refusal {
    fn from(error: Unfit) -> Self {
        match error {
            Unfit::Malformed(error) => error.into(),
            Unfit::Mistyped(error) => error.into(),
        }
    }
}

/// What the visitor learns and cannot say through serde's error type.
#[derive(Default)]
struct Notes {
    /// The rule that the visitor itself refused for.
    problem: Cell<Option<Problem>>,
    /// Whether a float was read that may have been written as an integer.
    wide: Cell<bool>,
}

impl Notes {
    fn refuse<E: serde::de::Error>(&self, problem: Problem) -> E {
        self.problem.set(Some(problem));
        E::custom("refused")
    }

    fn malformed(&self, text: &str, error: &serde_json::Error) -> Malformed {
        let offset = locate::offset_of(text, error.line(), error.column());
        let problem = self.problem.take().unwrap_or_else(|| {
            let said = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            Problem::Syntax(said.strip_suffix(&place).unwrap_or(&said).to_owned())
        });
        Malformed { offset, pointer: locate::pointer_at(text, offset), problem }
    }
}

/// The reader of one value, `levels` above the deepest that is allowed.
#[derive(Clone, Copy)]
struct Strict<'n> {
    notes: &'n Notes,
    levels: usize,
}

impl<'n> Strict<'n> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { notes: self.notes, levels }),
            None => Err(self.notes.refuse(Problem::TooDeep)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        /// 2^63: no integer below it in size becomes a float.
        const WIDE: f64 = 9_223_372_036_854_775_808.0;
        if value.abs() >= WIDE {
            self.notes.wide.set(true);
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            match object.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(members.next_value_seed(inner)?);
                }
                Entry::Occupied(place) => {
                    return Err(self.notes.refuse(Problem::DuplicateKey(locate::shorten(place.key()))));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
