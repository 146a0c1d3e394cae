//! Proposals: a component or a manifest that somebody wants tried, read and looked at once.
//!
//! What is wrong with a file is said before anything is executed, not once for each call. Reading and screening
//! block; what comes of it is names and digests, cheap to combine with the grants of any version.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toolkeep_core::digest::Digest;
use toolkeep_core::id::ToolName;
use toolkeep_core::refusal::{Code, Refusal};

use super::Version;
use crate::catalog::{ComponentFile, read_component, read_manifest};

/// A component file that was found to be one.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    path: PathBuf,
    digest: Digest,
    size: u64,
    tools: Vec<ToolName>,
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
        let descriptors = toolkeep_sandbox::component::descriptors(&wasm).map_err(refused)?;
        let tools: Vec<ToolName> = descriptors.tools.into_iter().map(|tool| tool.name).collect();
        if tools.is_empty() {
            return Err(refused("it has no tool"));
        }
        Ok(Self { path: path.to_path_buf(), digest: Digest::of(&wasm), size: wasm.len() as u64, tools })
    }

    /// Its tools, as it calls them.
    pub(crate) fn tools(&self) -> &[ToolName] {
        &self.tools
    }

    /// What stands in it for a tool: the one of the same name, or the only one that it has.
    pub(super) fn local(&self, wanted: &ToolName) -> Result<ToolName, Refusal> {
        match self.tools.as_slice() {
            [only] => Ok(only.clone()),
            tools if tools.contains(wanted) => Ok(wanted.clone()),
            _ => Err(refused(format!("it has no tool `{wanted}`"))),
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
