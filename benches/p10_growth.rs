//! P10: a read-only call of a daemon that has grown, against the same call of a new one.
//!
//! Grown: a million recorded calls, 10,000 tools of 100 components, 1,000 policies of which 20 are about the tool that is
//! called, 10,000 open runs. The ledger takes minutes to grow, so it is made once and kept in the target directory.

use toolkeep_benches::client::{Client, text_stats};
use toolkeep_benches::grown::grown;
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{PURE, World, component};
use toolkeep_benches::{median, timed};

/// At most so many times the call of a new daemon.
const PROMISE: f64 = 1.2;
const ROUNDS: usize = 40;
const WARM_UP_ROUNDS: usize = 5;
const PER_ROUND: usize = 200;

fn main() {
    let (old, old_daemon) = grown();
    let new = World::new();
    new.install("text-stats", &component("text-stats"), PURE);
    let _new_daemon = new.start();
    let mut clients: [Client; 2] = [old.connect().expect("connected"), new.connect().expect("connected")];
    let line = text_stats();
    let mut figures = [const { Vec::new() }; 2];
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        if round == WARM_UP_ROUNDS {
            figures.iter_mut().for_each(Vec::clear);
        }
        for (client, figures) in clients.iter_mut().zip(&mut figures) {
            client.call(&line, "none");
            figures.extend((0..PER_ROUND).map(|_| timed(|| _ = client.ask(&line).len())));
        }
    }
    let what = "a read-only call after growth, p50 (floor: a new daemon)";
    let row = Row::at_most_times("P10", what, "µs", figures.map(median), PROMISE);
    publish(&[row], &[format!("the grown daemon was ready after {:.1} s", old_daemon.ready.as_secs_f64())]);
}
