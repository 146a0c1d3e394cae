//! Every rule of fields, at its edges.

use super::*;

fn check(allowed: &[&str], fields: &[(&str, &str)]) -> Result<Vec<Header>, FieldRule> {
    let allowed = AllowedFields::new(allowed.iter().copied()).expect("an allow-list");
    let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes()));
    allowed.check(fields).map_err(|problem| problem.rule)
}

#[test]
fn a_guest_sets_what_is_always_allowed_and_what_its_grant_lists() {
    let fields = [("Accept", " text/plain\t"), ("X-One", "1"), ("x-one", "2"), ("content-type", "")];
    let checked = check(&["X-One"], &fields).expect("allowed");
    let pairs: Vec<(&str, &str)> = checked.iter().map(|h| (h.name.as_str(), h.value.as_str())).collect();
    assert_eq!(pairs, [("accept", "text/plain"), ("x-one", "1"), ("x-one", "2"), ("content-type", "")]);
    assert_eq!(check(&[], &[("x-one", "1")]), Err(FieldRule::NotGranted));
    assert_eq!(check(&[], &[("user-agent", "1")]), Err(FieldRule::NotGranted));
}

#[test]
fn t_n6_what_is_the_hosts_is_never_a_guests_and_no_grant_opens_it() {
    for (name, rule) in [
        ("Host", FieldRule::Framing),
        ("Content-Length", FieldRule::Framing),
        ("TRANSFER-ENCODING", FieldRule::Framing),
        ("Connection", FieldRule::Framing),
        ("Keep-Alive", FieldRule::Framing),
        ("Upgrade", FieldRule::Framing),
        ("HTTP2-Settings", FieldRule::Framing),
        ("Expect", FieldRule::Framing),
        ("TE", FieldRule::Framing),
        ("Trailer", FieldRule::Framing),
        ("Proxy-Authorization", FieldRule::Framing),
        ("Proxy-Connection", FieldRule::Framing),
        ("proxy-anything", FieldRule::Framing),
        ("Idempotency-Key", FieldRule::Key),
        ("X-Toolkeep-Anything", FieldRule::Key),
        ("Authorization", FieldRule::Credential),
        ("Cookie", FieldRule::Credential),
        ("X-HTTP-Method-Override", FieldRule::Override),
        ("X-Original-URL", FieldRule::Override),
        ("X-Rewrite-URL", FieldRule::Override),
    ] {
        assert_eq!(check(&[], &[(name, "x")]), Err(rule), "{name}");
        assert_eq!(AllowedFields::new([name]).map_err(|problem| problem.rule), Err(rule), "{name}");
    }
}

#[test]
fn t_n6_names_and_values_cannot_break_the_line() {
    for name in ["", "a b", "a:", ":authority", "a\r\nb", "a\0", "é", "a\u{200b}", "content-length ", " host", "a\tb"]
    {
        assert_eq!(check(&[], &[(name, "x")]), Err(FieldRule::Name), "{name:?}");
    }
    for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\u{7f}", "\u{1b}[31m", "é", "a\u{2028}b", "\r\n x"] {
        assert_eq!(check(&[], &[("accept", value)]), Err(FieldRule::Value), "{value:?}");
    }
    let bytes = AllowedFields::default().check([("accept", &b"\xff"[..])]);
    assert_eq!(bytes.map_err(|problem| problem.rule), Err(FieldRule::Value));
    assert_eq!(check(&[], &[("content-type", "a"), ("Content-Type", "b")]), Err(FieldRule::Twice));
}

#[test]
fn fields_are_bounded_in_number_and_in_all_and_names_in_length() {
    let named: Vec<String> = (0..=FIELDS_MAX).map(|n| format!("x-{n}")).collect();
    let names: Vec<&str> = named.iter().map(String::as_str).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (*name, "v")).collect();
    assert!(check(&names, &fields[..FIELDS_MAX]).is_ok());
    assert_eq!(check(&names, &fields), Err(FieldRule::TooMany));

    let room = FIELDS_MAX_BYTES - "accept".len() - 4;
    assert!(check(&[], &[("accept", &"v".repeat(room))]).is_ok());
    assert_eq!(check(&[], &[("accept", &"v".repeat(room + 1))]), Err(FieldRule::TooMany));

    let longest = "x".repeat(FIELD_NAME_MAX_BYTES);
    assert!(check(&[&longest], &[(&longest, "v")]).is_ok());
    assert_eq!(check(&[], &[(&format!("{longest}x"), "v")]), Err(FieldRule::Name));
}

#[test]
fn a_problem_names_the_field_and_what_to_do() {
    let problem = AllowedFields::default().check([("X-Api-Key\u{1b}", &b"v"[..])]).expect_err("a name");
    assert_eq!(
        problem.to_string(),
        "the header field `X-Api-Key\\u{1b}` has no valid name: write letters, digits and hyphens, at most 64"
    );
    let problem = AllowedFields::default().check([("x-one", &b"v"[..])]).expect_err("a grant");
    assert_eq!(problem.to_string(), "the header field `x-one` is not allowed; list it in `headers` of the grant");
}
