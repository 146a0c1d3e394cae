//! Sizes, documentation of modules, and what must not be left behind.

use super::repository::Repository;
use super::source::{code, functions, is_test, lines_with};

/// Most lines of a file: what a reader keeps in mind.
const FILE_LINES: usize = 600;
/// Most lines of a function: two screens.
const FUNCTION_LINES: usize = 80;
/// Lines of a module's documentation where the module is shipped with the daemon: enough for a why, short of an essay.
const DOC_LINES: std::ops::RangeInclusive<usize> = 1..=25;

/// Files have at most 600 lines, functions 80.
pub(super) fn sizes(repository: &Repository) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in repository.rust("") {
        let lines = text.lines().count();
        if lines > FILE_LINES {
            found.push(format!("{path}: {lines} lines; at most {FILE_LINES}"));
        }
        for (name, line, length) in functions(&code(text)) {
            if length > FUNCTION_LINES {
                found.push(format!("{path}:{line}: `{name}` has {length} lines; at most {FUNCTION_LINES}"));
            }
        }
    }
    found
}

/// Every file begins with `//!`.
pub(super) fn module_docs(repository: &Repository) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in repository.rust("") {
        let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
        let placeholder = text.starts_with("//! placeholder");
        if lines == 0 || placeholder {
            found.push(format!("{path}: begin with `//!` and say why the file exists"));
        } else if path.starts_with("host/") && !is_test(path) && !DOC_LINES.contains(&lines) {
            found.push(format!("{path}: {lines} lines of module documentation; at most 25"));
        }
    }
    found
}

/// Files that write code for others: an `expect` in generated code would be unfulfilled wherever the lint is silent.
const GENERATORS: &[&str] = &["guest-sdk/macro/src/expand.rs"];

/// Nothing is put off, and no lint is silenced without a reason.
pub(super) fn hygiene(repository: &Repository) -> Vec<String> {
    let later = ["TODO", "FIXME", "XXX", "HACK"];
    let mut found = Vec::new();
    for (path, text) in repository.rust("") {
        // This directory has to spell the words.
        if path.starts_with("tests/tidy/") {
            continue;
        }
        let put_off = |line: &str| line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| later.contains(&word));
        found.extend(lines_with(path, text, put_off).map(|line| format!("{line} puts something off")));
        let code = code(text);
        let allows = |line: &str| line.contains("#[allow(") || line.contains("#![allow(");
        let allows = |line: &str| allows(line) && !GENERATORS.contains(&path);
        found.extend(lines_with(path, &code, allows).map(|line| format!("{line} is not `#[expect(…, reason = …)]`")));
        found.extend(unreasoned(&code).map(|line| format!("{path}:{line}: `#[expect]` without a reason")));
    }
    found
}

/// Lines of `#[expect(…)]` attributes without `reason`.
fn unreasoned(code: &str) -> impl Iterator<Item = usize> {
    code.match_indices("[expect(").filter_map(move |(at, _)| {
        let attribute = code.get(at..)?.split(")]").next()?;
        let line = code.get(..at)?.lines().count();
        (!attribute.contains("reason")).then_some(line)
    })
}

/// Methods that the daemon's crates may not call without saying why.
const DISALLOWED: &[&str] = &[
    "std::time::SystemTime::now",
    "std::env::var",
    "std::env::var_os",
    "std::env::vars",
    "std::env::vars_os",
    "std::env::set_var",
    "std::env::remove_var",
    "std::process::Command::new",
    "tokio::process::Command::new",
    "std::thread::sleep",
];

/// Clippy's list of disallowed methods is there, each with a reason, and both configurations agree in the rest.
pub(super) fn disallowed_methods(repository: &Repository) -> Vec<String> {
    let path = "host/.clippy.toml";
    let strict = repository.text(path);
    let mut found: Vec<String> = DISALLOWED
        .iter()
        .filter(|method| {
            let entry = format!("path = \"{method}\", reason = \"");
            !strict.lines().any(|line| line.contains(&entry))
        })
        .map(|method| format!("{path}: `{method}` is not disallowed with a reason"))
        .collect();
    let settings = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.starts_with("allow-") || line.starts_with("too-many-"))
            .map(str::to_owned)
            .collect()
    };
    if settings(strict) != settings(repository.text(".clippy.toml")) {
        found.push(format!("{path}: its `allow-…` and `too-many-…` lines differ from those of .clippy.toml"));
    }
    found
}
