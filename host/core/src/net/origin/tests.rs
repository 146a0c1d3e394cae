//! Spellings of hosts that are folded into one or refused (T-N1).

use super::*;

fn origin(text: &str) -> Result<String, Problem> {
    text.parse::<Origin>().map(|origin| origin.to_string()).map_err(|error| error.problem)
}

#[test]
fn an_origin_has_one_text() {
    for (text, canonical) in [
        ("https://api.example.com", "https://api.example.com"),
        ("https://api.example.com/", "https://api.example.com"),
        ("https://api.example.com:443", "https://api.example.com"),
        ("HTTPS://API.Example.COM:443/", "https://api.example.com"),
        ("https://api.example.com.", "https://api.example.com"),
        ("https://api.example.com:8443", "https://api.example.com:8443"),
        ("http://api.example.com:443", "http://api.example.com:443"),
        ("http://localhost:80", "http://localhost"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://under_score.example", "https://under_score.example"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
    ] {
        assert_eq!(origin(text).as_deref(), Ok(canonical), "{text}");
        let read: Origin = canonical.parse().expect(canonical);
        assert_eq!(serde_json::to_value(&read).expect("json"), canonical);
        assert_eq!(serde_json::from_value::<Origin>(canonical.into()).expect("json"), read);
    }
}

#[test]
fn t_n1_every_spelling_of_an_address_is_that_address() {
    for text in [
        "http://127.0.0.1",
        "http://127.1",
        "http://127.0.1",
        "http://2130706433",
        "http://0x7f000001",
        "http://0x7f.1",
        "http://0X7F.0.0.1",
        "http://0177.0.0.1",
        "http://0177.0.0.01",
        "http://017700000001",
        "http://127.0.0.1.",
        "http://127.0.0.0x1",
        "http://%31%32%37.0.0.1",
        "http://127%2e0%2e0%2e1",
        "http://１２７.０.０.１",
        "http://①②⑦.⓪.⓪.①",
        "http://127。0。0。1",
        "http://127．0．0．1",
        "http://1２7.0.0.1",
        "http://127.0.0.%31",
    ] {
        let read: Origin = text.parse().expect(text);
        assert_eq!(read.host().address(), Some("127.0.0.1".parse().expect("address")), "{text}");
        assert_eq!(read.to_string(), "http://127.0.0.1", "{text}");
    }
    for text in ["http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]", "http://[0:0:0:0:0:ffff:7f00:1]"] {
        let read: Origin = text.parse().expect(text);
        assert_eq!(read.host().address().map(|address| address.to_canonical().is_loopback()), Some(true), "{text}");
    }
}

#[test]
fn t_n1_what_names_no_host_or_two_is_refused() {
    for (text, problem) in [
        ("", Problem::Scheme),
        ("api.example.com", Problem::Scheme),
        ("//api.example.com", Problem::Scheme),
        ("https:api.example.com", Problem::Scheme),
        ("https:/api.example.com", Problem::Scheme),
        ("ftp://api.example.com", Problem::Scheme),
        ("file:///etc/passwd", Problem::Rest),
        ("gopher://127.0.0.1:70", Problem::Scheme),
        ("unix:///run/x.sock", Problem::Rest),
        ("https:///api.example.com", Problem::Rest),
        ("https://user@api.example.com", Problem::UserInfo),
        ("https://user:pass@api.example.com", Problem::UserInfo),
        ("https://@api.example.com", Problem::UserInfo),
        ("https://good.example@evil.example", Problem::UserInfo),
        ("https://api.example.com/path", Problem::Rest),
        ("https://api.example.com?a", Problem::Rest),
        ("https://api.example.com#a", Problem::Rest),
        ("https://api.example.com\\@evil.example", Problem::Character),
        ("https://api.example.com\\evil", Problem::Character),
        ("https://api.exa\tmple.com", Problem::Character),
        ("https://api.exa\nmple.com", Problem::Character),
        (" https://api.example.com", Problem::Character),
        ("https://api.example.com\0", Problem::Character),
        ("https://api.example.com:0", Problem::Port),
        ("https://a..b", Problem::Host),
        ("https://.a", Problem::Host),
        ("https://a!b", Problem::Host),
        ("https://a'b", Problem::Host),
        ("https://*.example.com", Problem::Host),
    ] {
        assert_eq!(origin(text), Err(problem), "{text:?}");
    }
    for text in [
        "https://",
        "https://:443",
        "https://a:65536",
        "https://a:b",
        "https://[::1",
        "https://[fe80::1%25eth0]",
        "https://[fe80::1%eth0]",
        "https://1.2.3.4.5",
        "https://256.1.1.1",
        "https://0x100000000",
        "https://1.2.3.08",
        "https://a%2Fb",
        "https://a%00b",
        "https://a b",
        "https://xn--a",
    ] {
        assert!(origin(text).is_err(), "{text:?}");
    }
}

#[test]
fn names_are_bounded_at_their_label_and_in_all() {
    let label = |n: usize| "a".repeat(n);
    assert!(origin(&format!("https://{}.example", label(LABEL_MAX_BYTES))).is_ok());
    assert!(origin(&format!("https://{}.example", label(LABEL_MAX_BYTES + 1))).is_err());
    let name = |n: usize| format!("{0}.{0}.{0}.{1}", label(62), label(n - 3 * 63));
    assert_eq!(name(HOST_MAX_BYTES).len(), HOST_MAX_BYTES);
    assert!(origin(&format!("https://{}", name(HOST_MAX_BYTES - 1))).is_ok());
    assert!(origin(&format!("https://{}", name(HOST_MAX_BYTES))).is_err(), "a label of 64");
    let five = |last: usize| format!("{0}.{0}.{0}.{0}.{1}", label(49), label(last));
    assert!(origin(&format!("https://{}", five(HOST_MAX_BYTES - 200))).is_ok());
    assert!(origin(&format!("https://{}", five(HOST_MAX_BYTES - 199))).is_err());
}

#[test]
fn a_request_names_its_origin_by_scheme_and_authority() {
    let of = |authority: &str| Origin::from_authority(Scheme::Https, authority).map(|origin| origin.to_string());
    assert_eq!(of("API.example.com:443").as_deref(), Ok("https://api.example.com"));
    for wrong in ["", "a/b", "a?b", "a#b", "u@a", "a\\b", "a b", "http://a"] {
        assert!(of(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_url_is_split_where_its_path_begins() {
    let split = |text: &str| Origin::split_url(text).map(|(origin, target)| (origin.to_string(), target.to_string()));
    for (text, origin, target) in [
        ("https://a.example/x?y=z", "https://a.example", "/x?y=z"),
        ("https://a.example", "https://a.example", "/"),
        ("https://a.example:8443/", "https://a.example:8443", "/"),
        ("HTTP://A.example/X", "http://a.example", "/X"),
    ] {
        assert_eq!(split(text), Ok((origin.to_owned(), target.to_owned())), "{text}");
    }
    for wrong in [
        "https://a.example?x",
        "https://a.example/x#y",
        "https://a.example\\x",
        "https://u@a.example/",
        "/x",
        "https://a.example/../x",
        "http:///a.example/x",
        "https://a.example//evil.example",
    ] {
        assert!(split(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_host_alone_has_no_port() {
    assert_eq!(HostName::parse("Mail.Example."), Ok(HostName::Domain("mail.example".to_owned())));
    assert_eq!(HostName::parse("[::1]").map(|host| host.to_string()).as_deref(), Ok("[::1]"));
    assert_eq!(HostName::parse("0x7f.1").map(|host| host.to_string()).as_deref(), Ok("127.0.0.1"));
    for wrong in ["", "a:25", "[::1]:25", "::1", "a/b", "u@a"] {
        assert!(HostName::parse(wrong).is_err(), "{wrong}");
    }
}

proptest::proptest! {
    #[test]
    fn t_n1_what_is_read_is_what_its_text_says(text in "(http|https|HTTP|ftp)(://|:/|:)[a-zA-Z0-9.:@/\\\\\\[\\]%_xX\u{ff10}-\u{ff19}\u{3002}\u{2460}é?#-]{0,24}") {
        if let Ok(origin) = text.parse::<Origin>() {
            let canonical = origin.to_string();
            proptest::prop_assert_eq!(canonical.parse::<Origin>(), Ok(origin.clone()));
            // Whoever reads the text by the standard again connects to the same host and port.
            let url = Url::parse(&canonical).expect("a URL");
            proptest::prop_assert_eq!(url.host_str().map(str::to_owned), Some(origin.host().to_string()));
            proptest::prop_assert_eq!(url.port_or_known_default(), Some(origin.port()));
            proptest::prop_assert!(canonical.is_ascii() && !canonical.contains(['@', '\\', '%']));
        }
    }
}
