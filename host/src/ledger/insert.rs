//! Rows on their way in: the rows of calls and contents.
//!
//! A statement is prepared once and run for each row. One statement over many rows is no faster here, and SQLite would
//! keep a journal of its own for it, so that it could take back the rows before a refused one.

use std::borrow::Cow;

use rusqlite::{Connection, params};
use toolkeep_core::call::Mode;
use toolkeep_core::digest::Digest;
use toolkeep_core::event::hex;
use toolkeep_core::id::{PlanId, SessionId, TenantName};
use toolkeep_core::tier::Tier;

use super::charges;
use super::column::{digest_bytes, id_bytes, integer, outcome_word, path_bytes, status_word};
use super::rows::{Beside, BlobSet, CallRow};
use super::sealing::Sealer;
use super::statement::{each, execute};
use crate::vault::Part;

const CALL: &str = "INSERT INTO calls (seq, id, tenant, user, agent, run, step, tool, component, manifest, mode, input, \
                    input_digest, status, outcome, error_code, reply, fuel, wall_ms, memory_peak, host_calls, \
                    started_ms, ended_ms, plan, final, credential, session, http_requests, cost_micro_usd, policy_set, \
                    tier) VALUES (?1, ?2, ?3, \
                    ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, \
                    ?26, ?27, ?28, ?29, ?30, ?31)";
pub(super) const NOTES: &str = "INSERT INTO call_notes (call_seq, body) VALUES (?1, ?2) \
                                ON CONFLICT (call_seq) DO UPDATE SET body = excluded.body";
pub(super) const OUTPUT: &str = "INSERT INTO call_outputs (call_seq, body) VALUES (?1, ?2) \
                                 ON CONFLICT (call_seq) DO UPDATE SET body = excluded.body";
const RECORDING: &str = "INSERT INTO recordings (call_seq, body) VALUES (?1, ?2)";
const COUNT: &str = "UPDATE credentials SET calls = calls + 1 WHERE id = ?1";
/// How the names of tools begin that no manifest can give.
const INTERNAL: &str = "toolkeep.";
const BLOB: &str = "INSERT INTO blobs (digest, size, content) VALUES (?1, ?2, ?3) ON CONFLICT (digest) DO NOTHING";
const PIN_BESIDE: &str = "INSERT INTO recording_pins (call_seq, blob_seq) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const PART_BESIDE: &str =
    "INSERT INTO recording_parts (call_seq, digest, body) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
const PIN_OTHER: &str = "INSERT INTO recording_pins (call_seq, blob_seq) SELECT ?1, seq FROM blobs WHERE digest = ?2 \
                         ON CONFLICT DO NOTHING";
const PIN: &str = "INSERT INTO blob_pins (plan_seq, role, blob_seq) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";

/// A call with its place in the order of calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'r> {
    pub(super) seq: i64,
    pub(super) row: &'r CallRow,
    pub(super) plan: Option<PlanId>,
    /// Whether the call waits for a part of it.
    pub(super) waits: bool,
}

impl Placed<'_> {
    /// A call without an open plan will not change any more.
    pub(super) const fn is_final(&self) -> bool {
        self.plan.is_none() && !self.waits
    }
}

/// The payloads of a call as they are written.
struct Payloads<'r> {
    input: Cow<'r, str>,
    reply: Cow<'r, str>,
    output: Option<Cow<'r, str>>,
    recording: Option<Cow<'r, str>>,
}

impl<'r> Payloads<'r> {
    fn of(row: &'r CallRow, sealer: &mut Sealer<'_>) -> Result<Self, rusqlite::Error> {
        let tenant = &row.principal.tenant;
        let (output, recording) = (row.output.as_deref(), row.recording.as_deref());
        Ok(Self {
            input: sealer.seal(tenant, Part::Input, &row.input)?,
            reply: sealer.seal(tenant, Part::Reply, &row.reply)?,
            output: output.map(|text| sealer.seal(tenant, Part::Output, text)).transpose()?,
            recording: recording.map(|text| sealer.seal(tenant, Part::Recording, text)).transpose()?,
        })
    }
}

/// Insert calls with their recordings.
pub(super) fn calls(conn: &Connection, sealer: &mut Sealer<'_>, calls: &[Placed<'_>]) -> Result<(), rusqlite::Error> {
    let payloads = calls.iter().map(|call| Payloads::of(call.row, sealer)).collect::<Result<Vec<_>, _>>()?;
    let calls: Vec<(&Placed<'_>, &Payloads<'_>)> = calls.iter().zip(&payloads).collect();
    each(conn, CALL, &calls, |statement, (call, payloads)| {
        let row = call.row;
        statement.execute(params![
            call.seq,
            id_bytes(row.call.uuid()),
            row.principal.tenant.as_str(),
            row.principal.user.as_str(),
            row.principal.agent.as_str(),
            row.run.as_ref().map(|run| id_bytes(run.uuid())),
            row.step,
            row.tool.as_str(),
            row.component.as_ref().map(digest_bytes),
            row.manifest.as_ref().map(digest_bytes),
            row.mode.word(),
            payloads.input,
            digest_bytes(&row.input_digest),
            status_word(row.status),
            outcome_word(row.outcome),
            row.error_code.map(toolkeep_core::refusal::Code::word),
            payloads.reply,
            integer(row.usage.fuel),
            integer(row.usage.wall_ms),
            integer(row.usage.memory_peak),
            integer(row.usage.host_calls),
            integer(row.started_ms),
            integer(row.ended_ms),
            call.plan.as_ref().map(|plan| id_bytes(plan.uuid())),
            call.is_final(),
            row.origin.credential.to_string(),
            path_bytes(&row.origin.session),
            integer(row.usage.http_requests),
            integer(row.usage.cost_usd.micro()),
            row.policy_set.as_ref().map(digest_bytes),
            row.tier.map(Tier::number)
        ])
    })?;
    let notes: Vec<_> = calls.iter().filter_map(|(call, _)| Some((call.seq, call.row.notes.as_deref()?))).collect();
    each(conn, NOTES, &notes, |statement, (seq, body)| statement.execute(params![seq, body]))?;
    calls
        .iter()
        .filter_map(|(call, _)| call.row.charge.as_deref())
        .try_for_each(|charge| charges::charge(conn, charge))?;
    let outputs: Vec<_> = calls.iter().filter_map(|(call, kept)| Some((call.seq, kept.output.as_deref()?))).collect();
    each(conn, OUTPUT, &outputs, |statement, (seq, body)| statement.execute(params![seq, body]))?;
    let recordings: Vec<_> =
        calls.iter().filter_map(|(call, kept)| Some((call.seq, kept.recording.as_deref()?))).collect();
    each(conn, RECORDING, &recordings, |statement, (seq, body)| statement.execute(params![seq, body]))?;
    calls
        .iter()
        .filter_map(|(call, _)| Some((call.seq, &call.row.principal.tenant, call.row.beside.as_deref()?)))
        .try_for_each(|(seq, tenant, beside)| keep_beside(conn, sealer, (seq, tenant), beside))?;
    // Last: calls of which one is refused are inserted again, and counted then.
    let through: Vec<SessionId> =
        calls.iter().filter(|(call, _)| counts(call.row)).flat_map(|(call, _)| call.row.origin.session.ids()).collect();
    each(conn, COUNT, &through, |statement, session| statement.execute(params![id_bytes(session.uuid())]))
}

/// Whether a call is one that the budget of its session counts: no part of a live call, whose id is of version 5, and nothing
/// that only looks at what an undo or a transaction would do.
fn counts(row: &CallRow) -> bool {
    let looks = row.mode == Mode::Preview && row.tool.as_str().starts_with(INTERNAL);
    !looks && row.call.uuid().get_version_num() != 5
}

/// Keep what a recording needs besides itself.
pub(super) fn keep_beside(
    conn: &Connection,
    sealer: &mut Sealer<'_>,
    (seq, tenant): (i64, &TenantName),
    beside: &Beside,
) -> Result<(), rusqlite::Error> {
    each(conn, PIN_OTHER, &beside.others, |statement, digest| statement.execute(params![seq, digest_bytes(digest)]))?;
    if sealer.seals() {
        return beside.contents.iter().try_for_each(|blob| {
            let text = hex(&blob.content);
            let sealed = sealer.seal(tenant, Part::Recording, &text)?;
            execute(conn, PART_BESIDE, params![seq, digest_bytes(&blob.digest), sealed]).map(drop)
        });
    }
    let contents = beside.contents.iter().map(|blob| {
        let size = integer(blob.content.len() as u64);
        content(conn, &blob.digest, size, Some(&blob.content))
    });
    let places: Vec<i64> = contents.collect::<Result<_, _>>()?;
    each(conn, PIN_BESIDE, &places, |statement, place| statement.execute(params![seq, place]))
}

/// Why a plan pins a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Its effects write it.
    After,
    /// Undo needs it.
    Undo,
}

impl Role {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::After => "after",
            Self::Undo => "undo",
        }
    }
}

/// Insert contents that are not there yet. Returns their places.
pub(super) fn contents(conn: &Connection, set: &BlobSet) -> Result<Vec<i64>, rusqlite::Error> {
    let inline = set.inline.iter().map(|blob| {
        let size = integer(blob.content.len() as u64);
        content(conn, &blob.digest, size, Some(&blob.content))
    });
    let files = set.files.iter().map(|blob| content(conn, &blob.digest, integer(blob.size), None));
    inline.chain(files).collect()
}

fn content(conn: &Connection, digest: &Digest, size: i64, content: Option<&[u8]>) -> Result<i64, rusqlite::Error> {
    if execute(conn, BLOB, params![digest_bytes(digest), size, content])? == 1 {
        return Ok(conn.last_insert_rowid());
    }
    let mut found = conn.prepare_cached("SELECT seq FROM blobs WHERE digest = ?1")?;
    found.query_row(params![digest_bytes(digest)], |row| row.get(0))
}

/// Insert contents that are not there yet, and pin all of them for a plan.
pub(super) fn blobs(conn: &Connection, plan_seq: i64, role: Role, set: &BlobSet) -> Result<(), rusqlite::Error> {
    let places = contents(conn, set)?;
    each(conn, PIN, &places, |statement, place| statement.execute(params![plan_seq, role.word(), place]))
}
