//! R02 and R04: limits hold at n and fail at n + 1, and fuel is the same every time.

use toolkeep_core::capability::Access;
use toolkeep_sandbox::execution::Ended;
use toolkeep_sandbox::fault::Fault;
use toolkeep_tests::support::guest_call::{GuestCall, fault, output};
use toolkeep_tests::support::scratch::Scratch;

const PAGE: u64 = 64 * 1024;

#[tokio::test]
async fn r02_fuel_is_deterministic_and_one_unit_less_is_not_enough() {
    let call = || GuestCall::new("text-stats").input(r#"{"text":"the same text"}"#);
    let first = call().run().await.usage.fuel;
    for _ in 0..5 {
        assert_eq!(call().run().await.usage.fuel, first);
    }
    // Something has to be left: at zero nobody can tell whether it was enough.
    let enough = call().limits(|limits| limits.fuel = first + 1).run().await;
    assert!(matches!(enough.ended, Ended::Output(_)), "{:?}", enough.ended);
    assert_eq!(enough.usage.fuel, first);
    let short = call().limits(|limits| limits.fuel = first).run().await;
    assert_eq!(fault(&short), &Fault::OutOfFuel);
    assert_eq!(short.usage.fuel, first);
}

#[tokio::test]
async fn r02_fuel_is_deterministic_across_epochs_and_host_calls() {
    let call = || {
        let scratch = Scratch::new();
        let call = GuestCall::new("million-files").number(50).workspace(scratch.path(), Access::Write);
        (call, scratch)
    };
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (call, _scratch) = call();
        let usage = call.run().await.usage;
        seen.push((usage.fuel, usage.host_calls));
    }
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
    assert!(seen[0].0 > seen[0].1 * 1_000, "host calls are charged");
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_an_interruption_in_the_middle_of_a_host_call_does_not_change_what_it_costs() {
    // Each call answers with texts that the guest makes room for, and it makes so many that it is interrupted there.
    let calls = (0..6).map(|_| {
        tokio::spawn(async {
            let call = GuestCall::new("spin-host").number(0).limits(|limits| {
                limits.fuel = 200_000_000;
                limits.deadline_ms = 120_000;
            });
            let execution = call.run().await;
            assert_eq!(fault(&execution), &Fault::OutOfFuel);
            execution.usage.host_calls
        })
    });
    let mut seen = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        seen.push(call.await.expect("a call"));
    }
    assert!(seen[0] > 10_000 && seen.iter().all(|calls| *calls == seen[0]), "{seen:?}");
}

#[tokio::test]
async fn r04_memory_holds_at_n_pages_and_is_refused_at_n_plus_1() {
    let base = GuestCall::new("grow-memory").number(0).run().await.usage.memory_peak;
    assert_eq!(base % PAGE, 0);
    let call =
        |pages| GuestCall::new("grow-memory").number(pages).limits(|limits| limits.memory_bytes = base + 3 * PAGE);
    assert_eq!(output(&call(3).run().await), r#"{"grown":true}"#);
    assert_eq!(output(&call(4).run().await), r#"{"grown":false}"#, "the guest may live with it");
    let start = GuestCall::new("grow-memory").number(0);
    let start = start.limits(|limits| limits.memory_bytes = base - PAGE).run().await;
    assert_eq!(fault(&start), &Fault::Memory { what: "linear memory" }, "not even its first pages");
}

#[tokio::test]
async fn r04_outputs_hold_at_n_bytes_and_are_refused_at_n_plus_1() {
    let call = |bytes| GuestCall::new("giant-return").number(bytes).limits(|limits| limits.output_bytes = 1_000);
    assert_eq!(output(&call(1_000).run().await).len(), 1_000);
    assert_eq!(fault(&call(1_001).run().await), &Fault::OutputTooLarge { limit: 1_000, size: 1_001 });
}

#[tokio::test]
async fn r04_handles_hold_at_n_and_are_refused_at_n_plus_1() {
    // A timer is two objects of the host: the timer and what is waited for.
    let call = |timers| GuestCall::new("handle-flood").number(timers).limits(|limits| limits.handles = 100);
    assert_eq!(output(&call(50).run().await), r#"{"held":50}"#);
    assert_eq!(fault(&call(51).run().await), &Fault::Memory { what: "handles" });
}

#[tokio::test]
async fn r04_random_bytes_hold_at_n_and_are_refused_at_n_plus_1() {
    let call = |bytes| GuestCall::new("random-flood").number(bytes).limits(|limits| limits.random_bytes = 1_000);
    assert!(output(&call(1_000).run().await).contains("\"length\":1000"));
    assert_eq!(fault(&call(1_001).run().await), &Fault::Memory { what: "random bytes" });
}

#[tokio::test]
async fn r04_pollables_hold_at_256_and_are_refused_at_257() {
    assert_eq!(output(&GuestCall::new("poll-flood").number(256).run().await), r#"{"ready":1}"#);
    let refused = GuestCall::new("poll-flood").number(257).run().await;
    assert_eq!(fault(&refused), &Fault::Memory { what: "pollables in one poll" });
}

#[tokio::test]
async fn r04_staged_effects_and_bytes_hold_at_n_and_are_refused_at_n_plus_1() {
    let scratch = Scratch::new();
    let files = |count| {
        let call = GuestCall::new("million-files").number(count).workspace(scratch.path(), Access::Write);
        call.limits(|limits| limits.stage_effects = 10)
    };
    assert_eq!(files(10).run().await.staged.effects.len(), 10);
    assert!(matches!(fault(&files(11).run().await), Fault::StageFull(_)));
    let giant = |bytes| {
        let call = GuestCall::new("sparse-giant").number(bytes).workspace(scratch.path(), Access::Write);
        call.limits(|limits| limits.stage_bytes = 1_000)
    };
    assert_eq!(giant(1_000).run().await.staged.effects.len(), 1);
    assert!(matches!(fault(&giant(1_001).run().await), Fault::StageFull(_)));
}
