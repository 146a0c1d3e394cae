//! Operations that run on a stage and natively, with answers that can be compared.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use toolkeep_core::plan::EntryKind;
use toolkeep_sandbox::stage::{Handle, OpenHow, StageError};

use super::world::Session;

/// Open files at one time.
pub(crate) const SLOTS: usize = 3;

/// One operation.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Open { slot: usize, path: String, how: OpenHow },
    Close { slot: usize },
    Write { slot: usize, offset: u64, length: usize, byte: u8 },
    Append { slot: usize, length: usize, byte: u8 },
    SetSize { slot: usize, size: u64 },
    Read { slot: usize, offset: u64, length: u64 },
    Size { slot: usize },
    Stat { path: String },
    List { path: String },
    CreateDirectory { path: String },
    RemoveDirectory { path: String },
    Unlink { path: String },
    Rename { from: String, to: String },
    SetTime { path: String, unix_s: u32 },
}

/// What an operation answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Bytes(Vec<u8>),
    Entry(EntryKind, u64),
    Names(Vec<(String, EntryKind)>),
    Error(&'static str),
    /// The slot is empty.
    Skipped,
}

fn error_of(error: &StageError) -> &'static str {
    match error {
        StageError::NoEntry => "no entry",
        StageError::Exists => "exists",
        StageError::NotDirectory => "not a directory",
        StageError::IsDirectory => "is a directory",
        StageError::NotEmpty => "not empty",
        StageError::Invalid => "invalid",
        StageError::NotOpenedFor => "not opened for",
        other => panic!("unexpected error: {other}"),
    }
}

fn error_of_errno(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => "no entry",
        Errno::EXIST => "exists",
        Errno::NOTDIR => "not a directory",
        Errno::ISDIR => "is a directory",
        Errno::NOTEMPTY => "not empty",
        Errno::INVAL => "invalid",
        Errno::BADF => "not opened for",
        other => panic!("unexpected error: {other}"),
    }
}

fn answer<T>(result: Result<T, StageError>, show: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(|error| Answer::Error(error_of(&error)), show)
}

fn native<T>(result: std::io::Result<T>, show: impl FnOnce(T) -> Answer) -> Answer {
    let errno = |error: &std::io::Error| Errno::from_io_error(error).unwrap_or_else(|| panic!("{error}"));
    result.map_or_else(|error| Answer::Error(error_of_errno(errno(&error))), show)
}

/// Runs operations on a stage.
pub(crate) struct Staging<'a> {
    pub(crate) session: &'a Session,
    pub(crate) slots: [Option<Handle>; SLOTS],
}

impl Staging<'_> {
    pub(crate) fn run(&mut self, operation: &Operation) -> Answer {
        let Session { stage, root } = self.session;
        let done = |()| Answer::Done;
        match operation {
            Operation::Open { slot, path, how } => {
                self.slots[*slot] = None;
                answer(stage.open(root, path, *how), |handle| {
                    self.slots[*slot] = (!handle.is_directory()).then_some(handle);
                    Answer::Done
                })
            }
            Operation::Close { slot } => {
                self.slots[*slot] = None;
                Answer::Done
            }
            Operation::Stat { path } => {
                answer(stage.stat_at(root, path, false), |(s, _)| Answer::Entry(s.entry, s.size))
            }
            Operation::List { path } => {
                answer(self.session.open(path, OpenHow { directory: true, ..OpenHow::default() }), |directory| {
                    stage.list(&directory).expect("list");
                    let mut names: Vec<(String, EntryKind)> = Vec::new();
                    loop {
                        let after = names.last().map(|(name, _)| name.as_str());
                        match stage.entry_after(&directory, after).expect("entry") {
                            Some((name, kind, _)) => names.push((name, kind)),
                            None => return Answer::Names(names),
                        }
                    }
                })
            }
            Operation::CreateDirectory { path } => answer(stage.create_directory(root, path), done),
            Operation::RemoveDirectory { path } => answer(stage.remove_directory(root, path), done),
            Operation::Unlink { path } => answer(stage.unlink(root, path), done),
            Operation::Rename { from, to } => answer(stage.rename(root, from, root, to), done),
            Operation::SetTime { path, unix_s } => match stage.stat_at(root, path, false) {
                Ok((stat, _)) if stat.entry == EntryKind::Directory => Answer::Skipped,
                _ => answer(stage.set_times_at(root, path, false, Some(i64::from(*unix_s) * 1_000_000_000)), done),
            },
            Operation::Write { slot, .. }
            | Operation::Append { slot, .. }
            | Operation::SetSize { slot, .. }
            | Operation::Read { slot, .. }
            | Operation::Size { slot } => {
                let Some(file) = &self.slots[*slot] else { return Answer::Skipped };
                self.run_on(file, operation)
            }
        }
    }

    fn run_on(&self, file: &Handle, operation: &Operation) -> Answer {
        let stage = &self.session.stage;
        let done = |()| Answer::Done;
        match operation {
            Operation::Write { offset, length, byte, .. } => {
                answer(stage.write_at(file, *offset, &vec![*byte; *length]), done)
            }
            Operation::Append { length, byte, .. } => answer(stage.append(file, &vec![*byte; *length]), done),
            Operation::SetSize { size, .. } => answer(stage.set_size(file, *size), done),
            Operation::Read { offset, length, .. } => answer(stage.read_at(file, *offset, *length), Answer::Bytes),
            _ => answer(stage.stat(file), |stat| Answer::Entry(stat.entry, stat.size)),
        }
    }
}

/// Runs operations on a directory.
pub(crate) struct Native<'a> {
    pub(crate) root: &'a Path,
    pub(crate) slots: [Option<fs::File>; SLOTS],
}

impl Native<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn open(&self, path: &str, how: OpenHow) -> std::io::Result<fs::File> {
        let mut flags = match (how.read, how.write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        for (wanted, flag) in [
            (how.create, OFlags::CREATE),
            (how.create && how.exclusive, OFlags::EXCL),
            (how.truncate, OFlags::TRUNC),
            (how.directory, OFlags::DIRECTORY),
        ] {
            if wanted {
                flags |= flag;
            }
        }
        Ok(rustix::fs::open(self.at(path), flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))?.into())
    }

    fn kind(&self, path: &str) -> std::io::Result<(EntryKind, u64)> {
        let metadata = fs::symlink_metadata(self.at(path))?;
        Ok(if metadata.is_dir() { (EntryKind::Directory, 0) } else { (EntryKind::File, metadata.len()) })
    }

    pub(crate) fn run(&mut self, operation: &Operation) -> Answer {
        let done = |()| Answer::Done;
        match operation {
            Operation::Open { slot, path, how } => {
                self.slots[*slot] = None;
                native(self.open(path, *how), |file| {
                    self.slots[*slot] = (!file.metadata().expect("metadata").is_dir()).then_some(file);
                    Answer::Done
                })
            }
            Operation::Close { slot } => {
                self.slots[*slot] = None;
                Answer::Done
            }
            Operation::Stat { path } => native(self.kind(path), |(kind, size)| Answer::Entry(kind, size)),
            Operation::List { path } => native(fs::read_dir(self.at(path)), |entries| {
                let mut names: Vec<(String, EntryKind)> = entries
                    .map(|entry| {
                        let entry = entry.expect("entry");
                        let directory = entry.file_type().expect("type").is_dir();
                        let kind = if directory { EntryKind::Directory } else { EntryKind::File };
                        (entry.file_name().into_string().expect("utf-8"), kind)
                    })
                    .collect();
                names.sort_unstable();
                Answer::Names(names)
            }),
            Operation::CreateDirectory { path } => native(fs::create_dir(self.at(path)), done),
            Operation::RemoveDirectory { path } => native(fs::remove_dir(self.at(path)), done),
            Operation::Unlink { path } => {
                let removed = rustix::fs::unlinkat(rustix::fs::CWD, self.at(path), AtFlags::empty());
                native(removed.map_err(Into::into), done)
            }
            Operation::Rename { from, to } => native(fs::rename(self.at(from), self.at(to)), done),
            Operation::SetTime { path, unix_s } => match self.kind(path) {
                Ok((EntryKind::Directory, _)) => Answer::Skipped,
                Ok(_) => {
                    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(*unix_s));
                    let file = fs::File::open(self.at(path)).expect("open");
                    native(file.set_modified(time), done)
                }
                Err(error) => native(Err::<(), _>(error), done),
            },
            Operation::Write { slot, .. }
            | Operation::Append { slot, .. }
            | Operation::SetSize { slot, .. }
            | Operation::Read { slot, .. }
            | Operation::Size { slot } => {
                let Some(file) = &self.slots[*slot] else { return Answer::Skipped };
                run_on_file(file, operation)
            }
        }
    }
}

fn run_on_file(file: &fs::File, operation: &Operation) -> Answer {
    let done = |()| Answer::Done;
    let size = file.metadata().expect("metadata").len();
    match operation {
        // Writing nothing still asks whether the descriptor writes.
        Operation::Write { offset, length, byte, .. } => native(write(file, *offset, &vec![*byte; *length]), done),
        Operation::Append { length, byte, .. } => native(write(file, size, &vec![*byte; *length]), done),
        Operation::SetSize { size, .. } => match rustix::fs::ftruncate(file, *size) {
            Err(Errno::INVAL) => Answer::Error("not opened for"),
            result => native(result.map_err(Into::into), done),
        },
        Operation::Read { offset, length, .. } => {
            let length = usize::try_from(*length).expect("small").min(64 * 1024);
            let mut bytes = vec![0; length];
            native(file.read_at(&mut bytes, *offset), |count| {
                bytes.truncate(count);
                Answer::Bytes(bytes)
            })
        }
        _ => Answer::Entry(EntryKind::File, size),
    }
}

fn write(file: &fs::File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    if bytes.is_empty() { file.write_at(bytes, offset).map(|_| ()) } else { file.write_all_at(bytes, offset) }
}
