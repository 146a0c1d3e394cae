//! Fields, cases and names of a type, in their order and found by name.
//!
//! A type may have thousands of cases, and a value of it may be a list of thousands of them: a search from the first case on
//! would be work that nothing meters. Short tables are searched so, because that is faster there.

use std::fmt;
use std::ops::Deref;

use super::{Case, Field, Name};

/// Parts up to which a table is searched from its begin.
const FEW: usize = 8;

/// Something of a type that has a name.
pub trait Named {
    /// Its name.
    fn name(&self) -> &str;
}

impl Named for Name {
    fn name(&self) -> &str {
        self
    }
}

impl Named for Field {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Case {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Named parts of a type. It is a slice of them, in their order.
#[derive(Clone)]
pub struct Table<T> {
    parts: Box<[T]>,
    /// Their places by name; nothing where there are few.
    order: Box<[usize]>,
}

impl<T: Named> Table<T> {
    /// The part of this name, and its place.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(usize, &T)> {
        if self.order.is_empty() {
            return self.parts.iter().enumerate().find(|(_, part)| part.name() == name);
        }
        let named = |at: &usize| self.parts.get(*at).map_or("", Named::name);
        let found = self.order.binary_search_by(|at| named(at).cmp(name)).ok()?;
        let at = *self.order.get(found)?;
        Some((at, self.parts.get(at)?))
    }
}

impl<T: Named> FromIterator<T> for Table<T> {
    fn from_iter<I: IntoIterator<Item = T>>(parts: I) -> Self {
        let parts: Box<[T]> = parts.into_iter().collect();
        let mut order = Vec::new();
        if parts.len() > FEW {
            let mut places: Vec<(usize, &T)> = parts.iter().enumerate().collect();
            places.sort_by(|a, b| a.1.name().cmp(b.1.name()));
            order.extend(places.into_iter().map(|(at, _)| at));
        }
        Self { parts, order: order.into() }
    }
}

impl<T: Named, const N: usize> From<[T; N]> for Table<T> {
    fn from(parts: [T; N]) -> Self {
        parts.into_iter().collect()
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.parts
    }
}

impl<'t, T> IntoIterator for &'t Table<T> {
    type Item = &'t T;
    type IntoIter = std::slice::Iter<'t, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.parts.iter()
    }
}

impl<T: PartialEq> PartialEq for Table<T> {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl<T: Eq> Eq for Table<T> {}

impl<T: fmt::Debug> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found_at_its_place_and_no_other_in_short_tables_and_in_long_ones() {
        for count in [0, 1, FEW, FEW + 1, 1_000] {
            let name = |at: usize| format!("n{}", (at * 7_919) % 10_007);
            let table: Table<Name> = (0..count).map(|at| name(at).into()).collect();
            for at in 0..count {
                assert_eq!(table.find(&name(at)).map(|(place, part)| (place, part.to_string())), Some((at, name(at))));
            }
            assert!(["", "n", "nn", "n10007"].iter().all(|absent| table.find(absent).is_none()), "{count}");
        }
    }
}
