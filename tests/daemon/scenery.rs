//! The files and manifests that every world starts with.

use super::world::{World, component};

/// A manifest of the scenery: name, component, and what follows the head.
pub(super) type Grant = (&'static str, &'static str, &'static str);

/// Tools that do what they say.
const GOOD: &[Grant] = &[
    ("text-stats", "text-stats", "tier = 0\n"),
    ("csv-report", "csv-report", "tier = 1\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n"),
    ("rename-symbol", "rename-symbol", "tier = 1\n[[workspace]]\nname = \"src\"\naccess = \"write\"\n"),
    (
        "notes",
        "notes",
        "tier = 1\n[tiers]\nlist = 0\nsearch = 0\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n",
    ),
    (
        "held-rename",
        "rename-symbol",
        "tier = 1\nhold = [\"file.delete\", \"file.rename\"]\n[[workspace]]\nname = \"src\"\naccess = \"write\"\n",
    ),
    ("notes2", "notes", "tier = 2\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n"),
    ("notes3", "notes", "tier = 3\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n"),
];

/// Tools that do not.
const BAD: &[Grant] = &[
    ("spin", "spin", "tier = 0\n[limits]\nfuel = 50_000_000\n"),
    ("spin-long", "spin", "tier = 0\n[limits]\nfuel = 1_000_000_000_000\ndeadline_ms = 700\n"),
    ("bad-output", "bad-output", "tier = 1\n"),
    ("trap", "trap", "tier = 1\n"),
    ("exit", "exit", "tier = 1\n"),
    ("panic", "panic", "tier = 1\n"),
    ("recurse", "recurse", "tier = 1\n"),
    ("grow-memory", "grow-memory", "tier = 1\n"),
    ("giant-return", "giant-return", "tier = 1\n[limits]\noutput_bytes = 1000\n"),
    ("read-only-writer", "read-only-writer", "tier = 0\n[[workspace]]\nname = \"notes\"\naccess = \"read\"\n"),
    (
        "narrowed",
        "read-only-writer",
        "tier = 1\n[tiers]\nread-only-writer = 0\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n",
    ),
    ("writer", "read-only-writer", "tier = 1\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n"),
    ("million-files", "million-files", "tier = 1\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n"),
    ("held-files", "million-files", "tier = 2\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n"),
    ("deep-directories", "deep-directories", "tier = 1\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n"),
    ("sparse-giant", "sparse-giant", "tier = 1\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n"),
    ("path-escape", "path-escape", "tier = 1\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n"),
];

/// Write the manifest of a grant.
pub(super) fn manifest(world: &World, (name, component, rest): (&str, &str, &str)) {
    let text = format!("format = 1\nname = \"{name}\"\ncomponent = \"{component}.wasm\"\n{rest}");
    world.home.put(&format!("tools/{name}.toml"), text.as_bytes());
}

/// All of it.
pub(super) fn furnish(world: &World) {
    std::fs::create_dir(world.path("tools")).expect("tools");
    for grant in GOOD.iter().chain(BAD) {
        let to = world.path(&format!("tools/{}.wasm", grant.1));
        if !to.exists() {
            std::fs::copy(component(grant.1), to).expect("component");
        }
        manifest(world, *grant);
    }
    world.home.put("notes/inside.txt", b"mine");
    world.home.put("src/total.py", b"def old_name():\n    return 1\n");
    world.home.put("src/shop/cart.py", b"from total import old_name\nprint(old_name())\n");
    world.home.put("src/shop/old_name.py", b"# old_name lives here\n");
    world.home.put("src/unrelated.py", b"print(2)\n");
    world.home.put("books/ledger/2026-01.csv", b"date,category,amount\n2026-01-02,food,12.50\n2026-01-03,rent,700\n");
    world.home.put("books/ledger/2026-02.csv", b"date,category,amount\n2026-02-02,food,8.00\n");
}
