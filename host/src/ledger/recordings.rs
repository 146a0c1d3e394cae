//! Recordings as a replay reads them: verified against the audit chain, and calls that have one.
//!
//! The audit entry of a call names the digest of its recording. A recording that is something else was changed after it was
//! written, and nothing is made of it. The entry is looked for where the time of the call says that it is; the chain
//! has an order and no index by call.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::params;
use serde::Deserialize;
use serde_json::json;
use toolkeep_core::digest::Digest;
use toolkeep_core::event::unhex;
use toolkeep_core::id::{CallId, TenantName, ToolName};

use super::Ledger;
use super::column::{Reading, id_bytes, integer};
use super::failure::LedgerError;
use super::rows::{Scope, StoredCall};
use super::statement::{row, rows};
use crate::vault::Part;

/// Audit entries that are looked through for the one of a call: half a minute of the busiest daemon.
const LOOKED_THROUGH: u64 = 100_000;
/// Audit entries that are read at a time: few first, because the right one is mostly near, then more.
const READ_FIRST: u64 = 16;
const READ_AT_ONCE: u64 = 4_096;

/// A call with its recording.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The call.
    pub call: StoredCall,
    /// Its recording, JSON; nothing if it has none.
    pub body: Option<Arc<str>>,
}

/// What the audit says about a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attested {
    /// It is the one that was written.
    Same,
    /// It is another one.
    Changed,
    /// No entry was found: it was looked for and is too far away, or is gone.
    Unknown,
}

/// Places among the calls that one reading looks through, so that no reader is away for long: some milliseconds.
const PLACES_AT_ONCE: u64 = 20_000;

/// Recorded calls among some places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCalls {
    /// The calls, newest first.
    pub calls: Vec<CallId>,
    /// Where to go on; nothing where no older call is left.
    pub next: Option<u64>,
    /// How many places were looked through.
    pub places: u64,
}

const RECORDED: &str = "SELECT c.seq, c.id FROM calls c WHERE c.tenant = ?1 AND c.seq < ?2 AND c.seq >= ?3 \
                        AND (?4 IS NULL OR c.tool IN (SELECT value FROM json_each(?4))) \
                        AND EXISTS (SELECT 1 FROM recordings r WHERE r.call_seq = c.seq) ORDER BY c.seq DESC LIMIT ?5";

impl Ledger {
    /// A call with its recording.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn recorded(&self, scope: &Scope, id: CallId) -> Result<Option<Recorded>, LedgerError> {
        let Some(call) = self.call(scope, id).await? else { return Ok(None) };
        let body = self.recording(scope, id).await?;
        Ok(Some(Recorded { call, body }))
    }

    /// Calls of a tenant that have a recording, newest first, before the place `before`: of these tools, or of all. A page has
    /// at most `limit`, and may have none although there are more: a reading looks through so many places and no further.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn recorded_before(
        &self,
        tenant: &TenantName,
        tools: Option<&[ToolName]>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<RecordedCalls, LedgerError> {
        self.caught_up().await?;
        let (tenant, tools) = (tenant.clone(), tools.map(|tools| json!(tools).to_string()));
        self.read(move |conn| {
            let newest = "SELECT coalesce(max(seq), 0) + 1 AS seq FROM calls";
            let end = match before {
                Some(before) => before,
                None => row(conn, newest, params![], |row| Reading::new(row, "calls").number("seq"))?.unwrap_or(0),
            };
            let begin = end.saturating_sub(PLACES_AT_ONCE);
            let values = params![tenant.as_str(), integer(end), integer(begin), tools, i64::from(limit)];
            let found: Vec<(u64, CallId)> = rows(conn, RECORDED, values, |row| {
                let reading = Reading::new(row, "calls");
                Ok((reading.number("seq")?, CallId::new(reading.uuid("id")?)))
            })?;
            let full = found.len() as u64 >= u64::from(limit);
            let stopped = found.last().filter(|_| full).map_or(begin, |(seq, _)| *seq);
            let calls = found.into_iter().map(|(_, call)| call).collect();
            Ok(RecordedCalls { calls, next: (stopped > 0).then_some(stopped), places: end.saturating_sub(stopped) })
        })
        .await
    }

    /// Contents of a recording that are kept sealed with it, as far as the daemon can still open them.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn sealed_contents(&self, call: CallId) -> Result<HashMap<Digest, Arc<[u8]>>, LedgerError> {
        let vault = self.vault();
        let sql = "SELECT p.digest, p.body FROM calls c JOIN recording_parts p ON p.call_seq = c.seq WHERE c.id = ?1";
        let parts = self.read(move |conn| {
            rows(conn, sql, params![id_bytes(call.uuid())], |row| {
                let reading = Reading::new(row, "recording_parts");
                let text = vault.read(Part::Recording, reading.text("body")?)?.clear();
                Ok((reading.digest("digest")?, text))
            })
        });
        let opened = |(digest, text): (Digest, Option<Arc<str>>)| Some((digest, Arc::from(unhex(&text?)?)));
        Ok(parts.await?.into_iter().filter_map(opened).collect())
    }

    /// Whether the audit chain names this recording for the call.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn attested(
        &self,
        call: CallId,
        (started_ms, ended_ms): (u64, u64),
        recording: Digest,
    ) -> Result<Attested, LedgerError> {
        let early = self.attested_since(call, started_ms, recording).await?;
        if early == Attested::Same {
            return Ok(early);
        }
        // A call that waited has several entries; the last is of its last execution.
        let late = self.attested_since(call, ended_ms, recording).await?;
        Ok(if late == Attested::Unknown { early } else { late })
    }

    async fn attested_since(&self, call: CallId, at_ms: u64, recording: Digest) -> Result<Attested, LedgerError> {
        let mut after = self.audit_before(at_ms).await?;
        let end = after.saturating_add(LOOKED_THROUGH);
        let (wanted, mut found, mut count) = (call.to_string(), Attested::Unknown, READ_FIRST);
        while after < end {
            let (wanted, from) = (wanted.clone(), integer(after));
            // These are what is written of a call whose execution ended; others name it as well.
            let sql = "SELECT seq, body, kind IN ('call', 'held', 'intent') AND instr(body, ?2) > 0 AS named FROM audit \
                       WHERE seq > ?1 ORDER BY seq LIMIT ?3";
            let read = self.read(move |conn| {
                rows(conn, sql, params![from, wanted, integer(count)], |row| {
                    let reading = Reading::new(row, "audit");
                    let named = reading.number("named")? == 1;
                    Ok((reading.number("seq")?, named.then(|| reading.text("body").map(str::to_owned)).transpose()?))
                })
            });
            let entries: Vec<(u64, Option<String>)> = read.await?;
            let Some((last, _)) = entries.last() else { break };
            after = *last;
            count = (count * 4).min(READ_AT_ONCE);
            for named in entries.iter().filter_map(|(_, body)| named_in(body.as_deref()?, call)) {
                if named == Some(recording) {
                    return Ok(Attested::Same);
                }
                // It names another one, or says that there was none.
                found = Attested::Changed;
            }
        }
        Ok(found)
    }

    /// The last audit entry that is older than a moment, by halving: times only grow along the chain.
    async fn audit_before(&self, at_ms: u64) -> Result<u64, LedgerError> {
        let head = self.audit_head().await?.seq;
        self.read(move |conn| {
            let (mut low, mut high) = (0_u64, head);
            while low < high {
                let middle = low + (high - low).div_ceil(2);
                let sql = "SELECT at_ms FROM audit WHERE seq = ?1";
                let at = row(conn, sql, params![integer(middle)], |row| Reading::new(row, "audit").number("at_ms"))?;
                if at.is_none_or(|at: u64| at < at_ms) {
                    low = middle;
                } else {
                    high = middle - 1;
                }
            }
            Ok(low)
        })
        .await
    }
}

/// What an entry says about a call that ended: the recording, or that it has none. Nothing where it is about another call, or
/// where this one went on afterwards.
fn named_in(body: &str, call: CallId) -> Option<Option<Digest>> {
    #[derive(Deserialize)]
    struct Facts {
        call: Option<CallId>,
        recording: Option<Digest>,
        /// What was executed. An entry of somebody's consent, or of the commit of a plan that was made before, has none.
        input: Option<Digest>,
        reply: Option<Digest>,
        status: Option<String>,
    }
    let facts: Facts = serde_json::from_str(body).ok()?;
    let ended = facts.input.is_some() && facts.reply.is_some() && facts.status.as_deref() != Some("unknown");
    (facts.call == Some(call) && (ended || facts.recording.is_some())).then_some(facts.recording)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r41_an_entry_that_says_of_a_call_that_ended_that_it_has_no_recording_is_believed() {
        let call = CallId::new(uuid::Uuid::from_u128(1));
        let (input, other) = (Digest::of(b"input"), CallId::new(uuid::Uuid::from_u128(2)));
        let entry = |facts: serde_json::Value| named_in(&facts.to_string(), call);
        let named = json!({"call": call, "input": input, "reply": input, "recording": input, "status": "ok"});
        assert_eq!(entry(named), Some(Some(input)));
        assert_eq!(entry(json!({"call": call, "input": input, "reply": input, "status": "ok"})), Some(None));
        assert_eq!(entry(json!({"call": other, "input": input, "reply": input, "status": "ok"})), None);
        assert_eq!(
            entry(json!({"call": call, "input": input, "reply": input, "status": "unknown"})),
            None,
            "it went on"
        );
        assert_eq!(entry(json!({"call": call, "input": input, "recording": null})), None, "a plan made before");
        assert_eq!(entry(json!({"call": call, "input": input, "recording": input})), Some(Some(input)));
        assert_eq!(entry(json!({"call": call, "approval": "apr_1"})), None);
    }
}
