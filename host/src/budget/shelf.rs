//! Where balances are kept in memory: runs by their id, ceilings by subject and day.
//!
//! A balance is made from the ledger when it is first wanted, one at a time, and from then on only there; it is let go of when
//! nobody uses it and there are too many. What the ledger gives back while a balance is being made is noticed by an epoch, and
//! the balance is made again: counted once, never twice.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use toolkeep_core::id::{RunId, TenantName};
use toolkeep_core::refusal::Refusal;

use super::account::{Account, Whose};
use super::ceiling::Ceiling;
use super::run::Run;
use crate::ledger::{Charged, Ledger, Refund};

/// Parts of the shelf that are locked apart.
const SHARDS: usize = 64;
/// Runs in one part, before those that nobody uses are let go of: 32,768 in all.
const SHARD_MAX: usize = 512;

type Day = (usize, Arc<str>, u64);

/// The shelf.
#[derive(Debug)]
pub(super) struct Shelf {
    ledger: Ledger,
    ceilings: Vec<Ceiling>,
    runs: Vec<Mutex<HashMap<RunId, Arc<Run>>>>,
    days: Mutex<HashMap<Day, Arc<Account>>>,
    hasher: RandomState,
    loading: tokio::sync::Mutex<()>,
    /// How often something was given back.
    epoch: AtomicU64,
}

impl Shelf {
    pub(super) fn new(ledger: Ledger, ceilings: Vec<Ceiling>) -> Self {
        Self {
            ledger,
            ceilings,
            runs: (0..SHARDS).map(|_| Mutex::default()).collect(),
            days: Mutex::default(),
            hasher: RandomState::new(),
            loading: tokio::sync::Mutex::default(),
            epoch: AtomicU64::new(0),
        }
    }

    /// Look into the part where a run would be.
    fn with<T>(&self, id: RunId, look: impl FnOnce(&mut HashMap<RunId, Arc<Run>>) -> T) -> Option<T> {
        let shard = usize::try_from(self.hasher.hash_one(id) % SHARDS as u64).ok()?;
        let shard = self.runs.get(shard)?;
        Some(look(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn days(&self) -> MutexGuard<'_, HashMap<Day, Arc<Account>>> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run that is in memory.
    pub(super) fn known(&self, id: RunId) -> Option<Arc<Run>> {
        self.with(id, |shard| shard.get(&id).cloned()).flatten()
    }

    /// A run that begins.
    pub(super) fn add(&self, run: Arc<Run>) {
        self.with(run.id, |shard| {
            make_room(shard);
            shard.insert(run.id, run);
        });
    }

    /// A run, from memory or from the ledger.
    pub(super) async fn run(&self, id: RunId) -> Result<Option<Arc<Run>>, Refusal> {
        if let Some(run) = self.known(id) {
            return Ok(Some(run));
        }
        let _loading = self.loading.lock().await;
        loop {
            if let Some(run) = self.known(id) {
                return Ok(Some(run));
            }
            let epoch = self.epoch.load(Ordering::Acquire);
            let past = self.ledger.run_past(id).await.map_err(|error| error.refusal())?;
            let Some(past) = past else { return Ok(None) };
            let run = Arc::new(Run::of_past(past)?);
            self.settle(self.ledger.take_all_refunds());
            let kept = self.with(id, |shard| {
                if self.epoch.load(Ordering::Acquire) != epoch {
                    return None;
                }
                make_room(shard);
                shard.insert(id, Arc::clone(&run));
                Some(run)
            });
            if let Some(Some(run)) = kept {
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
        if let Some(account) = self.days().get(&key) {
            return Ok(Arc::clone(account));
        }
        let _loading = self.loading.lock().await;
        loop {
            if let Some(account) = self.days().get(&key) {
                return Ok(Arc::clone(account));
            }
            let epoch = self.epoch.load(Ordering::Acquire);
            let used = self.ledger.charged_on(ceiling.counts(to)).await.map_err(|error| error.refusal())?;
            let times = self.ledger.allowance(&ceiling.name, &subject, to.day).await.map_err(|e| e.refusal())?;
            let limits = (0..times).fold(ceiling.limits, |limits, _| limits.raised(&ceiling.limits));
            self.settle(self.ledger.take_all_refunds());
            let mut days = self.days();
            if self.epoch.load(Ordering::Acquire) == epoch {
                // Yesterday's balances are wanted by calls that still hold them.
                days.retain(|(_, _, day), account| *day >= to.day || Arc::strong_count(account) > 1);
                let whose = Whose::Ceiling { name: Arc::clone(&ceiling.name), subject, day: to.day };
                let account = Arc::new(Account::new(whose, ceiling.over, limits, used));
                days.insert(key, Arc::clone(&account));
                return Ok(account);
            }
        }
    }

    /// Balances of ceilings on a day whose subject is the tenant or somebody of it.
    pub(super) fn ceilings_of(&self, tenant: &TenantName, today: u64) -> Vec<Arc<Account>> {
        let of_tenant = |subject: &str| subject.split('/').next() == Some(tenant.as_str());
        let days = self.days();
        let mut found: Vec<(&Day, &Arc<Account>)> =
            days.iter().filter(|((_, subject, day), _)| *day == today && of_tenant(subject)).collect();
        found.sort_by_key(|(key, _)| (key.0, Arc::clone(&key.1)));
        found.into_iter().map(|(_, account)| Arc::clone(account)).collect()
    }

    /// What was given back reaches its balances.
    pub(super) fn settle_refunds(&self) {
        self.settle(self.ledger.take_refunds());
    }

    fn settle(&self, refunds: Vec<Refund>) {
        for Refund { to, amounts } in refunds {
            // Whoever makes a balance at this moment makes it again, or has put it where it is found now.
            self.epoch.fetch_add(1, Ordering::AcqRel);
            if let Some(run) = to.run.and_then(|run| self.known(run)) {
                run.account.refund(&amounts);
            }
            let days = self.days();
            for (at, ceiling) in self.ceilings.iter().enumerate() {
                let account = ceiling.subject(&to).and_then(|subject| days.get(&(at, subject, to.day)));
                account.into_iter().for_each(|account| account.refund(&amounts));
            }
        }
    }
}

/// Let go of runs that nobody uses, closed ones first: the ledger knows them.
fn make_room(shard: &mut HashMap<RunId, Arc<Run>>) {
    if shard.len() >= SHARD_MAX {
        shard.retain(|_, run| Arc::strong_count(run) > 1 || run.is_open());
    }
    if shard.len() >= SHARD_MAX {
        shard.retain(|_, run| Arc::strong_count(run) > 1);
    }
}
