//! G1: killed before any changing system call, a commit recovers to before or after, and so does a killed recovery.

use std::collections::BTreeMap;

use toolkeep::commit::files::LOGGED_MAX_BYTES;
use toolkeep_tests::support::proof::told;

use crate::commit::shapes::{SHAPES, shape};
use crate::commit::world::World;
use crate::hard::strace::{Call, End, MUTATING, built, calls, child, choose, each, killed, outcome};

/// Cases of an ordinary run; each starts two to four processes.
const SAMPLE: usize = 220;
const SAMPLE_TWICE: usize = 120;
const SAMPLE_LOST: usize = 80;

type Snapshot = BTreeMap<String, String>;

/// The same shape without any kill: before, after, and how many calls it takes.
pub struct Reference {
    pub before: Snapshot,
    pub after: Snapshot,
    pub calls: Vec<Call>,
}

impl Reference {
    /// The calls between the intent and the outcome: files of the stand-in ledger get their names by `rename`.
    pub fn applying(&self) -> &[Call] {
        let stored: Vec<usize> =
            self.calls.iter().enumerate().filter(|(_, (name, _))| name == "rename").map(|(at, _)| at).collect();
        let [.., intent, outcome] = stored.as_slice() else { panic!("no intent and outcome in {:?}", self.calls) };
        &self.calls[intent + 1..=*outcome]
    }
}

pub fn reference(name: &str, set: &str) -> Reference {
    let world = built(shape(name));
    let before = world.snapshot();
    let calls = calls(&world, &["commit", name], set);
    assert_eq!(outcome(&world).as_deref(), Some("committed"), "{name}");
    let after = world.snapshot();
    assert_eq!(world.residue(), Vec::<String>::new(), "{name}");
    Reference { before, after, calls }
}

/// The world must be exactly before or after, as the intent says, with nothing left over.
fn assert_settled(world: &World, reference: &Reference, intended: bool) {
    let wanted = if intended { &reference.after } else { &reference.before };
    assert_eq!(&world.snapshot(), wanted, "intent durable: {intended}, outcome {:?}", outcome(world));
}

#[test]
fn g1_t_f11_t_f12_a_commit_killed_at_every_syscall_is_before_or_after_without_residue() {
    assert!(SHAPES.len() >= 12);
    let references: BTreeMap<&str, Reference> =
        SHAPES.iter().map(|shape| (shape.name, reference(shape.name, MUTATING))).collect();
    let mut cases: Vec<(&str, Call)> = Vec::new();
    for (name, reference) in &references {
        cases.extend(reference.calls.iter().map(|call| (*name, call.clone())));
    }
    let total = cases.len();
    let done = each(choose(cases, SAMPLE), |(name, at)| {
        let world = built(shape(name));
        assert_eq!(killed(&world, &["commit", name], at), End::Killed);
        let intended = world.at("state/steps").exists();
        assert_eq!(child(&world, &["recover"]), End::Done);
        assert_settled(&world, &references[name], intended);
        assert_eq!(child(&world, &["recover"]), End::Done, "recovery is repeatable");
        assert_settled(&world, &references[name], intended);
    });
    told("G1 kill of a commit", done, "torn", &format!("of {total} indices over {} shapes", SHAPES.len()));
}

#[test]
fn g1_a_recovery_killed_at_every_syscall_is_recovered_by_the_next() {
    let references: BTreeMap<&str, Reference> =
        SHAPES.iter().map(|shape| (shape.name, reference(shape.name, MUTATING))).collect();
    // A recovery makes no more calls than the commit made.
    let mut cases: Vec<(&str, Call, Call)> = Vec::new();
    for (name, reference) in &references {
        for first in reference.applying() {
            cases.extend(reference.calls.iter().map(|second| (*name, first.clone(), second.clone())));
        }
    }
    let total = cases.len();
    // Of all pairs, a hard run takes one in five: the second kill repeats the states of the first.
    let cases: Vec<_> = cases.into_iter().enumerate().filter(|(at, _)| at % 5 == 0).map(|(_, case)| case).collect();
    let twice = std::sync::atomic::AtomicUsize::new(0);
    let done = each(choose(cases, SAMPLE_TWICE), |(name, first, second)| {
        let world = built(shape(name));
        assert_eq!(killed(&world, &["commit", name], first), End::Killed);
        assert!(world.at("state/steps").exists());
        let end = killed(&world, &["recover"], second);
        if end == End::Killed {
            twice.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        assert_ne!(end, End::Failed);
        assert_eq!(child(&world, &["recover"]), End::Done);
        assert_settled(&world, &references[name], true);
    });
    let twice = twice.into_inner();
    assert!(twice > 0 && twice * 3 >= done, "too few recoveries were killed to show anything: {twice} of {done}");
    let more =
        format!("in {done} of {total} pairs of calls, one of five, the others made fewer calls than the second is");
    told("G1 kill of a recovery", twice, "torn", &more);
}

/// Lose what was not flushed: the new files that the log holds are empty.
fn lose(world: &World) {
    for name in world.residue() {
        let path = world.at(&name);
        let logged = std::fs::metadata(&path).is_ok_and(|stat| stat.is_file() && stat.len() <= LOGGED_MAX_BYTES);
        if logged {
            std::fs::write(path, "").expect("emptied");
        }
    }
}

#[test]
fn g1_a_recovery_after_a_power_loss_killed_at_every_syscall_is_recovered_by_the_next() {
    let references: BTreeMap<&str, Reference> =
        SHAPES.iter().map(|shape| (shape.name, reference(shape.name, MUTATING))).collect();
    let lost = |name: &str| {
        let world = built(shape(name));
        assert_eq!(killed(&world, &["commit", name], &references[name].applying()[0]), End::Killed);
        lose(&world);
        world
    };
    let mut cases: Vec<(&str, Call)> = Vec::new();
    for name in references.keys() {
        cases.extend(calls(&lost(name), &["recover"], MUTATING).into_iter().map(|call| (*name, call)));
    }
    let total = cases.len();
    let done = each(choose(cases, SAMPLE_LOST), |(name, at)| {
        let world = lost(name);
        assert_eq!(killed(&world, &["recover"], at), End::Killed);
        assert_eq!(child(&world, &["recover"]), End::Done);
        assert_settled(&world, &references[name], true);
    });
    told("G1 kill of a recovery after a power loss", done, "torn", &format!("of {total} indices"));
}
