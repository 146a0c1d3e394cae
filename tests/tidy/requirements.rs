//! Requirements and the tests that hold them: `docs/requirements.md` is generated from here and from the names of tests.

use std::collections::{BTreeMap, BTreeSet};

use super::repository::Repository;

/// Whether a requirement is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Met: a test named `rNN_…` must exist.
    Done,
    /// Met in part; what there is has tests.
    Begun,
    /// Not yet.
    Later,
}

use State::{Begun, Done, Later};

/// Number, state, text.
const ROWS: &[(u8, State, &str)] = &[
    (
        1,
        Done,
        "a tool is a component; it gets only the WASI capabilities that its manifest grants; everything else is absent or refused",
    ),
    (2, Done, "fuel budget per call, deterministic, reported in the reply; out of fuel is its own error"),
    (3, Done, "wall-clock deadline by epoch interruption, host calls included; a tool cannot outlive it"),
    (4, Done, "memory, table, instance, handle, output, log and stage quotas; the host never grows with the guest"),
    (5, Done, "dry run: every intended effect captured, nothing committed, whatever the tool does"),
    (6, Done, "a plan is typed, ordered, diffed, canonical and named by its digest"),
    (7, Done, "commit is atomic and crash-safe; a failed, trapped or over-budget call leaves nothing behind"),
    (8, Done, "transactions over several calls: preview, commit or roll back as one"),
    (9, Done, "undo of a committed call or run, with a check that targets did not change since"),
    (10, Done, "receipts: what was really done can be verified; a claim without a receipt is detectable"),
    (11, Done, "strict input schemas; errors name field, problem and expectation so that a model can correct itself"),
    (12, Done, "one response envelope for success and failure; explicit error codes"),
    (13, Done, "output validated before it leaves"),
    (14, Done, "a tool's description says what, when to use, side effects, errors; missing parts refuse installation"),
    (15, Done, "identity from authentication, never from arguments; available to tools"),
    (16, Done, "tenant-scoped state everywhere; foreign ids look missing"),
    (
        17,
        Done,
        "policy as code over principal, input, plan, amount, time, taint, tier; default deny; testable and diffable",
    ),
    (18, Done, "delegation only narrows"),
    (19, Done, "contracts: allowed tools, gates, budgets, required steps"),
    (20, Done, "strict origins; wildcards refused in production"),
    (21, Done, "risk tiers 0-3 with enforced defaults; untiered = tier 3"),
    (
        22,
        Done,
        "asynchronous approvals bound to the plan digest, single use, expiring to reject, notified, with reasons",
    ),
    (23, Done, "two-person rule and approver is not requester"),
    (24, Done, "escalation: out of scope, repeated failure, breach attempts are recorded events and can hold the run"),
    (25, Done, "kill switch at five levels, two modes"),
    (26, Done, "run budgets: steps, calls, time, fuel, tokens, cost; hard stops"),
    (27, Done, "tenant, workflow and day ceilings, hold or degrade when reached; cost per outcome"),
    (28, Done, "spike detection that can pause"),
    (29, Done, "rate limits and per-tool quotas"),
    (30, Done, "circuit breakers"),
    (31, Done, "loop detection"),
    (32, Done, "idempotency keys for every call with effects"),
    (33, Done, "bounded retries with backoff, dead-letter queue"),
    (34, Done, "fallback tools, visible in the reply"),
    (35, Done, "parallel calls, progress, pre-warmed components, caching of deterministic tools"),
    (36, Done, "output screening: caps, detection, delimiting, redaction"),
    (37, Done, "taint-based refusal of sensitive effects"),
    (38, Done, "what is executed after approval is exactly what was approved"),
    (39, Done, "structured record of every call with all fields; trace ids; OTLP"),
    (40, Done, "append-only, tamper-evident audit; JSONL run records"),
    (41, Done, "replay of any recorded call, bit for bit, offline"),
    (42, Done, "redaction, retention tiers, encrypted payloads with audited break-glass"),
    (43, Done, "alerts by webhook"),
    (44, Done, "metrics: structural and per tool"),
    (45, Done, "golden cases, scenario bank, adversarial pack, drift detection"),
    (46, Begun, "staged rollout, canary with automatic rollback, autonomy levels"),
    (47, Done, "back-test of a new tool version or policy against recorded calls"),
    (48, Done, "secrets brokered by the host; never visible to guest, agent, plan, log or recording"),
    (49, Done, "network grants with SSRF protection"),
    (50, Done, "guest SDK with `#[tool]`, typed errors, native test harness, `toolkeep new`; JS and Python guests"),
    (51, Done, "JSON-RPC socket; MCP over stdio and HTTP; existing agents connect unchanged"),
    (52, Later, "web console: approvals inbox with diffs, runs, tools, kill switch, live"),
    (53, Begun, "operators: config, doctor, systemd unit, container image, completions, man pages"),
    (54, Later, "many hosts on one PostgreSQL: shared approvals, budgets, idempotency; leases with fencing"),
    (55, Later, "signed tool distribution over OCI and files; pinned digests; quarantine on change"),
    (
        56,
        Begun,
        "hostile components: compile bombs, handle floods, giant strings, log floods: bounded, neighbours unharmed",
    ),
    (57, Done, "untrusted input and retrieved content screened and labelled by the same screen as outputs"),
    (58, Done, "environments with separate keys, limits and retention"),
    (59, Done, "sampled online checks of recorded calls against golden expectations"),
    (
        60,
        Done,
        "one command answers an incident's four questions: context used, policy that allowed it, what executed, which check missed it",
    ),
];

/// Where the page is.
const PAGE: &str = "docs/requirements.md";

/// Tests by requirement: `path::name`.
fn tests(repository: &Repository) -> BTreeMap<u8, BTreeSet<String>> {
    let mut tests: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in repository.rust("").filter(|(path, _)| !path.starts_with("tests/tidy")) {
        for line in text.lines() {
            let Some((_, rest)) = line.split_once("fn r") else { continue };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let digits = name.get(..2).and_then(|digits| digits.parse().ok());
            if let (Some(number), Some("_")) = (digits, name.get(2..3)) {
                tests.entry(number).or_default().insert(format!("`{path}` r{name}"));
            }
        }
    }
    tests
}

/// Pages that name a requirement: `R07`.
fn pages(repository: &Repository, number: u8) -> Vec<&str> {
    let word = format!("R{number:02}");
    repository
        .files()
        .filter(|(path, _)| path.ends_with(".md") && *path != PAGE && *path != "CHANGELOG.md" && !path.starts_with('.'))
        .filter(|(_, text)| text.split(|c: char| !c.is_alphanumeric()).any(|found| found == word))
        .map(|(path, _)| path)
        .collect()
}

/// Every requirement that is met has a test that carries its number, and no test carries a number that does not exist.
pub(super) fn have_tests(repository: &Repository) -> Vec<String> {
    let tests = tests(repository);
    let untested = ROWS
        .iter()
        .filter(|(number, state, _)| *state == Done && !tests.contains_key(number))
        .map(|(number, _, text)| format!("R{number:02} ({text}): no test named `r{number:02}_…`"));
    let unknown = tests
        .iter()
        .filter(|(number, _)| !ROWS.iter().any(|(row, _, _)| row == *number))
        .flat_map(|(_, names)| names.iter().map(|name| format!("{name}: there is no such requirement")));
    untested.chain(unknown).collect()
}

fn page(repository: &Repository) -> String {
    let tests = tests(repository);
    let mut text = "\
# Requirements

Generated from the names of tests; renew it with `TOOLKEEP_BLESS=1 cargo test -p toolkeep-tests tidy`. A requirement is
*met* when a test that carries its number holds it, *begun* when a part of it is there, and *later* when it is planned.
"
    .to_owned();
    for (number, state, row) in ROWS {
        let state = match state {
            Done => "met",
            Begun => "begun",
            Later => "later",
        };
        text.push_str(&format!("\n## R{number:02}: {state}\n\n{row}\n"));
        let names = tests.get(number).into_iter().flatten();
        let lines: Vec<String> = names
            .map(|name| format!("- test {name}\n"))
            .chain(pages(repository, *number).into_iter().map(|page| format!("- page `{page}`\n")))
            .collect();
        if !lines.is_empty() {
            text.push('\n');
            text.extend(lines);
        }
    }
    text
}

/// The page is what would be generated now. With `TOOLKEEP_BLESS` set it is written instead.
pub(super) fn page_is_current(repository: &Repository) -> Vec<String> {
    let wanted = page(repository);
    if repository.text(PAGE) == wanted {
        return Vec::new();
    }
    // Samples of offences are no place to write into.
    if std::env::var_os("TOOLKEEP_BLESS").is_some() && repository.has("Cargo.lock") {
        std::fs::write(Repository::root().join(PAGE), wanted).expect("write the page");
        return Vec::new();
    }
    vec![format!("{PAGE}: not current; run `TOOLKEEP_BLESS=1 cargo test -p toolkeep-tests tidy`")]
}
