//! G9: components that a compiler chokes on, generated. Each passes the prescreen at its bounds, is a valid component, and
//! must cost no more than the limits of the compile child.

use toolkeep_sandbox::compile::{CompileLimits, CompileRefused, in_child, prescreen};
use toolkeep_sandbox::prescreen::{BLOCK_DEPTH_MAX, BRANCH_TARGETS_MAX, LOCALS_BY_LOOPS_MAX, LOCALS_MAX, SEGMENTS_MAX};

use super::binary::{END, I32, counted, number, section, sized};
use super::compiling::program;

/// Little time for much work: a bomb that goes on is ended.
const LIMITS: CompileLimits = CompileLimits { cpu_s: 2, memory_bytes: 2 << 30, wall_s: 120 };

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

#[tokio::test]
async fn t_r9_a_compile_bomb_costs_no_more_than_its_limits() {
    let bombs: [Bomb; 5] = [
        ("locals by loops", locals_by_loops),
        ("wide expression", wide_expression),
        ("branch tables", branch_tables),
        ("functions", functions),
        ("segments", segments),
    ];
    let mut ended = 0;
    for (name, bomb) in bombs {
        let wasm = bomb();
        prescreen(&wasm).unwrap_or_else(|refused| panic!("{name}: {refused}"));
        match in_child(&program(), &wasm, LIMITS).await {
            Ok(_) => {}
            Err(CompileRefused::OutOfTime { .. } | CompileRefused::OutOfMemory { .. }) => ended += 1,
            Err(other) => panic!("{name}: {other}"),
        }
    }
    assert!(ended > 0, "no bomb was one: the limits were not tried");
}
