//! Everything that a line of MCP can be and must not: one table, with the number of the error and the id that was understood.

use serde_json::{Value, json};

use super::super::world::World;
use crate::doors::running::Client;

/// What a request of the newer era says about itself, as text.
const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

#[test]
fn t_i9_every_line_that_is_no_message_is_refused_and_the_connection_goes_on() {
    let world = World::new();
    let mut client = Client::connect(&world.path("run/agent/mcp.sock"));
    let request = |rest: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list",{rest}}}"#);
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let table: Vec<(String, i64, Value)> = vec![
        (String::new(), -32_700, Value::Null),
        ("{".to_owned(), -32_700, Value::Null),
        ("nonsense".to_owned(), -32_700, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}"#.to_owned(), -32_700, Value::Null),
        (request(r#""params":{"a":1,"a":1}"#), -32_700, Value::Null),
        (request(r#""params":{"a":"\ud800"}"#), -32_700, Value::Null),
        (request(r#""params":{"a":1e999}"#), -32_700, Value::Null),
        (request(&format!(r#""params":{{"a":{deep}}}"#)), -32_700, Value::Null),
        ("[]".to_owned(), -32_600, Value::Null),
        (format!("[{}]", request(r#""params":{}"#)), -32_600, Value::Null),
        ("7".to_owned(), -32_600, Value::Null),
        ("{}".to_owned(), -32_600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#.to_owned(), -32_600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#.to_owned(), -32_600, Value::Null),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#.to_owned(), -32_600, json!(1)),
        (request(r#""x":1"#), -32_600, json!(1)),
        (request(r#""params":[]"#), -32_602, json!(1)),
        (request(r#""params":{}"#), -32_602, json!(1)),
        (request(r#""params":{"_meta":[]}"#), -32_602, json!(1)),
        (
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{}}}}}"#,
                META.replace("2026", "2199")
            ),
            -32_022,
            json!(1),
        ),
        (r#"{"jsonrpc":"2.0","id":"x","method":"initialize","params":{}}"#.to_owned(), -32_602, json!("x")),
    ];
    for (line, number, id) in &table {
        let answer = client.exchange(line);
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(number), id), "{line}: {answer}");
    }
    // What wants no answer gets none, whatever it is.
    for quiet in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":{}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/unheard-of","params":{"a":1}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}"#,
    ] {
        client.send(format!("{quiet}\n").as_bytes());
    }
    let answer = client.exchange(r#"{"jsonrpc":"2.0","id":"last","method":"ping"}"#);
    assert_eq!((&answer["id"], &answer["result"]), (&json!("last"), &json!({})), "{answer}");
}
