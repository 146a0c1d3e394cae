//! Credentials, for operators: minting tokens, taking them and sessions back, and what stands.
//!
//! An operator mints for the own tenant only, and for the admin plane only for the own person and groups: a token never makes
//! anybody more than its maker. A secret is in one answer, once. What is refused is on record, up to a rate that a
//! stranger cannot exceed.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::budget::Amounts;
use toolkeep_core::capability::Access;
use toolkeep_core::id::{AgentName, SessionId, TokenId, ToolName, UserName, WorkspaceName};
use toolkeep_core::principal::{Credential, Origin, Plane, Principal};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::session::{Held, Part, SessionBudget};
use toolkeep_core::tier::Tier;
use uuid::Uuid;

use super::Host;
use crate::authenticate::registry::Grant;
use crate::authenticate::secret::Minted;
use crate::authenticate::standing::Standing;
use crate::authenticate::{Caller, Operator, Peer};
use crate::ledger::{CallRow, CredentialKind, CredentialRow, Page, Scope, StoredCredential};

/// How long a token stands where nobody says, in seconds: 30 days.
const TOKEN_TTL_DEFAULT_S: u64 = 30 * 24 * 3600;
/// The longest that a token may stand, in seconds: a year.
pub const TOKEN_TTL_MAX_S: u64 = 365 * 24 * 3600;
/// Longest label, in bytes.
pub(super) const LABEL_MAX_BYTES: usize = 256;
/// Refused credentials that are put on record within one minute; the others are counted.
pub const FAILURES_ON_RECORD: u32 = 60;
/// The minute, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// What to mint.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mint {
    /// The plane that it opens; that of agents if absent.
    #[serde(default)]
    plane: Option<Plane>,
    /// The person.
    user: UserName,
    /// The agent, for the agent plane.
    #[serde(default)]
    agent: Option<AgentName>,
    /// Groups of the own ones, for the admin plane.
    #[serde(default)]
    groups: BTreeSet<String>,
    #[serde(default)]
    tools: Option<BTreeSet<ToolName>>,
    #[serde(default)]
    workspaces: Option<BTreeMap<WorkspaceName, Access>>,
    #[serde(default)]
    max_tier: Option<Tier>,
    #[serde(default)]
    delegations: Option<u8>,
    /// How long it stands.
    #[serde(default)]
    expires_in_s: Option<u64>,
    /// What it is for.
    #[serde(default)]
    label: String,
}

/// A token or a session by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct CredentialName(Uuid);

/// Why a text names neither.
#[derive(Debug, thiserror::Error)]
#[error("expected the id of a token (`tok_` and a UUID) or of a session (`ses_` and a UUID)")]
pub struct NotACredentialName;

impl FromStr for CredentialName {
    type Err = NotACredentialName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let token = text.parse::<TokenId>().map(|token| *token.uuid());
        token
            .or_else(|_| text.parse::<SessionId>().map(|session| *session.uuid()))
            .map(Self)
            .map_err(|_| NotACredentialName)
    }
}

impl TryFrom<String> for CredentialName {
    type Error = NotACredentialName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Keeps strangers from filling the record.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    from_ms: u64,
    noted: u32,
    passed_over: u64,
}

impl Failures {
    /// Whether one more may be noted, and how many were not since the last one that was.
    pub(super) fn note(&self, now_ms: u64) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ms.saturating_sub(window.from_ms) >= WINDOW_MS {
            (window.from_ms, window.noted) = (now_ms, 0);
        }
        if window.noted >= FAILURES_ON_RECORD {
            window.passed_over += 1;
            return None;
        }
        window.noted += 1;
        Some(std::mem::take(&mut window.passed_over))
    }
}

/// Check a label.
///
/// # Errors
/// `invalid_input`.
pub(super) fn check_label(label: &str) -> Result<(), Refusal> {
    if label.len() <= LABEL_MAX_BYTES && !label.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Refusal::new(Code::InvalidInput, "the label is refused").field(
        "/label",
        format!("has {} bytes, or control characters", label.len()),
        "at most 256 bytes of text",
    ))
}

/// When something ends that is to stand for `wanted` seconds.
///
/// # Errors
/// `invalid_input`: it is not within the bounds.
pub(super) fn ends_at(now_ms: u64, wanted: Option<u64>, (default_s, most_s): (u64, u64)) -> Result<u64, Refusal> {
    let seconds = wanted.unwrap_or(default_s);
    if !(1..=most_s).contains(&seconds) {
        let refusal = Refusal::new(Code::InvalidInput, "the time is refused");
        return Err(refusal.field("/expires_in_s", format!("is {seconds}"), format!("1 to {most_s}")));
    }
    Ok(now_ms.saturating_add(seconds * 1_000))
}

/// As [`ends_at`], and not after the credential that it comes from, if that ends.
///
/// # Errors
/// `invalid_input`; `denied`: it would outlive that.
pub(super) fn ends_within(
    now_ms: u64,
    wanted: Option<u64>,
    bounds: (u64, u64),
    until: Option<u64>,
) -> Result<u64, Refusal> {
    let expires_ms = ends_at(now_ms, wanted, bounds)?;
    let Some(until) = until else { return Ok(expires_ms) };
    if wanted.is_some() && expires_ms > until {
        let left = until.saturating_sub(now_ms) / 1_000;
        let refusal = Refusal::new(Code::Denied, "a credential does not outlive the one that it comes from");
        return Err(refusal.field("/expires_in_s", "is longer than you stand", format!("at most {left}")));
    }
    Ok(expires_ms.min(until))
}

/// The session or the token that something is made through, if it is one.
pub(super) fn made_through(origin: &Origin) -> Option<Uuid> {
    match (origin.session.last(), &origin.credential) {
        (Some(session), _) => Some(*session.uuid()),
        (None, Credential::Token(token)) => Some(*token.uuid()),
        (None, _) => None,
    }
}

/// A credential as lists show it.
pub(super) fn line(stored: &StoredCredential, calls_left: Option<u64>) -> Value {
    let row = &stored.row;
    json!({"id": row.kind.name(&row.id), "kind": row.kind.word(),
        "plane": if row.agent.is_some() { Plane::Agent } else { Plane::Admin }.word(),
        "tenant": row.tenant, "user": row.user, "agent": row.agent, "groups": row.groups,
        "held": (row.held != Held::default()).then_some(&row.held), "label": row.label,
        "root": row.origin.credential.to_string(), "session": row.origin.session, "made_by": row.made_by,
        "made_at_ms": row.made_ms, "expires_at_ms": row.expires_ms, "revoked_at_ms": stored.revoked_ms,
        "revoked_by": stored.revoked_by, "calls_left": calls_left})
}

impl Host {
    /// Who shows this on the agent socket.
    ///
    /// # Errors
    /// `unauthorized`; it is on record.
    pub fn show(&self, peer: Peer, text: &str) -> Result<Caller, Refusal> {
        let shown = self.0.authenticator.shown(text, self.ambient().now_ms());
        shown.inspect_err(|refusal| self.refused_credential(peer, Plane::Agent, refusal))
    }

    /// Note that a peer was refused.
    pub(crate) fn refused_credential(&self, peer: Peer, plane: Plane, refusal: &Refusal) {
        tracing::warn!(uid = peer.uid, pid = peer.pid, plane = plane.word(), "refused: {}", refusal.message);
        let Some(passed_over) = self.0.failures.note(self.ambient().now_ms()) else { return };
        let facts = json!({"what": "refused", "plane": plane.word(), "uid": peer.uid, "gid": peer.gid,
            "because": refusal.message, "not_on_record_before": passed_over});
        if let Err(error) = self.ledger().audit(AuditKind::Identity, &facts) {
            tracing::error!(%error, "a refused credential could not be put on record");
        }
    }

    /// Mint a token. Its secret is in this answer and nowhere else.
    ///
    /// # Errors
    /// `invalid_input`, or `denied`: it would be more than the operator is.
    pub async fn mint_token(&self, operator: &Operator, mint: Mint) -> Result<Value, Refusal> {
        let _open = self.accepting()?;
        check_label(&mint.label)?;
        let plane = mint.plane.unwrap_or(Plane::Agent);
        check_plane(operator, plane, &mint)?;
        let now_ms = self.ambient().now_ms();
        // What a token mints ends with it: whoever had it for an hour has nothing of it after that.
        let standing = operator.standing();
        let until = standing.map(|standing| standing.expires_ms());
        let expires_ms = ends_within(now_ms, mint.expires_in_s, (TOKEN_TTL_DEFAULT_S, TOKEN_TTL_MAX_S), until)?;
        let held = held_of(&mint)?;
        self.0.authenticator.registry().check_room(operator.tenant(), now_ms)?;
        let id = self.ambient().uuid_v7();
        let row = CredentialRow {
            id,
            kind: CredentialKind::Token,
            origin: Origin::of(Credential::Token(TokenId::new(id))),
            tenant: operator.tenant().clone(),
            user: mint.user,
            agent: mint.agent,
            groups: mint.groups,
            held,
            label: mint.label,
            secret: toolkeep_core::digest::Digest::of(b""),
            parent: made_through(&Origin::of(operator.credential().clone())),
            made_by: format!("{} ({})", operator.user(), operator.credential()),
            made_ms: now_ms,
            expires_ms,
        };
        self.keep_credential(row, standing.cloned()).await
    }

    /// Keep a credential with a fresh secret, let it stand, and tell the secret.
    pub(super) async fn keep_credential(
        &self,
        mut row: CredentialRow,
        parent: Option<Arc<Standing>>,
    ) -> Result<Value, Refusal> {
        let minted = Minted::new(&row.id, self.ambient());
        row.secret = minted.hash();
        let grant = grant(&row, parent, 0);
        let mut told = json!({"id": row.kind.name(&row.id), "token": minted.reveal(), "tenant": row.tenant,
            "user": row.user, "agent": row.agent, "held": row.held, "expires_at_ms": row.expires_ms});
        if row.agent.is_none()
            && let Value::Object(members) = &mut told
        {
            members.insert("groups".to_owned(), json!(row.groups));
        }
        let (session, budget) = (row.origin.session.last(), row.held.budget);
        self.ledger().add_credential(row).await.map_err(|e| e.refusal())?;
        self.bound(session, budget, &grant.standing, Amounts::default());
        self.0.authenticator.registry().insert(grant);
        Ok(told)
    }

    /// A session that may spend so much has a balance for as long as it stands.
    fn bound(&self, session: Option<SessionId>, budget: SessionBudget, standing: &Arc<Standing>, used: Amounts) {
        if let (Some(session), Some(most)) = (session, budget.cost_micro_usd) {
            self.budgets().bound(session, most, used, Arc::clone(standing));
        }
    }

    /// Take a token or a session of the operator's tenant back, with everything that was delegated from it. What is connected
    /// with it is refused at its next request.
    ///
    /// # Errors
    /// `not_found`: there is none that stands.
    pub async fn revoke_token(&self, operator: &Operator, name: CredentialName) -> Result<Value, Refusal> {
        let by = format!("{} ({})", operator.user(), operator.credential());
        self.revoke(&(operator.tenant().clone(), name.0), by).await
    }

    pub(super) async fn revoke(
        &self,
        (tenant, id): &(toolkeep_core::id::TenantName, Uuid),
        by: String,
    ) -> Result<Value, Refusal> {
        // In memory first: what stands there is what opens doors, whatever the disk says.
        if let Some(standing) = self.0.authenticator.registry().standing(tenant, id) {
            standing.revoke();
        }
        let revoked = self.ledger().revoke_credential(tenant, *id, by).await.map_err(|e| e.refusal())?;
        self.0.authenticator.registry().sweep(self.ambient().now_ms());
        if revoked { Ok(json!({"revoked": true})) } else { Err(Refusal::not_found("token")) }
    }

    /// Tokens, or sessions, of the operator's tenant, newest first: those that stand, or all.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn tokens(
        &self,
        operator: &Operator,
        (all, sessions): (bool, bool),
        cursor: Option<u64>,
    ) -> Result<Value, Refusal> {
        let kind = if sessions { CredentialKind::Session } else { CredentialKind::Token };
        let standing = (!all).then(|| self.ambient().now_ms());
        let page = Page { cursor, ..Page::default() };
        let found =
            self.ledger().credentials(operator.tenant(), kind, standing, page).await.map_err(|e| e.refusal())?;
        let left = |stored: &StoredCredential| self.0.authenticator.registry().calls_left(&stored.row.id);
        let lines: Vec<Value> = found.items.iter().map(|stored| line(stored, left(stored))).collect();
        Ok(json!({"tokens": lines, "next_cursor": found.next}))
    }

    /// Let the credentials stand again that stood when the daemon stopped, as far as what they come from still does.
    pub(super) async fn load_credentials(&self) {
        let stored = match self.ledger().standing_credentials(self.ambient().now_ms()).await {
            Ok(stored) => stored,
            Err(error) => return tracing::error!(%error, "tokens could not be read; none of them opens anything"),
        };
        let registry = self.0.authenticator.registry();
        // What was given back before is in what is read now.
        self.budgets().keep_house();
        for stored in stored {
            let Some(parent) = self.parent_of(&stored.row) else {
                tracing::info!(id = %stored.row.kind.name(&stored.row.id), "what a session comes from is gone; it stands no more");
                continue;
            };
            let grant = grant(&stored.row, parent, stored.calls);
            if stored.row.held.budget.cost_micro_usd.is_some() {
                match self.ledger().charged_through(&stored.row.origin.session).await {
                    Ok(used) => {
                        self.bound(stored.row.origin.session.last(), stored.row.held.budget, &grant.standing, used);
                    }
                    Err(error) => {
                        tracing::error!(%error, "what a session spent could not be read; it stands no more");
                        continue;
                    }
                }
            }
            registry.insert(grant);
        }
    }

    /// The standing of what a credential comes from: none for what comes from the configuration, nothing if it is gone.
    #[expect(
        clippy::option_option,
        reason = "gone, from the configuration, and from another credential are three answers"
    )]
    fn parent_of(&self, row: &CredentialRow) -> Option<Option<Arc<Standing>>> {
        let authenticator = &self.0.authenticator;
        let parent = match &row.parent {
            Some(id) => Some(authenticator.registry().standing(&row.tenant, id)?),
            None => None,
        };
        let stands = match (row.kind, row.agent.clone()) {
            (CredentialKind::Token, Some(_)) => true,
            (CredentialKind::Token, None) => authenticator.has_operator(&row.tenant, &row.user, &row.groups),
            (CredentialKind::Session, Some(agent)) => {
                let principal = Principal { tenant: row.tenant.clone(), user: row.user.clone(), agent };
                self.is_configured(&row.origin.credential, &principal)
            }
            (CredentialKind::Session, None) => false,
        };
        stands.then_some(parent)
    }

    /// Whether the configuration still makes this principal of whoever shows a credential at the outer end of a chain. A minted
    /// token is not of the configuration: its row says whether it stands.
    fn is_configured(&self, root: &Credential, principal: &Principal) -> bool {
        let authenticator = &self.0.authenticator;
        match root {
            Credential::AgentUid(uid) => authenticator.is_mapped(*uid, principal),
            Credential::Issuer(name) => authenticator.issuers().has(name),
            Credential::Token(_) => true,
            Credential::AdminUid(_) | Credential::AdminToken(_) | Credential::Record => false,
        }
    }

    /// The caller of a stored call that goes on: who made it, holding what the credential of then held.
    ///
    /// # Errors
    /// `unauthorized`: that credential was taken back since.
    pub(crate) async fn caller_of(&self, row: &CallRow) -> Result<Caller, Refusal> {
        let held = self.trusted(row).await?;
        Ok(Caller::resumed((&row.principal, &row.origin), held))
    }

    /// What the credential of a stored call holds, unless it was taken back since.
    ///
    /// # Errors
    /// `unauthorized`.
    pub(crate) async fn trusted(&self, row: &CallRow) -> Result<Option<Held>, Refusal> {
        let (origin, hint) = (&row.origin, "make it again with a credential that stands; nothing was changed");
        // What a uid made itself is its principal's, however that is known today; what it handed on ends with it.
        let asked = !origin.session.is_root() || matches!(origin.credential, Credential::Issuer(_));
        if asked && !self.is_configured(&origin.credential, &row.principal) {
            let message = format!("`{}`, by which this was made, is nobody's any more", origin.credential);
            return Err(Refusal::new(Code::Unauthorized, message).hint(hint));
        }
        let Some(id) = made_through(origin) else { return Ok(None) };
        let scope = Scope::Tenant(row.principal.tenant.clone());
        let stored = self.ledger().credential(&scope, id).await.map_err(|e| e.refusal())?;
        match stored {
            Some(stored) if stored.revoked_ms.is_none() => Ok(Some(stored.row.held)),
            Some(_) | None => {
                Err(Refusal::new(Code::Unauthorized, "the credential that made this was revoked since").hint(hint))
            }
        }
    }
}

fn grant(row: &CredentialRow, parent: Option<Arc<Standing>>, calls: u64) -> Grant {
    let budget = row.held.budget.calls.map(|most| (most, calls));
    Grant {
        id: row.id,
        hash: row.secret,
        tenant: row.tenant.clone(),
        user: row.user.clone(),
        agent: row.agent.clone(),
        groups: row.groups.clone(),
        origin: row.origin.clone(),
        held: row.held.clone(),
        standing: Arc::new(Standing::new(parent, row.expires_ms, budget)),
    }
}

/// What a token on this plane may say.
fn check_plane(operator: &Operator, plane: Plane, mint: &Mint) -> Result<(), Refusal> {
    let mut refusal = Refusal::new(Code::InvalidInput, "the token is refused");
    match plane {
        Plane::Agent => {
            if mint.agent.is_none() {
                refusal = refusal.field("/agent", "is missing", "the name of the agent that will show it");
            }
            if !mint.groups.is_empty() {
                refusal = refusal.field("/groups", "belong to operators", "nothing, or `plane` `admin`");
            }
        }
        Plane::Admin => {
            if mint.agent.is_some() {
                refusal = refusal.field("/agent", "is not of the admin plane", "nothing");
            }
            let narrowed = mint.tools.is_some() || mint.workspaces.is_some() || mint.max_tier.is_some();
            if narrowed || mint.delegations.is_some() {
                refusal = refusal.field("/plane", "cannot be narrowed", "an agent token, or no parts");
            }
            // A second person would be one whom the first has made.
            if mint.user != *operator.user() {
                refusal.code = Code::Denied;
                refusal =
                    refusal.field("/user", "is another person", "your own name: nobody is an operator by your word");
            }
            if let Some(group) = mint.groups.iter().find(|group| !operator.groups().contains(*group)) {
                refusal.code = Code::Denied;
                refusal = refusal.field("/groups", format!("you are not in `{group}`"), "groups that you are in");
            }
        }
    }
    if refusal.fields.is_empty() { Ok(()) } else { Err(refusal) }
}

fn held_of(mint: &Mint) -> Result<Held, Refusal> {
    let whole = Held { delegations: toolkeep_core::session::DELEGATIONS_MAX.saturating_add(1), ..Held::default() };
    whole.part(&Part {
        tools: mint.tools.clone(),
        workspaces: mint.workspaces.clone(),
        max_tier: mint.max_tier,
        budget: SessionBudget::default(),
        delegations: mint.delegations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_noted_up_to_their_rate_and_counted_beyond() {
        let failures = Failures::default();
        for _ in 0..FAILURES_ON_RECORD {
            assert_eq!(failures.note(WINDOW_MS), Some(0));
        }
        assert_eq!((failures.note(WINDOW_MS), failures.note(2 * WINDOW_MS - 1)), (None, None));
        assert_eq!(failures.note(2 * WINDOW_MS), Some(2), "the next one says how many were passed over");
        assert_eq!(failures.note(2 * WINDOW_MS), Some(0));
    }

    #[test]
    fn a_time_is_between_one_second_and_its_bound() {
        let bounds = (10, 20);
        assert_eq!((ends_at(5, None, bounds), ends_at(5, Some(20), bounds)), (Ok(10_005), Ok(20_005)));
        assert!(ends_at(5, Some(0), bounds).is_err() && ends_at(5, Some(21), bounds).is_err());
        assert!(ends_at(5, Some(1), bounds).is_ok());
    }

    #[test]
    fn t_i5_nothing_outlives_what_it_comes_from() {
        let (bounds, denied) = ((10, 20), Some(Code::Denied));
        let code = |wanted, until| ends_within(5, wanted, bounds, until).err().map(|refusal| refusal.code);
        assert_eq!((code(Some(15), Some(15_005)), code(Some(15), Some(15_004))), (None, denied));
        assert_eq!(ends_within(5, None, bounds, Some(9_005)), Ok(9_005), "what nobody asked for is shortened");
        assert_eq!(ends_within(5, None, bounds, None), Ok(10_005));
    }

    #[test]
    fn a_label_is_as_long_as_it_may_be_and_not_one_byte_longer() {
        assert!(check_label(&"a".repeat(LABEL_MAX_BYTES)).is_ok());
        assert!(check_label(&"a".repeat(LABEL_MAX_BYTES + 1)).is_err() && check_label("a\u{1b}").is_err());
    }
}
