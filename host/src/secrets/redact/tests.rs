//! Every spelling in which an echo hides a secret.

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use super::*;

const CANARY: &str = "s3cr3t/Can+ary=&\"<\\>:{9}";

fn redactor(value: &str, slot: &str) -> Redactor {
    let secret = Secret::new(Zeroizing::new(value.as_bytes().to_vec())).expect("a secret");
    let mut redactor = Redactor::default();
    redactor.add(&"tickets".parse().expect("a name"), &secret, &slot.parse().expect("a slot"));
    redactor
}

fn scrubbed(redactor: &Redactor, text: &[u8]) -> String {
    let scrubbed = redactor.scrub(text, false).unwrap_or_else(|| text.to_vec());
    String::from_utf8_lossy(&scrubbed).into_owned()
}

fn each(text: &str, spell: impl Fn(u8) -> String) -> String {
    text.bytes().map(spell).collect()
}

/// The spellings of one text.
fn spellings(text: &str) -> Vec<(&'static str, String)> {
    let hex = each(text, |b| format!("{b:02x}"));
    let json = serde_json::to_string(text).expect("json").trim_matches('"').to_owned();
    let reserved = |b: u8| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") };
    vec![
        ("as it is", text.to_owned()),
        ("Base64", STANDARD.encode(text)),
        ("Base64 without padding", STANDARD_NO_PAD.encode(text)),
        ("Base64 for URLs", URL_SAFE.encode(text)),
        (
            "Base64 in lines",
            STANDARD.encode(text).as_bytes().chunks(8).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\r\n"),
        ),
        ("hexadecimal", hex.clone()),
        ("hexadecimal, upper case", hex.to_ascii_uppercase()),
        ("JSON", json.clone()),
        ("JSON with slashes escaped", json.replace('/', "\\/")),
        ("JSON, every character escaped", each(text, |b| format!("\\u00{b:02x}"))),
        ("JavaScript", each(text, |b| format!("\\x{b:02X}"))),
        ("URL", each(text, reserved)),
        ("URL, lower case", each(text, reserved).to_ascii_lowercase()),
        ("URL, every character escaped", each(text, |b| format!("%{b:02x}"))),
        ("URL, twice", each(text, |b| reserved(b).replace('%', "%25"))),
        ("HTML", text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")),
        ("HTML by numbers", each(text, |b| format!("&#{b};"))),
        ("HTML by hexadecimal numbers", each(text, |b| format!("&#x{b:X};"))),
        ("URL of Base64", each(&STANDARD.encode(text), reserved)),
        ("JSON of Base64", STANDARD.encode(text).replace('/', "\\/")),
        ("Base64 of more, 1", STANDARD.encode(format!("x{text}y"))),
        ("Base64 of more, 2", STANDARD.encode(format!("xx{text}yy"))),
        ("Base64 of more, 3", URL_SAFE_NO_PAD.encode(format!("{{\"k\":\"{text}\"}}"))),
    ]
}

#[test]
fn t_s1_every_spelling_of_a_secret_is_found_wherever_it_stands() {
    // Lower-casing a URL spelling also folds its letters, so that canary has none in upper case.
    for canary in [CANARY.to_ascii_lowercase(), CANARY.to_owned(), "aaaaaaaab".to_owned(), "%25%2525".to_owned()] {
        let redactor = redactor(&canary, "bearer");
        for (how, text) in spellings(&canary) {
            if how == "URL, lower case" && canary != canary.to_ascii_lowercase() {
                continue;
            }
            for (before, after) in
                [("", ""), ("{\"token\": \"", "\"}"), ("%2", "%"), ("\\", "\\"), ("&", ";"), ("=", "=\n")]
            {
                // A backslash before an escape makes it another text.
                if before == "\\" && text.starts_with(['\\', '%', '&']) {
                    continue;
                }
                let seen = scrubbed(&redactor, format!("{before}{text}{after}").as_bytes());
                assert!(seen.contains("[secret tickets]"), "{how}: {text} gave {seen}");
                let rest = seen.replace("[secret tickets]", "");
                assert!(!rest.contains(&canary), "{how}: {seen}");
                assert!(rest.len() <= before.len() + after.len() + 12, "{how}: {text} left {rest}");
            }
        }
    }
}

#[test]
fn what_is_no_secret_stays_byte_for_byte() {
    let redactor = redactor(CANARY, "bearer");
    let mut text: Vec<u8> = (0..=255).collect();
    text.extend_from_slice(&CANARY.as_bytes()[..CANARY.len() - 1]);
    text.extend_from_slice(b"%%%\\\\\\&&&&amp;&#&#x;%2\\u00");
    assert_eq!(redactor.scrub(&text, false), None);
    assert_eq!(Redactor::default().scrub(CANARY.as_bytes(), false), None);
}

#[test]
fn several_secrets_and_several_places_are_all_found() {
    let mut redactor = redactor(CANARY, "bearer");
    let other = Secret::new(Zeroizing::new(b"another-one".to_vec())).expect("a secret");
    redactor.add(&"other".parse().expect("a name"), &other, &"header:x-key".parse().expect("a slot"));
    let text = format!("a{CANARY}b another-one {CANARY}{CANARY}another-on");
    assert_eq!(
        scrubbed(&redactor, text.as_bytes()),
        "a[secret tickets]b [secret other] [secret tickets][secret tickets]another-on"
    );
}

#[test]
fn of_a_user_and_a_password_the_password_is_found_alone() {
    let redactor = redactor("robot:pass-word-1", "basic");
    for text in [
        "robot:pass-word-1",
        "pass-word-1",
        "{\"p\":\"pass\\u002dword-1\"}",
        &format!("Basic {}", STANDARD.encode("robot:pass-word-1")),
    ] {
        let seen = scrubbed(&redactor, text.as_bytes());
        assert!(seen.contains("[secret tickets]") && !seen.contains("word"), "{text} gave {seen}");
    }
    assert_eq!(scrubbed(&redactor, b"robot"), "robot");
}

#[test]
fn a_text_that_was_cut_off_does_not_end_with_the_beginning_of_a_secret() {
    let redactor = redactor(CANARY, "bearer");
    // A spelling in lower case is that of another secret.
    for (how, text) in spellings(CANARY).into_iter().filter(|(how, _)| *how != "URL, lower case") {
        for cut in 1..text.len() {
            let Some(beginning) = text.get(..cut) else { continue };
            let text = format!("before, {beginning}");
            let scrubbed = redactor.scrub(text.as_bytes(), true).unwrap_or_else(|| text.into_bytes());
            let seen = String::from_utf8(scrubbed).expect("text");
            // Of Base64 of more, the first characters say nothing of the secret.
            let longest = if how.starts_with("Base64 of more") { 14 } else { 8 };
            assert!(seen.len() <= "before, ".len() + longest || seen.contains("[secret tickets]"), "{how}: {seen}");
        }
    }
}

#[test]
fn a_name_of_a_field_is_searched_without_regard_to_case() {
    let redactor = redactor("Secret-Token-9", "bearer");
    assert!(redactor.is_in_name("x-secret-token-9-echo"));
    assert!(redactor.is_in_name(&each("Secret-Token-9", |b| format!("{b:02x}"))));
    assert!(!redactor.is_in_name("x-secret-token-8"));
    assert!(!redactor.is_in_name(""));
}

#[test]
fn any_mixture_of_spellings_is_found() {
    // A small generator of its own, so that a failure can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    for _ in 0..5_000 {
        let length = 8 + draw(24);
        let visible = |n: usize| char::from(b'!' + u8::try_from(n).expect("small"));
        let secret: String = (0..length).map(|_| visible(draw(94))).collect();
        let redactor = redactor(&secret, "bearer");
        let base = [secret.clone(), each(&secret, |b| format!("{b:02x}")), URL_SAFE_NO_PAD.encode(&secret)];
        let base = &base[draw(3)];
        let spelled: String = base
            .bytes()
            .map(|b| match draw(8) {
                0 => format!("%{b:02x}"),
                1 => format!("%{b:02X}"),
                2 => format!("\\u00{b:02x}"),
                3 => format!("\\x{b:02x}"),
                4 => format!("&#{b};"),
                5 => format!("%25{b:02x}"),
                _ if matches!(b, b'%' | b'\\' | b'&' | b'+') => format!("%{b:02x}"),
                _ => char::from(b).to_string(),
            })
            .collect();
        let seen = scrubbed(&redactor, format!("<{spelled}>").as_bytes());
        assert!(seen.contains("[secret tickets]"), "{secret} as {spelled} gave {seen}");
    }
}
