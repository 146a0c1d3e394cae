//! Whether every secret can be read right now, and every authority of the operator's is one.

use super::Finding;
use crate::cli::context::Context;
use crate::config::Config;
use crate::egress::{Egress, Resolver};
use crate::secrets::Secrets;

/// Read every source once. Values are looked at and forgotten.
pub(super) fn check(context: &Context<'_>, config: &Config) -> Vec<Finding> {
    let secrets = Secrets::new(config.secrets.clone(), context.ambient.clone());
    let mut findings = sources(config, &secrets);
    if let Some(file) = &config.egress.ca_file {
        const CHECK: &str = "authorities";
        findings.push(match Egress::new(&config.egress, Resolver::system(), secrets) {
            Ok(_) => Finding::well(CHECK, format!("`{}` is trusted beside the public ones", file.display())),
            Err(error) => Finding::problem(CHECK, error.to_string(), "correct `egress.ca_file`, or remove it"),
        });
    }
    findings
}

fn sources(config: &Config, secrets: &Secrets) -> Vec<Finding> {
    const CHECK: &str = "secret";
    if config.secrets.is_empty() {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let problems = match runtime {
        Ok(runtime) => runtime.block_on(secrets.problems()),
        Err(error) => return vec![Finding::warning(CHECK, error.to_string(), "no secret was looked at")],
    };
    let found = |name| match problems.iter().find(|(other, _)| other == name) {
        None => Finding::well(CHECK, format!("`{name}` can be read")),
        Some((_, problem)) => Finding::problem(
            CHECK,
            format!("`{name}`: {problem}"),
            "run the doctor as the daemon's user; requests that need the secret are refused until it can be read",
        ),
    };
    config.secrets.keys().map(found).collect()
}
