//! Transactions: what is handed to the ledger about them, and what is read back.
//!
//! The ledger keeps a layer as a text with its digest and looks into neither; the host makes and verifies both. The
//! writer's side is in [`super::layers`].

use std::fmt;
use std::sync::Arc;

use rusqlite::{Row, params};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, PlanId, RunId, ToolName, TransactionId};
use toolkeep_core::principal::{Origin, Principal};

use super::Ledger;
use super::column::{Reading, id_bytes};
use super::failure::{LedgerError, TransactionRefused};
use super::queue::{Done, Work};
use super::rows::{BlobSet, CallRow, Page, Paged, Scope};
use super::statement::{page, row};

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionState {
    /// It takes calls.
    Open,
    /// Its plan is decided about, held or committed; it takes no calls.
    Sealed,
    /// Its effects were applied.
    Committed,
    /// Its effects were thrown away.
    Discarded,
    /// Its commit could be neither finished nor taken back; the reply of its call lists what.
    Halted,
}

impl TransactionState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Open, Self::Sealed, Self::Committed, Self::Discarded, Self::Halted];

    /// The word for it, in rows and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Committed => "committed",
            Self::Discarded => "discarded",
            Self::Halted => "halted",
        }
    }

    /// The state that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

impl fmt::Display for TransactionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A transaction that begins.
#[derive(Debug, Clone)]
pub struct TransactionRow {
    /// Its id.
    pub id: TransactionId,
    /// The only one who may use it.
    pub principal: Principal,
    /// By which credential, and through which sessions, it was begun.
    pub origin: Origin,
    /// The run that its commit belongs to.
    pub run: Option<RunId>,
    /// The tools that it may call; nothing for all.
    pub tools: Option<Vec<ToolName>>,
    /// When it began.
    pub opened_ms: u64,
    /// When it is rolled back by itself.
    pub expires_at_ms: u64,
}

/// What a transaction holds, as the host writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerText {
    /// JSON of the host.
    pub text: Arc<str>,
    /// Names the text.
    pub digest: Digest,
    /// Calls in it.
    pub calls: u32,
    /// Bytes that its effects write.
    pub bytes: u64,
}

/// One call that ended well in a transaction: its row and the layer after it, written together or not at all.
#[derive(Debug, Clone)]
pub struct StagedCall {
    /// The transaction.
    pub transaction: TransactionId,
    /// The layer that the call started over: it must still be the transaction's.
    pub parent: Digest,
    /// The layer after it.
    pub layer: LayerText,
    /// Contents that the layer writes and its parent did not.
    pub blobs: BlobSet,
    /// Contents that the parent wrote and the layer does not.
    pub released: Vec<Digest>,
    /// The call; its outcome is `staged`.
    pub call: CallRow,
}

/// A transaction read back.
#[derive(Debug, Clone)]
pub struct StoredTransaction {
    /// How it began.
    pub row: TransactionRow,
    /// Where it stands.
    pub state: TransactionState,
    /// What it holds. Not verified: the host does.
    pub layer: LayerText,
    /// The call that commits it.
    pub call: Option<CallId>,
    /// The plan that it is sealed as.
    pub plan: Option<PlanId>,
    /// When it ended.
    pub settled_ms: Option<u64>,
}

/// What is written about transactions.
#[derive(Debug)]
pub(super) enum TransactionWork {
    Open { row: TransactionRow, empty: LayerText, most: u32 },
    Stage(StagedCall),
    End { id: TransactionId, state: TransactionState, call: Option<CallRow> },
}

impl Ledger {
    /// Begin a transaction over the empty layer. Durable when it returns. A principal has at most `most` that have not ended.
    ///
    /// # Errors
    /// [`TransactionRefused::TooMany`], or the ledger failed.
    pub async fn open_transaction(
        &self,
        row: TransactionRow,
        empty: LayerText,
        most: u32,
    ) -> Result<(), TransactionRefused> {
        // A commit that was answered has freed its place.
        self.settled().await?;
        self.transact(TransactionWork::Open { row, empty, most }).await
    }

    /// Keep a call and the layer after it. Durable when it returns; its key is let go either way.
    ///
    /// # Errors
    /// The transaction is not open any more, another call was faster, or the ledger failed: nothing was kept.
    pub async fn stage(&self, staged: StagedCall) -> Result<(), TransactionRefused> {
        let call = staged.call.call;
        let done = self.transact(TransactionWork::Stage(staged)).await;
        self.shared.keys.let_go(call);
        done
    }

    /// End an open transaction that has no plan: committed if there was nothing to commit, discarded otherwise. `call` is
    /// the call that committed it. Durable when it returns; releases what the transaction kept.
    ///
    /// # Errors
    /// It is not open any more, or the ledger failed.
    pub async fn end_transaction(
        &self,
        id: TransactionId,
        state: TransactionState,
        call: Option<CallRow>,
    ) -> Result<(), TransactionRefused> {
        let named = call.as_ref().map(|row| row.call);
        let done = self.transact(TransactionWork::End { id, state, call }).await;
        if let Some(call) = named {
            self.shared.keys.let_go(call);
        }
        done
    }

    async fn transact(&self, work: TransactionWork) -> Result<(), TransactionRefused> {
        match self.ask(Work::Transaction(Box::new(work)), true).await? {
            Done::Transacted(result) => result,
            Done::Refused(error) => Err(error.into()),
            _ => Err(LedgerError::Closed.into()),
        }
    }

    /// A transaction.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn transaction(
        &self,
        scope: &Scope,
        id: TransactionId,
    ) -> Result<Option<StoredTransaction>, LedgerError> {
        self.settled().await?;
        let scope = scope.clone();
        let sql = "SELECT * FROM transactions WHERE id = ?1";
        let found = self.read(move |conn| row(conn, sql, params![id_bytes(id.uuid())], stored_of)).await?;
        Ok(found.filter(|stored| scope.sees(&stored.row.principal.tenant)))
    }

    /// Transactions, newest first: those of `owner`, or all of the scope.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn transactions(
        &self,
        scope: &Scope,
        owner: Option<&Principal>,
        wanted: Page,
    ) -> Result<Paged<StoredTransaction>, LedgerError> {
        self.settled().await?;
        let (from, ask, limit) = super::read::bounds(wanted, i64::MAX);
        let tenant = match scope {
            Scope::Tenant(tenant) => Some(tenant.as_str().to_owned()),
            Scope::Operator => None,
        };
        let owner = owner.cloned();
        let sql = "SELECT * FROM transactions WHERE seq < ?1 AND (?3 IS NULL OR tenant = ?3) \
                   AND (?4 IS NULL OR (tenant = ?4 AND user = ?5 AND agent = ?6)) ORDER BY seq DESC LIMIT ?2";
        self.read(move |conn| {
            let owner = owner.as_ref();
            let user = owner.map(|owner| owner.user.as_str());
            let (of, agent) = (owner.map(|o| o.tenant.as_str()), owner.map(|o| o.agent.as_str()));
            page(conn, sql, params![from, ask, tenant, of, user, agent], limit, stored_of)
        })
        .await
    }
}

fn stored_of(row: &Row<'_>) -> Result<StoredTransaction, LedgerError> {
    let reading = Reading::new(row, "transactions");
    let tools = reading.text_or_null("tools")?.map(serde_json::from_str).transpose();
    let tools = tools.map_err(|_| LedgerError::Damaged("a transaction has no valid `tools`".into()))?;
    Ok(StoredTransaction {
        row: TransactionRow {
            id: TransactionId::new(reading.uuid("id")?),
            principal: Principal {
                tenant: reading.name("tenant")?,
                user: reading.name("user")?,
                agent: reading.name("agent")?,
            },
            origin: Origin { credential: reading.name("credential")?, session: reading.path("session")? },
            run: reading.uuid_or_null("run")?.map(RunId::new),
            tools,
            opened_ms: reading.number("opened_ms")?,
            expires_at_ms: reading.number("expires_ms")?,
        },
        state: reading.word("state", TransactionState::from_word)?,
        layer: LayerText {
            text: Arc::from(reading.text("layer")?),
            digest: reading.digest("digest")?,
            calls: u32::try_from(reading.number("calls")?).unwrap_or(u32::MAX),
            bytes: reading.number("bytes")?,
        },
        call: reading.uuid_or_null("call")?.map(CallId::new),
        plan: reading.uuid_or_null("plan")?.map(PlanId::new),
        settled_ms: reading.number_or_null("settled_ms")?,
    })
}
