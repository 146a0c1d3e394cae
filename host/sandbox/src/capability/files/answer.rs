//! From the stage's words to those of `wasi:filesystem`.
//!
//! Times are checked: a guest chooses them, and no arithmetic on them may overflow.

use std::io;

use toolkeep_core::path::PathProblem;
use toolkeep_core::plan::EntryKind;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorStat, DescriptorType, ErrorCode, NewTimestamp};

use crate::stage::{RefusedKind, Stage, StageError, Stat};

const NANOSECONDS: u64 = 1_000_000_000;

/// The code that a guest gets; nothing where the execution ends.
pub(super) fn code_of(error: &StageError) -> Option<ErrorCode> {
    Some(match error {
        StageError::NoEntry => ErrorCode::NoEntry,
        StageError::Exists => ErrorCode::Exist,
        StageError::NotDirectory => ErrorCode::NotDirectory,
        StageError::IsDirectory => ErrorCode::IsDirectory,
        StageError::NotEmpty => ErrorCode::NotEmpty,
        StageError::Invalid => ErrorCode::Invalid,
        StageError::Loop => ErrorCode::Loop,
        StageError::CrossWorkspace => ErrorCode::CrossDevice,
        StageError::BadPath(problem) => match problem {
            PathProblem::Absolute | PathProblem::Escape => ErrorCode::NotPermitted,
            PathProblem::LongComponent | PathProblem::LongPath | PathProblem::TooDeep => ErrorCode::NameTooLong,
            PathProblem::Empty | PathProblem::Dot | PathProblem::TrailingSlash | PathProblem::Control => {
                ErrorCode::Invalid
            }
        },
        StageError::Escape | StageError::Denied(_) | StageError::Reserved | StageError::LinkOrSpecial => {
            ErrorCode::NotPermitted
        }
        StageError::NotComposed => ErrorCode::IllegalByteSequence,
        StageError::NotOpenedFor => ErrorCode::BadDescriptor,
        StageError::Unsupported => ErrorCode::Unsupported,
        StageError::Overflow => ErrorCode::Overflow,
        StageError::Io(errno) => ErrorCode::from(io::Error::from(*errno)),
        StageError::Full { .. } | StageError::Stale { .. } | StageError::Unrecorded { .. } | StageError::Sealed => {
            return None;
        }
    })
}

/// The code as the interface writes it.
pub(super) fn word_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::NoEntry => "no-entry",
        ErrorCode::Exist => "exist",
        ErrorCode::NotDirectory => "not-directory",
        ErrorCode::IsDirectory => "is-directory",
        ErrorCode::NotEmpty => "not-empty",
        ErrorCode::Invalid => "invalid",
        ErrorCode::Loop => "loop",
        ErrorCode::CrossDevice => "cross-device",
        ErrorCode::NotPermitted => "not-permitted",
        ErrorCode::NameTooLong => "name-too-long",
        ErrorCode::BadDescriptor => "bad-descriptor",
        ErrorCode::Unsupported => "unsupported",
        ErrorCode::Overflow => "overflow",
        ErrorCode::Access => "access",
        ErrorCode::IllegalByteSequence => "illegal-byte-sequence",
        ErrorCode::InsufficientSpace => "insufficient-space",
        _ => "io",
    }
}

pub(super) const fn type_of(entry: EntryKind, refused: Option<RefusedKind>) -> DescriptorType {
    match (entry, refused) {
        (EntryKind::File, _) | (EntryKind::Refused, Some(RefusedKind::HardLinked)) => DescriptorType::RegularFile,
        (EntryKind::Directory, _) | (EntryKind::Refused, Some(RefusedKind::Mount)) => DescriptorType::Directory,
        (EntryKind::Symlink, _) => DescriptorType::SymbolicLink,
        (EntryKind::Refused, Some(RefusedKind::Fifo)) => DescriptorType::Fifo,
        (EntryKind::Refused, Some(RefusedKind::Socket)) => DescriptorType::Socket,
        (EntryKind::Refused, Some(RefusedKind::BlockDevice)) => DescriptorType::BlockDevice,
        (EntryKind::Refused, Some(RefusedKind::CharacterDevice)) => DescriptorType::CharacterDevice,
        (EntryKind::Refused, Some(RefusedKind::Unknown) | None) => DescriptorType::Unknown,
    }
}

/// The times of access and change are that of modification: the others depend on who else reads.
pub(super) fn stat_of(stat: &Stat) -> DescriptorStat {
    let time = time_of(stat.modified_ns);
    DescriptorStat {
        type_: type_of(stat.entry, stat.refused),
        link_count: 1,
        size: stat.size,
        data_access_timestamp: time,
        data_modification_timestamp: time,
        status_change_timestamp: time,
    }
}

/// Nothing for times before 1970, which the interface cannot say.
fn time_of(unix_ns: i64) -> Option<Datetime> {
    let unix_ns = u64::try_from(unix_ns).ok()?;
    let nanoseconds = u32::try_from(unix_ns % NANOSECONDS).ok()?;
    Some(Datetime { seconds: unix_ns / NANOSECONDS, nanoseconds })
}

/// A time that a guest sets, in nanoseconds since the Unix epoch; nothing to leave it.
pub(super) fn time_from(stage: &Stage, time: NewTimestamp) -> Result<Option<i64>, StageError> {
    match time {
        NewTimestamp::NoChange => Ok(None),
        NewTimestamp::Now => Ok(Some(stage.now_ns())),
        NewTimestamp::Timestamp(Datetime { seconds, nanoseconds }) => {
            let unix_ns = seconds.checked_mul(NANOSECONDS).and_then(|ns| ns.checked_add(u64::from(nanoseconds)));
            unix_ns.and_then(|ns| i64::try_from(ns).ok()).map(Some).ok_or(StageError::Overflow)
        }
    }
}

pub(super) fn shown(stat: &Stat) -> String {
    let kind = match stat.entry {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Refused => "refused",
    };
    format!("{kind} {} {}", stat.size, stat.modified_ns)
}
