//! Contents of recordings: in the recording where they are small, beside it by their digests where they are not.
//!
//! A content that is kept beside is cut into parts, so that what two calls read of one file is kept once, and each part is
//! checked against its digest whenever it is used.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Contents up to this many bytes stand in the recording itself: a row of their own would cost more.
pub const INLINE_MAX_BYTES: usize = 1024;

/// Bytes, named by their digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blob {
    /// Small, and UTF-8.
    Text(String),
    /// Small, lower-case hexadecimal.
    Hex(String),
    /// Kept beside the recording, in parts of at most [`BLOB_PART_BYTES`].
    Kept {
        /// Bytes of all parts together.
        size: u64,
        /// The digest of each part.
        parts: Vec<Digest>,
    },
}

/// Bytes of one part of what is kept beside recordings: a full read of a file.
pub const BLOB_PART_BYTES: usize = 64 * 1024;

impl Blob {
    /// Name these bytes. What does not stand in the recording is handed to `keep`, part by part.
    pub fn of(bytes: &[u8], mut keep: impl FnMut(Digest, &[u8])) -> Self {
        if bytes.len() <= INLINE_MAX_BYTES {
            return match std::str::from_utf8(bytes) {
                Ok(text) => Self::Text(text.to_owned()),
                Err(_) => Self::Hex(hex(bytes)),
            };
        }
        let part = |part: &[u8]| {
            let digest = Digest::of(part);
            keep(digest, part);
            digest
        };
        Self::Kept { size: bytes.len() as u64, parts: bytes.chunks(BLOB_PART_BYTES).map(part).collect() }
    }

    /// The bytes. `find` gives parts that are kept beside the recording; each is checked against its digest.
    ///
    /// # Errors
    /// A part is missing or is not what its digest says, or the text is not hexadecimal.
    pub fn bytes(&self, mut find: impl FnMut(&Digest) -> Option<Vec<u8>>) -> Result<Vec<u8>, BadBlob> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Hex(text) => unhex(text).ok_or(BadBlob::NotHex),
            Self::Kept { size, parts } => {
                let mut bytes = Vec::new();
                for digest in parts {
                    let part = find(digest).ok_or(BadBlob::Missing(*digest))?;
                    if Digest::of(&part) != *digest {
                        return Err(BadBlob::Changed(*digest));
                    }
                    bytes.extend_from_slice(&part);
                }
                if bytes.len() as u64 == *size { Ok(bytes) } else { Err(BadBlob::Size) }
            }
        }
    }

    /// The digests of what is kept beside the recording.
    #[must_use]
    pub fn parts(&self) -> &[Digest] {
        match self {
            Self::Kept { parts, .. } => parts,
            Self::Text(_) | Self::Hex(_) => &[],
        }
    }

    /// How many bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Hex(text) => text.len() as u64 / 2,
            Self::Kept { size, .. } => *size,
        }
    }
}

/// Why bytes of a recording cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBlob {
    /// A part is gone.
    #[error("the content {0} is not kept any more")]
    Missing(Digest),
    /// A part was changed.
    #[error("the content {0} is not what its digest says")]
    Changed(Digest),
    /// The parts are not as long as they should be.
    #[error("the parts of a content have the wrong size")]
    Size,
    /// A text that should be hexadecimal is not.
    #[error("a content is not hexadecimal")]
    NotHex,
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value & 0x0f)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The bytes that hexadecimal digits stand for; nothing if the text is something else.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r41_contents_stand_in_the_recording_up_to_n_bytes_and_beside_it_above() {
        let mut kept = Vec::new();
        let small = Blob::of(&vec![b'a'; INLINE_MAX_BYTES], |digest, part| kept.push((digest, part.to_vec())));
        assert_eq!(small, Blob::Text("a".repeat(INLINE_MAX_BYTES)));
        assert!(kept.is_empty());
        let bytes = vec![0xff; BLOB_PART_BYTES + 1];
        let large = Blob::of(&bytes, |digest, part| kept.push((digest, part.to_vec())));
        assert_eq!(large.parts().len(), 2);
        assert_eq!((kept[0].1.len(), kept[1].1.len(), large.size()), (BLOB_PART_BYTES, 1, bytes.len() as u64));
        let find = |digest: &Digest| kept.iter().find(|(other, _)| other == digest).map(|(_, part)| part.clone());
        assert_eq!(large.bytes(find), Ok(bytes));
        assert_eq!(Blob::of(&[0xff, 0], |_, _| {}), Blob::Hex("ff00".to_owned()));
        assert_eq!(Blob::Hex("ff00".to_owned()).bytes(|_| None), Ok(vec![0xff, 0]));
    }

    #[test]
    fn r41_a_content_that_is_gone_or_changed_is_told_apart_from_the_right_one() {
        let large = Blob::of(&[7; INLINE_MAX_BYTES + 1], |_, _| {});
        let digest = large.parts()[0];
        assert_eq!(large.bytes(|_| None), Err(BadBlob::Missing(digest)));
        assert_eq!(large.bytes(|_| Some(vec![8; INLINE_MAX_BYTES + 1])), Err(BadBlob::Changed(digest)));
        let Blob::Kept { parts, .. } = large else { panic!("kept") };
        let short = Blob::Kept { size: 1, parts };
        assert_eq!(short.bytes(|_| Some(vec![7; INLINE_MAX_BYTES + 1])), Err(BadBlob::Size));
        assert_eq!(Blob::Hex("0".to_owned()).bytes(|_| None), Err(BadBlob::NotHex));
        assert_eq!(Blob::Hex("zz".to_owned()).bytes(|_| None), Err(BadBlob::NotHex));
    }
}
