//! The recorder: what every import answered, in order, while an execution runs (D6, event format 1).
//!
//! One recorder belongs to one execution and is shared by all of its imports and streams. It is bounded twice: by the
//! recording limit of the call for bytes of content, and by [`EVENTS_MAX`] for events. What exceeds either bound is
//! counted, so that a recording which cannot be replayed says so.
//!
//! Bytes that flow through `wasi:io/streams` are recorded there, once, for every kind of stream; whoever makes a stream
//! records only the call that made it. Answers that follow from the seed (random bytes) or from constants (permits to
//! write) are not kept.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use toolkeep_core::digest::Digest;
use toolkeep_core::event::{Answer, EVENTS_MAX, Event, FORMAT, Recording};

/// Longest `about` or value text of one event, in bytes: a longest path fits.
const TEXT_MAX_BYTES: usize = 4_200;

/// Collects the events of one execution. Cheap to clone; all clones write to the same recording.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Mutex<Tape>>);

#[derive(Debug)]
struct Tape {
    events: Vec<Event>,
    bytes_left: u64,
    dropped_bytes: u64,
    dropped_events: u64,
}

impl Recorder {
    /// A recorder that keeps at most `bytes_max` bytes of content.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Mutex::new(Tape {
            events: Vec::new(),
            bytes_left: bytes_max,
            dropped_bytes: 0,
            dropped_events: 0,
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

    /// The import answered bytes. They are kept while the recording limit lasts; beyond it only their number is, and the
    /// digest is in the read set of the plan.
    pub fn bytes(&self, import: &'static str, about: impl Into<String>, content: &[u8]) {
        let length = content.len() as u64;
        let mut tape = self.tape();
        if length > tape.bytes_left {
            tape.bytes_left = 0;
            tape.dropped_bytes = tape.dropped_bytes.saturating_add(length);
            tape.push(import, about.into(), Answer::Value(format!("{length} bytes")));
            return;
        }
        tape.bytes_left -= length;
        let answer = Answer::Bytes { sha256: Digest::of(content), length, content: Some(hex(content)) };
        tape.push(import, about.into(), answer);
    }

    /// Any other answer.
    pub fn event(&self, import: &'static str, about: impl Into<String>, answer: Answer) {
        self.tape().push(import, about.into(), answer);
    }

    /// The recording. Later events of surviving clones are lost.
    pub(crate) fn finish(&self, engine: String, seed: &[u8], wall_clock_ns: u64) -> Recording {
        let mut tape = self.tape();
        Recording {
            format: FORMAT,
            engine,
            seed: hex(seed),
            wall_clock_ns: wall_clock_ns.to_string(),
            layer: None,
            events: std::mem::take(&mut tape.events),
            dropped_bytes: tape.dropped_bytes,
            dropped_events: tape.dropped_events,
        }
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tape {
    fn push(&mut self, import: &'static str, about: String, answer: Answer) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(Event { import: Cow::Borrowed(import), about: shortened(about), answer });
        } else {
            self.dropped_events = self.dropped_events.saturating_add(1);
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > TEXT_MAX_BYTES {
        text.truncate(text.floor_char_boundary(TEXT_MAX_BYTES));
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value & 0x0f)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r04_a_recording_keeps_content_up_to_its_limit_and_counts_the_rest() {
        let recorder = Recorder::new(4);
        recorder.bytes("i#read", "a", b"abcd");
        recorder.bytes("i#read", "a", b"e");
        recorder.done("i#close", "");
        let recording = recorder.finish("engine".to_owned(), &[0xab, 1], 7);
        assert_eq!((recording.seed.as_str(), recording.wall_clock_ns.as_str()), ("ab01", "7"));
        assert_eq!((recording.dropped_bytes, recording.dropped_events, recording.events.len()), (1, 0, 3));
        let kept = Answer::Bytes { sha256: Digest::of(b"abcd"), length: 4, content: Some("61626364".to_owned()) };
        assert_eq!(recording.events[0].answer, kept);
        assert_eq!(recording.events[1].answer, Answer::Value("1 bytes".to_owned()));
    }

    #[test]
    fn r04_a_recording_keeps_at_most_its_number_of_events_and_counts_the_rest() {
        let recorder = Recorder::new(0);
        for _ in 0..=EVENTS_MAX {
            recorder.done("i#f", "x".repeat(10));
        }
        recorder.done("i#f", "é".repeat(TEXT_MAX_BYTES));
        let recording = recorder.finish(String::new(), &[], 0);
        assert_eq!((recording.events.len(), recording.dropped_events), (EVENTS_MAX, 2));
        assert!(recording.events.iter().all(|event| event.about.len() <= TEXT_MAX_BYTES));
    }
}
