//! `toolkeep tools pack`: descriptions into the component.
//!
//! On the author's machine, and only there, the component is run once: its `describe`, in a sandbox without any grant.
//! What it answers is checked and written into a section of the file, so that nobody else has to run it to see what
//! it offers. A component of another toolchain need not describe itself: then the author writes the same JSON as a file.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;
use toolkeep_core::descriptor::{Descriptors, SECTION_MAX_BYTES};
use toolkeep_core::digest::Digest;
use toolkeep_core::json;
use toolkeep_sandbox::prescreen::prescreen;
use toolkeep_sandbox::{component, describe};

use super::super::context::Context;
use super::super::exit::Exit;
use super::super::failure::Failure;

/// Largest component that is read, in bytes: more than the sandbox accepts, so that its own message is seen.
const FILE_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Pack `path`, in place or to another file.
pub(super) fn run(
    context: &Context<'_>,
    path: &Path,
    descriptors: Option<&Path>,
    to: Option<&Path>,
) -> Result<Exit, Failure> {
    let packed = pack(path, descriptors, to.unwrap_or(path))?;
    let value =
        json!({"file": packed.file, "component": packed.component, "bytes": packed.bytes, "tools": packed.tools});
    context.ui.value(&value, || {
        format!("{}: {} ({} bytes, {})", packed.file.display(), packed.tools.join(", "), packed.bytes, packed.component)
    })?;
    Ok(Exit::Ok)
}

/// What was written.
pub(super) struct Packed {
    pub(super) file: PathBuf,
    pub(super) component: Digest,
    pub(super) bytes: usize,
    pub(super) tools: Vec<String>,
}

/// Ask the component for its descriptions, or take them from a file, and write them into `to`.
pub(super) fn pack(path: &Path, descriptors: Option<&Path>, to: &Path) -> Result<Packed, Failure> {
    let wasm = read_component(path)?;
    let refused = |problem: String| Failure::Findings(format!("`{}` cannot be packed: {problem}", path.display()));
    let text = match descriptors {
        Some(file) => {
            prescreen(&wasm).map_err(|error| refused(error.to_string()))?;
            read_descriptors(file)?
        }
        None => described(&wasm, &refused)?,
    };
    let descriptors: Descriptors = json::parse_typed(text.as_bytes()).map_err(|error| refused(error.to_string()))?;
    descriptors.check().map_err(|error| refused(error.to_string()))?;
    let packed = component::pack(&wasm, &text).map_err(|error| refused(error.to_string()))?;
    replace(to, &packed)?;
    Ok(Packed {
        file: to.to_path_buf(),
        component: Digest::of(&packed),
        bytes: packed.len(),
        tools: descriptors.tools.iter().map(|tool| tool.name.to_string()).collect(),
    })
}

/// What the component says, run in an empty sandbox.
fn described(wasm: &[u8], refused: &impl Fn(String) -> Failure) -> Result<String, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("the sandbox cannot start: {error}")))?;
    runtime.block_on(describe::describe(wasm)).map_err(|error| refused(error.to_string()))
}

/// What the author wrote, without the blanks between.
fn read_descriptors(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(SECTION_MAX_BYTES as u64 + 1).read_to_string(&mut text))
        .map_err(Failure::file("read", file))?;
    let wrong = |error: String| Failure::Findings(format!("`{}` does not describe tools: {error}", file.display()));
    if text.len() > SECTION_MAX_BYTES {
        return Err(wrong(format!("it has more than {SECTION_MAX_BYTES} bytes")));
    }
    json::parse(text.as_bytes()).map(|value| value.to_string()).map_err(|error| wrong(error.to_string()))
}

/// A component file as bytes.
pub(super) fn read_component(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut wasm = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut wasm))
        .map_err(Failure::file("read", path))?;
    Ok(wasm)
}

/// Write beside and rename, so that an interrupted pack leaves the old file.
fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".packing");
    let beside = path.with_file_name(name);
    let written = std::fs::File::create(&beside)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, path));
    written.map_err(Failure::file("write", path))
}
