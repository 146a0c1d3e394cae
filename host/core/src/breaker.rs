//! Circuit breakers: what fails again and again rests, and is tried with one call before all are let through again.
//!
//! A pure state machine: closed, open, half open. Failures are counted from the first one on, for the length of a window; the
//! circuit opens when there are as many as its rules say and at least half of the calls in the window failed. After its rest
//! one call is let through as a probe; how it ends decides. Results of calls that were let through before a circuit
//! opened change nothing any more. An operator may hold a circuit open, or close it.
//!
//! Not here: what counts as a failure, and the clock.

use serde::{Deserialize, Serialize};

use crate::manifest::BadManifest;

/// Most failures that rules may wait for.
pub const FAILURES_MAX: u32 = 10_000;
/// Longest window and longest rest, in seconds: a day.
pub const SECONDS_MAX: u64 = 86_400;
const MS_PER_S: u64 = 1_000;

/// `[breaker]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerText {
    /// Failures that open the circuit; 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// Seconds in which they have to happen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_s: Option<u64>,
    /// Seconds for which it rests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_s: Option<u64>,
}

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// Failures that open it; 0 for never.
    pub failures: u32,
    /// In how long they have to happen, in milliseconds.
    pub window_ms: u64,
    /// How long it rests, in milliseconds.
    pub open_ms: u64,
}

impl Default for BreakerRules {
    /// Ten failures in a minute are no accident, and half a minute is what a restart of the other side takes.
    fn default() -> Self {
        Self { failures: 10, window_ms: 60 * MS_PER_S, open_ms: 30 * MS_PER_S }
    }
}

impl BreakerText {
    /// What it means, over what is in force where it says nothing.
    ///
    /// # Errors
    /// The first key that is wrong, and why.
    pub fn check(&self, defaults: BreakerRules) -> Result<BreakerRules, BadManifest> {
        let seconds = |key: &str, value: Option<u64>, default_ms: u64| match value {
            None => Ok(default_ms),
            Some(value) if (1..=SECONDS_MAX).contains(&value) => Ok(value * MS_PER_S),
            Some(value) => {
                Err(BadManifest::new(format!("breaker.{key}"), format!("{value} is not between 1 and {SECONDS_MAX}")))
            }
        };
        let failures = self.failures.unwrap_or(defaults.failures);
        if failures > FAILURES_MAX {
            return Err(BadManifest::new(
                "breaker.failures",
                format!("{failures} is not between 0 and {FAILURES_MAX}"),
            ));
        }
        Ok(BreakerRules {
            failures,
            window_ms: seconds("window_s", self.window_s, defaults.window_ms)?,
            open_ms: seconds("open_s", self.open_s, defaults.open_ms)?,
        })
    }
}

/// A circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    rules: BreakerRules,
    phase: Phase,
}

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Everything is let through.
    Closed {
        /// When the window began; it has not where nothing failed.
        since_ms: u64,
        /// Failures in the window.
        failures: u32,
        /// Other ends in the window.
        successes: u32,
    },
    /// Nothing is let through.
    Open {
        /// Until then; for ever where an operator opened it.
        until_ms: Option<u64>,
    },
    /// A probe is under way since then, or the next who asks is one.
    HalfOpen {
        /// Since when, in milliseconds.
        probe_ms: Option<u64>,
    },
}

impl Phase {
    /// Nothing failed of late.
    const QUIET: Self = Self::Closed { since_ms: 0, failures: 0, successes: 0 };

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half-open",
        }
    }
}

/// How somebody was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Let {
    /// As everybody.
    Through,
    /// To see whether it works again.
    AsProbe,
}

/// How a call ended, or what an operator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerEvent {
    /// It worked.
    Success(Let),
    /// It failed.
    Failure(Let),
    /// It ended without saying anything about the circuit.
    Nothing(Let),
    /// An operator opens it until an operator closes it.
    Open,
    /// An operator closes it.
    Close,
}

impl Breaker {
    /// One of which nothing is known.
    #[must_use]
    pub const fn new(rules: BreakerRules) -> Self {
        Self { rules, phase: Phase::QUIET }
    }

    /// Where it stands.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Its rules.
    #[must_use]
    pub const fn rules(&self) -> BreakerRules {
        self.rules
    }

    /// Whether it is like one of which nothing is known.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.phase == Phase::QUIET
    }

    /// Whether somebody would be let through at `now_ms`.
    ///
    /// # Errors
    /// It is open: how long to wait, in milliseconds, where that is known.
    pub const fn look(&self, now_ms: u64) -> Result<(), Option<u64>> {
        match self.ask(now_ms) {
            Ok(_) => Ok(()),
            Err(wait) => Err(wait),
        }
    }

    /// Let somebody through at `now_ms`. The circuit after that, and how.
    ///
    /// # Errors
    /// It is open: how long to wait, in milliseconds, where that is known.
    pub const fn ask(&self, now_ms: u64) -> Result<(Self, Let), Option<u64>> {
        let probe = Self { rules: self.rules, phase: Phase::HalfOpen { probe_ms: Some(now_ms) } };
        match self.phase {
            Phase::Closed { .. } => Ok((*self, Let::Through)),
            Phase::Open { until_ms: None } => Err(None),
            Phase::Open { until_ms: Some(until_ms) } if now_ms < until_ms => Err(Some(until_ms - now_ms)),
            Phase::Open { until_ms: Some(_) } | Phase::HalfOpen { probe_ms: None } => Ok((probe, Let::AsProbe)),
            Phase::HalfOpen { probe_ms: Some(since_ms) } => {
                // A probe of which nothing was heard for as long as a rest is lost.
                let lost_ms = since_ms.saturating_add(self.rules.open_ms);
                if now_ms >= lost_ms { Ok((probe, Let::AsProbe)) } else { Err(Some(lost_ms - now_ms)) }
            }
        }
    }

    /// The circuit after an event at `now_ms`.
    #[must_use]
    pub fn after(&self, event: BreakerEvent, now_ms: u64) -> Self {
        let rules = self.rules;
        let opened = Phase::Open { until_ms: Some(now_ms.saturating_add(rules.open_ms)) };
        let phase = match (self.phase, event) {
            (_, BreakerEvent::Open) => Phase::Open { until_ms: None },
            (_, BreakerEvent::Close) => Phase::QUIET,
            (Phase::Closed { since_ms, failures, successes }, BreakerEvent::Failure(Let::Through)) => {
                let over = failures == 0 || now_ms.saturating_sub(since_ms) >= rules.window_ms;
                let (since_ms, failures, successes) =
                    if over { (now_ms, 1, 0) } else { (since_ms, failures.saturating_add(1), successes) };
                let enough = rules.failures > 0 && failures >= rules.failures && failures >= successes;
                if enough { opened } else { Phase::Closed { since_ms, failures, successes } }
            }
            (Phase::Closed { since_ms, failures, successes }, BreakerEvent::Success(Let::Through)) => {
                let over = failures == 0 || now_ms.saturating_sub(since_ms) >= rules.window_ms;
                let successes = successes.saturating_add(1);
                if over { Phase::QUIET } else { Phase::Closed { since_ms, failures, successes } }
            }
            (Phase::HalfOpen { .. }, BreakerEvent::Success(Let::AsProbe)) => Phase::QUIET,
            (Phase::HalfOpen { .. }, BreakerEvent::Failure(Let::AsProbe)) => opened,
            (Phase::HalfOpen { .. }, BreakerEvent::Nothing(Let::AsProbe)) => Phase::HalfOpen { probe_ms: None },
            // Let through before it opened, or an operator decided in the meantime.
            (
                Phase::Open { .. } | Phase::HalfOpen { .. },
                BreakerEvent::Success(Let::Through)
                | BreakerEvent::Failure(Let::Through)
                | BreakerEvent::Nothing(Let::Through),
            )
            | (
                Phase::Open { .. } | Phase::Closed { .. },
                BreakerEvent::Success(Let::AsProbe)
                | BreakerEvent::Failure(Let::AsProbe)
                | BreakerEvent::Nothing(Let::AsProbe),
            )
            | (Phase::Closed { .. }, BreakerEvent::Nothing(Let::Through)) => self.phase,
        };
        Self { rules, phase }
    }
}

#[cfg(test)]
mod tests;
