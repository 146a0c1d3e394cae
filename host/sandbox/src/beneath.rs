//! Access beneath a workspace root: the only way from a [`WorkspacePath`] to the file system.
//!
//! Every open goes through `openat2` with `RESOLVE_BENEATH`, `NO_SYMLINKS`, `NO_MAGICLINKS` and `NO_XDEV`, so no
//! component can be swapped for a link or a mount that leads elsewhere; there is no fallback for kernels without it, which
//! fail closed. Nothing here follows a symbolic link, blocks on a FIFO, or opens anything but regular files and
//! directories. Path grammar is `toolkeep_core::path`'s matter; grants are the stage's.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use toolkeep_core::path::{WorkspacePath, is_temporary};
use toolkeep_core::plan::EntryKind;

/// Most entries of one directory that are read, in entries: the listing of a larger one is refused.
pub const LISTING_MAX: usize = 200_000;
/// Permission bits that are ever looked at: no set-id, no sticky bit.
pub const MODE_MASK: u32 = 0o777;
/// Mode of files that are created through [`open`]: private until renamed into place.
const CREATE_MODE: Mode = Mode::from_raw_mode(0o600);
/// Bytes of the buffer that directory entries are read into: one system call for about 500 names.
const DIRENT_BUFFER_BYTES: usize = 32 * 1024;
/// Attempts at an open that the kernel asks to repeat (`EAGAIN` after a concurrent rename, `EINTR`).
const OPEN_ATTEMPTS_MAX: usize = 64;
/// Longest target of a symbolic link, in bytes (`PATH_MAX`).
const TARGET_MAX_BYTES: usize = 4096;

/// What identifies one state of a file without reading it.
///
/// Two equal tuples mean the same content, except for changes within the granularity of the file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatTuple {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Bytes, as the kernel reports them.
    pub size: u64,
    /// Last modification, nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
    /// Last change of the inode, nanoseconds since the Unix epoch.
    pub ctime_ns: i64,
}

/// Why an entry is shown but never opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedKind {
    /// A regular file with more than one hard link: the others may lie outside.
    HardLinked,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharacterDevice,
    /// Another file system is mounted here.
    Mount,
    /// Of no known type.
    Unknown,
}

impl RefusedKind {
    const ALL: [Self; 7] = [
        Self::HardLinked,
        Self::Fifo,
        Self::Socket,
        Self::BlockDevice,
        Self::CharacterDevice,
        Self::Mount,
        Self::Unknown,
    ];

    /// The word for it in recordings.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::HardLinked => "hard-linked",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::BlockDevice => "block-device",
            Self::CharacterDevice => "character-device",
            Self::Mount => "mount",
            Self::Unknown => "unknown",
        }
    }

    /// What a word of a recording means.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// What was found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its kind, as read sets and listings name it.
    pub entry: EntryKind,
    /// Why it is refused, if it is.
    pub refused: Option<RefusedKind>,
    /// Bytes of a regular file or of a link's target; 0 for everything else.
    pub size: u64,
    /// Permission bits, masked with [`MODE_MASK`].
    pub mode: u32,
    /// Its state.
    pub tuple: StatTuple,
}

impl Seen {
    /// What an open descriptor refers to.
    ///
    /// # Errors
    /// `fstat` fails.
    pub fn of(fd: impl AsFd) -> Result<Self, Errno> {
        Ok(Self::from_stat(&rustix::fs::fstat(fd)?))
    }

    fn from_stat(stat: &Stat) -> Self {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let (entry, refused) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink > 1 => (EntryKind::Refused, Some(RefusedKind::HardLinked)),
            FileType::RegularFile => (EntryKind::File, None),
            FileType::Directory => (EntryKind::Directory, None),
            FileType::Symlink => (EntryKind::Symlink, None),
            FileType::Fifo => (EntryKind::Refused, Some(RefusedKind::Fifo)),
            FileType::Socket => (EntryKind::Refused, Some(RefusedKind::Socket)),
            FileType::BlockDevice => (EntryKind::Refused, Some(RefusedKind::BlockDevice)),
            FileType::CharacterDevice => (EntryKind::Refused, Some(RefusedKind::CharacterDevice)),
            FileType::Unknown => (EntryKind::Refused, Some(RefusedKind::Unknown)),
        };
        Self {
            entry,
            refused,
            size: if matches!(entry, EntryKind::File | EntryKind::Symlink) { size } else { 0 },
            mode: stat.st_mode & MODE_MASK,
            tuple: StatTuple {
                dev: stat.st_dev,
                ino: stat.st_ino,
                size,
                mtime_ns: nanoseconds(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
                ctime_ns: nanoseconds(stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
            },
        }
    }

    const fn mount() -> Self {
        Self {
            entry: EntryKind::Refused,
            refused: Some(RefusedKind::Mount),
            size: 0,
            mode: 0,
            tuple: StatTuple { dev: 0, ino: 0, size: 0, mtime_ns: 0, ctime_ns: 0 },
        }
    }
}

const fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// Open `path` beneath `root` with `flags`; `O_CLOEXEC`, `O_NOFOLLOW` and (where allowed) `O_NONBLOCK` are added.
///
/// The caller still has to look at what it got: [`open_file`] and [`open_directory`] do.
///
/// # Errors
/// What `openat2` answers: `ELOOP` for any symbolic link on the way, `EXDEV` for a mount or an escape.
pub fn open(root: BorrowedFd<'_>, path: &WorkspacePath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if !flags.contains(OFlags::PATH) {
        flags |= OFlags::NONBLOCK;
    }
    let creates = flags.contains(OFlags::CREATE) || flags.contains(OFlags::TMPFILE);
    let mode = if creates { CREATE_MODE } else { Mode::empty() };
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let name = if path.is_root() { "." } else { path.as_str() };
    let mut last = Errno::AGAIN;
    for _ in 0..OPEN_ATTEMPTS_MAX {
        match rustix::fs::openat2(root, name, flags, mode, resolve) {
            Err(again @ (Errno::AGAIN | Errno::INTR)) => last = again,
            result => return result,
        }
    }
    Err(last)
}

/// What is at `path`; nothing if no entry is there.
///
/// # Errors
/// A component on the way is a symbolic link or may not be searched, or the file system fails.
pub fn look(root: BorrowedFd<'_>, path: &WorkspacePath) -> Result<Option<Seen>, Errno> {
    match open(root, path, OFlags::PATH) {
        Ok(fd) => Seen::of(fd).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(Errno::XDEV) => Ok(Some(Seen::mount())),
        Err(other) => Err(other),
    }
}

/// Open a regular file with one link for reading.
///
/// # Errors
/// `EPERM` for anything else than such a file; otherwise what [`open`] answers.
pub fn open_file(root: BorrowedFd<'_>, path: &WorkspacePath) -> Result<(File, Seen), Errno> {
    let fd = open(root, path, OFlags::RDONLY)?;
    let seen = Seen::of(&fd)?;
    if seen.entry == EntryKind::File { Ok((File::from(fd), seen)) } else { Err(Errno::PERM) }
}

/// Open a directory for reading its entries.
///
/// # Errors
/// What [`open`] answers; `ENOTDIR` for anything else than a directory.
pub fn open_directory(root: BorrowedFd<'_>, path: &WorkspacePath) -> Result<(OwnedFd, Seen), Errno> {
    let fd = open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let seen = Seen::of(&fd)?;
    if seen.entry == EntryKind::Directory { Ok((fd, seen)) } else { Err(Errno::NOTDIR) }
}

/// The entries of a directory by name, with the kinds that the directory itself tells.
///
/// A file with several hard links is a [`EntryKind::File`] here: links are counted when the entry itself is looked at.
/// Temporaries of commits that are under way are left out: they are no part of anybody's world.
/// A name that is not UTF-8 appears with replacement characters and as [`EntryKind::Refused`].
///
/// # Errors
/// What [`open_directory`] answers; `EOVERFLOW` beyond [`LISTING_MAX`] entries.
pub fn list(root: BorrowedFd<'_>, path: &WorkspacePath) -> Result<(BTreeMap<Box<str>, EntryKind>, Seen), Errno> {
    let (fd, seen) = open_directory(root, path)?;
    let mut entries = BTreeMap::new();
    let mut buffer = Vec::with_capacity(DIRENT_BUFFER_BYTES);
    let mut reader = RawDir::new(&fd, buffer.spare_capacity_mut());
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        if entries.len() >= LISTING_MAX {
            return Err(Errno::OVERFLOW);
        }
        match entry.file_name().to_str() {
            Ok(name) if is_temporary(name) => {}
            Ok(name) => {
                let kind = match entry.file_type() {
                    FileType::Unknown => kind_of_child(&fd, name)?,
                    known => kind_of_type(known),
                };
                entries.insert(name.into(), kind);
            }
            Err(_) => {
                entries.insert(String::from_utf8_lossy(bytes).into(), EntryKind::Refused);
            }
        }
    }
    Ok((entries, seen))
}

/// The target of a symbolic link.
///
/// # Errors
/// `EINVAL` if it is no link, `EILSEQ` if the target is not UTF-8; otherwise what [`open`] answers.
pub fn read_link(root: BorrowedFd<'_>, path: &WorkspacePath) -> Result<(String, Seen), Errno> {
    let fd = open(root, path, OFlags::PATH)?;
    let seen = Seen::of(&fd)?;
    if seen.entry != EntryKind::Symlink {
        return Err(Errno::INVAL);
    }
    let target = rustix::fs::readlinkat(&fd, "", Vec::with_capacity(TARGET_MAX_BYTES))?;
    let target = target.into_string().map_err(|_| Errno::ILSEQ)?;
    Ok((target, seen))
}

fn kind_of_child(directory: &OwnedFd, name: &str) -> Result<EntryKind, Errno> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(kind_of_type(FileType::from_raw_mode(stat.st_mode)))
}

const fn kind_of_type(kind: FileType) -> EntryKind {
    match kind {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo | FileType::Socket | FileType::BlockDevice | FileType::CharacterDevice | FileType::Unknown => {
            EntryKind::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::sync::atomic::{AtomicU64, Ordering};

    static NEXT: AtomicU64 = AtomicU64::new(0);

    fn path(text: &str) -> WorkspacePath {
        text.parse().expect(text)
    }

    fn with_directory(check: impl FnOnce(&std::path::Path, BorrowedFd<'_>)) {
        let name = format!("toolkeep-beneath-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("temporary directory");
        let root = File::open(&directory).expect("open");
        check(&directory, root.as_fd());
        std::fs::remove_dir_all(&directory).expect("remove");
    }

    #[test]
    fn t_f2_no_link_is_followed_in_any_component() {
        with_directory(|directory, root| {
            std::fs::create_dir(directory.join("d")).expect("directory");
            std::fs::write(directory.join("d/f"), "x").expect("file");
            std::os::unix::fs::symlink("d", directory.join("l")).expect("link");
            std::os::unix::fs::symlink("d/f", directory.join("m")).expect("link");
            assert_eq!(look(root, &path("l/f")).map(|_| ()), Err(Errno::LOOP));
            assert_eq!(open_file(root, &path("m")).map(|_| ()), Err(Errno::LOOP));
            assert_eq!(open_file(root, &path("l/f")).map(|_| ()), Err(Errno::LOOP));
            assert_eq!(list(root, &path("l")).map(|_| ()), Err(Errno::NOTDIR));
            assert_eq!(look(root, &path("l")).map(|seen| seen.map(|s| s.entry)), Ok(Some(EntryKind::Symlink)));
            assert_eq!(read_link(root, &path("m")).map(|(target, _)| target), Ok("d/f".to_owned()));
            assert_eq!(read_link(root, &path("d/f")).map(|_| ()), Err(Errno::INVAL));
            assert_eq!(look(root, &path("d/f/x")), Ok(None));
        });
    }

    #[test]
    fn a_listing_tells_kinds_and_shows_names_that_are_not_utf_8_as_refused() {
        with_directory(|directory, root| {
            std::fs::create_dir(directory.join("d")).expect("directory");
            std::fs::write(directory.join("f"), "").expect("file");
            std::fs::hard_link(directory.join("f"), directory.join("g")).expect("link");
            std::fs::write(directory.join(std::ffi::OsStr::from_bytes(b"x\xff")), "").expect("file");
            let (names, seen) = list(root, &WorkspacePath::root()).expect("list");
            let names: Vec<(&str, EntryKind)> = names.iter().map(|(name, kind)| (&**name, *kind)).collect();
            let (file, refused) = (EntryKind::File, EntryKind::Refused);
            assert_eq!(names, [("d", EntryKind::Directory), ("f", file), ("g", file), ("x\u{fffd}", refused)]);
            assert_eq!(seen.entry, EntryKind::Directory);
            let linked = look(root, &path("g")).expect("look").expect("there");
            assert_eq!((linked.entry, linked.refused), (refused, Some(RefusedKind::HardLinked)));
            assert_eq!(open_file(root, &path("g")).map(|_| ()), Err(Errno::PERM));
        });
    }
}
