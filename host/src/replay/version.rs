//! Versions: a manifest and the component that it means, as they were when a call was made, or as somebody proposes them.
//!
//! Calls name both by digest. The catalog knows those in force; the ledger keeps every manifest that ever was, and where its
//! component lay. The bytes of a component are the operator's: it is found in the cache of compiled components, or in its
//! file while that is still the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toolkeep_core::digest::Digest;
use toolkeep_core::id::ToolName;
use toolkeep_core::manifest::{Manifest, ManifestText};
use toolkeep_core::refusal::Refusal;
use toolkeep_core::tier::Tier;
use toolkeep_sandbox::execution::Entry;

use super::{Proposal, not_replayable};
use crate::ambient::Ambient;
use crate::catalog::{Catalog, ComponentFile, Tool, manifest_text, offered};
use crate::ledger::{Ledger, LedgerError, VersionRow};

/// A tool as one version has it.
#[derive(Debug, Clone)]
pub struct Version {
    /// What agents call it.
    pub name: ToolName,
    /// What its component, or its manifest for the component, calls it.
    pub local: ToolName,
    /// What is called in the component.
    pub entry: Entry,
    /// The tier that its manifest declares.
    pub tier: Tier,
    /// What it may do.
    pub manifest: Arc<Manifest>,
    /// What runs.
    pub component: Arc<ComponentFile>,
    /// The tool with its schemas, where they are known: those of stored versions are not.
    pub tool: Option<Arc<Tool>>,
}

impl Version {
    /// A tool of a catalog, or of a manifest that was read.
    #[must_use]
    pub fn of(tool: &Arc<Tool>) -> Self {
        Self {
            name: tool.name.clone(),
            local: tool.local.clone(),
            entry: tool.entry.clone(),
            tier: tool.tier,
            manifest: Arc::clone(&tool.manifest),
            component: Arc::clone(&tool.component),
            tool: Some(Arc::clone(tool)),
        }
    }

    /// The version that a call was made with.
    ///
    /// # Errors
    /// `not_replayable`: nobody knows it any more.
    pub async fn find(
        (catalog, ledger): (&Catalog, &Ledger),
        name: &ToolName,
        manifest: Digest,
        component: Digest,
    ) -> Result<Self, Refusal> {
        if let Some(tool) = catalog.tool(name)
            && tool.manifest.digest == manifest
            && tool.component.digest == component
        {
            return Ok(Self::of(&tool));
        }
        let row = ledger.version(manifest, component).await.map_err(|e| e.refusal())?;
        let row = row.ok_or_else(|| not_replayable(format!("the manifest {manifest} of `{name}` is not kept")))?;
        Self::stored(&row, name)
    }

    /// A version as the ledger keeps it.
    ///
    /// # Errors
    /// `not_replayable`: it does not have this tool, or its manifest is not valid for this program any more.
    pub fn stored(row: &VersionRow, name: &ToolName) -> Result<Self, Refusal> {
        let unfit = |why: String| not_replayable(format!("version {} of `{}` {why}", row.version, row.name));
        if Digest::of(row.body.as_bytes()) != row.manifest {
            return Err(unfit("is not the manifest that calls name any more; it was changed".to_owned()));
        }
        let text: ManifestText =
            toml::from_str(&row.body).map_err(|error| unfit(format!("is not valid any more: {error}")))?;
        let manifest = text.check(row.manifest).map_err(|error| unfit(format!("is not valid any more: {error}")))?;
        let tools: BTreeMap<ToolName, ToolName> = serde_json::from_str(&row.tools).unwrap_or_default();
        let local = tools.get(name).cloned().ok_or_else(|| unfit(format!("has no tool `{name}`")))?;
        let component = ComponentFile {
            digest: row.component,
            path: PathBuf::from(&*row.path),
            size: row.size,
            compile: manifest.compile,
        };
        let tier = manifest.tiers.get(&local).copied().unwrap_or(manifest.tier);
        let (manifest, component) = (Arc::new(manifest), Arc::new(component));
        let entry = offered::entry(&manifest, &local);
        Ok(Self { name: name.clone(), local, entry, tier, manifest, component, tool: None })
    }

    /// The same grants for another component.
    ///
    /// # Errors
    /// `invalid_input`: it does not have this tool.
    pub(crate) fn with_component(&self, proposal: &Proposal) -> Result<Self, Refusal> {
        let (entry, component) = (proposal.entry(&self.entry)?, Arc::new(proposal.file(self.manifest.compile)));
        let local = if let Entry::Tool(name) = &entry { name.clone() } else { self.local.clone() };
        let tool = proposal.tool(&self.manifest, &local);
        Ok(Self { local, entry, component, tool, ..self.clone() })
    }
}

/// Keep the versions of a catalog that are not known yet, and say which suites they name. A manifest that changed in the
/// meantime is another version, which the next catalog brings.
///
/// # Errors
/// The ledger failed.
pub async fn keep_versions(
    ledger: &Ledger,
    catalog: Arc<Catalog>,
    ambient: &Ambient,
) -> Result<BTreeSet<ToolName>, LedgerError> {
    let known: HashSet<(Digest, Digest)> = ledger.version_names().await?.into_iter().collect();
    let now_ms = ambient.now_ms();
    let read = tokio::task::spawn_blocking(move || {
        let fresh = |tools: &[Arc<Tool>]| {
            tools.first().is_some_and(|tool| !known.contains(&(tool.manifest.digest, tool.component.digest)))
        };
        catalog
            .files()
            .filter(|(_, tools)| fresh(tools))
            .filter_map(|(file, tools)| {
                Some((row_of(file, tools, now_ms)?, tools.first()?.manifest.record.suite.clone()))
            })
            .collect()
    });
    let rows: Vec<(VersionRow, Option<ToolName>)> = read.await.unwrap_or_default();
    let mut suites = BTreeSet::new();
    for (row, suite) in rows {
        ledger.keep_version(row).await?;
        suites.extend(suite);
    }
    Ok(suites)
}

fn row_of(file: &Path, tools: &[Arc<Tool>], now_ms: u64) -> Option<VersionRow> {
    let tool = tools.first()?;
    let body = manifest_text(file, tool.manifest.digest)?;
    let names: BTreeMap<&ToolName, &ToolName> = tools.iter().map(|tool| (&tool.name, &tool.local)).collect();
    Some(VersionRow {
        manifest: tool.manifest.digest,
        component: tool.component.digest,
        name: tool.manifest.name.clone(),
        version: tool.manifest.version.as_str().into(),
        tools: serde_json::to_string(&names).ok()?.into(),
        body: body.into(),
        path: tool.component.path.to_str()?.into(),
        size: tool.component.size,
        first_ms: now_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::sample::version;

    #[test]
    fn r41_a_kept_manifest_that_was_changed_afterwards_is_no_version() {
        let now = version("tier = 0\n");
        let body = "format = 1\nname = \"sample\"\ncomponent = \"sample.wasm\"\ntier = 0\n";
        let row = VersionRow {
            manifest: Digest::of(body.as_bytes()),
            component: now.component.digest,
            name: now.name.clone(),
            version: "0".into(),
            tools: r#"{"sample":"sample"}"#.into(),
            body: body.into(),
            path: "sample.wasm".into(),
            size: 1,
            first_ms: 0,
        };
        assert!(Version::stored(&row, &now.name).is_ok());
        let body = body.replace("tier = 0", "tier = 3").into();
        let refused = Version::stored(&VersionRow { body, ..row }, &now.name).expect_err("another text");
        assert!(refused.message.contains("changed"), "{}", refused.message);
    }
}
