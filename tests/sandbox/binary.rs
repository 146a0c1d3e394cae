//! WebAssembly by hand: writing sections and numbers, and taking a core module apart and together again.
//!
//! Only what the generators of hostile components need; everything else of a module is carried along as it is.

/// An integer of 32 bits, as a value type.
pub const I32: u8 = 0x7f;
/// An integer of 64 bits.
pub const I64: u8 = 0x7e;
/// A float of 32 bits.
pub const F32: u8 = 0x7d;
/// A float of 64 bits.
pub const F64: u8 = 0x7c;
/// Ends a block or a function.
pub const END: u8 = 0x0b;

const HEADER_BYTES: usize = 8;
const TYPES: u8 = 1;
const IMPORTS: u8 = 2;
const FUNCTIONS: u8 = 3;
const EXPORTS: u8 = 7;
const CODE: u8 = 10;
const FUNCTION: u8 = 0;

/// An unsigned LEB128 number.
pub fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A signed LEB128 number.
pub fn signed(mut value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        let done = (value == 0 && low & 0x40 == 0) || (value == -1 && low & 0x40 != 0);
        bytes.push(if done { low } else { low | 0x80 });
        if done {
            return bytes;
        }
    }
}

/// A count and what is counted.
pub fn counted(count: u64, rest: &[u8]) -> Vec<u8> {
    [number(count), rest.to_vec()].concat()
}

/// Bytes after their length.
pub fn sized(bytes: &[u8]) -> Vec<u8> {
    counted(bytes.len() as u64, bytes)
}

/// A section.
pub fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [vec![id], sized(content)].concat()
}

/// Reads what the functions above write.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().expect("a byte");
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (part, rest) = self.0.split_at(length);
        self.0 = rest;
        part
    }

    fn sized(&mut self) -> &'a [u8] {
        let length = self.number();
        self.take(length)
    }
}

/// The sections of a module or a component.
pub fn sections(wasm: &[u8]) -> Vec<(u8, &[u8])> {
    let mut rest = Bytes(&wasm[HEADER_BYTES..]);
    let mut found = Vec::new();
    while !rest.0.is_empty() {
        found.push((rest.byte(), rest.sized()));
    }
    found
}

/// The same with other sections.
pub fn with_sections<'a>(wasm: &[u8], sections: impl IntoIterator<Item = (u8, &'a [u8])>) -> Vec<u8> {
    let mut whole = wasm[..HEADER_BYTES].to_vec();
    for (id, content) in sections {
        whole.extend(section(id, content));
    }
    whole
}

/// The type of a core function.
#[derive(Debug, Clone, Default)]
pub struct Signature {
    /// What it takes.
    pub parameters: Vec<u8>,
    /// What it gives.
    pub results: Vec<u8>,
}

/// The functions of a core module.
#[derive(Debug)]
pub struct Functions {
    /// Those that it imports, by name.
    pub imported: Vec<(String, Signature)>,
    /// Those that it defines, with their bodies (without the length).
    pub defined: Vec<(Signature, Vec<u8>)>,
    /// The exported ones: name and index.
    pub exported: Vec<(String, usize)>,
}

impl Functions {
    /// Take a module apart.
    pub fn of(module: &[u8]) -> Self {
        let sections = sections(module);
        let content =
            |id: u8| sections.iter().find(|(found, _)| *found == id).map_or(&[0_u8][..], |(_, content)| content);
        let types = types(content(TYPES));
        let imported = imported(content(IMPORTS)).into_iter().map(|(name, at)| (name, types[at].clone())).collect();
        let mut declared = Bytes(content(FUNCTIONS));
        let mut code = Bytes(content(CODE));
        let (count, bodies) = (declared.number(), code.number());
        assert_eq!(count, bodies, "a body for each function");
        let defined = (0..count).map(|_| (types[declared.number()].clone(), code.sized().to_vec())).collect();
        Self { imported, defined, exported: exported(content(EXPORTS)) }
    }

    /// The module with these bodies for its functions.
    pub fn into_module(self, module: &[u8]) -> Vec<u8> {
        let bodies: Vec<u8> = self.defined.iter().flat_map(|(_, body)| sized(body)).collect();
        let code = counted(self.defined.len() as u64, &bodies);
        let changed = sections(module).into_iter().map(|(id, content)| (id, if id == CODE { &*code } else { content }));
        with_sections(module, changed)
    }
}

fn types(content: &[u8]) -> Vec<Signature> {
    let mut bytes = Bytes(content);
    let count = bytes.number();
    let one = |bytes: &mut Bytes<'_>| {
        assert_eq!(bytes.byte(), 0x60, "a function type");
        Signature { parameters: bytes.sized().to_vec(), results: bytes.sized().to_vec() }
    };
    (0..count).map(|_| one(&mut bytes)).collect()
}

/// Names and types of imported functions; a Rust module imports nothing else.
fn imported(content: &[u8]) -> Vec<(String, usize)> {
    let mut bytes = Bytes(content);
    let count = bytes.number();
    let one = |bytes: &mut Bytes<'_>| {
        let (_module, name) = (bytes.sized(), String::from_utf8_lossy(bytes.sized()).into_owned());
        assert_eq!(bytes.byte(), FUNCTION, "an imported function");
        (name, bytes.number())
    };
    (0..count).map(|_| one(&mut bytes)).collect()
}

fn exported(content: &[u8]) -> Vec<(String, usize)> {
    let mut bytes = Bytes(content);
    let count = bytes.number();
    let one = |bytes: &mut Bytes<'_>| {
        let name = String::from_utf8_lossy(bytes.sized()).into_owned();
        (bytes.byte() == FUNCTION, name, bytes.number())
    };
    let all: Vec<_> = (0..count).map(|_| one(&mut bytes)).collect();
    all.into_iter().filter(|(function, ..)| *function).map(|(_, name, index)| (name, index)).collect()
}
