//! Sealing payloads as they are written, and opening them while the daemon still may.
//!
//! Where the operator names recipients, inputs, replies, outputs and recordings are sealed on their way into the database, by
//! the writer, under a key of their tenant and day; wrapping it for the operators is paid once a day. The daemon keeps a
//! copy of the key, wrapped under a key file of its own, as long as calls of that day may still be asked for; then it lets
//! go of it, and what is left opens for the operators alone. Texts that were written before stay as they are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, Mac as _};
use rusqlite::{Connection, params};
use sha2::Sha256;
use toolkeep_core::id::TenantName;

use super::column::{Reading, digest_bytes, integer};
use super::failure::LedgerError;
use super::rows::CallRow;
use super::statement::{execute, rows};
use crate::ambient::Ambient;
use crate::vault::{DataKey, KEY_BYTES, KeyId, NONCE_BYTES, Part, Recipients, VaultError};

/// Milliseconds of a day: how long one key is used.
pub(super) const DAY_MS: u64 = 24 * 3600 * 1000;
/// What the daemon's own copies are wrapped with names no data key.
const MASTER: KeyId = KeyId::new([0; 8]);
/// What a payload reads as whose key the daemon does not have any more: JSON, so that whoever parses it finds a text.
pub const SEALED: &str = "\"[sealed]\"";
/// What a payload reads as that was let go of.
pub const EXPIRED: &str = "\"[expired]\"";

/// What a stored text is to the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opened {
    /// This.
    Clear(Arc<str>),
    /// Only operators can open it.
    Sealed,
    /// It was let go of; its digest is in the audit chain.
    Expired,
}

impl Opened {
    /// The text, if the daemon can read it.
    #[must_use]
    pub(super) fn clear(self) -> Option<Arc<str>> {
        match self {
            Self::Clear(text) => Some(text),
            Self::Sealed | Self::Expired => None,
        }
    }
}

impl CallRow {
    /// The input, if it can be read: it is not encrypted to operators, and was not let go of.
    #[must_use]
    pub fn readable_input(&self) -> Option<&str> {
        Some(&*self.input).filter(|input| *input != SEALED && *input != EXPIRED)
    }
}

/// A key that was made in a transaction which is not committed yet.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    tenant: String,
    day: u64,
    key: Arc<DataKey>,
    /// It goes with what is forgotten: nothing more is sealed under it.
    retired: bool,
}

#[derive(Debug, Default)]
struct Held {
    /// Keys that the daemon can use, by their names.
    live: HashMap<KeyId, Arc<DataKey>>,
    /// The key that seals now, of each tenant.
    current: HashMap<String, (u64, Arc<DataKey>)>,
}

/// The keys, and for whom they are wrapped.
pub(super) struct Vault {
    master: DataKey,
    marking: [u8; KEY_BYTES],
    recipients: Option<Recipients>,
    ambient: Ambient,
    held: Mutex<Held>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("seals", &self.recipients.is_some()).finish_non_exhaustive()
    }
}

/// One key derived from another, for one purpose.
fn derived(secret: &[u8; KEY_BYTES], purpose: &str) -> [u8; KEY_BYTES] {
    // Any length is a key of HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return [0; KEY_BYTES] };
    mac.update(purpose.as_bytes());
    mac.finalize().into_bytes().into()
}

impl Vault {
    /// The vault of a ledger whose key file holds `secret`.
    ///
    /// # Errors
    /// Keys of the database cannot be read.
    pub(super) fn open(
        conn: &Connection,
        secret: &[u8; KEY_BYTES],
        recipients: Option<Recipients>,
        ambient: Ambient,
    ) -> Result<Self, LedgerError> {
        let wrapping = derived(secret, "toolkeep.payload.wrap.v1");
        let master = DataKey::new(MASTER, &wrapping)
            .ok_or_else(|| LedgerError::Damaged("the key of payloads is no key".into()))?;
        let marking = derived(secret, "toolkeep.redaction.v1");
        let wanted = recipients.as_ref().map(Recipients::digest);
        let vault = Self { master, marking, recipients, ambient, held: Mutex::default() };
        let sql = "SELECT id, tenant, day, recipients, own, forget IS NULL AS stays FROM data_keys WHERE own IS NOT NULL \
                   ORDER BY day, made_ms";
        let found = rows(conn, sql, params![], |row| {
            let reading = Reading::new(row, "data_keys");
            let own = reading.bytes_or_null("own")?.unwrap_or_default().to_vec();
            let id: KeyId = reading.name("id")?;
            // What is forgotten takes its keys with it: nothing more is sealed under them, however long it takes.
            let stays = reading.number("stays")? == 1;
            let seals = stays && wanted == Some(reading.digest("recipients")?);
            Ok((id, reading.text("tenant")?.to_owned(), reading.number("day")?, seals, own))
        })?;
        for (id, tenant, day, seals, own) in found {
            let key = vault.master.unwrap(&own).ok().and_then(|bytes| DataKey::new(id, &bytes)).map(Arc::new);
            let Some(key) = key else {
                tracing::error!(key = %id, "a data key cannot be opened; what it seals is for operators alone");
                continue;
            };
            let mut held = vault.held();
            held.live.insert(id, Arc::clone(&key));
            if seals {
                held.current.insert(tenant, (day, key));
            }
        }
        Ok(vault)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether payloads are sealed.
    pub(super) const fn seals(&self) -> bool {
        self.recipients.is_some()
    }

    /// The key by which equal values that are hidden can be recognised.
    pub(super) const fn marking(&self) -> &[u8; KEY_BYTES] {
        &self.marking
    }

    /// What a stored text is.
    ///
    /// # Errors
    /// It was changed.
    pub(super) fn read(&self, part: Part, text: &str) -> Result<Opened, LedgerError> {
        if text.is_empty() {
            return Ok(Opened::Expired);
        }
        let Some(id) = KeyId::of(text) else { return Ok(Opened::Clear(Arc::from(text))) };
        let key = self.held().live.get(&id).map(Arc::clone);
        let Some(key) = key else { return Ok(Opened::Sealed) };
        let opened = key.open(part, text);
        let opened = opened.map_err(|error| LedgerError::Damaged(format!("a {} {error}", part.word()).into()))?;
        Ok(Opened::Clear(opened.into()))
    }

    /// Readers may need keys as soon as the transaction that made them is committed.
    pub(super) fn learn(&self, fresh: &[Fresh]) {
        if !fresh.is_empty() {
            self.held().live.extend(fresh.iter().map(|fresh| (fresh.key.id(), Arc::clone(&fresh.key))));
        }
    }

    /// The transaction is committed: its keys seal from now on, those of `retired` tenants no more, and `gone` are not the
    /// daemon's any more.
    pub(super) fn settle(&self, fresh: Vec<Fresh>, retired: &[String], gone: &[KeyId]) {
        if fresh.is_empty() && retired.is_empty() && gone.is_empty() {
            return;
        }
        let mut held = self.held();
        for tenant in retired {
            held.current.remove(tenant);
        }
        for Fresh { tenant, day, key, .. } in fresh.into_iter().filter(|fresh| !fresh.retired) {
            held.current.insert(tenant, (day, key));
        }
        for id in gone {
            held.live.remove(id);
            held.current.retain(|_, (_, key)| key.id() != *id);
        }
    }
}

/// Seals what one transaction writes.
#[derive(Debug)]
pub(super) struct Sealer<'c> {
    vault: &'c Vault,
    conn: &'c Connection,
    now_ms: u64,
    pub(super) fresh: Vec<Fresh>,
    /// Tenants whose payloads are being forgotten: what is written from now on is sealed under another key.
    pub(super) retired: Vec<String>,
    /// Keys that the daemon lets go of.
    pub(super) gone: Vec<KeyId>,
}

fn failed(error: VaultError) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

impl<'c> Sealer<'c> {
    pub(super) const fn new(vault: &'c Vault, conn: &'c Connection, now_ms: u64) -> Self {
        Self { vault, conn, now_ms, fresh: Vec::new(), retired: Vec::new(), gone: Vec::new() }
    }

    /// Whether anything is sealed at all.
    pub(super) const fn seals(&self) -> bool {
        self.vault.recipients.is_some()
    }

    /// The vault that it seals for.
    pub(super) const fn vault(&self) -> &'c Vault {
        self.vault
    }

    /// Nothing more is sealed under the keys that a tenant has by now.
    pub(super) fn retire(&mut self, tenant: &str) {
        self.retired.push(tenant.to_owned());
        self.fresh.iter_mut().filter(|fresh| fresh.tenant == tenant).for_each(|fresh| fresh.retired = true);
    }

    /// A text as it is written: sealed, where the operator wants that.
    ///
    /// # Errors
    /// A key could not be made: the text must not be written otherwise.
    pub(super) fn seal<'t>(
        &mut self,
        tenant: &TenantName,
        part: Part,
        text: &'t str,
    ) -> Result<Cow<'t, str>, rusqlite::Error> {
        let Some(recipients) = &self.vault.recipients else { return Ok(Cow::Borrowed(text)) };
        let day = self.now_ms / DAY_MS;
        let key = match self.known(tenant.as_str(), day) {
            Some(key) => key,
            None => self.make(tenant.as_str(), day, recipients)?,
        };
        key.seal(part, text, self.vault.ambient.random::<NONCE_BYTES>()).map(Cow::Owned).map_err(failed)
    }

    fn known(&self, tenant: &str, day: u64) -> Option<Arc<DataKey>> {
        let fresh = self.fresh.iter().rev().find(|fresh| fresh.tenant == tenant && fresh.day == day && !fresh.retired);
        if let Some(fresh) = fresh {
            return Some(Arc::clone(&fresh.key));
        }
        if self.retired.iter().any(|retired| retired == tenant) {
            return None;
        }
        let held = self.vault.held();
        held.current.get(tenant).filter(|(made, _)| *made == day).map(|(_, key)| Arc::clone(key))
    }

    fn make(&mut self, tenant: &str, day: u64, recipients: &Recipients) -> Result<Arc<DataKey>, rusqlite::Error> {
        let ambient = &self.vault.ambient;
        let bytes = zeroize::Zeroizing::new(ambient.random::<KEY_BYTES>());
        let id = KeyId::new(ambient.random());
        let own = self.vault.master.wrap(&bytes, ambient.random::<NONCE_BYTES>()).map_err(failed)?;
        let age = recipients.wrap(&bytes, ambient).map_err(failed)?;
        let key = DataKey::new(id, bytes.as_slice()).map(Arc::new).ok_or_else(|| failed(VaultError::Wrap))?;
        execute(
            self.conn,
            "INSERT INTO data_keys (id, tenant, day, recipients, made_ms, own, age) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                id.to_string(),
                tenant,
                integer(day),
                digest_bytes(&recipients.digest()),
                integer(self.now_ms),
                own,
                age
            ],
        )?;
        self.fresh.push(Fresh { tenant: tenant.to_owned(), day, key: Arc::clone(&key), retired: false });
        Ok(key)
    }
}
