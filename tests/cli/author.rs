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
fn a_new_tool_in_another_language_is_the_sample_tool_with_its_contract() {
    let home = Scratch::new();
    for (lang, code, contract) in [("python", "tool.py", "wit"), ("js", "tool.js", "wit/deps/toolkeep-tool")] {
        let output = run(home.path(), &["new", "--lang", lang, lang], "");
        assert!(output.status.success(), "{}", shown(&output, home.path()));
        let new = home.path().join(lang);
        let same = |file: &str, source: &str| {
            let written = std::fs::read(new.join(file)).expect(file);
            assert_eq!(written, std::fs::read(components::repository().join(source)).expect(source), "{file}");
        };
        same(code, &format!("sample-tools/{lang}/lines/{code}"));
        same("tools.json", &format!("sample-tools/{lang}/lines/tools.json"));
        for part in std::fs::read_dir(components::repository().join("wit")).expect("wit") {
            let part = part.expect("an entry").file_name().into_string().expect("a name");
            if part.ends_with(".wit") {
                same(&format!("{contract}/{part}"), &format!("wit/{part}"));
            }
        }
        let manifest = std::fs::read_to_string(new.join(format!("{lang}.toml"))).expect("a manifest");
        assert!(manifest.contains("component = \"tool.wasm\""), "{manifest}");
        let readme = std::fs::read_to_string(new.join("README.md")).expect("a README");
        assert!(readme.contains("toolkeep tools pack tool.wasm --descriptors tools.json"), "{readme}");
    }
}

#[test]
fn descriptions_from_a_file_are_checked_and_run_nothing() {
    let home = Scratch::new();
    // It would never describe itself: it spins.
    std::fs::copy(components::path("spin"), home.path().join("plain.wasm")).expect("the built tool");
    let samples = components::repository().join("sample-tools/python/lines/tools.json");
    std::fs::copy(&samples, home.path().join("tools.json")).expect("the sample");
    let pack =
        |file: &str| run(home.path(), &["tools", "pack", "plain.wasm", "--descriptors", file, "--to", "p.wasm"], "");
    let packed = pack("tools.json");
    assert!(packed.status.success(), "{}", shown(&packed, home.path()));
    let seen = run(home.path(), &["-o", "json", "tools", "inspect", "p.wasm"], "");
    let seen: serde_json::Value = serde_json::from_slice(&seen.stdout).expect("json");
    assert_eq!((&seen["tools"][1]["name"], &seen["problems"]), (&"append-line".into(), &serde_json::json!([])));
    let text = std::fs::read_to_string(&samples).expect("the sample");
    home.put("two.json", text.replace("\"format\": 1", "\"format\": 2").as_bytes());
    home.put("twice.json", text.replace("append-line", "count-lines").as_bytes());
    home.put("unknown.json", text.replacen("\"title\"", "\"titel\"", 1).as_bytes());
    home.put("not.json", b"{");
    home.put("long.json", &vec![b' '; 1024 * 1024 + 1]);
    for wrong in ["two.json", "twice.json", "unknown.json", "not.json", "long.json"] {
        let refused = pack(wrong);
        assert_eq!(refused.status.code(), Some(9), "{wrong}: {}", shown(&refused, home.path()));
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
