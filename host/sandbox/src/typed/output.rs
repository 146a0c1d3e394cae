//! From a value that a function returned to its JSON text, along the type and never longer than the limit.
//!
//! Every member of a record is written, an option that is none as null, so that a reader finds what the schema names.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toolkeep_core::json::INTEGER_MAX;
use toolkeep_core::wit::Type;
use wasmtime::component::Val;

use crate::fault::Fault;

/// The JSON of a value; null for none.
///
/// # Errors
/// It is longer than `limit` bytes, or not of its type.
pub(super) fn json(ty: Option<&Type>, value: Option<&Val>, limit: u64) -> Result<String, Fault> {
    let mut text = Text { bytes: Vec::new(), left: usize::try_from(limit).unwrap_or(usize::MAX) };
    let written = match (ty, value) {
        (Some(ty), Some(value)) => text.value(ty, value),
        _ => text.raw(b"null"),
    };
    match written {
        Ok(()) => String::from_utf8(text.bytes).map_err(|error| Fault::Trap(format!("BUG: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Err(Fault::OutputTooLarge { limit, size: limit.saturating_add(1) })
        }
        Err(error) => Err(Fault::Trap(format!("BUG: the output cannot be written: {error}"))),
    }
}

/// A text that ends at its limit.
struct Text {
    bytes: Vec<u8>,
    left: usize,
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.raw(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn mistyped() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a value is not of its type")
}

impl Text {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn string(&mut self, text: &str) -> io::Result<()> {
        serde_json::to_writer(self, text).map_err(io::Error::from)
    }

    fn value(&mut self, ty: &Type, value: &Val) -> io::Result<()> {
        match (ty, value) {
            (Type::Bool, Val::Bool(true)) => self.raw(b"true"),
            (Type::Bool, Val::Bool(false)) => self.raw(b"false"),
            (Type::S8, Val::S8(n)) => write!(self, "{n}"),
            (Type::U8, Val::U8(n)) => write!(self, "{n}"),
            (Type::S16, Val::S16(n)) => write!(self, "{n}"),
            (Type::U16, Val::U16(n)) => write!(self, "{n}"),
            (Type::S32, Val::S32(n)) => write!(self, "{n}"),
            (Type::U32, Val::U32(n)) => write!(self, "{n}"),
            (Type::S64, Val::S64(n)) if n.unsigned_abs() > INTEGER_MAX => write!(self, "\"{n}\""),
            (Type::S64, Val::S64(n)) => write!(self, "{n}"),
            (Type::U64, Val::U64(n)) if *n > INTEGER_MAX => write!(self, "\"{n}\""),
            (Type::U64, Val::U64(n)) => write!(self, "{n}"),
            // The shortest digits of a single float, which are fewer than those of the same value as a double.
            (Type::F32, Val::Float32(n)) if n.is_finite() => serde_json::to_writer(self, n).map_err(io::Error::from),
            (Type::F32, Val::Float32(n)) => self.special(f64::from(*n)),
            (Type::F64, Val::Float64(n)) if n.is_finite() => serde_json::to_writer(self, n).map_err(io::Error::from),
            (Type::F64, Val::Float64(n)) => self.special(*n),
            (Type::Char, Val::Char(c)) => self.string(c.encode_utf8(&mut [0; 4])),
            (Type::String, Val::String(text)) => self.string(text),
            (Type::List(_), Val::List(items)) if ty.is_bytes() => self.binary(items),
            (Type::List(element), Val::List(items)) => self.array(items.iter().map(|item| (&**element, item))),
            (Type::Tuple(parts), Val::Tuple(values)) if parts.len() == values.len() => {
                self.array(parts.iter().zip(values))
            }
            (Type::Record(fields), Val::Record(values)) if fields.len() == values.len() => {
                for (at, (field, (_, value))) in fields.iter().zip(values).enumerate() {
                    self.raw(if at == 0 { b"{\"" } else { b",\"" })?;
                    // Names of WIT have nothing that JSON escapes.
                    self.raw(field.name.as_bytes())?;
                    self.raw(b"\":")?;
                    self.value(&field.ty, value)?;
                }
                self.raw(b"}")
            }
            (Type::Enum(_), Val::Enum(name)) => self.string(name),
            (Type::Variant(cases), Val::Variant(name, value)) => {
                let (_, case) = cases.find(name).ok_or_else(mistyped)?;
                match (&case.ty, value) {
                    (None, None) => self.string(name),
                    (Some(ty), Some(value)) => self.member(name, Some(ty), Some(value)),
                    _ => Err(mistyped()),
                }
            }
            (Type::Option(_), Val::Option(None)) => self.raw(b"null"),
            (Type::Option(some), Val::Option(Some(value))) if some.is_option() => {
                self.member("some", Some(some), Some(value))
            }
            (Type::Option(some), Val::Option(Some(value))) => self.value(some, value),
            (Type::Result { ok, .. }, Val::Result(Ok(value))) => self.member("ok", ok.as_deref(), value.as_deref()),
            (Type::Result { err, .. }, Val::Result(Err(value))) => self.member("err", err.as_deref(), value.as_deref()),
            (Type::Flags(names), Val::Flags(set)) => {
                let set = names.iter().filter(|name| set.iter().any(|flag| ***name == **flag));
                self.raw(b"[")?;
                for (at, name) in set.enumerate() {
                    if at > 0 {
                        self.raw(b",")?;
                    }
                    self.string(name)?;
                }
                self.raw(b"]")
            }
            _ => Err(mistyped()),
        }
    }

    /// What JSON has no numbers for.
    fn special(&mut self, number: f64) -> io::Result<()> {
        let name = match number {
            f64::INFINITY => "\"Infinity\"",
            f64::NEG_INFINITY => "\"-Infinity\"",
            _ => "\"NaN\"",
        };
        self.raw(name.as_bytes())
    }

    fn array<'v>(&mut self, items: impl Iterator<Item = (&'v Type, &'v Val)>) -> io::Result<()> {
        self.raw(b"[")?;
        for (at, (ty, item)) in items.enumerate() {
            if at > 0 {
                self.raw(b",")?;
            }
            self.value(ty, item)?;
        }
        self.raw(b"]")
    }

    fn member(&mut self, name: &str, ty: Option<&Type>, value: Option<&Val>) -> io::Result<()> {
        self.raw(b"{\"")?;
        self.raw(name.as_bytes())?;
        self.raw(b"\":")?;
        match (ty, value) {
            (Some(ty), Some(value)) => self.value(ty, value)?,
            (None, None) => self.raw(b"null")?,
            _ => return Err(mistyped()),
        }
        self.raw(b"}")
    }

    fn binary(&mut self, items: &[Val]) -> io::Result<()> {
        let byte = |item: &Val| if let Val::U8(byte) = item { Ok(*byte) } else { Err(mistyped()) };
        let bytes = items.iter().map(byte).collect::<io::Result<Vec<u8>>>()?;
        self.raw(b"\"")?;
        self.raw(STANDARD.encode(bytes).as_bytes())?;
        self.raw(b"\"")
    }
}
