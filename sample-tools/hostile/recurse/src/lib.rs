//! Attack: calls itself until the stack ends.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

use std::hint::black_box;

use exports::toolkeep::tool::tool::{Error, Guest};

/// What `describe` answers.
const DESCRIPTION: &str = include_str!("description.json");

/// The first number of the input, or `otherwise`.
fn number(input: &str, otherwise: u64) -> u64 {
    let digits: String = input.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(otherwise)
}

fn deeper(above: &[u64; 64], left: u64) -> u64 {
    let here = black_box(*above);
    if left == 0 { 0 } else { deeper(&here, left - 1) + black_box(here)[0] + 1 }
}

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    fn invoke(_name: String, input: String) -> Result<String, Error> {
        Ok(format!("{{\"depth\":{}}}", deeper(&[0; 64], number(&input, u64::MAX))))
    }
}

export!(Attack);
