//! Transactions: beginning, looking at, committing and rolling back several calls as one (R08).
//!
//! The commit is a call of the tool [`TRANSACTION_TOOL`] with one plan, the union of what the calls staged. The plan is
//! kept and the transaction sealed in one write; from there on it goes the way of every stored plan (decided once, held or
//! settled), and the transaction ends as its plan does. So a retry of a commit finds what became of it, whatever
//! stopped the first one.

use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::call::{CallRequest, Mode, Outcome, Status};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, PlanId, RunId, ToolName, TransactionId};
use toolkeep_core::json;
use toolkeep_core::limit::{
    EFFECTS_SHOWN, KEY_MAX_BYTES, TRANSACTION_TOOLS_MAX, TRANSACTION_TTL_DEFAULT_MS, TRANSACTION_TTL_MAX_MS,
    TRANSACTIONS_OPEN_MAX,
};
use toolkeep_core::plan::{Plan, SealBinding, Totals};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::taint::Taint;

use super::staging::{transaction_refusal, view};
use super::{Host, PlanName};
use crate::admit::{self, Key};
use crate::approve::{self, Consent};
use crate::authenticate::{Caller, Operator};
use crate::budget::run::no_open_run;
use crate::ledger::{
    BlobSet, CallKey, Discard, Durability, KeyClaim, LayerText, LedgerError, Page, PlanState, Proposal, Scope,
    StoredTransaction, TransactionRow, TransactionState,
};
use crate::record::{Answer, Ending, Entry};
use crate::seal::nonce;
use crate::trace::Context;
use crate::transaction::{Layer, TRANSACTION_TOOL, TransactionInput, Turn};

/// How long a sealed transaction stays committable at least, in milliseconds: 15 minutes, as reversals do.
const COMMIT_TTL_MS: u64 = 900_000;

/// How to begin.
#[derive(Debug, Clone, Default)]
pub struct BeginTransaction {
    /// The run that the commit belongs to.
    pub run: Option<RunId>,
    /// How long it stays open, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// The only tools that it may call.
    pub tools: Option<Vec<ToolName>>,
}

/// How to commit.
#[derive(Debug, Clone)]
pub struct CommitTransaction {
    /// What to commit.
    pub transaction: TransactionId,
    /// Only if the plan has exactly this digest.
    pub expect_plan: Option<Digest>,
    /// Names the call for retries.
    pub key: Option<String>,
}

impl Host {
    /// Begin a transaction.
    ///
    /// # Errors
    /// `invalid_input`, `not_found`: the run is not an open one of the caller's. `overloaded`: too many are open.
    pub async fn begin_transaction(&self, caller: &Caller, begin: BeginTransaction) -> Result<Value, Refusal> {
        let _open = self.accepting()?;
        self.check_begin(caller, &begin).await?;
        let now_ms = self.ambient().now_ms();
        let row = TransactionRow {
            id: TransactionId::new(self.ambient().uuid_v7()),
            principal: caller.principal().clone(),
            origin: caller.origin().clone(),
            run: begin.run,
            tools: begin.tools,
            opened_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(begin.ttl_ms.unwrap_or(TRANSACTION_TTL_DEFAULT_MS)),
        };
        let told = json!({"transaction": row.id, "expires_at_ms": row.expires_at_ms});
        let (text, digest) = Layer::default().encode()?;
        let empty = LayerText { text: text.into(), digest, calls: 0, bytes: 0 };
        let opened = self.ledger().open_transaction(row, empty, TRANSACTIONS_OPEN_MAX).await;
        opened.map_err(|error| transaction_refusal(&error))?;
        Ok(told)
    }

    async fn check_begin(&self, caller: &Caller, begin: &BeginTransaction) -> Result<(), Refusal> {
        let mut refusal = Refusal::new(Code::InvalidInput, "a parameter of the transaction is wrong");
        if begin.ttl_ms.is_some_and(|ttl| !(1..=TRANSACTION_TTL_MAX_MS).contains(&ttl)) {
            refusal = refusal.field("/ttl_ms", "is 0 or too long", format!("1 to {TRANSACTION_TTL_MAX_MS}"));
        }
        if begin.tools.as_ref().is_some_and(|tools| tools.len() > TRANSACTION_TOOLS_MAX) {
            refusal = refusal.field("/tools", "has too many names", format!("at most {TRANSACTION_TOOLS_MAX}"));
        }
        let catalog = self.catalog().current();
        for (at, tool) in begin.tools.iter().flatten().take(TRANSACTION_TOOLS_MAX).enumerate() {
            if catalog.tool(tool).is_none_or(|tool| !self.offers(&tool, caller)) {
                refusal = refusal.field(format!("/tools/{at}"), "names no tool", "a name that `tools.list` gives");
            }
        }
        if !refusal.fields.is_empty() {
            return Err(refusal);
        }
        let Some(run) = begin.run else { return Ok(()) };
        let found = self.budgets().run(caller, run).await.map_err(|_| no_open_run())?;
        if found.is_open() { Ok(()) } else { Err(no_open_run()) }
    }

    /// A transaction of the caller's own, with its calls and the first of its effects.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn transaction(&self, caller: &Caller, id: TransactionId) -> Result<Value, Refusal> {
        let stored = self.own_transaction(caller, id).await?;
        let layer = Layer::decode(&stored.layer.text, stored.layer.digest)?;
        let mut value = line(&stored);
        if let Value::Object(members) = &mut value {
            let shown: Vec<_> = layer.effects.iter().take(EFFECTS_SHOWN).collect();
            members.insert("steps".to_owned(), json!(layer.steps));
            members.insert("totals".to_owned(), json!(Totals::of(&layer.effects)));
            members.insert("effects".to_owned(), json!(shown));
            members.insert("reads".to_owned(), json!(layer.read_set.len()));
            members.insert("tools".to_owned(), json!(stored.row.tools));
        }
        Ok(value)
    }

    /// The caller's own transactions, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn transactions(&self, caller: &Caller, cursor: Option<u64>) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let page = Page { cursor, ..Page::default() };
        let found = self.ledger().transactions(&scope, Some(caller.principal()), page).await;
        let found = found.map_err(|e| e.refusal())?;
        let own = |stored: &&StoredTransaction| caller.owns(&stored.row.principal, &stored.row.origin);
        let lines: Vec<Value> = found.items.iter().filter(own).map(line).collect();
        Ok(json!({"transactions": lines, "next_cursor": found.next}))
    }

    /// All transactions of the operator's tenant, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn all_transactions(&self, operator: &Operator, cursor: Option<u64>) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let page = Page { cursor, ..Page::default() };
        let found = self.ledger().transactions(&scope, None, page).await.map_err(|e| e.refusal())?;
        let lines: Vec<Value> = found.items.iter().map(line).collect();
        Ok(json!({"transactions": lines, "next_cursor": found.next}))
    }

    /// Drop what the calls of a transaction staged. A second time is as good as the first.
    ///
    /// # Errors
    /// `not_found`; `denied`: it was committed. `in_flight`: a call of it runs.
    pub async fn rollback_transaction(&self, caller: &Caller, id: TransactionId) -> Result<Value, Refusal> {
        let _open = self.accepting()?;
        let _turn = self.0.turns.take(caller.principal(), id).await?;
        let stored = self.own_transaction(caller, id).await?;
        match (stored.state, stored.plan) {
            (TransactionState::Open, _) => {
                let ended = self.ledger().end_transaction(id, TransactionState::Discarded, None).await;
                ended.map_err(|error| transaction_refusal(&error))?;
            }
            (TransactionState::Sealed, Some(plan)) => {
                self.discard_plan(caller, plan).await?;
            }
            (TransactionState::Discarded, _) => {}
            (state, _) => {
                return Err(Refusal::new(Code::Denied, format!("the transaction is {state}"))
                    .hint("undo the call that committed it with `undo.propose`"));
            }
        }
        Ok(json!({"transaction": id, "state": TransactionState::Discarded.word()}))
    }

    /// What a commit would do now, as a plan to look at. It changes neither the transaction nor the world.
    ///
    /// # Errors
    /// `not_found`, `in_flight`, or the ledger fails.
    pub async fn preview_transaction(&self, caller: &Caller, id: TransactionId) -> Result<Answer, Refusal> {
        let _open = self.accepting()?;
        let _turn = self.0.turns.take(caller.principal(), id).await?;
        let stored = self.open_transaction(caller, id).await?;
        let layer = Layer::decode(&stored.layer.text, stored.layer.digest)?;
        let (entry, _) = self.transaction_entry(caller, &stored, Mode::Preview)?;
        let shown = view(&stored, &layer, stored.layer.digest);
        if layer.effects.is_empty() {
            let ending = Ending { transaction: Some(shown), ..Ending::default() };
            return Ok(self.record(entry, Status::Ok, Outcome::None, ending));
        }
        let blobs = self.0.blobs.pin(&layer.contents()).await.map_err(|error| {
            tracing::error!(%error, "what a transaction staged cannot be found");
            Refusal::new(Code::Internal, "what the transaction staged cannot be read")
        })?;
        let layer = self.exposed(layer).await?;
        let (plan, witnesses) = self.seal_transaction(&stored, layer, entry.call())?;
        let ending = Ending { transaction: Some(shown), ..Ending::default() }.plan(&plan);
        let row = entry.close(Status::Ok, Outcome::Previewed, ending, self.ambient().now_ms());
        let answer = Answer::of_row(&row);
        let plan = Arc::new(plan);
        let proposal = Proposal { call: row, plan, witnesses, blobs, approval: None, transaction: None };
        self.ledger().propose(proposal, Durability::Lazy).await.map_err(|e| e.refusal())?;
        Ok(answer)
    }

    /// Commit everything that the calls of a transaction staged, or nothing.
    ///
    /// # Errors
    /// `not_found`, `in_flight`, `invalid_input`, `idempotency_mismatch`. What concerns the plan is in the answer.
    pub async fn commit_transaction(&self, caller: &Caller, commit: CommitTransaction) -> Result<Answer, Refusal> {
        let open = self.accepting()?;
        self.may_begin(caller.principal())?;
        let turn = self.0.turns.take(caller.principal(), commit.transaction).await?;
        let stored = self.own_transaction(caller, commit.transaction).await?;
        // What became of one that was sealed before is told again for nothing.
        if stored.state == TransactionState::Open {
            caller.spend_call()?;
        }
        let (mut entry, input) = self.transaction_entry(caller, &stored, Mode::Commit)?;
        if let Some(key) = commit.key.as_deref() {
            let claim = key_claim(&entry, input, key)?;
            let call_key = CallKey { key: Arc::clone(&claim.key), request: claim.request };
            match admit::claim_key(self.ledger(), &claim).await? {
                Key::Fresh => entry.keyed(call_key),
                Key::Stored { reply, .. } => return Ok(Answer::stored(reply, true)),
                // What became of it is told by the transaction itself, below.
                Key::Unfinished { .. } => {}
            }
        }
        // Nobody's impatience ends it in the middle; the turn is held until it is settled.
        let host = self.clone();
        let call = entry.call();
        let task = self.spawn(async move {
            let answer = host.commit_in_turn(turn, stored, entry, commit.expect_plan).await;
            drop(open);
            answer
        });
        Ok(task.await.unwrap_or_else(|_| self.broken(call)))
    }

    async fn commit_in_turn(
        &self,
        turn: Turn,
        stored: StoredTransaction,
        entry: Entry,
        expected: Option<Digest>,
    ) -> Answer {
        let answer = match (stored.state, stored.plan) {
            (TransactionState::Open, _) => self.seal_and_settle(&stored, entry, expected).await,
            (TransactionState::Sealed, Some(plan)) => {
                self.ledger().forget_call(entry.call());
                self.settle_sealed(plan).await
            }
            (state, _) => {
                self.ledger().forget_call(entry.call());
                self.ended_before(&stored, state).await
            }
        };
        drop(turn);
        answer
    }

    /// What became of a transaction that ended before.
    async fn ended_before(&self, stored: &StoredTransaction, state: TransactionState) -> Answer {
        if let Some(call) = stored.call
            && let Ok(Some(found)) = self.ledger().call(&Scope::Operator, call).await
        {
            return Answer::stored(found.row.reply, true);
        }
        let refusal = Refusal::new(Code::NotFound, format!("no such open transaction: it is {state}"));
        self.refused_now(CallId::new(self.ambient().uuid_v7()), refusal)
    }

    async fn seal_and_settle(&self, stored: &StoredTransaction, entry: Entry, expected: Option<Digest>) -> Answer {
        match self.seal_in_ledger(stored, entry.clone(), expected).await {
            Ok(Sealed::Nothing(answer)) => answer,
            Ok(Sealed::Plan(plan)) => self.settle_sealed(plan).await,
            Err(refusal) => self.record_refusal(entry, refusal),
        }
    }

    /// Keep the plan and seal the transaction with it, in one write.
    async fn seal_in_ledger(
        &self,
        stored: &StoredTransaction,
        entry: Entry,
        expected: Option<Digest>,
    ) -> Result<Sealed, Refusal> {
        let (id, now_ms) = (stored.row.id, self.ambient().now_ms());
        if stored.row.expires_at_ms <= now_ms {
            return Err(Refusal::new(Code::NotFound, "no such open transaction: it is expired"));
        }
        let layer = Layer::decode(&stored.layer.text, stored.layer.digest)?;
        let shown = view(stored, &layer, stored.layer.digest);
        let ending = Ending { transaction: Some(shown), ..Ending::default() };
        if layer.effects.is_empty() && expected.is_none() {
            let row = entry.close(Status::Ok, Outcome::None, ending, now_ms);
            let answer = Answer::of_row(&row);
            let ended = self.ledger().end_transaction(id, TransactionState::Committed, Some(row)).await;
            ended.map_err(|error| transaction_refusal(&error))?;
            return Ok(Sealed::Nothing(answer));
        }
        for run in &layer.runs {
            self.goes_on(Some(*run)).await?;
        }
        let layer = self.exposed(layer).await?;
        let (plan, witnesses) = self.seal_transaction(stored, layer, entry.call())?;
        if let Some(expected) = expected.filter(|expected| *expected != plan.digest()) {
            let message = format!("this transaction makes plan {}, not the expected {expected}", plan.digest());
            return Err(Refusal::new(Code::PlanDiverged, message).hint("the transaction is still open"));
        }
        let row = entry.close(Status::Ok, Outcome::Previewed, ending.plan(&plan), now_ms);
        let named = plan.id();
        // The transaction keeps the contents until the plan is settled.
        let blobs = BlobSet::default();
        let plan = Arc::new(plan);
        let proposal = Proposal { call: row, plan, witnesses, blobs, approval: None, transaction: Some(id) };
        match self.ledger().propose(proposal, Durability::Durable).await {
            Ok(()) => Ok(Sealed::Plan(named)),
            Err(LedgerError::Refused(_)) => Err(Refusal::new(Code::NotFound, "no such open transaction: it ended")),
            Err(error) => Err(error.refusal()),
        }
    }

    /// Decide about the plan of a sealed transaction, or tell what was decided.
    async fn settle_sealed(&self, plan: PlanId) -> Answer {
        let found = self.stored_plan(&Scope::Operator, PlanName::Id(plan)).await;
        let stored = match found {
            Ok(stored) => stored,
            Err(refusal) => return self.refused_now(CallId::new(self.ambient().uuid_v7()), refusal),
        };
        let call = stored.call.row.call;
        if stored.state != PlanState::Previewed {
            return Answer::stored(stored.call.row.reply, stored.call.row.outcome != Outcome::Pending);
        }
        match approve::need(&stored, &self.in_force()) {
            Ok(None) => self.settle_stored(Consent::Transaction(Box::new(stored))).await,
            Ok(Some(need)) => match self.hold_stored(stored, &need, 1).await {
                Ok(answer) => answer,
                Err(refusal) => self.refused_now(call, refusal),
            },
            Err(refusal) => {
                let why = Discard::Refused(Box::new(refusal.clone()));
                match self.ledger().discard(&Scope::Operator, plan, why).await {
                    Ok(reply) => Answer::stored(reply, false),
                    Err(_) => self.refused_now(call, refusal),
                }
            }
        }
    }

    /// The layer with what the runs of its calls have seen by now: they may have seen more since they staged.
    async fn exposed(&self, mut layer: Layer) -> Result<Layer, Refusal> {
        for run in &layer.runs {
            let mark = self.ledger().run_mark(*run).await.map_err(|error| error.refusal())?;
            let on_record = mark.map_or(Taint::NONE, |mark| mark.taint);
            layer.taint = layer.taint.and(on_record).and(self.taint_of(Some(*run)));
        }
        Ok(layer)
    }

    /// All that a transaction staged as one plan, and the witnesses that go with it.
    fn seal_transaction(
        &self,
        stored: &StoredTransaction,
        layer: Layer,
        call: CallId,
    ) -> Result<(Plan, Arc<str>), Refusal> {
        let witnesses = serde_json::to_string(&layer.witnesses)
            .map_err(|_| Refusal::new(Code::Internal, "the plan's witnesses could not be written"))?;
        let policy_set = self.policies().digest(&stored.row.principal.tenant);
        let body = layer.into_body(stored.row.principal.clone(), tool()?, policy_set);
        let time_to_live = self.approval_ttl_ms().max(COMMIT_TTL_MS);
        let binding = SealBinding {
            run: stored.row.run,
            call,
            expires_at_ms: self.ambient().now_ms().saturating_add(time_to_live),
            nonce: nonce(self.ambient()),
        };
        let plan = Plan::seal(body, PlanId::new(self.ambient().uuid_v7()), binding)
            .map_err(|e| Refusal::new(Code::MemoryExceeded, e.to_string()))?;
        Ok((plan, witnesses.into()))
    }

    /// The entry of a call that commits or shows a transaction, and the digest of its input.
    fn transaction_entry(
        &self,
        caller: &Caller,
        stored: &StoredTransaction,
        mode: Mode,
    ) -> Result<(Entry, Digest), Refusal> {
        let bug = |what: String| Refusal::new(Code::Internal, what);
        let input = TransactionInput { transaction: stored.row.id };
        let input = serde_json::to_value(input).map_err(|e| bug(e.to_string()))?;
        let (canonical, digest) = json::input_digest(&input).map_err(|e| bug(e.to_string()))?;
        let request = CallRequest { mode, run: stored.row.run, ..CallRequest::of(tool()?, Value::Null) };
        let id = CallId::new(self.ambient().uuid_v7());
        let trace = Context::of(None, request.run, id).trace;
        let mut entry = Entry::open(caller.who(), &request, (id, trace), self.ambient().now_ms());
        entry.input(canonical.into(), digest);
        Ok((entry, digest))
    }
}

/// What sealing came to.
enum Sealed {
    /// There was nothing to commit; the transaction ended.
    Nothing(Answer),
    /// It waits to be settled.
    Plan(PlanId),
}

fn tool() -> Result<ToolName, Refusal> {
    TRANSACTION_TOOL.parse().map_err(|_| Refusal::new(Code::Internal, "BUG: the tool of transactions"))
}

fn key_claim(entry: &Entry, input: Digest, key: &str) -> Result<KeyClaim, Refusal> {
    if !(1..=KEY_MAX_BYTES).contains(&key.len()) || key.chars().any(char::is_control) {
        let refusal = Refusal::new(Code::InvalidInput, "a parameter of the commit is wrong");
        return Err(refusal.field(
            "/idempotency_key",
            "is empty, too long or has control characters",
            "1 to 128 bytes",
        ));
    }
    let row = entry.row();
    let parts = [row.tool.as_str().as_bytes(), input.as_bytes().as_slice(), row.mode.word().as_bytes()];
    Ok(KeyClaim {
        principal: row.principal.clone(),
        tool: row.tool.clone(),
        key: key.into(),
        request: Digest::of_parts("toolkeep.request.v1", &parts),
        call: row.call,
    })
}

fn line(stored: &StoredTransaction) -> Value {
    json!({"transaction": stored.row.id, "state": stored.state.word(), "principal": stored.row.principal,
        "run": stored.row.run, "calls": stored.layer.calls, "bytes": stored.layer.bytes, "layer": stored.layer.digest,
        "call_id": stored.call, "plan": stored.plan, "opened_at_ms": stored.row.opened_ms,
        "expires_at_ms": stored.row.expires_at_ms, "settled_at_ms": stored.settled_ms})
}
