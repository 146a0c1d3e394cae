//! Worlds that a person writes: files by workspace and path, and keys by bucket, and nothing else exists there.
//!
//! Such a world becomes a recording of an execution that looked at everything: each directory is listed, each file is read,
//! each key is known. What is not in it is absent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use toolkeep_core::digest::Digest;
use toolkeep_core::event::{
    Blob, End, FORMAT, Failures, Heard, How, KeyAnswer, KeyAsked, KeyHeard, Look, Piece, Recording, Sight,
};
use toolkeep_core::id::{BucketName, WorkspaceName};
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::EntryKind;
use toolkeep_sandbox::outbound::keys::LIST_PAGE;

use crate::replay::{Parts, Version};

/// Files and keys of one world, at most: a person writes them.
const THINGS_MAX: usize = 1_000;
/// The wall clock of a world that does not say: 2024-01-01T00:00:00Z, in nanoseconds since the Unix epoch.
const WALL_CLOCK_NS: u64 = 1_704_067_200_000_000_000;
/// Permission bits of its files and directories.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// A world as a person writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// Texts of files, by workspace and path.
    #[serde(default)]
    pub files: BTreeMap<WorkspaceName, BTreeMap<WorkspacePath, String>>,
    /// Values of keys, by bucket and key.
    #[serde(default)]
    pub keys: BTreeMap<BucketName, BTreeMap<String, String>>,
    /// The wall clock, nanoseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_clock_ns: Option<u64>,
}

impl World {
    /// The recording of somebody who looked at all of it.
    ///
    /// # Errors
    /// It is too large, or a file lies beneath a file.
    pub(super) fn recording(&self, version: &Version, parts: &mut Parts) -> Result<Recording, String> {
        let things = self.files.values().map(BTreeMap::len).sum::<usize>();
        if things + self.keys.values().map(BTreeMap::len).sum::<usize>() > THINGS_MAX {
            return Err(format!("its world has more than {THINGS_MAX} files and keys"));
        }
        let mut keep = |digest: Digest, part: &[u8]| {
            parts.0.insert(digest, part.into());
        };
        let now_ns = self.wall_clock_ns.unwrap_or(WALL_CLOCK_NS);
        let mut files = Vec::new();
        let granted = version.manifest.files.iter().map(|grant| &grant.workspace);
        let names: BTreeSet<&WorkspaceName> = self.files.keys().chain(granted).collect();
        for name in names {
            let texts = self.files.get(name).cloned().unwrap_or_default();
            files.extend(sights(name, &texts, now_ns, &mut keep)?);
        }
        let mut keys = Vec::new();
        for grant in version.manifest.keys.iter() {
            let values = self.keys.get(&grant.bucket).cloned().unwrap_or_default();
            keys.extend(heard(&grant.bucket, &values, &mut keep));
        }
        let end = End {
            how: How::Output,
            sha256: Digest::of(b""),
            shown: String::new(),
            fuel: 0,
            effects: None,
            log: Vec::new(),
            events: None,
        };
        Ok(Recording {
            format: FORMAT,
            engine: String::new(),
            seed: "00".repeat(32),
            wall_clock_ns: now_ns.to_string(),
            layer: None,
            given: version.allows(),
            events: Vec::new(),
            heard: Heard { files, keys, ..Heard::default() },
            end,
            dropped_bytes: 0,
            dropped_events: 0,
            lost: None,
        })
    }
}

fn sights(
    workspace: &WorkspaceName,
    texts: &BTreeMap<WorkspacePath, String>,
    now_ns: u64,
    keep: &mut impl FnMut(Digest, &[u8]),
) -> Result<Vec<Sight>, String> {
    let modified_ns = i64::try_from(now_ns).unwrap_or(i64::MAX);
    let mut directories: BTreeMap<WorkspacePath, BTreeMap<Box<str>, EntryKind>> = BTreeMap::new();
    directories.entry(WorkspacePath::root()).or_default();
    for path in texts.keys() {
        let (mut at, mut kind) = (path.clone(), EntryKind::File);
        while let (Some(parent), Some(name)) = (at.parent(), at.name().map(Box::<str>::from)) {
            directories.entry(parent.clone()).or_default().insert(name, kind);
            (at, kind) = (parent, EntryKind::Directory);
        }
    }
    if let Some(path) = texts.keys().find(|path| directories.contains_key(*path)) {
        return Err(format!("`{path}` is a file and has files beneath it"));
    }
    let sight = |path: &WorkspacePath, kind, size, mode| Sight {
        workspace: workspace.clone(),
        path: path.clone(),
        look: Some(Look::Entry { kind, refused: None, size, mode, modified_ns }),
        entries: None,
        target: None,
        failures: Failures::default(),
        sha256: None,
        pieces: Vec::new(),
    };
    let mut sights = Vec::new();
    for (path, names) in &directories {
        let mut directory = sight(path, EntryKind::Directory, 0, DIRECTORY_MODE);
        directory.entries = Some(names.iter().map(|(name, kind)| (name.clone(), *kind)).collect());
        sights.push(directory);
    }
    for (path, text) in texts {
        let mut file = sight(path, EntryKind::File, text.len() as u64, FILE_MODE);
        file.sha256 = Some(Digest::of(text.as_bytes()));
        if !text.is_empty() {
            file.pieces = vec![Piece { offset: 0, bytes: Blob::of(text.as_bytes(), &mut *keep) }];
        }
        sights.push(file);
    }
    Ok(sights)
}

fn heard(
    bucket: &BucketName,
    values: &BTreeMap<String, String>,
    keep: &mut impl FnMut(Digest, &[u8]),
) -> Vec<KeyHeard> {
    let said = |asked, answer| KeyHeard { bucket: bucket.clone(), asked, answer };
    let limit = LIST_PAGE as u64;
    let names = KeyAnswer::Names(values.keys().cloned().collect());
    let mut heard = vec![said(KeyAsked::List { after: None, limit }, names)];
    for (key, value) in values {
        heard.push(said(KeyAsked::Get(key.clone()), KeyAnswer::Value(Blob::of(value.as_bytes(), &mut *keep))));
    }
    heard
}
