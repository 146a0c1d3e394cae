//! P13: compiling a component of 1 MiB in the worker process, against compiling it in this one.

use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{component, padded_with_code, program};
use toolkeep_benches::{median, timed};
use toolkeep_sandbox::compile::{CompileLimits, compile, in_child};

/// At most so many times the floor.
const PROMISE: f64 = 1.3;
const ROUNDS: usize = 5;
const BYTES: usize = 1024 * 1024;

fn main() {
    let wasm = padded_with_code(&component("text-stats"), BYTES);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let limits = CompileLimits::for_size(wasm.len() as u64);
    let [mut child, mut here] = [const { Vec::new() }; 2];
    for round in 0..=ROUNDS {
        let worker = timed(|| {
            let native = runtime.block_on(in_child(&program(), &wasm, limits)).expect("compiled");
            assert!(native.len() > wasm.len());
        });
        let own = timed(|| assert!(compile(&wasm).expect("compiled").len() > wasm.len()));
        // The first round warms up.
        if round > 0 {
            child.push(worker / 1e3);
            here.push(own / 1e3);
        }
    }
    let figures = [median(child), median(here)];
    let row = Row::at_most_times("P13", "compiling a new component of 1 MiB", "ms", figures, PROMISE);
    publish(&[row], &[format!("{} bytes of WebAssembly", wasm.len())]);
}
