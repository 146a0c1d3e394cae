//! Identifiers. Each kind is a type of its own, so that a plan id cannot be passed where a call id is meant.
//!
//! Two families: *names* that people choose (tenant, user, agent, workspace, tool, run step), and *ids* that the
//! host makes (UUIDv7 with a prefix that says what it names). Both are bounded and made of characters
//! that no log, path, URL or terminal gives a second meaning.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// Longest name in bytes: it must fit a log column, a metric label and an MCP tool name.
pub const NAME_MAX_BYTES: usize = 64;

/// Why a text is not a name or an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {expected}")]
pub struct NotAnId {
    /// What was wanted, for example `tenant name`.
    pub what: &'static str,
    /// The refused text, shortened to 80 characters.
    pub text: String,
    /// The form that would have been right.
    pub expected: &'static str,
}

impl NotAnId {
    fn new(what: &'static str, text: &str, expected: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), expected }
    }
}

const NAME_FORM: &str = "use 1 to 64 characters of a-z, 0-9, `.`, `_` and `-`, starting with a letter or digit";

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first
        && text.len() <= NAME_MAX_BYTES
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text of the name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(NotAnId::new($what, text, NAME_FORM)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAnId;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

name_type!(
    /// The owner of state: every row, blob, key and workspace belongs to one tenant.
    TenantName, "tenant name"
);
name_type!(
    /// A person.
    UserName, "user name"
);
name_type!(
    /// An agent program.
    AgentName, "agent name"
);
name_type!(
    /// A kind of task that runs belong to.
    WorkflowName, "workflow name"
);
name_type!(
    /// A directory that the operator lets tools see.
    WorkspaceName, "workspace name"
);
name_type!(
    /// An entry of a manifest that grants requests to one origin.
    GrantName, "grant name"
);
name_type!(
    /// A way by which messages leave, defined by the operator.
    ChannelName, "channel name"
);
name_type!(
    /// A set of keys and values that belongs to one tenant.
    BucketName, "bucket name"
);
name_type!(
    /// A credential that the host holds and nobody sees.
    SecretName, "secret name"
);
name_type!(
    /// A tool as agents name it: `manifest` or `manifest.tool`.
    ToolName, "tool name"
);
name_type!(
    /// A file of the operator that says what a run may do.
    ContractName, "contract name"
);

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// What every id of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// An id from a UUID that the host made.
            #[must_use]
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID without prefix.
            #[must_use]
            pub const fn uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                const FORM: &str = concat!("expected `", $prefix, "` and a lower-case UUID");
                let refuse = || NotAnId::new(stringify!($name), text, FORM);
                let rest = text.strip_prefix($prefix).ok_or_else(refuse)?;
                let uuid = Uuid::try_parse(rest).map_err(|_| refuse())?;
                // Only the canonical spelling: one id, one text.
                let mut buffer = Uuid::encode_buffer();
                if uuid.as_hyphenated().encode_lower(&mut buffer) != rest {
                    return Err(refuse());
                }
                Ok(Self(uuid))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAnId;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut text = [0; $prefix.len() + Hyphenated::LENGTH];
                let (prefix, rest) = text.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                self.0.as_hyphenated().encode_lower(rest);
                serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.as_hyphenated())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id_type!(
    /// One agent task.
    RunId, "run_"
);
id_type!(
    /// One invocation of a tool.
    CallId, "call_"
);
id_type!(
    /// One sealed plan, as stored; its digest names its content.
    PlanId, "plan_"
);
id_type!(
    /// One request for a human's consent.
    ApprovalId, "appr_"
);
id_type!(
    /// Consent that people gave in advance to plans of a kind.
    StandingId, "stand_"
);
id_type!(
    /// One signed statement of what was committed.
    ReceiptId, "rcpt_"
);

id_type!(
    /// Several calls that share one stage and are committed or rolled back as one.
    TransactionId, "txn_"
);
id_type!(
    /// One minted token; its secret is another thing.
    TokenId, "tok_"
);
id_type!(
    /// One delegation: a session that holds a part of what its parent holds.
    SessionId, "ses_"
);
id_type!(
    /// One delivery: stable over all attempts, so that a receiver can drop what it has seen.
    DeliveryId, "msg_"
);
id_type!(
    /// One alert: a fact that operators have to know, however often it happens.
    AlertId, "alert_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tested_at_their_bounds() {
        let longest = "a".repeat(NAME_MAX_BYTES);
        assert!(longest.parse::<ToolName>().is_ok());
        assert!(format!("{longest}a").parse::<ToolName>().is_err());
        for wrong in ["", ".a", "-a", "A", "a b", "a/b", "é", "a\n"] {
            assert!(wrong.parse::<ToolName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = CallId::new(Uuid::from_u128(7));
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in [
            "call_00000000000000000000000000000007",
            "plan_00000000-0000-0000-0000-000000000007",
            "call_00000000-0000-0000-0000-00000000000G",
            "00000000-0000-0000-0000-000000000007",
        ] {
            assert!(wrong.parse::<CallId>().is_err(), "{wrong}");
        }
        assert!("call_0000000A-0000-0000-0000-000000000007".parse::<CallId>().is_err());
    }
}
