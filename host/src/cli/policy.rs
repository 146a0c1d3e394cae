//! `toolkeep policy`: are policies valid, do they say what they should, why was something decided, what would others change?
//!
//! `check` and `test` read files and ask nobody: they work before there is a daemon, and in an automatic check of changes. The
//! rest asks the daemon, because it is about what is in force there and about what was recorded.

mod answer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use toolkeep_core::refusal::Code;

use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;
use super::ui::{Column, text_at};
use crate::catalog::{Catalog, Configured};
use crate::config::Config;
use crate::daemon::method::AdminMethod;
use crate::host::PolicyFile;
use crate::policy::case::CaseFile;
use crate::policy::{DEFAULT, Finding, Policies, source};

/// Check, test, explain and compare policies
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Validate policies against the installed tools; needs no daemon
    Check {
        /// Directory of policies; the configured one if left out
        dir: Option<PathBuf>,
        /// Ask the daemon instead, which knows the tools that it offers now
        #[arg(long)]
        online: bool,
    },
    /// Run cases against policies; needs no daemon
    Test {
        /// File of cases (TOML)
        file: PathBuf,
        /// Directory of policies; the configured one if left out
        #[arg(long, value_name = "DIR")]
        policies: Option<PathBuf>,
    },
    /// Tell which policies decide about a call, and what they demand
    Explain {
        /// A call that was made
        #[arg(required_unless_present = "principal")]
        call: Option<String>,
        /// Who would call: `user/agent`
        #[arg(long, value_name = "USER/AGENT", requires = "tool", conflicts_with = "call")]
        principal: Option<String>,
        /// Which tool
        #[arg(long, value_name = "NAME")]
        tool: Option<String>,
        /// With which input
        #[arg(long, value_name = "JSON", default_value = "{}")]
        input: String,
        /// In a run that has read untrusted content
        #[arg(long, requires = "principal")]
        untrusted: bool,
        /// In a run that has read private content
        #[arg(long, requires = "principal")]
        private: bool,
    },
    /// Tell what other policies would have said to the last calls
    Diff {
        /// Directory of the other policies
        dir: PathBuf,
        /// How many of the last calls to look at
        #[arg(long, value_name = "N", default_value_t = 100)]
        calls: u32,
    },
    /// Show the policies in force
    Show {
        /// The built-in ones, to start from; needs no daemon
        #[arg(long, conflicts_with = "schema")]
        default: bool,
        /// The schema that policies are written against
        #[arg(long)]
        schema: bool,
    },
    /// Make the daemon read its policies again
    Reload,
}

const FINDINGS: [Column; 3] = [
    Column::new("PLACE", |e| format!("{}:{}:{}", text_at(e, "/file"), text_at(e, "/line"), text_at(e, "/column"))),
    Column::new("", |e| if e.get("warning") == Some(&Value::Bool(true)) { "warning" } else { "error" }.to_owned()),
    Column::new("FINDING", |e| text_at(e, "/message")),
];

const CASES: [Column; 3] = [
    Column::new("CASE", |e| text_at(e, "/name")),
    Column::new("DECISION", |e| text_at(e, "/answer/decision")),
    Column::new("", |e| if e.get("passed") == Some(&Value::Bool(true)) { "ok" } else { "differs" }.to_owned()),
];

impl PolicyCommand {
    /// Do it.
    ///
    /// # Errors
    /// Findings; or there is no daemon, where one is needed.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        match self {
            Self::Check { dir, online: false } => check(context, dir.as_deref()),
            Self::Check { dir, online: true } => check_online(context, dir.as_deref()),
            Self::Test { file, policies } => test(context, &file, policies.as_deref()),
            Self::Explain { call, principal, tool, input, untrusted, private } => {
                let taint = json!({"untrusted": untrusted, "private": private});
                let params = question(call.as_deref(), principal.as_deref(), tool.as_deref(), (&input, taint))?;
                let answer = context.admin()?.ask(&context.ui, AdminMethod::PolicyExplain, params)?;
                context.ui.value(&answer, || answer::explained(&answer))?;
                Ok(Exit::Ok)
            }
            Self::Diff { dir, calls } => diff(context, &dir, calls),
            Self::Show { default: true, .. } => {
                context.ui.text(DEFAULT)?;
                Ok(Exit::Ok)
            }
            Self::Show { schema, .. } => {
                let shown = context.admin()?.ask(&context.ui, AdminMethod::PolicyGet, json!({"schema": schema}))?;
                context.ui.value(&shown, || answer::in_force(&shown))?;
                Ok(Exit::Ok)
            }
            Self::Reload => {
                let answer = context.admin()?.ask(&context.ui, AdminMethod::PolicyReload, json!({}))?;
                context.ui.value(&answer, || text_at(&answer, "/state"))?;
                let findings = answer.get("findings").and_then(Value::as_array).cloned().unwrap_or_default();
                if text_at(&answer, "/state") != "refused" {
                    return Ok(Exit::Ok);
                }
                context.ui.note(&context.ui.table(&findings, &FINDINGS));
                Err(Failure::Findings("the policies were refused; those that were in force stay".to_owned()))
            }
        }
    }
}

/// The policies of a directory, of the configured one, or the built-in ones.
fn load(config: &Config, catalog: &Catalog, dir: Option<&Path>) -> Result<Policies, Vec<Finding>> {
    match dir.or(config.policy_dir.as_deref()) {
        Some(dir) => Policies::new(source::read(dir)?, &catalog.shapes()),
        None => Policies::built_in(&catalog.shapes()),
    }
}

/// The tools of the configured directory. Components were looked at when they were installed, or will be.
fn catalog(context: &Context<'_>, config: &Config) -> Catalog {
    let catalog = Catalog::read(&config.tools_dir, &Catalog::default(), &BTreeSet::new(), &Configured::of(config));
    for problem in catalog.problems() {
        context.ui.note(&format!("without the tools of {}: {}", problem.file.display(), problem.problem));
    }
    catalog
}

fn check(context: &Context<'_>, dir: Option<&Path>) -> Result<Exit, Failure> {
    let config = context.config()?.config;
    let answer = match load(&config, &catalog(context, &config), dir) {
        Ok(policies) => json!({"valid": true, "policies": policies.count(), "findings": policies.warnings()}),
        Err(findings) => json!({"valid": false, "policies": 0, "findings": findings}),
    };
    checked(context, &answer)
}

fn check_online(context: &Context<'_>, dir: Option<&Path>) -> Result<Exit, Failure> {
    let params = match dir {
        Some(dir) => json!({"files": files(context, dir)?}),
        None => json!({}),
    };
    let answer = context.admin()?.ask(&context.ui, AdminMethod::PolicyCheck, params)?;
    checked(context, &answer)
}

fn checked(context: &Context<'_>, answer: &Value) -> Result<Exit, Failure> {
    let ui = &context.ui;
    let findings = answer.get("findings").and_then(Value::as_array).cloned().unwrap_or_default();
    let count = text_at(answer, "/policies");
    ui.value(answer, || match findings.is_empty() {
        true => format!("{count} policies, all valid"),
        false => ui.table(&findings, &FINDINGS),
    })?;
    match answer.get("valid") {
        Some(Value::Bool(true)) => Ok(Exit::Ok),
        _ => Err(Failure::Findings(format!("{} finding(s); these policies would be refused", findings.len()))),
    }
}

fn test(context: &Context<'_>, file: &Path, dir: Option<&Path>) -> Result<Exit, Failure> {
    let config = context.config()?.config;
    let text = std::fs::read_to_string(file).map_err(Failure::file("read", file))?;
    let cases: CaseFile = toml::from_str(&text).map_err(|error| {
        Failure::usage(format!("`{}` is not a file of cases: {error}", file.display()), "docs/policy.md shows one")
    })?;
    let catalog = catalog(context, &config);
    let policies = load(&config, &catalog, dir).map_err(|findings| refused(context, &findings))?;
    let (mut ran, mut differing) = (Vec::new(), 0);
    for case in &cases.cases {
        let undo_bytes = config.limits.undo_bytes;
        let answer =
            catalog.tool(&case.tool).map(|tool| case.run(&policies, &tool.shape, &tool.manifest.hold, undo_bytes));
        let (answer, differs) = match answer {
            Some(Ok(ran)) => (ran.answer.view(), ran.differs),
            Some(Err(error)) => (Value::Null, vec![error.to_string()]),
            None => (Value::Null, vec![format!("no tool is called `{}`", case.tool)]),
        };
        differing += usize::from(!differs.is_empty());
        ran.push(json!({"name": case.name, "passed": differs.is_empty(), "differs": differs, "answer": answer}));
    }
    context.ui.list(&json!({"cases": ran}), &ran, &CASES)?;
    for case in &ran {
        for differs in case.get("differs").and_then(Value::as_array).into_iter().flatten() {
            context.ui.note(&format!("{}: {}", text_at(case, "/name"), differs.as_str().unwrap_or_default()));
        }
    }
    match differing {
        0 => Ok(Exit::Ok),
        some => Err(Failure::Findings(format!("{some} of {} case(s) differ", ran.len()))),
    }
}

fn question(
    call: Option<&str>,
    principal: Option<&str>,
    tool: Option<&str>,
    (input, taint): (&str, Value),
) -> Result<Value, Failure> {
    let Some(principal) = principal else { return Ok(json!({"call": call})) };
    let Some((user, agent)) = principal.split_once('/') else {
        return Err(Failure::usage("`--principal` is not `user/agent`", "the tenant is your own"));
    };
    let input: Value =
        serde_json::from_str(input).map_err(|error| Failure::usage(format!("`--input` is not JSON: {error}"), ""))?;
    Ok(json!({"suppose": {"user": user, "agent": agent, "tool": tool, "input": input, "taint": taint}}))
}

fn diff(context: &Context<'_>, dir: &Path, calls: u32) -> Result<Exit, Failure> {
    let params = json!({"files": files(context, dir)?, "calls": calls});
    let answer =
        context.admin()?.ask(&context.ui, AdminMethod::PolicyDiff, params).map_err(|failure| match failure {
            Failure::Refused(refusal) if refusal.code == Code::InvalidInput => Failure::Findings(refusal.message),
            other => other,
        })?;
    let changes = answer.get("changes").and_then(Value::as_array).cloned().unwrap_or_default();
    context.ui.list(&answer, &changes, &answer::CHANGES)?;
    let compared = text_at(&answer, "/compared");
    match changes.len() {
        0 => context.ui.note(&format!("{compared} call(s) compared; nothing would change")),
        some => return Err(Failure::Findings(format!("{some} of {compared} call(s) would be decided otherwise"))),
    }
    Ok(Exit::Ok)
}

/// The policy files of a directory, as they are sent.
pub(super) fn files(context: &Context<'_>, dir: &Path) -> Result<Vec<PolicyFile>, Failure> {
    let sources = source::read(&absolute(dir)?).map_err(|findings| refused(context, &findings))?;
    let sent = |source: source::Source| PolicyFile { name: (*source.name).to_owned(), text: (*source.text).to_owned() };
    Ok(sources.into_iter().map(sent).collect())
}

/// Show what is wrong with a set that has to be right.
fn refused(context: &Context<'_>, findings: &[Finding]) -> Failure {
    for finding in findings {
        context.ui.note(&finding.to_string());
    }
    Failure::Findings(format!("{} finding(s); these policies would be refused", findings.len()))
}
