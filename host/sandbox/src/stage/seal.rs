//! Sealing: from the merged tree to effects that can be applied one by one.
//!
//! Two walks over the slots give what had each path at the start and what has it now; each path is then one small case.
//! The phases below are the order of application, and every effect's `before` is what holds when its turn comes:
//!
//! 1. files that give way to a directory are deleted
//! 2. directories are created, top down
//! 3. files are renamed: only where nothing had the new path at the start and nothing has the old one now; every other
//!    move (onto a file, a swap, a cycle) is a write and a delete
//! 4. what lies in a directory that gives way to a file is deleted, bottom up
//! 5. files are written, 6. times set, 7. files deleted, 8. directories deleted, bottom up

use std::collections::{BTreeMap, BTreeSet};

use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Effect, FileState, Times};
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;

use super::content::{Buffer, Content};
use super::tree::{FileContent, Kind, NodeId, Tree};
use super::{BEFORE_MAX_BYTES, StageError, Staged};

/// Permission bits of files that did not exist before.
const NEW_FILE_MODE: u32 = 0o644;

/// A step of the order of application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    DeleteForDirectory,
    CreateDirectory,
    Rename,
    DeleteForFile,
    DeleteDirectoryForFile,
    Write,
    Metadata,
    Delete,
    DeleteDirectory,
}

/// What was and what is, by path, in one workspace.
#[derive(Debug, Default)]
struct Views {
    before: BTreeMap<WorkspacePath, NodeId>,
    after: BTreeMap<WorkspacePath, NodeId>,
    /// Directories that give way to a file.
    turned: BTreeSet<WorkspacePath>,
    /// Where each node is now.
    places: BTreeMap<NodeId, WorkspacePath>,
}

impl Views {
    fn paths(&self) -> BTreeSet<WorkspacePath> {
        self.before.keys().chain(self.after.keys()).cloned().collect()
    }

    /// Whether the path is, or lies in, a directory that gives way to a file.
    fn gives_way(&self, path: &WorkspacePath) -> bool {
        let mut at = Some(path.clone());
        while let Some(path) = at {
            if self.turned.contains(&path) {
                return true;
            }
            at = path.parent();
        }
        false
    }

    /// Where a lower file that is no longer at `from` was moved to, if a rename can say so.
    fn renamed_to(&self, node: NodeId, from: &WorkspacePath) -> Option<&WorkspacePath> {
        let to = self.places.get(&node)?;
        (to != from && !self.after.contains_key(from) && !self.before.contains_key(to)).then_some(to)
    }
}

/// The effects of all workspaces while they are collected.
#[derive(Debug, Default)]
struct Collected {
    effects: Vec<(Phase, usize, Effect)>,
    contents: BTreeMap<Digest, Content>,
    hashed_bytes: u64,
}

impl Collected {
    /// Count the bytes of a lower file that has to be hashed.
    const fn count_before(&mut self, bytes: u64) -> Result<(), StageError> {
        self.hashed_bytes = self.hashed_bytes.saturating_add(bytes);
        if self.hashed_bytes > BEFORE_MAX_BYTES {
            return Err(StageError::Full { what: "bytes of files to move or replace", limit: BEFORE_MAX_BYTES });
        }
        Ok(())
    }

    /// In the order of application. Paths run top down, except where directories are deleted.
    fn in_order(mut self) -> (Vec<Effect>, BTreeMap<Digest, Content>) {
        self.effects.sort_by(|(phase, mount, effect), (other_phase, other_mount, other)| {
            let paths = || effect.paths().next().cmp(&other.paths().next());
            let bottom_up = matches!(phase, Phase::DeleteDirectory | Phase::DeleteDirectoryForFile);
            let by_place = || mount.cmp(other_mount).then_with(|| if bottom_up { paths().reverse() } else { paths() });
            phase.cmp(other_phase).then_with(by_place)
        });
        (self.effects.into_iter().map(|(_, _, effect)| effect).collect(), self.contents)
    }
}

impl Tree {
    /// What was done, as effects with everything that they rest on.
    pub(super) fn seal(mut self) -> Result<Staged, StageError> {
        if let Some(failure) = self.failure() {
            return Err(failure.clone());
        }
        self.finish_hashing()?;
        let mut collected = Collected::default();
        if self.is_changed() {
            for mount in 0..self.mounts.len() {
                self.collect(mount, &mut collected)?;
            }
        }
        let (effects, contents) = collected.in_order();
        if effects.len() as u64 > self.limits.effects {
            return Err(StageError::Full { what: "effects", limit: self.limits.effects });
        }
        self.recheck_grants(&effects)?;
        let (read_set, witnesses) = self.observations()?;
        Ok(Staged { effects, read_set, witnesses, keys_read: Vec::new(), contents, breaches: self.into_breaches() })
    }

    /// The grant is asked once more for every effect of this call, whatever was checked on the way.
    fn recheck_grants(&self, effects: &[Effect]) -> Result<(), StageError> {
        for effect in effects.iter().filter(|effect| !self.laid.contains(effect)) {
            let mount = self.mounts.iter().find(|mount| Some(mount.root.name()) == effect.workspace());
            let mount = mount.ok_or(StageError::Sealed)?;
            for path in effect.paths() {
                mount.check_write(path).map_err(StageError::Denied)?;
            }
        }
        Ok(())
    }

    fn collect(&mut self, mount: usize, collected: &mut Collected) -> Result<(), StageError> {
        let views = self.views(mount)?;
        let workspace = self.mount(mount)?.root.name().clone();
        for path in views.paths() {
            let before = views.before.get(&path).copied();
            let after = views.after.get(&path).copied();
            let mut pair = Pair { tree: self, views: &views, workspace: &workspace, mount, collected };
            match (before, after) {
                (Some(before), Some(after)) if before == after => pair.same(&path, after)?,
                (Some(before), Some(after)) => pair.replaced(&path, before, after)?,
                (Some(before), None) => pair.gone(&path, before)?,
                (None, Some(after)) => pair.appeared(&path, after)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Both walks. Only what somebody touched is in them; the rest is the same before and after.
    fn views(&self, mount: usize) -> Result<Views, StageError> {
        let mut views = Views::default();
        let root = self.mount(mount)?.node;
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            for slot in self.node(id)?.directory()?.slots.values() {
                let Some(under) = slot.under else { continue };
                let node = self.node(under)?;
                if let Some(lower) = &node.lower {
                    views.before.insert(lower.path.clone(), under);
                }
                if node.is_directory() {
                    waiting.push(under);
                }
            }
        }
        waiting.push(root);
        while let Some(id) = waiting.pop() {
            for now in self.node(id)?.directory()?.slots.values().filter_map(|slot| slot.now) {
                let node = self.node(now)?;
                views.after.insert(node.path.clone(), now);
                views.places.insert(now, node.path.clone());
                if node.is_directory() {
                    waiting.push(now);
                }
            }
        }
        for (path, before) in &views.before {
            let after = views.after.get(path);
            if self.node(*before)?.is_directory()
                && let Some(after) = after
                && !self.node(*after)?.is_directory()
            {
                views.turned.insert(path.clone());
            }
        }
        Ok(views)
    }

    /// The state of a lower file as it still is.
    fn lower_state(&mut self, id: NodeId, collected: &mut Collected) -> Result<FileState, StageError> {
        let (file, seen) = self.open_lower(id)?;
        let known = self.node(id)?.lower.as_ref().and_then(super::tree::Lower::known_digest);
        let sha256 = match known {
            Some(digest) => digest,
            None => {
                collected.count_before(seen.size)?;
                let digest = file.digest(seen.size)?;
                self.same_state(id, &file.seen()?)?;
                self.hashed(id, digest)?;
                digest
            }
        };
        if let Some(lower) = &mut self.node_mut(id)?.lower {
            lower.digest = Some(sha256);
        }
        Ok(FileState { sha256, size: seen.size, mode: seen.mode })
    }

    fn hashed(&self, id: NodeId, digest: Digest) -> Result<(), StageError> {
        let node = self.node(id)?;
        if let (Some(notes), Some(lower)) = (&self.notes, &node.lower) {
            notes.hashed((self.mount(node.mount)?.root.name(), &lower.path), digest);
        }
        Ok(())
    }

    /// Take the staged bytes of a file; those of a lower file that must be written elsewhere are taken up first.
    fn take_content(&mut self, id: NodeId, collected: &mut Collected) -> Result<(Digest, u64), StageError> {
        self.copy_up(id)?;
        let node = self.node_mut(id)?;
        let Kind::File(FileContent::Upper(buffer)) = &mut node.kind else { return Err(StageError::IsDirectory) };
        let buffer = std::mem::replace(buffer, Buffer::empty());
        let (digest, size) = (buffer.digest()?, buffer.size());
        collected.contents.entry(digest).or_insert_with(|| buffer.into_content());
        Ok((digest, size))
    }
}

/// One path under comparison.
struct Pair<'a> {
    tree: &'a mut Tree,
    views: &'a Views,
    workspace: &'a WorkspaceName,
    mount: usize,
    collected: &'a mut Collected,
}

impl Pair<'_> {
    fn push(&mut self, phase: Phase, effect: Effect) {
        self.collected.effects.push((phase, self.mount, effect));
    }

    /// The entry is where it was: its content or its time may have changed.
    fn same(&mut self, path: &WorkspacePath, id: NodeId) -> Result<(), StageError> {
        if self.tree.node(id)?.is_dirty() {
            let before = self.tree.lower_state(id, self.collected)?;
            self.write(path, id, Some(before))?;
        }
        self.metadata(path, id)
    }

    /// Another entry has the path now.
    fn replaced(&mut self, path: &WorkspacePath, before: NodeId, after: NodeId) -> Result<(), StageError> {
        match (self.tree.node(before)?.is_directory(), self.tree.node(after)?.is_directory()) {
            (true, true) => Ok(()),
            (true, false) => {
                self.delete_directory(Phase::DeleteDirectoryForFile, path);
                self.write(path, after, None)?;
                self.metadata(path, after)
            }
            (false, true) => {
                let state = self.tree.lower_state(before, self.collected)?;
                self.delete(Phase::DeleteForDirectory, path, state);
                self.create_directory(path);
                Ok(())
            }
            (false, false) => {
                let state = self.tree.lower_state(before, self.collected)?;
                self.write(path, after, Some(state))?;
                self.metadata(path, after)
            }
        }
    }

    /// Nothing has the path any more.
    fn gone(&mut self, path: &WorkspacePath, id: NodeId) -> Result<(), StageError> {
        let gives_way = self.views.gives_way(path);
        let node = self.tree.node(id)?;
        if node.is_directory() {
            let phase = if gives_way { Phase::DeleteDirectoryForFile } else { Phase::DeleteDirectory };
            self.delete_directory(phase, path);
            return Ok(());
        }
        let clean = !node.is_dirty();
        let before = self.tree.lower_state(id, self.collected)?;
        match self.views.renamed_to(id, path) {
            Some(to) if clean => {
                let workspace = self.workspace.clone();
                let effect = Effect::FileRename { workspace, from: path.clone(), to: to.clone(), before };
                self.push(Phase::Rename, effect);
            }
            _ => self.delete(if gives_way { Phase::DeleteForFile } else { Phase::Delete }, path, before),
        }
        Ok(())
    }

    /// Nothing had the path before.
    fn appeared(&mut self, path: &WorkspacePath, id: NodeId) -> Result<(), StageError> {
        let node = self.tree.node(id)?;
        if node.is_directory() {
            self.create_directory(path);
            return Ok(());
        }
        let from = node.lower.as_ref().filter(|_| !node.is_dirty()).map(|lower| lower.path.clone());
        let renamed = from.is_some_and(|from| self.views.renamed_to(id, &from).is_some());
        if !renamed {
            self.write(path, id, None)?;
        }
        self.metadata(path, id)
    }

    /// The staged content, unless it is what was there.
    fn write(&mut self, path: &WorkspacePath, id: NodeId, before: Option<FileState>) -> Result<(), StageError> {
        let node = self.tree.node(id)?;
        let moved = node.mode.or(node.lower.as_ref().map(|lower| lower.seen.mode));
        let mode = moved.or(before.as_ref().map(|state| state.mode)).unwrap_or(NEW_FILE_MODE);
        let (sha256, size) = self.tree.take_content(id, self.collected)?;
        let after = FileState { sha256, size, mode };
        if before.as_ref() != Some(&after) {
            let effect = Effect::FileWrite { workspace: self.workspace.clone(), path: path.clone(), before, after };
            self.push(Phase::Write, effect);
        }
        Ok(())
    }

    fn metadata(&mut self, path: &WorkspacePath, id: NodeId) -> Result<(), StageError> {
        let node = self.tree.node(id)?;
        let Some(modified_ns) = node.times else { return Ok(()) };
        let after = Times { modified_ns };
        // A file that did not exist had no time to go back to.
        let before_ns = node.lower.as_ref().map_or(modified_ns, |lower| lower.seen.tuple.mtime_ns);
        let before = Times { modified_ns: before_ns };
        if node.in_place() && !self.wrote(path) && before == after {
            return Ok(());
        }
        let workspace = self.workspace.clone();
        self.push(Phase::Metadata, Effect::FileMetadata { workspace, path: path.clone(), before, after });
        Ok(())
    }

    /// Whether the last effect writes the path.
    fn wrote(&self, path: &WorkspacePath) -> bool {
        matches!(self.collected.effects.last(), Some((_, _, Effect::FileWrite { path: written, .. })) if written == path)
    }

    fn delete(&mut self, phase: Phase, path: &WorkspacePath, before: FileState) {
        self.push(phase, Effect::FileDelete { workspace: self.workspace.clone(), path: path.clone(), before });
    }

    fn delete_directory(&mut self, phase: Phase, path: &WorkspacePath) {
        self.push(phase, Effect::DirDelete { workspace: self.workspace.clone(), path: path.clone() });
    }

    fn create_directory(&mut self, path: &WorkspacePath) {
        self.push(Phase::CreateDirectory, Effect::DirCreate { workspace: self.workspace.clone(), path: path.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_f7_bytes_of_files_that_a_plan_replaces_are_bounded_in_all() {
        let mut collected = Collected::default();
        assert!(collected.count_before(BEFORE_MAX_BYTES - 5).is_ok());
        assert!(collected.count_before(5).is_ok(), "as many as the bound says");
        let limit = BEFORE_MAX_BYTES;
        assert!(matches!(collected.count_before(1), Err(StageError::Full { limit: told, .. }) if told == limit));
        assert!(Collected::default().count_before(u64::MAX).is_err() && collected.count_before(u64::MAX).is_err());
    }
}
