//! Who acts. A principal is stamped by the host from an authenticated connection; nothing in a request can set it.
//!
//! Beside the principal stands its [`Origin`]: the credential that the connection showed, and the delegations between that
//! credential and whoever holds the connection now. Secrets are not here: they stay with the door that checked them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{AgentName, SessionId, TenantName, TokenId, UserName};
use crate::session::DELEGATIONS_MAX;

/// Who acts, as the host authenticated it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// The owner of all state that the principal can see.
    pub tenant: TenantName,
    /// The person on whose behalf the agent acts.
    pub user: UserName,
    /// The agent.
    pub agent: AgentName,
}

/// On which side of the trust boundary a connection stands.
///
/// Granting, approving, killing and installing exist on the admin plane only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Calls tools; cannot administer.
    Agent,
    /// Operates the daemon.
    Admin,
}

impl Plane {
    /// The word for it, in rows and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Admin => "admin",
        }
    }
}

/// What authenticated a connection. Two connections with equal credentials are the same party.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A uid on the agent plane.
    AgentUid(u32),
    /// A uid on the admin plane.
    AdminUid(u32),
    /// A uid on the admin plane that also showed the daemon's own token.
    AdminToken(u32),
    /// A minted token, on the plane that it is for.
    Token(TokenId),
    /// A signed statement (JWT) of the issuer that the configuration calls so.
    Issuer(Arc<str>),
    /// None: a call on record goes on, or the host acts by itself.
    Record,
}

/// How a principal was authenticated, as policies are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Means {
    /// By the uid of the peer.
    Uid,
    /// By a minted token.
    Token,
    /// By a signed statement of an issuer.
    Jwt,
    /// Not by a connection.
    Record,
}

impl Means {
    /// How policies name it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Uid => "uid",
            Self::Token => "token",
            Self::Jwt => "jwt",
            Self::Record => "record",
        }
    }
}

impl Credential {
    /// The kind of it.
    #[must_use]
    pub const fn means(&self) -> Means {
        match self {
            Self::AgentUid(_) | Self::AdminUid(_) => Means::Uid,
            Self::AdminToken(_) | Self::Token(_) => Means::Token,
            Self::Issuer(_) => Means::Jwt,
            Self::Record => Means::Record,
        }
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentUid(uid) => write!(f, "agent-uid:{uid}"),
            Self::AdminUid(uid) => write!(f, "admin-uid:{uid}"),
            Self::AdminToken(uid) => write!(f, "admin-token:{uid}"),
            Self::Token(token) => write!(f, "token:{token}"),
            Self::Issuer(name) => write!(f, "issuer:{name}"),
            Self::Record => f.write_str("record"),
        }
    }
}

/// Why a text is not a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no credential")]
pub struct NotACredential(String);

impl FromStr for Credential {
    type Err = NotACredential;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || NotACredential(text.chars().take(80).collect());
        if text == "record" {
            return Ok(Self::Record);
        }
        let (kind, rest) = text.split_once(':').ok_or_else(refuse)?;
        let uid = || rest.parse::<u32>().map_err(|_| refuse());
        match kind {
            "agent-uid" => uid().map(Self::AgentUid),
            "admin-uid" => uid().map(Self::AdminUid),
            "admin-token" => uid().map(Self::AdminToken),
            "token" => rest.parse().map(Self::Token).map_err(|_| refuse()),
            "issuer" => Ok(Self::Issuer(rest.into())),
            _ => Err(refuse()),
        }
    }
}

/// The delegations between an authenticated credential and whoever acts, the outermost first. Empty where nobody delegated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct SessionPath(Arc<[SessionId]>);

/// Bytes of one id of a path.
const ID_BYTES: usize = 16;

impl SessionPath {
    /// How many delegations.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody delegated.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids, the outermost first.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = SessionId> + '_ {
        self.0.iter().copied()
    }

    /// The session that acts.
    #[must_use]
    pub fn last(&self) -> Option<SessionId> {
        self.0.last().copied()
    }

    /// One delegation further; nothing beyond [`DELEGATIONS_MAX`].
    #[must_use]
    pub fn child(&self, session: SessionId) -> Option<Self> {
        let deeper = self.depth() < usize::from(DELEGATIONS_MAX);
        deeper.then(|| Self(self.0.iter().copied().chain([session]).collect()))
    }

    /// Whether what this path made belongs to whoever acts through `other`: to the same session or to one above.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The ids as bytes, one after the other: a path is within another exactly if its bytes start with those.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|id| *id.uuid().as_bytes()).collect()
    }

    /// A path from its bytes; nothing if they are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (ids, rest) = bytes.as_chunks::<ID_BYTES>();
        let fits = rest.is_empty() && ids.len() <= usize::from(DELEGATIONS_MAX);
        fits.then(|| Self(ids.iter().map(|id| SessionId::new(uuid::Uuid::from_bytes(*id))).collect()))
    }
}

/// How somebody came to act: by which credential, and through which delegations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What the connection showed, or, in a session, the connection of the outermost parent.
    pub credential: Credential,
    /// The delegations since.
    pub session: SessionPath,
}

impl Origin {
    /// Of a credential that nobody delegated from.
    #[must_use]
    pub fn of(credential: Credential) -> Self {
        Self { credential, session: SessionPath::default() }
    }

    /// Not of a connection.
    #[must_use]
    pub fn record() -> Self {
        Self::of(Credential::Record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn session(number: u128) -> SessionId {
        SessionId::new(Uuid::from_u128(number))
    }

    #[test]
    fn r15_a_credential_has_one_spelling() {
        let all = [
            Credential::AgentUid(0),
            Credential::AdminUid(u32::MAX),
            Credential::AdminToken(7),
            Credential::Token(TokenId::new(Uuid::from_u128(9))),
            Credential::Issuer("corp".into()),
            Credential::Record,
        ];
        for credential in all {
            assert_eq!(credential.to_string().parse(), Ok(credential.clone()));
        }
        for wrong in ["", "token:", "token:ses_x", "agent-uid:-1", "agent-uid:4294967296", "root:1", "records"] {
            assert!(wrong.parse::<Credential>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn r18_a_path_is_within_itself_and_those_above_and_no_other() {
        let root = SessionPath::default();
        let one = root.child(session(1)).expect("room");
        let two = one.child(session(2)).expect("room");
        let other = root.child(session(3)).expect("room");
        for (inner, outer) in [(&two, &root), (&two, &one), (&two, &two), (&other, &root)] {
            assert!(inner.is_within(outer) && inner.to_bytes().starts_with(&outer.to_bytes()));
        }
        for (inner, outer) in [(&root, &one), (&one, &two), (&two, &other), (&other, &one)] {
            assert!(!inner.is_within(outer) && !inner.to_bytes().starts_with(&outer.to_bytes()));
        }
        assert_eq!(SessionPath::from_bytes(&two.to_bytes()), Some(two));
        assert_eq!(SessionPath::from_bytes(&[0; 15]), None);
    }

    #[test]
    fn r18_a_path_is_as_deep_as_delegations_may_be_and_not_one_deeper() {
        let mut path = SessionPath::default();
        for number in 0..DELEGATIONS_MAX {
            path = path.child(session(number.into())).expect("room");
        }
        assert_eq!(path.child(session(99)), None);
        assert!(SessionPath::from_bytes(&path.to_bytes()).is_some());
        assert_eq!(SessionPath::from_bytes(&[path.to_bytes(), vec![0; 16]].concat()), None);
    }
}
