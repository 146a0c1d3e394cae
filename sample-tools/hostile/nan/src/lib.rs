//! Attack: makes NaNs in several ways and shows their bits.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

use std::hint::black_box;

use exports::toolkeep::tool::tool::{Error, Guest};

/// What `describe` answers.
const DESCRIPTION: &str = include_str!("description.json");

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    fn invoke(_name: String, _input: String) -> Result<String, Error> {
        let zero = black_box(0.0_f64);
        let signalling = f64::from_bits(black_box(0xfff4_dead_beef_0001));
        let made = [
            zero / black_box(0.0_f64),
            black_box(-1.0_f64).sqrt(),
            signalling + 1.0,
            f64::INFINITY - black_box(f64::INFINITY),
        ];
        let bits: Vec<String> = made.iter().map(|nan| format!("\"{:016x}\"", nan.to_bits())).collect();
        Ok(format!("[{}]", bits.join(",")))
    }
}

export!(Attack);
