//! age files (C2SP `age.md`, version 1) for X25519 recipients: wrapping a key for operators, and unwrapping it for one of them.
//!
//! Only what a data key needs: one chunk of payload, recipients and identities of X25519. What this writes opens with the
//! tools that people have for age, and what those write for a key opens here. Primitives are those of the libraries that
//! are here anyway; there are no passphrases and no plugins, and a file with anything unexpected is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use curve25519_dalek::montgomery::MontgomeryPoint;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::hmac;
use zeroize::Zeroizing;

use super::VaultError;
use super::bech32;
use crate::ambient::Ambient;

/// The first line of every file.
const INTRO: &str = "age-encryption.org/v1";
/// What keys of stanzas are derived for.
const STANZA_INFO: &str = "age-encryption.org/v1/X25519";
/// Human-readable parts (section "The X25519 recipient type").
const RECIPIENT_HRP: &str = "age";
const IDENTITY_HRP: &str = "age-secret-key-";
/// Bytes of a file key.
const FILE_KEY_BYTES: usize = 16;
/// Bytes of the nonce before a payload.
const PAYLOAD_NONCE_BYTES: usize = 16;
/// Bytes of a key of X25519, and of ChaCha20-Poly1305.
pub(super) const POINT_BYTES: usize = 32;
/// Bytes of a tag of Poly1305.
const TAG_BYTES: usize = 16;
/// Characters of a full line of a stanza; a shorter one ends it.
const STANZA_COLUMNS: usize = 64;
/// Stanzas of one file that are tried: a file has one for each recipient.
const STANZAS_MAX: usize = 64;

type Point = [u8; POINT_BYTES];

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Recipient(Point);

/// A private key.
pub(super) struct Identity(Zeroizing<Point>);

impl Recipient {
    /// `age1...`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let bytes = bech32::decode(RECIPIENT_HRP, text)?;
        // A text in capitals is the same to bech32, and is not what anybody's tool prints.
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        Point::try_from(bytes.as_slice()).ok().filter(|_| lower).map(Self)
    }

    pub(super) fn text(&self) -> String {
        bech32::encode(RECIPIENT_HRP, &self.0)
    }
}

impl Identity {
    pub(super) fn new(secret: Point) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// `AGE-SECRET-KEY-1...`.
    pub(super) fn read(text: &str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        let bytes = Zeroizing::new(bech32::decode(IDENTITY_HRP, text)?);
        Point::try_from(bytes.as_slice()).ok().map(Self::new)
    }

    pub(super) fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(bech32::encode(IDENTITY_HRP, self.0.as_slice()).to_ascii_uppercase())
    }

    pub(super) fn recipient(&self) -> Recipient {
        Recipient(MontgomeryPoint::mul_base_clamped(*self.0).to_bytes())
    }
}

/// A length that keys are derived in.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA-256 (RFC 5869).
fn derived(secret: &[u8], salt: &[u8], info: &str) -> Result<Zeroizing<Point>, VaultError> {
    let mut key = Zeroizing::new([0; POINT_BYTES]);
    let pseudorandom = Salt::new(HKDF_SHA256, salt).extract(secret);
    let info = [info.as_bytes()];
    let expanded = pseudorandom.expand(&info, Bytes(POINT_BYTES)).map_err(|_| VaultError::Wrap)?;
    expanded.fill(key.as_mut_slice()).map_err(|_| VaultError::Wrap)?;
    Ok(key)
}

fn cipher(key: &Point) -> Result<LessSafeKey, VaultError> {
    UnboundKey::new(&CHACHA20_POLY1305, key).map(LessSafeKey::new).map_err(|_| VaultError::Wrap)
}

fn sealed(key: &Point, nonce: [u8; NONCE_LEN], text: &[u8]) -> Result<Vec<u8>, VaultError> {
    let mut body = text.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    cipher(key)?.seal_in_place_append_tag(nonce, Aad::empty(), &mut body).map_err(|_| VaultError::Wrap)?;
    Ok(body)
}

fn opened(key: &Point, nonce: [u8; NONCE_LEN], body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut body = Zeroizing::new(body.to_vec());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let text = cipher(key).ok()?.open_in_place(nonce, Aad::empty(), body.as_mut_slice()).ok()?.len();
    body.truncate(text);
    Some(body)
}

/// What both sides of a stanza compute; nothing where the peer's point has a small order.
fn agreed(secret: &Point, peer: &Point, share: &Point, recipient: &Point) -> Option<Zeroizing<Point>> {
    let shared = Zeroizing::new(MontgomeryPoint(*peer).mul_clamped(*secret).to_bytes());
    if *shared == [0; POINT_BYTES] {
        return None;
    }
    derived(shared.as_slice(), &[share.as_slice(), recipient].concat(), STANZA_INFO).ok()
}

/// The nonce of the only chunk of a payload, which is the last.
const fn last_chunk() -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 1] = 1;
    nonce
}

fn header_mac(file_key: &[u8], header: &str) -> Result<Vec<u8>, VaultError> {
    let key = derived(file_key, &[], "header")?;
    Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()), header.as_bytes()).as_ref().to_vec())
}

/// Encrypt a few bytes to recipients.
///
/// # Errors
/// A recipient is a point of small order.
pub(super) fn encrypt(recipients: &[Recipient], text: &[u8], ambient: &Ambient) -> Result<Vec<u8>, VaultError> {
    let file_key = Zeroizing::new(ambient.random::<FILE_KEY_BYTES>());
    let mut header = format!("{INTRO}\n");
    for Recipient(recipient) in recipients {
        let secret = Zeroizing::new(ambient.random::<POINT_BYTES>());
        let share = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        let key = agreed(&secret, recipient, &share, recipient).ok_or(VaultError::BadRecipient)?;
        let body = sealed(&key, [0; NONCE_LEN], file_key.as_slice())?;
        // The body is shorter than a full line, so that it ends the stanza.
        header.push_str(&format!("-> X25519 {}\n{}\n", BASE64.encode(share), BASE64.encode(body)));
    }
    header.push_str("---");
    let mac = header_mac(file_key.as_slice(), &header)?;
    let nonce = ambient.random::<PAYLOAD_NONCE_BYTES>();
    let key = derived(file_key.as_slice(), &nonce, "payload")?;
    let body = sealed(&key, last_chunk(), text)?;
    Ok([header.as_bytes(), b" ", BASE64.encode(mac).as_bytes(), b"\n", &nonce, &body].concat())
}

/// The lines of a header up to its end, the code of it, and the payload.
fn parts(file: &[u8]) -> Option<(&str, &str, &[u8])> {
    let end = file.windows(5).position(|window| window == b"\n--- ")?;
    let (head, rest) = file.split_at_checked(end + 1)?;
    let line = rest.iter().position(|byte| *byte == b'\n')?;
    let (last, payload) = rest.split_at_checked(line)?;
    let mac = std::str::from_utf8(last).ok()?.strip_prefix("--- ")?;
    Some((std::str::from_utf8(head).ok()?, mac, payload.get(1..)?))
}

/// The file key, if one of the stanzas is for one of the identities.
fn file_key(head: &str, identities: &[Identity]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut lines = head.lines();
    if lines.next() != Some(INTRO) {
        return Err(VaultError::Changed);
    }
    let mut stanzas = 0;
    while let Some(line) = lines.next() {
        let Some(arguments) = line.strip_prefix("-> ") else { return Err(VaultError::Changed) };
        let mut body = String::new();
        loop {
            let line = lines.next().ok_or(VaultError::Changed)?;
            body.push_str(line);
            if line.len() < STANZA_COLUMNS {
                break;
            }
        }
        stanzas += 1;
        if stanzas > STANZAS_MAX {
            return Err(VaultError::Changed);
        }
        // Stanzas of other kinds are of other people.
        let Some(share) = arguments.strip_prefix("X25519 ") else { continue };
        let share = BASE64.decode(share).ok().and_then(|bytes| Point::try_from(bytes.as_slice()).ok());
        let body = BASE64.decode(body).ok().filter(|body| body.len() == FILE_KEY_BYTES + TAG_BYTES);
        let (Some(share), Some(body)) = (share, body) else { return Err(VaultError::Changed) };
        for identity in identities {
            let recipient = identity.recipient();
            let key = agreed(&identity.0, &share, &share, &recipient.0);
            if let Some(found) = key.and_then(|key| opened(&key, [0; NONCE_LEN], &body)) {
                return Ok(found);
            }
        }
    }
    Err(VaultError::OtherIdentity)
}

/// Decrypt what [`encrypt`] wrote, or another tool for as few bytes.
///
/// # Errors
/// None of the identities is a recipient, or the file was changed.
pub(super) fn decrypt(identities: &[Identity], file: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let (head, mac, payload) = parts(file).ok_or(VaultError::Changed)?;
    let file_key = file_key(head, identities)?;
    let wanted = header_mac(&file_key, &format!("{head}---"))?;
    if BASE64.decode(mac).ok().as_ref() != Some(&wanted) {
        return Err(VaultError::Changed);
    }
    let (nonce, body) = payload.split_at_checked(PAYLOAD_NONCE_BYTES).ok_or(VaultError::Changed)?;
    let key = derived(&file_key, nonce, "payload")?;
    opened(&key, last_chunk(), body).ok_or(VaultError::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bob's keys are those of RFC 7748, section 6.1; what the two agree on was computed by another implementation.
    #[test]
    fn agreement_is_that_of_the_standard() {
        let hex = |text: &str| -> Point {
            let bytes: Vec<u8> = (0..32)
                .map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2).expect("hex"), 16).expect("hex"))
                .collect();
            bytes.try_into().expect("32 bytes")
        };
        let alice = Identity::new(hex("77076d0a7318a57d3c16c17251b26645df4c2f92ebc0992ac177fba51db92c2a"));
        let bob = Identity::new(hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(bob.recipient().0, hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let one = MontgomeryPoint(bob.recipient().0).mul_clamped(*alice.0);
        let other = MontgomeryPoint(alice.recipient().0).mul_clamped(*bob.0);
        assert_eq!(one, other);
        assert_eq!(one.to_bytes(), hex("ec555394277877e3ef665c2af39d396d8572f112cc8ce2af0972cb6a3989406d"));
    }

    #[test]
    fn r42_every_changed_byte_of_a_file_is_refused() {
        let ambient = Ambient::real();
        let identity = [Identity::new([7; POINT_BYTES])];
        let file = encrypt(&[identity[0].recipient()], b"a key", &ambient).expect("encrypted");
        assert_eq!(decrypt(&identity, &file).expect("opened").as_slice(), b"a key");
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(decrypt(&identity, &changed).is_err(), "byte {at}");
            assert!(decrypt(&identity, &file[..at]).is_err(), "cut at {at}");
        }
        let small = Recipient([0; POINT_BYTES]);
        assert_eq!(encrypt(&[small], b"x", &ambient), Err(VaultError::BadRecipient));
    }
}
