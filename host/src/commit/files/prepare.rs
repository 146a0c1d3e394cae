//! Preparing: everything of a commit that may fail for want of space, content or rights, before the commit point.
//!
//! The effects are walked in order over a small model of the names that they touch, and become steps. New files and
//! directories are made completely under temporary names in the nearest directory that the plan neither creates nor
//! removes; content that will be destroyed is verified and handed to the undo store. What the intent transaction does not
//! carry is on the disk when this returns: large files, all files of large plans, new directories, and the entries of all
//! of them. Whatever goes wrong here leaves the workspace as it was, temporaries included.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};

use rustix::io::Errno;
use toolkeep_core::digest::{Digest, Hasher};
use toolkeep_core::effect::{Effect, FileState};
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::{WorkspacePath, is_temporary};
use toolkeep_sandbox::beneath;
use toolkeep_sandbox::stage::Content;

use crate::commit::files::fault::{CommitError, Difference};
use crate::commit::files::former::Former;
use crate::commit::files::step::{DirectoryNode, FORMAT, FileNode, Key, Node, Prepared, Spot, Step, TransactionId};
use crate::commit::files::temporary::{BATCH_FILES, Fresh, LOGGED_MAX_BYTES, Unflushed};
use crate::commit::files::tree::{self, Found, Hands, Kind, Roots};
use crate::commit::files::{attributes, fold, sweep};

/// Largest destroyed content, in bytes, that goes into the intent transaction itself: an extra flush for a blob of its
/// own would cost more than the larger row.
const KEPT_MAX_BYTES: u64 = 64 * 1024;
/// Most bytes of destroyed content that one plan puts into the intent transaction: bounds memory and the row.
const KEPT_TOTAL_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Permissions of new directories before the mask: an effect does not carry any.
const DIRECTORY_MODE: u32 = 0o755;

/// One attempt to apply a plan.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Names the temporaries; fresh randomness for every attempt.
    pub id: TransactionId,
    /// Permission bits that new files and directories do not get; 0 for an undo, which restores the modes of files.
    pub umask: u32,
    /// What an undo gives back to the names that it makes again; empty for every other plan.
    pub former: Former,
}

/// Where content goes that the plan destroys.
pub struct Undo<'a> {
    /// Whether the undo quota takes this content. What it does not take cannot be undone later.
    pub fits: &'a dyn Fn(&FileState) -> bool,
    /// Stores content that is too large for the intent transaction, durably; reads to the end and verifies the digest.
    pub spill: &'a mut dyn FnMut(&FileState, &mut dyn Read) -> io::Result<()>,
}

impl std::fmt::Debug for Undo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Undo")
    }
}

/// Destroyed content that belongs into the intent transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub sha256: Digest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A commit that can be applied as soon as its steps are durable and its files are flushed.
#[derive(Debug)]
#[must_use = "make the steps durable, flush and apply them, or discard them"]
pub struct Ready {
    /// What the intent row holds.
    pub prepared: Prepared,
    /// What the undo store holds besides what was spilled; made durable together with the steps.
    pub undo: Vec<Kept>,
    /// The contents of the files that are not flushed: they must be durable together with the steps.
    pub logged: BTreeSet<Digest>,
    /// The files that are not flushed; the flush may run while the steps are made durable.
    pub unflushed: Unflushed,
}

/// Turn effects into steps and make everything that they put in place.
///
/// # Errors
/// The world changed, a content is missing, space or rights are; nothing was changed, and no temporary is left unless
/// the disk refused even that ([`sweep::sweep_orphans`] finds them).
pub fn prepare(
    effects: &[Effect],
    roots: &Roots,
    attempt: &Attempt,
    contents: &dyn Fn(&Digest) -> Option<Content>,
    undo: Undo<'_>,
) -> Result<Ready, CommitError> {
    let mut builder = Builder::new(effects, roots, attempt, contents, undo);
    let result = fold::check(effects, &mut |workspace, place| builder.folds(workspace, place))
        .and_then(|()| effects.iter().try_for_each(|effect| builder.effect(effect)))
        .and_then(|()| builder.settle());
    match result.and_then(|()| builder.root_inodes(effects)) {
        Ok(inodes) => {
            let Builder { steps, kept, logged, unflushed, .. } = builder;
            let prepared = Prepared { format: FORMAT, transaction: attempt.id.clone(), roots: inodes, steps };
            Ok(Ready { prepared, undo: kept, logged, unflushed })
        }
        Err(error) => {
            sweep::drop_made(roots, &builder.made);
            Err(error)
        }
    }
}

/// What a name holds after the effects that were walked so far.
#[derive(Debug, Clone)]
enum Slot {
    Nothing,
    /// `at`: where its inode is now, while nothing was applied. `ours`: the plan wrote it.
    File {
        node: FileNode,
        at: Spot,
        ours: bool,
    },
    Directory {
        node: DirectoryNode,
        ours: bool,
    },
}

struct Builder<'a, 'u> {
    roots: &'a Roots,
    attempt: &'a Attempt,
    contents: &'a dyn Fn(&Digest) -> Option<Content>,
    undo: Undo<'u>,
    slots: BTreeMap<Key, Slot>,
    created: BTreeSet<Key>,
    removed: BTreeSet<Key>,
    hands: Hands,
    /// Whether small files may stay unflushed: the plan writes few.
    logs: bool,
    unflushed: Unflushed,
    logged: BTreeSet<Digest>,
    /// Written, and to be flushed before the intent.
    early: Unflushed,
    /// Where something lies whose entry must be on the disk before the intent.
    nests: BTreeMap<Key, Spot>,
    made: Vec<Spot>,
    steps: Vec<Step>,
    kept: Vec<Kept>,
    kept_bytes: u64,
}

impl<'a, 'u> Builder<'a, 'u> {
    fn new(
        effects: &[Effect],
        roots: &'a Roots,
        attempt: &'a Attempt,
        contents: &'a dyn Fn(&Digest) -> Option<Content>,
        undo: Undo<'u>,
    ) -> Self {
        let (mut created, mut removed, mut written) = (BTreeSet::new(), BTreeSet::new(), 0);
        for effect in effects {
            match effect {
                Effect::FileWrite { .. } => written += 1,
                Effect::DirCreate { workspace, path } => {
                    created.insert((workspace.clone(), path.clone()));
                }
                Effect::DirDelete { workspace, path } => {
                    removed.insert((workspace.clone(), path.clone()));
                }
                Effect::FileDelete { .. }
                | Effect::FileRename { .. }
                | Effect::FileMetadata { .. }
                | Effect::HttpRequest(_)
                | Effect::MessageSend(_)
                | Effect::KvSet { .. }
                | Effect::KvDelete { .. }
                | Effect::KvAdd { .. } => {}
            }
        }
        Self {
            roots,
            attempt,
            contents,
            undo,
            slots: BTreeMap::new(),
            created,
            removed,
            hands: Hands::default(),
            logs: written <= BATCH_FILES,
            unflushed: Unflushed::default(),
            logged: BTreeSet::new(),
            early: Unflushed::default(),
            nests: BTreeMap::new(),
            made: Vec::new(),
            steps: Vec::new(),
            kept: Vec::new(),
            kept_bytes: 0,
        }
    }

    fn effect(&mut self, effect: &Effect) -> Result<(), CommitError> {
        match effect {
            Effect::FileWrite { workspace, path, before, after } => {
                let target = self.spot(workspace, path)?;
                match before {
                    None => self.create(target, after),
                    Some(before) => self.replace(target, before, after),
                }
            }
            Effect::FileDelete { workspace, path, before } => {
                let target = self.spot(workspace, path)?;
                let (before, _) = self.destroy(&target, before)?;
                let temporary = self.temporary(&target)?;
                self.slots.insert(target.key(), Slot::Nothing);
                self.steps.push(Step::Aside { target, temporary, before });
                Ok(())
            }
            Effect::FileRename { workspace, from, to, before } => {
                let (from, to) = (self.spot(workspace, from)?, self.spot(workspace, to)?);
                self.rename(from, to, before)
            }
            Effect::FileMetadata { workspace, path, before, after } => {
                let target = self.spot(workspace, path)?;
                match self.slot(&target)? {
                    Slot::File { mut node, at, ours } => {
                        if !ours && node.modified_ns != before.modified_ns {
                            return Err(CommitError::stale(&target, Difference::Times));
                        }
                        let before_ns = (!ours).then_some(before.modified_ns);
                        node.modified_ns = after.modified_ns;
                        self.slots.insert(target.key(), Slot::File { node, at, ours });
                        self.steps.push(Step::Touch { target, before_ns, after_ns: after.modified_ns });
                        Ok(())
                    }
                    Slot::Nothing => Err(CommitError::stale(&target, Difference::Vanished)),
                    Slot::Directory { .. } => Err(CommitError::stale(&target, Difference::Kind)),
                }
            }
            Effect::DirCreate { workspace, path } => {
                let target = self.spot(workspace, path)?;
                self.create_directory(target)
            }
            Effect::DirDelete { workspace, path } => {
                let target = self.spot(workspace, path)?;
                self.remove_directory(target)
            }
            // Not files: the ledger and egress apply them.
            Effect::HttpRequest(_)
            | Effect::MessageSend(_)
            | Effect::KvSet { .. }
            | Effect::KvDelete { .. }
            | Effect::KvAdd { .. } => Ok(()),
        }
    }

    fn create(&mut self, target: Spot, after: &FileState) -> Result<(), CommitError> {
        self.must_be_free(&target)?;
        let temporary = self.temporary(&target)?;
        let fresh = self.write(&temporary, after)?;
        let owned = self.attempt.former.own(&fresh.file, &target);
        owned.map_err(|errno| CommitError::system("set the owner of", &target, errno))?;
        fresh.permit(after.mode & !self.attempt.umask)?;
        let node = node_of(&fresh.found()?, after.sha256, false);
        self.made_file(fresh, &temporary, &node)?;
        self.put(&target, &temporary, node.clone());
        self.steps.push(Step::Place { temporary, target, node: Node::File(node) });
        Ok(())
    }

    /// A new file is complete: flush it now, or leave that for later because the intent carries its content.
    fn made_file(&mut self, fresh: Fresh, temporary: &Spot, node: &FileNode) -> Result<(), CommitError> {
        if self.logs && node.size <= LOGGED_MAX_BYTES {
            self.logged.insert(node.sha256);
            self.unflushed.add(fresh);
            return Ok(());
        }
        self.nest(temporary);
        self.early.add(fresh);
        if self.early.len() >= BATCH_FILES { std::mem::take(&mut self.early).flush() } else { Ok(()) }
    }

    fn nest(&mut self, temporary: &Spot) {
        self.nests.entry((temporary.workspace.clone(), temporary.directory())).or_insert_with(|| temporary.clone());
    }

    /// Bring to the disk what the intent does not carry.
    fn settle(&mut self) -> Result<(), CommitError> {
        std::mem::take(&mut self.early).flush()?;
        for ((workspace, path), temporary) in std::mem::take(&mut self.nests) {
            let directory = self.hands.of(self.roots, &temporary)?;
            directory.sync().map_err(|errno| CommitError::sync(&workspace, &path, errno))?;
        }
        Ok(())
    }

    fn replace(&mut self, target: Spot, before: &FileState, after: &FileState) -> Result<(), CommitError> {
        let (before, old) = self.destroy(&target, before)?;
        let temporary = self.temporary(&target)?;
        let fresh = self.write(&temporary, after)?;
        attributes::carry(&old, &fresh.file)
            .map_err(|errno| CommitError::system("carry owner and attributes of", &target, errno))?;
        fresh.permit(after.mode)?;
        let node = node_of(&fresh.found()?, after.sha256, false);
        self.made_file(fresh, &temporary, &node)?;
        self.put(&target, &temporary, node.clone());
        self.steps.push(Step::Exchange { temporary, target, before, after: node });
        Ok(())
    }

    fn rename(&mut self, from: Spot, to: Spot, before: &FileState) -> Result<(), CommitError> {
        let Slot::File { mut node, at, ours } = self.slot(&from)? else {
            return Err(CommitError::stale(&from, Difference::Kind));
        };
        self.must_be_free(&to)?;
        compare(&from, &node, before)?;
        node.sha256 = before.sha256;
        let temporary = self.temporary(&from)?;
        self.slots.insert(from.key(), Slot::Nothing);
        self.slots.insert(to.key(), Slot::File { node: node.clone(), at, ours });
        self.steps.push(Step::Aside { target: from, temporary: temporary.clone(), before: node.clone() });
        self.steps.push(Step::Place { temporary, target: to, node: Node::File(node) });
        Ok(())
    }

    fn create_directory(&mut self, target: Spot) -> Result<(), CommitError> {
        self.must_be_free(&target)?;
        let temporary = self.temporary(&target)?;
        let parent = self.hands.of(self.roots, &temporary)?;
        self.made.push(temporary.clone());
        self.nest(&temporary);
        let mode = self.attempt.former.mode(&target).unwrap_or(DIRECTORY_MODE & !self.attempt.umask);
        let found = parent
            .make(temporary.name(), mode)
            .and_then(|made| {
                self.attempt.former.own(&made, &target)?;
                Found::of(made)
            })
            .map_err(|errno| CommitError::system("create a temporary for", &target, errno))?;
        let node = DirectoryNode { inode: found.inode, mode: found.mode, owner: found.owner };
        self.slots.insert(target.key(), Slot::Directory { node: node.clone(), ours: true });
        self.steps.push(Step::Place { temporary, target, node: Node::Directory(node) });
        Ok(())
    }

    fn remove_directory(&mut self, target: Spot) -> Result<(), CommitError> {
        let (before, ours) = match self.slot(&target)? {
            Slot::Directory { node, ours } => (node, ours),
            Slot::Nothing => return Err(CommitError::stale(&target, Difference::Vanished)),
            Slot::File { .. } => return Err(CommitError::stale(&target, Difference::Kind)),
        };
        let beneath = |key: &Key| key.0 == target.workspace && key.1.starts_with(&target.path);
        let mut later = self.slots.range(target.key()..).skip(1);
        let within = later
            .by_ref()
            .take_while(|(key, _)| key.0 == target.workspace && key.1.as_str().starts_with(target.path.as_str()));
        if within.filter(|(key, _)| beneath(key)).any(|(_, slot)| !matches!(slot, Slot::Nothing)) {
            return Err(CommitError::stale(&target, Difference::NotEmpty));
        }
        if !ours {
            let fd = tree::root(self.roots, &target.workspace)?.fd();
            let (entries, _) = beneath::list(fd, &target.path).map_err(|e| CommitError::system("list", &target, e))?;
            for name in entries.keys().filter(|name| !is_temporary(name)) {
                let gone = target
                    .path
                    .join(name)
                    .is_ok_and(|path| matches!(self.slots.get(&(target.workspace.clone(), path)), Some(Slot::Nothing)));
                if !gone {
                    return Err(CommitError::stale(&target, Difference::NotEmpty));
                }
            }
        }
        let temporary = self.temporary(&target)?;
        self.slots.insert(target.key(), Slot::Nothing);
        self.steps.push(Step::RemoveDirectory { target, temporary, before });
        Ok(())
    }

    /// Verify the content that a step destroys and hand it to the undo store.
    fn destroy(&mut self, target: &Spot, before: &FileState) -> Result<(FileNode, File), CommitError> {
        let (mut node, at) = match self.slot(target)? {
            Slot::File { node, at, .. } => (node, at),
            Slot::Nothing => return Err(CommitError::stale(target, Difference::Vanished)),
            Slot::Directory { .. } => return Err(CommitError::stale(target, Difference::Kind)),
        };
        compare(target, &node, before)?;
        let (mut file, found) = self.hands.hold(self.roots, &at)?.file(at.name()).map_err(|errno| match errno {
            Errno::PERM => CommitError::stale(target, Difference::Kind),
            errno if tree::is_detour(errno) => CommitError::stale(target, Difference::Vanished),
            errno => CommitError::system("read", target, errno),
        })?;
        if found.inode != node.inode || found.size != before.size {
            return Err(CommitError::stale(target, Difference::Content));
        }
        node.sha256 = before.sha256;
        node.saved = self.keep(&mut file, before, target)?;
        Ok((node, file))
    }

    fn keep(&mut self, file: &mut File, before: &FileState, target: &Spot) -> Result<bool, CommitError> {
        let system = |e: io::Error| CommitError::system("read", target, Errno::from_io_error(&e).unwrap_or(Errno::IO));
        let fits = (self.undo.fits)(before);
        let mut reader = Hashing { file, hasher: Hasher::new(), size: 0, failed: None };
        if fits && before.size <= KEPT_MAX_BYTES && self.kept_bytes + before.size <= KEPT_TOTAL_MAX_BYTES {
            let mut bytes = Vec::new();
            reader.by_ref().take(KEPT_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(system)?;
            self.kept_bytes += before.size;
            self.kept.push(Kept { sha256: before.sha256, bytes });
        } else if fits {
            let stored = (self.undo.spill)(before, &mut reader);
            if let Some(errno) = reader.failed {
                return Err(CommitError::system("read", target, errno));
            }
            stored.map_err(CommitError::Undo)?;
            // A store that has the content already need not read it; the file is verified all the same.
            tree::read_through(&mut reader, |_| Ok(())).map_err(system)?;
        } else {
            tree::read_through(&mut reader, |_| Ok(())).map_err(system)?;
        }
        if reader.size != before.size || reader.hasher.finish() != before.sha256 {
            return Err(CommitError::stale(target, Difference::Content));
        }
        Ok(fits)
    }

    fn write(&mut self, temporary: &Spot, after: &FileState) -> Result<Fresh, CommitError> {
        let content = (self.contents)(&after.sha256).ok_or(CommitError::Content(after.sha256))?;
        let directory = self.hands.of(self.roots, temporary)?;
        self.made.push(temporary.clone());
        Fresh::write(&directory, temporary, &content, &after.sha256)
    }

    fn put(&mut self, target: &Spot, temporary: &Spot, node: FileNode) {
        self.slots.insert(target.key(), Slot::File { node, at: temporary.clone(), ours: true });
    }

    fn must_be_free(&mut self, target: &Spot) -> Result<(), CommitError> {
        match self.slot(target)? {
            Slot::Nothing => Ok(()),
            Slot::File { .. } | Slot::Directory { .. } => Err(CommitError::stale(target, Difference::Appeared)),
        }
    }

    fn slot(&mut self, target: &Spot) -> Result<Slot, CommitError> {
        if let Some(slot) = self.slots.get(&target.key()) {
            return Ok(slot.clone());
        }
        let parent = (target.workspace.clone(), target.directory());
        if matches!(self.slots.get(&parent), Some(Slot::Directory { ours: true, .. })) {
            return Ok(Slot::Nothing);
        }
        let found = self
            .hands
            .hold(self.roots, target)?
            .look(target.name())
            .map_err(|errno| CommitError::system("look at", target, errno))?;
        match found {
            None => Ok(Slot::Nothing),
            Some(found) if found.kind == Kind::Directory => Ok(Slot::Directory {
                node: DirectoryNode { inode: found.inode, mode: found.mode, owner: found.owner },
                ours: false,
            }),
            Some(found) if found.kind == Kind::File && found.links == 1 => {
                Ok(Slot::File { node: node_of(&found, Digest::of(b""), false), at: target.clone(), ours: false })
            }
            Some(found) if found.kind == Kind::File => Err(CommitError::stale(target, Difference::Links)),
            Some(_) => Err(CommitError::stale(target, Difference::Kind)),
        }
    }

    /// A name that the plan changes, in its directory as it will be when its step comes.
    fn spot(&mut self, workspace: &WorkspaceName, path: &WorkspacePath) -> Result<Spot, CommitError> {
        let Some(directory) = path.parent() else { return Err(CommitError::Order(path.clone())) };
        let key = (workspace.clone(), directory);
        let inode = match self.slots.get(&key) {
            Some(Slot::Directory { node, .. }) => node.inode,
            Some(Slot::Nothing | Slot::File { .. }) => return Err(CommitError::Order(path.clone())),
            None => self.inode(&key)?,
        };
        let parent = (!self.removed.contains(&key)).then_some(inode);
        Ok(Spot { workspace: workspace.clone(), path: path.clone(), parent })
    }

    /// A free name in the nearest directory that is there before, during and after the commit.
    fn temporary(&mut self, target: &Spot) -> Result<Spot, CommitError> {
        let mut key = (target.workspace.clone(), target.directory());
        while self.created.contains(&key) || self.removed.contains(&key) {
            key.1 = key.1.parent().unwrap_or_else(WorkspacePath::root);
        }
        let parent = Some(self.inode(&key)?);
        let name = self.attempt.id.temporary(self.steps.len());
        let path = key.1.join(&name).map_err(|_| CommitError::Order(target.path.clone()))?;
        Ok(Spot { workspace: key.0, path, parent })
    }

    /// Whether a directory, or the nearest above it that is there, takes names that differ by case for one: a file of our
    /// own answers to its name in upper case.
    fn folds(&mut self, workspace: &WorkspaceName, place: &WorkspacePath) -> Result<bool, CommitError> {
        let mut place = place.clone();
        let directory = loop {
            match (self.hands.at(self.roots, workspace, &place), place.parent()) {
                (Ok(directory), _) => break directory,
                (Err(CommitError::Stale(_)), Some(above)) => place = above,
                (Err(error), _) => return Err(error),
            }
        };
        let name = self.attempt.id.probe();
        let path = place.join(&name).map_err(|_| CommitError::Order(place.clone()))?;
        let spot = Spot { workspace: workspace.clone(), path, parent: None };
        let system = |errno| CommitError::system("look for case folding at", &spot, errno);
        self.made.push(spot.clone());
        drop(directory.create(&name).map_err(system)?);
        let found = directory.look(&name.to_ascii_uppercase()).map_err(system)?;
        directory.unlink(&name).map_err(system)?;
        Ok(found.is_some())
    }

    fn inode(&mut self, (workspace, path): &Key) -> Result<u64, CommitError> {
        self.hands.at(self.roots, workspace, path).map(|directory| directory.inode())
    }

    fn root_inodes(&self, effects: &[Effect]) -> Result<BTreeMap<WorkspaceName, u64>, CommitError> {
        let names: BTreeSet<&WorkspaceName> = effects.iter().filter_map(Effect::workspace).collect();
        names.into_iter().map(|name| Ok((name.clone(), tree::root_inode(self.roots, name)?))).collect()
    }
}

const fn node_of(found: &Found, sha256: Digest, saved: bool) -> FileNode {
    FileNode {
        inode: found.inode,
        sha256,
        size: found.size,
        mode: found.mode,
        owner: found.owner,
        modified_ns: found.modified_ns,
        saved,
    }
}

fn compare(spot: &Spot, node: &FileNode, before: &FileState) -> Result<(), CommitError> {
    if node.size != before.size {
        Err(CommitError::stale(spot, Difference::Content))
    } else if node.mode != before.mode {
        Err(CommitError::stale(spot, Difference::Mode))
    } else {
        Ok(())
    }
}

struct Hashing<'a> {
    file: &'a mut File,
    hasher: Hasher,
    size: u64,
    failed: Option<Errno>,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed = Errno::from_io_error(error).or(Some(Errno::IO));
            }
        })?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.size = self.size.saturating_add(count as u64);
        Ok(count)
    }
}
