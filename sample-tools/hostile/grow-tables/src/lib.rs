//! Attack: brings a table of more than a thousand functions; Rust cannot grow one at run time.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

use std::hint::black_box;

use exports::toolkeep::tool::tool::{Error, Guest};

/// What `describe` answers.
const DESCRIPTION: &str = include_str!("description.json");

/// A function of its own for each `N`: bodies that differ cannot be merged.
fn element<const N: u64>() -> u64 {
    black_box(N).wrapping_mul(N)
}

macro_rules! row {
    ($base:literal) => {
        [
            element::<{ $base * 32 }>,
            element::<{ $base * 32 + 1 }>,
            element::<{ $base * 32 + 2 }>,
            element::<{ $base * 32 + 3 }>,
            element::<{ $base * 32 + 4 }>,
            element::<{ $base * 32 + 5 }>,
            element::<{ $base * 32 + 6 }>,
            element::<{ $base * 32 + 7 }>,
            element::<{ $base * 32 + 8 }>,
            element::<{ $base * 32 + 9 }>,
            element::<{ $base * 32 + 10 }>,
            element::<{ $base * 32 + 11 }>,
            element::<{ $base * 32 + 12 }>,
            element::<{ $base * 32 + 13 }>,
            element::<{ $base * 32 + 14 }>,
            element::<{ $base * 32 + 15 }>,
            element::<{ $base * 32 + 16 }>,
            element::<{ $base * 32 + 17 }>,
            element::<{ $base * 32 + 18 }>,
            element::<{ $base * 32 + 19 }>,
            element::<{ $base * 32 + 20 }>,
            element::<{ $base * 32 + 21 }>,
            element::<{ $base * 32 + 22 }>,
            element::<{ $base * 32 + 23 }>,
            element::<{ $base * 32 + 24 }>,
            element::<{ $base * 32 + 25 }>,
            element::<{ $base * 32 + 26 }>,
            element::<{ $base * 32 + 27 }>,
            element::<{ $base * 32 + 28 }>,
            element::<{ $base * 32 + 29 }>,
            element::<{ $base * 32 + 30 }>,
            element::<{ $base * 32 + 31 }>,
        ]
    };
}

/// 32 rows of 32 functions.
static ROWS: [[fn() -> u64; 32]; 32] = [
    row!(0),
    row!(1),
    row!(2),
    row!(3),
    row!(4),
    row!(5),
    row!(6),
    row!(7),
    row!(8),
    row!(9),
    row!(10),
    row!(11),
    row!(12),
    row!(13),
    row!(14),
    row!(15),
    row!(16),
    row!(17),
    row!(18),
    row!(19),
    row!(20),
    row!(21),
    row!(22),
    row!(23),
    row!(24),
    row!(25),
    row!(26),
    row!(27),
    row!(28),
    row!(29),
    row!(30),
    row!(31),
];

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    fn invoke(_name: String, _input: String) -> Result<String, Error> {
        let mut sum = 0_u64;
        for row in ROWS {
            for function in row {
                sum = sum.wrapping_add(black_box(function)());
            }
        }
        Ok(format!("{{\"sum\":{sum}}}"))
    }
}

export!(Attack);
