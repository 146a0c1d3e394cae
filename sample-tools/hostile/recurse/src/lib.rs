//! Attack: calls itself until the stack ends: with small frames, or with large ones if `n` is 1.

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

fn small(depth: u64) -> u64 {
    let next: fn(u64) -> u64 = black_box(small);
    next(depth + 1) ^ 1
}

#[expect(unconditional_recursion, reason = "this is the attack")]
fn large(above: &[u64; 64]) -> u64 {
    let here = black_box(*above);
    large(&here) + black_box(here)[0] + 1
}

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    fn invoke(_name: String, input: String) -> Result<String, Error> {
        let depth = if number(&input, 0) == 1 { large(&[0; 64]) } else { small(0) };
        Ok(format!("{{\"depth\":{depth}}}"))
    }
}

export!(Attack);
