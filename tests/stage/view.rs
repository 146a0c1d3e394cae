//! What a guest sees of the merged tree beyond what the random runs compare.

use std::os::unix::fs::symlink;

use toolkeep_core::plan::{EntryKind, Observation};
use toolkeep_sandbox::stage::{CHUNK_BYTES, OpenHow, StageError, StageLimits};

use super::applier::{apply, check_read_set};
use super::world::{CREATE, READ, Session, WRITE, World, contents, everything};

#[test]
fn an_unlinked_open_file_stays_usable_and_its_bytes_are_given_back_after_it() {
    let world = World::with(&[("a", "lower")]);
    let session = world.stage_with(everything(), StageLimits { bytes: 10, effects: 10 });
    let file = session.open("a", OpenHow { write: true, ..READ }).expect("open");
    session.unlink("a").expect("unlink");
    session.stage.write_at(&file, 5, b"12345").expect("write");
    assert_eq!(session.stage.read_at(&file, 0, 99), Ok(b"lower12345".to_vec()));
    let other = session.open("b", CREATE).expect("open");
    drop(file);
    session.stage.write_at(&other, 0, b"0123456789").expect("the unlinked file holds no bytes any more");
}

#[test]
fn a_copy_up_is_seen_through_every_handle_and_a_rename_follows_them() {
    let world = World::with(&[("d/a", "abc")]);
    let session = world.stage();
    let (reader, writer) = (session.open("d/a", READ).expect("open"), session.open("d/a", WRITE).expect("open"));
    assert_eq!(session.stage.read_at(&reader, 0, 9), Ok(b"abc".to_vec()));
    let number = reader.number();
    session.rename("d", "e").expect("rename");
    session.stage.write_at(&writer, 1, b"X").expect("write");
    assert_eq!(session.stage.read_at(&reader, 0, 9), Ok(b"aXc".to_vec()));
    assert_eq!(session.read("e/a"), Ok(b"aXc".to_vec()));
    assert_eq!(session.open("d/a", READ).map(|_| ()), Err(StageError::NoEntry));
    assert_eq!(session.stage.stat_at(&session.root, "e/a", false).expect("stat").1, number);
}

#[test]
fn listings_are_sorted_by_bytes_and_follow_changes_while_they_are_walked() {
    let world = World::with(&[("b", ""), ("B", ""), ("ä", ""), ("d/", "")]);
    let session = world.stage();
    assert_eq!(session.names("."), Ok(["B", "b", "d", "ä"].map(str::to_owned).to_vec()));
    let next = |after: Option<&str>| session.stage.entry_after(&session.root, after).map(|e| e.map(|(name, ..)| name));
    assert_eq!(next(None), Ok(Some("B".to_owned())));
    session.unlink("b").expect("unlink");
    session.write("c", b"").expect("write");
    assert_eq!(next(Some("B")), Ok(Some("c".to_owned())));
    assert_eq!(next(Some("ä")), Ok(None));
}

#[test]
fn one_read_gives_at_most_64_kib() {
    let world = World::with(&[("a", &"x".repeat(200_000))]);
    let session = world.stage();
    let file = session.open("a", READ).expect("open");
    assert_eq!(session.stage.read_at(&file, 0, u64::MAX).map(|b| b.len()), Ok(CHUNK_BYTES));
    assert_eq!(session.stage.read_at(&file, u64::MAX, u64::MAX), Ok(Vec::new()));
    session.write("b", &vec![1; 200_000]).expect("write");
    let file = session.open("b", READ).expect("open");
    assert_eq!(session.stage.read_at(&file, 0, u64::MAX).map(|b| b.len()), Ok(CHUNK_BYTES));
}

#[test]
fn links_are_shown_and_followed_for_reading_inside_the_workspace() {
    let world = World::with(&[("d/a", "content"), ("x", "y")]);
    symlink("d", world.at("dir")).expect("link");
    symlink("a", world.at("d/up")).expect("link");
    symlink("./../d/./up", world.at("d/twice")).expect("link");
    symlink("nowhere", world.at("dangling")).expect("link");
    let session = world.stage();
    let stat =
        |path, follow| session.stage.stat_at(&session.root, path, follow).map(|(stat, _)| (stat.entry, stat.size));
    assert_eq!(stat("dir", false), Ok((EntryKind::Symlink, 1)));
    assert_eq!(stat("dir", true), Ok((EntryKind::Directory, 0)));
    assert_eq!(session.stage.read_link(&session.root, "d/up"), Ok("a".to_owned()));
    assert_eq!(session.stage.read_link(&session.root, "x"), Err(StageError::Invalid));
    for path in ["dir/a", "d/up", "dir/up", "d/twice", "dir/twice", "dir/../d/a"] {
        assert_eq!(session.read(path), Ok(b"content".to_vec()), "{path}");
    }
    assert_eq!(session.read("dangling"), Err(StageError::NoEntry));
    assert_eq!(session.open("d/up", OpenHow { follow: false, ..READ }).map(|_| ()), Err(StageError::Loop));
    session.write("d/a", b"staged").expect("write");
    assert_eq!(session.read("dir/up"), Ok(b"staged".to_vec()), "a link leads to the merged tree");
    let staged = session.stage.seal().expect("seal");
    check_read_set(&world.path, &staged.read_set);
}

#[test]
fn a_path_goes_through_40_links_and_not_through_41() {
    let world = World::with(&[("l0", "end")]);
    for at in 1..=41 {
        symlink(format!("l{}", at - 1), world.at(&format!("l{at}"))).expect("link");
    }
    symlink("loop", world.at("loop")).expect("link");
    let session = world.stage();
    assert_eq!(session.read("l40"), Ok(b"end".to_vec()));
    assert_eq!(session.read("l41"), Err(StageError::Loop));
    assert_eq!(session.read("loop"), Err(StageError::Loop));
}

#[test]
fn long_reads_are_witnessed_with_the_digest_of_what_was_served() {
    let long: String = (0..900_000).map(|at| format!("{at:05}")).collect();
    let world = World::with(&[("a", &long), ("b", &long)]);
    let session = world.stage();
    assert_eq!(session.read("a"), Ok(long.clone().into_bytes()));
    let b = session.open("b", READ).expect("open");
    for at in (1_000..4_000_000).step_by(CHUNK_BYTES) {
        session.stage.read_at(&b, at, u64::MAX).expect("read");
    }
    session.rename("a", "c").expect("rename");
    let staged = session.stage.seal().expect("seal");
    check_read_set(&world.path, &staged.read_set);
    let ranges = staged.read_set.iter().filter(|entry| matches!(entry.observation, Observation::Content { .. }));
    assert_eq!(ranges.count(), 5, "three pieces of 2 MiB of the whole file, two of the other");
    apply(&world.path, &staged);
}

#[test]
fn large_and_sparse_files_reach_the_workspace_whole() {
    let world = World::with(&[("log", &"l".repeat(100_000))]);
    let session = world.stage();
    let log = session.open("log", WRITE).expect("open");
    session.stage.append(&log, b"end").expect("append");
    let sparse = session.open("sparse", CREATE).expect("open");
    session.stage.set_size(&sparse, 300_000).expect("size");
    session.stage.write_at(&sparse, 150_000, b"middle").expect("write");
    let staged = session.stage.seal().expect("seal");
    apply(&world.path, &staged);
    let mut expect = vec![0; 300_000];
    expect[150_000..150_006].copy_from_slice(b"middle");
    let tree = contents(&world.path);
    assert_eq!(tree["sparse"], Some(expect));
    assert_eq!(tree["log"], Some([vec![b'l'; 100_000], b"end".to_vec()].concat()));
}

#[test]
fn handles_of_two_workspaces_do_not_mix() {
    let (one, two) = (World::with(&[("a", "1")]), World::with(&[("b", "2")]));
    let mut other = everything();
    other.workspace = "notes".parse().expect("name");
    let limits = StageLimits { bytes: 100, effects: 10 };
    let session = Session::over(vec![one.mount(everything()), two.mount(other)], limits);
    let roots = session.stage.roots();
    let names: Vec<&str> = roots.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["books", "notes"]);
    let (books, notes) = (&roots[0].1, &roots[1].1);
    assert_eq!(session.stage.rename(books, "a", notes, "a"), Err(StageError::CrossWorkspace));
    session.stage.create_directory(notes, "d").expect("mkdir");
    session.write("c", b"3").expect("write");
    let staged = session.stage.seal().expect("seal");
    let at: Vec<(&str, &str)> =
        staged.effects.iter().map(|e| (e.kind(), e.workspace().expect("a file").as_str())).collect();
    assert_eq!(at, [("dir.create", "notes"), ("file.write", "books")]);
}

#[test]
fn times_of_staged_files_are_the_frozen_clock_and_wild_ones_are_kept_as_they_are() {
    let world = World::new();
    let session = world.stage();
    session.write("a", b"x").expect("write");
    let stat = |path| session.stage.stat_at(&session.root, path, false).expect("stat").0.modified_ns;
    assert_eq!(u64::try_from(stat("a")), Ok(super::world::NOW_NS));
    for time in [i64::MIN, -1, 0, i64::MAX] {
        session.stage.set_times_at(&session.root, "a", false, Some(time)).expect("times");
        assert_eq!(stat("a"), time);
    }
}
