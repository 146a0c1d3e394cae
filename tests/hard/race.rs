//! G5: another program swaps directories, links and files while commits run. Nothing outside of the root ever changes.
//!
//! The attacker has every right in the workspace, as a program of the same user has. It may spoil commits and its own
//! files; what it must not achieve is that a commit acts on something outside, or destroys content that nobody planned to.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use toolkeep::commit::files::{self, ApplyError};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::FileState;
use toolkeep_tests::support::proof::{is_over, size, told};

use crate::commit::world::{Changes, World, attempt};

/// Swaps by the attacker that have to meet commits, at least.
const SWAPS: usize = 5_000;
const SWAPS_HARD: usize = 100_000;

/// Swap two paths for ever. Whatever fails, fails.
fn swap(one: &std::path::Path, two: &std::path::Path) {
    renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).ok();
}

/// Files that a commit replaces: several, so that applying takes long enough to be raced.
const FILES: [&str; 4] = ["w/dir/file", "w/dir/two", "w/dir/three", "w/dir/four"];

/// A plan from what is there now, unless the attacker is in the way.
fn planned(world: &World, round: usize) -> Option<Changes> {
    let mut changes = Changes::default();
    for path in FILES {
        let stat = std::fs::symlink_metadata(world.at(path)).ok().filter(std::fs::Metadata::is_file)?;
        let content = std::fs::read(world.at(path)).ok()?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&stat.permissions()) & 0o777;
        let before = FileState { sha256: Digest::of(&content), size: content.len() as u64, mode };
        changes.replace(path, before, round.to_string());
    }
    let fresh = format!("w/dir/new{round}");
    changes.write(world, &fresh, "new").delete(world, &fresh);
    Some(changes)
}

#[test]
fn g5_t_f2_t_f4_swaps_of_links_directories_and_files_never_lead_a_commit_outside() {
    let world = World::new();
    world.file("outside/target", "outside");
    world.file("outside/dir/file", "outside file");
    world.file("outside/linked", "outside, linked");
    for path in FILES {
        world.file(path, "0");
        world.file(&path.replace("dir", "decoy"), "0");
    }
    symlink(world.at("outside/dir"), world.at("w/link-to-dir")).expect("link");
    symlink(world.at("outside/target"), world.at("w/link-to-file")).expect("link");
    std::fs::hard_link(world.at("outside/linked"), world.at("w/hard")).expect("link");
    let outside = world.outside();
    let wanted = size(SWAPS, SWAPS_HARD);
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut tally, mut round) = ([0_usize; 4], 0);
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
                swap(&world.at(one), &world.at(two));
                for _ in 0..(round * 37 % 3_000) {
                    std::hint::spin_loop();
                }
                swaps.fetch_add(2, Ordering::Relaxed);
                round = round.wrapping_add(1);
            }
        });
        while swaps.load(Ordering::Relaxed) < wanted && !is_over() {
            let Some(changes) = planned(&world, round) else { continue };
            round += 1;
            let Ok((prepared, _)) = changes.prepare(&world, &attempt()) else {
                tally[0] += 1;
                continue;
            };
            match files::apply(&prepared, &world.roots) {
                Ok(applied) => {
                    files::confirm(&applied, &prepared, &world.roots).expect("the disk is well");
                    tally[1] += 1;
                }
                Err(ApplyError::RolledBack(_)) => tally[2] += 1,
                Err(ApplyError::Halted { .. }) => tally[3] += 1,
                Err(ApplyError::Failed(error)) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let swaps = swaps.into_inner();
    assert_eq!(world.outside(), outside, "something outside changed");
    assert!(tally[1] > 0 && tally[0] + tally[2] > 0, "the race was no race: {tally:?}");
    let [refused, done, taken_back, halted] = tally;
    let more = format!(
        "swaps against {round} commits: {refused} refused before, {done} done, {taken_back} taken back, {halted} halted"
    );
    told("G5 races", swaps, "outside", &more);
}
