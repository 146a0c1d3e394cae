//! The strict front at its edges: every limit at n and n + 1, and every spelling of host, origin, token and form that is nearly
//! right, one row each. What is wrong altogether is the table of `http`.

use serde_json::json;

use super::http::{newer, open, request, say, token};

/// Levels of a body.
const DEPTH_MAX: usize = 64;
/// Bytes of a body.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// A field of a head and the status: names of the door, pages that may ask, and forms.
const FIELDS: &[(&str, u16)] = &[
    ("Host: 127.0.0.1:PORT", 200),
    ("Host: localhost:PORT", 200),
    ("Host: LocalHost:PORT", 200),
    ("Host: 127.0.0.1", 421),
    ("Host: localhost.:PORT", 421),
    ("Host: 127.0.0.1.evil.example:PORT", 421),
    ("Host: localhost.evil.example:PORT", 421),
    ("Host: 127.1:PORT", 421),
    ("Host: 2130706433:PORT", 421),
    ("Host: 0.0.0.0:PORT", 421),
    ("Host: [::1]:PORT", 421),
    ("Host: [::ffff:127.0.0.1]:PORT", 421),
    ("Host: user@127.0.0.1:PORT", 400),
    ("Host: 127.0.0.1:PORT, evil.example", 400),
    ("Host: 127.0.0.1:PORT/mcp", 400),
    ("Host: 127.0.0.1:99999", 421),
    ("Host: ", 400),
    ("Origin: http://127.0.0.1:PORT", 200),
    ("Origin: https://pages.example", 200),
    ("Origin: https://127.0.0.1:PORT", 403),
    ("Origin: http://127.0.0.1", 403),
    ("Origin: http://localhost:PORT", 403),
    ("Origin: http://pages.example", 403),
    ("Origin: https://pages.example:8443", 403),
    ("Origin: https://pages.example.evil.example", 403),
    ("Origin: https://pages.example/", 200),
    ("Origin: https://user@pages.example", 403),
    ("Origin: https://pages.example, https://pages.example", 403),
    ("Origin: file://", 403),
    ("Origin: null", 403),
    ("Origin: *", 403),
    ("Origin: ", 403),
    ("Sec-Fetch-Site: same-origin", 200),
    ("Sec-Fetch-Site: none", 200),
    ("Sec-Fetch-Site: same-site", 403),
    ("Sec-Fetch-Site: cross-site", 403),
    ("X-Forwarded-Host: evil.example", 200),
    ("X-Forwarded-For: 127.0.0.1", 200),
    ("Content-Type: application/json; charset=utf-8", 200),
    ("Content-Type: APPLICATION/JSON; CHARSET=\"UTF-8\"", 200),
    ("Content-Type: application/json; charset=utf-8; x=y", 415),
    ("Content-Type: application/json;charset=latin1", 415),
    ("Content-Type: application/jsonp", 415),
    ("Content-Type: application/*", 415),
    ("Content-Encoding: identity", 415),
    ("Accept: */*", 200),
    ("Accept: application/*, text/*", 200),
    ("Accept: text/event-stream", 406),
    ("Accept: application/jsonx, text/event-stream", 406),
];
/// What is said about a token, the field, and the status.
const TOKENS: &[(&str, &str, u16)] = &[
    ("a scheme in small letters", "Authorization: bearer TOKEN", 200),
    ("a blank more", "Authorization: Bearer  TOKEN", 200),
    ("two of them in one", "Authorization: Bearer TOKEN TOKEN", 401),
    ("two of them in a list", "Authorization: Bearer TOKEN, Bearer TOKEN", 401),
    ("no scheme", "Authorization: TOKEN", 401),
    ("a longer scheme", "Authorization: Bearers TOKEN", 401),
    ("a letter more", "Authorization: Bearer TOKENx", 401),
    ("in quotes", "Authorization: Bearer \"TOKEN\"", 401),
    ("nothing", "Authorization:", 401),
];

/// What is said, the lines of the head, the body, and the status.
type Row = (&'static str, Vec<String>, String, u16);

/// The good head, with one field instead of its own.
struct Head {
    port: u16,
    lines: Vec<String>,
}

impl Head {
    fn with(&self, line: &str) -> Vec<String> {
        let name = line.split(':').next().expect("a name").to_ascii_lowercase();
        let mut lines = self.lines.clone();
        lines.retain(|own| !own.to_ascii_lowercase().starts_with(&format!("{name}:")));
        lines.push(line.replace("PORT", &self.port.to_string()));
        lines
    }
}

fn check(port: u16, start: &str, rows: Vec<Row>) {
    let wrong = rows.into_iter().filter_map(|(what, lines, body, expected)| {
        let status = say(port, start, &lines, &body).status;
        (status != expected).then(|| format!("{what}: {status} instead of {expected}"))
    });
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn t_i7_a_name_an_origin_and_a_token_are_right_to_the_letter() {
    let (world, port) = open("origins = [\"https://pages.example\"]\n");
    let token = token(&world);
    let head = Head { port, lines: newer(port, &token, "tools/list", None) };
    let good = request("tools/list", json!({}));
    check(
        port,
        "POST /mcp",
        FIELDS.iter().map(|(line, status)| (*line, head.with(line), good.clone(), *status)).collect(),
    );
    let spelled = |text: &str| head.with(&text.replace("TOKEN", &token));
    check(
        port,
        "POST /mcp",
        TOKENS.iter().map(|(what, line, status)| (*what, spelled(line), good.clone(), *status)).collect(),
    );
    let shorter = head.with(&format!("Authorization: Bearer {}", &token[..token.len() - 1]));
    check(port, "POST /mcp", vec![("a letter less", shorter, good.clone(), 401)]);
    // A page asks whether it may: one that is named is told, and nothing else is.
    for (origin, status) in [("https://pages.example", 204), ("https://evil.example", 403)] {
        let asks = vec![
            format!("Host: 127.0.0.1:{port}"),
            format!("Origin: {origin}"),
            "Access-Control-Request-Method: POST".to_owned(),
        ];
        let answer = say(port, "OPTIONS /mcp", &asks, "");
        assert_eq!(answer.status, status, "{origin}: {answer:?}");
        assert_eq!(answer.head.contains("access-control-allow-origin"), status == 204, "{answer:?}");
    }
    world.verified();
}

#[test]
fn t_i9_a_body_is_taken_at_each_of_its_limits_and_not_one_beyond() {
    let (world, port) = open("");
    let head = newer(port, &token(&world), "tools/list", None);
    let good = request("tools/list", json!({}));
    // The object, its parameters, and one member of them that is as deep as the rest may be.
    let deep = |levels: usize| {
        let inner = levels - 2;
        good.replacen("\"params\":{", &format!("\"params\":{{\"x\":{}{},", "[".repeat(inner), "]".repeat(inner)), 1)
    };
    let long = |bytes: usize| format!("{good}{}", " ".repeat(bytes - good.len()));
    let id = |text: &str| good.replacen("\"id\":1", &format!("\"id\":{text}"), 1);
    let texts = |bytes: usize| id(&format!("\"{}\"", "i".repeat(bytes)));
    let member = |text: &str| good.replacen("\"params\":{", &format!("\"params\":{{{text},"), 1);
    let rows: Vec<(&str, String, u16, Option<i64>)> = vec![
        ("as deep as may be", deep(DEPTH_MAX), 200, None),
        ("one deeper", deep(DEPTH_MAX + 1), 400, Some(-32_700)),
        ("as long as may be", long(BODY_MAX), 200, None),
        ("one byte longer", long(BODY_MAX + 1), 413, None),
        ("the longest id", texts(128), 200, None),
        ("one longer", texts(129), 400, Some(-32_600)),
        ("the largest id", id("9007199254740991"), 200, None),
        ("one larger", id("9007199254740992"), 400, Some(-32_600)),
        ("the smallest id", id("-9007199254740991"), 200, None),
        ("one smaller", id("-9007199254740992"), 400, Some(-32_600)),
        ("half an id", id("1.5"), 400, Some(-32_600)),
        ("an id of truth", id("true"), 400, Some(-32_600)),
        ("a key twice, deep inside", member("\"x\":[{\"a\":{\"b\":1,\"b\":1}}]"), 400, Some(-32_700)),
        ("a key twice, spelled otherwise", member("\"x\":{\"a\":1,\"\\u0061\":1}"), 400, Some(-32_700)),
        ("half a surrogate", member("\"x\":\"\\ud800\""), 400, Some(-32_700)),
        ("a number beyond numbers", member("\"x\":1e999"), 400, Some(-32_700)),
        ("no number", member("\"x\":NaN"), 400, Some(-32_700)),
        ("a leading zero", member("\"x\":01"), 400, Some(-32_700)),
        ("a comma too many", member("\"x\":[1,]"), 400, Some(-32_700)),
        ("a comment", member("/* x */\"x\":1"), 400, Some(-32_700)),
        ("a control character", member("\"x\":\"\u{1}\""), 400, Some(-32_700)),
        ("a member of the envelope too many", good.replacen('{', "{\"x\":1,", 1), 400, Some(-32_600)),
        ("a method of a number", good.replacen("\"method\":\"tools/list\"", "\"method\":7", 1), 400, Some(-32_600)),
        (
            "parameters in a list",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":[]}".to_owned(),
            400,
            Some(-32_602),
        ),
    ];
    for (what, body, status, number) in rows {
        let answer = say(port, "POST /mcp", &head, &body);
        assert_eq!((answer.status, answer.json()["error"]["code"].as_i64()), (status, number), "{what}: {answer:?}");
    }
    world.verified();
}
