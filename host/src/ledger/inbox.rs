//! The readers' side of approvals: what waits for a person, and what people said.

use std::sync::Arc;

use sqlx::query;
use sqlx::sqlite::SqliteRow;
use toolkeep_core::id::{ApprovalId, CallId, PlanId, TenantName};
use toolkeep_core::principal::Principal;

use super::Ledger;
use super::approval::ApprovalState;
use super::column::{Reading, id_bytes};
use super::failure::LedgerError;
use super::read::{bounds, paged};
use super::rows::{ApprovalFilter, ApprovalRow, Page, Paged, Scope, StoredApproval, Vote};

fn approval_of(row: &SqliteRow) -> Result<StoredApproval, LedgerError> {
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

fn vote_of(row: &SqliteRow) -> Result<Vote, LedgerError> {
    let reading = Reading::new(row, "approval_votes");
    Ok(Vote {
        approver: reading.name("approver")?,
        approved: reading.number("approved")? == 1,
        reason: Arc::from(reading.text("reason")?),
        at_ms: reading.number("at_ms")?,
    })
}

impl Ledger {
    /// One approval with its votes.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn approval(&self, scope: &Scope, id: ApprovalId) -> Result<Option<StoredApproval>, LedgerError> {
        self.settled().await?;
        self.approval_row(scope, id).await
    }

    pub(super) async fn approval_row(
        &self,
        scope: &Scope,
        id: ApprovalId,
    ) -> Result<Option<StoredApproval>, LedgerError> {
        let row = self.row(query("SELECT * FROM approvals WHERE id = $1").bind(id_bytes(id.uuid()))).await?;
        let Some(row) = row else { return Ok(None) };
        let approval = approval_of(&row)?;
        if !scope.sees(&approval.requester.tenant) {
            return Ok(None);
        }
        self.with_votes(approval).await.map(Some)
    }

    async fn with_votes(&self, mut approval: StoredApproval) -> Result<StoredApproval, LedgerError> {
        let sql =
            "SELECT approver, approved, reason, at_ms FROM approval_votes WHERE approval = $1 ORDER BY at_ms, approver";
        let votes = self.rows(query(sql).bind(id_bytes(approval.row.id.uuid()))).await?;
        approval.votes = votes.iter().map(vote_of).collect::<Result<_, _>>()?;
        Ok(approval)
    }

    /// Approvals, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn approvals(
        &self,
        scope: &Scope,
        filter: ApprovalFilter,
        page: Page,
    ) -> Result<Paged<StoredApproval>, LedgerError> {
        self.settled().await?;
        let (from, ask, limit) = bounds(page, i64::MAX);
        let tenant = match scope {
            Scope::Tenant(tenant) => Some(tenant),
            Scope::Operator => None,
        };
        let statement = match filter.state {
            Some(state) => query(
                "SELECT * FROM approvals WHERE state = $4 AND seq < $1 AND ($3 IS NULL OR tenant = $3) \
                 ORDER BY seq DESC LIMIT $2",
            )
            .bind(from)
            .bind(ask)
            .bind(tenant.map(TenantName::as_str))
            .bind(state.word()),
            None => query(
                "SELECT * FROM approvals WHERE seq < $1 AND ($3 IS NULL OR tenant = $3) ORDER BY seq DESC LIMIT $2",
            )
            .bind(from)
            .bind(ask)
            .bind(tenant.map(TenantName::as_str)),
        };
        let mut page = paged(&self.rows(statement).await?, limit, approval_of)?;
        let mut items = Vec::with_capacity(page.items.len());
        for approval in page.items {
            items.push(self.with_votes(approval).await?);
        }
        page.items = items;
        Ok(page)
    }
}
