//! Effects: what a tool wants to change, one intended change each.
//!
//! An effect names workspaces and digests only, never host paths, so the same execution on the same world gives the
//! same effects on any machine. File modes are carried for information and undo: guests cannot set them. A credential is
//! named, never valued.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{BucketName, ChannelName, GrantName, SecretName, WorkspaceName};
use crate::path::WorkspacePath;
use crate::tier::Tier;

/// A content that is not a file: the body of a request or message, the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyState {
    /// SHA-256 of the whole content.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
}

impl BodyState {
    /// The state of a content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self { sha256: Digest::of(content), size: content.len() as u64 }
    }
}

/// When a request that writes leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// At commit; the tool got the answer that the manifest declares.
    #[default]
    Staged,
    /// While the tool runs, because it needs the answer.
    Live,
}

/// What undoes a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reversal {
    /// Nothing does.
    #[default]
    None,
    /// The request that the grant declares as compensation.
    Compensated,
    /// The operator says that it does no harm to leave it.
    Reversible,
}

/// One header field of a request. Names are in lower case (RFC 9110, section 5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value: visible ASCII, spaces and tabs.
    pub value: String,
}

/// A request to another system that may change something there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpEffect {
    /// The grant of the manifest that allows it.
    pub grant: GrantName,
    /// Its method.
    pub method: String,
    /// Its whole URL, normalised as WHATWG does, host in ASCII.
    pub url: String,
    /// The fields that the tool set, in its order. Those of the host are not among them.
    pub headers: Vec<Header>,
    /// The credential that the host adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<SecretName>,
    /// What is sent; absent for an empty body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyState>,
    /// When it leaves.
    pub delivery: Delivery,
    /// What undoes it.
    pub reversal: Reversal,
}

/// A message to people or systems through a channel of the operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageEffect {
    /// The way by which it leaves.
    pub channel: ChannelName,
    /// Who gets it, in the channel's own form.
    pub to: Vec<String>,
    /// Its subject; may be empty.
    pub subject: String,
    /// Its media type, for example `text/plain`.
    pub media_type: String,
    /// Its text or bytes.
    pub body: BodyState,
}

/// What a regular file was or will be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileState {
    /// SHA-256 of the whole content.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// Permission bits, masked with `0o777`.
    pub mode: u32,
}

impl FileState {
    /// Its content alone.
    #[must_use]
    pub const fn body(&self) -> BodyState {
        BodyState { sha256: self.sha256, size: self.size }
    }
}

/// Modification time in nanoseconds since the Unix epoch; what `set-times` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// Last modification, nanoseconds since the epoch, as a decimal string on the wire (it exceeds 2^53).
    #[serde(with = "decimal")]
    pub modified_ns: i64,
}

mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(value: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom("expected a 64-bit number as a decimal string"))
    }
}

/// One intended change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
pub enum Effect {
    /// A file is created (`before` absent) or its content replaced.
    #[serde(rename = "file.write")]
    FileWrite {
        /// Where.
        workspace: WorkspaceName,
        /// Which file.
        path: WorkspacePath,
        /// What it was; absent if it did not exist.
        before: Option<FileState>,
        /// What it will be.
        after: FileState,
    },
    /// A file is removed.
    #[serde(rename = "file.delete")]
    FileDelete {
        /// Where.
        workspace: WorkspaceName,
        /// Which file.
        path: WorkspacePath,
        /// What it was.
        before: FileState,
    },
    /// A file moves with its content unchanged. The target does not exist.
    #[serde(rename = "file.rename")]
    FileRename {
        /// Where.
        workspace: WorkspaceName,
        /// Its path before.
        from: WorkspacePath,
        /// Its path after.
        to: WorkspacePath,
        /// What is moved.
        before: FileState,
    },
    /// A file's modification time is set.
    #[serde(rename = "file.metadata")]
    FileMetadata {
        /// Where.
        workspace: WorkspaceName,
        /// Which file.
        path: WorkspacePath,
        /// The time before.
        before: Times,
        /// The time after.
        after: Times,
    },
    /// A directory is created.
    #[serde(rename = "dir.create")]
    DirCreate {
        /// Where.
        workspace: WorkspaceName,
        /// Which directory.
        path: WorkspacePath,
    },
    /// An empty directory is removed.
    #[serde(rename = "dir.delete")]
    DirDelete {
        /// Where.
        workspace: WorkspaceName,
        /// Which directory.
        path: WorkspacePath,
    },
    /// A request is sent.
    #[serde(rename = "http.request")]
    HttpRequest(HttpEffect),
    /// A message is sent.
    #[serde(rename = "message.send")]
    MessageSend(MessageEffect),
    /// A key gets a value.
    #[serde(rename = "kv.set")]
    KvSet {
        /// Where.
        bucket: BucketName,
        /// Which key.
        key: String,
        /// Its value before; absent if it did not exist.
        before: Option<BodyState>,
        /// Its value after.
        after: BodyState,
    },
    /// A key is removed.
    #[serde(rename = "kv.delete")]
    KvDelete {
        /// Where.
        bucket: BucketName,
        /// Which key.
        key: String,
        /// Its value before.
        before: BodyState,
    },
    /// A number is added to a key, whatever its value is by then: additions of different plans commute.
    #[serde(rename = "kv.add")]
    KvAdd {
        /// Where.
        bucket: BucketName,
        /// Which key. Its value is a decimal number; a key that does not exist counts as 0.
        key: String,
        /// What is added, as a decimal string on the wire (it exceeds 2^53).
        #[serde(with = "decimal")]
        delta: i64,
    },
}

/// What a file effect changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place<'a> {
    /// Where.
    pub workspace: &'a WorkspaceName,
    /// Which entry.
    pub path: &'a WorkspacePath,
}

impl Effect {
    /// All kinds, as they are written in plans, descriptors and manifests.
    pub const KINDS: [&'static str; 11] = [
        "file.write",
        "file.delete",
        "file.rename",
        "file.metadata",
        "dir.create",
        "dir.delete",
        "http.request",
        "message.send",
        "kv.set",
        "kv.delete",
        "kv.add",
    ];

    /// The kind, as it is written.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::FileWrite { .. } => "file.write",
            Self::FileDelete { .. } => "file.delete",
            Self::FileRename { .. } => "file.rename",
            Self::FileMetadata { .. } => "file.metadata",
            Self::DirCreate { .. } => "dir.create",
            Self::DirDelete { .. } => "dir.delete",
            Self::HttpRequest(_) => "http.request",
            Self::MessageSend(_) => "message.send",
            Self::KvSet { .. } => "kv.set",
            Self::KvDelete { .. } => "kv.delete",
            Self::KvAdd { .. } => "kv.add",
        }
    }

    /// The workspace that it changes; nothing for effects that change no file.
    #[must_use]
    pub const fn workspace(&self) -> Option<&WorkspaceName> {
        match self {
            Self::FileWrite { workspace, .. }
            | Self::FileDelete { workspace, .. }
            | Self::FileRename { workspace, .. }
            | Self::FileMetadata { workspace, .. }
            | Self::DirCreate { workspace, .. }
            | Self::DirDelete { workspace, .. } => Some(workspace),
            Self::HttpRequest(_)
            | Self::MessageSend(_)
            | Self::KvSet { .. }
            | Self::KvDelete { .. }
            | Self::KvAdd { .. } => None,
        }
    }

    /// The bucket and key that it changes; nothing for other effects.
    #[must_use]
    pub fn key(&self) -> Option<(&BucketName, &str)> {
        match self {
            Self::KvSet { bucket, key, .. } | Self::KvDelete { bucket, key, .. } | Self::KvAdd { bucket, key, .. } => {
                Some((bucket, key))
            }
            _ => None,
        }
    }

    /// The file places that it changes: none, one, or both ends of a rename.
    pub fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let workspace = self.workspace();
        self.paths().filter_map(move |path| workspace.map(|workspace| Place { workspace, path }))
    }

    /// The paths that it changes: none, one, or both ends of a rename.
    pub fn paths(&self) -> impl Iterator<Item = &WorkspacePath> {
        let (first, second) = match self {
            Self::FileRename { from, to, .. } => (Some(from), Some(to)),
            Self::FileWrite { path, .. }
            | Self::FileDelete { path, .. }
            | Self::FileMetadata { path, .. }
            | Self::DirCreate { path, .. }
            | Self::DirDelete { path, .. } => (Some(path), None),
            Self::HttpRequest(_)
            | Self::MessageSend(_)
            | Self::KvSet { .. }
            | Self::KvDelete { .. }
            | Self::KvAdd { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// What the effect destroys and undo must be able to bring back: the content of a file before an overwrite or a
    /// deletion.
    #[must_use]
    pub const fn destroyed(&self) -> Option<&FileState> {
        match self {
            Self::FileWrite { before: Some(before), .. } | Self::FileDelete { before, .. } => Some(before),
            Self::FileWrite { before: None, .. }
            | Self::FileRename { .. }
            | Self::FileMetadata { .. }
            | Self::DirCreate { .. }
            | Self::DirDelete { .. }
            | Self::HttpRequest(_)
            | Self::MessageSend(_)
            | Self::KvSet { .. }
            | Self::KvDelete { .. }
            | Self::KvAdd { .. } => None,
        }
    }

    /// The contents that it is about: what was there and what will be; absent where there is none.
    #[must_use]
    pub fn contents(&self) -> (Option<BodyState>, Option<BodyState>) {
        match self {
            Self::FileWrite { before, after, .. } => (before.as_ref().map(FileState::body), Some(after.body())),
            Self::FileDelete { before, .. } => (Some(before.body()), None),
            Self::HttpRequest(request) => (None, request.body),
            Self::MessageSend(message) => (None, Some(message.body)),
            Self::KvSet { before, after, .. } => (*before, Some(*after)),
            Self::KvDelete { before, .. } => (Some(*before), None),
            Self::FileRename { .. }
            | Self::FileMetadata { .. }
            | Self::DirCreate { .. }
            | Self::DirDelete { .. }
            | Self::KvAdd { .. } => (None, None),
        }
    }

    /// The effect's own tier: what it needs at least, whatever the tool declares.
    ///
    /// `keeps_undo` tells whether the destroyed content fits the undo quota; `sensitive` whether a path is in a
    /// sensitive-path class.
    #[must_use]
    pub const fn tier(&self, keeps_undo: bool, sensitive: bool) -> Tier {
        match self {
            Self::MessageSend(_)
            | Self::HttpRequest(
                HttpEffect { delivery: Delivery::Live, .. } | HttpEffect { reversal: Reversal::None, .. },
            ) => Tier::Irreversible,
            Self::HttpRequest(_) => Tier::Consequential,
            _ if sensitive || (self.destroyed().is_some() && !keeps_undo) => Tier::Consequential,
            _ => Tier::Reversible,
        }
    }
}
