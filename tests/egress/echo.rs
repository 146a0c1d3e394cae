//! A server that echoes what it was sent in eight spellings, in its body, its fields and the names of its fields.

/// A secret with characters that every escape has a word for.
pub(crate) fn canary(number: u32) -> String {
    let mark = ["/", "+", "=", "&", "\"", "<", "\\", "%", "?", ":"][number as usize % 10];
    format!("Cana{mark}ry-{:08x}-{number:02}{mark}{mark}z9", number.wrapping_mul(0x9e37_79b9))
}

fn each(text: &str, spell: impl Fn(u8) -> String) -> String {
    text.bytes().map(spell).collect()
}

/// The eight spellings.
pub(crate) fn spelled(text: &str) -> [(&'static str, String); 8] {
    let reserved = |b: u8| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") };
    [
        ("as it is", text.to_owned()),
        ("Base64", base64(text, b"+/", true)),
        ("Base64 for URLs", base64(text, b"-_", false)),
        ("hexadecimal", each(text, |b| format!("{b:02x}"))),
        ("hexadecimal, upper case", each(text, |b| format!("{b:02X}"))),
        ("URL", each(text, reserved)),
        ("JSON", serde_json::to_string(text).expect("json").trim_matches('"').to_owned()),
        ("JSON, every character escaped", each(text, |b| format!("\\u{b:04X}"))),
    ]
}

/// Base64 (RFC 4648), written apart from the library that is tested.
fn base64(text: &str, last: &[u8; 2], padded: bool) -> String {
    let letters: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(last.iter().copied()).collect();
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            if place <= three.len() {
                out.push(char::from(letters[(bits >> (18 - 6 * place) & 63) as usize]));
            } else if padded {
                out.push('=');
            }
        }
    }
    out
}

/// The answer to a request that carries a secret.
pub(crate) fn answer(request: &[u8]) -> Vec<u8> {
    let request = String::from_utf8_lossy(request).into_owned();
    let value = |field: &str| request.split(&format!("\r\n{field}: ")).nth(1)?.lines().next().map(str::to_owned);
    let bearer = value("authorization").map(|value| value.trim_start_matches("Bearer ").to_owned());
    let secret = bearer.or_else(|| value("x-api-key")).expect("a secret");
    let mut body = request.clone();
    let mut fields = String::new();
    for (number, (how, spelling)) in spelled(&secret).into_iter().enumerate() {
        body.push_str(&format!("\n{how}: \"{spelling}\","));
        fields.push_str(&format!("x-echo-{number}: {spelling}\r\n"));
    }
    // All of it once more, as one Base64, so that the secret lies somewhere inside.
    body.push_str(&base64(&body, b"+/", true));
    let name: String = secret.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    if name == secret {
        fields.push_str(&format!("x-{name}: 1\r\n"));
    }
    format!("HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
