//! Pools: one for each tenant, a bounded number of them, a bounded number of slots in each.

use std::sync::Arc;
use std::time::Duration;

use toolkeep_core::capability::ClockGrant;
use toolkeep_core::id::TenantName;
use toolkeep_sandbox::engine::POOL_SLOTS;
use toolkeep_sandbox::execution::{Cancel, Ended};
use toolkeep_sandbox::fault::{Fault, HostFault};
use toolkeep_sandbox::pool::{Artifact, WAITING_MAX};
use toolkeep_sandbox::sandbox::{Sandbox, SandboxConfig};
use toolkeep_tests::support::components::{compiled, wasm};
use toolkeep_tests::support::guest_call::GuestCall;

fn tenant(name: &str) -> TenantName {
    name.parse().expect("tenant")
}

#[tokio::test]
async fn a_tenant_that_is_idle_longest_gives_its_pool_away_and_loads_again() {
    let sandbox = Sandbox::new(SandboxConfig { pools: 2 }).expect("sandbox");
    let artifact = compiled(&wasm("bad-output"));
    let (one, two) = (tenant("one"), tenant("two"));
    let first = sandbox.load(&one, &artifact).expect("one");
    let second = sandbox.load(&two, &artifact).expect("two");
    let run = |loaded| sandbox.execute(GuestCall::new("bad-output").order(loaded));
    assert!(matches!(run(Arc::clone(&first)).await.expect("runs").ended, Ended::Output(_)));
    let third = sandbox.load(&tenant("three"), &artifact).expect("three");
    assert!(second.is_retired() && !first.is_retired() && !third.is_retired());
    assert_eq!(run(second).await.map(|execution| execution.ended), Err(HostFault::Retired));
    let again = sandbox.load(&two, &artifact).expect("two again");
    assert!(matches!(run(again).await.expect("runs").ended, Ended::Output(_)));
    assert!(first.is_retired(), "the least recently used one went");
}

/// Wait until as many of the calls are over.
async fn over<T>(calls: &[tokio::task::JoinHandle<T>], wanted: u32) {
    while calls.iter().filter(|call| call.is_finished()).count() < wanted as usize {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r56_a_full_pool_lets_some_wait_and_tells_the_rest_to_come_later() {
    let sandbox = Arc::new(Sandbox::new(SandboxConfig { pools: 1 }).expect("sandbox"));
    let loaded = sandbox.load(&tenant("busy"), &compiled(&wasm("clock-probe"))).expect("loaded");
    let cancel = Cancel::new();
    let start = || {
        // With the real clock it sleeps for an hour.
        let mut call = GuestCall::new("clock-probe").limits(|limits| limits.deadline_ms = 600_000);
        call.clock = ClockGrant::Real;
        call.cancel = cancel.clone();
        let (sandbox, order) = (Arc::clone(&sandbox), call.order(Arc::clone(&loaded)));
        tokio::spawn(async move { sandbox.execute(order).await.map(|execution| execution.ended) })
    };
    let calls: Vec<_> = (0..POOL_SLOTS + WAITING_MAX + 5).map(|_| start()).collect();
    over(&calls, 5).await;
    let other = sandbox.load(&tenant("other"), &compiled(&wasm("clock-probe")));
    assert_eq!(other.map(|_| ()), Err(HostFault::Overloaded), "a busy pool is not given away");
    over(&calls, WAITING_MAX + 5).await;
    cancel.cancel();
    let mut counts = (0, 0);
    for call in calls {
        match call.await.expect("task") {
            Ok(Ended::Fault(Fault::Cancelled)) => counts.0 += 1,
            Err(HostFault::Overloaded) => counts.1 += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts, (POOL_SLOTS, WAITING_MAX + 5));
}

#[test]
fn t_r10_bytes_that_no_compiler_of_this_version_made_are_refused() {
    let sandbox = Sandbox::new(SandboxConfig::default()).expect("sandbox");
    let whole = compiled(&wasm("bad-output"));
    let part = whole.native.bytes().expect("bytes")[..100].to_vec();
    for native in [Vec::new(), b"not native code".to_vec(), wasm("bad-output"), part] {
        let artifact = Artifact { component: whole.component, native: native.into() };
        assert!(matches!(sandbox.load(&tenant("t"), &artifact), Err(HostFault::Engine(_))));
    }
}
