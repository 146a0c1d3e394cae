//! Rolling back: the steps in reverse, each judged alone by what its names hold.
//!
//! A step is taken back only where its names show that it was done and still hold what it left. What is found under a
//! temporary name was displaced by us, known or not, so it goes back to where it came from. A target that holds something
//! else is left alone and reported. Every case ends in a state in which the same step, judged again, asks for nothing
//! more, which is what makes recovery repeatable.

use std::collections::BTreeSet;

use toolkeep_core::digest::Digest;
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::plan::EntryKind;
use toolkeep_sandbox::stage::Content;

use rustix::io::Errno;

use crate::commit::files::apply::sync_directories;
use crate::commit::files::fault::{CommitError, Remnant};
use crate::commit::files::step::{DirectoryNode, FileNode, Node, Prepared, Spot, Step};
use crate::commit::files::temporary::Fresh;
use crate::commit::files::tree::{self, Directory, Hands, Kind, Roots};
use crate::commit::files::{attributes, sweep};

/// Which steps may have been done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// All before this one, and this one perhaps half; displaced contents are all there.
    Until(usize),
    /// Any.
    Any {
        /// Where something still waits for its step, displaced contents are all there; in every other workspace they may
        /// have been removed already.
        waiting: BTreeSet<WorkspaceName>,
    },
}

/// What a name holds, with content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// No entry, or no directory for one.
    Nothing,
    /// A regular file with one link.
    File { sha256: Digest, inode: u64 },
    /// A directory.
    Directory { inode: u64 },
    /// Anything else, or something on the way there is not what it was.
    Other,
}

impl Held {
    fn has(self, node: &FileNode) -> bool {
        matches!(self, Self::File { sha256, .. } if sha256 == node.sha256)
    }
}

/// Look at a name. The directory is there unless it is missing or another.
pub(super) fn held(roots: &Roots, spot: &Spot) -> Result<(Option<Directory>, Held), CommitError> {
    let fd = tree::root(roots, &spot.workspace)?.fd();
    match toolkeep_sandbox::beneath::look(fd, &spot.directory()) {
        Ok(None) => return Ok((None, Held::Nothing)),
        // A name beneath a file is no name.
        Ok(Some(seen)) if seen.entry == EntryKind::File => return Ok((None, Held::Nothing)),
        Ok(Some(_)) | Err(Errno::LOOP) => {}
        Err(errno) => return Err(CommitError::system("look at", spot, errno)),
    }
    let directory = match Directory::of(roots, spot) {
        Ok(directory) => directory,
        Err(CommitError::Stale(_)) => return Ok((None, Held::Other)),
        Err(other) => return Err(other),
    };
    let system = |errno| CommitError::system("look at", spot, errno);
    let held = match directory.look(spot.name()).map_err(system)? {
        None => Held::Nothing,
        Some(found) if found.kind == Kind::Directory => Held::Directory { inode: found.inode },
        Some(found) if found.kind == Kind::File && found.links == 1 => match directory.file(spot.name()) {
            Ok((mut file, found)) => {
                let (sha256, _) = tree::digest(&mut file).map_err(system)?;
                Held::File { sha256, inode: found.inode }
            }
            Err(Errno::PERM | Errno::LOOP | Errno::XDEV) => Held::Other,
            Err(errno) => return Err(system(errno)),
        },
        Some(_) => Held::Other,
    };
    Ok((Some(directory), held))
}

struct Return<'a> {
    prepared: &'a Prepared,
    roots: &'a Roots,
    contents: &'a dyn Fn(&Digest) -> Option<Content>,
    reach: &'a Reach,
}

/// Take back what was done, sweep, and flush. What remains needs an operator.
///
/// Goes on after a step that the system does not let it judge or change, then tells the first such failure: recovery
/// has to come again.
pub(super) fn roll_back(
    prepared: &Prepared,
    roots: &Roots,
    reach: &Reach,
    contents: &dyn Fn(&Digest) -> Option<Content>,
) -> Result<Vec<Remnant>, CommitError> {
    let count = match reach {
        Reach::Until(index) => *index,
        Reach::Any { .. } => prepared.steps.len(),
    };
    let back = Return { prepared, roots, contents, reach };
    let (mut remnants, mut failed) = (Vec::new(), None);
    let mut judge = |index: usize, step: &Step| match back.step(index, step) {
        Ok(None) => {}
        Ok(Some(found)) => remnants.push(Remnant::at(step.target(), found)),
        Err(CommitError::Stale(stale)) => remnants.push(Remnant::at(step.target(), stale.what.to_string())),
        Err(error) => failed = failed.take().or(Some(error)),
    };
    if let (Reach::Until(_), Some(half)) = (reach, prepared.steps.get(count)) {
        // A directory is removed at once or not at all: nothing of a failed removal is to be taken back.
        if !matches!(half, Step::RemoveDirectory { .. }) {
            judge(count, half);
        }
    }
    for (index, step) in prepared.steps.iter().enumerate().take(count).rev() {
        judge(index, step);
    }
    if let Some(error) = failed {
        // Temporaries stay: the next attempt needs them.
        return Err(error);
    }
    remnants.extend(sweep::sweep(prepared, roots, false)?);
    sync_directories(prepared, roots, &Hands::default())?;
    Ok(remnants)
}

impl Return<'_> {
    fn step(&self, index: usize, step: &Step) -> Result<Option<&'static str>, CommitError> {
        match step {
            Step::Place { temporary, target, node: Node::File(node) } => self.unplace(temporary, target, node),
            Step::Place { target, node: Node::Directory(node), .. } => self.unmake(target, node),
            Step::Exchange { temporary, target, before, after } => {
                self.unexchange(index, (temporary, target), before, after)
            }
            Step::Aside { target, temporary, before } => self.unaside(index, target, temporary, before),
            Step::RemoveDirectory { target, temporary, before } => self.remake(target, temporary, before),
            Step::Touch { target, before_ns, after_ns } => self.untouch(target, *before_ns, *after_ns),
        }
    }

    /// Whether content that was displaced from there may have been removed already.
    fn cleared(&self, target: &Spot) -> bool {
        match self.reach {
            Reach::Until(_) => false,
            Reach::Any { waiting } => !waiting.contains(&target.workspace),
        }
    }

    fn unplace(&self, temporary: &Spot, target: &Spot, node: &FileNode) -> Result<Option<&'static str>, CommitError> {
        let (to, waits) = held(self.roots, temporary)?;
        let (from, now) = held(self.roots, target)?;
        match (now, waits, from, to) {
            (Held::File { sha256, inode }, Held::Nothing, Some(from), Some(to)) if sha256 == node.sha256 => {
                if inode != node.inode {
                    return Ok(Some("the plan's content, written again by somebody else"));
                }
                let back = from.rename(target.name(), &to, temporary.name());
                back.map_err(|errno| CommitError::system("take back", target, errno))?;
                Ok(None)
            }
            (Held::Nothing, _, _, _) => Ok(None),
            (_, waits, _, _) if waits.has(node) => Ok(None),
            (Held::File { .. } | Held::Directory { .. } | Held::Other, _, _, _) => {
                Ok(Some("neither the plan's content nor what was there before"))
            }
        }
    }

    fn unmake(&self, target: &Spot, node: &DirectoryNode) -> Result<Option<&'static str>, CommitError> {
        match held(self.roots, target)? {
            (Some(parent), Held::Directory { inode }) if inode == node.inode => match parent.remove(target.name()) {
                Ok(()) | Err(Errno::NOENT) => Ok(None),
                Err(Errno::NOTEMPTY) => Ok(Some("the new directory holds something of somebody else")),
                Err(errno) => Err(CommitError::system("take back", target, errno)),
            },
            _ => Ok(None),
        }
    }

    fn unexchange(
        &self,
        index: usize,
        (temporary, target): (&Spot, &Spot),
        before: &FileNode,
        after: &FileNode,
    ) -> Result<Option<&'static str>, CommitError> {
        let (from, waits) = held(self.roots, temporary)?;
        let (to, now) = held(self.roots, target)?;
        if matches!(now, Held::File { inode, .. } if inode == before.inode) && now.has(before) {
            return Ok(None);
        }
        if let (Some(from), Some(to)) = (from, to)
            && now.has(after)
        {
            if waits == Held::Nothing && !self.restore(index, temporary, before, (&from, temporary.name()))? {
                return Ok(Some("the plan's content; what was there before is not kept"));
            }
            let back = from.exchange(temporary.name(), &to, target.name());
            back.map_err(|errno| CommitError::system("take back", target, errno))?;
            return Ok(None);
        }
        let undone = now.has(before) || waits.has(after);
        Ok((!undone).then_some("neither the plan's content nor what was there before"))
    }

    fn unaside(
        &self,
        index: usize,
        target: &Spot,
        temporary: &Spot,
        before: &FileNode,
    ) -> Result<Option<&'static str>, CommitError> {
        let (from, aside) = held(self.roots, temporary)?;
        let (to, now) = held(self.roots, target)?;
        match (aside, now) {
            (Held::Nothing, now) if !self.cleared(target) || now.has(before) => Ok(None),
            (Held::Nothing, Held::Nothing) => {
                let (Some(from), Some(to)) = (from, to) else { return Ok(Some("its directory is gone")) };
                let restored = self.restore_to(index, temporary, before, &from, (&to, target.name()))?;
                Ok((!restored).then_some("removed; what was there is not kept"))
            }
            (Held::Nothing, _) => Ok(Some("neither removed nor what was there before")),
            (_, Held::Nothing) => {
                let (Some(from), Some(to)) = (from, to) else { return Ok(Some("its directory is gone")) };
                let back = from.rename(temporary.name(), &to, target.name());
                back.map_err(|errno| CommitError::system("take back", target, errno))?;
                Ok(None)
            }
            (_, _) => Ok(Some("somebody else's, where a file was moved away")),
        }
    }

    fn remake(
        &self,
        target: &Spot,
        temporary: &Spot,
        before: &DirectoryNode,
    ) -> Result<Option<&'static str>, CommitError> {
        match held(self.roots, target)? {
            (_, Held::Directory { .. }) => Ok(None),
            (Some(to), Held::Nothing) => {
                let from = Directory::of(self.roots, temporary)?;
                let system = |errno| CommitError::system("make again", target, errno);
                match from.remove(temporary.name()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(system(errno)),
                }
                let made = from.make(temporary.name(), before.mode).map_err(system)?;
                attributes::own(&made, before.owner).map_err(system)?;
                from.rename(temporary.name(), &to, target.name()).map_err(system)?;
                Ok(None)
            }
            (_, _) => Ok(Some("something else where a directory was removed")),
        }
    }

    fn untouch(
        &self,
        target: &Spot,
        before_ns: Option<i64>,
        after_ns: i64,
    ) -> Result<Option<&'static str>, CommitError> {
        let Some(before_ns) = before_ns else { return Ok(None) };
        let directory = match Directory::of(self.roots, target) {
            Ok(directory) => directory,
            Err(CommitError::Stale(_)) => return Ok(None),
            Err(other) => return Err(other),
        };
        let (file, found) = match directory.file(target.name()) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::PERM | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(CommitError::system("open", target, errno)),
        };
        if found.modified_ns == after_ns {
            tree::set_modified(&file, before_ns)
                .map_err(|errno| CommitError::system("set the time of", target, errno))?;
            tree::retry(|| rustix::fs::fsync(&file))
                .map_err(|errno| CommitError::sync(&target.workspace, &target.path, errno))?;
        }
        Ok(None)
    }

    fn restore(
        &self,
        index: usize,
        temporary: &Spot,
        node: &FileNode,
        to: (&Directory, &str),
    ) -> Result<bool, CommitError> {
        self.restore_to(index, temporary, node, to.0, to)
    }

    /// Write kept content completely under a name of its own, then give it its name. Tells whether it was kept.
    fn restore_to(
        &self,
        index: usize,
        temporary: &Spot,
        node: &FileNode,
        within: &Directory,
        (to, name): (&Directory, &str),
    ) -> Result<bool, CommitError> {
        let Some(content) = node.saved.then(|| (self.contents)(&node.sha256)).flatten() else { return Ok(false) };
        let system = |errno| CommitError::system("restore", temporary, errno);
        let restored = self.prepared.transaction.restored(index);
        match within.unlink(&restored) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(system(errno)),
        }
        let path = temporary.directory().join(&restored).map_err(|_| CommitError::Order(temporary.path.clone()))?;
        let spot = Spot { path, ..temporary.clone() };
        let fresh = Fresh::write(within, &spot, &content, &node.sha256)?;
        attributes::own(&fresh.file, node.owner).map_err(system)?;
        fresh.permit(node.mode)?;
        fresh.sync()?;
        within.rename(&restored, to, name).map_err(system)?;
        Ok(true)
    }
}
