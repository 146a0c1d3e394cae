//! P12: a function with JSON on both sides, in the daemon's sandbox, against the same function with values that are ready.
//!
//! Both take an instance from a pool for each call. The floor neither reads nor writes JSON, stages nothing and records
//! nothing; what it is given was made before, and what it gives is dropped.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolkeep_benches::raw::{self, RawFunction};
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::component;
use toolkeep_benches::{median, micros};
use toolkeep_core::call::Mode;
use toolkeep_core::capability::ClockGrant;
use toolkeep_core::digest::Digest;
use toolkeep_core::event::Depth;
use toolkeep_core::limit::ExecutionLimits;
use toolkeep_core::principal::{Origin, Principal};
use toolkeep_sandbox::capability::context::Context;
use toolkeep_sandbox::compile;
use toolkeep_sandbox::execution::{Cancel, Ended, Entry, Order, Outward};
use toolkeep_sandbox::pool::{Artifact, Loaded};
use toolkeep_sandbox::sandbox::{Sandbox, SandboxConfig};
use toolkeep_sandbox::stage::Spool;
use wasmtime::component::Val;

/// At most so many times the floor.
const PROMISE: f64 = 1.5;
const ROUNDS: usize = 30;
const WARM_UP_ROUNDS: usize = 5;
const PER_ROUND: usize = 200;
/// Records of one call.
const ITEMS: usize = 10;

const INTERFACE: &str = "acme:inventory/stock@1.0.0";
const FUNCTION: &str = "summarize";

fn item(number: usize) -> Value {
    json!({"sku": format!("tea-{number}"), "name": "Green tea of the second harvest", "count": 250, "unit": "gram",
        "care": ["dry"], "place": {"shelf": 7}, "note": "keep closed", "picture": ""})
}

/// The same as a value of the component model.
fn value(number: usize) -> Val {
    let text = |text: &str| Val::String(text.to_owned());
    let field = |name: &str, value: Val| (name.to_owned(), value);
    Val::Record(vec![
        field("sku", text(&format!("tea-{number}"))),
        field("name", text("Green tea of the second harvest")),
        field("count", Val::U64(250)),
        field("unit", Val::Enum("gram".to_owned())),
        field("care", Val::Flags(vec!["dry".to_owned()])),
        field("place", Val::Variant("shelf".to_owned(), Some(Box::new(Val::U32(7))))),
        field("note", Val::Option(Some(Box::new(text("keep closed"))))),
        field("picture", Val::List(Vec::new())),
    ])
}

fn order(loaded: &Arc<Loaded>, input: &Arc<str>, spool: &Arc<OwnedFd>, depth: Depth) -> Order {
    let (tenant, user, agent) = ("bench".parse(), "ada".parse(), "agent".parse());
    let principal =
        Principal { tenant: tenant.expect("a name"), user: user.expect("a name"), agent: agent.expect("a name") };
    let limits = ExecutionLimits::default();
    let call = "call_00000000-0000-0000-0000-000000000007".parse().expect("a call");
    Order {
        loaded: Arc::clone(loaded),
        entry: Entry::Function(format!("{INTERFACE}#{FUNCTION}").parse().expect("a function")),
        input: Arc::clone(input),
        context: Context { principal, origin: Origin::record(), run: String::new(), call, mode: Mode::Commit },
        limits,
        deadline: Duration::from_millis(limits.deadline_ms),
        clock: ClockGrant::Frozen,
        wall_clock_ns: 1_700_000_000_000_000_000,
        seed: [7; 32],
        mounts: Vec::new(),
        outward: Outward::default(),
        spool: Spool::new(Arc::clone(spool)),
        depth,
        tape: None,
        cancel: Cancel::new(),
        progress: None,
    }
}

fn main() {
    let wasm = component("inventory");
    raw::check_settings(&wasm);
    let sandbox = Sandbox::new(SandboxConfig::default()).expect("a sandbox");
    let native = compile::compile(&wasm).expect("compiled").into();
    let artifact = Artifact { component: Digest::of(&wasm), native };
    let loaded = sandbox.load(&"bench".parse().expect("a name"), &artifact).expect("loaded");
    let floor = RawFunction::new(&wasm, INTERFACE, FUNCTION);
    let input: Arc<str> = json!({"items": (0..ITEMS).map(item).collect::<Vec<_>>()}).to_string().into();
    let arguments = [Val::List((0..ITEMS).map(value).collect())];
    let spool = Arc::new(OwnedFd::from(File::open(std::env::temp_dir()).expect("a folder")));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let [mut ours, mut recorded, mut raws] = [const { Vec::new() }; 3];
    runtime.block_on(async {
        let run = async |depth: Depth| {
            let order = order(&loaded, &input, &spool, depth);
            let started = Instant::now();
            let execution = sandbox.execute(order).await.expect("no fault of the host");
            let took = micros(started.elapsed());
            assert!(matches!(execution.ended, Ended::Output(text) if text.contains("\"pieces\":2500")));
            took
        };
        for round in 0..WARM_UP_ROUNDS + ROUNDS {
            if round == WARM_UP_ROUNDS {
                [&mut ours, &mut recorded, &mut raws].into_iter().for_each(Vec::clear);
            }
            for _ in 0..PER_ROUND {
                ours.push(run(Depth::Off).await);
            }
            for _ in 0..PER_ROUND {
                recorded.push(run(Depth::Full).await);
            }
            for _ in 0..PER_ROUND {
                let started = Instant::now();
                let result = floor.call(&arguments).await;
                raws.push(micros(started.elapsed()));
                assert!(matches!(result, Val::Record(_)));
            }
        }
    });
    let [ours, recorded, raws] = [ours, recorded, raws].map(median);
    let row = Row::at_most_times(
        "P12",
        "a typed function with JSON in and out, p50 (floor: raw values)",
        "µs",
        [ours, raws],
        PROMISE,
    );
    publish(&[row], &[format!("with everything recorded {recorded:.1} µs; {} bytes of JSON in", input.len())]);
}
