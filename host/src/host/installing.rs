//! Installing tools: what an operator may install, and what a changed component has to pass first.
//!
//! A manifest may name a suite of golden cases. Where a tool of that manifest is installed already with another component, the
//! new one is executed over the cases before anything is copied; the suite that is in force decides, so that a new manifest
//! cannot do without it.

use std::path::Path;

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use super::life::blocking;
use crate::authenticate::Operator;
use crate::install::Candidate;
use crate::replay::Version;

impl Host {
    /// Check a manifest, compile its component, and only then copy both into the manifests folder and offer the tools.
    ///
    /// # Errors
    /// The manifest, the component or a schema is refused, a name is taken, or a workspace is not the operator's tenant's;
    /// nothing was changed.
    pub async fn install(
        &self,
        operator: &Operator,
        manifest: &Path,
        accept_failing: Option<&str>,
    ) -> Result<Value, Refusal> {
        let folder = self.catalog().folder().to_path_buf();
        let source = manifest.to_path_buf();
        let candidate = blocking(move || Candidate::read(&folder, &source)).await??;
        self.check_candidate(operator, &candidate)?;
        let component = candidate.component().cloned();
        if let Some(component) = &component {
            self.executor().loader.artifact(component).await?;
        }
        let passed = self.pass_gate(operator, &candidate, accept_failing).await?;
        let (names, file) = (candidate.names(), candidate.file().to_path_buf());
        let digest = component.map(|component| component.digest);
        let facts = json!({"what": "installed", "tools": names, "component": digest, "passed": passed,
            "accepted_failing": accept_failing});
        self.note(operator, AuditKind::Tool, facts).await?;
        blocking(move || candidate.place()).await??;
        let host = self.clone();
        let problems = blocking(move || {
            let problems = host.catalog().reload().problems().to_vec();
            // Policies that name the tool may be valid only now.
            host.reload_policies(None);
            problems
        })
        .await?;
        self.keep_versions();
        Ok(json!({"installed": names, "component": digest, "manifest": file, "problems": problems, "passed": passed}))
    }

    /// A component that changed has to pass the golden cases that the manifest in force, or the new one, names.
    async fn pass_gate(
        &self,
        operator: &Operator,
        candidate: &Candidate,
        accept_failing: Option<&str>,
    ) -> Result<Option<Value>, Refusal> {
        let catalog = self.catalog().current();
        let old = candidate.tools().iter().find_map(|tool| catalog.tool(&tool.name));
        let Some(old) = old.filter(|old| candidate.component().is_some_and(|new| new.digest != old.component.digest))
        else {
            return Ok(None);
        };
        let new = candidate.tools().first().and_then(|tool| tool.manifest.record.suite.clone());
        let Some(suite) = old.manifest.record.suite.clone().or(new) else { return Ok(None) };
        let versions = candidate.tools().iter().map(Version::of).collect();
        match self.gate(operator, &suite, versions).await {
            Ok(ran) => Ok(Some(ran)),
            Err(refusal)
                if refusal.code == Code::EvalFailed && accept_failing.is_some_and(|why| !why.trim().is_empty()) =>
            {
                tracing::warn!(%suite, problem = refusal.message, "a version is installed that does not pass its golden cases");
                Ok(refusal.detail)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// What an operator may install: tools under free names, over workspaces of the operator's own tenant.
    fn check_candidate(&self, operator: &Operator, candidate: &Candidate) -> Result<(), Refusal> {
        let catalog = self.catalog().current();
        for tool in candidate.tools() {
            if let Some(other) = catalog.file_of(&tool.name).filter(|file| *file != candidate.file()) {
                let message = format!("`{}` is already given by `{}`", tool.name, other.display());
                return Err(Refusal::new(Code::InvalidInput, message).hint("choose another `name`"));
            }
            self.catalog().configured().check(&tool.manifest).map_err(|error| {
                Refusal::new(Code::InvalidInput, format!("the manifest is refused: {error}"))
                    .hint("correct the manifest, or add it to the configuration and restart the daemon")
            })?;
            for grant in &tool.manifest.files {
                if self.workspaces().of(operator.tenant(), &grant.workspace).is_none() {
                    let message =
                        format!("the manifest grants the workspace `{}`, which you do not have", grant.workspace);
                    return Err(Refusal::new(Code::InvalidInput, message)
                        .hint("add the workspace to the configuration and restart the daemon"));
                }
            }
        }
        Ok(())
    }
}
