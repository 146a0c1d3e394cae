//! The negative table of strict JSON (G16): every text that must be refused, and that nothing valid is.

use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::digest::Digest;

/// Which rule a text of the table breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Utf8,
    Mark,
    Grammar,
    Duplicate,
    Deep,
    Wide,
}

fn rule(text: &[u8]) -> Option<Rule> {
    parse(text).err().map(|error| match error.problem {
        Problem::NotUtf8 => Rule::Utf8,
        Problem::ByteOrderMark => Rule::Mark,
        Problem::Syntax(_) => Rule::Grammar,
        Problem::DuplicateKey(_) => Rule::Duplicate,
        Problem::TooDeep => Rule::Deep,
        Problem::WideInteger => Rule::Wide,
    })
}

/// Texts that the grammar refuses, alone and inside of an array and an object.
const BROKEN: &[&str] = &[
    "",
    " ",
    "\n",
    "tru",
    "True",
    "TRUE",
    "nul",
    "nulll",
    "Null",
    "undefined",
    "NaN",
    "-NaN",
    "nan",
    "Infinity",
    "-Infinity",
    "inf",
    "1e999",
    "-1e999",
    "1e309",
    "01",
    "-01",
    "00",
    "0x10",
    "0b1",
    "1_000",
    "+1",
    "--1",
    "-",
    "1.",
    ".5",
    "-.5",
    "1.e5",
    "1e",
    "1e+",
    "1E-",
    "1.5.2",
    "1e5.2",
    "1 000",
    "1f",
    "'a'",
    "`a`",
    "a",
    "\"",
    "\"a",
    "\"a\\\"",
    "\"\\",
    "\"\\x41\"",
    "\"\\a\"",
    "\"\\'\"",
    "\"\\u\"",
    "\"\\u12\"",
    "\"\\u12g4\"",
    "\"\\U00000041\"",
    "\"\\u{41}\"",
    "\"\\ud800\"",
    "\"\\udc00\"",
    "\"\\ud800x\"",
    "\"\\ud800\\n\"",
    "\"\\ud800\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\uD83D\"",
    "\"a\nb\"",
    "\"a\tb\"",
    "\"a\rb\"",
    "\"a\u{0}b\"",
    "\"a\u{1}b\"",
    "\"a\u{1f}b\"",
    "[",
    "]",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1,,2]",
    "[1 2]",
    "[1;2]",
    "[1:2]",
    "[1}",
    "[[1]",
    "[...]",
    "{",
    "}",
    "{\"a\"",
    "{\"a\":",
    "{\"a\":1",
    "{\"a\":1,",
    "{\"a\":1,}",
    "{,\"a\":1}",
    "{\"a\" 1}",
    "{\"a\"::1}",
    "{\"a\",1}",
    "{\"a\":1 \"b\":2}",
    "{\"a\":1]",
    "{a:1}",
    "{'a':1}",
    "{1:1}",
    "{null:1}",
    "{[]:1}",
    "{\"a\":}",
    "{\"\\ud800\":1}",
    "// c\n1",
    "/* c */1",
    "# c\n1",
    "1 // c",
    "[1 /* c */]",
    "<1>",
    "(1)",
    "\u{b}1",
    "\u{c}1",
    "\u{a0}1",
    "\u{2028}1",
    "\u{0}1",
    "\u{1b}1",
];

/// What must not follow a value.
const TRAILING: &[&str] =
    &["1 2", "{}{}", "[][]", "1,", "true false", "null\u{0}", "\"a\"\"b\"", "{} x", "[]]", "{}}", "1\n2"];

#[test]
#[expect(clippy::print_stdout, reason = "how many there were is the measured figure")]
fn g16_every_broken_text_is_refused_alone_and_nested() {
    for broken in BROKEN {
        assert_eq!(rule(broken.as_bytes()), Some(Rule::Grammar), "{broken:?}");
        for (head, tail) in [("[0,", "]"), ("{\"k\":", "}"), ("[{\"k\":[0,", "]}]")] {
            // The empty text inside of brackets is another matter: `[0,]` is in the table itself.
            let nested = format!("{head}{broken}{tail}");
            assert!(rule(nested.as_bytes()).is_some(), "{nested:?}");
        }
    }
    for trailing in TRAILING {
        assert_eq!(rule(trailing.as_bytes()), Some(Rule::Grammar), "{trailing:?}");
    }
    println!("G16 broken texts: 0 of {} (the whole table) accepted, no seed", BROKEN.len() * 4 + TRAILING.len());
}

#[test]
fn g16_every_prefix_of_a_valid_text_is_refused_without_a_panic() {
    let whole = r#"{"a":[1,-2.5e3,"x\u00e9\ud83d\ude00",{"b":[true,false,null]}],"c":{"d":"\\\"/"}}"#;
    assert_eq!(rule(whole.as_bytes()), None);
    for end in 0..whole.len() {
        assert!(parse(&whole.as_bytes()[..end]).is_err(), "{end}");
    }
    for at in 0..whole.len() {
        for byte in [0_u8, b'"', b'\\', b'{', b']', b',', 0x80, 0xff] {
            let mut changed = whole.as_bytes().to_vec();
            changed[at] = byte;
            let _whatever = parse(&changed).map_err(|e| e.to_string());
        }
    }
}

#[test]
fn g16_bytes_that_are_not_utf8_and_marks_are_refused() {
    let sequences: [&[u8]; 9] = [
        b"\xff",
        b"\x80",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
    ];
    for bytes in sequences {
        let text = [b"[\"".as_slice(), bytes, b"\"]"].concat();
        assert_eq!(rule(&text), Some(Rule::Utf8), "{bytes:x?}");
        assert_eq!(parse(&text).map_err(|e| e.offset), Err(2), "{bytes:x?}");
    }
    assert_eq!(rule("\u{feff}{}".as_bytes()), Some(Rule::Mark));
    assert_eq!(rule("{}\u{feff}".as_bytes()), Some(Rule::Grammar));
    // UTF-16 and UTF-32 are not guessed.
    assert!(rule(b"\xff\xfe{\x00}\x00").is_some() && rule(b"\x00{\x00}").is_some());
}

#[test]
fn g16_a_duplicate_key_is_refused_at_every_depth() {
    for depth in 1..=JSON_DEPTH_MAX {
        for arrays in [false, true] {
            let (open, close) = if arrays { ("[", "]") } else { ("{\"k\":", "}") };
            let text = |inner: &str| format!("{}{inner}{}", open.repeat(depth - 1), close.repeat(depth - 1));
            let error = parse(text(r#"{"a":1,"b":2,"a":3}"#).as_bytes()).expect_err("duplicate");
            assert_eq!(error.problem, Problem::DuplicateKey("a".to_owned()), "depth {depth}");
            let step = if arrays { "/0" } else { "/k" };
            let pointer = locate::shorten(&format!("{}/a", step.repeat(depth - 1)));
            assert_eq!(error.pointer, pointer, "depth {depth}");
            assert_eq!(rule(text(r#"{"a":1,"b":2}"#).as_bytes()), None, "depth {depth}");
        }
    }
}

#[test]
fn g16_keys_are_compared_after_unescaping_and_only_then() {
    for text in [
        r#"{"a":1,"\u0061":2}"#,
        r#"{"\n":1,"\u000A":2}"#,
        r#"{"":1,"":2}"#,
        r#"{"/":1,"\/":2}"#,
        r#"{"\ud83d\ude00":1,"😀":2}"#,
        r#"{"a":1,"a":1}"#,
        r#"{"a":null,"a":null}"#,
    ] {
        assert_eq!(rule(text.as_bytes()), Some(Rule::Duplicate), "{text}");
    }
    for text in [r#"{"a":1,"A":2}"#, r#"{"\u00e9":1,"e\u0301":2}"#, r#"{"a":{"a":{"a":1}}}"#, r#"[{"a":1},{"a":1}]"#] {
        assert_eq!(rule(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn g16_depth_holds_at_n_and_n_plus_1() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let per = open.matches(['[', '{']).count();
        let nested = |n: usize| format!("{}0{}", open.repeat(n / per), close.repeat(n / per));
        assert_eq!(rule(nested(JSON_DEPTH_MAX).as_bytes()), None, "{open}");
        assert_eq!(rule(nested(JSON_DEPTH_MAX + per).as_bytes()), Some(Rule::Deep), "{open}");
    }
    // Far beyond: no recursion, no panic, wherever it stops.
    for open in ["[", "{\"a\":", "[[{\"a\":["] {
        assert_eq!(rule(open.repeat(1_000_000).as_bytes()), Some(Rule::Deep), "{open}");
    }
}

#[test]
fn g16_integers_hold_at_the_ends_of_64_bits() {
    for text in
        ["18446744073709551615", "-9223372036854775808", "0", "-0", "1e18", "1.5e300", "18446744073709551616.0", "1e20"]
    {
        assert_eq!(rule(text.as_bytes()), None, "{text}");
    }
    for text in ["18446744073709551616", "-9223372036854775809", "100000000000000000000000000000000000000000"] {
        assert_eq!(rule(text.as_bytes()), Some(Rule::Wide), "{text}");
        let nested = format!("{{\"a\":[1e30,{text}],\"b\":\"18446744073709551616\"}}");
        let error = parse(nested.as_bytes()).expect_err("wide");
        assert_eq!((error.pointer.as_str(), error.offset), ("/a/1", 11), "{text}");
    }
    assert_eq!(rule(br#"{"18446744073709551616":"-9223372036854775809","x":1e30}"#), None);
}

#[test]
fn r11_an_error_names_the_byte_the_member_and_the_problem() {
    let check = |text: &str, expect: &str| assert_eq!(parse(text.as_bytes()).expect_err(text).to_string(), expect);
    check(r#"{"a":1,"a":2}"#, "not valid JSON at byte 9 (`/a`): the key `a` occurs twice in one object");
    check("{\"x/y\":[1,\n tru]}", "not valid JSON at byte 15 (`/x~1y/1`): expected ident");
    check("[1,2", "not valid JSON at byte 3 (`/1`): EOF while parsing a list");
    check("\u{feff}1", "not valid JSON at byte 0: the text starts with a byte-order mark; leave it out");
    check("{\"\u{202e}\":tru}", "not valid JSON at byte 10 (`/⟨U+202E⟩`): expected ident");
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    name: String,
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    size: u8,
}

#[test]
fn r11_a_wrong_type_is_pointed_at() {
    let good = br#"{"name":"n","parts":[{"size":1}]}"#;
    assert_eq!(parse_typed::<Sample>(good), Ok(Sample { name: "n".to_owned(), parts: vec![Part { size: 1 }] }));
    let pointer = |text: &str| match parse_typed::<Sample>(text.as_bytes()) {
        Err(Unfit::Mistyped(error)) => (error.pointer, error.problem),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        pointer(r#"{"name":"n","parts":[{"size":1},{"size":256}]}"#),
        ("/parts/1/size".to_owned(), "invalid value: integer `256`, expected u8".to_owned())
    );
    assert_eq!(pointer(r#"{"name":1,"parts":[]}"#).0, "/name");
    assert!(pointer(r#"{"name":"n"}"#).1.contains("missing field `parts`"));
    assert_eq!(pointer(r#"{"name":"n","parts":[{"size":1,"more":2}]}"#).0, "/parts/0/more");
    let refusal = Refusal::from(parse_typed::<Sample>(b"{").expect_err("broken"));
    assert_eq!((refusal.code, refusal.fields.len()), (Code::InvalidInput, 1));
}

#[test]
fn canonical_text_sorts_escapes_and_refuses_what_would_collide() {
    let check =
        |text: &str, expect: &str| assert_eq!(canonical(&parse(text.as_bytes()).expect(text)).as_deref(), Ok(expect));
    check(r#"{"b":1,"a":[true,null,"\u00e9\u001f\/"],"":{}}"#, "{\"\":{},\"a\":[true,null,\"é\\u001f/\"],\"b\":1}");
    check(
        r#"[1.0,-0,1e21,1e-7,333333333.33333329,9007199254740991]"#,
        "[1,0,1e+21,1e-7,333333333.3333333,9007199254740991]",
    );
    // U+10000 is above U+E000, yet its first UTF-16 unit sorts below.
    check("{\"\u{e000}\":1,\"\u{10000}\":2}", "{\"\u{10000}\":2,\"\u{e000}\":1}");
    for wide in ["9007199254740992", "-9007199254740992", "18446744073709551615", "9.894408207759467e+16"] {
        let value = parse(format!("{{\"a\":[0,{wide}]}}").as_bytes()).expect("json");
        let expect = NotCanonical::WideInteger { pointer: "/a/1".to_owned(), number: wide.to_owned() };
        assert_eq!(canonical(&value), Err(expect.clone()));
        assert_eq!(Refusal::from(expect).fields[0].pointer, "/a/1");
    }
    let deep = (0..=JSON_DEPTH_MAX).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    assert_eq!(canonical(&deep), Err(NotCanonical::TooDeep));
    let (text, digest) = input_digest(&json!({"b": 2, "a": 1})).expect("canonical");
    assert_eq!((text.as_str(), digest), (r#"{"a":1,"b":2}"#, Digest::of(br#"{"a":1,"b":2}"#)));
}

fn values(integers: std::ops::RangeInclusive<i64>, floats: fn(f64) -> bool) -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        proptest::prelude::Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        integers.prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", move |f| Number::from_f64(f).filter(|_| floats(f)).map(Value::Number)),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn g16_every_value_that_is_written_is_read_back_equal(value in values(i64::MIN..=i64::MAX, |_| true)) {
        prop_assert_eq!(parse(value.to_string().as_bytes()), Ok(value));
    }

    #[test]
    fn canonical_text_is_that_of_rfc_8785(value in values(-9_007_199_254_740_991..=9_007_199_254_740_991, |f| f.abs() < 9e15 || f.abs() >= 1e21)) {
        let theirs = serde_json_canonicalizer::to_string(&value).expect("canonical");
        prop_assert_eq!(canonical(&value), Ok(theirs.clone()));
        prop_assert_eq!(canonical_text(&value).ok(), Some(theirs.clone()));
        prop_assert_eq!(canonical(&parse(theirs.as_bytes()).expect("json")), Ok(theirs));
    }

    #[test]
    fn canonical_text_of_what_has_no_exact_one_is_that_of_rfc_8785_too(value in values(i64::MIN..=i64::MAX, |_| true)) {
        prop_assert_eq!(canonical_text(&value).ok(), serde_json_canonicalizer::to_string(&value).ok());
    }

    #[test]
    fn g16_no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _whatever = parse(&bytes).map_err(|e| e.to_string());
    }
}
