//! Applying: the steps, in order, after they became durable and the new files were flushed.
//!
//! Each step verifies what it displaced after the kernel did it, and takes it back at once if that was not what the plan
//! was made from, so a file that somebody changed in the last moment gets its name back with their content. When a step
//! cannot be done, the ones before it are taken back ([`super::rollback`]). When all are done, nothing can go back any
//! more: displaced contents are removed, and the commit stands. Its names need not be on the disk for that: what a power
//! loss takes of them recovery does again, because the steps are durable and so is every content that they name. Only the
//! outcome, which ends that duty, has to wait until [`confirm`] has flushed every directory once.

use std::collections::BTreeSet;

use rustix::io::Errno;

use crate::commit::files::fault::{CommitError, Difference, Remnant, SyncFailed};
use crate::commit::files::step::{DirectoryNode, FORMAT, FileNode, Node, Prepared, Spot, Step};
use crate::commit::files::tree::{self, Directory, Hands, Kind, Roots};
use crate::commit::files::{rollback, sweep};

/// A plan that was applied and verified. It stands; its names are on the disk after [`confirm`].
#[derive(Debug)]
#[must_use = "confirm it before its outcome is recorded"]
pub struct Applied {
    /// Temporaries that the system did not let us remove; the plan stands regardless.
    pub leftovers: Vec<Remnant>,
    hands: Hands,
}

/// How sure a step is of what waits under a temporary name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// The process that made it applies it: inode, size and time say whether anybody touched it.
    Stat,
    /// Another process recovers: only the content says.
    Content,
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
    let mut hands = Hands::default();
    for (index, step) in prepared.steps.iter().enumerate() {
        let same = if index == 0 { same_roots(prepared, roots) } else { Ok(()) };
        let done = same.and_then(|()| run(step, roots, &mut hands, Trust::Stat));
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
    let leftovers = sweep::clear_displaced(prepared, roots, &mut hands);
    Ok(Applied { leftovers, hands })
}

/// Flush every directory in which an applied plan changed a name, each once; says how many. Only then may the outcome
/// be recorded.
///
/// # Errors
/// The disk did not confirm: the outcome must not be recorded, so that recovery looks at the names again.
pub fn confirm(applied: &Applied, prepared: &Prepared, roots: &Roots) -> Result<usize, SyncFailed> {
    sync_directories(prepared, roots, &applied.hands)
}

/// Check the format, and that every workspace is still the directory that it was.
pub(super) fn same_roots(prepared: &Prepared, roots: &Roots) -> Result<(), CommitError> {
    if prepared.format != FORMAT {
        return Err(CommitError::Format(prepared.format));
    }
    for (workspace, inode) in &prepared.roots {
        if tree::root_inode(roots, workspace)? != *inode {
            let path = toolkeep_core::path::WorkspacePath::root();
            let spot = Spot { workspace: workspace.clone(), path, parent: None };
            return Err(CommitError::stale(&spot, Difference::Parent));
        }
    }
    Ok(())
}

/// Flush every directory in which a name changed, each once. Directories that the plan removed are gone.
pub(super) fn sync_directories(prepared: &Prepared, roots: &Roots, hands: &Hands) -> Result<usize, SyncFailed> {
    let mut directories = BTreeSet::new();
    for step in &prepared.steps {
        if let Some(temporary) = step.temporary() {
            directories.extend([step.target(), temporary].map(|spot| (&spot.workspace, spot.directory())));
        }
    }
    let mut flushed = 0;
    for (workspace, path) in directories {
        let failed = |source| SyncFailed { workspace: workspace.clone(), path: path.clone(), source };
        flushed += 1;
        if let Some(directory) = hands.kept(workspace, &path) {
            directory.sync().map_err(|errno| failed(errno.into()))?;
            continue;
        }
        match Directory::open(roots, workspace, &path) {
            Ok(directory) => directory.sync().map_err(|errno| failed(errno.into()))?,
            Err(CommitError::Stale(_)) => flushed -= 1,
            Err(CommitError::System { source, .. }) => return Err(failed(source)),
            Err(other) => return Err(failed(std::io::Error::other(other))),
        }
    }
    Ok(flushed)
}

/// Do one step and verify it. A step that fails has changed nothing, unless even taking it back failed, which
/// [`super::rollback`] sees from the names.
pub(super) fn run(step: &Step, roots: &Roots, hands: &mut Hands, trust: Trust) -> Result<(), CommitError> {
    match step {
        Step::Place { temporary, target, node } => {
            waits(hands.of(roots, temporary)?.as_ref(), temporary, node, trust)?;
            place(temporary, target, roots, hands)?;
            if matches!(node, Node::Directory(_)) {
                hands.forget(target);
            }
            Ok(())
        }
        Step::Exchange { temporary, target, before, after } => {
            waits(hands.of(roots, temporary)?.as_ref(), temporary, &Node::File(after.clone()), trust)?;
            exchange(temporary, target, before, roots, hands)
        }
        Step::Aside { target, temporary, before } => aside(target, temporary, before, roots, hands),
        Step::RemoveDirectory { target, before, .. } => remove_directory(target, before, roots, hands),
        Step::Touch { target, before_ns, after_ns } => touch(target, *before_ns, *after_ns, roots, hands),
    }
}

/// Check that what waits under a temporary name is what the plan puts in place.
fn waits(directory: &Directory, temporary: &Spot, node: &Node, trust: Trust) -> Result<(), CommitError> {
    let found = directory.look(temporary.name()).map_err(|errno| CommitError::system("look at", temporary, errno))?;
    let is_it = match (found, node, trust) {
        (None, _, _) => false,
        (Some(found), Node::Directory(_), Trust::Content) => found.kind == Kind::Directory,
        (Some(found), Node::Directory(node), Trust::Stat) => found.kind == Kind::Directory && found.inode == node.inode,
        (Some(found), Node::File(node), Trust::Stat) => found.is(node),
        (Some(found), Node::File(node), Trust::Content) => {
            found.kind == Kind::File && {
                let (mut file, _) = directory.file(temporary.name()).map_err(|errno| refused(temporary, errno))?;
                let (sha256, _) =
                    tree::digest(&mut file).map_err(|errno| CommitError::system("read", temporary, errno))?;
                sha256 == node.sha256
            }
        }
    };
    if is_it { Ok(()) } else { Err(CommitError::stale(temporary, Difference::Content)) }
}

fn place(temporary: &Spot, target: &Spot, roots: &Roots, hands: &mut Hands) -> Result<(), CommitError> {
    let (from, to) = (hands.of(roots, temporary)?, hands.of(roots, target)?);
    from.rename(temporary.name(), &to, target.name()).map_err(|errno| refused(target, errno))?;
    if hands.settled(roots, &[(&from, temporary), (&to, target)]) {
        return Ok(());
    }
    to.rename(target.name(), &from, temporary.name()).map_err(|errno| refused(target, errno))?;
    Err(CommitError::stale(target, Difference::Parent))
}

fn exchange(
    temporary: &Spot,
    target: &Spot,
    before: &FileNode,
    roots: &Roots,
    hands: &mut Hands,
) -> Result<(), CommitError> {
    let (from, to) = (hands.of(roots, temporary)?, hands.of(roots, target)?);
    from.exchange(temporary.name(), &to, target.name()).map_err(|errno| refused(target, errno))?;
    let verdict = displaced(&from, temporary, target, before).and_then(|()| {
        let still = hands.settled(roots, &[(&from, temporary), (&to, target)]);
        if still { Ok(()) } else { Err(CommitError::stale(target, Difference::Parent)) }
    });
    if verdict.is_err() {
        from.exchange(temporary.name(), &to, target.name()).map_err(|errno| refused(target, errno))?;
    }
    verdict
}

fn aside(
    target: &Spot,
    temporary: &Spot,
    before: &FileNode,
    roots: &Roots,
    hands: &mut Hands,
) -> Result<(), CommitError> {
    let (from, to) = (hands.of(roots, target)?, hands.of(roots, temporary)?);
    from.rename(target.name(), &to, temporary.name()).map_err(|errno| refused(target, errno))?;
    let verdict = displaced(&to, temporary, target, before).and_then(|()| {
        let still = hands.settled(roots, &[(&from, target), (&to, temporary)]);
        if still { Ok(()) } else { Err(CommitError::stale(target, Difference::Parent)) }
    });
    if verdict.is_err() {
        to.rename(temporary.name(), &from, target.name()).map_err(|errno| refused(target, errno))?;
    }
    verdict
}

fn remove_directory(
    target: &Spot,
    before: &DirectoryNode,
    roots: &Roots,
    hands: &mut Hands,
) -> Result<(), CommitError> {
    let parent = hands.of(roots, target)?;
    match parent.look(target.name()).map_err(|errno| CommitError::system("look at", target, errno))? {
        None => return Err(CommitError::stale(target, Difference::Vanished)),
        Some(found) if found.kind != Kind::Directory => return Err(CommitError::stale(target, Difference::Kind)),
        Some(found) if found.inode != before.inode => return Err(CommitError::stale(target, Difference::Parent)),
        Some(_) => {}
    }
    parent.remove(target.name()).map_err(|errno| refused(target, errno))?;
    hands.forget(target);
    hands.unsettled();
    Ok(())
}

fn touch(
    target: &Spot,
    before_ns: Option<i64>,
    after_ns: i64,
    roots: &Roots,
    hands: &mut Hands,
) -> Result<(), CommitError> {
    let opened = hands.of(roots, target)?.file(target.name());
    let (file, found) = opened.map_err(|errno| refused(target, errno))?;
    if before_ns.is_some_and(|before| found.modified_ns != before && found.modified_ns != after_ns) {
        return Err(CommitError::stale(target, Difference::Times));
    }
    hands.unsettled();
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
pub(super) fn refused(target: &Spot, errno: Errno) -> CommitError {
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
