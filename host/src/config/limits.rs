//! Bounds of the daemon, as they are without being configured.

/// Bounds of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonLimits {
    /// Executions at one time; what exceeds them waits.
    pub executions: usize,
    /// Calls that wait, of all tenants together; what exceeds them is refused. As many as run, if it is not set.
    pub waiting: usize,
    /// How long a call waits for its turn before it is refused, in milliseconds.
    pub wait_ms: u64,
    /// Executions of one tenant at one time; no bound of its own if absent.
    pub executions_per_tenant: Option<usize>,
    /// Connections per socket.
    pub connections: usize,
    /// How long a held plan waits for an approval, in milliseconds.
    pub approval_ttl_ms: u64,
    /// Bytes of before-contents that one plan may keep for undo; beyond it an overwrite is consequential.
    pub undo_bytes: u64,
    /// How long a graceful stop waits for calls in flight, in milliseconds.
    pub drain_ms: u64,
}

impl Default for DaemonLimits {
    fn default() -> Self {
        Self {
            executions: 64,
            waiting: 64,
            wait_ms: 5_000,
            executions_per_tenant: None,
            connections: 256,
            approval_ttl_ms: 24 * 3600 * 1000,
            undo_bytes: 256 * 1024 * 1024,
            drain_ms: 20_000,
        }
    }
}
