//! How long the ledger keeps what is over: payloads and rows go when the operator does not want them any more.
//!
//! What may go is sorted into classes, each with a time of its own. The sweep of a class walks the calls once, in the order of
//! writing, and remembers how far it came; a call that is old enough and still needed is left on a list that is looked
//! through again. What is not over stays however old it is: calls that wait, open intents, held plans, halted ones, plans
//! whose undo contents are still kept, replies that a key names, what is under a legal hold. The audit chain stays whole, so
//! it still verifies and still says what was. The writer looks at a few calls at a time, so that nobody waits long for it;
//! a sweep that is cut off anywhere goes on where it was.

mod rehearsal;
mod small;

use std::time::Duration;

use rusqlite::{Connection, Row, params};
use toolkeep_core::call::Status;
use toolkeep_core::id::PlanId;
use toolkeep_core::tier::Tier;

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, id_bytes, integer, worded};
use super::failure::LedgerError;
use super::queue::{Done, Work};
use super::rows::PlanState;
use super::schema;
use super::statement::{Failed, row};

/// Calls that one job looks at: about the time of a commit.
const LOOKED_AT: i64 = 64;
/// Calls of the list of one class that one sweep looks at again.
const LEFT_LOOKED_AT: u64 = 4_096;
/// The pause between two jobs of a sweep, in which others write.
const PAUSE: Duration = Duration::from_millis(5);

/// What goes together, at one age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Contents that undo needs; by the time of the commit. All others by the time at which the call ended.
    Contents,
    /// Idempotency keys: a retry is answered with the stored reply as long as its key is kept.
    Keys,
    /// Inputs, outputs and replies. Their digests stay.
    Payloads,
    /// Recordings. Without one a call cannot be replayed.
    Recordings,
    /// Everything of a call that was refused before it ran.
    Refused,
    /// Everything of a call whose plan was never committed: discarded, rejected or expired.
    Expired,
    /// Everything of any other call of a tool of this tier.
    Tier(Tier),
}

impl Class {
    /// All of them, in the order in which they are swept: what others wait for comes first.
    pub const ALL: [Self; 10] = [
        Self::Contents,
        Self::Keys,
        Self::Payloads,
        Self::Recordings,
        Self::Refused,
        Self::Expired,
        Self::Tier(Tier::ReadOnly),
        Self::Tier(Tier::Reversible),
        Self::Tier(Tier::Consequential),
        Self::Tier(Tier::Irreversible),
    ];

    /// Its name, in the configuration and in the ledger.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Contents => "contents",
            Self::Keys => "keys",
            Self::Payloads => "payloads",
            Self::Recordings => "recordings",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Tier(Tier::ReadOnly) => "tier0",
            Self::Tier(Tier::Reversible) => "tier1",
            Self::Tier(Tier::Consequential) => "tier2",
            Self::Tier(Tier::Irreversible) => "tier3",
        }
    }
}

/// From which moment on each class is kept, in milliseconds since the Unix epoch; where a class says nothing, its calls
/// are kept as [`Keep::since_ms`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cutoffs {
    /// Idempotency keys.
    pub keys: Option<u64>,
    /// Inputs, outputs and replies.
    pub payloads: Option<u64>,
    /// Recordings.
    pub recordings: Option<u64>,
    /// Refused calls.
    pub refused: Option<u64>,
    /// Plans that were never committed.
    pub expired: Option<u64>,
    /// Calls by the tier of their tool, from 0 to 3.
    pub tiers: [Option<u64>; 4],
}

/// What the operator wants to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Everything that ended at this time or later, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Undo contents of commits of this time or later; of all commits if absent.
    pub undo_since_ms: Option<u64>,
    /// What is kept longer or shorter.
    pub cutoffs: Cutoffs,
}

impl Keep {
    /// Everything that ended at this time or later, and all undo contents.
    #[must_use]
    pub const fn since(since_ms: u64) -> Self {
        let cutoffs =
            Cutoffs { keys: None, payloads: None, recordings: None, refused: None, expired: None, tiers: [None; 4] };
        Self { since_ms, undo_since_ms: None, cutoffs }
    }

    /// From when on a class is kept; nothing where it goes with its call.
    #[must_use]
    pub fn of(&self, class: Class) -> Option<u64> {
        let Cutoffs { keys, payloads, recordings, refused, expired, tiers } = self.cutoffs;
        match class {
            Class::Contents => self.undo_since_ms,
            Class::Keys => keys,
            Class::Payloads => payloads,
            Class::Recordings => recordings,
            Class::Refused => Some(refused.unwrap_or(self.since_ms)),
            Class::Expired => Some(expired.unwrap_or(self.since_ms)),
            Class::Tier(tier) => {
                let own = tiers.get(usize::from(tier.number())).copied().flatten();
                Some(own.unwrap_or(self.since_ms))
            }
        }
    }
}

/// What a sweep let go of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pruned {
    /// Calls with everything that belongs to them.
    pub calls: u64,
    /// Calls whose input and reply are gone.
    pub payloads: u64,
    /// Recordings.
    pub recordings: u64,
    /// Idempotency keys.
    pub keys: u64,
    /// Plans whose undo contents are gone.
    pub contents: u64,
}

impl Pruned {
    const fn count(&mut self, class: Class) {
        let of = match class {
            Class::Contents => &mut self.contents,
            Class::Keys => &mut self.keys,
            Class::Payloads => &mut self.payloads,
            Class::Recordings => &mut self.recordings,
            Class::Refused | Class::Expired | Class::Tier(_) => &mut self.calls,
        };
        *of += 1;
    }

    const fn and(&mut self, other: Self) {
        self.calls += other.calls;
        self.payloads += other.payloads;
        self.recordings += other.recordings;
        self.keys += other.keys;
        self.contents += other.contents;
    }

    /// Whether nothing was let go of.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Which of [`Class::ALL`].
    class: usize,
    /// Whether the list of the class was looked through.
    listed: bool,
    /// How many of the list were looked at.
    looked: u64,
}

impl Place {
    const fn next_class(self) -> Self {
        Self { class: self.class + 1, listed: false, looked: 0 }
    }
}

/// One step of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Swept {
    /// Where the next step goes on; nothing at the end.
    pub(super) next: Option<Place>,
    /// What is gone.
    pub(super) pruned: Pruned,
}

/// Whether something of a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Now.
    Due,
    /// Not while it is needed, or not yet.
    Later,
    /// There is nothing of this class, and there will never be.
    Never,
}

/// A call that may be over.
pub(super) struct Candidate {
    pub(super) seq: i64,
    is_final: bool,
    started_ms: u64,
    ended_ms: u64,
    tier: Tier,
    /// It was denied, or its tool was not found.
    refused: bool,
    /// Its payloads are gone.
    blank: bool,
    keyed: bool,
    recorded: bool,
    pub(super) held: bool,
    resting: bool,
    /// Another call waits for what it was answered.
    awaited: bool,
    plan: Option<Settled>,
}

/// Its plan.
struct Settled {
    id: PlanId,
    state: PlanState,
    settled_ms: Option<u64>,
    undone: bool,
    pinned: bool,
}

macro_rules! candidates {
    ($end:literal) => {
        concat!(
            "SELECT c.seq, c.final, c.status, c.component IS NULL AS missing, c.tier, c.started_ms, c.ended_ms, ",
            "octet_length(c.reply) = 0 AS blank, p.id AS plan, p.state, p.settled_ms, p.undone_by IS NOT NULL AS undone, ",
            "EXISTS (SELECT 1 FROM blob_pins b WHERE b.plan_seq = c.seq) AS pinned, ",
            "EXISTS (SELECT 1 FROM idempotency i WHERE i.call_seq = c.seq) AS keyed, ",
            "EXISTS (SELECT 1 FROM recordings r WHERE r.call_seq = c.seq) AS recorded, ",
            "EXISTS (SELECT 1 FROM holds h WHERE h.subject IN (c.id, c.run)) AS held, ",
            "EXISTS (SELECT 1 FROM dead_letters d WHERE d.item = c.id ",
            "AND (d.state = 'resting' OR d.again IS NOT NULL)) AS resting, ",
            "EXISTS (SELECT 1 FROM continuations w WHERE w.child = c.id) AS awaited ",
            "FROM calls c LEFT JOIN plans p ON p.seq = c.seq WHERE ",
            $end
        )
    };
}

const CANDIDATES: &str = candidates!("c.seq > ?1 ORDER BY c.seq LIMIT ?2");
const CANDIDATE: &str = candidates!("c.seq = ?1");
/// Calls of a tenant, or of one person of it, that began before a moment or stand in front of a place.
pub(super) const OF_TENANT: &str = candidates!(
    "c.seq > ?1 AND c.seq <= ?2 AND c.tenant = ?3 AND (?4 = '' OR c.user = ?4) AND (c.started_ms < ?5 OR c.seq < ?6) \
     ORDER BY c.seq"
);
const LEFT: &str = "SELECT seq FROM retention_left WHERE class = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
const MARK: &str = "SELECT seq, left_seq FROM retention_marks WHERE class = ?1";
const SET_MARK: &str = "INSERT INTO retention_marks (class, seq, left_seq) VALUES (?1, ?2, ?3) \
                        ON CONFLICT DO UPDATE SET seq = excluded.seq, left_seq = excluded.left_seq";
/// What belongs to a plan by its id.
const OF_PLAN: [&str; 4] = [
    "DELETE FROM approval_votes WHERE approval = (SELECT id FROM approvals WHERE plan = ?1)",
    "DELETE FROM approvals WHERE plan = ?1",
    "DELETE FROM sends WHERE plan = ?1",
    "DELETE FROM transactions WHERE plan = ?1",
];
/// The recording of a call, with what keeps contents for it.
const RECORDING: [&str; 3] = [
    "DELETE FROM recording_pins WHERE call_seq = ?1",
    "DELETE FROM recording_parts WHERE call_seq = ?1",
    "DELETE FROM recordings WHERE call_seq = ?1",
];
/// What belongs to a call by its place, and the call.
const OF_CALL: [&str; 11] = [
    "DELETE FROM call_outputs WHERE call_seq = ?1",
    "DELETE FROM call_notes WHERE call_seq = ?1",
    "DELETE FROM blob_pins WHERE plan_seq = ?1",
    "DELETE FROM effects WHERE plan_seq = ?1",
    "DELETE FROM plan_texts WHERE plan_seq = ?1",
    "DELETE FROM plans WHERE seq = ?1",
    "DELETE FROM idempotency WHERE call_seq = ?1",
    RECORDING[0],
    RECORDING[1],
    RECORDING[2],
    "DELETE FROM calls WHERE seq = ?1",
];
/// The payloads of a call. Notes stay: they name and count, and say what is hidden of a call in every answer. Answers of which
/// compensations are made stay, too: undo needs them.
const PAYLOADS: [&str; 4] = [
    "UPDATE calls SET input = '', reply = '' WHERE seq = ?1",
    "UPDATE plan_texts SET reply = '' WHERE plan_seq = ?1 AND reply IS NOT NULL",
    "UPDATE sends SET headers = '', body = NULL WHERE plan = (SELECT id FROM plans WHERE seq = ?1) \
     AND status IS NOT NULL AND json_extract(dispatch, '$.compensation') IS NULL",
    "DELETE FROM call_outputs WHERE call_seq = ?1",
];
impl Candidate {
    pub(super) fn of(row: &Row<'_>) -> Result<Self, LedgerError> {
        let reading = Reading::new(row, "calls");
        let flag = |column| reading.number(column).map(|number| number == 1);
        let plan = match reading.uuid_or_null("plan")? {
            None => None,
            Some(id) => Some(Settled {
                id: PlanId::new(id),
                state: reading.word("state", PlanState::from_word)?,
                settled_ms: reading.number_or_null("settled_ms")?,
                undone: flag("undone")?,
                pinned: flag("pinned")?,
            }),
        };
        let tier = reading.number_or_null("tier")?.and_then(|tier| u8::try_from(tier).ok());
        let status: Status = reading.word("status", worded)?;
        Ok(Self {
            seq: integer(reading.number("seq")?),
            is_final: flag("final")?,
            started_ms: reading.number("started_ms")?,
            ended_ms: reading.number("ended_ms")?,
            // What nobody gave a tier is irreversible.
            tier: tier.and_then(|tier| Tier::try_from(tier).ok()).unwrap_or(Tier::Irreversible),
            refused: status == Status::Denied || flag("missing")?,
            blank: flag("blank")?,
            keyed: flag("keyed")?,
            recorded: flag("recorded")?,
            held: flag("held")?,
            resting: flag("resting")?,
            awaited: flag("awaited")?,
            plan,
        })
    }

    /// Whether its plan came to an end that needs nobody any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_final
            && !self.awaited
            && self.plan.as_ref().is_none_or(|plan| match plan.state {
                PlanState::Committed | PlanState::RolledBack | PlanState::Discarded | PlanState::Expired => true,
                PlanState::Previewed | PlanState::Held | PlanState::Committing | PlanState::Halted => false,
            })
    }

    /// The class that says how long all of it is kept.
    fn class(&self) -> Class {
        match &self.plan {
            None if self.refused => Class::Refused,
            Some(plan) if matches!(plan.state, PlanState::Discarded | PlanState::Expired) => Class::Expired,
            None | Some(_) => Class::Tier(self.tier),
        }
    }

    /// Whether something of it goes that is kept since `since_ms`.
    fn verdict(&self, class: Class, since_ms: u64, keep: &Keep) -> Verdict {
        let due = |is: bool| if is { Verdict::Due } else { Verdict::Later };
        // While a key names its reply, it is whole; unless keys are kept no longer than calls.
        let named = self.keyed && keep.cutoffs.keys.is_some();
        let old = self.ended_ms < since_ms;
        match class {
            Class::Contents => match &self.plan {
                None => Verdict::Never,
                Some(plan) if plan.state == PlanState::Committed && !plan.pinned => Verdict::Never,
                // While somebody undoes it they stay.
                Some(plan) if plan.state == PlanState::Committed && !plan.undone => {
                    due(!self.held && plan.settled_ms.is_some_and(|settled_ms| settled_ms < since_ms))
                }
                Some(_) if self.is_over() && !self.plan.as_ref().is_some_and(|plan| plan.undone) => Verdict::Never,
                Some(_) => Verdict::Later,
            },
            Class::Keys if self.is_final && !self.keyed => Verdict::Never,
            Class::Keys => due(self.is_over() && old),
            Class::Payloads if self.blank => Verdict::Never,
            Class::Payloads => due(self.is_over() && old && !self.held && !self.resting && !self.keyed),
            Class::Recordings if self.is_final && !self.recorded => Verdict::Never,
            Class::Recordings => due(self.is_over() && old && !self.held && !self.resting),
            Class::Refused | Class::Expired | Class::Tier(_) if !self.is_over() => Verdict::Later,
            Class::Refused | Class::Expired | Class::Tier(_) if self.class() != class => Verdict::Never,
            Class::Refused | Class::Expired | Class::Tier(_) => {
                let pinned = self.plan.as_ref().is_some_and(|plan| plan.pinned);
                due(old && !pinned && !self.held && !self.resting && !named)
            }
        }
    }
}

/// The place of the next call. Places are not used again: a sweep that has passed one does not come back to it, and what is
/// forgotten stood in front of another.
pub(super) fn next_place(conn: &Connection) -> Result<i64, LedgerError> {
    let sql = "SELECT max(seq) FROM (SELECT max(seq) AS seq FROM calls UNION ALL SELECT max(seq) FROM retention_marks \
               UNION ALL SELECT max(seq) FROM retention_left UNION ALL SELECT max(before_seq) - 1 FROM forgets)";
    Ok(schema::number(conn, sql)? + 1)
}

/// How far the sweep of a class has come, and where it is in its list.
fn mark_of(conn: &Connection, class: Class) -> Result<(i64, i64), Failed> {
    let found = row(conn, MARK, params![class.word()], |row| {
        let reading = Reading::new(row, "retention_marks");
        Ok((integer(reading.number("seq")?), integer(reading.number("left_seq")?)))
    })?;
    Ok(found.unwrap_or((0, 0)))
}

impl Batch<'_> {
    /// Let go of what is over, a few calls at a time.
    pub(super) fn prune(&mut self, keep: &Keep, place: Place) -> Step<Swept, LedgerError> {
        let Some(class) = Class::ALL.get(place.class).copied() else {
            self.clear(true)?;
            let more = self.prune_small(keep);
            self.clear(false)?;
            return Ok(Swept { next: more?.then_some(place), pruned: Pruned::default() });
        };
        let Some(since_ms) = keep.of(class) else {
            return Ok(Swept { next: Some(place.next_class()), pruned: Pruned::default() });
        };
        self.clear(true)?;
        let swept = if place.listed {
            self.walk(keep, place, class, since_ms)
        } else {
            self.list(keep, place, class, since_ms)
        };
        self.clear(false)?;
        swept
    }

    /// Whether SQLite overwrites what it deletes: what was let go of must not be readable in the file.
    pub(super) fn clear(&self, overwrites: bool) -> Result<(), rusqlite::Error> {
        let overwrites = overwrites || self.sealer.vault().seals();
        schema::overwrites(self.conn, overwrites)
    }

    /// Look again at calls that were needed when the sweep passed them.
    fn list(&mut self, keep: &Keep, place: Place, class: Class, since_ms: u64) -> Step<Swept, LedgerError> {
        let (seq, from) = mark_of(self.conn, class)?;
        let left = self.rows(LEFT, params![class.word(), from, LOOKED_AT], |row| {
            Reading::new(row, "retention_left").number("seq").map(integer)
        })?;
        let mut pruned = Pruned::default();
        for seq in &left {
            let candidate = self.row(CANDIDATE, params![seq], Candidate::of)?;
            let verdict =
                candidate.as_ref().map_or(Verdict::Never, |candidate| candidate.verdict(class, since_ms, keep));
            if verdict == Verdict::Later {
                continue;
            }
            if let Some(candidate) = candidate.filter(|_| verdict == Verdict::Due) {
                self.let_go(class, &candidate)?;
                pruned.count(class);
            }
            let sql = "DELETE FROM retention_left WHERE class = ?1 AND seq = ?2";
            self.execute(sql, params![class.word(), seq])?;
        }
        let more = left.len() as u64 == LOOKED_AT.unsigned_abs();
        let looked = place.looked + left.len() as u64;
        let from = left.last().copied().filter(|_| more).unwrap_or(0);
        if !left.is_empty() {
            self.execute(SET_MARK, params![class.word(), seq, from])?;
        }
        let listed = !more || looked >= LEFT_LOOKED_AT;
        Ok(Swept { next: Some(Place { class: place.class, listed, looked }), pruned })
    }

    /// Look at calls that the sweep has not come to.
    fn walk(&mut self, keep: &Keep, place: Place, class: Class, since_ms: u64) -> Step<Swept, LedgerError> {
        let (after, from) = mark_of(self.conn, class)?;
        let candidates = self.rows(CANDIDATES, params![after, LOOKED_AT], Candidate::of)?;
        let (mut pruned, mut mark, mut passed) = (Pruned::default(), after, 0);
        // Rows are in the order of writing, and nothing is written before it began.
        for candidate in candidates.iter().take_while(|candidate| candidate.started_ms < since_ms) {
            match candidate.verdict(class, since_ms, keep) {
                Verdict::Due => {
                    self.let_go(class, candidate)?;
                    pruned.count(class);
                }
                Verdict::Later => {
                    let sql = "INSERT INTO retention_left (class, seq) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
                    self.execute(sql, params![class.word(), candidate.seq])?;
                }
                Verdict::Never => {}
            }
            (mark, passed) = (candidate.seq, passed + 1);
        }
        if mark != after {
            self.execute(SET_MARK, params![class.word(), mark, from])?;
        }
        let more = passed == LOOKED_AT;
        Ok(Swept { next: Some(if more { place } else { place.next_class() }), pruned })
    }

    fn let_go(&mut self, class: Class, candidate: &Candidate) -> Result<(), rusqlite::Error> {
        match class {
            Class::Contents => self.unpin(candidate.seq, None),
            Class::Keys => self.give_back_key(candidate.seq),
            Class::Payloads => {
                for sql in PAYLOADS {
                    self.execute(sql, params![candidate.seq])?;
                }
                Ok(())
            }
            Class::Recordings => {
                RECORDING.iter().try_for_each(|sql| self.execute(sql, params![candidate.seq]).map(drop))
            }
            Class::Refused | Class::Expired | Class::Tier(_) => self.remove(candidate),
        }
    }

    /// Remove a call with everything that belongs to it.
    pub(super) fn remove(&self, candidate: &Candidate) -> Result<(), rusqlite::Error> {
        if let Some(plan) = &candidate.plan {
            for sql in OF_PLAN {
                self.execute(sql, params![id_bytes(plan.id.uuid())])?;
            }
        }
        for sql in OF_CALL {
            self.execute(sql, params![candidate.seq])?;
        }
        Ok(())
    }
}

impl Ledger {
    /// Let go of what is over and not to be kept, a few calls at a time. Contents that nothing needs any more are for
    /// [`crate::blobs::Blobs::collect`].
    ///
    /// # Errors
    /// The ledger failed; what was removed before stays removed.
    pub async fn prune(&self, keep: Keep) -> Result<Pruned, LedgerError> {
        let (mut place, mut pruned) = (Place::default(), Pruned::default());
        loop {
            match self.ask(Work::Prune { keep: Box::new(keep), place }, false).await? {
                Done::Swept(swept) => {
                    pruned.and(swept.pruned);
                    let Some(next) = swept.next else { return Ok(pruned) };
                    // Walking past what stays is quick.
                    if !swept.pruned.is_nothing() {
                        tokio::time::sleep(PAUSE).await;
                    }
                    place = next;
                }
                Done::Refused(error) => return Err(error),
                _ => return Ok(pruned),
            }
        }
    }
}
