//! What happened, as exports tell it: runs with their calls, in the order in which they began, a bounded part at a time.
//!
//! Works on any connection that reads, so that a copy of a ledger gives the same records as the daemon. What is put into a
//! record and what is hidden there is decided elsewhere; here is only what belongs together.

use std::sync::Arc;

use rusqlite::{Connection, params};
use toolkeep_core::audit::{AuditEntry, AuditKind};
use toolkeep_core::budget::Amounts;
use toolkeep_core::id::{ApprovalId, RunId, TenantName};

use super::Ledger;
use super::charges::{self, SUMS};
use super::column::{Reading, id_bytes, integer};
use super::failure::LedgerError;
use super::inbox::approval_row;
use super::read::{call_of, run_of};
use super::rows::{Page, Paged, RunRow, Scope, StoredApproval, StoredCall};
use super::sealing::Vault;
use super::statement::{Failed, page, row, rows};
use super::verify::entry_of;
use crate::vault::Part;

/// Calls without a run that one look passes over, at most: those of other tenants, and those with a run, are among them.
const LOOKED_AT: u64 = 20_000;
/// Audit entries that one look passes over, at most.
const ENTRIES_LOOKED_AT: u64 = 20_000;

/// A connection, and the keys by which what is sealed can be read.
pub(super) type Readable<'r> = (&'r Connection, &'r Vault);

/// Whose and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    /// Only this tenant's; everybody's if absent.
    pub tenant: Option<TenantName>,
    /// Not before this, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Before this.
    pub until_ms: Option<u64>,
}

impl Span {
    fn bounds(&self) -> (i64, i64) {
        (integer(self.since_ms.unwrap_or(0)), integer(self.until_ms.unwrap_or(u64::MAX)))
    }
}

/// A call with everything that belongs to it.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its place among all calls.
    pub seq: u64,
    /// The call.
    pub call: StoredCall,
    /// What the checks noted of it, JSON.
    pub notes: Option<Arc<str>>,
    /// The whole output, JSON, where it was too long for the reply.
    pub output: Option<Arc<str>>,
    /// Whether there is a recording of it.
    pub recorded: bool,
    /// What it was charged.
    pub charged: Amounts,
    /// What the run had used when it ended, reports of the caller included.
    pub used: Amounts,
    /// How its plan stands; nothing if it made none, or if that is not kept any more.
    pub plan_state: Option<Arc<str>>,
    /// Whom it waited for.
    pub approval: Option<StoredApproval>,
}

/// Which audit entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Of this kind.
    pub kind: Option<AuditKind>,
    /// Not before this, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Before this.
    pub until_ms: Option<u64>,
    /// Whose facts name this id.
    pub about: Option<Arc<str>>,
    /// Who asks; absent for those who see all.
    pub viewer: Option<Viewer>,
}

/// Who looks at entries, and which of them concern nobody but others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The tenant whose entries may be seen.
    pub tenant: TenantName,
    /// Whether those that are of no tenant may be seen, too.
    pub over_all: bool,
}

impl Viewer {
    /// Whether what an entry says may be seen.
    #[must_use]
    pub fn sees(&self, entry: &AuditEntry) -> bool {
        entry.tenant().map_or(self.over_all, |tenant| tenant == self.tenant.as_str())
    }
}

impl EntryFilter {
    /// Nothing is asked of entries that may not be seen: whether they are found would tell what they say. So they are there
    /// only where all are wanted, which the chain needs.
    fn wants(&self, entry: &AuditEntry) -> bool {
        let all = self.kind.is_none() && self.since_ms.is_none() && self.until_ms.is_none() && self.about.is_none();
        all || (self.matches(entry) && self.viewer.as_ref().is_none_or(|viewer| viewer.sees(entry)))
    }

    fn matches(&self, entry: &AuditEntry) -> bool {
        self.kind.is_none_or(|kind| kind == entry.kind)
            && self.since_ms.is_none_or(|since_ms| entry.at_ms >= since_ms)
            && self.until_ms.is_none_or(|until_ms| entry.at_ms < until_ms)
            && self.about.as_ref().is_none_or(|id| entry.body.contains(&format!("\"{id}\"")))
    }
}

/// A run with its place among all runs.
pub type Numbered = (u64, RunRow);

/// Runs, the oldest first; the cursor is the place of the last one seen.
pub(super) fn runs(conn: &Connection, span: &Span, wanted: Page) -> Result<Paged<Numbered>, Failed> {
    let (after, ask, limit) = super::read::bounds(wanted, 0);
    let (since, until) = span.bounds();
    let values = params![after, ask, since, until, span.tenant.as_ref().map(TenantName::as_str)];
    let sql = match span.tenant {
        Some(_) => {
            "SELECT * FROM runs WHERE tenant = ?5 AND seq > ?1 AND opened_ms >= ?3 AND opened_ms < ?4 \
             ORDER BY seq LIMIT ?2"
        }
        None => {
            "SELECT * FROM runs WHERE ?5 IS NULL AND seq > ?1 AND opened_ms >= ?3 AND opened_ms < ?4 \
             ORDER BY seq LIMIT ?2"
        }
    };
    page(conn, sql, values, limit, |row| Ok((Reading::new(row, "runs").number("seq")?, run_of(row)?)))
}

/// The calls of a run, in their order. A refused call of somebody else may have named it; it is no call of it.
pub(super) fn steps_of_run((conn, vault): Readable<'_>, run: &RunRow, wanted: Page) -> Result<Paged<Step>, Failed> {
    let (after, ask, limit) = super::read::bounds(wanted, 0);
    let sql = "SELECT * FROM calls WHERE run = ?1 AND seq > ?2 AND tenant = ?4 AND user = ?5 AND agent = ?6 \
               ORDER BY seq LIMIT ?3";
    let owner = &run.principal;
    let values =
        params![id_bytes(run.run.uuid()), after, ask, owner.tenant.as_str(), owner.user.as_str(), owner.agent.as_str()];
    let found =
        page(conn, sql, values, limit, |row| Ok((Reading::new(row, "calls").number("seq")?, call_of(row, vault)?)))?;
    let mut before = used_before(conn, run.run, found.items.first().map(|(seq, _)| *seq))?;
    let mut items = Vec::with_capacity(found.items.len());
    for (seq, call) in found.items {
        let mut step = step((conn, vault), seq, call)?;
        before = before.plus(&step.charged);
        step.used = before.plus(&reported(conn, run.run, step.call.row.ended_ms)?);
        items.push(step);
    }
    Ok(Paged { items, next: found.next })
}

/// What calls of the run before a place were charged.
fn used_before(conn: &Connection, run: RunId, seq: Option<u64>) -> Result<Amounts, Failed> {
    let Some(seq) = seq else { return Ok(Amounts::default()) };
    let sql = format!(
        "SELECT {SUMS} FROM charges WHERE run = ?1 AND call IN (SELECT id FROM calls WHERE run = ?1 AND seq < ?2)"
    );
    Ok(row(conn, &sql, params![id_bytes(run.uuid()), integer(seq)], charges::sums_of)?.unwrap_or_default())
}

/// What the caller reported by then.
fn reported(conn: &Connection, run: RunId, by_ms: u64) -> Result<Amounts, Failed> {
    let sql = format!("SELECT {SUMS} FROM charges WHERE run = ?1 AND call IS NULL AND at_ms <= ?2");
    Ok(row(conn, &sql, params![id_bytes(run.uuid()), integer(by_ms)], charges::sums_of)?.unwrap_or_default())
}

/// What belongs to a call.
fn step((conn, vault): Readable<'_>, seq: u64, call: StoredCall) -> Result<Step, Failed> {
    let text = |sql: &str, column: &'static str| -> Result<Option<Arc<str>>, Failed> {
        let found = row(conn, sql, params![integer(seq)], |row| {
            Ok(Reading::new(row, "calls").text_or_null(column)?.map(Arc::from))
        });
        Ok(found?.flatten())
    };
    let id = id_bytes(call.row.call.uuid());
    let sql = format!("SELECT {SUMS} FROM charges WHERE call = ?1");
    let charged = row(conn, &sql, params![id], charges::sums_of)?.unwrap_or_default();
    let approval = match call.plan {
        None => None,
        Some(plan) => {
            let sql = "SELECT id FROM approvals WHERE plan = ?1";
            let found = row(conn, sql, params![id_bytes(plan.uuid())], |row| {
                Reading::new(row, "approvals").uuid("id").map(ApprovalId::new)
            })?;
            found.map(|id| approval_row(conn, &Scope::Operator, id)).transpose()?.flatten()
        }
    };
    Ok(Step {
        notes: text("SELECT body FROM call_notes WHERE call_seq = ?1", "body")?,
        output: match text("SELECT body FROM call_outputs WHERE call_seq = ?1", "body")? {
            Some(stored) => vault.read(Part::Output, &stored)?.clear(),
            None => None,
        },
        recorded: text("SELECT '' AS body FROM recordings WHERE call_seq = ?1", "body")?.is_some(),
        plan_state: text("SELECT state FROM plans WHERE seq = ?1", "state")?,
        charged,
        used: Amounts::default(),
        approval,
        seq,
        call,
    })
}

/// Calls without a run, the oldest first; the cursor is the last place that was looked at, so that a page may be empty and
/// not the last.
pub(super) fn alone((conn, vault): Readable<'_>, span: &Span, wanted: Page) -> Result<Paged<Step>, Failed> {
    let (after, _, limit) = super::read::bounds(wanted, 0);
    let (since, until) = span.bounds();
    let end = after.saturating_add(integer(LOOKED_AT));
    let sql = "SELECT * FROM calls WHERE seq > ?1 AND seq <= ?2 AND run IS NULL AND started_ms >= ?3 AND started_ms < ?4 \
               AND (?5 IS NULL OR tenant = ?5) ORDER BY seq LIMIT ?6";
    let values = params![after, end, since, until, span.tenant.as_ref().map(TenantName::as_str), integer(limit as u64)];
    let found = rows(conn, sql, values, |row| Ok((Reading::new(row, "calls").number("seq")?, call_of(row, vault)?)))?;
    let last =
        row(conn, "SELECT max(seq) AS seq FROM calls", &[], |row| Reading::new(row, "calls").number_or_null("seq"));
    let last = last?.flatten().unwrap_or(0);
    let reached = if found.len() == limit { found.last().map_or(0, |(seq, _)| *seq) } else { end.unsigned_abs() };
    let items =
        found.into_iter().map(|(seq, call)| step((conn, vault), seq, call)).collect::<Result<Vec<_>, Failed>>()?;
    Ok(Paged { items, next: (reached < last).then_some(reached) })
}

/// Audit entries that a filter wants, the oldest first; the cursor is the last entry that was looked at, so that a page may
/// be empty and not the last.
pub(super) fn entries(conn: &Connection, filter: &EntryFilter, wanted: Page) -> Result<Paged<AuditEntry>, Failed> {
    let (after, _, limit) = super::read::bounds(wanted, 0);
    let sql = "SELECT seq, kind, at_ms, body, previous, digest FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![after, integer(ENTRIES_LOOKED_AT + 1)])?;
    let (mut items, mut looked, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        if items.len() == limit || looked == ENTRIES_LOOKED_AT {
            return Ok(Paged { items, next: last });
        }
        let entry = entry_of(row)?;
        (looked, last) = (looked + 1, Some(entry.seq));
        if filter.wants(&entry) {
            items.push(entry);
        }
    }
    Ok(Paged { items, next: None })
}

impl Ledger {
    /// Runs, the oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn runs_in(&self, span: Span, wanted: Page) -> Result<Paged<Numbered>, LedgerError> {
        self.caught_up().await?;
        self.read(move |conn| runs(conn, &span, wanted)).await
    }

    /// The calls of a run with everything that belongs to them, in their order.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn steps_of_run(&self, run: RunRow, wanted: Page) -> Result<Paged<Step>, LedgerError> {
        self.caught_up().await?;
        let vault = self.vault();
        self.read(move |conn| steps_of_run((conn, &vault), &run, wanted)).await
    }

    /// Calls without a run, the oldest first. A page may be empty and not the last.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn calls_alone(&self, span: Span, wanted: Page) -> Result<Paged<Step>, LedgerError> {
        self.caught_up().await?;
        let vault = self.vault();
        self.read(move |conn| alone((conn, &vault), &span, wanted)).await
    }

    /// Audit entries that a filter wants, the oldest first. A page may be empty and not the last.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_history(&self, filter: EntryFilter, wanted: Page) -> Result<Paged<AuditEntry>, LedgerError> {
        self.caught_up().await?;
        self.read(move |conn| entries(conn, &filter, wanted)).await
    }
}
