//! Where balances are kept in memory: runs by their id, ceilings by subject and day, sessions with a budget of money by their id.
//!
//! A balance of a run or a ceiling is made from the ledger when it is first wanted, and from then on only there; it is let go of
//! when nobody uses it and there are too many. Whoever makes one reads the ledger without any lock: where something was given
//! back to it, or let go of near it, in the meantime, it is read again, and where somebody else was faster, theirs is the
//! balance. So everything is counted once, and nobody waits for a balance of somebody else.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use toolkeep_core::id::{RunId, SessionId, TenantName};
use toolkeep_core::refusal::Refusal;

use super::account::{Account, Whose};
use super::ceiling::Ceiling;
use super::run::Run;
use crate::authenticate::standing::Standing;
use crate::ledger::{Charged, Ledger, Refund};

/// Parts of the shelf that are locked apart.
const PARTS: usize = 64;
/// Runs, or balances of ceilings, in one part, before those that nobody uses are let go of: 32,768 in all.
const PART_MAX: usize = 512;

type Day = (usize, Arc<str>, u64);

/// One part of what is kept.
#[derive(Debug)]
struct Part<K, V> {
    kept: HashMap<K, Arc<V>>,
    /// How often something was given back to what belongs here, or let go of.
    changes: u64,
}

impl<K: Eq + Hash, V> Part<K, V> {
    /// Let go of these, as far as nobody uses them.
    fn let_go(&mut self, which: impl Fn(&K, &V) -> bool) {
        let before = self.kept.len();
        self.kept.retain(|key, value| Arc::strong_count(value) > 1 || !which(key, value));
        self.changes += u64::from(self.kept.len() != before);
    }

    fn is_full(&self) -> bool {
        self.kept.len() >= PART_MAX
    }
}

impl Part<RunId, Run> {
    /// Let go of runs if there are too many: closed ones first, then those of the tenant that has most. The ledger knows them.
    fn make_room(&mut self) {
        if self.is_full() {
            self.let_go(|_, run| !run.is_open());
        }
        if self.is_full() {
            let mut counts: HashMap<&TenantName, usize> = HashMap::new();
            for run in self.kept.values() {
                *counts.entry(&run.principal.tenant).or_default() += 1;
            }
            let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(tenant, _)| tenant.clone());
            self.let_go(|_, run| Some(&run.principal.tenant) == most.as_ref());
        }
        if self.is_full() {
            self.let_go(|_, _| true);
        }
    }
}

impl Part<Day, Account> {
    /// Let go of yesterday's balances, and of all if there are too many: an agent names workflows as it likes.
    fn make_room(&mut self, today: u64) {
        self.let_go(|(_, _, day), _| *day < today);
        if self.is_full() {
            self.let_go(|_, _| true);
        }
    }
}

/// What is there, or how often things changed around it.
enum Look<V> {
    Here(Arc<V>),
    Missing(u64),
}

/// Things by their key, in parts.
#[derive(Debug)]
struct Parts<K, V> {
    parts: Vec<Mutex<Part<K, V>>>,
    hasher: RandomState,
}

impl<K: Clone + Eq + Hash, V> Parts<K, V> {
    fn new() -> Self {
        let part = || Mutex::new(Part { kept: HashMap::new(), changes: 0 });
        Self { parts: (0..PARTS).map(|_| part()).collect(), hasher: RandomState::new() }
    }

    fn with<T>(&self, key: &K, work: impl FnOnce(&mut Part<K, V>) -> T) -> T {
        let number = usize::try_from(self.hasher.hash_one(key) % PARTS as u64).unwrap_or(0);
        match self.parts.get(number) {
            Some(part) => work(&mut part.lock().unwrap_or_else(PoisonError::into_inner)),
            // There are as many as the remainder can name.
            None => work(&mut Part { kept: HashMap::new(), changes: 0 }),
        }
    }

    fn look(&self, key: &K) -> Look<V> {
        self.with(key, |part| match part.kept.get(key) {
            Some(value) => Look::Here(Arc::clone(value)),
            None => Look::Missing(part.changes),
        })
    }

    fn get(&self, key: &K) -> Option<Arc<V>> {
        self.with(key, |part| part.kept.get(key).cloned())
    }

    /// Keep what was made while nothing had changed but `changes` times. Gives what is there in the end; nothing if it has to be
    /// made again.
    fn keep(&self, key: &K, made: &Arc<V>, changes: u64, make_room: impl FnOnce(&mut Part<K, V>)) -> Option<Arc<V>> {
        self.with(key, |part| {
            if let Some(value) = part.kept.get(key) {
                return Some(Arc::clone(value));
            }
            if part.changes != changes {
                return None;
            }
            make_room(part);
            part.kept.insert(key.clone(), Arc::clone(made));
            Some(Arc::clone(made))
        })
    }

    /// Something was given back to this: whoever makes it at this moment makes it again.
    fn change(&self, key: &K, tell: impl FnOnce(&V)) {
        self.with(key, |part| {
            part.changes += 1;
            if let Some(value) = part.kept.get(key) {
                tell(value);
            }
        });
    }
}

/// The balance of a session, for as long as it stands.
#[derive(Debug)]
struct Purse {
    account: Arc<Account>,
    standing: Arc<Standing>,
}

/// The shelf.
#[derive(Debug)]
pub(super) struct Shelf {
    ledger: Ledger,
    ceilings: Vec<Ceiling>,
    runs: Parts<RunId, Run>,
    days: Parts<Day, Account>,
    purses: Mutex<HashMap<SessionId, Purse>>,
    /// What the ledger gives back reaches its balances in one go.
    settling: Mutex<()>,
}

impl Shelf {
    pub(super) fn new(ledger: Ledger, ceilings: Vec<Ceiling>) -> Self {
        Self {
            ledger,
            ceilings,
            runs: Parts::new(),
            days: Parts::new(),
            purses: Mutex::default(),
            settling: Mutex::default(),
        }
    }

    /// A run that is in memory.
    pub(super) fn known(&self, id: RunId) -> Option<Arc<Run>> {
        self.runs.get(&id)
    }

    /// A run that begins.
    pub(super) fn add(&self, run: Arc<Run>) {
        let id = run.id;
        self.runs.with(&id, |part| {
            part.make_room();
            part.kept.insert(id, run);
        });
    }

    /// A run, from memory or from the ledger.
    pub(super) async fn run(&self, id: RunId) -> Result<Option<Arc<Run>>, Refusal> {
        loop {
            let changes = match self.runs.look(&id) {
                Look::Here(run) => return Ok(Some(run)),
                Look::Missing(changes) => changes,
            };
            let past = self.ledger.run_past(id).await.map_err(|error| error.refusal())?;
            let Some(past) = past else { return Ok(None) };
            let run = Arc::new(Run::of_past(past)?);
            self.settle();
            if let Some(run) = self.runs.keep(&id, &run, changes, Part::<RunId, Run>::make_room) {
                return Ok(Some(run));
            }
        }
    }

    /// The balance of a ceiling for a subject on the day of a charge.
    pub(super) async fn ceiling(
        &self,
        (at, ceiling): (usize, &Ceiling),
        subject: Arc<str>,
        to: &Charged,
    ) -> Result<Arc<Account>, Refusal> {
        let key = (at, Arc::clone(&subject), to.day);
        loop {
            let changes = match self.days.look(&key) {
                Look::Here(account) => return Ok(account),
                Look::Missing(changes) => changes,
            };
            let used = self.ledger.charged_on(ceiling.counts(to)).await.map_err(|error| error.refusal())?;
            let times = self.ledger.allowance(&ceiling.name, &subject, to.day).await.map_err(|e| e.refusal())?;
            let limits = (0..times).fold(ceiling.limits, |limits, _| limits.raised(&ceiling.limits));
            self.settle();
            let whose = Whose::Ceiling { name: Arc::clone(&ceiling.name), subject: Arc::clone(&subject), day: to.day };
            let account = Arc::new(Account::new(whose, ceiling.over, limits, used));
            let room = |part: &mut Part<Day, Account>| part.make_room(to.day);
            if let Some(account) = self.days.keep(&key, &account, changes, room) {
                return Ok(account);
            }
        }
    }

    /// Balances of ceilings on a day whose subject is the tenant or somebody of it.
    pub(super) fn ceilings_of(&self, tenant: &TenantName, today: u64) -> Vec<Arc<Account>> {
        let of_tenant = |subject: &str| subject.split('/').next() == Some(tenant.as_str());
        let mut found: Vec<(Day, Arc<Account>)> = Vec::new();
        for part in &self.days.parts {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let of_today = part.kept.iter().filter(|((_, subject, day), _)| *day == today && of_tenant(subject));
            found.extend(of_today.map(|(key, account)| (key.clone(), Arc::clone(account))));
        }
        found.sort_by(|(one, _), (two, _)| one.cmp(two));
        found.into_iter().map(|(_, account)| account).collect()
    }

    fn purses(&self) -> MutexGuard<'_, HashMap<SessionId, Purse>> {
        self.purses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session has a balance from now on.
    pub(super) fn give_purse(&self, session: SessionId, account: Account, standing: Arc<Standing>) {
        self.purses().insert(session, Purse { account: Arc::new(account), standing });
    }

    /// The balance of a session, if it has one.
    pub(super) fn purse(&self, session: SessionId) -> Option<Arc<Account>> {
        self.purses().get(&session).map(|purse| Arc::clone(&purse.account))
    }

    /// Forget balances of sessions that do not stand any more.
    pub(super) fn sweep(&self, now_ms: u64) {
        self.purses().retain(|_, purse| purse.standing.check(now_ms).is_ok());
    }

    /// What was given back reaches its balances, if there is anything.
    pub(super) fn settle_refunds(&self) {
        if self.ledger.has_refunds() {
            self.settle();
        }
    }

    /// What was given back reaches its balances, also what somebody else has just taken for it.
    fn settle(&self) {
        let _one = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        for Refund { to, amounts } in self.ledger.take_refunds() {
            if let Some(run) = to.run {
                self.runs.change(&run, |run| run.account.refund(&amounts));
            }
            for (at, ceiling) in self.ceilings.iter().enumerate() {
                if let Some(subject) = ceiling.subject(&to) {
                    self.days.change(&(at, subject, to.day), |account| account.refund(&amounts));
                }
            }
            let purses = to.session.ids().filter_map(|session| self.purse(session));
            purses.for_each(|account| account.refund(&amounts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolkeep_core::budget::{Amounts, Limits, OverBudget};

    fn account() -> Arc<Account> {
        Arc::new(Account::new(Whose::Run, OverBudget::Stop, Limits::default(), Amounts::default()))
    }

    fn day(subject: usize, day: u64) -> Day {
        (0, subject.to_string().into(), day)
    }

    /// Keep an account as whoever makes one does.
    fn keep(days: &Parts<Day, Account>, key: &Day, today: u64) -> Arc<Account> {
        let Look::Missing(changes) = days.look(key) else { panic!("it is there") };
        days.keep(key, &account(), changes, |part| part.make_room(today)).expect("kept")
    }

    #[test]
    fn r27_what_is_given_back_while_a_balance_is_made_makes_it_anew_and_the_first_one_is_everybodys() {
        let (days, key) = (Parts::new(), day(1, 7));
        let Look::Missing(changes) = days.look(&key) else { panic!("nothing is there") };
        days.change(&key, |_: &Account| panic!("nobody has it"));
        assert!(days.keep(&key, &account(), changes, |_| ()).is_none(), "what was read may be older than the refund");
        let first = keep(&days, &key, 7);
        let second = days.keep(&key, &account(), 1, |_| ()).expect("kept");
        assert!(Arc::ptr_eq(&first, &second), "whoever is slower takes the other's");
        let mut told = 0;
        days.change(&key, |_| told += 1);
        assert_eq!(told, 1);
    }

    #[test]
    fn r27_balances_of_more_subjects_than_fit_are_let_go_of_unless_somebody_uses_them() {
        let days = Parts::new();
        let used = keep(&days, &day(0, 7), 7);
        for subject in 1..3 * PARTS * PART_MAX {
            drop(keep(&days, &day(subject, 7), 7));
        }
        let held: usize = days.parts.iter().map(|part| part.lock().expect("a part").kept.len()).sum();
        assert!(held <= PARTS * PART_MAX, "{held}");
        assert!(matches!(days.look(&day(0, 7)), Look::Here(account) if Arc::ptr_eq(&account, &used)));
        let gone = (1..PART_MAX).find(|subject| days.get(&day(*subject, 7)).is_none()).expect("one that was let go of");
        assert!(
            matches!(days.look(&day(gone, 7)), Look::Missing(changes) if changes > 0),
            "whoever makes it reads again"
        );
    }

    #[test]
    fn r27_yesterdays_balances_go_with_the_first_of_today() {
        let mut part = Part { kept: HashMap::new(), changes: 0 };
        let running = account();
        part.kept.insert(day(1, 6), Arc::clone(&running));
        part.kept.insert(day(2, 6), account());
        part.kept.insert(day(3, 7), account());
        part.make_room(7);
        let mut left: Vec<u64> = part.kept.keys().map(|(_, subject, _)| subject.parse().expect("a number")).collect();
        left.sort_unstable();
        assert_eq!(left, [1, 3], "a call that runs over midnight is settled where it began");
    }
}
