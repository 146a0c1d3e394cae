//! Documents that must keep up with the code: the map, the error codes, the hostile tools.

use std::collections::BTreeSet;

use toolkeep_core::refusal::Code;

use super::repository::Repository;

/// Every directory in `sample-tools/hostile/` is named, as a string, by a test of the host.
pub(super) fn hostile_tools_have_tests(repository: &Repository) -> Vec<String> {
    let tools: BTreeSet<&str> = repository
        .files()
        .filter_map(|(path, _)| path.strip_prefix("sample-tools/hostile/")?.split_once('/').map(|(tool, _)| tool))
        .collect();
    tools
        .into_iter()
        .filter(|tool| {
            let literal = format!("\"{tool}\"");
            !repository.rust("tests/").any(|(path, text)| !path.starts_with("tests/tidy") && text.contains(&literal))
        })
        .map(|tool| format!("sample-tools/hostile/{tool}: no test under tests/ names \"{tool}\""))
        .collect()
}

/// `docs/errors.md` has one section and one true row for each code, and none for others.
pub(super) fn error_codes(repository: &Repository) -> Vec<String> {
    let path = "docs/errors.md";
    let headings: Vec<&str> =
        repository.text(path).lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`')).collect();
    let words: Vec<&str> = Code::ALL.iter().map(|code| code.word()).collect();
    let missing = words.iter().filter(|word| headings.iter().filter(|h| h == word).count() != 1);
    let unknown = headings.iter().filter(|heading| !words.contains(heading));
    let text = repository.text(path);
    let rows = Code::ALL.iter().map(|code| {
        let (word, retryable) = (code.word(), if code.retryable() { "yes" } else { "no" });
        format!("| [`{word}`](#{word}) | {retryable} | {} | {} |", code.rpc(), code.exit())
    });
    let rows = rows.filter(|row| !text.lines().any(|line| line == row));
    missing
        .map(|word| format!("{path}: write exactly one section \"## `{word}`\""))
        .chain(unknown.map(|heading| format!("{path}: there is no code `{heading}`")))
        .chain(rows.map(|row| format!("{path}: write the row \"{row}\"")))
        .collect()
}

/// `host/ARCHITECTURE.md` lists every source file below `host/` exactly once, as `` `src/call.rs` ``.
pub(super) fn architecture_map(repository: &Repository) -> Vec<String> {
    let path = "host/ARCHITECTURE.md";
    if !repository.has(path) {
        return vec![format!("{path}: missing")];
    }
    let text = repository.text(path);
    let listed: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|word| is_source(word)).collect();
    let files: Vec<&str> = repository.rust("host/").filter_map(|(path, _)| path.strip_prefix("host/")).collect();
    let mut found = Vec::new();
    for file in &files {
        match listed.iter().filter(|word| *word == file).count() {
            1 => {}
            0 => found.push(format!("{path}: does not list `{file}`")),
            n => found.push(format!("{path}: lists `{file}` {n} times")),
        }
    }
    found.extend(
        listed.iter().filter(|word| !files.contains(word)).map(|word| format!("{path}: there is no file `{word}`")),
    );
    found
}

/// Whether a word in backticks is a path of a source file: with a directory, for prose may say `call.rs`.
fn is_source(word: &str) -> bool {
    word.ends_with(".rs") && ["src/", "core/src/", "sandbox/src/"].iter().any(|head| word.starts_with(head))
}
