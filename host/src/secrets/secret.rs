//! The value of a secret. It cannot be shown, written, compared in a time that tells something, or left in memory.
//!
//! There is no `Debug`, `Display`, `Serialize` or `Clone`; the bytes come out only towards a header field and towards
//! the redactor. What a kernel, a TLS session or a socket buffer keeps of a request that was sent is out of reach.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::Slot;

/// Longest secret, in bytes: twice a large token, half of what all fields of a request may have.
pub const SECRET_MAX_BYTES: usize = 16 * 1024;
/// Shortest secret, in bytes: shorter ones can be guessed, and to redact them would punch holes into ordinary text.
pub const SECRET_MIN_BYTES: usize = 8;

/// The value of a secret.
///
/// It cannot be printed:
///
/// ```compile_fail
/// fn shown(secret: &toolkeep::secrets::Secret) -> String {
///     format!("{secret:?}")
/// }
/// ```
#[expect(missing_debug_implementations, reason = "a secret that can be printed will be")]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why bytes are not a secret. The text never has any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotASecret {
    /// Nothing, or blanks.
    #[error("it is blank")]
    Blank,
    /// Less than [`SECRET_MIN_BYTES`].
    #[error("it is shorter than {SECRET_MIN_BYTES} bytes, too short to be redacted safely")]
    TooShort,
    /// More than [`SECRET_MAX_BYTES`].
    #[error("it is longer than {SECRET_MAX_BYTES} bytes")]
    TooLong,
    /// A character that a header field cannot carry.
    #[error("it has a line break, another control character or something beyond ASCII")]
    Character,
    /// Not `user:password`.
    #[error("it is not `user:password`, which the slot `basic` needs")]
    NotBasic,
}

impl Secret {
    /// From what a source gave. One line break at the end is the editor's and is dropped.
    ///
    /// # Errors
    /// Blank, too short, too long, or not visible ASCII.
    pub fn new(mut bytes: Zeroizing<Vec<u8>>) -> Result<Self, NotASecret> {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(NotASecret::Blank);
        }
        if !bytes.iter().all(|b| (b' '..=b'~').contains(b))
            || bytes.first() == Some(&b' ')
            || bytes.last() == Some(&b' ')
        {
            return Err(NotASecret::Character);
        }
        match bytes.len() {
            0..SECRET_MIN_BYTES => Err(NotASecret::TooShort),
            SECRET_MIN_BYTES..=SECRET_MAX_BYTES => Ok(Self(bytes)),
            _ => Err(NotASecret::TooLong),
        }
    }

    /// Whether these are its bytes, in a time that depends on the lengths only.
    #[must_use]
    pub fn is(&self, other: &[u8]) -> bool {
        let differs = self.0.iter().zip(other).fold(0_u8, |seen, (a, b)| std::hint::black_box(seen | (a ^ b)));
        (self.0.len() == other.len()) & (differs == 0)
    }

    /// The value of the header field for a slot; wiped from memory when its last copy is dropped.
    pub(crate) fn field_value(&self, slot: &Slot) -> Result<HeaderValue, NotASecret> {
        let text = match slot {
            Slot::Bearer => prefixed(b"Bearer ", &self.0),
            Slot::Basic => {
                self.password().ok_or(NotASecret::NotBasic)?;
                let encoded = Zeroizing::new(STANDARD.encode(self.0.as_slice()));
                prefixed(b"Basic ", encoded.as_bytes())
            }
            Slot::Header(_) => prefixed(b"", &self.0),
        };
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).map_err(|_| NotASecret::Character)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The bytes themselves, for a channel that signs or logs in with them.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What follows the first colon, for a slot that needs `user:password`.
    fn password(&self) -> Option<&[u8]> {
        let at = self.0.iter().position(|b| *b == b':')?;
        self.0.get(at + 1..).filter(|password| password.len() >= SECRET_MIN_BYTES)
    }

    /// The texts that must not be seen anywhere: the whole, and of `user:password` the password.
    pub(super) fn needles(&self, slot: &Slot) -> Vec<&[u8]> {
        let mut needles = vec![self.0.as_slice()];
        if *slot == Slot::Basic {
            needles.extend(self.password());
        }
        needles
    }
}

/// Two texts in one, in memory that is wiped and was never moved.
fn prefixed(prefix: &[u8], text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut whole = Zeroizing::new(Vec::with_capacity(prefix.len() + text.len()));
    whole.extend_from_slice(prefix);
    whole.extend_from_slice(text);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Result<Secret, NotASecret> {
        Secret::new(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn t_i4_a_blank_or_short_or_unsendable_value_is_no_secret() {
        for (text, wrong) in [
            ("", NotASecret::Blank),
            ("\n", NotASecret::Blank),
            (" \t \n", NotASecret::Blank),
            ("seven77", NotASecret::TooShort),
            ("two\nlines", NotASecret::Character),
            ("trailing\n\n", NotASecret::Character),
            ("carriage\rreturn", NotASecret::Character),
            (" leading blank", NotASecret::Character),
            ("trailing blank ", NotASecret::Character),
            ("pässwörter", NotASecret::Character),
            ("null\0inside", NotASecret::Character),
        ] {
            assert_eq!(secret(text).err(), Some(wrong), "{text:?}");
        }
        assert!(secret(&"s".repeat(SECRET_MIN_BYTES)).is_ok());
        assert!(secret(&"s".repeat(SECRET_MAX_BYTES)).is_ok());
        assert_eq!(secret(&"s".repeat(SECRET_MAX_BYTES + 1)).err(), Some(NotASecret::TooLong));
    }

    #[test]
    fn one_line_break_at_the_end_is_dropped_and_comparison_wants_every_byte() {
        for text in ["eight888", "eight888\n", "eight888\r\n"] {
            let secret = secret(text).expect("a secret");
            assert!(secret.is(b"eight888"), "{text:?}");
            for other in [&b"eight889"[..], b"eight88", b"eight8888", b""] {
                assert!(!secret.is(other));
            }
        }
    }

    #[test]
    fn a_secret_stands_in_its_slot_as_the_slot_wants_it() {
        let value = |text: &str, slot: &str| {
            let value = secret(text).expect("a secret").field_value(&slot.parse().expect("a slot"))?;
            assert!(value.is_sensitive(), "hyper must not print it either");
            Ok(value.to_str().expect("ASCII").to_owned())
        };
        assert_eq!(value("token-12345", "bearer").as_deref(), Ok("Bearer token-12345"));
        assert_eq!(value("user:password", "basic").as_deref(), Ok("Basic dXNlcjpwYXNzd29yZA=="));
        assert_eq!(value("token-12345", "header:x-api-key").as_deref(), Ok("token-12345"));
        assert_eq!(value("no-colon-in-it", "basic"), Err(NotASecret::NotBasic));
        assert_eq!(
            value("a-long-user:short", "basic"),
            Err(NotASecret::NotBasic),
            "a password that cannot be redacted"
        );
    }
}
