//! Attack: creates `n` files, or a million.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

use wasip2::filesystem::preopens;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

use exports::toolkeep::tool::tool::{Error, Failure, Guest};

/// What `describe` answers.
const DESCRIPTION: &str = include_str!("description.json");

fn first_root() -> Result<Descriptor, Error> {
    preopens::get_directories().into_iter().next().map(|(root, _)| root).ok_or_else(|| failed(ErrorCode::NoEntry))
}

fn failed(code: ErrorCode) -> Error {
    Error::Failed(Failure { message: format!("{code:?}"), detail: None, fields: Vec::new() })
}

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
        let root = first_root()?;
        for n in 0..number(&input, 1_000_000) {
            root.open_at(PathFlags::empty(), &format!("f{n}"), OpenFlags::CREATE, DescriptorFlags::WRITE)
                .map_err(failed)?;
        }
        Ok("{}".to_owned())
    }
}

export!(Attack);
