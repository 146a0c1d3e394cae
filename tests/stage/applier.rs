//! Applies and undoes effects on a directory, one by one, checking each against what it finds.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Effect, FileState};
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::{EntryKind, Observation, ReadEntry, listing_digest};
use toolkeep_sandbox::stage::{Content, Staged};

/// What applying destroyed, by digest.
pub(crate) type Kept = BTreeMap<Digest, Vec<u8>>;

fn at(root: &Path, path: &WorkspacePath) -> PathBuf {
    root.join(path.as_str())
}

fn bytes_of(content: &Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    content.reader().read_to_end(&mut bytes).expect("content");
    assert_eq!(bytes.len() as u64, content.size());
    bytes
}

fn state(path: &Path) -> Option<FileState> {
    let metadata = fs::symlink_metadata(path).ok()?;
    assert!(metadata.is_file(), "{} is no file", path.display());
    let content = fs::read(path).expect("read");
    let mode = metadata.permissions().mode() & 0o777;
    Some(FileState { sha256: Digest::of(&content), size: content.len() as u64, mode })
}

fn put(path: &Path, content: &[u8], expect: &FileState) {
    assert_eq!(Digest::of(content), expect.sha256);
    fs::write(path, content).expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(expect.mode)).expect("mode");
    assert_eq!(state(path).as_ref(), Some(expect));
}

fn set_time(path: &Path, unix_ns: i64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(unix_ns).expect("after 1970"));
    let file = fs::File::options().write(true).open(path).expect("open");
    file.set_modified(time).expect("time");
}

/// Apply all effects in their order.
pub(crate) fn apply(root: &Path, staged: &Staged) -> Kept {
    let mut kept = Kept::new();
    for effect in &staged.effects {
        if let Some(before) = effect.destroyed() {
            let path = at(root, effect.paths().next().expect("path"));
            assert_eq!(state(&path).as_ref(), Some(before), "{effect:?}");
            kept.insert(before.sha256, fs::read(&path).expect("read"));
        }
        match effect {
            Effect::FileWrite { path, before, after, .. } => {
                let path = at(root, path);
                assert_eq!(state(&path).is_some(), before.is_some(), "{effect:?}");
                put(&path, &bytes_of(staged.contents.get(&after.sha256).expect("content")), after);
            }
            Effect::FileDelete { path, .. } => fs::remove_file(at(root, path)).expect("delete"),
            Effect::FileRename { from, to, before, .. } => {
                assert_eq!(state(&at(root, from)).as_ref(), Some(before), "{effect:?}");
                assert!(!at(root, to).exists(), "{effect:?}");
                fs::rename(at(root, from), at(root, to)).expect("rename");
            }
            Effect::FileMetadata { path, after, .. } => set_time(&at(root, path), after.modified_ns),
            Effect::DirCreate { path, .. } => fs::create_dir(at(root, path)).expect("create directory"),
            Effect::DirDelete { path, .. } => fs::remove_dir(at(root, path)).expect("delete directory"),
            other => panic!("not a file: {other:?}"),
        }
    }
    kept
}

/// Undo all effects in the reverse order.
pub(crate) fn undo(root: &Path, effects: &[Effect], kept: &Kept) {
    for effect in effects.iter().rev() {
        match effect {
            Effect::FileWrite { path, before: None, .. } => fs::remove_file(at(root, path)).expect("delete"),
            Effect::FileWrite { path, before: Some(before), .. } | Effect::FileDelete { path, before, .. } => {
                put(&at(root, path), kept.get(&before.sha256).expect("kept"), before);
            }
            Effect::FileRename { from, to, .. } => fs::rename(at(root, to), at(root, from)).expect("rename"),
            Effect::FileMetadata { path, before, .. } => set_time(&at(root, path), before.modified_ns),
            Effect::DirCreate { path, .. } => fs::remove_dir(at(root, path)).expect("delete directory"),
            Effect::DirDelete { path, .. } => fs::create_dir(at(root, path)).expect("create directory"),
            other => panic!("not a file: {other:?}"),
        }
    }
}

/// Everything that the read set says is true of the directory.
pub(crate) fn check_read_set(root: &Path, read_set: &[ReadEntry]) {
    for entry in read_set {
        let path = at(root, &entry.path);
        let metadata = fs::symlink_metadata(&path);
        match &entry.observation {
            Observation::Absent => assert!(metadata.is_err(), "{entry:?}"),
            Observation::Stat { entry: kind, size } => {
                let metadata = metadata.expect("metadata");
                let found = if metadata.is_dir() {
                    (EntryKind::Directory, 0)
                } else if metadata.is_symlink() {
                    (EntryKind::Symlink, metadata.size())
                } else if metadata.is_file() && metadata.nlink() == 1 {
                    (EntryKind::File, metadata.size())
                } else {
                    (EntryKind::Refused, 0)
                };
                assert_eq!((*kind, *size), found, "{entry:?}");
            }
            Observation::Content { offset, length, sha256 } => {
                let content = match fs::read_link(&path) {
                    Ok(target) => target.to_str().expect("utf-8").as_bytes().to_vec(),
                    Err(_) => fs::read(&path).expect("read"),
                };
                let range = usize::try_from(*offset).expect("small")..usize::try_from(offset + length).expect("small");
                assert_eq!(*sha256, Digest::of(content.get(range).expect("range")), "{entry:?}");
            }
            Observation::List { sha256 } => {
                let names: Vec<(String, EntryKind)> = fs::read_dir(&path)
                    .expect("list")
                    .map(|found| {
                        let found = found.expect("entry");
                        let kind = found.file_type().expect("type");
                        let kind = if kind.is_dir() {
                            EntryKind::Directory
                        } else if kind.is_symlink() {
                            EntryKind::Symlink
                        } else if kind.is_file() {
                            EntryKind::File
                        } else {
                            EntryKind::Refused
                        };
                        (found.file_name().into_string().expect("utf-8"), kind)
                    })
                    .collect();
                let names = names.iter().map(|(name, kind)| (name.as_str(), *kind));
                assert_eq!(*sha256, listing_digest(names), "{entry:?}");
            }
        }
    }
}
