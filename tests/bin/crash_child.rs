//! The process that is killed: commits one shape, or recovers from a killed commit, with files standing in for the ledger.
//!
//! `state/note` (where temporaries may lie) is written before anything else, `state/steps` is the intent, `state/told` the
//! reply, `state/done` the outcome. New files are flushed after the intent, the latest that a commit may do it. Usage: `crash_child WORLD build SHAPE`, `crash_child WORLD commit SHAPE` or `crash_child WORLD recover`, where
//! WORLD has the directories `w`, `x`, `state` and `outside`; the first is for looking at one case by hand.

#[path = "../commit/shapes.rs"]
mod shapes;
#[expect(dead_code, reason = "the child needs a part of the world only")]
#[path = "../commit/world.rs"]
mod world;

use std::io::Write;
use std::path::Path;

use toolkeep::commit::files::{self, ApplyError, CommitError, Nest, Prepared, Recovered, TransactionId};
use toolkeep_core::digest::Digest;
use world::{Changes, UndoStore, World, from_store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |at: usize| arguments.get(at).map(String::as_str).unwrap_or_default();
    let world = World::open(Path::new(argument(1)));
    match argument(2) {
        "build" => {
            (shapes::shape(argument(3)).build)(&world);
            Ok(())
        }
        "commit" => commit(&world, argument(3)),
        "recover" => recover(&world),
        other => Err(format!("`{other}` is none of `build`, `commit` and `recover`").into()),
    }
}

/// Write a file of the stand-in ledger as one: complete and flushed, or not at all.
fn store(world: &World, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let (target, part) = (world.at("state").join(name), world.at("state").join(format!("{name}.part")));
    let mut file = std::fs::File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(part, target)
}

fn commit(world: &World, shape: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut changes = Changes::default();
    (shapes::shape(shape).plan)(world, &mut changes);
    let attempt = world::attempt();
    let note: (TransactionId, Vec<Nest>) = (attempt.id.clone(), files::nests(&changes.effects));
    store(world, "note", &serde_json::to_vec(&note)?)?;
    changes.check(world)?;
    let (prepared, contents, unflushed) = match changes.prepare_only(world, &attempt) {
        Ok(ready) => ready,
        Err(CommitError::Poisoned(_)) => return Ok(store(world, "done", b"poisoned")?),
        Err(error) => {
            eprintln!("{error}");
            return Ok(store(world, "done", b"aborted")?);
        }
    };
    for (digest, bytes) in &contents {
        store(world, &digest.to_hex(), bytes)?;
    }
    store(world, "steps", &serde_json::to_vec(&prepared)?)?;
    match unflushed.flush() {
        Ok(()) => {}
        Err(CommitError::Poisoned(_)) => return Ok(store(world, "done", b"poisoned")?),
        Err(error) => {
            eprintln!("{error}");
            return match files::discard(&prepared, &world.roots) {
                Ok(()) => Ok(store(world, "done", b"rolled back")?),
                Err(_) => Ok(store(world, "done", b"poisoned")?),
            };
        }
    }
    let outcome: &[u8] = match files::apply(&prepared, &world.roots) {
        Ok(applied) => {
            std::fs::write(world.at("state/told"), "committed")?;
            match files::confirm(&applied, &prepared, &world.roots) {
                Ok(_) if applied.leftovers.is_empty() => b"committed",
                Ok(_) | Err(_) => b"poisoned",
            }
        }
        Err(ApplyError::RolledBack(error)) => {
            eprintln!("{error}");
            b"rolled back"
        }
        Err(ApplyError::Halted { .. }) => b"halted",
        Err(ApplyError::Failed(_)) => b"poisoned",
    };
    Ok(store(world, "done", outcome)?)
}

fn recover(world: &World) -> Result<(), Box<dyn std::error::Error>> {
    let note = match std::fs::read(world.at("state/note")) {
        Ok(note) => note,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(store(world, "done", b"nothing")?),
        Err(error) => return Err(error.into()),
    };
    let outcome: &[u8] = match std::fs::read(world.at("state/steps")) {
        Ok(steps) => {
            let prepared: Prepared = serde_json::from_slice(&steps)?;
            let undo = undo_store(world)?;
            match files::recover(&prepared, &world.roots, &from_store(&undo))? {
                Recovered::RolledForward => b"committed",
                Recovered::RolledBack => b"rolled back",
                Recovered::Halted(remnants) => {
                    remnants.iter().for_each(|remnant| eprintln!("{remnant}"));
                    b"halted"
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (transaction, nests): (TransactionId, Vec<Nest>) = serde_json::from_slice(&note)?;
            files::sweep_orphans(&nests, &transaction, &world.roots)?;
            b"nothing"
        }
        Err(error) => return Err(error.into()),
    };
    Ok(store(world, "done", outcome)?)
}

fn undo_store(world: &World) -> Result<UndoStore, Box<dyn std::error::Error>> {
    let mut undo = UndoStore::new();
    for entry in std::fs::read_dir(world.at("state"))? {
        let entry = entry?;
        if let Ok(digest) = entry.file_name().to_string_lossy().parse::<Digest>() {
            undo.insert(digest, std::fs::read(entry.path())?);
        }
    }
    Ok(undo)
}
