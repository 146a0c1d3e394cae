//! Functions and types as people read them: in WIT, and as the expectation that an error names.

use std::fmt;

use super::{Function, Type};

/// Longest expectation, in characters: a model reads it with every error.
const EXPECTED_MAX_CHARS: usize = 200;

impl Type {
    /// What would have been right, as an error says it.
    #[must_use]
    pub fn expected(&self) -> String {
        let text = match self {
            Self::Bool => "true or false".to_owned(),
            Self::S8 => "an integer from -128 to 127".to_owned(),
            Self::U8 => "an integer from 0 to 255".to_owned(),
            Self::S16 => "an integer from -32768 to 32767".to_owned(),
            Self::U16 => "an integer from 0 to 65535".to_owned(),
            Self::S32 => "an integer from -2147483648 to 2147483647".to_owned(),
            Self::U32 => "an integer from 0 to 4294967295".to_owned(),
            Self::S64 => "an integer of 64 bits; beyond 2^53 - 1 either way as a string of its digits".to_owned(),
            Self::U64 => "an integer from 0 to 2^64 - 1; beyond 2^53 - 1 as a string of its digits".to_owned(),
            Self::F32 => "a number of 32 bits, `NaN`, `Infinity` or `-Infinity`".to_owned(),
            Self::F64 => "a number, `NaN`, `Infinity` or `-Infinity`".to_owned(),
            Self::Char => "a string of one character".to_owned(),
            Self::String => "a string".to_owned(),
            Self::List(_) if self.is_bytes() => "bytes as a string in base64, with padding".to_owned(),
            Self::List(_) => "an array".to_owned(),
            Self::Record(fields) => format!("an object with {}", listed(fields.iter().map(|field| &*field.name))),
            Self::Tuple(parts) => format!("an array of {} values", parts.len()),
            Self::Variant(cases) => {
                let case = |case: &super::Case| match case.ty {
                    None => format!("`{}`", case.name),
                    Some(_) => format!("{{\"{}\": …}}", case.name),
                };
                format!("one of {}", cases.iter().map(case).collect::<Vec<_>>().join(", "))
            }
            Self::Enum(names) => format!("one of {}", listed(names.iter().map(|name| &**name))),
            Self::Option(some) if some.is_option() => "null, or {\"some\": …}".to_owned(),
            Self::Option(some) => format!("null, or {}", some.expected()),
            Self::Result { .. } => "{\"ok\": …} or {\"err\": …}".to_owned(),
            Self::Flags(names) => {
                format!("an array of {}, each at most once", listed(names.iter().map(|name| &**name)))
            }
        };
        if text.chars().count() <= EXPECTED_MAX_CHARS {
            return text;
        }
        text.chars().take(EXPECTED_MAX_CHARS).chain(['…']).collect()
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Bool => "bool",
            Self::S8 => "s8",
            Self::U8 => "u8",
            Self::S16 => "s16",
            Self::U16 => "u16",
            Self::S32 => "s32",
            Self::U32 => "u32",
            Self::S64 => "s64",
            Self::U64 => "u64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Char => "char",
            Self::String => "string",
            Self::List(element) => return write!(f, "list<{element}>"),
            Self::Option(some) => return write!(f, "option<{some}>"),
            Self::Tuple(parts) => {
                f.write_str("tuple<")?;
                separated(f, parts.iter())?;
                return f.write_str(">");
            }
            Self::Record(fields) => {
                return braced(f, "record", fields.iter().map(|field| format!("{}: {}", field.name, field.ty)));
            }
            Self::Variant(cases) => {
                return braced(
                    f,
                    "variant",
                    cases.iter().map(|case| match &case.ty {
                        None => case.name.to_string(),
                        Some(ty) => format!("{}({ty})", case.name),
                    }),
                );
            }
            Self::Enum(names) => return braced(f, "enum", names.iter()),
            Self::Flags(names) => return braced(f, "flags", names.iter()),
            Self::Result { ok: None, err: None } => "result",
            Self::Result { ok: Some(ok), err: None } => return write!(f, "result<{ok}>"),
            Self::Result { ok: None, err: Some(err) } => return write!(f, "result<_, {err}>"),
            Self::Result { ok: Some(ok), err: Some(err) } => return write!(f, "result<{ok}, {err}>"),
        };
        f.write_str(word)
    }
}

fn separated<T: fmt::Display>(f: &mut fmt::Formatter<'_>, parts: impl Iterator<Item = T>) -> fmt::Result {
    for (at, part) in parts.enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{part}")?;
    }
    Ok(())
}

fn braced<T: fmt::Display>(f: &mut fmt::Formatter<'_>, word: &str, parts: impl Iterator<Item = T>) -> fmt::Result {
    write!(f, "{word} {{ ")?;
    separated(f, parts)?;
    f.write_str(" }")
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: func(", self.label.function())?;
        separated(f, self.params.iter().map(|field| format!("{}: {}", field.name, field.ty)))?;
        f.write_str(")")?;
        self.result.as_ref().map_or(Ok(()), |result| write!(f, " -> {result}"))
    }
}
