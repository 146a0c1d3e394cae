//! The shapes of plans that are killed, failed and raced: each kind of effect alone, and what is hard about several.

use super::world::{Changes, World};

/// A world to start from and the plan for it.
pub struct Shape {
    pub name: &'static str,
    pub build: fn(&World),
    pub plan: fn(&World, &mut Changes),
}

const LARGE: usize = 200 * 1024;

fn large(seed: u8) -> Vec<u8> {
    (0..LARGE).map(|at| seed.wrapping_add(u8::try_from(at % 251).expect("small"))).collect()
}

fn tree(w: &World) {
    w.file("w/src/main.rs", "fn main() { old() }");
    w.file("w/src/lib.rs", "pub fn old() {}");
    w.file("w/src/deep/old.rs", "// old");
    w.file("w/readme.md", "old");
    w.mode("w/src/main.rs", 0o755);
}

pub const SHAPES: &[Shape] = &[
    Shape {
        name: "create",
        build: |_| {},
        plan: |w, c| {
            c.write(w, "w/new.md", "hello");
        },
    },
    Shape {
        name: "overwrite",
        build: tree,
        plan: |w, c| {
            c.write(w, "w/readme.md", "new");
        },
    },
    Shape {
        name: "overwrite-same",
        build: tree,
        plan: |w, c| {
            c.write(w, "w/readme.md", "old");
        },
    },
    Shape {
        name: "delete",
        build: tree,
        plan: |w, c| {
            c.delete(w, "w/readme.md");
        },
    },
    Shape {
        name: "rename",
        build: tree,
        plan: |w, c| {
            c.rename(w, "w/readme.md", "w/src/deep/moved.md");
        },
    },
    Shape {
        name: "touch",
        build: tree,
        plan: |_, c| {
            c.touch("w/readme.md");
        },
    },
    Shape {
        name: "nested-create",
        build: |_| {},
        plan: |w, c| {
            c.mkdir("w/a").mkdir("w/a/b").mkdir("w/a/b/c").mkdir("w/a/empty");
            c.write(w, "w/a/b/c/x", "x").write(w, "w/a/y", "y");
        },
    },
    Shape {
        name: "delete-tree",
        build: tree,
        plan: |w, c| {
            c.delete(w, "w/src/main.rs").delete(w, "w/src/lib.rs").delete(w, "w/src/deep/old.rs");
            c.rmdir("w/src/deep").rmdir("w/src");
        },
    },
    Shape {
        name: "rename-symbol",
        build: tree,
        plan: |w, c| {
            c.mkdir("w/src/new");
            c.write(w, "w/src/main.rs", "fn main() { new() }").write(w, "w/src/lib.rs", "pub fn new() {}");
            c.write(w, "w/src/new/new.rs", "// new").write(w, "w/readme.md", "new");
            c.delete(w, "w/src/deep/old.rs").rmdir("w/src/deep");
        },
    },
    Shape {
        name: "rename-and-edit",
        build: tree,
        plan: |w, c| {
            c.mkdir("w/kept").rename(w, "w/src/lib.rs", "w/kept/lib.rs").touch("w/kept/lib.rs");
            c.rename(w, "w/readme.md", "w/src/lib.rs").write(w, "w/src/lib.rs", "edited after the move");
            c.write(w, "w/fresh", "fresh").touch("w/fresh");
        },
    },
    Shape {
        name: "file-becomes-directory",
        build: |w| w.file("w/thing", "a file"),
        plan: |w, c| {
            c.delete(w, "w/thing").mkdir("w/thing").write(w, "w/thing/part", "a part");
        },
    },
    Shape {
        name: "directory-becomes-file",
        build: |w| w.file("w/thing/part", "a part"),
        plan: |w, c| {
            c.delete(w, "w/thing/part").rmdir("w/thing").write(w, "w/thing", "a file");
        },
    },
    Shape {
        name: "large",
        build: |w| {
            w.file("w/big", large(1));
            w.file("w/gone", large(2));
        },
        plan: |w, c| {
            c.write(w, "w/big", large(3)).delete(w, "w/gone").write(w, "w/more", large(4));
        },
    },
    Shape {
        name: "many",
        build: |w| (0..12).for_each(|n| w.file(&format!("w/d{}/f{n}", n % 3), format!("before {n}"))),
        plan: |w, c| {
            for n in 0..12 {
                let path = format!("w/d{}/f{n}", n % 3);
                if n % 4 == 3 {
                    c.delete(w, &path);
                } else {
                    c.write(w, &path, format!("after {n}"));
                }
            }
            (0..4).for_each(|n| {
                c.write(w, &format!("w/new{n}"), "created");
            });
        },
    },
    Shape {
        name: "chain",
        build: |w| ["one", "two", "three"].iter().for_each(|name| w.file(&format!("w/{name}"), name)),
        plan: |w, c| {
            c.rename(w, "w/three", "w/four").rename(w, "w/two", "w/three").rename(w, "w/one", "w/two");
            c.write(w, "w/one", "new one").touch("w/four");
        },
    },
    Shape {
        name: "two-workspaces",
        build: |w| {
            w.file("w/here", "here");
            w.file("x/there", "there");
        },
        plan: |w, c| {
            c.write(w, "w/here", "new here").write(w, "x/there", "new there").delete(w, "w/here");
        },
    },
];

/// The shape of that name.
pub fn shape(name: &str) -> &'static Shape {
    SHAPES.iter().find(|shape| shape.name == name).unwrap_or_else(|| panic!("no shape `{name}`"))
}
