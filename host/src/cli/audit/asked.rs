//! The audit as the daemon tells it.

use std::path::Path;

use serde_json::{Value, json};
use toolkeep_core::checkpoint::{NOTE_MAX_BYTES, notes};
use toolkeep_core::refusal::Code;

use super::shown;
use super::{CheckpointsArgs, ExportArgs, ProveArgs, ShowArgs, VerifyArgs};
use crate::cli::client::AdminClient;
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::ui::text_at;
use crate::daemon::method::AdminMethod;

/// Longest file of checkpoints that is sent, in bytes; the daemon takes no more either.
const CHECKPOINTS_MAX_BYTES: u64 = 1024 * 1024;

/// A file of checkpoints.
pub(super) fn kept(path: &Path) -> Result<String, Failure> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(Failure::file("read", path))?;
    let mut text = String::new();
    file.take(CHECKPOINTS_MAX_BYTES + 1).read_to_string(&mut text).map_err(Failure::file("read", path))?;
    if text.len() as u64 > CHECKPOINTS_MAX_BYTES {
        let message = format!("`{}` holds more than 1 MiB of checkpoints", path.display());
        return Err(Failure::usage(message, "take the last lines of it: the latest checkpoint says most"));
    }
    Ok(text)
}

/// The last checkpoint of a file to which they are appended, however long it has become.
pub(super) fn latest(path: &Path) -> Result<String, Failure> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let unread = || Failure::file("read", path);
    let mut file = std::fs::File::open(path).map_err(unread())?;
    let bytes = file.metadata().map_err(unread())?.len();
    // Room for the longest one, whatever is cut off before it.
    let tail = 2 * NOTE_MAX_BYTES as u64;
    file.seek(SeekFrom::Start(bytes.saturating_sub(tail))).map_err(unread())?;
    let mut end = Vec::new();
    file.take(tail).read_to_end(&mut end).map_err(unread())?;
    let text = String::from_utf8_lossy(&end);
    let last = notes(&text).pop().map(str::to_owned);
    last.ok_or_else(|| Failure::usage(format!("`{}` holds no checkpoint", path.display()), "name a file that does"))
}

/// What does not verify is a finding, not a failure of the command.
fn finding(context: &Context<'_>) -> impl Fn(Failure) -> Failure {
    |failure| match failure {
        Failure::Refused(refusal) if refusal.code == Code::Halted => {
            context.ui.note(&format!("hint: {}", refusal.hint));
            Failure::Findings(refusal.message)
        }
        other => other,
    }
}

pub(super) fn verify(context: &Context<'_>, args: &VerifyArgs) -> Result<Exit, Failure> {
    let brought = args.checkpoint.as_deref().map(kept).transpose()?;
    let asked = context.admin()?.ask(&context.ui, AdminMethod::AuditVerify, json!({"checkpoint": brought}));
    let answer = asked.map_err(finding(context))?;
    context.ui.value(&answer, || shown::verified(&answer))?;
    Ok(Exit::Ok)
}

pub(super) fn prove(context: &Context<'_>, args: &ProveArgs) -> Result<Exit, Failure> {
    let checkpoint = args.from.as_deref().map(latest).transpose()?;
    let asked = json!({"entry": args.entry, "checkpoint": checkpoint});
    let proof = context.admin()?.ask(&context.ui, AdminMethod::AuditProve, asked).map_err(finding(context))?;
    context.ui.value(&proof, || shown::proof(&proof))?;
    Ok(Exit::Ok)
}

pub(super) fn export(context: &Context<'_>, args: &ExportArgs) -> Result<Exit, Failure> {
    let mut client = context.admin()?;
    if args.raw {
        let filter = json!({"since_ms": args.time.since, "until_ms": args.time.until});
        return entries(context, &mut client, &filter, None, |entry| {
            context.ui.line(entry)?;
            Ok(true)
        });
    }
    let (mut cursor, mut step) = (Value::Null, Value::Null);
    loop {
        let asked = json!({"run": args.run, "since_ms": args.time.since, "until_ms": args.time.until,
            "cursor": cursor, "step": step});
        let page = client.ask(&context.ui, AdminMethod::AuditExport, asked)?;
        for record in page.get("records").and_then(Value::as_array).into_iter().flatten() {
            context.ui.line(record)?;
        }
        cursor = page.get("next_cursor").cloned().unwrap_or_default();
        step = page.get("next_step").cloned().unwrap_or_default();
        if cursor.is_null() {
            return Ok(Exit::Ok);
        }
    }
}

/// Every entry that a filter wants, a page at a time, until `take` has enough.
fn entries(
    context: &Context<'_>,
    client: &mut AdminClient,
    filter: &Value,
    after: Option<u64>,
    mut take: impl FnMut(&Value) -> Result<bool, Failure>,
) -> Result<Exit, Failure> {
    let mut cursor = json!(after);
    loop {
        let mut asked = filter.clone();
        if let Value::Object(members) = &mut asked {
            members.insert("cursor".to_owned(), cursor);
        }
        let page = client.ask(&context.ui, AdminMethod::AuditEntries, asked).map_err(finding(context))?;
        for entry in page.get("entries").and_then(Value::as_array).into_iter().flatten() {
            if !take(entry)? {
                return Ok(Exit::Ok);
            }
        }
        cursor = page.get("next_cursor").cloned().unwrap_or_default();
        if cursor.is_null() {
            return Ok(Exit::Ok);
        }
    }
}

pub(super) fn show(context: &Context<'_>, args: &ShowArgs) -> Result<Exit, Failure> {
    let filter = json!({"kind": args.kind, "about": args.about, "since_ms": args.time.since,
        "until_ms": args.time.until});
    let (mut left, mut shown) = (args.limit, shown::Entries::default());
    if left > 0 {
        entries(context, &mut context.admin()?, &filter, args.after, |entry| {
            shown.add(entry.clone());
            left -= 1;
            Ok(left > 0)
        })?;
    }
    shown.show(&context.ui, left == 0)
}

pub(super) fn key(context: &Context<'_>) -> Result<Exit, Failure> {
    let answer = context.admin()?.ask(&context.ui, AdminMethod::AuditKey, json!({}))?;
    context.ui.value(&answer, || text_at(&answer, "/key"))?;
    Ok(Exit::Ok)
}

pub(super) fn checkpoints(context: &Context<'_>, args: &CheckpointsArgs) -> Result<Exit, Failure> {
    let mut client = context.admin()?;
    if args.make {
        let made = client.ask(&context.ui, AdminMethod::AuditCheckpoint, json!({})).map_err(finding(context))?;
        context.ui.value(&made, || shown::note(&made, "/checkpoint/note"))?;
        let problems = made.get("problems").and_then(Value::as_array).map_or(0, Vec::len);
        if problems > 0 {
            return Err(Failure::Findings(format!("it was not sent out: {}", text_at(&made, "/problems/0"))));
        }
        return Ok(Exit::Ok);
    }
    let page = client.ask(&context.ui, AdminMethod::AuditCheckpoints, json!({"cursor": args.below}))?;
    shown::checkpoints(&context.ui, &page, args.latest)
}
