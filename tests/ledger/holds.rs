//! Holds of runs where the ledger is behind: what it does not take at once reaches it later.

use std::collections::BTreeMap;

use serde_json::json;
use toolkeep::budget::run::Run;
use toolkeep::budget::{BudgetConfig, Budgets, Telling};
use toolkeep::channel::Channels;
use toolkeep::egress::{Egress, EgressConfig, Resolver};
use toolkeep::ledger::{LedgerOptions, RunHold, RunRow};
use toolkeep::notify::Notify;
use toolkeep::secrets::Secrets;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::contract::Terms;
use toolkeep_core::id::RunId;
use toolkeep_core::principal::Origin;
use toolkeep_core::refusal::Code;

use super::fixture::{Fixture, NOW_MS, principal};

async fn budgets(fixture: &Fixture) -> Budgets {
    let secrets = Secrets::new(BTreeMap::default(), fixture.ambient.clone());
    let egress = Egress::new(&EgressConfig { ca_file: None }, Resolver::system(), secrets).expect("an egress");
    let channels = Channels::new(BTreeMap::default(), egress);
    let notify = Notify::new(Vec::new(), channels, fixture.ledger.clone(), fixture.ambient.clone());
    Budgets::open(BudgetConfig::default(), fixture.ledger.clone(), notify, fixture.ambient.clone()).await.expect("open")
}

#[tokio::test]
async fn r24_a_hold_that_the_ledger_was_too_busy_for_is_on_record_a_moment_later() {
    let options = LedgerOptions { queue_jobs: 1, ..LedgerOptions::default() };
    let mut fixture = Fixture::with("holds", options).await;
    let run = RunId::new(fixture.ambient.uuid_v7());
    fixture.ledger.open_run(RunRow::new(run, principal("acme"), "x", NOW_MS)).expect("opened");
    fixture.ledger.audit_head().await.expect("written");
    let first = budgets(&fixture).await;
    first.begin(Run::begin(run, (&principal("acme"), &Origin::record()), None, Terms::free()));
    let found = first.any_run(run).await.expect("read").expect("a run");
    // The one place of the queue is taken.
    fixture.ledger.audit(AuditKind::Tool, &json!({"what": "busy"})).expect("taken");
    let hold = RunHold { code: Code::Denied, reason: "it went too far".into() };
    first.escalate(&found, &json!({"what": "too far"}), Some(hold.clone()), Telling::Now);
    assert!(found.goes_on().is_err());
    fixture.ledger.audit_head().await.expect("written");
    first.keep_house();
    fixture.reopen().await;
    let again = budgets(&fixture).await.any_run(run).await.expect("read").expect("a run");
    assert_eq!(again.standing(), (Some(hold), 1), "a restart lets nobody go");
}
