//! Recovery after somebody else was there: what nobody planned is never overwritten, and what is open is listed.

use toolkeep::commit::files::{self, Prepared, Recovered};

use crate::commit::world::{Changes, UndoStore, World, attempt, from_store};

/// A commit that stopped after `applied` of its steps, as a crash leaves it.
fn crashed(world: &World, changes: &Changes, applied: usize) -> (Prepared, UndoStore) {
    let (prepared, undo) = changes.prepare(world, &attempt()).expect("prepared");
    let mut part = prepared.clone();
    part.steps.truncate(applied);
    for step in &part.steps {
        by_hand(world, step);
    }
    (prepared, undo)
}

/// The system call of a step, without its checks.
fn by_hand(world: &World, step: &files::Step) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let at = |spot: &files::Spot| world.base.join(spot.workspace.as_str()).join(spot.path.as_str());
    match step {
        files::Step::Place { temporary, target, .. } => std::fs::rename(at(temporary), at(target)).expect("place"),
        files::Step::Exchange { temporary, target, .. } => {
            renameat_with(CWD, at(temporary), CWD, at(target), RenameFlags::EXCHANGE).expect("exchange");
        }
        files::Step::Aside { target, temporary, .. } => std::fs::rename(at(target), at(temporary)).expect("aside"),
        files::Step::RemoveDirectory { target, .. } => std::fs::remove_dir(at(target)).expect("remove"),
        files::Step::Touch { .. } => {}
    }
}

fn world() -> World {
    let world = World::new();
    for name in ["a", "b", "c", "d"] {
        world.file(&format!("w/{name}"), name);
    }
    world
}

fn changes(world: &World) -> Changes {
    let mut changes = Changes::default();
    changes.write(world, "w/a", "new a").write(world, "w/new", "new");
    changes.write(world, "w/b", "new b").delete(world, "w/c").rename(world, "w/d", "w/e");
    changes
}

#[test]
fn r07_recovery_from_every_prefix_rolls_forward_and_again() {
    let reference = world();
    changes(&reference).commit(&reference).expect("committed");
    let steps = 6;
    for applied in 0..=steps {
        let world = world();
        let changes = changes(&world);
        let (prepared, undo) = crashed(&world, &changes, applied);
        assert_eq!(prepared.steps.len(), steps);
        for _ in 0..3 {
            let recovered = files::recover(&prepared, &world.roots, &from_store(&undo)).expect("recovered");
            assert_eq!(recovered, Recovered::RolledForward, "after {applied} steps");
            assert_eq!(world.snapshot(), reference.snapshot(), "after {applied} steps");
        }
    }
}

#[test]
fn r07_t_f11_unknown_content_is_never_overwritten_and_the_rest_goes_back() {
    for applied in 0..=6 {
        for target in ["w/a", "w/b", "w/c", "w/d", "w/e", "w/new"] {
            let world = world();
            let changes = changes(&world);
            let (prepared, undo) = crashed(&world, &changes, applied);
            let before: std::collections::BTreeMap<_, _> = self::world().snapshot();
            world.file(target, "theirs");
            for _ in 0..2 {
                let recovered = files::recover(&prepared, &world.roots, &from_store(&undo)).expect("recovered");
                assert_eq!(world.read(target), b"theirs", "after {applied} steps, {target}: {recovered:?}");
                let mut now = world.snapshot();
                let mut wanted = before.clone();
                now.remove(target);
                wanted.remove(target);
                match recovered {
                    Recovered::RolledForward => panic!("after {applied} steps, {target}: unknown content was ignored"),
                    Recovered::RolledBack => assert_eq!(now, wanted, "after {applied} steps, {target}"),
                    Recovered::Halted(remnants) => {
                        assert!(!remnants.is_empty());
                        for remnant in &remnants {
                            let path = format!("{}/{}", remnant.workspace, remnant.path);
                            now.remove(&path);
                            wanted.remove(&path);
                        }
                        assert_eq!(now, wanted, "after {applied} steps, {target}, listed {remnants:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn content_that_was_removed_already_is_restored_from_the_undo_store() {
    let world = world();
    let start = world.snapshot();
    let changes = changes(&world);
    let (prepared, undo) = crashed(&world, &changes, 6);
    // A clean-up that was cut short, then somebody's edit: only the undo store still has `a` and `c`.
    for path in world.residue() {
        std::fs::remove_file(world.at(&path)).expect("removed");
    }
    world.file("w/b", "theirs");
    let recovered = files::recover(&prepared, &world.roots, &from_store(&undo)).expect("recovered");
    let Recovered::Halted(remnants) = recovered else { panic!("{recovered:?}") };
    assert_eq!(remnants.len(), 1, "{remnants:?}");
    assert_eq!(remnants[0].path.as_str(), "b");
    let strip = |shown: &String| shown.replace(" new", " old");
    for name in ["w/a", "w/c", "w/d"] {
        assert_eq!(world.snapshot().get(name).map(strip), start.get(name).map(strip), "{name}");
    }
    assert_eq!(world.read("w/b"), b"theirs");
    assert!(!world.at("w/new").exists() && !world.at("w/e").exists() && world.residue().is_empty());
}

#[test]
fn a_workspace_that_was_pointed_elsewhere_is_halted_untouched() {
    let world = world();
    let changes = changes(&world);
    let (prepared, undo) = crashed(&world, &changes, 2);
    std::fs::rename(world.at("w"), world.at("elsewhere")).expect("moved");
    std::fs::create_dir(world.at("w")).expect("another");
    let other = World::open(&world.base);
    world.file("w/a", "another a");
    let before = other.snapshot();
    let recovered = files::recover(&prepared, &other.roots, &from_store(&undo)).expect("looked at");
    assert!(matches!(recovered, Recovered::Halted(_)));
    assert_eq!(other.snapshot(), before);
}

#[test]
fn a_foreign_file_in_a_new_directory_keeps_the_directory() {
    let world = World::new();
    world.file("w/a", "a");
    let mut changes = Changes::default();
    changes.mkdir("w/new").write(&world, "w/a", "b");
    let (prepared, undo) = crashed(&world, &changes, 1);
    world.file("w/new/theirs", "theirs");
    world.file("w/a", "also theirs");
    let recovered = files::recover(&prepared, &world.roots, &from_store(&undo)).expect("recovered");
    assert!(
        matches!(recovered, Recovered::Halted(ref remnants) if remnants[0].path.as_str() == "new"),
        "{recovered:?}"
    );
    assert_eq!(world.read("w/new/theirs"), b"theirs");
    assert!(world.residue().is_empty());
}
