//! Signed statements (JWT over JWS in compact form, RFC 7519 and RFC 7515), read strictly.
//!
//! What is signed says nothing about how it is checked: the algorithm belongs to the key, the key is found by its id among
//! those of the issuer, and every header by which a statement would bring or name a key of its own is refused (RFC 8725).
//! There is one spelling of everything: base64url without padding, JSON without duplicate keys, three parts.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use toolkeep_core::json;
use toolkeep_core::refusal::{Code, Refusal};

/// Longest statement, in bytes: those of large providers have two thousand.
pub const STATEMENT_MAX_BYTES: usize = 16 * 1024;
/// Headers by which a statement would bring its own key, its own rules or another form.
pub const HEADERS_REFUSED: [&str; 9] = ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc", "cty"];
/// What `typ` may say, in lower case (RFC 7519, RFC 9068).
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// Why a statement is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It has not the form of one.
    #[error("the token is not a signed statement: {0}")]
    Form(&'static str),
    /// A header is missing, wrong or not allowed.
    #[error("the token's header is refused: {0}")]
    Header(String),
    /// Nobody whom the configuration names has issued it.
    #[error("the token's `iss` is not an issuer of this daemon")]
    Issuer,
    /// The issuer has no such key, as far as is known now.
    #[error("the issuer has no key that the token's `kid` names")]
    Key {
        /// Whether the keys are being read again, so that another try may find it.
        again: bool,
    },
    /// The key is not for the algorithm that the header names.
    #[error("the token's `alg` is not that of its key")]
    Algorithm,
    /// The signature is not one of the key.
    #[error("the token's signature does not fit")]
    Signature,
    /// A claim is missing or wrong.
    #[error("the token's `{name}` {problem}")]
    Claim {
        /// Which.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    Early,
}

/// How long to wait for keys that are read again, in milliseconds.
const AGAIN_MS: u64 = 1_000;

impl Rejected {
    pub(super) fn claim(name: &str, problem: &'static str) -> Self {
        Self::Claim { name: name.to_owned(), problem }
    }

    /// As whoever showed it is told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let mut refusal = Refusal::new(Code::Unauthorized, self.to_string())
            .hint("get a fresh token from the issuer; `[[issuer]]` in the configuration says what it has to carry");
        if let Self::Key { again: true } = self {
            refusal.retryable = true;
            refusal =
                refusal.hint("the issuer's keys are being read again: show the token once more").after_ms(AGAIN_MS);
        }
        refusal
    }
}

/// A statement that was taken apart and not checked.
#[derive(Debug)]
pub(super) struct Statement<'t> {
    /// What the signature is over.
    pub(super) signed: &'t str,
    /// The signature.
    pub(super) signature: Vec<u8>,
    /// The algorithm that the header names.
    pub(super) algorithm: String,
    /// The key that the header names.
    pub(super) key: String,
    /// What is stated.
    pub(super) claims: Map<String, Value>,
}

fn decoded(part: &str) -> Result<Vec<u8>, Rejected> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Rejected::Form("a part is not base64url without padding"))
}

fn object(part: &str) -> Result<Map<String, Value>, Rejected> {
    match json::parse(&decoded(part)?) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) | Err(_) => Err(Rejected::Form("header and claims have to be JSON objects without duplicate keys")),
    }
}

/// Take a statement apart.
pub(super) fn read(text: &str) -> Result<Statement<'_>, Rejected> {
    if text.len() > STATEMENT_MAX_BYTES {
        return Err(Rejected::Form("it is longer than 16 KiB"));
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(Rejected::Form("it has not three parts"))?;
    let (header, claims) = signed.split_once('.').ok_or(Rejected::Form("it has not three parts"))?;
    if claims.contains('.') {
        return Err(Rejected::Form("it has more than three parts"));
    }
    let header = object(header)?;
    if let Some(name) = HEADERS_REFUSED.iter().find(|name| header.contains_key(**name)) {
        return Err(Rejected::Header(format!("`{name}` is not allowed")));
    }
    let named = |name: &str| match header.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(_) => Err(Rejected::Header(format!("`{name}` is not a text"))),
        None => Err(Rejected::Header(format!("`{name}` is missing"))),
    };
    if header.contains_key("typ") && !TYPES.contains(&named("typ")?.to_ascii_lowercase().as_str()) {
        return Err(Rejected::Header("`typ` is not `JWT`".to_owned()));
    }
    let (algorithm, key) = (named("alg")?, named("kid")?);
    let signature = decoded(signature)?;
    if signature.is_empty() {
        return Err(Rejected::Form("it is not signed"));
    }
    Ok(Statement { signed, signature, algorithm, key, claims: object(claims)? })
}
