//! The recorder: what every import answered, in order, and what the world said, while an execution runs (D6, event
//! format 2).
//!
//! One recorder belongs to one execution and is shared by all of its imports, its stage and its ports. It is bounded three
//! times: by the recording limit of the call for bytes of content, by [`EVENTS_MAX`] for events and by [`HEARD_MAX`] for
//! what the world said. What exceeds a bound is counted, so that a recording which cannot be replayed says so; no call
//! fails by it.
//!
//! Bytes that flow through `wasi:io/streams` are noted there, once, for every kind of stream, as digests. Their contents
//! are noted where they come from: files, keys and answers of other systems. What follows from the seed (random bytes) or
//! from constants (permits to write) is not kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::io::Errno;
use toolkeep_core::digest::Digest;
use toolkeep_core::event::{
    Answer, Blob, Depth, EVENTS_MAX, End, Event, ExchangeHeard, FORMAT, Failures, Given, HEARD_MAX, Heard, KeyAnswer,
    KeyAsked, KeyHeard, Look, Moment, Piece, Recording, ResponseHeard, Sight, hex,
};
use toolkeep_core::id::{BucketName, WorkspaceName};
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::EntryKind;

use crate::beneath::Seen;
use crate::port::{Exchange, Keys, KeysFailure, PortFuture, UNANSWERED};

/// Longest `about` or value text of one event, in bytes: a longest path fits.
const TEXT_MAX_BYTES: usize = 4_200;

/// Contents that are kept beside a recording, by their digests.
pub type Kept = BTreeMap<Digest, Arc<[u8]>>;

/// Names and kinds of a listed directory, shared with the stage.
pub(crate) type Names = Arc<BTreeMap<Box<str>, EntryKind>>;

/// Collects what an execution saw. Cheap to clone; all clones write to the same recording.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Mutex<Tape>>);

#[derive(Debug)]
struct Tape {
    depth: Depth,
    events: Vec<Event>,
    sights: BTreeMap<(WorkspaceName, WorkspacePath), Noted>,
    keys: Vec<(BucketName, KeyAsked, Read)>,
    moments: Vec<Moment>,
    bytes_left: u64,
    dropped_bytes: u64,
    dropped_events: u64,
    lost: Option<String>,
}

/// What a bucket answered.
#[derive(Debug)]
enum Read {
    Value(Option<Bytes>),
    Names(Vec<String>),
    Failed(String),
}

/// What was noted of one entry.
#[derive(Debug, Default)]
struct Noted {
    look: Option<Result<Option<Seen>, Errno>>,
    entries: Option<Names>,
    target: Option<String>,
    failures: Failures,
    sha256: Option<Digest>,
    pieces: BTreeMap<u64, Vec<u8>>,
}

/// Everything about an execution that its recording says besides what was noted.
pub(crate) struct Frame {
    pub(crate) engine: String,
    pub(crate) seed: [u8; 32],
    pub(crate) wall_clock_ns: u64,
    pub(crate) given: Given,
    pub(crate) end: End,
}

impl Recorder {
    /// A recorder that keeps at most `bytes_max` bytes of content; none, and nothing of what the world said, unless it
    /// records in full.
    #[must_use]
    pub fn new(bytes_max: u64, depth: Depth) -> Self {
        Self(Arc::new(Mutex::new(Tape {
            depth,
            events: Vec::new(),
            sights: BTreeMap::new(),
            keys: Vec::new(),
            moments: Vec::new(),
            bytes_left: bytes_max,
            dropped_bytes: 0,
            dropped_events: 0,
            lost: None,
        })))
    }

    /// The import did what it was asked and told nothing.
    pub fn done(&self, import: &'static str, about: impl Into<String>) {
        self.event(import, about, Answer::Done);
    }

    /// The import answered a short value.
    pub fn value(&self, import: &'static str, about: impl Into<String>, value: impl Into<String>) {
        self.event(import, about, Answer::Value(shortened(value.into())));
    }

    /// The import answered an error code of its interface.
    pub fn error(&self, import: &'static str, about: impl Into<String>, code: impl Into<String>) {
        self.event(import, about, Answer::Error(shortened(code.into())));
    }

    /// The import answered bytes.
    pub fn bytes(&self, import: &'static str, about: impl Into<String>, content: &[u8]) {
        let answer = Answer::Bytes { sha256: Digest::of(content), length: content.len() as u64 };
        self.event(import, about, answer);
    }

    /// Any other answer.
    pub fn event(&self, import: &'static str, about: impl Into<String>, answer: Answer) {
        self.tape().push(import, about.into(), answer);
    }

    /// What was found at a path of the lower layer.
    pub(crate) fn looked(&self, place: Place<'_>, answer: Result<Option<Seen>, Errno>) {
        let mut tape = self.tape();
        let Some(noted) = tape.sight(place) else { return };
        // Another state of the same kind of entry is not seen by the tool: the stage told it of the first.
        let told = |answer: Result<Option<Seen>, Errno>| answer.map(|seen| seen.map(|seen| seen.entry));
        let before = *noted.look.get_or_insert(answer);
        if told(before) != told(answer) {
            tape.changed(place);
        }
    }

    /// The entries of a lower directory.
    pub(crate) fn listed(&self, place: Place<'_>, answer: Result<(&Names, Seen), Errno>) {
        let mut tape = self.tape();
        let count = answer.as_ref().map_or(0, |(names, _)| names.len());
        if !tape.has_room(count) {
            return;
        }
        let Some(noted) = tape.sight(place) else { return };
        match answer {
            Ok((names, seen)) => {
                noted.entries = Some(Arc::clone(names));
                noted.look.get_or_insert(Ok(Some(seen)));
            }
            Err(errno) => noted.failures.list = Some(errno.raw_os_error()),
        }
    }

    /// Where a lower link leads.
    pub(crate) fn linked(&self, place: Place<'_>, answer: Result<&str, Errno>) {
        let mut tape = self.tape();
        let Some(noted) = tape.sight(place) else { return };
        match answer {
            Ok(target) => noted.target = Some(target.to_owned()),
            Err(errno) => noted.failures.link = Some(errno.raw_os_error()),
        }
    }

    /// A lower file could not be opened.
    pub(crate) fn not_opened(&self, place: Place<'_>, errno: Errno) {
        if let Some(noted) = self.tape().sight(place) {
            noted.failures.open = Some(errno.raw_os_error());
        }
    }

    /// Bytes of a lower file were read.
    pub(crate) fn served(&self, place: Place<'_>, offset: u64, bytes: &[u8]) {
        let mut tape = self.tape();
        if tape.dropped_bytes > 0 {
            tape.dropped_bytes = tape.dropped_bytes.saturating_add(bytes.len() as u64);
            return;
        }
        let Some(noted) = tape.sight(place) else { return };
        let end = |(start, piece): (&u64, &Vec<u8>)| start.saturating_add(piece.len() as u64);
        let before = noted.pieces.range(..=offset).next_back().map(|piece| (*piece.0, end(piece)));
        let (start, known) = match before {
            Some((start, end)) if end >= offset => (start, usize::try_from(end - offset).unwrap_or(usize::MAX)),
            _ => (offset, 0),
        };
        let Some(fresh) = bytes.get(known..).filter(|fresh| !fresh.is_empty()) else { return };
        if !tape.takes(fresh.len()) {
            return;
        }
        if let Some(noted) = tape.sight(place) {
            noted.pieces.entry(start).or_default().extend_from_slice(fresh);
        }
    }

    /// The digest of the whole content of a lower file was needed.
    pub(crate) fn hashed(&self, place: Place<'_>, digest: Digest) {
        if let Some(noted) = self.tape().sight(place) {
            noted.sha256 = Some(digest);
        }
    }

    /// The value of a key was read.
    pub(crate) fn key(&self, bucket: &BucketName, key: &str, answer: Result<Option<&Bytes>, &str>) {
        let mut tape = self.tape();
        let size = answer.ok().flatten().map_or(0, Bytes::len);
        if tape.depth != Depth::Full || !tape.has_room(1) || !tape.takes(size) {
            return;
        }
        let read = answer.map_or_else(|why| Read::Failed(why.to_owned()), |value| Read::Value(value.cloned()));
        tape.keys.push((bucket.clone(), KeyAsked::Get(key.to_owned()), read));
    }

    /// A page of names of a bucket was read.
    pub(crate) fn key_names(&self, bucket: &BucketName, asked: KeyAsked, answer: Result<&[String], &str>) {
        let mut tape = self.tape();
        if tape.depth != Depth::Full || !tape.has_room(answer.map_or(1, <[String]>::len)) {
            return;
        }
        let read = answer.map_or_else(|why| Read::Failed(why.to_owned()), |names| Read::Names(names.to_vec()));
        tape.keys.push((bucket.clone(), asked, read));
    }

    /// Real time decided something.
    pub(crate) fn moment(&self, moment: Moment) {
        let mut tape = self.tape();
        if tape.depth == Depth::Full && tape.has_room(1) {
            tape.moments.push(moment);
        }
    }

    /// It cannot be replayed, and this is why.
    pub(crate) fn lose(&self, why: &str) {
        self.tape().lost.get_or_insert_with(|| why.to_owned());
    }

    /// The recording, with what is kept beside it. Later events of surviving clones are lost.
    pub(crate) fn finish(&self, frame: Frame, exchanges: &[Exchange]) -> (Recording, Kept) {
        let mut kept = Kept::new();
        let mut keep = |digest: Digest, part: &[u8]| {
            kept.entry(digest).or_insert_with(|| part.into());
        };
        let mut tape = self.tape();
        let heard = if tape.depth == Depth::Full { tape.heard(exchanges, &mut keep) } else { Heard::default() };
        let Frame { engine, seed, wall_clock_ns, given, end } = frame;
        let recording = Recording {
            format: FORMAT,
            engine,
            seed: hex(&seed),
            wall_clock_ns: wall_clock_ns.to_string(),
            layer: None,
            given,
            events: std::mem::take(&mut tape.events),
            heard,
            end,
            dropped_bytes: tape.dropped_bytes,
            dropped_events: tape.dropped_events,
            lost: tape.lost.take(),
        };
        (recording, kept)
    }

    /// The events so far.
    #[cfg(test)]
    pub(crate) fn events(&self) -> Vec<Event> {
        self.tape().events.clone()
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names an entry of the lower layer.
pub(crate) type Place<'a> = (&'a WorkspaceName, &'a WorkspacePath);

impl Tape {
    fn push(&mut self, import: &'static str, about: String, answer: Answer) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(Event { import: Cow::Borrowed(import), about: shortened(about), answer });
        } else {
            self.dropped_events = self.dropped_events.saturating_add(1);
        }
    }

    /// Whether `more` answers of the world may be noted.
    fn has_room(&mut self, more: usize) -> bool {
        let room = self.sights.len() + self.keys.len() + self.moments.len() + more <= HEARD_MAX;
        if !room {
            self.lost.get_or_insert_with(|| format!("the tool asked the world more than {HEARD_MAX} times"));
        }
        room
    }

    /// What is noted of an entry; nothing if it is not to be.
    fn sight(&mut self, (workspace, path): Place<'_>) -> Option<&mut Noted> {
        if self.depth != Depth::Full || self.lost.is_some() {
            return None;
        }
        let key = (workspace.clone(), path.clone());
        if !self.sights.contains_key(&key) && !self.has_room(1) {
            return None;
        }
        Some(self.sights.entry(key).or_default())
    }

    fn changed(&mut self, (workspace, path): Place<'_>) {
        let why = || format!("`{path}` in workspace `{workspace}` changed while the tool ran");
        self.lost.get_or_insert_with(why);
    }

    /// Count bytes of content. False if they are too many.
    fn takes(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        match self.bytes_left.checked_sub(bytes) {
            Some(left) if self.dropped_bytes == 0 => {
                self.bytes_left = left;
                true
            }
            _ => {
                self.dropped_bytes = self.dropped_bytes.saturating_add(bytes);
                false
            }
        }
    }

    fn heard(&mut self, exchanges: &[Exchange], keep: &mut impl FnMut(Digest, &[u8])) -> Heard {
        let bodies: usize = exchanges.iter().filter_map(|e| e.answer.as_ref().ok()).map(|a| a.body.len()).sum();
        if !self.takes(bodies) || self.dropped_bytes > 0 || self.lost.is_some() {
            return Heard::default();
        }
        let files = std::mem::take(&mut self.sights).into_iter().map(|(place, noted)| noted.sight(place, keep));
        let files = files.collect();
        let keys = std::mem::take(&mut self.keys).into_iter().map(|(bucket, asked, read)| {
            let answer = match read {
                Read::Value(None) => KeyAnswer::None,
                Read::Value(Some(value)) => KeyAnswer::Value(Blob::of(&value, &mut *keep)),
                Read::Names(names) => KeyAnswer::Names(names),
                Read::Failed(why) => KeyAnswer::Failed(why),
            };
            KeyHeard { bucket, asked, answer }
        });
        let keys = keys.collect();
        let exchanges = exchanges.iter().map(|exchange| exchanged(exchange, keep)).collect();
        Heard { files, keys, exchanges, moments: std::mem::take(&mut self.moments) }
    }
}

impl Noted {
    fn sight(self, (workspace, path): (WorkspaceName, WorkspacePath), keep: &mut impl FnMut(Digest, &[u8])) -> Sight {
        let look = self.look.map(|look| match look {
            Err(errno) => Look::Failed(errno.raw_os_error()),
            Ok(None) => Look::Absent,
            Ok(Some(seen)) => Look::Entry {
                kind: seen.entry,
                refused: seen.refused.map(|refused| refused.word().into()),
                size: seen.size,
                mode: seen.mode,
                modified_ns: seen.tuple.mtime_ns,
            },
        });
        let entries = self.entries.map(|names| names.iter().map(|(name, kind)| (name.clone(), *kind)).collect());
        let piece = |(offset, bytes): (u64, Vec<u8>)| Piece { offset, bytes: Blob::of(&bytes, &mut *keep) };
        let pieces = self.pieces.into_iter().map(piece).collect();
        let Self { target, failures, sha256, .. } = self;
        Sight { workspace, path, look, entries, target, failures, sha256, pieces }
    }
}

/// The keys of a tenant, whose answers are noted.
#[derive(Debug)]
pub(crate) struct NotingKeys {
    pub(crate) keys: Arc<dyn Keys>,
    pub(crate) recorder: Recorder,
}

impl Keys for NotingKeys {
    fn get<'a>(&'a self, bucket: &'a BucketName, key: &'a str) -> PortFuture<'a, Result<Option<Bytes>, KeysFailure>> {
        Box::pin(async move {
            let answer = self.keys.get(bucket, key).await;
            let noted = answer.as_ref().map(Option::as_ref).map_err(reason);
            self.recorder.key(bucket, key, noted);
            answer
        })
    }

    fn list<'a>(
        &'a self,
        bucket: &'a BucketName,
        after: Option<&'a str>,
        limit: usize,
    ) -> PortFuture<'a, Result<Vec<String>, KeysFailure>> {
        Box::pin(async move {
            let answer = self.keys.list(bucket, after, limit).await;
            let asked = KeyAsked::List { after: after.map(str::to_owned), limit: limit as u64 };
            self.recorder.key_names(bucket, asked, answer.as_deref().map_err(reason));
            answer
        })
    }
}

fn reason(failure: &KeysFailure) -> &str {
    let (KeysFailure::Unreadable(why) | KeysFailure::Unrecorded(why)) = failure;
    why
}

fn exchanged(exchange: &Exchange, keep: &mut impl FnMut(Digest, &[u8])) -> ExchangeHeard {
    let answer = match &exchange.answer {
        Ok(answer) => Ok(ResponseHeard {
            status: answer.status,
            headers: answer.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect(),
            body: Blob::of(&answer.body, keep),
        }),
        Err(failure) => Err(serde_json::to_value(failure).unwrap_or_default()),
    };
    let took_ns = Some(exchange.took_ns).filter(|took_ns| *took_ns != UNANSWERED);
    ExchangeHeard { call: exchange.call, answer, took_ns }
}

fn shortened(mut text: String) -> String {
    if text.len() > TEXT_MAX_BYTES {
        text.truncate(text.floor_char_boundary(TEXT_MAX_BYTES));
    }
    text
}

#[cfg(test)]
mod tests {
    use toolkeep_core::event::How;

    use super::*;

    fn finish(recorder: &Recorder) -> (Recording, Kept) {
        let sha256 = Digest::of(b"");
        let end =
            End { how: How::Output, sha256, shown: String::new(), fuel: 0, effects: None, log: vec![], events: None };
        let seed = [0xab; 32];
        recorder.finish(Frame { engine: "e".to_owned(), seed, wall_clock_ns: 7, given: Given::default(), end }, &[])
    }

    fn at(name: &str) -> (WorkspaceName, WorkspacePath) {
        ("books".parse().expect("name"), name.parse().expect("path"))
    }

    #[test]
    fn r04_a_recording_keeps_content_up_to_its_limit_and_counts_the_rest() {
        let (workspace, path) = at("a");
        let recorder = Recorder::new(4, Depth::Full);
        recorder.served((&workspace, &path), 0, b"ab");
        recorder.served((&workspace, &path), 0, b"ab");
        recorder.served((&workspace, &path), 1, b"bcd");
        let (recording, _) = finish(&recorder);
        assert_eq!(recording.heard.files[0].pieces, [Piece { offset: 0, bytes: Blob::Text("abcd".to_owned()) }]);
        assert_eq!((recording.seed.as_str(), recording.wall_clock_ns.as_str()), ("ab".repeat(32).as_str(), "7"));
        assert_eq!(recording.not_replayable(), None);
        let recorder = Recorder::new(4, Depth::Full);
        recorder.served((&workspace, &path), 0, b"abcd");
        recorder.served((&workspace, &path), 9, b"e");
        let (recording, kept) = finish(&recorder);
        assert_eq!((recording.dropped_bytes, recording.heard, kept.len()), (1, Heard::default(), 0));
    }

    #[test]
    fn r04_a_recording_keeps_at_most_its_number_of_events_and_counts_the_rest() {
        let recorder = Recorder::new(0, Depth::Full);
        for _ in 0..=EVENTS_MAX {
            recorder.done("i#f", "x".repeat(10));
        }
        recorder.done("i#f", "é".repeat(TEXT_MAX_BYTES));
        let (recording, _) = finish(&recorder);
        assert_eq!((recording.events.len(), recording.dropped_events), (EVENTS_MAX, 2));
        assert!(recording.events.iter().all(|event| event.about.len() <= TEXT_MAX_BYTES));
    }

    #[test]
    fn r04_a_recording_notes_at_most_its_number_of_answers_and_says_that_it_lost_more() {
        let ask = |times: usize| {
            let recorder = Recorder::new(0, Depth::Full);
            for _ in 0..times {
                recorder.moment(Moment::Is(true));
            }
            finish(&recorder).0.not_replayable()
        };
        assert_eq!(ask(HEARD_MAX), None);
        assert!(ask(HEARD_MAX + 1).is_some_and(|why| why.contains("more than")));
    }

    #[test]
    fn r41_a_world_that_changed_under_the_tool_is_no_world_to_replay() {
        let (workspace, path) = at("a");
        let recorder = Recorder::new(10, Depth::Full);
        recorder.looked((&workspace, &path), Ok(None));
        recorder.looked((&workspace, &path), Ok(None));
        recorder.looked((&workspace, &path), Err(Errno::ACCESS));
        assert!(finish(&recorder).0.not_replayable().is_some_and(|why| why.contains("changed")));
    }

    #[test]
    fn r41_nothing_that_the_world_said_is_noted_unless_in_full() {
        let (workspace, path) = at("a");
        for depth in [Depth::Hashes, Depth::Off] {
            let recorder = Recorder::new(10, depth);
            recorder.looked((&workspace, &path), Ok(None));
            recorder.served((&workspace, &path), 0, b"secret");
            recorder.key(&"b".parse().expect("name"), "k", Ok(None));
            recorder.moment(Moment::At(1));
            recorder.done("i#f", "");
            let (recording, kept) = finish(&recorder);
            assert!(recording.heard.is_empty() && kept.is_empty() && recording.events.len() == 1);
        }
    }
}
