//! `toolkeep doctor`: is this set-up sound, and what is it worth?
//!
//! Every check says what it looked at and, where something is not well, what to do. Warnings are about choices that an
//! operator may have made on purpose; only problems make the command fail. Nothing is changed.

mod daemon;
mod door;
mod issuers;
mod machine;
mod secrets;
mod setup;

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::ui::{Column, text_at};

/// Check the configuration, this machine and the daemon
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Well,
    Warning,
    Problem,
}

/// What one check found.
#[derive(Debug)]
struct Finding {
    check: &'static str,
    grade: Grade,
    found: String,
    hint: String,
}

impl Finding {
    fn well(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, grade: Grade::Well, found: found.into(), hint: String::new() }
    }

    fn warning(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warning, found: found.into(), hint: hint.into() }
    }

    fn problem(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, grade: Grade::Problem, found: found.into(), hint: hint.into() }
    }

    fn to_json(&self) -> Value {
        let grade = match self.grade {
            Grade::Well => "well",
            Grade::Warning => "warning",
            Grade::Problem => "problem",
        };
        json!({"check": self.check, "grade": grade, "found": self.found, "hint": self.hint})
    }
}

const COLUMNS: [Column; 3] = [
    Column::new("", |e| text_at(e, "/grade")),
    Column::new("CHECK", |e| text_at(e, "/check")),
    Column::new("FOUND", |e| text_at(e, "/found")),
];

impl DoctorArgs {
    /// Check everything.
    ///
    /// # Errors
    /// A problem was found; it is shown before.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let mut findings = machine::check();
        match context.config() {
            Ok(loaded) => {
                findings.extend(setup::check(&loaded));
                findings.extend(secrets::check(context, &loaded.config));
                findings.extend(door::check(&loaded.config, context.ambient));
                findings.extend(issuers::check(context, &loaded.config));
                findings.extend(daemon::check(context));
            }
            Err(failure) => {
                findings.push(Finding::problem(
                    "configuration",
                    failure.to_string(),
                    "`toolkeep config init` writes one",
                ));
            }
        }
        let entries: Vec<Value> = findings.iter().map(Finding::to_json).collect();
        context.ui.list(&Value::Array(entries.clone()), &entries, &COLUMNS)?;
        for finding in findings.iter().filter(|finding| !finding.hint.is_empty()) {
            context.ui.note(&format!("{}: {}", finding.check, finding.hint));
        }
        match findings.iter().filter(|finding| finding.grade == Grade::Problem).count() {
            0 => Ok(Exit::Ok),
            1 => Err(Failure::Findings("1 problem".to_owned())),
            count => Err(Failure::Findings(format!("{count} problems"))),
        }
    }
}
