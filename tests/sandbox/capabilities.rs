//! R01: a guest gets what its order grants, and nothing else exists for it.

use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_core::call::Mode;
use toolkeep_core::capability::ClockGrant;
use toolkeep_sandbox::capability::log::Source;
use toolkeep_sandbox::component;
use toolkeep_sandbox::describe::describe;
use toolkeep_sandbox::execution::{Cancel, Ended, Entry};
use toolkeep_sandbox::fault::Fault;
use toolkeep_sandbox::prescreen::{Refused, offers, prescreen};
use toolkeep_tests::support::components::wasm;
use toolkeep_tests::support::guest_call::{GuestCall, fault, output};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[tokio::test]
async fn r01_a_good_tool_runs_and_has_no_effects_of_its_own() {
    let execution = GuestCall::new("text-stats").input(r#"{"text":"one two\nthree"}"#).run().await;
    assert!(json_of(output(&execution)).is_object());
    assert!(execution.staged.effects.is_empty() && execution.log.is_empty());
    assert!(execution.usage.fuel > 0 && execution.usage.memory_peak > 0);
}

#[tokio::test]
async fn r01_an_unknown_tool_of_a_component_is_the_tools_own_error() {
    let call = GuestCall::new("text-stats");
    let mut order = {
        let loaded = call.load();
        call.order(loaded)
    };
    order.entry = Entry::Tool("other".parse().expect("name"));
    let execution = toolkeep_tests::support::components::sandbox().execute(order).await.expect("host");
    assert!(
        matches!(&execution.ended, Ended::Error(error) if error.message.contains("other")),
        "{:?}",
        execution.ended
    );
}

#[tokio::test]
async fn r01_the_network_is_out_of_reach() {
    let execution = GuestCall::new("dial-out").run().await;
    let answers = json_of(output(&execution));
    let said = |at: usize, word: &str| answers[at].as_str().is_some_and(|text| text.contains(word));
    assert!(said(0, "access-denied") && said(1, "access-denied"), "{answers}");
    assert!(said(2, "permanent-resolver-failure"), "{answers}");
}

#[tokio::test]
async fn r01_without_a_grant_there_is_no_directory() {
    let execution = GuestCall::new("path-escape").run().await;
    assert_eq!(json_of(output(&execution)), json!([]));
}

#[test]
fn r01_an_import_that_does_not_exist_is_refused_by_name_before_anything_is_compiled() {
    let wasm = wasm("undeclared-import");
    assert_eq!(prescreen(&wasm), Err(Refused::UnknownImport("attacker:exfiltrate/send@1.0.0".to_owned())));
    assert!(component::imports(&wasm).expect("imports").contains(&"attacker:exfiltrate/send@1.0.0".to_owned()));
}

#[test]
fn r01_only_known_interfaces_of_known_versions_are_offered() {
    for good in [
        "wasi:io/poll@0.2.0",
        "wasi:cli/exit@0.2.12",
        "toolkeep:tool/context@0.1.0",
        "toolkeep:tool/messages@0.1.0",
        "wasi:sockets/tcp@0.2.6",
        "wasi:http/outgoing-handler@0.2.6",
        "wasi:keyvalue/store@0.2.0-draft2",
    ] {
        assert!(offers(good), "{good}");
    }
    for bad in [
        "wasi:http/incoming-handler@0.2.0",
        "wasi:keyvalue/store@0.2.0-draft",
        "wasi:keyvalue/store@0.2.0",
        "wasi:keyvalue/watcher@0.2.0-draft2",
        "wasi:io/poll@0.3.0",
        "wasi:io/poll@0.2.0-rc1",
        "wasi:io/poll@0.2.",
        "wasi:io/poll",
        "wasi:io/polls@0.2.0",
        "wasi:clocks/timezone@0.2.0",
        "toolkeep:tool/context@0.2.0",
        "toolkeep:tool/admin@0.1.0",
        "",
        "poll",
    ] {
        assert!(!offers(bad), "{bad}");
    }
}

#[tokio::test]
async fn r03_a_guest_cannot_tell_time_unless_it_was_granted() {
    let frozen = GuestCall::new("clock-probe").run().await;
    let hour = 3_600_000_000_000_u64;
    let seen = json_of(output(&frozen));
    assert_eq!(seen, json!({"worked": 0, "slept": hour, "wall_moved": false, "wall": 1_700_000_000_u64}));

    let mut real = GuestCall::new("clock-probe").limits(|limits| limits.deadline_ms = 200);
    real.clock = ClockGrant::Real;
    assert_eq!(fault(&real.run().await), &Fault::Deadline, "a real hour does not pass");
}

#[tokio::test]
async fn r15_identity_comes_from_the_host_and_progress_reaches_who_listens() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(10);
    let mut call = GuestCall::new("spin-host").number(4).limits(|limits| limits.fuel = 5_000_000);
    call.progress = Some(sender);
    call.mode = Mode::Preview;
    assert_eq!(fault(&call.run().await), &Fault::OutOfFuel);
    let report = receiver.recv().await.expect("a report");
    assert_eq!((report.done, report.total, report.message.as_str()), (0, None, "x"));
}

#[tokio::test]
async fn a_cancelled_call_ends_wherever_it_is() {
    for (tool, shape) in [("spin", 0), ("spin-host", 1), ("spin-host", 2)] {
        let call = GuestCall::new(tool).number(shape).limits(|limits| limits.fuel = u64::MAX / 2);
        let cancel: Cancel = call.cancel.clone();
        let later = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            cancel.cancel();
        };
        let (execution, ()) = tokio::join!(call.run(), later);
        assert_eq!(fault(&execution), &Fault::Cancelled, "{tool} {shape}");
    }
}

#[tokio::test]
async fn what_a_tool_prints_and_why_it_panics_is_in_the_operators_log() {
    let execution = GuestCall::new("panic").run().await;
    assert!(matches!(fault(&execution), Fault::Trap(_)));
    let printed = execution.log.iter().filter(|line| line.source == Source::Stderr);
    assert!(printed.into_iter().any(|line| line.text.contains("the tool panics on purpose")), "{:?}", execution.log);
}

#[tokio::test]
async fn a_component_describes_itself_in_an_empty_sandbox() {
    for tool in ["notes", "rename-symbol", "trap"] {
        let wasm = wasm(tool);
        let text = describe(&wasm).await.expect(tool);
        let packed = component::pack(&wasm, &text).expect(tool);
        let tools = component::descriptors(&packed).expect(tool).tools;
        assert!(!tools.is_empty(), "{tool}");
        assert_eq!(describe(&wasm).await.expect(tool), text, "{tool} says the same every time");
    }
}
