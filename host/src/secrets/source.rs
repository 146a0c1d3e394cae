//! Reading secrets from where they lie: a file that only we can read, or what a program prints.
//!
//! A source is read for each use, so that a rotated secret is in force with the next request. What is wrong with a source
//! is for the operator: the errors here name paths, and never contents.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::config::Source;
use super::secret::{NotASecret, SECRET_MAX_BYTES, Secret};
use crate::ambient::Ambient;

/// Most bytes taken from a source: a secret and its line break.
const SOURCE_MAX_BYTES: usize = SECRET_MAX_BYTES + 2;
/// Permission bits of others than the owner.
const OTHERS: u32 = 0o077;
/// The same for a credential: systemd lets the service's user in by an access list, whose mask shows as the group's bits.
const OTHERS_CREDENTIAL: u32 = 0o037;
/// Permission bits by which others than the owner change a file.
const OTHERS_WRITE: u32 = 0o022;

/// Why a source gives no secret.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The operating system refuses.
    #[error("`{path}`: {source}; name what is there and can be used by the daemon's user")]
    Io {
        /// The file or program.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is a device, a directory, a pipe.
    #[error("`{0}` is not a regular file; name one")]
    NotAFile(PathBuf),
    /// The file is a symbolic link where none is followed, or one that leads nowhere.
    #[error("`{0}` is not a regular file; name the file itself, not a link to it")]
    Link(PathBuf),
    /// Somebody else owns it.
    #[error("`{path}` belongs to uid {owner}; it must belong to the daemon's user, uid {wanted}, or to root")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it must be.
        wanted: u32,
    },
    /// Others can read or change it.
    #[error("`{path}` has mode {mode:04o}, so that others can use it; run `chmod {wanted:04o}` on it")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// What they must be.
        wanted: u32,
    },
    /// systemd gave us no credentials.
    #[error("`$CREDENTIALS_DIRECTORY` is not set; add `LoadCredential={0}:PATH` to the unit")]
    NoCredentials(String),
    /// The program took too long.
    #[error("`{path}` gave nothing within {} s", .time.as_secs())]
    Time {
        /// The program.
        path: PathBuf,
        /// How long it had.
        time: Duration,
    },
    /// The program failed.
    #[error("`{path}` ended with {status}")]
    Failed {
        /// The program.
        path: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// What it gave is not a secret.
    #[error("the value is no secret: {0}")]
    Value(#[from] NotASecret),
}

/// Read the value now.
pub(super) async fn read(source: &Source, ambient: &Ambient) -> Result<Secret, SourceError> {
    let bytes = match source {
        Source::Systemd(name) => {
            let folder = ambient.var("CREDENTIALS_DIRECTORY").filter(|folder| folder.starts_with('/'));
            let folder = folder.ok_or_else(|| SourceError::NoCredentials(name.clone()))?;
            file(PathBuf::from(folder).join(name), OTHERS_CREDENTIAL).await?
        }
        Source::File(path) => file(path.clone(), OTHERS).await?,
        Source::Exec { program, arguments, time } => exec(program, arguments, *time).await?,
    };
    Ok(Secret::new(bytes)?)
}

async fn file(path: PathBuf, forbidden: u32) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let failed = SourceError::Io { path: path.clone(), source: std::io::ErrorKind::Interrupted.into() };
    tokio::task::spawn_blocking(move || file_now(&path, forbidden)).await.unwrap_or(Err(failed))
}

fn file_now(path: &Path, forbidden: u32) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    contents(path, OFlags::NOFOLLOW, forbidden, SOURCE_MAX_BYTES)
}

/// What is in a file of our own or root's that nobody else can read, up to one byte more than `most`. A link to it is followed,
/// because programs that renew keys put links; what counts is the file itself.
///
/// # Errors
/// It cannot be opened, is no regular file, belongs to somebody else, or others can read it.
pub(crate) fn private_file(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    contents(path, OFlags::empty(), OTHERS, most)
}

/// What is in a regular file of anybody's, up to one byte more than `most`. Links are followed.
///
/// # Errors
/// It cannot be opened, or is no regular file.
pub(crate) fn public_file(path: &Path, most: usize) -> Result<Vec<u8>, SourceError> {
    let (file, _) = opened(path, OFlags::empty())?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|source| failed(path, source))?;
    Ok(bytes)
}

fn contents(path: &Path, links: OFlags, forbidden: u32, most: usize) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let (file, stat) = opened(path, links)?;
    check(path, &stat, forbidden, 0o600)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|source| failed(path, source))?;
    Ok(bytes)
}

fn failed(path: &Path, source: std::io::Error) -> SourceError {
    SourceError::Io { path: path.to_path_buf(), source }
}

/// Open a regular file, never waiting for whoever would write into a pipe.
fn opened(path: &Path, links: OFlags) -> Result<(std::fs::File, rustix::fs::Stat), SourceError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY | links;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::LOOP => SourceError::Link(path.to_path_buf()),
        errno => failed(path, errno.into()),
    })?;
    let stat = rustix::fs::fstat(&opened).map_err(|errno| failed(path, errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(SourceError::NotAFile(path.to_path_buf()));
    }
    Ok((std::fs::File::from(opened), stat))
}

/// A regular file of our own or root's, with none of the `forbidden` permissions.
fn check(path: &Path, stat: &rustix::fs::Stat, forbidden: u32, wanted: u32) -> Result<(), SourceError> {
    let path = path.to_path_buf();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(SourceError::NotAFile(path));
    }
    let own = rustix::process::geteuid().as_raw();
    if stat.st_uid != own && stat.st_uid != 0 {
        return Err(SourceError::Owner { path, owner: stat.st_uid, wanted: own });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & forbidden != 0 {
        return Err(SourceError::Mode { path, mode, wanted });
    }
    Ok(())
}

/// Run a program without shell, environment, input or terminal, in a process group of its own, and take what it prints.
async fn exec(program: &Path, arguments: &[String], time: Duration) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let io = |source: std::io::Error| SourceError::Io { path: program.to_path_buf(), source };
    let stat = rustix::fs::stat(program).map_err(|errno| io(errno.into()))?;
    check(program, &stat, OTHERS_WRITE, 0o755)?;
    #[expect(clippy::disallowed_methods, reason = "the operator's own helper, by absolute path and without a shell")]
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env_clear().current_dir("/").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(io)?;
    let group = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    let mut output = child.stdout.take();
    let mut bytes = Zeroizing::new(Vec::with_capacity(SOURCE_MAX_BYTES + 1));
    let run = async {
        if let Some(output) = &mut output {
            output.take(SOURCE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
        }
        // A program that prints on would wait for a reader for ever.
        if bytes.len() > SOURCE_MAX_BYTES {
            return Ok(None);
        }
        child.wait().await.map(Some)
    };
    let ended = tokio::time::timeout(time, run).await;
    if !matches!(ended, Ok(Ok(Some(_))))
        && let Some(group) = group
    {
        // It may have ended meanwhile; then there is nothing to kill.
        let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    match ended {
        Err(_) => Err(SourceError::Time { path: program.to_path_buf(), time }),
        Ok(Err(source)) => Err(io(source)),
        Ok(Ok(Some(status))) if !status.success() => Err(SourceError::Failed { path: program.to_path_buf(), status }),
        Ok(Ok(_)) => Ok(bytes),
    }
}
