//! Attack: returns a JSON text of `n` bytes.

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

    fn invoke(_name: String, input: String) -> Result<String, Error> {
        let length = usize::try_from(number(&input, 32 << 20)).unwrap_or(usize::MAX);
        let mut text = String::with_capacity(length);
        text.push('"');
        text.extend(std::iter::repeat_n('x', length.saturating_sub(2)));
        text.push('"');
        Ok(text)
    }
}

export!(Attack);
