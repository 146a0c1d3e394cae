//! What policies are told of runs: workflow, contract, steps and money, at the call and when a held plan is settled.

use serde_json::{Value, json};

use super::world::{Agent, Plot, Reply, World};

const POLICY: &str = "
permit (principal, action, resource) when { context.workflow == \"pay\" && context.steps < 3 };
permit (principal, action, resource) when { context has cost_left && context.cost_left >= 500000 };
permit (principal, action in Action::\"commit\", resource == Tool::\"notes.add\") when { context.contract == \"kept\" };
permit (principal, action in Action::\"call\", resource) when { context.contract == \"kept\" };
";

fn call(agent: &mut Agent, run: Option<&Value>, tool: &str, input: Value) -> Reply {
    let mut params = json!({"tool": tool, "input": input});
    if let Some(run) = run {
        params["run"] = run.clone();
    }
    agent.reply("calls.execute", params)
}

#[test]
fn r17_r26_policies_see_what_a_run_is_for_and_what_it_has_left() {
    let mut world =
        World::asleep(Plot { daemon: "", limits: "[policy]\ndir = \"policies\"\n[contracts]\ndir = \"contracts\"\n" });
    world.home.put("policies/all.cedar", POLICY.as_bytes());
    world.home.put("contracts/kept.toml", b"format = 1\nname = \"kept\"\n");
    world.start();
    let mut agent = world.agent();
    let open = |agent: &mut Agent, asked: Value| agent.ok("runs.open", asked)["run"].clone();
    let stats = |agent: &mut Agent, run: Option<&Value>| call(agent, run, "text-stats", json!({"text": "x"}));
    stats(&mut agent, None).must("denied", "none", "denied");
    let pay = open(&mut agent, json!({"workflow": "pay"}));
    for _ in 0..3 {
        stats(&mut agent, Some(&pay)).must("ok", "none", "");
    }
    stats(&mut agent, Some(&pay)).must("denied", "none", "denied");
    let rich = open(&mut agent, json!({"budget": {"cost_usd": "0.6"}}));
    stats(&mut agent, Some(&rich)).must("ok", "none", "");
    agent.ok("runs.report", json!({"run": rich, "usage": {"cost_usd": "0.100001"}}));
    stats(&mut agent, Some(&rich)).must("denied", "none", "denied");
    // A restart knows it, too; and what is settled later is asked about with the same run.
    let kept = open(&mut agent, json!({"contract": "kept"}));
    let preview = json!({"tool": "notes.add", "input": {"title": "A", "body": "b"}, "run": kept});
    let shown = agent.reply("calls.preview", preview).must("ok", "previewed", "");
    world.verified();
    world.restart();
    let mut agent = world.agent();
    agent.commit(shown.plan()).must("ok", "committed", "");
    stats(&mut agent, Some(&pay)).must("denied", "none", "denied");
}
