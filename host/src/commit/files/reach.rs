//! How far an interrupted commit came: read from what its names hold.
//!
//! The names that a step changes tell whether it was done. Steps that share a name were done in their order, so for them a
//! number is found; all others are judged apart, because a power loss may keep a later one and lose an earlier one where
//! the two lie on different file systems. What lies in a directory that is not there yet, or not any more, is nothing.
//! Four readings are tried: by inode and then by content, each as it is and then with new files lost that a power loss may
//! have taken and that the log can write anew.

use std::collections::{BTreeMap, BTreeSet};

use toolkeep_core::digest::Digest;
use toolkeep_core::id::WorkspaceName;

use crate::commit::files::fault::CommitError;
use crate::commit::files::rollback::{Held, held};
use crate::commit::files::step::{FileNode, Key, Node, Prepared, Spot, Step};
use crate::commit::files::tree::Roots;

/// What a name should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    File(Digest, u64),
    Directory(u64),
}

/// How alike is the same. Inodes tell apart what has equal content; content alone serves where a file system or a
/// restored file has other inodes than were written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Likeness {
    Inode,
    Content,
}

impl Wanted {
    const fn of(node: &Node) -> Self {
        match node {
            Node::File(file) => Self::file(file),
            Node::Directory(directory) => Self::Directory(directory.inode),
        }
    }

    const fn file(node: &FileNode) -> Self {
        Self::File(node.sha256, node.inode)
    }

    fn is(self, held: Held, likeness: Likeness) -> bool {
        let same = |wanted: u64, inode: u64| likeness == Likeness::Content || wanted == inode;
        match (self, held) {
            (Self::Nothing, Held::Nothing) => true,
            (Self::Directory(wanted), Held::Directory { inode }) => same(wanted, inode),
            (Self::File(digest, wanted), Held::File { sha256, inode }) => digest == sha256 && same(wanted, inode),
            (Self::Nothing | Self::File(..) | Self::Directory(_), _) => false,
        }
    }
}

#[derive(Debug)]
struct Name {
    wanted: Wanted,
    held: Held,
    temporary: bool,
}

/// Every name of the steps: what it should hold before the first one, and what it holds.
#[derive(Debug)]
pub(super) struct Names(BTreeMap<Key, Name>);

impl Names {
    pub(super) fn look(prepared: &Prepared, roots: &Roots) -> Result<Self, CommitError> {
        let mut names = BTreeMap::new();
        let mut note = |spot: &Spot, wanted, temporary| -> Result<(), CommitError> {
            if let std::collections::btree_map::Entry::Vacant(vacant) = names.entry(spot.key()) {
                vacant.insert(Name { wanted, held: held(roots, spot)?.1, temporary });
            }
            Ok(())
        };
        for step in &prepared.steps {
            let (spot, at_target, at_temporary) = match step {
                Step::Place { target, node, .. } => (target, Wanted::Nothing, Wanted::of(node)),
                Step::Exchange { target, before, after, .. } => (target, Wanted::file(before), Wanted::file(after)),
                Step::Aside { target, before, .. } => (target, Wanted::file(before), Wanted::Nothing),
                Step::RemoveDirectory { target, before, .. } => {
                    (target, Wanted::Directory(before.inode), Wanted::Nothing)
                }
                Step::Touch { .. } => continue,
            };
            note(spot, at_target, false)?;
            if let Some(temporary) = step.temporary() {
                note(temporary, at_temporary, true)?;
            }
        }
        Ok(Self(names))
    }

    /// Which steps were done; nothing if no reading of the names fits.
    ///
    /// `logged` tells whether the file that a step puts in place can be written anew.
    pub(super) fn steps_done(&self, prepared: &Prepared, logged: &dyn Fn(usize) -> bool) -> Option<Vec<bool>> {
        let mut done = vec![false; prepared.steps.len()];
        let mut lost = None;
        for group in groups(prepared) {
            let steps: Vec<&Step> = group.iter().filter_map(|index| prepared.steps.get(*index)).collect();
            let mut fits = self.read(&steps, Likeness::Inode, None);
            if fits.is_none() {
                // By inode first: content cannot tell a file from one that was replaced by its like.
                let lost = lost.get_or_insert_with(|| may_be_lost(prepared, logged));
                fits = self.read(&steps, Likeness::Inode, Some(lost));
                fits = fits.or_else(|| self.read(&steps, Likeness::Content, None));
                fits = fits.or_else(|| self.read(&steps, Likeness::Content, Some(lost)));
            }
            for index in group.iter().take(fits?) {
                if let Some(step) = done.get_mut(*index) {
                    *step = true;
                }
            }
        }
        Some(done)
    }

    /// After how many of these steps their names hold what they hold: the largest number that fits.
    fn read(&self, steps: &[&Step], likeness: Likeness, lost: Option<&BTreeMap<Key, Wanted>>) -> Option<usize> {
        let fits = |key: &Key, name: &Name, wanted: Wanted| {
            wanted.is(name.held, likeness) || lost.is_some_and(|lost| lost.get(key) == Some(&wanted) && name.is_lost())
        };
        let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
        for spot in steps.iter().flat_map(|step| [Some(step.target()), step.temporary()]).flatten() {
            if let Some(name) = self.0.get(&spot.key()) {
                wanted.insert(spot.key(), name.wanted);
            }
        }
        let name_fits = |key: &Key, wanted: Wanted| self.0.get(key).is_some_and(|name| fits(key, name, wanted));
        let mut wrong = wanted.iter().filter(|(key, wanted)| !name_fits(key, **wanted)).count();
        let mut done = (wrong == 0).then_some(0);
        for (index, step) in steps.iter().enumerate() {
            for (spot, now) in changes(step) {
                let key = spot.key();
                let Some(before) = wanted.insert(key.clone(), now) else { continue };
                wrong = wrong + usize::from(!name_fits(&key, now)) - usize::from(!name_fits(&key, before));
            }
            if wrong == 0 {
                done = Some(index + 1);
            }
        }
        let cleared = |key: &Key, wanted: Wanted| {
            name_fits(key, wanted) || self.0.get(key).is_some_and(|name| name.temporary && name.held == Held::Nothing)
        };
        if wanted.iter().all(|(key, wanted)| cleared(key, *wanted)) {
            done = Some(steps.len());
        }
        // Times are no names: those that were due at that point are set again.
        let mut done = done?;
        while done.checked_sub(1).and_then(|last| steps.get(last)).is_some_and(|s| matches!(s, Step::Touch { .. })) {
            done -= 1;
        }
        Some(done)
    }

    /// The workspaces in which something still waits under a temporary name for its step.
    pub(super) fn waiting(&self, prepared: &Prepared) -> BTreeSet<WorkspaceName> {
        let mut waiting = BTreeSet::new();
        for step in &prepared.steps {
            let (temporary, wanted) = match step {
                Step::Place { temporary, node, .. } => (temporary, Wanted::of(node)),
                Step::Exchange { temporary, after, .. } => (temporary, Wanted::file(after)),
                Step::Aside { .. } | Step::RemoveDirectory { .. } | Step::Touch { .. } => continue,
            };
            if self.0.get(&temporary.key()).is_some_and(|name| wanted.is(name.held, Likeness::Content)) {
                waiting.insert(temporary.workspace.clone());
            }
        }
        waiting
    }
}

impl Name {
    /// Whether nothing is left of a new file, or an inode of ours with other content: what a power loss makes of a file
    /// that was not flushed.
    fn is_lost(&self) -> bool {
        match (self.held, self.wanted) {
            (Held::Nothing, _) => true,
            (Held::File { inode, .. }, Wanted::File(_, ours)) => inode == ours,
            (Held::File { .. } | Held::Directory { .. } | Held::Other, _) => false,
        }
    }
}

/// Temporaries that may be gone although their step is to come, and what they should hold.
fn may_be_lost(prepared: &Prepared, logged: &dyn Fn(usize) -> bool) -> BTreeMap<Key, Wanted> {
    let mut lost = BTreeMap::new();
    for (index, step) in prepared.steps.iter().enumerate() {
        let (temporary, node) = match step {
            Step::Place { temporary, node: Node::File(node), .. } => (temporary, node),
            Step::Exchange { temporary, after, .. } => (temporary, after),
            Step::Place { .. } | Step::Aside { .. } | Step::RemoveDirectory { .. } | Step::Touch { .. } => continue,
        };
        if logged(index) {
            lost.insert(temporary.key(), Wanted::file(node));
        }
    }
    lost
}

/// The steps in groups that share names, each in the order of the plan.
fn groups(prepared: &Prepared) -> Vec<Vec<usize>> {
    let mut leader: Vec<usize> = (0..prepared.steps.len()).collect();
    let mut owner: BTreeMap<Key, usize> = BTreeMap::new();
    for (index, step) in prepared.steps.iter().enumerate() {
        for key in [Some(step.target()), step.temporary()].into_iter().flatten().map(Spot::key) {
            let first = *owner.entry(key).or_insert(index);
            let (one, two) = (lead(&leader, first), lead(&leader, index));
            if let Some(later) = leader.get_mut(one.max(two)) {
                *later = one.min(two);
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..prepared.steps.len() {
        groups.entry(lead(&leader, index)).or_default().push(index);
    }
    groups.into_values().collect()
}

/// The first step of the group that a step belongs to.
fn lead(leader: &[usize], mut index: usize) -> usize {
    while let Some(next) = leader.get(index).filter(|next| **next != index) {
        index = *next;
    }
    index
}

/// What the names of a step hold after it.
fn changes(step: &Step) -> Vec<(&Spot, Wanted)> {
    match step {
        Step::Place { temporary, target, node } => vec![(temporary, Wanted::Nothing), (target, Wanted::of(node))],
        Step::Exchange { temporary, target, before, after } => {
            vec![(temporary, Wanted::file(before)), (target, Wanted::file(after))]
        }
        Step::Aside { target, temporary, before } => {
            vec![(target, Wanted::Nothing), (temporary, Wanted::file(before))]
        }
        Step::RemoveDirectory { target, .. } => vec![(target, Wanted::Nothing)],
        Step::Touch { .. } => Vec::new(),
    }
}
