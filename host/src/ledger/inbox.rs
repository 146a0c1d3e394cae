//! The readers' side of approvals: what waits for a person, and what people said.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};
use toolkeep_core::id::{ApprovalId, CallId, PlanId, TenantName, UserName};
use toolkeep_core::principal::Principal;

use super::Ledger;
use super::approval::ApprovalState;
use super::column::{Reading, id_bytes};
use super::failure::LedgerError;
use super::intact::intact;
use super::read::bounds;
use super::resolve::Via;
use super::rows::{ApprovalFilter, ApprovalRow, Page, Paged, Scope, StoredApproval, Vote};
use super::statement::{Failed, page, row, rows};

fn approval_of(row: &Row<'_>) -> Result<StoredApproval, LedgerError> {
    let reading = Reading::new(row, "approvals");
    let barred = match reading.text_or_null("barred")? {
        Some(_) => Some(reading.name("barred")?),
        None => None,
    };
    Ok(StoredApproval {
        row: ApprovalRow {
            id: ApprovalId::new(reading.uuid("id")?),
            approvers: u8::try_from(reading.number("approvers")?).unwrap_or(u8::MAX),
            barred,
            reason: Arc::from(reading.text("reason")?),
            expires_at_ms: reading.number("expires_ms")?,
        },
        state: reading.word("state", ApprovalState::from_word)?,
        plan: PlanId::new(reading.uuid("plan")?),
        seal: reading.digest("seal")?,
        call: CallId::new(reading.uuid("call")?),
        requester: Principal {
            tenant: reading.name("tenant")?,
            user: reading.name("user")?,
            agent: reading.name("agent")?,
        },
        tool: reading.name("tool")?,
        made_ms: reading.number("made_ms")?,
        votes: Vec::new(),
    })
}

fn vote_of(row: &Row<'_>) -> Result<Vote, LedgerError> {
    let reading = Reading::new(row, "approval_votes");
    Ok(Vote {
        approver: reading.name("approver")?,
        approved: reading.number("approved")? == 1,
        reason: Arc::from(reading.text("reason")?),
        at_ms: reading.number("at_ms")?,
        via: Via::of(&reading)?,
    })
}

/// One approval with its votes.
pub(super) fn approval_row(conn: &Connection, scope: &Scope, id: ApprovalId) -> Result<Option<StoredApproval>, Failed> {
    let sql = "SELECT * FROM approvals WHERE id = ?1";
    let found = row(conn, sql, params![id_bytes(id.uuid())], |row| {
        intact(row, "approvals")?;
        approval_of(row)
    })?;
    let visible = found.filter(|approval| scope.sees(&approval.requester.tenant));
    visible.map(|approval| with_votes(conn, approval)).transpose()
}

fn with_votes(conn: &Connection, mut approval: StoredApproval) -> Result<StoredApproval, Failed> {
    let sql = "SELECT approver, approved, reason, at_ms, via FROM approval_votes WHERE approval = ?1 ORDER BY at_ms, approver";
    approval.votes = rows(conn, sql, params![id_bytes(approval.row.id.uuid())], vote_of)?;
    Ok(approval)
}

impl Ledger {
    /// One approval with its votes.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn approval(&self, scope: &Scope, id: ApprovalId) -> Result<Option<StoredApproval>, LedgerError> {
        self.settled().await?;
        let scope = scope.clone();
        self.read(move |conn| approval_row(conn, &scope, id)).await
    }

    /// When somebody agreed to plans of a tenant by one way, the latest first, at most so many.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn agreements(
        &self,
        tenant: &TenantName,
        (approver, via): (&UserName, Via),
        most: u32,
    ) -> Result<Vec<u64>, LedgerError> {
        self.settled().await?;
        let (tenant, approver) = (tenant.clone(), approver.clone());
        self.read(move |conn| {
            let sql = "SELECT v.at_ms FROM approval_votes v JOIN approvals a ON a.id = v.approval \
                       WHERE v.approver = ?1 AND v.approved = 1 AND a.tenant = ?2 AND v.via IS ?4 \
                       ORDER BY v.at_ms DESC LIMIT ?3";
            rows(conn, sql, params![approver.as_str(), tenant.as_str(), i64::from(most), via.column()], |row| {
                Reading::new(row, "approval_votes").number("at_ms")
            })
        })
        .await
    }

    /// Approvals, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn approvals(
        &self,
        scope: &Scope,
        filter: ApprovalFilter,
        wanted: Page,
    ) -> Result<Paged<StoredApproval>, LedgerError> {
        self.settled().await?;
        let (from, ask, limit) = bounds(wanted, i64::MAX);
        let tenant = match scope {
            Scope::Tenant(tenant) => Some(tenant.clone()),
            Scope::Operator => None,
        };
        self.read(move |conn| {
            let tenant = tenant.as_ref().map(TenantName::as_str);
            let Paged { items, next } = if let Some(state) = filter.state {
                let sql = "SELECT * FROM approvals WHERE state = ?4 AND seq < ?1 AND (?3 IS NULL OR tenant = ?3) \
                           ORDER BY seq DESC LIMIT ?2";
                page(conn, sql, params![from, ask, tenant, state.word()], limit, approval_of)?
            } else {
                let sql = "SELECT * FROM approvals WHERE seq < ?1 AND (?3 IS NULL OR tenant = ?3) \
                           ORDER BY seq DESC LIMIT ?2";
                page(conn, sql, params![from, ask, tenant], limit, approval_of)?
            };
            let items = items.into_iter().map(|approval| with_votes(conn, approval)).collect::<Result<_, Failed>>()?;
            Ok(Paged { items, next })
        })
        .await
    }
}
