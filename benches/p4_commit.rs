//! P4: the durable commit of one file of 4 KiB, one client, against a bare program that does the least.

use toolkeep_benches::client::{add_note, drive};
use toolkeep_benches::disk::Bare;
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{NOTES, World, component};
use toolkeep_benches::{median, quantile, timed};

/// At most so many times the floor.
const PROMISE: f64 = 1.5;
const QUIET: f64 = 0.1;
const ROUNDS: usize = 25;
const WARM_UP_ROUNDS: usize = 3;
const PER_ROUND: usize = 10;
const BYTES: usize = 4096;
/// Previews that fill the ledger's log once.
const FILLERS: usize = 2_000;

fn main() {
    let world = World::new();
    world.install("notes", &component("notes"), NOTES);
    let _daemon = world.start();
    let mut client = world.connect().expect("connected");
    let bare = Bare::new(&world.path(""), BYTES);
    // The ledger's log grows until its first checkpoint, and is overwritten from then on: the life of a daemon.
    let line = |number| add_note("calls.preview", number);
    let drove = drive(&world.agent_socket(), 4, FILLERS, r#""outcome":"previewed""#, line);
    assert_eq!(drove.wrong, 0, "some previews failed");
    let [mut commits, mut floors] = [const { Vec::new() }; 2];
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        if round == WARM_UP_ROUNDS {
            [&mut commits, &mut floors].into_iter().for_each(Vec::clear);
        }
        let numbers = round * PER_ROUND..(round + 1) * PER_ROUND;
        for number in numbers.clone() {
            let line = add_note("calls.execute", number);
            let mut committed = false;
            commits.push(timed(|| committed = client.ask(&line).contains(r#""outcome":"committed""#)));
            assert!(committed, "note {number} was not committed");
        }
        // Lazy writes of the one must not be synced by the other.
        rustix::fs::sync();
        floors.extend(numbers.map(|number| timed(|| bare.commit(number))));
        rustix::fs::sync();
    }
    let figures = [median(commits.clone()), median(floors.clone())];
    // On a disk that others use, waiting for it hides everything else; a quiet moment shows what is ours.
    let quiet = [quantile(commits, QUIET), quantile(floors, QUIET)];
    let rows = [
        Row::at_most_times("P4a", "durable commit of one file, one client, p50", "µs", figures, PROMISE),
        Row::at_most_times("P4b", "the same, p10: the quiet moments of the disk", "µs", quiet, PROMISE),
    ];
    publish(&rows, &[]);
}
