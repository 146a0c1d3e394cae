//! The front of this crate: load components for tenants, carry out orders.

use std::sync::Arc;
use std::time::Instant;

use toolkeep_core::id::TenantName;

use crate::engine;
use crate::execution::{self, Execution, Order, Place};
use crate::fault::HostFault;
use crate::lane::{Load, Pace, SlowLane};
use crate::pool::{Artifact, Loaded, POOLS_MAX, Pools};

/// What an operator may set about the sandbox as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxConfig {
    /// Tenants that have a pool at one time, 1 to [`POOLS_MAX`].
    pub pools: usize,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self { pools: POOLS_MAX }
    }
}

/// Runs components. One per process.
pub struct Sandbox {
    pools: Pools,
    fingerprint: Arc<str>,
    lane: SlowLane,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// A sandbox without pools; they are made when tenants need them.
    ///
    /// # Errors
    /// The engine refuses its configuration on this machine, or the ticker's thread cannot be started.
    pub fn new(config: SandboxConfig) -> Result<Self, HostFault> {
        let fingerprint = engine::fingerprint(&engine::plain()?);
        Ok(Self { pools: Pools::new(config.pools)?, fingerprint: fingerprint.into(), lane: SlowLane::default() })
    }

    /// Names the engine's version and configuration: the key of compiled artifacts, and the engine of recordings.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Make a compiled component ready to run for a tenant. Takes about a tenth of a millisecond for a small one, so keep
    /// the result, and load again when it [is retired](Loaded::is_retired).
    ///
    /// # Errors
    /// [`HostFault::Overloaded`] if all pools are busy; others if the artifact does not fit this engine.
    pub fn load(&self, tenant: &TenantName, artifact: &Artifact) -> Result<Arc<Loaded>, HostFault> {
        self.pools.load(tenant, artifact)
    }

    /// Carry out one order. Dropping the future ends the execution without effects.
    ///
    /// # Errors
    /// Only faults of the host; those of the guest are in [`Execution::ended`]. [`HostFault::Retired`] asks to load again,
    /// [`HostFault::Overloaded`] to come later.
    pub async fn execute(&self, order: Order) -> Result<Execution, HostFault> {
        let pool = order.loaded.pool()?;
        let shared = self.pools.touch(&pool);
        let slot = tokio::select! {
            biased;
            slot = pool.slot() => slot?,
            () = order.cancel.cancelled() => return Err(HostFault::Cancelled),
        };
        let _ticking = self.pools.tick();
        let pace = Pace::default();
        let place =
            Place { engine: pool.engine.clone(), fingerprint: Arc::clone(&self.fingerprint), pace: pace.clone() };
        // A replay is nobody's part of the processor: what it takes is what the lane is left.
        let replayed = order.tape.as_ref().is_some_and(|playing| playing.behind);
        let load = if replayed { Arc::new(Load::new()) } else { Arc::clone(&pool.load) };
        let behind = replayed || (shared && load.is_heavy(Instant::now()));
        self.lane.attend(&pace, &load, behind, Box::pin(execution::carry_out(order, place, slot))).await
    }
}
