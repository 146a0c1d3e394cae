//! `toolkeep replay`: execute a recorded call again, offline, and compare; or try what another version, manifest or policy set
//! would have done to the last calls.
//!
//! A back-test is a job of the daemon. The command asks how far it has come until it is over; interrupting the command does
//! not end the job, `--cancel` does.

use std::path::PathBuf;

use serde_json::{Value, json};
use toolkeep_core::display::{visible, visible_json};

use super::client;
use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;
use super::ui::text_at;
use crate::daemon::method::AdminMethod;

/// How often the command asks how far a job has come, in milliseconds.
const ASK_EVERY_MS: u64 = 200;

/// Execute recorded calls again, offline, and compare
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The call to replay
    #[arg(required_unless_present_any = ["with", "policy", "manifest", "cancel"])]
    call: Option<String>,
    /// Another version to try: `TOOL@VERSION`, or a component file
    #[arg(long, value_name = "TOOL@VERSION|FILE", conflicts_with_all = ["call", "policy", "manifest"])]
    with: Option<String>,
    /// Directory of other policies to try
    #[arg(long, value_name = "DIR", conflicts_with_all = ["call", "manifest"])]
    policy: Option<PathBuf>,
    /// Another manifest to try, with its component
    #[arg(long, value_name = "FILE", conflicts_with = "call")]
    manifest: Option<PathBuf>,
    /// How many of the last recorded calls to try
    #[arg(long, value_name = "N", default_value_t = 1000)]
    last: u32,
    /// Only calls of this tool
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// End a job that runs
    #[arg(long, value_name = "JOB", conflicts_with_all = ["call", "with", "policy", "manifest"])]
    cancel: Option<String>,
}

impl ReplayArgs {
    /// Do it.
    ///
    /// # Errors
    /// Findings, where anything differs; there is no such call, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        if let Some(job) = &self.cancel {
            let answer = context.admin()?.ask(&context.ui, AdminMethod::ReplayCancel, json!({"job": job}))?;
            context.ui.value(&answer, || format!("{} is asked to end", text_at(&answer, "/job")))?;
            return Ok(Exit::Ok);
        }
        if let Some(call) = &self.call {
            return one(context, call);
        }
        let with = match (&self.with, &self.policy, &self.manifest) {
            (Some(version), _, _) if version.contains('@') => json!({"version": version}),
            (Some(component), _, _) => json!({"component": absolute(PathBuf::from(component).as_path())?}),
            (_, Some(dir), _) => json!({"policies": super::policy::files(context, dir)?}),
            (_, _, Some(manifest)) => json!({"manifest": absolute(manifest)?}),
            _ => return Err(Failure::usage("nothing to compare with", "give `--with`, `--policy` or `--manifest`")),
        };
        let params = json!({"with": with, "last": self.last, "tool": self.tool});
        let answer = finished(context, AdminMethod::ReplayStart, params)?;
        let report = answer.get("report").cloned().unwrap_or_default();
        context.ui.value(&report, || reported(&report))?;
        missing(&report).map_or(Ok(Exit::Ok), |what| Err(Failure::Findings(what)))
    }
}

/// Why a report does not say that all is as it was: what changed, or that it could not be seen.
fn missing(report: &Value) -> Option<String> {
    match (number(report, "/changed"), number(report, "/compared"), report.get("cancelled")) {
        (0, 0, _) => Some("nothing was compared, so nothing is known".to_owned()),
        (0, _, Some(Value::Bool(true))) => Some("it was ended before all calls were compared".to_owned()),
        (0, ..) => None,
        (some, ..) => Some(format!("{some} recorded call(s) would have gone otherwise")),
    }
}

/// Begin a job and wait until it is over.
pub(super) fn finished(context: &Context<'_>, method: AdminMethod, params: Value) -> Result<Value, Failure> {
    let mut admin = context.admin()?;
    let mut answer = admin.ask(&context.ui, method, params)?;
    let job = text_at(&answer, "/job");
    context.ui.note(&format!("{job}: end it with `toolkeep replay --cancel {job}`"));
    let mut said = 0;
    while text_at(&answer, "/state") == "running" {
        client::rest(ASK_EVERY_MS);
        answer = admin.ask(&context.ui, AdminMethod::ReplayProgress, json!({"job": job}))?;
        let (done, total) = (number(&answer, "/done"), number(&answer, "/total").max(1));
        let tenth = done.saturating_mul(10) / total;
        if tenth > said {
            said = tenth;
            context.ui.note(&format!("{done} of at most {total}"));
        }
    }
    match answer.get("error") {
        Some(error) => match serde_json::from_value(error.clone()) {
            Ok(refusal) => Err(Failure::Refused(Box::new(refusal))),
            Err(_) => Err(Failure::Findings(error.to_string())),
        },
        None => Ok(answer),
    }
}

pub(super) fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn one(context: &Context<'_>, call: &str) -> Result<Exit, Failure> {
    let answer = context.admin()?.ask(&context.ui, AdminMethod::ReplayCall, json!({"call": call}))?;
    context.ui.value(&answer, || verdict(&answer))?;
    if answer.get("identical") == Some(&Value::Bool(true)) {
        return Ok(Exit::Ok);
    }
    Err(Failure::Findings("the replay is not what was recorded".to_owned()))
}

fn verdict(answer: &Value) -> String {
    let mut text = format!(
        "call       {} of {}\nended      {}\nimports    {} compared\nfuel       {} recorded, {} now\n",
        text_at(answer, "/call_id"),
        text_at(answer, "/tool"),
        text_at(answer, "/ended"),
        text_at(answer, "/events"),
        text_at(answer, "/fuel/0"),
        text_at(answer, "/fuel/1"),
    );
    for note in answer.get("notes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!("note       {}\n", visible(note)));
    }
    let shown = |pointer: &str| side(answer.pointer(pointer));
    match answer.get("divergence") {
        None => text.push_str("identical: output, effects, log and fuel are what they were"),
        Some(_) => {
            let at = text_at(answer, "/divergence/at");
            let at = if at.is_empty() { String::new() } else { format!(" {at}") };
            text.push_str(&format!(
                "differs first in {}{at}\n  expected {}\n  got      {}",
                text_at(answer, "/divergence/what"),
                shown("/divergence/expected"),
                shown("/divergence/got")
            ));
        }
    }
    text
}

/// One side of a difference.
pub(super) fn side(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(Value::String(text)) => visible(text).into_owned(),
        Some(other) => visible_json(&other.to_string()).into_owned(),
    }
}

fn reported(report: &Value) -> String {
    let mut text = format!(
        "compared        {}\nsame            {}\nchanged         {}\nnot comparable  {}\n",
        text_at(report, "/compared"),
        text_at(report, "/same"),
        text_at(report, "/changed"),
        text_at(report, "/not_comparable"),
    );
    let (before, after) = (number(report, "/fuel/before"), number(report, "/fuel/after"));
    if before > 0 {
        text.push_str(&format!("fuel            {before} before, {after} after\n"));
    }
    let members = |pointer: &str| report.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    for (what, count) in members("/by") {
        text.push_str(&format!("  {count} in {what}\n"));
    }
    for (reason, count) in members("/reasons") {
        text.push_str(&format!("  {count} not comparable: {}\n", visible(reason)));
    }
    if report.get("cut") == Some(&Value::Bool(true)) {
        text.push_str("older calls were not looked for: there are too many of other tools in between\n");
    }
    for example in report.get("examples").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(&format!("{} of {}\n", text_at(example, "/call_id"), text_at(example, "/tool")));
        for change in example.get("changes").and_then(Value::as_array).into_iter().flatten() {
            let (before, after) = (side(change.get("before")), side(change.get("after")));
            text.push_str(&format!("  {}\n    before {before}\n    after  {after}\n", text_at(change, "/what")));
        }
    }
    text.trim_end().to_owned()
}
