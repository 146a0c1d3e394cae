//! Header fields of requests: what a guest may set, and what is the host's alone.
//!
//! What frames a message, names its target, asks for a change of protocol, carries a credential or makes a server treat
//! the request as another one (another method, another path) is never a guest's. Of the rest a guest sets what every
//! request may carry and what the grant lists. Values are visible ASCII, so that a plan shows exactly what is sent.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::effect::Header;

/// Most fields of a request or of an answer: an ordinary one has twenty.
pub const FIELDS_MAX: usize = 100;
/// Bytes of all fields together, each with the four of its separators: what common servers accept.
pub const FIELDS_MAX_BYTES: usize = 32 * 1024;
/// Longest name of a field, in bytes.
pub const FIELD_NAME_MAX_BYTES: usize = 64;

/// The name of a header field: lower-case, a token of RFC 9110.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldName(String);

impl FieldName {
    /// The name, lower-case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FieldName {
    type Err = FieldProblem;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if !(1..=FIELD_NAME_MAX_BYTES).contains(&text.len()) || !text.bytes().all(token) {
            return Err(FieldProblem::new(text, FieldRule::Name));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl TryFrom<String> for FieldName {
    type Error = FieldProblem;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<FieldName> for String {
    fn from(name: FieldName) -> Self {
        name.0
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldName({})", self.0)
    }
}

/// What a guest may set under every grant.
pub const ALWAYS_ALLOWED: &[&str] = &["accept", "content-type"];

/// What is the host's alone, whatever a grant lists: name and why.
const OWNED: &[(&str, FieldRule)] = &[
    ("connection", FieldRule::Framing),
    ("content-length", FieldRule::Framing),
    ("expect", FieldRule::Framing),
    ("host", FieldRule::Framing),
    ("http2-settings", FieldRule::Framing),
    ("keep-alive", FieldRule::Framing),
    ("te", FieldRule::Framing),
    ("trailer", FieldRule::Framing),
    ("transfer-encoding", FieldRule::Framing),
    ("upgrade", FieldRule::Framing),
    ("idempotency-key", FieldRule::Key),
    ("authorization", FieldRule::Credential),
    ("cookie", FieldRule::Credential),
    ("cookie2", FieldRule::Credential),
    ("x-http-method", FieldRule::Override),
    ("x-http-method-override", FieldRule::Override),
    ("x-method-override", FieldRule::Override),
    ("x-original-url", FieldRule::Override),
    ("x-rewrite-url", FieldRule::Override),
];

/// What belongs to the host by the start of its name.
const OWNED_PREFIXES: &[(&str, FieldRule)] =
    &[("proxy-", FieldRule::Framing), ("x-toolkeep-", FieldRule::Key), (":", FieldRule::Name)];

/// Fields that have one value; a second one is how two servers are made to disagree.
const SINGLE: &[&str] = &[
    "content-encoding",
    "content-type",
    "if-modified-since",
    "if-unmodified-since",
    "range",
    "user-agent",
    "origin",
    "referer",
];

/// Which rule of the host a name falls under, if any.
#[must_use]
pub fn owned(name: &FieldName) -> Option<FieldRule> {
    let whole = OWNED.iter().find(|(owned, _)| *owned == name.as_str());
    let start = || OWNED_PREFIXES.iter().find(|(prefix, _)| name.as_str().starts_with(prefix));
    whole.or_else(start).map(|(_, rule)| *rule)
}

/// The names that a grant adds to [`ALWAYS_ALLOWED`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedFields(BTreeSet<FieldName>);

impl AllowedFields {
    /// From the list of a grant.
    ///
    /// # Errors
    /// A text is not a name, or names what is the host's alone: listing it would not open it.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, FieldProblem> {
        let check = |text: &str| {
            let name: FieldName = text.parse()?;
            match owned(&name) {
                Some(rule) => Err(FieldProblem::new(text, rule)),
                None => Ok(name),
            }
        };
        names.into_iter().map(check).collect::<Result<_, _>>().map(Self)
    }

    /// Check what a guest set, in its order, and give it in normal form.
    ///
    /// # Errors
    /// The first field that breaks a rule, with the rule.
    pub fn check<'a>(
        &self,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Vec<Header>, FieldProblem> {
        let mut checked: Vec<Header> = Vec::new();
        let mut bytes = 0_usize;
        for (text, value) in fields {
            let refuse = |rule| FieldProblem::new(text, rule);
            let name: FieldName = text.parse()?;
            if let Some(rule) = owned(&name) {
                return Err(refuse(rule));
            }
            if !ALWAYS_ALLOWED.contains(&name.as_str()) && !self.0.contains(&name) {
                return Err(refuse(FieldRule::NotGranted));
            }
            if SINGLE.contains(&name.as_str()) && checked.iter().any(|field| field.name == name.as_str()) {
                return Err(refuse(FieldRule::Twice));
            }
            let value = value_text(value).ok_or_else(|| refuse(FieldRule::Value))?;
            bytes = bytes.saturating_add(name.as_str().len() + value.len() + 4);
            if checked.len() >= FIELDS_MAX || bytes > FIELDS_MAX_BYTES {
                return Err(refuse(FieldRule::TooMany));
            }
            checked.push(Header { name: name.into(), value });
        }
        Ok(checked)
    }
}

/// A value in normal form: without blanks at its ends; none if it has a character that fields must not have.
#[must_use]
pub fn value_text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.trim_matches([' ', '\t']);
    text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)).then(|| text.to_owned())
}

/// Which field breaks which rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header field `{name}` {rule}")]
pub struct FieldProblem {
    /// The name as it was given, escaped and shortened to 80 characters.
    pub name: String,
    /// The rule.
    pub rule: FieldRule,
}

impl FieldProblem {
    /// A problem with a field of this name.
    #[must_use]
    pub fn new(name: &str, rule: FieldRule) -> Self {
        Self { name: name.escape_debug().take(80).collect(), rule }
    }
}

/// The rules of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldRule {
    /// Not a token.
    #[error("has no valid name: write letters, digits and hyphens, at most {FIELD_NAME_MAX_BYTES}")]
    Name,
    /// A control character or something beyond ASCII.
    #[error("has a value with a control character or something beyond ASCII")]
    Value,
    /// Frames the message or belongs to the connection.
    #[error("belongs to the connection; the host sets it")]
    Framing,
    /// Names the request for the endpoint.
    #[error("is derived by the host, so that a request is never sent twice")]
    Key,
    /// Carries a credential.
    #[error("carries a credential; name a secret in the grant instead")]
    Credential,
    /// Makes a server take the request for another one.
    #[error("would make the server act on another method or path than the granted one")]
    Override,
    /// Neither always allowed nor listed.
    #[error("is not allowed; list it in `headers` of the grant")]
    NotGranted,
    /// A second value where one is meant.
    #[error("is given twice")]
    Twice,
    /// Too many fields, or too long in all.
    #[error("is one too many: at most {FIELDS_MAX} fields and {FIELDS_MAX_BYTES} bytes")]
    TooMany,
    /// A secret goes there.
    #[error("is where a secret goes")]
    Slot,
    /// It would let parts of a secret pass the redaction.
    #[error("cannot be sent together with a secret: parts or encodings of an answer hide an echoed secret")]
    WithSecret,
}

#[cfg(test)]
mod tests;
