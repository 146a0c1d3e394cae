//! Lower-case hexadecimal digits of bytes, as digests, ids and signatures are written (RFC 4648, section 8, in lower case).
//!
//! Several are written for every call, so they are looked up in a table and need no formatter. Reading is left to the types
//! that are read: each says in its own words what is wrong.

const DIGITS: [u8; 16] = *b"0123456789abcdef";

/// The digits of all bytes.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    bytes.iter().flat_map(|byte| pair(*byte)).for_each(|digit| text.push(char::from(digit)));
    text
}

/// The digits of as many bytes as `buffer` has room for, two each.
pub fn digits<'b>(bytes: &[u8], buffer: &'b mut [u8]) -> &'b str {
    for (place, byte) in buffer.chunks_exact_mut(2).zip(bytes) {
        place.copy_from_slice(&pair(*byte));
    }
    let written = buffer.get(..bytes.len() * 2).unwrap_or_default();
    std::str::from_utf8(written).unwrap_or_default()
}

fn pair(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 0x0f].map(|nibble| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_two_digits() {
        for byte in 0..=u8::MAX {
            assert_eq!(text(&[byte]), format!("{byte:02x}"));
        }
        let mut buffer = [0; 4];
        assert_eq!((digits(&[0x0a, 0xff], &mut buffer), text(&[])), ("0aff", String::new()));
        assert_eq!(digits(&[1, 2, 3], &mut buffer), "", "no part of what has no room");
    }
}
