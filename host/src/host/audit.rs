//! The audit, for the operator: putting on record, verifying, proving, exporting, checkpoints.
//!
//! An operator sees the entries of the own tenant; of others there is nothing but their digests, by which the tree can be
//! followed all the same. What is on record of the daemon itself is for those who may stop all of it. Where the audit
//! cannot be relied on any more nothing with effects runs, and everybody who is to be told is told, once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_core::audit::{AuditEntry, AuditKind};
use toolkeep_core::checkpoint::notes;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{RunId, ToolName};
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use crate::authenticate::Operator;
use crate::ledger::{EntryFilter, LedgerError, LedgerHealth, Page, Proved, Scope, Span, Viewer, Who};
use crate::notify::Event;
use crate::proof;
use crate::run_record::{self, STEPS_MAX};

/// How often it is looked whether a checkpoint is due, and whether the audit can still be relied on.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Records of one page of an export: some of them are long.
const RECORDS_AT_ONCE: u32 = 20;
/// Bytes of one page of an export, about: it ends with the record that reaches them. Far from what a client reads at once.
const EXPORT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a record beside its steps, about.
const RECORD_BYTES: usize = 2 * 1024;
/// Steps that are read at a time: what is stored of each may be much longer than what is shown.
const STEPS_AT_ONCE: u32 = 50;
/// Entries of one page.
const ENTRIES_AT_ONCE: u32 = 200;
/// Where the cursor of an export counts calls and no runs any more: beyond it are the calls without a run.
const ALONE_FROM: u64 = 1 << 52;
/// Bytes of a file of checkpoints that is compared with the ledger.
const BROUGHT_MAX_BYTES: usize = 1024 * 1024;

/// Which records an operator wants.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportAsk {
    /// Only this run.
    #[serde(default)]
    pub run: Option<RunId>,
    /// Runs that were opened, and calls without a run that arrived, not before this.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// And before this.
    #[serde(default)]
    pub until_ms: Option<u64>,
    /// Where the page before ended.
    #[serde(default)]
    pub cursor: Option<u64>,
    /// Where in a run of many calls the page before ended.
    #[serde(default)]
    pub step: Option<u64>,
}

/// What is to be proved.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProveAsk {
    /// That this entry is covered by a checkpoint.
    #[serde(default)]
    pub entry: Option<u64>,
    /// Or that this checkpoint is the beginning of what there is now.
    #[serde(default)]
    pub checkpoint: Option<String>,
}

fn refused(error: &LedgerError) -> Refusal {
    match error {
        LedgerError::Chain(_) | LedgerError::Damaged(_) => Refusal::new(Code::Halted, error.to_string())
            .hint("stop the daemon, keep the state folder as it is, and look for who changed it"),
        other => other.refusal(),
    }
}

impl Host {
    /// Put on record that an operator does something, and wait until that is on the disk: what is asked for is done only
    /// afterwards. Returns the number of the entry. See [`crate::ledger::Ledger::note`] for what `facts` may hold.
    ///
    /// # Errors
    /// The ledger failed: nothing must be done.
    pub(crate) async fn note(&self, operator: &Operator, kind: AuditKind, facts: Value) -> Result<u64, Refusal> {
        let who = Who::Operator { user: operator.user(), tenant: operator.tenant() };
        self.ledger().note(kind, who, facts).await.map_err(|error| error.refusal())
    }

    /// Put on record that the daemon runs, and whether it is told to do what it was told before.
    pub(super) fn note_start(&self) {
        let config = Digest::of(format!("{:?}", self.0.config).as_bytes());
        if let Err(error) = self.ledger().configured(config) {
            tracing::error!(%error, "the configuration could not be put on record");
        }
        let broken = self.ledger().audit_broken();
        self.note_life(&json!({"what": "start", "by": "daemon", "version": env!("CARGO_PKG_VERSION"),
            "environment": self.0.config.environment, "configuration": config, "offered": self.inventory(),
            "after": if self.ledger().was_unclean() { "unclean_stop" } else { "clean_stop" },
            "audit": broken.as_deref().unwrap_or("verified")}));
    }

    /// Put on record that the daemon stops.
    pub(super) fn note_stop(&self) {
        self.note_life(&json!({"what": "stop", "by": "daemon", "version": env!("CARGO_PKG_VERSION"),
            "environment": self.0.config.environment}));
    }

    fn note_life(&self, facts: &Value) {
        if let Err(error) = self.ledger().audit(AuditKind::Daemon, facts) {
            tracing::error!(%error, "the daemon's own life could not be put on record");
        }
    }

    /// An operator stops the daemon.
    ///
    /// # Errors
    /// None: a daemon whose ledger fails can be stopped, too.
    pub async fn stopped_by(&self, operator: &Operator) -> Result<Value, Refusal> {
        tracing::info!(operator = operator.user().as_str(), "an operator stops the daemon");
        if let Err(refusal) = self.note(operator, AuditKind::Daemon, json!({"what": "drain"})).await {
            tracing::error!(message = refusal.message, "who stops the daemon could not be put on record");
        }
        Ok(json!({"draining": true}))
    }

    /// Verify the whole audit, and that checkpoints which somebody kept are of it.
    ///
    /// # Errors
    /// `halted`: it does not verify, and where. `invalid_input`: a text is no checkpoint of this log.
    pub async fn audit_verify(&self, _operator: &Operator, kept: Option<&str>) -> Result<Value, Refusal> {
        let key = self.ledger().note_key();
        let mut brought = Vec::new();
        for note in kept.map(notes).unwrap_or_default() {
            brought.push(key.open(note).map_err(|bad| not_a_checkpoint(&bad.to_string()))?);
        }
        match self.ledger().verify_audit(brought).await {
            Ok(verified) => Ok(json!({"verified": verified.entries, "checkpoints": verified.checkpoints,
                "root": verified.root, "head": {"seq": verified.head.seq, "digest": verified.head.digest}})),
            Err(error) => Err(refused(&error)),
        }
    }

    /// Prove something about the audit to somebody who does not trust this daemon.
    ///
    /// # Errors
    /// `not_found`, `invalid_input`, or `halted`: what is stored does not lead to what was signed.
    pub async fn audit_prove(&self, operator: &Operator, ask: ProveAsk) -> Result<Value, Refusal> {
        let key = self.ledger().note_key();
        match (ask.entry, ask.checkpoint) {
            (Some(seq), None) => match self.ledger().prove_audit_entry(seq).await.map_err(|error| refused(&error))? {
                Proved::Yes(proved) => {
                    let visible = entry_shown(&self.viewer(operator), &proved.entry);
                    Ok(proof::of_inclusion(&proved, &visible))
                }
                Proved::NoEntry | Proved::NoCheckpoint => Err(Refusal::not_found("audit entry")),
            },
            (None, Some(kept)) => {
                // Of several that were appended one after the other the last says most.
                let kept = notes(&kept).pop().unwrap_or_default();
                let old = key.open(kept).map_err(|bad| not_a_checkpoint(&bad.to_string()))?;
                match self.ledger().prove_audit_since(old).await.map_err(|error| refused(&error))? {
                    Proved::Yes(proved) => Ok(proof::of_consistency(&proved)),
                    Proved::NoEntry | Proved::NoCheckpoint => Err(not_a_checkpoint("it covers no entry")),
                }
            }
            _ => Err(Refusal::new(Code::InvalidInput, "one of `entry` and `checkpoint` is wanted").field(
                "/entry",
                "is missing, or `checkpoint` is there too",
                "the number of an entry, or else a checkpoint as it was kept",
            )),
        }
    }

    /// Entries, the oldest first. A page may be empty and not the last. Of those that the operator may not see there is the
    /// digest where all are asked for, and nothing where some are.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_entries(
        &self,
        op: &Operator,
        filter: EntryFilter,
        cursor: Option<u64>,
    ) -> Result<Value, Refusal> {
        let viewer = self.viewer(op);
        let filter = EntryFilter { viewer: Some(viewer.clone()), ..filter };
        let page = Page { cursor, limit: ENTRIES_AT_ONCE };
        let found = self.ledger().audit_history(filter, page).await.map_err(|error| refused(&error))?;
        let entries: Vec<Value> = found.items.iter().map(|entry| entry_shown(&viewer, entry)).collect();
        Ok(json!({"entries": entries, "next_cursor": found.next}))
    }

    fn viewer(&self, operator: &Operator) -> Viewer {
        Viewer { tenant: operator.tenant().clone(), over_all: self.is_over_all(operator) }
    }

    /// Run records of the operator's tenant, a page at a time.
    ///
    /// # Errors
    /// `not_found`: there is no such run. The ledger cannot be read.
    pub async fn audit_export(&self, operator: &Operator, ask: ExportAsk) -> Result<Value, Refusal> {
        let span = Span { tenant: Some(operator.tenant().clone()), since_ms: ask.since_ms, until_ms: ask.until_ms };
        if let Some(run) = ask.run {
            let scope = Scope::Tenant(operator.tenant().clone());
            let found = self.ledger().run(&scope, run).await.map_err(|error| refused(&error))?;
            let (row, _) = found.ok_or_else(|| Refusal::not_found("run"))?;
            let (record, step, _) = self.record_of(row, ask.step, EXPORT_BYTES).await?;
            return Ok(json!({"records": [record], "next_cursor": step.map(|_| 0), "next_step": step}));
        }
        let cursor = ask.cursor.unwrap_or(0);
        if cursor >= ALONE_FROM {
            return self.export_alone(span, cursor - ALONE_FROM).await;
        }
        if let Some(after) = ask.step {
            return self.export_rest(&span, cursor, after).await;
        }
        let page = Page { cursor: Some(cursor), limit: RECORDS_AT_ONCE };
        let runs = self.ledger().runs_in(span, page).await.map_err(|error| refused(&error))?;
        let (mut records, mut room) = (Vec::new(), EXPORT_BYTES);
        for (seq, row) in runs.items {
            let (record, step, bytes) = self.record_of(row, None, room).await?;
            records.push(record);
            if step.is_some() {
                // The rest of it comes first.
                return Ok(json!({"records": records, "next_cursor": seq - 1, "next_step": step}));
            }
            room = room.saturating_sub(bytes);
            if room == 0 {
                return Ok(json!({"records": records, "next_cursor": seq, "next_step": null}));
            }
        }
        let next = runs.next.unwrap_or(ALONE_FROM);
        Ok(json!({"records": records, "next_cursor": next, "next_step": null}))
    }

    /// The next part of a long run.
    async fn export_rest(&self, span: &Span, cursor: u64, after: u64) -> Result<Value, Refusal> {
        let page = Page { cursor: Some(cursor), limit: 1 };
        let runs = self.ledger().runs_in(span.clone(), page).await.map_err(|error| refused(&error))?;
        let Some((seq, row)) = runs.items.into_iter().next() else {
            return Ok(json!({"records": [], "next_cursor": ALONE_FROM, "next_step": null}));
        };
        let (record, step, _) = self.record_of(row, Some(after), EXPORT_BYTES).await?;
        let next = if step.is_some() { cursor } else { seq };
        Ok(json!({"records": [record], "next_cursor": next, "next_step": step}))
    }

    async fn export_alone(&self, span: Span, after: u64) -> Result<Value, Refusal> {
        let page = Page { cursor: Some(after), limit: RECORDS_AT_ONCE };
        let found = self.ledger().calls_alone(span, page).await.map_err(|error| refused(&error))?;
        let hidden = |tool: &ToolName| self.sensitive_of(tool);
        let records: Vec<Value> = found.items.iter().map(|step| run_record::of_call(step, &hidden)).collect();
        Ok(json!({"records": records, "next_cursor": found.next.map(|next| next + ALONE_FROM), "next_step": null}))
    }

    /// A run's record, or the part of it after a step, of about so many bytes; after which step the next part begins; and how
    /// many bytes it is.
    async fn record_of(
        &self,
        row: crate::ledger::RunRow,
        after: Option<u64>,
        room: usize,
    ) -> Result<(Value, Option<u64>, usize), Refusal> {
        let (mut steps, mut bytes) = (Vec::new(), RECORD_BYTES);
        let mut next = after;
        loop {
            let page = Page { cursor: next, limit: STEPS_AT_ONCE };
            let found = self.ledger().steps_of_run(row.clone(), page).await.map_err(|error| refused(&error))?;
            bytes += found.items.iter().map(run_record::weight).sum::<usize>();
            steps.extend(found.items);
            next = found.next;
            if next.is_none() || bytes >= room || steps.len() >= STEPS_MAX as usize {
                break;
            }
        }
        let hidden = |tool: &ToolName| self.sensitive_of(tool);
        let record = run_record::of_run(&row, (after.is_none(), next.is_none()), &steps, &hidden);
        Ok((record, next, bytes))
    }

    /// What the schemas of a tool mark as sensitive; nothing where it is not installed any more.
    fn sensitive_of(&self, tool: &ToolName) -> Option<Vec<String>> {
        let tool = self.catalog().current().tool(tool)?;
        Some(tool.sensitive().to_vec())
    }

    /// The key by which everybody can verify checkpoints.
    ///
    /// # Errors
    /// None: the form is that of other questions.
    pub fn audit_key(&self, _operator: &Operator) -> Result<Value, Refusal> {
        let key = self.ledger().note_key();
        Ok(json!({"key": key.to_string(), "origin": key.name()}))
    }

    /// Checkpoints, the latest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_checkpoints(&self, _operator: &Operator, cursor: Option<u64>) -> Result<Value, Refusal> {
        let page = Page { cursor, limit: ENTRIES_AT_ONCE };
        let found = self.ledger().checkpoints(page).await.map_err(|error| refused(&error))?;
        let lines: Vec<Value> =
            found.items.iter().map(|kept| json!({"size": kept.size, "note": &*kept.note})).collect();
        Ok(json!({"checkpoints": lines, "unvouched": self.ledger().unvouched(), "next_cursor": found.next}))
    }

    /// Make a checkpoint now, and send it out.
    ///
    /// # Errors
    /// `halted`: the audit does not verify.
    pub async fn audit_checkpoint(&self, _operator: &Operator) -> Result<Value, Refusal> {
        let made = self.ledger().checkpoint().await.map_err(|error| refused(&error))?;
        let problems = match &made {
            Some(note) => self.0.witnesses.keep(note).await,
            None => Vec::new(),
        };
        let latest = self.ledger().checkpoints(Page { cursor: None, limit: 1 }).await.map_err(|e| refused(&e))?;
        let latest = latest.items.first().map(|kept| json!({"size": kept.size, "note": &*kept.note}));
        Ok(json!({"made": made.is_some(), "checkpoint": latest, "problems": problems}))
    }

    /// How the audit is, for `health.get`.
    pub(super) fn audit_health(&self) -> Value {
        let ledger = self.ledger();
        let state = if ledger.audit_broken().is_some() {
            "broken"
        } else if matches!(ledger.health(), LedgerHealth::Poisoned(_)) {
            "stopped"
        } else if ledger.is_halted() {
            "incomplete"
        } else {
            "well"
        };
        json!({"state": state, "effects": !ledger.is_halted(), "reason": ledger.why_halted().as_deref(),
            "unvouched": ledger.unvouched()})
    }

    /// Make a checkpoint, if there is anything new, and send it out.
    pub(super) async fn vouch(&self) -> bool {
        match self.ledger().checkpoint().await {
            Ok(None) => true,
            Ok(Some(note)) => {
                let problems = self.0.witnesses.keep(&note).await;
                for problem in &problems {
                    tracing::error!(problem, "a checkpoint of the audit was not sent out");
                }
                problems.is_empty()
            }
            Err(error) => {
                tracing::error!(%error, "no checkpoint of the audit could be made");
                true
            }
        }
    }

    /// Look after the audit as long as the daemon runs.
    pub(super) fn watch_audit(&self) {
        let host = self.clone();
        self.spawn(async move {
            let mut ticks = tokio::time::interval(WATCH_EVERY);
            let (mut told, mut sent) = (None, true);
            let mut since = host.ambient().stopwatch();
            while !host.admission().draining() {
                ticks.tick().await;
                host.tell_halted(&mut told).await;
                let config = host.0.witnesses.config();
                let due = match host.ledger().unvouched() {
                    0 => false,
                    new => new >= config.every_entries || since.elapsed() >= config.every,
                };
                if due && host.ledger().audit_broken().is_none() && !host.admission().draining() {
                    since = host.ambient().stopwatch();
                    let out = host.vouch().await;
                    if sent && !out {
                        host.tell_audit_failed(&json!({"what": "checkpoint_not_sent"}));
                    }
                    sent = out;
                }
            }
        });
    }

    /// Tell everybody when the audit cannot be relied on any more, once for each reason.
    async fn tell_halted(&self, told: &mut Option<Arc<str>>) {
        let why = self.ledger().why_halted();
        if let Some(why) = &why
            && told.as_ref() != Some(why)
        {
            tracing::error!(%why, "nothing with effects runs");
            self.tell_audit_failed(&json!({"what": "halted", "why": &**why}));
        }
        *told = why;
        if let Err(error) = self.ledger().tell_lost().await {
            tracing::error!(%error, "that audit entries are missing could not be put on record yet");
        }
    }

    fn tell_audit_failed(&self, facts: &Value) {
        for tenant in self.tenants() {
            self.0.notify.event(Event::AuditFailed, &tenant, facts.clone());
        }
    }
}

/// An entry as somebody may see it: of others' there is the digest alone.
fn entry_shown(viewer: &Viewer, entry: &AuditEntry) -> Value {
    if viewer.sees(entry) {
        return proof::entry(entry);
    }
    json!({"seq": entry.seq, "digest": entry.digest, "withheld": true})
}

fn not_a_checkpoint(why: &str) -> Refusal {
    Refusal::new(Code::InvalidInput, why.to_owned()).field(
        "/checkpoint",
        "is no checkpoint of this daemon's audit",
        "a checkpoint as it was kept, with its signature",
    )
}

/// Whether a text of kept checkpoints may be looked at.
///
/// # Errors
/// `invalid_input`: it is too long.
pub(crate) fn check_kept(text: &str) -> Result<(), Refusal> {
    if text.len() > BROUGHT_MAX_BYTES {
        return Err(not_a_checkpoint("there are more than 1 MiB of checkpoints; bring the latest"));
    }
    Ok(())
}
