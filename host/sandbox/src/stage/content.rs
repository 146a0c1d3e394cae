//! Where staged bytes live: small contents in memory, larger ones in one unlinked spool file.
//!
//! Every content owns a region of the spool, and regions are never used twice, so bytes of one file cannot show through
//! in another. The spool is sparse: a region takes disk only where it was written, and what is cut off or abandoned is
//! punched out. Limits on logical bytes are the tree's; what is bounded here is memory.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use toolkeep_core::digest::{Digest, Hasher};

/// Largest content that is kept in memory, in bytes: most files that tools write are smaller.
pub const MEMORY_CONTENT_MAX_BYTES: u64 = 64 * 1024;
/// Most bytes of all contents of one stage in memory; beyond it small contents go to the spool too.
pub const MEMORY_TOTAL_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes moved at a time between files, and served by one read.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Attempts at a free name where the file system has no anonymous temporary files.
const NAME_ATTEMPTS_MAX: u32 = 16;

static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

/// Where contents go that do not stay in memory: an unlinked file in a directory that the host hands in.
///
/// The file is made when it is first needed and vanishes with its last reader, whatever happens to the process.
#[derive(Debug)]
pub struct Spool {
    directory: Arc<OwnedFd>,
    file: Option<Arc<File>>,
    next: u64,
    memory_bytes: u64,
}

impl Spool {
    /// A spool in `directory`, which must be writable by the daemon alone.
    #[must_use]
    pub const fn new(directory: Arc<OwnedFd>) -> Self {
        Self { directory, file: None, next: 0, memory_bytes: 0 }
    }

    /// An empty spool in the same directory.
    pub(super) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.directory))
    }

    fn file(&mut self) -> io::Result<Arc<File>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::from(unlinked(&self.directory)?));
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    fn region(&mut self, capacity: u64) -> io::Result<Region> {
        let file = self.file()?;
        let offset = self.next;
        let end = offset.checked_add(capacity).ok_or_else(|| io::Error::from(Errno::FBIG))?;
        file.set_len(end)?;
        self.next = end;
        Ok(Region { file, offset, capacity })
    }

    const fn keeps(&self, now: u64, wanted: u64) -> bool {
        wanted <= MEMORY_CONTENT_MAX_BYTES
            && self.memory_bytes.saturating_sub(now).saturating_add(wanted) <= MEMORY_TOTAL_MAX_BYTES
    }

    const fn account(&mut self, before: u64, after: u64) {
        self.memory_bytes = self.memory_bytes.saturating_sub(before).saturating_add(after);
    }
}

fn unlinked(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_raw_mode(0o600);
    match rustix::fs::openat(directory, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
        result => return result,
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    for _ in 0..NAME_ATTEMPTS_MAX {
        let name = format!("spool-{}-{}", std::process::id(), NEXT_NAME.fetch_add(1, Ordering::Relaxed));
        match rustix::fs::openat(directory, &name, flags, mode) {
            Ok(fd) => {
                rustix::fs::unlinkat(directory, &name, rustix::fs::AtFlags::empty())?;
                return Ok(fd);
            }
            Err(Errno::EXIST) => {}
            Err(other) => return Err(other),
        }
    }
    Err(Errno::EXIST)
}

/// A part of the spool that belongs to one content.
#[derive(Debug)]
pub(super) struct Region {
    file: Arc<File>,
    offset: u64,
    capacity: u64,
}

impl Region {
    fn at(&self, offset: u64) -> u64 {
        self.offset.saturating_add(offset)
    }

    /// Make `[from, to)` read as zeros again and give its disk back.
    fn clear(&self, from: u64, to: u64) -> io::Result<()> {
        let length = to.saturating_sub(from);
        if length == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(self.file.as_fd(), flags, self.at(from), length).is_ok() {
            return Ok(());
        }
        let zeros = vec![0; CHUNK_BYTES];
        let mut at = from;
        while at < to {
            let part = usize::try_from(to - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            self.file.write_all_at(zeros.get(..part).unwrap_or(&zeros), self.at(at))?;
            at = at.saturating_add(part as u64);
        }
        Ok(())
    }
}

/// The bytes of one staged file.
#[derive(Debug)]
pub(super) enum Buffer {
    /// At most [`MEMORY_CONTENT_MAX_BYTES`].
    Memory(Vec<u8>),
    /// Anything.
    Spooled {
        /// Where.
        region: Region,
        /// Bytes in use; the region reads as zeros beyond them.
        size: u64,
    },
}

impl Buffer {
    pub(super) const fn empty() -> Self {
        Self::Memory(Vec::new())
    }

    pub(super) const fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Spooled { size, .. } => *size,
        }
    }

    /// At most `length` bytes from `offset`; fewer at the end.
    pub(super) fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let left = self.size().saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(length).min(length);
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(length);
                Ok(bytes.get(start..end).map(<[u8]>::to_vec).unwrap_or_default())
            }
            Self::Spooled { region, .. } => {
                let mut bytes = vec![0; length];
                region.file.read_exact_at(&mut bytes, region.at(offset))?;
                Ok(bytes)
            }
        }
    }

    /// Put `bytes` at `offset`; a gap before it reads as zeros. `offset + bytes.len()` must not overflow.
    pub(super) fn write_at(&mut self, spool: &mut Spool, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        self.reserve(spool, end)?;
        match self {
            Self::Memory(content) => {
                let before = content.len();
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let stop = start.saturating_add(bytes.len());
                if content.len() < stop {
                    content.resize(stop, 0);
                }
                if let Some(target) = content.get_mut(start..stop) {
                    target.copy_from_slice(bytes);
                }
                let after = content.len();
                spool.account(before as u64, after as u64);
            }
            Self::Spooled { region, size } => {
                region.file.write_all_at(bytes, region.at(offset))?;
                *size = (*size).max(end);
            }
        }
        Ok(())
    }

    /// Cut off or extend with zeros.
    pub(super) fn set_size(&mut self, spool: &mut Spool, wanted: u64) -> io::Result<()> {
        self.reserve(spool, wanted)?;
        match self {
            Self::Memory(content) => {
                let before = content.len() as u64;
                content.resize(usize::try_from(wanted).unwrap_or(0), 0);
                spool.account(before, content.len() as u64);
            }
            Self::Spooled { region, size } => {
                region.clear(wanted, *size)?;
                *size = wanted;
            }
        }
        Ok(())
    }

    /// Give everything back.
    pub(super) fn release(&mut self, spool: &mut Spool) {
        match std::mem::replace(self, Self::empty()) {
            Self::Memory(content) => spool.account(content.len() as u64, 0),
            Self::Spooled { region, size } => {
                // What cannot be punched out stays until the spool goes with the execution.
                let _ignored = region.clear(0, size);
            }
        }
    }

    /// Move to a place that holds `end` bytes.
    fn reserve(&mut self, spool: &mut Spool, end: u64) -> io::Result<()> {
        let moved = match self {
            Self::Memory(content) if end <= content.len() as u64 || spool.keeps(content.len() as u64, end) => {
                return Ok(());
            }
            Self::Memory(content) => {
                let region = spool.region(capacity_for(end))?;
                region.file.write_all_at(content, region.at(0))?;
                let size = content.len() as u64;
                spool.account(size, 0);
                Self::Spooled { region, size }
            }
            Self::Spooled { region, .. } if end <= region.capacity => return Ok(()),
            Self::Spooled { region, size } => {
                let larger = spool.region(capacity_for(end))?;
                let mut at = 0;
                while at < *size {
                    let part = usize::try_from(*size - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
                    let mut bytes = vec![0; part];
                    region.file.read_exact_at(&mut bytes, region.at(at))?;
                    larger.file.write_all_at(&bytes, larger.at(at))?;
                    at = at.saturating_add(part as u64);
                }
                let _ignored = region.clear(0, *size);
                Self::Spooled { region: larger, size: *size }
            }
        };
        *self = moved;
        Ok(())
    }

    pub(super) fn digest(&self) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        let mut at = 0;
        while at < self.size() {
            let bytes = self.read_at(at, CHUNK_BYTES)?;
            hasher.update(&bytes);
            at = at.saturating_add(bytes.len() as u64);
        }
        Ok(hasher.finish())
    }

    pub(super) fn into_content(self) -> Content {
        match self {
            Self::Memory(bytes) => Content::Memory(bytes.into()),
            Self::Spooled { region, size } => Content::Spooled { file: region.file, offset: region.offset, size },
        }
    }
}

/// Room for four times as much: a file that grows by appending is moved rarely, and the room is not real until used.
const fn capacity_for(end: u64) -> u64 {
    end.saturating_mul(4).next_multiple_of(CHUNK_BYTES as u64)
}

/// The content of a file after the plan is applied.
#[derive(Clone)]
pub enum Content {
    /// In memory.
    Memory(Arc<[u8]>),
    /// A part of an unlinked file.
    Spooled {
        /// The file.
        file: Arc<File>,
        /// Its first byte there.
        offset: u64,
        /// Bytes.
        size: u64,
    },
}

impl Content {
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Spooled { size, .. } => *size,
        }
    }

    /// A reader over all of it.
    #[must_use]
    pub fn reader(&self) -> ContentReader {
        ContentReader { content: self.clone(), at: 0 }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if matches!(self, Self::Memory(_)) { "memory" } else { "spool" };
        write!(f, "Content({} bytes in {place})", self.size())
    }
}

/// Reads a [`Content`] from its start.
#[derive(Debug)]
pub struct ContentReader {
    content: Content,
    at: u64,
}

impl Read for ContentReader {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.content.size().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = left.min(target.len());
        let Some(target) = target.get_mut(..length) else { return Ok(0) };
        let count = match &self.content {
            Content::Memory(bytes) => {
                let start = usize::try_from(self.at).unwrap_or(usize::MAX);
                bytes.get(start..).unwrap_or_default().read(target)?
            }
            Content::Spooled { file, offset, .. } => file.read_at(target, offset.saturating_add(self.at))?,
        };
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> Spool {
        let directory = File::open(std::env::temp_dir()).expect("temporary directory");
        Spool::new(Arc::new(OwnedFd::from(directory)))
    }

    fn all(buffer: &Buffer) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < buffer.size() {
            bytes.extend(buffer.read_at(bytes.len() as u64, CHUNK_BYTES).expect("read"));
        }
        bytes
    }

    #[test]
    fn a_content_moves_to_the_spool_above_64_kib_and_keeps_its_bytes() {
        let mut spool = spool();
        let mut buffer = Buffer::empty();
        let exact = vec![7; 64 * 1024];
        buffer.write_at(&mut spool, 0, &exact).expect("write");
        assert!(matches!(buffer, Buffer::Memory(_)));
        buffer.write_at(&mut spool, 64 * 1024, &[8]).expect("write");
        assert!(matches!(buffer, Buffer::Spooled { .. }));
        let mut expect = exact;
        expect.push(8);
        assert_eq!(all(&buffer), expect);
        assert_eq!(buffer.digest().expect("digest"), Digest::of(&expect));
        let mut read = Vec::new();
        buffer.into_content().reader().read_to_end(&mut read).expect("read");
        assert_eq!(read, expect);
    }

    #[test]
    fn growing_cutting_and_sparse_gaps_behave_like_a_vector() {
        let mut spool = spool();
        let mut buffer = Buffer::empty();
        let mut model: Vec<u8> = Vec::new();
        for (offset, length, byte) in [(10, 5, 1), (200_000, 3, 2), (100, 70_000, 3), (1_200_000, 9, 4)] {
            if model.len() < offset + length {
                model.resize(offset + length, 0);
            }
            model[offset..offset + length].fill(byte);
            buffer.write_at(&mut spool, offset as u64, &vec![byte; length]).expect("write");
            assert_eq!(all(&buffer), model, "after writing at {offset}");
        }
        for size in [70_005, 10, 900_000, 0, 5] {
            model.resize(size, 0);
            buffer.set_size(&mut spool, size as u64).expect("set size");
            assert_eq!(all(&buffer), model, "after {size}");
        }
    }

    #[test]
    fn t_f7_contents_leave_memory_when_all_together_are_large() {
        let mut spool = spool();
        let part = vec![1; 64 * 1024];
        let fit = usize::try_from(MEMORY_TOTAL_MAX_BYTES / MEMORY_CONTENT_MAX_BYTES).expect("small");
        let mut kept = Vec::new();
        for _ in 0..fit {
            let mut buffer = Buffer::empty();
            buffer.write_at(&mut spool, 0, &part).expect("write");
            assert!(matches!(buffer, Buffer::Memory(_)));
            kept.push(buffer);
        }
        let mut one_more = Buffer::empty();
        one_more.write_at(&mut spool, 0, &[1]).expect("write");
        assert!(matches!(one_more, Buffer::Spooled { .. }));
        kept.pop().expect("one").release(&mut spool);
        let mut again = Buffer::empty();
        again.write_at(&mut spool, 0, &[1]).expect("write");
        assert!(matches!(again, Buffer::Memory(_)));
    }

    #[test]
    fn an_abandoned_content_gives_its_disk_back() {
        use std::os::unix::fs::MetadataExt;
        let mut spool = spool();
        for _ in 0..8 {
            let mut buffer = Buffer::empty();
            buffer.write_at(&mut spool, 0, &vec![1; 1 << 20]).expect("write");
            buffer.release(&mut spool);
        }
        let blocks = spool.file().expect("file").metadata().expect("metadata").blocks();
        assert!(blocks * 512 < 2 << 20, "{blocks} blocks are still in use");
    }
}
