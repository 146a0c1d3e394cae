//! What the daemon counts while it works, for `/metrics`.
//!
//! A call pays a few additions to atomic numbers and nothing else: what it adds to is found when its tool and its caller
//! become known, once for each, and kept there. There is no label that a caller chooses: a tool has a series of its own if
//! the catalog has it and there is room, a tenant if there is room, everybody else is counted together. What can be read
//! off somewhere else (queues, open approvals, circuits) is not counted here but read when somebody asks, as [`Levels`].

pub mod exposition;
pub mod histogram;
mod levels;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::id::{TenantName, ToolName};
use toolkeep_core::refusal::Code;

use histogram::{Histogram, TIMES_NS};

pub use levels::{AlertLevels, Levels};

/// Tools with series of their own; more are counted together as `other`. Each has some sixty lines.
pub const TOOLS_MAX: usize = 200;
/// Tenants with series of their own; more are counted together as `other`.
pub const TENANTS_MAX: usize = 100;
/// What is counted together because there is no room. No tool and no tenant can take it: it is not the form of a name.
pub const OTHER: &str = "_other";
/// Calls that name a tool which does not exist.
pub const UNKNOWN: &str = "_unknown";

/// Statuses, in the order in which they are counted.
const STATUSES: [(Status, &str); 5] = [
    (Status::Ok, "ok"),
    (Status::Held, "held"),
    (Status::Denied, "denied"),
    (Status::Failed, "failed"),
    (Status::Unknown, "unknown"),
];
/// Outcomes, in the order in which they are counted.
const OUTCOMES: [(Outcome, &str); 8] = [
    (Outcome::None, "none"),
    (Outcome::Previewed, "previewed"),
    (Outcome::Staged, "staged"),
    (Outcome::Pending, "pending"),
    (Outcome::Committed, "committed"),
    (Outcome::Discarded, "discarded"),
    (Outcome::Unknown, "unknown"),
    (Outcome::Halted, "halted"),
];

/// What was decided about a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It is committed.
    Commit,
    /// It waits for people.
    Hold,
    /// It is denied.
    Deny,
    /// It is kept as a preview.
    Preview,
    /// There is nothing to commit.
    Nothing,
}

impl Decided {
    const ALL: [(Self, &str); 5] = [
        (Self::Commit, "commit"),
        (Self::Hold, "hold"),
        (Self::Deny, "deny"),
        (Self::Preview, "preview"),
        (Self::Nothing, "nothing"),
    ];
}

/// What a replay showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// The same, byte for byte.
    Same,
    /// Something else.
    Different,
    /// It cannot be replayed.
    NotReplayable,
}

impl Replayed {
    const ALL: [(Self, &str); 3] =
        [(Self::Same, "same"), (Self::Different, "different"), (Self::NotReplayable, "not_replayable")];
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Numbers by the place of a thing in its table.
#[derive(Debug)]
struct Counts(Box<[Count]>);

impl Counts {
    fn new(len: usize) -> Self {
        Self((0..len).map(|_| Count::default()).collect())
    }

    fn add(&self, place: usize) {
        if let Some(count) = self.0.get(place) {
            count.add(1);
        }
    }

    fn get(&self, place: usize) -> u64 {
        self.0.get(place).map_or(0, Count::get)
    }
}

/// What is counted of one tool.
pub struct ToolSeries {
    /// By status, then by outcome.
    calls: Counts,
    /// From arrival to answer.
    total: Histogram,
    /// In the sandbox, all attempts together.
    execution: Histogram,
}

impl fmt::Debug for ToolSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolSeries").field("calls", &self.total.count()).finish_non_exhaustive()
    }
}

impl ToolSeries {
    fn new() -> Self {
        Self {
            calls: Counts::new(STATUSES.len() * OUTCOMES.len()),
            total: Histogram::new(&TIMES_NS),
            execution: Histogram::new(&TIMES_NS),
        }
    }

    /// It was executed for so long.
    pub fn executed(&self, took: Duration) {
        self.execution.observe(nanoseconds(took));
    }
}

/// What is counted of one tenant: calls by status.
#[derive(Debug)]
pub struct TenantSeries(Counts);

/// Where the series of something is kept once it was found. It is found once.
#[derive(Debug)]
pub struct Slot<T>(OnceLock<Arc<T>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

/// Series by name, as many as there is room for.
#[derive(Debug)]
struct Named<N, T> {
    series: Mutex<BTreeMap<N, Arc<T>>>,
    other: Arc<T>,
    most: usize,
}

impl<N: Ord + Clone, T> Named<N, T> {
    fn new(most: usize, make: impl Fn() -> T) -> Self {
        Self { series: Mutex::default(), other: Arc::new(make()), most }
    }

    fn of(&self, name: &N, make: impl Fn() -> T) -> Arc<T> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = series.get(name) {
            return Arc::clone(known);
        }
        if series.len() >= self.most {
            return Arc::clone(&self.other);
        }
        let made = Arc::new(make());
        series.insert(name.clone(), Arc::clone(&made));
        made
    }

    fn all(&self) -> Vec<(N, Arc<T>)> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.iter().map(|(name, one)| (name.clone(), Arc::clone(one))).collect()
    }
}

/// Everything that is counted. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    tools: Named<ToolName, ToolSeries>,
    unknown: Arc<ToolSeries>,
    tenants: Named<TenantName, TenantSeries>,
    /// By the place of the code in [`Code::ALL`].
    errors: Counts,
    decisions: Counts,
    /// By outcome.
    commits: Counts,
    commit_times: Histogram,
    /// Agreed, rejected, expired.
    approvals: Counts,
    replays: Counts,
    /// Replies that were stored before and given again.
    repeats: Count,
    /// Results that were kept and given again.
    cached: Count,
    /// Spans that were dropped because their queue was full or nobody took them.
    spans_lost: Count,
    spans_sent: Count,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let tenant = || TenantSeries(Counts::new(STATUSES.len()));
        Self(Arc::new(Inner {
            tools: Named::new(TOOLS_MAX, ToolSeries::new),
            unknown: Arc::new(ToolSeries::new()),
            tenants: Named::new(TENANTS_MAX, tenant),
            errors: Counts::new(Code::ALL.len()),
            decisions: Counts::new(Decided::ALL.len()),
            commits: Counts::new(OUTCOMES.len()),
            commit_times: Histogram::new(&TIMES_NS),
            approvals: Counts::new(APPROVALS.len()),
            replays: Counts::new(Replayed::ALL.len()),
            repeats: Count::default(),
            cached: Count::default(),
            spans_lost: Count::default(),
            spans_sent: Count::default(),
        }))
    }
}

/// What becomes of requests for consent.
const APPROVALS: [&str; 3] = ["approved", "rejected", "expired"];

/// How a request for consent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consented {
    /// Enough people agreed.
    Approved,
    /// Somebody did not.
    Rejected,
    /// Nobody answered in time.
    Expired,
}

/// How one call went, as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct Went {
    /// How it went.
    pub status: Status,
    /// What became of its effects.
    pub outcome: Outcome,
    /// Why it did not do what was asked.
    pub code: Option<Code>,
    /// Whether its reply was stored before.
    pub repeated: bool,
}

fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

impl Metrics {
    /// The series of a tool of the catalog, kept in its `slot`.
    pub fn of_tool<'s>(&self, name: &ToolName, slot: &'s Slot<ToolSeries>) -> &'s Arc<ToolSeries> {
        slot.0.get_or_init(|| self.0.tools.of(name, ToolSeries::new))
    }

    /// The series of a tenant, kept in a `slot` of its caller.
    pub fn of_tenant<'s>(&self, name: &TenantName, slot: &'s Slot<TenantSeries>) -> &'s Arc<TenantSeries> {
        slot.0.get_or_init(|| self.0.tenants.of(name, || TenantSeries(Counts::new(STATUSES.len()))))
    }

    /// Whether a tool has a series of its own.
    #[must_use]
    pub fn has_series(&self, name: &ToolName) -> bool {
        let tools = self.0.tools.series.lock().unwrap_or_else(PoisonError::into_inner);
        tools.contains_key(name)
    }

    /// A call was answered for the first time: `tool` is nothing where it named none that exists.
    pub fn called(&self, tool: Option<&ToolSeries>, tenant: &TenantSeries, went: Went, took: Duration) {
        let inner = &self.0;
        let (status, outcome) = (place_of_status(went.status), place_of_outcome(went.outcome));
        let tool = tool.unwrap_or(&inner.unknown);
        tool.calls.add(status * OUTCOMES.len() + outcome);
        tool.total.observe(nanoseconds(took));
        tenant.0.add(status);
        if let Some(code) = went.code {
            inner.errors.add(code as usize);
        }
        if went.repeated {
            inner.repeats.add(1);
        }
    }

    /// A result that was kept took the place of an execution.
    pub fn cached(&self) {
        self.0.cached.add(1);
    }

    /// Something was decided about a plan.
    pub fn decided(&self, decided: Decided) {
        self.0.decisions.add(decided as usize);
    }

    /// A commit ended.
    pub fn committed(&self, outcome: Outcome, took: Duration) {
        self.0.commits.add(place_of_outcome(outcome));
        self.0.commit_times.observe(nanoseconds(took));
    }

    /// A request for consent ended.
    pub fn consented(&self, consented: Consented) {
        self.0.approvals.add(consented as usize);
    }

    /// A call was replayed.
    pub fn replayed(&self, replayed: Replayed) {
        self.0.replays.add(replayed as usize);
    }

    /// Spans were taken by a collector, or lost.
    pub fn spans(&self, number: u64, taken: bool) {
        let count = if taken { &self.0.spans_sent } else { &self.0.spans_lost };
        count.add(number);
    }
}

const fn place_of_status(status: Status) -> usize {
    match status {
        Status::Ok => 0,
        Status::Held => 1,
        Status::Denied => 2,
        Status::Failed => 3,
        Status::Unknown => 4,
    }
}

const fn place_of_outcome(outcome: Outcome) -> usize {
    match outcome {
        Outcome::None => 0,
        Outcome::Previewed => 1,
        Outcome::Staged => 2,
        Outcome::Pending => 3,
        Outcome::Committed => 4,
        Outcome::Discarded => 5,
        Outcome::Unknown => 6,
        Outcome::Halted => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(number: usize) -> ToolName {
        format!("tool-{number}").parse().expect("name")
    }

    #[test]
    fn every_table_has_each_of_its_things_where_it_is_counted() {
        for (at, (status, _)) in STATUSES.iter().enumerate() {
            assert_eq!(place_of_status(*status), at);
        }
        for (at, (outcome, _)) in OUTCOMES.iter().enumerate() {
            assert_eq!(place_of_outcome(*outcome), at);
        }
        for (at, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, at);
        }
        assert!(Decided::ALL.iter().enumerate().all(|(at, (decided, _))| *decided as usize == at));
        assert!(Replayed::ALL.iter().enumerate().all(|(at, (replayed, _))| *replayed as usize == at));
        let all = [Consented::Approved, Consented::Rejected, Consented::Expired];
        assert!(all.into_iter().zip(APPROVALS).all(|(ended, word)| format!("{ended:?}").to_lowercase() == word));
    }

    #[test]
    fn r44_n_tools_have_series_of_their_own_and_the_next_is_counted_with_the_others() {
        let metrics = Metrics::default();
        let series = |number| {
            let slot = Slot::default();
            Arc::clone(metrics.of_tool(&tool(number), &slot))
        };
        let first = series(0);
        assert!(Arc::ptr_eq(&first, &series(0)), "a tool that is read again keeps its series");
        let last = (1..TOOLS_MAX).map(series).fold(None, |_, series| Some(series)).expect("one");
        assert!(!Arc::ptr_eq(&last, &metrics.0.tools.other));
        assert!(Arc::ptr_eq(&series(TOOLS_MAX), &metrics.0.tools.other));
        assert!(Arc::ptr_eq(&series(TOOLS_MAX + 1), &metrics.0.tools.other));
        assert!(Arc::ptr_eq(&first, &series(0)));
        assert_eq!(metrics.0.tools.all().len(), TOOLS_MAX);
        let tenant = |n: usize| {
            let slot = Slot::default();
            Arc::clone(metrics.of_tenant(&format!("t{n}").parse().expect("name"), &slot))
        };
        let last = (0..TENANTS_MAX).map(tenant).fold(None, |_, series| Some(series)).expect("one");
        assert!(!Arc::ptr_eq(&last, &metrics.0.tenants.other));
        assert!(Arc::ptr_eq(&tenant(TENANTS_MAX), &metrics.0.tenants.other));
    }

    #[test]
    fn what_is_counted_together_cannot_be_the_name_of_anything() {
        for word in [OTHER, UNKNOWN] {
            assert!(word.parse::<ToolName>().is_err() && word.parse::<TenantName>().is_err());
        }
    }
}
