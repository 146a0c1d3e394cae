//! `toolkeep eval`: golden cases, the suites that they make up, and the adversarial pack.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use toolkeep_core::display::visible;

use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;
use super::replay::{finished, number};
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AdminMethod;
use crate::eval::CASE_MAX_BYTES;

/// Golden cases: add, run, list and remove them
#[derive(Debug, clap::Subcommand)]
pub enum EvalCommand {
    /// Add a case: of a recorded call, or from a file
    Add {
        /// The recorded call; the same has to come of it again, unless `--expect` says what
        #[arg(required_unless_present = "file")]
        call: Option<String>,
        /// A case as `eval show` prints it, or as you wrote it (JSON)
        #[arg(long, value_name = "CASE.json", conflicts_with_all = ["call", "expect"])]
        file: Option<PathBuf>,
        /// Its name in the suite
        #[arg(long, value_name = "NAME")]
        name: String,
        /// The suite; `golden` if left out
        #[arg(long, value_name = "SUITE")]
        suite: Option<String>,
        /// What has to come of it (JSON), for example `{"at": {"/total": 3}}`
        #[arg(long, value_name = "JSON")]
        expect: Option<String>,
    },
    /// Run a suite, all of them, or the adversarial pack of a tool
    Run {
        /// The suite; all of them if left out
        suite: Option<String>,
        /// The adversarial pack for this tool
        #[arg(long, value_name = "TOOL", conflicts_with = "suite")]
        adversarial: Option<String>,
        /// A component to try instead of the one in force
        #[arg(long, value_name = "FILE")]
        component: Option<PathBuf>,
        /// A manifest to try, with its component
        #[arg(long, value_name = "FILE", conflicts_with = "component")]
        manifest: Option<PathBuf>,
    },
    /// List cases, and what became of their suites
    List {
        /// Only this suite
        suite: Option<String>,
    },
    /// Print a case, so that it can be added elsewhere
    Show {
        /// The suite
        suite: String,
        /// The case
        name: String,
    },
    /// Remove a case
    Remove {
        /// The suite
        suite: String,
        /// The case
        name: String,
    },
}

const CASES: [Column; 5] = [
    Column::new("SUITE", |e| text_at(e, "/suite")),
    Column::new("CASE", |e| text_at(e, "/name")),
    Column::new("TOOL", |e| text_at(e, "/tool")),
    Column::new("BY", |e| text_at(e, "/made_by")),
    Column::new("ADDED", |e| time_at(e, "/made_at_ms")),
];

impl EvalCommand {
    /// Do it.
    ///
    /// # Errors
    /// Findings, where cases fail; or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        match self {
            Self::Add { call, file, name, suite, expect } => {
                let case = file.as_deref().map(read).transpose()?;
                let expect = expect.as_deref().map(serde_json::from_str::<Value>).transpose();
                let expect = expect.map_err(|e| Failure::usage(format!("`--expect` is not JSON: {e}"), ""))?;
                let params = json!({"call": call, "case": case, "name": name, "suite": suite, "expect": expect});
                let added = context.admin()?.ask(ui, AdminMethod::EvalAdd, params)?;
                ui.value(&added, || {
                    let (suite, name) = (text_at(&added, "/suite"), text_at(&added, "/name"));
                    let text = format!("{suite}/{name} is a golden case of {}", text_at(&added, "/tool"));
                    text + &problems(&added)
                })?;
                Ok(Exit::Ok)
            }
            Self::Run { suite, adversarial, component, manifest } => {
                let file = |path: Option<PathBuf>| path.as_deref().map(absolute).transpose();
                let params = json!({"suite": suite, "adversarial": adversarial, "component": file(component)?,
                    "manifest": file(manifest)?});
                let answer = finished(context, AdminMethod::EvalRun, params)?;
                let report = answer.get("report").cloned().unwrap_or_default();
                ui.value(&report, || ran(&report))?;
                match (number(&report, "/failed"), number(&report, "/not_run")) {
                    (0, 0) => Ok(Exit::Ok),
                    (0, unrun) => Err(Failure::Findings(format!("{unrun} case(s) were not run"))),
                    (some, _) => Err(Failure::Findings(format!("{some} case(s) fail"))),
                }
            }
            Self::List { suite } => {
                let answer = context.admin()?.ask(ui, AdminMethod::EvalList, json!({"suite": suite}))?;
                let cases = answer.get("cases").and_then(Value::as_array).cloned().unwrap_or_default();
                ui.list(&answer, &cases, &CASES)?;
                for suite in answer.get("suites").and_then(Value::as_array).into_iter().flatten() {
                    ui.note(&lately(suite));
                }
                Ok(Exit::Ok)
            }
            Self::Show { suite, name } => {
                let params = json!({"suite": suite, "name": name});
                let answer = context.admin()?.ask(ui, AdminMethod::EvalShow, params)?;
                let case = answer.get("case").cloned().unwrap_or_default();
                ui.value(&case, || serde_json::to_string_pretty(&case).unwrap_or_default())?;
                Ok(Exit::Ok)
            }
            Self::Remove { suite, name } => {
                let params = json!({"suite": suite, "name": name});
                let answer = context.admin()?.ask(ui, AdminMethod::EvalRemove, params)?;
                ui.value(&answer, || format!("{suite}/{name} is removed"))?;
                Ok(Exit::Ok)
            }
        }
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |why: String| Failure::usage(format!("`{}` {why}", file.display()), "give a case of `eval show`");
    let size = std::fs::metadata(file).map_err(|error| failed(format!("cannot be read: {error}")))?.len();
    if size > CASE_MAX_BYTES as u64 {
        return Err(failed(format!("is larger than {CASE_MAX_BYTES} bytes")));
    }
    std::fs::read_to_string(file).map_err(|error| failed(format!("cannot be read: {error}")))
}

fn ran(report: &Value) -> String {
    let mut text = format!("{} of {} golden cases pass", text_at(report, "/passed"), text_at(report, "/cases"));
    match number(report, "/not_run") {
        0 => {}
        some => text.push_str(&format!("; {some} were not run")),
    }
    for failure in report.get("failures").and_then(Value::as_array).into_iter().flatten() {
        let (suite, name) = (text_at(failure, "/suite"), text_at(failure, "/name"));
        text.push_str(&format!("\n{suite}/{name}{}", problems(failure)));
    }
    text
}

/// What is not as it has to be, a line each.
fn problems(of: &Value) -> String {
    let problems = of.get("problems").and_then(Value::as_array).into_iter().flatten();
    problems.filter_map(Value::as_str).map(|problem| format!("\n  {}", visible(problem))).collect()
}

fn lately(suite: &Value) -> String {
    let runs = suite.get("runs").and_then(Value::as_array).into_iter().flatten();
    let runs: Vec<String> = runs
        .map(|run| {
            let all = number(run, "/passed") + number(run, "/failed");
            format!("{}/{all} at {}", number(run, "/passed"), time_at(run, "/at_ms"))
        })
        .collect();
    let name = text_at(suite, "/suite");
    if runs.is_empty() { format!("{name}: never run") } else { format!("{name}: {}", runs.join(", ")) }
}
