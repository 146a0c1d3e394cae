//! An issuer of signed statements for tests.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

/// What its statements have in `iss`.
pub(super) const ISSUER: &str = "https://login.example";

/// An issuer with one key.
pub(super) struct Signer {
    key: Ed25519KeyPair,
    id: String,
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    /// With a fresh key of this id.
    pub(super) fn new(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self { key: Ed25519KeyPair::from_pkcs8(pair.as_ref()).expect("a key"), id: id.to_owned() }
    }

    /// Its key as a set.
    pub(super) fn set(&self) -> String {
        let x = encoded(self.key.public_key().as_ref());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": x}]}).to_string()
    }

    /// A statement about somebody, good for ten minutes, with these members instead: null for none.
    pub(super) fn statement(&self, tenant: &str, user: &str, agent: &str, instead: &Value) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
        let mut claims = json!({"iss": ISSUER, "aud": "toolkeep", "iat": now, "exp": now + 600, "org": tenant,
            "sub": user, "client": agent});
        for (name, value) in instead.as_object().expect("members") {
            claims[name] = value.clone();
        }
        // What is null is left out.
        claims.as_object_mut().expect("claims").retain(|_, claim| !claim.is_null());
        let message = unsigned(&json!({"alg": "EdDSA", "kid": self.id, "typ": "JWT"}), &claims);
        format!("{message}.{}", encoded(self.key.sign(message.as_bytes()).as_ref()))
    }
}

/// Header and claims, without a signature.
pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()))
}

/// `[[issuer]]` with its keys there, for the tenants `acme`, `globex` and `local`.
pub(super) fn issuer(keys: &str) -> String {
    format!(
        "[[issuer]]\nname = \"corp\"\nissuer = \"{ISSUER}\"\naudience = \"toolkeep\"\n{keys}\ntenant_claim = \"org\"\n\
         tenants = [\"acme\", \"globex\", \"local\"]\nagent_claim = \"client\"\nrefresh_min_s = 1\n"
    )
}
