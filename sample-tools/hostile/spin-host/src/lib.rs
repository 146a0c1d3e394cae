//! Attack: burns time inside of the host: it calls imports and never returns.

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
        let shape = number(&input, 0);
        loop {
            match shape {
                0 => drop(toolkeep::tool::context::caller()),
                1 => drop(wasip2::clocks::monotonic_clock::now()),
                2 => wasip2::clocks::monotonic_clock::subscribe_duration(3_600_000_000_000).block(),
                3 => toolkeep::tool::log::write(toolkeep::tool::log::Level::Debug, "x"),
                4 => toolkeep::tool::progress::report(0, None, "x"),
                _ => drop(wasip2::cli::environment::get_environment()),
            }
        }
    }
}

export!(Attack);
