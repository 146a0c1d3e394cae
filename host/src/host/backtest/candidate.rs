//! What recorded calls are compared with: read, screened and compiled once, before the first call is looked at.
//!
//! A candidate says which tools it is about. Only calls of these are read, so that the work is bounded by the number of
//! calls that were asked for, and not by how many others there are.

use std::path::PathBuf;

use serde_json::{Value, json};
use toolkeep_core::id::ToolName;
use toolkeep_core::refusal::{Code, Refusal};

use super::BackTest;
use crate::catalog::{Catalog, ComponentFile};
use crate::host::Host;
use crate::host::life::blocking;
use crate::host::policy::{PolicyFile, invalid, sources};
use crate::ledger::VersionRow;
use crate::policy::Policies;
use crate::replay::{Proposal, Version, proposed};

/// What recorded calls are compared with.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum With {
    /// A version that was in force before: `tool@version`.
    Version(String),
    /// A component file of this machine, with the grants that each call had.
    Component(PathBuf),
    /// A manifest file of this machine with its component.
    Manifest(PathBuf),
    /// Policies.
    Policies(Vec<PolicyFile>),
}

impl With {
    pub(super) fn told(&self) -> Value {
        match self {
            Self::Version(named) => json!({"version": named}),
            Self::Component(path) => json!({"component": path}),
            Self::Manifest(path) => json!({"manifest": path}),
            Self::Policies(files) => json!({"policies": files.len()}),
        }
    }
}

/// The same, read and checked.
#[derive(Debug)]
pub(super) enum Candidate {
    Stored(Box<VersionRow>),
    Component(Proposal),
    Manifest(Vec<Version>),
    Policies(Box<Policies>),
}

impl Candidate {
    /// The version of a tool that it means.
    pub(super) fn version(&self, before: &Version) -> Result<Version, Refusal> {
        match self {
            Self::Stored(row) => Version::stored(row, &before.name),
            Self::Component(proposal) => before.with_component(proposal),
            Self::Manifest(versions) => {
                let found = versions.iter().find(|version| version.name == before.name);
                found.cloned().ok_or_else(|| Refusal::not_found("tool"))
            }
            Self::Policies(_) => Ok(before.clone()),
        }
    }

    /// The tools that it is about; nothing if it is about all.
    fn tools(&self, catalog: &Catalog) -> Option<Vec<ToolName>> {
        match self {
            Self::Stored(row) => {
                let tools: std::collections::BTreeMap<ToolName, ToolName> =
                    serde_json::from_str(&row.tools).unwrap_or_default();
                Some(tools.into_keys().collect())
            }
            Self::Component(proposal) => {
                let mine = catalog.tools().filter(|tool| proposal.has(&tool.entry));
                Some(mine.map(|tool| tool.name.clone()).collect())
            }
            Self::Manifest(versions) => Some(versions.iter().map(|version| version.name.clone()).collect()),
            Self::Policies(_) => None,
        }
    }
}

/// The tools whose calls are compared.
pub(super) fn about(
    candidate: &Candidate,
    wanted: Option<&ToolName>,
    catalog: &Catalog,
) -> Result<Option<Vec<ToolName>>, Refusal> {
    let refused = |message: String, hint: &str| Err(Refusal::new(Code::InvalidInput, message).hint(hint));
    let tools = candidate.tools(catalog);
    match (candidate, wanted, tools) {
        (_, None, None) => Ok(None),
        (Candidate::Component(_), None, Some(tools)) if tools.len() != 1 => {
            let message = format!("the component is one of {} tools that are installed", tools.len());
            refused(message, "say with `tool` whose calls are compared")
        }
        (Candidate::Component(proposal), Some(tool), _) => {
            let known = catalog.tool(tool).is_none_or(|known| proposal.fits(&known.entry));
            let message = || format!("the component has no tool that could be `{tool}`");
            if known { Ok(Some(vec![tool.clone()])) } else { refused(message(), "name one of its tools") }
        }
        (Candidate::Policies(_), Some(tool), _) => Ok(Some(vec![tool.clone()])),
        (_, Some(tool), Some(tools)) if !tools.contains(tool) => {
            refused(format!("what is to be tried has no tool `{tool}`"), "name one of its tools, or none")
        }
        (_, Some(tool), _) => Ok(Some(vec![tool.clone()])),
        (_, None, Some(tools)) => Ok(Some(tools)),
    }
}

/// The names under which calls that ran one of these tools are on record: another one may stand in for the tool that was called.
pub(super) fn called_as(tools: &[ToolName], catalog: &Catalog) -> Vec<ToolName> {
    let stands_in = |fallback: &Option<ToolName>| fallback.as_ref().is_some_and(|tool| tools.contains(tool));
    let others = catalog.tools().filter(|tool| stands_in(&tool.manifest.fallback)).map(|tool| tool.name.clone());
    let mut names: Vec<ToolName> = tools.iter().cloned().chain(others).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Host {
    pub(super) async fn candidate(&self, test: &BackTest) -> Result<Candidate, Refusal> {
        match &test.with {
            With::Version(named) => {
                let wrong = || Refusal::new(Code::InvalidInput, format!("`{named}` is not `TOOL@VERSION`"));
                let (name, version) = named.split_once('@').ok_or_else(wrong)?;
                let name: ToolName = name.parse().map_err(|_| wrong())?;
                let rows = self.ledger().versions_of(&name).await.map_err(|e| e.refusal())?;
                let row = rows.into_iter().find(|row| *row.version == *version);
                let missing = || Refusal::not_found("version").hint("`toolkeep tools list` names versions in force");
                Ok(Candidate::Stored(Box::new(row.ok_or_else(missing)?)))
            }
            With::Component(path) => {
                let path = path.clone();
                let proposal = blocking(move || Proposal::read(&path)).await??;
                self.compiles(&proposal.file((None, None))).await?;
                Ok(Candidate::Component(proposal))
            }
            With::Manifest(path) => {
                let path = path.clone();
                let versions = blocking(move || proposed(&path)).await??;
                for version in &versions {
                    self.compiles(&version.component).await?;
                }
                Ok(Candidate::Manifest(versions))
            }
            With::Policies(files) => {
                let (sources, shapes) = (sources(files.clone())?, self.catalog().current().shapes());
                let policies = blocking(move || Policies::new(sources, &shapes)).await?;
                let policies = policies.map_err(|findings| invalid(&findings))?;
                Ok(Candidate::Policies(Box::new(policies)))
            }
        }
    }

    /// Compile what somebody proposes, before anything is executed with it.
    ///
    /// # Errors
    /// `invalid_input`: the compiler refuses it. Others where the host fails.
    pub(in crate::host) async fn compiles(&self, file: &ComponentFile) -> Result<(), Refusal> {
        match self.executor().loader.artifact(file).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.code == Code::ToolTrapped => {
                let message = format!("the component is refused: {}", refusal.message);
                Err(Refusal::new(Code::InvalidInput, message))
            }
            Err(refusal) => Err(refusal),
        }
    }
}
