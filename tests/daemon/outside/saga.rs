//! The sample tool `saga` as it is meant: an order in three steps of one transaction, together with a mail.
//!
//! Stock is reserved, the order written down, the carrier told, the customer written to; all of it happens at the commit, or
//! none of it.

use serde_json::{Value, json};

use super::super::world::{Agent, Reply, World};
use super::peer::{Fault, Peer};
use super::{agree, asleep, consent, grant, held, reach, resolve};
use crate::doors::running::until;

/// A shop with three chairs, a carrier, and somebody who writes mails.
struct Shop {
    world: World,
    peer: Peer,
}

impl Shop {
    fn new() -> Self {
        let peer = Peer::new();
        let config = "[[workspace]]\nname = \"orders\"\npath = \"orders\"\n\
                      [channel.log]\nkind = \"file\"\npath = \"messages.jsonl\"\n";
        let saga = format!(
            "tier = 3\n[[workspace]]\nname = \"orders\"\naccess = \"write\"\n[[keys]]\nbucket = \"stock\"\naccess = \"write\"\n{}\
             [http.compensation]\nmethod = \"DELETE\"\npath = \"/pickups/{{response:/id}}\"\n",
            grant("carrier", &peer.origin(), "paths = [\"/pickups/*\"]")
        );
        let mail = "tier = 3\n[[workspace]]\nname = \"books\"\naccess = \"read\"\n[[message]]\nchannel = \"log\"\nto = [\"*@example.com\"]\n";
        let seed = "tier = 1\n[[keys]]\nbucket = \"stock\"\naccess = \"write\"\n";
        let tools = [("shop", "saga", saga), ("mailer", "mailer", mail.to_owned()), ("seed", "reach", seed.to_owned())];
        let mut world = asleep(config, &tools);
        std::fs::create_dir(world.path("orders")).expect("workspace");
        world.home.put("books/thanks.md", b"Thank you.\n");
        world.start();
        let shop = Self { world, peer };
        let chairs = json!({"op": "set", "bucket": "stock", "key": "chair", "value": "3"});
        reach(&mut shop.world.agent(), "seed", &[chairs]).must("ok", "committed", "");
        shop
    }

    fn stock(&self) -> Value {
        let step = json!({"op": "get", "bucket": "stock", "key": "chair"});
        let reply = reach(&mut self.world.agent(), "seed", &[step]).must("ok", "none", "");
        reply.value["output"]["answers"][0].clone()
    }

    fn messages(&self) -> usize {
        std::fs::read_to_string(self.world.path("messages.jsonl")).unwrap_or_default().lines().count()
    }

    /// Stage an order of two chairs and a mail about it; the transaction.
    fn stage(&self, agent: &mut Agent, order: &str) -> String {
        let transaction = agent.ok("transactions.begin", json!({}))["transaction"].as_str().expect("an id").to_owned();
        for (tool, input) in self.steps(order) {
            let call = json!({"tool": tool, "input": input, "transaction": transaction});
            agent.reply("calls.execute", call).must("ok", "staged", "");
        }
        transaction
    }

    fn steps(&self, order: &str) -> [(&'static str, Value); 4] {
        [
            ("shop.reserve", json!({"article": "chair", "count": 2})),
            ("shop.confirm", json!({"order": order, "article": "chair", "count": 2})),
            ("shop.ship", json!({"order": order, "carrier": self.peer.origin()})),
            (
                "mailer",
                json!({"path": "thanks.md", "channel": "log", "to": ["ann@example.com"], "subject": format!("Order {order}")}),
            ),
        ]
    }

    /// Nothing of any order is there.
    fn untouched(&self) {
        assert_eq!(self.stock(), json!("3"));
        let orders = std::fs::read_dir(self.world.path("orders")).expect("orders");
        let names: Vec<_> = orders.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        assert!(names.iter().all(|name| name.to_string_lossy().starts_with(".toolkeep-")), "{names:?}");
        assert_eq!(self.messages(), 0);
    }
}

fn commit(agent: &mut Agent, transaction: &str) -> Reply {
    agent.reply("transactions.commit", json!({"transaction": transaction}))
}

fn get(agent: &mut Agent, transaction: &str) -> Value {
    agent.ok("transactions.get", json!({"transaction": transaction}))
}

#[test]
fn r08_the_steps_of_an_order_are_shown_agreed_to_and_done_as_one() {
    let shop = Shop::new();
    let (mut agent, mut admin) = (shop.world.agent(), shop.world.admin());
    let transaction = shop.stage(&mut agent, "o-1");
    shop.untouched();
    let shown = agent.reply("transactions.preview", json!({"transaction": transaction})).must("ok", "previewed", "");
    let kinds: Vec<&str> = shown.value["plan"]["effects"]
        .as_array()
        .expect("effects")
        .iter()
        .filter_map(|effect| effect["kind"].as_str())
        .collect();
    let mut sorted = kinds.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["file.write", "http.request", "kv.set", "message.send"], "{kinds:?}");
    let waits = held(commit(&mut agent, &transaction));
    assert!(shop.peer.reads().is_empty());
    shop.untouched();
    let done = agree(&mut admin, &waits).must("ok", "committed", "");
    let reads = shop.peer.reads();
    assert_eq!((reads.len(), reads[0].line.as_str()), (1, "PUT /pickups/o-1"));
    assert_eq!(reads[0].body, "2 x chair\n", "the request carries what the step before it staged");
    assert_eq!((shop.stock(), shop.world.text("orders/o-1.txt")), (json!("1"), "2 x chair\n".to_owned()));
    until("the mail is delivered", || shop.messages() == 1);
    let line = shop.world.text("messages.jsonl");
    assert!(line.contains("Order o-1") && line.contains("Thank you."), "{line}");
    assert_eq!(done.value["receipt"]["statement"]["responses"][0]["status"], 201, "{}", done.value);
    agent.ok("receipts.verify", json!({"receipt": done.value["receipt"]}));
    assert!(commit(&mut agent, &transaction).replayed);
    assert_eq!((shop.peer.reads().len(), shop.messages()), (1, 1));
    shop.world.verified();
}

#[test]
fn r08_an_order_that_is_rolled_back_or_whose_step_cannot_be_done_leaves_nothing() {
    let shop = Shop::new();
    let mut agent = shop.world.agent();
    let transaction = shop.stage(&mut agent, "o-1");
    // There is one chair left in the transaction: a step that wants two fails, and the transaction is as it was.
    let more = json!({"tool": "shop.reserve", "input": {"article": "chair", "count": 2}, "transaction": transaction});
    agent.reply("calls.execute", more).must("failed", "none", "tool_failed");
    assert_eq!(get(&mut agent, &transaction)["calls"], 4);
    agent.ok("transactions.rollback", json!({"transaction": transaction}));
    shop.untouched();
    assert!(shop.peer.reads().is_empty());
    commit(&mut agent, &transaction).must("failed", "none", "not_found");
    shop.world.verified();
}

#[test]
fn r08_an_order_that_the_carrier_refuses_leaves_nothing() {
    let shop = Shop::new();
    let (mut agent, mut admin) = (shop.world.agent(), shop.world.admin());
    shop.peer.meets("/pickups/o-1", &[Fault::Answers(422)]);
    let transaction = shop.stage(&mut agent, "o-1");
    let waits = held(commit(&mut agent, &transaction));
    agree(&mut admin, &waits).must("failed", "discarded", "effect_refused");
    assert_eq!((shop.peer.reads().len(), &get(&mut agent, &transaction)["state"]), (1, &json!("discarded")));
    shop.untouched();
    // The agent orders anew.
    shop.peer.meets("/pickups/o-2", &[Fault::Answers(200)]);
    let transaction = shop.stage(&mut agent, "o-2");
    let waits = held(commit(&mut agent, &transaction));
    agree(&mut admin, &waits).must("ok", "committed", "");
    assert_eq!(shop.stock(), json!("1"));
    until("one mail is delivered", || shop.messages() == 1);
}

#[test]
fn r08_an_order_of_which_the_carrier_says_nothing_waits_for_an_operator_with_all_that_belongs_to_it() {
    for sent in [true, false] {
        let mut shop = Shop::new();
        shop.peer.meets("/pickups/o-1", &[Fault::ClosesRead]);
        let mut agent = shop.world.agent();
        let transaction = shop.stage(&mut agent, "o-1");
        let waits = held(commit(&mut agent, &transaction));
        let reply = agree(&mut shop.world.admin(), &waits).must("unknown", "unknown", "unknown_outcome");
        assert_eq!(get(&mut agent, &transaction)["state"], "sealed");
        shop.untouched();
        shop.world.restart();
        shop.untouched();
        let wanted = if sent { ("ok", "committed", "") } else { ("failed", "discarded", "effect_refused") };
        assert_eq!(resolve(&mut shop.world.admin(), reply.call(), sent).ended(), wanted);
        assert_eq!(shop.peer.reads().len(), 1, "it is not sent again");
        if sent {
            assert_eq!(shop.stock(), json!("1"));
            assert!(shop.world.path("orders/o-1.txt").exists());
            until("the mail is delivered", || shop.messages() == 1);
        } else {
            shop.untouched();
        }
        shop.world.verified();
    }
}

#[test]
fn r08_of_two_orders_over_the_same_stock_the_first_commit_wins_and_the_other_is_told_what_changed() {
    let shop = Shop::new();
    let (mut agent, mut admin) = (shop.world.agent(), shop.world.admin());
    let (one, two) = (shop.stage(&mut agent, "o-1"), shop.stage(&mut agent, "o-2"));
    let (first, second) = (held(commit(&mut agent, &one)), held(commit(&mut agent, &two)));
    agree(&mut admin, &second).must("ok", "committed", "");
    let late = admin.raw("approvals.approve", consent(&first)).expect("an answer");
    assert!(late.to_string().contains("stale_plan") && late.to_string().contains("chair"), "{late}");
    let stale = commit(&mut agent, &one).must("failed", "discarded", "stale_plan");
    assert!(stale.text("/error/message").contains("`chair` of bucket `stock`"), "{}", stale.value);
    assert_eq!(get(&mut agent, &one)["state"], "discarded");
    let reads = shop.peer.reads();
    assert_eq!((reads.len(), reads[0].line.as_str()), (1, "PUT /pickups/o-2"), "the loser sends nothing");
    assert!(!shop.world.path("orders/o-1.txt").exists() && shop.world.path("orders/o-2.txt").exists());
    until("the winner's mail is delivered", || shop.messages() == 1);
    assert!(shop.world.text("messages.jsonl").contains("Order o-2"));
    shop.world.verified();
}

#[test]
fn r08_of_two_orders_over_the_same_file_the_other_is_told_which() {
    let shop = Shop::new();
    let (mut agent, mut admin) = (shop.world.agent(), shop.world.admin());
    let stage = |agent: &mut Agent| {
        let transaction = agent.ok("transactions.begin", json!({}))["transaction"].as_str().expect("an id").to_owned();
        for (tool, input) in [&shop.steps("same")[1], &shop.steps("same")[2]] {
            let call = json!({"tool": tool, "input": input, "transaction": transaction});
            agent.reply("calls.execute", call).must("ok", "staged", "");
        }
        transaction
    };
    let (one, two) = (stage(&mut agent), stage(&mut agent));
    let (first, second) = (held(commit(&mut agent, &one)), held(commit(&mut agent, &two)));
    agree(&mut admin, &first).must("ok", "committed", "");
    let late = admin.raw("approvals.approve", consent(&second)).expect("an answer");
    assert!(late.to_string().contains("stale_plan") && late.to_string().contains("same.txt"), "{late}");
    assert_eq!(shop.peer.reads().len(), 1);
}

#[test]
fn r08_r09_an_order_is_taken_back_as_one_unless_somebody_was_written_to() {
    let shop = Shop::new();
    let (mut agent, mut admin) = (shop.world.agent(), shop.world.admin());
    let transaction = agent.ok("transactions.begin", json!({}))["transaction"].as_str().expect("an id").to_owned();
    for (tool, input) in shop.steps("o-1").into_iter().take(3) {
        let call = json!({"tool": tool, "input": input, "transaction": transaction});
        agent.reply("calls.execute", call).must("ok", "staged", "");
    }
    let waits = held(commit(&mut agent, &transaction));
    let done = agree(&mut admin, &waits).must("ok", "committed", "");
    assert_eq!(shop.stock(), json!("1"));
    let back = agent.reply("undo.propose", json!({"call": done.call()})).must("ok", "previewed", "");
    let waits = held(agent.commit(back.plan()));
    assert_eq!(shop.peer.reads().len(), 1, "what people agreed to is taken back if people agree");
    agree(&mut admin, &waits).must("ok", "committed", "");
    let lines: Vec<String> = shop.peer.reads().into_iter().map(|read| read.line).collect();
    assert_eq!(lines, ["PUT /pickups/o-1", "DELETE /pickups/r-1"]);
    shop.untouched();
    let told = shop.stage(&mut agent, "o-2");
    let waits = held(commit(&mut agent, &told));
    let told = agree(&mut admin, &waits).must("ok", "committed", "");
    let refused = admin.no("undo.call", json!({"call": told.call()}));
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("`message.send`")), "{refused}");
    assert_eq!((shop.stock(), shop.peer.reads().len()), (json!("1"), 3), "nothing of it was undone");
    shop.world.verified();
}

#[test]
fn r08_an_order_that_nobody_finishes_in_time_is_rolled_back() {
    let shop = Shop::new();
    let mut agent = shop.world.agent();
    let transaction =
        agent.ok("transactions.begin", json!({"ttl_ms": 2_000}))["transaction"].as_str().expect("an id").to_owned();
    let (tool, input) = &shop.steps("o-1")[0];
    // A loaded machine may be too slow even for this.
    let _staged = agent.reply("calls.execute", json!({"tool": tool, "input": input, "transaction": transaction}));
    until("it is over", || get(&mut agent, &transaction)["state"] == "discarded");
    commit(&mut agent, &transaction).must("failed", "none", "not_found");
    let late = json!({"tool": tool, "input": input, "transaction": transaction});
    agent.reply("calls.execute", late).must("failed", "none", "not_found");
    shop.untouched();
}
