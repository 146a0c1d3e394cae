//! Rates: how often each principal, person, agent and tenant may call, and how often each tool.
//!
//! Rules come from the configuration and from manifests. A call takes one from the bucket of every rule that is about it,
//! or from none: what a later rule refuses is given back to the earlier ones. Buckets are in memory: they are about seconds
//! and minutes, and a restart fills them. What has to outlast a restart is a quota, and lies in the ledger.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use toolkeep_core::bucket::{Allowance, Level};
use toolkeep_core::digest::Digest;
use toolkeep_core::principal::Principal;
use toolkeep_core::rate::{Per, RateRule};
use toolkeep_core::refusal::{Code, Refusal};

use crate::ambient::{Ambient, Stopwatch};
use crate::catalog::Tool;

/// Parts of the memory that are locked apart.
const SHARDS: usize = 16;
/// Buckets of one part that are not full, at most: beyond it calls that need another one wait until some are full again.
const BUCKETS_MAX: usize = 16_384;
/// Runs that a tenant opens in a minute, at most: more than agents have tasks, and few beside what is kept of open runs.
pub const RUNS_PER_MINUTE: u64 = 10_000;
/// Where the rule about runs stands: no other stands there.
const OF_RUNS: usize = usize::MAX;
/// What a caller is told to wait where there is no room for its bucket, in nanoseconds.
const CROWDED_NS: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// Counts calls.
#[derive(Debug)]
pub struct Throttle {
    rules: Arc<[RateRule]>,
    runs: RateRule,
    shards: Vec<Mutex<HashMap<BucketName, Level>>>,
    hasher: RandomState,
    clock: Stopwatch,
}

/// Whose bucket of which rule it is: where the rule stands, and whom it counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct BucketName {
    manifest: Option<Digest>,
    place: usize,
    tenant: Box<str>,
    user: Box<str>,
    agent: Box<str>,
}

impl BucketName {
    fn new(manifest: Option<Digest>, place: usize, rule: &RateRule, principal: &Principal) -> Self {
        let (tenant, user, agent) = rule.per.counted(principal);
        Self { manifest, place, tenant: tenant.into(), user: user.into(), agent: agent.into() }
    }
}

impl Throttle {
    /// With the rules of the configuration.
    #[must_use]
    pub fn new(rules: Vec<RateRule>, ambient: &Ambient) -> Self {
        Self {
            rules: rules.into(),
            runs: RateRule { per: Per::Tenant, tool: None, rate: Allowance::per_minute(RUNS_PER_MINUTE).into() },
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            clock: ambient.stopwatch(),
        }
    }

    /// Count a call.
    ///
    /// # Errors
    /// `rate_limited`, with how long to wait. Then the call is not counted.
    pub fn take(&self, principal: &Principal, tool: &Tool) -> Result<(), Refusal> {
        let own = &tool.manifest.rates;
        if self.rules.is_empty() && own.is_empty() {
            return Ok(());
        }
        let now_ns = u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let general = self.rules.iter().enumerate().map(|(place, rule)| (None, place, rule));
        let general = general.filter(|(_, _, rule)| rule.is_about(&tool.name));
        let own = own.iter().enumerate().map(|(place, rule)| (Some(tool.manifest.digest), place, rule));
        let mut taken: Vec<(BucketName, &RateRule)> = Vec::new();
        for (manifest, place, rule) in general.chain(own) {
            let name = BucketName::new(manifest, place, rule, principal);
            if let Err(wait_ns) = self.take_from(&name, rule, now_ns) {
                for (name, rule) in taken {
                    self.give_back(&name, rule);
                }
                return Err(refusal(rule, wait_ns));
            }
            taken.push((name, rule));
        }
        Ok(())
    }

    /// Count a run that is opened.
    ///
    /// # Errors
    /// `rate_limited`, with how long to wait.
    pub fn take_run(&self, principal: &Principal) -> Result<(), Refusal> {
        let now_ns = u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let name = BucketName::new(None, OF_RUNS, &self.runs, principal);
        self.take_from(&name, &self.runs, now_ns).map_err(|wait_ns| {
            Refusal::new(Code::RateLimited, format!("a tenant opens at most {RUNS_PER_MINUTE} runs in a minute"))
                .after_ms(wait_ns.div_ceil(NS_PER_MS))
        })
    }

    fn take_from(&self, name: &BucketName, rule: &RateRule, now_ns: u64) -> Result<(), u64> {
        self.with(name, |buckets| {
            if let Some(level) = buckets.get_mut(name) {
                *level = rule.rate.take(*level, now_ns)?;
                return Ok(());
            }
            if buckets.len() >= BUCKETS_MAX {
                // A full bucket is like none.
                buckets.retain(|_, level| !level.is_full(now_ns));
                if buckets.len() >= BUCKETS_MAX {
                    return Err(CROWDED_NS);
                }
            }
            let level = rule.rate.take(Level::default(), now_ns)?;
            buckets.insert(name.clone(), level);
            Ok(())
        })
    }

    fn give_back(&self, name: &BucketName, rule: &RateRule) {
        self.with(name, |buckets| {
            if let Some(level) = buckets.get_mut(name) {
                *level = rule.rate.give_back(*level);
            }
        });
    }

    fn with<T>(&self, name: &BucketName, work: impl FnOnce(&mut HashMap<BucketName, Level>) -> T) -> T {
        let number = usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).unwrap_or(0);
        match self.shards.get(number) {
            Some(shard) => work(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)),
            // There are as many as the remainder can name.
            None => work(&mut HashMap::new()),
        }
    }
}

fn refusal(rule: &RateRule, wait_ns: u64) -> Refusal {
    let of = rule.tool.as_ref().map_or_else(String::new, |tool| format!(" of `{tool}`"));
    let message = format!("more than {} calls{of} for each {}", rule.rate.allowance(), rule.per.word());
    Refusal::new(Code::RateLimited, message).after_ms(wait_ns.div_ceil(NS_PER_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn r29_a_tenant_opens_as_many_runs_in_a_minute_as_it_may_and_others_are_not_in_its_way() {
        let ambient = Ambient::fixed(1_000, 1, BTreeMap::new());
        let throttle = Throttle::new(Vec::new(), &ambient);
        let of = |tenant: &str| Principal {
            tenant: tenant.parse().expect("a name"),
            user: "u".parse().expect("a name"),
            agent: "a".parse().expect("a name"),
        };
        let (acme, globex) = (of("acme"), of("globex"));
        for _ in 0..RUNS_PER_MINUTE {
            throttle.take_run(&acme).expect("a run");
        }
        assert_eq!(throttle.take_run(&acme).expect_err("one more").code, Code::RateLimited);
        throttle.take_run(&globex).expect("another tenant's");
        ambient.advance(Duration::from_secs(1));
        throttle.take_run(&acme).expect("a moment later");
    }
}
