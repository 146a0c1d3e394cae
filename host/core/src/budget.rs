//! Budgets: what a run or a ceiling may use, what is used and reserved, and what fits beside it.
//!
//! Everything is a whole number: money is millionths of a dollar, time is milliseconds. Arithmetic saturates, so that no amount
//! that anybody writes makes room by overflowing. What the host meters (steps, calls, time, fuel, cost, bytes, requests,
//! approvals) and what callers report (tokens, the cost of their model) are added up apart; both count against a limit
//! (D24). Nothing here knows where amounts are kept.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::price::Usd;

/// Largest amount that anybody may write or report: sums of thousands of them stay exact in 64 bits.
pub const AMOUNT_MAX: u64 = 1_000_000_000_000_000;
/// Units of fuel that have one price.
pub const FUEL_PRICED: u64 = 1_000_000_000;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Meter {
    /// Steps of the agent: every call is one, and those that it reports.
    Steps,
    /// Calls that were admitted.
    Calls,
    /// Milliseconds that calls took, waiting for people excluded.
    WallMs,
    /// Units of fuel.
    Fuel,
    /// Millionths of a dollar: priced by the host and reported by the caller.
    Cost,
    /// Tokens of models, as reported.
    Tokens,
    /// Bytes of new content that were committed.
    BytesWritten,
    /// Requests to other systems.
    Requests,
    /// Approvals that wait at one time.
    Approvals,
}

impl Meter {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Steps,
        Self::Calls,
        Self::WallMs,
        Self::Fuel,
        Self::Cost,
        Self::Tokens,
        Self::BytesWritten,
        Self::Requests,
        Self::Approvals,
    ];

    /// The word for it, in files, requests and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Calls => "calls",
            Self::WallMs => "wall_ms",
            Self::Fuel => "fuel",
            Self::Cost => "cost_usd",
            Self::Tokens => "tokens",
            Self::BytesWritten => "bytes_written",
            Self::Requests => "requests",
            Self::Approvals => "approvals",
        }
    }

    /// An amount of it as people read it.
    #[must_use]
    pub fn text(self, amount: u64) -> String {
        if self == Self::Cost { Usd::of_micro(amount).to_string() } else { amount.to_string() }
    }
}

/// What is used, reserved or wanted, meter by meter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each field is the meter of the same name, documented there")]
pub struct Amounts {
    pub steps: u64,
    pub calls: u64,
    pub wall_ms: u64,
    pub fuel: u64,
    /// Millionths of a dollar, priced by the host.
    pub cost: u64,
    pub tokens: u64,
    pub bytes_written: u64,
    pub requests: u64,
    pub approvals: u64,
    /// Millionths of a dollar, as callers report them.
    pub reported_cost: u64,
}

impl Amounts {
    /// What counts against the limit of a meter.
    #[must_use]
    pub const fn of(&self, meter: Meter) -> u64 {
        match meter {
            Meter::Steps => self.steps,
            Meter::Calls => self.calls,
            Meter::WallMs => self.wall_ms,
            Meter::Fuel => self.fuel,
            Meter::Cost => self.cost.saturating_add(self.reported_cost),
            Meter::Tokens => self.tokens,
            Meter::BytesWritten => self.bytes_written,
            Meter::Requests => self.requests,
            Meter::Approvals => self.approvals,
        }
    }

    fn each(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            steps: with(self.steps, other.steps),
            calls: with(self.calls, other.calls),
            wall_ms: with(self.wall_ms, other.wall_ms),
            fuel: with(self.fuel, other.fuel),
            cost: with(self.cost, other.cost),
            tokens: with(self.tokens, other.tokens),
            bytes_written: with(self.bytes_written, other.bytes_written),
            requests: with(self.requests, other.requests),
            approvals: with(self.approvals, other.approvals),
            reported_cost: with(self.reported_cost, other.reported_cost),
        }
    }

    /// Both together, at most what 64 bits hold.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// What is left without the other, at least nothing.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_sub)
    }
}

/// What may be used; a meter without a limit is counted and not bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is the limit of the meter of the same name, documented there")]
pub struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_written: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<u64>,
}

impl Limits {
    /// The limit of a meter, if it has one.
    #[must_use]
    pub fn of(&self, meter: Meter) -> Option<u64> {
        match meter {
            Meter::Steps => self.steps,
            Meter::Calls => self.calls,
            Meter::WallMs => self.wall_ms,
            Meter::Fuel => self.fuel,
            Meter::Cost => self.cost_usd.map(Usd::micro),
            Meter::Tokens => self.tokens,
            Meter::BytesWritten => self.bytes_written,
            Meter::Requests => self.requests,
            Meter::Approvals => self.approvals,
        }
    }

    fn each(&self, other: &Self, with: impl Fn(Option<u64>, Option<u64>) -> Option<u64>) -> Self {
        let cost = with(self.cost_usd.map(Usd::micro), other.cost_usd.map(Usd::micro));
        Self {
            steps: with(self.steps, other.steps),
            calls: with(self.calls, other.calls),
            wall_ms: with(self.wall_ms, other.wall_ms),
            fuel: with(self.fuel, other.fuel),
            cost_usd: cost.map(Usd::of_micro),
            tokens: with(self.tokens, other.tokens),
            bytes_written: with(self.bytes_written, other.bytes_written),
            requests: with(self.requests, other.requests),
            approvals: with(self.approvals, other.approvals),
        }
    }

    /// The narrower of both, meter by meter: what is asked for never widens what there is.
    #[must_use]
    pub fn narrowed(&self, asked: &Self) -> Self {
        self.each(asked, |have, asked| match (have, asked) {
            (Some(have), Some(asked)) => Some(have.min(asked)),
            (have, asked) => have.or(asked),
        })
    }

    /// With more room, where there is a limit.
    #[must_use]
    pub fn raised(&self, by: &Self) -> Self {
        self.each(by, |have, by| have.map(|have| have.saturating_add(by.unwrap_or(0))))
    }

    /// Whether nothing is bounded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first meter whose limit is too large to be meant.
    ///
    /// # Errors
    /// That meter.
    pub fn check(&self) -> Result<(), Meter> {
        let large = |meter: &Meter| self.of(*meter).is_some_and(|limit| limit > AMOUNT_MAX);
        Meter::ALL.into_iter().find(large).map_or(Ok(()), Err)
    }

    /// How much of a meter is left beside what is used and reserved; nothing where it is not bounded.
    #[must_use]
    pub fn left(&self, meter: Meter, used: &Amounts, reserved: &Amounts) -> Option<u64> {
        let taken = used.of(meter).saturating_add(reserved.of(meter));
        self.of(meter).map(|limit| limit.saturating_sub(taken))
    }

    /// Whether `wanted` fits beside what is used and reserved. A meter of which nothing is wanted does not matter, however far
    /// over its limit it is, except that nothing begins any more when what callers reported alone is over.
    ///
    /// # Errors
    /// The first meter that does not have room.
    pub fn fit(&self, used: &Amounts, reserved: &Amounts, wanted: &Amounts) -> Result<(), Exceeded> {
        for meter in Meter::ALL {
            let Some(limit) = self.of(meter) else { continue };
            let (used, reserved, wanted) = (used.of(meter), reserved.of(meter), wanted.of(meter));
            let all = used.saturating_add(reserved).saturating_add(wanted);
            let reported = matches!(meter, Meter::Tokens | Meter::Cost) && used > limit;
            if (wanted > 0 && all > limit) || reported {
                return Err(Exceeded { meter, limit, used, reserved, wanted });
            }
        }
        Ok(())
    }
}

/// A budget that has no room for what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Of what.
    pub meter: Meter,
    /// How much there may be.
    pub limit: u64,
    /// How much is used.
    pub used: u64,
    /// How much is reserved by calls that run.
    pub reserved: u64,
    /// How much more was wanted.
    pub wanted: u64,
}

impl Exceeded {
    /// By how much.
    #[must_use]
    pub const fn by(&self) -> u64 {
        self.used.saturating_add(self.reserved).saturating_add(self.wanted).saturating_sub(self.limit)
    }

    /// Whether it may fit when calls that run give back what they reserved.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        self.reserved > 0 && self.used.saturating_add(self.wanted) <= self.limit
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |amount| self.meter.text(amount);
        write!(f, "{} of {} {} used", text(self.used), text(self.limit), self.meter.word())?;
        if self.reserved > 0 {
            write!(f, ", {} reserved by calls that run", text(self.reserved))?;
        }
        if self.wanted > 0 {
            write!(f, ", {} more wanted", text(self.wanted))?;
        }
        Ok(())
    }
}

/// What happens to calls that do not fit into a budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverBudget {
    /// They are refused.
    #[default]
    Stop,
    /// They are refused until an operator gives more room.
    Hold,
    /// Read-only calls go on, the others are refused.
    Degrade,
}

/// What a tool costs, besides its requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    /// Of one call, in millionths of a dollar.
    pub call: u64,
    /// Of [`FUEL_PRICED`] units of fuel.
    pub fuel: u64,
    /// Of one message.
    pub message: u64,
    /// Of one request that is answered while the tool runs: the dearest that its grants name.
    pub request: u64,
}

impl Price {
    /// What an execution costs, rounded up.
    #[must_use]
    pub fn of(&self, fuel: u64, requests: u64) -> u64 {
        let fuel = (u128::from(fuel) * u128::from(self.fuel)).div_ceil(u128::from(FUEL_PRICED));
        let fuel = u64::try_from(fuel).unwrap_or(u64::MAX);
        self.call.saturating_add(fuel).saturating_add(requests.saturating_mul(self.request))
    }

    /// The most fuel that `left` pays for, beside the call itself.
    #[must_use]
    pub fn fuel_for(&self, left: u64) -> u64 {
        if self.fuel == 0 {
            return u64::MAX;
        }
        let fuel = u128::from(left.saturating_sub(self.call)) * u128::from(FUEL_PRICED) / u128::from(self.fuel);
        u64::try_from(fuel).unwrap_or(u64::MAX)
    }

    /// The most requests that `left` pays for, beside call and fuel.
    #[must_use]
    pub fn requests_for(&self, left: u64, fuel: u64) -> u64 {
        let left = left.saturating_sub(self.of(fuel, 0));
        left.checked_div(self.request).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn r26_every_limit_holds_at_n_and_is_exceeded_at_n_plus_1() {
        let all = |n: u64| Amounts {
            steps: n,
            calls: n,
            wall_ms: n,
            fuel: n,
            cost: n,
            tokens: n,
            bytes_written: n,
            requests: n,
            approvals: n,
            reported_cost: 0,
        };
        for meter in Meter::ALL {
            let value = if meter == Meter::Cost { json!({"cost_usd": "0.000010"}) } else { json!({meter.word(): 10}) };
            let limits: Limits = serde_json::from_value(value).expect("limits");
            assert!(limits.fit(&all(4), &all(3), &all(3)).is_ok(), "{meter:?}");
            let over = limits.fit(&all(4), &all(3), &all(4)).expect_err("over");
            assert_eq!((over.meter, over.by(), over.may_pass()), (meter, 1, true));
            let over = limits.fit(&all(7), &all(0), &all(4)).expect_err("over");
            assert!(!over.may_pass(), "{over}");
            assert_eq!(limits.left(meter, &all(4), &all(3)), Some(3));
            assert!(limits.fit(&all(u64::MAX), &all(u64::MAX), &all(u64::MAX)).is_err(), "nothing overflows into room");
        }
    }

    #[test]
    fn r26_what_is_reported_counts_against_cost_and_tokens_and_stops_what_wants_neither() {
        let limits = Limits { cost_usd: Some(Usd::of_micro(10)), tokens: Some(5), ..Limits::default() };
        let reported = |cost, tokens| Amounts { reported_cost: cost, tokens, ..Amounts::default() };
        let call = Amounts { calls: 1, ..Amounts::default() };
        let none = Amounts::default();
        assert!(limits.fit(&reported(10, 5), &none, &call).is_ok());
        assert_eq!(limits.fit(&reported(11, 5), &none, &call).map_err(|e| e.meter), Err(Meter::Cost));
        assert_eq!(limits.fit(&reported(10, 6), &none, &call).map_err(|e| e.meter), Err(Meter::Tokens));
        let priced = Amounts { cost: 1, ..call };
        assert_eq!(limits.fit(&reported(10, 0), &none, &priced).map_err(|e| e.by()), Err(1));
    }

    #[test]
    fn r26_asking_only_narrows_and_raising_widens_only_what_is_bounded() {
        let have = Limits { calls: Some(5), fuel: Some(100), ..Limits::default() };
        let asked = Limits { calls: Some(9), fuel: Some(7), steps: Some(3), ..Limits::default() };
        let got = have.narrowed(&asked);
        assert_eq!((got.calls, got.fuel, got.steps, got.tokens), (Some(5), Some(7), Some(3), None));
        let raised = have.raised(&Limits { calls: Some(2), steps: Some(1), fuel: Some(u64::MAX), ..Limits::default() });
        assert_eq!((raised.calls, raised.fuel, raised.steps), (Some(7), Some(u64::MAX), None));
        let at = |n| Limits { calls: Some(n), ..Limits::default() }.check();
        assert_eq!((at(AMOUNT_MAX), at(AMOUNT_MAX + 1)), (Ok(()), Err(Meter::Calls)));
        for wrong in [json!({"calls": -1}), json!({"calls": 1.5}), json!({"call": 1}), json!({"cost_usd": "-1"})] {
            assert!(serde_json::from_value::<Limits>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn prices_round_up_and_never_pay_for_more_than_there_is() {
        let price = Price { call: 10, fuel: 3, message: 0, request: 5 };
        assert_eq!((price.of(0, 0), price.of(1, 0), price.of(FUEL_PRICED, 2)), (10, 11, 23));
        assert_eq!(price.of(u64::MAX, u64::MAX), u64::MAX);
        for left in [10, 11, 13, 100] {
            let fuel = price.fuel_for(left);
            assert!(price.of(fuel, 0) <= left, "{left}");
            assert!(price.of(fuel + 1 + FUEL_PRICED / 3, 0) > left, "{left}");
        }
        assert_eq!((price.requests_for(23, FUEL_PRICED), price.requests_for(22, FUEL_PRICED)), (2, 1));
        assert_eq!((Price::default().fuel_for(0), Price::default().requests_for(0, 7)), (u64::MAX, u64::MAX));
    }
}
