//! Random sequences of operations over random small trees.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use toolkeep_sandbox::stage::{OpenHow, Staged};

use super::applier::{apply, check_read_set, undo};
use super::operation::{Native, Operation, SLOTS, Staging};
use super::world::{World, contents, tree};

/// Enough for every pair of operations to meet, few enough for some seconds.
const CASES: u32 = 200;
/// Longest sequence.
const OPERATIONS_MAX: usize = 40;

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c")]
}

fn plain() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => name().prop_map(str::to_owned),
        3 => (name(), name()).prop_map(|(x, y)| format!("{x}/{y}")),
        2 => (name(), name(), name()).prop_map(|(x, y, z)| format!("{x}/{y}/{z}")),
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![8 => plain(), 1 => (name(), name()).prop_map(|(x, y)| format!("./{x}/../{y}"))]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..40_usize, 1 => 65_500..65_600_usize, 1 => Just(140_000)]
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..60_u64, 1 => 65_000..66_000_u64, 1 => Just(200_000)]
}

fn how() -> impl Strategy<Value = OpenHow> {
    (any::<bool>(), any::<bool>(), any::<bool>(), 0..4_u8, any::<bool>()).prop_map(
        |(read, write, create, exclusive, truncate)| OpenHow {
            read,
            write,
            create,
            exclusive: create && exclusive == 0,
            truncate: truncate && write,
            ..OpenHow::default()
        },
    )
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    let slot = || 0..SLOTS;
    prop_oneof![
        6 => (slot(), path(), how()).prop_map(|(slot, path, how)| Operation::Open { slot, path, how }),
        1 => slot().prop_map(|slot| Operation::Close { slot }),
        4 => (slot(), offset(), length(), any::<u8>())
            .prop_map(|(slot, offset, length, byte)| Operation::Write { slot, offset, length, byte }),
        2 => (slot(), length(), any::<u8>()).prop_map(|(slot, length, byte)| Operation::Append { slot, length, byte }),
        2 => (slot(), offset()).prop_map(|(slot, size)| Operation::SetSize { slot, size }),
        3 => (slot(), offset(), 0..70_000_u64)
            .prop_map(|(slot, offset, length)| Operation::Read { slot, offset, length }),
        1 => slot().prop_map(|slot| Operation::Size { slot }),
        2 => path().prop_map(|path| Operation::Stat { path }),
        2 => prop_oneof![path(), Just(".".to_owned())].prop_map(|path| Operation::List { path }),
        4 => path().prop_map(|path| Operation::CreateDirectory { path }),
        3 => path().prop_map(|path| Operation::RemoveDirectory { path }),
        4 => path().prop_map(|path| Operation::Unlink { path }),
        8 => (path(), path()).prop_map(|(from, to)| Operation::Rename { from, to }),
        1 => (path(), any::<u32>()).prop_map(|(path, unix_s)| Operation::SetTime { path, unix_s }),
    ]
}

/// Entries of the start: a path, and the size of a file or nothing for a directory. What does not fit is left out.
pub(super) fn start() -> impl Strategy<Value = Vec<(String, Option<usize>)>> {
    vec((plain(), prop_oneof![Just(None), length().prop_map(Some)]), 0..9)
}

pub(super) fn build(world: &World, start: &[(String, Option<usize>)]) {
    for (index, (path, size)) in start.iter().enumerate() {
        let path = world.at(path);
        if path.exists() {
            continue;
        }
        let parent = path.parent().expect("parent").to_owned();
        if std::fs::create_dir_all(&parent).is_err() {
            continue;
        }
        match size {
            None => std::fs::create_dir(&path).expect("directory"),
            Some(size) => std::fs::write(&path, vec![u8::try_from(index).expect("few"); *size]).expect("file"),
        }
    }
}

/// Run on the stage, comparing each answer with the native one where a native tree is given.
fn run(world: &World, operations: &[Operation], native: Option<&Path>) -> Result<Staged, TestCaseError> {
    let session = world.stage();
    let mut staging = Staging { session: &session, slots: [None, None, None] };
    let mut native = native.map(|root| Native { root, slots: [None, None, None] });
    for operation in operations {
        let answer = staging.run(operation);
        if let Some(native) = &mut native {
            let expect = native.run(operation);
            if answer != expect {
                return Err(TestCaseError::fail(format!("{operation:?}\nstage:  {answer:?}\nnative: {expect:?}")));
            }
        }
    }
    drop(staging);
    session.stage.seal().map_err(|error| TestCaseError::fail(format!("seal: {error}")))
}

fn check(start: &[(String, Option<usize>)], operations: &[Operation]) -> Result<(), TestCaseError> {
    let (world, twin) = (World::new(), World::new());
    build(&world, start);
    build(&twin, start);
    let before = tree(&world.path);
    let staged = run(&world, operations, Some(&twin.path))?;
    let again = run(&world, operations, None)?;
    let fail = |what: &str| TestCaseError::fail(format!("{what}\neffects: {:#?}", staged.effects));
    if staged.effects != again.effects || staged.read_set != again.read_set {
        return Err(fail("the same operations gave other effects or another read set"));
    }
    if tree(&world.path) != before {
        return Err(fail("staging changed the workspace"));
    }
    check_read_set(&world.path, &staged.read_set);
    let kept = apply(&world.path, &staged);
    if contents(&world.path) != contents(&twin.path) {
        return Err(fail("applied and native trees differ"));
    }
    undo(&world.path, &staged.effects, &kept);
    let same_but_times = |world: &World| {
        let modes = |entry| match entry {
            super::world::Entry::File { content, mode, .. } => Some((content, mode)),
            _ => None,
        };
        tree(&world.path).into_iter().map(|(name, entry)| (name, modes(entry))).collect::<Vec<_>>()
    };
    let start_world = World::new();
    build(&start_world, start);
    if same_but_times(&world) != same_but_times(&start_world) {
        return Err(fail("undoing did not give the start back"));
    }
    Ok(())
}

#[test]
fn r05_staged_then_applied_equals_the_same_operations_run_natively_and_undo_gives_the_start_back() {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let cases = (start(), vec(operation(), 1..OPERATIONS_MAX));
    if let Err(error) = runner.run(&cases, |(start, operations)| check(&start, &operations)) {
        panic!("{error}");
    }
}
