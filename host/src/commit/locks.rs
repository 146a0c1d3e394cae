//! Path locks: two commits that touch the same paths of a workspace run one after the other.
//!
//! A commit claims everything at once: the paths that it changes and, shared, the paths that its plan has read. Claims are
//! granted in the order in which they were asked for, as soon as they meet no claim that is held or was asked for earlier,
//! so no two commits can wait for each other and none waits forever. Commits on other paths of the same workspace go on
//! in parallel. The claim is held from the check of the read set until the outcome is stored. Other programs take no
//! notice of it; against them stand the checks of [`crate::commit::files`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::{Observation, PlanBody};

type Key = (WorkspaceName, WorkspacePath);

/// The paths that one commit depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Changed: nobody else may change or read them, what is beneath them, or what they are beneath of.
    changed: BTreeSet<Key>,
    /// Read: nobody else may change them or a directory above them.
    read: BTreeSet<Key>,
    /// Listed: besides, nobody else may change what is directly in them.
    listed: BTreeSet<Key>,
}

impl Claim {
    /// What a plan changes and has read.
    #[must_use]
    pub fn of(plan: &PlanBody) -> Self {
        let mut claim = Self::default();
        for effect in &plan.effects {
            claim.changed.extend(effect.paths().map(|path| (effect.workspace().clone(), path.clone())));
        }
        for entry in &plan.read_set {
            let key = (entry.workspace.clone(), entry.path.clone());
            match entry.observation {
                Observation::List { .. } => claim.listed.insert(key),
                Observation::Absent | Observation::Stat { .. } | Observation::Content { .. } => claim.read.insert(key),
            };
        }
        claim
    }

    fn meets(&self, other: &Self) -> bool {
        self.disturbs(other) || other.disturbs(self)
    }

    /// Whether what this one changes is of concern to the other.
    fn disturbs(&self, other: &Self) -> bool {
        self.changed.iter().any(|key| {
            let (workspace, path) = key;
            let parent = path.parent().map(|directory| (workspace.clone(), directory));
            parent.is_some_and(|parent| other.listed.contains(&parent))
                || [&other.changed, &other.read, &other.listed].iter().any(|set| reaches(set, key))
                || above(key).any(|upper| other.changed.contains(&upper))
        })
    }
}

/// Whether the set has the path or something beneath it.
fn reaches(set: &BTreeSet<Key>, key: &Key) -> bool {
    set.range(key.clone()..)
        .take_while(|(workspace, path)| *workspace == key.0 && path.as_str().starts_with(key.1.as_str()))
        .any(|(_, path)| path.starts_with(&key.1))
}

fn above(key: &Key) -> impl Iterator<Item = Key> {
    let workspace = key.0.clone();
    std::iter::successors(key.1.parent(), WorkspacePath::parent).map(move |path| (workspace.clone(), path))
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    claims: BTreeMap<u64, (Claim, bool)>,
}

/// The claims of all commits of this host.
#[derive(Debug, Default)]
pub struct PathLocks {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// A granted claim; dropping it lets the next ones go.
#[derive(Debug)]
#[must_use = "the paths are held only as long as this lives"]
pub struct HeldPaths {
    locks: Arc<PathLocks>,
    ticket: u64,
}

impl PathLocks {
    /// No claims.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Wait until the claim meets no earlier one. Blocks the thread; call it where blocking is allowed.
    pub fn hold(self: &Arc<Self>, claim: Claim) -> HeldPaths {
        let mut queue = self.lock();
        let ticket = queue.next;
        queue.next += 1;
        queue.claims.insert(ticket, (claim, false));
        loop {
            let free = queue
                .claims
                .get(&ticket)
                .is_some_and(|(claim, _)| !queue.claims.range(..ticket).any(|(_, (earlier, _))| earlier.meets(claim)));
            if free {
                if let Some((_, granted)) = queue.claims.get_mut(&ticket) {
                    *granted = true;
                }
                return HeldPaths { locks: Arc::clone(self), ticket };
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Commits that hold their paths, and commits that wait for theirs.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        let queue = self.lock();
        let held = queue.claims.values().filter(|(_, granted)| *granted).count();
        (held, queue.claims.len() - held)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldPaths {
    fn drop(&mut self) {
        self.locks.lock().claims.remove(&self.ticket);
        self.locks.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&str]) -> BTreeSet<Key> {
        let workspace: WorkspaceName = "w".parse().expect("name");
        let path = |text: &&str| WorkspacePath::try_from((*text).to_owned()).expect("path");
        paths.iter().map(|text| (workspace.clone(), path(text))).collect()
    }

    fn claim(changed: &[&str], read: &[&str], listed: &[&str]) -> Claim {
        Claim { changed: set(changed), read: set(read), listed: set(listed) }
    }

    #[test]
    fn t_f13_claims_meet_exactly_where_a_change_concerns_the_other() {
        let check = |one: Claim, two: Claim, meets: bool| {
            assert_eq!(one.meets(&two), meets, "{one:?} {two:?}");
            assert_eq!(two.meets(&one), meets, "{two:?} {one:?}");
        };
        check(claim(&["a"], &[], &[]), claim(&["a"], &[], &[]), true);
        check(claim(&["a"], &[], &[]), claim(&["b"], &[], &[]), false);
        check(claim(&["a"], &[], &[]), claim(&["ab"], &[], &[]), false);
        check(claim(&["a"], &[], &[]), claim(&["a/b"], &[], &[]), true);
        check(claim(&["a"], &[], &[]), claim(&["a-b", "a/b/c"], &[], &[]), true);
        check(claim(&["a"], &[], &[]), claim(&[], &["a/b"], &[]), true);
        check(claim(&["a/b"], &[], &[]), claim(&[], &["a"], &[]), false);
        check(claim(&["a/b"], &[], &[]), claim(&[], &[], &["a"]), true);
        check(claim(&["a/b/c"], &[], &[]), claim(&[], &[], &["a"]), false);
        check(claim(&["b"], &[], &[]), claim(&[], &[], &[""]), true);
        check(claim(&[], &["a"], &["b"]), claim(&[], &["a"], &["b"]), false);
    }

    #[test]
    fn t_f13_overlapping_commits_never_run_together_and_all_run() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let locks = PathLocks::new();
        let inside: Arc<Vec<AtomicUsize>> = Arc::new((0..4).map(|_| AtomicUsize::new(0)).collect());
        std::thread::scope(|scope| {
            for thread in 0..32_usize {
                let (locks, inside) = (Arc::clone(&locks), Arc::clone(&inside));
                scope.spawn(move || {
                    for round in 0..100_usize {
                        let (one, two) = ((thread + round) % 4, (thread * 7 + round * 3) % 4);
                        let names = [format!("f{one}"), format!("f{two}")];
                        let held = locks.hold(claim(&[&names[0], &names[1]], &[], &[]));
                        for file in BTreeSet::from([one, two]) {
                            assert_eq!(inside[file].fetch_add(1, Ordering::SeqCst), 0, "two commits in one file");
                        }
                        std::thread::yield_now();
                        for file in BTreeSet::from([one, two]) {
                            inside[file].fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(locks.load(), (0, 0));
    }
}
