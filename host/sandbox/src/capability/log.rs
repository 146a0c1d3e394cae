//! The operator's log of one execution: lines that the tool writes, and whatever it prints.
//!
//! Bounded by the log limit of the call; what exceeds it is counted and dropped, never refused, so that a tool does not
//! break because it talks too much. Lines never reach the agent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime_wasi::async_trait;
use wasmtime_wasi_io::bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use crate::bindings::toolkeep::tool::log;
use crate::state::State;

/// Longest line, in bytes; what exceeds it is dropped.
pub const LINE_MAX_BYTES: usize = 4 * 1024;
/// What a line costs besides its text, in bytes, so that empty lines are not free.
const LINE_COST_BYTES: u64 = 16;
/// Bytes that a printing guest may hand over at one time.
const PERMIT_BYTES: usize = 64 * 1024;

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The tool, through the interface `log`.
    Tool,
    /// The tool's standard output.
    Stdout,
    /// The tool's standard error.
    Stderr,
    /// The host, about the tool.
    Host,
}

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only for the author.
    Debug,
    /// Normal operation.
    Info,
    /// Something unexpected that was handled.
    Warn,
    /// Something that could not be handled.
    Error,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Who wrote it.
    pub source: Source,
    /// How important it is.
    pub level: Level,
    /// At most [`LINE_MAX_BYTES`] of text from an untrusted author: escape it before showing it.
    pub text: String,
}

/// The log of one execution. Cheap to clone; all clones write to the same log.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Mutex<Lines>>);

#[derive(Debug)]
struct Lines {
    lines: Vec<LogLine>,
    bytes_left: u64,
    dropped_bytes: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Log {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            lines: Vec::new(),
            bytes_left: bytes_max,
            dropped_bytes: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
        })))
    }

    pub(crate) fn write(&self, source: Source, level: Level, text: &str) {
        self.lines().push(source, level, text);
    }

    /// All lines, and the bytes that were dropped.
    pub(crate) fn finish(&self) -> (Vec<LogLine>, u64) {
        let mut lines = self.lines();
        lines.flush(Source::Stdout);
        lines.flush(Source::Stderr);
        (std::mem::take(&mut lines.lines), lines.dropped_bytes)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn push(&mut self, source: Source, level: Level, text: &str) {
        let kept = text.get(..text.floor_char_boundary(LINE_MAX_BYTES)).unwrap_or_default();
        let cost = kept.len() as u64 + LINE_COST_BYTES;
        if cost > self.bytes_left {
            self.bytes_left = 0;
            self.dropped_bytes = self.dropped_bytes.saturating_add(text.len() as u64);
            return;
        }
        self.bytes_left -= cost;
        self.dropped_bytes = self.dropped_bytes.saturating_add((text.len() - kept.len()) as u64);
        self.lines.push(LogLine { source, level, text: kept.to_owned() });
    }

    const fn printed(&mut self, source: Source) -> &mut Vec<u8> {
        match source {
            Source::Stderr => &mut self.stderr,
            Source::Stdout | Source::Tool | Source::Host => &mut self.stdout,
        }
    }

    fn print(&mut self, source: Source, bytes: &[u8]) {
        if self.bytes_left == 0 {
            self.dropped_bytes = self.dropped_bytes.saturating_add(bytes.len() as u64);
            return;
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            for chunk in part.chunks(LINE_MAX_BYTES) {
                if self.printed(source).len() + chunk.len() > LINE_MAX_BYTES {
                    self.flush(source);
                }
                self.printed(source).extend_from_slice(chunk);
            }
            if part.ends_with(b"\n") {
                self.flush(source);
            }
        }
    }

    fn flush(&mut self, source: Source) {
        let bytes = std::mem::take(self.printed(source));
        if !bytes.is_empty() {
            let text = String::from_utf8_lossy(&bytes);
            self.push(source, Level::Info, text.trim_end_matches(['\n', '\r']));
        }
    }
}

/// Standard output or standard error of a guest.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) log: Log,
    pub(crate) source: Source,
}

#[async_trait]
impl Pollable for Console {
    async fn ready(&mut self) {}
}

impl OutputStream for Console {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > PERMIT_BYTES {
            return Err(StreamError::trap("more was written than `check-write` permits"));
        }
        self.log.lines().print(self.source, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}

/// Standard input of a guest: at its end from the start.
#[derive(Debug)]
pub(crate) struct Closed;

#[async_trait]
impl Pollable for Closed {
    async fn ready(&mut self) {}
}

impl InputStream for Closed {
    fn read(&mut self, _size: usize) -> StreamResult<Bytes> {
        Err(StreamError::Closed)
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.log.write(Source::Tool, level, &message);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(log: &Log) -> (Vec<String>, u64) {
        let (lines, dropped) = log.finish();
        (lines.into_iter().map(|line| line.text).collect(), dropped)
    }

    #[test]
    fn r04_the_log_keeps_its_bytes_and_counts_what_it_drops() {
        let log = Log::new(2 * (LINE_COST_BYTES + 3));
        log.write(Source::Tool, Level::Info, "abc");
        log.write(Source::Tool, Level::Info, "def");
        log.write(Source::Tool, Level::Info, "");
        log.write(Source::Tool, Level::Info, "ghi");
        assert_eq!(texts(&log), (vec!["abc".to_owned(), "def".to_owned()], 3));
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let log = Log::new(1_000_000);
        log.write(Source::Tool, Level::Info, &"é".repeat(LINE_MAX_BYTES));
        let (lines, dropped) = texts(&log);
        assert_eq!((lines[0].len(), dropped), (LINE_MAX_BYTES, LINE_MAX_BYTES as u64));
    }

    #[test]
    fn what_is_printed_becomes_lines() {
        let log = Log::new(1_000_000);
        let mut stdout = Console { log: log.clone(), source: Source::Stdout };
        let mut stderr = Console { log: log.clone(), source: Source::Stderr };
        for part in ["on", "e\r\ntwo\n", "\n", "th"] {
            stdout.write(Bytes::from_static(part.as_bytes())).expect("written");
        }
        stderr.write(Bytes::from(vec![0xff; LINE_MAX_BYTES + 1])).expect("written");
        assert!(stderr.write(Bytes::from(vec![0; PERMIT_BYTES + 1])).is_err());
        let (lines, dropped) = texts(&log);
        assert_eq!(lines[..4], ["one", "two", "", "\u{fffd}".repeat(LINE_MAX_BYTES / 3).as_str()]);
        assert_eq!(lines[4], "th");
        assert!(dropped > 0, "a replacement character is longer than the byte that it stands for");
    }
}
