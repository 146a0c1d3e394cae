//! Spikes: whether what was spent in a window of time is far more than before.
//!
//! The baseline is the mean of the windows before; a floor keeps little from looking like much. Pure: who adds up what was
//! spent, and what becomes of a spike, is for the host.

use crate::price::Usd;

/// When a window is a spike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpikeRule {
    /// Length of a window, in milliseconds.
    pub window_ms: u64,
    /// How many windows before it make the baseline.
    pub baseline: u32,
    /// How many times the baseline is too much.
    pub factor: u32,
    /// A baseline of fewer calls counts as so many.
    pub calls: u64,
    /// A baseline of less money counts as so much.
    pub cost: Usd,
    /// Whether spending is paused until an operator resumes it.
    pub pause: bool,
}

/// What one window, or several together, came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Calls.
    pub calls: u64,
    /// Millionths of a dollar, priced and reported.
    pub cost: u64,
}

/// A window that is far above its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spike {
    /// `calls` or `cost_usd`.
    pub what: &'static str,
    /// How much the window came to.
    pub now: u64,
    /// How much is usual: the mean of the windows before, or the floor.
    pub usual: u64,
}

impl SpikeRule {
    /// Whether `now` is a spike after windows that came to `before` together. Windows in which nothing was spent count.
    #[must_use]
    pub fn judge(&self, now: Spent, before: Spent) -> Option<Spike> {
        let windows = u64::from(self.baseline.max(1));
        let judge = |what, now: u64, before: u64, floor: u64| {
            let usual = (before / windows).max(floor);
            (now > usual.saturating_mul(self.factor.into())).then_some(Spike { what, now, usual })
        };
        judge("calls", now.calls, before.calls, self.calls)
            .or_else(|| judge("cost_usd", now.cost, before.cost, self.cost.micro()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: SpikeRule =
        SpikeRule { window_ms: 1, baseline: 4, factor: 3, calls: 5, cost: Usd::of_micro(100), pause: false };

    #[test]
    fn r28_a_window_is_a_spike_above_the_factor_and_not_at_it() {
        let calls = |now, before| RULE.judge(Spent { calls: now, cost: 0 }, Spent { calls: before, cost: 0 });
        assert_eq!(calls(30, 40), None, "three times the mean of ten");
        assert_eq!(calls(31, 40), Some(Spike { what: "calls", now: 31, usual: 10 }));
        assert_eq!(calls(15, 0), None, "the floor counts as five");
        assert_eq!(calls(16, 0).map(|spike| spike.usual), Some(5));
        let cost = |now, before| RULE.judge(Spent { calls: 0, cost: now }, Spent { calls: 0, cost: before });
        assert_eq!((cost(300, 400), cost(301, 400).map(|spike| spike.what)), (None, Some("cost_usd")));
        assert_eq!(calls(u64::MAX, u64::MAX).map(|spike| spike.usual), Some(u64::MAX / 4), "nothing overflows");
    }
}
