//! `toolkeep tools build`: from a tool crate to packed components.
//!
//! Cargo does the building; this only chooses the target, listens for what came out and packs it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::super::context::Context;
use super::super::exit::Exit;
use super::super::failure::Failure;
use super::pack;

/// The target that the contract is compiled for.
const TARGET: &str = "wasm32-wasip2";

/// Build the crate in `directory` and pack its components.
pub(super) fn run(context: &Context<'_>, directory: &Path) -> Result<Exit, Failure> {
    let components = cargo(directory)?;
    if components.is_empty() {
        return Err(Failure::usage(
            format!("the crate in `{}` gives no component", directory.display()),
            "a tool crate has `crate-type = [\"cdylib\"]`; `toolkeep new NAME` makes one",
        ));
    }
    let mut built = Vec::new();
    for component in &components {
        let packed = pack::pack(component, None, component)?;
        context.ui.note(&format!("packed {}", packed.tools.join(", ")));
        built.push(
            json!({"file": packed.file, "component": packed.component, "bytes": packed.bytes, "tools": packed.tools}),
        );
    }
    let whole = Value::Array(built);
    context.ui.value(&whole, || components.iter().map(|path| format!("{}\n", path.display())).collect())?;
    Ok(Exit::Ok)
}

#[expect(clippy::disallowed_methods, reason = "the author asked for a build; the daemon never comes here")]
fn cargo(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut child = Command::new("cargo")
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .current_dir(directory)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Failure::Other(format!("`cargo` cannot be started: {error}; install Rust from https://rustup.rs"))
        })?;
    let mut components = Vec::new();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.map_err(Failure::file("read", "cargo's output"))?;
            components.extend(artifacts(&line));
        }
    }
    let status = child.wait().map_err(|error| Failure::Other(format!("`cargo` was lost: {error}")))?;
    if status.success() {
        return Ok(components);
    }
    Err(Failure::Other(format!(
        "`cargo build` failed ({status}); if the target is missing: `rustup target add {TARGET}`"
    )))
}

/// The components that one message of cargo tells of.
fn artifacts(line: &str) -> Vec<PathBuf> {
    let Ok(message) = serde_json::from_str::<Value>(line) else { return Vec::new() };
    if message.get("reason").and_then(Value::as_str) != Some("compiler-artifact") {
        return Vec::new();
    }
    let files = message.get("filenames").and_then(Value::as_array).into_iter().flatten();
    files.filter_map(Value::as_str).filter(|file| file.ends_with(".wasm")).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_components_among_the_artifacts_are_taken() {
        let message = r#"{"reason":"compiler-artifact","filenames":["/t/a.wasm","/t/liba.rlib"]}"#;
        assert_eq!(artifacts(message), [PathBuf::from("/t/a.wasm")]);
        assert!(artifacts(r#"{"reason":"build-finished","success":true}"#).is_empty());
        assert!(artifacts("not json").is_empty());
    }
}
