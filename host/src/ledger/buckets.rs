//! Keys and values of tenants: reading them, whether what a plan saw of them still holds, and changing them.
//!
//! A change is applied in the transaction of its commit's outcome, so it is there exactly if the commit is. What a plan read
//! or replaces is compared in the transaction of its intent; between the two nobody else may commit over the same keys,
//! which is for the locks of the commit to see to. Additions compare nothing but that there is a number.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, params};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Effect};
use toolkeep_core::id::{BucketName, TenantName};
use toolkeep_core::plan::{KeyRead, PlanBody, key_listing_digest};

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, integer};
use super::failure::LedgerError;
use super::statement::{Failed, row, rows};

/// Keys of one page of a listing, at most.
pub const KEYS_PAGE_MAX: usize = 1_000;
/// Most differences that are listed: a person reads no more, and one is enough to refuse.
const CHANGED_SHOWN: usize = 20;

/// What a plan names the listing of a whole bucket; no key has a `*`.
const ALL_KEYS: &str = "*";

/// A change of a key, with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// It gets a value.
    Set {
        /// Where.
        bucket: BucketName,
        /// Which key.
        key: Arc<str>,
        /// Its value, at most [`toolkeep_core::grant::VALUE_BYTES_MAX`] bytes.
        value: Arc<[u8]>,
    },
    /// It goes.
    Delete {
        /// Where.
        bucket: BucketName,
        /// Which key.
        key: Arc<str>,
    },
    /// A number is added to it.
    Add {
        /// Where.
        bucket: BucketName,
        /// Which key; one that does not exist counts as 0.
        key: Arc<str>,
        /// What is added.
        delta: i64,
    },
}

/// What of a plan does not hold any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedKey {
    /// Where.
    pub bucket: BucketName,
    /// Which key; `*` for the listing of the bucket.
    pub key: String,
    /// How it differs.
    pub how: KeyProblem,
}

/// How a key differs from what a plan expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// Another value, or one where there was none, or none where there was one.
    #[error("has another value")]
    Value,
    /// Other keys are listed.
    #[error("lists other keys")]
    Listing,
    /// Something is to be added to what is no number.
    #[error("is not a decimal number, so nothing can be added")]
    NotANumber,
    /// The sum does not fit 64 bits.
    #[error("would leave the range of 64-bit numbers")]
    Overflow,
}

/// What plans depend on that is not there any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", shown(.0))]
pub struct KeysChanged(pub Vec<ChangedKey>);

fn shown(changed: &[ChangedKey]) -> String {
    let line = |change: &ChangedKey| format!("key `{}` of bucket `{}` {}", change.key, change.bucket, change.how);
    changed.iter().map(line).collect::<Vec<_>>().join("; ")
}

fn value(conn: &Connection, tenant: &TenantName, bucket: &BucketName, key: &str) -> Result<Option<Vec<u8>>, Failed> {
    let sql = "SELECT value FROM keys WHERE tenant = ?1 AND bucket = ?2 AND key = ?3";
    row(conn, sql, params![tenant.as_str(), bucket.as_str(), key], |row| {
        Reading::new(row, "keys").bytes_or_null("value").map(|value| value.unwrap_or_default().to_vec())
    })
}

fn names(
    conn: &Connection,
    tenant: &TenantName,
    bucket: &BucketName,
    after: &str,
    limit: usize,
) -> Result<Vec<String>, Failed> {
    let sql = "SELECT key FROM keys WHERE tenant = ?1 AND bucket = ?2 AND key > ?3 ORDER BY key LIMIT ?4";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let name = |row: &rusqlite::Row<'_>| Reading::new(row, "keys").text("key").map(str::to_owned);
    rows(conn, sql, params![tenant.as_str(), bucket.as_str(), after, limit], name)
}

fn listing(conn: &Connection, tenant: &TenantName, bucket: &BucketName) -> Result<Option<Digest>, Failed> {
    let sql = "SELECT key FROM keys WHERE tenant = ?1 AND bucket = ?2 ORDER BY key";
    let name = |row: &rusqlite::Row<'_>| Reading::new(row, "keys").text("key").map(str::to_owned);
    let names: Vec<String> = rows(conn, sql, params![tenant.as_str(), bucket.as_str()], name)?;
    Ok(key_listing_digest(names.iter().map(String::as_str)))
}

/// The number that a value spells, if it is one: as Rust and JSON write it, without blanks, zeros or a plus in front.
fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

/// What an addition makes of a value.
fn sum(value: Option<&[u8]>, delta: i64) -> Result<i64, KeyProblem> {
    let before = value.map_or(Some(0), number).ok_or(KeyProblem::NotANumber)?;
    before.checked_add(delta).ok_or(KeyProblem::Overflow)
}

/// Whether a read still holds. No key is named as a listing is.
fn read_holds(conn: &Connection, tenant: &TenantName, read: &KeyRead) -> Result<Option<KeyProblem>, Failed> {
    if read.key == ALL_KEYS {
        return Ok((listing(conn, tenant, &read.bucket)? != read.sha256).then_some(KeyProblem::Listing));
    }
    let now = value(conn, tenant, &read.bucket, &read.key)?.map(|value| Digest::of(&value));
    Ok((now != read.sha256).then_some(KeyProblem::Value))
}

/// What the changes of a plan do to its keys, one after the other: what the first one of each key finds is compared, what
/// follows was checked by whoever staged it, except that additions have to stay numbers.
#[derive(Default)]
struct Rehearsal<'p> {
    /// For each key that was met, the number that it would be if only additions were met.
    met: HashMap<(&'p BucketName, &'p str), Option<i64>>,
}

impl<'p> Rehearsal<'p> {
    fn change(
        &mut self,
        conn: &Connection,
        tenant: &TenantName,
        effect: &'p Effect,
    ) -> Result<Option<KeyProblem>, Failed> {
        let Some((bucket, key)) = effect.key() else { return Ok(None) };
        let met = self.met.get(&(bucket, key)).copied();
        let found = || value(conn, tenant, bucket, key);
        let is = |before: Option<BodyState>| {
            Ok::<_, Failed>((found()?.map(|value| BodyState::of(&value)) != before).then_some(KeyProblem::Value))
        };
        let (number, problem) = match (effect, met) {
            (Effect::KvAdd { delta, .. }, None) => match sum(found()?.as_deref(), *delta) {
                Ok(number) => (Some(number), None),
                Err(problem) => (None, Some(problem)),
            },
            (Effect::KvAdd { delta, .. }, Some(Some(number))) => match number.checked_add(*delta) {
                Some(number) => (Some(number), None),
                None => (None, Some(KeyProblem::Overflow)),
            },
            (Effect::KvSet { before, .. }, None) => (None, is(*before)?),
            (Effect::KvDelete { before, .. }, None) => (None, is(Some(*before))?),
            _ => (None, None),
        };
        self.met.insert((bucket, key), number);
        Ok(problem)
    }
}

/// Whether everything that a plan read or replaces is as it was.
pub(super) fn unchanged(conn: &Connection, body: &PlanBody) -> Result<Result<(), KeysChanged>, Failed> {
    let tenant = &body.principal.tenant;
    let mut changed = Vec::new();
    for read in &body.keys_read {
        let how = read_holds(conn, tenant, read)?;
        changed.extend(how.map(|how| ChangedKey { bucket: read.bucket.clone(), key: read.key.clone(), how }));
    }
    let mut rehearsal = Rehearsal::default();
    for effect in &body.effects {
        let Some((bucket, key)) = effect.key() else { continue };
        let how = rehearsal.change(conn, tenant, effect)?;
        changed.extend(how.map(|how| ChangedKey { bucket: bucket.clone(), key: key.to_owned(), how }));
    }
    changed.dedup_by(|one, other| one.bucket == other.bucket && one.key == other.key);
    changed.truncate(CHANGED_SHOWN);
    Ok(if changed.is_empty() { Ok(()) } else { Err(KeysChanged(changed)) })
}

impl Batch<'_> {
    /// Apply changes of keys, in their order.
    pub(super) fn change_keys(&mut self, tenant: &TenantName, changes: &[KeyChange]) -> Step<(), LedgerError> {
        for change in changes {
            match change {
                KeyChange::Set { bucket, key, value } => self.set_key(tenant, bucket, key, value)?,
                KeyChange::Delete { bucket, key } => {
                    let sql = "DELETE FROM keys WHERE tenant = ?1 AND bucket = ?2 AND key = ?3";
                    self.execute(sql, params![tenant.as_str(), bucket.as_str(), key])?;
                }
                KeyChange::Add { bucket, key, delta } => {
                    let before = value(self.conn, tenant, bucket, key)?;
                    let sum = sum(before.as_deref(), *delta).map_err(|problem| {
                        // The check before the intent and the locks of the commit do not let this happen.
                        LedgerError::Refused(format!("BUG: key `{key}` of bucket `{bucket}` {problem}").into())
                    })?;
                    self.set_key(tenant, bucket, key, sum.to_string().as_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn set_key(
        &self,
        tenant: &TenantName,
        bucket: &BucketName,
        key: &str,
        value: &[u8],
    ) -> Result<(), rusqlite::Error> {
        self.execute(
            "INSERT INTO keys (tenant, bucket, key, value, changed_ms) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (tenant, bucket, key) DO UPDATE SET value = excluded.value, changed_ms = excluded.changed_ms",
            params![tenant.as_str(), bucket.as_str(), key, value, integer(self.now_ms)],
        )?;
        Ok(())
    }
}

impl Ledger {
    /// The committed value of a key.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn key(
        &self,
        tenant: &TenantName,
        bucket: &BucketName,
        key: &str,
    ) -> Result<Option<Vec<u8>>, LedgerError> {
        self.settled().await?;
        let (tenant, bucket, key) = (tenant.clone(), bucket.clone(), key.to_owned());
        self.read(move |conn| value(conn, &tenant, &bucket, &key)).await
    }

    /// At most `limit` (and [`KEYS_PAGE_MAX`]) committed keys of a bucket in the order of their bytes, after `after`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn keys_after(
        &self,
        tenant: &TenantName,
        bucket: &BucketName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, LedgerError> {
        self.settled().await?;
        let (tenant, bucket, after) = (tenant.clone(), bucket.clone(), after.unwrap_or_default().to_owned());
        self.read(move |conn| names(conn, &tenant, &bucket, &after, limit.min(KEYS_PAGE_MAX))).await
    }

    /// Whether everything that a plan read or replaces is as it was. The intent asks the same again, in its transaction.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn keys_unchanged(&self, body: Arc<PlanBody>) -> Result<Result<(), KeysChanged>, LedgerError> {
        self.settled().await?;
        self.read(move |conn| unchanged(conn, &body)).await
    }
}
