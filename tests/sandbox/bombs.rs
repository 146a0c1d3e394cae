//! G9: components that a compiler chokes on, generated. Each passes the prescreen at its bounds, is a valid component, and
//! must cost no more than the limits of the compile child.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use toolkeep::ambient::Ambient;
use toolkeep::artifacts::Artifacts;
use toolkeep::catalog::ComponentFile;
use toolkeep::load::Loader;
use toolkeep_core::digest::Digest;
use toolkeep_core::refusal::Code;
use toolkeep_sandbox::compile::{CompileLimits, prescreen};
use toolkeep_sandbox::prescreen::{BLOCK_DEPTH_MAX, BRANCH_TARGETS_MAX, LOCALS_BY_LOOPS_MAX, LOCALS_MAX, SEGMENTS_MAX};
use toolkeep_sandbox::sandbox::{Sandbox, SandboxConfig};
use toolkeep_tests::support::proof::told;
use toolkeep_tests::support::scratch::Scratch;

use super::binary::{END, I32, counted, number, section, sized};
use super::compiling::program;

/// Little time for much work: a bomb that goes on is ended.
const LIMITS: CompileLimits = CompileLimits { cpu_s: 2, memory_bytes: 2 << 30, wall_s: 120 };

/// How often a child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The signals of a child that used its CPU time, or that could not get memory (`signal(7)`).
const SIGXCPU: i32 = 24;
const SIGABRT: i32 = 6;

const EMPTY: u8 = 0x40;
const BLOCK: u8 = 0x02;
const LOOP: u8 = 0x03;
const BR_TABLE: u8 = 0x0e;
const LOCAL_GET: u8 = 0x20;
const LOCAL_SET: u8 = 0x21;
const I32_CONST: u8 = 0x41;
const I32_ADD: u8 = 0x6a;
const I32_MUL: u8 = 0x6c;

/// A function `() -> ()` with `locals` integers.
fn body(locals: u64, code: &[u8]) -> Vec<u8> {
    let declared = counted(1, &[number(locals), vec![I32]].concat());
    sized(&[declared, code.to_vec(), vec![END]].concat())
}

fn module(functions: u64, bodies: &[u8], segments: u64) -> Vec<u8> {
    let types = section(1, &[1, 0x60, 0, 0]);
    let declared = section(3, &counted(functions, &vec![0; usize::try_from(functions).expect("count")]));
    let count = section(12, &number(segments));
    let code = section(10, &counted(functions, bodies));
    let passive = [1_u8, 1, 0xaa].repeat(usize::try_from(segments).expect("count"));
    let data = section(11, &counted(segments, &passive));
    [b"\0asm\x01\0\0\0".to_vec(), types, declared, count, code, data].concat()
}

/// A component with the module inside, and an empty instance under the name of the tool's export.
fn component(module: &[u8]) -> Vec<u8> {
    let name = "toolkeep:tool/tool@0.1.0";
    let instance = section(5, &[1, 1, 0]);
    let export = [vec![1, 0], sized(name.as_bytes()), vec![5, 0, 0]].concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module), instance, section(11, &export)].concat()
}

fn of_one(locals: u64, code: &[u8]) -> Vec<u8> {
    component(&module(1, &body(locals, code), 0))
}

/// As many locals as allowed, all alive across as many loops as allowed.
fn locals_by_loops() -> Vec<u8> {
    let loops = LOCALS_BY_LOOPS_MAX / LOCALS_MAX;
    let mut code = Vec::new();
    for turn in 0..loops {
        code.extend([LOOP, EMPTY]);
        for local in (turn % 7..LOCALS_MAX).step_by(43) {
            let next = (local * 31 + turn) % LOCALS_MAX;
            code.extend([vec![LOCAL_GET], number(local), vec![LOCAL_GET], number(next), vec![I32_ADD]].concat());
            code.extend([vec![LOCAL_SET], number(next)].concat());
        }
        code.push(END);
    }
    of_one(LOCALS_MAX, &code)
}

/// One expression of a hundred thousand terms, all waiting for each other.
fn wide_expression() -> Vec<u8> {
    let terms = 100_000_u64;
    let mut code = Vec::new();
    for term in 0..terms {
        code.extend([vec![LOCAL_GET], number(term % 100)].concat());
    }
    for term in 1..terms {
        code.push(if term % 3 == 0 { I32_MUL } else { I32_ADD });
    }
    code.extend([LOCAL_SET, 0]);
    of_one(100, &code)
}

/// Blocks inside of blocks, and tables that branch to all of them.
fn branch_tables() -> Vec<u8> {
    let mut code = [BLOCK, EMPTY].repeat(usize::try_from(BLOCK_DEPTH_MAX).expect("count"));
    let tables = BRANCH_TARGETS_MAX / BLOCK_DEPTH_MAX;
    for _ in 0..tables {
        let targets: Vec<u8> = (0..BLOCK_DEPTH_MAX - 1).flat_map(number).collect();
        code.extend([LOCAL_GET, 0, BR_TABLE]);
        code.extend(counted(BLOCK_DEPTH_MAX - 1, &targets));
        code.extend(number(0));
    }
    code.extend([END].repeat(usize::try_from(BLOCK_DEPTH_MAX).expect("count")));
    of_one(1, &code)
}

/// Very many small functions.
fn functions() -> Vec<u8> {
    let count = 150_000_u64;
    let one = body(2, &[LOCAL_GET, 0, I32_CONST, 7, I32_ADD, LOCAL_SET, 1]);
    component(&module(count, &one.repeat(usize::try_from(count).expect("count")), 0))
}

/// Very many data segments.
fn segments() -> Vec<u8> {
    component(&module(1, &body(1, &[]), SEGMENTS_MAX))
}

/// A bomb: what it is called, and what makes it.
type Bomb = (&'static str, fn() -> Vec<u8>);

/// What one bomb cost.
#[derive(Debug)]
struct Cost {
    wall: Duration,
    /// Resident memory and address space of the child at their highest, in bytes.
    resident: u64,
    space: u64,
    ended: ExitStatus,
}

/// A line of a process's status, in bytes.
fn status_of(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Compile in a child of our own that is looked at all the time.
fn watched(wasm: &[u8]) -> Cost {
    let started = Instant::now();
    let mut child = Command::new(program())
        .env_clear()
        .args(["compile-worker", &LIMITS.cpu_s.to_string(), &LIMITS.memory_bytes.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut stdin = child.stdin.take().expect("stdin");
    let (mut resident, mut space) = (0, 0);
    let ended = std::thread::scope(|scope| {
        // A child that dies while it reads is one of the ends.
        scope.spawn(move || stdin.write_all(wasm).is_ok());
        loop {
            resident = resident.max(status_of(child.id(), "VmHWM:"));
            space = space.max(status_of(child.id(), "VmPeak:"));
            match child.try_wait().expect("ours") {
                Some(ended) => break ended,
                None => std::thread::sleep(LOOK_EVERY),
            }
        }
    });
    Cost { wall: started.elapsed(), resident, space, ended }
}

#[test]
fn g9_t_r9_a_compile_bomb_costs_no_more_than_its_limits() {
    let bombs: [Bomb; 5] = [
        ("locals by loops", locals_by_loops),
        ("wide expression", wide_expression),
        ("branch tables", branch_tables),
        ("functions", functions),
        ("segments", segments),
    ];
    let mut stopped = 0;
    for (name, bomb) in &bombs {
        let wasm = bomb();
        prescreen(&wasm).unwrap_or_else(|refused| panic!("{name}: {refused}"));
        let cost = watched(&wasm);
        let (resident, space) = (cost.resident >> 20, cost.space >> 20);
        println!("{name}: {:?} of {} s CPU, {resident} MiB resident, {space} MiB mapped", cost.wall, LIMITS.cpu_s);
        assert!(cost.space <= LIMITS.memory_bytes && cost.resident <= LIMITS.memory_bytes, "{name}: {cost:?}");
        match cost.ended.signal() {
            None => assert!(cost.ended.code().is_some(), "{name}"),
            Some(signal) => {
                assert!([SIGXCPU, SIGABRT].contains(&signal), "{name}: {cost:?}");
                stopped += 1;
            }
        }
    }
    assert!(stopped > 0, "no bomb was one: the limits were not tried");
    told("G9 compile bombs", bombs.len(), "beyond their limits", &format!("{stopped} stopped by a limit"));
}

#[tokio::test]
async fn g9_t_r9_a_compile_bomb_is_refused_at_once_the_second_time() {
    let scratch = Scratch::new();
    let wasm = functions();
    scratch.put("bomb.wasm", &wasm);
    let artifacts = Artifacts::open(&scratch.path().join("cache"), &Ambient::real()).expect("a cache");
    let sandbox = Arc::new(Sandbox::new(SandboxConfig::default()).expect("a sandbox"));
    let loader = Loader::new(sandbox, artifacts, program());
    let component = ComponentFile {
        digest: Digest::of(&wasm),
        path: scratch.path().join("bomb.wasm"),
        size: wasm.len() as u64,
        compile: (Some(1), Some(LIMITS.memory_bytes)),
    };
    // On a busy machine the time on the wall may be over first, which says nothing of the component.
    let first = loop {
        let refusal = loader.artifact(&component).await.expect_err("a bomb");
        if refusal.code != Code::Overloaded {
            break refusal;
        }
    };
    assert!(first.message.contains("took more than 1 s of CPU"), "{first:?}");
    let started = Instant::now();
    let second = loader.artifact(&component).await.expect_err("still a bomb");
    println!("second try refused after {:?}", started.elapsed());
    assert_eq!(second, first);
    std::fs::remove_file(scratch.path().join("bomb.wasm")).expect("removed");
    assert_eq!(loader.artifact(&component).await.expect_err("remembered"), first, "nobody looked at it again");
    told("G9 second tries", 2, "compiled again", "refused from memory");
}
