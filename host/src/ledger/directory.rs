//! Directories and files of the state directory: private, durable, and made in one way.
//!
//! Directories have mode 0700 and files 0600. A file appears whole or not at all: a temporary file is written and synced, renamed, and
//! the directory is synced. Secrets that others could have read are refused, not repaired.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _, PermissionsExt as _};

use crate::ambient::Ambient;

/// Bytes of every secret here: an ed25519 seed, an HMAC key.
pub(crate) const SECRET_BYTES: usize = 32;

/// What the name of every temporary file starts with.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Open a directory of the state, with mode 0700; create it and its parents if missing.
///
/// # Errors
/// The file system refuses.
pub(crate) fn open(path: &Path) -> io::Result<Dir> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "a state directory was open to others; its mode is now 0700");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Dir::open_ambient_dir(path, ambient_authority())
}

/// Make the names in a directory durable.
///
/// # Errors
/// The file system refuses.
pub(crate) fn sync(dir: &Dir) -> io::Result<()> {
    dir.open(".")?.sync_all()
}

/// Options to create a private file that does not exist yet.
pub(crate) fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options
}

/// A name for a temporary file that nobody can guess.
pub(crate) fn temporary_name(ambient: &Ambient) -> String {
    format!("{TEMPORARY}{}", ambient.uuid_v7().simple())
}

/// Write a file durably, replacing what was there.
///
/// # Errors
/// The file system refuses; no temporary file is left then.
pub(crate) fn write(dir: &Dir, name: &str, bytes: &[u8], ambient: &Ambient) -> io::Result<()> {
    let temporary = temporary_name(ambient);
    let written = write_new(dir, &temporary, bytes).and_then(|()| dir.rename(&temporary, dir, name));
    if let Err(error) = written {
        let _best_effort = dir.remove_file(&temporary);
        return Err(error);
    }
    sync(dir)
}

fn write_new(dir: &Dir, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = dir.open_with(name, &new_file())?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Read a secret of [`SECRET_BYTES`], or make it at the first start.
///
/// # Errors
/// The file has another size, or others may read it.
pub(crate) fn secret(dir: &Dir, name: &str, ambient: &Ambient) -> io::Result<[u8; SECRET_BYTES]> {
    let mut file = match dir.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let fresh = ambient.random::<SECRET_BYTES>();
            write(dir, name, &fresh, ambient)?;
            return Ok(fresh);
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let problem = format!("`{name}` can be read by others: replace it, or `chmod 600` it if nobody has read it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("`{name}` does not hold {SECRET_BYTES} bytes"));
    if metadata.len() != SECRET_BYTES as u64 {
        return Err(wrong());
    }
    let mut secret = [0_u8; SECRET_BYTES];
    file.read_exact(&mut secret).map_err(|_| wrong())?;
    Ok(secret)
}
