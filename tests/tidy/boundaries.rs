//! Who may use what: crates of each other, files of crates, stages of each other.

use toml::Table;

use super::repository::Repository;
use super::source::{code, is_test, lines_with, names_path, shipped};

/// For each crate, the crates of this repository that it may depend on.
const OURS: &[(&str, &[&str])] = &[
    ("host/core", &[]),
    ("host/sandbox", &["toolkeep-core"]),
    ("host", &["toolkeep-core", "toolkeep-sandbox"]),
    ("guest-sdk", &["toolkeep-sdk-macro"]),
    ("guest-sdk/macro", &[]),
    ("tests", &["toolkeep", "toolkeep-core", "toolkeep-sandbox"]),
    ("benches", &["toolkeep", "toolkeep-core", "toolkeep-sandbox"]),
];

/// For crates from elsewhere that have an owner, the crates that may depend on them.
const OWNED: &[(&str, &[&str])] = &[
    ("wasmtime", &["host/sandbox", "benches"]),
    ("wasmtime-wasi", &["host/sandbox", "benches"]),
    ("wasmtime-wasi-io", &["host/sandbox", "benches"]),
    ("rusqlite", &["host", "benches"]),
    ("anyhow", &["host"]),
    ("cedar-policy", &["host"]),
    ("clap", &["host"]),
    ("wit-bindgen", &["guest-sdk"]),
];

/// Crates by which code would reach out of the pure core.
const IMPURE: &[&str] = &[
    "tokio",
    "wasmtime",
    "wasmtime-wasi",
    "rusqlite",
    "rustix",
    "cap-std",
    "getrandom",
    "rand",
    "jiff",
    "tracing",
    "libc",
    "nix",
];

fn dependencies(manifest: &str) -> Vec<String> {
    let table: Table = manifest.parse().unwrap_or_default();
    let mut names = Vec::new();
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = table.get("target").and_then(|t| t.as_table()).into_iter().flat_map(|t| t.values());
    for holder in targets.filter_map(|t| t.as_table()).chain([&table]) {
        for section in sections {
            let entries = holder.get(section).and_then(|d| d.as_table());
            names.extend(entries.into_iter().flat_map(|d| d.keys().cloned()));
        }
    }
    names
}

/// `core` sees nothing, `sandbox` sees `core`, `host` sees both; the SDK sees only the contract; owned crates have owners.
pub(super) fn crate_dependencies(repository: &Repository) -> Vec<String> {
    let mut found = Vec::new();
    for (home, allowed) in OURS {
        let manifest = format!("{home}/Cargo.toml");
        for name in dependencies(repository.text(&manifest)) {
            if name.starts_with("toolkeep") && !allowed.contains(&name.as_str()) {
                found.push(format!("{manifest}: `{home}` must not depend on `{name}`"));
            }
            if *home == "host/core" && IMPURE.contains(&name.as_str()) {
                found.push(format!("{manifest}: `{name}` reaches out of the pure core"));
            }
            let owners = OWNED.iter().find(|(owned, _)| *owned == name).map(|(_, owners)| *owners);
            if owners.is_some_and(|owners| !owners.contains(home)) {
                found.push(format!("{manifest}: `{name}` belongs to {owners:?}"));
            }
        }
    }
    found
}

/// For path prefixes in code, the files that may write them: prefixes of their paths.
const NAMED: &[(&str, &[&str])] = &[
    ("wasmtime", &["host/sandbox/src/", "benches/"]),
    ("wasmtime_wasi", &["host/sandbox/src/", "benches/"]),
    ("wasmtime_wasi_io", &["host/sandbox/src/", "benches/"]),
    ("rusqlite", &["host/src/ledger.rs", "host/src/ledger/", "benches/"]),
    ("anyhow", &["host/src/main.rs"]),
    ("cedar_policy", &["host/src/policy.rs", "host/src/policy/"]),
    ("clap", &["host/src/main.rs", "host/src/cli.rs", "host/src/cli/"]),
    ("hyper::client", &["host/src/egress/", "tests/", "benches/"]),
    ("tokio_rustls", &["host/src/egress", "host/src/daemon/http/tls", "tests/", "benches/"]),
    ("webpki_roots", &["host/src/egress/tls.rs"]),
    ("ring", &["host/src/authenticate/", "host/src/egress", "host/src/vault", "tests/"]),
    ("curve25519_dalek", &["host/src/vault"]),
];

/// Only `sandbox` names wasmtime, only `ledger/` rusqlite, only the binary's `main` anyhow, only the CLI clap.
pub(super) fn crates_named(repository: &Repository) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in repository.rust("") {
        if path.starts_with("sample-tools/") || path.starts_with("tests/tidy/") {
            continue;
        }
        let code = code(text);
        for (name, owners) in NAMED {
            if owners.iter().any(|owner| path.starts_with(owner)) {
                continue;
            }
            let used = |line: &str| names_path(line, &format!("{name}::")) || names_path(line, &format!("use {name}"));
            let used =
                |line: &str| used(line) || line.contains(&format!(" {name}::")) || line.contains(&format!("({name}::"));
            found.extend(
                lines_with(path, &code, used).map(|line| format!("{line} names `{name}`, which belongs to {owners:?}")),
            );
        }
    }
    found
}

/// Paths that read or change the world outside of the process, and the files of the host crate that may name them.
const AMBIENT: &[(&str, &[&str])] = &[
    ("SystemTime::now", &["host/src/ambient.rs"]),
    ("Instant::now", &["host/src/ambient.rs"]),
    ("getrandom", &["host/src/ambient.rs"]),
    ("env::var", &["host/src/ambient.rs"]),
    ("env::var_os", &["host/src/ambient.rs"]),
    ("env::vars", &["host/src/ambient.rs"]),
    ("env::vars_os", &["host/src/ambient.rs"]),
    ("env::set_var", &[]),
    ("env::remove_var", &[]),
    // Arguments, the program's own path and the place for temporary files.
    ("std::env", &["host/src/ambient.rs", "host/src/main.rs", "host/src/cli", "host/src/host/life.rs"]),
    ("std::process::Command", &[]),
    ("std::net", &["host/src/egress", "host/src/daemon"]),
    ("tokio::net", &["host/src/egress", "host/src/daemon", "host/src/cli"]),
    (
        "std::fs",
        &[
            "host/src/config",
            "host/src/catalog",
            "host/src/budget/contracts.rs",
            "host/src/policy/source.rs",
            "host/src/load.rs",
            "host/src/spool.rs",
            "host/src/install.rs",
            "host/src/host/life.rs",
            "host/src/kill/file.rs",
            "host/src/daemon/socket.rs",
            "host/src/ledger",
            "host/src/blobs",
            "host/src/artifacts",
            "host/src/commit",
            "host/src/keys",
            "host/src/secrets",
            // The operator's files of issuers' keys.
            "host/src/authenticate/issuer.rs",
            // The operator's authorities, and the door's own certificate.
            "host/src/egress/tls.rs",
            "host/src/daemon/http/tls.rs",
            "host/src/cli",
            "host/src/main.rs",
        ],
    ),
];

/// Modules of the standard library that the pure core may not name.
const IMPURE_STD: &[&str] =
    &["std::fs", "std::net", "std::env", "std::process", "std::thread", "std::io", "SystemTime", "Instant::now"];

/// Only `ambient.rs` reads clock, randomness and environment; the core does no I/O at all.
pub(super) fn ambient_authority(repository: &Repository) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in repository.rust("host/src/").filter(|(path, _)| !is_test(path)) {
        let code = code(shipped(text));
        for (name, owners) in AMBIENT {
            if !owners.iter().any(|owner| path.starts_with(owner)) {
                // Tokio's clock only says how long to wait; nothing is decided or recorded by it.
                let wall = |line: &str| names_path(&line.replace("tokio::time::Instant::now", ""), name);
                let used = lines_with(path, &code, wall);
                found.extend(used.map(|line| format!("{line} names `{name}`; allowed in {owners:?}")));
            }
        }
    }
    for (path, text) in repository.rust("host/core/src/").filter(|(path, _)| !is_test(path)) {
        let code = code(shipped(text));
        for name in IMPURE_STD {
            let used = lines_with(path, &code, |line| names_path(line, name));
            found.extend(used.map(|line| format!("{line} names `{name}`: the core is pure")));
        }
    }
    found
}

/// The stages in the order of the path. `record` is opened before the first and closed after the last.
const STAGES: &[&str] = &[
    "authenticate",
    "validate",
    "authorize",
    "admit",
    "execute",
    "screen",
    "seal",
    "decide",
    "approve",
    "commit",
    "record",
];

/// A stage may name the proof types of stages before it, which it consumes; it never runs another stage. `record` is no
/// step of the path but around it, so every stage may use it. Functions of stages are called by `call.rs` and by what it is made of (`host.rs`, `host/`).
pub(super) fn stages(repository: &Repository) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in repository.rust("host/src/").filter(|(path, _)| !is_test(path)) {
        let Some(own) = path.trim_start_matches("host/src/").split(['/', '.']).next() else { continue };
        let Some(place) = STAGES.iter().position(|stage| *stage == own) else { continue };
        let code = code(shipped(text));
        let grouped = lines_with(path, &code, |line| line.contains("crate::{"));
        found.extend(grouped.map(|line| format!("{line} hides what a stage imports; one `use` for each module")));
        for (at, stage) in STAGES.iter().enumerate().filter(|(_, stage)| **stage != own && **stage != "record") {
            let wanted = format!("crate::{stage}");
            for line in lines_with(path, &code, |line| names_path(line, &wanted)) {
                let rest = line.split_once(&wanted).map_or("", |(_, rest)| rest);
                if !types_only(rest) {
                    found.push(format!("{line} runs the stage `{stage}`; only call.rs does"));
                } else if at > place {
                    found.push(format!("{line} knows `{stage}`, which comes later than `{own}`"));
                }
            }
        }
    }
    found
}

/// Whether what follows `crate::stage` names types only: `::Proof`, `::{Proof, Other}`.
fn types_only(rest: &str) -> bool {
    let Some(names) = rest.strip_prefix("::") else { return false };
    let list = names.strip_prefix('{').map_or(names, |list| list.split('}').next().unwrap_or(list));
    let first = |name: &str| name.trim().chars().next().is_some_and(char::is_uppercase);
    if names.starts_with('{') {
        list.split(',').filter(|name| !name.trim().is_empty()).all(first)
    } else {
        first(names)
    }
}

/// Words of wire formats and terminals, and the files of the host crate that may know them.
const WIRE: &[(&str, &[&str])] = &[
    ("jsonrpc", &["host/src/daemon", "host/src/cli"]),
    ("is_terminal", &["host/src/daemon", "host/src/cli", "host/src/main.rs"]),
    ("ExitCode", &["host/src/cli", "host/src/main.rs"]),
    // What the operator's programs for secrets and checkpoints print.
    ("stdout", &["host/src/cli", "host/src/main.rs", "host/src/secrets/source.rs", "host/src/checkpoints.rs"]),
    ("comfy_table", &["host/src/cli"]),
    ("indicatif", &["host/src/cli"]),
];

/// Only `daemon/` and `cli/` know JSON-RPC, exit codes and terminals.
pub(super) fn wire_words(repository: &Repository) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in repository.rust("host/src/").filter(|(path, _)| !is_test(path)) {
        // Wire words are spelled in literals, so only comments are left out.
        let plain: String = shipped(text)
            .lines()
            .map(|line| if line.trim_start().starts_with("//") { "\n".to_owned() } else { format!("{line}\n") })
            .collect();
        for (word, owners) in WIRE {
            if !owners.iter().any(|owner| path.starts_with(owner)) {
                let used = lines_with(path, &plain, |line| names_path(line, word));
                found.extend(used.map(|line| format!("{line} knows `{word}`; allowed in {owners:?}")));
            }
        }
    }
    found
}
