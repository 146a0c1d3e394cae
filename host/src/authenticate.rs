//! Stage 1, authenticate: from the credentials of a connection to a [`Caller`] or an [`Operator`].
//!
//! Local peers are known by the uid that the kernel reports; nothing in a request can change it. The two proofs are
//! different types: what takes an [`Operator`] cannot be reached from the agent plane, whoever connects there. Where
//! agent and operator share a uid, the kernel cannot tell them apart, so the admin plane also wants the token that only
//! the operator can read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toolkeep_core::digest::Digest;
use toolkeep_core::id::{TenantName, UserName};
use toolkeep_core::principal::Principal;
use toolkeep_core::refusal::{Code, Refusal};

use crate::config::{Config, OperatorIdentity};

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

/// Proof: an agent-plane connection of a known principal.
#[derive(Debug, Clone)]
pub struct Caller {
    principal: Arc<Principal>,
    /// Which credential authenticated it; an approval by the same credential is refused.
    credential: Credential,
}

/// Proof: an admin-plane connection of a known operator.
#[derive(Debug, Clone)]
pub struct Operator {
    identity: OperatorIdentity,
    credential: Credential,
}

/// What authenticated a connection. Two connections with equal credentials are the same party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A uid on the agent plane.
    AgentUid(u32),
    /// A uid on the admin plane.
    AdminUid(u32),
    /// A uid on the admin plane that also showed the token.
    AdminToken(u32),
    /// None: a call on record goes on.
    Record,
}

impl std::fmt::Display for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AgentUid(uid) => write!(f, "agent-uid:{uid}"),
            Self::AdminUid(uid) => write!(f, "admin-uid:{uid}"),
            Self::AdminToken(uid) => write!(f, "admin-token:{uid}"),
            Self::Record => f.write_str("record"),
        }
    }
}

impl Caller {
    /// Who acts.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Who acts, shared.
    #[must_use]
    pub fn principal_shared(&self) -> Arc<Principal> {
        Arc::clone(&self.principal)
    }

    /// What authenticated the connection.
    #[must_use]
    pub const fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The caller of a call that is on record and goes on by itself. It comes from no connection.
    pub(crate) fn resumed(principal: &Principal) -> Self {
        Self { principal: Arc::new(principal.clone()), credential: Credential::Record }
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
}

/// Maps peers to principals.
#[derive(Debug)]
pub struct Authenticator {
    principals: BTreeMap<u32, Arc<Principal>>,
    operators: BTreeMap<u32, OperatorIdentity>,
    admin_token: Digest,
}

impl Authenticator {
    /// `admin_token` is the SHA-256 of the token in the admin folder.
    #[must_use]
    pub fn new(config: &Config, admin_token: Digest) -> Self {
        Self {
            principals: config.principals.iter().map(|(uid, p)| (*uid, Arc::new(p.clone()))).collect(),
            operators: config.operators.clone(),
            admin_token,
        }
    }

    /// Who connects to the agent socket.
    ///
    /// # Errors
    /// `unauthorized`: the uid is not mapped.
    pub fn caller(&self, peer: Peer) -> Result<Caller, Refusal> {
        let principal = self.principals.get(&peer.uid).ok_or_else(|| {
            Refusal::new(Code::Unauthorized, format!("uid {} is not mapped to a principal", peer.uid))
        })?;
        Ok(Caller { principal: Arc::clone(principal), credential: Credential::AgentUid(peer.uid) })
    }

    /// Who connects to the admin socket.
    ///
    /// # Errors
    /// `unauthorized`: the uid is not an operator's, or it is also an agent's and the token is missing or wrong.
    pub fn operator(&self, peer: Peer, token: Option<&str>) -> Result<Operator, Refusal> {
        let identity = self
            .operators
            .get(&peer.uid)
            .ok_or_else(|| Refusal::new(Code::Unauthorized, format!("uid {} is not an operator", peer.uid)))?;
        let shared = self.principals.contains_key(&peer.uid);
        let credential = match token {
            // Both sides are digests, so the comparison tells nothing about the token by its time.
            Some(text) if Digest::of(text.trim().as_bytes()) == self.admin_token => Credential::AdminToken(peer.uid),
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
        Ok(Operator { identity: identity.clone(), credential })
    }
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
        Authenticator {
            principals: principals.iter().map(|uid| (*uid, Arc::new(principal()))).collect(),
            operators: operators.iter().map(|uid| (*uid, identity())).collect(),
            admin_token: Digest::of(b"secret"),
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
        assert_eq!(doors.operator(peer(1000), None).map(|_| ()).map_err(|e| e.code), Err(Code::Unauthorized));
        assert!(doors.operator(peer(0), None).is_ok());
    }

    #[test]
    fn t_i6_a_shared_uid_needs_the_token_on_the_admin_plane() {
        let doors = authenticator(&[1000], &[1000]);
        assert!(doors.operator(peer(1000), None).is_err());
        assert!(doors.operator(peer(1000), Some("wrong")).is_err());
        assert!(doors.operator(peer(1000), Some("")).is_err());
        let operator = doors.operator(peer(1000), Some("secret\n")).expect("token");
        assert_eq!(operator.credential(), &Credential::AdminToken(1000));
        assert!(authenticator(&[1], &[2]).operator(peer(2), Some("wrong")).is_err(), "a wrong token is never ignored");
    }
}
