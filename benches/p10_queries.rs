//! P10: what operators ask of a ledger with a million recorded calls, each question alone.
//!
//! The ledger is the one of `p10_growth`, opened without its daemon. A test asks SQLite for its plan of each question; this says
//! what that is worth in milliseconds.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use toolkeep::ambient::Ambient;
use toolkeep::ledger::{
    ChangesQuery, Ledger, RunsQuery, SpendBy, SpendQuery, StatsBy, StatsFirst, StatsQuery, WALL_CLASSES_MS,
};
use toolkeep_benches::grown::{RECORDED, grown};
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::{median, timed};

/// Milliseconds that a question may take: nobody waits who asked one.
const PROMISE: f64 = 50.0;
const ROUNDS: usize = 20;
const DAY_MS: u64 = 86_400_000;

fn ask<T>(runtime: &Runtime, rounds: usize, question: impl AsyncFn() -> T) -> f64 {
    let figures = (0..rounds).map(|_| timed(|| drop(runtime.block_on(question()))) / 1_000.0);
    median(figures.collect())
}

fn main() {
    let (world, daemon) = grown();
    drop(daemon);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let ambient = Ambient::real();
    let now_ms = ambient.now_ms();
    let opened = runtime.block_on(Ledger::open(&world.path("state/ledger"), ambient));
    let ledger = opened.expect("the ledger");
    let tenant: toolkeep_core::id::TenantName = "local".parse().expect("a name");
    let days = (now_ms / DAY_MS - 365, now_ms / DAY_MS);
    let stats = |by, first| StatsQuery { tenant: tenant.clone(), by, first, since_day: days.0, until_day: days.1 };
    let runs = |agent: Option<&str>| RunsQuery {
        tenant: tenant.clone(),
        agent: agent.map(|name| name.parse().expect("a name")),
        since_ms: 0,
        until_ms: now_ms,
        after: None,
        limit: 50,
    };
    let changes = ChangesQuery {
        tenant: tenant.clone(),
        workspace: "notes".parse().expect("a name"),
        path: "a.md".parse().expect("a path"),
        before_seq: None,
        limit: 50,
    };
    let spend = |by| SpendQuery { tenant: tenant.clone(), by, since_day: days.0, until_day: days.1 };
    let slow =
        ask(&runtime, ROUNDS, async || ledger.stats(stats(StatsBy::Tool, StatsFirst::Slow)).await.expect("lines"));
    let denied =
        ask(&runtime, ROUNDS, async || ledger.stats(stats(StatsBy::Code, StatsFirst::Denied)).await.expect("lines"));
    let all = ask(&runtime, ROUNDS, async || ledger.runs_between(runs(None)).await.expect("runs"));
    let own = ask(&runtime, ROUNDS, async || ledger.runs_between(runs(Some("local"))).await.expect("runs"));
    let file = ask(&runtime, ROUNDS, async || ledger.changes_of(changes.clone()).await.expect("changes"));
    let workflow = ask(&runtime, 3, async || ledger.spending(spend(SpendBy::Workflow)).await.expect("lines"));
    let outcome = ask(&runtime, 3, async || ledger.spending(spend(SpendBy::Outcome)).await.expect("lines"));
    runtime.block_on(async {
        drop(tokio::time::timeout(Duration::from_secs(60), ledger.close()).await);
    });
    let row = |id, what, figure| Row::at_most(id, what, "ms", figure, PROMISE);
    let rows = [
        row("P10a", "slowest tools of a year", slow),
        row("P10b", "most denied of a year", denied),
        row("P10c", "latest runs", all),
        row("P10d", "latest runs of an agent", own),
        row("P10e", "who changed a file", file),
    ];
    let classes = WALL_CLASSES_MS.len() + 1;
    let notes = [
        format!("{RECORDED} calls on record, in {classes} classes of durations"),
        format!("cost by workflow {workflow:.1} ms, by outcome {outcome:.1} ms: every charge of the range is added up"),
    ];
    publish(&rows, &notes);
}
