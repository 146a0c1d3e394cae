//! Payloads that only operators can read: how a text is sealed, and how the key that seals it is handed to them.
//!
//! A text is sealed with AES-256-GCM under a data key. The data key is wrapped once for the operators, as an age file to
//! their X25519 recipients, and once for the daemon, which throws its copy away when it needs the texts no more. This
//! module knows the form alone: which key is used when, and how long the daemon keeps its copy, is the ledger's business.
//! Nothing here reads files or the clock, and the identity that opens for operators never reaches the daemon.

mod age;
mod bech32;

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use toolkeep_core::digest::Digest;
use toolkeep_core::hex;
use zeroize::Zeroizing;

use crate::ambient::Ambient;

/// Bytes of a key of AES-256.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce of GCM (RFC 5116, section 5.2): random, because no key seals more than one tenant's texts of one day.
pub const NONCE_BYTES: usize = NONCE_LEN;
/// Bytes of the name of a data key.
const ID_BYTES: usize = 8;
/// What every sealed text starts with. No JSON does, so that a clear text is never taken for one.
const PREFIX: &str = "tk1.";
/// Lines of a file of identities that are looked at: a person has a few.
const IDENTITIES_MAX_LINES: usize = 1_024;
/// Most recipients of a configuration: every data key is wrapped for each of them.
pub const RECIPIENTS_MAX: usize = 16;

/// Why something is not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// A recipient cannot be read.
    #[error("is not an age recipient; write what `toolkeep audit keygen` or `age-keygen` prints, `age1...`")]
    BadRecipient,
    /// There are none, or too many.
    #[error("names no recipient, or more than {RECIPIENTS_MAX}")]
    Recipients,
    /// The file has no identity.
    #[error(
        "the file has no age identity; it is the one that `toolkeep audit keygen` or `age-keygen` wrote, with a line `AGE-SECRET-KEY-1...`"
    )]
    NoIdentity,
    /// None of the identities opens the key.
    #[error("this identity is none of those that the payload was encrypted to")]
    OtherIdentity,
    /// The text is not what was sealed.
    #[error("the payload is not what was sealed: it was changed, or is damaged")]
    Changed,
    /// A primitive failed.
    #[error("BUG: a data key could not be wrapped")]
    Wrap,
}

/// Which part of a call a text is. A sealed text opens as the part that it was sealed as, and as no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The canonical input.
    Input,
    /// The reply.
    Reply,
    /// An output that was too long for the reply.
    Output,
    /// The recording.
    Recording,
    /// The reply that a commit gives when it is applied.
    Done,
    /// What another system answered to a request.
    Answer,
    /// What a call that waits is given when it goes on.
    Given,
}

impl Part {
    /// What a break-glass read shows, in this order.
    pub const SHOWN: [Self; 4] = [Self::Input, Self::Reply, Self::Output, Self::Recording];

    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Reply => "reply",
            Self::Output => "output",
            Self::Recording => "recording",
            Self::Done => "done",
            Self::Answer => "answer",
            Self::Given => "given",
        }
    }

    /// The part of this name.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::Input, Self::Reply, Self::Output, Self::Recording, Self::Done, Self::Answer, Self::Given]
            .into_iter()
            .find(|p| p.word() == word)
    }
}

/// Names a data key; says nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID_BYTES]);

impl KeyId {
    /// A name from random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// The key that a text is sealed under; nothing for a clear text.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        text.strip_prefix(PREFIX)?.split_once('.')?.0.parse().ok()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::text(&self.0))
    }
}

impl FromStr for KeyId {
    type Err = VaultError;

    fn from_str(text: &str) -> Result<Self, VaultError> {
        let digits = text.len() == 2 * ID_BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(|number| Self(number.to_be_bytes())).ok_or(VaultError::Changed)
    }
}

/// A key that seals texts.
pub struct DataKey {
    id: KeyId,
    cipher: LessSafeKey,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn aad(id: KeyId, part: &str) -> Aad<Vec<u8>> {
    Aad::from([b"toolkeep.payload.v1:".as_slice(), &id.0, part.as_bytes()].concat())
}

impl DataKey {
    /// The key of these bytes; nothing if they are not [`KEY_BYTES`].
    #[must_use]
    pub fn new(id: KeyId, bytes: &[u8]) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).ok()?;
        Some(Self { id, cipher: LessSafeKey::new(key) })
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Seal a text. The nonce is used once.
    ///
    /// # Errors
    /// The text is longer than GCM allows: nothing is written then.
    pub fn seal(&self, part: Part, text: &str, nonce: [u8; NONCE_BYTES]) -> Result<String, VaultError> {
        let bytes = self.seal_bytes(part.word(), text.as_bytes(), nonce)?;
        Ok(format!("{PREFIX}{}.{}", self.id, STANDARD_NO_PAD.encode(bytes)))
    }

    /// Open a text that was sealed as this part.
    ///
    /// # Errors
    /// It was changed, is another part, or is sealed under another key.
    pub fn open(&self, part: Part, sealed: &str) -> Result<String, VaultError> {
        let rest = sealed.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.'));
        let (id, body) = rest.ok_or(VaultError::Changed)?;
        if id.parse() != Ok(self.id) {
            return Err(VaultError::Changed);
        }
        let bytes = STANDARD_NO_PAD.decode(body).map_err(|_| VaultError::Changed)?;
        String::from_utf8(self.open_bytes(part.word(), &bytes)?).map_err(|_| VaultError::Changed)
    }

    /// Wrap another key for whoever has this one.
    ///
    /// # Errors
    /// Never for a key.
    pub fn wrap(&self, key: &[u8; KEY_BYTES], nonce: [u8; NONCE_BYTES]) -> Result<Vec<u8>, VaultError> {
        self.seal_bytes("key", key, nonce)
    }

    /// Unwrap a key that was wrapped by [`DataKey::wrap`].
    ///
    /// # Errors
    /// It was changed.
    pub fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open_bytes("key", wrapped).map(Zeroizing::new)
    }

    fn seal_bytes(&self, part: &str, text: &[u8], nonce: [u8; NONCE_BYTES]) -> Result<Vec<u8>, VaultError> {
        let mut body = text.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.cipher.seal_in_place_append_tag(unique, aad(self.id, part), &mut body).map_err(|_| VaultError::Changed)?;
        Ok([nonce.as_slice(), &body].concat())
    }

    fn open_bytes(&self, part: &str, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let (nonce, body) = sealed.split_at_checked(NONCE_BYTES).ok_or(VaultError::Changed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Changed)?;
        let mut body = body.to_vec();
        let opened = self.cipher.open_in_place(nonce, aad(self.id, part), &mut body);
        opened.map(|text| text.to_vec()).map_err(|_| VaultError::Changed)
    }
}

/// The operators that payloads are encrypted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipients(Vec<age::Recipient>);

impl Recipients {
    /// Recipients as people write them.
    ///
    /// # Errors
    /// One is not a recipient of age, or their number is out of bounds.
    pub fn of(texts: &[String]) -> Result<Self, VaultError> {
        if texts.is_empty() || texts.len() > RECIPIENTS_MAX {
            return Err(VaultError::Recipients);
        }
        let read = |text: &String| age::Recipient::read(text.trim()).ok_or(VaultError::BadRecipient);
        let mut recipients: Vec<age::Recipient> = texts.iter().map(read).collect::<Result<_, _>>()?;
        recipients.sort_unstable();
        recipients.dedup();
        Ok(Self(recipients))
    }

    /// Names exactly these recipients.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let texts: Vec<String> = self.0.iter().map(age::Recipient::text).collect();
        Digest::of(texts.join("\n").as_bytes())
    }

    /// Wrap a key for each of them: an age file.
    ///
    /// # Errors
    /// A recipient is no point that anybody has the secret of.
    pub fn wrap(&self, key: &[u8; KEY_BYTES], ambient: &Ambient) -> Result<Vec<u8>, VaultError> {
        age::encrypt(&self.0, key, ambient)
    }
}

/// What opens for an operator: the identities of one file. It is read where the operator is, and stays there.
pub struct Identities(Vec<age::Identity>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").finish_non_exhaustive()
    }
}

impl Identities {
    /// The identities of a file, as `toolkeep audit keygen` and `age-keygen` write it.
    ///
    /// # Errors
    /// It has none.
    pub fn of(text: &str) -> Result<Self, VaultError> {
        let lines = text.lines().take(IDENTITIES_MAX_LINES).map(str::trim);
        let found: Vec<age::Identity> = lines.filter_map(age::Identity::read).collect();
        if found.is_empty() { Err(VaultError::NoIdentity) } else { Ok(Self(found)) }
    }

    /// The data key that was wrapped by [`Recipients::wrap`].
    ///
    /// # Errors
    /// It was wrapped for others, or was changed.
    pub fn unwrap(&self, id: KeyId, wrapped: &[u8]) -> Result<DataKey, VaultError> {
        let key = age::decrypt(&self.0, wrapped)?;
        DataKey::new(id, &key).ok_or(VaultError::Changed)
    }
}

/// A new identity, as a line of a file, and its recipient, as the configuration takes it.
#[must_use]
pub fn keygen(ambient: &Ambient) -> (Zeroizing<String>, String) {
    let identity = age::Identity::new(ambient.random());
    (identity.text(), identity.recipient().text())
}

#[cfg(test)]
mod tests;
