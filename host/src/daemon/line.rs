//! Lines: from bytes of a socket to one message each.
//!
//! The buffer grows with the line up to a bound and no further; a longer line is an error after which the stream
//! has no meaning any more. Bytes are searched for the newline once, however often a read returns. What a
//! line says is not known here.

use std::io::BufRead as _;
use std::ops::Range;

use super::bounds::{BUFFER_KEPT_BYTES, READ_CHUNK_BYTES};

/// Bytes that were read and not yet taken as lines.
#[derive(Debug)]
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    /// Where the line that is not taken yet begins.
    start: usize,
    /// Up to where no newline was found.
    searched: usize,
    max: usize,
}

/// A line is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the line is longer than {max} bytes")]
pub(super) struct LineTooLong {
    /// The bound, in bytes.
    pub(super) max: usize,
}

impl LineBuffer {
    /// An empty buffer for lines of at most `max` bytes, their newline not counted.
    pub(super) const fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, searched: 0, max }
    }

    /// Where to append what is read: taken lines are removed first, and there is room for a read.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > BUFFER_KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.reserve(READ_CHUNK_BYTES);
        &mut self.bytes
    }

    /// Take the next whole line; nothing if its newline has not arrived.
    ///
    /// # Errors
    /// The line is too long, whether or not its end is known.
    pub(super) fn next_line(&mut self) -> Result<Option<Range<usize>>, LineTooLong> {
        let rest = self.bytes.get(self.searched..).unwrap_or_default();
        let end = newline(rest).map(|at| self.searched + at);
        let line = self.start..end.unwrap_or(self.bytes.len());
        if line.len() > self.max {
            return Err(LineTooLong { max: self.max });
        }
        match end {
            Some(end) => {
                self.start = end + 1;
                self.searched = self.start;
                Ok(Some(line))
            }
            None => {
                self.searched = self.bytes.len();
                Ok(None)
            }
        }
    }

    /// The bytes of a line that [`Self::next_line`] just gave; call before [`Self::room`].
    pub(super) fn line(&self, line: Range<usize>) -> &[u8] {
        self.bytes.get(line).unwrap_or_default()
    }

    /// Whether a line has begun whose end has not arrived.
    pub(super) fn is_partial(&self) -> bool {
        self.bytes.len() > self.start
    }
}

/// Where the first newline is. The standard library looks at many bytes at once here, which a loop over them does not.
fn newline(mut bytes: &[u8]) -> Option<usize> {
    let all = bytes;
    let last = bytes.skip_until(b'\n').ok()?.checked_sub(1)?;
    (all.get(last) == Some(&b'\n')).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(max: usize, reads: &[&str]) -> Result<Vec<String>, LineTooLong> {
        let mut buffer = LineBuffer::new(max);
        let mut lines = Vec::new();
        for read in reads {
            buffer.room().extend_from_slice(read.as_bytes());
            while let Some(range) = buffer.next_line()? {
                lines.push(String::from_utf8_lossy(buffer.line(range)).into_owned());
            }
        }
        if buffer.is_partial() {
            lines.push("(partial)".to_owned());
        }
        Ok(lines)
    }

    #[test]
    fn lines_are_found_however_the_reads_are_cut() {
        let expect = Ok(["a", "", "bc", "(partial)"].map(str::to_owned).to_vec());
        assert_eq!(lines(10, &["a\n\nbc\nd"]), expect);
        assert_eq!(lines(10, &["a", "\n", "\nb", "c\n", "d"]), expect);
        assert_eq!(lines(10, &[]), Ok(Vec::new()));
        assert_eq!(lines(10, &["a\n"]), Ok(vec!["a".to_owned()]));
    }

    #[test]
    fn the_line_limit_holds_at_n_and_n_plus_1() {
        assert_eq!(lines(3, &["abc\n"]), Ok(vec!["abc".to_owned()]));
        assert_eq!(lines(3, &["abc"]), Ok(vec!["(partial)".to_owned()]));
        assert_eq!(lines(3, &["abcd\n"]), Err(LineTooLong { max: 3 }));
        assert_eq!(lines(3, &["abcd"]), Err(LineTooLong { max: 3 }), "before the newline arrives");
        assert_eq!(lines(3, &["ab\nabcd"]), Err(LineTooLong { max: 3 }));
    }
}
