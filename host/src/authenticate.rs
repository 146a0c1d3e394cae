//! Stage 1, authenticate: from the credentials of a connection to a [`Caller`] or an [`Operator`].
//!
//! Local peers are known by the uid that the kernel reports; nothing in a request can change it. A peer may show a credential
//! instead, as its first message: a minted token, a session that somebody delegated, or a signed statement of an issuer. The
//! two proofs are different types: what takes an [`Operator`] cannot be reached from the agent plane, whoever connects there.
//! Where agent and operator share a uid, the kernel cannot tell them apart, so the admin plane also wants the token that only
//! the operator can read. A proof by uid costs nothing per request; every other one is asked each time whether it still stands.

pub mod issuer;
mod jwks;
mod jws;
pub mod registry;
pub mod secret;
pub mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toolkeep_core::capability::Access;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{TenantName, UserName, WorkspaceName};
use toolkeep_core::principal::{Credential, Origin, Principal};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::session::Held;

use crate::config::{Config, OperatorIdentity};
use crate::metrics::{Slot, TenantSeries};
use issuer::Issuers;
use registry::{Registry, Who};
use standing::{Over, Standing};

/// What the kernel says about the other end of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, for the log.
    pub pid: Option<i32>,
}

/// Proof: an agent-plane connection of a known principal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Identity>);

#[derive(Debug)]
struct Identity {
    principal: Principal,
    origin: Origin,
    /// What it holds of what the principal may do; nothing for all of it.
    held: Option<Held>,
    /// Nothing for what stands as long as the daemon runs.
    standing: Option<Arc<Standing>>,
    /// What is counted of the tenant.
    series: Slot<TenantSeries>,
}

/// Proof: an admin-plane connection of a known operator.
#[derive(Debug, Clone)]
pub struct Operator {
    identity: OperatorIdentity,
    credential: Credential,
    standing: Option<Arc<Standing>>,
}

impl Caller {
    fn new(principal: Principal, origin: Origin, held: Option<Held>, standing: Option<Arc<Standing>>) -> Self {
        Self(Arc::new(Identity { principal, origin, held, standing, series: Slot::default() }))
    }

    /// Who acts.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// How they were authenticated, and through which sessions they act.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// Where what is counted of the tenant is kept once it is found.
    #[must_use]
    pub fn series(&self) -> &Slot<TenantSeries> {
        &self.0.series
    }

    /// Both.
    #[must_use]
    pub fn who(&self) -> (&Principal, &Origin) {
        (self.principal(), self.origin())
    }

    /// What the credential holds of what the principal may do; nothing for all of it.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.0.held.as_ref()
    }

    /// Until when the credential stands, and what may still be used of it; nothing for a peer that is known by its uid.
    #[must_use]
    pub fn standing(&self) -> Option<&Arc<Standing>> {
        self.0.standing.as_ref()
    }

    /// Whether what `principal` made by `origin` is the caller's: its own, or that of a session below its own. A credential
    /// that holds less than the principal may do has made only what was made by it: what others made may be more than it holds.
    #[must_use]
    pub fn owns(&self, principal: &Principal, origin: &Origin) -> bool {
        let own = &self.0.origin;
        let by_it = self.0.held.is_none() || own.credential == origin.credential;
        self.0.principal == *principal && origin.session.is_within(&own.session) && by_it
    }

    /// The most that the credential lets a call do in a workspace; nothing if it is not held.
    #[must_use]
    pub fn access(&self, workspace: &WorkspaceName) -> Option<Access> {
        self.held().map_or(Some(Access::Write), |held| held.access(workspace))
    }

    /// Whether the credential still stands.
    ///
    /// # Errors
    /// `unauthorized`: it expired, or somebody took it back.
    pub fn check(&self, now_ms: impl FnOnce() -> u64) -> Result<(), Refusal> {
        match &self.0.standing {
            None => Ok(()),
            Some(standing) => standing.check(now_ms()).map_err(Over::refusal),
        }
    }

    /// Count one call against what the credential, and every one that it comes from, may make in all.
    ///
    /// # Errors
    /// `budget_exceeded`.
    pub fn spend_call(&self) -> Result<(), Refusal> {
        self.0.standing.as_ref().map_or(Ok(()), |standing| standing.spend_call())
    }

    /// The caller of a call that is on record and goes on by itself. It comes from no connection, and holds what the
    /// credential of that call held.
    pub(crate) fn resumed((principal, origin): (&Principal, &Origin), held: Option<Held>) -> Self {
        Self::new(principal.clone(), origin.clone(), held, None)
    }
}

impl Operator {
    /// The person.
    #[must_use]
    pub const fn user(&self) -> &UserName {
        &self.identity.user
    }

    /// The tenant whose calls the operator sees.
    #[must_use]
    pub const fn tenant(&self) -> &TenantName {
        &self.identity.tenant
    }

    /// The groups whose consent the operator can give.
    #[must_use]
    pub const fn groups(&self) -> &BTreeSet<String> {
        &self.identity.groups
    }

    /// What authenticated the connection.
    #[must_use]
    pub const fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Until when the credential stands; nothing for what stands as long as the daemon runs.
    #[must_use]
    pub const fn standing(&self) -> Option<&Arc<Standing>> {
        self.standing.as_ref()
    }

    /// Whether the credential still stands.
    ///
    /// # Errors
    /// `unauthorized`: it expired, or somebody took it back.
    pub fn check(&self, now_ms: impl FnOnce() -> u64) -> Result<(), Refusal> {
        match &self.standing {
            None => Ok(()),
            Some(standing) => standing.check(now_ms()).map_err(Over::refusal),
        }
    }
}

/// Maps peers and credentials to principals.
#[derive(Debug)]
pub struct Authenticator {
    principals: BTreeMap<u32, Caller>,
    operators: BTreeMap<u32, OperatorIdentity>,
    admin_token: Digest,
    tokens_only: bool,
    registry: Registry,
    issuers: Issuers,
}

impl Authenticator {
    /// `admin_token` is the SHA-256 of the token in the admin folder.
    #[must_use]
    pub fn new(config: &Config, admin_token: Digest, issuers: Issuers) -> Self {
        let caller = |(uid, principal): (&u32, &Principal)| {
            (*uid, Caller::new(principal.clone(), Origin::of(Credential::AgentUid(*uid)), None, None))
        };
        Self {
            principals: config.principals.iter().map(caller).collect(),
            operators: config.operators.clone(),
            admin_token,
            tokens_only: config.tokens_only,
            registry: Registry::default(),
            issuers,
        }
    }

    /// Minted tokens and sessions.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Issuers of signed statements.
    #[must_use]
    pub const fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Whether a uid is the principal's, so that what was delegated from it still stands.
    #[must_use]
    pub fn is_mapped(&self, uid: u32, principal: &Principal) -> bool {
        !self.tokens_only && self.principals.get(&uid).is_some_and(|caller| caller.principal() == principal)
    }

    /// Whether the configuration still has an operator of this name, tenant and groups, so that a token in that name stands.
    #[must_use]
    pub fn has_operator(&self, tenant: &TenantName, user: &UserName, groups: &BTreeSet<String>) -> bool {
        let same = |known: &OperatorIdentity| known.tenant == *tenant && known.user == *user;
        self.operators.values().any(|known| same(known) && groups.is_subset(&known.groups))
    }

    /// Whether a peer that is nobody by its uid may be somebody by what it shows.
    #[must_use]
    pub fn takes_credentials(&self) -> bool {
        self.tokens_only || !self.issuers.is_empty() || self.registry.has_agents()
    }

    /// Who connects to the agent socket.
    ///
    /// # Errors
    /// `unauthorized`: the uid is not mapped, or uids count for nothing here.
    pub fn caller(&self, peer: Peer) -> Result<Caller, Refusal> {
        if self.tokens_only {
            return Err(Refusal::new(Code::Unauthorized, "this daemon knows agents by their tokens only")
                .hint("show a token first, with `session.authenticate`; the CLI takes it from `TOOLKEEP_TOKEN`"));
        }
        self.principals
            .get(&peer.uid)
            .cloned()
            .ok_or_else(|| Refusal::new(Code::Unauthorized, format!("uid {} is not mapped to a principal", peer.uid)))
    }

    /// Who shows this on the agent socket: a minted token, a session, or a signed statement.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn shown(&self, text: &str, now_ms: u64) -> Result<Caller, Refusal> {
        let text = text.trim();
        if text.is_empty() {
            return Err(blank());
        }
        if secret::is_minted(text) {
            return match self.registry.find(text, now_ms)? {
                Who::Agent(caller) => Ok(caller),
                Who::Operator(_) => Err(wrong_plane("admin")),
            };
        }
        let statement = self.issuers.verify(text, now_ms)?;
        let standing = Standing::of_statement(statement.expires_ms);
        let origin = Origin::of(Credential::Issuer(statement.issuer));
        Ok(Caller::new(statement.principal, origin, None, Some(Arc::new(standing))))
    }

    /// Who shows this where there is no uid: a token that was minted for the admin plane.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn operator_of_token(&self, text: &str, now_ms: u64) -> Result<Operator, Refusal> {
        let text = text.trim();
        if text.is_empty() {
            return Err(blank());
        }
        if !secret::is_minted(text) {
            return Err(Refusal::new(Code::Unauthorized, "this is not a token that was minted")
                .hint("make one for the admin plane with `toolkeep tokens mint`"));
        }
        match self.registry.find(text, now_ms)? {
            Who::Operator(operator) => Ok(operator),
            Who::Agent(_) => Err(wrong_plane("agent")),
        }
    }

    /// Who connects to the admin socket.
    ///
    /// # Errors
    /// `unauthorized`: the uid is not an operator's, or it is also an agent's and the token is missing or wrong.
    pub fn operator(&self, peer: Peer, token: Option<&str>, now_ms: u64) -> Result<Operator, Refusal> {
        if let Some(text) = token.map(str::trim).filter(|text| secret::is_minted(text)) {
            return match self.registry.find(text, now_ms)? {
                Who::Operator(operator) => Ok(operator),
                Who::Agent(_) => Err(wrong_plane("agent")),
            };
        }
        let identity = self
            .operators
            .get(&peer.uid)
            .ok_or_else(|| Refusal::new(Code::Unauthorized, format!("uid {} is not an operator", peer.uid)))?;
        let shared = self.principals.contains_key(&peer.uid);
        let credential = match token {
            Some(text) if text.trim().is_empty() => return Err(blank()),
            Some(text) if secret::same(&Digest::of(text.trim().as_bytes()), &self.admin_token) => {
                Credential::AdminToken(peer.uid)
            }
            Some(_) => return Err(Refusal::new(Code::Unauthorized, "the admin token is wrong")),
            None if shared => {
                return Err(Refusal::new(
                    Code::Unauthorized,
                    "agent and operator share this uid, so the admin plane needs its token",
                )
                .hint("send the content of the file `admin/token`; the CLI does it by itself"));
            }
            None => Credential::AdminUid(peer.uid),
        };
        Ok(Operator { identity: identity.clone(), credential, standing: None })
    }
}

fn blank() -> Refusal {
    Refusal::new(Code::Unauthorized, "the token is blank").hint("send what `tokens.mint` or `sessions.delegate` gave")
}

fn wrong_plane(plane: &str) -> Refusal {
    Refusal::new(Code::Unauthorized, format!("the token is for the {plane} plane"))
        .hint("a token opens the plane that it was minted for, and no other")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator(principals: &[u32], operators: &[u32]) -> Authenticator {
        let name = "local";
        let principal = || Principal {
            tenant: name.parse().expect("name"),
            user: name.parse().expect("name"),
            agent: name.parse().expect("name"),
        };
        let identity = || OperatorIdentity {
            user: "op".parse().expect("name"),
            tenant: name.parse().expect("name"),
            groups: BTreeSet::new(),
        };
        let caller = |uid: u32| Caller::new(principal(), Origin::of(Credential::AgentUid(uid)), None, None);
        Authenticator {
            principals: principals.iter().map(|uid| (*uid, caller(*uid))).collect(),
            operators: operators.iter().map(|uid| (*uid, identity())).collect(),
            admin_token: Digest::of(b"secret"),
            tokens_only: false,
            registry: Registry::default(),
            issuers: Issuers::default(),
        }
    }

    fn peer(uid: u32) -> Peer {
        Peer { uid, gid: uid, pid: None }
    }

    #[test]
    fn r15_an_unmapped_uid_is_nobody() {
        let doors = authenticator(&[1000], &[0]);
        assert!(doors.caller(peer(1000)).is_ok());
        assert_eq!(doors.caller(peer(1001)).map(|_| ()).map_err(|e| e.code), Err(Code::Unauthorized));
        assert_eq!(doors.operator(peer(1000), None, 0).map(|_| ()).map_err(|e| e.code), Err(Code::Unauthorized));
        assert!(doors.operator(peer(0), None, 0).is_ok());
    }

    #[test]
    fn t_i6_a_shared_uid_needs_the_token_on_the_admin_plane() {
        let doors = authenticator(&[1000], &[1000]);
        assert!(doors.operator(peer(1000), None, 0).is_err());
        assert!(doors.operator(peer(1000), Some("wrong"), 0).is_err());
        for blank in ["", " ", "\n\t"] {
            let refusal = doors.operator(peer(1000), Some(blank), 0).expect_err("blank");
            assert!(refusal.message.contains("blank"), "{refusal:?}");
            assert_eq!(doors.shown(blank, 0).expect_err("blank").message, refusal.message);
        }
        let operator = doors.operator(peer(1000), Some("secret\n"), 0).expect("token");
        assert_eq!(operator.credential(), &Credential::AdminToken(1000));
        assert!(
            authenticator(&[1], &[2]).operator(peer(2), Some("wrong"), 0).is_err(),
            "a wrong token is never ignored"
        );
    }
}
