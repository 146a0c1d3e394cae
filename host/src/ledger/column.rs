//! How nouns are columns: ids and digests as bytes, numbers as signed integers, states as words.
//!
//! Reading is strict: a column that cannot be what it should be means that somebody else wrote the database, and the
//! row is refused rather than guessed at.

use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde::de::DeserializeOwned;
use toolkeep_core::call::{Mode, Outcome, Status};
use toolkeep_core::digest::Digest;
use toolkeep_core::principal::{Origin, SessionPath};
use toolkeep_core::refusal::Code;
use uuid::Uuid;

use super::failure::LedgerError;

/// A number as SQLite keeps it. Counters and times never come near the bound; if one did, it would stick there.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The bytes of an id.
pub(super) const fn id_bytes(uuid: &Uuid) -> &[u8] {
    uuid.as_bytes().as_slice()
}

/// The bytes of a path of sessions; nothing where nobody delegated, which is nearly always.
pub(super) fn path_bytes(path: &SessionPath) -> Option<Vec<u8>> {
    (!path.is_root()).then(|| path.to_bytes())
}

/// One past the last byte string that starts with `bytes`; nothing where there is none, or no bound is needed.
pub(super) fn after(bytes: &[u8]) -> Option<Vec<u8>> {
    let kept = bytes.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = bytes.get(..=kept)?.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Some(end)
}

/// The bytes of a digest.
pub(super) const fn digest_bytes(digest: &Digest) -> &[u8] {
    digest.as_bytes().as_slice()
}

pub(super) const fn status_word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Held => "held",
        Status::Denied => "denied",
        Status::Failed => "failed",
        Status::Unknown => "unknown",
    }
}

pub(super) const fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::None => "none",
        Outcome::Previewed => "previewed",
        Outcome::Staged => "staged",
        Outcome::Pending => "pending",
        Outcome::Committed => "committed",
        Outcome::Discarded => "discarded",
        Outcome::Unknown => "unknown",
        Outcome::Halted => "halted",
    }
}

pub(super) fn code_of(word: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.word() == word)
}

pub(super) fn mode_of(word: &str) -> Option<Mode> {
    [Mode::Commit, Mode::Preview].into_iter().find(|mode| mode.word() == word)
}

/// A value of a noun that is written as one word.
pub(super) fn worded<T: DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

/// One row that is being read; remembers the table for its errors.
pub(super) struct Reading<'r> {
    row: &'r Row<'r>,
    table: &'static str,
}

impl<'r> Reading<'r> {
    pub(super) const fn new(row: &'r Row<'r>, table: &'static str) -> Self {
        Self { row, table }
    }

    fn damaged(&self, column: &str) -> LedgerError {
        LedgerError::Damaged(format!("a row of `{}` has no valid `{column}`", self.table).into())
    }

    fn value(&self, column: &'static str) -> Result<ValueRef<'r>, LedgerError> {
        self.row.get_ref(column).map_err(|_| self.damaged(column))
    }

    pub(super) fn text(&self, column: &'static str) -> Result<&'r str, LedgerError> {
        self.value(column)?.as_str().map_err(|_| self.damaged(column))
    }

    pub(super) fn text_or_null(&self, column: &'static str) -> Result<Option<&'r str>, LedgerError> {
        self.value(column)?.as_str_or_null().map_err(|_| self.damaged(column))
    }

    pub(super) fn number(&self, column: &'static str) -> Result<u64, LedgerError> {
        self.number_or_null(column)?.ok_or_else(|| self.damaged(column))
    }

    pub(super) fn number_or_null(&self, column: &'static str) -> Result<Option<u64>, LedgerError> {
        let value = self.value(column)?.as_i64_or_null().map_err(|_| self.damaged(column))?;
        value.map(|value| u64::try_from(value).map_err(|_| self.damaged(column))).transpose()
    }

    pub(super) fn bytes_or_null(&self, column: &'static str) -> Result<Option<&'r [u8]>, LedgerError> {
        self.value(column)?.as_blob_or_null().map_err(|_| self.damaged(column))
    }

    pub(super) fn uuid(&self, column: &'static str) -> Result<Uuid, LedgerError> {
        self.uuid_or_null(column)?.ok_or_else(|| self.damaged(column))
    }

    pub(super) fn uuid_or_null(&self, column: &'static str) -> Result<Option<Uuid>, LedgerError> {
        let bytes = self.bytes_or_null(column)?;
        bytes.map(|bytes| Uuid::from_slice(bytes).map_err(|_| self.damaged(column))).transpose()
    }

    pub(super) fn digest(&self, column: &'static str) -> Result<Digest, LedgerError> {
        self.digest_or_null(column)?.ok_or_else(|| self.damaged(column))
    }

    pub(super) fn digest_or_null(&self, column: &'static str) -> Result<Option<Digest>, LedgerError> {
        let bytes = self.bytes_or_null(column)?;
        bytes.map(|bytes| bytes.try_into().map(Digest::from_bytes).map_err(|_| self.damaged(column))).transpose()
    }

    /// A path of sessions.
    pub(super) fn path(&self, column: &'static str) -> Result<SessionPath, LedgerError> {
        match self.bytes_or_null(column)? {
            None => Ok(SessionPath::default()),
            Some(bytes) => SessionPath::from_bytes(bytes).ok_or_else(|| self.damaged(column)),
        }
    }

    /// How somebody came to act, from the columns `credential` and `session`.
    pub(super) fn origin(&self) -> Result<Origin, LedgerError> {
        Ok(Origin { credential: self.name("credential")?, session: self.path("session")? })
    }

    /// A name: parsed under the rules of its kind.
    pub(super) fn name<T: std::str::FromStr>(&self, column: &'static str) -> Result<T, LedgerError> {
        self.text(column)?.parse().map_err(|_| self.damaged(column))
    }

    /// A word, through the function that knows the words of its kind.
    pub(super) fn word<T>(&self, column: &'static str, of: impl FnOnce(&str) -> Option<T>) -> Result<T, LedgerError> {
        of(self.text(column)?).ok_or_else(|| self.damaged(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolkeep_core::audit::AuditKind;

    #[test]
    fn words_are_those_of_the_wire() {
        for status in [Status::Ok, Status::Held, Status::Denied, Status::Failed, Status::Unknown] {
            assert_eq!(worded(status_word(status)), Some(status));
        }
        for outcome in [
            Outcome::None,
            Outcome::Previewed,
            Outcome::Staged,
            Outcome::Pending,
            Outcome::Committed,
            Outcome::Discarded,
            Outcome::Unknown,
            Outcome::Halted,
        ] {
            assert_eq!(worded(outcome_word(outcome)), Some(outcome));
        }
        for kind in AuditKind::ALL {
            assert_eq!(worded(kind.word()), Some(kind));
        }
        assert_eq!(code_of("stale_plan"), Some(Code::StalePlan));
        assert_eq!((mode_of("preview"), mode_of("Preview")), (Some(Mode::Preview), None));
        assert_eq!(integer(u64::MAX), i64::MAX);
    }

    #[test]
    fn the_end_of_a_prefix_is_one_past_everything_that_starts_with_it() {
        assert_eq!(after(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(after(&[1, 255]), Some(vec![2]));
        assert_eq!(after(&[255, 255]), None);
        let prefix = [7, 255, 255];
        let end = after(&prefix).expect("an end");
        assert!(prefix.to_vec() < end && vec![7, 255, 255, 255, 255] < end && vec![8] >= end);
    }
}
