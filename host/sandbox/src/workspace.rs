//! Workspace roots: the directories that an operator lets tools see, opened once and shared.
//!
//! A root is the only place where a host path is taken from configuration; everything else is relative to its handle
//! and goes through [`crate::beneath`]. A root on a pseudo file system (`proc`, `sysfs`, …) is refused: its files are
//! doors into the kernel, not data.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::FsWord;
use toolkeep_core::id::WorkspaceName;

/// File-system types whose files act on the kernel or on other processes (`linux/magic.h`).
const REFUSED_FILE_SYSTEMS: [(FsWord, &str); 17] = [
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x1cd1, "devpts"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x6265_6570, "configfs"),
    (0xcafe_4a11, "bpf"),
    (0x6165_676c, "pstore"),
    (0xde5e_81e4, "efivarfs"),
    (0x1980_0202, "mqueue"),
    (0x6e73_6673, "nsfs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6573_5543, "fusectl"),
];

/// An opened workspace directory.
#[derive(Debug)]
pub struct WorkspaceRoot {
    name: WorkspaceName,
    fd: OwnedFd,
    device: u64,
}

/// Why a directory cannot be a workspace.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// It cannot be opened as a directory.
    #[error("workspace `{name}`: cannot open its directory: {cause}; create it, or correct its path")]
    Open {
        /// The workspace.
        name: WorkspaceName,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It lies on a file system that is not data.
    #[error("workspace `{name}` lies on `{kind}`, which is not a place for data; choose another directory")]
    PseudoFileSystem {
        /// The workspace.
        name: WorkspaceName,
        /// The file system.
        kind: &'static str,
    },
}

impl WorkspaceRoot {
    /// Open the directory at `host_path`, links in that path included: it is the operator's word.
    ///
    /// # Errors
    /// It is no directory, may not be read, or lies on a pseudo file system.
    pub fn open(name: WorkspaceName, host_path: &Path) -> Result<Self, WorkspaceError> {
        let failed = |cause: std::io::Error| WorkspaceError::Open { name: name.clone(), cause };
        let dir = Dir::open_ambient_dir(host_path, ambient_authority()).map_err(failed)?;
        let fd = OwnedFd::from(dir.into_std_file());
        let kind = rustix::fs::fstatfs(&fd).map_err(|e| failed(e.into()))?.f_type;
        if let Some((_, kind)) = REFUSED_FILE_SYSTEMS.iter().find(|(magic, _)| *magic == kind) {
            return Err(WorkspaceError::PseudoFileSystem { name, kind });
        }
        let device = rustix::fs::fstat(&fd).map_err(|e| failed(e.into()))?.st_dev;
        Ok(Self { name, fd, device })
    }

    /// Its name, which guests see as `/<name>`.
    #[must_use]
    pub const fn name(&self) -> &WorkspaceName {
        &self.name
    }

    /// The directory.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The device that it lies on: nothing of another device is ever opened beneath it.
    #[must_use]
    pub const fn device(&self) -> u64 {
        self.device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_f5_a_workspace_on_a_pseudo_file_system_is_refused() {
        for (path, expect) in [("/proc", "proc"), ("/sys", "sysfs")] {
            let name: WorkspaceName = "books".parse().expect("name");
            match WorkspaceRoot::open(name, Path::new(path)) {
                Err(WorkspaceError::PseudoFileSystem { kind, .. }) => assert_eq!(kind, expect),
                Err(WorkspaceError::Open { .. }) => {}
                Ok(root) => panic!("{path} was opened as {root:?}"),
            }
        }
    }

    #[test]
    fn a_workspace_must_be_a_directory() {
        let name: WorkspaceName = "books".parse().expect("name");
        assert!(matches!(WorkspaceRoot::open(name, Path::new("/etc/passwd")), Err(WorkspaceError::Open { .. })));
    }
}
