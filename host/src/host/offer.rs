//! What a door of another protocol offers to its callers, and who they are where the kernel does not say.
//!
//! The tools are those of `tools.list`, as they are and not as JSON, so that each door can describe them in the words of its
//! protocol. Nothing here grants anything: a tool that is not offered cannot be called either.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::watch;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::id::ToolName;
use toolkeep_core::principal::Plane;
use toolkeep_core::refusal::Refusal;

use super::Host;
use crate::authenticate::Caller;
use crate::catalog::Tool;

impl Host {
    /// The tools that the caller can call, in order of their names.
    #[must_use]
    pub fn offered(&self, caller: &Caller) -> Vec<Arc<Tool>> {
        self.catalog().current().tools().filter(|tool| self.offers(tool, caller)).cloned().collect()
    }

    /// One of them.
    #[must_use]
    pub fn offered_tool(&self, caller: &Caller, name: &ToolName) -> Option<Arc<Tool>> {
        self.catalog().current().tool(name).filter(|tool| self.offers(tool, caller))
    }

    /// Changes when other tools are offered, or the same ones otherwise.
    #[must_use]
    pub fn catalog_changes(&self) -> watch::Receiver<u64> {
        self.catalog().changes()
    }

    /// Issuers whose statements are taken, by the addresses under which clients find them.
    #[must_use]
    pub fn authorization_servers(&self) -> Vec<&str> {
        let issuers = self.config().issuers.iter().map(|issuer| issuer.issuer.as_str());
        issuers.filter(|issuer| issuer.starts_with("https://")).collect()
    }

    /// Who shows this at a door whose peers the kernel does not name.
    ///
    /// # Errors
    /// `unauthorized`, on record up to a rate.
    pub fn caller_of_token(&self, token: &str) -> Result<Caller, Refusal> {
        let shown = self.0.authenticator.shown(token, self.ambient().now_ms());
        shown.inspect_err(|refusal| {
            tracing::warn!("refused at the HTTP door: {}", refusal.message);
            let Some(passed_over) = self.0.failures.note(self.ambient().now_ms()) else { return };
            let facts = json!({"what": "refused", "plane": Plane::Agent.word(), "door": "http",
                "because": refusal.message, "not_on_record_before": passed_over});
            if let Err(error) = self.ledger().audit(AuditKind::Identity, &facts) {
                tracing::error!(%error, "a refused credential could not be put on record");
            }
        })
    }
}
