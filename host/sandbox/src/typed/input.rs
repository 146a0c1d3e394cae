//! From the JSON text of an input to the arguments of a function, along its types and in one pass over the text.
//!
//! The schema was asked before, and is not believed: whatever does not fit is refused here with its place and what would
//! have been right. Values are counted, because one is larger than the shortest text that stands for it.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toolkeep_core::json::INTEGER_MAX;
use toolkeep_core::refusal::FieldProblem;
use toolkeep_core::wit::{Field, Name, Type};
use wasmtime::component::Val;

use crate::execution::CROSSING_MAX_BYTES;

/// Values of one input: as many as may lie in what crosses between guest and host, where each counts with its whole size.
pub(super) const VALUES_MAX: usize = CROSSING_MAX_BYTES / size_of::<Val>();

/// The arguments of a function, made of a JSON object with its parameters as members.
///
/// # Errors
/// The first place of the text that does not fit.
pub(super) fn arguments(params: &[Field], text: &str) -> Result<Vec<Val>, FieldProblem> {
    let reading = Reading { path: RefCell::default(), left: Cell::new(VALUES_MAX), problem: RefCell::default() };
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Arguments { params, reading: &reading }.deserialize(&mut reader);
    read.and_then(|values| reader.end().map(|()| values)).map_err(|error| {
        reading.problem.take().unwrap_or_else(|| FieldProblem {
            pointer: String::new(),
            problem: error.to_string(),
            expected: "a JSON object".to_owned(),
        })
    })
}

/// What is known while one text is read.
struct Reading<'t> {
    path: RefCell<Vec<Step<'t>>>,
    /// Values that may still be made.
    left: Cell<usize>,
    /// What serde's errors cannot carry.
    problem: RefCell<Option<FieldProblem>>,
}

#[derive(Clone, Copy)]
enum Step<'t> {
    Member(&'t str),
    Item(usize),
}

impl<'t> Reading<'t> {
    fn refuse<E: Error>(&self, problem: impl Into<String>, expected: impl Into<String>) -> E {
        let mut pointer = String::new();
        for step in self.path.borrow().iter() {
            pointer.push('/');
            match step {
                // Names of WIT have nothing that a pointer escapes.
                Step::Member(name) => pointer.push_str(name),
                Step::Item(at) => pointer.push_str(&at.to_string()),
            }
        }
        *self.problem.borrow_mut() = Some(FieldProblem { pointer, problem: problem.into(), expected: expected.into() });
        E::custom("refused")
    }

    /// Do something one step further in. After an error the path stays, and says where it was.
    fn within<T, E>(&self, step: Step<'t>, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.path.borrow_mut().push(step);
        let done = work()?;
        self.path.borrow_mut().pop();
        Ok(done)
    }

    fn count<E: Error>(&self, values: usize) -> Result<(), E> {
        let Some(left) = self.left.get().checked_sub(values) else {
            return Err(self.refuse("has more values than a call may carry", format!("at most {VALUES_MAX} values")));
        };
        self.left.set(left);
        Ok(())
    }
}

/// The object around all parameters.
struct Arguments<'t, 'r> {
    params: &'t [Field],
    reading: &'r Reading<'t>,
}

impl<'de> DeserializeSeed<'de> for Arguments<'_, '_> {
    type Value = Vec<Val>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Val>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Arguments<'_, '_> {
    type Value = Vec<Val>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the parameters as members")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Val>, A::Error> {
        members(self.params, self.reading, map)
    }
}

/// The values of fields, in their order, from an object with exactly these members. Those of options may be missing.
fn members<'de, 't, A: MapAccess<'de>>(
    fields: &'t [Field],
    reading: &Reading<'t>,
    mut map: A,
) -> Result<Vec<Val>, A::Error> {
    let mut found: Vec<Option<Val>> = Vec::new();
    found.resize_with(fields.len(), || None);
    while let Some(name) = map.next_key_seed(Text)? {
        let known = fields.iter().zip(&mut found).find(|(field, _)| *field.name == *name);
        let Some((field, place)) = known else {
            let names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
            let problem = format!("has the unknown member `{}`", short(&name));
            return Err(reading.refuse(problem, format!("only {}", names.join(", "))));
        };
        if place.is_some() {
            return Err(reading.refuse(format!("has the member `{}` twice", field.name), "it once"));
        }
        let seed = Value::new(&field.ty, reading);
        *place = Some(reading.within(Step::Member(&field.name), || map.next_value_seed(seed))?);
    }
    let complete = fields.iter().zip(found).map(|(field, value)| match value {
        Some(value) => Ok(value),
        None if field.ty.is_option() => Ok(Val::Option(None)),
        None => reading.within(Step::Member(&field.name), || Err(reading.refuse("is missing", field.ty.expected()))),
    });
    complete.collect()
}

/// One value of a type.
#[derive(Clone, Copy)]
struct Value<'t, 'r> {
    ty: &'t Type,
    /// Whether it stands for an option whose value is of the type; an option of an option is a type of its own.
    optional: bool,
    reading: &'r Reading<'t>,
}

impl<'t, 'r> Value<'t, 'r> {
    fn new(ty: &'t Type, reading: &'r Reading<'t>) -> Self {
        match ty {
            Type::Option(some) if !some.is_option() => Self { ty: some, optional: true, reading },
            _ => Self { ty, optional: false, reading },
        }
    }

    fn wrong<E: Error>(&self, problem: &str) -> E {
        let expected = self.ty.expected();
        self.reading.refuse(problem, if self.optional { format!("null, or {expected}") } else { expected })
    }

    fn done<E: Error>(&self, value: Val) -> Result<Val, E> {
        self.reading.count(if self.optional { 2 } else { 1 })?;
        Ok(if self.optional { Val::Option(Some(Box::new(value))) } else { value })
    }

    fn integer<E: Error>(&self, number: i128) -> Result<Val, E> {
        let value = match self.ty {
            Type::S8 => i8::try_from(number).ok().map(Val::S8),
            Type::U8 => u8::try_from(number).ok().map(Val::U8),
            Type::S16 => i16::try_from(number).ok().map(Val::S16),
            Type::U16 => u16::try_from(number).ok().map(Val::U16),
            Type::S32 => i32::try_from(number).ok().map(Val::S32),
            Type::U32 => u32::try_from(number).ok().map(Val::U32),
            Type::S64 | Type::U64 if number.unsigned_abs() > INTEGER_MAX.into() => {
                return Err(self.wrong("is a number beyond 2^53 - 1, which programs round"));
            }
            Type::S64 => i64::try_from(number).ok().map(Val::S64),
            Type::U64 => u64::try_from(number).ok().map(Val::U64),
            #[expect(clippy::cast_precision_loss, reason = "what a JSON number means to a float is the nearest float")]
            Type::F32 | Type::F64 => return self.fraction(number as f64),
            _ => return Err(self.wrong("is a number")),
        };
        self.done(value.ok_or_else(|| self.wrong("is out of range"))?)
    }

    fn fraction<E: Error>(&self, number: f64) -> Result<Val, E> {
        match self.ty {
            Type::F64 => self.done(Val::Float64(number)),
            Type::F32 => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the nearest float; what overflows is refused below"
                )]
                let nearest = number as f32;
                if nearest.is_finite() { self.done(Val::Float32(nearest)) } else { Err(self.wrong("is out of range")) }
            }
            // JSON Schema takes `1.0` for an integer.
            #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^64")]
            _ if number.fract() == 0.0 && number.abs() < 2_f64.powi(64) => self.integer(number as i128),
            _ => Err(self.wrong("has a fraction")),
        }
    }

    fn text<E: Error>(&self, text: Cow<'_, str>) -> Result<Val, E> {
        let known = |names: &[Name]| names.iter().any(|name| **name == *text);
        let value = match self.ty {
            Type::String => Val::String(text.into_owned()),
            Type::Char => {
                let mut characters = text.chars();
                match (characters.next(), characters.next()) {
                    (Some(one), None) => Val::Char(one),
                    _ => return Err(self.wrong("is not one character")),
                }
            }
            Type::Enum(names) if known(names) => Val::Enum(text.into_owned()),
            Type::Enum(_) => return Err(self.wrong("is an unknown case")),
            Type::Variant(cases) => match cases.iter().find(|case| *case.name == *text) {
                Some(case) if case.ty.is_none() => Val::Variant(text.into_owned(), None),
                Some(_) => return Err(self.wrong("is a case without its value")),
                None => return Err(self.wrong("is an unknown case")),
            },
            Type::S64 | Type::U64 => self.wide(&text)?,
            Type::F32 | Type::F64 => {
                let number = match &*text {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => return Err(self.wrong("is a string")),
                };
                #[expect(clippy::cast_possible_truncation, reason = "not finite, so there is nothing to lose")]
                let single = number as f32;
                if *self.ty == Type::F32 { Val::Float32(single) } else { Val::Float64(number) }
            }
            Type::List(_) if self.ty.is_bytes() => {
                // Before they are made: the text is a third longer than they are.
                self.reading.count(text.len() / 4 * 3)?;
                let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| self.wrong("is not base64"))?;
                Val::List(bytes.into_iter().map(Val::U8).collect())
            }
            _ => return Err(self.wrong("is a string")),
        };
        self.done(value)
    }

    /// An integer beyond what a number may be, in the one spelling that it has.
    fn wide<E: Error>(&self, text: &str) -> Result<Val, E> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = !digits.starts_with('0') && digits.len() <= 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<i128>().ok().filter(|_| plain).ok_or_else(|| self.wrong("is a string"))?;
        if number.unsigned_abs() <= INTEGER_MAX.into() {
            return Err(self.wrong("is a string, but small enough for a number"));
        }
        let value = match self.ty {
            Type::S64 => i64::try_from(number).ok().map(Val::S64),
            _ => u64::try_from(number).ok().map(Val::U64),
        };
        value.ok_or_else(|| self.wrong("is out of range"))
    }

    fn items<'de, A: SeqAccess<'de>>(&self, element: &'t Type, mut seq: A) -> Result<Val, A::Error> {
        let mut items = Vec::new();
        let seed = Value::new(element, self.reading);
        while let Some(item) = self.reading.within(Step::Item(items.len()), || seq.next_element_seed(seed))? {
            items.push(item);
        }
        Ok(Val::List(items))
    }

    fn parts<'de, A: SeqAccess<'de>>(&self, parts: &'t [Type], mut seq: A) -> Result<Val, A::Error> {
        let mut values = Vec::with_capacity(parts.len());
        for part in parts {
            let seed = Value::new(part, self.reading);
            match self.reading.within(Step::Item(values.len()), || seq.next_element_seed(seed))? {
                Some(value) => values.push(value),
                None => return Err(self.wrong("has too few values")),
            }
        }
        match seq.next_element::<serde::de::IgnoredAny>()? {
            None => Ok(Val::Tuple(values)),
            Some(_) => Err(self.wrong("has too many values")),
        }
    }

    fn flags<'de, A: SeqAccess<'de>>(&self, names: &[Name], mut seq: A) -> Result<Val, A::Error> {
        let mut set = vec![false; names.len()];
        while let Some(name) = seq.next_element_seed(Text)? {
            match names.iter().zip(&mut set).find(|(known, _)| ***known == *name) {
                Some((_, is_set)) if !*is_set => *is_set = true,
                Some(_) => return Err(self.wrong("has a flag twice")),
                None => return Err(self.wrong("has an unknown flag")),
            }
        }
        self.reading.count(names.len())?;
        let flags = names.iter().zip(set).filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_string());
        Ok(Val::Flags(flags.collect()))
    }

    /// The one member of an object that stands for a choice: a case of a variant, `ok` or `err`, `some`.
    fn choice<'de, A: MapAccess<'de>>(&self, mut map: A) -> Result<Val, A::Error> {
        let Some(name) = map.next_key_seed(Text)? else { return Err(self.wrong("is an empty object")) };
        let value = match (self.ty, &*name) {
            (Type::Variant(cases), name) => match cases.iter().find(|case| *case.name == *name) {
                Some(case) => match &case.ty {
                    Some(ty) => {
                        let value = self.member(&case.name, ty, &mut map)?;
                        Val::Variant(case.name.to_string(), Some(Box::new(value)))
                    }
                    None => return Err(self.wrong("has a value for a case that carries none")),
                },
                None => return Err(self.wrong("is an unknown case")),
            },
            (Type::Result { ok, .. }, "ok") => Val::Result(Ok(self.side("ok", ok.as_deref(), &mut map)?)),
            (Type::Result { err, .. }, "err") => Val::Result(Err(self.side("err", err.as_deref(), &mut map)?)),
            (Type::Option(inner), "some") => Val::Option(Some(Box::new(self.member("some", inner, &mut map)?))),
            _ => return Err(self.wrong("has an unknown member")),
        };
        match map.next_key_seed(Text)? {
            None => Ok(value),
            Some(_) => Err(self.wrong("has more than one member")),
        }
    }

    fn member<'de, A: MapAccess<'de>>(&self, name: &'t str, ty: &'t Type, map: &mut A) -> Result<Val, A::Error> {
        let seed = Value::new(ty, self.reading);
        self.reading.within(Step::Member(name), || map.next_value_seed(seed))
    }

    fn side<'de, A: MapAccess<'de>>(
        &self,
        name: &'static str,
        ty: Option<&'t Type>,
        map: &mut A,
    ) -> Result<Option<Box<Val>>, A::Error> {
        match ty {
            Some(ty) => self.member(name, ty, map).map(|value| Some(Box::new(value))),
            None => self.reading.within(Step::Member(name), || {
                map.next_value::<Option<serde::de::IgnoredAny>>()?
                    .map_or(Ok(None), |_| Err(self.reading.refuse("has a value", "null")))
            }),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = Val;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Val, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = Val;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ty.expected())
    }

    fn visit_unit<E: Error>(self) -> Result<Val, E> {
        if self.optional || self.ty.is_option() {
            self.reading.count(1)?;
            return Ok(Val::Option(None));
        }
        Err(self.wrong("is null"))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Val, E> {
        if *self.ty == Type::Bool { self.done(Val::Bool(value)) } else { Err(self.wrong("is true or false")) }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Val, E> {
        self.integer(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Val, E> {
        self.integer(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Val, E> {
        self.fraction(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Val, E> {
        self.text(Cow::Borrowed(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Val, E> {
        self.text(Cow::Owned(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Val, A::Error> {
        let value = match self.ty {
            Type::List(element) if !self.ty.is_bytes() => self.items(element, seq)?,
            Type::Tuple(parts) => self.parts(parts, seq)?,
            Type::Flags(names) => self.flags(names, seq)?,
            _ => return Err(self.wrong("is an array")),
        };
        self.done(value)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Val, A::Error> {
        let value = match self.ty {
            Type::Record(fields) => {
                let values = members(fields, self.reading, map)?;
                // Each brings its name.
                self.reading.count(fields.len())?;
                Val::Record(fields.iter().map(|field| field.name.to_string()).zip(values).collect())
            }
            Type::Variant(_) | Type::Result { .. } | Type::Option(_) => self.choice(map)?,
            _ => return Err(self.wrong("is an object")),
        };
        self.done(value)
    }
}

/// A name: a text that is copied only where the reader has to.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

fn short(name: &str) -> String {
    name.chars().take(80).collect()
}
