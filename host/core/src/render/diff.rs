//! The difference between two contents of a file, as lines, or as size, digest and first bytes where it is not text.
//!
//! Contents are checked against the digests of the effect before anything is made of them: a store that returns other
//! bytes must not decide what a person sees. The work is bounded, since a hostile tool chooses both contents: equal
//! beginnings and ends are split off first, and what is too long for a comparison counts as replaced as a whole.

use std::ops::Range;

use serde_json::{Value, json};
use similar::{Algorithm, DiffOp, DiffTag, capture_diff, capture_diff_slices, group_diff_ops};

use super::Contents;
use crate::digest::{Digest, Hasher};
use crate::effect::BodyState;
use crate::hex;
use crate::limit::DIFF_MAX_BYTES;

/// Unchanged lines around each change.
const CONTEXT_LINES: usize = 3;
/// Most lines that are compared one by one, old and new together; beyond that a difference is a replacement.
const LINES_COMPARED: usize = 20_000;
/// Longest line, in bytes, in which changed words are sought.
const WORDS_LINE_BYTES: usize = 1_000;
/// First bytes of binary content that are shown.
pub(super) const HEAD_BYTES: usize = 64;

/// Bytes that were left out, and their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hidden {
    /// How many.
    pub(super) bytes: u64,
    /// SHA-256 of them.
    pub(super) sha256: Digest,
}

impl Hidden {
    pub(super) fn to_json(self) -> Value {
        json!({ "bytes": self.bytes, "sha256": self.sha256 })
    }
}

/// How one file changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Both contents are text.
    Text(Vec<Hunk>),
    /// One of them is not: the first bytes of each.
    Binary { before: Option<Vec<u8>>, after: Option<Vec<u8>> },
    /// One of them is larger than [`DIFF_MAX_BYTES`].
    Large,
    /// One of them is not at hand.
    Missing,
}

/// A group of neighbouring changes with its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hunk {
    /// `@@ -1,3 +1,4 @@`.
    pub(super) header: String,
    /// Its lines.
    pub(super) lines: Vec<Line>,
}

/// One line of a hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Which side it is on.
    pub(super) sign: Sign,
    /// Its text without the line feed, not yet made visible.
    pub(super) text: String,
    /// Byte ranges of `text` that changed within a line that otherwise stayed.
    pub(super) emphasis: Vec<Range<usize>>,
    /// The file ends here without a line feed.
    pub(super) unfinished: bool,
    /// What was cut from the end of the line.
    pub(super) cut: Option<Hidden>,
}

/// Which side a line is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// On both.
    Context,
    /// Only before.
    Removed,
    /// Only after.
    Added,
}

impl Sign {
    pub(super) const fn mark(self) -> char {
        match self {
            Self::Context => ' ',
            Self::Removed => '-',
            Self::Added => '+',
        }
    }
}

impl Change {
    /// Compare the contents of two states; an absent state is an empty content.
    pub(super) fn between(
        before: Option<BodyState>,
        after: Option<BodyState>,
        emphasise: bool,
        contents: Contents<'_>,
    ) -> Self {
        if [before, after].into_iter().flatten().any(|state| state.size > DIFF_MAX_BYTES) {
            return Self::Large;
        }
        let fetch = |state: Option<BodyState>| match state {
            None => Some(None),
            Some(state) => contents(&state.sha256).filter(|bytes| Digest::of(bytes) == state.sha256).map(Some),
        };
        let (Some(before), Some(after)) = (fetch(before), fetch(after)) else { return Self::Missing };
        let texts = (text_of(before.as_deref()), text_of(after.as_deref()));
        if let (Some(old), Some(new)) = texts {
            return Self::Text(hunks(old, new, emphasise));
        }
        let head = |bytes: Option<Vec<u8>>| {
            bytes.map(|mut bytes| {
                bytes.truncate(HEAD_BYTES);
                bytes
            })
        };
        Self::Binary { before: head(before), after: head(after) }
    }

    /// Lines of the diff.
    pub(super) fn lines(&self) -> usize {
        match self {
            Self::Text(hunks) => hunks.iter().map(|hunk| hunk.lines.len()).sum(),
            Self::Binary { .. } | Self::Large | Self::Missing => 0,
        }
    }

    /// Keep the first lines; the rest is described.
    pub(super) fn keep_lines(&mut self, keep: usize) -> Option<Hidden> {
        let Self::Text(hunks) = self else { return None };
        let (mut left, mut bytes, mut hasher) = (keep, 0_u64, Hasher::new());
        for hunk in hunks.iter_mut() {
            let rest = hunk.lines.split_off(hunk.lines.len().min(left));
            left -= hunk.lines.len();
            for line in rest {
                let text = format!("{}{}\n", line.sign.mark(), line.text);
                hasher.update(text.as_bytes());
                bytes += text.len() as u64;
            }
        }
        hunks.retain(|hunk| !hunk.lines.is_empty());
        (bytes > 0).then(|| Hidden { bytes, sha256: hasher.finish() })
    }

    /// Cut every line after `most` bytes.
    pub(super) fn cut_lines(&mut self, most: usize) {
        let Self::Text(hunks) = self else { return };
        for line in hunks.iter_mut().flat_map(|hunk| &mut hunk.lines) {
            if line.text.len() <= most {
                continue;
            }
            let rest = line.text.split_off(line.text.floor_char_boundary(most));
            line.cut = Some(Hidden { bytes: rest.len() as u64, sha256: Digest::of(rest.as_bytes()) });
            line.emphasis.retain(|range| range.end <= line.text.len());
        }
    }

    /// Bytes that [`Change::cut_lines`] cut from the lines that are left.
    pub(super) fn cut_bytes(&self) -> u64 {
        let Self::Text(hunks) = self else { return 0 };
        hunks.iter().flat_map(|hunk| &hunk.lines).filter_map(|line| line.cut).map(|cut| cut.bytes).sum()
    }

    /// The change for programs.
    pub(super) fn to_json(&self, hidden: Option<Hidden>) -> Value {
        let hex = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(hex::text);
        match self {
            Self::Text(hunks) => {
                let hunks: Vec<Value> = hunks.iter().map(Hunk::to_json).collect();
                json!({ "form": "text", "hunks": hunks, "hidden": hidden.map(Hidden::to_json) })
            }
            Self::Binary { before, after } => {
                json!({ "form": "binary", "before_head": hex(before), "after_head": hex(after) })
            }
            Self::Large => json!({ "form": "large" }),
            Self::Missing => json!({ "form": "missing" }),
        }
    }
}

impl Hunk {
    fn to_json(&self) -> Value {
        let lines: Vec<Value> = self.lines.iter().map(Line::to_json).collect();
        json!({ "header": self.header, "lines": lines })
    }
}

impl Line {
    fn to_json(&self) -> Value {
        let text = format!("{}{}", self.sign.mark(), self.text);
        match self.cut {
            None => Value::String(text),
            Some(cut) => json!({ "text": text, "hidden": cut.to_json() }),
        }
    }
}

/// The content as text; nothing if it is not UTF-8 or holds a NUL.
fn text_of(bytes: Option<&[u8]>) -> Option<&str> {
    let text = std::str::from_utf8(bytes.unwrap_or_default()).ok()?;
    (!text.contains('\0')).then_some(text)
}

fn hunks(old: &str, new: &str, emphasise: bool) -> Vec<Hunk> {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let groups = group_diff_ops(operations(&old, &new), CONTEXT_LINES);
    groups.iter().filter(|group| !group.is_empty()).map(|group| hunk(group, &old, &new, emphasise)).collect()
}

fn operations(old: &[&str], new: &[&str]) -> Vec<DiffOp> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old.iter().skip(head).rev().zip(new.iter().skip(head).rev()).take_while(|(a, b)| a == b).count();
    let (old_range, new_range) = (head..old.len() - tail, head..new.len() - tail);
    let mut operations = Vec::new();
    if head > 0 {
        operations.push(DiffOp::Equal { old_index: 0, new_index: 0, len: head });
    }
    if old_range.len() + new_range.len() <= LINES_COMPARED {
        operations.extend(capture_diff(Algorithm::Myers, old, old_range.clone(), new, new_range.clone()));
    } else {
        operations.push(replacement(&old_range, &new_range));
    }
    if tail > 0 {
        operations.push(DiffOp::Equal { old_index: old_range.end, new_index: new_range.end, len: tail });
    }
    operations
}

fn replacement(old: &Range<usize>, new: &Range<usize>) -> DiffOp {
    let (old_index, new_index) = (old.start, new.start);
    match (old.len(), new.len()) {
        (0, new_len) => DiffOp::Insert { old_index, new_index, new_len },
        (old_len, 0) => DiffOp::Delete { old_index, old_len, new_index },
        (old_len, new_len) => DiffOp::Replace { old_index, old_len, new_index, new_len },
    }
}

fn hunk(group: &[DiffOp], old: &[&str], new: &[&str], emphasise: bool) -> Hunk {
    let header = similar::udiff::UnifiedHunkHeader::new(group).to_string();
    let mut lines = Vec::new();
    for operation in group {
        let before = old.get(operation.old_range()).unwrap_or_default();
        let after = new.get(operation.new_range()).unwrap_or_default();
        if operation.tag() == DiffTag::Equal {
            lines.extend(before.iter().map(|text| line(Sign::Context, text, Vec::new())));
            continue;
        }
        let pairs: Vec<Emphasis> =
            if emphasise { before.iter().zip(after).map(|(a, b)| changed_words(a, b)).collect() } else { Vec::new() };
        for (at, text) in before.iter().enumerate() {
            lines.push(line(Sign::Removed, text, pairs.get(at).map(|pair| pair.0.clone()).unwrap_or_default()));
        }
        for (at, text) in after.iter().enumerate() {
            lines.push(line(Sign::Added, text, pairs.get(at).map(|pair| pair.1.clone()).unwrap_or_default()));
        }
    }
    Hunk { header, lines }
}

fn line(sign: Sign, text: &str, emphasis: Vec<Range<usize>>) -> Line {
    let finished = text.strip_suffix('\n');
    Line { sign, text: finished.unwrap_or(text).to_owned(), emphasis, unfinished: finished.is_none(), cut: None }
}

/// Byte ranges to stress, in the old line and in the new one.
type Emphasis = (Vec<Range<usize>>, Vec<Range<usize>>);

/// The parts of two lines that differ, if enough of the lines stays for that to be of use.
fn changed_words(old: &str, new: &str) -> Emphasis {
    let (old, new) = (old.trim_end_matches('\n'), new.trim_end_matches('\n'));
    if old.len() > WORDS_LINE_BYTES || new.len() > WORDS_LINE_BYTES {
        return (Vec::new(), Vec::new());
    }
    let (old_words, new_words) = (words(old), words(new));
    let texts = |words: &[(usize, &'_ str)]| words.iter().map(|(_, word)| word.to_string()).collect::<Vec<_>>();
    let operations = capture_diff_slices(Algorithm::Myers, &texts(&old_words), &texts(&new_words));
    let (mut removed, mut added, mut kept) = (Vec::new(), Vec::new(), 0);
    for operation in &operations {
        let before = old_words.get(operation.old_range()).unwrap_or_default();
        let after = new_words.get(operation.new_range()).unwrap_or_default();
        if operation.tag() == DiffTag::Equal {
            kept +=
                before.iter().filter(|(_, word)| !word.trim().is_empty()).map(|(_, word)| word.len()).sum::<usize>();
        } else {
            removed.extend(span(before));
            added.extend(span(after));
        }
    }
    // Less than a quarter in common: the line is another one.
    if kept * 4 < old.len().max(new.len()) { (Vec::new(), Vec::new()) } else { (removed, added) }
}

fn span(words: &[(usize, &str)]) -> Option<Range<usize>> {
    let (start, _) = words.first()?;
    let (last, word) = words.last()?;
    Some(*start..last + word.len())
}

/// Runs of letters and digits, runs of spaces, and every other character alone, each with its byte offset.
fn words(line: &str) -> Vec<(usize, &str)> {
    let kind = |c: char| {
        if c.is_alphanumeric() || c == '_' {
            0
        } else if c.is_whitespace() {
            1
        } else {
            2
        }
    };
    let mut words = Vec::new();
    let mut start = 0;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let end = at + c.len_utf8();
        let joined = chars.peek().is_some_and(|(_, next)| kind(c) != 2 && kind(*next) == kind(c));
        if !joined {
            words.extend(line.get(start..end).map(|word| (start, word)));
            start = end;
        }
    }
    words
}
