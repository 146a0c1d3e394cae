//! Installing a tool: a manifest and its component are checked where they lie, then copied into the manifests folder.
//!
//! The component is copied under its digest, so that installing a new version never changes the file that the old
//! manifest means; the manifest is written last and atomically, so that the folder never names a component that is not
//! there. What is installed is pinned: the written manifest carries the component's digest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toolkeep_core::digest::Digest;
use toolkeep_core::id::ToolName;
use toolkeep_core::refusal::{Code, Refusal};

use crate::catalog::{ComponentFile, Tool, manifest_text, read_manifest};

/// A manifest that was read and found good where it lies. Nothing was changed yet.
#[derive(Debug)]
pub struct Candidate {
    source: PathBuf,
    file: PathBuf,
    tools: Vec<Arc<Tool>>,
    /// The manifest as it will be written.
    placed: String,
}

impl Candidate {
    /// Read a manifest and everything that it names, to be installed into `folder`.
    ///
    /// # Errors
    /// `invalid_input`: the manifest or what it names is refused.
    pub fn read(folder: &Path, source: &Path) -> Result<Self, Refusal> {
        let tools = read_manifest(source, &BTreeSet::new()).map_err(|error| {
            Refusal::new(Code::InvalidInput, format!("the manifest is refused: {error}"))
                .hint("correct it and install again")
        })?;
        let Some(tool) = tools.first() else {
            return Err(Refusal::new(Code::InvalidInput, "the component gives no tool"));
        };
        let file = folder.join(format!("{}.toml", tool.manifest.name));
        let text = manifest_text(source, tool.manifest.digest).ok_or_else(|| changed("the manifest"))?;
        let digest = tool.component.digest;
        let placed = pinned(&text, &component_name(digest), digest)
            .map_err(|e| Refusal::new(Code::InvalidInput, format!("the manifest is refused: {e}")))?;
        Ok(Self { source: source.to_path_buf(), file, tools, placed })
    }

    /// What the manifest will be known by once it is written.
    #[must_use]
    pub fn placed_digest(&self) -> Digest {
        Digest::of(self.placed.as_bytes())
    }

    /// Where the manifest goes.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The tools that it gives.
    #[must_use]
    pub fn tools(&self) -> &[Arc<Tool>] {
        &self.tools
    }

    /// The names of the tools that it gives.
    #[must_use]
    pub fn names(&self) -> Vec<ToolName> {
        self.tools.iter().map(|tool| tool.name.clone()).collect()
    }

    /// The component.
    #[must_use]
    pub fn component(&self) -> Option<&Arc<ComponentFile>> {
        self.tools.first().map(|tool| &tool.component)
    }

    /// Copy component and manifest into the folder: the component under its digest, the manifest last and whole.
    ///
    /// # Errors
    /// `invalid_input`: the files changed since they were read. `internal`: the folder cannot be written.
    pub fn place(&self) -> Result<(), Refusal> {
        let failed = |what: &str, error: &std::io::Error| {
            tracing::error!(%error, "{what} could not be written");
            Refusal::new(Code::Internal, format!("{what} could not be written into the manifests folder"))
        };
        let folder = self.file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| failed("the folder", &e))?;
        let Some(tool) = self.tools.first() else { return Err(changed("the manifest")) };
        let digest = tool.component.digest;
        let wasm = std::fs::read(&tool.component.path).map_err(|e| failed("the component", &e))?;
        if Digest::of(&wasm) != digest {
            return Err(changed("the component"));
        }
        if manifest_text(&self.source, tool.manifest.digest).is_none() {
            return Err(changed("the manifest"));
        }
        write_whole(&folder.join(component_name(digest)), &wasm).map_err(|e| failed("the component", &e))?;
        write_whole(&self.file, self.placed.as_bytes()).map_err(|e| failed("the manifest", &e))
    }
}

fn changed(what: &str) -> Refusal {
    Refusal::new(Code::InvalidInput, format!("{what} changed while it was installed")).hint("install again")
}

/// The component's file in the folder.
fn component_name(digest: Digest) -> String {
    format!("{digest}.wasm")
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
