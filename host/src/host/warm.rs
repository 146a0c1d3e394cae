//! What is made ready before anybody asks for it.
//!
//! Schemas of every tool are compiled once; components of tools whose manifest says `warm = true` are compiled and loaded
//! for every tenant that may call them. Nobody waits for it, and a call that comes meanwhile joins what is under way. What
//! cannot be made ready is told to whoever calls the tool, as without it.

use std::collections::BTreeSet;
use std::sync::Arc;

use toolkeep_core::id::TenantName;

use super::Host;
use crate::catalog::Catalog;

/// Most tenants for which a component is loaded in advance. Each has a pool of its own, and pools that are in use must not be
/// released for those that may be.
const TENANTS_MAX: usize = 8;

impl Host {
    /// Make ready what can be. Returns at once.
    pub(super) fn warm_up(&self) {
        let catalog = self.catalog().current();
        let of_schemas = Arc::clone(&catalog);
        let warm = move || {
            for tool in of_schemas.tools() {
                let _unheard = (tool.input().is_ok(), tool.output().is_ok());
            }
        };
        drop(tokio::task::spawn_blocking(warm));
        let host = self.clone();
        drop(self.spawn(async move { host.load_warm(&catalog).await }));
    }

    async fn load_warm(&self, catalog: &Catalog) {
        let principals = self.0.config.principals.values();
        let tenants: BTreeSet<&TenantName> = principals.map(|principal| &principal.tenant).collect();
        let mut done = BTreeSet::new();
        for tool in catalog.tools().filter(|tool| tool.manifest.warm) {
            for tenant in tenants.iter().take(TENANTS_MAX) {
                let foreign = self.workspaces().is_foreign(&tool.manifest, tenant);
                if foreign || !done.insert((*tenant, tool.component.digest)) {
                    continue;
                }
                match self.executor().loader.load(tenant, &tool.component).await {
                    Ok(_ready) => tracing::debug!(tool = %tool.name, %tenant, "a component is ready"),
                    Err(refusal) => {
                        tracing::warn!(tool = %tool.name, %tenant, %refusal, "a component cannot be loaded");
                    }
                }
            }
        }
    }

    /// How many components are ready to run.
    pub(super) fn ready_components(&self) -> u64 {
        self.executor().loader.ready()
    }
}
