//! Signatures of webhooks, as Standard Webhooks 1.0 defines them (symmetric form, `v1`).
//!
//! HMAC-SHA256 over `id.timestamp.body`, in Base64. While a key is rotated a request carries one signature for each key,
//! so that receivers change over when they like.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes of a signing key: at least 192 and at most 512 bits.
pub const SIGNING_KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// What a written key starts with.
const PREFIX: &str = "whsec_";

/// Why a text is not a signing key. It never holds any of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret is not a signing key: write `whsec_` and the Base64 of 24 to 64 random bytes")]
pub struct NotASigningKey;

/// A key that signs. It cannot be shown.
#[expect(missing_debug_implementations, reason = "a key that can be printed will be")]
pub struct SigningKey(Zeroizing<Vec<u8>>);

impl SigningKey {
    /// A key in its written form, `whsec_…`.
    ///
    /// # Errors
    /// Another form, or a length that is not in [`SIGNING_KEY_BYTES`].
    pub fn parse(text: &[u8]) -> Result<Self, NotASigningKey> {
        let written = text.strip_prefix(PREFIX.as_bytes()).ok_or(NotASigningKey)?;
        let bytes = Zeroizing::new(STANDARD.decode(written).map_err(|_| NotASigningKey)?);
        if SIGNING_KEY_BYTES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(NotASigningKey) }
    }

    fn sign(&self, parts: [&[u8]; 3]) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for (place, part) in parts.into_iter().enumerate() {
            if place > 0 {
                mac.update(b".");
            }
            mac.update(part);
        }
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

/// The value of `webhook-signature`: one signature for each key, newest key first, separated by blanks. `seconds` is what
/// `webhook-timestamp` says.
#[must_use]
pub fn signatures(keys: &[SigningKey], id: &str, seconds: u64, body: &[u8]) -> String {
    let seconds = seconds.to_string();
    let signed = keys.iter().filter_map(|key| key.sign([id.as_bytes(), seconds.as_bytes(), body]));
    signed.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_has_its_signature() {
        let key = SigningKey::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap_or_else(|e| panic!("{e}"));
        let signed = signatures(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_key_of_a_rotation_signs() {
        let keys: Vec<SigningKey> =
            [[1_u8; 24], [2; 24]].iter().filter_map(|key| SigningKey::parse(written(key).as_bytes()).ok()).collect();
        let signed = signatures(&keys, "msg_1", 7, b"{}");
        let (one, two) = signed.split_once(' ').expect("two");
        assert!(one.starts_with("v1,") && two.starts_with("v1,") && one != two);
    }

    fn written(key: &[u8]) -> String {
        format!("{PREFIX}{}", STANDARD.encode(key))
    }

    #[test]
    fn keys_are_tested_at_their_bounds() {
        for (length, fits) in [(23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(SigningKey::parse(written(&vec![1; length]).as_bytes()).is_ok(), fits, "{length}");
        }
        for wrong in [b"".as_slice(), b"whsec_", b"whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b"whsec_!!!!"] {
            assert!(SigningKey::parse(wrong).is_err());
        }
    }
}
