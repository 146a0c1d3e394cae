//! What an undo gives back besides contents and modes of files: the modes of directories, and owners.
//!
//! Effects do not carry them, because a tool cannot choose them. The steps of the commit that is undone do: they say
//! whose a removed file or directory was. Owners are given back as far as the system permits, because a daemon that is
//! not root cannot give anything away.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use rustix::io::Errno;
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;

use crate::commit::files::attributes;
use crate::commit::files::step::{Prepared, Spot, Step};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Was {
    /// Of a directory.
    mode: Option<u32>,
    owner: (u32, u32),
}

/// What names were before a commit removed them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Former(BTreeMap<(WorkspaceName, WorkspacePath), Was>);

impl Former {
    /// What the steps of a commit removed: for the attempt that undoes it.
    #[must_use]
    pub fn of(undone: &Prepared) -> Self {
        let mut former = BTreeMap::new();
        for step in &undone.steps {
            let was = match step {
                Step::RemoveDirectory { before, .. } => Was { mode: Some(before.mode), owner: before.owner },
                Step::Aside { before, .. } => Was { mode: None, owner: before.owner },
                Step::Place { .. } | Step::Exchange { .. } | Step::Touch { .. } => continue,
            };
            // Where a plan removed a name twice, the first was what others had put there.
            former.entry(step.target().key()).or_insert(was);
        }
        Self(former)
    }

    pub(super) fn mode(&self, target: &Spot) -> Option<u32> {
        self.0.get(&target.key()).and_then(|was| was.mode)
    }

    /// Give a new file or directory its former owner, if that is known and the system permits it.
    pub(super) fn own(&self, fd: impl AsFd, target: &Spot) -> Result<(), Errno> {
        let Some(was) = self.0.get(&target.key()) else { return Ok(()) };
        match attributes::own(fd, was.owner) {
            Err(Errno::PERM) => Ok(()),
            result => result,
        }
    }
}
