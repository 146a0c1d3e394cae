//! What is sealed opens for whoever should, as what it was, and never after a change.

use super::*;

const TEXT: &str = r#"{"iban":"DE00 0000 é"}"#;

fn key(id: u64, fill: u8) -> DataKey {
    DataKey::new(KeyId::new(id.to_be_bytes()), &[fill; KEY_BYTES]).expect("a key")
}

#[test]
fn r42_a_sealed_text_opens_under_its_key_as_its_part_and_not_after_any_flip() {
    let sealed = key(7, 1).seal(Part::Input, TEXT, [9; NONCE_BYTES]).expect("sealed");
    assert_eq!(KeyId::of(&sealed).map(|id| id.to_string()), Some("0000000000000007".to_owned()));
    assert!(!sealed.contains("DE00") && KeyId::of(TEXT).is_none() && KeyId::of("").is_none());
    assert_eq!(key(7, 1).open(Part::Input, &sealed).as_deref(), Ok(TEXT));
    for (other, part) in [(key(7, 2), Part::Input), (key(8, 1), Part::Input), (key(7, 1), Part::Reply)] {
        assert_eq!(other.open(part, &sealed), Err(VaultError::Changed));
    }
    let (head, body) = sealed.split_at(sealed.rfind('.').expect("a body") + 1);
    let bytes = STANDARD_NO_PAD.decode(body).expect("base64");
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let changed = format!("{}{}", head, STANDARD_NO_PAD.encode(changed));
        assert_eq!(key(7, 1).open(Part::Input, &changed), Err(VaultError::Changed), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        let short = format!("{}{}", head, STANDARD_NO_PAD.encode(&bytes[..cut]));
        assert_eq!(key(7, 1).open(Part::Input, &short), Err(VaultError::Changed));
    }
}

#[test]
fn r42_a_data_key_is_opened_by_each_recipient_and_by_nobody_else() {
    let ambient = Ambient::real();
    let people: Vec<(Zeroizing<String>, String)> = (0..3).map(|_| keygen(&ambient)).collect();
    let texts: Vec<String> = people.iter().take(2).map(|(_, recipient)| recipient.clone()).collect();
    let recipients = Recipients::of(&texts).expect("recipients");
    let wrapped = recipients.wrap(&[5; KEY_BYTES], &ambient).expect("wrapped");
    let sealed = key(1, 5).seal(Part::Reply, TEXT, [0; NONCE_BYTES]).expect("sealed");
    for (at, (identity, recipient)) in people.iter().enumerate() {
        let file = format!("# created: today\n# public key: {recipient}\n{}\n", identity.as_str());
        let opened = Identities::of(&file).expect("identities").unwrap(KeyId::new(1_u64.to_be_bytes()), &wrapped);
        match opened {
            Ok(opened) => assert_eq!((opened.open(Part::Reply, &sealed).as_deref(), at < 2), (Ok(TEXT), true)),
            Err(error) => assert_eq!((error, at), (VaultError::OtherIdentity, 2)),
        }
    }
    assert!(matches!(Identities::of("nothing\n"), Err(VaultError::NoIdentity)));
    assert!(Identities::of(&people[0].0.to_lowercase()).is_err(), "nobody's tool writes one in small letters");
    let turned = Recipients::of(&[texts[1].clone(), texts[0].clone()]).expect("recipients");
    assert_eq!(turned, recipients, "their order means nothing");
    assert_ne!(Recipients::of(&texts[..1]).expect("one"), recipients);
    assert!(matches!(Recipients::of(&["age1nonsense".to_owned()]), Err(VaultError::BadRecipient)));
    let many = |n: usize| Recipients::of(&vec![texts[0].clone(); n]).is_ok();
    assert_eq!((many(0), many(1), many(RECIPIENTS_MAX), many(RECIPIENTS_MAX + 1)), (false, true, true, false));
}

#[test]
fn a_key_wrapped_for_the_daemon_opens_again() {
    let wrapped = key(3, 1).wrap(&[8; KEY_BYTES], [4; NONCE_BYTES]).expect("wrapped");
    assert_eq!(key(3, 1).unwrap(&wrapped).expect("opened").as_slice(), [8; KEY_BYTES]);
    assert!(key(3, 2).unwrap(&wrapped).is_err() && key(3, 1).unwrap(&wrapped[1..]).is_err());
}

/// A file that the crate `age` 0.11.5 wrote for two recipients, with a stanza of no known kind among theirs.
const BY_ANOTHER: &str = concat!(
    "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBWa0pvSUx2Zkg5bnBjdHpSbStFZmh0b3F3TXh1TTdsSDl0NHd5SS9IR2hv",
    "Ck9teC81My8wSXNvNm1lQzNlZkdGbXFrZ3I3QUpSMHN5Tk5FMXkzMG8zSjgKLT4gWDI1NTE5IGh1d2d0bDlBTlFWdi9HUkJNakpw",
    "d2w3TnIzK0djNU8wd290dC9vM2xMbnMKMmsvZUxlcG5lUlpVZmdPeEFRbVNNMWZySDZ3azBKL3hxNTNZUGcwRkNpRQotPiBYalZP",
    "d3hWLWdyZWFzZSAxQkYKRHd4QXBsNjNlZVV4REVDVkVCSkZEMjh5NVloY0dibEtOQitTcWgvWmF3U3E1YlFBa2V5a2pqRXJiSGh5",
    "OGNwYQo2NTFKLytmMWFhNnN1K2dpREsrRXVHZndkUjI2dE43ejJGOAotLS0gckFoL0FnNCtEdE1POUd1M3FvL09sN0ZISWhHc1pE",
    "cVYxUkxUNURDMDRVWQqEzKvenK1FqTvfmWGYcZEX7JozPik7Ae6wrMnYANJCNCUYekHaXYq5psTsX9CBDhctITKbGLCfOMtz/p3X",
    "13Jo",
);

#[test]
fn a_file_of_another_implementation_of_age_opens_here() {
    let file = base64::engine::general_purpose::STANDARD.decode(BY_ANOTHER).expect("base64");
    for (identity, recipient) in [
        (
            "AGE-SECRET-KEY-1NEU6K43QF9FPUSHV0RY2YGXKL2UU2QHARAUQ4RQC5NRF2FUV57XSYTG28D",
            "age1je3cfrau4elz2qhqnr25raehga9yegkqc0yrqmhaal04gazcxp4s905zq2",
        ),
        (
            "AGE-SECRET-KEY-1XSJFQP9P7W89ZYWF3U2Q0MV5ZFFD0L06783XLG7QE08U2EJYCA0QSTFS87",
            "age1ufwujhffsd6p0f8dneyknz6rfffx3xsqpx0224njwk3qmaqx9c6sy5vnsh",
        ),
    ] {
        let identity = age::Identity::read(identity).expect("an identity");
        assert_eq!(identity.recipient().text(), recipient);
        assert_eq!(age::decrypt(&[identity], &file).expect("opened").as_slice(), [5; KEY_BYTES]);
    }
}
