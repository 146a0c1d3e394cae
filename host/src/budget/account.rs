//! One balance: a limit for each meter, what is used, and what calls that run have reserved.
//!
//! Balances live in memory and are made from the ledger when they are first wanted; every change of one is on record, or
//! is put there in the same breath. A lock is held for the arithmetic and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use toolkeep_core::budget::{Amounts, Exceeded, Limits, Meter, OverBudget, Price};

/// How often a reservation over several balances is tried again when another call changed one of them in between.
const TRIES: u32 = 8;

/// Whose balance it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// A run's.
    Run,
    /// That of a session with a budget of money.
    Session,
    /// That of a ceiling, for this subject and day.
    Ceiling {
        /// The ceiling.
        name: Arc<str>,
        /// Tenant, person or workflow.
        subject: Arc<str>,
        /// In days since the Unix epoch.
        day: u64,
    },
}

#[derive(Debug)]
struct Book {
    limits: Limits,
    used: Amounts,
    /// What was used and given back: kept apart, because it may be told before the use is.
    refunded: Amounts,
    reserved: Amounts,
}

impl Book {
    fn used(&self) -> Amounts {
        self.used.minus(&self.refunded)
    }
}

/// What a balance says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// What there may be.
    pub limits: Limits,
    /// What is used.
    pub used: Amounts,
    /// What calls that run have reserved.
    pub reserved: Amounts,
}

/// A balance.
#[derive(Debug)]
pub struct Account {
    /// Whose it is.
    pub whose: Whose,
    /// What happens to calls that do not fit.
    pub over: OverBudget,
    book: Mutex<Book>,
    told: AtomicBool,
}

impl Account {
    /// A balance of which so much is used already.
    #[must_use]
    pub fn new(whose: Whose, over: OverBudget, limits: Limits, used: Amounts) -> Self {
        let none = Amounts::default();
        let book = Book { limits, used, refunded: none, reserved: none };
        Self { whose, over, book: Mutex::new(book), told: AtomicBool::new(false) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let book = self.book();
        Balance { limits: book.limits, used: book.used(), reserved: book.reserved }
    }

    fn reserve(&self, wanted: &Amounts) -> Result<(), Exceeded> {
        let mut book = self.book();
        book.limits.fit(&book.used(), &book.reserved, wanted)?;
        book.reserved = book.reserved.plus(wanted);
        Ok(())
    }

    fn reserve_unbound(&self, wanted: &Amounts) {
        let mut book = self.book();
        book.reserved = book.reserved.plus(wanted);
    }

    /// Less is needed than was reserved.
    pub fn give_back(&self, amounts: &Amounts) {
        let mut book = self.book();
        book.reserved = book.reserved.minus(amounts);
    }

    /// A call ended: what it used takes the place of what it had reserved.
    pub fn settle(&self, reserved: &Amounts, used: &Amounts) {
        let mut book = self.book();
        book.reserved = book.reserved.minus(reserved);
        book.used = book.used.plus(used);
    }

    /// What was used was given back.
    pub fn refund(&self, amounts: &Amounts) {
        let mut book = self.book();
        book.refunded = book.refunded.plus(amounts);
        drop(book);
        self.told.store(false, Ordering::Release);
    }

    /// There may be so much from now on.
    pub fn limit(&self, limits: Limits) {
        self.book().limits = limits;
        self.told.store(false, Ordering::Release);
    }

    /// Whether operators have yet to be told that it is used up. True once.
    #[must_use]
    pub fn to_be_told(&self) -> bool {
        !self.told.swap(true, Ordering::AcqRel)
    }
}

/// A balance that a call is charged to.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The balance.
    pub account: Arc<Account>,
    /// Whether its limits bind the call: they do not bind read-only calls where a budget degrades.
    pub binds: bool,
}

/// What a call wants to reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Without these it does not begin.
    pub fixed: Amounts,
    /// The most fuel, time and requests that its execution may use. Where less is left, it gets less.
    pub most: Amounts,
    /// What it costs.
    pub price: Price,
}

impl Wanted {
    /// What there is room for in all balances at this moment. Less than one unit of fuel or time is no room.
    fn narrowed(&self, slots: &[Slot]) -> Amounts {
        let (mut most, mut money) = (self.most, u64::MAX);
        for slot in slots.iter().filter(|slot| slot.binds) {
            let Balance { limits, used, reserved } = slot.account.balance();
            let left = |meter| limits.left(meter, &used, &reserved).unwrap_or(u64::MAX);
            most.fuel = most.fuel.min(left(Meter::Fuel).max(1));
            most.wall_ms = most.wall_ms.min(left(Meter::WallMs).max(1));
            most.requests = most.requests.min(left(Meter::Requests));
            money = money.min(left(Meter::Cost));
        }
        if money < u64::MAX {
            most.fuel = most.fuel.min(self.price.fuel_for(money).max(1));
            most.requests = most.requests.min(self.price.requests_for(money, most.fuel));
        }
        most.cost = self.price.of(most.fuel, most.requests);
        most
    }
}

/// Reserve on all balances or on none. Returns what was reserved.
///
/// # Errors
/// The balance that has no room, and for what.
pub fn reserve(slots: &[Slot], wanted: &Wanted) -> Result<Amounts, (Arc<Account>, Exceeded)> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let narrowed = wanted.narrowed(slots);
        let amounts = wanted.fixed.plus(&narrowed);
        match reserve_all(slots, &amounts) {
            Ok(()) => return Ok(amounts),
            // What is narrowed fits the moment that it was looked at; another call may have come in between.
            Err((_, exceeded)) if tries > 0 && exceeded.wanted > 1 && wanted.most.of(exceeded.meter) > 0 => {}
            Err(no_room) => return Err(no_room),
        }
    }
}

/// Reserve exactly this on all balances or on none.
///
/// # Errors
/// As [`reserve`].
pub fn reserve_all(slots: &[Slot], amounts: &Amounts) -> Result<(), (Arc<Account>, Exceeded)> {
    for (at, slot) in slots.iter().enumerate() {
        if !slot.binds {
            slot.account.reserve_unbound(amounts);
        } else if let Err(exceeded) = slot.account.reserve(amounts) {
            slots.iter().take(at).for_each(|before| before.account.give_back(amounts));
            return Err((Arc::clone(&slot.account), exceeded));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(limits: Limits) -> Arc<Account> {
        Arc::new(Account::new(Whose::Run, OverBudget::Stop, limits, Amounts::default()))
    }

    fn slot(account: &Arc<Account>) -> Slot {
        Slot { account: Arc::clone(account), binds: true }
    }

    fn call(fuel: u64) -> Wanted {
        let fixed = Amounts { steps: 1, calls: 1, ..Amounts::default() };
        Wanted { fixed, most: Amounts { fuel, ..Amounts::default() }, price: Price::default() }
    }

    #[test]
    fn r26_sixty_four_calls_at_one_moment_cannot_overspend_by_one() {
        let run = account(Limits { calls: Some(10), ..Limits::default() });
        let day = account(Limits { calls: Some(7), ..Limits::default() });
        let slots = [slot(&run), slot(&day)];
        let taken: usize = std::thread::scope(|scope| {
            let work = || usize::from(reserve(&slots, &call(5)).is_ok());
            let all: Vec<_> = (0..64).map(|_| scope.spawn(work)).collect();
            all.into_iter().map(|one| one.join().expect("a call")).sum()
        });
        assert_eq!(taken, 7);
        assert_eq!(
            (run.balance().reserved.calls, day.balance().reserved.calls),
            (7, 7),
            "what did not fit is given back"
        );
    }

    #[test]
    fn r26_an_execution_gets_what_is_left_and_what_it_does_not_use_comes_back() {
        let run = account(Limits { fuel: Some(100), ..Limits::default() });
        let slots = [slot(&run)];
        let first = reserve(&slots, &call(70)).expect("room");
        let second = reserve(&slots, &call(70)).expect("less room");
        assert_eq!((first.fuel, second.fuel), (70, 30));
        let (_, none) = reserve(&slots, &call(70)).expect_err("no room");
        assert!(none.may_pass() && none.meter == Meter::Fuel, "{none}");
        run.settle(&first, &Amounts { fuel: 50, ..first });
        assert_eq!(reserve(&slots, &call(70)).expect("room again").fuel, 20);
        run.settle(&second, &Amounts { fuel: 30, ..second });
        run.give_back(&Amounts { fuel: 20, ..Amounts::default() });
        assert_eq!(run.balance().used.fuel, 80);
        run.refund(&Amounts { fuel: 1_000, ..Amounts::default() });
        assert_eq!(run.balance().used.fuel, 0, "a refund is no credit beyond what was used");
    }

    #[test]
    fn r26_money_bounds_fuel_and_requests_and_a_degraded_budget_binds_nothing_that_only_reads() {
        let run = account(Limits { cost_usd: Some(toolkeep_core::price::Usd::of_micro(100)), ..Limits::default() });
        let price = Price { call: 10, fuel: 50, message: 0, request: 20 };
        let most = Amounts { fuel: 2_000_000_000, requests: 9, ..Amounts::default() };
        let wanted = Wanted { price, most, ..call(0) };
        let got = reserve(&[slot(&run)], &wanted).expect("room");
        assert_eq!((got.fuel, got.requests, got.cost), (1_800_000_000, 0, 100));
        assert!(reserve(&[slot(&run)], &wanted).is_err());
        let unbound = Slot { account: Arc::clone(&run), binds: false };
        assert_eq!(reserve(&[unbound], &wanted).expect("unbound").fuel, most.fuel);
    }
}
