//! A tape: a recording, ready to answer an execution in the place of the world.
//!
//! Everything is looked up by what it is about. In a strict replay the exchanges must be asked for in their order; where
//! another version of a tool is tried, each request takes the answer that the same request had, and a request that had
//! several different answers takes them in turn. Whatever the tape does not hold ends the execution, and nothing is
//! ever asked of the world: a tape has no port.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustix::io::Errno;
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::Header;
use toolkeep_core::event::{BadBlob, Blob, ExchangeHeard, KeyAnswer, KeyAsked, Look, Moment, Recording, Sight};
use toolkeep_core::id::{BucketName, WorkspaceName};
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::EntryKind;

use crate::beneath::{RefusedKind, Seen, StatTuple};
use crate::outbound::exchange::locked;
use crate::outbound::keys::LIST_PAGE;
use crate::port::{Exchange, HttpAnswer, HttpFailure, Keys, KeysFailure, PortFuture, UNANSWERED};
use crate::recording::Names;

/// How a tape is compared with what a guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// Requests in their order.
    Strict,
    /// Requests by what they are.
    ByContent,
}

/// Why a recording cannot be made a tape.
#[derive(Debug, thiserror::Error)]
pub enum BadTape {
    /// A content is missing or changed.
    #[error(transparent)]
    Blob(#[from] BadBlob),
    /// A part of the recording makes no sense.
    #[error("the recording is damaged: {0}")]
    Damaged(&'static str),
}

/// What an execution is answered from.
#[derive(Debug)]
pub struct Tape {
    matching: Matching,
    files: HashMap<WorkspaceName, BTreeMap<WorkspacePath, Known>>,
    keys: Mutex<HashMap<(BucketName, KeyAsked), VecDeque<Value>>>,
    exchanges: Vec<Exchange>,
    moments: Vec<Moment>,
}

/// What is known of an entry.
#[derive(Debug)]
struct Known {
    look: Option<Result<Option<Seen>, Errno>>,
    entries: Option<Result<Names, Errno>>,
    target: Option<Result<String, Errno>>,
    open: Option<Errno>,
    sha256: Option<Digest>,
    pieces: BTreeMap<u64, Vec<u8>>,
}

/// What a bucket answers.
#[derive(Debug, Clone)]
enum Value {
    Bytes(Option<Bytes>),
    Names(Vec<String>),
    Failed(String),
}

/// An answer that the tape may not hold.
type Told<T> = Option<Result<T, Errno>>;

impl Tape {
    /// Make a tape of a recording. `find` gives what is kept beside it; every content is checked against its digest.
    ///
    /// # Errors
    /// A content is missing or changed, or the recording makes no sense.
    pub fn of(
        recording: &Recording,
        matching: Matching,
        mut find: impl FnMut(&Digest) -> Option<Vec<u8>>,
    ) -> Result<Self, BadTape> {
        let heard = &recording.heard;
        let mut files: HashMap<WorkspaceName, BTreeMap<WorkspacePath, Known>> = HashMap::new();
        for (place, sight) in (0_u64..).zip(&heard.files) {
            let known = Known::of(sight, place, &mut find)?;
            files.entry(sight.workspace.clone()).or_default().insert(sight.path.clone(), known);
        }
        let mut keys: HashMap<_, VecDeque<Value>> = HashMap::new();
        for key in &heard.keys {
            let value = match &key.answer {
                KeyAnswer::None => Value::Bytes(None),
                KeyAnswer::Value(blob) => Value::Bytes(Some(blob.bytes(&mut find)?.into())),
                KeyAnswer::Names(names) => Value::Names(names.clone()),
                KeyAnswer::Failed(why) => Value::Failed(why.clone()),
            };
            keys.entry((key.bucket.clone(), key.asked.clone())).or_default().push_back(value);
        }
        let exchanges: Result<_, BadTape> = heard.exchanges.iter().map(|e| exchange(e, &mut find)).collect();
        let moments = heard.moments.clone();
        Ok(Self { matching, files, keys: Mutex::new(keys), exchanges: exchanges?, moments })
    }

    /// How it is compared.
    #[must_use]
    pub const fn matching(&self) -> Matching {
        self.matching
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.clone()
    }

    pub(crate) fn moments(&self) -> VecDeque<Moment> {
        self.moments.iter().cloned().collect()
    }

    fn known(&self, workspace: &WorkspaceName, path: &WorkspacePath) -> Option<&Known> {
        self.files.get(workspace)?.get(path)
    }

    /// What was at a path. What a noted listing lacks was not there.
    pub(crate) fn look(&self, workspace: &WorkspaceName, path: &WorkspacePath) -> Told<Option<Seen>> {
        if let Some(look) = self.known(workspace, path).and_then(|known| known.look) {
            return Some(look);
        }
        let (parent, name) = (path.parent()?, path.name()?);
        match self.known(workspace, &parent) {
            Some(Known { entries: Some(Ok(names)), .. }) if !names.contains_key(name) => Some(Ok(None)),
            Some(Known { look: Some(Ok(None)), .. }) => Some(Ok(None)),
            _ => None,
        }
    }

    pub(crate) fn list(&self, workspace: &WorkspaceName, path: &WorkspacePath) -> Told<(Names, Seen)> {
        let known = self.known(workspace, path)?;
        match known.entries.as_ref()? {
            Ok(names) => Some(Ok((Arc::clone(names), known.look?.ok()??))),
            Err(errno) => Some(Err(*errno)),
        }
    }

    pub(crate) fn target(&self, workspace: &WorkspaceName, path: &WorkspacePath) -> Told<(String, Seen)> {
        let known = self.known(workspace, path)?;
        match known.target.as_ref()? {
            Ok(target) => Some(Ok((target.clone(), known.look?.ok()??))),
            Err(errno) => Some(Err(*errno)),
        }
    }

    pub(crate) fn open(&self, workspace: &WorkspaceName, path: &WorkspacePath) -> Told<Seen> {
        let known = self.known(workspace, path)?;
        if let Some(errno) = known.open {
            return Some(Err(errno));
        }
        known.look?.ok()?.filter(|seen| seen.entry == EntryKind::File).map(Ok)
    }

    /// All of these bytes of a file.
    pub(crate) fn bytes(
        &self,
        workspace: &WorkspaceName,
        path: &WorkspacePath,
        offset: u64,
        length: usize,
    ) -> Option<Vec<u8>> {
        let known = self.known(workspace, path)?;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset.checked_add(bytes.len() as u64)?;
            let (start, piece) = known.pieces.range(..=at).next_back()?;
            let rest = piece.get(usize::try_from(at - start).ok()?..).filter(|rest| !rest.is_empty())?;
            bytes.extend_from_slice(rest.get(..length - bytes.len()).unwrap_or(rest));
        }
        Some(bytes)
    }

    pub(crate) fn digest(&self, workspace: &WorkspaceName, path: &WorkspacePath) -> Option<Digest> {
        self.known(workspace, path)?.sha256
    }

    /// What a bucket said. A key that a noted listing of the whole bucket lacks was not there.
    fn key(&self, bucket: &BucketName, asked: KeyAsked) -> Option<Value> {
        let mut keys = locked(&self.keys);
        let wanted = (bucket.clone(), asked);
        if !keys.contains_key(&wanted)
            && let (_, KeyAsked::Get(key)) = &wanted
        {
            let limit = LIST_PAGE as u64;
            let whole = keys.get(&(bucket.clone(), KeyAsked::List { after: None, limit }))?;
            return match whole.front() {
                Some(Value::Names(names)) if names.len() < LIST_PAGE && !names.contains(key) => {
                    Some(Value::Bytes(None))
                }
                _ => None,
            };
        }
        let answers = keys.get_mut(&wanted)?;
        // The last answer holds for whoever asks once more.
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    }
}

/// The keys of a tape, as a port.
#[derive(Debug)]
pub(crate) struct TapeKeys(pub(crate) Arc<Tape>);

impl Keys for TapeKeys {
    fn get<'a>(&'a self, bucket: &'a BucketName, key: &'a str) -> PortFuture<'a, Result<Option<Bytes>, KeysFailure>> {
        let answer = match self.0.key(bucket, KeyAsked::Get(key.to_owned())) {
            Some(Value::Bytes(value)) => Ok(value),
            Some(Value::Failed(why)) => Err(KeysFailure::Unreadable(why)),
            Some(Value::Names(_)) | None => Err(KeysFailure::Unrecorded(format!("the key `{key}` of `{bucket}`"))),
        };
        Box::pin(std::future::ready(answer))
    }

    fn list<'a>(
        &'a self,
        bucket: &'a BucketName,
        after: Option<&'a str>,
        limit: usize,
    ) -> PortFuture<'a, Result<Vec<String>, KeysFailure>> {
        let asked = KeyAsked::List { after: after.map(str::to_owned), limit: limit as u64 };
        let answer = match self.0.key(bucket, asked) {
            Some(Value::Names(names)) => Ok(names),
            Some(Value::Failed(why)) => Err(KeysFailure::Unreadable(why)),
            Some(Value::Bytes(_)) | None => Err(KeysFailure::Unrecorded(format!("the names of `{bucket}`"))),
        };
        Box::pin(std::future::ready(answer))
    }
}

impl Known {
    fn of(sight: &Sight, place: u64, find: &mut impl FnMut(&Digest) -> Option<Vec<u8>>) -> Result<Self, BadTape> {
        let look = sight.look.as_ref().map(|look| seen(look, place)).transpose()?;
        let failed = |errno: Option<i32>| errno.map(|errno| Err(Errno::from_raw_os_error(errno)));
        let names = sight.entries.as_ref().map(|entries| Ok(Arc::new(entries.iter().cloned().collect())));
        let mut pieces = BTreeMap::new();
        for piece in &sight.pieces {
            pieces.insert(piece.offset, bytes_of(&piece.bytes, find)?);
        }
        Ok(Self {
            look,
            entries: names
                .or(failed(sight.failures.list).map(|failed: Result<(), Errno>| failed.map(|()| Names::default()))),
            target: sight
                .target
                .clone()
                .map(Ok)
                .or(failed(sight.failures.link).map(|failed: Result<(), Errno>| failed.map(|()| String::new()))),
            open: sight.failures.open.map(Errno::from_raw_os_error),
            sha256: sight.sha256,
            pieces,
        })
    }
}

fn bytes_of(blob: &Blob, find: &mut impl FnMut(&Digest) -> Option<Vec<u8>>) -> Result<Vec<u8>, BadTape> {
    Ok(blob.bytes(find)?)
}

/// `place` stands for the inode: it tells entries apart, and no effect depends on it.
fn seen(look: &Look, place: u64) -> Result<Result<Option<Seen>, Errno>, BadTape> {
    Ok(match look {
        Look::Absent => Ok(None),
        Look::Failed(errno) => Err(Errno::from_raw_os_error(*errno)),
        Look::Entry { kind, refused, size, mode, modified_ns } => {
            let refused = match refused.as_deref() {
                None => None,
                Some(word) => Some(RefusedKind::from_word(word).ok_or(BadTape::Damaged("an unknown kind of entry"))?),
            };
            let tuple = StatTuple { dev: 0, ino: place, size: *size, mtime_ns: *modified_ns, ctime_ns: 0 };
            Ok(Some(Seen { entry: *kind, refused, size: *size, mode: *mode, tuple }))
        }
    })
}

fn exchange(heard: &ExchangeHeard, find: &mut impl FnMut(&Digest) -> Option<Vec<u8>>) -> Result<Exchange, BadTape> {
    let answer = match &heard.answer {
        Ok(answer) => {
            let headers =
                answer.headers.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone() });
            Ok(HttpAnswer {
                status: answer.status,
                headers: headers.collect(),
                body: bytes_of(&answer.body, find)?.into(),
            })
        }
        Err(failure) => Err(serde_json::from_value::<HttpFailure>(failure.clone())
            .map_err(|_| BadTape::Damaged("an unknown failure of an exchange"))?),
    };
    Ok(Exchange { call: heard.call, answer, took_ns: heard.took_ns.unwrap_or(UNANSWERED) })
}

#[cfg(test)]
mod tests {
    use toolkeep_core::event::{End, FORMAT, Failures, Given, Heard, How, Piece};

    use super::*;

    fn sight(path: &str, look: Look) -> Sight {
        Sight {
            workspace: "w".parse().expect("name"),
            path: path.parse().expect("path"),
            look: Some(look),
            entries: None,
            target: None,
            failures: Failures::default(),
            sha256: None,
            pieces: Vec::new(),
        }
    }

    fn tape(files: Vec<Sight>) -> Tape {
        let sha256 = Digest::of(b"");
        let recording = Recording {
            format: FORMAT,
            engine: String::new(),
            seed: String::new(),
            wall_clock_ns: "0".to_owned(),
            layer: None,
            given: Given::default(),
            events: Vec::new(),
            heard: Heard { files, ..Heard::default() },
            end: End {
                how: How::Output,
                sha256,
                shown: String::new(),
                fuel: 0,
                effects: None,
                log: vec![],
                events: None,
            },
            dropped_bytes: 0,
            dropped_events: 0,
            lost: None,
        };
        Tape::of(&recording, Matching::Strict, |_| None).expect("a tape")
    }

    fn file(size: u64) -> Look {
        Look::Entry { kind: EntryKind::File, refused: None, size, mode: 0o644, modified_ns: 5 }
    }

    #[test]
    fn r41_a_tape_answers_what_was_noted_and_nothing_else() {
        let workspace: WorkspaceName = "w".parse().expect("name");
        let path = |text: &str| -> WorkspacePath { text.parse().expect("path") };
        let mut directory =
            sight("d", Look::Entry { kind: EntryKind::Directory, refused: None, size: 0, mode: 0o755, modified_ns: 1 });
        directory.entries = Some(vec![("f".into(), EntryKind::File)]);
        let mut read = sight("f", file(6));
        read.pieces = vec![
            Piece { offset: 0, bytes: Blob::Text("ab".to_owned()) },
            Piece { offset: 2, bytes: Blob::Text("cd".to_owned()) },
        ];
        let tape = tape(vec![directory, read, sight("gone", Look::Absent), sight("no", Look::Failed(13))]);
        assert_eq!(tape.look(&workspace, &path("gone")), Some(Ok(None)));
        assert_eq!(tape.look(&workspace, &path("gone/deeper")), Some(Ok(None)));
        assert_eq!(tape.look(&workspace, &path("no")), Some(Err(Errno::ACCESS)));
        assert_eq!(tape.look(&workspace, &path("d/x")), Some(Ok(None)), "the listing lacks it");
        assert_eq!(tape.look(&workspace, &path("d/f")), None, "the listing does not say how large it is");
        assert_eq!(tape.look(&workspace, &path("other")), None);
        assert_eq!(tape.bytes(&workspace, &path("f"), 1, 3), Some(b"bcd".to_vec()));
        assert_eq!(tape.bytes(&workspace, &path("f"), 1, 4), None, "the rest was not read");
        assert!(tape.open(&workspace, &path("d")).is_none() && tape.open(&workspace, &path("f")).is_some());
        assert!(tape.list(&workspace, &path("f")).is_none() && tape.target(&workspace, &path("f")).is_none());
    }

    #[test]
    fn r41_a_kind_of_entry_that_nobody_knows_is_no_tape() {
        let odd =
            Look::Entry { kind: EntryKind::Refused, refused: Some("odd".into()), size: 0, mode: 0, modified_ns: 0 };
        let mut heard = Heard::default();
        heard.files.push(sight("x", odd));
        assert!(matches!(seen(heard.files[0].look.as_ref().expect("a look"), 0), Err(BadTape::Damaged(_))));
    }
}
