//! Installing a tool: a manifest and its component are checked where they lie, then copied into the manifests folder.
//!
//! The component is copied under its digest, so that installing a new version never changes the file that the old
//! manifest means; the manifest is written last and atomically, so that the folder never names a component that is not
//! there. What is installed is pinned: the written manifest carries the component's digest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use toolkeep_core::digest::Digest;
use toolkeep_core::id::ToolName;
use toolkeep_core::refusal::{Code, Refusal};

use crate::catalog::{ComponentFile, Tool, Unusable, read_manifest};

/// What was installed.
#[derive(Debug)]
pub struct Installed {
    file: PathBuf,
    tools: Vec<Arc<Tool>>,
}

impl Installed {
    /// The manifest in the folder.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The tools that it gives.
    #[must_use]
    pub fn names(&self) -> Vec<ToolName> {
        self.tools.iter().map(|tool| tool.name.clone()).collect()
    }

    /// The component's digest.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.tools.first().map(|tool| tool.component.digest)
    }

    /// The components to compile.
    pub fn components(&self) -> impl Iterator<Item = &ComponentFile> {
        self.tools.first().map(|tool| &*tool.component).into_iter()
    }
}

/// Check a manifest and copy it with its component into `folder`.
///
/// # Errors
/// `invalid_input`: the manifest or what it names is refused. `internal`: the folder cannot be written.
pub fn install(folder: &Path, source: &Path) -> Result<Installed, Refusal> {
    let refused = |error: Unusable| {
        Refusal::new(Code::InvalidInput, format!("the manifest is refused: {error}"))
            .hint("correct it and install again")
    };
    let tools = read_manifest(source).map_err(refused)?;
    let Some(tool) = tools.first() else {
        return Err(Refusal::new(Code::InvalidInput, "the component gives no tool"));
    };
    let digest = tool.component.digest;
    let name = tool.manifest.name.clone();
    let failed = |what: &str, error: &std::io::Error| {
        tracing::error!(%error, "{what} could not be written");
        Refusal::new(Code::Internal, format!("{what} could not be written into the manifests folder"))
    };
    std::fs::create_dir_all(folder).map_err(|e| failed("the folder", &e))?;
    let component = format!("{digest}.wasm");
    let wasm = std::fs::read(&tool.component.path).map_err(|e| failed("the component", &e))?;
    if Digest::of(&wasm) != digest {
        return Err(
            Refusal::new(Code::InvalidInput, "the component changed while it was installed").hint("install again")
        );
    }
    write_whole(&folder.join(&component), &wasm).map_err(|e| failed("the component", &e))?;
    let text = std::fs::read_to_string(source).map_err(|e| failed("the manifest", &e))?;
    let text = pinned(&text, &component, digest)
        .map_err(|e| Refusal::new(Code::InvalidInput, format!("the manifest is refused: {e}")))?;
    let file = folder.join(format!("{name}.toml"));
    write_whole(&file, text.as_bytes()).map_err(|e| failed("the manifest", &e))?;
    let tools = read_manifest(&file).map_err(refused)?;
    Ok(Installed { file, tools })
}

/// The manifest with the component's new place and its digest.
fn pinned(text: &str, component: &str, digest: Digest) -> Result<String, toml::de::Error> {
    let mut table: toml::Table = toml::from_str(text)?;
    table.insert("component".to_owned(), toml::Value::String(component.to_owned()));
    table.insert("sha256".to_owned(), toml::Value::String(digest.to_hex()));
    Ok(table.to_string())
}

/// Write a file so that readers see the old content or the new one, never a part.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("part");
    std::fs::write(&temporary, bytes)?;
    std::fs::File::open(&temporary)?.sync_all()?;
    std::fs::rename(&temporary, path)
}
