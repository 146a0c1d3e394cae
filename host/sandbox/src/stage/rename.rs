//! Moving entries of the merged tree.
//!
//! A moved directory takes everything beneath it along, so everything beneath it is listed first: each file is an effect
//! of its own, each must be granted at both ends, and a link or a special file anywhere beneath refuses the move.
//! Nothing is changed before every check has passed.

use toolkeep_core::path::{DEPTH_MAX, PathProblem, WorkspacePath};

use super::resolve::Place;
use super::tree::{Kind, NodeId, Tree};
use super::{Handle, StageError};

impl Tree {
    pub(super) fn rename(&mut self, from: &Handle, old: &str, to: &Handle, new: &str) -> Result<(), StageError> {
        if self.node(from.node)?.mount != self.node(to.node)?.mount {
            return Err(StageError::CrossWorkspace);
        }
        let source = self.resolve("rename", from.node, old, false)?;
        let target = self.resolve("rename", to.node, new, false)?;
        let id = source.node.ok_or(StageError::NoEntry)?;
        self.observe(id)?;
        self.not_through_a_link("rename", &source, old)?;
        self.not_through_a_link("rename", &target, new)?;
        let (Some(_), Some(name)) = (&source.name, &target.name) else { return Err(StageError::Invalid) };
        let name = name.clone();
        if !self.node(target.parent)?.linked {
            return Err(StageError::NoEntry);
        }
        if self.is_within(target.parent, id)? {
            return Err(StageError::Invalid);
        }
        if let Some(over) = target.node {
            self.observe(over)?;
            if over == id {
                return Ok(());
            }
            self.check_over(id, over, source.parent)?;
        }
        let path = target.path(self)?;
        let moves = self.moves(id, &path)?;
        for (node, path) in &moves {
            self.may_move(*node, path)?;
        }
        if let Some(over) = target.node {
            self.may_write("rename", over)?;
            self.detach(over)?;
        }
        self.relocate(id, &source, target.parent, &name)?;
        for (node, path) in moves {
            self.node_mut(node)?.path = path;
            self.settle(node)?;
        }
        Ok(())
    }

    /// Whether what is at the target may give way to what is moved there.
    fn check_over(&mut self, id: NodeId, over: NodeId, from: NodeId) -> Result<(), StageError> {
        if self.is_within(from, over)? {
            return Err(StageError::NotEmpty);
        }
        match (self.node(id)?.is_directory(), self.node(over)?.is_directory()) {
            (true, false) => Err(StageError::NotDirectory),
            (false, true) => Err(StageError::IsDirectory),
            (true, true) if !self.is_empty(over)? => Err(StageError::NotEmpty),
            _ => Ok(()),
        }
    }

    /// Whether `inner` is `outer` or lies beneath it.
    fn is_within(&self, inner: NodeId, outer: NodeId) -> Result<bool, StageError> {
        let mut at = Some(inner);
        while let Some(id) = at {
            if id == outer {
                return Ok(true);
            }
            at = self.node(id)?.parent;
        }
        Ok(false)
    }

    /// Every entry that moves when `top` becomes `path`, with its new path; all of the lower layer beneath is listed.
    fn moves(&mut self, top: NodeId, path: &WorkspacePath) -> Result<Vec<(NodeId, WorkspacePath)>, StageError> {
        let mut moves = Vec::new();
        let mut waiting = vec![(top, path.clone())];
        while let Some((id, path)) = waiting.pop() {
            if matches!(self.node(id)?.kind, Kind::Symlink | Kind::Refused(_)) {
                let path = self.node(id)?.path.clone();
                return Err(self.refuse("rename", path.as_str(), StageError::LinkOrSpecial));
            }
            if self.node(id)?.is_directory() {
                self.may_enter("rename", id)?;
                for name in self.names(id)? {
                    if let Some(child) = self.lookup(id, &name)? {
                        self.observe(child)?;
                        waiting.push((child, inside(&path, &name)?));
                    }
                }
            }
            moves.push((id, path));
        }
        Ok(moves)
    }

    /// The names of a merged directory.
    fn names(&mut self, id: NodeId) -> Result<Vec<String>, StageError> {
        self.load_listing(id)?;
        let mut names: Vec<String> = Vec::new();
        while let Some((name, _, _)) = self.entry_after(id, names.last().map(String::as_str))? {
            names.push(name);
        }
        Ok(names)
    }

    fn relocate(&mut self, id: NodeId, source: &Place, parent: NodeId, name: &str) -> Result<(), StageError> {
        if let Some(old) = &source.name {
            self.vacate(source.parent, old)?;
        }
        self.attach(parent, name, id)
    }
}

fn inside(path: &WorkspacePath, name: &str) -> Result<WorkspacePath, StageError> {
    path.join(name).map_err(|bad| match bad.problem {
        PathProblem::TooDeep => StageError::Full { what: "levels of directories", limit: DEPTH_MAX as u64 },
        problem => StageError::BadPath(problem),
    })
}
