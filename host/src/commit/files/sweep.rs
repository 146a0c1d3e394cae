//! Sweeping: no temporary outlives its commit, and none is removed whose content is not known.
//!
//! Temporaries have names that only their transaction can know, so they are found without a search: from the steps, or,
//! where a crash came before the steps were durable, from the directories that the plan would have used
//! ([`nests`], noted by the caller before it prepares). What lies under such a name and is neither the plan's content
//! nor the state before it belongs to somebody else: it is reported and stays.

use std::collections::BTreeSet;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use toolkeep_core::effect::{Effect, Place};
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;

use crate::commit::files::fault::{CommitError, Remnant};
use crate::commit::files::rollback::{Held, held};
use crate::commit::files::step::{Key, Node, Prepared, Spot, Step, TransactionId};
use crate::commit::files::tree::{Directory, Hands, Kind, Roots};

/// A directory that holds temporaries while a plan is committed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nest {
    /// Where.
    pub workspace: WorkspaceName,
    /// Which directory.
    pub directory: WorkspacePath,
}

/// The directories in which preparing these effects makes temporaries.
#[must_use]
pub fn nests(effects: &[Effect]) -> Vec<Nest> {
    let mut unstable = BTreeSet::new();
    for effect in effects {
        if let Effect::DirCreate { workspace, path } | Effect::DirDelete { workspace, path } = effect {
            unstable.insert((workspace, path.clone()));
        }
    }
    let mut found = BTreeSet::new();
    for effect in effects {
        for Place { workspace, path } in effect.places() {
            let mut directory = path.parent().unwrap_or_else(WorkspacePath::root);
            while unstable.contains(&(workspace, directory.clone())) {
                directory = directory.parent().unwrap_or_else(WorkspacePath::root);
            }
            found.insert(Nest { workspace: workspace.clone(), directory });
        }
    }
    found.into_iter().collect()
}

/// Remove every temporary of a transaction whose steps never became durable; says how many there were.
///
/// Never for a transaction whose steps are durable: what recovery left of it belongs to somebody else. A workspace that
/// is not configured any more is passed over.
///
/// # Errors
/// A directory cannot be read or a temporary cannot be removed; call again later.
pub fn sweep_orphans(nests: &[Nest], transaction: &TransactionId, roots: &Roots) -> Result<usize, CommitError> {
    let mut removed = 0;
    for nest in nests {
        if !roots.contains_key(&nest.workspace) {
            tracing::warn!(workspace = %nest.workspace, "temporaries may be left in a workspace that is gone");
            continue;
        }
        let spot = Spot { workspace: nest.workspace.clone(), path: nest.directory.clone(), parent: None };
        let directory = match Directory::open(roots, &nest.workspace, &nest.directory) {
            Ok(directory) => directory,
            Err(CommitError::Stale(_)) => continue,
            Err(other) => return Err(other),
        };
        let names = directory.names().map_err(|errno| CommitError::system("list", &spot, errno))?;
        for name in names.iter().filter(|name| transaction.owns(name)) {
            drop_name(&directory, name).map_err(|errno| CommitError::system("sweep", &spot, errno))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Forget a prepared commit of which nothing was applied: remove its temporaries.
///
/// # Errors
/// A temporary cannot be removed; [`sweep_orphans`] can try again later.
pub fn discard(prepared: &Prepared, roots: &Roots) -> Result<(), CommitError> {
    for spot in prepared.steps.iter().filter_map(Step::temporary) {
        let directory = Directory::of(roots, spot)?;
        drop_name(&directory, spot.name()).map_err(|errno| CommitError::system("sweep", spot, errno))?;
    }
    Ok(())
}

/// Remove what a failed preparation made, as far as the system lets us.
pub(super) fn drop_made(roots: &Roots, made: &[Spot]) {
    for spot in made {
        let dropped = Directory::of(roots, spot).map(|directory| drop_name(&directory, spot.name()));
        if !matches!(dropped, Ok(Ok(()))) {
            tracing::warn!(workspace = %spot.workspace, path = %spot.path, "a temporary could not be removed; start-up sweeps it");
        }
    }
}

fn drop_name(directory: &Directory, name: &str) -> Result<(), Errno> {
    match directory.look(name)? {
        None => Ok(()),
        Some(found) if found.kind == Kind::Directory => directory.remove(name),
        Some(_) => directory.unlink(name),
    }
}

/// Remove the contents that an applied plan displaced. They were verified when they were displaced.
pub(super) fn clear_displaced(prepared: &Prepared, roots: &Roots, hands: &mut Hands) -> Vec<Remnant> {
    let mut remnants = Vec::new();
    for step in &prepared.steps {
        let (Step::Exchange { temporary, .. } | Step::Aside { temporary, .. }) = step else { continue };
        let removed = hands.of(roots, temporary).and_then(|directory| match directory.unlink(temporary.name()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(CommitError::system("remove the displaced", temporary, errno)),
        });
        if let Err(error) = removed {
            remnants.push(Remnant::at(temporary, error.to_string()));
        }
    }
    remnants
}

/// Remove the temporaries of a transaction after recovery or roll-back, except what is not known.
///
/// Goes through all of them before it tells the first failure of the system. `committed`: the plan stands, so content that it displaced goes even where no undo keeps it.
pub(super) fn sweep(prepared: &Prepared, roots: &Roots, committed: bool) -> Result<Vec<Remnant>, CommitError> {
    let (mut remnants, mut failed) = (Vec::new(), None);
    let moved: BTreeSet<Key> = prepared
        .steps
        .iter()
        .filter_map(|step| if let Step::Aside { temporary, .. } = step { Some(temporary.key()) } else { None })
        .collect();
    for (index, step) in prepared.steps.iter().enumerate() {
        let Some(temporary) = step.temporary() else { continue };
        if matches!(step, Step::Place { .. }) && moved.contains(&temporary.key()) {
            continue;
        }
        match sweep_step(&prepared.transaction.restored(index), step, temporary, roots, committed) {
            Ok(None) => {}
            Ok(Some(found)) => remnants.push(Remnant::at(temporary, found)),
            Err(CommitError::Stale(stale)) => remnants.push(Remnant::at(temporary, stale.what.to_string())),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    remnants.sort_unstable_by(|a, b| (&a.workspace, &a.path).cmp(&(&b.workspace, &b.path)));
    remnants.dedup();
    Ok(remnants)
}

fn sweep_step(
    restored: &str,
    step: &Step,
    temporary: &Spot,
    roots: &Roots,
    committed: bool,
) -> Result<Option<&'static str>, CommitError> {
    let (directory, held) = held(roots, temporary)?;
    let Some(directory) = directory else {
        return Ok((held == Held::Other).then_some("the directory of this temporary was replaced"));
    };
    let system = |errno| CommitError::system("sweep", temporary, errno);
    match directory.unlink(restored) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(system(errno)),
    }
    let known = match (&held, step) {
        (Held::Nothing, _) => return Ok(None),
        (Held::Directory { .. }, _) => {
            return match directory.remove(temporary.name()) {
                Ok(()) | Err(Errno::NOENT) => Ok(None),
                Err(Errno::NOTEMPTY) => Ok(Some("a directory that was moved aside is not empty")),
                Err(errno) => Err(system(errno)),
            };
        }
        (Held::Other, _) | (Held::File { .. }, Step::RemoveDirectory { .. } | Step::Touch { .. }) => false,
        // Our own inode, whatever a power loss left in it: what was displaced always has another.
        (Held::File { sha256, inode }, Step::Place { node: Node::File(node), .. }) => {
            *sha256 == node.sha256 || (!committed && *inode == node.inode)
        }
        (Held::File { .. }, Step::Place { node: Node::Directory(_), .. }) => false,
        (Held::File { sha256, inode }, Step::Exchange { before, after, .. }) => {
            *sha256 == after.sha256
                || (!committed && *inode == after.inode)
                || (*sha256 == before.sha256 && (committed || before.saved))
        }
        (Held::File { sha256, .. }, Step::Aside { before, .. }) => {
            *sha256 == before.sha256 && (committed || before.saved)
        }
    };
    if !known {
        return Ok(Some("content of somebody else, moved aside and kept under this name"));
    }
    match directory.unlink(temporary.name()) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(system(errno)),
    }
}
