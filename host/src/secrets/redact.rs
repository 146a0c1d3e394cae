//! Taking secrets out of what comes back: a server that echoes a credential must not hand it to the guest.
//!
//! A [`Redactor`] is made for one exchange from the secrets that it carried. It finds each secret as it is, in hexadecimal,
//! and in Base64 at any of the three alignments that a longer text can give it; and each of these also where characters
//! are escaped by URL, JSON or HTML rules, in any mixture. What it cannot see through is compression, encryption and a server
//! that means to smuggle: that server has the secret anyway, which is why a secret is bound to its origin.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toolkeep_core::id::SecretName;
use zeroize::Zeroizing;

use super::{Secret, Slot};

/// Longest spelling of one character that is recognised, in bytes: `\u0041` and `&#x41;`.
const ESCAPE_MAX_BYTES: usize = 6;
/// Named character references of HTML and XML for visible ASCII.
const REFERENCES: &[(&[u8], u8)] =
    &[(b"&amp;", b'&'), (b"&lt;", b'<'), (b"&gt;", b'>'), (b"&quot;", b'"'), (b"&apos;", b'\'')];

/// Which characters count as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    /// Only themselves.
    Exact,
    /// Letters in both cases.
    Case,
    /// The two alphabets of Base64; line breaks are skipped.
    Base64,
}

impl Fold {
    fn same(self, wanted: u8, found: u8) -> bool {
        match self {
            Self::Exact => wanted == found,
            Self::Case => wanted.eq_ignore_ascii_case(&found),
            Self::Base64 => wanted == found || matches!((wanted, found), (b'+', b'-') | (b'/', b'_')),
        }
    }
}

/// One text to look for.
struct Needle {
    text: Zeroizing<Vec<u8>>,
    fold: Fold,
}

/// How a needle lies at a place.
enum Found {
    /// Not there.
    No,
    /// The text ends before the needle does.
    Open,
    /// There, up to this position.
    Until(usize),
}

/// Finds the secrets of one exchange in what came back.
#[derive(Default)]
#[expect(missing_debug_implementations, reason = "it holds secrets")]
pub struct Redactor {
    secrets: Vec<(SecretName, Vec<Needle>)>,
    starts: Starts,
}

/// For each byte, whether a needle can start with it.
struct Starts([bool; 256]);

impl Default for Starts {
    fn default() -> Self {
        Self([false; 256])
    }
}

impl Redactor {
    /// Also look for this secret, which was sent in `slot`.
    pub fn add(&mut self, name: &SecretName, secret: &Secret, slot: &Slot) {
        let mut needles = Vec::new();
        for text in secret.needles(slot) {
            needles.push(Needle { text: Zeroizing::new(text.to_vec()), fold: Fold::Exact });
            needles.push(Needle { text: hexadecimal(text), fold: Fold::Case });
            needles.extend((0..3).map(|before| Needle { text: base64(text, before), fold: Fold::Base64 }));
        }
        for needle in &needles {
            for (byte, starts) in (0..=u8::MAX).zip(&mut self.starts.0) {
                let first = needle.text.first().is_some_and(|first| needle.fold.same(*first, byte));
                *starts = *starts || first || matches!(byte, b'%' | b'\\' | b'&');
            }
        }
        self.secrets.push((name.clone(), needles));
    }

    /// Whether it looks for nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// `text` with every secret replaced by its name in brackets; none if there was none.
    ///
    /// Where `text` is the beginning of something longer, `cut` also drops an end that may be the beginning of a secret.
    #[must_use]
    pub fn scrub(&self, text: &[u8], cut: bool) -> Option<Vec<u8>> {
        let mut scrubbed: Option<Vec<u8>> = None;
        let (mut at, mut kept) = (0, 0);
        while let Some(byte) = text.get(at) {
            let possible = self.starts.0.get(usize::from(*byte)).is_some_and(|starts| *starts);
            match if possible { self.at(text, at, None) } else { (None, false) } {
                (Some((name, end)), _) => {
                    let out = scrubbed.get_or_insert_default();
                    out.extend_from_slice(text.get(kept..at).unwrap_or_default());
                    out.extend_from_slice(format!("[secret {name}]").as_bytes());
                    (at, kept) = (end, end);
                }
                (None, true) if cut => {
                    let out = scrubbed.get_or_insert_default();
                    out.extend_from_slice(text.get(kept..at).unwrap_or_default());
                    return scrubbed;
                }
                _ => at += 1,
            }
        }
        if let Some(out) = &mut scrubbed {
            out.extend_from_slice(text.get(kept..).unwrap_or_default());
        }
        scrubbed
    }

    /// Whether a secret is in the name of a field, whose case was folded on the way.
    #[must_use]
    pub fn is_in_name(&self, name: &str) -> bool {
        !self.is_empty() && (0..name.len()).any(|at| self.at(name.as_bytes(), at, Some(Fold::Case)).0.is_some())
    }

    /// The secret that lies at `at`, with its end; and whether one may begin there that the text cuts off.
    fn at(&self, text: &[u8], at: usize, fold: Option<Fold>) -> (Option<(&SecretName, usize)>, bool) {
        let mut open = false;
        let mut longest: Option<(&SecretName, usize)> = None;
        for (name, needles) in &self.secrets {
            for needle in needles {
                match needle.find(text, at, fold.unwrap_or(needle.fold)) {
                    Found::No => {}
                    Found::Open => open = true,
                    Found::Until(end) if longest.is_none_or(|(_, until)| until < end) => longest = Some((name, end)),
                    Found::Until(_) => {}
                }
            }
        }
        (longest, open)
    }
}

impl Needle {
    /// How it lies at `at`. Almost everything is told apart by the first bytes, without a spelling to think about.
    fn find(&self, text: &[u8], at: usize, fold: Fold) -> Found {
        let mut place = at;
        for (known, wanted) in self.text.iter().enumerate() {
            match text.get(place) {
                None => return Found::Open,
                Some(b'%' | b'\\' | b'&' | b'+' | b'\r' | b'\n') => {
                    return self.find_spelled(text, place, known, fold);
                }
                Some(byte) if fold.same(*wanted, *byte) => place += 1,
                Some(_) => return Found::No,
            }
        }
        Found::Until(place)
    }

    /// The same from `place` on, where its first `known` bytes were found before. A spelling may be read in several ways, so
    /// every place where the text may go on is followed.
    fn find_spelled(&self, text: &[u8], place: usize, known: usize, fold: Fold) -> Found {
        let mut places = vec![place];
        let mut open = false;
        for (number, wanted) in self.text.iter().enumerate().skip(known) {
            let mut next = Vec::with_capacity(places.len());
            for place in places {
                let mut place = place;
                while fold == Fold::Base64 && number > 0 && matches!(text.get(place), Some(b'\r' | b'\n')) {
                    place += 1;
                }
                open |= after(text, place, |found| fold.same(*wanted, found), &mut next);
            }
            if next.is_empty() {
                return if open { Found::Open } else { Found::No };
            }
            next.dedup();
            places = next;
        }
        places.into_iter().max().map_or(Found::No, Found::Until)
    }
}

/// Put into `next` where a text goes on after each spelling of one character at `place`. Says whether the text ends there,
/// or may end inside of a spelling.
fn after(text: &[u8], place: usize, same: impl Fn(u8) -> bool, next: &mut Vec<usize>) -> bool {
    let Some(rest) = text.get(place..).filter(|rest| !rest.is_empty()) else { return true };
    let mut spelled = |byte: Option<u8>, length: usize| {
        if byte.is_some_and(&same) {
            next.push(place + length);
        }
    };
    let first = rest.first().copied();
    spelled(first, 1);
    match first {
        Some(b'+') => spelled(Some(b' '), 1),
        Some(b'%') => {
            spelled(hex_pair(rest, 1), 3);
            if rest.starts_with(b"%25") {
                spelled(hex_pair(rest, 3), 5);
            }
        }
        Some(b'\\') => match rest.get(1) {
            Some(b'u' | b'U') if rest.get(2..4) == Some(b"00") => spelled(hex_pair(rest, 4), 6),
            Some(b'x') => spelled(hex_pair(rest, 2), 4),
            Some(plain) if !plain.is_ascii_alphanumeric() => spelled(Some(*plain), 2),
            _ => {}
        },
        Some(b'&') => {
            if let Some((byte, length)) = reference(rest) {
                spelled(Some(byte), length);
            }
        }
        _ => {}
    }
    matches!(first, Some(b'%' | b'\\' | b'&')) && rest.len() < ESCAPE_MAX_BYTES
}

/// The byte that a character reference at the start of `rest` means, and its length.
fn reference(rest: &[u8]) -> Option<(u8, usize)> {
    if let Some((name, byte)) = REFERENCES.iter().find(|(name, _)| rest.starts_with(name)) {
        return Some((*byte, name.len()));
    }
    let end = rest.iter().take(ESCAPE_MAX_BYTES + 1).position(|b| *b == b';')?;
    let digits = std::str::from_utf8(rest.get(2..end)?).ok()?;
    let value = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    (rest.get(1) == Some(&b'#')).then_some((value.ok()?, end + 1))
}

/// The byte whose two hexadecimal digits stand at `at`.
fn hex_pair(text: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    Some(digit(at)? << 4 | digit(at + 1)?)
}

fn hexadecimal(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).map_or(b'0', |digit| digit as u8);
    let mut digits = Zeroizing::new(Vec::with_capacity(text.len() * 2));
    digits.extend(text.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]));
    digits
}

/// The characters that `text` gives in the Base64 of every longer text in which a multiple of three and `before` bytes
/// precede it.
fn base64(text: &[u8], before: usize) -> Zeroizing<Vec<u8>> {
    let mut shifted = Zeroizing::new(Vec::with_capacity(before + text.len()));
    shifted.resize(before, 0);
    shifted.extend_from_slice(text);
    let encoded = Zeroizing::new(STANDARD.encode(shifted.as_slice()));
    let whole = (before * 8).div_ceil(6)..(shifted.len() * 8) / 6;
    Zeroizing::new(encoded.as_bytes().get(whole).unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests;
