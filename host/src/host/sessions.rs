//! Sessions: a caller hands a part of what it holds to somebody else (R18).
//!
//! A session is shown like a token and acts as the same principal, with less. It sees what it made itself, and what sessions
//! below it made; its maker sees all of that. It ends when its time is over, when somebody takes it back, and with whatever it
//! comes from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use toolkeep_core::capability::Access;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{SessionId, ToolName, WorkspaceName};
use toolkeep_core::principal::{Origin, Principal};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::session::{DELEGATIONS_MAX, Part, SessionBudget};
use toolkeep_core::tier::Tier;

use super::Host;
use super::credentials::{check_label, ends_within, line, made_through};
use crate::authenticate::Caller;
use crate::ledger::{CredentialKind, CredentialRow, Page, Scope, StoredCredential};

/// How long a session stands where nobody says, in seconds: an hour.
const SESSION_TTL_DEFAULT_S: u64 = 3_600;
/// The longest that a session may stand, in seconds: 30 days.
pub const SESSION_TTL_MAX_S: u64 = 30 * 24 * 3600;

/// What to delegate. What is left out is as the caller has it.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegate {
    #[serde(default)]
    tools: Option<BTreeSet<ToolName>>,
    #[serde(default)]
    workspaces: Option<BTreeMap<WorkspaceName, Access>>,
    #[serde(default)]
    max_tier: Option<Tier>,
    #[serde(default)]
    budget: SessionBudget,
    #[serde(default)]
    delegations: Option<u8>,
    #[serde(default)]
    expires_in_s: Option<u64>,
    #[serde(default)]
    label: String,
}

impl Host {
    /// Who the caller is to the host, and what it holds.
    #[must_use]
    pub fn session(&self, caller: &Caller) -> Value {
        let (principal, origin) = caller.who();
        let standing = caller.standing();
        json!({"principal": principal, "authenticated": origin.credential.means().word(),
            "credential": origin.credential.to_string(), "session": origin.session.last(),
            "delegated_through": origin.session, "held": caller.held().cloned().unwrap_or_default(),
            "expires_at_ms": standing.map(|standing| standing.expires_ms()),
            "calls_left": standing.and_then(|standing| standing.calls_left())})
    }

    /// Open a session that holds a part of what the caller holds. Its secret is in this answer and nowhere else.
    ///
    /// # Errors
    /// `denied`, with every field that is more than the caller's; `invalid_input`.
    pub async fn delegate(&self, caller: &Caller, wanted: Delegate) -> Result<Value, Refusal> {
        let _open = self.accepting()?;
        check_label(&wanted.label)?;
        let now_ms = self.ambient().now_ms();
        let until = caller.standing().map(|standing| standing.expires_ms());
        let bounds = (SESSION_TTL_DEFAULT_S, SESSION_TTL_MAX_S);
        let expires_ms = ends_within(now_ms, wanted.expires_in_s, bounds, until)?;
        let part = Part {
            tools: wanted.tools,
            workspaces: wanted.workspaces,
            max_tier: wanted.max_tier,
            budget: wanted.budget,
            delegations: wanted.delegations,
        };
        let held = caller.held().cloned().unwrap_or_default().part(&part)?;
        let id = SessionId::new(self.ambient().uuid_v7());
        let (principal, origin) = caller.who();
        let session = origin.session.child(id).ok_or_else(|| {
            Refusal::new(Code::Denied, format!("at most {DELEGATIONS_MAX} delegations may follow one another"))
        })?;
        self.0.authenticator.registry().check_room(&principal.tenant, now_ms)?;
        let row = CredentialRow {
            id: *id.uuid(),
            kind: CredentialKind::Session,
            origin: Origin { credential: origin.credential.clone(), session },
            tenant: principal.tenant.clone(),
            user: principal.user.clone(),
            agent: Some(principal.agent.clone()),
            groups: BTreeSet::new(),
            held,
            label: wanted.label,
            secret: Digest::of(b""),
            parent: made_through(origin),
            made_by: by(origin),
            made_ms: now_ms,
            expires_ms,
        };
        let mut told = self.keep_credential(row, caller.standing().cloned()).await?;
        if let Value::Object(members) = &mut told {
            members.remove("id");
            members.insert("session".to_owned(), json!(id));
        }
        Ok(told)
    }

    /// The sessions that the caller, or a session below it, has opened and that stand, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn sessions(&self, caller: &Caller, cursor: Option<u64>) -> Result<Value, Refusal> {
        let (tenant, page) = (&caller.principal().tenant, Page { cursor, ..Page::default() });
        let now_ms = self.ambient().now_ms();
        let found = self.ledger().credentials(tenant, CredentialKind::Session, Some(now_ms), page).await;
        let found = found.map_err(|e| e.refusal())?;
        let registry = self.0.authenticator.registry();
        let below = found.items.iter().filter(|stored| is_below(caller, stored));
        let lines: Vec<Value> = below.map(|stored| line(stored, registry.calls_left(&stored.row.id))).collect();
        Ok(json!({"sessions": lines, "next_cursor": found.next}))
    }

    /// Take a session back that the caller, or a session below it, has opened; or the caller's own, with which it ends.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn revoke_session(&self, caller: &Caller, id: SessionId) -> Result<Value, Refusal> {
        let missing = || Refusal::not_found("session");
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let stored = self.ledger().credential(&scope, *id.uuid()).await.map_err(|e| e.refusal())?;
        let own = |stored: &StoredCredential| {
            stored.row.kind == CredentialKind::Session && stored.revoked_ms.is_none() && owns(caller, stored)
        };
        stored.filter(own).ok_or_else(missing)?;
        let named = (caller.principal().tenant.clone(), *id.uuid());
        self.revoke(&named, by(caller.origin()))
            .await
            .map_err(|refusal| if refusal.code == Code::NotFound { missing() } else { refusal })
    }
}

fn owns(caller: &Caller, stored: &StoredCredential) -> bool {
    let row = &stored.row;
    row.agent.clone().is_some_and(|agent| {
        let principal = Principal { tenant: row.tenant.clone(), user: row.user.clone(), agent };
        caller.owns(&principal, &row.origin)
    })
}

fn is_below(caller: &Caller, stored: &StoredCredential) -> bool {
    owns(caller, stored) && stored.row.origin.session != caller.origin().session
}

/// Who does something, as records name it.
fn by(origin: &Origin) -> String {
    match origin.session.last() {
        Some(session) => format!("session:{session}"),
        None => origin.credential.to_string(),
    }
}
