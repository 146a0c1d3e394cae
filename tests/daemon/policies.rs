//! Policies in a daemon: what agents hear, what is held for whom, that a change is in force at once, and what operators can ask.

use serde_json::{Value, json};

use super::world::{Plot, World};
use crate::doors::running::until;

/// Everybody may do everything that the daemon itself allows.
const OPEN: &str = "@id(\"open\") permit (principal, action, resource);\n";

/// A daemon with policies of its own.
fn world(policies: &str) -> World {
    let mut world = World::asleep(Plot { daemon: "", limits: "[policy]\ndir = \"policies\"\n" });
    world.home.put("policies/a.cedar", policies.as_bytes());
    world.start();
    world
}

fn add(title: &str) -> Value {
    json!({"title": title, "body": "x"})
}

#[test]
fn r17_what_no_policy_permits_is_denied_before_it_runs_and_forbid_wins() {
    let world = world(
        "permit (principal, action in [Action::\"call\", Action::\"commit\"], resource == Tool::\"notes.add\");\n\
         @id(\"no-secrets\") @reason(\"titles tell\") forbid (principal, action == Action::\"call:notes.add\", resource)\n\
         when { context.input.title like \"*secret*\" };\n",
    );
    let (mut agent, before) = (world.agent(), world.snapshot());
    let denied = agent.execute("text-stats", json!({"text": "a"})).must("denied", "none", "denied");
    assert_eq!(denied.text("/error/message"), "no policy permits it");
    assert_eq!(denied.value["usage"]["fuel"], 0, "it did not run");
    let denied = agent.execute("notes.add", add("my secret")).must("denied", "none", "denied");
    let says = denied.text("/error/message");
    assert!(says.contains("`no-secrets` (a.cedar:2)") && says.contains("titles tell"), "{says}");
    assert_eq!(world.snapshot(), before);
    agent.execute("notes.add", add("plain")).must("ok", "committed", "");
    world.verified();
}

#[test]
fn r17_a_hold_by_policy_waits_for_its_group_and_a_preview_only_plan_for_nobody() {
    let world = world(
        "permit (principal, action in Action::\"call\", resource);\n\
         @reason(\"editors read notes\") @hold(\"editors\") @ttl(\"10m\")\n\
         permit (principal, action == Action::\"commit:notes.add\", resource);\n\
         @preview_only permit (principal, action == Action::\"commit:rename-symbol\", resource);\n",
    );
    let (mut agent, mut admin, before) = (world.agent(), world.admin(), world.snapshot());
    let held = agent.execute("notes.add", add("one")).must("held", "pending", "approval_required");
    assert!(held.text("/error/message").contains("editors read notes (for editors)"), "{}", held.value);
    let approval = admin.ok("approvals.show", json!({"approval": held.approval()}));
    let lasts = approval["expires_at_ms"].as_u64().zip(approval["made_at_ms"].as_u64()).map(|(end, start)| end - start);
    // The request is written a moment after its end was set; without the policy it would stand for a day.
    assert!(lasts.is_some_and(|ms| ms <= 600_000), "{approval}");
    let refused = admin.no("approvals.approve", json!({"approval": held.approval()}));
    assert_eq!(refused["code"], "denied", "this operator is in no group");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("`editors`")), "{refused}");
    let shown = agent.execute("rename-symbol", json!({"from": "old_name", "to": "x"})).must("ok", "previewed", "");
    agent.commit(shown.plan()).must("denied", "none", "denied");
    assert_eq!(world.snapshot(), before);
    world.verified();
}

#[test]
fn r17_somebody_of_the_group_can_agree() {
    let mut world = World::asleep(Plot { daemon: "", limits: "[policy]\ndir = \"policies\"\n" });
    let hold = "permit (principal, action in Action::\"call\", resource);\n\
                @hold(\"editors\") permit (principal, action in Action::\"commit\", resource);\n";
    world.home.put("policies/a.cedar", hold.as_bytes());
    let config = world.text("toolkeep.toml");
    let uid = rustix::process::geteuid().as_raw();
    let operator = format!("[[operator]]\nuid = {uid}\nuser = \"op\"\ntenant = \"local\"\ngroups = [\"editors\"]\n");
    world.home.put("toolkeep.toml", format!("{config}{operator}").as_bytes());
    world.start();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let held = agent.execute("notes.add", add("one")).must("held", "pending", "approval_required");
    let done = admin.ok("approvals.approve", json!({"approval": held.approval(), "reason": "read"}));
    assert_eq!(done["reply"]["outcome"], "committed", "{done}");
    world.verified();
}

#[test]
fn r17_t_p7_a_change_is_in_force_at_once_and_makes_open_plans_stale() {
    let world = world(OPEN);
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let shown = agent.preview("notes.add", add("one")).must("ok", "previewed", "");
    let kept = agent.preview("notes.add", add("two")).must("ok", "previewed", "");
    agent.commit(kept.plan()).must("ok", "committed", "");
    world.home.put("policies/a.cedar", format!("{OPEN}// another day\n").as_bytes());
    until("the policies are read again", || {
        admin.ok("policy.get", json!({}))["files"][0]["text"].as_str().is_some_and(|text| text.contains("another day"))
    });
    let stale = agent.commit(shown.plan());
    assert!(stale.text("/error/message").contains("the policy changed"), "{}", stale.value);
    world.home.put("policies/a.cedar", b"permit (principal, action, resource");
    until("the wrong set is noticed", || {
        admin.ok("health.get", json!({}))["policy"]["problems"].as_array().is_some_and(|found| !found.is_empty())
    });
    agent.execute("notes.add", add("three")).must("ok", "committed", "");
    assert_eq!(admin.ok("policy.reload", json!({}))["state"], "refused");
    world.home.put("policies/a.cedar", OPEN.as_bytes());
    until("the mended set is in force", || admin.ok("policy.reload", json!({}))["state"] == "same");
    assert_eq!(admin.ok("health.get", json!({}))["policy"]["problems"], json!([]));
    world.verified();
}

#[test]
fn r17_operators_check_test_explain_and_compare_policies() {
    let world = world(OPEN);
    let mut agent = world.agent();
    let done = agent.execute("notes.add", add("one")).must("ok", "committed", "");
    agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    let said = |arguments: &[&str], status: i32| {
        let ran = world.cli(arguments);
        let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(status), "{arguments:?}: {text}");
        text
    };
    assert!(said(&["policy", "check"], 0).contains("all valid"));
    assert!(said(&["policy", "check", "--online"], 0).contains("all valid"));
    world.home.put("other/b.cedar", b"permit (principal, action in Action::\"call\", resource);\n@hold @id(\"wait\") permit (principal, action in Action::\"commit\", resource);\n");
    world.home.put("wrong/c.cedar", b"\npermit (principal, action == Action::\"call:nothing\", resource);\n");
    for online in [&[][..], &["--online"]] {
        let told = said(&[&["policy", "check", "wrong"], online].concat(), 9);
        assert!(told.contains("c.cedar:2") && told.contains("no tool is called `nothing`"), "{told}");
    }
    let told = said(&["policy", "diff", "other"], 9);
    assert!(told.contains(done.call()) && told.contains("hold (1 to agree)"), "{told}");
    assert!(told.contains("1 of 2 call(s)"), "{told}");
    said(&["policy", "diff", "policies"], 0);
    let told = said(&["policy", "explain", done.call()], 0);
    assert!(told.contains("commit") && told.contains("permit a.cedar:1 `open`"), "{told}");
    let told = said(&["policy", "explain", "--principal", "local/bot", "--tool", "text-stats"], 0);
    assert!(told.contains("allow"), "{told}");
    assert!(said(&["policy", "show"], 0).contains("@id(\"open\")"));
    assert!(said(&["policy", "show", "--default"], 0).contains("@id(\"irreversible\")"));
    assert!(said(&["policy", "show", "--schema"], 0).contains("call:notes.add"));
    let case = "[[case]]\nname = \"c\"\nprincipal = \"local/local/local\"\ntool = \"notes.add\"\nexpect = \"hold\"\n\
                effect = [{kind = \"file.write\", path = \"a\"}]\n";
    world.home.put("cases.toml", case.as_bytes());
    said(&["policy", "test", "cases.toml", "--policies", "other"], 0);
    assert!(said(&["policy", "test", "cases.toml"], 9).contains("expected `hold`, got `commit`"));
    world.verified();
}

#[test]
fn t_f9_agents_cannot_reach_policies() {
    let world = world(OPEN);
    let mut agent = world.agent();
    for method in ["policy.get", "policy.check", "policy.explain", "policy.diff", "policy.reload"] {
        assert!(agent.raw(method, json!({})).is_some_and(|answer| answer["error"]["code"] == -32601), "{method}");
    }
}
