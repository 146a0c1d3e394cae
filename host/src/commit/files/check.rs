//! The check before a commit: is the world still the one that the plan was made from?
//!
//! Every entry of the read set and every `before` of an effect is looked at again. A file whose stat tuple is the one that
//! the execution saw, and whose last change is older than the clock's granularity at that time, is trusted; every other
//! one is read again (D10). Listings leave out the temporaries of commits, here as in the stage, because other commits may
//! be under way in the same directory. The caller holds the paths, so that no other commit changes them; other programs
//! may, which is why applying verifies once more what it displaces.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};

use rustix::io::Errno;
use toolkeep_core::digest::{Digest, Hasher};
use toolkeep_core::effect::{Effect, FileState};
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::{WorkspacePath, is_temporary};
use toolkeep_core::plan::{EntryKind, Observation, PlanBody, ReadEntry, listing_digest};
use toolkeep_sandbox::beneath::{self, Seen, StatTuple};
use toolkeep_sandbox::stage::Witness;

use crate::commit::files::fault::{CommitError, Difference};
use crate::commit::files::step::Spot;
use crate::commit::files::tree::{self, Roots};

/// Nanoseconds within which two changes of a file may carry one time stamp: the coarsest clock of a file system in use.
const GRANULARITY_NS: i64 = 2_000_000_000;

/// What the execution saw, beside the plan: makes the check fast, never weaker.
#[derive(Debug, Clone, Copy)]
pub struct Witnessed<'a> {
    /// Stat tuples of the files that the execution read.
    pub entries: &'a [Witness],
    /// When the execution started, in nanoseconds since the Unix epoch: no tuple was taken earlier.
    pub since_ns: i64,
}

/// Whether everything that was read is as it was, and nothing else is wanted of the world.
///
/// # Errors
/// As [`check`].
pub fn unchanged(read_set: &[ReadEntry], witnessed: Witnessed<'_>, roots: &Roots) -> Result<(), CommitError> {
    let tuples = witnessed.entries.iter().map(|w| ((&w.workspace, &w.path), w.tuple)).collect();
    let check = Check { roots, tuples, since_ns: witnessed.since_ns };
    read_set.iter().try_for_each(|entry| check.observation(entry))
}

struct Check<'a> {
    roots: &'a Roots,
    tuples: BTreeMap<(&'a WorkspaceName, &'a WorkspacePath), StatTuple>,
    since_ns: i64,
}

/// Check that everything the plan depends on is as it was when the plan was made.
///
/// # Errors
/// [`CommitError::Stale`] names the first thing that changed; the others say that the world could not be looked at.
pub fn check(plan: &PlanBody, witnessed: Witnessed<'_>, roots: &Roots) -> Result<(), CommitError> {
    let tuples = witnessed.entries.iter().map(|w| ((&w.workspace, &w.path), w.tuple)).collect();
    let check = Check { roots, tuples, since_ns: witnessed.since_ns };
    for entry in &plan.read_set {
        check.observation(entry)?;
    }
    let mut touched = BTreeSet::new();
    for effect in &plan.effects {
        check.effect(effect, &touched)?;
        touched.extend(effect.places().map(|place| (place.workspace, place.path)));
    }
    Ok(())
}

impl Check<'_> {
    fn observation(&self, entry: &ReadEntry) -> Result<(), CommitError> {
        let spot = Spot { workspace: entry.workspace.clone(), path: entry.path.clone(), parent: None };
        match &entry.observation {
            Observation::Absent => self.absent(&spot),
            Observation::Stat { entry: kind, size } => {
                let seen = self.present(&spot)?;
                if seen.entry != *kind {
                    Err(CommitError::stale(&spot, Difference::Kind))
                } else if seen.size != *size {
                    Err(CommitError::stale(&spot, Difference::Content))
                } else {
                    Ok(())
                }
            }
            Observation::Content { offset, length, sha256 } => self.content(&spot, *offset, *length, sha256),
            Observation::List { sha256 } => self.listing(&spot, sha256),
        }
    }

    fn absent(&self, spot: &Spot) -> Result<(), CommitError> {
        match tree::glance(self.roots, spot)? {
            None => Ok(()),
            Some(_) => Err(CommitError::stale(spot, Difference::Appeared)),
        }
    }

    fn present(&self, spot: &Spot) -> Result<Seen, CommitError> {
        tree::glance(self.roots, spot)?.ok_or_else(|| CommitError::stale(spot, Difference::Vanished))
    }

    fn trusts(&self, spot: &Spot, seen: &Seen) -> bool {
        self.tuples
            .get(&(&spot.workspace, &spot.path))
            .is_some_and(|tuple| *tuple == seen.tuple && tuple.ctime_ns.saturating_add(GRANULARITY_NS) <= self.since_ns)
    }

    fn content(&self, spot: &Spot, offset: u64, length: u64, sha256: &Digest) -> Result<(), CommitError> {
        let seen = self.present(spot)?;
        if seen.entry == EntryKind::Symlink {
            return self.target(spot, sha256);
        }
        if let Some(difference) = tree::file_difference(&seen) {
            return Err(CommitError::stale(spot, difference));
        }
        if self.trusts(spot, &seen) {
            return Ok(());
        }
        let ended = self
            .tuples
            .get(&(&spot.workspace, &spot.path))
            .is_some_and(|tuple| offset.saturating_add(length) >= tuple.size && tuple.size != seen.tuple.size);
        if ended || self.range(spot, offset, length)? != Some(*sha256) {
            return Err(CommitError::stale(spot, Difference::Content));
        }
        Ok(())
    }

    /// The content of a symbolic link is the text of its target.
    fn target(&self, spot: &Spot, sha256: &Digest) -> Result<(), CommitError> {
        let read = beneath::read_link(tree::root(self.roots, &spot.workspace)?.fd(), &spot.path);
        let (target, _) = read.map_err(|errno| match errno {
            Errno::INVAL | Errno::ILSEQ => CommitError::stale(spot, Difference::Kind),
            errno if tree::is_detour(errno) => CommitError::stale(spot, Difference::Vanished),
            errno => CommitError::system("read", spot, errno),
        })?;
        if Digest::of(target.as_bytes()) == *sha256 {
            Ok(())
        } else {
            Err(CommitError::stale(spot, Difference::Content))
        }
    }

    fn range(&self, spot: &Spot, offset: u64, length: u64) -> Result<Option<Digest>, CommitError> {
        let failed = |errno| match errno {
            Errno::PERM => CommitError::stale(spot, Difference::Kind),
            errno if tree::is_detour(errno) => CommitError::stale(spot, Difference::Vanished),
            errno => CommitError::system("read", spot, errno),
        };
        let io = |error: std::io::Error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let (mut file, _) =
            beneath::open_file(tree::root(self.roots, &spot.workspace)?.fd(), &spot.path).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut hasher = Hasher::new();
        let served = tree::read_through(&mut file.take(length), |bytes| {
            hasher.update(bytes);
            Ok(())
        })
        .map_err(io)?;
        Ok((served == length).then(|| hasher.finish()))
    }

    fn listing(&self, spot: &Spot, sha256: &Digest) -> Result<(), CommitError> {
        let (entries, seen) =
            beneath::list(tree::root(self.roots, &spot.workspace)?.fd(), &spot.path).map_err(|errno| match errno {
                errno if tree::is_detour(errno) => CommitError::stale(spot, Difference::Kind),
                errno => CommitError::system("list", spot, errno),
            })?;
        if self.trusts(spot, &seen) {
            return Ok(());
        }
        let shown = entries.iter().map(|(name, kind)| (&**name, *kind)).filter(|(name, _)| !is_temporary(name));
        if listing_digest(shown) == *sha256 { Ok(()) } else { Err(CommitError::stale(spot, Difference::Entries)) }
    }

    fn effect(&self, effect: &Effect, touched: &BTreeSet<(&WorkspaceName, &WorkspacePath)>) -> Result<(), CommitError> {
        let first = |path: &WorkspacePath| {
            let workspace = effect.workspace()?;
            let spot = Spot { workspace: workspace.clone(), path: path.clone(), parent: None };
            (!touched.contains(&(workspace, path))).then_some(spot)
        };
        match effect {
            Effect::FileWrite { path, before, .. } => match (first(path), before) {
                (Some(spot), Some(before)) => self.file(&spot, before),
                (Some(spot), None) => self.absent(&spot),
                (None, _) => Ok(()),
            },
            Effect::FileDelete { path, before, .. } => first(path).map_or(Ok(()), |spot| self.file(&spot, before)),
            Effect::FileRename { from, to, before, .. } => {
                first(from).map_or(Ok(()), |spot| self.file(&spot, before))?;
                first(to).map_or(Ok(()), |spot| self.absent(&spot))
            }
            Effect::FileMetadata { path, before, .. } => first(path).map_or(Ok(()), |spot| {
                let seen = self.present(&spot)?;
                let same = seen.tuple.mtime_ns == before.modified_ns;
                if same { Ok(()) } else { Err(CommitError::stale(&spot, Difference::Times)) }
            }),
            Effect::DirCreate { path, .. } => first(path).map_or(Ok(()), |spot| self.absent(&spot)),
            Effect::DirDelete { path, .. } => first(path).map_or(Ok(()), |spot| {
                let is_directory = self.present(&spot)?.entry == EntryKind::Directory;
                if is_directory { Ok(()) } else { Err(CommitError::stale(&spot, Difference::Kind)) }
            }),
            Effect::HttpRequest(_)
            | Effect::MessageSend(_)
            | Effect::KvSet { .. }
            | Effect::KvDelete { .. }
            | Effect::KvAdd { .. } => Ok(()),
        }
    }

    fn file(&self, spot: &Spot, before: &FileState) -> Result<(), CommitError> {
        let seen = self.present(spot)?;
        let difference = match tree::file_difference(&seen) {
            Some(difference) => Some(difference),
            None if seen.mode != before.mode => Some(Difference::Mode),
            None if seen.size != before.size => Some(Difference::Content),
            None if self.trusts(spot, &seen) => None,
            None => (self.range(spot, 0, before.size)? != Some(before.sha256)).then_some(Difference::Content),
        };
        difference.map_or(Ok(()), |difference| Err(CommitError::stale(spot, difference)))
    }
}
