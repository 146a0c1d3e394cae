//! R56: each hostile tool once. It ends as its own kind of fault, and a good tool runs as before right after it.

use serde_json::Value;
use toolkeep_core::capability::Access;
use toolkeep_sandbox::execution::Ended;
use toolkeep_sandbox::fault::Fault;
use toolkeep_tests::support::guest_call::{GuestCall, fault, output};
use toolkeep_tests::support::scratch::Scratch;

/// Enough to be hostile for a while, little enough to be quick without optimisation.
const FUEL: u64 = 50_000_000;

async fn ends_with(tool: &str, expected: &Fault) {
    let execution = GuestCall::new(tool).limits(|limits| limits.fuel = FUEL).run().await;
    assert_eq!(fault(&execution), expected, "{tool}; {:?}", execution.log);
    assert!(execution.staged.effects.is_empty(), "{tool}");
    neighbour_is_unharmed().await;
}

async fn neighbour_is_unharmed() {
    let execution = GuestCall::new("text-stats").input(r#"{"text":"still here"}"#).run().await;
    assert!(matches!(execution.ended, Ended::Output(_)));
}

fn trap_says(fault: &Fault, text: &str) -> bool {
    matches!(fault, Fault::Trap(says) if says.contains(text))
}

#[tokio::test]
async fn t_r1_every_shape_of_spinning_runs_out_of_fuel() {
    for shape in 0..7 {
        let call = GuestCall::new("spin").number(shape).limits(|limits| limits.fuel = FUEL);
        let execution = call.run().await;
        assert_eq!(fault(&execution), &Fault::OutOfFuel, "shape {shape}");
        assert_eq!(execution.usage.fuel, FUEL, "shape {shape}");
    }
    neighbour_is_unharmed().await;
}

#[tokio::test]
async fn t_r1_every_shape_of_spinning_ends_at_the_deadline() {
    for shape in 0..7 {
        let call = GuestCall::new("spin").number(shape).limits(|limits| {
            limits.fuel = u64::MAX / 2;
            limits.deadline_ms = 50;
        });
        assert_eq!(fault(&call.run().await), &Fault::Deadline, "shape {shape}");
    }
}

#[tokio::test]
async fn t_r1_spinning_inside_of_host_calls_costs_fuel_and_ends_at_the_deadline() {
    for shape in 0..6 {
        let call = GuestCall::new("spin-host").number(shape).limits(|limits| limits.fuel = 5_000_000);
        let execution = call.run().await;
        assert_eq!(fault(&execution), &Fault::OutOfFuel, "shape {shape}");
        assert!(execution.usage.host_calls > 1_000 && execution.usage.host_calls <= 5_000, "shape {shape}");
        let call = GuestCall::new("spin-host").number(shape).limits(|limits| {
            limits.fuel = u64::MAX / 2;
            limits.deadline_ms = 50;
        });
        assert_eq!(fault(&call.run().await), &Fault::Deadline, "shape {shape}");
    }
}

#[tokio::test]
async fn t_r2_growing_memory_without_end_is_a_fault_of_memory() {
    let call = GuestCall::new("grow-memory").limits(|limits| limits.memory_bytes = 8 << 20);
    let execution = call.run().await;
    assert_eq!(fault(&execution), &Fault::Memory { what: "linear memory" });
    assert!(execution.usage.memory_peak <= 8 << 20);
    neighbour_is_unharmed().await;
}

#[tokio::test]
async fn t_r2_a_table_that_is_larger_than_granted_is_a_fault_of_memory() {
    let call = |elements| GuestCall::new("grow-tables").limits(|limits| limits.table_elements = elements);
    assert!(matches!(call(50_000).run().await.ended, Ended::Output(_)));
    assert_eq!(fault(&call(1_024).run().await), &Fault::Memory { what: "table elements" });
}

#[tokio::test]
async fn t_r3_hoarding_handles_is_a_fault_of_memory() {
    ends_with("handle-flood", &Fault::Memory { what: "handles" }).await;
}

#[tokio::test]
async fn t_r4_a_giant_return_is_a_fault_of_output() {
    for bytes in [2_u64 << 20, 16 << 20] {
        let execution = GuestCall::new("giant-return").number(bytes).run().await;
        assert!(matches!(fault(&execution), Fault::OutputTooLarge { limit: 1_048_576, .. }), "{:?}", execution.ended);
    }
    neighbour_is_unharmed().await;
}

#[tokio::test]
async fn t_r7_floods_of_random_bytes_and_of_pollables_are_faults() {
    ends_with("random-flood", &Fault::Memory { what: "random bytes" }).await;
    let polling = GuestCall::new("poll-flood").limits(|limits| limits.handles = 10_000).run().await;
    assert_eq!(fault(&polling), &Fault::Memory { what: "pollables in one poll" });
}

#[tokio::test]
async fn t_r8_recursion_ends_at_the_guests_own_stack() {
    let small_frames = GuestCall::new("recurse").number(0).run().await;
    assert!(trap_says(fault(&small_frames), "call stack exhausted"), "{:?}", small_frames.ended);
    // Large frames lie in linear memory, where a Rust tool has a stack of its own.
    let large_frames = GuestCall::new("recurse").number(1).run().await;
    assert!(trap_says(fault(&large_frames), "out of bounds"), "{:?}", large_frames.ended);
    neighbour_is_unharmed().await;
}

#[tokio::test]
async fn traps_panics_and_exits_are_faults_of_the_guest() {
    for tool in ["trap", "panic"] {
        let execution = GuestCall::new(tool).run().await;
        assert!(trap_says(fault(&execution), "unreachable"), "{tool}: {:?}", execution.ended);
    }
    ends_with("exit", &Fault::Exit(1)).await;
}

#[tokio::test]
async fn t_r14_floods_of_output_and_of_log_lines_are_dropped_and_counted() {
    for tool in ["flood-output", "flood-log"] {
        let execution = GuestCall::new(tool).number(1_000).run().await;
        assert_eq!(output(&execution), "{}", "{tool}");
        let kept: usize = execution.log.iter().map(|line| line.text.len()).sum();
        assert!(kept <= 64 * 1024 && kept > 60 * 1024, "{tool} kept {kept}");
        assert!(execution.log_dropped > 900_000, "{tool} dropped {}", execution.log_dropped);
    }
    ends_with("flood-output", &Fault::OutOfFuel).await;
    ends_with("flood-log", &Fault::OutOfFuel).await;
}

#[tokio::test]
async fn an_output_that_is_wrong_reaches_the_caller_as_it_is() {
    // Whether an output is valid is not for the sandbox to say.
    assert_eq!(output(&GuestCall::new("bad-output").run().await), r#"{"surprise":true}"#);
    assert_eq!(output(&GuestCall::new("bad-output").input(r#"{"text":true}"#).run().await), "no JSON");
}

#[tokio::test]
async fn nans_have_the_same_bits_on_every_machine() {
    let execution = GuestCall::new("nan").run().await;
    let bits: Vec<Value> = serde_json::from_str(output(&execution)).expect("JSON");
    assert_eq!(bits, vec![Value::from("7ff8000000000000"); 4]);
}

#[tokio::test]
async fn t_f7_a_million_files_giant_files_and_deep_directories_fill_the_stage() {
    for (tool, limit) in [("million-files", "1000"), ("sparse-giant", "bytes")] {
        let scratch = Scratch::new();
        let execution = GuestCall::new(tool).workspace(scratch.path(), Access::Write).run().await;
        assert!(
            matches!(fault(&execution), Fault::StageFull(says) if says.contains(limit)),
            "{tool}: {:?}",
            execution.ended
        );
        assert!(execution.staged.effects.is_empty(), "{tool}");
        assert_eq!(std::fs::read_dir(scratch.path()).expect("read").count(), 0, "{tool}");
    }
    let scratch = Scratch::new();
    let execution = GuestCall::new("deep-directories").workspace(scratch.path(), Access::Write).run().await;
    assert!(!matches!(execution.ended, Ended::Output(_)), "{:?}", execution.ended);
    assert_eq!(std::fs::read_dir(scratch.path()).expect("read").count(), 0);
}
