//! G5: another program swaps directories, links and files while commits run. Nothing outside of the root ever changes.
//!
//! The attacker has every right in the workspace, as a program of the same user has. It may spoil commits and its own
//! files; what it must not achieve is that a commit acts on something outside, or destroys content that nobody planned to.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use toolkeep::commit::files::{self, ApplyError};

use crate::commit::world::{Changes, World, attempt};
use crate::hard::strace::{bound, is_hard, tell};

const COMMITS: usize = 1_500;
const COMMITS_HARD: usize = 100_000;

/// Swap two paths for ever. Whatever fails, fails.
fn swap(one: &std::path::Path, two: &std::path::Path) {
    renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).ok();
}

#[test]
fn g5_t_f2_t_f4_swaps_of_links_directories_and_files_never_lead_a_commit_outside() {
    let world = World::new();
    world.file("outside/target", "outside");
    world.file("outside/dir/file", "outside file");
    world.file("outside/linked", "outside, linked");
    world.file("w/dir/file", "0");
    symlink(world.at("outside/dir"), world.at("w/link-to-dir")).expect("link");
    symlink(world.at("outside/target"), world.at("w/link-to-file")).expect("link");
    std::fs::hard_link(world.at("outside/linked"), world.at("w/hard")).expect("link");
    world.file("w/decoy/file", "0");
    let outside = world.outside();
    let commits = if is_hard() { COMMITS_HARD } else { COMMITS };
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut tally = [0_usize; 4];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                let (one, two) = match round % 4 {
                    0 => ("w/dir", "w/link-to-dir"),
                    1 => ("w/dir/file", "w/link-to-file"),
                    2 => ("w/dir/file", "w/hard"),
                    _ => ("w/dir", "w/decoy"),
                };
                swap(&world.at(one), &world.at(two));
                for _ in 0..(round % 300) {
                    std::hint::spin_loop();
                }
                swap(&world.at(one), &world.at(two));
                swaps.fetch_add(2, Ordering::Relaxed);
                round = round.wrapping_add(1);
            }
        });
        for round in 0..commits {
            let mut changes = Changes::default();
            let is_file = std::fs::symlink_metadata(world.at("w/dir/file")).is_ok_and(|stat| stat.is_file());
            if !is_file {
                continue;
            }
            let planned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                changes.write(&world, "w/dir/file", round.to_string());
                changes.write(&world, &format!("w/dir/new{round}"), "new").delete(&world, &format!("w/dir/new{round}"));
            }));
            if planned.is_err() {
                continue;
            }
            let Ok((prepared, undo)) = changes.prepare(&world, &attempt()) else {
                tally[0] += 1;
                continue;
            };
            match files::apply(&prepared, &world.roots) {
                Ok(_) => tally[1] += 1,
                Err(ApplyError::RolledBack(_)) => tally[2] += 1,
                Err(ApplyError::Halted { .. }) => {
                    tally[3] += 1;
                    drop(undo);
                }
                Err(ApplyError::Failed(error)) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let swaps = swaps.into_inner();
    assert_eq!(world.outside(), outside, "something outside changed");
    assert!(tally[1] > 0 && tally[0] + tally[2] > 0, "the race was no race: {tally:?}");
    tell(&format!(
        "G5 races: {} outside, {swaps} swaps against {commits} commits: {} refused before, {} done, {} taken back, {} halted",
        bound(commits),
        tally[0],
        tally[1],
        tally[2],
        tally[3]
    ));
}
