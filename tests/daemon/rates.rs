//! Rates, quotas, and bounds on what runs at one time, through the daemon.

use serde_json::{Value, json};

use super::scenery::manifest;
use super::world::{Agent, Plot, Reply, World, component};
use crate::doors::running::until;

fn note(title: &str) -> Value {
    json!({"title": title, "body": "b"})
}

fn stats(agent: &mut Agent) -> Reply {
    agent.execute("text-stats", json!({"text": "a b"}))
}

#[track_caller]
fn limited(reply: Reply) -> Reply {
    assert_eq!((reply.text("/status"), reply.text("/error/code")), ("denied", "rate_limited"), "{}", reply.value);
    reply
}

fn wait_ms(reply: &Reply) -> u64 {
    reply.value["error"]["retry_after_ms"].as_u64().unwrap_or_default()
}

#[test]
fn r29_n_calls_pass_and_the_next_is_told_when_to_come_back() {
    let world = World::of(Plot { daemon: "", limits: "[[limits.rate]]\ntool = \"text-stats\"\nrate = \"3/day\"\n" });
    let mut agent = world.agent();
    for _ in 0..3 {
        stats(&mut agent).must("ok", "none", "");
    }
    let refused = limited(stats(&mut agent));
    let day = 86_400_000;
    assert!((1..=day / 3).contains(&wait_ms(&refused)), "{}", refused.value);
    assert_eq!(refused.value["error"]["retryable"], true);
    limited(stats(&mut world.agent()));
    agent.execute("notes.list", json!({})).must("ok", "none", "");
    world.verified();
}

#[test]
fn r29_a_manifest_counts_calls_of_all_of_its_tools_together_and_a_burst_bounds_them() {
    let world = World::asleep(Plot::default());
    let rest = "tier = 1\n[tiers]\nlist = 0\nsearch = 0\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n\
                [[limits.rate]]\nper = \"tenant\"\nrate = \"100/day\"\nburst = 2\n";
    manifest(&world, ("notes", "notes", rest));
    let mut world = world;
    world.start();
    let mut agent = world.agent();
    agent.execute("notes.add", note("One")).must("ok", "committed", "");
    agent.execute("notes.list", json!({})).must("ok", "none", "");
    limited(agent.execute("notes.add", note("Two")));
    assert!(!world.path("notes/two.md").exists());
    stats(&mut agent).must("ok", "none", "");
}

#[test]
fn r29_a_call_that_one_rule_refuses_is_not_counted_by_the_others() {
    let limits = "[[limits.rate]]\nrate = \"3/day\"\n[[limits.rate]]\ntool = \"notes.list\"\nrate = \"1/day\"\n";
    let world = World::of(Plot { daemon: "", limits });
    let mut agent = world.agent();
    agent.execute("notes.list", json!({})).must("ok", "none", "");
    for _ in 0..5 {
        limited(agent.execute("notes.list", json!({})));
    }
    for _ in 0..2 {
        stats(&mut agent).must("ok", "none", "");
    }
    limited(stats(&mut agent));
}

#[test]
fn r29_a_quota_of_effects_is_exact_and_survives_a_kill_of_the_daemon() {
    let limits = "[[limits.quota]]\nper = \"user\"\neffect = \"file.write\"\nquota = \"2/h\"\n";
    let mut world = World::of(Plot { daemon: "", limits });
    let mut agent = world.agent();
    agent.execute("notes.add", note("One")).must("ok", "committed", "");
    agent.preview("notes.add", note("Shown")).must("ok", "previewed", "");
    let shown = agent.preview("notes.add", note("Also")).must("ok", "previewed", "");
    agent.execute("notes.add", note("Two")).must("ok", "committed", "");
    let refused = agent.execute("notes.add", note("Three")).must("denied", "discarded", "rate_limited");
    assert!((1..=3_600_000).contains(&wait_ms(&refused)), "{}", refused.value);
    assert!(refused.text("/error/message").contains("2/h `file.write` for each user"), "{}", refused.value);
    world.restart();
    let mut agent = world.agent();
    limited(agent.execute("notes.add", note("Three")));
    let late = agent.commit(shown.plan());
    assert_eq!(late.text("/error/code"), "rate_limited", "{}", late.value);
    assert!(!world.path("notes/three.md").exists() && !world.path("notes/also.md").exists());
    agent.execute("notes.list", json!({})).must("ok", "none", "");
    world.verified();
}

#[test]
fn r29_parallel_calls_do_not_get_one_more_than_the_quota() {
    let limits = "[[limits.quota]]\neffect = \"file.write\"\nquota = \"5/day\"\n";
    let world = World::of(Plot { daemon: "", limits });
    let committed: usize = std::thread::scope(|scope| {
        let world = &world;
        let callers: Vec<_> = (0..16)
            .map(|number| {
                scope.spawn(move || {
                    let reply = world.agent().execute("notes.add", note(&format!("Note {number}")));
                    usize::from(reply.text("/outcome") == "committed")
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).sum()
    });
    assert_eq!(committed, 5);
    world.verified();
}

#[test]
fn r29_a_plan_that_is_larger_than_its_quota_never_fits_and_a_discarded_one_is_not_counted() {
    let limits = "[[limits.quota]]\neffect = \"file.write\"\nquota = \"2/day\"\ntool = \"rename-symbol\"\n";
    let world = World::of(Plot { daemon: "", limits });
    let mut agent = world.agent();
    let input = json!({"from": "old_name", "to": "new_name"});
    let reply = agent.execute("rename-symbol", input);
    assert_eq!(reply.text("/error/code"), "rate_limited", "{}", reply.value);
    assert_eq!(reply.value["error"]["retryable"], false, "{}", reply.value);
    assert!(world.text("src/total.py").contains("old_name"));
    agent.execute("notes.add", note("Others")).must("ok", "committed", "");
}

#[test]
fn r29_calls_of_a_tool_wait_for_each_other_where_its_manifest_says_so() {
    let world = World::asleep(Plot { daemon: "", limits: "wait_ms = 1" });
    let endless = "tier = 0\n[limits]\nfuel = 1_000_000_000_000\ndeadline_ms = 600_000\nconcurrent = 1\n";
    manifest(&world, ("endless", "spin", endless));
    let mut world = world;
    world.start();
    stats(&mut world.agent()).must("ok", "none", "");
    let mut first = world.agent();
    let running = std::thread::spawn(move || first.execute("endless", json!({})));
    let mut admin = world.admin();
    until("it runs", || admin.ok("health.get", json!({}))["in_flight"] == 1);
    let refused = world.agent().execute("endless", json!({}));
    assert_eq!(refused.ended(), ("failed", "none", "overloaded"), "{}", refused.value);
    assert!(wait_ms(&refused) > 0);
    stats(&mut world.agent()).must("ok", "none", "");
    admin.ok("kill.set", json!({"level": "tool", "name": "endless", "mode": "stop", "reason": "enough"}));
    running.join().expect("the call").must("denied", "none", "killed");
}

#[test]
fn r29_rules_that_make_no_sense_are_refused_by_their_key() {
    let world = World::asleep(Plot::default());
    for (lines, wanted) in [
        ("[[limits.rate]]\nrate = \"fast\"", "limits.rate.rate"),
        ("[[limits.rate]]\nrate = \"0/s\"", "limits.rate.rate"),
        ("[[limits.rate]]\nrate = \"1/s\"\nburst = 0", "limits.rate.burst"),
        ("[[limits.rate]]\nrate = \"1/s\"\nper = \"host\"", "per"),
        ("[[limits.quota]]\neffect = \"mail\"\nquota = \"1/h\"", "limits.quota.effect"),
        ("[[limits.quota]]\neffect = \"message.send\"\nquota = \"1\"", "limits.quota.quota"),
        ("[limits]\nwaiting = 0", "limits.waiting"),
        ("[limits]\nwaiting = 100001", "limits.waiting"),
        ("[limits]\nwait_ms = 600001", "limits.wait_ms"),
        ("[limits]\nexecutions_per_tenant = 1025", "limits.executions_per_tenant"),
        ("[kill]\nfile = \"relative/../kill\"", "kill.file"),
        ("[kill]\nlevels = 3", "levels"),
    ] {
        world.home.put("toolkeep.toml", format!("[daemon]\nstate_dir = \"state\"\n{lines}\n").as_bytes());
        let check = world.cli(&["config", "check"]);
        let told = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
        assert_eq!(check.status.code(), Some(2), "{lines}: {told}");
        assert!(told.contains(wanted), "{lines}: {told}");
    }
    assert!(component("text-stats").is_file());
}
