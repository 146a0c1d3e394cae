//! Who acts. A principal is stamped by the host from an authenticated connection; nothing in a request can set it.
//! Credentials are not here: they stay with the door that checked them.

use serde::{Deserialize, Serialize};

use crate::id::{AgentName, TenantName, UserName};

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
