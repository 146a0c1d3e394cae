//! Undo: the inverse plan of a commit, from the last effect back to the first.
//!
//! The inverse is an ordinary list of effects. Its `before`s are what the commit left, so the ordinary check finds out
//! whether anybody changed a target since; its contents come from the undo store. It is shown, decided and committed like
//! any other plan. Modification times of files that the plan wrote are not brought back: they are no part of a file's state.

use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Effect, FileState};
use toolkeep_core::path::WorkspacePath;

use crate::commit::files::step::{FileNode, Node, Prepared, Step};

/// What undoes a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inverse {
    /// In the order in which they are applied.
    pub effects: Vec<Effect>,
    /// Contents that they write, to be found in the undo store.
    pub contents: Vec<Digest>,
}

/// Why a commit cannot be undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoInverse {
    /// The content was larger than the undo quota allowed.
    #[error("what was at `{0}` before was not kept, so the commit cannot be undone")]
    NotKept(WorkspacePath),
    /// The steps are not those of the effects.
    #[error("the stored steps do not belong to the plan")]
    Mismatch,
}

/// Build the effects that undo the files and directories of `effects`, which were committed as `prepared` says.
///
/// # Errors
/// A destroyed content was not kept, or the two do not belong together.
pub fn inverse(effects: &[Effect], prepared: &Prepared) -> Result<Inverse, NoInverse> {
    let mut steps = prepared.steps.iter();
    let mut undone = Inverse { effects: Vec::with_capacity(effects.len()), contents: Vec::new() };
    for effect in effects.iter().filter(|effect| effect.workspace().is_some()) {
        let step = steps.next().ok_or(NoInverse::Mismatch)?;
        if step.target().path != *effect.paths().next().ok_or(NoInverse::Mismatch)? {
            return Err(NoInverse::Mismatch);
        }
        match (effect, step) {
            (
                Effect::FileWrite { workspace, path, before: None, after },
                Step::Place { node: Node::File(node), .. },
            ) => {
                let before = left(after, node);
                undone.effects.push(Effect::FileDelete { workspace: workspace.clone(), path: path.clone(), before });
            }
            (
                Effect::FileWrite { workspace, path, before: Some(before), after },
                Step::Exchange { before: node, after: written, .. },
            ) => {
                undone.contents.push(kept(path, before, node)?);
                undone.effects.push(Effect::FileWrite {
                    workspace: workspace.clone(),
                    path: path.clone(),
                    before: Some(left(after, written)),
                    after: before.clone(),
                });
            }
            (Effect::FileDelete { workspace, path, before }, Step::Aside { before: node, .. }) => {
                undone.contents.push(kept(path, before, node)?);
                undone.effects.push(Effect::FileWrite {
                    workspace: workspace.clone(),
                    path: path.clone(),
                    before: None,
                    after: before.clone(),
                });
            }
            (Effect::FileRename { workspace, from, to, before }, Step::Aside { before: node, .. }) => {
                steps.next().ok_or(NoInverse::Mismatch)?;
                undone.effects.push(Effect::FileRename {
                    workspace: workspace.clone(),
                    from: to.clone(),
                    to: from.clone(),
                    before: left(before, node),
                });
            }
            (Effect::FileMetadata { .. }, Step::Touch { before_ns: None, .. }) => {}
            (Effect::FileMetadata { workspace, path, before, after }, Step::Touch { .. }) => {
                undone.effects.push(Effect::FileMetadata {
                    workspace: workspace.clone(),
                    path: path.clone(),
                    before: *after,
                    after: *before,
                });
            }
            (Effect::DirCreate { workspace, path }, Step::Place { node: Node::Directory(_), .. }) => {
                undone.effects.push(Effect::DirDelete { workspace: workspace.clone(), path: path.clone() });
            }
            (Effect::DirDelete { workspace, path }, Step::RemoveDirectory { .. }) => {
                undone.effects.push(Effect::DirCreate { workspace: workspace.clone(), path: path.clone() });
            }
            (_, _) => return Err(NoInverse::Mismatch),
        }
    }
    undone.effects.reverse();
    undone.contents.sort_unstable();
    undone.contents.dedup();
    Ok(undone)
}

/// What the commit left at a path: the content of the effect with the mode that it really got.
fn left(state: &FileState, node: &FileNode) -> FileState {
    FileState { mode: node.mode, ..state.clone() }
}

fn kept(path: &WorkspacePath, before: &FileState, node: &FileNode) -> Result<Digest, NoInverse> {
    if node.saved { Ok(before.sha256) } else { Err(NoInverse::NotKept(path.clone())) }
}
