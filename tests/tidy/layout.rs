//! Where files may stand and what they may be called.

use std::collections::BTreeSet;

use super::repository::Repository;

/// What may stand at the root, besides names that begin with a dot.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "host",
    "wit",
    "guest-sdk",
    "sample-tools",
    "tests",
    "benches",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "Makefile",
    "docs",
    "deploy",
    "clients",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "utility", "utilities", "helper", "helpers", "common", "misc", "shared", "stuff"];

/// Only known names stand at the root.
pub(super) fn top_level(repository: &Repository) -> Vec<String> {
    let names: BTreeSet<&str> = repository.files().filter_map(|(path, _)| path.split('/').next()).collect();
    names
        .into_iter()
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(name))
        .map(|name| format!("{name}: not a name for the top level; see `TOP_LEVEL` in tests/tidy/layout.rs"))
        .collect()
}

/// No `mod.rs`, and no file or directory whose name says nothing.
pub(super) fn names(repository: &Repository) -> Vec<String> {
    let mut found = Vec::new();
    for (path, _) in repository.rust("") {
        if path.ends_with("/mod.rs") {
            found.push(format!("{path}: write `foo.rs` beside `foo/` instead of `foo/mod.rs`"));
        }
        for part in path.trim_end_matches(".rs").split('/') {
            if part.split('_').any(|word| EMPTY_NAMES.contains(&word)) {
                found.push(format!("{path}: `{part}` says nothing about what is inside"));
            }
        }
    }
    found
}

/// Roots of crates, which nobody declares.
const ROOTS: &[&str] = &["lib", "main", "runner", "build"];

/// Every source file is declared by a `mod` line in its parent, or by a target in a Cargo.toml.
pub(super) fn no_forgotten_file(repository: &Repository) -> Vec<String> {
    let manifests: Vec<(&str, &str)> = repository.files().filter(|(path, _)| path.ends_with("Cargo.toml")).collect();
    let mut found = Vec::new();
    for (path, _) in repository.rust("") {
        let Some((directory, name)) = path.trim_end_matches(".rs").rsplit_once('/') else { continue };
        if ROOTS.contains(&name) || is_target(path, &manifests) {
            continue;
        }
        let mut parents = vec![format!("{directory}.rs")];
        parents.extend(ROOTS.iter().map(|root| format!("{directory}/{root}.rs")));
        let declared = parents.iter().any(|parent| declares(repository.text(parent), name));
        if !declared {
            found.push(format!("{path}: nothing says `mod {name};`, so it is never compiled"));
        }
    }
    found
}

fn declares(parent: &str, name: &str) -> bool {
    let wanted = format!("mod {name};");
    parent.lines().any(|line| {
        let line = line.trim();
        line.strip_suffix(&wanted).is_some_and(|visibility| {
            visibility.is_empty() || visibility.starts_with("pub") && visibility.ends_with(' ')
        })
    })
}

/// Files that Cargo compiles by their place (`<crate>/tests/x.rs`, `<crate>/examples/x.rs`) or by a `path` of a target.
fn is_target(path: &str, manifests: &[(&str, &str)]) -> bool {
    manifests.iter().any(|(manifest, text)| {
        let home = manifest.trim_end_matches("Cargo.toml");
        let Some(relative) = path.strip_prefix(home) else { return false };
        let by_path = text.contains(&format!("path = \"{relative}\""));
        let by_place = ["tests/", "examples/", "src/bin/"].iter().any(|place| {
            relative.strip_prefix(place).is_some_and(|name| !name.contains('/')) && !text.contains("autotests = false")
        });
        // Golden cases of compile errors are read by their runner, not compiled as a module.
        by_path || by_place || relative.starts_with("tests/fail/") || relative.starts_with("tests/ui/")
    })
}
