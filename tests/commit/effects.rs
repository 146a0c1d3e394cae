//! Each kind of effect does what it says and nothing else.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use toolkeep::commit::files::{self, Attempt, CommitError, Step, Undo};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Effect, FileState};

use crate::commit::shapes::SHAPES;
use crate::commit::world::{Changes, TOUCHED_NS, World, attempt, split};

#[test]
fn r07_every_shape_of_plan_is_applied_exactly_and_leaves_no_temporaries() {
    for shape in SHAPES {
        let world = World::new();
        (shape.build)(&world);
        let outside = world.outside();
        let mut changes = Changes::default();
        (shape.plan)(&world, &mut changes);
        let committed = changes.commit(&world).unwrap_or_else(|e| panic!("{}: {e}", shape.name));
        assert!(committed.leftovers.is_empty() && world.residue().is_empty(), "{}", shape.name);
        assert_eq!(world.outside(), outside);
    }
}

#[test]
fn writes_deletes_renames_and_times_have_their_contents() {
    let world = World::new();
    world.file("w/replaced", "old");
    world.file("w/deleted", "old");
    world.file("w/moved", "moved");
    world.file("w/touched", "same");
    let mut changes = Changes::default();
    changes.mkdir("w/dir").write(&world, "w/dir/created", "created").write(&world, "w/replaced", "new");
    changes.rename(&world, "w/moved", "w/dir/moved").touch("w/touched").delete(&world, "w/deleted");
    changes.commit(&world).expect("committed");
    assert_eq!(world.read("w/dir/created"), b"created");
    assert_eq!(world.read("w/replaced"), b"new");
    assert_eq!(world.read("w/dir/moved"), b"moved");
    assert!(!world.at("w/deleted").exists() && !world.at("w/moved").exists());
    let stat = std::fs::metadata(world.at("w/touched")).expect("stat");
    assert_eq!(stat.mtime() * 1_000_000_000 + stat.mtime_nsec(), TOUCHED_NS);
}

#[test]
fn a_one_file_commit_flushes_one_directory() {
    let world = World::new();
    world.file("w/dir/file", "old");
    let mut changes = Changes::default();
    changes.write(&world, "w/dir/file", "new");
    assert_eq!(changes.commit(&world).expect("committed").directories, 1);
}

#[test]
fn t_f6_modes_are_those_of_the_plan_and_never_set_id() {
    let world = World::new();
    world.file("w/script", "#!/bin/sh");
    world.mode("w/script", 0o4755);
    world.file("w/private", "secret");
    world.mode("w/private", 0o600);
    let mut changes = Changes::default();
    changes.write(&world, "w/script", "#!/bin/dash").write(&world, "w/private", "other").write(&world, "w/fresh", "");
    let (workspace, path) = split("w/forged");
    let after = FileState { sha256: Digest::of(b""), size: 0, mode: 0o6777 };
    changes.effects.push(Effect::FileWrite { workspace, path, before: None, after });
    changes.commit(&world).expect("committed");
    let mode = |path: &str| std::fs::metadata(world.at(path)).expect("stat").permissions().mode() & 0o7777;
    assert_eq!(mode("w/script"), 0o755, "replacing content drops set-id, as writing does");
    assert_eq!(mode("w/private"), 0o600);
    assert_eq!(mode("w/fresh"), 0o644);
    assert_eq!(mode("w/forged"), 0o755);
}

#[test]
fn t_f6_user_attributes_stay_and_capabilities_do_not() {
    use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
    let world = World::new();
    world.file("w/file", "old");
    let open = || std::fs::File::options().read(true).write(true).open(world.at("w/file")).expect("open");
    if fsetxattr(open(), "user.note", b"kept", XattrFlags::empty()).is_err() {
        return;
    }
    // A version 2 capability set: cap_net_raw, permitted and effective. Only root may set one.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let has_capability = fsetxattr(open(), "security.capability", &capability, XattrFlags::empty()).is_ok();
    let mut changes = Changes::default();
    changes.write(&world, "w/file", "new");
    changes.commit(&world).expect("committed");
    let mut value = [0_u8; 64];
    let length = fgetxattr(open(), "user.note", &mut value[..]).expect("note");
    assert_eq!(&value[..length], b"kept");
    if has_capability {
        assert!(fgetxattr(open(), "security.capability", &mut value[..]).is_err());
    }
}

#[test]
fn t_f12_temporaries_are_private_random_and_beside_their_targets() {
    let world = World::new();
    world.file("w/dir/file", "old");
    let mut changes = Changes::default();
    changes.write(&world, "w/dir/file", "new").mkdir("w/dir/a").write(&world, "w/dir/a/b", "b");
    let attempt = attempt();
    let (prepared, _) = changes.prepare(&world, &attempt).expect("prepared");
    let residue = world.residue();
    assert_eq!(residue.len(), 3);
    for name in &residue {
        assert!(name.starts_with(&format!("w/dir/.toolkeep-{}-", attempt.id)), "{name}");
    }
    assert_eq!(world.read("w/dir/file"), b"old");
    files::discard(&prepared, &world.roots).expect("discarded");
    assert!(world.residue().is_empty());
    files::discard(&prepared, &world.roots).expect("discarding twice is harmless");
}

#[test]
fn t_f12_temporaries_of_a_preparation_that_crashed_are_found_by_their_transaction() {
    let world = World::new();
    world.file("w/dir/file", "old");
    let mut changes = Changes::default();
    changes.write(&world, "w/dir/file", "new").mkdir("w/a").write(&world, "w/a/b", "b");
    let (one, two) = (attempt(), attempt());
    let (_lost, _) = changes.prepare(&world, &one).expect("prepared");
    let (other, _) = changes.prepare(&world, &two).expect("prepared");
    let nests = files::nests(&changes.effects);
    assert_eq!(files::sweep_orphans(&nests, &one.id, &world.roots).expect("swept"), 3);
    assert_eq!(world.residue().len(), 3, "those of the other transaction stay");
    let _applied = files::apply(&other, &world.roots).expect("applied");
    assert!(world.residue().is_empty());
}

#[test]
fn a_failed_preparation_leaves_the_workspace_as_it_was() {
    let world = World::new();
    world.file("w/a", "a");
    let before = world.snapshot();
    let mut changes = Changes::default();
    changes.write(&world, "w/a", "new").mkdir("w/d").write(&world, "w/d/b", "b");
    let missing = Digest::of(b"b");
    let lost = changes.contents.remove(&missing);
    assert!(matches!(changes.prepare(&world, &attempt()), Err(CommitError::Content(digest)) if digest == missing));
    assert_eq!(world.snapshot(), before);
    assert!(lost.is_some());
    changes.contents.insert(missing, toolkeep_sandbox::stage::Content::Memory(b"forged"[..].into()));
    assert!(matches!(changes.prepare(&world, &attempt()), Err(CommitError::Content(digest)) if digest == missing));
    assert_eq!(world.snapshot(), before, "content that is not what its digest says is never placed");
}

#[test]
fn what_does_not_fit_the_undo_store_is_committed_and_said_not_to_be_kept() {
    let world = World::new();
    world.file("w/a", "a");
    world.file("w/b", "b");
    let mut changes = Changes::default();
    changes.write(&world, "w/a", "new").delete(&world, "w/b");
    let undo = Undo { fits: &|_| false, spill: &mut |_, _| Err(std::io::Error::other("not asked")) };
    let ready = files::prepare(&changes.effects, &world.roots, &attempt(), &|d| changes.find(d), undo).expect("ready");
    assert!(ready.undo.is_empty());
    ready.unflushed.flush().expect("flushed");
    let _applied = files::apply(&ready.prepared, &world.roots).expect("applied");
    assert!(world.residue().is_empty() && world.read("w/a") == b"new");
    assert!(matches!(files::inverse(&changes.effects, &ready.prepared), Err(files::NoInverse::NotKept(_))));
}

#[test]
fn destroyed_content_above_64_kib_is_spilled_and_below_is_handed_back() {
    for (size, spilled) in [(64 * 1024, false), (64 * 1024 + 1, true)] {
        let world = World::new();
        world.file("w/a", vec![7; size]);
        let mut changes = Changes::default();
        changes.delete(&world, "w/a");
        let mut seen = 0;
        let mut spill = |_: &FileState, reader: &mut dyn std::io::Read| {
            seen = std::io::copy(reader, &mut std::io::sink())?;
            Ok(())
        };
        let undo = Undo { fits: &|_| true, spill: &mut spill };
        let ready = files::prepare(&changes.effects, &world.roots, &attempt(), &|_| None, undo).expect("ready");
        assert_eq!((ready.undo.len(), seen), if spilled { (0, size as u64) } else { (1, 0) });
        files::discard(&ready.prepared, &world.roots).expect("discarded");
    }
}

#[test]
fn steps_are_read_back_as_they_were_written_and_other_formats_are_refused() {
    let world = World::new();
    world.file("w/a", "a");
    let mut changes = Changes::default();
    changes.write(&world, "w/a", "b").mkdir("w/d").rename(&world, "w/a", "w/d/a").touch("w/d/a");
    let (mut prepared, _) = changes.prepare(&world, &attempt()).expect("prepared");
    let text = serde_json::to_string(&prepared).expect("json");
    assert_eq!(serde_json::from_str::<files::Prepared>(&text).expect("read back"), prepared);
    assert!(matches!(prepared.steps.as_slice(), [Step::Exchange { .. }, Step::Place { .. }, ..]));
    prepared.format = 2;
    assert!(matches!(files::recover(&prepared, &world.roots, &|_| None), Err(CommitError::Format(2))));
    prepared.format = 1;
    files::discard(&prepared, &world.roots).expect("discarded");
}

#[test]
fn a_plan_for_an_unknown_workspace_is_refused() {
    let mut world = World::new();
    let mut changes = Changes::default();
    changes.write(&world, "w/a", "a");
    world.roots.clear();
    assert!(matches!(changes.prepare(&world, &attempt()), Err(CommitError::Workspace(_))));
}

#[test]
fn a_mask_takes_permissions_from_new_files_only() {
    let world = World::new();
    world.file("w/old", "old");
    let mut changes = Changes::default();
    changes.write(&world, "w/old", "new").write(&world, "w/new", "new").mkdir("w/dir");
    changes.commit_as(&world, &Attempt { umask: 0o077, ..attempt() }).expect("committed");
    let mode = |path: &str| std::fs::metadata(world.at(path)).expect("stat").permissions().mode() & 0o777;
    assert_eq!((mode("w/old"), mode("w/new"), mode("w/dir")), (0o644, 0o600, 0o700));
}

#[test]
fn t_f8_names_that_differ_by_case_are_two_where_the_directory_tells_them_apart() {
    let world = World::new();
    let mut changes = Changes::default();
    changes.write(&world, "w/dir/Name", "one").write(&world, "w/dir/name", "two");
    changes.effects.insert(0, Effect::DirCreate { workspace: split("w/dir").0, path: split("w/dir").1 });
    changes.write(&world, "w/A", "three").write(&world, "w/a", "four");
    changes.commit(&world).expect("committed");
    assert!(world.residue().is_empty());
    let read = ["w/dir/Name", "w/dir/name", "w/A", "w/a"].map(|path| world.read(path));
    assert_eq!(read, [&b"one"[..], b"two", b"three", b"four"]);
}
