//! How much there is of something at one moment, read when somebody asks for the metrics.

/// What is read off the parts of the daemon. Everything is of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levels {
    /// When the daemon started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Whether calls are taken.
    pub ready: bool,
    /// Calls that are being worked on.
    pub in_flight: u64,
    /// Executions that hold a slot, and those that wait for one.
    pub slots: (u64, u64),
    /// Tools that can be called, and manifests that are refused.
    pub tools: (u64, u64),
    /// Requests for consent that are open.
    pub approvals_open: u64,
    /// When the oldest of them was made, in milliseconds since the Unix epoch.
    pub approvals_oldest_ms: Option<u64>,
    /// Circuits that are open, half open, and closed with failures.
    pub circuits: (u64, u64, u64),
    /// Open circuits of tools that have series of their own.
    pub open_tools: Vec<String>,
    /// Kill switches: those that stop, and those that let tools read.
    pub kill_switches: (u64, u64),
    /// Deliveries that wait, that are under way, and dead letters that rest.
    pub deliveries: (u64, u64, u64),
    /// When the oldest waiting delivery was made, in milliseconds since the Unix epoch.
    pub deliveries_oldest_ms: Option<u64>,
    /// Alerts that nobody acknowledged.
    pub alerts: AlertLevels,
    /// Entries of the audit chain.
    pub audit_entries: u64,
    /// Bytes of the ledger's database.
    pub ledger_bytes: u64,
    /// Blobs and their bytes, when they were counted last.
    pub blobs: (u64, u64),
    /// Writes that wait for the ledger, and their bytes.
    pub ledger_queue: (u64, u64),
    /// Whether the ledger writes; if not, whether the disk is full.
    pub ledger_well: bool,
    /// Commits of this life that were halted.
    pub halted: u64,
}

/// Open alerts by severity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AlertLevels {
    /// To know.
    pub info: u64,
    /// To look at.
    pub warning: u64,
    /// To act on.
    pub critical: u64,
}
