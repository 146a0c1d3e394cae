//! The charge of one call: what it reserved, what it came to, and the row that says so.
//!
//! It is shared by the entry of the call, which writes the row whenever it closes, and by whoever waits for the call's end and
//! brings the balances up to date. What the plan would use (bytes, requests, its price) counts from the moment that it is held
//! or handed to a commit; the ledger gives it back if the plan is not committed after all. A charge that nobody closes
//! counts in full, as the next start would have it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use toolkeep_core::budget::{Amounts, Exceeded, Price};
use toolkeep_core::call::{Outcome, Usage};
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{CallId, ToolName};
use toolkeep_core::manifest::Manifest;
use uuid::Uuid;

use super::account::{self, Account, Slot};
use super::run::Run;
use crate::ledger::{ChargeRow, ChargeState, Charged};

/// What is known of the call so far.
#[derive(Debug, Default)]
struct Progress {
    reserved: Amounts,
    execution: Amounts,
    plan: Amounts,
    /// Exchanges that are accounted for.
    exchanges: usize,
    /// The plan was handed to a commit, or waits for people.
    intended: bool,
    /// What the last row said.
    told: Option<Amounts>,
    /// The row of a commit is the last word of this charge.
    sealed: bool,
    closed: bool,
}

/// One charge.
#[derive(Debug)]
pub struct Charge {
    id: Uuid,
    call: CallId,
    tool: ToolName,
    to: Charged,
    at_ms: u64,
    price: Price,
    slots: Vec<Slot>,
    run: Option<Arc<Run>>,
    /// What the execution may use less than its manifest says: fuel, time, requests.
    narrowed: Narrowed,
    progress: Mutex<Progress>,
}

/// What a budget leaves for an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrowed {
    /// Units of fuel, if fewer than the manifest allows.
    pub fuel: Option<u64>,
    /// Milliseconds, likewise.
    pub wall_ms: Option<u64>,
    /// Requests, likewise.
    pub requests: Option<u64>,
}

/// What a charge is made of.
#[derive(Debug)]
pub struct Opening {
    /// Names it.
    pub id: Uuid,
    /// The call.
    pub call: CallId,
    /// The tool.
    pub tool: ToolName,
    /// Who is charged.
    pub to: Charged,
    /// When.
    pub at_ms: u64,
    /// What the tool costs.
    pub price: Price,
    /// The balances.
    pub slots: Vec<Slot>,
    /// The run.
    pub run: Option<Arc<Run>>,
    /// What was reserved.
    pub reserved: Amounts,
    /// What of it is less than the execution might have used.
    pub narrowed: Narrowed,
}

impl Charge {
    /// A charge whose amounts are reserved already.
    #[must_use]
    pub fn open(opening: Opening) -> Self {
        let Opening { id, call, tool, to, at_ms, price, slots, run, reserved, narrowed } = opening;
        let counted = Amounts { steps: reserved.steps, calls: reserved.calls, ..Amounts::default() };
        let execution = Amounts { cost: price.of(0, 0), ..counted };
        // A stretch of a call that is not counted again does not cost the call again.
        let execution = if counted.calls == 0 { counted } else { execution };
        let progress = Progress { reserved, execution, ..Progress::default() };
        Self { id, call, tool, to, at_ms, price, slots, run, narrowed, progress: Mutex::new(progress) }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> Option<&Arc<Run>> {
        self.run.as_ref()
    }

    /// The call.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.call
    }

    /// Who is charged.
    #[must_use]
    pub const fn to(&self) -> &Charged {
        &self.to
    }

    /// The tool.
    #[must_use]
    pub const fn tool(&self) -> &ToolName {
        &self.tool
    }

    /// What the budget leaves for the execution.
    #[must_use]
    pub const fn narrowed(&self) -> Narrowed {
        self.narrowed
    }

    /// The balances.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.slots.iter().map(|slot| &slot.account)
    }

    fn row_of(&self, state: ChargeState, execution: Amounts, plan: Amounts) -> ChargeRow {
        let (call, tool) = (Some(self.call), Some(self.tool.clone()));
        ChargeRow { id: self.id, call, tool, to: self.to.clone(), at_ms: self.at_ms, state, execution, plan }
    }

    /// The row that says how much is reserved.
    #[must_use]
    pub fn reservation(&self) -> ChargeRow {
        let reserved = self.progress().reserved;
        self.row_of(ChargeState::Reserved, reserved, Amounts::default())
    }

    /// What earlier stretches of the call exchanged is accounted for.
    pub fn begin_after(&self, exchanges: usize) {
        self.progress().exchanges = exchanges;
    }

    /// An execution ended; `exchanges` is how many it saw, earlier ones included, and `repeated` how many its failed
    /// attempts made besides.
    pub fn executed(&self, usage: &Usage, exchanges: usize, repeated: u64) {
        let mut progress = self.progress();
        let requests =
            u64::try_from(exchanges.saturating_sub(progress.exchanges)).unwrap_or(u64::MAX).saturating_add(repeated);
        progress.exchanges = progress.exchanges.max(exchanges);
        let before = progress.execution;
        let (fuel, requests) = (before.fuel.saturating_add(usage.fuel), before.requests.saturating_add(requests));
        let call = if before.calls == 0 { self.price.call } else { 0 };
        let cost = self.price.of(fuel, requests).saturating_sub(call);
        progress.execution = Amounts { fuel, requests, cost, ..before };
    }

    /// The execution is over: keep no more reserved than it used.
    pub fn shrink(&self, wall_ms: u64) {
        let mut progress = self.progress();
        let kept = Amounts { wall_ms, ..progress.execution };
        let spare = progress.reserved.minus(&kept);
        progress.reserved = progress.reserved.minus(&spare);
        drop(progress);
        self.slots.iter().for_each(|slot| slot.account.give_back(&spare));
    }

    /// Reserve what the plan would use.
    ///
    /// # Errors
    /// A balance has no room.
    pub fn plan(&self, amounts: Amounts) -> Result<(), (Arc<Account>, Exceeded)> {
        account::reserve_all(&self.slots, &amounts)?;
        let mut progress = self.progress();
        progress.reserved = progress.reserved.plus(&amounts);
        progress.plan = progress.plan.plus(&amounts);
        Ok(())
    }

    /// The charge of a part of this call, under a call id of its own: what was reserved for the plan goes with it.
    #[must_use]
    pub fn part(&self, id: Uuid, call: CallId) -> Self {
        let mut progress = self.progress();
        let plan = std::mem::take(&mut progress.plan);
        progress.reserved = progress.reserved.minus(&plan);
        // Its answer is the next exchange that an execution of this call sees.
        progress.exchanges += 1;
        let of_part = Progress { reserved: plan, plan, ..Progress::default() };
        Self {
            id,
            call,
            tool: self.tool.clone(),
            to: self.to.clone(),
            at_ms: self.at_ms,
            price: self.price,
            slots: self.slots.clone(),
            run: self.run.clone(),
            narrowed: self.narrowed,
            progress: Mutex::new(of_part),
        }
    }

    /// The plan is handed to a commit: the next row is the last word, until the ledger gives something back.
    pub fn intend(&self) {
        let mut progress = self.progress();
        progress.intended = true;
        progress.sealed = false;
    }

    /// The commit did not take it.
    pub fn not_intended(&self) {
        let mut progress = self.progress();
        (progress.intended, progress.sealed) = (false, false);
    }

    /// What is written with the row of the call. `wall_ms` is what this stretch of the call took.
    #[must_use]
    pub fn row(&self, wall_ms: u64, outcome: Outcome) -> ChargeRow {
        let mut progress = self.progress();
        if !progress.sealed {
            progress.execution.wall_ms = wall_ms;
        }
        progress.intended |= outcome == Outcome::Pending;
        progress.sealed = progress.intended;
        let plan = if progress.intended { progress.plan } else { Amounts::default() };
        let execution = progress.execution;
        progress.told = Some(execution.plus(&plan));
        self.row_of(ChargeState::Settled, execution, plan)
    }

    /// Nothing is charged: the call does not begin.
    pub fn forget(&self) {
        self.progress().told = Some(Amounts::default());
        self.close();
    }

    /// The call ended: bring the balances up to date. A second time does nothing.
    pub fn close(&self) {
        let mut progress = self.progress();
        if std::mem::replace(&mut progress.closed, true) {
            return;
        }
        let used = progress.told.unwrap_or(progress.reserved);
        let reserved = progress.reserved;
        drop(progress);
        self.slots.iter().for_each(|slot| slot.account.settle(&reserved, &used));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the effects of a plan use and cost, by the manifests of the tools that made it.
#[must_use]
pub fn plan_amounts(effects: &[Effect], manifests: &[&Manifest]) -> Amounts {
    let price = |effect: &Effect| match effect {
        Effect::HttpRequest(request) => manifests
            .iter()
            .flat_map(|manifest| manifest.http.iter())
            .filter(|grant| grant.name == request.grant)
            .map(|grant| grant.price.micro())
            .max()
            .unwrap_or(0),
        Effect::MessageSend(_) => manifests.iter().map(|manifest| manifest.price.message).max().unwrap_or(0),
        _ => 0,
    };
    let totals = toolkeep_core::plan::Totals::of(effects);
    Amounts {
        bytes_written: totals.bytes_written,
        requests: totals.requests,
        cost: effects.iter().map(price).fold(0, u64::saturating_add),
        ..Amounts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::Whose;
    use super::*;
    use toolkeep_core::budget::{Limits, OverBudget};

    fn account(calls: u64) -> Arc<Account> {
        let limits = Limits { calls: Some(calls), bytes_written: Some(100), ..Limits::default() };
        Arc::new(Account::new(Whose::Run, OverBudget::Stop, limits, Amounts::default()))
    }

    fn charge(account: &Arc<Account>, calls: u64) -> Charge {
        let slots = vec![Slot { account: Arc::clone(account), binds: true }];
        let reserved = Amounts { steps: calls, calls, fuel: 50, wall_ms: 1_000, cost: 90, ..Amounts::default() };
        account::reserve_all(&slots, &reserved).expect("room");
        Charge::open(Opening {
            id: Uuid::from_u128(1),
            call: CallId::new(Uuid::from_u128(2)),
            tool: "t".parse().expect("name"),
            to: Charged {
                tenant: "a".parse().expect("name"),
                user: "u".parse().expect("name"),
                workflow: None,
                run: None,
                session: toolkeep_core::principal::SessionPath::default(),
                day: 0,
            },
            at_ms: 0,
            price: Price { call: 10, fuel: 0, message: 0, request: 5 },
            slots,
            run: None,
            reserved,
            narrowed: Narrowed { fuel: None, wall_ms: None, requests: None },
        })
    }

    fn usage(fuel: u64) -> Usage {
        Usage { fuel, ..Usage::default() }
    }

    #[test]
    fn r26_a_call_is_charged_what_its_row_says_and_the_rest_is_free_again() {
        let account = account(3);
        let charge = charge(&account, 1);
        charge.executed(&usage(20), 2, 0);
        charge.executed(&usage(5), 2, 0);
        let row = charge.row(7, Outcome::None);
        assert_eq!(
            (row.execution.fuel, row.execution.requests, row.execution.cost, row.execution.wall_ms),
            (25, 2, 20, 7)
        );
        assert_eq!(account.balance().reserved.fuel, 50);
        charge.close();
        charge.close();
        let balance = account.balance();
        assert_eq!((balance.used.fuel, balance.used.calls, balance.reserved), (25, 1, Amounts::default()));
    }

    #[test]
    fn r26_a_charge_that_nobody_closes_counts_in_full() {
        let account = account(3);
        drop(charge(&account, 1));
        assert_eq!((account.balance().used.fuel, account.balance().reserved.fuel), (50, 0));
    }

    #[test]
    fn r26_a_plan_counts_when_it_is_held_or_committed_and_not_when_it_is_only_shown() {
        let plan = Amounts { bytes_written: 60, ..Amounts::default() };
        let used = |end: &dyn Fn(&Charge)| {
            let account = account(3);
            let charge = charge(&account, 1);
            charge.shrink(3);
            charge.plan(plan).expect("room");
            assert_eq!(charge.plan(plan).map_err(|(_, e)| e.by()), Err(20), "n and n + 1 stand in core");
            end(&charge);
            charge.close();
            account.balance().used.bytes_written
        };
        assert_eq!(used(&|charge| drop(charge.row(1, Outcome::Previewed))), 0);
        assert_eq!(used(&|charge| drop(charge.row(1, Outcome::Pending))), 60);
        assert_eq!(
            used(&|charge| {
                charge.intend();
                drop(charge.row(1, Outcome::Unknown));
                // Whatever the commit says later is for the ledger to give back.
                assert_eq!(charge.row(9, Outcome::Discarded).execution.wall_ms, 1);
            }),
            60
        );
        assert_eq!(
            used(&|charge| {
                charge.intend();
                drop(charge.row(1, Outcome::Unknown));
                charge.not_intended();
                drop(charge.row(2, Outcome::Discarded));
            }),
            0
        );
    }

    #[test]
    fn r26_a_part_takes_its_plan_with_it_and_its_answer_is_no_second_request() {
        let account = account(3);
        let whole = charge(&account, 1);
        whole.executed(&usage(1), 1, 0);
        whole.plan(Amounts { requests: 1, cost: 5, ..Amounts::default() }).expect("room");
        let part = whole.part(Uuid::from_u128(9), CallId::new(Uuid::from_u128(9)));
        part.intend();
        assert_eq!(part.row(0, Outcome::Unknown).plan.requests, 1);
        part.close();
        whole.executed(&usage(1), 2, 0);
        let row = whole.row(1, Outcome::None);
        assert_eq!((row.execution.requests, row.execution.cost, row.plan.requests), (1, 15, 0));
        whole.close();
        assert_eq!((account.balance().used.requests, account.balance().used.cost), (2, 20));
    }
}
