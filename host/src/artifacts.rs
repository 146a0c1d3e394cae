//! Compiled components, cached between starts, and components that were refused.
//!
//! Loading native code trusts it completely, so nothing is handed out that this daemon did not put here: every file carries an
//! HMAC-SHA256 (RFC 2104) over its kind, the component, the engine's fingerprint, its length and the digests of its
//! parts, under a key that only the daemon's user can read. A file that is short, changed, moved or made by another
//! engine is as good as none: the component is compiled again.
//!
//! What is checked is what is loaded, whoever writes to the file meanwhile: native code is copied into an anonymous
//! file, the digests are taken of the bytes that go there, and the file is sealed before anybody gets it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cap_std::fs::Dir;
use hmac::{Hmac, Mac as _};
use rustix::fs::{MemfdFlags, SealFlags};
use sha2::Sha256;
use toolkeep_core::digest::{DIGEST_BYTES, Digest, Hasher};
use toolkeep_sandbox::pool::Native;

use crate::ambient::Ambient;
use crate::ledger::directory::{self, SECRET_BYTES};

/// What every file starts with: kind and format version of the cache.
const MAGIC: &[u8; 8] = b"tkcache2";
/// Bytes of one part of a content, which has a digest of its own so that two threads share the work.
const PART_BYTES: u64 = 256 * 1024;
/// Bytes copied at a time: they stay in the processor's cache between hashing and writing.
const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes of the MAC after it.
const MAC_BYTES: usize = 32;
/// The key's file.
const KEY: &str = "mac.key";
/// Bytes of all files together, at most; the oldest go first. A hundred large components fit.
pub const CACHE_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Refused components that are remembered, at most: a flood of them must not fill the directory.
pub const REFUSED_MAX: usize = 1_000;
/// Longest reason that is kept, in characters.
const REASON_MAX_CHARS: usize = 2_000;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the cache of compiled components cannot be used: {0}")]
pub struct ArtifactError(#[from] io::Error);

/// What a file is; also its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Native,
    Refused,
    Screened,
}

impl Kind {
    const fn ending(self) -> &'static str {
        match self {
            Self::Native => "cwasm",
            Self::Refused => "refused",
            Self::Screened => "screened",
        }
    }
}

/// What a file is about: the component, and under which circumstances it holds.
#[derive(Debug, Clone, Copy)]
struct Subject<'a> {
    kind: Kind,
    component: &'a Digest,
    fingerprint: &'a str,
    limits: &'a str,
}

impl Subject<'_> {
    fn file(&self) -> String {
        let name = Digest::of_parts(
            "toolkeep.artifact.name.v1",
            &[self.component.as_bytes(), self.fingerprint.as_bytes(), self.limits.as_bytes()],
        );
        format!("{}.{}", name.to_hex(), self.kind.ending())
    }
}

#[derive(Debug)]
struct Cache {
    dir: Dir,
    key: [u8; SECRET_BYTES],
    ambient: Ambient,
    /// One at a time decides what is evicted.
    evicting: Mutex<()>,
}

/// The cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Artifacts(Arc<Cache>);

impl Artifacts {
    /// Open the cache in `path` (created with mode 0700); make its key at the first start.
    ///
    /// # Errors
    /// The file system refuses, or others may read the key.
    pub fn open(path: &Path, ambient: &Ambient) -> Result<Self, ArtifactError> {
        let dir = directory::open(path)?;
        let key = directory::secret(&dir, KEY, ambient)?;
        for entry in dir.entries()? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(directory::TEMPORARY)) {
                entry.remove_file()?;
            }
        }
        Ok(Self(Arc::new(Cache { dir, key, ambient: ambient.clone(), evicting: Mutex::default() })))
    }

    /// The native code of a component, made by the engine of this fingerprint. Blocks.
    #[must_use]
    pub fn get(&self, component: &Digest, fingerprint: &str) -> Option<Native> {
        let subject = Subject { kind: Kind::Native, component, fingerprint, limits: "" };
        self.0.checked(&subject, |file, size| match anonymous(size) {
            Ok(copy) => {
                let digests = digests(size, &|at, bytes| {
                    read_exact_at(file, bytes, at)?;
                    copy.write_all_at(bytes, at)
                })?;
                seal(&copy)?;
                Ok((Native::Sealed(Arc::new(copy)), digests))
            }
            // A kernel without anonymous files, or one that keeps them from us.
            Err(_) => in_memory(file, size).map(|(bytes, digests)| (Native::from(bytes), digests)),
        })
    }

    /// The components that were looked at under these rules and found good. Blocks.
    #[must_use]
    pub fn screened(&self, rules: &str) -> BTreeSet<Digest> {
        let bytes = self.0.read(&screened_by(rules)).unwrap_or_default();
        bytes.as_chunks::<DIGEST_BYTES>().0.iter().copied().map(Digest::from_bytes).collect()
    }

    /// Remember which components were looked at under these rules and found good. Blocks.
    pub fn keep_screened(&self, rules: &str, components: &BTreeSet<Digest>) {
        let bytes: Vec<u8> = components.iter().flat_map(|component| component.as_bytes().iter().copied()).collect();
        if let Err(error) = self.0.write(&screened_by(rules), &bytes) {
            tracing::warn!(%error, "the components that are known could not be remembered; the next start takes longer");
        }
    }

    /// Keep the native code of a component. Blocks.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn put(&self, component: &Digest, fingerprint: &str, native: &[u8]) -> Result<(), ArtifactError> {
        self.0.write(&Subject { kind: Kind::Native, component, fingerprint, limits: "" }, native)?;
        Ok(())
    }

    /// Why a component was refused by this engine under these compile limits, if it was. Blocks.
    #[must_use]
    pub fn refused(&self, component: &Digest, fingerprint: &str, limits: &str) -> Option<String> {
        let reason = self.0.read(&Subject { kind: Kind::Refused, component, fingerprint, limits })?;
        String::from_utf8(reason).ok()
    }

    /// Remember that a component was refused, so that the next try costs nothing. Blocks.
    pub fn refuse(&self, component: &Digest, fingerprint: &str, limits: &str, reason: &str) {
        let reason: String = reason.chars().take(REASON_MAX_CHARS).collect();
        let subject = Subject { kind: Kind::Refused, component, fingerprint, limits };
        if let Err(error) = self.0.write(&subject, reason.as_bytes()) {
            tracing::warn!(%error, %component, "a refused component could not be remembered");
        }
    }
}

/// The one list of components that were found good under these rules; it is about none of them alone.
fn screened_by(rules: &str) -> Subject<'_> {
    const NONE: &Digest = &Digest::from_bytes([0; DIGEST_BYTES]);
    Subject { kind: Kind::Screened, component: NONE, fingerprint: rules, limits: "" }
}

/// An empty file without a name, with room for `size` bytes.
fn anonymous(size: u64) -> io::Result<File> {
    let file = rustix::fs::memfd_create("toolkeep-native", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let file = File::from(file);
    file.set_len(size)?;
    Ok(file)
}

/// From here on nobody can change the file, we neither.
fn seal(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?)
}

/// The bytes at a place in the content, which begins after magic and MAC.
fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(bytes, at.saturating_add((MAGIC.len() + MAC_BYTES) as u64))
}

/// The whole content, and the digests of its parts.
fn in_memory(file: &File, size: u64) -> io::Result<(Vec<u8>, Vec<Digest>)> {
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    read_exact_at(file, &mut bytes, 0)?;
    let digests = digests_of(&bytes);
    Ok((bytes, digests))
}

/// The digests of the parts of a content.
fn digests_of(content: &[u8]) -> Vec<Digest> {
    content.chunks(usize::try_from(PART_BYTES).unwrap_or(usize::MAX)).map(Digest::of).collect()
}

/// The digests of the parts of a content of `size` bytes that `fetch` gives piece by piece, on two threads.
fn digests(size: u64, fetch: &(dyn Fn(u64, &mut [u8]) -> io::Result<()> + Sync)) -> io::Result<Vec<Digest>> {
    let (parts, next) = (size.div_ceil(PART_BYTES), AtomicU64::new(0));
    let work = || {
        let (mut done, mut chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return Ok::<_, io::Error>(done);
            }
            let (mut at, end) = (part * PART_BYTES, size.min((part + 1) * PART_BYTES));
            let mut hasher = Hasher::new();
            while at < end {
                let length = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
                let bytes = chunk.get_mut(..length).unwrap_or_default();
                fetch(at, bytes)?;
                hasher.update(bytes);
                at += length as u64;
            }
            done.push((part, hasher.finish()));
        }
    };
    let mut digests = std::thread::scope(|scope| {
        // Without a second thread, or for a single part, this one does it all.
        let beside = (parts > 1).then(|| std::thread::Builder::new().spawn_scoped(scope, work).ok()).flatten();
        let mut done = work()?;
        if let Some(beside) = beside {
            done.extend(beside.join().map_err(|_| io::Error::other("BUG: a thread that checks a file panicked"))??);
        }
        Ok::<_, io::Error>(done)
    })?;
    digests.sort_unstable_by_key(|(part, _)| *part);
    Ok(digests.into_iter().map(|(_, digest)| digest).collect())
}

impl Cache {
    /// The MAC over everything that must not be mistaken, each part preceded by its length.
    fn mac(&self, subject: &Subject<'_>, size: u64, digests: &[Digest]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        let (size, digests) = (size.to_be_bytes(), digests.iter().flat_map(Digest::as_bytes).copied());
        let digests: Vec<u8> = digests.collect();
        let parts: [&[u8]; 7] = [
            MAGIC,
            subject.kind.ending().as_bytes(),
            subject.component.as_bytes(),
            subject.fingerprint.as_bytes(),
            subject.limits.as_bytes(),
            &size,
            &digests,
        ];
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Some(mac)
    }

    fn read(&self, subject: &Subject<'_>) -> Option<Vec<u8>> {
        self.checked(subject, in_memory)
    }

    /// What `take` makes of the content of a file, if the digests that it took on the way are those under the MAC.
    fn checked<T>(
        &self,
        subject: &Subject<'_>,
        take: impl FnOnce(&File, u64) -> io::Result<(T, Vec<Digest>)>,
    ) -> Option<T> {
        let name = subject.file();
        let mut file = self.dir.open(&name).ok()?.into_std();
        let (mut magic, mut tag) = ([0_u8; MAGIC.len()], [0_u8; MAC_BYTES]);
        let read = file.read_exact(&mut magic).and_then(|()| file.read_exact(&mut tag)).and_then(|()| {
            let size = file.metadata()?.len().saturating_sub((MAGIC.len() + MAC_BYTES) as u64);
            take(&file, size).map(|(taken, digests)| (size, taken, digests))
        });
        if let Ok((size, taken, digests)) = read
            && &magic == MAGIC
            && self.mac(subject, size, &digests).is_some_and(|mac| mac.verify_slice(&tag).is_ok())
        {
            return Some(taken);
        }
        tracing::warn!(file = name, "a file of the component cache is not genuine; it is removed");
        let _best_effort = self.dir.remove_file(&name);
        None
    }

    fn write(&self, subject: &Subject<'_>, content: &[u8]) -> io::Result<()> {
        let mac = self.mac(subject, content.len() as u64, &digests_of(content));
        let mac = mac.ok_or_else(|| io::Error::other("the key has a wrong length"))?;
        let size = (MAGIC.len() + MAC_BYTES + content.len()) as u64;
        self.make_room(subject.kind, size)?;
        let temporary = directory::temporary_name(&self.ambient);
        let tag = mac.finalize().into_bytes();
        let written = self
            .dir
            .open_with(&temporary, &directory::new_file())
            .and_then(|mut file| {
                file.write_all(MAGIC)?;
                file.write_all(&tag)?;
                file.write_all(content)?;
                // A cache: what a power loss tears fails its MAC and is made again.
                file.flush()
            })
            .and_then(|()| self.dir.rename(&temporary, &self.dir, subject.file()));
        if written.is_err() {
            let _best_effort = self.dir.remove_file(&temporary);
        }
        written
    }

    /// Remove the oldest files until a new one of `size` bytes fits.
    fn make_room(&self, kind: Kind, size: u64) -> io::Result<()> {
        let _turn = self.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = Vec::new();
        for entry in self.dir.entries()? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = [Kind::Native, Kind::Refused]
                .into_iter()
                .find(|kind| name.strip_suffix(kind.ending()).is_some_and(|stem| stem.ends_with('.')));
            if let (Some(kind), Ok(metadata)) = (kind, entry.metadata()) {
                let written = metadata.modified().map(cap_std::time::SystemTime::into_std).ok();
                files.push((written, name, kind, metadata.len()));
            }
        }
        files.sort_unstable_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let mut bytes: u64 = files.iter().map(|file| file.3).sum();
        let mut refused = files.iter().filter(|file| file.2 == Kind::Refused).count();
        for (_, name, old, length) in files {
            let too_large = bytes.saturating_add(size) > CACHE_MAX_BYTES;
            let too_many = kind == Kind::Refused && refused >= REFUSED_MAX;
            if !too_large && !too_many {
                break;
            }
            if too_large || old == Kind::Refused {
                self.dir.remove_file(&name)?;
                bytes = bytes.saturating_sub(length);
                refused -= usize::from(old == Kind::Refused);
            }
        }
        Ok(())
    }
}
