//! Exact amounts: decimal numbers as whole millionths, so that sums of cents are right.
//!
//! Absent on purpose: currencies. A column has one.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// Decimals that are kept: enough for unit prices and most currencies.
const DECIMALS: usize = 6;

/// Digits before the decimals: more than any ledger needs, and so few that 10^14 of the largest amounts
/// add up without leaving the range of `i128`.
const WHOLE_DIGITS: usize = 18;

/// One, in units of the last decimal.
const ONE: i128 = 1_000_000;

/// What separates whole numbers from decimals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decimal {
    /// As in `1,234.50`.
    #[default]
    Point,
    /// As in `1.234,50`.
    Comma,
}

/// An exact amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount(i128);

impl Amount {
    /// Read an amount such as `-1,234.50`; nothing if it is none or has more than 18 digits or six decimals.
    pub(crate) fn parse(text: &str, decimal: Decimal) -> Option<Self> {
        let (point, group) = match decimal {
            Decimal::Point => ('.', ','),
            Decimal::Comma => (',', '.'),
        };
        let text = text.trim();
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, decimals) = digits.split_once(point).unwrap_or((digits, ""));
        let mut groups = whole.split(group);
        let first = groups.next().map_or(0, str::len);
        let mut groups = groups.peekable();
        let led = groups.peek().is_none() || matches!(first, 1..=3);
        let grouped = led && groups.all(|part| part.len() == 3);
        let whole: String = whole.split(group).collect();
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let empty = whole.is_empty() && decimals.is_empty();
        let long = whole.len() > WHOLE_DIGITS || decimals.len() > DECIMALS;
        if empty || long || !grouped || !plain(&whole) || !plain(decimals) {
            return None;
        }
        let units: i128 = format!("{whole}{decimals:0<DECIMALS$}").parse().ok()?;
        Some(Self(if negative { -units } else { units }))
    }

    /// The sum.
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        // Never reached by amounts of at most `WHOLE_DIGITS` digits.
        Self(self.0.saturating_add(other.0))
    }
}

/// With two decimals, or as many more as it needs.
impl fmt::Display for Amount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        let one = ONE.unsigned_abs();
        let decimals = format!("{:0DECIMALS$}", units % one);
        let shown = decimals.trim_end_matches('0');
        write!(out, "{sign}{}.{shown:0<2}", units / one)
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, Decimal};

    fn point(text: &str) -> Option<String> {
        Amount::parse(text, Decimal::Point).map(|amount| amount.to_string())
    }

    #[test]
    fn amounts_are_read_exactly() {
        let cases = [
            ("12.5", "12.50"),
            ("-0.05", "-0.05"),
            ("+7", "7.00"),
            (" 1,234,567.891 ", "1234567.891"),
            (".5", "0.50"),
            ("5.", "5.00"),
            ("0.000001", "0.000001"),
        ];
        for (text, expected) in cases {
            assert_eq!(point(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_nothing() {
        for text in
            ["", "-", ".", "one", "1.2.3", "1,23.0", "0.0000001", "1 000", "--1", "1e3", "12€", ",234", "1234,567"]
        {
            assert_eq!(point(text), None, "{text}");
        }
        assert_eq!(point(&"9".repeat(19)), None);
        assert!(point(&"9".repeat(18)).is_some());
    }

    #[test]
    fn a_comma_separates_decimals_where_asked() {
        assert_eq!(
            Amount::parse("1.234,5", Decimal::Comma).map(|amount| amount.to_string()).as_deref(),
            Some("1234.50")
        );
        assert_eq!(Amount::parse("1,5", Decimal::Point), None);
    }

    #[test]
    fn tenths_add_up() {
        let tenth = Amount::parse("0.1", Decimal::Point).unwrap_or_default();
        let sum = (0..10).fold(Amount::default(), |sum, _| sum.plus(tenth));
        assert_eq!(sum.to_string(), "1.00");
    }
}
