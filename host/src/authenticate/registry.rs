//! Minted tokens and sessions that stand, in memory: what a text that somebody shows is looked up in.
//!
//! The ledger is where they are kept; this is its copy of those that stand, made at the start and changed with it. A wrong
//! secret, an unknown id and one that was taken back get one answer after the same work.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use toolkeep_core::digest::Digest;
use toolkeep_core::id::{AgentName, TenantName, UserName};
use toolkeep_core::principal::{Origin, Principal};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::session::Held;
use uuid::Uuid;

use super::secret;
use super::standing::{Over, Standing};
use super::{Caller, Operator};
use crate::config::OperatorIdentity;

/// Most tokens and sessions of one tenant that stand at one time: each is less than a kilobyte of memory.
pub const STANDING_MAX: usize = 4_096;

/// Who a credential makes of whoever shows it.
#[derive(Debug, Clone)]
pub enum Who {
    /// A caller of the agent plane.
    Agent(Caller),
    /// An operator of the admin plane.
    Operator(Operator),
}

/// A credential that is to stand.
#[derive(Debug)]
pub struct Grant {
    /// Its record.
    pub id: Uuid,
    /// SHA-256 of its text.
    pub hash: Digest,
    /// The tenant.
    pub tenant: TenantName,
    /// The person.
    pub user: UserName,
    /// The agent; none for an operator.
    pub agent: Option<AgentName>,
    /// The groups of an operator.
    pub groups: BTreeSet<String>,
    /// How whoever shows it came to act.
    pub origin: Origin,
    /// What it holds.
    pub held: Held,
    /// Until when, after what, and how often.
    pub standing: Arc<Standing>,
}

#[derive(Debug)]
struct Entry {
    hash: Digest,
    tenant: TenantName,
    who: Who,
    standing: Arc<Standing>,
}

/// All that stand.
#[derive(Debug, Default)]
pub struct Registry {
    entries: RwLock<HashMap<Uuid, Entry>>,
    agents: AtomicUsize,
}

impl Registry {
    /// Who shows this text.
    ///
    /// # Errors
    /// `unauthorized`: nobody that stands.
    pub fn find(&self, text: &str, now_ms: u64) -> Result<Who, Refusal> {
        let unknown = || {
            Refusal::new(Code::Unauthorized, "the token is not known here, or was revoked")
                .hint("ask the operator for another one")
        };
        // What is no text of ours is compared as well, with nothing.
        let (id, hash) = secret::read(text).unwrap_or((Uuid::nil(), Digest::of(text.as_bytes())));
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&id);
        let kept = entry.map_or_else(|| Digest::of(b""), |entry| entry.hash);
        let (true, Some(entry)) = (secret::same(&hash, &kept), entry) else { return Err(unknown()) };
        match entry.standing.check(now_ms) {
            Ok(()) => Ok(entry.who.clone()),
            Err(Over::Revoked) => Err(unknown()),
            Err(over @ Over::Expired) => Err(over.refusal()),
        }
    }

    /// Whether there is one for the agent plane.
    #[must_use]
    pub fn has_agents(&self) -> bool {
        self.agents.load(Ordering::Acquire) > 0
    }

    /// Whether a tenant may have one more; what does not stand any more is forgotten first.
    ///
    /// # Errors
    /// `overloaded`: there are [`STANDING_MAX`].
    pub fn check_room(&self, tenant: &TenantName, now_ms: u64) -> Result<(), Refusal> {
        let of_tenant = |entries: &HashMap<Uuid, Entry>| entries.values().filter(|e| e.tenant == *tenant).count();
        if of_tenant(&self.entries.read().unwrap_or_else(PoisonError::into_inner)) < STANDING_MAX {
            return Ok(());
        }
        self.sweep(now_ms);
        if of_tenant(&self.entries.read().unwrap_or_else(PoisonError::into_inner)) < STANDING_MAX {
            return Ok(());
        }
        Err(Refusal::new(Code::Overloaded, format!("{STANDING_MAX} tokens and sessions of the tenant stand"))
            .hint("revoke some, or wait until they expire"))
    }

    /// One more stands.
    pub fn insert(&self, grant: Grant) {
        let Grant { id, hash, tenant, user, agent, groups, origin, held, standing } = grant;
        let of = Some(Arc::clone(&standing));
        let who = match agent {
            Some(agent) => {
                let whole = held == Held::default();
                let principal = Principal { tenant: tenant.clone(), user, agent };
                Who::Agent(Caller::new(principal, origin, (!whole).then_some(held), of))
            }
            None => {
                let identity = OperatorIdentity { user, tenant: tenant.clone(), groups };
                Who::Operator(Operator { identity, credential: origin.credential, standing: of })
            }
        };
        let agents = usize::from(matches!(who, Who::Agent(_)));
        let entry = Entry { hash, tenant, who, standing };
        if self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(id, entry).is_none() {
            self.agents.fetch_add(agents, Ordering::AcqRel);
        }
    }

    /// The standing of a credential of this tenant.
    #[must_use]
    pub fn standing(&self, tenant: &TenantName, id: &Uuid) -> Option<Arc<Standing>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(id).filter(|entry| entry.tenant == *tenant).map(|entry| Arc::clone(&entry.standing))
    }

    /// How many calls each of a tenant's has left, for those that are bounded.
    #[must_use]
    pub fn calls_left(&self, id: &Uuid) -> Option<u64> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(id).and_then(|entry| entry.standing.calls_left())
    }

    /// Forget those that do not stand any more.
    pub fn sweep(&self, now_ms: u64) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.standing.check(now_ms).is_ok());
        let agents = entries.values().filter(|entry| matches!(entry.who, Who::Agent(_))).count();
        self.agents.store(agents, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolkeep_core::id::TokenId;
    use toolkeep_core::principal::Credential;

    fn grant(number: u128, tenant: &str, expires_ms: u64) -> Grant {
        let id = Uuid::from_u128(number);
        Grant {
            id,
            hash: Digest::of(format!("tkp_{}_{}", id.as_simple(), "0".repeat(64)).as_bytes()),
            tenant: tenant.parse().expect("name"),
            user: "alice".parse().expect("name"),
            agent: Some("helper".parse().expect("name")),
            groups: BTreeSet::new(),
            origin: Origin::of(Credential::Token(TokenId::new(id))),
            held: Held::default(),
            standing: Arc::new(Standing::new(None, expires_ms, None)),
        }
    }

    fn text(number: u128, secret: char) -> String {
        format!("tkp_{}_{}", Uuid::from_u128(number).as_simple(), secret.to_string().repeat(64))
    }

    #[test]
    fn t_i4_only_the_whole_secret_of_one_that_stands_is_somebody() {
        let registry = Registry::default();
        assert!(!registry.has_agents());
        registry.insert(grant(1, "acme", 100));
        assert!(registry.has_agents());
        let found = registry.find(&text(1, '0'), 99).expect("somebody");
        assert!(matches!(found, Who::Agent(caller) if caller.principal().tenant.as_str() == "acme"));
        let told = |text: &str, now_ms: u64| registry.find(text, now_ms).expect_err("nobody").message;
        let unknown = told("tkp_", 0);
        for wrong in [text(1, '1'), text(2, '0'), text(1, '0').to_uppercase(), String::new()] {
            assert_eq!(told(&wrong, 0), unknown, "{wrong}");
        }
        assert_ne!(told(&text(1, '0'), 100), unknown, "whoever has the secret hears that it has expired");
        assert_eq!(told(&text(1, '1'), 100), unknown);
        let tenant = "acme".parse().expect("name");
        registry.standing(&tenant, &Uuid::from_u128(1)).expect("stands").revoke();
        assert_eq!(told(&text(1, '0'), 0), unknown, "taken back looks like never made");
        let other = "globex".parse().expect("name");
        assert!(registry.standing(&other, &Uuid::from_u128(1)).is_none(), "nor does another tenant reach it");
        registry.sweep(0);
        assert!(!registry.has_agents());
    }

    #[test]
    fn a_tenant_has_as_many_as_it_may_and_not_one_more() {
        let registry = Registry::default();
        let (acme, globex) = ("acme".parse().expect("name"), "globex".parse().expect("name"));
        for number in 1..STANDING_MAX as u128 {
            registry.insert(grant(number, "acme", 100));
        }
        registry.check_room(&acme, 0).expect("room for the last");
        registry.insert(grant(STANDING_MAX as u128, "acme", 50));
        assert_eq!(registry.check_room(&acme, 49).expect_err("full").code, Code::Overloaded);
        registry.check_room(&globex, 49).expect("another tenant has its own room");
        registry.check_room(&acme, 50).expect("what has ended makes room");
    }
}
