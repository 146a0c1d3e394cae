//! Undo restores what a commit destroyed, and refuses where somebody has been there since.

use toolkeep::commit::files::{self, ApplyError, CommitError};

use crate::commit::shapes::SHAPES;
use crate::commit::world::{Changes, Committed, World, from_store};

fn undo(world: &World, changes: &Changes, committed: &Committed) -> Result<Committed, ApplyError> {
    let inverse = files::inverse(&changes.effects, &committed.prepared).expect("an inverse");
    let find = from_store(&committed.undo);
    let contents = inverse.contents.iter().map(|digest| (*digest, find(digest).expect("kept"))).collect();
    let back = Changes::of(inverse.effects, contents);
    back.commit_as(world, &committed.undoing())
}

/// Times are no part of a file's state; undo brings content, names and modes back.
fn timeless(world: &World) -> Vec<String> {
    let strip = |shown: String| shown.trim_end_matches(" old").trim_end_matches(" new").to_owned();
    world.snapshot().into_iter().map(|(path, shown)| format!("{path}: {}", strip(shown))).collect()
}

#[test]
fn r09_undo_restores_the_start_for_every_shape() {
    for shape in SHAPES {
        let world = World::new();
        (shape.build)(&world);
        let start = timeless(&world);
        let mut changes = Changes::default();
        (shape.plan)(&world, &mut changes);
        let committed = changes.commit(&world).expect("committed");
        let done = timeless(&world);
        let undone = undo(&world, &changes, &committed).unwrap_or_else(|e| panic!("{}: {e}", shape.name));
        assert_eq!(timeless(&world), start, "{}", shape.name);
        // Undoing the undo is the commit again.
        let inverse = files::inverse(&changes.effects, &committed.prepared).expect("an inverse");
        let find = from_store(&committed.undo);
        let contents = inverse.contents.iter().map(|digest| (*digest, find(digest).expect("kept"))).collect();
        let back = Changes::of(inverse.effects, contents);
        undo(&world, &back, &undone).unwrap_or_else(|e| panic!("{}: {e}", shape.name));
        // Not the times: an undo does not carry those of files that the plan wrote.
        let strip = |shown: Vec<String>| shown.join("\n").replace(" touched", "");
        assert_eq!(strip(timeless(&world)), strip(done), "{}", shape.name);
    }
}

#[test]
fn r09_undo_restores_private_and_executable_modes() {
    let world = World::new();
    world.file("w/script", "x");
    world.mode("w/script", 0o750);
    let start = timeless(&world);
    let mut changes = Changes::default();
    changes.delete(&world, "w/script");
    let committed = changes.commit(&world).expect("committed");
    undo(&world, &changes, &committed).expect("undone");
    assert_eq!(timeless(&world), start);
}

#[test]
fn r09_undo_restores_the_modes_of_directories_and_owners_where_it_may() {
    let world = World::new();
    world.file("w/private/deep/file", "x");
    world.mode("w/private/deep/file", 0o640);
    world.mode("w/private", 0o700);
    world.mode("w/private/deep", 0o2775);
    // Only root may give a file away; everybody else finds the owner that it had anyway.
    let given = std::os::unix::fs::chown(world.at("w/private/deep"), Some(12_345), Some(23_456)).is_ok();
    let given = given && std::os::unix::fs::chown(world.at("w/private/deep/file"), Some(12_345), None).is_ok();
    world.mode("w/private/deep", 0o775);
    let start = timeless(&world);
    let mut changes = Changes::default();
    changes.delete(&world, "w/private/deep/file").rmdir("w/private/deep").rmdir("w/private");
    let committed = changes.commit(&world).expect("committed");
    assert!(!world.at("w/private").exists());
    undo(&world, &changes, &committed).expect("undone");
    assert_eq!(timeless(&world), start);
    if given {
        use std::os::unix::fs::MetadataExt;
        let owner = |path: &str| std::fs::metadata(world.at(path)).map(|stat| (stat.uid(), stat.gid())).expect("stat");
        assert_eq!(owner("w/private/deep"), (12_345, 23_456));
        assert_eq!(owner("w/private/deep/file").0, 12_345);
        assert_ne!(owner("w/private").0, 12_345);
    }
}

#[test]
fn r09_undo_is_refused_where_a_target_changed_since() {
    let interferences: [fn(&World); 4] = [
        |w| w.file("w/created", "edited since"),
        |w| w.file("w/replaced", "edited since"),
        |w| w.file("w/deleted", "created since"),
        |w| std::fs::remove_file(w.at("w/moved-to")).expect("removed"),
    ];
    for interfere in interferences {
        let world = World::new();
        for name in ["replaced", "deleted", "moved"] {
            world.file(&format!("w/{name}"), name);
        }
        let mut changes = Changes::default();
        changes.write(&world, "w/created", "c").write(&world, "w/replaced", "r");
        changes.rename(&world, "w/moved", "w/moved-to").delete(&world, "w/deleted");
        let committed = changes.commit(&world).expect("committed");
        interfere(&world);
        let before = world.snapshot();
        let result = undo(&world, &changes, &committed);
        assert!(matches!(result, Err(ApplyError::RolledBack(CommitError::Stale(_)))));
        assert_eq!(world.snapshot(), before);
    }
}

#[test]
fn an_inverse_is_made_only_from_the_steps_of_its_own_plan() {
    let world = World::new();
    world.file("w/a", "a");
    let (mut one, mut two) = (Changes::default(), Changes::default());
    one.write(&world, "w/a", "b");
    two.delete(&world, "w/a");
    let committed = one.commit(&world).expect("committed");
    assert_eq!(files::inverse(&two.effects, &committed.prepared), Err(files::NoInverse::Mismatch));
}
