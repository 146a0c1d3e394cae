//! What an execution learned about the lower layer (D10).
//!
//! Each node and directory keeps its own observations; the read set is collected from them when the stage is sealed.
//! Content is hashed while it is served, and reads that follow each other become one range, so that reading a file from
//! start to end costs one digest for each of its pieces. A read of bytes that were served before adds nothing: the tuple
//! vouches for them, and a tuple that changed ends the execution.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;
use toolkeep_core::digest::{Digest, Hasher};
use toolkeep_core::path::{WorkspacePath, is_temporary};
use toolkeep_core::plan::{EntryKind, Observation, ReadEntry, listing_digest};

use super::hashing::{Hashing, PIECE_BYTES, Running};
use super::lower::LowerError;
use super::tree::{Directory, FileContent};
use super::tree::{Kind, Listing, Lower, NewNode, NodeId, Slot, Tree};
use super::{OBSERVATIONS_MAX, Root, StageError, Witness};
use crate::beneath::{self, Seen};

/// The parts of one file that were served, by first byte.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, Range>);

#[derive(Debug)]
struct Range {
    end: u64,
    running: Running,
}

impl Ranges {
    /// Take bytes served from `offset`. Says how many new ranges began.
    fn extend(&mut self, hashing: &mut Hashing, mut offset: u64, mut bytes: &[u8]) -> usize {
        let mut began = 0;
        while !bytes.is_empty() {
            let left = usize::try_from(PIECE_BYTES - offset % PIECE_BYTES).unwrap_or(usize::MAX);
            let (part, rest) = bytes.split_at_checked(left).unwrap_or((bytes, &[]));
            began += usize::from(self.extend_piece(hashing, offset, part));
            offset = offset.saturating_add(part.len() as u64);
            bytes = rest;
        }
        began
    }

    /// Take bytes that lie in one piece. Says whether a new range began.
    fn extend_piece(&mut self, hashing: &mut Hashing, offset: u64, bytes: &[u8]) -> bool {
        let end = offset.saturating_add(bytes.len() as u64);
        let piece = offset - offset % PIECE_BYTES;
        if let Some((_, range)) = self.0.range_mut(piece..=offset).next_back()
            && range.end >= offset
        {
            let known = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
            if let Some(fresh) = bytes.get(known..)
                && !fresh.is_empty()
            {
                hashing.update(&mut range.running, fresh);
                range.end = end;
            }
            return false;
        }
        let before = piece.checked_sub(PIECE_BYTES).and_then(|before| self.0.get(&before));
        let mut running = hashing.begin(offset == piece && before.is_some_and(|range| range.end == piece));
        hashing.update(&mut running, bytes);
        self.0.insert(offset, Range { end, running });
        true
    }

    /// The digest of the first `size` bytes, if they were served as one range.
    fn whole(&self, size: u64) -> Option<Digest> {
        self.0.get(&0).filter(|range| range.end == size).and_then(|range| range.running.digest())
    }

    /// Take the digests that the thread computed.
    fn learn(&mut self, digests: &BTreeMap<u64, Digest>) {
        for range in self.0.values_mut() {
            if let Running::Beside(number) = &range.running
                && let Some(digest) = digests.get(number)
            {
                range.running = Running::Known(*digest);
            }
        }
    }
}

impl Lower {
    /// The digest of the whole content, if it is known without reading it again.
    pub(super) fn known_digest(&self) -> Option<Digest> {
        if self.seen.size == 0 {
            return Some(Hasher::new().finish());
        }
        self.digest.or_else(|| self.ranges.whole(self.seen.size))
    }
}

impl Tree {
    /// The guest learns that the entry exists, and its kind and size.
    pub(super) fn observe(&mut self, id: NodeId) -> Result<(), StageError> {
        if let Some(lower) = &mut self.node_mut(id)?.lower {
            lower.observed = true;
        }
        Ok(())
    }

    /// The guest is served bytes of the lower file.
    pub(super) fn observe_bytes(&mut self, id: NodeId, offset: u64, bytes: &[u8]) -> Result<(), StageError> {
        let Self { nodes, hashing, .. } = self;
        let node = id.of(nodes).ok_or(StageError::Sealed)?;
        let Some(lower) = &mut node.lower else { return Ok(()) };
        let began = lower.ranges.extend(hashing, offset, bytes);
        self.served(id, offset, bytes)?;
        self.count_observations(began)
    }

    /// Note bytes of the lower file, whether the guest gets them or not.
    pub(super) fn served(&self, id: NodeId, offset: u64, bytes: &[u8]) -> Result<(), StageError> {
        let Some(notes) = &self.notes else { return Ok(()) };
        let node = self.node(id)?;
        if let Some(lower) = node.lower.as_ref().filter(|_| matches!(node.kind, Kind::File(_))) {
            notes.served((self.mount(node.mount)?.root.name(), &lower.path), offset, bytes);
        }
        Ok(())
    }

    /// Wait for the digests of long ranges. Nothing may be served after it.
    pub(super) fn finish_hashing(&mut self) -> Result<(), StageError> {
        let digests = self.hashing.finish().ok_or(StageError::Io(Errno::IO))?;
        if !digests.is_empty() {
            for lower in self.nodes.iter_mut().filter_map(|node| node.lower.as_mut()) {
                lower.ranges.learn(&digests);
            }
        }
        Ok(())
    }

    fn count_observations(&mut self, more: usize) -> Result<(), StageError> {
        self.observations += more;
        if self.observations > OBSERVATIONS_MAX {
            return Err(StageError::Full { what: "observations", limit: OBSERVATIONS_MAX as u64 });
        }
        Ok(())
    }

    /// The error for a lower entry that is not what it was.
    pub(super) fn stale(&self, id: NodeId) -> StageError {
        let found = self.node(id).and_then(|node| Ok((self.mount(node.mount)?.root.name().clone(), node)));
        match found {
            Ok((workspace, node)) => {
                let path = node.lower.as_ref().map_or_else(|| node.path.clone(), |lower| lower.path.clone());
                StageError::Stale { workspace, path }
            }
            Err(error) => error,
        }
    }

    /// Refuse a lower entry whose state is not the one that was seen first.
    pub(super) fn same_state(&self, id: NodeId, seen: &Seen) -> Result<(), StageError> {
        match &self.node(id)?.lower {
            Some(lower) if lower.seen.tuple != seen.tuple => Err(self.stale(id)),
            _ => Ok(()),
        }
    }

    /// The error for a lower entry that could not be opened again: a file system's, or that it is not what it was.
    pub(super) fn reopened(&self, id: NodeId, error: LowerError) -> StageError {
        let errno = match error {
            LowerError::System(errno) => errno,
            LowerError::Unrecorded => return self.unrecorded(id),
        };
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::PERM | Errno::XDEV | Errno::INVAL => {
                self.stale(id)
            }
            other => StageError::Io(other),
        }
    }

    fn unrecorded(&self, id: NodeId) -> StageError {
        match self.stale(id) {
            StageError::Stale { workspace, path } => StageError::Unrecorded { workspace, path },
            other => other,
        }
    }

    /// What has `name` in the merged directory. Looks into the lower layer once per name, and never sees the temporaries
    /// of commits, which come and go.
    pub(super) fn lookup(&mut self, directory: NodeId, name: &str) -> Result<Option<NodeId>, StageError> {
        let node = self.node(directory)?;
        let held = node.directory()?;
        if let Some(slot) = held.slots.get(name) {
            return Ok(slot.now);
        }
        if is_temporary(name) {
            return Ok(None);
        }
        let Some(lower) = &node.lower else { return Ok(None) };
        let listed = held.listing.as_ref().map(|listing| listing.names.contains_key(name));
        if listed == Some(false) {
            return Ok(None);
        }
        let was_absent = held.absent.contains(name);
        let mount = node.mount;
        let lower_path = lower.path.join(name).map_err(|bad| StageError::BadPath(bad.problem))?;
        let path = node.path.join(name).map_err(|bad| StageError::BadPath(bad.problem))?;
        let root = &self.mount(mount)?.root;
        let found = root.look(&lower_path, self.notes.as_ref());
        let Some(seen) = found.map_err(|error| lookup_error(root, &lower_path, error))? else {
            if listed == Some(true) {
                return Err(self.stale(directory));
            }
            if self.directory_mut(directory)?.absent.insert(name.into()) {
                self.count_observations(1)?;
            }
            return Ok(None);
        };
        if was_absent {
            return Err(self.stale(directory));
        }
        let kind = match (seen.entry, seen.refused) {
            (_, Some(refused)) => Kind::Refused(refused),
            (EntryKind::Directory, None) => Kind::Directory(Directory::default()),
            (EntryKind::Symlink, None) => Kind::Symlink,
            (EntryKind::File | EntryKind::Refused, None) => Kind::File(FileContent::Lower),
        };
        let lower = Lower { path: lower_path, seen, digest: None, observed: false, ranges: Ranges::default() };
        let found = self.add(NewNode { mount, path, parent: Some(directory), lower: Some(lower), kind })?;
        self.directory_mut(directory)?.slots.insert(name.into(), Slot { now: Some(found), under: Some(found) });
        Ok(Some(found))
    }

    /// Read the entries of the lower directory, or check that they are those that were read before.
    pub(super) fn load_listing(&mut self, id: NodeId) -> Result<(), StageError> {
        self.observe(id)?;
        let node = self.node(id)?;
        let held = node.directory()?;
        let Some(lower) = &node.lower else { return Ok(()) };
        let root = &self.mount(node.mount)?.root;
        if let Some(listing) = &held.listing {
            let seen = root.look(&lower.path, self.notes.as_ref()).map_err(|error| self.reopened(id, error))?;
            return if seen.is_some_and(|seen| seen.tuple == listing.tuple) { Ok(()) } else { Err(self.stale(id)) };
        }
        let (names, seen) = match root.list(&lower.path, self.notes.as_ref()) {
            Ok(found) => found,
            Err(LowerError::System(Errno::OVERFLOW)) => {
                return Err(StageError::Full { what: "entries of one directory", limit: beneath::LISTING_MAX as u64 });
            }
            Err(error) => return Err(self.reopened(id, error)),
        };
        let appeared = held.absent.iter().any(|name| names.contains_key(name));
        let vanished = held.slots.iter().any(|(name, slot)| slot.under.is_some() && !names.contains_key(name));
        if appeared || vanished {
            return Err(self.stale(id));
        }
        self.count_entries(names.len())?;
        self.directory_mut(id)?.listing = Some(Listing { names, tuple: seen.tuple });
        Ok(())
    }

    /// The read set and its witnesses, sorted.
    pub(super) fn observations(&self) -> Result<(Vec<ReadEntry>, Vec<Witness>), StageError> {
        let mut entries = BTreeSet::new();
        let mut witnesses = BTreeSet::new();
        for id in self.ids() {
            let node = self.node(id)?;
            let Some(lower) = &node.lower else { continue };
            let workspace = self.mount(node.mount)?.root.name();
            let mut tuple = lower.seen.tuple;
            let mut seen = lower.observed;
            let mut saw = |path: &WorkspacePath, observation| {
                entries.insert(ReadEntry { workspace: workspace.clone(), path: path.clone(), observation });
            };
            if lower.observed {
                saw(&lower.path, Observation::Stat { entry: lower.seen.entry, size: lower.seen.size });
            }
            for (offset, range) in &lower.ranges.0 {
                let length = range.end.saturating_sub(*offset);
                let sha256 = range.running.digest().ok_or(StageError::Io(Errno::IO))?;
                saw(&lower.path, Observation::Content { offset: *offset, length, sha256 });
                seen = true;
            }
            if let Kind::Directory(directory) = &node.kind {
                if let Some(listing) = &directory.listing {
                    let sha256 = listing_digest(listing.names.iter().map(|(name, kind)| (&**name, *kind)));
                    saw(&lower.path, Observation::List { sha256 });
                    tuple = listing.tuple;
                    seen = true;
                }
                for name in &directory.absent {
                    let path = lower.path.join(name).map_err(|bad| StageError::BadPath(bad.problem))?;
                    saw(&path, Observation::Absent);
                }
            }
            if seen {
                witnesses.insert(Witness { workspace: workspace.clone(), path: lower.path.clone(), tuple });
            }
        }
        Ok((entries.into_iter().collect(), witnesses.into_iter().collect()))
    }
}

/// A component that is a link or a mount by now cannot be looked through.
fn lookup_error(root: &Root, path: &WorkspacePath, error: LowerError) -> StageError {
    match error {
        LowerError::System(Errno::LOOP) => StageError::Loop,
        LowerError::System(other) => StageError::Io(other),
        LowerError::Unrecorded => StageError::Unrecorded { workspace: root.name().clone(), path: path.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_follow_each_other_become_one_range() {
        let bytes: Vec<u8> = (0..100).collect();
        let (mut ranges, mut hashing) = (Ranges::default(), Hashing::default());
        let mut serve = |from: usize, to: usize| ranges.extend(&mut hashing, from as u64, &bytes[from..to]);
        assert_eq!(serve(0, 10), 1);
        assert_eq!(serve(10, 30), 0);
        assert_eq!(serve(5, 15), 0, "served before");
        assert_eq!(serve(20, 50), 0, "half of it served before");
        assert_eq!(serve(60, 70), 1);
        assert_eq!(ranges.whole(50), Some(Digest::of(&bytes[..50])));
        assert_eq!(ranges.whole(51), None);
        assert_eq!(ranges.0.len(), 2);
    }

    #[test]
    fn a_long_file_has_one_range_for_each_piece_whoever_hashed_it() {
        let piece = usize::try_from(PIECE_BYTES).expect("small");
        let bytes: Vec<u8> = (0..=250_u8).cycle().take(3 * piece + 5).collect();
        let (mut ranges, mut hashing) = (Ranges::default(), Hashing::default());
        let began: usize = (0..bytes.len())
            .step_by(100_000)
            .map(|from| {
                let to = bytes.len().min(from + 100_000);
                ranges.extend(&mut hashing, from as u64, &bytes[from..to])
            })
            .sum();
        assert_eq!(began, 4);
        ranges.learn(&hashing.finish().expect("the thread answers"));
        let found: Vec<_> = ranges.0.iter().map(|(start, range)| (*start, range.end, range.running.digest())).collect();
        let expect: Vec<_> = bytes
            .chunks(piece)
            .zip(0..)
            .map(|(part, index)| {
                let start = index * PIECE_BYTES;
                (start, start + part.len() as u64, Some(Digest::of(part)))
            })
            .collect();
        assert_eq!(found, expect);
        assert_eq!(ranges.whole(PIECE_BYTES), Some(Digest::of(&bytes[..piece])));
        assert_eq!(ranges.whole(PIECE_BYTES + 1), None);
    }
}
