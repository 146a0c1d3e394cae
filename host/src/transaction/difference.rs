//! What one call did inside of a transaction: the difference between two sealed unions.
//!
//! A union says what each place was in the world and what it will be. Two of them over one world differ by what the call
//! between them changed, also where it undid what an earlier call had staged, so that the union became smaller. If they
//! disagree about what a place was in the world, the world moved.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use toolkeep_core::effect::{BodyState, Effect, FileState};
use toolkeep_core::id::{BucketName, WorkspaceName};
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::policy::is_sensitive;
use toolkeep_core::tier::Tier;

/// A path of a workspace.
pub(super) type Place = (WorkspaceName, WorkspacePath);
/// A key of a bucket.
pub(super) type Key = (BucketName, String);

/// Something of the world that effects are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Thing {
    Place(Place),
    Key(Key),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place((workspace, path)) => write!(f, "`{workspace}:{path}`"),
            Self::Key((bucket, key)) => write!(f, "key `{bucket}/{key}`"),
        }
    }
}

/// What a place has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Absent,
    File(FileState),
    Directory,
}

/// What a union says about one place.
#[derive(Debug, Clone)]
struct Fate {
    /// In the world.
    was: Entry,
    /// After the effects.
    is: Entry,
}

/// The effects of one call over a layer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// What is changed; the `before` is what the layer had.
    pub(super) effects: Vec<Effect>,
    /// Places that earlier calls had staged: what was there is in the world, or nowhere, and nothing of it is destroyed.
    staged: BTreeSet<Place>,
}

impl Difference {
    /// What `after` does beyond `before`. Both are sealed over the same world.
    ///
    /// # Errors
    /// The thing about which they disagree.
    pub(super) fn between(before: &[Effect], after: &[Effect]) -> Result<Self, Thing> {
        let (old, new) = (fates(before), fates(after));
        if let Some((place, _)) =
            old.iter().find(|(place, fate)| new.get(*place).is_some_and(|new| new.was != fate.was))
        {
            return Err(Thing::Place(place.clone()));
        }
        let (old_values, new_values) = (values(before), values(after));
        if let Some((key, _)) = old_values.iter().find(|(key, value)| new_values.get(*key).is_some_and(|v| v != *value))
        {
            return Err(Thing::Key(key.clone()));
        }
        let moved = renames(after, &old);
        let mut effects: Vec<Effect> = moved.clone();
        let moved: BTreeSet<Place> = moved.iter().flat_map(places).collect();
        let touched: BTreeSet<&Place> = old.keys().chain(new.keys()).collect();
        for place in touched.into_iter().filter(|place| !moved.contains(*place)) {
            let was = old.get(place).map(|fate| &fate.is).or_else(|| new.get(place).map(|fate| &fate.was));
            let is = new.get(place).map(|fate| &fate.is).or_else(|| old.get(place).map(|fate| &fate.was));
            if let (Some(was), Some(is)) = (was, is) {
                effects.extend(changes(place, was, is));
            }
        }
        effects.extend(times(before, after, &new));
        effects.extend(keys(before, after));
        effects.extend(outward(before, after));
        Ok(Self { effects, staged: old.into_keys().collect() })
    }

    /// The tier of the call: the highest of its effects, as a plan of its own would have it.
    pub(super) fn tier(&self, undo_bytes: u64) -> Tier {
        let mut kept = 0_u64;
        let tiers = self.effects.iter().map(|effect| {
            if !places(effect).any(|place| self.staged.contains(&place)) {
                kept = kept.saturating_add(effect.destroyed().map_or(0, |before| before.size));
            }
            effect.tier(kept <= undo_bytes, is_sensitive(effect))
        });
        tiers.max().unwrap_or(Tier::ReadOnly)
    }
}

fn places(effect: &Effect) -> impl Iterator<Item = Place> {
    effect.places().map(|place| (place.workspace.clone(), place.path.clone()))
}

/// What the effects of a union come to, place by place.
fn fates(effects: &[Effect]) -> BTreeMap<Place, Fate> {
    let mut fates: BTreeMap<Place, Fate> = BTreeMap::new();
    let mut set = |workspace: &WorkspaceName, path: &WorkspacePath, was: Entry, is: Entry| {
        let place = (workspace.clone(), path.clone());
        fates.entry(place).and_modify(|fate| fate.is = is.clone()).or_insert(Fate { was, is });
    };
    for effect in effects {
        match effect {
            Effect::FileWrite { workspace, path, before, after } => {
                let was = before.clone().map_or(Entry::Absent, Entry::File);
                set(workspace, path, was, Entry::File(after.clone()));
            }
            Effect::FileDelete { workspace, path, before } => {
                set(workspace, path, Entry::File(before.clone()), Entry::Absent);
            }
            Effect::FileRename { workspace, from, to, before } => {
                set(workspace, from, Entry::File(before.clone()), Entry::Absent);
                set(workspace, to, Entry::Absent, Entry::File(before.clone()));
            }
            Effect::DirCreate { workspace, path } => set(workspace, path, Entry::Absent, Entry::Directory),
            Effect::DirDelete { workspace, path } => set(workspace, path, Entry::Directory, Entry::Absent),
            Effect::FileMetadata { .. }
            | Effect::HttpRequest(_)
            | Effect::MessageSend(_)
            | Effect::KvSet { .. }
            | Effect::KvDelete { .. }
            | Effect::KvAdd { .. } => {}
        }
    }
    fates
}

/// Renames of what no earlier call had touched: nothing is destroyed by them.
fn renames(after: &[Effect], old: &BTreeMap<Place, Fate>) -> Vec<Effect> {
    let fresh = |effect: &&Effect| {
        matches!(effect, Effect::FileRename { .. }) && !places(effect).any(|place| old.contains_key(&place))
    };
    after.iter().filter(fresh).cloned().collect()
}

/// The effects that lead from one entry to another.
fn changes((workspace, path): &Place, was: &Entry, is: &Entry) -> Vec<Effect> {
    let (workspace, path) = (workspace.clone(), path.clone());
    let gone = || match was {
        Entry::File(before) => {
            Some(Effect::FileDelete { workspace: workspace.clone(), path: path.clone(), before: before.clone() })
        }
        Entry::Directory => Some(Effect::DirDelete { workspace: workspace.clone(), path: path.clone() }),
        Entry::Absent => None,
    };
    let wrote = |before: Option<FileState>, after: &FileState| Effect::FileWrite {
        workspace: workspace.clone(),
        path: path.clone(),
        before,
        after: after.clone(),
    };
    match (was, is) {
        (was, is) if was == is => Vec::new(),
        (Entry::File(before), Entry::File(after)) => vec![wrote(Some(before.clone()), after)],
        (_, Entry::File(after)) => gone().into_iter().chain([wrote(None, after)]).collect(),
        (_, Entry::Directory) => {
            let made = Effect::DirCreate { workspace: workspace.clone(), path: path.clone() };
            gone().into_iter().chain([made]).collect()
        }
        (_, Entry::Absent) => gone().into_iter().collect(),
    }
}

/// Times that were set, or set back, on files that are still there.
fn times(before: &[Effect], after: &[Effect], new: &BTreeMap<Place, Fate>) -> Vec<Effect> {
    let known: HashSet<&Effect> = before.iter().collect();
    let set = after.iter().filter(|effect| matches!(effect, Effect::FileMetadata { .. }) && !known.contains(effect));
    let kept: BTreeSet<Place> =
        after.iter().filter(|effect| matches!(effect, Effect::FileMetadata { .. })).flat_map(places).collect();
    let back = before.iter().filter_map(|effect| {
        let Effect::FileMetadata { workspace, path, before, after } = effect else { return None };
        let place = (workspace.clone(), path.clone());
        let there = new.get(&place).is_none_or(|fate| fate.is != Entry::Absent);
        (there && !kept.contains(&place)).then(|| Effect::FileMetadata {
            workspace: workspace.clone(),
            path: path.clone(),
            before: *after,
            after: *before,
        })
    });
    set.cloned().chain(back).collect()
}

/// What keys were in the world, as far as a union says so.
fn values(effects: &[Effect]) -> BTreeMap<Key, Option<BodyState>> {
    let known = |effect: &Effect| match effect {
        Effect::KvSet { bucket, key, before, .. } => Some(((bucket.clone(), key.clone()), *before)),
        Effect::KvDelete { bucket, key, before } => Some(((bucket.clone(), key.clone()), Some(*before))),
        _ => None,
    };
    effects.iter().filter_map(known).collect()
}

/// Keys that were changed, or changed back.
fn keys(before: &[Effect], after: &[Effect]) -> Vec<Effect> {
    let named = |effect: &Effect| effect.key().map(|(bucket, key)| (bucket.clone(), key.to_owned()));
    let old: Vec<(Key, &Effect)> = before.iter().filter_map(|effect| Some((named(effect)?, effect))).collect();
    let known: HashSet<&Effect> = before.iter().collect();
    let kept: BTreeSet<Key> = after.iter().filter_map(named).collect();
    let set = after.iter().filter(|effect| named(effect).is_some() && !known.contains(effect));
    let back = old.iter().filter(|(key, _)| !kept.contains(key)).map(|((bucket, key), effect)| {
        let (bucket, key) = (bucket.clone(), key.clone());
        match effect {
            Effect::KvAdd { delta, .. } => Effect::KvAdd { bucket, key, delta: delta.saturating_neg() },
            Effect::KvDelete { before, .. } => Effect::KvSet { bucket, key, before: None, after: *before },
            _ => Effect::KvDelete { bucket, key, before: effect.contents().1.unwrap_or(BodyState::of(&[])) },
        }
    });
    set.cloned().chain(back).collect()
}

/// Requests and messages that were added. Equal ones are counted: the same message may be sent twice.
fn outward(before: &[Effect], after: &[Effect]) -> Vec<Effect> {
    let leaves = |effect: &&Effect| matches!(effect, Effect::HttpRequest(_) | Effect::MessageSend(_));
    let mut left: HashMap<&Effect, usize> = HashMap::new();
    for effect in before.iter().filter(leaves) {
        *left.entry(effect).or_default() += 1;
    }
    let mut added = Vec::new();
    for effect in after.iter().filter(leaves) {
        match left.get_mut(effect) {
            Some(count) if *count > 0 => *count -= 1,
            Some(_) | None => added.push(effect.clone()),
        }
    }
    added
}
