//! Calls of one tool at one time, where its manifest says how many.
//!
//! Counted for each tenant apart. What exceeds the number waits in the order of its coming, before it takes a slot of the
//! daemon, so that a slow tool holds back nobody but its own callers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::TenantName;

use crate::catalog::Tool;

/// Tenants and manifests that are counted at one time: beyond it those are forgotten that nobody uses.
const CROWDS_MAX: usize = 10_000;

/// Calls of tools.
#[derive(Debug, Default)]
pub struct Crowds(Mutex<HashMap<(TenantName, Digest), Arc<Semaphore>>>);

impl Crowds {
    /// Where calls of a tool stand in line, if its manifest says how many may run.
    #[must_use]
    pub fn of(&self, tenant: &TenantName, tool: &Tool) -> Option<Arc<Semaphore>> {
        let most = tool.manifest.concurrent?;
        let mut crowds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if crowds.len() >= CROWDS_MAX {
            crowds.retain(|_, crowd| Arc::strong_count(crowd) > 1);
        }
        let crowd = crowds.entry((tenant.clone(), tool.manifest.digest));
        Some(Arc::clone(crowd.or_insert_with(|| Arc::new(Semaphore::new(most)))))
    }
}

/// The right to run one of the calls of a tool.
pub type Member = OwnedSemaphorePermit;
