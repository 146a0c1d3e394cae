//! Applying: the steps, in order, after they became durable.
//!
//! Each step verifies what it displaced after the kernel did it, and takes it back at once if that was not what the plan
//! was made from, so a file that somebody changed in the last moment gets its name back with their content. When a step
//! cannot be done, the ones before it are taken back ([`super::rollback`]). When all are done, nothing can go back any
//! more: displaced contents are removed and every directory is flushed once, before success is told.

use std::collections::BTreeSet;

use rustix::io::Errno;

use crate::commit::files::fault::{CommitError, Difference, Remnant, SyncFailed};
use crate::commit::files::step::{DirectoryNode, FORMAT, FileNode, Node, Prepared, Spot, Step};
use crate::commit::files::tree::{self, Directory, Kind, Roots};
use crate::commit::files::{rollback, sweep};

/// A plan that was applied and is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Directories that were flushed.
    pub directories: usize,
    /// Temporaries that the system did not let us remove; the plan stands regardless.
    pub leftovers: Vec<Remnant>,
}

/// Why a plan was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Everything is as it was before.
    #[error("nothing was committed: {0}")]
    RolledBack(#[source] CommitError),
    /// Some names could be neither applied nor taken back.
    #[error("the commit stopped and {count} names need an operator: {cause}", count = remnants.len())]
    Halted {
        /// What stopped it.
        #[source]
        cause: CommitError,
        /// What needs a look.
        remnants: Vec<Remnant>,
    },
    /// The disk did not confirm, or the system did not let the roll-back finish: recovery after a restart settles it.
    #[error("the outcome is not known: {0}")]
    Failed(#[source] CommitError),
}

/// Apply the steps. The caller has made them durable and holds the paths.
///
/// # Errors
/// The plan was rolled back, halted, or the disk did not confirm it; see [`ApplyError`].
pub fn apply(prepared: &Prepared, roots: &Roots) -> Result<Applied, ApplyError> {
    for (index, step) in prepared.steps.iter().enumerate() {
        let done = if index == 0 { same_roots(prepared, roots) } else { Ok(()) }.and_then(|()| run(step, roots));
        match done {
            Ok(()) => {}
            Err(failed @ CommitError::Poisoned(_)) => return Err(ApplyError::Failed(failed)),
            Err(cause) => {
                let reach = rollback::Reach::Until(index);
                let remnants = rollback::roll_back(prepared, roots, &reach, &|_| None).map_err(ApplyError::Failed)?;
                return Err(if remnants.is_empty() {
                    ApplyError::RolledBack(cause)
                } else {
                    ApplyError::Halted { cause, remnants }
                });
            }
        }
    }
    let leftovers = sweep::clear_displaced(prepared, roots);
    let directories = sync_directories(prepared, roots).map_err(|failed| ApplyError::Failed(failed.into()))?;
    Ok(Applied { directories, leftovers })
}

/// Check the format, and that every workspace is still the directory that it was.
pub(super) fn same_roots(prepared: &Prepared, roots: &Roots) -> Result<(), CommitError> {
    if prepared.format != FORMAT {
        return Err(CommitError::Format(prepared.format));
    }
    for (workspace, inode) in &prepared.roots {
        let path = toolkeep_core::path::WorkspacePath::root();
        let root = Directory::open(roots, workspace, &path)?;
        if root.inode() != *inode {
            let spot = Spot { workspace: workspace.clone(), path, parent: None };
            return Err(CommitError::stale(&spot, Difference::Parent));
        }
    }
    Ok(())
}

/// Flush every directory in which a name changed, each once. Directories that the plan removed are gone.
pub(super) fn sync_directories(prepared: &Prepared, roots: &Roots) -> Result<usize, SyncFailed> {
    let mut directories = BTreeSet::new();
    for step in &prepared.steps {
        if let Some(temporary) = step.temporary() {
            directories.extend([step.target(), temporary].map(|spot| (&spot.workspace, spot.directory())));
        }
    }
    let mut flushed = 0;
    for (workspace, path) in directories {
        let failed = |source| SyncFailed { workspace: workspace.clone(), path: path.clone(), source };
        match Directory::open(roots, workspace, &path) {
            Ok(directory) => directory.sync().map_err(|errno| failed(errno.into()))?,
            Err(CommitError::Stale(_)) => continue,
            Err(CommitError::System { source, .. }) => return Err(failed(source)),
            Err(other) => return Err(failed(std::io::Error::other(other))),
        }
        flushed += 1;
    }
    Ok(flushed)
}

/// Do one step and verify it. A step that fails has changed nothing, unless even taking it back failed, which
/// [`super::rollback`] sees from the names.
pub(super) fn run(step: &Step, roots: &Roots) -> Result<(), CommitError> {
    match step {
        Step::Place { temporary, target, node } => place(temporary, target, node, roots),
        Step::Exchange { temporary, target, before, after } => exchange(temporary, target, (before, after), roots),
        Step::Aside { target, temporary, before } => aside(target, temporary, before, roots),
        Step::RemoveDirectory { target, before, .. } => remove_directory(target, before, roots),
        Step::Touch { target, before_ns, after_ns } => touch(target, *before_ns, *after_ns, roots),
    }
}

fn place(temporary: &Spot, target: &Spot, node: &Node, roots: &Roots) -> Result<(), CommitError> {
    let (from, to) = (Directory::of(roots, temporary)?, Directory::of(roots, target)?);
    let waits = from.look(temporary.name()).map_err(|errno| CommitError::system("look at", temporary, errno))?;
    let untouched = waits.is_some_and(|found| match node {
        Node::File(file) => found.is(file),
        Node::Directory(directory) => found.kind == Kind::Directory && found.inode == directory.inode,
    });
    if !untouched {
        return Err(CommitError::stale(temporary, Difference::Content));
    }
    from.rename(temporary.name(), &to, target.name()).map_err(|errno| refused(target, errno))?;
    if from.is_still(roots, temporary) && to.is_still(roots, target) {
        return Ok(());
    }
    to.rename(target.name(), &from, temporary.name()).map_err(|errno| refused(target, errno))?;
    Err(CommitError::stale(target, Difference::Parent))
}

fn exchange(
    temporary: &Spot,
    target: &Spot,
    (before, after): (&FileNode, &FileNode),
    roots: &Roots,
) -> Result<(), CommitError> {
    let (from, to) = (Directory::of(roots, temporary)?, Directory::of(roots, target)?);
    let waits = from.look(temporary.name()).map_err(|errno| CommitError::system("look at", temporary, errno))?;
    if !waits.is_some_and(|found| found.is(after)) {
        return Err(CommitError::stale(temporary, Difference::Content));
    }
    from.exchange(temporary.name(), &to, target.name()).map_err(|errno| refused(target, errno))?;
    let verdict = displaced(&from, temporary, target, before).and_then(|()| {
        let still = from.is_still(roots, temporary) && to.is_still(roots, target);
        if still { Ok(()) } else { Err(CommitError::stale(target, Difference::Parent)) }
    });
    if verdict.is_err() {
        from.exchange(temporary.name(), &to, target.name()).map_err(|errno| refused(target, errno))?;
    }
    verdict
}

fn aside(target: &Spot, temporary: &Spot, before: &FileNode, roots: &Roots) -> Result<(), CommitError> {
    let (from, to) = (Directory::of(roots, target)?, Directory::of(roots, temporary)?);
    from.rename(target.name(), &to, temporary.name()).map_err(|errno| refused(target, errno))?;
    let verdict = displaced(&to, temporary, target, before).and_then(|()| {
        let still = from.is_still(roots, target) && to.is_still(roots, temporary);
        if still { Ok(()) } else { Err(CommitError::stale(target, Difference::Parent)) }
    });
    if verdict.is_err() {
        to.rename(temporary.name(), &from, target.name()).map_err(|errno| refused(target, errno))?;
    }
    verdict
}

fn remove_directory(target: &Spot, before: &DirectoryNode, roots: &Roots) -> Result<(), CommitError> {
    let parent = Directory::of(roots, target)?;
    match parent.look(target.name()).map_err(|errno| CommitError::system("look at", target, errno))? {
        None => return Err(CommitError::stale(target, Difference::Vanished)),
        Some(found) if found.kind != Kind::Directory => return Err(CommitError::stale(target, Difference::Kind)),
        Some(found) if found.inode != before.inode => return Err(CommitError::stale(target, Difference::Parent)),
        Some(_) => {}
    }
    parent.remove(target.name()).map_err(|errno| refused(target, errno))
}

fn touch(target: &Spot, before_ns: Option<i64>, after_ns: i64, roots: &Roots) -> Result<(), CommitError> {
    let (file, found) = Directory::of(roots, target)?.file(target.name()).map_err(|errno| refused(target, errno))?;
    if before_ns.is_some_and(|before| found.modified_ns != before && found.modified_ns != after_ns) {
        return Err(CommitError::stale(target, Difference::Times));
    }
    tree::set_modified(&file, after_ns).map_err(|errno| CommitError::system("set the time of", target, errno))?;
    tree::retry(|| rustix::fs::fsync(&file)).map_err(|errno| CommitError::sync(&target.workspace, &target.path, errno))
}

/// Whether what was displaced to a temporary is the file that the plan was made from.
fn displaced(directory: &Directory, temporary: &Spot, target: &Spot, before: &FileNode) -> Result<(), CommitError> {
    let found = directory.look(temporary.name()).map_err(|errno| CommitError::system("look at", target, errno))?;
    let difference = match found {
        None => Some(Difference::Vanished),
        Some(found) if found.kind != Kind::File => Some(Difference::Kind),
        Some(found) if found.links != 1 => Some(Difference::Links),
        Some(found) if found.mode != before.mode => Some(Difference::Mode),
        Some(found) if found.size != before.size => Some(Difference::Content),
        Some(_) => None,
    };
    if let Some(difference) = difference {
        return Err(CommitError::stale(target, difference));
    }
    let (mut file, _) = directory.file(temporary.name()).map_err(|errno| refused(target, errno))?;
    let (sha256, _) = tree::digest(&mut file).map_err(|errno| CommitError::system("read", target, errno))?;
    if sha256 == before.sha256 { Ok(()) } else { Err(CommitError::stale(target, Difference::Content)) }
}

/// What a refused change of a name says about the world.
fn refused(target: &Spot, errno: Errno) -> CommitError {
    let what = match errno {
        Errno::EXIST => Difference::Appeared,
        Errno::NOENT => Difference::Vanished,
        Errno::NOTEMPTY => Difference::NotEmpty,
        Errno::NOTDIR | Errno::ISDIR | Errno::PERM => Difference::Kind,
        Errno::LOOP | Errno::XDEV => Difference::Parent,
        other => return CommitError::system("change", target, other),
    };
    CommitError::stale(target, what)
}
