//! The audit of a copy of a ledger, without a daemon.
//!
//! Nothing of the copy is believed but what its checkpoints, the key and the entries themselves prove. Whoever has the copy
//! has its contents; what the schemas of tools hide is not known here, so that of calls without notes only digests are
//! exported.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::checkpoint::{Checkpoint, NoteKey, notes};
use toolkeep_core::id::ToolName;

use super::asked::{kept, latest};
use super::shown;
use super::{CheckpointsArgs, ExportArgs, Place, ProveArgs, ShowArgs, VerifyArgs};
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::ledger::{Archive, EntryFilter, LedgerError, Page, Proved, RunRow, Span};
use crate::proof;
use crate::run_record::{self, STEPS_MAX};

/// Rows that are read at a time.
const AT_ONCE: u32 = 200;
/// What is hidden of the contents of tools: nobody knows.
const UNKNOWN: fn(&ToolName) -> Option<Vec<String>> = |_| None;

/// A copy and the key that its checkpoints have to be signed with.
fn open(context: &Context<'_>, place: &Place) -> Result<(Archive, Arc<NoteKey>), Failure> {
    let dir = place.ledger.as_deref().unwrap_or(Path::new("."));
    let archive = Archive::open(dir).map_err(failed)?;
    let key = match &place.key {
        Some(key) => Arc::new(key.parse::<NoteKey>().map_err(|bad| Failure::usage(bad.to_string(), ""))?),
        None => {
            let own = archive
                .own_key()
                .ok_or_else(|| Failure::usage("the copy does not say which key is its own", "name it with `--key`"))?;
            context.ui.note(&format!("the key is the copy's own word: {own}; name one that you kept with `--key`"));
            own
        }
    };
    Ok((archive, key))
}

fn failed(error: LedgerError) -> Failure {
    match error {
        LedgerError::Chain(_) | LedgerError::Damaged(_) => Failure::Findings(error.to_string()),
        other => Failure::Other(other.to_string()),
    }
}

/// The checkpoints of a file, each signed with the key.
fn brought(path: &Path, key: &NoteKey) -> Result<Vec<Checkpoint>, Failure> {
    let text = kept(path)?;
    let opened = notes(&text).into_iter().map(|note| key.open(note));
    opened.collect::<Result<Vec<_>, _>>().map_err(|bad| Failure::Findings(format!("`{}`: {bad}", path.display())))
}

pub(super) fn verify(context: &Context<'_>, args: &VerifyArgs) -> Result<Exit, Failure> {
    let (archive, key) = open(context, &args.place)?;
    let mut known = args.checkpoint.as_deref().map(|path| brought(path, &key)).transpose()?.unwrap_or_default();
    let verified = if args.after_checkpoint {
        known.sort_by_key(|checkpoint| checkpoint.size);
        let latest = known.pop().ok_or_else(|| Failure::usage("the file holds no checkpoint", ""))?;
        archive.verify_after(&key, latest)
    } else {
        let (progress, head) = (context.ui.progress(), archive.head().map_err(failed)?.seq);
        let verified = archive.verify(&key, known, |done| progress.show(done, Some(head), "entries"));
        progress.clear();
        verified
    };
    let verified = verified.map_err(failed)?;
    let answer = json!({"verified": verified.entries, "checkpoints": verified.checkpoints, "root": verified.root,
        "head": {"seq": verified.head.seq, "digest": verified.head.digest}, "key": key.to_string()});
    context.ui.value(&answer, || shown::verified(&answer))?;
    Ok(Exit::Ok)
}

pub(super) fn prove(context: &Context<'_>, args: &ProveArgs) -> Result<Exit, Failure> {
    let (archive, key) = open(context, &args.place)?;
    let missing =
        |what: &str| Failure::Other(format!("{what}; the daemon makes one with `toolkeep audit checkpoints --make`"));
    let proof = match (args.entry, args.from.as_deref()) {
        (Some(seq), _) => match archive.prove_entry(&key, seq).map_err(failed)? {
            Proved::Yes(proved) => proof::of_inclusion(&proved, &proof::entry(&proved.entry)),
            Proved::NoEntry => return Err(Failure::Findings(format!("there is no audit entry {seq}"))),
            Proved::NoCheckpoint => return Err(missing("no checkpoint of the copy covers the entry")),
        },
        (None, Some(path)) => {
            let old = key.open(&latest(path)?);
            let old = old.map_err(|bad| Failure::Findings(format!("`{}`: {bad}", path.display())))?;
            match archive.prove_since(&key, old).map_err(failed)? {
                Proved::Yes(proved) => proof::of_consistency(&proved),
                Proved::NoEntry | Proved::NoCheckpoint => {
                    return Err(missing("the copy has no checkpoint to prove it by"));
                }
            }
        }
        (None, None) => {
            return Err(Failure::usage("nothing is to be proved", "name an entry, or `--from` a checkpoint"));
        }
    };
    context.ui.value(&proof, || shown::proof(&proof))?;
    Ok(Exit::Ok)
}

pub(super) fn export(context: &Context<'_>, args: &ExportArgs) -> Result<Exit, Failure> {
    let (archive, _) = open(context, &args.place)?;
    let tenant = args.tenant.as_deref().map(str::parse).transpose();
    let tenant = tenant.map_err(|error| Failure::usage(format!("`--tenant`: {error}"), ""))?;
    let span = Span { tenant, since_ms: args.time.since, until_ms: args.time.until };
    if args.raw {
        let filter = EntryFilter { since_ms: span.since_ms, until_ms: span.until_ms, ..EntryFilter::default() };
        let wanted = span.tenant.as_ref().map(|tenant| tenant.as_str().to_owned());
        each_entry(&archive, &filter, None, |entry| {
            if wanted.is_none() || entry.pointer("/facts/tenant").and_then(Value::as_str) == wanted.as_deref() {
                context.ui.line(&entry)?;
            }
            Ok(true)
        })?;
        return Ok(Exit::Ok);
    }
    let mut cursor = None;
    loop {
        let runs = archive.runs(&span, Page { cursor, limit: AT_ONCE }).map_err(failed)?;
        for (_, run) in
            runs.items.iter().filter(|(_, run)| args.run.as_ref().is_none_or(|id| *id == run.run.to_string()))
        {
            export_run(context, &archive, run)?;
        }
        cursor = runs.next;
        if cursor.is_none() {
            break;
        }
    }
    if args.run.is_some() {
        return Ok(Exit::Ok);
    }
    loop {
        let calls = archive.calls_alone(&span, Page { cursor, limit: AT_ONCE }).map_err(failed)?;
        for step in &calls.items {
            context.ui.line(&run_record::of_call(step, &UNKNOWN))?;
        }
        cursor = calls.next;
        if cursor.is_none() {
            return Ok(Exit::Ok);
        }
    }
}

/// The record of a run, in as many parts as it takes.
fn export_run(context: &Context<'_>, archive: &Archive, run: &RunRow) -> Result<(), Failure> {
    let mut cursor = None;
    loop {
        let steps = archive.steps_of_run(run, Page { cursor, limit: STEPS_MAX }).map_err(failed)?;
        let part = (cursor.is_none(), steps.next.is_none());
        context.ui.line(&run_record::of_run(run, part, &steps.items, &UNKNOWN))?;
        cursor = steps.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn each_entry(
    archive: &Archive,
    filter: &EntryFilter,
    after: Option<u64>,
    mut take: impl FnMut(Value) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut cursor = after;
    loop {
        let page = archive.entries(filter, Page { cursor, limit: AT_ONCE }).map_err(failed)?;
        for entry in &page.items {
            if !take(proof::entry(entry))? {
                return Ok(());
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

pub(super) fn show(context: &Context<'_>, args: &ShowArgs) -> Result<Exit, Failure> {
    let (archive, _) = open(context, &args.place)?;
    let filter = EntryFilter {
        kind: args.kind,
        since_ms: args.time.since,
        until_ms: args.time.until,
        about: args.about.as_deref().map(Arc::from),
        viewer: None,
    };
    let (mut left, mut shown) = (args.limit, shown::Entries::default());
    if left > 0 {
        each_entry(&archive, &filter, args.after, |entry| {
            shown.add(entry);
            left -= 1;
            Ok(left > 0)
        })?;
    }
    shown.show(&context.ui, left == 0)
}

pub(super) fn key(context: &Context<'_>, place: &Place) -> Result<Exit, Failure> {
    let (_, key) = open(context, place)?;
    let answer = json!({"key": key.to_string(), "origin": key.name()});
    context.ui.value(&answer, || key.to_string())?;
    Ok(Exit::Ok)
}

pub(super) fn checkpoints(context: &Context<'_>, args: &CheckpointsArgs) -> Result<Exit, Failure> {
    let (archive, _) = open(context, &args.place)?;
    let found = archive.checkpoints(Page { cursor: args.below, limit: AT_ONCE }).map_err(failed)?;
    let lines: Vec<Value> = found.items.iter().map(|kept| json!({"size": kept.size, "note": &*kept.note})).collect();
    shown::checkpoints(&context.ui, &json!({"checkpoints": lines, "next_cursor": found.next}), args.latest)
}
