//! P8: starting the daemon with 100 installed tools, and the first call of one of them.

use toolkeep_benches::client::{request, text_stats_input};
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{PURE, World, hundred_tools};
use toolkeep_benches::{median, timed};

/// Milliseconds from start to the first answer.
const READY_MS: f64 = 150.0;
/// Milliseconds that the first call of a tool may take longer than a later one.
const FIRST_CALL_MS: f64 = 2.0;
const ROUNDS: usize = 5;
const TOOLS_CALLED: usize = 20;
const WARM_CALLS: usize = 20;

fn main() {
    let world = World::new();
    hundred_tools(&world, PURE);
    let daemon = world.start();
    let mut client = world.connect().expect("connected");
    let call = |number| request("calls.execute", &format!("tool-{number:03}"), &text_stats_input());
    let lines: Vec<String> = (0..TOOLS_CALLED).map(call).collect();
    // The first call of a tool compiles it, for good.
    for line in &lines {
        client.call(line, "none");
    }
    let seconds = daemon.ready.as_secs_f64();
    drop(daemon);
    let [mut ready, mut more] = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        let daemon = world.start();
        ready.push(daemon.ready.as_secs_f64() * 1e3);
        let mut client = world.connect().expect("connected");
        // The first tool makes the pool as well, which is once in a life; it counts like the others.
        for line in &lines {
            let first = timed(|| _ = client.ask(line).len());
            let warm = median((0..WARM_CALLS).map(|_| timed(|| _ = client.ask(line).len())).collect());
            more.push((first - warm) / 1e3);
        }
        drop(daemon);
    }
    let worst = more.iter().copied().fold(0.0, f64::max);
    let rows = [
        Row::at_most("P8a", "ready with 100 installed tools", "ms", median(ready), READY_MS),
        Row::at_most("P8b", "first call of a cached tool, beyond a warm one, p50", "ms", median(more), FIRST_CALL_MS),
    ];
    publish(&rows, &[format!("worst first call {worst:.1} ms more; first start ever: {seconds:.1} s")]);
}
