//! That no question walks through what was recorded, and that sums are those of the calls.

use super::*;
use crate::ledger::schema;
use rusqlite::Connection;

/// What SQLite would do.
fn steps(conn: &Connection, sql: &str) -> Vec<String> {
    let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("prepared");
    for at in 1..=explain.parameter_count() {
        explain.raw_bind_parameter(at, 0).expect("bound");
    }
    let mut steps = explain.raw_query();
    let mut said = Vec::new();
    while let Some(step) = steps.next().expect("explained") {
        said.push(step.get::<_, String>("detail").expect("text"));
    }
    said
}

#[test]
fn r42_no_question_of_operators_walks_through_a_table() {
    let conn = Connection::open_in_memory().expect("database");
    schema::migrate(&conn).expect("migrated");
    let tenant: TenantName = "t".parse().expect("name");
    let query = |by, first| StatsQuery { tenant: tenant.clone(), by, first, since_day: 0, until_day: 1 };
    let mut asked = vec![
        (RUNS.to_owned(), "USING INDEX runs_by_time (tenant=? AND opened_ms>? AND opened_ms<?)"),
        (RUNS_OF_AGENT.to_owned(), "USING INDEX runs_by_agent (tenant=? AND agent=? AND opened_ms>? AND opened_ms<?)"),
        (CHANGES.to_owned(), "effects_of_path (workspace=? AND path=? AND plan_seq<?)"),
        (CHANGES.to_owned(), "effects_moved_to (workspace=? AND path_to=? AND plan_seq<?)"),
    ];
    for by in [StatsBy::Tool, StatsBy::Agent, StatsBy::Day, StatsBy::Code] {
        let firsts = [StatsFirst::Calls, StatsFirst::Slow, StatsFirst::Denied, StatsFirst::Failed, StatsFirst::Cost];
        asked
            .extend(firsts.map(|first| {
                (query(by, first).sql(), "SEARCH stats USING PRIMARY KEY (tenant=? AND day>? AND day<?)")
            }));
    }
    let tables = ["calls", "plans", "runs", "effects", "stats", "c", "p"];
    for (sql, wanted) in asked {
        let said = steps(&conn, &sql);
        assert!(said.iter().any(|step| step.contains(wanted)), "{wanted}: {said:?}");
        let walks = |step: &String| {
            let scanned = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
            scanned.is_some_and(|table| tables.contains(&table))
        };
        assert!(!said.iter().any(walks), "{sql}: {said:?}");
        let ordered = !(sql == RUNS || sql == RUNS_OF_AGENT) || !said.iter().any(|step| step.contains("TEMP B-TREE"));
        assert!(ordered, "runs come in the order of their index: {said:?}");
    }
}

#[test]
fn a_duration_counts_in_its_class_and_the_95th_of_100_is_told() {
    for (wall_ms, class) in [(0, 0), (10, 0), (11, 1), (100, 1), (101, 2), (1_000, 2), (10_000, 3), (10_001, 4)] {
        assert_eq!(class_of(wall_ms), class, "{wall_ms}");
    }
    let line = |fast: u64, slow: u64| {
        let mut sum = Sum::default();
        (0..fast).for_each(|_| sum.add(1, 1, 5));
        (0..slow).for_each(|_| sum.add(1, 1, 700));
        let Sum { calls, fuel, cost, wall_ms, wall_max, classes } = sum;
        StatsLine { name: String::new(), calls, denied: 0, failed: 0, fuel, cost, wall_ms, wall_max, classes }
    };
    assert_eq!(line(95, 5).wall_p95_ms(), 10);
    assert_eq!(line(94, 6).wall_p95_ms(), 700);
    assert_eq!((line(0, 1).wall_p95_ms(), line(0, 0).wall_p95_ms()), (700, 0));
    assert_eq!(line(3, 0).wall_p95_ms(), 5, "never more than the slowest");
}
