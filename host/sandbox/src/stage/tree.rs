//! The nodes of the merged tree and what they cost.
//!
//! A node is a file, a directory or a refused entry that somebody looked at, created or moved. A directory's slot says
//! what has the name now and which lower entry had it at the start; a slot without `now` is a whiteout. A node keeps
//! the place in the lower layer that it came from wherever it is moved, so a moved directory still reads its old
//! place. Nodes are never removed: `before` is walked through the same slots as `after`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Weak};

use toolkeep_core::digest::Digest;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;

use super::access::MountState;
use super::content::{Buffer, Spool};
use super::hashing::Hashing;
use super::observe::Ranges;
use super::{BREACHES_MAX, ENTRIES_MAX, QUICK_BYTES, QUICK_ENTRIES};
use super::{Handle, Mount, OpenNode, RefusedKind, StageError, StageLimits, StatTuple};
use crate::beneath::Seen;
use crate::recording::{Names, Recorder};

/// Longest text of one breach, in bytes: a path and a reason.
const BREACH_MAX_BYTES: usize = 400;

/// Names a node for the life of its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(usize);

impl NodeId {
    pub(super) fn of(self, nodes: &mut [Node]) -> Option<&mut Node> {
        nodes.get_mut(self.0)
    }

    pub(super) const fn number(self) -> u64 {
        self.0 as u64
    }
}

/// Where a node lies in the lower layer and what was seen there.
#[derive(Debug)]
pub(super) struct Lower {
    pub(super) path: WorkspacePath,
    pub(super) seen: Seen,
    /// Of the whole content, once it is known.
    pub(super) digest: Option<Digest>,
    /// Whether the guest was told that it exists.
    pub(super) observed: bool,
    /// What of it was read.
    pub(super) ranges: Ranges,
}

/// The bytes of a file.
#[derive(Debug)]
pub(super) enum FileContent {
    /// Those of the lower file.
    Lower,
    /// Staged ones.
    Upper(Buffer),
}

/// What has a name now, and which lower entry had it at the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    pub(super) now: Option<NodeId>,
    pub(super) under: Option<NodeId>,
}

/// The entries of a lower directory as they were listed.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) names: Names,
    pub(super) tuple: StatTuple,
}

/// A directory of the merged tree.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) slots: BTreeMap<Box<str>, Slot>,
    pub(super) listing: Option<Listing>,
    /// Names that the lower directory was found not to hold.
    pub(super) absent: BTreeSet<Box<str>>,
}

#[derive(Debug)]
pub(super) enum Kind {
    File(FileContent),
    Directory(Directory),
    Symlink,
    Refused(RefusedKind),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) mount: usize,
    /// Where it is, or last was.
    pub(super) path: WorkspacePath,
    /// Nothing for the root of a workspace.
    pub(super) parent: Option<NodeId>,
    pub(super) linked: bool,
    pub(super) lower: Option<Lower>,
    pub(super) kind: Kind,
    /// Time of modification that the guest set.
    pub(super) times: Option<i64>,
    /// Time that staged content shows.
    pub(super) modified_ns: i64,
    /// Permission bits that an earlier call of the transaction found for it.
    pub(super) mode: Option<u32>,
    owed: u64,
    opened: Weak<OpenNode>,
}

impl Node {
    /// Whether it is where it was in the lower layer.
    pub(super) fn in_place(&self) -> bool {
        self.linked && self.lower.as_ref().is_some_and(|lower| lower.path == self.path)
    }

    pub(super) const fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    pub(super) const fn is_dirty(&self) -> bool {
        matches!(self.kind, Kind::File(FileContent::Upper(_)))
    }

    pub(super) fn directory(&self) -> Result<&Directory, StageError> {
        if let Kind::Directory(directory) = &self.kind { Ok(directory) } else { Err(StageError::NotDirectory) }
    }

    /// About how many effects it will give: exact for creating, writing and deleting in place, one too few in the
    /// rare cases where a moved file must be written anew. The seal counts exactly.
    fn cost(&self) -> u64 {
        let times = u64::from(self.times.is_some());
        match (&self.kind, &self.lower) {
            (Kind::Symlink | Kind::Refused(_), _) => 0,
            (Kind::File(_) | Kind::Directory(_), None) => u64::from(self.linked) * (1 + times),
            (Kind::File(_) | Kind::Directory(_), Some(_)) if !self.linked => 1,
            (Kind::File(_), Some(_)) if self.in_place() => u64::from(self.is_dirty()) + times,
            (Kind::File(_), Some(_)) => 1 + u64::from(self.is_dirty()) + times,
            (Kind::Directory(_), Some(_)) if self.in_place() => 0,
            (Kind::Directory(_), Some(_)) => 2,
        }
    }
}

/// What a new node is.
pub(super) struct NewNode {
    pub(super) mount: usize,
    pub(super) path: WorkspacePath,
    pub(super) parent: Option<NodeId>,
    pub(super) lower: Option<Lower>,
    pub(super) kind: Kind,
}

/// The merged tree of one execution.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) mounts: Vec<MountState>,
    pub(super) nodes: Vec<Node>,
    pub(super) limits: StageLimits,
    pub(super) spool: Spool,
    pub(super) now_ns: i64,
    pub(super) observations: usize,
    pub(super) hashing: Hashing,
    /// Takes what the lower layer says.
    pub(super) notes: Option<Recorder>,
    /// Effects of earlier calls of the transaction, which the grants of this one need not allow.
    pub(super) laid: HashSet<Effect>,
    /// Held once by the tree and once by every lower file that is kept open.
    pub(super) open_files: Arc<()>,
    entries: usize,
    bytes: u64,
    effects: u64,
    orphans: Vec<NodeId>,
    breaches: Vec<String>,
    failure: Option<StageError>,
}

impl Tree {
    pub(super) fn new(mounts: Vec<Mount>, limits: StageLimits, spool: Spool) -> Self {
        let mut tree = Self::empty(limits, spool);
        for (index, mount) in mounts.into_iter().enumerate() {
            let root = NodeId(tree.nodes.len());
            tree.nodes.push(tree.root_node(index, &mount));
            tree.mounts.push(MountState::new(mount, root));
        }
        tree
    }

    fn empty(limits: StageLimits, spool: Spool) -> Self {
        Self {
            mounts: Vec::new(),
            nodes: Vec::new(),
            limits,
            spool,
            now_ns: 0,
            observations: 0,
            hashing: Hashing::default(),
            notes: None,
            laid: HashSet::new(),
            open_files: Arc::new(()),
            entries: 0,
            bytes: 0,
            effects: 0,
            orphans: Vec::new(),
            breaches: Vec::new(),
            failure: None,
        }
    }

    fn root_node(&self, mount: usize, from: &Mount) -> Node {
        let seen = from.root.seen();
        let path = WorkspacePath::root();
        let lower = Lower { path: path.clone(), seen, digest: None, observed: false, ranges: Ranges::default() };
        Node {
            mount,
            path,
            parent: None,
            linked: true,
            lower: Some(lower),
            kind: Kind::Directory(Directory::default()),
            times: None,
            modified_ns: self.now_ns,
            mode: None,
            owed: 0,
            opened: Weak::new(),
        }
    }

    /// Leave a tree behind that answers that it is sealed.
    pub(super) fn take(&mut self) -> Self {
        let mut sealed = Self::empty(self.limits, self.spool.another());
        sealed.failure = Some(StageError::Sealed);
        std::mem::replace(self, sealed)
    }

    pub(super) const fn set_now(&mut self, now_ns: i64) {
        self.now_ns = now_ns;
    }

    /// Note from now on what the lower layer says. The roots were looked at already.
    pub(super) fn note(&mut self, recorder: Recorder) {
        for root in self.mounts.iter().filter_map(|mount| self.nodes.get(mount.node.0)) {
            if let (Some(lower), Some(mount)) = (&root.lower, self.mounts.get(root.mount)) {
                recorder.looked((mount.root.name(), &lower.path), Ok(Some(lower.seen)));
            }
        }
        self.notes = Some(recorder);
    }

    pub(super) const fn failure(&self) -> Option<&StageError> {
        self.failure.as_ref()
    }

    pub(super) fn fail(&mut self, error: StageError) {
        self.failure.get_or_insert(error);
    }

    pub(super) fn breaches(&self) -> &[String] {
        &self.breaches
    }

    /// Keep a refused attempt for the audit.
    pub(super) fn breach(&mut self, operation: &str, path: &str, why: &StageError) {
        if self.breaches.len() < BREACHES_MAX {
            let shown: String = path.chars().flat_map(char::escape_default).collect();
            let mut text = format!("{operation} `{shown}`: {why}");
            text.truncate(text.floor_char_boundary(BREACH_MAX_BYTES));
            self.breaches.push(text);
        }
    }

    pub(super) fn into_breaches(self) -> Vec<String> {
        self.breaches
    }

    pub(super) fn node(&self, id: NodeId) -> Result<&Node, StageError> {
        self.nodes.get(id.0).ok_or(StageError::Sealed)
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> Result<&mut Node, StageError> {
        self.nodes.get_mut(id.0).ok_or(StageError::Sealed)
    }

    pub(super) fn directory_mut(&mut self, id: NodeId) -> Result<&mut Directory, StageError> {
        match &mut self.node_mut(id)?.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) | Kind::Symlink | Kind::Refused(_) => Err(StageError::NotDirectory),
        }
    }

    pub(super) fn mount(&self, index: usize) -> Result<&MountState, StageError> {
        self.mounts.get(index).ok_or(StageError::Sealed)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// Whether anything was changed at all.
    pub(super) const fn is_changed(&self) -> bool {
        self.effects > 0
    }

    /// Whether sealing walks, reads and hashes little: few entries, small staged contents over small lower files.
    pub(super) fn seals_quickly(&self) -> bool {
        let replaced = self.nodes.iter().filter(|node| node.owed > 0).filter_map(|node| node.lower.as_ref());
        let replaced = replaced.fold(0_u64, |sum, lower| sum.saturating_add(lower.seen.size));
        !self.hashing.is_beside() && self.entries <= QUICK_ENTRIES && self.bytes.saturating_add(replaced) <= QUICK_BYTES
    }

    pub(super) fn roots(&mut self) -> Vec<(WorkspaceName, Handle)> {
        let roots: Vec<(WorkspaceName, NodeId)> =
            self.mounts.iter().map(|mount| (mount.root.name().clone(), mount.node)).collect();
        roots.into_iter().filter_map(|(name, node)| Some((name, self.handle(node, true, false).ok()?))).collect()
    }

    /// A handle that shares what is open with the other handles of the node.
    pub(super) fn handle(&mut self, id: NodeId, read: bool, write: bool) -> Result<Handle, StageError> {
        let writable = self.mount(self.node(id)?.mount)?.is_writable();
        let node = self.node_mut(id)?;
        let directory = node.is_directory();
        let write = if directory { writable } else { write };
        let open = node.opened.upgrade().unwrap_or_else(|| {
            let open = Arc::new(OpenNode::default());
            node.opened = Arc::downgrade(&open);
            open
        });
        Ok(Handle { node: id, read, write, directory, open })
    }

    /// Count `more` entries that the host has to remember.
    pub(super) fn count_entries(&mut self, more: usize) -> Result<(), StageError> {
        self.entries = self.entries.saturating_add(more);
        if self.entries > ENTRIES_MAX {
            return Err(StageError::Full { what: "directory entries", limit: ENTRIES_MAX as u64 });
        }
        Ok(())
    }

    pub(super) fn add(&mut self, new: NewNode) -> Result<NodeId, StageError> {
        self.count_entries(1)?;
        let id = NodeId(self.nodes.len());
        let NewNode { mount, path, parent, lower, kind } = new;
        self.nodes.push(Node {
            mount,
            path,
            parent,
            linked: true,
            lower,
            kind,
            times: None,
            modified_ns: self.now_ns,
            mode: None,
            owed: 0,
            opened: Weak::new(),
        });
        self.settle(id)?;
        Ok(id)
    }

    /// Bring the number of staged effects in line with the state of a node.
    pub(super) fn settle(&mut self, id: NodeId) -> Result<(), StageError> {
        let node = self.node_mut(id)?;
        let (before, now) = (node.owed, node.cost());
        node.owed = now;
        self.effects = self.effects.saturating_sub(before).saturating_add(now);
        if now > before && self.effects > self.limits.effects {
            return Err(StageError::Full { what: "effects", limit: self.limits.effects });
        }
        Ok(())
    }

    /// Bring the number of staged bytes in line with a content that changes its size.
    pub(super) fn charge_bytes(&mut self, before: u64, after: u64) -> Result<(), StageError> {
        let full = StageError::Full { what: "bytes", limit: self.limits.bytes };
        let fits = |bytes: u64, limit: u64| bytes.checked_sub(before)?.checked_add(after).filter(|sum| *sum <= limit);
        if fits(self.bytes, self.limits.bytes).is_none() {
            self.sweep();
        }
        self.bytes = match fits(self.bytes, self.limits.bytes) {
            Some(bytes) => bytes,
            None if after <= before => self.bytes.saturating_sub(before - after),
            None => return Err(full),
        };
        Ok(())
    }

    /// Put `child` under the name `name` of `parent`; what had the name before must be detached.
    pub(super) fn attach(&mut self, parent: NodeId, name: &str, child: NodeId) -> Result<(), StageError> {
        self.directory_mut(parent)?.slots.entry(name.into()).or_default().now = Some(child);
        let node = self.node_mut(child)?;
        node.parent = Some(parent);
        node.linked = true;
        Ok(())
    }

    /// Take the name away from whatever has it; the node itself stays as it is.
    pub(super) fn vacate(&mut self, parent: NodeId, name: &str) -> Result<(), StageError> {
        let slots = &mut self.directory_mut(parent)?.slots;
        if let Some(slot) = slots.get_mut(name) {
            slot.now = None;
            if slot.under.is_none() {
                slots.remove(name);
            }
        }
        Ok(())
    }

    /// Unlink a node: its name is free, and its bytes are given back when nobody has it open.
    pub(super) fn detach(&mut self, id: NodeId) -> Result<(), StageError> {
        let node = self.node_mut(id)?;
        node.linked = false;
        node.times = None;
        let (parent, name) = (node.parent, node.path.clone());
        if let (Some(parent), Some(name)) = (parent, name.name()) {
            self.vacate(parent, name)?;
        }
        self.settle(id)?;
        self.orphans.push(id);
        self.sweep();
        Ok(())
    }

    /// Give back the bytes of unlinked files that nobody has open.
    fn sweep(&mut self) {
        let mut open = Vec::new();
        for id in std::mem::take(&mut self.orphans) {
            let Some(node) = self.nodes.get_mut(id.0) else { continue };
            if node.opened.strong_count() > 0 {
                open.push(id);
            } else if let Kind::File(FileContent::Upper(buffer)) = &mut node.kind {
                let size = buffer.size();
                buffer.release(&mut self.spool);
                self.bytes = self.bytes.saturating_sub(size);
            }
        }
        self.orphans = open;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn t_f7_entries_that_the_host_remembers_are_bounded_in_all() {
        let directory = File::open(std::env::temp_dir()).expect("a directory");
        let spool = Spool::new(Arc::new(directory.into()));
        let mut tree = Tree::new(Vec::new(), StageLimits { bytes: 1, effects: 1 }, spool);
        assert!(tree.count_entries(ENTRIES_MAX - 1).is_ok());
        assert!(tree.count_entries(1).is_ok(), "as many as the bound says");
        let limit = ENTRIES_MAX as u64;
        assert!(matches!(tree.count_entries(1), Err(StageError::Full { limit: told, .. }) if told == limit));
        assert!(tree.count_entries(usize::MAX).is_err());
    }
}
