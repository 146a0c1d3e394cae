//! Commits at the same time: overlapping ones behave as if one came after the other, others do not wait.

use std::sync::atomic::{AtomicUsize, Ordering};

use toolkeep::commit::files::{ApplyError, CommitError};
use toolkeep::commit::locks::PathLocks;
use toolkeep_core::digest::Digest;
use toolkeep_core::plan::{Observation, ReadEntry};

use crate::commit::world::{Changes, World, split};

const THREADS: usize = 32;
const ROUNDS: usize = 12;

#[test]
fn t_f13_no_increment_is_lost_by_32_threads_that_count_in_two_files() {
    let world = World::new();
    world.file("w/one", "0");
    world.file("w/two", "0");
    let (locks, done, stale) = (PathLocks::default(), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (world, locks, done, stale) = (&world, &locks, &done, &stale);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
                for _ in 0..ROUNDS {
                    // Read one counter, write it and the other: the plan depends on both.
                    let names = if thread % 2 == 0 { ["w/one", "w/two"] } else { ["w/two", "w/one"] };
                    let Some(changes) = increment(world, names) else { continue };
                    let held = runtime.block_on(locks.lock(&changes.effects, &changes.read_set, &[]));
                    match changes.commit(world) {
                        Ok(_) => done.fetch_add(1, Ordering::Relaxed),
                        Err(ApplyError::RolledBack(CommitError::Stale(_))) => stale.fetch_add(1, Ordering::Relaxed),
                        Err(other) => panic!("{other}"),
                    };
                    drop(held);
                }
            });
        }
    });
    let done = done.into_inner();
    let count = |path| String::from_utf8(world.read(path)).expect("text").parse::<usize>().expect("number");
    assert_eq!((count("w/one"), count("w/two")), (done, done));
    assert!(done > 0 && world.residue().is_empty());
    assert_eq!(locks.load(), (0, 0));
}

/// A plan from what is there at this moment; nothing if it is just being replaced.
fn increment(world: &World, names: [&str; 2]) -> Option<Changes> {
    let mut changes = Changes::default();
    for name in names {
        let now = std::fs::read(world.at(name)).ok()?;
        let before = toolkeep_core::effect::FileState { sha256: Digest::of(&now), size: now.len() as u64, mode: 0o644 };
        let number: usize = String::from_utf8(now.clone()).ok()?.parse().ok()?;
        let (workspace, path) = split(name);
        let observation = Observation::Content { offset: 0, length: now.len() as u64, sha256: Digest::of(&now) };
        changes.read_set.push(ReadEntry { workspace, path, observation });
        changes.replace(name, before, (number + 1).to_string());
    }
    Some(changes)
}
