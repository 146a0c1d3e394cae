//! Attacks on the stage by a guest: paths, links, special files, quotas, grants.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};
use toolkeep_core::capability::{Access, GrantRefusal, SensitiveClass};
use toolkeep_core::path::{DEPTH_MAX, PathProblem};
use toolkeep_core::plan::EntryKind;
use toolkeep_sandbox::stage::{BREACHES_MAX, OBSERVATIONS_MAX, OPEN_FILES_MAX, OpenHow, StageError, StageLimits};

use super::world::{CREATE, READ, Session, WRITE, World, everything, grant, tree};

/// Every operation that takes a path, as errors.
fn every_operation(session: &Session, path: &str) -> Vec<(&'static str, Option<StageError>)> {
    let (stage, root) = (&session.stage, &session.root);
    vec![
        ("open", session.open(path, READ).err()),
        ("write", session.open(path, OpenHow { truncate: true, ..WRITE }).err()),
        ("create", session.open(path, CREATE).err()),
        ("exclusive", session.open(path, OpenHow { exclusive: true, ..CREATE }).err()),
        ("directory", session.open(path, OpenHow { directory: true, ..READ }).err()),
        ("stat", stage.stat_at(root, path, true).err()),
        ("lstat", stage.stat_at(root, path, false).err()),
        ("readlink", stage.read_link(root, path).err()),
        ("mkdir", session.mkdir(path).err()),
        ("rmdir", session.rmdir(path).err()),
        ("unlink", session.unlink(path).err()),
        ("rename from", session.rename(path, "fresh").err()),
        ("rename to", session.rename("inside", path).err()),
        ("times", stage.set_times_at(root, path, true, Some(1)).err()),
    ]
}

#[test]
fn t_f1_every_operation_refuses_every_path_outside_the_grammar() {
    let world = World::with(&[("inside", "x"), ("d/f", "y")]);
    let outside = World::with(&[("secret", "s")]);
    let secret = outside.at("secret");
    let long = "a".repeat(256);
    let deep = vec!["a"; DEPTH_MAX + 1].join("/");
    let huge = "a/".repeat(2049) + "a";
    let absolute = secret.to_str().expect("utf-8");
    let climb = format!("../{}/secret", outside.path.file_name().expect("name").to_str().expect("utf-8"));
    let table: Vec<(&str, StageError)> = vec![
        ("", StageError::NoEntry),
        ("/", StageError::BadPath(PathProblem::Absolute)),
        ("//", StageError::BadPath(PathProblem::Absolute)),
        (absolute, StageError::BadPath(PathProblem::Absolute)),
        ("/inside", StageError::BadPath(PathProblem::Absolute)),
        ("..", StageError::Escape),
        ("../", StageError::BadPath(PathProblem::TrailingSlash)),
        (&climb, StageError::Escape),
        ("d/../../x", StageError::Escape),
        ("./..", StageError::Escape),
        ("d/..//../x", StageError::BadPath(PathProblem::Empty)),
        ("inside/", StageError::BadPath(PathProblem::TrailingSlash)),
        ("d/.", StageError::BadPath(PathProblem::TrailingSlash)),
        ("d//f", StageError::BadPath(PathProblem::Empty)),
        ("d\\f", StageError::BadPath(PathProblem::Control)),
        ("..\\x", StageError::BadPath(PathProblem::Control)),
        ("in\0side", StageError::BadPath(PathProblem::Control)),
        ("in\nside", StageError::BadPath(PathProblem::Control)),
        ("in\u{7f}side", StageError::BadPath(PathProblem::Control)),
        ("in\u{85}side", StageError::BadPath(PathProblem::Control)),
        (&long, StageError::BadPath(PathProblem::LongComponent)),
        (&deep, StageError::BadPath(PathProblem::TooDeep)),
        (&huge, StageError::BadPath(PathProblem::LongPath)),
    ];
    let before = tree(&outside.path);
    for (path, expect) in &table {
        let session = world.stage();
        for (operation, error) in every_operation(&session, path) {
            assert_eq!(error.as_ref(), Some(expect), "{operation} {path:?}");
        }
        let escapes = matches!(expect, StageError::Escape | StageError::BadPath(PathProblem::Absolute));
        assert_eq!(!session.stage.breaches().is_empty(), escapes, "{path:?} {:?}", session.stage.breaches());
        assert_eq!(session.stage.seal().expect("seal").effects, [], "{path:?}");
    }
    assert_eq!(tree(&outside.path), before);
}

#[test]
fn t_f1_a_handle_on_a_directory_is_the_top_of_its_paths() {
    let world = World::with(&[("d/e/f", "x"), ("secret", "s")]);
    symlink("../../secret", world.at("d/e/up")).expect("link");
    let session = world.stage();
    let inner = session.open("d/e", READ).expect("open");
    let read = |path| session.stage.open(&inner, path, READ).map(|_| ());
    assert_eq!(read("f"), Ok(()));
    assert_eq!(read("../../secret"), Err(StageError::Escape));
    assert_eq!(read("../e/f"), Err(StageError::Escape));
    assert_eq!(read("up"), Err(StageError::Escape), "a link leads no further than a path");
    assert_eq!(session.read("d/e/up"), Ok(b"s".to_vec()), "from the root it stays inside");
}

#[test]
fn t_f2_links_lead_nowhere_outside_and_nothing_is_changed_through_them() {
    let world = World::with(&[("inside", "x"), ("d/f", "y")]);
    let outside = World::with(&[("secret", "s")]);
    symlink(&outside.path, world.at("absolute")).expect("link");
    symlink(format!("../{}", outside.path.file_name().expect("name").display()), world.at("climbing")).expect("link");
    symlink("d", world.at("dir")).expect("link");
    symlink("inside", world.at("file")).expect("link");
    symlink("born", world.at("dangling")).expect("link");
    let session = world.stage();
    for path in ["absolute/secret", "climbing/secret", "absolute", "climbing"] {
        assert_eq!(session.open(path, READ).map(|_| ()), Err(StageError::Escape), "{path}");
    }
    assert_eq!(session.stage.read_link(&session.root, "absolute"), Err(StageError::Escape), "tells no host path");
    let refused = Err(StageError::LinkOrSpecial);
    assert_eq!(session.open("file", CREATE).map(|_| ()), refused);
    assert_eq!(session.open("dir/f", WRITE).map(|_| ()), refused);
    assert_eq!(session.open("dir/new", CREATE).map(|_| ()), refused);
    assert_eq!(session.open("dangling", CREATE).map(|_| ()), refused);
    assert_eq!(session.mkdir("dir/new"), refused);
    assert_eq!(session.unlink("dir/f"), refused);
    assert_eq!(session.rename("dir/f", "g"), refused);
    assert_eq!(session.rename("inside", "dir/g"), refused);
    assert_eq!(session.stage.set_times_at(&session.root, "file", true, Some(1)), refused);
    assert_eq!(session.unlink("file"), refused, "links themselves are read-only too");
    assert_eq!(session.rename("file", "moved"), refused);
    assert_eq!(session.rename("inside", "file"), refused);
    assert_eq!(session.open("file", OpenHow { exclusive: true, ..CREATE }).map(|_| ()), Err(StageError::Exists));
    for what in ["link", "symlink"] {
        assert_eq!(session.stage.refuse_link(what, "x"), Err(StageError::Unsupported));
    }
    assert!(!session.stage.breaches().is_empty());
    assert_eq!(session.stage.seal().expect("seal").effects, []);
}

#[test]
fn t_f2_a_component_that_becomes_a_link_is_not_followed() {
    let world = World::with(&[("d/f", "mine")]);
    let outside = World::with(&[("f", "secret")]);
    let session = world.stage();
    session.stage.stat_at(&session.root, "d/f", false).expect("stat");
    fs::rename(world.at("d"), world.at("old")).expect("move");
    symlink(&outside.path, world.at("d")).expect("link");
    assert!(matches!(session.read("d/f"), Err(StageError::Stale { .. })));
    let session = world.stage();
    let directory = session.open("old", READ).expect("open");
    fs::remove_file(world.at("d")).expect("remove");
    fs::rename(world.at("old"), world.at("d")).expect("move");
    symlink(&outside.path, world.at("old")).expect("link");
    assert_eq!(session.stage.open(&directory, "f", READ).map(|_| ()), Err(StageError::Loop));
}

#[test]
fn t_f4_files_with_several_hard_links_are_shown_and_refused() {
    let world = World::with(&[("plain", "x")]);
    let outside = World::with(&[("secret", "s")]);
    fs::hard_link(outside.at("secret"), world.at("linked")).expect("hard link");
    let session = world.stage();
    let (stat, _) = session.stage.stat_at(&session.root, "linked", false).expect("stat");
    assert_eq!((stat.entry, stat.size), (EntryKind::Refused, 0));
    assert_eq!(session.names("."), Ok(vec!["linked".to_owned(), "plain".to_owned()]));
    let refused = Err(StageError::LinkOrSpecial);
    assert_eq!(session.read("linked").map(|_| ()), refused);
    assert_eq!(session.open("linked", CREATE).map(|_| ()), refused);
    assert_eq!(session.unlink("linked"), refused);
    assert_eq!(session.rename("linked", "mine"), refused);
    assert_eq!(session.rename("plain", "linked"), refused);
    assert_eq!(session.stage.set_times_at(&session.root, "linked", false, Some(1)), refused);
    assert_eq!(session.stage.seal().expect("seal").effects, []);

    let session = world.stage();
    session.stage.stat_at(&session.root, "plain", false).expect("stat");
    fs::hard_link(world.at("plain"), outside.at("second")).expect("hard link");
    assert!(matches!(session.read("plain"), Err(StageError::Stale { .. })), "linked after it was seen");
}

fn make(path: &Path, kind: FileType) -> bool {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3)).is_ok()
}

#[test]
fn t_f5_special_files_are_shown_and_never_opened() {
    let world = World::with(&[("d/plain", "x")]);
    assert!(make(&world.at("d/fifo"), FileType::Fifo));
    assert!(make(&world.at("d/socket"), FileType::Socket));
    let mut names = vec!["d/fifo", "d/socket"];
    if make(&world.at("d/null"), FileType::CharacterDevice) {
        names.push("d/null");
    }
    let session = world.stage();
    for name in names {
        let (stat, _) = session.stage.stat_at(&session.root, name, true).expect("stat");
        assert_eq!(stat.entry, EntryKind::Refused, "{name}");
        let refused = Err(StageError::LinkOrSpecial);
        assert_eq!(session.open(name, READ).map(|_| ()), refused, "{name}");
        assert_eq!(session.open(name, WRITE).map(|_| ()), refused, "{name}");
        assert_eq!(session.unlink(name), refused, "{name}");
        assert_eq!(session.rename("d/plain", name), refused, "{name}");
        let below = format!("{name}/x");
        assert_eq!(session.open(&below, READ).map(|_| ()), Err(StageError::NotDirectory), "{name}");
    }
    assert_eq!(session.rename("d", "e"), Err(StageError::LinkOrSpecial), "nor moved along");
    assert_eq!(session.stage.seal().expect("seal").effects, []);
}

#[test]
fn t_f5_another_mount_is_shown_and_not_entered() {
    // `/dev` is not a pseudo file system by its type, and has mounts beneath it.
    let mount = toolkeep_sandbox::workspace::WorkspaceRoot::open("books".parse().expect("name"), Path::new("/dev"));
    let Ok(root) = mount else { return };
    let Ok(shm) = fs::metadata("/dev/shm") else { return };
    if std::os::unix::fs::MetadataExt::dev(&shm) == root.device() {
        return;
    }
    let mount = toolkeep_sandbox::stage::Mount { root: std::sync::Arc::new(root).into(), grant: everything() };
    let session = Session::over(vec![mount], StageLimits { bytes: 100, effects: 10 });
    let (stat, _) = session.stage.stat_at(&session.root, "shm", false).expect("stat");
    assert_eq!(stat.entry, EntryKind::Refused);
    assert_eq!(session.open("shm", READ).map(|_| ()), Err(StageError::LinkOrSpecial));
    assert_eq!(session.open("shm/x", READ).map(|_| ()), Err(StageError::LinkOrSpecial));
    assert_eq!(session.read("null").map(|_| ()), Err(StageError::LinkOrSpecial));
}

#[test]
fn t_f7_the_quota_of_bytes_holds_at_n_and_n_plus_1_whatever_the_numbers() {
    let world = World::with(&[("a", "12345")]);
    let limits = StageLimits { bytes: 10, effects: 100 };
    let full = || Err(StageError::Full { what: "bytes", limit: 10 });
    let fresh = || {
        let session = world.stage_with(everything(), limits);
        let file = session.open("n", CREATE).expect("open");
        (session, file)
    };
    let (session, file) = fresh();
    session.stage.write_at(&file, 0, &[1; 10]).expect("ten");
    session.stage.set_size(&file, 3).expect("fewer");
    session.stage.append(&file, &[1; 7]).expect("ten again");
    assert_eq!(session.stage.append(&file, &[1]), full());
    for size in [11, 1 << 63, u64::MAX] {
        let (session, file) = fresh();
        session.stage.set_size(&file, 10).expect("ten");
        assert_eq!(session.stage.set_size(&file, size), full(), "{size}");
    }
    for offset in [10, u64::MAX - 1, u64::MAX, 1 << 63] {
        let (session, file) = fresh();
        assert_eq!(session.stage.write_at(&file, offset, &[1]), full(), "{offset}");
    }
    let (session, file) = fresh();
    session.stage.write_at(&file, 0, &[1; 6]).expect("six");
    let copy = session.open("a", WRITE).expect("open");
    assert_eq!(session.stage.write_at(&copy, 0, b"x"), full(), "a copy counts as a whole");
    let (session, file) = fresh();
    session.stage.write_at(&file, 0, &[1; 6]).expect("six");
    session.rename("n", "a").expect("rename");
    assert_eq!(session.stage.seal().expect("seal").effects.len(), 1);
}

#[test]
fn t_f7_a_million_creates_stop_at_the_limit() {
    let world = World::new();
    let session = world.stage_with(everything(), StageLimits { bytes: 100, effects: 500 });
    let made = (0..1_000_000).take_while(|at| session.write(&format!("f{at}"), b"").is_ok()).count();
    assert_eq!(made, 500);
    assert_eq!(session.stage.failure(), Some(StageError::Full { what: "effects", limit: 500 }));
}

#[test]
fn t_f7_directories_are_64_deep_and_not_65_however_they_are_reached() {
    let world = World::new();
    let session = world.stage();
    let mut here = session.root.clone();
    for _ in 0..DEPTH_MAX {
        session.stage.create_directory(&here, "d").expect("mkdir");
        here = session.stage.open(&here, "d", READ).expect("open");
    }
    let full = Err(StageError::Full { what: "levels of directories", limit: DEPTH_MAX as u64 });
    assert_eq!(session.stage.create_directory(&here, "d"), full);

    let session = world.stage();
    session.mkdir("top").expect("mkdir");
    let mut here = session.open("top", READ).expect("open");
    for _ in 2..DEPTH_MAX {
        session.stage.create_directory(&here, "d").expect("mkdir");
        here = session.stage.open(&here, "d", READ).expect("open");
    }
    session.mkdir("m").expect("mkdir");
    session.rename("top", "m/top").expect("64 levels");
    session.mkdir("n").expect("mkdir");
    assert_eq!(session.rename("m", "n/m"), full);
}

#[test]
fn t_r3_many_open_handles_hold_few_descriptors_of_the_host() {
    let world = World::new();
    for at in 0..200 {
        world.put(&format!("f{at}"), b"content");
    }
    let session = world.stage();
    let handles: Vec<_> = (0..200).map(|at| session.open(&format!("f{at}"), READ).expect("open")).collect();
    for _ in 0..2 {
        for handle in &handles {
            assert_eq!(session.stage.read_at(handle, 0, 99), Ok(b"content".to_vec()));
        }
    }
    let held = || {
        let targets = fs::read_dir("/proc/self/fd").expect("list").filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        targets.filter(|target| target.starts_with(&world.path) && *target != world.path).count()
    };
    assert_eq!(held(), OPEN_FILES_MAX);
    drop(handles);
    assert_eq!(held(), 0);
}

#[test]
fn t_f7_observations_stop_at_their_limit() {
    let world = World::with(&[("a", &"x".repeat(10))]);
    let session = world.stage();
    let miss = |at: usize| session.stage.stat_at(&session.root, &format!("m{at}"), false).map(|_| ());
    for at in 0..OBSERVATIONS_MAX {
        assert_eq!(miss(at), Err(StageError::NoEntry));
    }
    assert_eq!(miss(0), Err(StageError::NoEntry), "known already");
    let full = StageError::Full { what: "observations", limit: OBSERVATIONS_MAX as u64 };
    assert_eq!(miss(OBSERVATIONS_MAX), Err(full));
}

#[test]
fn t_f7_breaches_are_counted_up_to_a_hundred() {
    let world = World::new();
    let session = world.stage();
    for _ in 0..BREACHES_MAX + 5 {
        assert!(session.read(&format!("../{}", "\u{202e}".repeat(80))).is_err());
    }
    let breaches = session.stage.seal().expect("seal").breaches;
    assert_eq!(breaches.len(), BREACHES_MAX);
    assert!(breaches.iter().all(|text| text.len() <= 400 && text.is_ascii()), "{:?}", breaches.first());
}

#[test]
fn t_f9_sensitive_paths_are_listed_and_not_opened() {
    let world = World::with(&[(".env", "KEY=1"), ("src/.git/config", "x"), ("src/a", "y")]);
    let session = world.stage_with(grant(Access::Write, &["**"], &["**"], &[]), StageLimits { bytes: 99, effects: 9 });
    let denied = |class| Some(StageError::Denied(GrantRefusal::Sensitive(class)));
    assert_eq!(session.names("."), Ok(vec![".env".to_owned(), "src".to_owned()]));
    assert_eq!(session.read(".env").err(), denied(SensitiveClass::Credentials));
    assert_eq!(session.write(".env", b"").err(), denied(SensitiveClass::Credentials));
    assert_eq!(session.unlink(".env").err(), denied(SensitiveClass::Credentials));
    assert_eq!(session.rename(".env", "env.txt").err(), denied(SensitiveClass::Credentials));
    assert_eq!(session.rename("src/a", "src/CLAUDE.md").err(), denied(SensitiveClass::AgentConfig));
    assert_eq!(session.names("src/.git").err(), denied(SensitiveClass::Automation));
    assert_eq!(session.read("src/.git/config").err(), denied(SensitiveClass::Automation));
    assert_eq!(session.write("src/.git/hooks", b"").err(), denied(SensitiveClass::Automation));
    assert_eq!(session.rename("src", "lib").err(), denied(SensitiveClass::Automation), "nor moved along");
    assert_eq!(session.stage.breaches().len(), 9);
}

#[test]
fn t_f12_the_temporaries_of_commits_are_not_seen_and_not_made() {
    let name = format!(".toolkeep-{}-3.tmp", "a".repeat(32));
    let world = World::with(&[("d/plain", "x"), (&format!("d/{name}"), "half")]);
    let session = world.stage();
    let path = format!("d/{name}");
    assert_eq!(session.names("d"), Ok(vec!["plain".to_owned()]));
    assert_eq!(session.read(&path).map(|_| ()), Err(StageError::NoEntry));
    assert_eq!(session.unlink(&path), Err(StageError::NoEntry));
    for path in [path.as_str(), name.as_str()] {
        assert_eq!(session.write(path, b"x"), Err(StageError::Reserved));
        assert_eq!(session.mkdir(path), Err(StageError::Reserved));
        assert_eq!(session.rename("d/plain", path), Err(StageError::Reserved));
    }
    assert_eq!(session.stage.seal().expect("seal").effects, []);
}

#[test]
fn t_f8_new_names_are_composed_and_old_ones_stay_usable() {
    let (composed, apart) = ("caf\u{e9}.txt", "cafe\u{301}.txt");
    let world = World::with(&[(&format!("old/{apart}"), "x"), ("plain", "y")]);
    let session = world.stage();
    for path in [apart.to_owned(), format!("old/n{apart}"), "\u{212b}".to_owned(), "\u{1100}\u{1161}".to_owned()] {
        assert_eq!(session.write(&path, b"x"), Err(StageError::NotComposed), "{path:?}");
        assert_eq!(session.mkdir(&path), Err(StageError::NotComposed));
        assert_eq!(session.rename("plain", &path), Err(StageError::NotComposed));
    }
    assert_eq!(session.write(composed, b"x"), Ok(()));
    assert_eq!(session.write(&format!("old/{apart}"), b"z"), Ok(()), "it is there already");
    assert_eq!(session.rename(&format!("old/{apart}"), &format!("old/{composed}")), Ok(()));
    assert_eq!(session.stage.breaches().len(), 0, "a mistake is no attack");
}

#[test]
fn r01_the_grant_is_asked_for_every_effect_at_every_path() {
    let world = World::with(&[("ledger/a.csv", "1"), ("ledger/b.txt", "2"), ("private/key", "k"), ("out/old.md", "o")]);
    let grant = grant(Access::Write, &["ledger/*.csv"], &["out/*.md", "private/*"], &[]);
    let session = world.stage_with(grant, StageLimits { bytes: 99, effects: 9 });
    let unreadable = StageError::Denied(GrantRefusal::NotReadable);
    let unwritable = StageError::Denied(GrantRefusal::NotWritable);
    assert_eq!(session.read("ledger/a.csv"), Ok(b"1".to_vec()));
    assert_eq!(session.read("ledger/b.txt"), Err(unreadable.clone()));
    assert_eq!(session.names("ledger"), Ok(vec!["a.csv".to_owned(), "b.txt".to_owned()]), "names are shown");
    assert_eq!(session.write("ledger/a.csv", b"x"), Err(unwritable.clone()));
    assert_eq!(session.open("ledger/a.csv", OpenHow { truncate: true, ..READ }).err(), Some(unwritable.clone()));
    assert_eq!(session.write("top.md", b"x"), Err(unwritable.clone()));
    assert_eq!(session.rename("out/old.md", "ledger/a.csv"), Err(unwritable.clone()));
    assert_eq!(session.rename("ledger/a.csv", "out/a.md"), Err(unwritable));
    assert_eq!(session.read("out/old.md"), Err(unreadable.clone()), "writable is not readable");
    session.write("out/new.md", b"n").expect("granted");
    assert_eq!(session.read("out/new.md"), Ok(b"n".to_vec()), "its own words are no secret to it");
    assert_eq!(session.open("private/key", READ).err(), Some(unreadable));
    assert_eq!(session.stage.seal().expect("seal").effects.len(), 1);
}

#[test]
fn r01_moving_a_file_does_not_make_it_readable() {
    let world = World::with(&[("private/key", "k"), ("private/d/deep", "k")]);
    let grant = grant(Access::Write, &["public/**"], &["**"], &[]);
    let session = world.stage_with(grant, StageLimits { bytes: 99, effects: 9 });
    session.mkdir("public").expect("mkdir");
    let unreadable = Err(StageError::Denied(GrantRefusal::NotReadable));
    assert_eq!(session.rename("private/key", "public/key"), unreadable);
    assert_eq!(session.rename("private", "public/p"), unreadable);
    session.rename("private/key", "private/other").expect("unseen to unseen");
    assert_eq!(session.read("private/other").map(|_| ()), unreadable);
}

#[test]
fn r01_a_read_grant_changes_nothing() {
    let world = World::with(&[("a", "x")]);
    let session = world.stage_with(grant(Access::Read, &["**"], &["**"], &[]), StageLimits { bytes: 99, effects: 9 });
    let unwritable = Some(StageError::Denied(GrantRefusal::NotWritable));
    assert_eq!(session.write("a", b"y").err(), unwritable);
    assert_eq!(session.write("b", b"y").err(), unwritable);
    assert_eq!(session.unlink("a").err(), unwritable);
    assert_eq!(session.mkdir("d").err(), unwritable);
    assert_eq!(session.rename("a", "b").err(), unwritable);
    assert_eq!(session.stage.set_times_at(&session.root, "a", true, Some(1)).err(), unwritable);
    assert_eq!(session.stage.seal().expect("seal").effects, []);
}
