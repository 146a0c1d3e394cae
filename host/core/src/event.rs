//! Recordings: everything nondeterministic that an execution saw, and how it ended (event format 2).
//!
//! A guest is single-threaded and owns no descriptor, so what the world answered determines it. A recording has two
//! sides. `events` are the calls of its imports, one by one: what a replay is compared with. `heard` is what the world
//! said, by what it was asked about: what a replay is answered from. Contents are named by their digests; small ones stand
//! in the recording, the others are kept once beside it, whoever read them. A recording that lost anything says why,
//! because it cannot be replayed.

mod blob;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::capability::Access;
use crate::digest::Digest;
use crate::id::{BucketName, WorkspaceName};
use crate::path::WorkspacePath;
use crate::plan::EntryKind;

pub use blob::{BLOB_PART_BYTES, BadBlob, Blob, INLINE_MAX_BYTES, hex, unhex};

/// The only format that this version writes and replays.
pub const FORMAT: u32 = 2;
/// Most events in one recording: a guest that polls in a loop must not fill the ledger.
pub const EVENTS_MAX: usize = 20_000;
/// Most answers of one kind (files, keys, clock) in one recording: a tool that walks a large tree is still recorded.
pub const HEARD_MAX: usize = 50_000;

/// How much of an execution is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Everything that a replay needs.
    #[default]
    Full,
    /// Digests of what it did, of no use for a replay, and no word of what it saw.
    Hashes,
    /// Nothing.
    Off,
}

impl Depth {
    /// The word in manifests and configurations.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Hashes => "hashes",
            Self::Off => "off",
        }
    }
}

/// What one execution saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// Always [`FORMAT`].
    pub format: u32,
    /// Engine fingerprint: fuel and faults compare only under the same one.
    pub engine: String,
    /// Seed of the guest's randomness, 64 hexadecimal digits; empty where only digests are kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub seed: String,
    /// The wall clock at admission, nanoseconds since the Unix epoch, decimal.
    pub wall_clock_ns: String,
    /// What earlier calls of the same transaction had staged when it started; absent outside of transactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerName>,
    /// What it could use.
    #[serde(default)]
    pub given: Given,
    /// Calls of imports, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// What the world said.
    #[serde(default, skip_serializing_if = "Heard::is_empty")]
    pub heard: Heard,
    /// How it ended.
    pub end: End,
    /// Bytes of content that were left out because of the limit; 0 for a replayable recording.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_bytes: u64,
    /// Events that were left out because of [`EVENTS_MAX`]; 0 for a replayable recording.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_events: u64,
    /// Why it cannot be replayed; absent where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Names what lay over the world before an execution started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerName {
    /// The layer's own digest.
    pub digest: Digest,
    /// SHA-256 of its text, under which that is kept.
    pub text: Digest,
}

/// What an execution could use, as far as the manifest does not say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Fuel.
    pub fuel: u64,
    /// Its deadline, in milliseconds.
    pub deadline_ms: u64,
    /// The workspaces that it saw, with what it could do at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<(WorkspaceName, Access)>,
    /// How many requests it could make under each grant of the manifest, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<u64>,
}

/// One call of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Interface and function, for example `wasi:filesystem/types#descriptor.stat`.
    pub import: Cow<'static, str>,
    /// What it was asked about: a path, a length, a name. Short text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What it answered.
    pub answer: Answer,
}

/// What an import answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done, nothing to tell.
    Done,
    /// A short value as text: a number, a time, a stat tuple.
    Value(String),
    /// An error code of the interface.
    Error(String),
    /// Bytes that the guest got.
    Bytes {
        /// Their digest.
        sha256: Digest,
        /// How many.
        length: u64,
    },
}

/// What the world said, by what it was asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heard {
    /// Entries of workspaces, in the order of workspace and path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Sight>,
    /// Readings of keys, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyHeard>,
    /// Exchanges with other systems, in the order in which the requests were complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<ExchangeHeard>,
    /// What real time decided, in order; only with the real clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moments: Vec<Moment>,
}

impl Heard {
    /// Whether the execution heard nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.files.is_empty() && self.keys.is_empty() && self.exchanges.is_empty() && self.moments.is_empty()
    }
}

/// What was learned about one entry of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sight {
    /// Where.
    pub workspace: WorkspaceName,
    /// Which entry.
    pub path: WorkspacePath,
    /// What was there; absent if nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look: Option<Look>,
    /// Names and kinds of a directory's entries; absent if nobody listed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<(Box<str>, EntryKind)>>,
    /// Where a symbolic link leads; absent if nobody read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The numbers of the errors (errno) that listing, reading the link and opening gave; absent where they went well.
    #[serde(default, skip_serializing_if = "Failures::is_empty")]
    pub failures: Failures,
    /// Digest of the whole content where it was needed without being read by the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// What of the content was read, in the order of the offsets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<Piece>,
}

/// Errors (errno) that questions about an entry were answered with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    /// Of listing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<i32>,
    /// Of reading it as a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<i32>,
    /// Of opening it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<i32>,
}

impl Failures {
    /// Whether there was none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_none() && self.link.is_none() && self.open.is_none()
    }
}

/// What was found at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// Nothing.
    Absent,
    /// The system refused to say: errno.
    Failed(i32),
    /// This.
    Entry {
        /// Its kind.
        kind: EntryKind,
        /// Why it is refused, if it is: a word such as `fifo`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<Cow<'static, str>>,
        /// Bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
        /// Last modification, nanoseconds since the Unix epoch.
        modified_ns: i64,
    },
}

/// A part of a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// Its first byte there.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Blob,
}

/// One reading of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyHeard {
    /// Which bucket.
    pub bucket: BucketName,
    /// What was asked.
    pub asked: KeyAsked,
    /// What it said.
    pub answer: KeyAnswer,
}

/// What a bucket was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyAsked {
    /// The value of a key.
    Get(String),
    /// A page of names.
    List {
        /// After this one.
        after: Option<String>,
        /// At most so many.
        limit: u64,
    },
}

/// What a bucket said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyAnswer {
    /// There is no such key.
    None,
    /// Its value.
    Value(Blob),
    /// The names.
    Names(Vec<String>),
    /// It could not be read.
    Failed(String),
}

/// One exchange with another system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeHeard {
    /// Names the request: grant, method, URL, fields and body.
    pub call: Digest,
    /// What came of it.
    pub answer: Result<ResponseHeard, serde_json::Value>,
    /// Nanoseconds of the tool's clock until the answer, decimal; absent if the tool did not wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ns: Option<u64>,
}

/// An answer of another system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseHeard {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Blob,
}

/// Something that real time decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// A reading of the clock: nanoseconds since the execution started.
    At(u64),
    /// Which of what was polled was ready.
    Ready(Vec<u32>),
    /// Whether one thing was ready, or an answer there.
    Is(bool),
}

/// How an execution ended, by itself: before its output was looked at and its effects were decided about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The way it ended.
    pub how: How,
    /// Digest of its output, of its own error, of its live request, or of the text of its fault.
    pub sha256: Digest,
    /// What that text begins with, at most [`SHOWN_MAX_BYTES`]; empty where only digests are kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub shown: String,
    /// Fuel that it used.
    pub fuel: u64,
    /// Digest of its effects in order; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<Digest>,
    /// What it logged: source, level and text; digests of that where only those are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// Digest of all events where they are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Digest>,
}

/// Longest beginning of an output that stands in a recording, in bytes: enough to see what differs.
pub const SHOWN_MAX_BYTES: usize = 256;

/// The ways in which an execution ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// With an output.
    Output,
    /// With the tool's own error.
    Error,
    /// At a request whose answer the tool needs.
    Live,
    /// By a fault that happens again whenever the same is done.
    Fault,
    /// By time or by somebody: at another moment the next time.
    Stopped,
}

impl How {
    /// The word that people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Error => "error",
            Self::Live => "live request",
            Self::Fault => "fault",
            Self::Stopped => "stopped",
        }
    }
}

impl Recording {
    /// Why it cannot be replayed; nothing where it can.
    #[must_use]
    pub fn not_replayable(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("it has the format {}, and this version replays {FORMAT}", self.format));
        }
        if self.dropped_events > 0 {
            return Some(format!("{} events were left out; at most {EVENTS_MAX} are kept", self.dropped_events));
        }
        if self.dropped_bytes > 0 {
            let bytes = self.dropped_bytes;
            return Some(format!("{bytes} bytes of content were left out; raise `limits.recording_bytes`"));
        }
        self.lost.clone()
    }

    /// The digests of everything that is kept beside it.
    pub fn kept(&self) -> impl Iterator<Item = &Digest> {
        let pieces = self.heard.files.iter().flat_map(|sight| &sight.pieces).map(|piece| &piece.bytes);
        let keys = self.heard.keys.iter().filter_map(|key| match &key.answer {
            KeyAnswer::Value(value) => Some(value),
            KeyAnswer::None | KeyAnswer::Names(_) | KeyAnswer::Failed(_) => None,
        });
        let bodies = self.heard.exchanges.iter().filter_map(|exchange| exchange.answer.as_ref().ok());
        pieces.chain(keys).chain(bodies.map(|answer| &answer.body)).flat_map(|blob| blob.parts())
    }

    /// What is left of it where only digests are kept.
    #[must_use]
    pub fn hashed(self) -> Self {
        let events = serde_json::to_vec(&self.events).unwrap_or_default();
        let end = End {
            shown: String::new(),
            log: self.end.log.iter().map(|line| Digest::of(line.as_bytes()).to_hex()).collect(),
            events: Some(Digest::of(&events)),
            ..self.end
        };
        Self {
            seed: String::new(),
            events: Vec::new(),
            heard: Heard::default(),
            end,
            lost: Some("only digests are kept of it".to_owned()),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> End {
        let sha256 = Digest::of(b"1");
        End { how: How::Output, sha256, shown: "1".to_owned(), fuel: 7, effects: None, log: Vec::new(), events: None }
    }

    fn recording() -> Recording {
        Recording {
            format: FORMAT,
            engine: "e".to_owned(),
            seed: "00".to_owned(),
            wall_clock_ns: "1".to_owned(),
            layer: None,
            given: Given::default(),
            events: vec![Event { import: "i#f".into(), about: String::new(), answer: Answer::Done }],
            heard: Heard::default(),
            end: end(),
            dropped_bytes: 0,
            dropped_events: 0,
            lost: None,
        }
    }

    #[test]
    fn r41_whatever_was_left_out_makes_a_recording_not_replayable_with_the_reason() {
        assert_eq!(recording().not_replayable(), None);
        let reason = |recording: Recording| recording.not_replayable().unwrap_or_default();
        assert!(reason(Recording { format: 1, ..recording() }).contains("format 1"));
        assert!(reason(Recording { dropped_events: 3, ..recording() }).starts_with("3 events"));
        assert!(reason(Recording { dropped_bytes: 3, ..recording() }).contains("limits.recording_bytes"));
        assert_eq!(reason(Recording { lost: Some("why".to_owned()), ..recording() }), "why");
    }

    #[test]
    fn r41_where_only_digests_are_kept_no_word_of_what_was_seen_is() {
        let mut said = recording();
        said.end.log = vec!["tool info secret".to_owned()];
        said.events[0].about = "secret".to_owned();
        said.end.shown = "secret".to_owned();
        let hashed = said.hashed();
        let text = serde_json::to_string(&hashed).expect("JSON");
        assert!(!text.contains("secret") && hashed.end.events.is_some(), "{text}");
        assert!(hashed.not_replayable().is_some());
        assert_eq!(serde_json::from_str::<Recording>(&text).expect("read back"), hashed);
    }

    #[test]
    fn a_recording_is_the_same_after_it_was_written_and_read() {
        let mut full = recording();
        full.given.mounts = vec![("books".parse().expect("name"), Access::Read)];
        full.heard.files = vec![Sight {
            workspace: "books".parse().expect("name"),
            path: "a/b".parse().expect("path"),
            look: Some(Look::Entry {
                kind: EntryKind::Refused,
                refused: Some("fifo".into()),
                size: 1,
                mode: 0o644,
                modified_ns: -5,
            }),
            entries: Some(vec![("x".into(), EntryKind::File)]),
            target: None,
            failures: Failures { open: Some(13), ..Failures::default() },
            sha256: Some(Digest::of(b"")),
            pieces: vec![Piece { offset: 3, bytes: Blob::Text("abc".to_owned()) }],
        }];
        full.heard.moments = vec![Moment::At(5), Moment::Ready(vec![1]), Moment::Is(true)];
        full.heard.keys = vec![KeyHeard {
            bucket: "b".parse().expect("name"),
            asked: KeyAsked::List { after: None, limit: 10 },
            answer: KeyAnswer::Names(vec!["k".to_owned()]),
        }];
        let text = serde_json::to_string(&full).expect("JSON");
        assert_eq!(serde_json::from_str::<Recording>(&text).expect("read back"), full);
    }
}
