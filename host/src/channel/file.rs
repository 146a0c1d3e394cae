//! A file that messages are appended to, one JSON object a line, each with the delivery's id.
//!
//! A line is written with one call, flushed, and only then counts. A line that a crash or a full disk cut off is ended by
//! the next one, so that a reader loses that line alone and finds the same id again further on. The file is never followed
//! through a link, and is made private.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::payload::payload;
use super::{NotTaken, Parcel};

/// A file of the operator.
#[derive(Debug, Clone)]
pub struct FileChannel {
    path: PathBuf,
    /// One line at a time: two halves in one line would be neither.
    writing: Arc<Mutex<()>>,
}

impl FileChannel {
    /// The file at this absolute path. It is made when it is first written to; its folder has to exist.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, writing: Arc::default() }
    }

    pub(super) async fn send(&self, parcel: &Parcel) -> Result<String, NotTaken> {
        let mut line = payload(parcel);
        if let Value::Object(members) = &mut line {
            members.insert("id".to_owned(), json!(parcel.id));
        }
        let line = format!("{line}\n");
        let (channel, clearance) = (self.clone(), parcel.clearance.clone());
        let written = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = channel.writing.lock().unwrap_or_else(PoisonError::into_inner);
            if clearance.allows() { append(&channel.path, line.as_bytes()).map(Some) } else { Ok(None) }
        });
        match written.await {
            Ok(Ok(None)) => Err(NotTaken::Withheld),
            Ok(Ok(Some(bytes))) => Ok(format!("{bytes} bytes appended")),
            Ok(Err(error)) => Err(NotTaken::later(format!("the file cannot be written: {error}"))),
            Err(_) => Err(NotTaken::later("BUG: the task that writes the file panicked")),
        }
    }
}

/// Append a line, or several, and flush them. Returns how many bytes were written.
pub(crate) fn append(path: &Path, line: &[u8]) -> Result<usize, Errno> {
    let (file, fresh) = open(path)?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let mut text = Vec::with_capacity(line.len() + 1);
    if stat.st_size > 0 && !ends_with_a_line_break(&file, stat.st_size)? {
        text.push(b'\n');
    }
    text.extend_from_slice(line);
    let mut rest = text.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    rustix::fs::fsync(&file)?;
    if fresh && let Some(folder) = path.parent() {
        let folder = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::fsync(folder)?;
    }
    Ok(text.len())
}

/// Open it for appending; true if it did not exist.
fn open(path: &Path) -> Result<(OwnedFd, bool), Errno> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            let made = rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)?;
            Ok((made, true))
        }
        opened => opened.map(|file| (file, false)),
    }
}

fn ends_with_a_line_break(file: &OwnedFd, size: i64) -> Result<bool, Errno> {
    let mut last = [0_u8];
    let at = u64::try_from(size).unwrap_or(0).saturating_sub(1);
    let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut last, at))?;
    Ok(read == 1 && last == *b"\n")
}
