//! What an operator does about what is kept: legal holds, forgetting a tenant or a person, letting go of the daemon's copies
//! of data keys, reading a payload as it is kept, and giving room back to the disk.
//!
//! Forgetting is a row first and work afterwards: a daemon that is killed in between goes on where it was. What is still
//! open, halted or held is left and tried again, so that forgetting never takes from recovery what it needs. The audit
//! chain keeps names and digests.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, RunId, TenantName, UserName};

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, id_bytes, integer};
use super::failure::LedgerError;
use super::options::PAGE_BYTES;
use super::queue::{Done, Work};
use super::retention::{Candidate, OF_TENANT};
use super::rows::Scope;
use super::sealing::DAY_MS;
use super::statement::{Failed, row, rows};
use crate::vault::{KeyId, Part};

/// The statements below say the length of a day in milliseconds.
const _: () = assert!(DAY_MS == 86_400_000, "one data key seals one day");
/// Calls, of any tenant, that one job of forgetting walks past.
const WALKED: i64 = 512;
/// The pause between two such jobs, in which others write.
const PAUSE: Duration = Duration::from_millis(5);
/// Data keys that one sweep lets go of.
const SEALED_AT_ONCE: i64 = 256;
/// Pages that are given back to the disk at a time: a few milliseconds of writing.
const SHRUNK_AT_ONCE: i64 = 512;
/// Free pages that stay in the file for what is written next.
const SPARE_PAGES: i64 = 4_096;
/// Most holds of one list.
const HOLDS_MAX: u32 = 1_000;

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldOf {
    /// One call.
    Call(CallId),
    /// Every call of a run.
    Run(RunId),
}

impl HoldOf {
    fn id(&self) -> &[u8] {
        match self {
            Self::Call(call) => id_bytes(call.uuid()),
            Self::Run(run) => id_bytes(run.uuid()),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Call(_) => "call",
            Self::Run(_) => "run",
        }
    }
}

/// A legal hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Of what.
    pub of: HoldOf,
    /// Whose it is.
    pub tenant: TenantName,
    /// Why.
    pub reason: Arc<str>,
    /// Who set it.
    pub set_by: UserName,
    /// When.
    pub set_ms: u64,
}

/// How far forgetting has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Calls that are gone.
    pub calls: u64,
    /// Calls that are still open, halted or held: they go when they are over.
    pub left: u64,
    /// Data keys that nobody has any more.
    pub keys: u64,
}

/// What a job of this kind does.
#[derive(Debug)]
pub(super) enum PrivacyWork {
    Hold { hold: Hold, facts: String },
    Release { of: HoldOf, tenant: TenantName, facts: String },
    Forget { tenant: TenantName, user: Option<UserName>, asked_ms: u64, facts: String },
    Walk { forget: u64, after: i64 },
    Forgotten { forget: u64, so_far: Forgotten },
    LetGo { before_ms: u64 },
    Shrink,
    Truncate,
}

impl PrivacyWork {
    /// Whether it makes room on the disk.
    pub(super) const fn makes_room(&self) -> bool {
        matches!(self, Self::Walk { .. } | Self::Forgotten { .. } | Self::Shrink)
    }
}

/// What it came to.
#[derive(Debug, Clone, Copy)]
pub(super) enum PrivacyDone {
    Changed(bool),
    Count(u64),
    Walked { next: Option<i64>, calls: u64, left: u64 },
    Done(Forgotten),
}

/// A text of a call as it is kept: clear, or sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadPart {
    /// Which.
    pub part: Part,
    /// The text; empty where it is not kept any more.
    pub text: String,
}

/// The payloads of a call as they are kept, with the keys that open them, wrapped for the operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedPayload {
    /// The texts.
    pub parts: Vec<PayloadPart>,
    /// The keys: names, and age files. One that was destroyed is missing.
    pub keys: Vec<(KeyId, Vec<u8>)>,
    /// What the input must hash to.
    pub input_digest: Digest,
}

/// Room in the database, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Room {
    /// The file.
    pub bytes: u64,
    /// Of it, free for what is written next.
    pub free_bytes: u64,
}

/// A tenant, or a person of it, that is being forgotten.
struct Asked {
    tenant: TenantName,
    user: String,
    asked_ms: u64,
}

const FORGET: &str = "SELECT tenant, user, asked_ms FROM forgets WHERE seq = ?1 AND done_ms IS NULL";
const LET_GO: &str = "UPDATE data_keys SET own = NULL, sealed_ms = ?1 WHERE id IN (SELECT k.id FROM data_keys k \
                      WHERE k.own IS NOT NULL AND (k.day + 1) * 86400000 <= ?2 AND NOT EXISTS (SELECT 1 FROM calls c \
                      WHERE c.tenant = k.tenant AND c.final = 0 AND c.started_ms < (k.day + 1) * 86400000) \
                      AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.tenant = k.tenant \
                      AND (d.state = 'resting' OR d.again IS NOT NULL) AND d.kind = 'call') LIMIT ?3) \
                      RETURNING id";
const SHRED: &str = "UPDATE data_keys SET own = NULL, age = NULL, sealed_ms = ?1 WHERE tenant = ?2 AND made_ms < ?3 \
                     AND (own IS NOT NULL OR age IS NOT NULL) RETURNING id";
/// What else of a tenant, or of a person, was kept and is over. Applied in this order, to ?1 and, if not empty, ?2, for what
/// began before ?3.
const OF_FORGOTTEN: [&str; 3] = [
    "DELETE FROM transactions WHERE tenant = ?1 AND (?2 = '' OR user = ?2) AND opened_ms < ?3 \
     AND state NOT IN ('open', 'sealed') AND plan IS NULL",
    "DELETE FROM run_marks WHERE run IN (SELECT id FROM runs WHERE tenant = ?1 AND (?2 = '' OR user = ?2) \
     AND opened_ms < ?3 AND closed_ms IS NOT NULL)",
    "DELETE FROM runs WHERE tenant = ?1 AND (?2 = '' OR user = ?2) AND opened_ms < ?3 AND closed_ms IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.run = runs.id)",
];
/// What of a whole tenant was kept for it: what its tools kept, and what was delivered.
const OF_FORGOTTEN_TENANT: [&str; 2] = [
    "DELETE FROM keys WHERE tenant = ?1 AND changed_ms < ?2",
    "DELETE FROM outbox WHERE tenant = ?1 AND made_ms < ?2 AND state IN ('delivered', 'discarded')",
];

impl Batch<'_> {
    /// Do a job of this kind.
    pub(super) fn privacy(&mut self, work: &PrivacyWork) -> Step<PrivacyDone, LedgerError> {
        Ok(match work {
            PrivacyWork::Hold { hold, facts } => {
                let set = self.execute(
                    "INSERT INTO holds (subject, kind, tenant, reason, set_by, set_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                     ON CONFLICT DO NOTHING",
                    params![
                        hold.of.id(),
                        hold.of.word(),
                        hold.tenant.as_str(),
                        hold.reason,
                        hold.set_by.as_str(),
                        integer(hold.set_ms)
                    ],
                )?;
                self.noted(set == 1, facts)
            }
            PrivacyWork::Release { of, tenant, facts } => {
                let sql = "DELETE FROM holds WHERE subject = ?1 AND tenant = ?2";
                let released = self.execute(sql, params![of.id(), tenant.as_str()])?;
                self.noted(released == 1, facts)
            }
            PrivacyWork::Forget { tenant, user, asked_ms, facts } => {
                let user = user.as_ref().map_or("", UserName::as_str);
                let sql = "INSERT INTO forgets (tenant, user, asked_ms) VALUES (?1, ?2, ?3)";
                self.execute(sql, params![tenant.as_str(), user, integer(*asked_ms)])?;
                let forget = self.conn.last_insert_rowid();
                self.append(AuditKind::Privacy, facts.clone());
                // What is written from now on is sealed under a key that stays.
                self.sealer.retired.push(tenant.as_str().to_owned());
                PrivacyDone::Count(forget.unsigned_abs())
            }
            PrivacyWork::Walk { forget, after } => self.walk_past(*forget, *after)?,
            PrivacyWork::Forgotten { forget, so_far } => PrivacyDone::Done(self.forgotten(*forget, *so_far)?),
            PrivacyWork::LetGo { before_ms } => {
                let values = params![integer(self.now_ms), integer(*before_ms), SEALED_AT_ONCE];
                let gone = self.rows(LET_GO, values, |row| Reading::new(row, "data_keys").name::<KeyId>("id"))?;
                let count = gone.len() as u64;
                self.sealer.gone.extend(gone);
                PrivacyDone::Count(count)
            }
            PrivacyWork::Shrink => PrivacyDone::Count(self.shrink()?),
            // The log is cut when this transaction is over: nothing is to be written for it.
            PrivacyWork::Truncate => PrivacyDone::Changed(true),
        })
    }

    fn noted(&mut self, changed: bool, facts: &str) -> PrivacyDone {
        if changed {
            self.append(AuditKind::Privacy, facts.to_owned());
        }
        PrivacyDone::Changed(changed)
    }

    fn asked(&self, forget: u64) -> Result<Option<Asked>, Failed> {
        self.row(FORGET, params![integer(forget)], |row| {
            let reading = Reading::new(row, "forgets");
            Ok(Asked {
                tenant: reading.name("tenant")?,
                user: reading.text("user")?.to_owned(),
                asked_ms: reading.number("asked_ms")?,
            })
        })
    }

    /// Remove the calls of who is forgotten, among the next ones.
    fn walk_past(&mut self, forget: u64, after: i64) -> Step<PrivacyDone, LedgerError> {
        let Some(asked) = self.asked(forget)? else {
            return Ok(PrivacyDone::Walked { next: None, calls: 0, left: 0 });
        };
        self.clear(true)?;
        let to = after.saturating_add(WALKED);
        let of = params![after, to, asked.tenant.as_str(), asked.user, integer(asked.asked_ms)];
        let candidates = self.rows(OF_TENANT, of, Candidate::of)?;
        let (mut calls, mut left) = (0, 0);
        for candidate in &candidates {
            if candidate.is_over() && !candidate.held {
                let resting = "DELETE FROM dead_letters WHERE item = (SELECT id FROM calls WHERE seq = ?1)";
                self.execute(resting, params![candidate.seq])?;
                self.remove(candidate)?;
                calls += 1;
            } else {
                left += 1;
            }
        }
        self.clear(false)?;
        let last = self.row("SELECT max(seq) AS seq FROM calls", params![], |row| {
            Reading::new(row, "calls").number_or_null("seq").map(|seq| integer(seq.unwrap_or(0)))
        })?;
        let next = (to < last.unwrap_or(0)).then_some(to);
        Ok(PrivacyDone::Walked { next, calls, left })
    }

    /// Every call was walked past. If nothing is left, the rest goes too, and the keys with it.
    fn forgotten(&mut self, forget: u64, mut so_far: Forgotten) -> Step<Forgotten, LedgerError> {
        let Some(asked) = self.asked(forget)? else { return Ok(so_far) };
        if so_far.left > 0 {
            return Ok(so_far);
        }
        self.clear(true)?;
        let (tenant, asked_ms) = (asked.tenant.as_str(), integer(asked.asked_ms));
        for sql in OF_FORGOTTEN {
            self.execute(sql, params![tenant, asked.user, asked_ms])?;
        }
        if asked.user.is_empty() {
            for sql in OF_FORGOTTEN_TENANT {
                self.execute(sql, params![tenant, asked_ms])?;
            }
            let shredded = self.rows(SHRED, params![integer(self.now_ms), tenant, asked_ms], |row| {
                Reading::new(row, "data_keys").name::<KeyId>("id")
            })?;
            so_far.keys = shredded.len() as u64;
            self.sealer.gone.extend(shredded);
        }
        self.clear(false)?;
        let sql = "UPDATE forgets SET done_ms = ?1 WHERE seq = ?2";
        self.execute(sql, params![integer(self.now_ms), integer(forget)])?;
        let facts = serde_json::json!({"calls": so_far.calls, "keys": so_far.keys, "tenant": asked.tenant,
            "user": asked.user, "what": "forgotten"});
        self.append(AuditKind::Privacy, toolkeep_core::audit::canonical_body(&facts));
        Ok(so_far)
    }

    /// Give free pages back to the disk. Returns how many could still be given.
    fn shrink(&self) -> Result<u64, rusqlite::Error> {
        let free: i64 = self.conn.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if free <= SPARE_PAGES {
            return Ok(0);
        }
        let most = (free - SPARE_PAGES).min(SHRUNK_AT_ONCE);
        // Each step of the statement gives one page back.
        let mut statement = self.conn.prepare(&format!("PRAGMA incremental_vacuum({most})"))?;
        let mut steps = statement.query([])?;
        while steps.next()?.is_some() {}
        let left: i64 = self.conn.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        // A database that was made before this existed gives nothing back: it is not asked again at once.
        Ok(if left < free { left.saturating_sub(SPARE_PAGES).max(0).unsigned_abs() } else { 0 })
    }
}

fn payload_of(conn: &Connection, scope: &Scope, call: CallId) -> Result<Option<SealedPayload>, Failed> {
    let sql = "SELECT c.tenant, c.input, c.reply, c.input_digest, o.body AS output, r.body AS recording FROM calls c \
               LEFT JOIN call_outputs o ON o.call_seq = c.seq LEFT JOIN recordings r ON r.call_seq = c.seq WHERE c.id = ?1";
    let found = row(conn, sql, params![id_bytes(call.uuid())], |row| {
        let reading = Reading::new(row, "calls");
        let tenant: TenantName = reading.name("tenant")?;
        let mut parts = Vec::with_capacity(Part::SHOWN.len());
        for part in Part::SHOWN {
            // Its columns are named like the parts.
            parts.push(PayloadPart { part, text: reading.text_or_null(part.word())?.unwrap_or_default().to_owned() });
        }
        Ok((tenant, parts, reading.digest("input_digest")?))
    })?;
    let Some((_, parts, input_digest)) = found.filter(|(tenant, ..)| scope.sees(tenant)) else { return Ok(None) };
    let mut names: Vec<KeyId> = parts.iter().filter_map(|part| KeyId::of(&part.text)).collect();
    names.sort_unstable();
    names.dedup();
    let mut keys = Vec::with_capacity(names.len());
    for name in names {
        let age = row(conn, "SELECT age FROM data_keys WHERE id = ?1", params![name.to_string()], |row| {
            Ok(Reading::new(row, "data_keys").bytes_or_null("age")?.map(<[u8]>::to_vec))
        })?;
        keys.extend(age.flatten().map(|age| (name, age)));
    }
    Ok(Some(SealedPayload { parts, keys, input_digest }))
}

impl Ledger {
    async fn private(&self, work: PrivacyWork, durable: bool) -> Result<PrivacyDone, LedgerError> {
        match self.ask(Work::Privacy(Box::new(work)), durable).await? {
            Done::Private(done) => Ok(done),
            Done::Refused(error) => Err(error),
            _ => Err(LedgerError::Closed),
        }
    }

    /// Hold a call or a run, durably. Says whether it was not held before.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn hold_for_law(&self, hold: Hold, facts: String) -> Result<bool, LedgerError> {
        let done = self.private(PrivacyWork::Hold { hold, facts }, true).await?;
        Ok(matches!(done, PrivacyDone::Changed(true)))
    }

    /// Let go of a hold, durably. Says whether there was one.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn release_hold(&self, of: HoldOf, tenant: &TenantName, facts: String) -> Result<bool, LedgerError> {
        let done = self.private(PrivacyWork::Release { of, tenant: tenant.clone(), facts }, true).await?;
        Ok(matches!(done, PrivacyDone::Changed(true)))
    }

    /// Holds of a tenant, newest first, at most a thousand.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn holds(&self, tenant: &TenantName) -> Result<Vec<Hold>, LedgerError> {
        self.caught_up().await?;
        let tenant = tenant.clone();
        let sql =
            "SELECT subject, kind, reason, set_by, set_ms FROM holds WHERE tenant = ?1 ORDER BY set_ms DESC LIMIT ?2";
        self.read(move |conn| {
            rows(conn, sql, params![tenant.as_str(), HOLDS_MAX], |row| {
                let reading = Reading::new(row, "holds");
                let id = reading.uuid("subject")?;
                let of = if reading.text("kind")? == "run" {
                    HoldOf::Run(RunId::new(id))
                } else {
                    HoldOf::Call(CallId::new(id))
                };
                Ok(Hold {
                    of,
                    tenant: tenant.clone(),
                    reason: Arc::from(reading.text("reason")?),
                    set_by: reading.name("set_by")?,
                    set_ms: reading.number("set_ms")?,
                })
            })
        })
        .await
    }

    /// Note, durably, that everything is to be forgotten that a tenant, or one person of it, began before `asked_ms`; then
    /// do it. What is left goes when it is over, by [`Ledger::go_on_forgetting`].
    ///
    /// # Errors
    /// The ledger failed. What was noted is done later.
    pub async fn forget(
        &self,
        tenant: &TenantName,
        user: Option<&UserName>,
        asked_ms: u64,
        facts: String,
    ) -> Result<Forgotten, LedgerError> {
        let work = PrivacyWork::Forget { tenant: tenant.clone(), user: user.cloned(), asked_ms, facts };
        match self.private(work, true).await? {
            PrivacyDone::Count(forget) => self.forget_on(forget).await,
            _ => Ok(Forgotten::default()),
        }
    }

    /// Go on with what was noted and is not done.
    ///
    /// # Errors
    /// The ledger failed; the next time it goes on.
    pub async fn go_on_forgetting(&self) -> Result<Forgotten, LedgerError> {
        self.caught_up().await?;
        let sql = "SELECT seq FROM forgets WHERE done_ms IS NULL ORDER BY seq";
        let open = self.read(move |conn| rows(conn, sql, params![], |row| Reading::new(row, "forgets").number("seq")));
        let mut all = Forgotten::default();
        for forget in open.await? {
            let done = self.forget_on(forget).await?;
            all.calls += done.calls;
            all.left += done.left;
            all.keys += done.keys;
        }
        Ok(all)
    }

    async fn forget_on(&self, forget: u64) -> Result<Forgotten, LedgerError> {
        let (mut after, mut so_far) = (0, Forgotten::default());
        loop {
            let PrivacyDone::Walked { next, calls, left } =
                self.private(PrivacyWork::Walk { forget, after }, false).await?
            else {
                return Ok(so_far);
            };
            so_far.calls += calls;
            so_far.left += left;
            let Some(next) = next else { break };
            after = next;
            if calls > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        let PrivacyDone::Done(done) = self.private(PrivacyWork::Forgotten { forget, so_far }, true).await? else {
            return Ok(so_far);
        };
        self.private(PrivacyWork::Truncate, false).await?;
        Ok(done)
    }

    /// Let go of the daemon's copies of data keys whose day ended before this time, in milliseconds since the Unix epoch, but
    /// not while a call of the day is not over. Returns how many.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn let_go_of_keys(&self, before_ms: u64) -> Result<u64, LedgerError> {
        match self.private(PrivacyWork::LetGo { before_ms }, true).await? {
            PrivacyDone::Count(count) => Ok(count),
            _ => Ok(0),
        }
    }

    /// Give free room back to the disk, a little at a time.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn shrink(&self) -> Result<(), LedgerError> {
        while let PrivacyDone::Count(1..) = self.private(PrivacyWork::Shrink, false).await? {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// How large the database is.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn room(&self) -> Result<Room, LedgerError> {
        let pages = |conn: &Connection, sql| -> Result<u64, Failed> {
            Ok(conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)?)
        };
        self.read(move |conn| {
            let (all, free) = (pages(conn, "PRAGMA page_count")?, pages(conn, "PRAGMA freelist_count")?);
            let bytes = |pages: u64| pages.saturating_mul(u64::from(PAGE_BYTES));
            Ok(Room { bytes: bytes(all), free_bytes: bytes(free) })
        })
        .await
    }

    /// The payloads of a call as they are kept, with what opens them for operators.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn payload(&self, scope: &Scope, call: CallId) -> Result<Option<SealedPayload>, LedgerError> {
        self.caught_up().await?;
        let scope = scope.clone();
        self.read(move |conn| payload_of(conn, &scope, call)).await
    }

    /// The secret by which equal values that are hidden can be recognised. It says nothing without the ledger's key file.
    pub(crate) fn marking(&self) -> [u8; crate::vault::KEY_BYTES] {
        *self.shared.vault.marking()
    }

    /// Whether payloads are sealed as they are written.
    #[must_use]
    pub fn seals(&self) -> bool {
        self.shared.vault.seals()
    }

    pub(super) fn vault(&self) -> Arc<super::sealing::Vault> {
        Arc::clone(&self.shared.vault)
    }
}
