//! A temporary workspace with a stage over it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use toolkeep_core::capability::{Access, FileGrant, PathGlobs, SensitiveClass};
use toolkeep_sandbox::stage::{Handle, Mount, OpenHow, Spool, Stage, StageError, StageLimits};
use toolkeep_sandbox::workspace::WorkspaceRoot;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The wall clock of every stage here.
pub(crate) const NOW_NS: u64 = 1_700_000_000_000_000_000;
pub(crate) const READ: OpenHow = OpenHow {
    follow: true,
    create: false,
    exclusive: false,
    truncate: false,
    directory: false,
    read: true,
    write: false,
};
pub(crate) const WRITE: OpenHow = OpenHow { write: true, read: false, ..READ };
pub(crate) const CREATE: OpenHow = OpenHow { create: true, truncate: true, ..WRITE };

/// A directory that is removed in the end.
pub(crate) struct World {
    pub(crate) path: PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ignored = fs::remove_dir_all(&self.path);
    }
}

pub(crate) fn grant(access: Access, read: &[&str], write: &[&str], sensitive: &[SensitiveClass]) -> FileGrant {
    let globs =
        |list: &[&str]| PathGlobs::new(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).expect("globs");
    FileGrant {
        workspace: "books".parse().expect("name"),
        access,
        read: globs(read),
        write: globs(write),
        sensitive: sensitive.to_vec(),
    }
}

/// Everything, sensitive paths included.
pub(crate) fn everything() -> FileGrant {
    grant(Access::Write, &["**"], &["**"], &SensitiveClass::ALL)
}

impl World {
    pub(crate) fn new() -> Self {
        let name = format!("toolkeep-stage-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("temporary directory");
        Self { path }
    }

    /// With files of these contents; a name that ends in `/` is a directory.
    pub(crate) fn with(entries: &[(&str, &str)]) -> Self {
        let world = Self::new();
        for (name, content) in entries {
            world.put(name, content.as_bytes());
        }
        world
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn put(&self, name: &str, content: &[u8]) {
        let path = self.at(name);
        if name.ends_with('/') {
            fs::create_dir_all(path).expect("directory");
        } else {
            fs::create_dir_all(path.parent().expect("parent")).expect("parent");
            fs::write(path, content).expect("file");
        }
    }

    pub(crate) fn mount(&self, grant: FileGrant) -> Mount {
        let name = grant.workspace.clone();
        Mount { root: Arc::new(WorkspaceRoot::open(name, &self.path).expect("root")).into(), grant }
    }

    pub(crate) fn stage_with(&self, grant: FileGrant, limits: StageLimits) -> Session {
        Session::over(vec![self.mount(grant)], limits)
    }

    pub(crate) fn stage(&self) -> Session {
        self.stage_with(everything(), StageLimits { bytes: 1 << 30, effects: 10_000 })
    }
}

pub(crate) fn spool() -> Spool {
    let directory = fs::File::open(std::env::temp_dir()).expect("temporary directory");
    Spool::new(Arc::new(OwnedFd::from(directory)))
}

/// A stage with the handle of its first workspace.
pub(crate) struct Session {
    pub(crate) stage: Stage,
    pub(crate) root: Handle,
}

impl Session {
    pub(crate) fn over(mounts: Vec<Mount>, limits: StageLimits) -> Self {
        let stage = Stage::new(mounts, limits, spool()).with_wall_clock(NOW_NS);
        let root = stage.roots().first().expect("a workspace").1.clone();
        Self { stage, root }
    }

    pub(crate) fn open(&self, path: &str, how: OpenHow) -> Result<Handle, StageError> {
        self.stage.open(&self.root, path, how)
    }

    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, StageError> {
        let file = self.open(path, READ)?;
        let mut all = Vec::new();
        loop {
            let part = self.stage.read_at(&file, all.len() as u64, u64::MAX)?;
            if part.is_empty() {
                return Ok(all);
            }
            all.extend(part);
        }
    }

    pub(crate) fn write(&self, path: &str, content: &[u8]) -> Result<(), StageError> {
        let file = self.open(path, CREATE)?;
        self.stage.write_at(&file, 0, content)
    }

    pub(crate) fn unlink(&self, path: &str) -> Result<(), StageError> {
        self.stage.unlink(&self.root, path)
    }

    pub(crate) fn mkdir(&self, path: &str) -> Result<(), StageError> {
        self.stage.create_directory(&self.root, path)
    }

    pub(crate) fn rmdir(&self, path: &str) -> Result<(), StageError> {
        self.stage.remove_directory(&self.root, path)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), StageError> {
        self.stage.rename(&self.root, from, &self.root, to)
    }

    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, StageError> {
        let directory = self.open(path, READ)?;
        self.stage.list(&directory)?;
        let mut names: Vec<String> = Vec::new();
        while let Some((name, ..)) = self.stage.entry_after(&directory, names.last().map(String::as_str))? {
            names.push(name);
        }
        Ok(names)
    }
}

/// One entry of a tree as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    File { content: Vec<u8>, mode: u32, modified_ns: i64 },
    Other,
}

/// All entries beneath a directory by relative path.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).expect("list") {
            let path = entry.expect("entry").path();
            let name = path.strip_prefix(root).expect("prefix").to_str().expect("utf-8").to_owned();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let entry = if metadata.is_dir() {
                waiting.push(path);
                Entry::Directory
            } else if metadata.is_file() {
                Entry::File {
                    content: fs::read(&path).expect("read"),
                    mode: metadata.permissions().mode() & 0o777,
                    modified_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
                }
            } else {
                Entry::Other
            };
            entries.insert(name, entry);
        }
    }
    entries
}

/// A tree without what a native run cannot reproduce: modes depend on the umask and times on the clock.
pub(crate) fn contents(root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let content = |entry| match entry {
        Entry::File { content, .. } => Some(content),
        Entry::Directory | Entry::Other => None,
    };
    tree(root).into_iter().map(|(name, entry)| (name, content(entry))).collect()
}
