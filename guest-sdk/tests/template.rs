//! The scaffold of `toolkeep new`, compiled and tested as it is written.
//!
//! Its placeholders stand in comments only, so the source is Rust before they are filled in. That a whole
//! scaffolded crate builds is tested with the command that makes one.

#[path = "../template/src-lib.rs.in"]
pub mod scaffold;

/// The other files of the scaffold, with what is allowed to stand in double braces.
const FILES: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("../template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("../template/src-lib.rs.in")),
    ("README.md", include_str!("../template/README.md.in")),
    (".gitignore", include_str!("../template/gitignore.in")),
];

#[test]
fn the_scaffold_has_no_other_placeholders_than_name_and_sdk() {
    for (file, text) in FILES {
        let filled = text.replace("{{name}}", "my-tools").replace("{{sdk}}", "../sdk");
        assert!(!filled.contains("{{"), "{file}");
    }
}

#[test]
fn the_scaffold_names_its_crate_and_the_sdk() {
    assert!(FILES[0].1.contains("name = \"{{name}}\""));
    assert!(FILES[0].1.contains("toolkeep-sdk = { path = \"{{sdk}}\" }"));
}
