//! A small world to commit into: two workspaces, a state directory, and something outside that nothing may change.
//!
//! Shared by the tests and by the child that is killed. Worlds live in memory where the machine has `/dev/shm`, because
//! kills and injected faults leave the page cache alone; `TOOLKEEP_WORLDS` names another place.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use toolkeep::commit::files::{
    self, ApplyError, Attempt, CommitError, Former, Prepared, Remnant, Roots, TransactionId, Undo, Unflushed, Witnessed,
};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Effect, FileState, Times};
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::{PlanBody, ReadEntry};
use toolkeep_core::principal::Principal;
use toolkeep_sandbox::stage::{Content, Witness};
use toolkeep_sandbox::workspace::WorkspaceRoot;

/// Modification time of every file that a world starts with, in seconds.
pub const OLD: u64 = 1_000_000_000;
/// The time that shapes set, in nanoseconds.
pub const TOUCHED_NS: i64 = 1_500_000_000_123_456_789;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Contents that a plan destroyed, as the undo store has them, and those that its intent logged.
pub type UndoStore = BTreeMap<Digest, Vec<u8>>;

pub struct World {
    pub base: PathBuf,
    pub roots: Roots,
    owned: bool,
}

impl World {
    /// A new empty world, removed when dropped.
    pub fn new() -> Self {
        let place = std::env::var_os("TOOLKEEP_WORLDS").map_or_else(
            || if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() },
            PathBuf::from,
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = place.join(format!("toolkeep-world-{}-{number}", std::process::id()));
        std::fs::remove_dir_all(&base).ok();
        for directory in ["w", "x", "state", "outside"] {
            std::fs::create_dir_all(base.join(directory)).expect("world");
        }
        let mut world = Self::open(&base);
        world.owned = true;
        world
    }

    /// The world that another process made.
    pub fn open(base: &Path) -> Self {
        let roots = ["w", "x"]
            .map(|name| {
                let name: WorkspaceName = name.parse().expect("name");
                let root = WorkspaceRoot::open(name.clone(), &base.join(name.as_str())).expect("root");
                (name, Arc::new(root))
            })
            .into_iter()
            .collect();
        Self { base: base.to_owned(), roots, owned: false }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// A file with an old modification time.
    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("directories");
        std::fs::write(&path, content).expect("file");
        self.age(&path);
    }

    pub fn age(&self, path: &Path) {
        let file = std::fs::File::options().write(true).open(path).expect("open");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(OLD)).expect("time");
    }

    pub fn mode(&self, path: &str, mode: u32) {
        std::fs::set_permissions(self.at(path), std::fs::Permissions::from_mode(mode)).expect("mode");
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    pub fn state(&self, path: &str) -> FileState {
        let content = self.read(path);
        let mode = std::fs::metadata(self.at(path)).expect("stat").permissions().mode() & 0o777;
        FileState { sha256: Digest::of(&content), size: content.len() as u64, mode }
    }

    /// Everything in the workspaces, temporaries included: kind, mode, content, and times that are not today's.
    pub fn snapshot(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for root in ["w", "x"] {
            walk(&self.base, root, &mut all);
        }
        all
    }

    /// Everything outside of the workspaces, with inodes and links.
    pub fn outside(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        walk(&self.base, "outside", &mut all);
        for (path, shown) in &mut all {
            let stat = std::fs::symlink_metadata(self.base.join(path)).expect("stat");
            shown.push_str(&format!(" ino {}", stat.ino()));
        }
        all
    }

    /// Names of temporaries that are left.
    pub fn residue(&self) -> Vec<String> {
        self.snapshot().into_keys().filter(|path| path.contains(".toolkeep-")).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.owned {
            std::fs::remove_dir_all(&self.base).ok();
        }
    }
}

fn walk(base: &Path, path: &str, all: &mut BTreeMap<String, String>) {
    let Ok(entries) = std::fs::read_dir(base.join(path)) else { return };
    for entry in entries.flatten() {
        let name = format!("{path}/{}", entry.file_name().to_string_lossy());
        let Ok(stat) = std::fs::symlink_metadata(base.join(&name)) else { continue };
        let mode = stat.permissions().mode() & 0o7777;
        if stat.is_dir() {
            all.insert(name.clone(), format!("dir {mode:o}"));
            walk(base, &name, all);
        } else if stat.is_file() {
            let content = std::fs::read(base.join(&name)).unwrap_or_default();
            let time = match stat.mtime() {
                1_000_000_000 => "old",
                1_500_000_000 => "touched",
                _ => "new",
            };
            let digest = Digest::of(&content).short();
            all.insert(name, format!("file {mode:o} {} bytes {digest} {time}", content.len()));
        } else {
            all.insert(name, "other".to_owned());
        }
    }
}

/// Effects under construction. `before`s are taken from the world and from the effects in front.
#[derive(Default, Clone)]
pub struct Changes {
    pub effects: Vec<Effect>,
    pub contents: BTreeMap<Digest, Content>,
    pub read_set: Vec<ReadEntry>,
    pub witnesses: Vec<Witness>,
    states: BTreeMap<String, Option<FileState>>,
}

/// `w/a/b` as workspace and path.
pub fn split(path: &str) -> (WorkspaceName, WorkspacePath) {
    let (workspace, rest) = path.split_once('/').unwrap_or((path, ""));
    (workspace.parse().expect("workspace"), WorkspacePath::try_from(rest.to_owned()).expect("path"))
}

impl Changes {
    /// Effects that were made elsewhere.
    pub fn of(effects: Vec<Effect>, contents: BTreeMap<Digest, Content>) -> Self {
        Self { effects, contents, ..Self::default() }
    }

    fn before(&self, world: &World, path: &str) -> Option<FileState> {
        let known = self.states.get(path).cloned();
        known.unwrap_or_else(|| world.at(path).is_file().then(|| world.state(path)))
    }

    pub fn write(&mut self, world: &World, path: &str, content: impl AsRef<[u8]>) -> &mut Self {
        let content = content.as_ref();
        let before = self.before(world, path);
        let mode = before.as_ref().map_or(0o644, |state| state.mode);
        let after = FileState { sha256: Digest::of(content), size: content.len() as u64, mode };
        self.contents.insert(after.sha256, Content::Memory(content.into()));
        self.states.insert(path.to_owned(), Some(after.clone()));
        let (workspace, path) = split(path);
        self.effects.push(Effect::FileWrite { workspace, path, before, after });
        self
    }

    /// Replace a file whose state is known.
    pub fn replace(&mut self, path: &str, before: FileState, content: impl AsRef<[u8]>) -> &mut Self {
        let content = content.as_ref();
        let after = FileState { sha256: Digest::of(content), size: content.len() as u64, mode: before.mode };
        self.contents.insert(after.sha256, Content::Memory(content.into()));
        self.states.insert(path.to_owned(), Some(after.clone()));
        let (workspace, path) = split(path);
        self.effects.push(Effect::FileWrite { workspace, path, before: Some(before), after });
        self
    }

    pub fn delete(&mut self, world: &World, path: &str) -> &mut Self {
        let before = self.before(world, path).expect("a file to delete");
        self.states.insert(path.to_owned(), None);
        let (workspace, path) = split(path);
        self.effects.push(Effect::FileDelete { workspace, path, before });
        self
    }

    pub fn rename(&mut self, world: &World, from: &str, to: &str) -> &mut Self {
        let before = self.before(world, from).expect("a file to rename");
        self.states.insert(from.to_owned(), None);
        self.states.insert(to.to_owned(), Some(before.clone()));
        let ((workspace, from), (_, to)) = (split(from), split(to));
        self.effects.push(Effect::FileRename { workspace, from, to, before });
        self
    }

    pub fn touch(&mut self, path: &str) -> &mut Self {
        let (workspace, path) = split(path);
        let before = Times { modified_ns: i64::try_from(OLD).expect("small") * 1_000_000_000 };
        self.effects.push(Effect::FileMetadata { workspace, path, before, after: Times { modified_ns: TOUCHED_NS } });
        self
    }

    pub fn mkdir(&mut self, path: &str) -> &mut Self {
        let (workspace, path) = split(path);
        self.effects.push(Effect::DirCreate { workspace, path });
        self
    }

    pub fn rmdir(&mut self, path: &str) -> &mut Self {
        let (workspace, path) = split(path);
        self.effects.push(Effect::DirDelete { workspace, path });
        self
    }

    pub fn body(&self) -> PlanBody {
        let digest = Digest::of(b"test");
        PlanBody {
            format: 1,
            principal: Principal {
                tenant: "t".parse().expect("name"),
                user: "u".parse().expect("name"),
                agent: "a".parse().expect("name"),
            },
            tool: "test".parse().expect("name"),
            component: digest,
            manifest: digest,
            policy_set: digest,
            input: digest,
            keys_read: Vec::new(),
            segment: 0,
            steps: Vec::new(),
            taint: toolkeep_core::taint::Taint::NONE,
            read_set: self.read_set.clone(),
            effects: self.effects.clone(),
        }
    }

    pub fn check(&self, world: &World) -> Result<(), CommitError> {
        let witnessed = Witnessed { entries: &self.witnesses, since_ns: i64::MAX };
        files::check(&self.body(), witnessed, &world.roots)
    }

    pub fn find(&self, digest: &Digest) -> Option<Content> {
        self.contents.get(digest).cloned()
    }

    /// Prepare with an undo store that takes everything, and flush.
    pub fn prepare(&self, world: &World, attempt: &Attempt) -> Result<(Prepared, UndoStore), CommitError> {
        let (prepared, store, unflushed) = self.prepare_only(world, attempt)?;
        unflushed.flush()?;
        Ok((prepared, store))
    }

    /// Prepare; what the intent logs is not flushed.
    pub fn prepare_only(
        &self,
        world: &World,
        attempt: &Attempt,
    ) -> Result<(Prepared, UndoStore, Unflushed), CommitError> {
        let mut store = UndoStore::new();
        let mut spill = |state: &FileState, reader: &mut dyn Read| {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            store.insert(state.sha256, bytes);
            Ok(())
        };
        let undo = Undo { fits: &|_| true, spill: &mut spill };
        let ready = files::prepare(&self.effects, &world.roots, attempt, &|digest| self.find(digest), undo)?;
        store.extend(ready.undo.into_iter().map(|kept| (kept.sha256, kept.bytes)));
        for digest in &ready.logged {
            let mut bytes = Vec::new();
            self.find(digest).expect("a content").reader().read_to_end(&mut bytes).expect("content");
            store.insert(*digest, bytes);
        }
        Ok((ready.prepared, store, ready.unflushed))
    }

    /// Check, prepare and apply.
    pub fn commit(&self, world: &World) -> Result<Committed, ApplyError> {
        self.commit_as(world, &attempt())
    }

    pub fn commit_as(&self, world: &World, attempt: &Attempt) -> Result<Committed, ApplyError> {
        self.check(world).map_err(ApplyError::RolledBack)?;
        let (prepared, undo) = self.prepare(world, attempt).map_err(ApplyError::RolledBack)?;
        let applied = files::apply(&prepared, &world.roots)?;
        let directories =
            files::confirm(&applied, &prepared, &world.roots).map_err(|failed| ApplyError::Failed(failed.into()))?;
        Ok(Committed { prepared, undo, directories, leftovers: applied.leftovers })
    }
}

/// A plan that was applied.
pub struct Committed {
    pub prepared: Prepared,
    pub undo: UndoStore,
    /// How many were flushed.
    pub directories: usize,
    pub leftovers: Vec<Remnant>,
}

impl Committed {
    /// The attempt that undoes it.
    pub fn undoing(&self) -> Attempt {
        Attempt { umask: 0, former: Former::of(&self.prepared), ..attempt() }
    }
}

/// A fresh transaction. Tests do not need unpredictable names, only distinct ones.
pub fn attempt() -> Attempt {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    id[8..12].copy_from_slice(&std::process::id().to_be_bytes());
    Attempt { id: TransactionId::new(id), umask: 0o022, former: Former::default() }
}

/// Contents by digest, as recovery and undo look for them.
pub fn from_store(store: &UndoStore) -> impl Fn(&Digest) -> Option<Content> + '_ {
    |digest| store.get(digest).map(|bytes| Content::Memory(bytes.as_slice().into()))
}
