//! Links and images whose address carries data: how content leaves when somebody, or a renderer, follows it.
//!
//! Addresses are found by `://` and judged by what stands behind the host. Ordinary addresses have short values; one that
//! carries a file or a secret has a long or an encoded one. Images are fetched without a click, so less is enough there.

/// Bytes of one address that are looked at.
const ADDRESS_MAX_BYTES: usize = 4_096;
/// Bytes of a value that carry data whatever they are.
const LONG_VALUE_BYTES: usize = 200;
/// Bytes of a value of an image that carry data whatever they are.
const IMAGE_VALUE_BYTES: usize = 48;
/// Bytes of an encoded value.
const ENCODED_VALUE_BYTES: usize = 72;
/// Bytes of an encoded segment of a path: longer than a SHA-256 in hexadecimal, which names things.
const ENCODED_SEGMENT_BYTES: usize = 80;
/// Bytes before an address in which `![` makes it that of an image.
const IMAGE_WITHIN_BYTES: usize = 256;

/// Tell of every address that carries data, with the place where it begins.
pub(super) fn look(text: &str, found: &mut dyn FnMut(usize)) {
    // Most texts are words; every address has a colon.
    if !text.as_bytes().contains(&b':') {
        return;
    }
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find("://")).map(|at| at + from) {
        let head = text.get(..at).unwrap_or_default();
        let rest = text.get(at + 3..).unwrap_or_default();
        let address = address(rest);
        if is_web(head) && carries(address, is_image(head)) {
            found(at);
        }
        from = at + 3 + address.len();
    }
    for scheme in ["](data:", "](javascript:", "](vbscript:"] {
        for (at, _) in text.match_indices(scheme) {
            found(at);
        }
    }
}

/// What belongs to an address that begins here.
fn address(rest: &str) -> &str {
    let ends =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '`' | '<' | '>' | ')' | ']' | '|');
    let mut end = 0;
    for (at, c) in rest.char_indices() {
        if ends(c) || at >= ADDRESS_MAX_BYTES {
            break;
        }
        end = at + c.len_utf8();
    }
    rest.get(..end).unwrap_or_default()
}

/// Whether the scheme before `://` is one that a browser fetches.
fn is_web(head: &str) -> bool {
    let scheme: String = head.chars().rev().take_while(char::is_ascii_alphanumeric).take(8).collect();
    ["ptth", "sptth", "ptf", "sw", "ssw"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// Whether what stands before an address makes it that of an image: `![…](`, `src=`.
fn is_image(head: &str) -> bool {
    let tail: Vec<char> = head.chars().rev().take(IMAGE_WITHIN_BYTES).collect();
    let before: String = tail.iter().rev().collect();
    let before = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric());
    let source = before.trim_end_matches(['"', '\'']).to_ascii_lowercase();
    if source.ends_with("src=") || source.ends_with("url(") {
        return true;
    }
    let Some(label) = before.trim_end_matches('<').strip_suffix("](") else { return false };
    label.rfind('[').is_some_and(|at| label.get(..at).is_some_and(|head| head.ends_with('!')))
}

fn carries(address: &str, image: bool) -> bool {
    let (path, query) = address.split_once(['?', '#']).unwrap_or((address, ""));
    let segment = |segment: &str| segment.len() >= ENCODED_SEGMENT_BYTES && is_encoded(segment);
    if path.split('/').skip(1).any(segment) {
        return true;
    }
    // The name of a host carries data, too: it is asked for.
    if path.split('/').next().is_some_and(|host| host.split('.').any(|label| label.len() > 50 && is_encoded(label))) {
        return true;
    }
    query.split(['&', ';', '#', '?']).any(|pair| {
        let value = pair.split_once('=').map_or(pair, |(_, value)| value);
        let long = if image { IMAGE_VALUE_BYTES } else { LONG_VALUE_BYTES };
        value.len() >= long
            || (value.len() >= ENCODED_VALUE_BYTES && is_encoded(value))
            || (image && (value.contains('{') || value.contains('[') || value.contains('$')))
    })
}

/// Whether a text looks like Base64, hexadecimal or percent-encoding rather than words.
fn is_encoded(text: &str) -> bool {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'_' | b'=' | b'%' | b'-'));
    let dashes = text.bytes().filter(|byte| matches!(byte, b'-' | b'_')).count();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    // A slug is words between dashes; what is encoded has digits, and few dashes.
    plain && digits * 20 >= text.len() && dashes * 10 <= text.len()
}
