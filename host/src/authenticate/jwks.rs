//! The keys of an issuer (JWK Set, RFC 7517 and RFC 7518): public keys, each for one algorithm, found by its id.
//!
//! A key says itself what it is for; where it does not, its type says it. Symmetric keys, private parts, short RSA keys and
//! two keys of one id refuse the whole set: whoever publishes such a set has made a mistake that nobody should build on.
//! Keys of types that are not used here are passed over.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toolkeep_core::json;

use super::jws::{Rejected, Statement};

/// Largest key set, in bytes.
pub(super) const KEY_SET_MAX_BYTES: u64 = 256 * 1024;
/// Most keys of a set.
pub(super) const KEYS_MAX: usize = 64;
/// Longest id of a key, in bytes.
const KEY_ID_MAX_BYTES: usize = 256;
/// Bytes of a coordinate of P-256 and of a key of Ed25519.
const POINT_BYTES: usize = 32;
/// Bytes of the shortest modulus of RSA: 2,048 bits.
const MODULUS_MIN_BYTES: usize = 256;

/// How statements may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA over P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA of PKCS #1 v1.5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];

    /// How it is written in headers and keys.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

#[derive(Debug)]
enum Material {
    Ed25519(Vec<u8>),
    P256(Vec<u8>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

/// A public key for one algorithm.
#[derive(Debug)]
pub(super) struct Key {
    algorithm: Algorithm,
    material: Material,
}

impl Key {
    /// Whether a statement is signed by it.
    pub(super) fn check(&self, statement: &Statement<'_>) -> Result<(), Rejected> {
        if statement.algorithm != self.algorithm.word() {
            return Err(Rejected::Algorithm);
        }
        let (message, signature) = (statement.signed.as_bytes(), statement.signature.as_slice());
        let fits = match &self.material {
            Material::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            Material::P256(key) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature),
            Material::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        };
        fits.map_err(|_| Rejected::Signature)
    }
}

/// The keys of one issuer.
#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<String, Key>);

/// Why a key set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key set is refused: {0}")]
pub(super) struct BadKeys(String);

impl Keys {
    /// The key of this id.
    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Read a set, for these algorithms only.
    pub(super) fn read(text: &[u8], allowed: &[Algorithm]) -> Result<Self, BadKeys> {
        if text.len() as u64 > KEY_SET_MAX_BYTES {
            return Err(BadKeys("it is larger than 256 KiB".to_owned()));
        }
        let set = json::parse(text).map_err(|error| BadKeys(error.to_string()))?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or_else(|| BadKeys("it has no `keys`".to_owned()))?;
        if listed.len() > KEYS_MAX {
            return Err(BadKeys(format!("it has {} keys; at most {KEYS_MAX} are read", listed.len())));
        }
        let mut keys = HashMap::new();
        for (at, key) in listed.iter().enumerate() {
            let bad = |problem: &str| BadKeys(format!("key {at}: {problem}"));
            let members = key.as_object().ok_or_else(|| bad("is not an object"))?;
            let Some((id, key)) = read_key(members, allowed).map_err(|problem| bad(&problem))? else { continue };
            if keys.insert(id, key).is_some() {
                return Err(bad("has the `kid` of another one"));
            }
        }
        Ok(Self(keys))
    }
}

fn text<'k>(key: &'k Map<String, Value>, name: &str) -> Result<Option<&'k str>, String> {
    match key.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{name}` is not a text")),
    }
}

fn bytes(key: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = text(key, name)?.ok_or_else(|| format!("`{name}` is missing"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("`{name}` is not base64url without padding"))
}

fn point(key: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let bytes = bytes(key, name)?;
    if bytes.len() == POINT_BYTES { Ok(bytes) } else { Err(format!("`{name}` has not {POINT_BYTES} bytes")) }
}

/// A key with its id; nothing for one that is for something else.
fn read_key(key: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Option<(String, Key)>, String> {
    if let Some(private) = ["d", "p", "q", "dp", "dq", "qi", "k"].iter().find(|name| key.contains_key(**name)) {
        return Err(format!("`{private}` is secret and has no place in a key set; replace the key"));
    }
    let other_use = text(key, "use")?.is_some_and(|used| used != "sig");
    let other_operation = match key.get("key_ops") {
        None => false,
        Some(Value::Array(operations)) => !operations.iter().any(|operation| operation == "verify"),
        Some(_) => return Err("`key_ops` is not a list".to_owned()),
    };
    let kind = text(key, "kty")?.ok_or("`kty` is missing")?;
    let curve = text(key, "crv")?;
    let algorithm = match (kind, curve) {
        ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
        ("EC", Some("P-256")) => Algorithm::Es256,
        ("RSA", None) => Algorithm::Rs256,
        ("oct", _) => return Err("it is symmetric; whoever checks with it could also sign".to_owned()),
        _ => return Ok(None),
    };
    let named = text(key, "alg")?;
    // The newer name of EdDSA with Ed25519 (RFC 9864) is the same key.
    let fits =
        named.is_none_or(|named| named == algorithm.word() || (algorithm == Algorithm::EdDsa && named == "Ed25519"));
    if other_use || other_operation || !fits || !allowed.contains(&algorithm) {
        return Ok(None);
    }
    let id = text(key, "kid")?.filter(|id| (1..=KEY_ID_MAX_BYTES).contains(&id.len()));
    let id = id.ok_or("`kid` is missing, empty or too long; a token names its key by it")?;
    let material = match algorithm {
        Algorithm::EdDsa => Material::Ed25519(point(key, "x")?),
        Algorithm::Es256 => Material::P256([vec![4], point(key, "x")?, point(key, "y")?].concat()),
        Algorithm::Rs256 => {
            let (n, e) = (bytes(key, "n")?, bytes(key, "e")?);
            let zero_first = |number: &[u8]| number.first().is_none_or(|first| *first == 0);
            if zero_first(&n) || zero_first(&e) {
                return Err("`n` or `e` is empty or begins with a zero".to_owned());
            }
            if n.len() < MODULUS_MIN_BYTES {
                return Err("`n` has less than 2048 bits".to_owned());
            }
            Material::Rsa { n, e }
        }
    };
    Ok(Some((id.to_owned(), Key { algorithm, material })))
}
