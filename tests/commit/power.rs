//! Power losses, by hand: every state of the disk that one may leave after the intent, and the real recovery over it.
//!
//! The model is wider than any file system that orders its changes: a new file whose flush was not waited for may be
//! whole, gone, empty, cut short or zeros; of the changes of names any part may be there that respects the order of those
//! that touch the same names, so two workspaces may lie on two file systems; a name that waits for its step may be gone
//! again although another step was done, as long as the log can write it anew; of displaced contents any may be removed.
//! The outcome is not on the disk in any of them, because it is enqueued after the flush of the directories. Each state
//! must recover to the whole plan: its caller may have been told so.

use std::collections::{BTreeMap, BTreeSet};

use toolkeep::commit::files::{self, Node, Prepared, Recovered, Spot, Step};
use toolkeep_tests::support::proof::told;

use crate::commit::shapes::{SHAPES, Shape};
use crate::commit::world::{Changes, UndoStore, World, attempt, from_store};

/// Random states per shape, besides those that are enumerated.
const RANDOM_STATES: u64 = 100;

/// What a power loss makes of a file that was not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Gone,
    Empty,
    Short,
    Zeros,
}

const DAMAGES: [Damage; 4] = [Damage::Gone, Damage::Empty, Damage::Short, Damage::Zeros];

/// One state after the intent.
#[derive(Debug, Clone, Default)]
struct State {
    /// Steps whose changes of names are on the disk, by index.
    done: BTreeSet<usize>,
    /// What became of the new files that wait for the other steps.
    damaged: BTreeMap<usize, Damage>,
    /// Steps whose displaced content was removed; only with all done.
    cleared: BTreeSet<usize>,
}

/// A plan that was prepared and never flushed, and what the ledger holds.
struct Crashed {
    world: World,
    prepared: Prepared,
    contents: UndoStore,
}

fn crashed(shape: &Shape) -> Crashed {
    let world = World::new();
    (shape.build)(&world);
    let mut changes = Changes::default();
    (shape.plan)(&world, &mut changes);
    let (prepared, contents, unflushed) = changes.prepare_only(&world, &attempt()).expect(shape.name);
    drop(unflushed);
    Crashed { world, prepared, contents }
}

fn after(shape: &Shape) -> BTreeMap<String, String> {
    let world = World::new();
    (shape.build)(&world);
    let mut changes = Changes::default();
    (shape.plan)(&world, &mut changes);
    changes.commit(&world).expect(shape.name);
    world.snapshot()
}

impl Crashed {
    fn at(&self, spot: &Spot) -> std::path::PathBuf {
        self.world.base.join(spot.workspace.as_str()).join(spot.path.as_str())
    }

    /// Steps that put a file in place whose content only the log is sure to have.
    fn logged(&self) -> Vec<usize> {
        let mut moved = BTreeSet::new();
        let mut logged = Vec::new();
        for (index, step) in self.prepared.steps.iter().enumerate() {
            match step {
                Step::Aside { temporary, .. } => _ = moved.insert(temporary.path.clone()),
                Step::Place { temporary, node: Node::File(node), .. }
                | Step::Exchange { temporary, after: node, .. }
                    if self.contents.contains_key(&node.sha256)
                        && node.size <= files::LOGGED_MAX_BYTES
                        && !moved.contains(&temporary.path) =>
                {
                    logged.push(index);
                }
                _ => {}
            }
        }
        logged
    }

    /// Whether two steps share a name, or one makes or removes a directory on the way to the other.
    fn related(&self, one: usize, two: usize) -> bool {
        let names = |index: usize| {
            let step = &self.prepared.steps[index];
            [Some(step.target()), step.temporary()].into_iter().flatten()
        };
        names(one).any(|one| {
            names(two).any(|two| {
                let related = one.path.starts_with(&two.path) || two.path.starts_with(&one.path);
                one.workspace == two.workspace && related
            })
        })
    }

    /// The chains of steps that share names, however far; each was done in its order.
    fn chains(&self) -> Vec<BTreeSet<usize>> {
        let names = |index: usize| {
            let step = &self.prepared.steps[index];
            let spots = [Some(step.target()), step.temporary()].into_iter().flatten();
            spots.map(|spot| (&spot.workspace, &spot.path)).collect::<BTreeSet<_>>()
        };
        let mut chains: Vec<BTreeSet<usize>> = Vec::new();
        for index in 0..self.prepared.steps.len() {
            let meets = |chain: &BTreeSet<usize>| chain.iter().any(|other| !names(*other).is_disjoint(&names(index)));
            let (met, mut rest): (Vec<_>, Vec<_>) = chains.into_iter().partition(meets);
            let mut chain: BTreeSet<usize> = met.into_iter().flatten().collect();
            chain.insert(index);
            rest.push(chain);
            chains = rest;
        }
        chains
    }

    /// The steps, with everything that was done before them.
    fn closed(&self, mut steps: BTreeSet<usize>) -> BTreeSet<usize> {
        let chains = self.chains();
        loop {
            let mut more = steps.clone();
            for later in &steps {
                more.extend((0..*later).filter(|earlier| self.related(*later, *earlier)));
                more.extend(chains.iter().filter(|chain| chain.contains(later)).flat_map(|chain| chain.range(..later)));
            }
            if more == steps {
                return steps;
            }
            steps = more;
        }
    }

    /// Bring the disk into the state.
    fn become_state(&self, state: &State) {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        for index in &state.done {
            match &self.prepared.steps[*index] {
                Step::Place { temporary, target, .. } => {
                    std::fs::rename(self.at(temporary), self.at(target)).expect("place")
                }
                Step::Exchange { temporary, target, .. } => {
                    renameat_with(CWD, self.at(temporary), CWD, self.at(target), RenameFlags::EXCHANGE)
                        .expect("exchange");
                }
                Step::Aside { target, temporary, .. } => {
                    std::fs::rename(self.at(target), self.at(temporary)).expect("aside");
                }
                Step::RemoveDirectory { target, .. } => std::fs::remove_dir(self.at(target)).expect("remove"),
                Step::Touch { target, after_ns, .. } => {
                    let time = std::time::UNIX_EPOCH
                        + std::time::Duration::from_nanos(u64::try_from(*after_ns).expect("time"));
                    let file = std::fs::File::options().write(true).open(self.at(target)).expect("open");
                    file.set_modified(time).expect("time");
                }
            }
        }
        for (index, damage) in &state.damaged {
            let path = self.at(self.prepared.steps[*index].temporary().expect("a temporary"));
            let whole = std::fs::read(&path).expect("a new file");
            match damage {
                Damage::Gone => std::fs::remove_file(path).expect("gone"),
                Damage::Empty => std::fs::write(path, "").expect("empty"),
                Damage::Short => std::fs::write(path, &whole[..whole.len() / 2]).expect("short"),
                Damage::Zeros => std::fs::write(path, vec![0; whole.len()]).expect("zeros"),
            }
        }
        for index in &state.cleared {
            if let step @ (Step::Exchange { .. } | Step::Aside { .. }) = &self.prepared.steps[*index] {
                std::fs::remove_file(self.at(step.temporary().expect("a temporary"))).ok();
            }
        }
    }
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("small") % bound.max(1)
    }
}

fn states(crashed: &Crashed, seed: u64) -> Vec<State> {
    let (logged, count) = (crashed.logged(), crashed.prepared.steps.len());
    let mut states = vec![State::default()];
    // The flush was not waited for: nothing is applied.
    for damage in DAMAGES {
        states.push(State { damaged: logged.iter().map(|index| (*index, damage)).collect(), ..State::default() });
        states.extend(logged.iter().map(|index| State { damaged: [(*index, damage)].into(), ..State::default() }));
    }
    // It was: a prefix of the steps, and what waits for the others is whole, or one of it or all of it has lost its name.
    for prefix in 1..=count {
        let done: BTreeSet<usize> = (0..prefix).collect();
        states.push(State { done: done.clone(), ..State::default() });
        let waiting: Vec<usize> = logged.iter().copied().filter(|index| !done.contains(index)).collect();
        let gone = |indices: &[usize]| indices.iter().map(|index| (*index, Damage::Gone)).collect();
        states.push(State { done: done.clone(), damaged: gone(&waiting), ..State::default() });
        states.extend(waiting.iter().map(|one| State {
            done: done.clone(),
            damaged: gone(&[*one]),
            ..State::default()
        }));
    }
    let all: BTreeSet<usize> = (0..count).collect();
    for index in 0..count {
        states.push(State { done: all.clone(), cleared: [index].into(), ..State::default() });
    }
    states.push(State { done: all.clone(), cleared: all.clone(), ..State::default() });
    // Any part that respects what depends on what.
    let mut random = Random(seed);
    for _ in 0..RANDOM_STATES {
        let some: BTreeSet<usize> = (0..count).filter(|_| random.below(2) == 0).collect();
        let done = crashed.closed(some);
        let mut damaged = BTreeMap::new();
        for index in logged.iter().filter(|index| !done.contains(index)) {
            match random.below(3) {
                0 if done.is_empty() => _ = damaged.insert(*index, DAMAGES[random.below(4)]),
                0 => _ = damaged.insert(*index, Damage::Gone),
                _ => {}
            }
        }
        let cleared = if done.len() == count {
            all.iter().copied().filter(|_| random.below(2) == 0).collect()
        } else {
            BTreeSet::new()
        };
        states.push(State { done, damaged, cleared });
    }
    states
}

#[test]
fn r07_t_f11_every_state_that_a_power_loss_leaves_after_the_intent_recovers_to_the_whole_plan() {
    let (mut total, mut lossy) = (0, 0);
    for (seed, shape) in (1_u64..).zip(SHAPES) {
        let after = after(shape);
        for state in states(&crashed(shape), seed) {
            let crashed = crashed(shape);
            crashed.become_state(&state);
            for _ in 0..2 {
                let recovered = files::recover(&crashed.prepared, &crashed.world.roots, &from_store(&crashed.contents))
                    .expect("recovered");
                assert_eq!(recovered, Recovered::RolledForward, "{}: {state:?}", shape.name);
                assert_eq!(crashed.world.snapshot(), after, "{}: {state:?}", shape.name);
            }
            total += 1;
            lossy += usize::from(!state.damaged.is_empty());
        }
    }
    told("G2 power losses, by a model of the disk", total, "torn", &format!("{lossy} of them lost content"));
    assert!(total > 2_000 && lossy > 600, "the model has shrunk: {total} states, {lossy} with losses");
}

#[test]
fn t_f12_what_a_power_loss_leaves_of_a_commit_without_an_intent_is_swept() {
    for shape in SHAPES {
        let world = World::new();
        (shape.build)(&world);
        let before = world.snapshot();
        for damage in DAMAGES {
            let mut changes = Changes::default();
            (shape.plan)(&world, &mut changes);
            let attempt = attempt();
            let (prepared, contents, unflushed) = changes.prepare_only(&world, &attempt).expect(shape.name);
            drop(unflushed);
            let crashed = Crashed { world: World::open(&world.base), prepared, contents };
            let damaged = crashed.logged().into_iter().map(|index| (index, damage)).collect();
            crashed.become_state(&State { damaged, ..State::default() });
            files::sweep_orphans(&files::nests(&changes.effects), &attempt.id, &world.roots).expect("swept");
            assert_eq!(world.snapshot(), before, "{}: {damage:?}", shape.name);
        }
    }
}

#[test]
fn what_the_log_does_not_hold_is_flushed_before_the_intent() {
    for (size, logged) in [(64 * 1024, true), (64 * 1024 + 1, false)] {
        let world = World::new();
        let mut changes = Changes::default();
        changes.write(&world, "w/file", vec![7; size]);
        let (_, contents, unflushed) = changes.prepare_only(&world, &attempt()).expect("prepared");
        assert_eq!((contents.len() == 1, !unflushed.is_empty()), (logged, logged), "{size} bytes");
    }
    for (files, logged) in [(64, 64), (65, 0)] {
        let world = World::new();
        let mut changes = Changes::default();
        for number in 0..files {
            changes.write(&world, &format!("w/{number}"), number.to_string());
        }
        let (_, contents, unflushed) = changes.prepare_only(&world, &attempt()).expect("prepared");
        assert_eq!((contents.len(), unflushed.is_empty()), (logged, logged == 0), "{files} files");
    }
}

#[test]
fn r07_a_lost_file_whose_content_is_not_logged_takes_the_plan_back() {
    let world = World::new();
    world.file("w/old", "old");
    let before = world.snapshot();
    let mut changes = Changes::default();
    changes.write(&world, "w/old", "new").write(&world, "w/created", "created");
    let (prepared, _, unflushed) = changes.prepare_only(&world, &attempt()).expect("prepared");
    drop(unflushed);
    for path in world.residue() {
        std::fs::remove_file(world.at(&path)).expect("lost");
    }
    assert_eq!(files::recover(&prepared, &world.roots, &|_| None).expect("recovered"), Recovered::RolledBack);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn r07_t_f11_after_a_power_loss_unknown_content_is_never_overwritten() {
    for shape in SHAPES.iter().filter(|shape| ["overwrite", "many", "two-workspaces"].contains(&shape.name)) {
        let reference = crashed(shape);
        let steps = reference.prepared.steps.len();
        for (round, state) in states(&reference, 7).iter().enumerate() {
            let crashed = crashed(shape);
            crashed.become_state(state);
            let theirs = crashed.at(crashed.prepared.steps[round % steps].target());
            std::fs::write(&theirs, "theirs").expect("theirs");
            let recovered = files::recover(&crashed.prepared, &crashed.world.roots, &from_store(&crashed.contents))
                .expect("recovered");
            assert_ne!(recovered, Recovered::RolledForward, "{}: {state:?}", shape.name);
            assert_eq!(std::fs::read(&theirs).expect("theirs"), b"theirs", "{}: {state:?}", shape.name);
        }
    }
}
