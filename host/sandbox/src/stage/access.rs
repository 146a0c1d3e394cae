//! What the grant of a workspace says about a path of the merged tree.
//!
//! The grant is asked for every effect, at both ends of a move, and again for each effect when the stage is sealed. What
//! came from the lower layer is readable only if the grant allows its place there *and* its place now, so moving a file
//! never makes it readable. Directories may be entered where they are readable or writable, or lie above
//! something that is; their listings hide nothing, because opening is what the grant decides.

use toolkeep_core::capability::{Access, FileGrant, GLOBS_MAX, GrantRefusal, PathGlobs};
use toolkeep_core::path::{WorkspacePath, is_composed, is_temporary};

use super::tree::{Kind, NodeId, Tree};
use super::{Mount, Root, StageError};

/// A workspace with its grant, ready to be asked.
#[derive(Debug)]
pub(super) struct MountState {
    pub(super) root: Root,
    pub(super) node: NodeId,
    grant: FileGrant,
    /// Directories above something readable or writable.
    above: Vec<PathGlobs>,
}

impl MountState {
    pub(super) fn new(mount: Mount, node: NodeId) -> Self {
        let mut patterns: Vec<String> = mount.grant.read.patterns().iter().flat_map(|p| heads(p)).collect();
        if mount.grant.access == Access::Write {
            patterns.extend(mount.grant.write.patterns().iter().flat_map(|p| heads(p)));
        }
        patterns.sort_unstable();
        patterns.dedup();
        // A head that does not compile on its own opens no directory: the narrower answer.
        let above = patterns.chunks(GLOBS_MAX).filter_map(|part| PathGlobs::new(part).ok()).collect();
        Self { root: mount.root, node, grant: mount.grant, above }
    }

    pub(super) fn is_writable(&self) -> bool {
        self.grant.access == Access::Write
    }

    pub(super) fn check_enter(&self, path: &WorkspacePath) -> Result<(), GrantRefusal> {
        match self.grant.check_read(path) {
            Err(GrantRefusal::NotReadable)
                if self.grant.check_write(path).is_ok() || self.above.iter().any(|globs| globs.matches(path)) =>
            {
                Ok(())
            }
            answer => answer,
        }
    }

    pub(super) fn check_read(&self, path: &WorkspacePath) -> Result<(), GrantRefusal> {
        self.grant.check_read(path)
    }

    pub(super) fn check_write(&self, path: &WorkspacePath) -> Result<(), GrantRefusal> {
        self.grant.check_write(path)
    }
}

/// The patterns of the directories above whatever `pattern` matches. What follows a `**` or a brace can lie at any depth.
fn heads(pattern: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut head = String::new();
    let components: Vec<&str> = pattern.split('/').collect();
    for component in components.iter().take(components.len().saturating_sub(1)) {
        let deep = *component == "**" || component.contains('{') || component.contains('[');
        if !head.is_empty() {
            head.push('/');
        }
        head.push_str(if deep { "**" } else { component });
        heads.push(head.clone());
        if deep {
            return heads;
        }
    }
    heads
}

impl Tree {
    /// Whether the directory may be entered and listed.
    pub(super) fn may_enter(&mut self, operation: &str, id: NodeId) -> Result<(), StageError> {
        let node = self.node(id)?;
        let answer = self.mount(node.mount)?.check_enter(&node.path);
        self.answer(operation, id, answer)
    }

    /// Whether the content may be read, here and where it came from.
    pub(super) fn may_read(&mut self, operation: &str, id: NodeId) -> Result<(), StageError> {
        let node = self.node(id)?;
        let mount = self.mount(node.mount)?;
        let here = mount.check_read(&node.path);
        let answer = match &node.lower {
            Some(lower) => here.and_then(|()| mount.check_read(&lower.path)),
            // What the guest wrote itself it may read back.
            None if here == Err(GrantRefusal::NotReadable) && mount.check_write(&node.path).is_ok() => Ok(()),
            None => here,
        };
        self.answer(operation, id, answer)
    }

    /// Whether the entry may be changed where it is.
    pub(super) fn may_write(&mut self, operation: &str, id: NodeId) -> Result<(), StageError> {
        let node = self.node(id)?;
        if matches!(node.kind, Kind::Symlink | Kind::Refused(_)) {
            let path = node.path.clone();
            return Err(self.refuse(operation, path.as_str(), StageError::LinkOrSpecial));
        }
        let answer = self.mount(node.mount)?.check_write(&node.path);
        self.answer(operation, id, answer)
    }

    /// Whether an entry may be created at `path`.
    pub(super) fn may_create(&mut self, operation: &str, mount: usize, path: &WorkspacePath) -> Result<(), StageError> {
        if path.name().is_some_and(is_temporary) {
            return Err(self.refuse(operation, path.as_str(), StageError::Reserved));
        }
        if path.name().is_some_and(|name| !is_composed(name)) {
            return Err(StageError::NotComposed);
        }
        match self.mount(mount)?.check_write(path) {
            Ok(()) => Ok(()),
            Err(refusal) => Err(self.refuse(operation, path.as_str(), StageError::Denied(refusal))),
        }
    }

    /// Whether an entry may move to `to`: a change at both ends, and nothing becomes readable by it.
    pub(super) fn may_move(&mut self, id: NodeId, to: &WorkspacePath) -> Result<(), StageError> {
        self.may_write("rename", id)?;
        let node = self.node(id)?;
        let index = node.mount;
        let mount = self.mount(index)?;
        let hidden = node.lower.as_ref().and_then(|lower| mount.check_read(&lower.path).err());
        let shown = mount.check_read(to).is_ok();
        let is_file = !node.is_directory();
        self.may_create("rename", index, to)?;
        match hidden {
            Some(refusal) if shown && is_file => self.answer("rename", id, Err(refusal)),
            _ => Ok(()),
        }
    }

    /// Keep a refused attempt and give its error back.
    pub(super) fn refuse(&mut self, operation: &str, path: &str, error: StageError) -> StageError {
        self.breach(operation, path, &error);
        error
    }

    fn answer(&mut self, operation: &str, id: NodeId, answer: Result<(), GrantRefusal>) -> Result<(), StageError> {
        match answer {
            Ok(()) => Ok(()),
            Err(refusal) => {
                let path = self.node(id)?.path.clone();
                Err(self.refuse(operation, path.as_str(), StageError::Denied(refusal)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_the_directories_above_a_pattern() {
        let check = |pattern: &str, expect: &[&str]| assert_eq!(heads(pattern), expect, "{pattern}");
        check("a.csv", &[]);
        check("a/b/*.csv", &["a", "a/b"]);
        check("a/*/c.csv", &["a", "a/*"]);
        check("ledger/**", &["ledger"]);
        check("a/**/x.md", &["a", "a/**"]);
        check("**/x.md", &["**"]);
        check("**", &[]);
        check("a/{b,c/d}/e", &["a", "a/**"]);
        check("[ab]/c", &["**"]);
    }
}
