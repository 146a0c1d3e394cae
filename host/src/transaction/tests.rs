//! Layers from scripted executions: what each kind of call makes of the layer before it.

use std::slice::from_ref as one;

use serde_json::json;
use toolkeep_core::effect::{BodyState, FileState, MessageEffect, Times};
use toolkeep_core::plan::{EntryKind, Observation};
use toolkeep_sandbox::beneath::StatTuple;

use super::*;

const SECOND: i64 = 1_000_000_000;
/// When scripted calls start: well after every change of the scripted world.
const NOW_NS: i64 = 100 * SECOND;

fn state(content: &str) -> FileState {
    FileState { sha256: Digest::of(content.as_bytes()), size: content.len() as u64, mode: 0o644 }
}

fn write(path: &str, before: Option<&str>, after: &str) -> Effect {
    Effect::FileWrite {
        workspace: "w".parse().expect("name"),
        path: path.parse().expect("path"),
        before: before.map(state),
        after: state(after),
    }
}

fn delete(path: &str, before: &str) -> Effect {
    Effect::FileDelete {
        workspace: "w".parse().expect("name"),
        path: path.parse().expect("path"),
        before: state(before),
    }
}

fn rename(from: &str, to: &str, before: &str) -> Effect {
    Effect::FileRename {
        workspace: "w".parse().expect("name"),
        from: from.parse().expect("path"),
        to: to.parse().expect("path"),
        before: state(before),
    }
}

fn touch(path: &str, before: i64, after: i64) -> Effect {
    let (before, after) = (Times { modified_ns: before }, Times { modified_ns: after });
    Effect::FileMetadata { workspace: "w".parse().expect("name"), path: path.parse().expect("path"), before, after }
}

fn message(to: &str) -> Effect {
    Effect::MessageSend(MessageEffect {
        channel: "c".parse().expect("name"),
        to: vec![to.to_owned()],
        subject: String::new(),
        media_type: "text/plain".to_owned(),
        body: BodyState::of(b""),
    })
}

fn key_set(key: &str, before: Option<&[u8]>, after: &[u8]) -> Effect {
    let (before, after) = (before.map(BodyState::of), BodyState::of(after));
    Effect::KvSet { bucket: "b".parse().expect("name"), key: key.to_owned(), before, after }
}

fn saw(path: &str, observation: Observation) -> ReadEntry {
    ReadEntry { workspace: "w".parse().expect("name"), path: path.parse().expect("path"), observation }
}

fn file(size: u64) -> Observation {
    Observation::Stat { entry: EntryKind::File, size }
}

fn range(offset: u64, content: &str) -> Observation {
    Observation::Content { offset, length: content.len() as u64, sha256: Digest::of(content.as_bytes()) }
}

fn witness(path: &str, ctime_ns: i64) -> Witness {
    let tuple = StatTuple { dev: 1, ino: 2, size: 3, mtime_ns: 0, ctime_ns };
    Witness { workspace: "w".parse().expect("name"), path: path.parse().expect("path"), tuple }
}

fn staged(effects: Vec<Effect>) -> Staged {
    Staged { effects, ..Staged::default() }
}

fn step(staged: &Staged, tier: u8) -> Step<'_> {
    let digest = Digest::of(b"");
    Step {
        step: PlanStep { tool: "t".parse().expect("name"), component: digest, manifest: digest, input: digest },
        tier: Tier::try_from(tier).expect("tier"),
        staged,
        since_ns: NOW_NS,
        seen: Exposed::default(),
    }
}

/// The layer after calls of tier 3 that staged these unions.
fn layer(unions: &[Vec<Effect>]) -> Layer {
    unions.iter().fold(Layer::default(), |layer, effects| {
        layer.after(step(&staged(effects.clone()), 3), 1_000, Room::ORDINARY).expect("a layer")
    })
}

fn refused(layer: &Layer, union: Vec<Effect>, tier: u8, undo_bytes: u64) -> Option<Code> {
    layer.after(step(&staged(union), tier), undo_bytes, Room::ORDINARY).err().map(|refusal| refusal.code)
}

fn own(before: &[Effect], after: &[Effect]) -> Vec<Effect> {
    Difference::between(before, after).expect("one world").effects
}

#[test]
fn r08_a_layer_holds_the_union_and_names_its_calls_and_contents() {
    let one = vec![write("a", None, "1")];
    let two = vec![write("a", None, "22"), write("b", Some("x"), "22")];
    let layer = layer(&[one, two.clone()]);
    assert_eq!((layer.calls(), layer.bytes(), &layer.effects), (2, 2, &two), "equal contents are counted once");
    assert_eq!(layer.contents(), [Digest::of(b"22")]);
    let (text, digest) = layer.encode().expect("text");
    assert_eq!(Layer::decode(&text, digest).expect("layer"), layer);
    assert!(Layer::decode(&format!("{text} "), digest).is_err(), "a changed text is not believed");
}

#[test]
fn r08_the_plan_of_a_transaction_names_every_step_and_is_the_same_for_the_same_calls() {
    let principal: Principal = serde_json::from_value(json!({"tenant": "t", "user": "u", "agent": "a"})).expect("who");
    let body = |layer: Layer| {
        layer.into_body(principal.clone(), TRANSACTION_TOOL.parse().expect("name"), Digest::of(b"policy"))
    };
    let made = layer(&[vec![write("a", None, "1")], vec![write("a", None, "2")]]);
    let plan = body(made.clone());
    assert_eq!((plan.steps.len(), &plan.effects, plan.segment), (2, &made.effects, 0));
    assert_eq!(body(made.clone()), plan);
    let mut other = made;
    other.steps[1].input = Digest::of(b"other");
    let changed = body(other);
    assert_ne!(changed.input, plan.input);
    assert_eq!((changed.component, changed.manifest), (plan.component, plan.manifest));
}

#[test]
fn r08_the_effects_of_a_call_are_what_it_changed_of_the_union() {
    let (a, b) = (write("a", None, "1"), write("b", Some("x"), "y"));
    assert_eq!(own(&[], one(&a)), one(&a));
    assert_eq!(own(one(&a), one(&a)), []);
    assert_eq!(own(one(&a), &[a.clone(), b.clone()]), one(&b));
    assert_eq!(own(one(&a), &[write("a", None, "2")]), [write("a", Some("1"), "2")], "over what was staged");
    assert_eq!(own(one(&a), &[]), [delete("a", "1")], "a staged file that is gone was deleted");
    assert_eq!(own(one(&b), &[]), [write("b", Some("y"), "x")], "put back as it was");
    assert_eq!(own(&[delete("b", "x")], &[b]), [write("b", None, "y")]);
    assert_eq!(own(&[], &[rename("r", "s", "f")]), [rename("r", "s", "f")]);
    let edited = [delete("r", "f"), write("s", None, "g")];
    assert_eq!(own(&[rename("r", "s", "f")], &edited), [write("s", Some("f"), "g")], "an edit of what was moved");
    let dir = |made: bool| {
        let (workspace, path) = ("w".parse().expect("name"), "d".parse().expect("path"));
        if made { Effect::DirCreate { workspace, path } } else { Effect::DirDelete { workspace, path } }
    };
    assert_eq!(own(&[dir(true)], &[]), [dir(false)]);
    assert_eq!(own(&[dir(true)], &[write("d", None, "1")]), [dir(false), write("d", None, "1")]);
    assert_eq!(own(&[dir(false)], &[dir(false), touch("t", 1, 2)]), [touch("t", 1, 2)]);
    assert_eq!(own(&[touch("t", 1, 2)], &[]), [touch("t", 2, 1)], "a time that was set back");
    assert_eq!(own(&[message("me")], &[message("me"), message("me")]), [message("me")], "sent twice is two");
}

#[test]
fn r08_keys_differ_by_their_values_and_additions_by_what_is_added() {
    let add = |delta| Effect::KvAdd { bucket: "b".parse().expect("name"), key: "n".to_owned(), delta };
    let gone = |value: &[u8]| Effect::KvDelete {
        bucket: "b".parse().expect("name"),
        key: "k".to_owned(),
        before: BodyState::of(value),
    };
    assert_eq!(own(&[add(1)], &[add(1), key_set("k", None, b"1")]), [key_set("k", None, b"1")]);
    assert_eq!(own(&[key_set("k", None, b"1")], &[]), [gone(b"1")]);
    assert_eq!(own(&[gone(b"1")], &[]), [key_set("k", None, b"1")]);
    assert_eq!(own(&[add(3)], &[]), [add(-3)]);
    let moved = Difference::between(&[key_set("k", None, b"1")], &[key_set("k", Some(b"0"), b"1")]);
    assert_eq!(moved.expect_err("another world").to_string(), "key `b/k`");
}

#[test]
fn r08_a_call_is_held_to_the_tier_of_its_own_tool_whatever_the_others_may_do() {
    let hook = || write(".git/hooks/x", None, "1");
    assert_eq!(refused(&Layer::default(), vec![hook()], 1, 100), Some(Code::Denied), "sensitive");
    let before = layer(&[vec![hook()]]);
    assert_eq!(refused(&before, vec![hook(), write("a", None, "1")], 1, 100), None, "the hook is another call's");
    assert_eq!(refused(&before, vec![write(".git/hooks/x", None, "2")], 1, 100), Some(Code::Denied), "edited");
    assert_eq!(refused(&before, vec![], 1, 100), Some(Code::Denied), "or taken away");
    assert_eq!(refused(&before, vec![hook(), message("me")], 2, 100), Some(Code::Denied), "a message is tier 3");
    assert_eq!(refused(&before, vec![hook()], 0, 100), None, "a tool that only reads");
    assert_eq!(refused(&before, vec![hook(), write("a", None, "1")], 0, 100), Some(Code::Denied));
}

#[test]
fn r08_what_only_was_staged_is_not_destroyed_and_what_is_in_the_world_is() {
    let big = "x".repeat(50);
    let before = layer(&[vec![write("a", None, &big)]]);
    assert_eq!(refused(&before, vec![], 1, 10), None, "the staged file is nowhere in the world");
    assert_eq!(refused(&before, vec![write("b", None, &big)], 1, 10), None, "a staged file moved");
    assert_eq!(refused(&Layer::default(), vec![delete("a", &big)], 1, 49), Some(Code::Denied), "beyond the undo quota");
    assert_eq!(refused(&Layer::default(), vec![delete("a", &big)], 1, 50), None);
}

#[test]
fn r08_a_transaction_is_full_at_its_bounds_and_not_before() {
    let room = Room { calls: 2, bytes: 10, effects: 2, reads: 2 };
    let after = |layer: &Layer, effects: Vec<Effect>| layer.after(step(&staged(effects), 3), 100, room);
    let first = after(&Layer::default(), vec![write("a", None, "0123456789")]).expect("10 bytes");
    let code = |result: Result<Layer, Refusal>| result.err().map(|refusal| refusal.code);
    assert_eq!(code(after(&Layer::default(), vec![write("a", None, "0123456789x")])), Some(Code::MemoryExceeded));
    let files = |count: usize| (0..count).map(|n| write(&n.to_string(), None, "1")).collect::<Vec<_>>();
    assert_eq!(code(after(&Layer::default(), files(2))), None);
    assert_eq!(code(after(&Layer::default(), files(3))), Some(Code::MemoryExceeded));
    let reads = |count: usize| {
        let read_set = (0..count).map(|n| saw(&n.to_string(), Observation::Absent)).collect();
        Layer::default().after(step(&Staged { read_set, ..Staged::default() }, 0), 0, room)
    };
    assert_eq!((code(reads(2)), code(reads(3))), (None, Some(Code::MemoryExceeded)));
    let second = after(&first, first.effects.clone()).expect("2 calls");
    assert_eq!(code(after(&second, first.effects.clone())), Some(Code::MemoryExceeded), "a third call");
}

#[test]
fn r08_a_call_that_sees_another_world_than_calls_before_it_is_stale() {
    let seen = |entries: Vec<ReadEntry>| Staged { read_set: entries, ..Staged::default() };
    let after = |layer: &Layer, entries: Vec<ReadEntry>| layer.after(step(&seen(entries), 0), 0, Room::ORDINARY);
    let list = |name: &str| {
        let sha256 = toolkeep_core::plan::listing_digest([(name, EntryKind::File)]);
        Observation::List { sha256 }
    };
    let known =
        vec![saw("gone", Observation::Absent), saw("f", file(5)), saw("f", range(0, "ab")), saw("d", list("x"))];
    let layer = after(&Layer::default(), known.clone()).expect("a layer");
    for other in [
        saw("gone", file(0)),
        saw("gone", range(0, "")),
        saw("f", Observation::Absent),
        saw("f", file(6)),
        saw("f", range(0, "ac")),
        saw("d", list("y")),
    ] {
        let refusal = after(&layer, vec![other.clone()]).expect_err("stale");
        assert_eq!(refusal.code, Code::StalePlan);
        assert!(refusal.message.contains(&format!("`w:{}`", other.path)), "{}", refusal.message);
    }
    let more = after(&layer, vec![saw("f", range(2, "c")), saw("f", file(5)), saw("e", file(1))]).expect("the same");
    let mut all = known;
    all.extend([saw("f", range(2, "c")), saw("e", file(1))]);
    all.sort_unstable();
    assert_eq!(more.read_set, all, "everything that was seen, once");
    let key = |value: &[u8]| KeyRead {
        bucket: "b".parse().expect("name"),
        key: "k".to_owned(),
        sha256: Some(Digest::of(value)),
    };
    let read = |value: &[u8]| Staged { keys_read: vec![key(value)], ..Staged::default() };
    let layer = layer.after(step(&read(b"1"), 0), 0, Room::ORDINARY).expect("read");
    assert!(layer.after(step(&read(b"1"), 0), 0, Room::ORDINARY).is_ok());
    let refusal = layer.after(step(&read(b"2"), 0), 0, Room::ORDINARY).expect_err("stale");
    assert!(refusal.message.contains("key `b/k`"), "{}", refusal.message);
}

#[test]
fn r08_a_place_that_was_something_else_when_it_was_staged_is_stale() {
    let before = layer(&[vec![write("a", Some("x"), "1")]]);
    let refusal = before.after(step(&staged(vec![write("a", Some("y"), "1")]), 3), 100, Room::ORDINARY);
    let refusal = refusal.expect_err("another world");
    assert_eq!(refusal.code, Code::StalePlan);
    assert!(refusal.message.contains("`w:a`"), "{}", refusal.message);
    assert_eq!(
        refused(&layer(&[vec![rename("a", "b", "x")]]), vec![delete("a", "y"), write("b", None, "1")], 3, 9),
        Some(Code::StalePlan)
    );
}

#[test]
fn r08_a_stat_tuple_is_trusted_only_as_the_first_readers_and_when_it_was_settled() {
    let read = |path: &str, ctime_ns: i64| Staged {
        read_set: vec![saw(path, file(3))],
        witnesses: vec![witness(path, ctime_ns)],
        ..Staged::default()
    };
    let after = |layer: &Layer, staged: &Staged| layer.after(step(staged, 0), 0, Room::ORDINARY).expect("a layer");
    let settled = after(&Layer::default(), &read("a", NOW_NS - 2 * SECOND));
    assert_eq!(settled.witnesses, [witness("a", NOW_NS - 2 * SECOND)]);
    let young = after(&Layer::default(), &read("a", NOW_NS - 2 * SECOND + 1));
    assert_eq!(young.witnesses, [], "it may have changed twice within one tick");
    assert_eq!(after(&young, &read("a", 0)).witnesses, [], "the first reader had none");
    assert_eq!(after(&settled, &read("a", 1)).witnesses, settled.witnesses);
    let wrote = layer(&[vec![write("a", Some("x"), "1")]]);
    let again = Staged { effects: wrote.effects.clone(), ..read("a", 0) };
    assert_eq!(after(&wrote, &again).witnesses, [], "what it was is known from an earlier call");
}
