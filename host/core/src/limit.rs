//! Every bound of the core: queue, string, count and byte, each with its unit and the reason for its size.
//!
//! Bounds of one part live beside that part; those that several parts share, and the ones that an operator sets
//! per tool, are here. Nothing in Toolkeep grows with its input beyond one of them.

use serde::{Deserialize, Serialize};

/// Longest line on a socket and longest JSON body, in bytes: large enough for a 1 MiB text after escaping.
pub const LINE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Deepest nesting of a JSON text: real inputs stay under 20.
pub const JSON_DEPTH_MAX: usize = 64;
/// Most effects in one plan: a human cannot review more, and recovery walks them all.
pub const EFFECTS_MAX: usize = 10_000;
/// Effects shown in a reply; `plans.get` pages through the rest.
pub const EFFECTS_SHOWN: usize = 100;
/// Largest file, in bytes, of which a text diff is made.
pub const DIFF_MAX_BYTES: u64 = 1024 * 1024;
/// Longest error message that a guest may pass on, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 4 * 1024;
/// Longest idempotency key, in bytes.
pub const KEY_MAX_BYTES: usize = 128;
/// Calls at one time that a manifest or the configuration may ask for: as many as the daemon runs.
pub const CONCURRENT_MAX: u64 = 1_024;
/// Longest run step, in bytes.
pub const STEP_MAX_BYTES: usize = 128;

/// Open transactions of one principal: an agent works on a handful of things at a time, and each keeps contents.
pub const TRANSACTIONS_OPEN_MAX: u32 = 16;
/// Calls staged in one transaction: a person reviews them as one plan.
pub const TRANSACTION_CALLS_MAX: u32 = 64;
/// Bytes of contents staged in one transaction: the stage of an ordinary execution, because each later call starts with
/// all of it.
pub const TRANSACTION_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Observations of the world in one transaction, of all calls together: its commit looks at each again.
pub const TRANSACTION_READS_MAX: usize = 100_000;
/// How long a transaction stays open if its caller does not say, in milliseconds: 15 minutes.
pub const TRANSACTION_TTL_DEFAULT_MS: u64 = 900_000;
/// The longest that a transaction stays open, in milliseconds: a day, because what it read only gets older.
pub const TRANSACTION_TTL_MAX_MS: u64 = 86_400_000;
/// Tools that a transaction may be narrowed to: as many as it may have calls.
pub const TRANSACTION_TOOLS_MAX: usize = 64;

/// What one execution may use. A manifest may set each value up to the ceiling of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionLimits {
    /// Units of fuel: about one per WebAssembly operator, one per byte of bulk operations.
    pub fuel: u64,
    /// Wall-clock deadline in milliseconds, host calls included.
    pub deadline_ms: u64,
    /// Linear memory in bytes, all memories together.
    pub memory_bytes: u64,
    /// Elements, all tables together.
    pub table_elements: u64,
    /// Component handles and host resources open at one time.
    pub handles: u32,
    /// Bytes of the returned JSON text.
    pub output_bytes: u64,
    /// Bytes of log lines, standard output and standard error together.
    pub log_bytes: u64,
    /// Bytes that may be drawn from `wasi:random` in all.
    pub random_bytes: u64,
    /// Logical bytes staged in all.
    pub stage_bytes: u64,
    /// Staged effects.
    pub stage_effects: u64,
    /// Bytes of file content kept in the recording; what exceeds them is recorded as digests.
    pub recording_bytes: u64,
}

impl Default for ExecutionLimits {
    /// Sizes for an ordinary tool: a second or two of CPU, 64 MiB of memory, a thousand small files.
    fn default() -> Self {
        Self {
            fuel: 2_000_000_000,
            deadline_ms: 10_000,
            memory_bytes: 64 * 1024 * 1024,
            table_elements: 50_000,
            handles: 1024,
            output_bytes: 1024 * 1024,
            log_bytes: 64 * 1024,
            random_bytes: 1024 * 1024,
            stage_bytes: 64 * 1024 * 1024,
            stage_effects: 1_000,
            recording_bytes: 256 * 1024,
        }
    }
}

impl ExecutionLimits {
    /// The most that a manifest may ask for.
    pub const CEILING: Self = Self {
        fuel: 1_000_000_000_000,
        deadline_ms: 600_000,
        memory_bytes: 1024 * 1024 * 1024,
        table_elements: 1_000_000,
        handles: 10_000,
        output_bytes: 3 * 1024 * 1024,
        log_bytes: 1024 * 1024,
        random_bytes: 64 * 1024 * 1024,
        stage_bytes: 4 * 1024 * 1024 * 1024,
        stage_effects: EFFECTS_MAX as u64,
        recording_bytes: 64 * 1024 * 1024,
    };
}
