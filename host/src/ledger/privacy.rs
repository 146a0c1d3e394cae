//! What an operator does about what is kept: legal holds, letting go of the daemon's copies of data keys, reading a payload
//! as it is kept, cutting the write-ahead log, and giving room back to the disk. Forgetting has a module of its own.
//!
//! The daemon's copy of a data key goes when nothing that is not over names it, however long a call of another day waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, params};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, RunId, TenantName, UserName};

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, id_bytes, integer};
use super::failure::LedgerError;
use super::forgetting::{Forgetting, Forgotten};
use super::options::PAGE_BYTES;
use super::queue::{Done, Work};
use super::rows::Scope;
use super::sealing::DAY_MS;
use super::statement::{Failed, row, rows};
use crate::vault::{KeyId, Part};

/// The statements below say the length of a day in milliseconds.
const _: () = assert!(DAY_MS == 86_400_000, "one data key seals one day");
/// The pause between two jobs that give room back, in which others write.
const PAUSE: Duration = Duration::from_millis(5);
/// How often it is tried to cut the log while somebody reads, and the pause between: readers take milliseconds.
const CUT_TRIES: u32 = 20;
const CUT_PAUSE: Duration = Duration::from_millis(25);
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

/// What a job of this kind does.
#[derive(Debug)]
pub(super) enum PrivacyWork {
    Hold { hold: Hold, facts: String },
    Release { of: HoldOf, tenant: TenantName, facts: String },
    Forget { tenant: TenantName, user: Option<UserName>, facts: String },
    Walk { forget: Box<Forgetting>, after: i64 },
    Rest { forget: Box<Forgetting> },
    Forgotten { forget: Box<Forgetting>, so_far: Forgotten },
    LetGo { before_ms: u64 },
    Shrink,
    Truncate,
}

impl PrivacyWork {
    /// Whether it makes room on the disk.
    pub(super) const fn makes_room(&self) -> bool {
        matches!(self, Self::Walk { .. } | Self::Rest { .. } | Self::Shrink)
    }
}

/// What it came to.
#[derive(Debug)]
pub(super) enum PrivacyDone {
    Changed(bool),
    Count(u64),
    Noted(Box<Forgetting>),
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

/// Calls whose payloads the daemon still needs: those that are not over, that are given up and may be made again, and parts of
/// which a call waits for. What of them is sealed names its key behind `tk1.`.
const LET_GO: &str = "WITH needed (seq) AS (SELECT seq FROM calls WHERE final = 0 \
                      UNION SELECT c.seq FROM continuations w JOIN calls c ON c.id = w.child \
                      UNION SELECT c.seq FROM dead_letters d JOIN calls c ON c.id = d.item \
                      WHERE d.kind = 'call' AND (d.state = 'resting' OR d.again IS NOT NULL)), \
                      named (text) AS (SELECT given FROM continuations \
                      UNION ALL SELECT c.input FROM needed n JOIN calls c ON c.seq = n.seq \
                      UNION ALL SELECT c.reply FROM needed n JOIN calls c ON c.seq = n.seq \
                      UNION ALL SELECT o.body FROM needed n JOIN call_outputs o ON o.call_seq = n.seq \
                      UNION ALL SELECT r.body FROM needed n JOIN recordings r ON r.call_seq = n.seq \
                      UNION ALL SELECT t.reply FROM needed n JOIN plan_texts t ON t.plan_seq = n.seq \
                      UNION ALL SELECT s.headers FROM needed n JOIN plans p ON p.seq = n.seq \
                      JOIN sends s ON s.plan = p.id) \
                      UPDATE data_keys SET own = NULL, sealed_ms = ?1 WHERE id IN (SELECT k.id FROM data_keys k \
                      WHERE k.own IS NOT NULL AND (k.day + 1) * 86400000 <= ?2 AND k.id NOT IN \
                      (SELECT substr(text, 5, 16) FROM named WHERE substr(text, 1, 4) = 'tk1.') LIMIT ?3) RETURNING id";

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
            PrivacyWork::Forget { tenant, user, facts } => self.ask_to_forget(tenant, user.as_ref(), facts)?,
            PrivacyWork::Walk { forget, after } => self.walk_past(forget, *after)?,
            PrivacyWork::Rest { forget } => self.forget_rest(forget)?,
            PrivacyWork::Forgotten { forget, so_far } => PrivacyDone::Done(self.forgotten(forget, *so_far)?),
            PrivacyWork::LetGo { before_ms } => {
                let values = params![integer(self.now_ms), integer(*before_ms), SEALED_AT_ONCE];
                self.clear(true)?;
                let gone = self.rows(LET_GO, values, |row| Reading::new(row, "data_keys").name::<KeyId>("id"))?;
                self.clear(false)?;
                let count = gone.len() as u64;
                self.sealer.gone.extend(gone);
                PrivacyDone::Count(count)
            }
            PrivacyWork::Shrink => PrivacyDone::Count(self.shrink()?),
            // The log is cut when this transaction is over, and the writer says whether it was.
            PrivacyWork::Truncate => PrivacyDone::Changed(false),
        })
    }

    fn noted(&mut self, changed: bool, facts: &str) -> PrivacyDone {
        if changed {
            self.append(AuditKind::Privacy, facts.to_owned());
        }
        PrivacyDone::Changed(changed)
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
    pub(super) async fn private(&self, work: PrivacyWork, durable: bool) -> Result<PrivacyDone, LedgerError> {
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

    /// Let go of the daemon's copies of data keys whose day ended before this time, in milliseconds since the Unix epoch, but
    /// not while something that is not over is sealed under them. Returns how many.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn let_go_of_keys(&self, before_ms: u64) -> Result<u64, LedgerError> {
        match self.private(PrivacyWork::LetGo { before_ms }, true).await? {
            PrivacyDone::Count(count) => Ok(count),
            _ => Ok(0),
        }
    }

    /// Cut the write-ahead log, so that what was removed is not found in it either. Says whether it was cut: who reads for long
    /// may keep it in use, and then the next sweep does it.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn cut_log(&self) -> Result<bool, LedgerError> {
        self.shared.uncut.store(true, Ordering::Release);
        for _ in 0..CUT_TRIES {
            if matches!(self.private(PrivacyWork::Truncate, false).await?, PrivacyDone::Changed(true)) {
                self.shared.uncut.store(false, Ordering::Release);
                return Ok(true);
            }
            tokio::time::sleep(CUT_PAUSE).await;
        }
        Ok(false)
    }

    /// Whether the log may still hold what was removed: it could not be cut, or the last daemon did not stop cleanly.
    #[must_use]
    pub fn log_is_uncut(&self) -> bool {
        self.shared.uncut.load(Ordering::Acquire)
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
