//! G8: ten thousand generated components, valid and invalid, through the look, the compiler and the sandbox.
//!
//! They run in processes of their own, so that the memory which is measured is theirs: the test starts itself again for each
//! share of the seeds. In such a process nothing may panic in the host, and memory stays within the budget of one
//! execution and 64 MiB. How long the longest took is printed, not asserted.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use toolkeep_core::capability::Access;
use toolkeep_core::digest::Digest;
use toolkeep_sandbox::compile::{compile, prescreen};
use toolkeep_sandbox::execution::Ended;
use toolkeep_sandbox::fault::HostFault;
use toolkeep_sandbox::pool::Artifact;
use toolkeep_tests::support::components::{sandbox, wasm};
use toolkeep_tests::support::guest_call::GuestCall;
use toolkeep_tests::support::proof::{is_over, left, told};
use toolkeep_tests::support::scratch::Scratch;

use super::program::{Dice, flipped, mutated, program, shaped};
use super::strace::choose;

/// Components in all.
const COMPONENTS: u64 = 10_000;
/// Components of an ordinary run.
const SAMPLE: usize = 200;
/// Processes at one time.
const WORKERS: usize = 2;
/// Tells a process which seeds are its own.
const SEEDS: &str = "TOOLKEEP_GENERATED";
/// Linear memory of one execution, in bytes.
const MEMORY_BYTES: u64 = 64 << 20;
/// What the host may take beyond it, in bytes.
const HOST_BYTES: u64 = 64 << 20;
/// Time that an execution has.
const DEADLINE: Duration = Duration::from_millis(300);
/// Components that programs are made of: together they import everything that is offered.
const BASES: [&str; 6] = ["deep-directories", "dial-out", "poll-flood", "random-flood", "path-escape", "clock-probe"];

/// What became of the components of one process.
#[derive(Debug, Default)]
struct Tally {
    ends: BTreeMap<String, u64>,
    longest: Duration,
}

fn component(seed: u64, bases: &[Vec<u8>]) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let base = &bases[dice.below(bases.len())];
    match dice.below(100) {
        0..65 => program(base, &mut dice),
        65..67 => mutated(base, &mut dice),
        67..85 => shaped(&mut dice),
        _ => {
            let valid = program(base, &mut dice);
            flipped(&valid, &mut dice)
        }
    }
}

/// What becomes of one component, in a word. A fault of the host that no guest may cause is a panic here.
async fn end_of(seed: u64, wasm: &[u8], scratch: &Scratch, longest: &mut Duration) -> String {
    if prescreen(wasm).is_err() {
        return "turned away by the look".to_owned();
    }
    let Ok(native) = compile(wasm) else { return "refused by the compiler".to_owned() };
    let artifact = Artifact { component: Digest::of(wasm), native: native.into() };
    let loaded = match sandbox().load(&"generated".parse().expect("tenant"), &artifact) {
        Ok(loaded) => loaded,
        Err(HostFault::Unfit(_)) => return "not a tool".to_owned(),
        Err(other) => panic!("seed {seed}: {other}"),
    };
    let mut call = GuestCall::new("generated").workspace(scratch.path(), Access::Write).limits(|limits| {
        limits.fuel = 20_000_000;
        limits.memory_bytes = MEMORY_BYTES;
        limits.deadline_ms = u64::try_from(DEADLINE.as_millis()).expect("small");
    });
    call.tenant = "generated".to_owned();
    let started = Instant::now();
    let execution = sandbox().execute(call.order(loaded)).await;
    *longest = (*longest).max(started.elapsed());
    match execution {
        Ok(execution) => match execution.ended {
            Ended::Output(_) => "returned".to_owned(),
            Ended::Error(_) => "returned an error".to_owned(),
            Ended::Live(_) => "asked for something live".to_owned(),
            Ended::Fault(fault) => {
                let word = format!("{fault:?}");
                format!("fault {}", word.split(['(', ' ', '{']).next().unwrap_or_default())
            }
        },
        Err(fault) => panic!("seed {seed}: {fault}"),
    }
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// The part of one process.
fn work(seeds: &str) {
    let bases: Vec<Vec<u8>> = BASES.iter().map(|name| wasm(name)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let scratch = Scratch::new();
    sandbox();
    let before = memory("VmRSS:");
    let mut tally = Tally::default();
    for seed in seeds.split(',').map(|seed| seed.parse::<u64>().expect("a seed")) {
        let wasm = component(seed, &bases);
        let Tally { ends, longest } = &mut tally;
        let end = catch_unwind(AssertUnwindSafe(|| runtime.block_on(end_of(seed, &wasm, &scratch, longest))));
        let end = end.unwrap_or_else(|_| panic!("the host panicked on the component of seed {seed}"));
        *ends.entry(end).or_default() += 1;
        if is_over() {
            break;
        }
    }
    let more = memory("VmHWM:").saturating_sub(before);
    assert!(more <= MEMORY_BYTES + HOST_BYTES, "{more} bytes of memory more than at the start");
    println!(
        "{} components, {:?}, longest execution {:?}, memory {} MiB more",
        tally.ends.values().sum::<u64>(),
        tally.ends,
        tally.longest,
        more >> 20
    );
}

fn start(seeds: &[u64]) -> Child {
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let name = "hard::generated::g8_t_r11_no_generated_component_panics_the_host_or_takes_more_than_its_memory";
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(SEEDS, seeds.join(","))
        .envs(left())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

#[test]
fn g8_t_r11_no_generated_component_panics_the_host_or_takes_more_than_its_memory() {
    if let Ok(seeds) = std::env::var(SEEDS) {
        return work(&seeds);
    }
    let seeds = choose((0..COMPONENTS).collect(), SAMPLE);
    let mut ran = 0;
    // A process has a thousand at most: what one leaves behind is not counted against the next for ever.
    let shares: Vec<&[u64]> = seeds.chunks(seeds.len().div_ceil(WORKERS).clamp(1, 1_000)).collect();
    for share in shares.chunks(WORKERS) {
        if is_over() {
            break;
        }
        let children: Vec<Child> = share.iter().map(|seeds| start(seeds)).collect();
        for child in children {
            let output = child.wait_with_output().expect("ended");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{text}");
            assert!(text.contains("longest execution"), "the process ran no component: {text}");
            let lines = text.lines().filter(|line| line.contains("longest execution"));
            for line in lines {
                println!("{line}");
                let counts =
                    line.split_once(" components, ").and_then(|(ran, _)| ran.rsplit(' ').next()?.parse::<usize>().ok());
                ran += counts.expect("a number");
            }
        }
    }
    assert!(ran > 0, "no component ran");
    let more = format!("of {COMPONENTS} components, executions end after {DEADLINE:?}");
    told("G8 generated components", ran, "panics of the host or memory beyond its bound", &more);
}

#[test]
fn a_seed_makes_one_component_and_most_programs_are_valid() {
    let bases: Vec<Vec<u8>> = BASES.iter().map(|name| wasm(name)).collect();
    let make = |seed| program(&bases[0], &mut Dice::new(seed));
    assert_eq!(make(1), make(1));
    assert_ne!(make(1), make(2));
    for seed in 0..20 {
        let wasm = make(seed);
        prescreen(&wasm).unwrap_or_else(|refused| panic!("seed {seed}: {refused}"));
        compile(&wasm).unwrap_or_else(|refused| panic!("seed {seed}: {refused}"));
    }
}
