//! P5: durable commits a second with 64 clients, against the bare program with 64 threads.

use toolkeep_benches::client::{add_note, drive};
use toolkeep_benches::disk::Bare;
use toolkeep_benches::median;
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{NOTES, World, component};

/// At least so many times the floor.
const PROMISE: f64 = 0.5;
const CLIENTS: usize = 64;
const ROUNDS: usize = 5;
const PER_ROUND: usize = 384;
const BYTES: usize = 4096;

fn main() {
    let world = World::new();
    world.install("notes", &component("notes"), NOTES);
    let _daemon = world.start();
    let bare = Bare::new(&world.path(""), BYTES);
    let [mut ours, mut floors, mut alone] = [const { Vec::new() }; 3];
    let rate = |many: usize, wall: std::time::Duration| many as f64 / wall.as_secs_f64();
    for round in 0..=ROUNDS {
        let first = round * PER_ROUND;
        let line = move |number| add_note("calls.execute", first + number);
        let drove = drive(&world.agent_socket(), CLIENTS, PER_ROUND, r#""outcome":"committed""#, line);
        assert_eq!(drove.wrong, 0, "some notes were not committed");
        let wall = bare.commit_many(CLIENTS, first, PER_ROUND);
        let line = move |number| add_note("calls.execute", 1_000_000 + first + number);
        let single = drive(&world.agent_socket(), 1, PER_ROUND / 16, r#""outcome":"committed""#, line);
        // The first round warms up.
        if round > 0 {
            ours.push(rate(PER_ROUND, drove.wall));
            floors.push(rate(PER_ROUND, wall));
            alone.push(rate(PER_ROUND / 16, single.wall));
        }
    }
    let (ours, alone) = (median(ours), median(alone));
    let row = Row::at_least_times("P5", "durable commits a second, 64 clients", "/s", [ours, median(floors)], PROMISE);
    publish(&[row], &[format!("one client alone {alone:.1}/s: 64 are {:.1} × as fast", ours / alone)]);
}
