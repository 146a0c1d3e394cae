//! Recovery: from the steps, the logged contents and the world alone, to before or after.
//!
//! The intent is a redo log. What a kill leaves is the state after some number of steps, with displaced contents perhaps
//! removed once all were done. A power loss may take more: contents and names of temporaries that were not flushed, and
//! the latest changes of names, of one file system but not of another. Steps that share no name are therefore judged
//! apart ([`super::reach`]), and a temporary that waits for its step is written anew from the log, because nobody knows
//! whether its flush succeeded; what the log does not hold was flushed before the intent. Where no reading fits, somebody
//! else changed something: the steps are taken back where they still hold, and what cannot be is listed. A reply may have
//! gone out for what is recovered here, so nothing but such a change takes a commit back: where the system refuses,
//! recovery fails and is repeated. Being killed here leaves again such a state.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;
use toolkeep_sandbox::stage::Content;

use crate::commit::files::apply::{Trust, refused, run, same_roots, sync_directories};
use crate::commit::files::fault::{CommitError, Difference, Remnant, Stale};
use crate::commit::files::reach::Names;
use crate::commit::files::rollback::{Held, Reach, held, roll_back};
use crate::commit::files::step::{FileNode, Key, Node, Prepared, Spot, Step};
use crate::commit::files::temporary::Fresh;
use crate::commit::files::tree::{Directory, Hands, Roots};
use crate::commit::files::{attributes, sweep};

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
/// `contents` finds logged and kept contents by digest.
///
/// # Errors
/// The world cannot be looked at or changed now (call again later), or the disk does not confirm
/// ([`CommitError::Poisoned`]).
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
    let forward = Forward { prepared, roots, contents, renewed: renewed(prepared) };
    if let Some(done) = names.steps_done(prepared, &|index| forward.logged(index).is_some())
        && forward.roll(&done)?
    {
        let remnants = sweep::sweep(prepared, roots, true)?;
        sync_directories(prepared, roots, &Hands::default())?;
        return Ok(if remnants.is_empty() { Recovered::RolledForward } else { Recovered::Halted(remnants) });
    }
    let waiting: BTreeSet<WorkspaceName> = names.waiting(prepared);
    let reach = Reach::Any { waiting };
    let remnants = roll_back(prepared, roots, &reach, contents)?;
    Ok(if remnants.is_empty() { Recovered::RolledBack } else { Recovered::Halted(remnants) })
}

/// The steps that put a file in place which was made for them: not one that an earlier step moved aside.
fn renewed(prepared: &Prepared) -> BTreeMap<usize, (&Spot, &Spot, &FileNode)> {
    let mut moved: BTreeSet<Key> = BTreeSet::new();
    let mut made = BTreeMap::new();
    for (index, step) in prepared.steps.iter().enumerate() {
        match step {
            Step::Place { temporary, target, node: Node::File(node) } if !moved.contains(&temporary.key()) => {
                made.insert(index, (temporary, target, node));
            }
            Step::Exchange { temporary, target, after, .. } => {
                made.insert(index, (temporary, target, after));
            }
            Step::Aside { temporary, .. } => {
                moved.insert(temporary.key());
            }
            Step::Place { .. } | Step::RemoveDirectory { .. } | Step::Touch { .. } => {}
        }
    }
    made
}

struct Forward<'a> {
    prepared: &'a Prepared,
    roots: &'a Roots,
    contents: &'a dyn Fn(&Digest) -> Option<Content>,
    renewed: BTreeMap<usize, (&'a Spot, &'a Spot, &'a FileNode)>,
}

impl Forward<'_> {
    /// The content of the file that a step puts in place, if the log has it.
    fn logged(&self, index: usize) -> Option<Content> {
        let (_, _, node) = self.renewed.get(&index)?;
        (self.contents)(&node.sha256).filter(|content| content.size() == node.size)
    }

    /// Do the steps that are not done. Tells whether all could be done.
    fn roll(&self, done: &[bool]) -> Result<bool, CommitError> {
        let mut hands = Hands::default();
        for (index, step) in self.prepared.steps.iter().enumerate() {
            if done.get(index).copied().unwrap_or(false) {
                continue;
            }
            let ran = self.renew(index).and_then(|()| run(step, self.roots, &mut hands, Trust::Content));
            match ran {
                Ok(()) => {}
                Err(error @ (CommitError::Poisoned(_) | CommitError::System { .. })) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a commit cannot be rolled forward");
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Write the file anew that a step is about to put in place, and flush it, if the log has its content.
    fn renew(&self, index: usize) -> Result<(), CommitError> {
        let Some((temporary, target, node)) = self.renewed.get(&index) else { return Ok(()) };
        let Some(content) = self.logged(index) else { return Ok(()) };
        let system = |errno| CommitError::system("write again", temporary, errno);
        let directory = Directory::of(self.roots, temporary)?;
        let name = self.prepared.transaction.restored(index);
        match directory.unlink(&name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(system(errno)),
        }
        let path = temporary.directory().join(&name).map_err(|_| CommitError::Order(temporary.path.clone()))?;
        let spot = Spot { path, ..(*temporary).clone() };
        let fresh = Fresh::write(&directory, &spot, &content, &node.sha256)?;
        if let Some(Step::Exchange { .. }) = self.prepared.steps.get(index) {
            let (old, _) = Directory::of(self.roots, target)?.file(target.name()).map_err(|e| refused(target, e))?;
            attributes::carry(&old, &fresh.file).map_err(system)?;
        } else {
            attributes::own(&fresh.file, node.owner).map_err(system)?;
        }
        fresh.permit(node.mode)?;
        fresh.sync()?;
        match held(self.roots, temporary)?.1 {
            Held::Nothing => {}
            Held::File { sha256, inode } if sha256 == node.sha256 || inode == node.inode => {
                directory.unlink(temporary.name()).map_err(system)?;
            }
            Held::File { .. } | Held::Directory { .. } | Held::Other => {
                return Err(CommitError::stale(temporary, Difference::Content));
            }
        }
        directory.rename(&name, &directory, temporary.name()).map_err(system)
    }
}
