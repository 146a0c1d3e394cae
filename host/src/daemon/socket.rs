//! The two sockets on disk: directories, lock, stale files, permissions.
//!
//! `agent/` (0750, or the configured group's) and `admin/` (0700) are made, owned and tightened by the daemon; a directory
//! that somebody else owns, or a link in its place, is refused. A socket file is removed only while the lock is held and
//! after a connection to it failed, so that two daemons can never fight over one path. The lock is the kernel's
//! (`flock`): it ends with the process, however that ends.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use tokio::net::UnixListener;

/// Name of the lock file in the runtime and the state directory.
pub const LOCK_NAME: &str = "toolkeep.lock";
/// Longest path of a Unix socket on Linux, in bytes (`sun_path` less its NUL).
pub const SOCKET_PATH_MAX_BYTES: usize = 107;

/// Why the sockets cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon holds the lock.
    #[error(
        "another toolkeep daemon is using `{0}`; stop it, or set another `daemon.runtime_dir` and `daemon.state_dir`"
    )]
    Taken(PathBuf),
    /// Somebody answers on the socket.
    #[error("another process listens on `{0}`; stop it, or set another `daemon.runtime_dir`")]
    Live(PathBuf),
    /// What is there is not a socket.
    #[error("`{0}` is in the way and is not a socket; move it")]
    InTheWay(PathBuf),
    /// A directory belongs to somebody else, or is a link.
    #[error("`{path}` {problem}; the daemon wants a directory of its own there")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The path does not fit into a socket address.
    #[error("the socket path `{0}` is longer than 107 bytes; set a shorter one (`daemon.runtime_dir`)")]
    TooLong(PathBuf),
    /// The system refused.
    #[error("cannot {what} `{path}`: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Paths of the sockets beneath a runtime directory.
#[derive(Debug, Clone)]
pub struct SocketPaths {
    /// Where agents connect.
    pub agent: PathBuf,
    /// Where agents connect that speak MCP.
    pub mcp: PathBuf,
    /// Where operators connect.
    pub admin: PathBuf,
    /// The token that operators need who share a uid with an agent.
    pub admin_token: PathBuf,
}

impl SocketPaths {
    /// The paths beneath `runtime_dir`.
    #[must_use]
    pub fn beneath(runtime_dir: &Path) -> Self {
        Self {
            agent: runtime_dir.join("agent/agent.sock"),
            mcp: runtime_dir.join("agent/mcp.sock"),
            admin: runtime_dir.join("admin/admin.sock"),
            admin_token: runtime_dir.join("admin/token"),
        }
    }
}

/// The right to be the only daemon on a directory, as long as it lives.
#[derive(Debug)]
#[must_use = "the lock ends when this is dropped"]
pub struct DirectoryLock {
    _file: OwnedFd,
}

/// Lock `directory`, which is created with `mode` if there is none. One that is there keeps its permissions, because it
/// may hold more than ours, but nobody else may be able to write to it.
///
/// # Errors
/// Another daemon holds it, others own it or may write to it, or the system refuses.
pub fn claim(directory: &Path, mode: u32) -> Result<DirectoryLock, SocketError> {
    match std::fs::symlink_metadata(directory) {
        Ok(_) => check_own(directory, OTHERS_WRITE)?,
        Err(_) => own_directory(directory, mode, None)?,
    }
    let path = directory.join(LOCK_NAME);
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(system("open the lock", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DirectoryLock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SocketError::Taken(directory.to_path_buf())),
        Err(error) => Err(system("lock", &path)(error)),
    }
}

/// A listening socket whose file goes away with it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Listen at `path`, in a directory of its own.
    ///
    /// The caller holds the lock of the runtime directory, which `_lock` shows.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub(super) fn open(path: &Path, access: Access, lock: &DirectoryLock) -> Result<Self, SocketError> {
        fits(path)?;
        if let Some(directory) = path.parent() {
            own_directory(directory, access.directory_mode, access.group)?;
        }
        Self::listen(path, access, lock)
    }

    /// Listen at `path`, wherever the configuration has put it. A directory that is there may be for more than this socket,
    /// and keeps its permissions; nobody else may be able to write to it.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub(super) fn open_in(path: &Path, access: Access, lock: &DirectoryLock) -> Result<Self, SocketError> {
        fits(path)?;
        if let Some(directory) = path.parent() {
            match std::fs::symlink_metadata(directory) {
                Ok(_) => check_own(directory, OTHERS_WRITE)?,
                Err(_) => own_directory(directory, access.directory_mode, access.group)?,
            }
        }
        Self::listen(path, access, lock)
    }

    fn listen(path: &Path, access: Access, _lock: &DirectoryLock) -> Result<Self, SocketError> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(|source| SocketError::System {
            what: "listen on",
            path: path.to_path_buf(),
            source,
        })?;
        set_access(path, access.socket_mode, access.group)?;
        Ok(Self { listener, path: path.to_path_buf() })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the socket file is already gone");
        }
    }
}

/// Who may reach a socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    directory_mode: u32,
    socket_mode: u32,
    /// Group that the modes speak of; the daemon's own if absent.
    group: Option<u32>,
}

impl Access {
    /// The agent plane: the owner and one group.
    pub(super) const fn agent(group: Option<u32>) -> Self {
        Self { directory_mode: 0o750, socket_mode: 0o660, group }
    }

    /// The admin plane: the owner alone.
    pub(super) const fn admin() -> Self {
        Self { directory_mode: 0o700, socket_mode: 0o600, group: None }
    }
}

/// Refuse a path that is no address of a socket.
fn fits(path: &Path) -> Result<(), SocketError> {
    let long = path.as_os_str().len() > SOCKET_PATH_MAX_BYTES;
    if long { Err(SocketError::TooLong(path.to_path_buf())) } else { Ok(()) }
}

/// Create the directory or take the one that is there, if it is ours, and set exactly these permissions.
fn own_directory(path: &Path, mode: u32, group: Option<u32>) -> Result<(), SocketError> {
    std::fs::create_dir_all(path).map_err(system("create", path))?;
    check_own(path, 0)?;
    set_access(path, mode, group)
}

/// Permission bits with which others could replace what is in a directory.
const OTHERS_WRITE: u32 = 0o022;

/// Refuse what is not a directory of this user, or has one of the `forbidden` permission bits.
fn check_own(path: &Path, forbidden: u32) -> Result<(), SocketError> {
    let found = std::fs::symlink_metadata(path).map_err(system("look at", path))?;
    let refuse = |problem: String| SocketError::Directory { path: path.to_path_buf(), problem };
    if !found.is_dir() {
        return Err(refuse("is not a directory".to_owned()));
    }
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own {
        return Err(refuse(format!("belongs to uid {}, not to uid {own}", found.uid())));
    }
    if found.mode() & forbidden != 0 {
        return Err(refuse(format!("may be written by others (mode {:03o})", found.mode() & 0o777)));
    }
    Ok(())
}

fn set_access(path: &Path, mode: u32, group: Option<u32>) -> Result<(), SocketError> {
    if let Some(group) = group {
        std::os::unix::fs::lchown(path, None, Some(group)).map_err(system("give to the agent group", path))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(system("set the permissions of", path))
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system("look at", path)(error)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::InTheWay(path.to_path_buf()));
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(SocketError::Live(path.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(system("remove the stale socket", path))
        }
        Err(error) => Err(system("probe the socket", path)(error)),
    }
}

fn system<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> SocketError {
    let path = path.to_path_buf();
    move |error| SocketError::System { what, path, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test alone, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tk-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("scratch");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("remove the scratch directory");
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).expect("there").mode() & 0o777
    }

    #[test]
    fn a_directory_is_claimed_once() {
        let scratch = Scratch::new("claim");
        let directory = scratch.0.join("run");
        let lock = claim(&directory, 0o755).expect("first");
        assert!(matches!(claim(&directory, 0o755), Err(SocketError::Taken(path)) if path == directory));
        drop(lock);
        assert!(claim(&directory, 0o700).is_ok());
        assert_eq!(mode(&directory), 0o755, "what was there keeps its permissions");
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o775)).expect("chmod");
        assert!(
            matches!(claim(&directory, 0o700), Err(SocketError::Directory { .. })),
            "others could replace the lock"
        );
    }

    #[tokio::test]
    async fn t_i6_directories_and_sockets_get_their_permissions_whatever_was_there() {
        let scratch = Scratch::new("modes");
        let lock = claim(&scratch.0, 0o755).expect("lock");
        let paths = SocketPaths::beneath(&scratch.0);
        std::fs::create_dir(scratch.0.join("admin")).expect("dir");
        std::fs::set_permissions(scratch.0.join("admin"), std::fs::Permissions::from_mode(0o777)).expect("chmod");
        let agent = Door::open(&paths.agent, Access::agent(None), &lock).expect("agent");
        let _admin = Door::open(&paths.admin, Access::admin(), &lock).expect("admin");
        assert_eq!((mode(&scratch.0.join("agent")), mode(&paths.agent)), (0o750, 0o660));
        assert_eq!((mode(&scratch.0.join("admin")), mode(&paths.admin)), (0o700, 0o600));
        drop(agent);
        assert!(!paths.agent.exists(), "the file goes with the door");
    }

    #[tokio::test]
    async fn t_i6_a_directory_that_is_there_keeps_its_permissions_where_the_socket_is_not_alone() {
        let scratch = Scratch::new("beside");
        let lock = claim(&scratch.0, 0o755).expect("lock");
        let shared = scratch.0.join("shared");
        std::fs::create_dir(&shared).expect("dir");
        let chmod = |mode| std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(mode)).expect("chmod");
        let open = |path: &Path| Door::open_in(path, Access::agent(None), &lock);
        for kept in [0o755, 0o700, 0o711] {
            chmod(kept);
            let door = open(&shared.join("http.sock")).expect("a door");
            assert_eq!((mode(&shared), mode(&door.path)), (kept, 0o660));
        }
        for open_to_others in [0o775, 0o777, 0o757] {
            chmod(open_to_others);
            assert!(matches!(open(&shared.join("http.sock")), Err(SocketError::Directory { .. })));
            assert_eq!(mode(&shared), open_to_others, "what is refused is left as it is");
        }
        let _door = open(&scratch.0.join("new/http.sock")).expect("a door");
        assert_eq!(mode(&scratch.0.join("new")), 0o750, "one that it makes is for its socket");
    }

    #[tokio::test]
    async fn t_i6_only_a_dead_socket_is_removed() {
        let scratch = Scratch::new("stale");
        let lock = claim(&scratch.0, 0o755).expect("lock");
        let path = SocketPaths::beneath(&scratch.0).agent;
        std::fs::create_dir(scratch.0.join("agent")).expect("dir");

        std::fs::write(&path, "precious").expect("file");
        assert!(matches!(Door::open(&path, Access::agent(None), &lock), Err(SocketError::InTheWay(_))));
        assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
        std::fs::remove_file(&path).expect("remove");

        let live = std::os::unix::net::UnixListener::bind(&path).expect("live");
        assert!(matches!(Door::open(&path, Access::agent(None), &lock), Err(SocketError::Live(_))));
        drop(live);
        assert!(Door::open(&path, Access::agent(None), &lock).is_ok(), "nobody listens any more");
    }

    #[test]
    fn a_link_in_place_of_a_directory_and_a_long_path_are_refused() {
        let scratch = Scratch::new("link");
        std::os::unix::fs::symlink("/tmp", scratch.0.join("run")).expect("link");
        assert!(matches!(claim(&scratch.0.join("run"), 0o700), Err(SocketError::Directory { .. })));
        let lock = claim(&scratch.0, 0o755).expect("lock");
        let path = scratch.0.join("x".repeat(200));
        assert!(matches!(Door::open(&path, Access::admin(), &lock), Err(SocketError::TooLong(_))));
    }
}
