//! How long a call took, waiting for people excluded. It reads no clock: it is told the time.

/// A stopwatch that may stand still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// Before this stretch of it, in milliseconds.
    pub(super) before_ms: u64,
    /// When this stretch began; nothing while it stands still.
    pub(super) since_ms: Option<u64>,
}

impl Clock {
    /// What it shows at this time, in milliseconds.
    pub(super) const fn now(self, now_ms: u64) -> u64 {
        match self.since_ms {
            Some(since_ms) => self.before_ms.saturating_add(now_ms.saturating_sub(since_ms)),
            None => self.before_ms,
        }
    }
}
