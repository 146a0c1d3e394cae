//! Programs that a seed makes: odd arguments for whatever a component may import, odd answers, odd shapes.
//!
//! A real component is taken apart, and its functions give way to generated ones: the tool's entry calls imports in any
//! order, with handles that exist and handles that do not, pointers into memory and beyond it, and lengths of any size.
//! Everything else in the component, its adapters above all, stays as a toolchain made it. The same seed makes the same
//! component everywhere.

use crate::sandbox::binary::{
    END, F32, F64, Functions, I32, I64, Signature, counted, number, section, sections, signed, sized, with_sections,
};

const MODULE: u8 = 1;
const UNREACHABLE: u8 = 0x00;
const BLOCK: u8 = 0x02;
const LOOP: u8 = 0x03;
const BR: u8 = 0x0c;
const CALL: u8 = 0x10;
const DROP: u8 = 0x1a;
const LOCAL_GET: u8 = 0x20;
const LOCAL_SET: u8 = 0x21;
const I32_LOAD: u8 = 0x28;
const I32_STORE: u8 = 0x36;
const MEMORY_GROW: u8 = 0x40;
const I32_CONST: u8 = 0x41;
const I32_ADD: u8 = 0x6a;
const I32_AND: u8 = 0x71;
const I64_CONST: u8 = 0x42;
const F32_CONST: u8 = 0x43;
const F64_CONST: u8 = 0x44;
const EMPTY: u8 = 0x40;

/// What integers a hostile guest tries.
const ODD: [i64; 22] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    64,
    255,
    4_095,
    4_096,
    65_535,
    65_536,
    1 << 20,
    (1 << 20) + 1,
    0x7fff_0000,
    i32::MAX as i64,
    -1,
    -2,
    i32::MIN as i64,
    -65_536,
];
/// Where generated code keeps what imports answer: below the data of the module.
const ANSWERS: [i64; 4] = [2_048, 2_112, 2_176, 2_240];
/// Where it keeps names of files.
const NAMES: i64 = 1_024;
/// Where lists that imports answer go, one behind the other; how many bytes are taken stands in front.
const LISTS: i64 = 8_192;
const TAKEN: i64 = LISTS - 8;
/// Bytes after which the lists of a call begin whose texts are its tool and its input, and those after them.
const AFTER: [i64; 5] = [24, 32, 40, 48, 64];
/// Names that a hostile guest opens; the lengths that it gives them are odd as well.
const TEXTS: [&[u8; 4]; 6] = [b"a\0\0\0", b"../.", b"/etc", b"\xff\xfe\xfd\xfc", b"....", b"a/b\0"];
/// Locals of the entry that hold earlier answers.
const KEPT: u64 = 4;

/// Numbers that follow from a seed (SplitMix64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `most`.
    pub fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).expect("small")
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// True in `percent` of all cases.
    pub fn often(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// The component with its largest module replaced by what `change` makes of it.
pub(crate) fn with_module(component: &[u8], change: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let all = sections(component);
    let modules = all.iter().enumerate().filter(|(_, (id, _))| *id == MODULE);
    let (largest, module) = modules.max_by_key(|(_, (_, content))| content.len()).expect("a module");
    let changed = change(module.1);
    let whole =
        all.iter().enumerate().map(|(at, (id, content))| (*id, if at == largest { &*changed } else { content }));
    with_sections(component, whole)
}

/// A component whose entry calls its imports as the dice say, and whose other functions are hollow.
pub fn program(component: &[u8], dice: &mut Dice) -> Vec<u8> {
    with_module(component, |module| {
        let mut functions = Functions::of(module);
        let first = functions.imported.len();
        let exported = std::mem::take(&mut functions.exported);
        let name_of = |at: usize| exported.iter().find(|(_, index)| *index == at).map(|(name, _)| name.as_str());
        for at in 0..functions.defined.len() {
            let signature = functions.defined[at].0.clone();
            functions.defined[at].1 = match name_of(first + at) {
                Some("cabi_realloc") => allocator(dice),
                Some(name) if name.ends_with("#invoke") => entry(&functions.imported, &signature, dice),
                _ if signature.results.is_empty() => vec![0, END],
                _ => vec![0, UNREACHABLE, END],
            };
        }
        functions.exported = exported;
        functions.into_module(module)
    })
}

/// One place behind the other; sometimes one that does not exist.
fn allocator(dice: &mut Dice) -> Vec<u8> {
    if dice.often(5) {
        return [vec![0, I32_CONST], signed(*dice.pick(&ODD)), vec![END]].concat();
    }
    let constant = |value: i64| [vec![I32_CONST], signed(value)].concat();
    let (wanted, place) = (3, 4);
    let taken = [constant(TAKEN), vec![I32_LOAD, 2, 0, LOCAL_SET, place]].concat();
    let rounded = [constant(7), vec![I32_ADD], constant(-8), vec![I32_AND]].concat();
    let sum = [vec![LOCAL_GET, place, LOCAL_GET, wanted, I32_ADD], rounded].concat();
    let more = [constant(TAKEN), sum, vec![I32_STORE, 2, 0]].concat();
    let answer = [vec![LOCAL_GET, place], constant(LISTS), vec![I32_ADD, END]].concat();
    [vec![1, 1, I32], taken, more, answer].concat()
}

fn entry(imported: &[(String, Signature)], own: &Signature, dice: &mut Dice) -> Vec<u8> {
    let first_kept = own.parameters.len() as u64;
    let mut code = Vec::new();
    for (at, text) in [dice.pick(&TEXTS), dice.pick(&TEXTS)].into_iter().enumerate() {
        let place = NAMES + 4 * i64::try_from(at).expect("small");
        code.extend(
            [vec![I32_CONST], signed(place), vec![I32_CONST], signed(i32::from_le_bytes(**text).into())].concat(),
        );
        code.extend([I32_STORE, 2, 0]);
    }
    // What the guest is given at the start, so that there are handles to go on with.
    for (at, (name, _)) in imported.iter().enumerate() {
        if name.starts_with("get-") && dice.often(90) {
            call(imported, at, first_kept, dice, &mut code);
        }
    }
    let endless = dice.often(10);
    if endless {
        code.extend([LOOP, EMPTY]);
    }
    for _ in 0..=dice.below(40) {
        step(imported, first_kept, dice, &mut code);
    }
    if endless {
        code.extend([BR, 0, END]);
    }
    for result in &own.results {
        argument(*result, first_kept, dice, &mut code);
    }
    [counted(1, &[number(KEPT), vec![I32]].concat()), code, vec![END]].concat()
}

/// One call of an import, or of the machine.
fn step(imported: &[(String, Signature)], first_kept: u64, dice: &mut Dice, code: &mut Vec<u8>) {
    if dice.often(5) {
        code.extend([vec![I32_CONST], signed(*dice.pick(&ODD)), vec![MEMORY_GROW, 0, DROP]].concat());
        return;
    }
    let at = dice.below(imported.len());
    // Dropping what comes next is never what one wants to go on with.
    let at =
        if imported[at].0.starts_with("[resource-drop]") && dice.often(70) { dice.below(imported.len()) } else { at };
    call(imported, at, first_kept, dice, code);
}

/// One call of a certain import.
fn call(imported: &[(String, Signature)], at: usize, first_kept: u64, dice: &mut Dice, code: &mut Vec<u8>) {
    let (name, Signature { parameters, results }) = &imported[at];
    for (position, parameter) in parameters.iter().enumerate() {
        if position == 0 && name.starts_with('[') && dice.often(85) {
            handle(first_kept, dice, code);
            continue;
        }
        // The last pointer is where the answer goes: most of the time to a place where the next call finds it.
        let answers = position + 1 == parameters.len() && results.is_empty() && *parameter == I32;
        if answers && dice.often(80) {
            code.extend([vec![I32_CONST], signed(*dice.pick(&ANSWERS))].concat());
        } else {
            argument(*parameter, first_kept, dice, code);
        }
    }
    code.extend([vec![CALL], number(at as u64)].concat());
    for result in results {
        if *result == I32 {
            code.extend([vec![LOCAL_SET], number(first_kept + dice.below(4) as u64)].concat());
        } else {
            code.push(DROP);
        }
    }
}

fn argument(kind: u8, first_kept: u64, dice: &mut Dice, code: &mut Vec<u8>) {
    let odd = *dice.pick(&ODD);
    match kind {
        I64 => code.extend([vec![I64_CONST], signed(if dice.often(20) { i64::MIN } else { odd })].concat()),
        F32 => code.extend([vec![F32_CONST], f32::NAN.to_le_bytes().to_vec()].concat()),
        F64 => code.extend([vec![F64_CONST], f64::INFINITY.to_le_bytes().to_vec()].concat()),
        _ => match dice.below(10) {
            0..=2 => code.extend([vec![LOCAL_GET], number(first_kept + dice.below(4) as u64)].concat()),
            3 => handle(first_kept, dice, code),
            4..=6 => code.extend([vec![I32_CONST], signed(NAMES)].concat()),
            _ => code.extend([vec![I32_CONST], signed(odd)].concat()),
        },
    }
}

/// A handle from an earlier answer: kept, behind a discriminant, or at the head of a list.
fn handle(first_kept: u64, dice: &mut Dice, code: &mut Vec<u8>) {
    let place = match dice.below(4) {
        0 => {
            code.extend([vec![LOCAL_GET], number(first_kept + dice.below(4) as u64)].concat());
            return;
        }
        1 => dice.pick(&ANSWERS) + 4,
        _ => LISTS + dice.pick(&AFTER),
    };
    code.extend([vec![I32_CONST], signed(place), vec![I32_LOAD, 2, 0]].concat());
}

/// The component with a few small constants of its code changed: still a program, but not the one that was written.
pub fn mutated(component: &[u8], dice: &mut Dice) -> Vec<u8> {
    with_module(component, |module| {
        let mut functions = Functions::of(module);
        for _ in 0..=dice.below(30) {
            let at = dice.below(functions.defined.len());
            let body = &mut functions.defined[at].1;
            let constants: Vec<usize> =
                (1..body.len()).filter(|at| body[at - 1] == I32_CONST && body[*at] < 0x80).collect();
            if !constants.is_empty() {
                body[*dice.pick(&constants)] = u8::try_from(dice.below(0x80)).expect("small");
            }
        }
        functions.into_module(module)
    })
}

/// The component with a few bytes changed, lost or doubled anywhere.
pub fn flipped(component: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = component.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(4) {
            0 => bytes.truncate(at.max(8)),
            1 => bytes.insert(at, bytes[at]),
            _ => bytes[at] ^= 1 << dice.below(8),
        }
    }
    bytes
}

/// A core module of hostile shape in a component that exports something under the tool's name.
pub fn shaped(dice: &mut Dice) -> Vec<u8> {
    let unsigned = |dice: &mut Dice| number(dice.pick(&ODD).unsigned_abs() & 0xffff_ffff);
    let limits = |dice: &mut Dice| {
        let least = unsigned(dice);
        if dice.often(50) { [vec![1], least, unsigned(dice)].concat() } else { [vec![0], least].concat() }
    };
    let list = |count: usize, one: &mut dyn FnMut() -> Vec<u8>| {
        counted(count as u64, &(0..count).flat_map(|_| one()).collect::<Vec<u8>>())
    };
    let (tables, memories, globals) = (dice.below(6), dice.below(3), dice.below(50));
    let (depth, segments) = (dice.below(6_000), dice.below(300));
    let table = section(4, &list(tables, &mut || [vec![0x70], limits(dice)].concat()));
    let memory = section(5, &list(memories, &mut || limits(dice)));
    let global =
        section(6, &list(globals, &mut || [vec![I32, 1, I32_CONST], signed(*dice.pick(&ODD)), vec![END]].concat()));
    let exports = list(dice.below(20), &mut || {
        let name = format!("e{}", dice.below(30));
        [sized(name.as_bytes()), vec![u8::try_from(dice.below(4)).expect("small")], number(dice.below(5) as u64)]
            .concat()
    });
    let kind = if dice.often(50) { BLOCK } else { LOOP };
    let body = [vec![0], [kind, EMPTY].repeat(depth), [END].repeat(depth), vec![END]].concat();
    let data = list(segments, &mut || [vec![0, I32_CONST], signed(*dice.pick(&ODD)), [END, 1, 0xaa].to_vec()].concat());
    let head =
        [section(1, &[1, 0x60, 0, 0]), section(3, &[1, 0]), table, memory, global, section(7, &exports)].concat();
    let start = if dice.often(20) { section(8, &[0]) } else { Vec::new() };
    let module =
        [b"\0asm\x01\0\0\0".to_vec(), head, start, section(CODE, &counted(1, &sized(&body))), section(11, &data)];
    let module = module.concat();
    let copies: Vec<u8> = section(MODULE, &module).repeat(1 + dice.below(3));
    let instance = section(5, &[1, 1, 0]);
    let export = [vec![1, 0], sized(b"toolkeep:tool/tool@0.1.0"), vec![5, 0, 0]].concat();
    let mut inner = [b"\0asm\x0d\0\x01\0".to_vec(), copies, instance, section(11, &export)].concat();
    for _ in 0..if dice.often(10) { dice.below(10) } else { 0 } {
        inner =
            [b"\0asm\x0d\0\x01\0".to_vec(), section(4, &inner), instance_of_component(), section(11, &export)].concat();
    }
    inner
}

const CODE: u8 = 10;

/// Instantiates the component that was just nested.
fn instance_of_component() -> Vec<u8> {
    section(5, &[1, 0, 0, 0])
}
