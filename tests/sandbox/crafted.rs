//! Hostile components that no toolchain makes, written by hand: a real tool whose functions give way to a few instructions,
//! or whose module says something odd of itself. They attack where a component and its host meet: answers that lie about
//! memory, an allocator that misbehaves, what runs before the call (the start function) and after it (post-return).
//!
//! Each is one attack and ends in its own way; whatever it is, a good tool runs as before right after it.

use std::path::Path;

use toolkeep_core::capability::Access;
use toolkeep_core::digest::Digest;
use toolkeep_sandbox::compile::{compile, prescreen};
use toolkeep_sandbox::execution::Ended;
use toolkeep_sandbox::pool::Artifact;
use toolkeep_tests::support::components::{repository, sandbox, wasm};
use toolkeep_tests::support::guest_call::GuestCall;
use toolkeep_tests::support::proof::told;
use toolkeep_tests::support::scratch::Scratch;

use super::binary::{END, Functions, I32, counted, number, section, sections, signed, sized, with_sections};
use crate::hard::program::with_module;

/// What is taken apart: it imports what every tool imports.
const BASE: &str = "poll-flood";
/// Hand-written hostile components that are promised (G8).
const PROMISED: usize = 60;

const UNREACHABLE: u8 = 0x00;
const LOOP: u8 = 0x03;
const BLOCK_OF_NOTHING: u8 = 0x40;
const BR: u8 = 0x0c;
const CALL: u8 = 0x10;
const DROP: u8 = 0x1a;
const I32_CONST: u8 = 0x41;
const I32_STORE: u8 = 0x36;
const MEMORY_GROW: u8 = 0x40;
const BULK: u8 = 0xfc;

/// Where the answer of a call is put together: below the data of the module.
const ANSWER: i64 = 1_024;
/// Words of the longest answer.
const WORDS: i64 = 10;

const TYPES: u8 = 1;
const FUNCTIONS: u8 = 3;
const TABLES: u8 = 4;
const MEMORIES: u8 = 5;
const EXPORTS: u8 = 7;
const START: u8 = 8;
const ELEMENTS: u8 = 9;
const CODE: u8 = 10;
const DATA: u8 = 11;

fn constant(value: i64) -> Vec<u8> {
    [vec![I32_CONST], signed(value)].concat()
}

/// A body without locals.
fn body(code: &[u8]) -> Vec<u8> {
    [&[0], code, &[END]].concat()
}

fn endless(code: &[u8]) -> Vec<u8> {
    [&[LOOP, BLOCK_OF_NOTHING], code, &[BR, 0, END]].concat()
}

fn stored(place: i64, value: i64) -> Vec<u8> {
    [constant(place), constant(value), vec![I32_STORE, 2, 0]].concat()
}

/// A body that answers: this discriminant, and the same word in every place behind it.
fn answer(discriminant: i64, word: i64) -> Vec<u8> {
    let words = (1..WORDS).flat_map(|at| stored(ANSWER + 4 * at, word)).collect::<Vec<u8>>();
    body(&[stored(ANSWER, discriminant), words, constant(ANSWER)].concat())
}

/// Which functions of the base give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Invoke,
    Realloc,
    After,
}

/// The base with another body in one place. A body that needs its own number gets it.
fn with_body(place: Place, make: impl FnOnce(u64) -> Vec<u8>) -> Vec<u8> {
    bent(&wasm(BASE), place, make)
}

fn bent(base: &[u8], place: Place, make: impl FnOnce(u64) -> Vec<u8>) -> Vec<u8> {
    with_module(base, |module| {
        let mut functions = Functions::of(module);
        let first = functions.imported.len();
        let fits = |name: &str| match place {
            Place::Invoke => name.ends_with("#invoke") && !name.starts_with("cabi_post"),
            Place::Realloc => name == "cabi_realloc",
            Place::After => name.starts_with("cabi_post") && name.ends_with("#invoke"),
        };
        let found = functions.exported.iter().find(|(name, _)| fits(name)).map(|(_, index)| *index);
        let index = found.unwrap_or_else(|| panic!("{place:?} is not exported: {:?}", functions.exported));
        functions.defined[index - first].1 = make(index as u64);
        functions.into_module(module)
    })
}

fn invoke(code: Vec<u8>) -> Vec<u8> {
    with_body(Place::Invoke, |_| code)
}

fn realloc(code: Vec<u8>) -> Vec<u8> {
    with_body(Place::Realloc, |_| code)
}

/// Of a tool that answers with an empty text.
fn after(code: Vec<u8>) -> Vec<u8> {
    bent(&invoke(answer(0, 0)), Place::After, |_| code)
}

/// The base with another section, in its place among the others.
fn with_section(id: u8, content: &[u8]) -> Vec<u8> {
    with_module(&wasm(BASE), |module| replaced(module, id, content))
}

fn replaced(module: &[u8], id: u8, content: &[u8]) -> Vec<u8> {
    // In the order of modules the count of data stands before the code.
    let rank = |id: u8| if id == 12 { 95 } else { u32::from(id) * 10 };
    let (mut all, mut is_in) = (Vec::new(), false);
    for (found, old) in sections(module) {
        if found != 0 && !is_in && rank(found) >= rank(id) {
            all.push((id, content));
            is_in = true;
        }
        if found != id {
            all.push((found, old));
        }
    }
    if !is_in {
        all.push((id, content));
    }
    with_sections(module, all)
}

/// The base with a start function, which runs before anything is called.
fn starting(code: &[u8]) -> Vec<u8> {
    with_module(&wasm(BASE), |module| {
        let mut functions = Functions::of(module);
        let first = functions.imported.len();
        let plain = |at: &usize| {
            let signature = &functions.defined[*at].0;
            signature.parameters.is_empty() && signature.results.is_empty()
        };
        let at = (0..functions.defined.len()).find(plain).expect("a function that takes and gives nothing");
        functions.defined[at].1 = body(code);
        let changed = functions.into_module(module);
        replaced(&changed, START, &number((first + at) as u64))
    })
}

/// A component around a module of this code alone, with an instance of nothing under the tool's name.
fn bare(parts: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    parts.iter().for_each(|(id, content)| module.extend(section(*id, content)));
    let instance = section(5, &[1, 1, 0]);
    let export = [vec![1, 0], sized(b"toolkeep:tool/tool@0.1.0"), vec![5, 0, 0]].concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, &module), instance, section(11, &export)].concat()
}

/// A component inside of components.
fn nested(depth: usize) -> Vec<u8> {
    let mut inner = bare(&[]);
    for _ in 0..depth {
        inner = [b"\0asm\x0d\0\x01\0".to_vec(), section(4, &inner)].concat();
    }
    inner
}

/// An attack: what it is, how it ends, and what makes it.
type Attack = (&'static str, &'static str, fn() -> Vec<u8>);

/// Answers that lie.
const ANSWERS: &[Attack] = &[
    ("an answer beyond memory", "trap", || invoke(body(&constant(-65_536)))),
    ("an answer at the last byte of all", "trap", || invoke(body(&constant(-1)))),
    ("an answer at an odd place", "trap", || invoke(body(&constant(ANSWER + 1)))),
    ("an answer that is neither success nor failure", "trap", || invoke(answer(255, 0))),
    ("a text beyond memory", "trap", || invoke(answer(0, -16))),
    ("a text of two gigabytes", "trap", || invoke(answer(0, 0x7fff_ffff))),
    ("a text that runs over the end", "trap", || invoke(answer(0, 0x00ff_ffff))),
    ("a failure of a kind that does not exist", "trap", || invoke(answer(1, -1))),
    ("a failure whose texts lie beyond memory", "trap", || invoke(answer(1, 0x7fff_0000))),
    ("a text that is no text", "trap", || {
        let words = (0..16).flat_map(|at| stored(2_048 + 4 * at, -1)).collect::<Vec<u8>>();
        let answer: Vec<u8> = (1..WORDS).flat_map(|at| stored(ANSWER + 4 * at, 2_048)).collect();
        invoke(body(&[words, stored(ANSWER, 0), answer, constant(ANSWER)].concat()))
    }),
];

/// Allocators and what runs after a call.
const ALLOCATORS: &[Attack] = &[
    ("an allocator that gives what is not there", "trap", || realloc(body(&constant(-65_536)))),
    ("an allocator that never answers", "out of fuel", || realloc(body(&[endless(&[]), vec![UNREACHABLE]].concat()))),
    ("an allocator that calls itself", "trap", || {
        let arguments = [constant(0), constant(0), constant(1), constant(1)].concat();
        with_body(Place::Realloc, |own| body(&[arguments, vec![CALL], number(own)].concat()))
    }),
    ("an allocator that takes all memory and asks for more", "out of fuel", || {
        let grow = [constant(16), vec![MEMORY_GROW, 0, DROP]].concat();
        realloc(body(&[endless(&grow), vec![UNREACHABLE]].concat()))
    }),
    ("an allocator that traps", "trap", || realloc(body(&[UNREACHABLE]))),
    ("an allocator that calls the host", "trap", || realloc(body(&[host_call(), constant(4_096)].concat()))),
    ("a tool that traps when its answer was taken", "trap", || after(body(&[UNREACHABLE]))),
    ("a tool that spins when its answer was taken", "out of fuel", || after(body(&endless(&[])))),
    ("a tool that calls the host when its answer was taken", "trap", || after(body(&host_call()))),
];

/// What runs, or is laid out, before anything is called.
const BEFORE: &[Attack] = &[
    ("a start that spins", "out of fuel", || starting(&endless(&[]))),
    ("a start that traps", "trap", || starting(&[UNREACHABLE])),
    ("a start that takes all memory and asks for more", "out of fuel", || {
        starting(&endless(&[constant(16), vec![MEMORY_GROW, 0, DROP]].concat()))
    }),
    ("a start that calls the host", "trap", || starting(&host_call())),
    ("a start that fills memory again and again", "out of fuel", || {
        let fill = [constant(0), constant(0), constant(65_536), vec![BULK, 11, 0]].concat();
        starting(&endless(&fill))
    }),
    ("data beyond memory", "trap", || with_section(DATA, &[vec![1, 0], constant(-16), vec![END, 1, 0xaa]].concat())),
    ("elements beyond their table", "trap", || {
        with_section(ELEMENTS, &[vec![1, 0], constant(0x7fff_ffff), vec![END, 1, 0]].concat())
    }),
    ("memory of four gigabytes from the start", "refused", || {
        with_section(MEMORIES, &[vec![1, 0], number(65_536)].concat())
    }),
    ("a table of ten million from the start", "refused", || {
        with_section(TABLES, &[vec![1, 0x70, 0], number(10_000_000)].concat())
    }),
];

/// What is no tool, and is turned away before it runs.
const SHAPES: &[Attack] = &[
    ("nothing at all", "refused", Vec::new),
    ("a core module", "refused", || b"\0asm\x01\0\0\0".to_vec()),
    ("a component of nothing", "refused", || b"\0asm\x0d\0\x01\0".to_vec()),
    ("an instance of nothing under the tool's name", "refused", || bare(&[])),
    ("components a hundred deep", "refused", || nested(100)),
    ("a function of a type that is not there", "refused", || {
        bare(&[(TYPES, vec![1, 0x60, 0, 0]), (FUNCTIONS, vec![1, 9]), (CODE, counted(1, &sized(&body(&[]))))])
    }),
    ("an export of what is not there", "refused", || bare(&[(EXPORTS, [vec![1], sized(b"x"), vec![0, 7]].concat())])),
    ("more bodies than functions", "refused", || {
        bare(&[(TYPES, vec![1, 0x60, 0, 0]), (FUNCTIONS, vec![1, 0]), (CODE, counted(2, &sized(&body(&[])).repeat(2)))])
    }),
    ("a body that is longer than the module", "refused", || {
        bare(&[(TYPES, vec![1, 0x60, 0, 0]), (FUNCTIONS, vec![1, 0]), (CODE, vec![1, 0xff, 0xff, 0xff, 0x0f, 0, END])])
    }),
    ("a stack that is left unequal", "refused", || {
        let unequal = sized(&body(&[I32_CONST, 0]));
        bare(&[(TYPES, vec![1, 0x60, 0, 0]), (FUNCTIONS, vec![1, 0]), (CODE, counted(1, &unequal))])
    }),
    ("a million locals in five bytes", "refused", || {
        let locals = [counted(1, &[number(1_000_000), vec![I32]].concat()), vec![END]].concat();
        bare(&[(TYPES, vec![1, 0x60, 0, 0]), (FUNCTIONS, vec![1, 0]), (CODE, counted(1, &sized(&locals)))])
    }),
    ("the sections in the wrong order", "refused", || bare(&[(CODE, vec![0]), (TYPES, vec![1, 0x60, 0, 0])])),
];

/// A call of the first import with zeros for whatever it takes.
fn host_call() -> Vec<u8> {
    let base = wasm(BASE);
    let mut code = Vec::new();
    let _unchanged = with_module(&base, |module| {
        let functions = Functions::of(module);
        let plain = |kinds: &[u8]| kinds.iter().all(|kind| *kind == I32);
        let fits = |(_, signature): &&(String, super::binary::Signature)| plain(&signature.parameters);
        let at = functions.imported.iter().position(|import| fits(&import)).expect("an import of small numbers");
        let signature = &functions.imported[at].1;
        code = [constant(0).repeat(signature.parameters.len()), vec![CALL], number(at as u64)].concat();
        code.extend(vec![DROP; signature.results.len()]);
        module.to_vec()
    });
    code
}

/// How a component ends, in a word.
async fn end_of(bytes: &[u8]) -> String {
    if prescreen(bytes).is_err() {
        return "refused".to_owned();
    }
    let Ok(native) = compile(bytes) else { return "refused".to_owned() };
    let artifact = Artifact { component: Digest::of(bytes), native: native.into() };
    let Ok(loaded) = sandbox().load(&"crafted".parse().expect("tenant"), &artifact) else {
        return "refused".to_owned();
    };
    let scratch = Scratch::new();
    let mut call = GuestCall::new("crafted").workspace(scratch.path(), Access::Write).limits(|limits| {
        limits.fuel = 20_000_000;
        limits.memory_bytes = 16 << 20;
        limits.deadline_ms = 20_000;
    });
    call.tenant = "crafted".to_owned();
    let execution = sandbox().execute(call.order(loaded)).await.expect("no fault of the host");
    assert!(execution.staged.effects.is_empty());
    match execution.ended {
        Ended::Fault(fault) => match format!("{fault:?}").split(['(', ' ', '{']).next().unwrap_or_default() {
            "Trap" => "trap".to_owned(),
            "OutOfFuel" => "out of fuel".to_owned(),
            "Memory" => "memory".to_owned(),
            other => format!("{other}: {fault:?}"),
        },
        other => format!("{other:?}"),
    }
}

/// Names of the hostile tools, each a component with tests of its own elsewhere.
fn tools() -> Vec<String> {
    let entries = std::fs::read_dir(Path::new(repository()).join("sample-tools/hostile")).expect("hostile tools");
    let tools = entries.filter_map(Result::ok).filter(|entry| entry.path().join("src/lib.rs").is_file());
    tools.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// All that the tests say, this file apart.
fn tests(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder of tests").filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            tests(&path, text);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with(file!()) {
            text.push_str(&std::fs::read_to_string(path).expect("a test"));
        }
    }
}

#[tokio::test]
async fn g8_t_r4_t_r11_every_component_written_by_hand_ends_in_its_own_way_and_harms_nobody() {
    let mut wrong = Vec::new();
    let attacks: Vec<&Attack> = [ANSWERS, ALLOCATORS, BEFORE, SHAPES].into_iter().flatten().collect();
    for (what, wanted, make) in &attacks {
        let found = end_of(&make()).await;
        if found != *wanted {
            wrong.push(format!("{what}: {found}, not {wanted}"));
        }
        let good = GuestCall::new("text-stats").input(r#"{"text":"still here"}"#).run().await;
        assert!(matches!(good.ended, Ended::Output(_)), "after {what}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let (tools, mut text) = (tools(), String::new());
    tests(&Path::new(repository()).join("tests"), &mut text);
    let untested: Vec<&String> = tools.iter().filter(|tool| !text.contains(&format!("\"{tool}\""))).collect();
    assert_eq!(untested, Vec::<&String>::new(), "each hostile tool has a test");
    let all = attacks.len() + tools.len();
    assert!(all >= PROMISED, "{all} hand-written hostile components");
    let more = format!("by their bytes; {} sample tools and the compile bombs have tests of their own", tools.len());
    told(
        "G8 hand-written hostile components",
        attacks.len(),
        "with a panic of the host or another end than theirs",
        &more,
    );
}
