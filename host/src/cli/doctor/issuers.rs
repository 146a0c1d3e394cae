//! Whether every issuer's keys can be read now, how old those are that the daemon goes on with, and whether its clock and
//! ours agree.

use serde_json::{Value, json};

use super::Finding;
use crate::authenticate::issuer::{Issuers, Look, STALE_MS};
use crate::cli::context::Context;
use crate::cli::ui::time;
use crate::config::Config;
use crate::daemon::method::AdminMethod;
use crate::egress::{Egress, Resolver};
use crate::secrets::Secrets;

const CHECK: &str = "issuer";

/// What the daemon has of one issuer.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    keys: u64,
    read_at_ms: u64,
}

/// Look at all of them at one time, and at what the daemon has.
pub(super) fn check(context: &Context<'_>, config: &Config) -> Vec<Finding> {
    if config.issuers.is_empty() {
        return Vec::new();
    }
    let secrets = Secrets::new(config.secrets.clone(), context.ambient.clone());
    let egress = match Egress::new(&config.egress, Resolver::system(), secrets) {
        Ok(egress) => egress,
        // What is wrong with it is a finding of its own.
        Err(error) => return vec![Finding::warning(CHECK, error.to_string(), "no issuer was looked at")],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let looks = match runtime {
        Ok(runtime) => runtime.block_on(Issuers::new(config.issuers.clone()).look(&egress, context.ambient)),
        Err(error) => return vec![Finding::warning(CHECK, error.to_string(), "no issuer was looked at")],
    };
    let health = context.admin().and_then(|mut client| client.ask(&context.ui, AdminMethod::HealthGet, json!({})));
    let kept = |name: &str| kept(health.as_ref().ok()?.pointer("/issuers")?, name);
    looks.iter().flat_map(|look| judged(look, kept(&look.name), context.ambient.now_ms())).collect()
}

fn kept(issuers: &Value, name: &str) -> Option<Kept> {
    let found = issuers.as_array()?.iter().find(|issuer| issuer.get("name").is_some_and(|found| found == name))?;
    let number = |member: &str| found.get(member).and_then(Value::as_u64);
    Some(Kept { keys: number("keys")?, read_at_ms: number("read_at_ms")? })
}

/// What is to be said of one issuer: its keys, and its clock if it is too far from ours.
fn judged(look: &Look, kept: Option<Kept>, now_ms: u64) -> Vec<Finding> {
    let name = &look.name;
    let mut findings = vec![match &look.keys {
        Ok(0) => Finding::problem(
            CHECK,
            format!("`{name}`: its key set has no key that may be used"),
            "its keys are of other algorithms than `algorithms` names, or are not for signatures",
        ),
        Ok(keys) => Finding::well(CHECK, format!("`{name}`: {keys} keys can be read{}", age(kept, now_ms))),
        Err(problem) => match kept.filter(|kept| kept.keys > 0) {
            Some(kept) => Finding::warning(
                CHECK,
                format!("`{name}`: {problem}; the daemon goes on with keys of {}", time(kept.read_at_ms)),
                format!(
                    "make them readable before {}: from then on nobody gets in by this issuer",
                    time(kept.read_at_ms.saturating_add(STALE_MS))
                ),
            ),
            None if look.is_file => Finding::problem(
                CHECK,
                format!("`{name}`: {problem}"),
                "correct `jwks_file`, or let the daemon's user read it; until then nobody gets in by this issuer",
            ),
            None => Finding::problem(
                CHECK,
                format!("`{name}`: {problem}"),
                "look at `jwks_url`, its name and its certificate (`egress.ca_file`), and at `allow_private` if it is on \
                 this network; until then nobody gets in by this issuer",
            ),
        },
    }];
    if let Some(apart) = look.apart_ms.filter(|apart| *apart > look.leeway_ms) {
        findings.push(Finding::problem(
            "issuer's clock",
            format!("`{name}`: {} s from this machine's; {} s are allowed", apart / 1_000, look.leeway_ms / 1_000),
            "set this machine's clock by NTP: its tokens look expired, or not valid yet (`leeway_s` is for small differences)",
        ));
    }
    findings
}

/// How old the daemon's keys are, where it runs and has any.
fn age(kept: Option<Kept>, now_ms: u64) -> String {
    kept.filter(|kept| kept.keys > 0).map_or(String::new(), |kept| {
        let minutes = now_ms.saturating_sub(kept.read_at_ms) / 60_000;
        format!("; the daemon's are {minutes} minutes old")
    })
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    fn look(keys: Result<usize, String>, apart_ms: Option<u64>) -> Look {
        Look { name: "corp".to_owned(), keys, apart_ms, leeway_ms: 30_000, is_file: false }
    }

    #[test]
    fn r53_keys_that_cannot_be_read_are_a_problem_unless_the_daemon_still_has_some() {
        let gone = || Err("the server answers 503".to_owned());
        let grades = |look: &Look, kept| judged(look, kept, 0).iter().map(|f| f.grade).collect::<Vec<_>>();
        assert_eq!(grades(&look(Ok(2), None), None), [Grade::Well]);
        assert_eq!(grades(&look(Ok(0), None), None), [Grade::Problem]);
        assert_eq!(grades(&look(gone(), None), None), [Grade::Problem]);
        assert_eq!(grades(&look(gone(), None), Some(Kept::default())), [Grade::Problem], "it has none either");
        let kept = Kept { keys: 1, read_at_ms: 1_000_000_000_000 };
        let found = judged(&look(gone(), None), Some(kept), 0).remove(0);
        assert_eq!(found.grade, Grade::Warning);
        assert!(found.hint.contains("2001-09-10T01:46:40Z"), "a day after they were read: {}", found.hint);
    }

    #[test]
    fn r53_a_clock_is_a_problem_above_the_leeway_and_not_at_it() {
        let grades = |apart| judged(&look(Ok(1), Some(apart)), None, 0).len();
        assert_eq!((grades(30_000), grades(30_001)), (1, 2));
    }
}
