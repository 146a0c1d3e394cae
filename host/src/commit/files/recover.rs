//! Recovery: from the steps and the world alone, to before or after.
//!
//! Every state that a crash can leave is the state after some number of steps, with displaced contents perhaps removed
//! once all were done. The names are looked at, the number is found, and the rest is applied. Where no number fits,
//! somebody else changed something: the steps are taken back where they still hold, and what cannot be is listed. Being
//! killed here leaves again such a state, so recovery may be repeated.

use std::collections::BTreeMap;

use toolkeep_core::digest::Digest;
use toolkeep_core::path::WorkspacePath;
use toolkeep_sandbox::stage::Content;

use crate::commit::files::apply::{run, same_roots, sync_directories};
use crate::commit::files::fault::{CommitError, Difference, Remnant, Stale};
use crate::commit::files::rollback::{Held, Reach, held, roll_back};
use crate::commit::files::step::{FileNode, Key, Node, Prepared, Spot, Step};
use crate::commit::files::sweep;
use crate::commit::files::tree::Roots;

/// How an interrupted commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// All of the plan is applied.
    RolledForward,
    /// Nothing of the plan is applied.
    RolledBack,
    /// These names hold neither; nothing unknown was overwritten.
    Halted(Vec<Remnant>),
}

/// Finish or take back a commit whose steps are durable and whose outcome is not known.
///
/// `contents` finds kept contents by digest, for the rare case that displaced ones were removed already.
///
/// # Errors
/// The world cannot be looked at now (call again later), or the disk does not confirm ([`CommitError::Poisoned`]).
pub fn recover(
    prepared: &Prepared,
    roots: &Roots,
    contents: &dyn Fn(&Digest) -> Option<Content>,
) -> Result<Recovered, CommitError> {
    match same_roots(prepared, roots) {
        Ok(()) => {}
        Err(CommitError::Stale(Stale { workspace, .. })) => {
            let spot = Spot { workspace, path: WorkspacePath::root(), parent: None };
            return Ok(Recovered::Halted(vec![Remnant::at(&spot, Difference::Parent.to_string())]));
        }
        Err(other) => return Err(other),
    }
    let names = Names::look(prepared, roots)?;
    if let Some(done) =
        names.steps_done(prepared, Likeness::Inode).or_else(|| names.steps_done(prepared, Likeness::Content))
        && roll_forward(prepared, done, roots)?
    {
        let remnants = sweep::sweep(prepared, roots, true)?;
        sync_directories(prepared, roots)?;
        return Ok(if remnants.is_empty() { Recovered::RolledForward } else { Recovered::Halted(remnants) });
    }
    let reach = Reach::Any { cleared: !names.waits_for_a_step(prepared) };
    let remnants = roll_back(prepared, roots, &reach, contents)?;
    Ok(if remnants.is_empty() { Recovered::RolledBack } else { Recovered::Halted(remnants) })
}

/// Do the steps from `done` on. Tells whether all could be done.
fn roll_forward(prepared: &Prepared, done: usize, roots: &Roots) -> Result<bool, CommitError> {
    for step in prepared.steps.iter().skip(done) {
        match run(step, roots) {
            Ok(()) => {}
            Err(CommitError::Poisoned(failed)) => return Err(failed.into()),
            Err(error) => {
                tracing::warn!(%error, "a commit cannot be rolled forward");
                return Ok(false);
            }
        }
    }
    Ok(true)
}

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
struct Names(BTreeMap<Key, Name>);

impl Names {
    fn look(prepared: &Prepared, roots: &Roots) -> Result<Self, CommitError> {
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

    /// After how many steps the names hold what they hold: the largest number that fits.
    fn steps_done(&self, prepared: &Prepared, likeness: Likeness) -> Option<usize> {
        let mut wanted: BTreeMap<&Key, Wanted> = self.0.iter().map(|(key, name)| (key, name.wanted)).collect();
        let mut wrong = self.0.values().filter(|name| !name.wanted.is(name.held, likeness)).count();
        let mut fits = (wrong == 0).then_some(0);
        for (index, step) in prepared.steps.iter().enumerate() {
            for (spot, now) in changes(step) {
                let key = spot.key();
                let (Some(name), Some((_, before))) = (self.0.get(&key), wanted.remove_entry(&key)) else { continue };
                wrong =
                    wrong + usize::from(!now.is(name.held, likeness)) - usize::from(!before.is(name.held, likeness));
                if let Some((key, _)) = self.0.get_key_value(&key) {
                    wanted.insert(key, now);
                }
            }
            if wrong == 0 {
                fits = Some(index + 1);
            }
        }
        let cleared = |key: &Key, name: &Name| {
            let wanted = wanted.get(key).copied().unwrap_or(Wanted::Nothing);
            wanted.is(name.held, likeness) || (name.temporary && name.held == Held::Nothing)
        };
        if self.0.iter().all(|(key, name)| cleared(key, name)) {
            fits = Some(prepared.steps.len());
        }
        // Times are no names: those that were due at that point are set again.
        let mut done = fits?;
        while done
            .checked_sub(1)
            .and_then(|last| prepared.steps.get(last))
            .is_some_and(|s| matches!(s, Step::Touch { .. }))
        {
            done -= 1;
        }
        Some(done)
    }

    /// Whether something still waits under a temporary name for its step: then displaced contents are all there.
    fn waits_for_a_step(&self, prepared: &Prepared) -> bool {
        prepared.steps.iter().any(|step| {
            let (temporary, wanted) = match step {
                Step::Place { temporary, node, .. } => (temporary, Wanted::of(node)),
                Step::Exchange { temporary, after, .. } => (temporary, Wanted::file(after)),
                Step::Aside { .. } | Step::RemoveDirectory { .. } | Step::Touch { .. } => return false,
            };
            self.0.get(&temporary.key()).is_some_and(|name| wanted.is(name.held, Likeness::Content))
        })
    }
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
