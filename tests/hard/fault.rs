//! G3: any system call fails once. The commit is complete, or nothing of it is, or it says what is open; never both.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use toolkeep_tests::support::proof::told;

use crate::commit::shapes::{SHAPES, shape};
use crate::hard::kill::{Reference, reference};
use crate::hard::strace::{Call, End, FALLIBLE, MUTATING, built, calls, child, choose, each, faulted, killed, outcome};

const ERRORS: [&str; 5] = ["EIO", "ENOSPC", "EINTR", "EDQUOT", "EMFILE"];
/// Cases of an ordinary run; each starts one to three processes.
const SAMPLE: usize = 320;
const SAMPLE_RECOVERY: usize = 160;

/// Judge a world by what was said of it. A child that said nothing has crashed: then recovery must settle it.
fn settle(world: &crate::commit::world::World, reference: &Reference, tally: &Mutex<BTreeMap<String, usize>>) {
    let said = outcome(world).unwrap_or_else(|| "crashed".to_owned());
    *tally.lock().expect("tally").entry(said.clone()).or_default() += 1;
    match said.as_str() {
        "committed" => assert_eq!(world.snapshot(), reference.after, "said to be committed"),
        "aborted" | "rolled back" | "nothing" => {
            let mut now = world.snapshot();
            if now != reference.before {
                // The fault may have hit the removal of a temporary: it must be findable, and nothing else may differ.
                assert_eq!(child(world, &["recover"]), End::Done);
                now = world.snapshot();
            }
            assert_eq!(now, reference.before, "said to be {said}");
        }
        "halted" | "poisoned" | "crashed" => {
            std::fs::remove_file(world.at("state/done")).ok();
            assert_eq!(child(world, &["recover"]), End::Done);
            let after = outcome(world);
            let wanted = match after.as_deref() {
                Some("committed") => &reference.after,
                Some("nothing" | "rolled back") => &reference.before,
                other => panic!("after a single fault recovery says {other:?}"),
            };
            assert_eq!(&world.snapshot(), wanted, "{said}, then {after:?}");
        }
        other => panic!("unknown outcome `{other}`"),
    }
}

/// Tell what was done: faults that were seen, among the cases of this run and those that there are.
fn counted(proof: &str, made: usize, [done, total]: [usize; 2], tally: &BTreeMap<String, usize>) {
    assert!(made > 0 && made * 2 >= done, "too few faults were made to show anything: {made} in {done} cases");
    told(proof, made, "silent", &format!("in {done} cases of {total}; {tally:?}"));
}

fn calls_of(set: &str) -> BTreeMap<&'static str, Reference> {
    SHAPES.iter().map(|shape| (shape.name, reference(shape.name, set))).collect()
}

#[test]
fn g3_t_f11_any_failing_syscall_of_a_commit_ends_in_all_nothing_or_a_word_of_warning() {
    let references = calls_of(FALLIBLE);
    let mut cases = Vec::new();
    for (name, reference) in &references {
        for error in ERRORS {
            cases.extend(reference.calls.iter().map(|call| (*name, error, call)));
        }
    }
    let total = cases.len();
    let (tally, made) = (Mutex::new(BTreeMap::new()), AtomicUsize::new(0));
    let done = each(choose(cases, SAMPLE), |(name, error, at)| {
        let world = built(shape(name));
        made.fetch_add(usize::from(faulted(&world, &["commit", name], error, at)), Ordering::Relaxed);
        settle(&world, &references[name], &tally);
    });
    let tally = tally.into_inner().expect("tally");
    counted("G3 faults in a commit", made.into_inner(), [done, total], &tally);
}

#[test]
fn g3_any_failing_syscall_of_a_recovery_ends_in_all_nothing_or_a_word_of_warning() {
    let references = calls_of(MUTATING);
    let mut cases = Vec::new();
    for (name, reference) in &references {
        let applying = reference.applying();
        let first: Call = applying[applying.len() / 2].clone();
        let world = built(shape(name));
        assert_eq!(killed(&world, &["commit", name], &first), End::Killed);
        let calls = calls(&world, &["recover"], FALLIBLE);
        for error in ERRORS {
            cases.extend(calls.iter().map(|call| (*name, first.clone(), error, call.clone())));
        }
    }
    let total = cases.len();
    let (tally, made) = (Mutex::new(BTreeMap::new()), AtomicUsize::new(0));
    let done = each(choose(cases, SAMPLE_RECOVERY), |(name, first, error, at)| {
        let world = built(shape(name));
        assert_eq!(killed(&world, &["commit", name], first), End::Killed);
        made.fetch_add(usize::from(faulted(&world, &["recover"], error, at)), Ordering::Relaxed);
        settle(&world, &references[name], &tally);
    });
    let tally = tally.into_inner().expect("tally");
    counted("G3 faults in a recovery", made.into_inner(), [done, total], &tally);
}
