//! The opened workspaces, each with the one tenant that sees it.
//!
//! Whoever asks for a workspace says for which tenant, and gets nothing for one of another: there is no way to a root that
//! does not pass by its owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use toolkeep_core::id::{TenantName, WorkspaceName};
use toolkeep_core::manifest::Manifest;
use toolkeep_sandbox::workspace::WorkspaceRoot;

/// All workspaces of the daemon.
#[derive(Debug, Default)]
pub struct Workspaces(BTreeMap<WorkspaceName, (TenantName, Arc<WorkspaceRoot>)>);

impl Workspaces {
    /// Add one of this tenant.
    pub fn insert(&mut self, name: WorkspaceName, tenant: TenantName, root: Arc<WorkspaceRoot>) {
        self.0.insert(name, (tenant, root));
    }

    /// The workspace of a tenant.
    #[must_use]
    pub fn of(&self, tenant: &TenantName, name: &WorkspaceName) -> Option<&Arc<WorkspaceRoot>> {
        self.0.get(name).filter(|(owner, _)| owner == tenant).map(|(_, root)| root)
    }

    /// Whether a manifest grants a workspace of another tenant: then what it describes is nobody else's business.
    #[must_use]
    pub fn is_foreign(&self, manifest: &Manifest, tenant: &TenantName) -> bool {
        manifest.files.iter().any(|grant| self.0.get(&grant.workspace).is_some_and(|(owner, _)| owner != tenant))
    }

    /// Every root, for recovery and commits, which follow plans and not tenants.
    #[must_use]
    pub fn roots(&self) -> BTreeMap<WorkspaceName, Arc<WorkspaceRoot>> {
        self.0.iter().map(|(name, (_, root))| (name.clone(), Arc::clone(root))).collect()
    }
}
