//! Prices: amounts in US dollars, exact to a millionth.
//!
//! What a request costs is a text of the manifest, what a call came to is a text of its reply; in between it is a whole
//! number, because sums of fractions that a machine cannot write are wrong after a while.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Millionths of a dollar.
const MICRO: u64 = 1_000_000;

/// An amount in US dollars. As text a decimal number with at most six places, for example `0.002`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(u64);

/// A text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount; write it like \"0.002\"")]
pub struct NoAmount(String);

impl Usd {
    /// An amount of so many millionths of a dollar.
    #[must_use]
    pub const fn of_micro(micro: u64) -> Self {
        Self(micro)
    }

    /// Millionths of a dollar.
    #[must_use]
    pub const fn micro(self) -> u64 {
        self.0
    }

    /// Both together; the largest amount where that is too much to count.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, places) = (self.0 / MICRO, self.0 % MICRO);
        if places == 0 {
            return write!(f, "{whole}");
        }
        let places = format!("{places:06}");
        write!(f, "{whole}.{}", places.trim_end_matches('0'))
    }
}

impl FromStr for Usd {
    type Err = NoAmount;

    fn from_str(text: &str) -> Result<Self, NoAmount> {
        let no_amount = || NoAmount(text.to_owned());
        let (whole, places) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || text.ends_with('.') || places.len() > 6 || !digits(whole) || !digits(places) {
            return Err(no_amount());
        }
        let whole: u64 = whole.parse().map_err(|_| no_amount())?;
        let places: u64 = format!("{places:0<6}").parse().map_err(|_| no_amount())?;
        whole.checked_mul(MICRO).and_then(|micro| micro.checked_add(places)).map(Self).ok_or_else(no_amount)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Texts and numbers; a number means what its shortest spelling says.
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Usd;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of dollars, for example \"0.25\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Usd, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, whole: u64) -> Result<Usd, E> {
                whole.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, whole: i64) -> Result<Usd, E> {
                whole.to_string().parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Usd, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_they_are_read() {
        for (text, micro) in [("0", 0), ("0.002", 2_000), ("12.5", 12_500_000), ("3", 3_000_000), ("0.000001", 1)] {
            let amount: Usd = text.parse().expect("an amount");
            assert_eq!((amount.micro(), amount.to_string().as_str()), (micro, text));
            assert_eq!(serde_json::to_string(&amount).expect("JSON"), format!("\"{text}\""));
        }
        assert_eq!("1.50".parse::<Usd>().map(|amount| amount.to_string()).as_deref(), Ok("1.5"));
        for text in ["", ".5", "1.", "-1", "1e3", "0.0000001", "1.5.0", "$1", "18446744073710"] {
            assert!(text.parse::<Usd>().is_err(), "{text}");
        }
    }

    #[test]
    fn r26_numbers_are_amounts_where_they_are_exact_and_nothing_negative_or_vague_is() {
        let usd = |text: &str| serde_json::from_str::<Usd>(text).ok().map(Usd::micro);
        assert_eq!((usd("0.1"), usd("3"), usd("\"0.25\"")), (Some(100_000), Some(3_000_000), Some(250_000)));
        for wrong in ["-1", "-0.5", "0.0000001", "1e300", "1e-9", "null", "true", "\" 1\"", "\"+1\"", "\"0x1\"", "[]"] {
            assert_eq!(usd(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_sum_that_cannot_be_counted_is_the_largest_amount() {
        let largest = Usd::of_micro(u64::MAX);
        assert_eq!(largest.plus(Usd::of_micro(1)), largest);
        assert_eq!(Usd::of_micro(1).plus(Usd::of_micro(2)), Usd::of_micro(3));
    }
}
