//! The same order twice gives the same everything: what a plan's digest and later replay rest on.

use toolkeep_core::capability::Access;
use toolkeep_sandbox::execution::Execution;
use toolkeep_tests::support::guest_call::{GuestCall, output};
use toolkeep_tests::support::scratch::Scratch;

fn compared(execution: &Execution) -> (String, String, String, u64, u64) {
    (
        output(execution).to_owned(),
        serde_json::to_string(&execution.recording).expect("JSON"),
        serde_json::to_string(&execution.staged.effects).expect("JSON"),
        execution.usage.fuel,
        execution.usage.host_calls,
    )
}

#[tokio::test]
async fn r41_the_same_order_gives_the_same_output_recording_effects_and_fuel() {
    let scratch = Scratch::new();
    scratch.put("inside.txt", b"content");
    let file = || GuestCall::new("read-only-writer").workspace(scratch.path(), Access::Write);
    assert_eq!(compared(&file().run().await), compared(&file().run().await));
    let random = || GuestCall::new("random-flood").number(500);
    assert_eq!(compared(&random().run().await), compared(&random().run().await));
    let mut other = random();
    other.seed = 8;
    assert_ne!(output(&other.run().await), output(&random().run().await));
    let clock = || GuestCall::new("clock-probe");
    assert_eq!(compared(&clock().run().await), compared(&clock().run().await));
}

#[tokio::test]
async fn a_recording_names_the_engine_the_seed_and_the_clock() {
    let recording = GuestCall::new("clock-probe").run().await.recording;
    assert!(recording.engine.starts_with("wasmtime-48-") && recording.engine.len() > 20, "{}", recording.engine);
    assert_eq!(recording.seed, "07".repeat(32));
    assert_eq!(recording.wall_clock_ns, "1700000000000000000");
    let imports: Vec<&str> = recording.events.iter().map(|event| event.import.as_ref()).collect();
    assert_eq!(imports.iter().filter(|import| import.ends_with("clock#now")).count(), 5);
}
