//! The Merkle tree over the audit chain (RFC 6962, section 2.1; the algorithms that verify are those of RFC 9162).
//!
//! The leaf of an entry is the hash of its digest, so that whoever has digests alone can follow the tree. Nothing is kept
//! here but a [`Frontier`], which is all that appending needs; a proof asks for the hashes of perfect subtrees, which
//! never change once they are complete, through a function of whoever keeps them. So a tree of a million entries is
//! appended to and proved in a few dozen hashes. There is no tree in memory and no removal.

use crate::digest::{Digest, Hasher};

/// What the hash of a leaf begins with, so that no inner node can be taken for one.
const LEAF: [u8; 1] = [0];
/// What the hash of an inner node begins with.
const NODE: [u8; 1] = [1];

/// The hash of a leaf.
#[must_use]
pub fn leaf(entry: &Digest) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(&LEAF);
    hasher.update(entry.as_bytes());
    hasher.finish()
}

/// The hash of a node above two.
#[must_use]
pub fn node(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(&NODE);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    hasher.finish()
}

/// The root of an empty tree.
#[must_use]
pub fn empty() -> Digest {
    Digest::of(b"")
}

/// A subtree over 2^`level` leaves, the first of which is number `index` * 2^`level`. It has all of its leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Perfect {
    /// Its height; a leaf has 0.
    pub level: u8,
    /// Its place among those of its height, from 0.
    pub index: u64,
}

impl Perfect {
    /// Its first leaf, from 0.
    #[must_use]
    pub const fn first_leaf(self) -> u64 {
        self.index << self.level
    }

    /// How many leaves it has.
    #[must_use]
    pub const fn leaves(self) -> u64 {
        1 << self.level
    }
}

/// The perfect subtrees of which a tree of `size` leaves consists, from the left: one for each bit of the number.
#[must_use]
pub fn peaks(size: u64) -> Vec<Perfect> {
    let mut found = Vec::new();
    let mut first = 0;
    for level in (0..u8::try_from(u64::BITS).unwrap_or(0)).rev().filter(|level| size >> level & 1 == 1) {
        found.push(Perfect { level, index: first >> level });
        first += 1 << level;
    }
    found
}

/// The right edge of a tree: all that appending needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    /// Hashes of [`peaks`], from the left.
    peaks: Vec<Digest>,
}

impl Frontier {
    /// The edge of a tree whose peaks have these hashes. Nothing if there are not as many as there must be.
    #[must_use]
    pub fn of(size: u64, peaks: Vec<Digest>) -> Option<Self> {
        (usize::try_from(size.count_ones()).ok() == Some(peaks.len())).then_some(Self { size, peaks })
    }

    /// How many leaves there are.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Append the leaf of an entry. `made` hears of every subtree that becomes complete by it, leaves included, from below.
    pub fn push(&mut self, entry: &Digest, made: impl FnMut(Perfect, Digest)) {
        self.push_leaf(leaf(entry), made);
    }

    /// Append a leaf by its hash.
    pub fn push_leaf(&mut self, leaf: Digest, mut made: impl FnMut(Perfect, Digest)) {
        let mut place = Perfect { level: 0, index: self.size };
        let mut hash = leaf;
        made(place, hash);
        while place.index & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node(&left, &hash);
            place = Perfect { level: place.level + 1, index: place.index >> 1 };
            made(place, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut from_right = self.peaks.iter().rev().copied();
        let Some(last) = from_right.next() else { return empty() };
        from_right.fold(last, |right, left| node(&left, &right))
    }
}

/// The largest power of two that is smaller than `size`, which is 2 or more.
const fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// The hash over `size` leaves from `first` on, a range that some tree has as a subtree.
fn range<E>(first: u64, size: u64, of: &mut impl FnMut(Perfect) -> Result<Digest, E>) -> Result<Digest, E> {
    if size == 0 {
        return Ok(empty());
    }
    let level = u8::try_from(size.trailing_zeros()).unwrap_or(0);
    if size.is_power_of_two() && first.trailing_zeros() >= u32::from(level) {
        return of(Perfect { level, index: first >> level });
    }
    let left = split(size);
    Ok(node(&range(first, left, of)?, &range(first + left, size - left, of)?))
}

/// The root of a tree of `size` leaves, from hashes of perfect subtrees.
///
/// # Errors
/// Those of `of`.
pub fn root<E>(size: u64, mut of: impl FnMut(Perfect) -> Result<Digest, E>) -> Result<Digest, E> {
    range(0, size, &mut of)
}

/// What proves that leaf `index`, from 0, is in the tree of `size` leaves: hashes from below. Nothing if it is not.
///
/// # Errors
/// Those of `of`.
pub fn inclusion<E>(
    index: u64,
    size: u64,
    mut of: impl FnMut(Perfect) -> Result<Digest, E>,
) -> Result<Option<Vec<Digest>>, E> {
    if index >= size {
        return Ok(None);
    }
    let (mut first, mut length, mut path) = (0, size, Vec::new());
    while length > 1 {
        let left = split(length);
        if index - first < left {
            path.push(range(first + left, length - left, &mut of)?);
            length = left;
        } else {
            path.push(range(first, left, &mut of)?);
            first += left;
            length -= left;
        }
    }
    path.reverse();
    Ok(Some(path))
}

/// What proves that the tree of `old` leaves is the beginning of the tree of `size` leaves. Nothing if `old` is not between
/// 1 and `size`.
///
/// # Errors
/// Those of `of`.
pub fn consistency<E>(
    old: u64,
    size: u64,
    mut of: impl FnMut(Perfect) -> Result<Digest, E>,
) -> Result<Option<Vec<Digest>>, E> {
    if old == 0 || old > size {
        return Ok(None);
    }
    let (mut first, mut length, mut path) = (0, size, Vec::new());
    // Whether the subtree is the whole old tree, whose root the verifier has.
    let mut whole = true;
    while old - first < length {
        let left = split(length);
        if old - first <= left {
            path.push(range(first + left, length - left, &mut of)?);
            length = left;
        } else {
            path.push(range(first, left, &mut of)?);
            first += left;
            length -= left;
            whole = false;
        }
    }
    if !whole {
        path.push(range(first, length, &mut of)?);
    }
    path.reverse();
    Ok(Some(path))
}

/// Whether a proof shows that an entry is leaf `index` of the tree with this root (RFC 9162, section 2.1.3.2).
#[must_use]
pub fn includes((size, root): (u64, &Digest), index: u64, entry: &Digest, proof: &[Digest]) -> bool {
    if index >= size {
        return false;
    }
    let (mut up, mut hash) = (Climb { place: index, last: size - 1 }, leaf(entry));
    for sibling in proof {
        hash = match up.next() {
            Some(Side::Left) => node(sibling, &hash),
            Some(Side::Right) => node(&hash, sibling),
            None => return false,
        };
    }
    up.is_over() && hash == *root
}

/// On which side the sibling is.
enum Side {
    Left,
    Right,
}

/// The way up from a node to the root: `fn` and `sn` of RFC 9162.
struct Climb {
    place: u64,
    last: u64,
}

impl Climb {
    /// Where the next sibling stands; nothing at the root.
    const fn next(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let left = self.place & 1 == 1 || self.place == self.last;
        // A node without a sibling is its own parent: such levels are passed over.
        while left && self.place & 1 == 0 && self.place != 0 {
            self.rise();
        }
        self.rise();
        Some(if left { Side::Left } else { Side::Right })
    }

    const fn rise(&mut self) {
        self.place >>= 1;
        self.last >>= 1;
    }

    const fn is_over(&self) -> bool {
        self.last == 0
    }
}

/// Whether a proof shows that one tree is the beginning of another (RFC 9162, section 2.1.4.2).
#[must_use]
pub fn extends((old, old_root): (u64, &Digest), (size, root): (u64, &Digest), proof: &[Digest]) -> bool {
    if old == 0 || old > size {
        return false;
    }
    if old == size {
        return proof.is_empty() && old_root == root;
    }
    let own = old.is_power_of_two().then_some(old_root);
    let mut path = own.into_iter().chain(proof);
    let Some(begun) = path.next() else { return false };
    let mut up = Climb { place: old - 1, last: size - 1 };
    while up.place & 1 == 1 {
        up.rise();
    }
    let (mut before, mut after) = (*begun, *begun);
    for sibling in path {
        match up.next() {
            Some(Side::Left) => (before, after) = (node(sibling, &before), node(sibling, &after)),
            Some(Side::Right) => after = node(&after, sibling),
            None => return false,
        }
    }
    up.is_over() && before == *old_root && after == *root
}

#[cfg(test)]
mod tests;
