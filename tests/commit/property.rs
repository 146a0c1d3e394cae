//! For any plan: committing it gives what doing it by hand gives, and undoing it gives the start.

use std::collections::BTreeMap;

use proptest::prelude::*;
use toolkeep::commit::files;

use crate::commit::world::{Changes, World, from_store};

#[derive(Debug, Clone)]
enum Act {
    Write(usize, u8),
    Delete(usize),
    Rename(usize, usize),
    Touch(usize),
    Make(usize),
    Remove(usize),
}

/// Names that collide often: files and directories share them.
const NAMES: [&str; 10] = ["w/a", "w/b", "w/a/x", "w/a/y", "w/b/x", "w/c", "w/c/deep", "w/c/deep/z", "w/d", "w/d/x"];

fn act() -> impl Strategy<Value = Act> {
    let name = 0..NAMES.len();
    prop_oneof![
        4 => (name.clone(), any::<u8>()).prop_map(|(name, byte)| Act::Write(name, byte)),
        2 => name.clone().prop_map(Act::Delete),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => name.clone().prop_map(Act::Touch),
        2 => name.clone().prop_map(Act::Make),
        2 => name.prop_map(Act::Remove),
    ]
}

/// What names hold while a plan grows: nothing is a directory, bytes are a file.
type Model = BTreeMap<&'static str, Option<Vec<u8>>>;

fn parent_is_there(model: &Model, name: &str) -> bool {
    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
    parent == "w" || matches!(model.get(parent), Some(None))
}

/// Do it to the model and put it into the plan, if it can be done at all.
fn plan(act: &Act, world: &World, model: &mut Model, changes: &mut Changes, touched: &mut Vec<&'static str>) {
    match *act {
        Act::Write(name, byte) => {
            let name = NAMES[name];
            if parent_is_there(model, name) && !matches!(model.get(name), Some(None)) {
                let content = vec![byte; usize::from(byte) * 7];
                changes.write(world, name, &content);
                model.insert(name, Some(content));
                touched.push(name);
            }
        }
        Act::Delete(name) => {
            let name = NAMES[name];
            if matches!(model.get(name), Some(Some(_))) {
                changes.delete(world, name);
                model.remove(name);
                touched.push(name);
            }
        }
        Act::Rename(from, to) => {
            let (from, to) = (NAMES[from], NAMES[to]);
            let is_free = !model.contains_key(to) && parent_is_there(model, to);
            if is_free && matches!(model.get(from), Some(Some(_))) {
                changes.rename(world, from, to);
                let content = model.remove(from).flatten();
                model.insert(to, content);
                touched.extend([from, to]);
            }
        }
        Act::Touch(name) => {
            let name = NAMES[name];
            // Set once and only on files that the plan has not touched: the time before is then the old one.
            if matches!(model.get(name), Some(Some(_))) && !touched.contains(&name) {
                changes.touch(name);
                touched.push(name);
            }
        }
        Act::Make(name) => {
            let name = NAMES[name];
            if parent_is_there(model, name) && !model.contains_key(name) {
                changes.mkdir(name);
                model.insert(name, None);
                touched.push(name);
            }
        }
        Act::Remove(name) => {
            let name = NAMES[name];
            let is_empty = !model.keys().any(|other| other.starts_with(name) && other.len() > name.len());
            if matches!(model.get(name), Some(None)) && is_empty {
                changes.rmdir(name);
                model.remove(name);
                touched.push(name);
            }
        }
    }
}

fn held(world: &World) -> Model {
    let mut model = Model::new();
    for name in NAMES {
        let path = world.at(name);
        if path.is_dir() {
            model.insert(name, None);
        } else if path.is_file() {
            model.insert(name, Some(world.read(name)));
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r09_any_plan_commits_as_if_done_by_hand_and_undo_restores_the_start(
        start in proptest::collection::vec(act(), 0..12),
        acts in proptest::collection::vec(act(), 1..16),
    ) {
        let world = World::new();
        let (mut model, mut by_hand, mut touched) = (Model::new(), Changes::default(), Vec::new());
        for act in start.iter().filter(|act| !matches!(act, Act::Touch(_))) {
            plan(act, &world, &mut model, &mut by_hand, &mut touched);
        }
        for (name, content) in &model {
            match content {
                None => std::fs::create_dir_all(world.at(name)).expect("directory"),
                Some(content) => world.file(name, content),
            }
        }
        let (before, start) = (world.snapshot(), held(&world));
        prop_assert_eq!(&start, &model);

        let (mut changes, mut touched) = (Changes::default(), Vec::new());
        for act in &acts {
            plan(act, &world, &mut model, &mut changes, &mut touched);
        }
        let committed = match changes.commit(&world) {
            Ok(committed) => committed,
            Err(error) => return Err(TestCaseError::fail(format!("{error}: {:?}", changes.effects))),
        };
        prop_assert_eq!(held(&world), model);
        prop_assert!(world.residue().is_empty());

        let inverse = files::inverse(&changes.effects, &committed.prepared).expect("an inverse");
        let find = from_store(&committed.undo);
        let contents = inverse.contents.iter().map(|digest| (*digest, find(digest).expect("kept"))).collect();
        let back = Changes::of(inverse.effects, contents);
        if let Err(error) = back.commit_as(&world, &committed.undoing()) {
            return Err(TestCaseError::fail(format!("undo: {error}: {:?}", back.effects)));
        }
        prop_assert_eq!(held(&world), start);
        prop_assert_eq!(world.snapshot().len(), before.len());
    }
}
