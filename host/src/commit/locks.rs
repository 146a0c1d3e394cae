//! Path locks: two commits that touch the same paths of a workspace run one after the other.
//!
//! A commit claims everything at once: the paths that it changes and, shared, the paths that its plan has read. Claims are
//! granted in the order in which they were asked for, as soon as they meet no claim that is held or was asked for earlier,
//! so no two commits can wait for each other and none waits forever. Commits on other paths of the same workspace go on
//! in parallel. The claim is held from the check of the read set until the outcome is stored. Other programs take no
//! notice of it; against them stand the checks of [`crate::commit::files`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{BucketName, WorkspaceName};
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::{KeyRead, Observation, ReadEntry};

type Key = (WorkspaceName, WorkspacePath);

/// The paths that one commit depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Claim {
    /// Changed: nobody else may change or read them, what is beneath them, or what they are beneath of.
    changed: BTreeSet<Key>,
    /// Read: nobody else may change them or a directory above them.
    read: BTreeSet<Key>,
    /// Listed: besides, nobody else may change what is directly in them.
    listed: BTreeSet<Key>,
    /// Keys of buckets, with how they are used.
    keys: BTreeMap<(BucketName, String), Use>,
}

/// How a plan uses a key of a bucket. The stricter use comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Reads it.
    Reads,
    /// Adds to it: additions do not disturb each other.
    Adds,
    /// Reads it and adds to it, or changes it.
    Changes,
}

impl Use {
    fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Changes }
    }

    fn disturbs(self, other: Self) -> bool {
        self == Self::Changes || other == Self::Changes || self != other
    }
}

impl Claim {
    fn of(effects: &[Effect], read_set: &[ReadEntry], keys_read: &[KeyRead]) -> Self {
        let mut claim = Self::default();
        let reads = keys_read.iter().map(|read| (&read.bucket, read.key.as_str(), Use::Reads));
        let changes = effects.iter().filter_map(|effect| {
            let adds = if matches!(effect, Effect::KvAdd { .. }) { Use::Adds } else { Use::Changes };
            effect.key().map(|(bucket, key)| (bucket, key, adds))
        });
        for (bucket, key, used) in reads.chain(changes) {
            let entry = claim.keys.entry((bucket.clone(), key.to_owned())).or_insert(used);
            *entry = entry.and(used);
        }
        for effect in effects {
            claim.changed.extend(effect.places().map(|place| (place.workspace.clone(), place.path.clone())));
        }
        for entry in read_set {
            let key = (entry.workspace.clone(), entry.path.clone());
            match entry.observation {
                Observation::List { .. } => claim.listed.insert(key),
                Observation::Absent | Observation::Stat { .. } | Observation::Content { .. } => claim.read.insert(key),
            };
        }
        claim
    }

    fn meets(&self, other: &Self) -> bool {
        self.disturbs(other) || other.disturbs(self) || self.shares_keys(other)
    }

    /// Whether both use a key, or one a listing that the other's change is in.
    fn shares_keys(&self, other: &Self) -> bool {
        let same = |(key, used): (&(BucketName, String), &Use)| {
            other.keys.get(key).is_some_and(|theirs| used.disturbs(*theirs))
        };
        self.keys.iter().any(same) || self.lists_keys_of(other) || other.lists_keys_of(self)
    }

    fn lists_keys_of(&self, other: &Self) -> bool {
        let listings = self.keys.keys().filter_map(|(bucket, key)| Some((bucket, key.strip_suffix('*')?)));
        let mut listings = listings.peekable();
        listings.peek().is_some()
            && listings.any(|(bucket, prefix)| {
                let changes = other.keys.iter().filter(|(_, used)| **used != Use::Reads);
                changes.into_iter().any(|((theirs, key), _)| theirs == bucket && key.starts_with(prefix))
            })
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

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Notify,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claims of all commits of this host. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct PathLocks(Arc<Shared>);

/// A claim, waiting or granted; dropping it lets the next ones go.
#[derive(Debug)]
#[must_use = "the paths are held only as long as this lives"]
pub struct HeldPaths {
    shared: Arc<Shared>,
    ticket: u64,
}

impl PathLocks {
    /// Wait until the paths of a plan meet no earlier claim. Dropping the future withdraws the claim.
    pub async fn lock(&self, effects: &[Effect], read_set: &[ReadEntry], keys_read: &[KeyRead]) -> HeldPaths {
        self.hold(Claim::of(effects, read_set, keys_read)).await
    }

    async fn hold(&self, claim: Claim) -> HeldPaths {
        let held = {
            let mut queue = self.0.queue();
            let ticket = queue.next;
            queue.next += 1;
            queue.claims.insert(ticket, (claim, false));
            HeldPaths { shared: Arc::clone(&self.0), ticket }
        };
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Listens from here on, so that a claim that ends during the look is not missed.
            changed.as_mut().enable();
            if held.grant() {
                return held;
            }
            changed.await;
        }
    }

    /// Commits that hold their paths, and commits that wait for theirs.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        let queue = self.0.queue();
        let held = queue.claims.values().filter(|(_, granted)| *granted).count();
        (held, queue.claims.len() - held)
    }
}

impl HeldPaths {
    /// Whether no earlier claim is met; then this one counts as held.
    fn grant(&self) -> bool {
        let mut queue = self.shared.queue();
        let free = queue
            .claims
            .get(&self.ticket)
            .is_some_and(|(claim, _)| !queue.claims.range(..self.ticket).any(|(_, (earlier, _))| earlier.meets(claim)));
        if let Some((_, granted)) = queue.claims.get_mut(&self.ticket) {
            *granted = free;
        }
        free
    }
}

impl Drop for HeldPaths {
    fn drop(&mut self) {
        self.shared.queue().claims.remove(&self.ticket);
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_to_one_key_go_on_together_and_everything_else_waits() {
        let bucket = || "counts".parse::<BucketName>().expect("name");
        let add = |key: &str| {
            let effect = Effect::KvAdd { bucket: bucket(), key: key.to_owned(), delta: 1 };
            Claim::of(&[effect], &[], &[])
        };
        let after = toolkeep_core::effect::BodyState::of(b"1");
        let set = Effect::KvSet { bucket: bucket(), key: "a".to_owned(), before: None, after };
        let set = Claim::of(&[set], &[], &[]);
        let read = |key: &str| Claim::of(&[], &[], &[KeyRead { bucket: bucket(), key: key.to_owned(), sha256: None }]);
        for (one, two, meet) in [
            (add("a"), add("a"), false),
            (add("a"), add("b"), false),
            (add("a"), set.clone(), true),
            (set.clone(), set.clone(), true),
            (read("a"), read("a"), false),
            (read("a"), add("a"), true),
            (read("*"), add("a"), true),
            (read("b*"), add("a"), false),
            (read("*"), read("a"), false),
        ] {
            assert_eq!((one.meets(&two), two.meets(&one)), (meet, meet), "{one:?} {two:?}");
        }
    }

    fn set(paths: &[&str]) -> BTreeSet<Key> {
        let workspace: WorkspaceName = "w".parse().expect("name");
        let path = |text: &&str| WorkspacePath::try_from((*text).to_owned()).expect("path");
        paths.iter().map(|text| (workspace.clone(), path(text))).collect()
    }

    fn claim(changed: &[&str], read: &[&str], listed: &[&str]) -> Claim {
        Claim { changed: set(changed), read: set(read), listed: set(listed), keys: BTreeMap::new() }
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
        let locks = PathLocks::default();
        let inside: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..32_usize {
                let (locks, inside) = (&locks, &inside);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
                    for round in 0..100_usize {
                        let files = BTreeSet::from([(thread + round) % 4, (thread * 7 + round * 3) % 4]);
                        let names: Vec<String> = files.iter().map(|file| format!("f{file}")).collect();
                        let names: Vec<&str> = names.iter().map(String::as_str).collect();
                        let held = runtime.block_on(locks.hold(claim(&names, &[], &[])));
                        for file in &files {
                            assert_eq!(inside[*file].fetch_add(1, Ordering::SeqCst), 0, "two commits in one file");
                        }
                        std::thread::yield_now();
                        for file in &files {
                            inside[*file].fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(locks.load(), (0, 0));
    }

    #[test]
    fn t_f13_a_withdrawn_claim_holds_nobody_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            let locks = PathLocks::default();
            let first = locks.hold(claim(&["a"], &[], &[])).await;
            {
                let mut second = std::pin::pin!(locks.hold(claim(&["a", "b"], &[], &[])));
                let waker = std::task::Waker::noop();
                let mut context = std::task::Context::from_waker(waker);
                assert!(std::future::Future::poll(second.as_mut(), &mut context).is_pending());
                assert_eq!(locks.load(), (1, 1));
            }
            let third = locks.hold(claim(&["b"], &[], &[])).await;
            assert_eq!(locks.load(), (2, 0));
            drop((first, third));
            assert_eq!(locks.load(), (0, 0));
        });
    }
}
