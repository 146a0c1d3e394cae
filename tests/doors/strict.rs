//! Strictness of the wire: every text that has more than one reading is refused, and the connection goes on.

use serde_json::{Value, json};
use toolkeep_core::limit::{JSON_DEPTH_MAX, LINE_MAX_BYTES};
use toolkeep_tests::support::proof::told;

use super::running::{Client, Daemon};

fn refused(client: &mut Client, line: &str) -> (Value, i64) {
    let answer = client.exchange(line);
    let code = answer.pointer("/error/code").and_then(Value::as_i64);
    let word = answer.pointer("/error/data/code").and_then(Value::as_str);
    assert_eq!(word, Some("invalid_input"), "{line} gave {answer}");
    (answer["id"].clone(), code.expect("an error"))
}

#[test]
fn g16_every_departure_from_the_protocol_is_refused_and_the_connection_goes_on() {
    let daemon = Daemon::start();
    let mut client = daemon.agent();
    let table: &[(&str, Value, i64)] = &[
        // Not JSON.
        ("", Value::Null, -32_700),
        ("{", Value::Null, -32_700),
        ("nonsense", Value::Null, -32_700),
        ("{'jsonrpc':'2.0'}", Value::Null, -32_700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"host.info",}"#, Value::Null, -32_700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"host.info"} {}"#, Value::Null, -32_700),
        (r#"{"jsonrpc":"2.0","id":01,"method":"host.info"}"#, Value::Null, -32_700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"host.info","params":{"_meta":NaN}}"#, Value::Null, -32_700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"host.info","params":{"_meta":1e999}}"#, Value::Null, -32_700),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"host.info","params":{"_meta":99999999999999999999}}"#,
            Value::Null,
            -32_700,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"host.info","params":{"_meta":"\ud800"}}"#, Value::Null, -32_700),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"host.info\",\"params\":{\"_meta\":\"\u{1}\"}}",
            Value::Null,
            -32_700,
        ),
        ("\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"host.info\"}", Value::Null, -32_700),
        // Twice the same.
        (r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"host.info"}"#, Value::Null, -32_700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"host.info","m\u0065thod":"tools.list"}"#, Value::Null, -32_700),
        // Not a request.
        ("null", Value::Null, -32_600),
        ("\"host.info\"", Value::Null, -32_600),
        ("[]", Value::Null, -32_600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"host.info"}]"#, Value::Null, -32_600),
        (r#"{"jsonrpc":"2.0","method":"host.info"}"#, Value::Null, -32_600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"host.info"}"#, Value::Null, -32_600),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"host.info"}"#, Value::Null, -32_600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"host.info"}"#, Value::Null, -32_600),
        (r#"{"jsonrpc":"2","id":1,"method":"host.info"}"#, json!(1), -32_600),
        (r#"{"id":1,"method":"host.info"}"#, json!(1), -32_600),
        (r#"{"jsonrpc":"2.0","id":1}"#, json!(1), -32_600),
        (r#"{"jsonrpc":"2.0","id":1,"method":["host.info"]}"#, json!(1), -32_600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"host.info","extra":0}"#, json!(1), -32_600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"host.info","_meta":{}}"#, json!(1), -32_600),
        // Not a method, not its parameters.
        (r#"{"jsonrpc":"2.0","id":"a","method":"HOST.INFO"}"#, json!("a"), -32_601),
        (r#"{"jsonrpc":"2.0","id":"a","method":"host.info "}"#, json!("a"), -32_601),
        (r#"{"jsonrpc":"2.0","id":"a","method":"rpc.discover"}"#, json!("a"), -32_601),
        (r#"{"jsonrpc":"2.0","id":2,"method":"host.info","params":[]}"#, json!(2), -32_602),
        (r#"{"jsonrpc":"2.0","id":2,"method":"host.info","params":{"a":1}}"#, json!(2), -32_602),
        (r#"{"jsonrpc":"2.0","id":2,"method":"tools.describe"}"#, json!(2), -32_602),
        (r#"{"jsonrpc":"2.0","id":2,"method":"tools.describe","params":{"tool":"Not A Name"}}"#, json!(2), -32_602),
        (r#"{"jsonrpc":"2.0","id":2,"method":"calls.get","params":{"call":"plan_1"}}"#, json!(2), -32_602),
        (r#"{"jsonrpc":"2.0","id":2,"method":"calls.execute","params":{"tool":"t"}}"#, json!(2), -32_602),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"calls.execute","params":{"tool":"t","input":{},"user":"root"}}"#,
            json!(2),
            -32_602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"calls.preview","params":{"tool":"t","input":{},"mode":"commit"}}"#,
            json!(2),
            -32_602,
        ),
    ];
    for (line, id, code) in table {
        assert_eq!(refused(&mut client, line), (id.clone(), *code), "{line}");
    }
    told("G16 departures from the protocol", table.len(), "accepted", "every line of the table");
    client.send(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xc3\x28\"}\n");
    assert_eq!(client.line().expect("an answer").pointer("/error/code"), Some(&json!(-32_700)), "invalid UTF-8");
    let answer = client.ask("host.info", json!({"_meta": {"anything": {"goes": [1, 2]}}}));
    assert_eq!(answer.pointer("/result/name"), Some(&json!("toolkeep")), "{answer}");
}

#[test]
fn g16_duplicate_keys_are_refused_at_every_depth() {
    let daemon = Daemon::start();
    let mut client = daemon.agent();
    // The envelope, `params` and `_meta` are three levels already.
    for depth in 0..JSON_DEPTH_MAX - 3 {
        let nested = |inner: &str| format!("{}{inner}{}", "{\"k\":".repeat(depth), "}".repeat(depth));
        let line = |inner: &str| {
            let nested = nested(inner);
            format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"host.info\",\"params\":{{\"_meta\":{nested}}}}}")
        };
        assert_eq!(refused(&mut client, &line("{\"a\":1,\"b\":2,\"a\":1}")).1, -32_700, "depth {depth}");
        assert_eq!(refused(&mut client, &line("{\"a\":1,\"\\u0061\":1}")).1, -32_700, "escaped, depth {depth}");
        let answer = client.exchange(&line("{\"a\":1,\"b\":2}"));
        assert!(answer.get("result").is_some(), "depth {depth}: {answer}");
    }
}

#[test]
fn g16_nesting_holds_at_n_and_n_plus_1() {
    let daemon = Daemon::start();
    let mut client = daemon.agent();
    let line = |levels: usize| {
        let inner = levels - 2;
        let nested = format!("{}{}", "[".repeat(inner), "]".repeat(inner));
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"host.info\",\"params\":{{\"_meta\":{nested}}}}}")
    };
    let answer = client.exchange(&line(JSON_DEPTH_MAX));
    assert!(answer.get("result").is_some(), "{answer}");
    assert_eq!(refused(&mut client, &line(JSON_DEPTH_MAX + 1)).1, -32_700);
    assert_eq!(refused(&mut client, &"[".repeat(1_000_000)).1, -32_700, "no stack is that deep");
}

#[test]
fn g16_a_line_holds_at_n_and_n_plus_1_bytes() {
    let daemon = Daemon::start();
    let mut client = daemon.agent();
    let line = |bytes: usize| {
        let head = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"host.info\",\"params\":{\"_meta\":\"";
        let tail = "\"}}";
        format!("{head}{}{tail}", "x".repeat(bytes - head.len() - tail.len()))
    };
    let answer = client.exchange(&line(LINE_MAX_BYTES));
    assert_eq!(answer.pointer("/result/name"), Some(&json!("toolkeep")));
    let answer = client.exchange(&line(LINE_MAX_BYTES + 1));
    assert_eq!(answer.pointer("/error/code"), Some(&json!(-32_600)), "{answer}");
    assert!(client.is_closed(), "what follows a line without an end has no meaning");
}

#[test]
fn ids_come_back_as_they_were_sent() {
    let daemon = Daemon::start();
    let mut client = daemon.agent();
    let longest = "i".repeat(128);
    for id in
        [json!(0), json!(-1), json!(9_007_199_254_740_991_i64), json!(""), json!("é\"\\\n\u{202e}"), json!(longest)]
    {
        let answer = client.exchange(&json!({"jsonrpc": "2.0", "id": id, "method": "host.info"}).to_string());
        assert_eq!(answer["id"], id);
    }
    for id in [json!(9_007_199_254_740_992_i64), json!(format!("{longest}i")), json!(true)] {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "host.info"}).to_string();
        assert_eq!(refused(&mut client, &request), (Value::Null, -32_600), "{id}");
    }
}

#[test]
fn t_i3_a_hundred_clients_with_the_same_id_get_their_own_answers() {
    let daemon = Daemon::start();
    let socket = daemon.agent_socket();
    std::thread::scope(|threads| {
        for client in 0..100 {
            let socket = &socket;
            threads.spawn(move || {
                let mut connection = Client::connect(socket);
                for round in 0..20 {
                    let name = format!("client-{client}-round-{round}");
                    let request = json!({"jsonrpc": "2.0", "id": 0, "method": "host.info", "params": {&name: 1}});
                    let answer = connection.exchange(&request.to_string());
                    let message = answer.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
                    assert!(message.contains(&format!("`{name}`")), "{answer}");
                }
            });
        }
    });
}
