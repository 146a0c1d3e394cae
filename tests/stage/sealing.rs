//! What sealing makes of changes, and in which order.

use toolkeep_core::effect::Effect;
use toolkeep_core::plan::Observation;
use toolkeep_sandbox::stage::{OpenHow, StageError, StageLimits, Staged};

use super::applier::{apply, undo};
use super::world::{READ, Session, World, contents, everything, tree};

/// Each effect as its kind and paths.
fn lines(staged: &Staged) -> Vec<String> {
    let line = |effect: &Effect| {
        let paths: Vec<&str> = effect.paths().map(|path| path.as_str()).collect();
        let before = if effect.destroyed().is_some() && effect.kind() == "file.write" { " over" } else { "" };
        format!("{}{before} {}", effect.kind(), paths.join(" "))
    };
    staged.effects.iter().map(line).collect()
}

/// Do something on a stage over a small tree; compare the effects, then apply and undo them.
fn check(start: &[(&str, &str)], act: impl FnOnce(&Session), expect: &[&str], result: &[(&str, Option<&str>)]) {
    let world = World::with(start);
    let before = tree(&world.path);
    let session = world.stage();
    act(&session);
    let staged = session.stage.seal().expect("seal");
    assert_eq!(lines(&staged), expect);
    let kept = apply(&world.path, &staged);
    let result = result.iter().map(|(name, content)| ((*name).to_owned(), content.map(|c| c.as_bytes().to_vec())));
    assert_eq!(contents(&world.path), result.collect());
    undo(&world.path, &staged.effects, &kept);
    let paths = |tree: std::collections::BTreeMap<_, _>| tree.into_keys().collect::<Vec<String>>();
    assert_eq!(paths(tree(&world.path)), paths(before));
}

#[test]
fn r06_rewriting_a_file_with_its_own_content_is_no_effect() {
    check(&[("a", "x")], |s| s.write("a", b"x").expect("write"), &[], &[("a", Some("x"))]);
    let recreate = |s: &Session| {
        s.unlink("a").expect("unlink");
        s.write("a", b"x").expect("write");
    };
    check(&[("a", "x")], recreate, &[], &[("a", Some("x"))]);
    let there_and_back = |s: &Session| {
        s.rename("a", "b").expect("rename");
        s.rename("b", "a").expect("rename");
    };
    check(&[("a", "x")], there_and_back, &[], &[("a", Some("x"))]);
}

#[test]
fn r06_a_pure_move_is_a_rename_and_a_changed_one_a_write_and_a_delete() {
    let moved = |s: &Session| s.rename("a", "b").expect("rename");
    check(&[("a", "x")], moved, &["file.rename a b"], &[("b", Some("x"))]);
    let changed = |s: &Session| {
        s.rename("a", "b").expect("rename");
        s.write("b", b"y").expect("write");
    };
    check(&[("a", "x")], changed, &["file.write b", "file.delete a"], &[("b", Some("y"))]);
}

#[test]
fn r06_a_move_onto_a_file_is_an_overwrite_and_a_delete() {
    let act = |s: &Session| s.rename("a", "b").expect("rename");
    check(&[("a", "x"), ("b", "y")], act, &["file.write over b", "file.delete a"], &[("b", Some("x"))]);
}

#[test]
fn r06_a_save_by_temporary_file_and_rename_is_one_overwrite() {
    let act = |s: &Session| {
        s.write("a.tmp", b"y").expect("write");
        s.rename("a.tmp", "a").expect("rename");
    };
    check(&[("a", "x")], act, &["file.write over a"], &[("a", Some("y"))]);
}

#[test]
fn r06_a_moved_directory_is_taken_apart() {
    check(
        &[("d/a", "1"), ("d/e/b", "2"), ("d/f/", "")],
        |s| s.rename("d", "n").expect("rename"),
        &[
            "dir.create n",
            "dir.create n/e",
            "dir.create n/f",
            "file.rename d/a n/a",
            "file.rename d/e/b n/e/b",
            "dir.delete d/f",
            "dir.delete d/e",
            "dir.delete d",
        ],
        &[("n", None), ("n/a", Some("1")), ("n/e", None), ("n/e/b", Some("2")), ("n/f", None)],
    );
}

#[test]
fn r06_a_removed_tree_is_deleted_bottom_up() {
    let act = |s: &Session| {
        for name in ["d/e/b", "d/a"] {
            s.unlink(name).expect("unlink");
        }
        for name in ["d/e", "d"] {
            s.rmdir(name).expect("rmdir");
        }
    };
    let expect = ["file.delete d/a", "file.delete d/e/b", "dir.delete d/e", "dir.delete d"];
    check(&[("d/a", "1"), ("d/e/b", "2")], act, &expect, &[]);
}

#[test]
fn r06_swaps_and_cycles_are_overwrites() {
    let swap = |s: &Session| {
        s.rename("a", "t").expect("rename");
        s.rename("b", "a").expect("rename");
        s.rename("t", "b").expect("rename");
    };
    let expect = ["file.write over a", "file.write over b"];
    check(&[("a", "1"), ("b", "2")], swap, &expect, &[("a", Some("2")), ("b", Some("1"))]);
    let cycle = |s: &Session| {
        for (from, to) in [("a", "t"), ("b", "a"), ("c", "b"), ("t", "c")] {
            s.rename(from, to).expect("rename");
        }
    };
    check(
        &[("a", "1"), ("b", "2"), ("c", "3")],
        cycle,
        &["file.write over a", "file.write over b", "file.write over c"],
        &[("a", Some("2")), ("b", Some("3")), ("c", Some("1"))],
    );
}

#[test]
fn r06_a_swap_of_directories_moves_only_the_files() {
    let act = |s: &Session| {
        for (from, to) in [("a", "t"), ("b", "a"), ("t", "b")] {
            s.rename(from, to).expect("rename");
        }
    };
    check(
        &[("a/x", "1"), ("b/y", "2")],
        act,
        &["file.rename a/x b/x", "file.rename b/y a/y"],
        &[("a", None), ("a/y", Some("2")), ("b", None), ("b/x", Some("1"))],
    );
}

#[test]
fn r06_a_file_that_becomes_a_directory_is_deleted_first() {
    let act = |s: &Session| {
        s.rename("a", "t").expect("rename");
        s.mkdir("a").expect("mkdir");
        s.rename("t", "a/b").expect("rename");
        s.rename("o/x", "a/x").expect("rename");
    };
    check(
        &[("a", "1"), ("o/x", "2")],
        act,
        &["file.delete a", "dir.create a", "file.rename o/x a/x", "file.write a/b"],
        &[("a", None), ("a/b", Some("1")), ("a/x", Some("2")), ("o", None)],
    );
}

#[test]
fn r06_a_directory_that_becomes_a_file_is_emptied_first() {
    let act = |s: &Session| {
        s.rename("d/x", "t").expect("rename");
        s.rename("d/y", "y").expect("rename");
        s.unlink("d/e/z").expect("unlink");
        s.rmdir("d/e").expect("rmdir");
        s.rmdir("d").expect("rmdir");
        s.rename("t", "d").expect("rename");
    };
    check(
        &[("d/x", "1"), ("d/y", "2"), ("d/e/z", "3")],
        act,
        &[
            "file.rename d/y y",
            "file.delete d/e/z",
            "file.delete d/x",
            "dir.delete d/e",
            "dir.delete d",
            "file.write d",
        ],
        &[("d", Some("1")), ("y", Some("2"))],
    );
}

#[test]
fn r06_a_directory_and_a_file_change_places() {
    let act = |s: &Session| {
        s.rename("d", "t").expect("rename");
        s.rename("f", "d").expect("rename");
        s.rename("t", "f").expect("rename");
    };
    check(
        &[("d/x", "1"), ("f", "2")],
        act,
        &["file.delete f", "dir.create f", "file.rename d/x f/x", "dir.delete d", "file.write d"],
        &[("d", Some("2")), ("f", None), ("f/x", Some("1"))],
    );
}

#[test]
fn set_times_is_an_effect_with_the_time_before_and_a_later_write_makes_it_void() {
    let world = World::with(&[("a", "x"), ("b", "y")]);
    let session = world.stage();
    let set = |path| session.stage.set_times_at(&session.root, path, false, Some(1_000_000_000));
    set("a").expect("times");
    set("b").expect("times");
    assert_eq!(session.stage.stat_at(&session.root, "a", false).expect("stat").0.modified_ns, 1_000_000_000);
    session.write("b", b"z").expect("write");
    let staged = session.stage.seal().expect("seal");
    assert_eq!(lines(&staged), ["file.write over b", "file.metadata a"]);
    apply(&world.path, &staged);
    let time = std::fs::metadata(world.at("a")).expect("metadata").modified().expect("time");
    assert_eq!(time, std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1));
}

#[test]
fn an_overwrite_keeps_the_mode_and_a_new_file_is_plain() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::with(&[("run.sh", "x")]);
    std::fs::set_permissions(world.at("run.sh"), std::fs::Permissions::from_mode(0o4755)).expect("mode");
    let session = world.stage();
    session.write("new.tmp", b"y").expect("write");
    session.rename("new.tmp", "run.sh").expect("rename");
    session.write("other", b"z").expect("write");
    let staged = session.stage.seal().expect("seal");
    let modes: Vec<(Option<u32>, u32)> = staged
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::FileWrite { before, after, .. } => (before.as_ref().map(|b| b.mode), after.mode),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(modes, [(None, 0o644), (Some(0o755), 0o755)], "set-id bits are never carried");
}

#[test]
fn reads_in_sequence_are_one_range_and_names_that_are_missing_are_observed() {
    let world = World::with(&[("a", &"x".repeat(200_000)), ("d/b", "y")]);
    let session = world.stage();
    session.read("a").expect("read");
    session.read("a").expect("read again");
    assert_eq!(session.read("d/nothing"), Err(StageError::NoEntry));
    session.names("d").expect("list");
    let staged = session.stage.seal().expect("seal");
    let seen: Vec<String> = staged
        .read_set
        .iter()
        .map(|entry| match &entry.observation {
            Observation::Absent => format!("{} absent", entry.path),
            Observation::Stat { size, .. } => format!("{} stat {size}", entry.path),
            Observation::Content { offset, length, .. } => format!("{} content {offset} {length}", entry.path),
            Observation::List { .. } => format!("{} list", entry.path),
        })
        .collect();
    assert_eq!(seen, ["a stat 200000", "a content 0 200000", "d stat 0", "d list", "d/nothing absent"]);
    let witnessed: Vec<&str> = staged.witnesses.iter().map(|witness| witness.path.as_str()).collect();
    assert_eq!(witnessed, ["a", "d"]);
}

#[test]
fn t_f3_a_lower_file_that_changes_under_the_stage_fails_it_for_good() {
    let stale =
        |path: &str| StageError::Stale { workspace: "books".parse().expect("name"), path: path.parse().expect("path") };
    let world = World::with(&[("a", "one"), ("b", "x")]);
    let session = world.stage();
    let file = session.open("a", READ).expect("open");
    assert_eq!(session.stage.read_at(&file, 0, 2), Ok(b"on".to_vec()));
    world.put("a", b"two!");
    assert_eq!(session.stage.read_at(&file, 2, 2), Err(stale("a")));
    assert_eq!(session.read("b"), Err(stale("a")), "it stays failed");
    assert_eq!(session.stage.seal().map(|_| ()), Err(stale("a")));

    let session = world.stage();
    session.stage.stat_at(&session.root, "a", false).expect("stat");
    std::fs::remove_file(world.at("a")).expect("remove");
    assert_eq!(session.read("a"), Err(stale("a")), "gone after it was seen");

    let session = world.stage();
    session.unlink("b").expect("unlink");
    world.put("b", b"other");
    assert_eq!(session.stage.seal().map(|_| ()), Err(stale("b")), "found when sealing");

    let session = world.stage();
    assert_eq!(session.read("late"), Err(StageError::NoEntry));
    world.put("late", b"");
    assert!(matches!(session.read("late"), Err(StageError::Stale { .. })), "appeared after it was missed");

    let session = world.stage();
    session.names(".").expect("list");
    world.put("later", b"");
    assert!(matches!(session.names("."), Err(StageError::Stale { .. })), "a listed directory changed");
}

#[test]
fn the_limit_of_effects_holds_at_n_and_n_plus_1_and_undone_work_is_given_back() {
    let world = World::with(&[("a", "x"), ("b", "y"), ("c", "z")]);
    let session = world.stage_with(everything(), StageLimits { bytes: 100, effects: 3 });
    for _ in 0..10 {
        session.write("t", b"1").expect("write");
        session.unlink("t").expect("unlink");
    }
    session.write("n", b"1").expect("first");
    session.write("a", b"1").expect("second");
    session.unlink("b").expect("third");
    let full = StageError::Full { what: "effects", limit: 3 };
    assert_eq!(session.unlink("c"), Err(full.clone()));
    assert_eq!(session.stage.seal().map(|_| ()), Err(full));

    let session = world.stage_with(everything(), StageLimits { bytes: 100, effects: 2 });
    session.rename("a", "m").expect("first");
    session.rename("b", "n").expect("second");
    assert_eq!(lines(&session.stage.seal().expect("seal")), ["file.rename a m", "file.rename b n"]);
}

#[test]
fn what_survives_the_seal_says_so() {
    let world = World::with(&[("a", "x")]);
    let session = world.stage();
    let file = session.open("a", OpenHow { write: true, ..READ }).expect("open");
    let survivor = session.stage.clone();
    session.stage.seal().expect("seal");
    assert_eq!(survivor.read_at(&file, 0, 1), Err(StageError::Sealed));
    assert_eq!(survivor.write_at(&file, 0, b"y"), Err(StageError::Sealed));
    assert_eq!(survivor.seal().map(|_| ()), Err(StageError::Sealed));
}
