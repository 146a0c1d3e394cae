//! Golden cases on record: how many there may be, what a list reads, and that whoever is forgotten is forgotten there, too;
//! and which recorded calls a back-test finds.

use std::sync::Arc;

use serde_json::json;
use toolkeep::ledger::{CASES_MAX, CaseChange, CaseRow, Ledger, SuiteRun, Who};
use toolkeep_core::id::{CallId, TenantName, ToolName, UserName};

use super::fixture::{Fixture, NOW_MS};
use super::privacy::{CANARY, files_with};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a name")
}

fn tenant() -> TenantName {
    name("acme")
}

/// A case of nobody's call.
fn case(title: &str, from: Option<(CallId, &str)>) -> CaseRow {
    CaseRow {
        tenant: tenant(),
        suite: name("suite"),
        name: name(title),
        tool: name("csv-report"),
        body: json!({"format": 1, "expect": {"fuel_max": 7}, "world": CANARY}).to_string().into(),
        made_by: name("ann"),
        made_ms: NOW_MS,
        from_call: from.map(|(call, _)| call),
        from_user: from.map(|(_, user)| name(user)),
    }
}

async fn add(ledger: &Ledger, case: CaseRow, of_call: bool) -> CaseChange {
    let user: UserName = name("ann");
    let who = Who::Operator { user: &user, tenant: &tenant() };
    ledger.add_case(case, (who, json!({"what": "case added"})), of_call).await.expect("asked")
}

async fn names(ledger: &Ledger) -> Vec<String> {
    ledger.cases(&tenant(), None).await.expect("read").iter().map(|line| line.name.to_string()).collect()
}

#[tokio::test]
async fn r45_there_are_as_many_cases_as_the_bound_says_and_one_in_the_place_of_another_is_none_more() {
    let fixture = Fixture::new("cases-full").await;
    let ledger = &fixture.ledger;
    // All at once, so that they share their commits.
    let adding: Vec<_> = (0..CASES_MAX)
        .map(|number| {
            let ledger = ledger.clone();
            tokio::spawn(async move { add(&ledger, case(&format!("c{number}"), None), false).await })
        })
        .collect();
    for added in adding {
        assert_eq!(added.await.expect("added"), CaseChange::Done);
    }
    assert_eq!(add(ledger, case("one-more", None), false).await, CaseChange::Full);
    assert_eq!(add(ledger, case("c7", None), false).await, CaseChange::Done, "it takes the place of itself");
    let lines = ledger.cases(&tenant(), None).await.expect("read");
    assert_eq!(lines.len() as u64, CASES_MAX);
    assert!(lines.iter().all(|line| line.bytes == case("x", None).body.len() as u64));
    let bounds = ledger.cases_about(&tenant(), &name("csv-report"), 3).await.expect("read");
    assert_eq!((bounds.len(), &*bounds[0].expect, bounds[0].hidden), (3, r#"{"fuel_max":7}"#, false));
}

#[tokio::test]
async fn r45_a_refused_change_among_the_cases_leaves_no_entry() {
    let fixture = Fixture::new("cases-refused").await;
    let ledger = &fixture.ledger;
    let nobody = CallId::new(fixture.ambient.uuid_v7());
    let before = ledger.audit_head().await.expect("read").seq;
    assert_eq!(add(ledger, case("gone", Some((nobody, "ada"))), true).await, CaseChange::Missing);
    let user: UserName = name("ann");
    let who = Who::Operator { user: &user, tenant: &tenant() };
    let (suite, gone): (ToolName, ToolName) = (name("suite"), name("gone"));
    let removed = ledger.remove_case(&tenant(), (&suite, &gone), (who, json!({"what": "case removed"}))).await;
    assert_eq!(removed.expect("asked"), CaseChange::Missing);
    assert_eq!(ledger.audit_head().await.expect("read").seq, before);
    // A case from elsewhere names a call that was never here.
    assert_eq!(add(ledger, case("gone", Some((nobody, "ada"))), false).await, CaseChange::Done);
    assert_eq!(ledger.audit_head().await.expect("read").seq, before + 1);
}

#[tokio::test]
async fn r42_cases_of_whoever_is_forgotten_go_with_the_calls_and_without_them() {
    for user in [Some("ada"), None] {
        let fixture = Fixture::new("cases-forgotten").await;
        let ledger = &fixture.ledger;
        let row = fixture.call();
        let mut other = fixture.call();
        other.principal.user = name("bob");
        for row in [&row, &other] {
            ledger.record_call(row.clone()).expect("recorded");
        }
        let long_gone = CallId::new(fixture.ambient.uuid_v7());
        assert_eq!(row.principal.user.as_str(), "ada");
        add(ledger, case("of-ada", Some((row.call, "ada"))), true).await;
        add(ledger, case("of-ada-once", Some((long_gone, "ada"))), false).await;
        add(ledger, case("of-bob", Some((other.call, "bob"))), true).await;
        add(ledger, case("by-hand", None), false).await;
        let run = SuiteRun {
            tenant: tenant(),
            suite: name("suite"),
            passed: 3,
            failed: 1,
            body: Arc::from(json!([CANARY]).to_string()),
            at_ms: NOW_MS,
        };
        ledger.ran_suite(run).await.expect("kept");
        let person: Option<UserName> = user.map(name);
        let asked = ledger.ask_to_forget(&tenant(), person.as_ref(), "{}".to_owned()).await.expect("noted");
        let done = ledger.forget(&asked, Vec::new()).await.expect("forgotten");
        assert_eq!(done.left, 0);
        let left: &[&str] = if user.is_some() { &["by-hand", "of-bob"] } else { &[] };
        assert_eq!(names(ledger).await, left, "{user:?}");
        let runs = ledger.suite_runs(&tenant(), &name("suite"), 5).await.expect("read");
        assert_eq!((runs[0].passed, runs[0].failed, &*runs[0].body), (3, 1, "[]"), "{user:?}");
        if user.is_none() {
            assert!(ledger.cut_log().await.expect("cut"));
            assert_eq!(files_with(&fixture, CANARY), [] as [String; 0]);
        }
    }
}

#[tokio::test]
async fn r47_recorded_calls_are_found_by_tool_in_pages_newest_first() {
    let fixture = Fixture::new("recorded").await;
    let ledger = &fixture.ledger;
    let mut wanted = Vec::new();
    for number in 0..9 {
        let mut row = fixture.call();
        if number % 3 == 0 {
            row.tool = name("other");
        } else if number == 4 {
            row.recording = None;
        } else {
            wanted.push(row.call);
        }
        ledger.record_call(row).expect("recorded");
    }
    wanted.reverse();
    let tools: [ToolName; 1] = [name("csv-report")];
    let (mut found, mut before, mut places) = (Vec::new(), None, 0);
    loop {
        let page = ledger.recorded_before(&tenant(), Some(&tools), before, 2).await.expect("read");
        assert!(page.calls.len() <= 2);
        found.extend(page.calls);
        places += page.places;
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(found, wanted);
    assert_eq!(places, 10, "each place once, and the one that nobody has yet");
    let all = ledger.recorded_before(&tenant(), None, None, 100).await.expect("read");
    assert_eq!((all.calls.len(), all.next), (8, None));
    assert_eq!(ledger.recorded_before(&name("globex"), None, None, 100).await.expect("read").calls, []);
}
