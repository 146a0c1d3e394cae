//! Bech32 (BIP 173), as age writes recipients and identities: without the bound on length that addresses have.

/// The characters of data, by value.
const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// Characters of a checksum.
const CHECKSUM: usize = 6;
/// Longest text that is looked at, in bytes: a key has 62 to 74.
const TEXT_MAX_BYTES: usize = 128;

/// One step of the checksum (BIP 173, "Checksum").
fn step(check: u32, value: u8) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = check >> 25;
    let next = ((check & 0x01ff_ffff) << 5) ^ u32::from(value);
    (0_u32..).zip(GENERATOR).filter(|(bit, _)| (top >> bit) & 1 == 1).fold(next, |sum, (_, term)| sum ^ term)
}

fn checksum(hrp: &str, data: &[u8]) -> u32 {
    let high = hrp.bytes().map(|byte| byte >> 5);
    let low = hrp.bytes().map(|byte| byte & 31);
    high.chain([0]).chain(low).chain(data.iter().copied()).fold(1, step)
}

/// From groups of `from` bits to groups of `to` bits; nothing if bits that are left over are not padding.
fn regroup(values: impl Iterator<Item = u8>, from: u32, to: u32, pad: bool) -> Option<Vec<u8>> {
    let (mut bits, mut held, mut out) = (0_u32, 0_u32, Vec::new());
    for value in values {
        held = (held << from) | u32::from(value);
        bits += from;
        while bits >= to {
            bits -= to;
            out.push(u8::try_from((held >> bits) & ((1 << to) - 1)).ok()?);
        }
        held &= (1 << bits) - 1;
    }
    if pad && bits > 0 {
        out.push(u8::try_from((held << (to - bits)) & ((1 << to) - 1)).ok()?);
    } else if bits >= from || held != 0 {
        return None;
    }
    Some(out)
}

fn character(value: u8) -> char {
    ALPHABET.get(usize::from(value & 31)).map_or('q', |byte| char::from(*byte))
}

/// Bytes as text, in small letters.
pub(super) fn encode(hrp: &str, bytes: &[u8]) -> String {
    let data = regroup(bytes.iter().copied(), 8, 5, true).unwrap_or_default();
    let check = checksum(hrp, &[data.as_slice(), &[0; CHECKSUM]].concat()) ^ 1;
    let tail = (0..CHECKSUM).rev().map(|at| u8::try_from((check >> (5 * at)) & 31).unwrap_or(0));
    hrp.chars().chain(['1']).chain(data.iter().copied().chain(tail).map(character)).collect()
}

/// The bytes of a text with this human-readable part; nothing if it is another's, has a typing mistake, or mixes letters.
pub(super) fn decode(hrp: &str, text: &str) -> Option<Vec<u8>> {
    let mixed = text.bytes().any(|b| b.is_ascii_lowercase()) && text.bytes().any(|b| b.is_ascii_uppercase());
    if mixed || text.len() > TEXT_MAX_BYTES || !text.is_ascii() {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let body = text.strip_prefix(hrp)?.strip_prefix('1')?;
    let value = |byte: u8| ALPHABET.iter().position(|known| *known == byte).and_then(|at| u8::try_from(at).ok());
    let values: Vec<u8> = body.bytes().map(value).collect::<Option<_>>()?;
    let data = values.len().checked_sub(CHECKSUM).and_then(|length| values.get(..length))?;
    if checksum(hrp, &values) != 1 {
        return None;
    }
    regroup(data.iter().copied(), 5, 8, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_decodes_and_no_changed_letter_does() {
        // BIP 173, "Test vectors": valid strings without data.
        assert_eq!(decode("a", "A12UEL5L"), Some(Vec::new()));
        assert_eq!(decode("a", "a12uel5l"), Some(Vec::new()));
        assert_eq!((decode("a", "a12UEL5l"), decode("a", "x1b4n0q5v"), decode("a", "a12uel5")), (None, None, None));
        for bytes in [vec![0; 32], vec![255; 32], (0..32).collect::<Vec<u8>>(), vec![1]] {
            let text = encode("age", &bytes);
            assert_eq!(decode("age", &text).as_ref(), Some(&bytes));
            assert_eq!(decode("ag", &text), None);
            for at in 4..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'q' { b'p' } else { b'q' };
                assert_eq!(decode("age", std::str::from_utf8(&changed).expect("ascii")), None, "{at}");
            }
        }
    }
}
