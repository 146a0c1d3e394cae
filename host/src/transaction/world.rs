//! What the calls of a transaction learned about the world, added up.
//!
//! The first observation of a thing stands, because what was staged after it may rest on it; the commit checks all of
//! them. A call that sees something else saw another world than the calls before it, so the transaction can never be
//! committed with it: it ends as `stale_plan` and leaves the layer as it was.

use std::collections::{BTreeMap, BTreeSet};

use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::{Observation, ReadEntry};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::stage::Staged;

use super::Layer;
use super::difference::Thing;

/// Nanoseconds within which two changes of a file may carry one time stamp: the coarsest clock of a file system in use.
const GRANULARITY_NS: i64 = 2_000_000_000;

impl Layer {
    /// Add what a call read.
    pub(super) fn observe(&mut self, staged: &Staged, since_ns: i64) -> Result<(), Refusal> {
        let known = Known::of(&self.read_set);
        if let Some(entry) = staged.read_set.iter().find(|entry| known.contradicts(entry)) {
            return Err(moved(&Thing::Place((entry.workspace.clone(), entry.path.clone()))));
        }
        let keys: BTreeMap<_, _> = self.keys_read.iter().map(|read| ((&read.bucket, &read.key), read.sha256)).collect();
        for read in &staged.keys_read {
            if keys.get(&(&read.bucket, &read.key)).is_some_and(|known| *known != read.sha256) {
                return Err(moved(&Thing::Key((read.bucket.clone(), read.key.clone()))));
            }
        }
        self.trust(staged, since_ns);
        self.read_set.extend(staged.read_set.iter().cloned());
        self.read_set.sort_unstable();
        self.read_set.dedup();
        self.keys_read.extend(staged.keys_read.iter().cloned());
        self.keys_read.sort_unstable();
        self.keys_read.dedup();
        Ok(())
    }

    /// Keep a stat tuple only where it stands for everything that the transaction knows of the file: the first reader's,
    /// and only if it was old enough to be told from the next change. Whatever has none is read again at commit.
    fn trust(&mut self, staged: &Staged, since_ns: i64) {
        let read = self.read_set.iter().map(|entry| (&entry.workspace, &entry.path));
        let changed = self.effects.iter().flat_map(|effect| effect.places().map(|place| (place.workspace, place.path)));
        let known: BTreeSet<(&WorkspaceName, &WorkspacePath)> = read.chain(changed).collect();
        let fresh: Vec<_> = staged
            .witnesses
            .iter()
            .filter(|witness| witness.tuple.ctime_ns.saturating_add(GRANULARITY_NS) <= since_ns)
            .filter(|witness| !known.contains(&(&witness.workspace, &witness.path)))
            .cloned()
            .collect();
        self.witnesses.extend(fresh);
        self.witnesses.sort_unstable();
    }
}

/// What an observation is of, besides its place: two of one thing are of one world only if they are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Facet {
    Stat,
    Content { offset: u64, length: u64 },
    List,
}

impl Facet {
    /// Nothing for the observation that nothing is there, which is about all facets.
    const fn of(observation: &Observation) -> Option<Self> {
        match observation {
            Observation::Absent => None,
            Observation::Stat { .. } => Some(Self::Stat),
            Observation::Content { offset, length, .. } => Some(Self::Content { offset: *offset, length: *length }),
            Observation::List { .. } => Some(Self::List),
        }
    }
}

/// What is known of the world, by place and facet.
#[derive(Debug, Default)]
struct Known<'a> {
    /// Whether something is at a place.
    present: BTreeMap<(&'a WorkspaceName, &'a WorkspacePath), bool>,
    seen: BTreeMap<(&'a WorkspaceName, &'a WorkspacePath, Facet), &'a Observation>,
}

impl<'a> Known<'a> {
    fn of(entries: &'a [ReadEntry]) -> Self {
        let mut known = Self::default();
        for entry in entries {
            let facet = Facet::of(&entry.observation);
            known.present.insert((&entry.workspace, &entry.path), facet.is_some());
            if let Some(facet) = facet {
                known.seen.insert((&entry.workspace, &entry.path, facet), &entry.observation);
            }
        }
        known
    }

    /// Whether an observation cannot be of the world that is known.
    fn contradicts(&self, entry: &ReadEntry) -> bool {
        let facet = Facet::of(&entry.observation);
        let present = self.present.get(&(&entry.workspace, &entry.path));
        if present.is_some_and(|present| *present != facet.is_some()) {
            return true;
        }
        let Some(facet) = facet else { return false };
        let seen = self.seen.get(&(&entry.workspace, &entry.path, facet));
        seen.is_some_and(|seen| **seen != entry.observation)
    }
}

/// Something is not what the transaction saw before.
pub(super) fn moved(thing: &Thing) -> Refusal {
    Refusal::new(Code::StalePlan, format!("{thing} changed since an earlier call of the transaction looked at it"))
        .hint("roll the transaction back and begin another one")
}
