//! P3: the preview of a tool that writes one file of 4 KiB, against a read-only call (P1).

use toolkeep_benches::client::{add_note, text_stats};
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{NOTES, PURE, World, component};
use toolkeep_benches::{median, timed};

/// At most so many times P1.
const PROMISE: f64 = 2.0;
const ROUNDS: usize = 30;
const WARM_UP_ROUNDS: usize = 5;
const PER_ROUND: usize = 50;

fn main() {
    let world = World::new();
    world.install("text-stats", &component("text-stats"), PURE);
    world.install("notes", &component("notes"), NOTES);
    let _daemon = world.start();
    let mut client = world.connect().expect("connected");
    let (preview, read) = (add_note("calls.preview", 1), text_stats());
    client.call(&preview, "previewed");
    let [mut previews, mut calls] = [const { Vec::new() }; 2];
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        if round == WARM_UP_ROUNDS {
            [&mut previews, &mut calls].into_iter().for_each(Vec::clear);
        }
        previews.extend((0..PER_ROUND).map(|_| timed(|| _ = client.ask(&preview).len())));
        calls.extend((0..PER_ROUND).map(|_| timed(|| _ = client.ask(&read).len())));
    }
    client.call(&preview, "previewed");
    let figures = [median(previews), median(calls)];
    publish(&[Row::at_most_times("P3", "preview of a one-file write, p50 (floor: P1)", "µs", figures, PROMISE)], &[]);
}
