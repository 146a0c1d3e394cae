//! Idempotency keys: which call a key names, and what a retry is told (D8).
//!
//! Calls that run are remembered in memory only: a daemon that stops forgets them, which releases their keys, unless
//! an intent was made durable first. Calls that came to rest are rows. A claim therefore reads the rows first and takes
//! the key in memory only if no call let go of its key in between; the epoch of the shard says so.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::params;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, PlanId, ToolName};
use toolkeep_core::principal::Principal;

use super::Ledger;
use super::column::Reading;
use super::failure::LedgerError;
use super::statement::row;
use crate::vault::Part;

/// Parts of the memory that are locked apart, so that calls with different keys do not wait for each other.
const SHARDS: usize = 64;

/// A call that wants to be known by a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyClaim {
    /// Who acts. Keys of different principals never meet.
    pub principal: Principal,
    /// Which tool.
    pub tool: ToolName,
    /// The key.
    pub key: Arc<str>,
    /// Digest of tool, input, mode and transaction.
    pub request: Digest,
    /// The call that would be made.
    pub call: CallId,
}

/// What a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Nothing yet: the call may run. It ends by `record_call`, `propose`, `outcome`, or `forget_call`.
    Fresh,
    /// A call that ended: this is its reply, byte for byte.
    Stored {
        /// The call.
        call: CallId,
        /// Its reply.
        reply: Arc<str>,
    },
    /// A call that runs now.
    InFlight {
        /// The call.
        call: CallId,
    },
    /// A call that waits for an approval, or for a commit of its preview: its reply as it stands.
    Unfinished {
        /// The call.
        call: CallId,
        /// Its reply so far.
        reply: Arc<str>,
    },
    /// Another request.
    Mismatch,
}

/// What a key is unique within.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct KeyName {
    principal: Principal,
    tool: ToolName,
    key: Arc<str>,
}

impl From<&KeyClaim> for KeyName {
    fn from(claim: &KeyClaim) -> Self {
        Self { principal: claim.principal.clone(), tool: claim.tool.clone(), key: Arc::clone(&claim.key) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Running {
    call: CallId,
    request: Digest,
}

impl Running {
    fn answer(&self, claim: &KeyClaim) -> Claimed {
        if self.request == claim.request { Claimed::InFlight { call: self.call } } else { Claimed::Mismatch }
    }
}

#[derive(Debug, Default)]
struct Shard {
    /// How often a key of this shard was let go.
    epoch: u64,
    running: HashMap<KeyName, Running>,
}

/// The keys of calls by call, and by the plan that they are committing.
#[derive(Debug, Default)]
struct Names {
    calls: HashMap<CallId, KeyName>,
    plans: HashMap<PlanId, CallId>,
}

/// The keys of calls that run now.
#[derive(Debug)]
pub(super) struct Keys {
    shards: Vec<Mutex<Shard>>,
    names: Mutex<Names>,
    hasher: RandomState,
}

impl Keys {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, names: Mutex::default(), hasher: RandomState::new() }
    }

    fn with<T>(&self, name: &KeyName, look: impl FnOnce(&mut Shard) -> T) -> Option<T> {
        let shard = usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).ok()?;
        let shard = self.shards.get(shard)?;
        Some(look(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the memory alone says: the key is that of a call that runs.
    pub(super) fn running(&self, claim: &KeyClaim) -> Option<Claimed> {
        let name = KeyName::from(claim);
        self.with(&name, |shard| shard.running.get(&name).map(|running| running.answer(claim))).flatten()
    }

    /// Read this before the rows are read.
    pub(super) fn epoch(&self, claim: &KeyClaim) -> u64 {
        self.with(&KeyName::from(claim), |shard| shard.epoch).unwrap_or(0)
    }

    /// Take a key that no row names. Nothing if a key of the shard was let go since `epoch`: read the rows again.
    pub(super) fn take(&self, claim: &KeyClaim, epoch: u64) -> Option<Claimed> {
        let name = KeyName::from(claim);
        let claimed = self.with(&name, |shard| {
            if let Some(running) = shard.running.get(&name) {
                return Some(running.answer(claim));
            }
            if shard.epoch != epoch {
                return None;
            }
            shard.running.insert(name.clone(), Running { call: claim.call, request: claim.request });
            Some(Claimed::Fresh)
        })??;
        if claimed == Claimed::Fresh {
            self.names().calls.insert(claim.call, name);
        }
        Some(claimed)
    }

    /// A call that runs is committing a plan.
    pub(super) fn commits(&self, call: CallId, plan: PlanId) {
        let mut names = self.names();
        if names.calls.contains_key(&call) {
            names.plans.insert(plan, call);
        }
    }

    /// The commit of a plan ended, and with it the call that ran for it.
    pub(super) fn let_go_of(&self, plan: PlanId) {
        let call = self.names().plans.remove(&plan);
        if let Some(call) = call {
            self.let_go(call);
        }
    }

    /// A call runs no more: whatever its key names now is in the rows, or will be after a barrier.
    pub(super) fn let_go(&self, call: CallId) {
        let Some(name) = self.names().calls.remove(&call) else { return };
        let _gone = self.with(&name, |shard| {
            if shard.running.get(&name).is_some_and(|running| running.call == call) {
                shard.running.remove(&name);
                shard.epoch = shard.epoch.wrapping_add(1);
            }
        });
    }
}

impl Ledger {
    /// Ask what a key names, and take it for `claim.call` if it names nothing.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn claim_key(&self, claim: KeyClaim) -> Result<Claimed, LedgerError> {
        loop {
            // A call that commits has rows already, but is not at rest.
            if let Some(claimed) = self.shared.keys.running(&claim) {
                if let Claimed::InFlight { call } = claimed
                    && self.shared.promises.of(call).await
                {
                    // It stood already when this was asked: now its rows say so.
                    continue;
                }
                return Ok(claimed);
            }
            let epoch = self.shared.keys.epoch(&claim);
            if let Some(claimed) = self.key_row(&claim).await? {
                if !matches!(claimed, Claimed::Unfinished { .. }) {
                    return Ok(claimed);
                }
                // A stored plan of it may stand already, and its rows will say so.
                self.shared.promises.all().await;
                if let Some(claimed) = self.key_row(&claim).await? {
                    return Ok(claimed);
                }
                continue;
            }
            if let Some(claimed) = self.shared.keys.take(&claim, epoch) {
                return Ok(claimed);
            }
        }
    }

    /// What the rows say about a key.
    async fn key_row(&self, claim: &KeyClaim) -> Result<Option<Claimed>, LedgerError> {
        // A promised outcome of this key is waited for in `claim_key`; those of others are not its business.
        self.enqueued_settled().await?;
        let sql = "SELECT i.request, c.id, c.final, c.reply FROM idempotency i JOIN calls c ON c.seq = i.call_seq \
                   WHERE i.tenant = ?1 AND i.user = ?2 AND i.agent = ?3 AND i.tool = ?4 AND i.key = ?5";
        let (claim, vault) = (claim.clone(), self.vault());
        self.read(move |conn| {
            let who = &claim.principal;
            let name =
                params![who.tenant.as_str(), who.user.as_str(), who.agent.as_str(), claim.tool.as_str(), claim.key];
            row(conn, sql, name, |row| {
                let reading = Reading::new(row, "idempotency");
                if reading.digest("request")? != claim.request {
                    return Ok(Claimed::Mismatch);
                }
                let (call, reply) = (CallId::new(reading.uuid("id")?), reading.text("reply")?);
                // A key is let go of before its reply is; were it not, nothing may run a second time for it.
                let gone = || LedgerError::Refused("the reply of this idempotency key cannot be read any more".into());
                let reply = vault.read(Part::Reply, reply)?.clear().ok_or_else(gone)?;
                let is_final = reading.number("final")? == 1;
                Ok(if is_final { Claimed::Stored { call, reply } } else { Claimed::Unfinished { call, reply } })
            })
        })
        .await
    }

    /// Forget that a call runs: it ended in a way that no row tells. Its key, if it held one, is free again.
    pub fn forget_call(&self, call: CallId) {
        self.shared.keys.let_go(call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn claim(call: u128, request: &[u8]) -> KeyClaim {
        KeyClaim {
            principal: Principal {
                tenant: "t".parse().expect("name"),
                user: "u".parse().expect("name"),
                agent: "a".parse().expect("name"),
            },
            tool: "x".parse().expect("name"),
            key: Arc::from("k"),
            request: Digest::of(request),
            call: CallId::new(Uuid::from_u128(call)),
        }
    }

    #[test]
    fn r32_a_key_is_taken_once_and_only_if_nothing_was_let_go_meanwhile() {
        let keys = Keys::new();
        let (one, two) = (claim(1, b"a"), claim(2, b"a"));
        let epoch = keys.epoch(&one);
        assert_eq!(keys.take(&one, epoch), Some(Claimed::Fresh));
        assert_eq!(keys.take(&two, epoch), Some(Claimed::InFlight { call: one.call }));
        assert_eq!(keys.take(&claim(3, b"b"), epoch), Some(Claimed::Mismatch));
        keys.let_go(two.call);
        assert_eq!(
            keys.take(&two, epoch),
            Some(Claimed::InFlight { call: one.call }),
            "only its call lets go of a key"
        );
        keys.let_go(one.call);
        assert_eq!(keys.take(&two, epoch), None, "the rows have to be read again");
        assert_eq!(keys.take(&two, keys.epoch(&two)), Some(Claimed::Fresh));
    }
}
