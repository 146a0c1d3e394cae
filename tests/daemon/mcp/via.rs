//! What an answer through the client of an agent is worth later: weighed again when the plan is settled, counted by itself.

use serde_json::{Value, json};
use toolkeep::ambient::Ambient;
use toolkeep::ledger::{Ledger, Raised, Resolution, Resolved, Via};

use super::super::approvals::approve;
use super::super::world::World;
use super::elicit::{CONFIRMED, ERAS, Talk, world, yes};

/// Count an agreement in the ledger of a daemon that does not run, as if it had stopped right after that.
fn agreed(world: &World, approval: &str, via: Via) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let ledger = Ledger::open(&world.path("state/ledger"), Ambient::real()).await.expect("ledger");
        let answer = Resolution {
            id: approval.parse().expect("an id"),
            approver: "local".parse().expect("a name"),
            via,
            approve: true,
            reason: "because".into(),
            need: Raised::NOT,
        };
        assert_eq!(ledger.resolve(answer).await.expect("counted"), Resolved::Approved);
        ledger.close().await.expect("closed");
    });
}

#[test]
fn t_p6_a_yes_of_the_client_is_weighed_again_when_the_plan_is_settled() {
    for (number, (via, autonomy, outcome, code)) in [
        (Via::Client, None, "committed", ""),
        (Via::Client, Some("approve"), "discarded", "stale_plan"),
        (Via::Operator, Some("approve"), "committed", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let mut world = world(CONFIRMED, "");
        let reply = world.agent().execute("notes.add", json!({"title": format!("n{number}"), "body": "b"}));
        let approval = reply.must("held", "pending", "approval_required").approval().to_owned();
        if let Some(level) = autonomy {
            let set = json!({"agent": "local", "tool": "notes.add", "level": level, "reason": "look at all of it"});
            world.admin().ok("autonomy.set", set);
        }
        assert!(world.stop().success());
        agreed(&world, &approval, via);
        world.start();
        let told = world.agent().reply("approvals.wait", json!({"approval": approval, "timeout_ms": 60_000}));
        assert_eq!((told.text("/outcome"), told.text("/error/code")), (outcome, code), "{via:?} {autonomy:?}");
        assert_eq!(world.path(&format!("notes/n{number}.md")).exists(), outcome == "committed", "{via:?}");
        world.verified();
    }
}

#[test]
fn t_p8_answers_of_the_client_are_counted_by_themselves() {
    let world = world(CONFIRMED, "approvals_per_hour = 1");
    // An agent of the operator's own, so that both answer under one name.
    let minted = world.admin().ok("tokens.mint", json!({"user": "operator", "agent": "other", "label": "t"}));
    let mut talk = Talk::with(&world, (ERAS[0], &json!({"elicitation": {}})), Some(&minted["token"]));
    let (one, two) = (talk.note("One").asked(), talk.note("Two").asked());
    assert_eq!(talk.answer(&one, &yes()).told()["outcome"], "committed");
    assert_eq!(talk.answer(&two, &yes()).told()["error"]["code"], "rate_limited", "the bound holds for clients, too");
    // The operator of the same name agrees to one, as if the client had said nothing.
    let reply = world.agent().execute("notes2.add", json!({"title": "Three", "body": "b"}));
    let reply = reply.must("held", "pending", "approval_required");
    assert_eq!(approve(&mut world.admin(), reply.approval())["state"], "approved");
    let all = world.admin().ok("approvals.list", json!({"all": true}));
    let of = |tool: &str, vote: &str| -> Vec<Value> {
        let all = all["approvals"].as_array().expect("all").iter().filter(|approval| approval["tool"] == tool);
        all.flat_map(|approval| approval["votes"].as_array().expect("votes")).map(|v| v[vote].clone()).collect()
    };
    assert_eq!((of("notes.add", "via"), of("notes2.add", "via")), (vec![json!("client")], vec![json!("operator")]));
    assert_eq!(of("notes.add", "approver"), of("notes2.add", "approver"), "one name, and two ways");
    let record = |agent: &str, tool: &str| {
        let shown = world.admin().ok("autonomy.show", json!({"agent": agent, "tool": tool}));
        (shown["record"]["approved"].clone(), shown["record"]["confirmed"].clone())
    };
    assert_eq!(record("other", "notes.add"), (json!(0), json!(1)), "it makes no record for itself");
    assert_eq!(record("local", "notes2.add"), (json!(1), json!(0)));
    world.verified();
}
