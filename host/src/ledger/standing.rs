//! Standing approvals on record: made by people, used by commits, ended by the clock, by use or by an operator.
//!
//! A use is counted by compare-and-swap in the transaction that makes an intent durable: of any number of commits that want the
//! last one, one gets it. Every change is in the audit.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rusqlite::{Row, params};
use serde_json::json;
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::id::{StandingId, TenantName, UserName};

use super::Ledger;
use super::batch::{Batch, Step, Stop};
use super::column::{Reading, id_bytes, integer};
use super::failure::{IntentRefused, LedgerError};
use super::intact::{Kept, intact};
use super::oversight::OversightWork;
use super::rows::Scope;
use super::statement::{row, rows};
use super::trials::CaseChange;

/// Most rows of one list: an operator keeps a handful.
pub const STANDING_LISTED_MAX: u32 = 500;
/// Most standing approvals of all tenants together that are in force at once. What is beyond waits for people instead.
const STANDING_OPEN_MAX: u32 = 100_000;

/// Where a standing approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StandingState {
    /// Another person has to agree.
    Pending,
    /// It may be used.
    Active,
    /// All of its uses are used.
    UsedUp,
    /// Its time is over.
    Expired,
    /// An operator ended it.
    Revoked,
}

impl StandingState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Active, Self::UsedUp, Self::Expired, Self::Revoked];

    /// The word for it, in rows and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::UsedUp => "used_up",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    /// The state that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

impl fmt::Display for StandingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A standing approval as it is kept.
#[derive(Debug, Clone)]
pub struct StandingRow {
    /// Its id.
    pub id: StandingId,
    /// Whose plans.
    pub tenant: TenantName,
    /// What it covers, JSON of [`toolkeep_core::standing::StandingText`].
    pub body: Arc<str>,
    /// Why it was made.
    pub reason: Arc<str>,
    /// How many people have to make it.
    pub people: u8,
    /// Who made it.
    pub makers: BTreeSet<UserName>,
    /// The groups that all of them are in: the consent of these it can stand for.
    pub groups: BTreeSet<String>,
    /// Where it stands.
    pub state: StandingState,
    /// How many plans it lets through.
    pub uses: u32,
    /// How many it has let through.
    pub used: u32,
    /// When it was made.
    pub made_ms: u64,
    /// When it ends.
    pub expires_ms: u64,
    /// Who ended it.
    pub ended_by: Option<UserName>,
    /// When it ended.
    pub ended_ms: Option<u64>,
}

/// The standing approval that a commit uses once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandingUse {
    /// Which one.
    pub id: StandingId,
}

/// A write about a standing approval.
#[derive(Debug)]
pub(super) enum StandingWork {
    /// Somebody makes one.
    Make(StandingRow),
    /// Another person agrees to one.
    Agree { id: StandingId, tenant: TenantName, by: UserName, groups: BTreeSet<String> },
    /// An operator ends one.
    Revoke { id: StandingId, tenant: TenantName, by: UserName, reason: Arc<str> },
}

/// What such a write came to.
#[derive(Debug)]
pub(super) enum Overseen {
    /// It is done.
    Done,
    /// The standing approval as it is now.
    Standing(Box<StandingRow>),
    /// What became of a golden case.
    Case(CaseChange),
    /// It was not done.
    Refused(StandingRefused),
}

/// Why a standing approval was not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StandingRefused {
    /// There is none.
    #[error("no such standing approval")]
    NotFound,
    /// It is not open any more, or does not wait.
    #[error("the standing approval is {0}")]
    NotOpen(StandingState),
    /// The same person has made it.
    #[error("you have made it: another person has to agree")]
    SamePerson,
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

fn list<T: serde::de::DeserializeOwned>(reading: &Reading<'_>, column: &'static str) -> Result<T, LedgerError> {
    reading.word(column, |text| serde_json::from_str(text).ok())
}

fn standing_of(row: &Row<'_>) -> Result<StandingRow, LedgerError> {
    let reading = Reading::new(row, "standing");
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(StandingRow {
        id: StandingId::new(reading.uuid("id")?),
        tenant: reading.name("tenant")?,
        body: Arc::from(reading.text("body")?),
        reason: Arc::from(reading.text("reason")?),
        people: u8::try_from(reading.number("people")?).unwrap_or(u8::MAX),
        makers: list(&reading, "makers")?,
        groups: list(&reading, "groups")?,
        state: reading.word("state", StandingState::from_word)?,
        uses: small(reading.number("uses")?),
        used: small(reading.number("used")?),
        made_ms: reading.number("made_ms")?,
        expires_ms: reading.number("expires_ms")?,
        ended_by: reading.text_or_null("ended_by")?.map(|_| reading.name("ended_by")).transpose()?,
        ended_ms: reading.number_or_null("ended_ms")?,
    })
}

fn texts<T: serde::Serialize>(list: &T) -> String {
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
}

impl Batch<'_> {
    pub(super) fn stand(&mut self, work: &StandingWork) -> Step<Overseen, LedgerError> {
        match work {
            StandingWork::Make(made) => self.make_standing(made),
            StandingWork::Agree { id, tenant, by, groups } => {
                let found = self.open_standing(*id, tenant)?;
                let mut standing = match found {
                    Ok(standing) if standing.state == StandingState::Pending => standing,
                    Ok(standing) => return Ok(Overseen::Refused(StandingRefused::NotOpen(standing.state))),
                    Err(refused) => return Ok(Overseen::Refused(refused)),
                };
                if !standing.makers.insert(by.clone()) {
                    return Ok(Overseen::Refused(StandingRefused::SamePerson));
                }
                standing.groups.retain(|group| groups.contains(group));
                if standing.makers.len() >= usize::from(standing.people) {
                    standing.state = StandingState::Active;
                }
                self.rewrite_standing(&standing)?;
                self.audit_standing("agreed", &standing, by, "");
                Ok(Overseen::Standing(Box::new(standing)))
            }
            StandingWork::Revoke { id, tenant, by, reason } => {
                let mut standing = match self.open_standing(*id, tenant)? {
                    Ok(standing) => standing,
                    Err(refused) => return Ok(Overseen::Refused(refused)),
                };
                standing.state = StandingState::Revoked;
                (standing.ended_by, standing.ended_ms) = (Some(by.clone()), Some(self.now_ms));
                self.rewrite_standing(&standing)?;
                self.audit_standing("revoked", &standing, by, reason);
                Ok(Overseen::Standing(Box::new(standing)))
            }
        }
    }

    fn make_standing(&mut self, made: &StandingRow) -> Step<Overseen, LedgerError> {
        let id = id_bytes(made.id.uuid());
        self.execute(
            "INSERT INTO standing (id, tenant, body, reason, people, makers, groups, state, uses, used, made_ms, \
             expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10, ?11)",
            params![
                id,
                made.tenant.as_str(),
                made.body,
                made.reason,
                i64::from(made.people),
                texts(&made.makers),
                texts(&made.groups),
                made.state.word(),
                i64::from(made.uses),
                integer(self.now_ms),
                integer(made.expires_ms)
            ],
        )?;
        self.keep_intact(Kept::Standing(id))?;
        if let Some(by) = made.makers.first() {
            self.audit_standing("made", made, by, &made.reason);
        }
        Ok(Overseen::Standing(Box::new(made.clone())))
    }

    /// One that is open: pending or active, and not too old.
    fn open_standing(
        &self,
        id: StandingId,
        tenant: &TenantName,
    ) -> Step<Result<StandingRow, StandingRefused>, LedgerError> {
        let found = self.row("SELECT * FROM standing WHERE id = ?1", params![id_bytes(id.uuid())], |row| {
            intact(row, "standing")?;
            standing_of(row)
        })?;
        Ok(match found.filter(|standing| standing.tenant == *tenant) {
            None => Err(StandingRefused::NotFound),
            Some(standing) if standing.expires_ms <= self.now_ms => {
                Err(StandingRefused::NotOpen(StandingState::Expired))
            }
            Some(standing) if matches!(standing.state, StandingState::Pending | StandingState::Active) => Ok(standing),
            Some(standing) => Err(StandingRefused::NotOpen(standing.state)),
        })
    }

    fn rewrite_standing(&self, standing: &StandingRow) -> Step<(), LedgerError> {
        let id = id_bytes(standing.id.uuid());
        self.execute(
            "UPDATE standing SET makers = ?1, groups = ?2, state = ?3, used = ?4, ended_by = ?5, ended_ms = ?6 \
             WHERE id = ?7",
            params![
                texts(&standing.makers),
                texts(&standing.groups),
                standing.state.word(),
                i64::from(standing.used),
                standing.ended_by.as_ref().map(UserName::as_str),
                standing.ended_ms.map(integer),
                id
            ],
        )?;
        Ok(self.keep_intact(Kept::Standing(id))?)
    }

    fn audit_standing(&mut self, what: &str, standing: &StandingRow, by: &UserName, reason: &str) {
        let body = json!({"body": &*standing.body, "by": by, "expires_ms": standing.expires_ms, "reason": reason,
            "standing": standing.id, "state": standing.state.word(), "tenant": standing.tenant,
            "uses": standing.uses, "what": what});
        self.append(AuditKind::Standing, canonical_body(&body));
    }

    /// Count one use, in the transaction of the intent that uses it.
    pub(super) fn use_standing(&mut self, wanted: &StandingUse, tenant: &TenantName) -> Step<(), IntentRefused> {
        let not_usable = |state| Stop::Refused(IntentRefused::StandingNotUsable(state));
        let mut standing = match self.open_standing(wanted.id, tenant) {
            Ok(Ok(standing)) if standing.state == StandingState::Active && standing.used < standing.uses => standing,
            Ok(Ok(standing)) => return Err(not_usable(standing.state)),
            Ok(Err(StandingRefused::NotOpen(state))) => return Err(not_usable(state)),
            Ok(Err(_)) => return Err(not_usable(StandingState::Revoked)),
            Err(Stop::Refused(error)) => return Err(Stop::Refused(error.into())),
            Err(Stop::Sql(error)) => return Err(Stop::Sql(error)),
        };
        let before = standing.used;
        standing.used += 1;
        if standing.used == standing.uses {
            (standing.state, standing.ended_ms) = (StandingState::UsedUp, Some(self.now_ms));
        }
        let id = id_bytes(standing.id.uuid());
        let swapped = self.execute(
            "UPDATE standing SET used = ?1, state = ?2, ended_ms = ?3 WHERE id = ?4 AND used = ?5 AND state = 'active'",
            params![
                i64::from(standing.used),
                standing.state.word(),
                standing.ended_ms.map(integer),
                id,
                i64::from(before)
            ],
        )?;
        if swapped != 1 {
            return Err(not_usable(StandingState::UsedUp));
        }
        Ok(self.keep_intact(Kept::Standing(id))?)
    }
}

impl Ledger {
    async fn stand(&self, work: StandingWork) -> Result<StandingRow, StandingRefused> {
        match self.oversee(OversightWork::Standing(Box::new(work))).await? {
            Overseen::Standing(standing) => Ok(*standing),
            Overseen::Refused(refused) => Err(refused),
            Overseen::Done | Overseen::Case(_) => Err(LedgerError::Closed.into()),
        }
    }

    /// Keep a standing approval that somebody made. Durable when it returns.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn make_standing(&self, made: StandingRow) -> Result<StandingRow, StandingRefused> {
        self.stand(StandingWork::Make(made)).await
    }

    /// Another person, of these groups, agrees to a standing approval that waits for one.
    ///
    /// # Errors
    /// It does not wait, the person has made it, or the ledger failed.
    pub async fn agree_standing(
        &self,
        id: StandingId,
        tenant: &TenantName,
        by: UserName,
        groups: BTreeSet<String>,
    ) -> Result<StandingRow, StandingRefused> {
        self.stand(StandingWork::Agree { id, tenant: tenant.clone(), by, groups }).await
    }

    /// An operator ends a standing approval. From the answer on no commit uses it.
    ///
    /// # Errors
    /// It has ended before, or the ledger failed.
    pub async fn revoke_standing(
        &self,
        id: StandingId,
        tenant: &TenantName,
        by: UserName,
        reason: Arc<str>,
    ) -> Result<StandingRow, StandingRefused> {
        self.stand(StandingWork::Revoke { id, tenant: tenant.clone(), by, reason }).await
    }

    /// Standing approvals of a scope, newest first: those that may still be used at `now_ms`, or all.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn standing(&self, scope: &Scope, all: bool, now_ms: u64) -> Result<Vec<StandingRow>, LedgerError> {
        self.caught_up().await?;
        let (tenant, most) = match scope {
            Scope::Operator => (None, STANDING_OPEN_MAX),
            Scope::Tenant(tenant) => (Some(tenant.clone()), STANDING_LISTED_MAX),
        };
        let sql = "SELECT * FROM standing WHERE (?1 OR (state IN ('pending', 'active') AND expires_ms > ?2)) \
                   AND (?3 IS NULL OR tenant = ?3) ORDER BY seq DESC LIMIT ?4";
        self.read(move |conn| {
            let tenant = tenant.as_ref().map(TenantName::as_str);
            rows(conn, sql, params![all, integer(now_ms), tenant, most], standing_of)
        })
        .await
    }

    /// One standing approval.
    ///
    /// # Errors
    /// The ledger cannot be read, or the row is not what was written.
    pub async fn standing_row(&self, scope: &Scope, id: StandingId) -> Result<Option<StandingRow>, LedgerError> {
        self.caught_up().await?;
        let found = self.read(move |conn| {
            row(conn, "SELECT * FROM standing WHERE id = ?1", params![id_bytes(id.uuid())], |row| {
                intact(row, "standing")?;
                standing_of(row)
            })
        });
        Ok(found.await?.filter(|standing| scope.sees(&standing.tenant)))
    }
}
