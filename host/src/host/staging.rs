//! Calls inside of a transaction: what comes before and after their execution.
//!
//! Such a call takes its turn, starts over the layer that the calls before it left, and where an ordinary one would be
//! sealed and decided about, its effects are checked against its own tool and the next layer is kept, with the call's
//! row, in one write. Every other end leaves the layer as it was, because nobody wrote another one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toolkeep_core::call::{Mode, Outcome, Status, TransactionView};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::TransactionId;
use toolkeep_core::limit::TRANSACTION_CALLS_MAX;
use toolkeep_core::plan::{PlanStep, Totals};
use toolkeep_core::policy::plan_tier;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::execution::{self, Ended};
use toolkeep_sandbox::stage::Content;

use super::{Host, Seen};
use crate::admit::Ticket;
use crate::approve;
use crate::authenticate::Caller;
use crate::execute::{Executed, Ground};
use crate::ledger::{BlobSet, LayerText, Scope, StagedCall, StoredTransaction, TransactionRefused, TransactionState};
use crate::record::{Answer, Ending, Entry};
use crate::screen;
use crate::seal;
use crate::transaction::{Exposed, Layer, Room, Step, Turn};
use crate::validate::Call;

const NS_PER_MS: u64 = 1_000_000;

/// A call's place in its transaction: the turn, and what was staged before it.
#[derive(Debug)]
pub struct Staging {
    turn: Turn,
    stored: StoredTransaction,
    layer: Layer,
    contents: BTreeMap<Digest, Content>,
}

impl Staging {
    /// What the call's execution starts over.
    #[must_use]
    pub fn ground(&self) -> Ground {
        let layer = execution::Layer { effects: self.layer.effects.clone(), contents: self.contents.clone() };
        Ground { layer, digest: self.stored.layer.digest, text: Arc::clone(&self.stored.layer.text) }
    }
}

impl Host {
    /// Wait for the calls of the same transaction that came before, if the call belongs to one.
    ///
    /// # Errors
    /// `in_flight`: they take longer than a caller should wait.
    pub(crate) async fn turn(&self, call: &Call) -> Result<Option<Turn>, Refusal> {
        match call.options().transaction {
            Some(id) => self.0.turns.take(call.caller().principal(), id).await.map(Some),
            None => Ok(None),
        }
    }

    /// Find what was staged before a call whose turn it is.
    ///
    /// # Errors
    /// `not_found`: there is no such open transaction of this caller. `denied`: it may not call this tool.
    /// `memory_exceeded`: it is full. `stale_plan`: a tool that it called before was changed.
    pub(crate) async fn staging(&self, turn: Option<Turn>, ticket: &Ticket) -> Result<Option<Staging>, Refusal> {
        let Some(turn) = turn else { return Ok(None) };
        let call = ticket.grant().call();
        let stored = self.open_transaction(call.caller(), turn.transaction()).await?;
        let name = &call.tool().name;
        if stored.row.tools.as_ref().is_some_and(|tools| !tools.contains(name)) {
            return Err(Refusal::new(Code::Denied, format!("the transaction was begun without `{name}`")));
        }
        if stored.layer.calls >= TRANSACTION_CALLS_MAX {
            let message = format!("a transaction has at most {TRANSACTION_CALLS_MAX} calls");
            return Err(
                Refusal::new(Code::MemoryExceeded, message).hint("commit the transaction and go on in another one")
            );
        }
        let layer = Layer::decode(&stored.layer.text, stored.layer.digest)?;
        approve::unchanged(&layer.steps, &self.catalog().current())?;
        let mut contents = BTreeMap::new();
        for digest in layer.contents() {
            let found = self.0.blobs.content(&digest).await.map_err(|error| {
                tracing::error!(%error, transaction = %turn.transaction(), "a staged content cannot be read");
                Refusal::new(Code::Internal, "what the transaction staged cannot be read; roll it back")
            })?;
            contents.extend(found.map(|content| (digest, content)));
        }
        Ok(Some(Staging { turn, stored, layer, contents }))
    }

    /// A transaction of this caller that takes calls.
    pub(super) async fn open_transaction(
        &self,
        caller: &Caller,
        id: TransactionId,
    ) -> Result<StoredTransaction, Refusal> {
        let stored = self.own_transaction(caller, id).await?;
        match stored.state {
            TransactionState::Open if stored.row.expires_at_ms > self.ambient().now_ms() => Ok(stored),
            TransactionState::Open => Err(ended("expired")),
            TransactionState::Sealed => Err(ended("being committed")),
            state => Err(ended(state.word())),
        }
    }

    /// A transaction of this caller. Everybody else's look missing.
    pub(super) async fn own_transaction(
        &self,
        caller: &Caller,
        id: TransactionId,
    ) -> Result<StoredTransaction, Refusal> {
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let found = self.ledger().transaction(&scope, id).await.map_err(|e| e.refusal())?;
        let own = |stored: &StoredTransaction| caller.owns(&stored.row.principal, &stored.row.origin);
        found.filter(own).ok_or_else(|| Refusal::not_found("transaction"))
    }

    /// An execution in a transaction ended: keep the layer after it, or show what it would be.
    ///
    /// # Errors
    /// The execution failed, wants to send what cannot be taken back, saw another world than calls before it, or does more
    /// than its tool declares. The layer is as it was.
    pub(crate) async fn stage(
        &self,
        staging: Staging,
        executed: Executed,
        entry: &mut Entry,
    ) -> Result<Answer, Refusal> {
        refuse_live(&executed)?;
        let looked = screen::screen(&executed, self.ambient());
        let seen = Seen::of(&executed, &looked);
        if !seen.is_ordinary() {
            self.observe(entry, &seen).await?;
        }
        let output = looked.output.map_err(|refusal| executed.ticket().blamed(refusal))?;
        entry.spilled(&output);
        let run = entry.row().run;
        let seen = Exposed { run, taint: self.taint_of(run).and(seen.taint) };
        let next = self.next_layer(&staging, &executed, entry, seen)?;
        let options = executed.ticket().grant().call().options();
        if options.mode == Mode::Preview && next.effects.is_empty() && options.expect_plan.is_none() {
            return Ok(self.record(entry.clone(), Status::Ok, Outcome::None, Ending::output(output)));
        }
        if options.mode == Mode::Preview {
            let planned = seal::seal_union(executed, output, next, self.ambient())?;
            return approve::preview(&self.plan_store(), planned, entry.clone()).await;
        }
        let (_ticket, execution) = executed.into_parts();
        let (blobs, released) = self.keep_contents(&staging.layer, &next, execution.staged.contents).await?;
        let (text, digest) = next.encode()?;
        let layer = LayerText { text: text.into(), digest, calls: next.calls(), bytes: next.bytes() };
        let mut ending = Ending::output(output);
        ending.transaction = Some(view(&staging.stored, &next, digest));
        let row = entry.clone().close(Status::Ok, Outcome::Staged, ending, self.ambient().now_ms());
        let answer = Answer::of_row(&row);
        let transaction = staging.turn.transaction();
        let staged = StagedCall { transaction, parent: staging.stored.layer.digest, layer, blobs, released, call: row };
        self.ledger().stage(staged).await.map_err(|error| transaction_refusal(&error))?;
        Ok(answer)
    }

    /// The layer after a call, checked against its tool and against what is declared by all of them.
    fn next_layer(
        &self,
        staging: &Staging,
        executed: &Executed,
        entry: &Entry,
        seen: Exposed,
    ) -> Result<Layer, Refusal> {
        let call = executed.ticket().grant().call();
        let tool = call.tool();
        let step = Step {
            step: PlanStep {
                tool: tool.name.clone(),
                component: tool.component.digest,
                manifest: tool.manifest.digest,
                input: call.input_digest(),
            },
            tier: tool.tier,
            staged: &executed.execution().staged,
            seen,
            since_ns: i64::try_from(entry.row().started_ms.saturating_mul(NS_PER_MS)).unwrap_or(i64::MAX),
        };
        let next = staging.layer.after(step, self.undo_bytes(), Room::ORDINARY)?;
        let (declared, _) = approve::unchanged(&next.steps, &self.catalog().current())?;
        let tier = plan_tier(&next.effects, self.undo_bytes());
        if tier > declared {
            let message = format!(
                "the transaction would have effects of tier {}, but its tools are declared as tier {} at most",
                tier.number(),
                declared.number()
            );
            return Err(Refusal::new(Code::Denied, message).hint("the transaction is as it was before the call"));
        }
        Ok(next)
    }

    /// Keep what a layer writes and the one before did not. Returns it, and what is not needed any more.
    async fn keep_contents(
        &self,
        before: &Layer,
        after: &Layer,
        mut contents: BTreeMap<Digest, Content>,
    ) -> Result<(BlobSet, Vec<Digest>), Refusal> {
        let (had, has) = (before.contents(), after.contents());
        let (had, has): (BTreeSet<Digest>, BTreeSet<Digest>) = (had.into_iter().collect(), has.into_iter().collect());
        contents.retain(|digest, _| has.contains(digest) && !had.contains(digest));
        if has.iter().any(|digest| !had.contains(digest) && !contents.contains_key(digest)) {
            return Err(Refusal::new(Code::Internal, "BUG: a staged content is missing"));
        }
        let blobs = self.0.blobs.keep(contents).await.map_err(|error| {
            tracing::error!(%error, "the contents of a transaction could not be kept");
            Refusal::new(Code::Internal, "what the call staged could not be kept")
        })?;
        Ok((blobs, had.difference(&has).copied().collect()))
    }
}

/// What is sent while a tool runs cannot be rolled back with the rest.
fn refuse_live(executed: &Executed) -> Result<(), Refusal> {
    match &executed.execution().ended {
        Ended::Live(call) => Err(Refusal::new(
            Code::Denied,
            format!(
                "`{}` wants to send {} {} while it runs, which a transaction could not roll back; nothing was sent",
                executed.ticket().grant().call().tool().name,
                call.method,
                call.url
            ),
        )
        .hint(
            "call the tool outside of the transaction, or ask the operator for a grant with `delivery = \"staged\"`",
        )),
        Ended::Output(_) | Ended::Error(_) | Ended::Fault(_) => Ok(()),
    }
}

/// A transaction as replies show it.
pub(super) fn view(stored: &StoredTransaction, layer: &Layer, digest: Digest) -> TransactionView {
    TransactionView {
        id: stored.row.id,
        calls: layer.calls(),
        totals: Totals::of(&layer.effects),
        layer: digest,
        expires_at_ms: stored.row.expires_at_ms,
    }
}

fn ended(how: &str) -> Refusal {
    Refusal::new(Code::NotFound, format!("no such open transaction: it is {how}"))
        .hint("begin another one with `transactions.begin`")
}

/// What a caller is told when the ledger does not take a change.
pub(super) fn transaction_refusal(error: &TransactionRefused) -> Refusal {
    match error {
        TransactionRefused::NotFound => Refusal::not_found("transaction"),
        TransactionRefused::TooMany(_) => Refusal::new(Code::Overloaded, error.to_string()).after_ms(1_000),
        TransactionRefused::NotOpen(state) => ended(state.word()),
        TransactionRefused::Moved => Refusal::new(Code::StalePlan, error.to_string())
            .hint("look at it with `transactions.get`; what it holds is what the last staged call left"),
        TransactionRefused::Ledger(error) => error.refusal(),
    }
}
