//! The author's way: new, pack, inspect.

use toolkeep_tests::support::components;
use toolkeep_tests::support::scratch::Scratch;

use super::shown::shown;
use crate::doors::running::run;

#[test]
fn a_new_crate_has_every_file_and_says_what_comes_next() {
    let home = Scratch::new();
    let output = run(home.path(), &["new", "my-tool"], "");
    insta::assert_snapshot!("new", shown(&output, home.path()));
    for file in ["Cargo.toml", "my-tool.toml", "README.md", ".gitignore", "src/lib.rs"] {
        let text = std::fs::read_to_string(home.path().join("my-tool").join(file)).expect(file);
        assert!(!text.contains("{{"), "{file}");
    }
}

#[test]
fn a_component_is_packed_and_inspected_without_a_daemon() {
    let home = Scratch::new();
    std::fs::copy(components::path("text-stats"), home.path().join("plain.wasm")).expect("the built tool");
    let packed = run(home.path(), &["tools", "pack", "plain.wasm", "--to", "packed.wasm"], "");
    assert!(packed.status.success(), "{}", shown(&packed, home.path()));
    let seen = run(home.path(), &["-o", "json", "tools", "inspect", "packed.wasm"], "");
    assert!(seen.status.success(), "{}", shown(&seen, home.path()));
    let seen: serde_json::Value = serde_json::from_slice(&seen.stdout).expect("json");
    assert_eq!(seen["problems"], serde_json::json!([]));
    assert!(seen["tools"][0]["description"]["what"].is_string(), "{seen}");
}

#[test]
fn what_is_no_component_is_a_finding() {
    let home = Scratch::new();
    home.put("not.wasm", b"\0asm nothing of the kind");
    let output = run(home.path(), &["tools", "inspect", "not.wasm"], "");
    assert_eq!(output.status.code(), Some(9), "{}", shown(&output, home.path()));
    let output = run(home.path(), &["tools", "inspect", "nowhere.wasm"], "");
    assert_eq!(output.status.code(), Some(5), "{}", shown(&output, home.path()));
}
