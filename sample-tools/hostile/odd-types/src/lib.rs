//! Attack: functions whose types or values no JSON, no model and no host should have to hold.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "wit",
    world: "odd-types",
});

use std::hint::black_box;

use exports::odd::types::even::Guest as Even;
use exports::odd::types::odd::{Choice, Guest as Odd, GuestHandle, Handle, Kind, L1};

struct Attack;

struct Held;

impl GuestHandle for Held {
    fn new() -> Self {
        Self
    }
}

impl Odd for Attack {
    type Handle = Held;

    fn open() -> Handle {
        Handle::new(Held)
    }

    fn deep(v: L1) -> bool {
        v.v.v.v.v.v.v.v.v.v.v.v.v > 0
    }

    fn flood(count: u32, bytes: u32) -> Vec<String> {
        vec!["x".repeat(bytes as usize); count as usize]
    }

    fn bytes(count: u32) -> Vec<u8> {
        vec![7; count as usize]
    }

    fn numbers() -> Vec<Choice> {
        vec![
            Choice::A,
            Choice::B(u64::MAX),
            Choice::C(vec![(black_box(f64::NAN), f32::INFINITY), (f64::NEG_INFINITY, 0.1), (-0.0, f32::MIN_POSITIVE)]),
        ]
    }

    fn complain(bytes: u32) -> Result<(), String> {
        Err("é".repeat(bytes as usize / 2))
    }

    fn fail(kind: Kind) -> Result<u8, Kind> {
        Err(kind)
    }

    fn trap() {
        std::process::abort();
    }

    fn spin(_v: Choice) {
        loop {
            black_box(());
        }
    }
}

impl Even for Attack {
    fn flood() -> u8 {
        0
    }
}

impl Guest for Attack {
    fn flood() -> String {
        String::new()
    }
}

export!(Attack);
