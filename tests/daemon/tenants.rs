//! Principals, tenants and people: what belongs to somebody else answers like what does not exist.
//!
//! A socket knows its peer by the uid that the kernel tells, and a test has one uid. So a daemon makes calls as that uid, is
//! stopped, and a host in this process takes over its state with more principals and operators, whose uids are given as the
//! kernel would give them.

use std::future::Future;

use serde_json::{Value, json};
use toolkeep::ambient::Ambient;
use toolkeep::authenticate::{Caller, Operator, Peer};
use toolkeep::config::{LoadOptions, load};
use toolkeep::host::{CloseRun, CommitTransaction, Host, PlanName, Spending, UndoTarget};
use toolkeep::ledger::{EntryFilter, SpendBy};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::budget::Limits;
use toolkeep_core::call::ReportedUsage;
use toolkeep_core::id::TransactionId;
use toolkeep_core::refusal::{Code, Refusal};

use super::world::{Reply, World};

/// The same principal as the one that the daemon knew.
const OWNER: u32 = 7_001;
/// Another agent of the same person.
const SIBLING: u32 = 7_002;
/// Another person of the same tenant.
const COLLEAGUE: u32 = 7_003;
/// Another tenant.
const STRANGER: u32 = 7_004;

const PEOPLE: &str = "
[[principal]]
uid = 7001
tenant = \"local\"
user = \"local\"
agent = \"local\"
[[principal]]
uid = 7002
tenant = \"local\"
user = \"local\"
agent = \"other\"
[[principal]]
uid = 7003
tenant = \"local\"
user = \"eve\"
agent = \"local\"
[[principal]]
uid = 7004
tenant = \"foreign\"
user = \"local\"
agent = \"local\"
[[operator]]
uid = 7011
user = \"ann\"
tenant = \"local\"
[[operator]]
uid = 7012
user = \"bob\"
tenant = \"local\"
[[operator]]
uid = 7013
user = \"local\"
tenant = \"local\"
[[operator]]
uid = 7014
user = \"mallory\"
tenant = \"foreign\"
";

/// Take over the state of a stopped world.
fn with_host<T, F: Future<Output = T>>(world: &World, look: impl FnOnce(Host) -> F) -> T {
    let config = world.text("toolkeep.toml") + PEOPLE;
    world.home.put("people.toml", config.as_bytes());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let ambient = Ambient::real();
        let options = LoadOptions { explicit: Some(world.path("people.toml")) };
        let config = load(&options, &ambient).expect("the configuration").config;
        let host = Host::start(config, ambient).await.expect("the host starts");
        let found = look(host.clone()).await;
        assert!(host.drained(std::time::Duration::from_secs(60)).await);
        found
    })
}

fn caller(host: &Host, uid: u32) -> Caller {
    host.authenticate(Peer { uid, gid: uid, pid: None }).expect("a principal")
}

fn operator(host: &Host, uid: u32) -> Operator {
    host.authenticate_operator(Peer { uid, gid: uid, pid: None }, None).expect("an operator")
}

fn missing<T: std::fmt::Debug>(what: &str, uid: u32, answer: Result<T, Refusal>) {
    let refusal = answer.expect_err(what);
    assert_eq!(refusal.code, Code::NotFound, "{what} for {uid}: {refusal:?}");
}

#[test]
fn r16_what_belongs_to_another_principal_looks_missing() {
    let mut world = World::new();
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({"label": "mine"}))["run"].clone();
    let note = |title: &str| json!({"tool": "notes.add", "input": {"title": title, "body": "b"}, "run": run});
    let done = agent.reply("calls.execute", note("Done")).must("ok", "committed", "");
    let shown = agent.reply("calls.preview", note("Shown")).must("ok", "previewed", "");
    let held =
        agent.execute("notes2.add", json!({"title": "Held", "body": "b"})).must("held", "pending", "approval_required");
    let before = world.snapshot();
    assert!(world.stop().success());
    with_host(&world, |host| async move {
        let run = run.as_str().expect("a run").parse().expect("a run");
        let (done, shown) = (done.call().parse().expect("call"), shown.plan().parse().expect("plan"));
        let approval = held.approval().parse().expect("approval");
        let digest = held.digest().parse().expect("digest");
        for uid in [SIBLING, COLLEAGUE, STRANGER] {
            let other = caller(&host, uid);
            missing("call", uid, host.call_state(&other, done).await);
            missing("plan", uid, host.plan(&other, PlanName::Id(shown), 0, true).await);
            missing("digest", uid, host.plan(&other, PlanName::Digest(digest), 0, true).await);
            missing("commit", uid, host.commit_plan(&other, PlanName::Id(shown)).await.map(|answer| answer.reply));
            missing("discard", uid, host.discard_plan(&other, shown).await);
            missing("approval", uid, host.approval(&other, approval).await);
            missing("wait", uid, host.wait_approval(&other, approval, 1).await);
            missing("run", uid, host.run(&other, run, None).await);
            missing("close", uid, host.close_run(&other, run, CloseRun::default()).await);
            missing("undo", uid, host.propose_undo(&other, UndoTarget::Call(done)).await);
            missing("undo of a run", uid, host.propose_undo(&other, UndoTarget::Run(run)).await);
            missing("cancel", uid, host.cancel(&other, done));
        }
        let owner = caller(&host, OWNER);
        assert!(host.call_state(&owner, done).await.is_ok() && host.run(&owner, run, None).await.is_ok());
        let foreign = operator(&host, 7_014);
        missing("detail", 7_014, host.approval_detail(&foreign, approval).await);
        missing("approve", 7_014, host.approve(&foreign, approval, "", None).await);
        missing("reject", 7_014, host.reject(&foreign, approval, "").await);
        missing("plan", 7_014, host.plan_detail(&foreign, PlanName::Id(shown), 0).await);
        missing("run", 7_014, host.run_detail(&foreign, run, None).await);
        missing("undo", 7_014, host.undo(&foreign, UndoTarget::Call(done), true).await);
        for list in
            [host.approvals(&foreign, true).await, host.plans(&foreign, None).await, host.runs(&foreign, None).await]
        {
            let empty = list
                .expect("a list")
                .as_object()
                .expect("object")
                .values()
                .all(|value| *value == json!([]) || value.is_null());
            assert!(empty, "the foreign operator sees nothing");
        }
    });
    assert_eq!(world.snapshot(), before);
}

#[test]
fn r16_r26_a_run_of_another_principal_is_neither_seen_nor_used_nor_charged_nor_released() {
    let mut world = World::new();
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({"budget": {"calls": 3}, "workflow": "pay"}))["run"].clone();
    agent
        .reply("calls.execute", json!({"tool": "text-stats", "input": {"text": "x"}, "run": run}))
        .must("ok", "none", "");
    assert!(world.stop().success());
    with_host(&world, |host| async move {
        let id = run.as_str().expect("a run").parse().expect("a run");
        for uid in [SIBLING, COLLEAGUE, STRANGER] {
            let other = caller(&host, uid);
            let usage = ReportedUsage { tokens_in: 7, ..ReportedUsage::default() };
            missing("report", uid, host.report_run(&other, id, &usage).await);
            missing("close", uid, host.close_run(&other, id, CloseRun { outcome: None, abandon: true }).await);
            let request = json!({"tool": "text-stats", "input": {"text": "y"}, "run": run, "usage": {"tokens_in": 9}});
            let answer = host.call(&other, serde_json::from_value(request).expect("a request"), None).await;
            assert!(matches!(answer.code, Some(Code::NotFound | Code::Denied)), "{uid}: {}", answer.reply);
            assert_eq!(answer.budget, None, "nobody is told what is left of it");
        }
        let foreign = operator(&host, 7_014);
        missing("release", 7_014, host.release_run(&foreign, id, Limits::default()).await);
        let spend = Spending { by: SpendBy::Run, days: 1 };
        let (theirs, ours) =
            (host.budgets_spend(&foreign, spend).await, host.budgets_spend(&operator(&host, 7_011), spend).await);
        assert_eq!(theirs.expect("lines")["lines"], json!([]));
        assert_eq!(ours.expect("lines")["lines"].as_array().map(Vec::len), Some(1));
        let used = host.run(&caller(&host, OWNER), id, None).await.expect("the owner's")["budget"]["used"].clone();
        assert_eq!((&used["calls"], &used["reported"]["tokens"]), (&json!(1), &json!(0)), "{used}");
    });
}

#[test]
fn r16_a_call_of_another_tenant_gets_no_workspace_and_no_foreign_run() {
    let mut world = World::new();
    let mut agent = world.agent();
    agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    let run = agent.ok("runs.open", json!({}))["run"].clone();
    assert!(world.stop().success());
    let before = world.snapshot();
    with_host(&world, |host| async move {
        let answer = |value: Value| Reply { replayed: false, value };
        let call = |uid: u32, tool: &str, input: Value, run: Option<&Value>| {
            let mut request = json!({"tool": tool, "input": input, "mode": "commit"});
            if let Some(run) = run {
                request["run"] = run.clone();
            }
            let request = serde_json::from_value(request).expect("a request");
            let (host, caller) = (host.clone(), caller(&host, uid));
            async move {
                let reply = host.call(&caller, request, None).await.reply;
                answer(serde_json::from_str(&reply).expect("a reply"))
            }
        };
        let note = json!({"title": "Foreign", "body": "b"});
        call(STRANGER, "notes.add", note, None).await.must("failed", "none", "not_found");
        for uid in [SIBLING, COLLEAGUE, STRANGER] {
            let reply = call(uid, "text-stats", json!({"text": "a"}), Some(&run)).await;
            assert_eq!(reply.text("/error/code"), "not_found", "{}", reply.value);
        }
        call(OWNER, "text-stats", json!({"text": "a"}), Some(&run)).await.must("ok", "none", "");
    });
    assert_eq!(world.snapshot(), before);
}

#[test]
fn r23_tier_3_takes_two_people_and_neither_is_the_one_who_asked() {
    let mut world = World::new();
    let held = world.agent().execute("notes3.add", json!({"title": "Three", "body": "b"}));
    let held = held.must("held", "pending", "approval_required");
    assert_eq!(held.value["approval"]["approvers"], 2);
    assert!(world.stop().success());
    let note = world.path("notes/three.md");
    with_host(&world, |host| async move {
        let approval = held.approval().parse().expect("approval");
        let confirm = held.digest()[..12].to_owned();
        let approve = |uid: u32, confirm: Option<String>| {
            let (host, operator) = (host.clone(), operator(&host, uid));
            async move { host.approve(&operator, approval, "fine", confirm.as_deref()).await }
        };
        let denied = |answer: Result<Value, Refusal>| assert_eq!(answer.expect_err("denied").code, Code::Denied);
        denied(approve(7_013, Some(confirm.clone())).await);
        denied(approve(7_011, None).await);
        let one = approve(7_011, Some(confirm.clone())).await.expect("counted");
        assert_eq!((&one["state"], &one["have"], &one["need"]), (&json!("pending"), &json!(1), &json!(2)));
        denied(approve(7_011, Some(confirm.clone())).await);
        assert!(!note.exists());
        let two = approve(7_012, Some(confirm.clone())).await.expect("approved");
        assert_eq!((&two["state"], &two["reply"]["outcome"]), (&json!("approved"), &json!("committed")), "{two}");
        assert!(note.exists());
    });
}

#[test]
fn r23_one_no_of_two_people_ends_it() {
    let mut world = World::new();
    let held = world.agent().execute("notes3.add", json!({"title": "Three", "body": "b"}));
    assert!(world.stop().success());
    with_host(&world, |host| async move {
        let approval = held.approval().parse().expect("approval");
        let confirm = held.digest()[..12].to_owned();
        let (ann, bob) = (operator(&host, 7_011), operator(&host, 7_012));
        assert!(host.approve(&ann, approval, "", Some(&confirm)).await.is_ok());
        assert!(host.reject(&bob, approval, "no").await.is_ok());
        let late = host.approve(&bob, approval, "", Some(&confirm)).await.expect_err("over");
        assert_eq!(late.code, Code::ApprovalRejected);
    });
    assert!(!world.path("notes/three.md").exists());
}

#[test]
fn r08_r16_a_transaction_of_another_principal_looks_missing_and_cannot_be_used() {
    let mut world = World::new();
    let mut agent = world.agent();
    let begun = agent.ok("transactions.begin", json!({}))["transaction"].clone();
    let note = json!({"title": "Mine", "body": "b"});
    agent
        .reply("calls.execute", json!({"tool": "notes.add", "input": note, "transaction": begun}))
        .must("ok", "staged", "");
    assert!(world.stop().success());
    let before = world.snapshot();
    with_host(&world, |host| async move {
        let id: TransactionId = begun.as_str().expect("an id").parse().expect("an id");
        let commit = || CommitTransaction { transaction: id, expect_plan: None, key: None };
        for uid in [SIBLING, COLLEAGUE, STRANGER] {
            let caller = caller(&host, uid);
            missing("get", uid, host.transaction(&caller, id).await);
            missing("preview", uid, host.preview_transaction(&caller, id).await.map(|_| ()));
            missing("commit", uid, host.commit_transaction(&caller, commit()).await.map(|_| ()));
            missing("rollback", uid, host.rollback_transaction(&caller, id).await);
            let request = json!({"tool": "notes.list", "input": {}, "transaction": id});
            let request = serde_json::from_value(request).expect("a request");
            let answer = host.call(&caller, request, None).await;
            assert!(matches!(answer.code, Some(Code::NotFound | Code::Denied)), "{uid}: {}", answer.reply);
            let listed = host.transactions(&caller, None).await.expect("a list");
            assert_eq!(listed["transactions"], json!([]), "{uid}");
        }
        let foreign = host.all_transactions(&operator(&host, 7_014), None).await.expect("a list");
        assert_eq!(foreign["transactions"], json!([]));
        let own = host.all_transactions(&operator(&host, 7_011), None).await.expect("a list");
        assert_eq!(own["transactions"].as_array().map(Vec::len), Some(1));
        let shown = host.transaction(&caller(&host, OWNER), id).await.expect("the owner's");
        assert_eq!((&shown["state"], &shown["calls"]), (&json!("open"), &json!(1)), "as it was");
        let done = host.commit_transaction(&caller(&host, OWNER), commit()).await.expect("committed");
        assert_eq!(done.outcome, toolkeep_core::call::Outcome::Committed, "{}", done.reply);
    });
    assert_eq!(world.snapshot().len(), before.len() + 1);
}

#[test]
fn r16_r40_audit_entries_of_another_tenant_are_not_found_by_what_they_say() {
    let mut world = World::new();
    let run = world.agent().ok("runs.open", json!({"label": "mine"}))["run"].clone();
    assert!(world.stop().success());
    with_host(&world, |host| async move {
        let about = EntryFilter { about: run.as_str().map(Into::into), ..EntryFilter::default() };
        let asked = [
            about.clone(),
            EntryFilter { kind: Some(AuditKind::Run), ..EntryFilter::default() },
            EntryFilter { kind: Some(AuditKind::Daemon), ..EntryFilter::default() },
            EntryFilter { since_ms: Some(0), ..EntryFilter::default() },
            EntryFilter { until_ms: Some(u64::MAX), ..EntryFilter::default() },
        ];
        let foreign = operator(&host, 7_014);
        for filter in asked {
            let told = host.audit_entries(&foreign, filter.clone(), None).await.expect("a page");
            assert_eq!(told, json!({"entries": [], "next_cursor": null}), "{filter:?}");
        }
        // The chain can be followed all the same, by digests.
        let all = host.audit_entries(&foreign, EntryFilter::default(), None).await.expect("a page")["entries"].clone();
        let all = all.as_array().expect("a list");
        assert!(all.len() > 2 && all.iter().all(|entry| entry["withheld"] == json!(true)), "{all:?}");
        let own = host.audit_entries(&operator(&host, 7_011), about, None).await.expect("a page");
        assert_eq!(own.pointer("/entries/0/facts/tenant"), Some(&json!("local")), "{own}");
    });
}
