//! Runs that break their terms and are held, and what operators decide about them and about ceilings.
//!
//! A hold that the ledger does not take is owed to it: it is tried again until it is on record, and its run stays in memory until
//! then, so that neither a restart nor a full shelf lets a run go on that nobody has released. Decisions of operators are made
//! one after the other, because each begins with how things stand.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};

use serde_json::{Value, json};
use toolkeep_core::budget::Limits;
use toolkeep_core::id::RunId;
use toolkeep_core::refusal::{Code, Refusal};

use super::run::Run;
use super::{Budgets, Telling};
use crate::ledger::{Charged, RunHold};
use crate::notify::Event;

/// Escalations that hold nothing and are owed to the ledger, at most. Holds are always kept: a run has one.
const OWED_MAX: usize = 1_024;
/// When to release a run again whose hold is not on record yet, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// An escalation that is to be put on record.
#[derive(Debug)]
pub(super) struct Owed {
    /// As long as it is here, the shelf does not let go of it.
    run: Arc<Run>,
    facts: Value,
    hold: Option<RunHold>,
}

impl Budgets {
    /// Something happened that a run is not for: put it on record, and hold the run if it is enough. Operators are told of
    /// the fact once, here or by whoever found it.
    pub fn escalate(&self, run: &Arc<Run>, facts: &Value, hold: Option<RunHold>, told: Telling) {
        let hold = run.escalated(hold);
        tracing::warn!(run = %run.id, %facts, held = hold.is_some(), "a run broke its terms");
        let tenant = &run.principal.tenant;
        if let Some(hold) = &hold {
            let told = json!({"run": run.id, "principal": run.principal, "code": hold.code, "reason": hold.reason});
            self.0.notify.event(Event::RunHeld, tenant, told);
        }
        if told == Telling::Now {
            self.0.notify.event(Event::RunEscalated, tenant, facts.clone());
        }
        if let Err(error) = self.0.ledger.escalate(run.id, facts, hold.clone()) {
            tracing::error!(%error, run = %run.id, "an escalation could not be put on record; it is tried again");
            self.owe(Owed { run: Arc::clone(run), facts: facts.clone(), hold });
        }
    }

    fn owed(&self) -> MutexGuard<'_, VecDeque<Owed>> {
        self.0.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owe(&self, escalation: Owed) {
        let mut owed = self.owed();
        if escalation.hold.is_some() || owed.len() < OWED_MAX {
            owed.push_back(escalation);
        }
    }

    /// Put on record what is owed, as far as the ledger takes it.
    pub(super) fn pay(&self) {
        let mut owed = self.owed();
        while let Some(first) = owed.front() {
            if self.0.ledger.escalate(first.run.id, &first.facts, first.hold.clone()).is_err() {
                return;
            }
            owed.pop_front();
        }
    }

    fn owes(&self, run: RunId) -> bool {
        self.owed().iter().any(|owed| owed.run.id == run)
    }

    /// Raise the budget of a run and let it go on.
    ///
    /// # Errors
    /// The ledger failed, or what holds the run is not on record yet: it stays as it is.
    pub async fn release(&self, run: &Run, more: &Limits, by: &str) -> Result<(), Refusal> {
        let _deciding = self.0.deciding.lock().await;
        self.pay();
        if self.owes(run.id) {
            // Written later, it would hold a run that was released.
            return Err(Refusal::new(Code::Overloaded, "what holds the run could not be put on record yet")
                .after_ms(RETRY_AFTER_MS));
        }
        let (seen, raised) = (run.standing(), run.raised(more));
        let facts = json!({"by": by, "principal": run.principal, "raised": raised, "run": run.id, "what": "released"});
        let text = serde_json::to_string(&raised).unwrap_or_default();
        let at_ms = self.0.ambient.now_ms();
        self.0.ledger.release_run(run.id, text, at_ms, &facts).await.map_err(|error| error.refusal())?;
        run.release(raised, &seen);
        Ok(())
    }

    /// Let a ceiling allow itself once more today, for one subject.
    ///
    /// # Errors
    /// `not_found`: there is no such ceiling for the tenant. Or the ledger failed.
    pub async fn allow_again(&self, name: &str, to: &Charged, by: &str) -> Result<Value, Refusal> {
        let ceilings = &self.0.config.ceilings;
        let found = ceilings.iter().enumerate().find(|(_, ceiling)| &*ceiling.name == name);
        let found = found.and_then(|(at, ceiling)| Some((at, ceiling, ceiling.subject(to)?)));
        let Some((at, ceiling, subject)) = found else { return Err(Refusal::not_found("ceiling")) };
        let facts = json!({"by": by, "ceiling": name, "day": to.day, "subject": subject, "what": "allowed once more"});
        let _deciding = self.0.deciding.lock().await;
        let account = self.0.shelf.ceiling((at, ceiling), Arc::clone(&subject), to).await?;
        self.0.ledger.allow(name, &subject, to.day, &facts).await.map_err(|error| error.refusal())?;
        account.limit(account.balance().limits.raised(&ceiling.limits));
        Ok(json!({"ceiling": name, "subject": subject, "limits": account.balance().limits}))
    }
}
