//! The text of a credential: what is shown once when it is minted, and hashed ever after.
//!
//! A text names its own record and carries 32 random bytes, so that it is found without a search and cannot be guessed. What
//! is kept is the SHA-256 of the whole text: with that much randomness nobody finds the text from it. The comparison
//! takes the same time whatever differs.

use std::fmt;

use toolkeep_core::digest::{DIGEST_BYTES, Digest};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::ambient::Ambient;

/// What every minted text starts with, so that scanners for leaked secrets can know it.
pub const PREFIX: &str = "tkp_";
/// Random bytes of a text.
pub const SECRET_BYTES: usize = 32;
/// Bytes of a text: prefix, id and secret in hexadecimal, and what separates them.
pub const TEXT_BYTES: usize = PREFIX.len() + 32 + 1 + 2 * SECRET_BYTES;

/// A text that was just made. It is wiped when it is dropped and shown by nobody but [`Self::reveal`].
pub struct Minted {
    text: Zeroizing<String>,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Minted(…)")
    }
}

impl Minted {
    /// A text for the record of this id.
    #[must_use]
    pub fn new(id: &Uuid, ambient: &Ambient) -> Self {
        let secret = Zeroizing::new(ambient.random::<SECRET_BYTES>());
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
        text.push_str(PREFIX);
        text.push_str(id.as_simple().encode_lower(&mut Uuid::encode_buffer()));
        text.push('_');
        for byte in secret.iter() {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
        Self { text }
    }

    /// The text, for the one answer that shows it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }
}

/// Whether a text claims to be one that was minted here.
#[must_use]
pub fn is_minted(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The record that a text names, and its hash. Nothing for what was never minted.
#[must_use]
pub fn read(text: &str) -> Option<(Uuid, Digest)> {
    let hexadecimal = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let fits = text.len() == TEXT_BYTES && id.len() == 32 && hexadecimal(id) && hexadecimal(secret);
    let id = fits.then(|| Uuid::try_parse(id).ok()).flatten()?;
    Some((id, Digest::of(text.as_bytes())))
}

/// Whether two hashes are the same, in a time that does not depend on where they differ.
#[must_use]
pub fn same(one: &Digest, other: &Digest) -> bool {
    let pairs = one.as_bytes().iter().zip(other.as_bytes());
    let differs = pairs.fold(0_u8, |differs, (one, other)| std::hint::black_box(differs | (one ^ other)));
    debug_assert_eq!(one.as_bytes().len(), DIGEST_BYTES);
    std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_i4_a_text_is_read_back_and_nothing_else_is() {
        let ambient = Ambient::real();
        let id = ambient.uuid_v7();
        let minted = Minted::new(&id, &ambient);
        let text = minted.reveal();
        assert_eq!(text.len(), TEXT_BYTES);
        assert_eq!(read(text), Some((id, minted.hash())));
        assert!(!format!("{minted:?}").contains(text.get(40..).expect("the secret")), "it shows nothing of the secret");
        let refused = [
            String::new(),
            PREFIX.to_owned(),
            text.to_uppercase(),
            format!("{text}0"),
            text.get(..TEXT_BYTES - 1).expect("all but one").to_owned(),
            text.replacen('_', "-", 2),
            format!(" {text}"),
        ];
        for wrong in refused {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn t_i4_hashes_are_compared_in_every_bit() {
        let one = Digest::of(b"one");
        assert!(same(&one, &one));
        for at in 0..DIGEST_BYTES * 8 {
            let mut bytes = *one.as_bytes();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(!same(&one, &Digest::from_bytes(bytes)), "bit {at}");
        }
    }

    #[test]
    fn t_i4_two_texts_are_never_the_same() {
        let ambient = Ambient::real();
        let id = ambient.uuid_v7();
        assert_ne!(Minted::new(&id, &ambient).hash(), Minted::new(&id, &ambient).hash());
    }
}
