//! Compiled components, cached between starts, and components that were refused.
//!
//! Loading native code trusts it completely, so nothing is handed out that this daemon did not put here: every file carries an
//! HMAC-SHA256 (RFC 2104) over its kind, the component, the engine's fingerprint and its content, under a key that only
//! the daemon's user can read. A file that is short, changed, moved or made by another engine is as good as none:
//! the component is compiled again.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cap_std::fs::Dir;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use toolkeep_core::digest::Digest;

use crate::ambient::Ambient;
use crate::ledger::directory::{self, SECRET_BYTES};

/// What every file starts with: kind and format version of the cache.
const MAGIC: &[u8; 8] = b"tkcache1";
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
}

impl Kind {
    const fn ending(self) -> &'static str {
        match self {
            Self::Native => "cwasm",
            Self::Refused => "refused",
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
    pub fn get(&self, component: &Digest, fingerprint: &str) -> Option<Vec<u8>> {
        self.0.read(&Subject { kind: Kind::Native, component, fingerprint, limits: "" })
    }

    /// Whether native code of a component seems to be here: a hint, not checked by its MAC. Blocks.
    #[must_use]
    pub fn has(&self, component: &Digest, fingerprint: &str) -> bool {
        let subject = Subject { kind: Kind::Native, component, fingerprint, limits: "" };
        self.0.dir.exists(subject.file())
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

impl Cache {
    /// The MAC over everything that must not be mistaken, each part preceded by its length.
    fn mac(&self, subject: &Subject<'_>, content: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        let parts: [&[u8]; 6] = [
            MAGIC,
            subject.kind.ending().as_bytes(),
            subject.component.as_bytes(),
            subject.fingerprint.as_bytes(),
            subject.limits.as_bytes(),
            content,
        ];
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Some(mac)
    }

    fn read(&self, subject: &Subject<'_>) -> Option<Vec<u8>> {
        let name = subject.file();
        let mut file = self.dir.open(&name).ok()?;
        let (mut magic, mut tag) = ([0_u8; MAGIC.len()], [0_u8; MAC_BYTES]);
        let mut content = Vec::new();
        let read = file
            .read_exact(&mut magic)
            .and_then(|()| file.read_exact(&mut tag))
            .and_then(|()| file.read_to_end(&mut content));
        let genuine = read.is_ok()
            && &magic == MAGIC
            && self.mac(subject, &content).is_some_and(|mac| mac.verify_slice(&tag).is_ok());
        if genuine {
            return Some(content);
        }
        tracing::warn!(file = name, "a file of the component cache is not genuine; it is removed");
        let _best_effort = self.dir.remove_file(&name);
        None
    }

    fn write(&self, subject: &Subject<'_>, content: &[u8]) -> io::Result<()> {
        let mac = self.mac(subject, content).ok_or_else(|| io::Error::other("the key has a wrong length"))?;
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
