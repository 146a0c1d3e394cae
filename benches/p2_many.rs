//! P2: the CPU time of a read-only call with 64 in flight, against the same calls by a bare server.

use std::path::Path;

use toolkeep_benches::client::{drive, text_stats};
use toolkeep_benches::floor::{self, Floor};
use toolkeep_benches::median;
use toolkeep_benches::process::cpu_us;
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{PURE, World, component};

/// At most so many times the floor.
const PROMISE: f64 = 3.0;
const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 5;
/// Enough that a tick of the kernel's clock is less than a hundredth.
const PER_ROUND: usize = 10_000;

fn main() {
    floor::serve_if_asked();
    let world = World::new();
    world.install("text-stats", &component("text-stats"), PURE);
    let daemon = world.start();
    let server = Floor::start();
    let line = text_stats();
    // One call loads the component, so that 64 do not do it at the same time.
    world.connect().expect("connected").call(&line, "none");
    let [mut ours, mut bare, mut rates] = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let measure = |socket: &Path, pid, wanted| {
            let (before, line) = (cpu_us(pid), line.clone());
            let drove = drive(socket, IN_FLIGHT, PER_ROUND, wanted, move |_| line.clone());
            assert_eq!(drove.wrong, 0, "some calls failed");
            ((cpu_us(pid) - before) / PER_ROUND as f64, PER_ROUND as f64 / drove.wall.as_secs_f64())
        };
        let (cpu, rate) = measure(&world.agent_socket(), daemon.pid(), r#""status":"ok""#);
        let (floor, _) = measure(&server.socket(), server.pid(), r#""words":10"#);
        // The first round warms up.
        if round > 0 {
            ours.push(cpu);
            rates.push(rate);
            bare.push(floor);
        }
    }
    let figures = [median(ours), median(bare)];
    let row = Row::at_most_times("P2", "CPU per read-only call, 64 in flight", "µs", figures, PROMISE);
    publish(&[row], &[format!("{:.0} calls a second, the client on the same cores", median(rates))]);
}
