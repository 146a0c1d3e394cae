//! What the running daemon says of itself.

use serde_json::{Value, json};

use super::super::context::Context;
use super::super::failure::Failure;
use super::super::ui::text_at;
use super::Finding;
use crate::daemon::method::{AdminMethod, AgentMethod};

/// Ask the daemon.
pub(super) fn check(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = vec![agent(context)];
    findings.extend(admin(context));
    findings
}

fn agent(context: &Context<'_>) -> Finding {
    const CHECK: &str = "daemon";
    let asked = context.agent().and_then(|mut client| client.ask(&context.ui, AgentMethod::HostInfo, json!({})));
    match asked {
        Ok(info) => Finding::well(CHECK, format!("version {} answers", text_at(&info, "/version"))),
        Err(failure) => unanswered(CHECK, &failure),
    }
}

fn unanswered(check: &'static str, failure: &Failure) -> Finding {
    let hint = failure.hint().unwrap_or_default();
    match failure {
        Failure::Unreachable { .. } => Finding::warning(check, failure.to_string(), hint),
        other => Finding::problem(check, other.to_string(), hint),
    }
}

fn admin(context: &Context<'_>) -> Vec<Finding> {
    let asked = context.admin().and_then(|mut client| client.ask(&context.ui, AdminMethod::HealthGet, json!({})));
    let health = match asked {
        Ok(health) => health,
        Err(failure) => return vec![unanswered("daemon's health", &failure)],
    };
    let mut findings = vec![ledger(&health), room(&health), commits(&health)];
    for problem in health.get("problems").and_then(Value::as_array).into_iter().flatten() {
        let found = format!("{}: {}", text_at(problem, "/file"), text_at(problem, "/problem"));
        findings.push(Finding::problem("manifest", found, "correct it; the daemon reads it again by itself"));
    }
    findings
}

fn ledger(health: &Value) -> Finding {
    const CHECK: &str = "ledger";
    match health.pointer("/ledger/state").and_then(Value::as_str) {
        Some("well") => Finding::well(CHECK, "well"),
        Some("disk_full") => Finding::problem(CHECK, "the disk is full", "free some; the daemon goes on by itself"),
        _ => Finding::problem(
            CHECK,
            format!("{} {}", text_at(health, "/ledger/state"), text_at(health, "/ledger/reason")),
            "the disk failed: look at it, then restart the daemon, which recovers",
        ),
    }
}

/// A ledger that reaches its bound commits nothing.
fn room(health: &Value) -> Finding {
    const CHECK: &str = "ledger's size";
    let (bytes, most) = (text_at(health, "/room/bytes"), text_at(health, "/room/max_bytes"));
    let found = format!("{bytes} of {most} bytes");
    if health.pointer("/room/nearly_full") == Some(&Value::Bool(true)) {
        let hint = "keep less (`[retention]`), or raise `ledger.max_bytes`";
        return Finding::warning(CHECK, found, hint);
    }
    Finding::well(CHECK, found)
}

/// Plans that recovery could neither finish nor take back wait for a person.
fn commits(health: &Value) -> Finding {
    const CHECK: &str = "commits";
    let halted = health.get("halted").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if halted.is_empty() {
        return Finding::well(CHECK, format!("{} calls in flight, none halted", text_at(health, "/in_flight")));
    }
    let list: Vec<String> = halted.iter().map(|entry| text_at(entry, "")).collect();
    Finding::problem(
        CHECK,
        format!("halted: {}", list.join("; ")),
        "these hold neither the content before nor the one after the plan: compare them, then restore what is right",
    )
}
