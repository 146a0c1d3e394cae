//! G8, the neighbour: how long a well-behaved tool of one tenant takes while hostile tools of another run at full load.
//!
//! A figure, printed and not asserted: it depends on the machine and on what else runs. What is asserted is that every call
//! of the neighbour returns its output, and that every hostile one ends by a fault of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use toolkeep_sandbox::execution::Ended;
use toolkeep_tests::support::components::sandbox;
use toolkeep_tests::support::guest_call::{GuestCall, output};
use toolkeep_tests::support::proof::is_hard;

/// Hostile tools that run all the time.
const HOSTILE: [&str; 6] = ["spin", "spin-host", "grow-memory", "flood-log", "random-flood", "recurse"];
/// Calls of the neighbour in each of both measurements.
const CALLS: usize = 1_000;
/// The same in an ordinary run.
const SAMPLE: usize = 100;

fn neighbour() -> GuestCall {
    let mut call = GuestCall::new("text-stats").input(r#"{"text":"to be or not to be","top":2}"#);
    call.tenant = "neighbour".to_owned();
    call
}

/// The median and the 99th percentile of so many calls, one after the other.
async fn measured(calls: usize) -> (Duration, Duration) {
    let loaded = neighbour().load();
    let mut times = Vec::new();
    for _ in 0..calls {
        let (order, started) = (neighbour().order(Arc::clone(&loaded)), Instant::now());
        let task = tokio::spawn(sandbox().execute(order));
        let execution = task.await.expect("no panic").expect("no fault of the host");
        times.push(started.elapsed());
        assert!(output(&execution).contains("\"words\":6"));
    }
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_a_neighbour_of_hostile_tools_gets_all_of_its_answers() {
    let calls = if is_hard() { CALLS } else { SAMPLE };
    measured(SAMPLE).await;
    let alone = measured(calls).await;
    let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut hostile = Vec::new();
    for name in HOSTILE {
        let (stop, ended) = (Arc::clone(&stop), Arc::clone(&ended));
        hostile.push(tokio::spawn(async move {
            let loaded = GuestCall::new(name).load();
            while !stop.load(Ordering::Relaxed) {
                let call = GuestCall::new(name).limits(|limits| limits.fuel = 200_000_000);
                let execution = sandbox().execute(call.order(Arc::clone(&loaded))).await.expect("no fault of the host");
                assert!(!matches!(execution.ended, Ended::Live(_)), "{name}");
                ended.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let beside = measured(calls).await;
    stop.store(true, Ordering::Relaxed);
    for task in hostile {
        task.await.expect("no panic");
    }
    let ended = ended.load(Ordering::Relaxed);
    assert!(ended >= HOSTILE.len() as u64, "the hostile tools ran");
    println!("neighbour, {calls} calls: p50 {:?}, p99 {:?} alone", alone.0, alone.1);
    println!("neighbour, {calls} calls: p50 {:?}, p99 {:?} beside {ended} hostile calls", beside.0, beside.1);
}
