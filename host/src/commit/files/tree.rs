//! Hands on a workspace: directories opened beneath its root, and the few calls that change what a name holds.
//!
//! A parent directory is looked at by its path right before a change and right after it, and compared with the inode that
//! was written down, so that a directory that was moved away in between is noticed and the change taken back; what was
//! looked at after one step is as good as a look before the next ([`Hands`]). Names are only ever changed by calls that refuse to replace anything (`RENAME_NOREPLACE`), that lose
//! nothing (`RENAME_EXCHANGE`), or that remove a temporary. Nothing here decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use toolkeep_core::digest::{Digest, Hasher};
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::EntryKind;
use toolkeep_sandbox::beneath::{self, Seen};
use toolkeep_sandbox::workspace::WorkspaceRoot;

use crate::commit::files::fault::{CommitError, Difference};
use crate::commit::files::step::{FileNode, Key, Spot};

/// The workspaces that a commit may touch.
pub type Roots = BTreeMap<WorkspaceName, Arc<WorkspaceRoot>>;

/// Bytes that are read at a time: large enough that system calls do not show beside hashing.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;
/// Attempts at a call that a signal interrupts, before the interruption counts as a failure.
const INTERRUPTIONS_MAX: usize = 16;
const NANOSECONDS: i64 = 1_000_000_000;
/// Directories that one phase of a commit keeps open: most plans touch fewer, and 64 commits at a time stay far below the
/// usual limit of 1024 descriptors. Others are opened again when they are needed.
const HANDS_MAX: usize = 8;

pub(super) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 0..INTERRUPTIONS_MAX {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
    call()
}

/// An opened directory of a workspace.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    inode: u64,
    device: u64,
}

/// The directories that one phase of a commit works in, opened once each.
#[derive(Debug, Default)]
pub(super) struct Hands {
    open: BTreeMap<Key, Arc<Directory>>,
    /// Those whose paths were found to lead to them by the last step.
    fresh: BTreeSet<Key>,
}

impl Hands {
    /// The directory of a spot, if it is the one that was written down and its path leads to it now.
    pub(super) fn of(&mut self, roots: &Roots, spot: &Spot) -> Result<Arc<Directory>, CommitError> {
        let key = (spot.workspace.clone(), spot.directory());
        let moved = |known: &Arc<Directory>| !self.fresh.contains(&key) && !known.is_still(roots, spot);
        if self.open.get(&key).is_some_and(moved) {
            self.open.remove(&key);
        }
        self.hold(roots, spot)
    }

    /// The directory of a spot, if it is the one that was written down; its path led to it when it was opened here.
    pub(super) fn hold(&mut self, roots: &Roots, spot: &Spot) -> Result<Arc<Directory>, CommitError> {
        let directory = self.at(roots, &spot.workspace, &spot.directory())?;
        if spot.parent.is_some_and(|inode| inode != directory.inode) {
            return Err(CommitError::stale(spot, Difference::Parent));
        }
        Ok(directory)
    }

    /// The directory at a path, opened once.
    pub(super) fn at(
        &mut self,
        roots: &Roots,
        workspace: &WorkspaceName,
        path: &WorkspacePath,
    ) -> Result<Arc<Directory>, CommitError> {
        let key = (workspace.clone(), path.clone());
        if let Some(directory) = self.open.get(&key) {
            return Ok(Arc::clone(directory));
        }
        let directory = Arc::new(Directory::open(roots, workspace, path)?);
        if self.open.len() >= HANDS_MAX {
            self.open.pop_first();
        }
        self.open.insert(key, Arc::clone(&directory));
        Ok(directory)
    }

    /// A directory that is open here already, if it is.
    pub(super) fn kept(&self, workspace: &WorkspaceName, path: &WorkspacePath) -> Option<&Directory> {
        self.open.get(&(workspace.clone(), path.clone())).map(AsRef::as_ref)
    }

    /// Whether the paths of these spots still lead to the directories in which a step has just changed something.
    pub(super) fn settled(&mut self, roots: &Roots, changed: &[(&Directory, &Spot)]) -> bool {
        self.fresh.clear();
        for (directory, spot) in changed {
            let key = (spot.workspace.clone(), spot.directory());
            if self.fresh.contains(&key) {
                continue;
            }
            if !directory.is_still(roots, spot) {
                return false;
            }
            self.fresh.insert(key);
        }
        true
    }

    /// Time went by, or nothing was looked at after the last change: look again before the next.
    pub(super) fn unsettled(&mut self) {
        self.fresh.clear();
    }

    /// A directory came to a path or went from it: whatever was open there or beneath is another one now.
    pub(super) fn forget(&mut self, spot: &Spot) {
        let gone = |key: &Key| key.0 == spot.workspace && key.1.starts_with(&spot.path);
        self.open.retain(|key, _| !gone(key));
        self.fresh.retain(|key| !gone(key));
    }
}

pub(super) fn root<'a>(roots: &'a Roots, workspace: &WorkspaceName) -> Result<&'a WorkspaceRoot, CommitError> {
    roots.get(workspace).map(AsRef::as_ref).ok_or_else(|| CommitError::Workspace(workspace.clone()))
}

/// The inode of a workspace's own directory.
pub(super) fn root_inode(roots: &Roots, workspace: &WorkspaceName) -> Result<u64, CommitError> {
    let found = Found::of(root(roots, workspace)?.fd());
    let spot = || Spot { workspace: workspace.clone(), path: WorkspacePath::root(), parent: None };
    found.map(|found| found.inode).map_err(|errno| CommitError::system("look at", &spot(), errno))
}

/// What `openat2` says when the way to a name leads elsewhere or nowhere.
pub(super) const fn is_detour(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV)
}

impl Directory {
    pub(super) fn open(roots: &Roots, workspace: &WorkspaceName, path: &WorkspacePath) -> Result<Self, CommitError> {
        let spot = || Spot { workspace: workspace.clone(), path: path.clone(), parent: None };
        match beneath::open_directory(root(roots, workspace)?.fd(), path) {
            Ok((fd, seen)) => Ok(Self { fd, inode: seen.tuple.ino, device: seen.tuple.dev }),
            Err(errno) if is_detour(errno) => Err(CommitError::stale(&spot(), Difference::Parent)),
            Err(errno) => Err(CommitError::system("open the directory", &spot(), errno)),
        }
    }

    /// The directory of a spot, if it is still the one that was written down.
    pub(super) fn of(roots: &Roots, spot: &Spot) -> Result<Self, CommitError> {
        let directory = Self::open(roots, &spot.workspace, &spot.directory())?;
        if spot.parent.is_some_and(|inode| inode != directory.inode) {
            return Err(CommitError::stale(spot, Difference::Parent));
        }
        Ok(directory)
    }

    pub(super) const fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether the path of the spot still leads to this directory.
    pub(super) fn is_still(&self, roots: &Roots, spot: &Spot) -> bool {
        let path = spot.directory();
        if path.is_root() {
            // Opened once; no path leads to it.
            return true;
        }
        let Ok(root) = root(roots, &spot.workspace) else { return false };
        if path.parent().is_some_and(|above| above.is_root()) {
            // One component: nothing on the way can be a link, and a link in its place is no directory.
            let seen = retry(|| rustix::fs::statat(root.fd(), path.as_str(), AtFlags::SYMLINK_NOFOLLOW));
            return seen.is_ok_and(|stat| {
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                is_directory && stat.st_ino == self.inode && stat.st_dev == self.device
            });
        }
        Self::open(roots, &spot.workspace, &path).is_ok_and(|again| again.inode == self.inode)
    }

    pub(super) fn look(&self, name: &str) -> Result<Option<Found>, Errno> {
        match retry(|| rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(stat) => Ok(Some(Found::from_stat(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The names in it, except those that are not UTF-8.
    pub(super) fn names(&self) -> Result<Vec<String>, Errno> {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut reader = RawDir::new(&self.fd, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = reader.next() {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// Open a regular file with one link for reading.
    pub(super) fn file(&self, name: &str) -> Result<(File, Found), Errno> {
        let path = name.parse::<WorkspacePath>().map_err(|_| Errno::INVAL)?;
        let (file, _) = beneath::open_file(self.fd.as_fd(), &path)?;
        let found = Found::of(&file)?;
        Ok((file, found))
    }

    /// Create a private file; the name must be free.
    pub(super) fn create(&self, name: &str) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        retry(|| rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))).map(File::from)
    }

    /// Create a directory with exactly this mode; the name must be free.
    pub(super) fn make(&self, name: &str, mode: u32) -> Result<OwnedFd, Errno> {
        retry(|| rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = retry(|| rustix::fs::openat(&self.fd, name, flags, Mode::empty()))?;
        retry(|| rustix::fs::fchmod(&made, Mode::from_raw_mode(mode)))?;
        Ok(made)
    }

    /// Rename onto a name that must be free.
    pub(super) fn rename(&self, name: &str, to: &Self, to_name: &str) -> Result<(), Errno> {
        retry(|| rustix::fs::renameat_with(&self.fd, name, &to.fd, to_name, RenameFlags::NOREPLACE))
    }

    /// Let two names change places.
    pub(super) fn exchange(&self, name: &str, other: &Self, other_name: &str) -> Result<(), Errno> {
        retry(|| rustix::fs::renameat_with(&self.fd, name, &other.fd, other_name, RenameFlags::EXCHANGE))
    }

    pub(super) fn unlink(&self, name: &str) -> Result<(), Errno> {
        retry(|| rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Errno> {
        retry(|| rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR))
    }

    pub(super) fn sync(&self) -> Result<(), Errno> {
        retry(|| rustix::fs::fsync(&self.fd))
    }
}

/// Set only the modification time.
pub(super) fn set_modified(file: &File, modified_ns: i64) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: modified_ns.div_euclid(NANOSECONDS),
            tv_nsec: modified_ns.rem_euclid(NANOSECONDS),
        },
    };
    retry(|| rustix::fs::futimens(file, &times))
}

/// What kind of thing a name holds, as far as commits care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// What a name holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) inode: u64,
    pub(super) links: u64,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) modified_ns: i64,
}

impl Found {
    pub(super) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        retry(|| rustix::fs::fstat(&fd)).map(|stat| Self::from_stat(&stat))
    }

    fn from_stat(stat: &rustix::fs::Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Kind::Other,
        };
        let rest = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Self {
            kind,
            inode: stat.st_ino,
            links: stat.st_nlink,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode & beneath::MODE_MASK,
            owner: (stat.st_uid, stat.st_gid),
            modified_ns: stat.st_mtime.saturating_mul(NANOSECONDS).saturating_add(rest),
        }
    }

    /// Whether this is the very file that was written down, by everything but its content.
    pub(super) const fn is(&self, node: &FileNode) -> bool {
        matches!(self.kind, Kind::File)
            && self.inode == node.inode
            && self.links == 1
            && self.size == node.size
            && self.modified_ns == node.modified_ns
    }
}

/// Read a whole file and digest it.
pub(super) fn digest(file: &mut File) -> Result<(Digest, u64), Errno> {
    let mut hasher = Hasher::new();
    let size = read_through(file, |bytes| {
        hasher.update(bytes);
        Ok(())
    })
    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok((hasher.finish(), size))
}

/// Pass everything that a reader has to `take`, a buffer at a time.
pub(super) fn read_through(
    reader: &mut impl Read,
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<u64> {
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    let mut total = 0_u64;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        take(buffer.get(..count).unwrap_or_default())?;
        total = total.saturating_add(count as u64);
    }
}

/// What the path of a spot holds, seen from the root: nothing also where a directory on the way is missing.
pub(super) fn glance(roots: &Roots, spot: &Spot) -> Result<Option<Seen>, CommitError> {
    match beneath::look(root(roots, &spot.workspace)?.fd(), &spot.path) {
        Ok(seen) => Ok(seen),
        Err(Errno::LOOP | Errno::XDEV) => Err(CommitError::stale(spot, Difference::Parent)),
        Err(errno) => Err(CommitError::system("look at", spot, errno)),
    }
}

/// How what was seen differs from a regular file with one link.
pub(super) const fn file_difference(seen: &Seen) -> Option<Difference> {
    match seen.entry {
        EntryKind::File => None,
        EntryKind::Refused if matches!(seen.refused, Some(beneath::RefusedKind::HardLinked)) => Some(Difference::Links),
        EntryKind::Refused | EntryKind::Directory | EntryKind::Symlink => Some(Difference::Kind),
    }
}
