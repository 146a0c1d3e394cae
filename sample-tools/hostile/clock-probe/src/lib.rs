//! Attack: tries to measure how long its own work and its own sleep take.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

use std::hint::black_box;
use wasip2::clocks::{monotonic_clock, wall_clock};

use exports::toolkeep::tool::tool::{Error, Guest};

/// What `describe` answers.
const DESCRIPTION: &str = include_str!("description.json");

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    fn invoke(_name: String, _input: String) -> Result<String, Error> {
        let (wall, started) = (wall_clock::now(), monotonic_clock::now());
        let mut n = 1_u64;
        for _ in 0..1_000_000 {
            n = black_box(n.wrapping_mul(3));
        }
        let worked = monotonic_clock::now() - started;
        monotonic_clock::subscribe_duration(3_600_000_000_000).block();
        let slept = monotonic_clock::now() - started;
        let later = wall_clock::now();
        let wall_moved = (later.seconds, later.nanoseconds) != (wall.seconds, wall.nanoseconds);
        Ok(format!("{{\"worked\":{worked},\"slept\":{slept},\"wall_moved\":{wall_moved},\"wall\":{}}}", wall.seconds))
    }
}

export!(Attack);
