//! Whether somebody who agrees still looks: how many agreements of one person in an hour are too many, and how many in a row
//! came so fast that nobody can have read what they agreed to.
//!
//! Saying no is never too fast and never too often. Pure: the moments are on record, and what becomes of a finding is for the
//! host.

/// An hour, in milliseconds.
pub const HOUR_MS: u64 = 3_600_000;

/// What one person may agree to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionRule {
    /// Agreements of one person in an hour; nothing for any number.
    pub per_hour: Option<u32>,
    /// Two agreements that are no further apart are hasty, in milliseconds; zero for none.
    pub hasty_ms: u64,
    /// So many hasty ones in a row are told of.
    pub in_a_row: u32,
}

impl AttentionRule {
    /// How many of the latest agreements have to be known.
    #[must_use]
    pub fn depth(&self) -> u32 {
        // The agreement itself, its row, and the one before the row.
        self.per_hour.unwrap_or(0).max(self.in_a_row.saturating_add(2))
    }

    /// Whether one more agreement is too many by now, after these (the latest first, at least [`Self::depth`] of them if there
    /// are so many): then how long to wait, in milliseconds.
    #[must_use]
    pub fn too_many(&self, before_ms: &[u64], now_ms: u64) -> Option<u64> {
        let most = usize::try_from(self.per_hour?).unwrap_or(usize::MAX);
        // With as many as are allowed within the hour, the oldest of these has to leave it first.
        let oldest = *before_ms.get(most.checked_sub(1)?)?;
        let leaves_ms = oldest.saturating_add(HOUR_MS);
        (leaves_ms > now_ms).then(|| leaves_ms - now_ms)
    }

    /// Whether the agreement of this moment makes the row of hasty ones just as long as is told of: a row is told of once.
    #[must_use]
    pub fn is_hasty(&self, before_ms: &[u64], now_ms: u64) -> bool {
        if self.hasty_ms == 0 || self.in_a_row == 0 {
            return false;
        }
        let mut next = now_ms;
        let row = before_ms.iter().take_while(|before| {
            let close = next.saturating_sub(**before) <= self.hasty_ms;
            next = **before;
            close
        });
        u32::try_from(row.count()) == Ok(self.in_a_row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: AttentionRule = AttentionRule { per_hour: Some(3), hasty_ms: 1_000, in_a_row: 2 };

    #[test]
    fn t_p8_agreements_of_an_hour_hold_at_n_and_not_above() {
        let now = 10 * HOUR_MS;
        assert_eq!(RULE.too_many(&[now - 1, now - 2], now), None, "the third is the last");
        assert_eq!(RULE.too_many(&[now - 1, now - 2, now - 60_000], now), Some(HOUR_MS - 60_000));
        assert_eq!(RULE.too_many(&[now - 1, now - 2, now - HOUR_MS], now), None, "the oldest has left the hour");
        assert_eq!(RULE.too_many(&[now - 1, now - 2, now - HOUR_MS + 1], now), Some(1));
        let any = AttentionRule { per_hour: None, ..RULE };
        assert_eq!(any.too_many(&[now; 100], now), None);
        let none = AttentionRule { per_hour: Some(0), ..RULE };
        assert_eq!(none.too_many(&[], now), None, "no number is no bound");
    }

    #[test]
    fn t_p8_a_row_of_hasty_agreements_is_told_of_when_it_is_as_long_as_the_rule_says() {
        let at = |before: &[u64]| RULE.is_hasty(before, 100_000);
        assert!(!at(&[]) && !at(&[99_000]), "one hasty one is no row");
        assert!(at(&[99_000, 98_000]));
        assert!(at(&[99_000, 98_000, 96_999]), "the row ends at a pause that is longer");
        assert!(!at(&[99_000, 98_000, 97_000]), "told of before");
        assert!(!at(&[98_999, 98_000]), "a pause that is long enough begins anew");
        let never = AttentionRule { hasty_ms: 0, ..RULE };
        assert!(!never.is_hasty(&[100_000; 9], 100_000));
    }

    #[test]
    fn as_many_are_asked_for_as_either_bound_needs() {
        let many = AttentionRule { per_hour: Some(9), ..RULE };
        assert_eq!((RULE.depth(), many.depth(), AttentionRule { in_a_row: 5, ..RULE }.depth()), (4, 9, 7));
    }
}
