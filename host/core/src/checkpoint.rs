//! Checkpoints: signed statements of how far the audit has come.
//!
//! The form is that of transparency logs: a checkpoint (C2SP tlog-checkpoint) is a signed note (C2SP signed-note) of three
//! lines, the origin of the log, the number of its entries, and the root of the Merkle tree over them. Public tools verify
//! it. Whoever keeps one elsewhere finds out when entries below it are changed or cut off; nobody who only has the
//! ledger's files can, which is why checkpoints leave the machine. There is no time in one: the entries have times.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::digest::{DIGEST_BYTES, Digest};
use crate::hex;

/// Longest note that is read, in bytes: one checkpoint with a hundred signatures of witnesses.
pub const NOTE_MAX_BYTES: usize = 32 * 1024;
/// What a line with a signature begins with: an em dash and a space.
const SIGNATURE: &str = "\u{2014} ";
/// The algorithm of C2SP signed notes that is Ed25519 over the note's text (RFC 8032).
const ED25519: u8 = 1;
/// Bytes of a key's hash in a note.
const HASH_BYTES: usize = 4;
/// Bytes of an Ed25519 key and of a signature.
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;

/// The key by which notes are verified: a name and the public key, written `name+hash+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    key: VerifyingKey,
}

/// How far a log has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

/// Why a text is not a key, or not a checkpoint that can be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNote {
    /// It is not of the form.
    #[error("this is not a signed checkpoint: {0}")]
    Form(&'static str),
    /// The text is not a key.
    #[error("this is not the key of a log: write `name+hash+key`, as `toolkeep audit key` prints it")]
    Key,
    /// Nobody whose key is known has signed it.
    #[error("the checkpoint is of `{origin}` and is not signed by `{wanted}`")]
    Unsigned {
        /// Whose it says it is.
        origin: String,
        /// Whose signature was looked for.
        wanted: String,
    },
    /// The text was changed, or the signature forged.
    #[error("the signature of the checkpoint does not match its text")]
    Mismatch,
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('+') && !name.chars().any(char::is_whitespace)
}

impl NoteKey {
    /// The public half of a key, under the name of its log. Nothing if that is no name: it is empty, or has a space or a
    /// plus sign.
    #[must_use]
    pub fn new(name: impl Into<String>, key: VerifyingKey) -> Option<Self> {
        let name = name.into();
        is_name(&name).then_some(Self { name, key })
    }

    /// The name, which is the origin of the log's checkpoints.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key.
    #[must_use]
    pub const fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// What notes find the key by.
    fn hash(&self) -> [u8; HASH_BYTES] {
        let mut named = format!("{}\n", self.name).into_bytes();
        named.push(ED25519);
        named.extend_from_slice(self.key.as_bytes());
        let digest = Digest::of(&named);
        digest.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// Sign a checkpoint of this log with the private half.
    #[must_use]
    pub fn sign(&self, size: u64, root: Digest, key: &SigningKey) -> String {
        let text = Checkpoint { origin: self.name.clone(), size, root }.to_string();
        let mut signature = self.hash().to_vec();
        signature.extend_from_slice(&key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n{SIGNATURE}{} {}\n", self.name, STANDARD.encode(signature))
    }

    /// Read a signed checkpoint of this log.
    ///
    /// # Errors
    /// It is none, is of another log, or its signature does not match.
    pub fn open(&self, note: &str) -> Result<Checkpoint, BadNote> {
        let (checkpoint, text, signatures) = parts(note)?;
        let unsigned = || BadNote::Unsigned { origin: checkpoint.origin.clone(), wanted: self.name.clone() };
        if checkpoint.origin != self.name {
            return Err(unsigned());
        }
        // Signatures of keys that are not known count for nothing, whatever they are.
        let own = signatures.iter().find(|(name, hash, _)| *name == self.name && *hash == self.hash());
        let (.., signature) = own.ok_or_else(unsigned)?;
        let signature: &[u8; SIGNATURE_BYTES] = signature.as_slice().try_into().map_err(|_| BadNote::Mismatch)?;
        let signature = Signature::from_bytes(signature);
        self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| BadNote::Mismatch)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519];
        key.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, hex::text(&self.hash()), STANDARD.encode(key))
    }
}

impl FromStr for NoteKey {
    type Err = BadNote;

    fn from_str(text: &str) -> Result<Self, BadNote> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(BadNote::Key);
        };
        let bytes = STANDARD.decode(key).map_err(|_| BadNote::Key)?;
        let (algorithm, key) = bytes.split_first().ok_or(BadNote::Key)?;
        let key: &[u8; KEY_BYTES] = key.try_into().map_err(|_| BadNote::Key)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| BadNote::Key)?;
        let found = Self::new(name, key).filter(|_| *algorithm == ED25519).ok_or(BadNote::Key)?;
        // The hash is there to find a mistyped key.
        if found.to_string() == text.trim() { Ok(found) } else { Err(BadNote::Key) }
    }
}

impl fmt::Display for Checkpoint {
    /// The text that is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }
}

impl Checkpoint {
    /// What a note says, whoever signed it.
    ///
    /// # Errors
    /// It is no note of a checkpoint.
    pub fn unverified(note: &str) -> Result<Self, BadNote> {
        parts(note).map(|(checkpoint, ..)| checkpoint)
    }
}

/// A signature: whose, the hash of the key, the rest.
type Signed<'n> = (&'n str, [u8; HASH_BYTES], Vec<u8>);

/// A note: what it says, the text that is signed, and the signatures.
fn parts(note: &str) -> Result<(Checkpoint, &str, Vec<Signed<'_>>), BadNote> {
    let form = BadNote::Form;
    if note.len() > NOTE_MAX_BYTES {
        return Err(form("it is too long"));
    }
    if note.chars().any(|c| c.is_control() && c != '\n') {
        return Err(form("it has control characters"));
    }
    let at = note.rfind("\n\n").ok_or(form("there is no blank line"))?;
    let (text, rest) = note.split_at_checked(at + 1).ok_or(form("there is no blank line"))?;
    let lines = rest.strip_prefix('\n').and_then(|rest| rest.strip_suffix('\n'));
    let signatures = lines.ok_or(form("it does not end with a line"))?.split('\n').map(signature_of);
    let signatures = signatures.collect::<Option<Vec<_>>>().ok_or(form("a line of a signature is not one"))?;
    let mut lines = text.split('\n');
    let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(form("it has fewer than three lines"));
    };
    if origin.is_empty() {
        return Err(form("it has no origin"));
    }
    let number = size.parse::<u64>().ok().filter(|number| number.to_string() == size);
    let size = number.ok_or(form("its second line is not a number of entries"))?;
    let bytes = STANDARD.decode(root).ok().and_then(|bytes| <[u8; DIGEST_BYTES]>::try_from(bytes).ok());
    let root = Digest::from_bytes(bytes.ok_or(form("its third line is not a hash"))?);
    Ok((Checkpoint { origin: origin.to_owned(), size, root }, text, signatures))
}

fn signature_of(line: &str) -> Option<Signed<'_>> {
    let (name, encoded) = line.strip_prefix(SIGNATURE)?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (hash, signature) = bytes.split_first_chunk::<HASH_BYTES>()?;
    is_name(name).then(|| (name, *hash, signature.to_vec()))
}

/// The notes of a file to which one after the other was appended. What does not belong to any stands in one of its own, so
/// that it is refused and not passed over.
pub fn notes(text: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = end_of_note(rest);
        let (note, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        found.push(note);
        rest = after;
    }
    found
}

/// Where a note ends: after the signatures that follow its blank line.
fn end_of_note(text: &str) -> usize {
    let (mut at, mut signed) = (0, false);
    for line in text.split_inclusive('\n') {
        let is_signature = line.starts_with(SIGNATURE);
        if signed && !is_signature {
            return at;
        }
        signed |= is_signature;
        at += line.len();
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> (NoteKey, SigningKey) {
        let private = SigningKey::from_bytes(&[seed; 32]);
        (NoteKey::new("example.com/log", private.verifying_key()).expect("a name"), private)
    }

    #[test]
    fn r40_a_note_of_the_specification_verifies() {
        // The example of C2SP signed-note: its key, its text, its signature.
        let key: NoteKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().expect("a key");
        assert_eq!((key.name(), key.to_string().len()), ("PeterNeumann", 66));
        for wrong in [
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+AhpcxQcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3",
            "",
        ] {
            assert_eq!(wrong.parse::<NoteKey>(), Err(BadNote::Key), "{wrong}");
        }
    }

    #[test]
    fn r40_a_checkpoint_verifies_and_every_flipped_bit_of_it_is_found() {
        let (key, private) = key(7);
        let root = Digest::of(b"root");
        let note = key.sign(20_852_163, root, &private);
        assert_eq!(note.lines().count(), 5);
        assert!(note.starts_with("example.com/log\n20852163\n") && note.ends_with("\n"), "{note}");
        let wanted = Checkpoint { origin: "example.com/log".to_owned(), size: 20_852_163, root };
        assert_eq!(key.open(&note), Ok(wanted.clone()));
        assert_eq!(Checkpoint::unverified(&note), Ok(wanted));
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        let (mut refused, mut all) = (0, 0);
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                all += 1;
                refused += usize::from(String::from_utf8(bytes).map_or(true, |changed| key.open(&changed).is_err()));
            }
        }
        assert_eq!(refused, all);
    }

    #[test]
    fn r40_other_keys_other_logs_and_other_forms_are_refused() {
        let ((own, private), (stranger, other)) = (key(1), key(2));
        let root = Digest::of(b"");
        let unsigned = BadNote::Unsigned { origin: "example.com/log".to_owned(), wanted: "example.com/log".to_owned() };
        assert_eq!(own.open(&stranger.sign(1, root, &other)), Err(unsigned));
        let elsewhere = NoteKey::new("example.com/other", private.verifying_key()).expect("a name");
        assert!(matches!(own.open(&elsewhere.sign(1, root, &private)), Err(BadNote::Unsigned { .. })));
        let note = own.sign(1, root, &private);
        // A witness may sign as well, and does not count.
        let witnessed = format!("{note}\u{2014} witness.example AAAAAAAA\n");
        assert!(own.open(&witnessed).is_ok());
        for (wrong, why) in [
            (note.replace("\n\n", "\n"), "no blank line"),
            (note.replace("\n1\n", "\n01\n"), "a number with a zero in front"),
            (note.replace("\n1\n", "\n-1\n"), "a negative number"),
            (note.replace('\u{2014}', "-"), "a hyphen"),
            (note.trim_end().to_owned(), "no end of the last line"),
            (format!("\n{note}"), "no origin"),
            (note.replace("example", "exa\u{7}mple"), "a control character"),
            (format!("{note}{}", "x".repeat(NOTE_MAX_BYTES)), "too long"),
            (String::new(), "nothing"),
        ] {
            assert!(matches!(own.open(&wrong), Err(BadNote::Form(_))), "{why}");
        }
    }

    #[test]
    fn r40_a_file_of_notes_is_read_one_by_one_and_nothing_in_it_is_passed_over() {
        let (key, private) = key(3);
        let all: Vec<String> = (1..4).map(|size| key.sign(size, Digest::of(b""), &private)).collect();
        assert_eq!(notes(&all.concat()), all);
        let witnessed = format!("{}\u{2014} witness.example AAAAAAAA\n{}", all[0], all[1]);
        assert_eq!(notes(&witnessed).len(), 2);
        let head: String = all[1].chars().take(20).collect();
        let torn = format!("{}{head}", all[0]);
        assert_eq!(notes(&torn).iter().filter(|note| key.open(note).is_ok()).count(), 1);
        assert_eq!(notes(&torn).len(), 2);
        assert!(notes("").is_empty());
    }
}
