//! Proposals: a component or a manifest that somebody wants tried, read and looked at once.
//!
//! What is wrong with a file is said before anything is executed, not once for each call. Reading and screening
//! block; what comes of it is names and digests, cheap to combine with the grants of any version.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use toolkeep_core::digest::Digest;
use toolkeep_core::id::ToolName;
use toolkeep_core::manifest::Manifest;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::execution::Entry;

use super::Version;
use crate::catalog::offered::Offering;
use crate::catalog::{ComponentFile, Tool, read_component, read_manifest, tools_of};
use crate::schema;

/// Manifests whose tools are kept with a proposal: calls of one tool name few.
const MANIFESTS_KEPT: usize = 32;

/// A component file that was found to be one.
#[derive(Debug)]
pub(crate) struct Proposal {
    path: PathBuf,
    digest: Digest,
    size: u64,
    offering: Offering,
    /// Its tools under the manifests that calls had, by the digests of these.
    under: Mutex<BTreeMap<Digest, Vec<Arc<Tool>>>>,
}

fn refused(why: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::InvalidInput, format!("the component is refused: {why}"))
}

impl Proposal {
    /// Read and screen a component. Blocks.
    ///
    /// # Errors
    /// `invalid_input`: it cannot be read, or is no component with tools.
    pub(crate) fn read(path: &Path) -> Result<Self, Refusal> {
        let wasm = read_component(path)?;
        toolkeep_sandbox::compile::prescreen(&wasm).map_err(refused)?;
        let offering = Offering::read(&wasm).map_err(refused)?;
        for tool in offering.tools() {
            for schema in [&tool.input_schema, &tool.output_schema] {
                schema::compile(schema).map_err(|why| refused(format!("a schema of `{}`: {why}", tool.name)))?;
            }
        }
        if offering.entries().next().is_none() {
            return Err(refused("it has no tool"));
        }
        let (digest, size, under) = (Digest::of(&wasm), wasm.len() as u64, Mutex::default());
        Ok(Self { path: path.to_path_buf(), digest, size, offering, under })
    }

    /// The tool that it would give under a manifest, with its schemas; nothing where the two do not go together.
    pub(super) fn tool(&self, manifest: &Arc<Manifest>, local: &ToolName) -> Option<Arc<Tool>> {
        let mut under = self.under.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            let file = Arc::new(self.file(manifest.compile));
            let descriptors = self.offering.clone().under(manifest);
            descriptors.and_then(|found| tools_of(manifest, found, &file, true)).unwrap_or_default()
        };
        if under.len() >= MANIFESTS_KEPT && !under.contains_key(&manifest.digest) {
            under.clear();
        }
        let tools = under.entry(manifest.digest).or_insert_with(made);
        tools.iter().find(|tool| tool.local == *local).map(Arc::clone)
    }

    /// Whether it has what is called for a tool.
    pub(crate) fn has(&self, entry: &Entry) -> bool {
        self.offering.entries().any(|known| known == *entry)
    }

    /// Whether something in it can stand for a tool.
    pub(crate) fn fits(&self, entry: &Entry) -> bool {
        self.entry(entry).is_ok()
    }

    /// What stands in it for a tool: the one of the same name, or the only one that it describes.
    pub(super) fn entry(&self, wanted: &Entry) -> Result<Entry, Refusal> {
        if self.has(wanted) {
            return Ok(wanted.clone());
        }
        match (self.offering.tools(), wanted) {
            ([only], Entry::Tool(_)) => Ok(Entry::Tool(only.name.clone())),
            (_, Entry::Tool(name)) => Err(refused(format!("it has no tool `{name}`"))),
            (_, Entry::Function(label)) => {
                Err(refused(format!("it exports no function `{label}` that could be a tool")))
            }
        }
    }

    /// The file, to be compiled within these limits.
    pub(crate) fn file(&self, compile: (Option<u64>, Option<u64>)) -> ComponentFile {
        ComponentFile { digest: self.digest, path: self.path.clone(), size: self.size, compile }
    }
}

/// The tools of a manifest that somebody proposes. Blocks.
///
/// # Errors
/// `invalid_input`: it is refused.
pub(crate) fn proposed(manifest: &Path) -> Result<Vec<Version>, Refusal> {
    let tools = read_manifest(manifest, &BTreeSet::new()).map_err(|error| {
        Refusal::new(Code::InvalidInput, format!("the manifest is refused: {error}")).hint("correct it and try again")
    })?;
    Ok(tools.iter().map(Version::of).collect())
}
