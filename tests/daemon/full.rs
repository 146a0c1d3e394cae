//! G4: a full disk. The daemon answers questions about itself and its audit, commits nothing half, and goes on as soon as
//! there is room again.
//!
//! The disk is a small file system of its own, which takes the right to mount one; without it the tests say that they were
//! skipped.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use toolkeep_tests::support::proof::told;

use super::world::{Agent, Plot, World};
use crate::doors::running::until;

/// Files that fill up the names of a small file system: more than it has.
const NAMES_MAX: usize = 2_000;
/// Commits after which a full ledger must have refused one: what it wrote before leaves some room to write again.
pub(super) const ATTEMPTS: usize = 400;

/// A small file system over a directory; gone when dropped.
pub(super) struct Small(PathBuf);

impl Small {
    /// Nothing where mounting is not allowed.
    pub(super) fn over(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).expect("directory");
        let options = format!("size={size},nr_inodes=64,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "toolkeep-test"]).arg(path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path.to_path_buf())),
            Ok(output) => {
                println!("skipped: no file system may be mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: `mount` cannot be run: {error}");
                None
            }
        }
    }

    /// Take all bytes that are left.
    pub(super) fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("a file");
        let block = [0; 4_096];
        let full = (0..100_000).find_map(|_| file.write_all(&block).err()).expect("it is small");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Take all names that are left.
    fn take_names(&self) {
        let full = (0..NAMES_MAX).find_map(|number| File::create(self.0.join(format!("filler-{number}"))).err());
        assert_eq!(full.expect("it has few").kind(), std::io::ErrorKind::StorageFull);
    }

    /// Give everything back.
    pub(super) fn free(&self) {
        for entry in std::fs::read_dir(&self.0).expect("directory").filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with("filler") {
                std::fs::remove_file(entry.path()).expect("removed");
            }
        }
    }

    /// The names that are not fillers.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("directory").map(|entry| entry.expect("entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.starts_with("filler"));
        names.sort();
        names
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} stays mounted", self.0.display());
        }
    }
}

pub(super) fn note(agent: &mut Agent, title: &str) -> (String, String) {
    let reply = agent.execute("notes.add", json!({"title": title, "body": "all work and no play ".repeat(200)}));
    (reply.text("/outcome").to_owned(), reply.text("/error/code").to_owned())
}

fn answers(world: &World) {
    world.agent().ok("host.info", json!({}));
    world.verified();
}

#[test]
fn g4_a_workspace_without_room_or_names_gets_nothing_half_and_all_of_it_later() {
    let mut world = World::asleep(Plot::default());
    let Some(disk) = Small::over(&world.path("notes"), "1m") else { return };
    world.start();
    let mut agent = world.agent();
    assert_eq!(note(&mut agent, "before"), ("committed".to_owned(), String::new()));
    for (what, take) in [("no room", Small::fill as fn(&Small)), ("no names", Small::take_names)] {
        let before = disk.names();
        take(&disk);
        let (outcome, code) = note(&mut agent, what);
        println!("{what} in the workspace: {outcome} {code}");
        assert_ne!(outcome, "committed", "{what}");
        assert_eq!(disk.names(), before, "{what}: nothing is left behind");
        answers(&world);
        let preview = agent.preview("notes.add", json!({"title": what, "body": "x"}));
        assert_eq!(preview.text("/outcome"), "previewed", "{what}: {}", preview.value);
        disk.free();
        assert_eq!(note(&mut agent, what), ("committed".to_owned(), String::new()), "{what}: freed");
    }
    answers(&world);
    told("G4 full workspaces", 2, "half or lost", "bytes and names used up, then freed");
    drop(agent);
    world.kill();
}

#[test]
fn g4_a_ledger_without_room_still_answers_and_writes_again_when_there_is_some() {
    let mut world = World::asleep(Plot::default());
    let Some(disk) = Small::over(&world.path("state/ledger"), "16m") else { return };
    world.start();
    let mut agent = world.agent();
    assert_eq!(note(&mut agent, "before"), ("committed".to_owned(), String::new()));
    disk.fill();
    let refused = (0..ATTEMPTS).find_map(|number| {
        let (outcome, code) = note(&mut agent, &format!("note {number}"));
        (outcome != "committed").then_some((number, outcome, code))
    });
    let (commits, outcome, code) = refused.expect("a full ledger takes no more");
    println!("no room in the ledger: after {commits} commits {outcome} {code}");
    assert!(!world.path(&format!("notes/note-{commits}.md")).exists(), "what is not recorded is not done");
    answers(&world);
    disk.free();
    until("the ledger writes again", || note(&mut agent, "after").0 == "committed");
    answers(&world);
    told("G4 full ledgers", 1, "done and not recorded", &format!("full after {commits} commits, then freed"));
    drop(agent);
    world.kill();
}
