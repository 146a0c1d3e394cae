//! Attack: keeps `n` handles of the host open, or as many as it can.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

use wasip2::clocks::monotonic_clock::subscribe_duration;

use exports::toolkeep::tool::tool::{Error, Guest};

/// What `describe` answers.
const DESCRIPTION: &str = include_str!("description.json");

/// The first number of the input, or `otherwise`.
fn number(input: &str, otherwise: u64) -> u64 {
    let digits: String = input.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(otherwise)
}

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    fn invoke(_name: String, input: String) -> Result<String, Error> {
        let mut hoard = Vec::new();
        for _ in 0..number(&input, u64::MAX) {
            hoard.push(subscribe_duration(1));
        }
        Ok(format!("{{\"held\":{}}}", hoard.len()))
    }
}

export!(Attack);
