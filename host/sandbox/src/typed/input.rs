//! From the JSON text of an input to the arguments of a function, along its types and in one pass over the text.
//!
//! The schema was asked before, and is not believed: whatever does not fit is refused here with its place and what would
//! have been right. Values are counted, because one is larger than the shortest text that stands for it. They are written
//! into values of an earlier call where there are some: a record of the component model carries the names of its fields, and
//! to allocate them again for each took most of the time of a call. What is written to is [`BLANK`] or of the very same type,
//! and is overwritten as a whole; after an error nothing of it is used again.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toolkeep_core::json::INTEGER_MAX;
use toolkeep_core::refusal::FieldProblem;
use toolkeep_core::wit::{Field, Name, Table, Type};
use wasmtime::component::Val;

use super::spare::{self, BLANK};
use crate::execution::CROSSING_MAX_BYTES;

/// Values of one input: as many as may lie in what crosses between guest and host, where each counts with its whole size.
pub(super) const VALUES_MAX: usize = CROSSING_MAX_BYTES / size_of::<Val>();
/// Fields or flags that are noted without memory of their own.
const FEW: usize = 128;

/// What was made of a text.
#[derive(Debug)]
pub(super) struct Made {
    /// The arguments, in order.
    pub(super) arguments: Vec<Val>,
    /// How many values they hold.
    pub(super) values: usize,
}

/// The arguments of a function, made of a JSON object with its parameters as members, in the place of `earlier` ones of the same
/// function; nothing of these is left.
///
/// # Errors
/// The first place of the text that does not fit.
pub(super) fn arguments(params: &Table<Field>, text: &str, earlier: Vec<Val>) -> Result<Made, FieldProblem> {
    let reading = Reading { path: RefCell::default(), left: Cell::new(VALUES_MAX), problem: RefCell::default() };
    let mut arguments = earlier;
    if arguments.len() != params.len() {
        arguments.clear();
        arguments.resize(params.len(), BLANK);
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Arguments { params, slots: &mut arguments, reading: &reading }.deserialize(&mut reader);
    match read.and_then(|()| reader.end()) {
        Ok(()) => Ok(Made { arguments, values: VALUES_MAX - reading.left.get() }),
        Err(error) => Err(reading.told().unwrap_or_else(|| FieldProblem {
            pointer: String::new(),
            problem: error.to_string(),
            expected: "a JSON object".to_owned(),
        })),
    }
}

/// What is known while one text is read.
struct Reading<'t> {
    /// Where something did not fit, the innermost step first: it is known when the error has come all the way out.
    path: RefCell<Vec<Step<'t>>>,
    /// Values that may still be made.
    left: Cell<usize>,
    /// What did not fit, and what would have: what serde's errors cannot carry.
    problem: RefCell<Option<(String, String)>>,
}

#[derive(Clone, Copy)]
enum Step<'t> {
    Member(&'t str),
    Item(usize),
}

impl<'t> Reading<'t> {
    fn refuse<E: Error>(&self, problem: impl Into<String>, expected: impl Into<String>) -> E {
        *self.problem.borrow_mut() = Some((problem.into(), expected.into()));
        E::custom("refused")
    }

    /// What was done one step further in: where it failed, that was on the way.
    fn within<T, E>(&self, step: Step<'t>, done: Result<T, E>) -> Result<T, E> {
        if done.is_err() {
            self.path.borrow_mut().push(step);
        }
        done
    }

    fn count<E: Error>(&self, values: usize) -> Result<(), E> {
        let Some(left) = self.left.get().checked_sub(values) else {
            return Err(self.refuse("has more values than a call may carry", format!("at most {VALUES_MAX} values")));
        };
        self.left.set(left);
        Ok(())
    }

    /// What did not fit, if that is known.
    fn told(&self) -> Option<FieldProblem> {
        let (problem, expected) = self.problem.take()?;
        let mut pointer = String::new();
        for step in self.path.borrow().iter().rev() {
            pointer.push('/');
            match step {
                // Names of WIT have nothing that a pointer escapes.
                Step::Member(name) => pointer.push_str(name),
                Step::Item(at) => pointer.push_str(&at.to_string()),
            }
        }
        Some(FieldProblem { pointer, problem, expected })
    }
}

/// Which of some numbered things were there.
struct Seen {
    few: u128,
    more: Vec<bool>,
}

impl Seen {
    fn of(count: usize) -> Self {
        Self { few: 0, more: if count > FEW { vec![false; count] } else { Vec::new() } }
    }

    /// Note one; whether it was there before.
    fn note(&mut self, at: usize) -> bool {
        if let Some(noted) = self.more.get_mut(at) {
            return std::mem::replace(noted, true);
        }
        let before = self.has(at);
        self.few |= 1_u128.checked_shl(u32::try_from(at).unwrap_or(u32::MAX)).unwrap_or(0);
        before
    }

    fn has(&self, at: usize) -> bool {
        let few = || self.few.checked_shr(u32::try_from(at).unwrap_or(u32::MAX)).is_some_and(|bits| bits & 1 == 1);
        self.more.get(at).copied().unwrap_or_else(few)
    }
}

/// The object around all parameters.
struct Arguments<'t, 'r> {
    params: &'t Table<Field>,
    slots: &'r mut [Val],
    reading: &'r Reading<'t>,
}

impl<'de> DeserializeSeed<'de> for Arguments<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Arguments<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the parameters as members")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        members(self.params, self.slots, |slot| slot, self.reading, map)
    }
}

/// The values of fields, each in its slot, from an object with exactly these members. Those of options may be missing.
fn members<'de, 't, A: MapAccess<'de>, S>(
    fields: &'t Table<Field>,
    slots: &mut [S],
    of: impl Fn(&mut S) -> &mut Val,
    reading: &Reading<'t>,
    mut map: A,
) -> Result<(), A::Error> {
    let (mut seen, mut next) = (Seen::of(fields.len()), 0);
    while let Some(name) = map.next_key_seed(Text)? {
        // Mostly they come in their order.
        let expected = fields.get(next).filter(|field| *field.name == *name).map(|field| (next, field));
        let known = expected.or_else(|| fields.find(&name));
        let Some(((at, field), slot)) = known.and_then(|known| Some((known, slots.get_mut(known.0)?))) else {
            let names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
            let problem = format!("has the unknown member `{}`", short(&name));
            return Err(reading.refuse(problem, format!("only {}", names.join(", "))));
        };
        if seen.note(at) {
            return Err(reading.refuse(format!("has the member `{}` twice", field.name), "it once"));
        }
        let seed = Value::new(&field.ty, of(slot), reading);
        reading.within(Step::Member(&field.name), map.next_value_seed(seed))?;
        next = at + 1;
    }
    for (at, (field, slot)) in fields.iter().zip(slots).enumerate() {
        if seen.has(at) {
            continue;
        }
        if !field.ty.is_option() {
            let missing = Err(reading.refuse("is missing", field.ty.expected()));
            return reading.within(Step::Member(&field.name), missing);
        }
        *of(slot) = Val::Option(None);
    }
    Ok(())
}

/// One value of a type, and where it is written.
struct Value<'t, 'r> {
    ty: &'t Type,
    /// Whether it stands for an option whose value is of the type; an option of an option is a type of its own.
    optional: bool,
    slot: &'r mut Val,
    reading: &'r Reading<'t>,
}

impl<'t, 'r> Value<'t, 'r> {
    fn new(ty: &'t Type, slot: &'r mut Val, reading: &'r Reading<'t>) -> Self {
        match ty {
            Type::Option(some) if !some.is_option() => Self { ty: some, optional: true, slot, reading },
            _ => Self { ty, optional: false, slot, reading },
        }
    }

    fn wrong<E: Error>(&self, problem: &str) -> E {
        let expected = self.ty.expected();
        self.reading.refuse(problem, if self.optional { format!("null, or {expected}") } else { expected })
    }

    /// Count it.
    fn done<E: Error>(&self) -> Result<(), E> {
        self.reading.count(if self.optional { 2 } else { 1 })
    }

    /// Where a value of the type goes: within the option, where it stands for one.
    fn place(&mut self) -> &mut Val {
        if self.optional { spare::some(self.slot) } else { self.slot }
    }

    fn put<E: Error>(mut self, value: Val) -> Result<(), E> {
        *self.place() = value;
        self.done()
    }

    fn integer<E: Error>(self, number: i128) -> Result<(), E> {
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
        match value {
            Some(value) => self.put(value),
            None => Err(self.wrong("is out of range")),
        }
    }

    fn fraction<E: Error>(self, number: f64) -> Result<(), E> {
        match self.ty {
            Type::F64 => self.put(Val::Float64(number)),
            Type::F32 => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the nearest float; what overflows is refused below"
                )]
                let nearest = number as f32;
                if nearest.is_finite() { self.put(Val::Float32(nearest)) } else { Err(self.wrong("is out of range")) }
            }
            // JSON Schema takes `1.0` for an integer.
            #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^64")]
            _ if number.fract() == 0.0 && number.abs() < 2_f64.powi(64) => self.integer(number as i128),
            _ => Err(self.wrong("has a fraction")),
        }
    }

    fn text<E: Error>(mut self, text: &str) -> Result<(), E> {
        match self.ty {
            Type::String => spare::text(self.place(), text),
            Type::Char => {
                let mut characters = text.chars();
                match (characters.next(), characters.next()) {
                    (Some(one), None) => *self.place() = Val::Char(one),
                    _ => return Err(self.wrong("is not one character")),
                }
            }
            Type::Enum(names) if names.find(text).is_some() => spare::case(self.place(), text),
            Type::Enum(_) => return Err(self.wrong("is an unknown case")),
            Type::Variant(cases) => match cases.find(text) {
                Some((_, case)) if case.ty.is_none() => *self.place() = Val::Variant(text.to_owned(), None),
                Some(_) => return Err(self.wrong("is a case without its value")),
                None => return Err(self.wrong("is an unknown case")),
            },
            Type::S64 | Type::U64 => *self.place() = self.wide(text)?,
            Type::F32 | Type::F64 => {
                let number = match text {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => return Err(self.wrong("is a string")),
                };
                #[expect(clippy::cast_possible_truncation, reason = "not finite, so there is nothing to lose")]
                let single = number as f32;
                *self.place() = if *self.ty == Type::F32 { Val::Float32(single) } else { Val::Float64(number) };
            }
            Type::List(_) if self.ty.is_bytes() => {
                // Before they are made: the text is a third longer than they are.
                self.reading.count(text.len() / 4 * 3)?;
                let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| self.wrong("is not base64"))?;
                let mut items = spare::list(self.place());
                items.clear();
                items.extend(bytes.into_iter().map(Val::U8));
                *self.place() = spare::trimmed(items);
            }
            _ => return Err(self.wrong("is a string")),
        }
        self.done()
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

    fn items<'de, A: SeqAccess<'de>>(&mut self, element: &'t Type, mut seq: A) -> Result<(), A::Error> {
        let reading = self.reading;
        let (mut items, mut count) = (spare::list(self.place()), 0);
        loop {
            if items.len() == count {
                items.push(BLANK);
            }
            let Some(slot) = items.get_mut(count) else { break };
            let seed = Value::new(element, slot, reading);
            if reading.within(Step::Item(count), seq.next_element_seed(seed))?.is_none() {
                break;
            }
            count += 1;
        }
        items.truncate(count);
        *self.place() = spare::trimmed(items);
        Ok(())
    }

    fn parts<'de, A: SeqAccess<'de>>(&mut self, parts: &'t [Type], mut seq: A) -> Result<(), A::Error> {
        let reading = self.reading;
        let mut values = spare::tuple(self.place(), parts.len());
        for (at, (part, slot)) in parts.iter().zip(&mut values).enumerate() {
            let seed = Value::new(part, slot, reading);
            if reading.within(Step::Item(at), seq.next_element_seed(seed))?.is_none() {
                return Err(self.wrong("has too few values"));
            }
        }
        if seq.next_element::<serde::de::IgnoredAny>()?.is_some() {
            return Err(self.wrong("has too many values"));
        }
        *self.place() = Val::Tuple(values);
        Ok(())
    }

    fn flags<'de, A: SeqAccess<'de>>(&mut self, names: &Table<Name>, mut seq: A) -> Result<(), A::Error> {
        let mut set = Seen::of(names.len());
        while let Some(name) = seq.next_element_seed(Text)? {
            match names.find(&name) {
                Some((at, _)) if !set.note(at) => {}
                Some(_) => return Err(self.wrong("has a flag twice")),
                None => return Err(self.wrong("has an unknown flag")),
            }
        }
        self.reading.count(names.len())?;
        let flags = names.iter().enumerate().filter(|(at, _)| set.has(*at)).map(|(_, name)| &**name);
        spare::flags(self.place(), flags);
        Ok(())
    }

    /// The one member of an object that stands for a choice: a case of a variant, `ok` or `err`, `some`.
    fn choice<'de, A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        let Some(name) = map.next_key_seed(Text)? else { return Err(self.wrong("is an empty object")) };
        let (ty, reading) = (self.ty, self.reading);
        match (ty, &*name) {
            (Type::Variant(cases), name) => match cases.find(name) {
                Some((_, case)) => match &case.ty {
                    Some(ty) => member(&case.name, ty, spare::payload(self.place(), &case.name), reading, &mut map)?,
                    None => return Err(self.wrong("has a value for a case that carries none")),
                },
                None => return Err(self.wrong("is an unknown case")),
            },
            (Type::Result { ok, .. }, "ok") => {
                let slot = spare::side(self.place(), true, ok.is_some());
                side("ok", ok.as_deref().zip(slot), reading, &mut map)?;
            }
            (Type::Result { err, .. }, "err") => {
                let slot = spare::side(self.place(), false, err.is_some());
                side("err", err.as_deref().zip(slot), reading, &mut map)?;
            }
            (Type::Option(inner), "some") => member("some", inner, spare::some(self.place()), reading, &mut map)?,
            _ => return Err(self.wrong("has an unknown member")),
        }
        match map.next_key_seed(Text)? {
            None => Ok(()),
            Some(_) => Err(self.wrong("has more than one member")),
        }
    }
}

fn member<'de, 't, A: MapAccess<'de>>(
    name: &'t str,
    ty: &'t Type,
    slot: &mut Val,
    reading: &Reading<'t>,
    map: &mut A,
) -> Result<(), A::Error> {
    let seed = Value::new(ty, slot, reading);
    reading.within(Step::Member(name), map.next_value_seed(seed))
}

/// One side of a result, which may carry nothing.
fn side<'de, 't, A: MapAccess<'de>>(
    name: &'static str,
    carried: Option<(&'t Type, &mut Val)>,
    reading: &Reading<'t>,
    map: &mut A,
) -> Result<(), A::Error> {
    match carried {
        Some((ty, slot)) => member(name, ty, slot, reading, map),
        None => {
            let nothing = map.next_value::<Option<serde::de::IgnoredAny>>();
            let nothing = nothing.and_then(|value| match value {
                None => Ok(()),
                Some(_) => Err(reading.refuse("has a value", "null")),
            });
            reading.within(Step::Member(name), nothing)
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ty.expected())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.optional || self.ty.is_option() {
            *self.slot = Val::Option(None);
            return self.reading.count(1);
        }
        Err(self.wrong("is null"))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if *self.ty == Type::Bool { self.put(Val::Bool(value)) } else { Err(self.wrong("is true or false")) }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.fraction(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.text(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, seq: A) -> Result<(), A::Error> {
        match self.ty {
            Type::List(element) if !self.ty.is_bytes() => self.items(element, seq)?,
            Type::Tuple(parts) => self.parts(parts, seq)?,
            Type::Flags(names) => self.flags(names, seq)?,
            _ => return Err(self.wrong("is an array")),
        }
        self.done()
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        match self.ty {
            Type::Record(fields) => {
                let reading = self.reading;
                let mut values = spare::record(self.place(), fields);
                members(fields, &mut values, |(_, value)| value, reading, map)?;
                // Each brings its name.
                reading.count(fields.len())?;
                *self.place() = Val::Record(values);
            }
            Type::Variant(_) | Type::Result { .. } | Type::Option(_) => self.choice(map)?,
            _ => return Err(self.wrong("is an object")),
        }
        self.done()
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
