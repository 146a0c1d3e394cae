//! Tokens and sessions on record: made, taken back and forgotten by the writer, listed and loaded by readers.
//!
//! What is written here is on the disk before anybody is told of it, and in the audit chain in the same transaction. Taking a
//! credential back takes back, in one statement each, everything that was delegated from it.

use std::collections::BTreeSet;

use rusqlite::{Row, params};
use serde_json::json;
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{AgentName, SessionId, TenantName, TokenId, UserName};
use toolkeep_core::principal::Origin;
use toolkeep_core::session::Held;
use uuid::Uuid;

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, digest_bytes, id_bytes, integer, path_bytes};
use super::failure::LedgerError;
use super::queue::{Done, Work};
use super::read::bounds;
use super::rows::{Page, Paged, Scope};
use super::statement::{page, row, rows};

/// Credentials that one job forgets, at most: the others of the batch must not wait long.
const FORGOTTEN_AT_ONCE: i64 = 256;

/// What kind of secret somebody may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// Minted by an operator.
    Token,
    /// Delegated by a caller.
    Session,
}

impl CredentialKind {
    /// The word for it, in rows.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Token, Self::Session].into_iter().find(|kind| kind.word() == word)
    }

    /// The id of this kind as people see it.
    #[must_use]
    pub fn name(self, id: &Uuid) -> String {
        match self {
            Self::Token => TokenId::new(*id).to_string(),
            Self::Session => SessionId::new(*id).to_string(),
        }
    }
}

/// A token or a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRow {
    /// Its id, without the prefix of its kind.
    pub id: Uuid,
    /// Its kind.
    pub kind: CredentialKind,
    /// How whoever shows it came to act: the outermost credential, and the sessions from there to this one.
    pub origin: Origin,
    /// The tenant.
    pub tenant: TenantName,
    /// The person.
    pub user: UserName,
    /// The agent; none for the admin plane.
    pub agent: Option<AgentName>,
    /// Groups of an operator.
    pub groups: BTreeSet<String>,
    /// What it holds.
    pub held: Held,
    /// What it is for, in the words of whoever made it.
    pub label: String,
    /// SHA-256 of what is shown.
    pub secret: Digest,
    /// The token or session that made it, if one did: it ends with that.
    pub parent: Option<Uuid>,
    /// Who made it: a credential.
    pub made_by: String,
    /// When.
    pub made_ms: u64,
    /// When it ends by itself.
    pub expires_ms: u64,
}

/// A token or a session, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCredential {
    /// What was made.
    pub row: CredentialRow,
    /// Who took it back.
    pub revoked_by: Option<String>,
    /// When.
    pub revoked_ms: Option<u64>,
    /// Calls that were put on record through the session, or one below it, since it was made.
    pub calls: u64,
}

/// What is to be written about credentials.
#[derive(Debug)]
pub(super) enum CredentialWork {
    Add(Box<CredentialRow>),
    Revoke { tenant: TenantName, id: Uuid, by: String },
    Forget { ended_before_ms: u64 },
}

impl CredentialWork {
    /// Bytes of text in it.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Add(row) => row.label.len() + row.held.tools.as_ref().map_or(0, |tools| tools.len() * 64),
            Self::Revoke { .. } | Self::Forget { .. } => 0,
        }
    }
}

impl Batch<'_> {
    /// Change credentials. Returns whether anything was.
    pub(super) fn credential(&mut self, work: &CredentialWork) -> Step<bool, LedgerError> {
        match work {
            CredentialWork::Add(row) => self.add_credential(row).map(|()| true),
            CredentialWork::Revoke { tenant, id, by } => self.revoke_credential(tenant, id, by),
            CredentialWork::Forget { ended_before_ms } => {
                let sql = "DELETE FROM credentials WHERE seq IN (SELECT seq FROM credentials WHERE \
                           (expires_ms < ?1 OR revoked_ms < ?1) ORDER BY seq LIMIT ?2)";
                Ok(self.execute(sql, params![integer(*ended_before_ms), FORGOTTEN_AT_ONCE])? > 0)
            }
        }
    }

    fn add_credential(&mut self, row: &CredentialRow) -> Step<(), LedgerError> {
        let written = |error: serde_json::Error| LedgerError::Refused(error.to_string().into());
        let (groups, held) = (serde_json::to_string(&row.groups), serde_json::to_string(&row.held));
        let (groups, held) = (groups.map_err(written)?, held.map_err(written)?);
        self.execute(
            "INSERT INTO credentials (id, kind, root, path, tenant, user, agent, groups, held, label, secret, made_by, \
             made_ms, expires_ms, parent) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            params![
                id_bytes(&row.id),
                row.kind.word(),
                row.origin.credential.to_string(),
                path_bytes(&row.origin.session),
                row.tenant.as_str(),
                row.user.as_str(),
                row.agent.as_ref().map(AgentName::as_str),
                groups,
                held,
                row.label,
                digest_bytes(&row.secret),
                row.made_by,
                integer(row.made_ms),
                integer(row.expires_ms),
                row.parent.as_ref().map(id_bytes),
            ],
        )?;
        let what = if row.kind == CredentialKind::Token { "minted" } else { "delegated" };
        let facts = json!({"what": what, "id": row.kind.name(&row.id), "root": row.origin.credential.to_string(),
            "session": row.origin.session, "tenant": row.tenant, "user": row.user, "agent": row.agent,
            "groups": row.groups, "held": row.held, "label": row.label, "by": row.made_by,
            "expires_at_ms": row.expires_ms});
        self.append(AuditKind::Identity, canonical_body(&facts));
        Ok(())
    }

    fn revoke_credential(&mut self, tenant: &TenantName, id: &Uuid, by: &str) -> Step<bool, LedgerError> {
        let sql = "SELECT * FROM credentials WHERE id = ?1 AND tenant = ?2 AND revoked_ms IS NULL";
        let Some(found) = self.row(sql, params![id_bytes(id), tenant.as_str()], credential_of)? else {
            return Ok(false);
        };
        let ended = self.execute(
            "WITH RECURSIVE ends (id) AS (SELECT ?3 UNION SELECT c.id FROM credentials c JOIN ends ON c.parent = ends.id) \
             UPDATE credentials SET revoked_ms = ?1, revoked_by = ?2 \
             WHERE id IN (SELECT id FROM ends) AND revoked_ms IS NULL AND tenant = ?4",
            params![integer(self.now_ms), by, id_bytes(id), tenant.as_str()],
        )?;
        let name = found.kind.name(id);
        let facts = json!({"what": "revoked", "id": name, "tenant": tenant, "by": by, "with_children": ended});
        self.append(AuditKind::Identity, canonical_body(&facts));
        Ok(true)
    }
}

fn credential_of(row: &Row<'_>) -> Result<CredentialRow, LedgerError> {
    let reading = Reading::new(row, "credentials");
    let damaged = |column: &str| LedgerError::Damaged(format!("a row of `credentials` has no valid `{column}`").into());
    let agent = reading.text_or_null("agent")?.map(str::parse).transpose().map_err(|_| damaged("agent"))?;
    Ok(CredentialRow {
        id: reading.uuid("id")?,
        kind: reading.word("kind", CredentialKind::from_word)?,
        origin: Origin { credential: reading.name("root")?, session: reading.path("path")? },
        tenant: reading.name("tenant")?,
        user: reading.name("user")?,
        agent,
        groups: serde_json::from_str(reading.text("groups")?).map_err(|_| damaged("groups"))?,
        held: serde_json::from_str(reading.text("held")?).map_err(|_| damaged("held"))?,
        label: reading.text("label")?.to_owned(),
        secret: reading.digest("secret")?,
        parent: reading.uuid_or_null("parent")?,
        made_by: reading.text("made_by")?.to_owned(),
        made_ms: reading.number("made_ms")?,
        expires_ms: reading.number("expires_ms")?,
    })
}

fn stored_of(row: &Row<'_>) -> Result<StoredCredential, LedgerError> {
    let reading = Reading::new(row, "credentials");
    Ok(StoredCredential {
        row: credential_of(row)?,
        revoked_by: reading.text_or_null("revoked_by")?.map(str::to_owned),
        revoked_ms: reading.number_or_null("revoked_ms")?,
        calls: reading.number("calls")?,
    })
}

impl Ledger {
    /// Keep a token or a session, durably and on record.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn add_credential(&self, row: CredentialRow) -> Result<(), LedgerError> {
        self.change_credential(CredentialWork::Add(Box::new(row))).await.map(|_| ())
    }

    /// Take a token or a session of a tenant back, and everything that was delegated from it; durable, and on record with who
    /// did it. Returns whether there was one that nobody had taken back.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn revoke_credential(&self, tenant: &TenantName, id: Uuid, by: String) -> Result<bool, LedgerError> {
        self.change_credential(CredentialWork::Revoke { tenant: tenant.clone(), id, by }).await
    }

    /// Let go of credentials that ended before this time.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn forget_credentials(&self, ended_before_ms: u64) -> Result<(), LedgerError> {
        while self.change_credential(CredentialWork::Forget { ended_before_ms }).await? {}
        Ok(())
    }

    async fn change_credential(&self, work: CredentialWork) -> Result<bool, LedgerError> {
        match self.ask(Work::Credential(Box::new(work)), true).await? {
            Done::Changed(changed) => Ok(changed),
            Done::Refused(error) => Err(error),
            _ => Err(LedgerError::Closed),
        }
    }

    /// Credentials that stand at `now_ms`, parents before their children, with the calls made through each.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn standing_credentials(&self, now_ms: u64) -> Result<Vec<StoredCredential>, LedgerError> {
        self.caught_up().await?;
        self.read(move |conn| {
            let sql = "SELECT * FROM credentials WHERE revoked_ms IS NULL AND expires_ms > ?1 ORDER BY seq";
            rows(conn, sql, params![integer(now_ms)], stored_of)
        })
        .await
    }

    /// A credential by its id.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn credential(&self, scope: &Scope, id: Uuid) -> Result<Option<StoredCredential>, LedgerError> {
        self.caught_up().await?;
        let sql = "SELECT * FROM credentials WHERE id = ?1";
        let found = self.read(move |conn| row(conn, sql, params![id_bytes(&id)], stored_of)).await?;
        Ok(found.filter(|stored| scope.sees(&stored.row.tenant)))
    }

    /// Tokens, or sessions, of a tenant, newest first: those that stand at `now_ms`, or all.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn credentials(
        &self,
        tenant: &TenantName,
        kind: CredentialKind,
        standing_at_ms: Option<u64>,
        wanted: Page,
    ) -> Result<Paged<StoredCredential>, LedgerError> {
        self.caught_up().await?;
        let (from, ask, limit) = bounds(wanted, i64::MAX);
        let (tenant, now_ms) = (tenant.clone(), standing_at_ms.map(integer));
        let sql = "SELECT * FROM credentials WHERE tenant = ?3 AND seq < ?1 AND kind = ?4 \
                   AND (?5 IS NULL OR (revoked_ms IS NULL AND expires_ms > ?5)) ORDER BY seq DESC LIMIT ?2";
        self.read(move |conn| {
            page(conn, sql, params![from, ask, tenant.as_str(), kind.word(), now_ms], limit, stored_of)
        })
        .await
    }
}
