//! Attack: prints `n` KiB, or without end.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

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

    #[expect(clippy::print_stdout, reason = "this is the attack")]
    fn invoke(_name: String, input: String) -> Result<String, Error> {
        let line = "x".repeat(1023);
        for _ in 0..number(&input, u64::MAX) {
            println!("{line}");
        }
        Ok("{}".to_owned())
    }
}

export!(Attack);
