//! Whatever the plan depends on and changed since: nothing is committed, and the first difference is named.

use std::os::unix::fs::symlink;

use toolkeep::commit::files::{self, ApplyError, CommitError, Difference, Witnessed};
use toolkeep_core::digest::Digest;
use toolkeep_core::plan::{EntryKind, Observation, ReadEntry, listing_digest};
use toolkeep_sandbox::beneath;
use toolkeep_sandbox::stage::Witness;

use crate::commit::world::{Changes, World, attempt, split};

fn base() -> World {
    let world = World::new();
    world.file("w/a", "aaa");
    world.file("w/dir/b", "bbb");
    std::fs::create_dir(world.at("w/hollow")).expect("directory");
    world
}

/// Plan, change the world, commit: the commit is refused for `expect`, and the world is what the change made of it.
fn check(plan: fn(&World, &mut Changes), change: fn(&World), expect: Difference) {
    let world = base();
    let mut changes = Changes::default();
    plan(&world, &mut changes);
    changes.check(&world).expect("unchanged");
    change(&world);
    let before = world.snapshot();
    match changes.commit(&world) {
        Err(ApplyError::RolledBack(CommitError::Stale(stale))) => assert_eq!(stale.what, expect, "{stale}"),
        other => panic!("expected {expect:?}, got {:?}", other.map(|_| "a commit")),
    }
    assert_eq!(world.snapshot(), before);

    // The same change after the check and the preparation, as another program would make it.
    let world = base();
    let mut changes = Changes::default();
    plan(&world, &mut changes);
    let Ok((prepared, _)) = changes.prepare(&world, &attempt()) else { return };
    change(&world);
    let changed = without_temporaries(&world);
    if changes.effects.is_empty() {
        return;
    }
    match files::apply(&prepared, &world.roots) {
        Err(ApplyError::RolledBack(CommitError::Stale(_))) => {}
        // A change of a directory's own identity may leave temporaries where nobody finds them: said, not hidden.
        Err(ApplyError::Halted { remnants, .. }) => assert!(!remnants.is_empty()),
        other => panic!("expected {expect:?} while applying, got {:?}", other.map(|_| "a commit")),
    }
    assert_eq!(without_temporaries(&world), changed);
}

fn without_temporaries(world: &World) -> std::collections::BTreeMap<String, String> {
    world.snapshot().into_iter().filter(|(path, _)| !path.contains(".toolkeep-")).collect()
}

#[test]
fn r38_t_f3_an_overwrite_or_delete_of_changed_content_is_stale() {
    for plan in [
        (|w, c| _ = c.write(w, "w/a", "new")) as fn(&World, &mut Changes),
        |w, c| _ = c.delete(w, "w/a"),
        |w, c| _ = c.rename(w, "w/a", "w/z"),
        |w, c| _ = c.write(w, "w/first", "1").write(w, "w/dir/b", "2").delete(w, "w/a"),
    ] {
        check(plan, |w| w.file("w/a", "AAA"), Difference::Content);
        check(plan, |w| w.file("w/a", "longer"), Difference::Content);
        check(plan, |w| std::fs::remove_file(w.at("w/a")).expect("removed"), Difference::Vanished);
        check(plan, |w| w.mode("w/a", 0o600), Difference::Mode);
        check(plan, |w| std::fs::hard_link(w.at("w/a"), w.at("outside/a")).expect("linked"), Difference::Links);
    }
}

#[test]
fn r38_t_f5_a_target_that_became_something_else_is_stale_and_is_not_opened() {
    let plan: fn(&World, &mut Changes) = |w, c| _ = c.write(w, "w/a", "new");
    check(
        plan,
        |w| {
            std::fs::remove_file(w.at("w/a")).expect("removed");
            symlink(w.at("outside"), w.at("w/a")).expect("link");
        },
        Difference::Kind,
    );
    check(
        plan,
        |w| {
            std::fs::remove_file(w.at("w/a")).expect("removed");
            std::fs::create_dir(w.at("w/a")).expect("directory");
        },
        Difference::Kind,
    );
    check(
        plan,
        |w| {
            std::fs::remove_file(w.at("w/a")).expect("removed");
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(rustix::fs::CWD, w.at("w/a"), rustix::fs::FileType::Fifo, mode, 0).expect("fifo");
        },
        Difference::Kind,
    );
}

#[test]
fn r38_a_creation_where_something_appeared_is_stale() {
    check(|w, c| _ = c.write(w, "w/new", "x"), |w| w.file("w/new", "theirs"), Difference::Appeared);
    check(|w, c| _ = c.rename(w, "w/a", "w/new"), |w| w.file("w/new", "theirs"), Difference::Appeared);
    check(
        |_, c| _ = c.mkdir("w/new"),
        |w| std::fs::create_dir(w.at("w/new")).expect("directory"),
        Difference::Appeared,
    );
    check(
        |w, c| _ = c.write(w, "w/new", "x"),
        |w| symlink(w.at("outside/nothing"), w.at("w/new")).expect("link"),
        Difference::Appeared,
    );
}

#[test]
fn r38_directories_that_filled_or_vanished_are_stale() {
    let plan: fn(&World, &mut Changes) = |w, c| _ = c.delete(w, "w/dir/b").rmdir("w/dir");
    check(plan, |w| w.file("w/dir/theirs", "theirs"), Difference::NotEmpty);
    check(
        |_, c| _ = c.rmdir("w/hollow"),
        |w| std::fs::remove_dir(w.at("w/hollow")).expect("removed"),
        Difference::Vanished,
    );
}

#[test]
fn r38_t_f2_a_directory_on_the_way_that_was_replaced_is_stale() {
    let plan: fn(&World, &mut Changes) = |w, c| _ = c.write(w, "w/dir/b", "new").write(w, "w/dir/new", "new");
    let world = base();
    let mut changes = Changes::default();
    plan(&world, &mut changes);
    world.file("outside/dir/b", "bbb");
    let outside = world.outside();
    let (prepared, _) = changes.prepare(&world, &attempt()).expect("prepared");
    std::fs::rename(world.at("w/dir"), world.at("w/aside")).expect("moved");
    symlink(world.at("outside/dir"), world.at("w/dir")).expect("link");
    assert!(matches!(
        files::apply(&prepared, &world.roots),
        Err(ApplyError::Halted { .. } | ApplyError::RolledBack(_))
    ));
    assert_eq!(world.outside(), outside);
    std::fs::remove_file(world.at("w/dir")).expect("unlinked");
    std::fs::create_dir(world.at("w/dir")).expect("another directory");
    world.file("w/dir/b", "bbb");
    match files::apply(&prepared, &world.roots) {
        Err(
            ApplyError::Halted { cause: CommitError::Stale(stale), .. }
            | ApplyError::RolledBack(CommitError::Stale(stale)),
        ) => {
            assert_eq!(stale.what, Difference::Parent);
        }
        other => panic!("another directory of the same name was taken: {:?}", other.map(|_| "a commit")),
    }
    assert_eq!(world.read("w/dir/b"), b"bbb");
    assert_eq!(world.read("w/aside/b"), b"bbb");
}

#[test]
fn r38_a_time_that_is_set_from_another_time_is_stale() {
    check(|_, c| _ = c.touch("w/a"), |w| std::fs::write(w.at("w/a"), "aaa").expect("written"), Difference::Times);
}

fn saw(changes: &mut Changes, path: &str, observation: Observation) {
    let (workspace, path) = split(path);
    changes.read_set.push(ReadEntry { workspace, path, observation });
}

#[test]
fn r38_every_observation_of_the_read_set_is_checked_again() {
    let content = |offset, length, bytes: &[u8]| Observation::Content { offset, length, sha256: Digest::of(bytes) };
    type Case = (&'static str, Observation, fn(&World), Difference);
    let table: [Case; 8] = [
        ("w/none", Observation::Absent, |w| w.file("w/none", ""), Difference::Appeared),
        ("w/none/deep", Observation::Absent, |w| w.file("w/none/deep", ""), Difference::Appeared),
        ("w/a", Observation::Stat { entry: EntryKind::File, size: 3 }, |w| w.file("w/a", "aaaa"), Difference::Content),
        (
            "w/dir",
            Observation::Stat { entry: EntryKind::Directory, size: 0 },
            |w| {
                std::fs::remove_dir_all(w.at("w/dir")).expect("removed");
                w.file("w/dir", "");
            },
            Difference::Kind,
        ),
        ("w/a", content(0, 3, b"aaa"), |w| w.file("w/a", "aab"), Difference::Content),
        ("w/a", content(1, 2, b"aa"), |w| w.file("w/a", "aa"), Difference::Content),
        ("w/a", content(0, 3, b"aaa"), |w| std::fs::remove_file(w.at("w/a")).expect("removed"), Difference::Vanished),
        (
            "w/dir",
            Observation::List { sha256: listing_digest([("b", EntryKind::File)]) },
            |w| w.file("w/dir/c", ""),
            Difference::Entries,
        ),
    ];
    for (path, observation, change, expect) in table {
        let world = base();
        let mut changes = Changes::default();
        saw(&mut changes, path, observation.clone());
        changes.check(&world).expect("unchanged");
        change(&world);
        match changes.check(&world) {
            Err(CommitError::Stale(stale)) => assert_eq!(stale.what, expect, "{observation:?}"),
            other => panic!("{observation:?}: {other:?}"),
        }
    }
}

#[test]
fn r38_a_link_whose_target_was_read_is_stale_when_it_leads_elsewhere_or_is_no_link() {
    let observed = |target: &str| Observation::Content {
        offset: 0,
        length: target.len() as u64,
        sha256: Digest::of(target.as_bytes()),
    };
    let relink = |world: &World, target: &str| {
        std::fs::remove_file(world.at("w/link")).expect("removed");
        symlink(target, world.at("w/link")).expect("link");
    };
    type Case = (fn(&World, &dyn Fn(&World, &str)), Option<Difference>);
    let table: [Case; 6] = [
        (|_, _| {}, None),
        (|w, relink| relink(w, "dir/b"), None),
        (|w, relink| relink(w, "dir/c"), Some(Difference::Content)),
        // The text counts, not where it leads: `a` and `./a` are one file.
        (|w, relink| relink(w, "dir/../dir/b"), Some(Difference::Content)),
        (|w, _| std::fs::remove_file(w.at("w/link")).expect("removed"), Some(Difference::Vanished)),
        (
            |w, _| {
                std::fs::remove_file(w.at("w/link")).expect("removed");
                w.file("w/link", "another text");
            },
            Some(Difference::Content),
        ),
    ];
    for (number, (change, expect)) in table.into_iter().enumerate() {
        let world = base();
        symlink("dir/b", world.at("w/link")).expect("link");
        let mut changes = Changes::default();
        saw(&mut changes, "w/link", observed("dir/b"));
        changes.check(&world).expect("unchanged");
        change(&world, &relink);
        match (changes.check(&world), expect) {
            (Ok(()), None) => {}
            (Err(CommitError::Stale(stale)), Some(expect)) => assert_eq!(stale.what, expect, "case {number}"),
            (other, expect) => panic!("case {number}: {other:?}, expected {expect:?}"),
        }
    }
}

#[test]
fn r38_a_link_whose_target_is_not_utf_8_any_more_is_another_kind_of_thing() {
    use std::os::unix::ffi::OsStrExt;
    let world = base();
    symlink("dir/b", world.at("w/link")).expect("link");
    let mut changes = Changes::default();
    saw(&mut changes, "w/link", Observation::Content { offset: 0, length: 5, sha256: Digest::of(b"dir/b") });
    std::fs::remove_file(world.at("w/link")).expect("removed");
    symlink(std::ffi::OsStr::from_bytes(b"dir/\xff"), world.at("w/link")).expect("link");
    assert!(matches!(changes.check(&world), Err(CommitError::Stale(stale)) if stale.what == Difference::Kind));
}

#[test]
fn a_part_that_was_not_read_may_change() {
    let world = base();
    let mut changes = Changes::default();
    saw(&mut changes, "w/a", Observation::Content { offset: 0, length: 2, sha256: Digest::of(b"aa") });
    world.file("w/a", "aaXXX");
    changes.check(&world).expect("the bytes that were read are the same");
}

#[test]
fn a_listing_does_not_see_the_temporaries_of_other_commits() {
    let world = base();
    let mut listed = Changes::default();
    saw(&mut listed, "w/dir", Observation::List { sha256: listing_digest([("b", EntryKind::File)]) });
    let mut other = Changes::default();
    other.write(&world, "w/dir/b", "new");
    let (prepared, _) = other.prepare(&world, &attempt()).expect("prepared");
    assert_eq!(world.residue().len(), 1);
    listed.check(&world).expect("the listing is the same");
    files::discard(&prepared, &world.roots).expect("discarded");
}

#[test]
fn a_witness_is_trusted_only_when_it_is_unchanged_and_old() {
    let world = base();
    let (workspace, path) = split("w/a");
    let witness = |world: &World| {
        let seen = beneath::look(world.roots[&workspace].fd(), &path).expect("look").expect("there");
        Witness { workspace: workspace.clone(), path: path.clone(), tuple: seen.tuple }
    };
    let mut changes = Changes::default();
    // A digest that is wrong shows whether the content is read.
    saw(&mut changes, "w/a", Observation::Content { offset: 0, length: 3, sha256: Digest::of(b"zzz") });
    let entries = [witness(&world)];
    let check = |since_ns| files::check(&changes.body(), Witnessed { entries: &entries, since_ns }, &world.roots);
    let changed_ns = entries[0].tuple.ctime_ns;
    assert!(check(changed_ns + 2_000_000_000).is_ok(), "old and unchanged: trusted");
    assert!(check(changed_ns + 1_999_999_999).is_err(), "within the granularity of the clock: read again");
    world.file("w/a", "aaa");
    assert!(check(i64::MAX).is_err(), "changed: read again");
}

#[test]
fn a_file_that_grew_after_it_was_read_to_its_end_is_stale() {
    let world = base();
    let (workspace, path) = split("w/a");
    let seen = beneath::look(world.roots[&workspace].fd(), &path).expect("look").expect("there");
    let mut changes = Changes::default();
    saw(&mut changes, "w/a", Observation::Content { offset: 0, length: 3, sha256: Digest::of(b"aaa") });
    changes.witnesses.push(Witness { workspace, path, tuple: seen.tuple });
    changes.check(&world).expect("unchanged");
    world.file("w/a", "aaa and more");
    assert!(matches!(changes.check(&world), Err(CommitError::Stale(stale)) if stale.what == Difference::Content));
}

#[test]
fn r07_a_conflict_at_any_step_takes_back_every_step_before_it() {
    for at in 0..6 {
        let world = World::new();
        for n in 0..6 {
            world.file(&format!("w/d{n}/f"), format!("before {n}"));
        }
        let mut changes = Changes::default();
        changes.mkdir("w/new").write(&world, "w/new/f", "new");
        for n in 0..6 {
            match n % 3 {
                0 => changes.write(&world, &format!("w/d{n}/f"), "after"),
                1 => changes.rename(&world, &format!("w/d{n}/f"), &format!("w/new/{n}")),
                _ => changes.delete(&world, &format!("w/d{n}/f")).rmdir(&format!("w/d{n}")),
            };
        }
        let (prepared, _) = changes.prepare(&world, &attempt()).expect("prepared");
        world.file(&format!("w/d{at}/f"), "theirs");
        let before: std::collections::BTreeMap<_, _> = without_temporaries(&world);
        let result = files::apply(&prepared, &world.roots);
        assert!(matches!(result, Err(ApplyError::RolledBack(CommitError::Stale(_)))), "{at}: {result:?}");
        assert_eq!(world.snapshot(), before, "conflict at {at}");
    }
}
