//! Installing tools: what an operator may install, and what another version has to pass first.
//!
//! A manifest may name a suite of golden cases. Whatever differs from the version in force, or from the last one that was, is
//! executed over the cases before anything is copied: another component, or the same one with another manifest. The suite of
//! the last version decides as well as that of the new one, and no manifest does without it silently. Who writes into the
//! manifests folder itself is not asked: that folder is the operator's.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::ToolName;
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use super::life::blocking;
use crate::authenticate::Operator;
use crate::install::Candidate;
use crate::ledger::VersionRow;
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
        let facts = json!({"what": "installed", "tools": candidate.names(), "passed": passed,
            "component": component.map(|component| component.digest), "accepted_failing": accept_failing});
        let (host, operator) = (self.clone(), operator.clone());
        // Whoever waits may go away while cases run. What is on record as installed is installed.
        self.to_the_end(async move { host.place(&operator, candidate, facts).await }).await
    }

    async fn place(&self, operator: &Operator, candidate: Candidate, facts: Value) -> Result<Value, Refusal> {
        let mut installed = json!({"installed": candidate.names(), "manifest": candidate.file(),
            "component": facts.get("component"), "passed": facts.get("passed")});
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
        if let Value::Object(members) = &mut installed {
            members.insert("problems".to_owned(), json!(problems));
        }
        Ok(installed)
    }

    /// A version that differs from the last one has to pass the golden cases that either of them names. What is accepted
    /// although it does not is told, too.
    async fn pass_gate(
        &self,
        operator: &Operator,
        candidate: &Candidate,
        accept_failing: Option<&str>,
    ) -> Result<Vec<Value>, Refusal> {
        let Some(last) = self.last_version(candidate).await? else { return Ok(Vec::new()) };
        if last.is(candidate) {
            return Ok(Vec::new());
        }
        let overrules = accept_failing.is_some_and(|why| !why.trim().is_empty());
        // What the cases say, or that they cannot all be run in time, may be overruled; that they cannot be read may not.
        let accepted = |refusal: Refusal| match &refusal.detail {
            Some(told) if overrules && matches!(refusal.code, Code::EvalFailed | Code::Overloaded) => {
                tracing::warn!(problem = refusal.message, "a version is installed that does not pass its golden cases");
                Ok(told.clone())
            }
            _ => Err(refusal),
        };
        let next = candidate.tools().first().and_then(|tool| tool.manifest.record.suite.clone());
        let mut passed = Vec::new();
        if let Some(suite) = last.suite.as_ref().filter(|_| next.is_none()) {
            passed.push(accepted(ungated(suite))?);
        }
        let suites: BTreeSet<ToolName> = last.suite.into_iter().chain(next).collect();
        for suite in suites {
            let versions = candidate.tools().iter().map(Version::of).collect();
            passed.push(self.gate(operator, &suite, versions).await.or_else(accepted)?);
        }
        Ok(passed)
    }

    /// What is in force at the place of a candidate, or was the last time that anything was.
    async fn last_version(&self, candidate: &Candidate) -> Result<Option<Last>, Refusal> {
        if let Some(tool) = self.catalog().current().given_by(candidate.file()).first() {
            let suite = tool.manifest.record.suite.clone();
            let (manifest, component) = (tool.manifest.digest, tool.component.digest);
            return Ok(Some(Last { manifest, component, suite }));
        }
        let Some(tool) = candidate.tools().first() else { return Ok(None) };
        let rows = self.ledger().versions_of(&tool.manifest.name).await.map_err(|e| e.refusal())?;
        Ok(rows.first().map(Last::stored))
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

/// A version that a candidate takes the place of.
struct Last {
    manifest: Digest,
    component: Digest,
    suite: Option<ToolName>,
}

impl Last {
    /// As the ledger keeps it. Its manifest may be none for this program any more; what it says of its suite counts all the same.
    fn stored(row: &VersionRow) -> Self {
        let table: toml::Table = toml::from_str(&row.body).unwrap_or_default();
        let suite = table.get("record").and_then(|record| record.get("suite")).and_then(toml::Value::as_str);
        Self { manifest: row.manifest, component: row.component, suite: suite.and_then(|name| name.parse().ok()) }
    }

    fn is(&self, candidate: &Candidate) -> bool {
        let component = candidate.component().map(|component| component.digest);
        self.manifest == candidate.placed_digest() && component == Some(self.component)
    }
}

/// The refusal for a manifest after which nothing would gate its tools any more.
fn ungated(suite: &ToolName) -> Refusal {
    let message =
        format!("the manifest does not name the suite `{suite}` any more, so that nothing would gate the next version");
    let mut refusal = Refusal::new(Code::EvalFailed, message)
        .hint("name it under `[record] suite`, or install with `--accept-failing REASON`");
    refusal.detail = Some(json!({"suite": suite, "dropped": true}));
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r45_a_last_version_that_is_not_valid_any_more_still_names_its_suite() {
        let row = |body: &str| VersionRow {
            manifest: Digest::of(body.as_bytes()),
            component: Digest::of(b"component"),
            name: "sample".parse().expect("a name"),
            version: "0".into(),
            tools: "{}".into(),
            body: body.into(),
            path: "sample.wasm".into(),
            size: 1,
            first_ms: 0,
        };
        let of = |body: &str| Last::stored(&row(body)).suite.map(|suite| suite.to_string());
        assert_eq!(of("format = 99\n[record]\nsuite = \"words\"\n").as_deref(), Some("words"));
        assert_eq!(of("format = 1\n"), None);
        assert_eq!(of("not TOML"), None);
    }
}
