//! The Merkle tree over the audit entries, as it is kept: hashes of complete subtrees, written with the entries that
//! complete them.
//!
//! Small subtrees are not kept: the entries have their digests already, so that a node is written for every 64 of them and
//! none for most batches. What a start needs is the right edge of the tree, a few dozen rows however many entries there
//! are. Nothing here is believed that a checkpoint does not confirm; that is the work of [`super::verify`].

use rusqlite::{Connection, params};
use toolkeep_core::audit::ChainBroken;
use toolkeep_core::digest::Digest;
use toolkeep_core::merkle::{self, Frontier, Perfect};

use super::column::{Reading, digest_bytes, integer};
use super::failure::LedgerError;
use super::statement::{Failed, each, execute, row, rows};

/// The lowest level whose hashes are kept: one row for 64 entries, and as many again for all levels above. A proof hashes
/// at most 63 entries anew for each level below.
pub(super) const KEPT_FROM: u8 = 6;
/// Entries that are read at a time while a tree is made for a ledger that had none.
const GROWN_AT_ONCE: u64 = 10_000;

const NODE: &str = "INSERT INTO audit_nodes (level, place, hash) VALUES (?1, ?2, ?3) \
                    ON CONFLICT (level, place) DO UPDATE SET hash = excluded.hash";
const KEPT: &str = "SELECT hash FROM audit_nodes WHERE level = ?1 AND place = ?2";
const DIGESTS: &str = "SELECT digest FROM audit WHERE seq > ?1 AND seq <= ?2 ORDER BY seq";

/// A subtree that is kept, with its hash.
pub(super) type Node = (Perfect, Digest);

/// Append the leaf of an entry. What became complete and is to be kept is added to `made`.
pub(super) fn push(tree: &mut Frontier, entry: &Digest, made: &mut Vec<Node>) {
    tree.push(entry, |place, hash| {
        if place.level >= KEPT_FROM {
            made.push((place, hash));
        }
    });
}

/// Keep the hashes of subtrees.
pub(super) fn keep(conn: &Connection, nodes: &[Node]) -> Result<(), rusqlite::Error> {
    each(conn, NODE, nodes, |statement, (place, hash)| {
        statement.execute(params![i64::from(place.level), integer(place.index), digest_bytes(hash)])
    })
}

/// How many hashes are kept for a tree of so many entries.
pub(super) fn kept_in_all(size: u64) -> u64 {
    (KEPT_FROM..63).map(|level| size >> level).sum()
}

/// The stored hash of a subtree; nothing if there is none, or none that can be one.
pub(super) fn kept(conn: &Connection, place: Perfect) -> Result<Option<Digest>, Failed> {
    let found = row(conn, KEPT, params![i64::from(place.level), integer(place.index)], |row| {
        Ok(Reading::new(row, "audit_nodes").digest("hash").ok())
    });
    Ok(found?.flatten())
}

fn missing(place: Perfect) -> LedgerError {
    let first = place.first_leaf() + 1;
    ChainBroken::Node { first, last: place.first_leaf() + place.leaves() }.into()
}

/// The hash of a complete subtree: the stored one, or that of the entries below it.
pub(super) fn perfect(conn: &Connection, place: Perfect) -> Result<Digest, Failed> {
    if place.level >= KEPT_FROM {
        return kept(conn, place)?.ok_or_else(|| missing(place).into());
    }
    let (first, leaves) = (place.first_leaf(), place.leaves());
    let digests = rows(conn, DIGESTS, params![integer(first), integer(first + leaves)], |row| {
        Reading::new(row, "audit").digest("digest")
    })?;
    if digests.len() as u64 != leaves {
        return Err(missing(place).into());
    }
    let mut tree = Frontier::default();
    digests.iter().for_each(|digest| tree.push(digest, |_, _| {}));
    Ok(tree.root())
}

/// The right edge of the tree over the first `size` entries.
pub(super) fn frontier(conn: &Connection, size: u64) -> Result<Frontier, Failed> {
    let peaks = merkle::peaks(size).into_iter().map(|place| perfect(conn, place));
    let peaks = peaks.collect::<Result<Vec<Digest>, Failed>>()?;
    Ok(Frontier::of(size, peaks).unwrap_or_default())
}

/// Make the tree of a ledger that has entries and no tree: its entries are from before there was one. Does nothing where
/// anything of a tree is there, so that a part that is missing is found and not mended.
pub(super) fn grow_if_there_is_none(conn: &Connection, size: u64) -> Result<(), LedgerError> {
    let problem = |error: rusqlite::Error| LedgerError::storage("the tree over the audit cannot be made", &error);
    let sql = "SELECT (SELECT count(*) FROM (SELECT 1 FROM audit_nodes LIMIT 1)) \
               + (SELECT count(*) FROM audit_checkpoints) AS n";
    let there = row(conn, sql, &[], |row| Reading::new(row, "audit_nodes").number("n"))?.unwrap_or(0);
    if there > 0 || kept_in_all(size) == 0 {
        return Ok(());
    }
    execute(conn, "BEGIN IMMEDIATE", &[]).map_err(problem)?;
    let grown = grow(conn, size).and_then(|()| execute(conn, "COMMIT", &[]).map_err(problem).map(drop));
    if grown.is_err() {
        let _already_rolled_back = execute(conn, "ROLLBACK", &[]);
    }
    grown
}

fn grow(conn: &Connection, size: u64) -> Result<(), LedgerError> {
    let problem = |error: rusqlite::Error| LedgerError::storage("the tree over the audit cannot be made", &error);
    let mut tree = Frontier::default();
    while tree.size() < size {
        let (from, to) = (tree.size(), size.min(tree.size() + GROWN_AT_ONCE));
        let digests = rows(conn, DIGESTS, params![integer(from), integer(to)], |row| {
            Reading::new(row, "audit").digest("digest")
        })?;
        if digests.is_empty() {
            break;
        }
        let mut made = Vec::new();
        digests.iter().for_each(|digest| push(&mut tree, digest, &mut made));
        keep(conn, &made).map_err(problem)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_nodes_are_kept_as_are_counted() {
        let (mut tree, mut made) = (Frontier::default(), Vec::new());
        for size in 0..1_000_u64 {
            assert_eq!(made.len() as u64, kept_in_all(size), "{size}");
            push(&mut tree, &Digest::of(&size.to_be_bytes()), &mut made);
        }
    }
}
