//! Functions that a component exports in WIT, as tools see them: their labels, and the types of what they take and return.
//!
//! Types are trees of plain values. What cannot be written as JSON (resources, streams, futures) has no place in them, and
//! depth and size are bounded where a tree is built, whatever it is built from: a definition that is used again and again
//! is small in a component and enormous as a tree. There are two readers, one of files and one of compiled components;
//! both say what one type is made of ([`Node`]), and [`Builder`] does the rest, so they cannot disagree about the rules.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{NotAnId, ToolName};

mod schema;
mod table;
mod text;

pub use schema::is_wide;
pub use table::{Named, Table};

/// Levels of types in one another: each is up to four levels of JSON Schema, and a listing has at most 64.
pub const DEPTH_MAX: usize = 12;
/// Types, fields, cases and names of all functions of one component together.
pub const PARTS_MAX: usize = 10_000;
/// Longest name of a field, case or parameter, in bytes.
pub const NAME_MAX_BYTES: usize = 128;
/// Functions of one component that are looked at.
pub const FUNCTIONS_MAX: usize = 1_000;
/// Longest label, in bytes.
pub const LABEL_MAX_BYTES: usize = 512;

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the types of the component model, by their names there")]
pub enum Type {
    Bool,
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
    F32,
    F64,
    Char,
    String,
    List(Box<Self>),
    Record(Table<Field>),
    Tuple(Box<[Self]>),
    Variant(Table<Case>),
    Enum(Table<Name>),
    Option(Box<Self>),
    Result { ok: Option<Box<Self>>, err: Option<Box<Self>> },
    Flags(Table<Name>),
}

/// The name of a field, case, flag or parameter.
pub type Name = Box<str>;

/// A field of a record, or a parameter of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub ty: Type,
}

/// A case of a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its name.
    pub name: Name,
    /// The type of what it carries, if it carries anything.
    pub ty: Option<Type>,
}

impl Type {
    /// Whether it is `list<u8>`, which is written as one text and not as numbers.
    #[must_use]
    pub fn is_bytes(&self) -> bool {
        matches!(self, Self::List(element) if **element == Self::U8)
    }

    /// Whether a value of it may hold flags.
    #[must_use]
    pub fn holds_flags(&self) -> bool {
        let of = |inner: &Option<Box<Self>>| inner.as_ref().is_some_and(|inner| inner.holds_flags());
        match self {
            Self::Flags(_) => true,
            Self::List(inner) | Self::Option(inner) => inner.holds_flags(),
            Self::Record(fields) => fields.iter().any(|field| field.ty.holds_flags()),
            Self::Tuple(types) => types.iter().any(Self::holds_flags),
            Self::Variant(cases) => cases.iter().any(|case| case.ty.as_ref().is_some_and(Self::holds_flags)),
            Self::Result { ok, err } => of(ok) || of(err),
            _ => false,
        }
    }

    /// Whether it may be left out of an object, which means none.
    #[must_use]
    pub const fn is_option(&self) -> bool {
        matches!(self, Self::Option(_))
    }
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// What names it in its component.
    pub label: Label,
    /// What it takes, in order.
    pub params: Table<Field>,
    /// What it returns, if it returns anything.
    pub result: Option<Type>,
}

impl Function {
    /// The type of what it gives when it does not fail: that of the `ok` of a `result`, else of the whole. None for nothing.
    #[must_use]
    pub fn output(&self) -> Option<&Type> {
        match self.result.as_ref()? {
            Type::Result { ok, .. } => ok.as_deref(),
            whole => Some(whole),
        }
    }

    /// The type of the error that it returns. None if it returns none, or one that says nothing.
    #[must_use]
    pub fn error(&self) -> Option<&Type> {
        match self.result.as_ref()? {
            Type::Result { err, .. } => err.as_deref(),
            _ => None,
        }
    }

    /// Whether it says itself that it failed.
    #[must_use]
    pub const fn can_fail(&self) -> bool {
        matches!(self.result, Some(Type::Result { .. }))
    }
}

/// What names a function in its component: `reserve` at the top level, `acme:inventory/stock@1.0.0#reserve` in an interface.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(Arc<str>);

/// Why a text is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no function: write `function`, or `namespace:package/interface@version#function` as the component has it"
)]
pub struct NotALabel(String);

impl Label {
    /// The label of `function`, in `interface` if it is in one. None if they are too long.
    #[must_use]
    pub fn new(interface: Option<&str>, function: &str) -> Option<Self> {
        let text = interface.map_or_else(|| function.to_owned(), |interface| format!("{interface}#{function}"));
        text.parse().ok()
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The interface, with its package and version; none for a function at the top level.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        self.0.split_once('#').map(|(interface, _)| interface)
    }

    /// The function alone.
    #[must_use]
    pub fn function(&self) -> &str {
        self.0.split_once('#').map_or(&*self.0, |(_, function)| function)
    }

    /// The name of the tool if nobody gives it another: `reserve`, or `stock.reserve` for one in an interface. It never depends
    /// on what else the component exports, so a new export renames nothing.
    ///
    /// # Errors
    /// It would be longer than a name may be.
    pub fn name(&self) -> Result<ToolName, NotAnId> {
        self.qualified(1)
    }

    /// The same with more of what the interface belongs to: 2 with the package, 3 with its namespace, 4 with the version.
    ///
    /// # Errors
    /// It would be longer than a name may be.
    pub fn qualified(&self, parts: usize) -> Result<ToolName, NotAnId> {
        let Some(interface) = self.interface() else { return self.function().to_ascii_lowercase().parse() };
        let (path, version) = interface.split_once('@').unwrap_or((interface, ""));
        let mut words: Vec<&str> = path.split([':', '/']).rev().take(parts.min(3)).collect();
        words.reverse();
        if parts > 3 && !version.is_empty() {
            words.push(version);
        }
        words.push(self.function());
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        words.join(".").to_ascii_lowercase().chars().map(plain).collect::<String>().parse()
    }
}

impl FromStr for Label {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        let (interface, function) = text.split_once('#').map_or((None, text), |(i, f)| (Some(i), f));
        let fine = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if text.len() <= LABEL_MAX_BYTES && fine(function) && interface.is_none_or(fine) {
            Ok(Self(text.into()))
        } else {
            Err(NotALabel(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Label {
    type Error = NotALabel;

    fn try_from(text: String) -> Result<Self, NotALabel> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0.as_ref().to_owned()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Label({})", self.0)
    }
}

/// Why a function cannot be a tool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// It takes or returns something that is no plain value.
    #[error("`{at}` is {what}: a tool takes and returns plain values only, which can be written as JSON")]
    Kind {
        /// Where: parameter and members, or `result`.
        at: String,
        /// What it is, with an article.
        what: &'static str,
    },
    /// Types in types in types.
    #[error("`{at}` is nested deeper than {DEPTH_MAX} levels of types")]
    Deep {
        /// Where.
        at: String,
    },
    /// A name that nobody could read.
    #[error("a name in `{at}` has more than {NAME_MAX_BYTES} bytes")]
    Name {
        /// Where.
        at: String,
    },
    /// All types together are too large.
    #[error("the types of the exported functions have more than {PARTS_MAX} parts together")]
    Large,
    /// The function may stop in the middle.
    #[error("it is an `async` function, which tools are not")]
    Async,
}

/// What one type is made of, as a reader of `T`s sees it.
#[derive(Debug)]
#[expect(missing_docs, reason = "the types of the component model, by their names there")]
pub enum Node<T> {
    Plain(Type),
    List(T),
    Record(Vec<(String, T)>),
    Tuple(Vec<T>),
    Variant(Vec<(String, Option<T>)>),
    Enum(Vec<String>),
    Option(T),
    Result(Option<T>, Option<T>),
    Flags(Vec<String>),
    /// Something that is no plain value: what, with an article.
    Refused(&'static str),
}

/// Makes types of what a reader sees, within the bounds of one component.
#[derive(Debug)]
pub struct Builder<L> {
    look: L,
    left: usize,
    /// Where it is, for errors.
    at: Vec<String>,
}

impl<L> Builder<L> {
    /// With a reader.
    pub const fn new(look: L) -> Self {
        Self { look, left: PARTS_MAX, at: Vec::new() }
    }

    /// A function.
    ///
    /// # Errors
    /// It takes or returns what a tool cannot.
    pub fn function<T>(
        &mut self,
        label: Label,
        params: Vec<(String, T)>,
        result: Option<T>,
    ) -> Result<Function, Unsuitable>
    where
        L: Fn(&T) -> Node<T>,
    {
        self.at.clear();
        let params = self.fields(params, 0)?;
        let result = result.map(|ty| self.part("result", &ty, 0)).transpose()?;
        Ok(Function { label, params, result })
    }

    fn part<T>(&mut self, name: &str, ty: &T, depth: usize) -> Result<Type, Unsuitable>
    where
        L: Fn(&T) -> Node<T>,
    {
        self.at.push(name.chars().take(NAME_MAX_BYTES).collect());
        let ty = self.ty(ty, depth)?;
        self.at.pop();
        Ok(ty)
    }

    fn ty<T>(&mut self, ty: &T, depth: usize) -> Result<Type, Unsuitable>
    where
        L: Fn(&T) -> Node<T>,
    {
        self.take(1)?;
        if depth >= DEPTH_MAX {
            return Err(Unsuitable::Deep { at: self.place() });
        }
        let inner = depth + 1;
        Ok(match (self.look)(ty) {
            Node::Plain(ty) => ty,
            Node::Refused(what) => return Err(Unsuitable::Kind { at: self.place(), what }),
            Node::List(element) => Type::List(Box::new(self.part("*", &element, inner)?)),
            Node::Option(some) => Type::Option(Box::new(self.ty(&some, inner)?)),
            Node::Record(fields) => Type::Record(self.fields(fields, inner)?),
            Node::Tuple(parts) => {
                self.take(parts.len())?;
                let parts = parts.iter().enumerate().map(|(n, part)| self.part(&n.to_string(), part, inner));
                Type::Tuple(parts.collect::<Result<_, _>>()?)
            }
            Node::Variant(cases) => {
                self.take(cases.len())?;
                let case = |(name, ty): (String, Option<T>)| {
                    let ty = ty.map(|ty| self.part(&name, &ty, inner)).transpose()?;
                    Ok(Case { name: self.name(name)?, ty })
                };
                Type::Variant(cases.into_iter().map(case).collect::<Result<_, _>>()?)
            }
            Node::Enum(names) => Type::Enum(self.names(names)?),
            Node::Flags(names) => Type::Flags(self.names(names)?),
            Node::Result(ok, err) => {
                let mut side =
                    |name: &str, ty: Option<T>| ty.map(|ty| self.part(name, &ty, inner).map(Box::new)).transpose();
                Type::Result { ok: side("ok", ok)?, err: side("err", err)? }
            }
        })
    }

    fn fields<T>(&mut self, fields: Vec<(String, T)>, depth: usize) -> Result<Table<Field>, Unsuitable>
    where
        L: Fn(&T) -> Node<T>,
    {
        self.take(fields.len())?;
        let field = |(name, ty): (String, T)| {
            let ty = self.part(&name, &ty, depth)?;
            Ok(Field { name: self.name(name)?, ty })
        };
        fields.into_iter().map(field).collect()
    }

    fn names(&mut self, names: Vec<String>) -> Result<Table<Name>, Unsuitable> {
        self.take(names.len())?;
        names.into_iter().map(|name| self.name(name)).collect()
    }

    fn name(&self, name: String) -> Result<Name, Unsuitable> {
        if name.len() > NAME_MAX_BYTES { Err(Unsuitable::Name { at: self.place() }) } else { Ok(name.into()) }
    }

    fn take(&mut self, parts: usize) -> Result<(), Unsuitable> {
        self.left = self.left.checked_sub(parts).ok_or(Unsuitable::Large)?;
        Ok(())
    }

    fn place(&self) -> String {
        self.at.join(".")
    }
}

#[cfg(test)]
mod tests;
