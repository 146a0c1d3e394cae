//! Attack: makes a file of `n` bytes without writing any, or of 2^63.

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
        let file =
            root.open_at(PathFlags::empty(), "giant", OpenFlags::CREATE, DescriptorFlags::WRITE).map_err(failed)?;
        file.set_size(number(&input, 1 << 63)).map_err(failed)?;
        Ok("{}".to_owned())
    }
}

export!(Attack);
