//! Attack: burns CPU and never returns, in seven shapes.

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

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    fn invoke(_name: String, input: String) -> Result<String, Error> {
        match number(&input, 0) {
            0 => loop {
                black_box(());
            },
            1 => {
                let mut n = 1_u64;
                loop {
                    n = black_box(n.wrapping_mul(6_364_136_223_846_793_005).rotate_left(7));
                }
            }
            2 => {
                let mut block = vec![0_u8; 1 << 20];
                loop {
                    black_box(&mut block).fill(black_box(7));
                }
            }
            3 => {
                let (mut to, from) = (vec![0_u8; 1 << 20], vec![1_u8; 1 << 20]);
                loop {
                    black_box(&mut to).copy_from_slice(black_box(&from));
                }
            }
            4 => {
                let mut x = 0.5_f64;
                loop {
                    x = black_box(x.sqrt() + 1.0 / x);
                }
            }
            5 => loop {
                black_box(String::from("allocate and free").repeat(black_box(100)));
            },
            _ => {
                let steps: [fn(u64) -> u64; 2] = [|n| n + 1, |n| n ^ 1];
                let mut n = 0;
                loop {
                    for step in black_box(steps) {
                        n = step(n);
                    }
                }
            }
        }
    }
}

export!(Attack);
