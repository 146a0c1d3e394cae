//! Replays, back-tests and golden cases on the admin plane.

use serde::Deserialize;
use std::path::Path;
use toolkeep_core::id::{CallId, ToolName};
use toolkeep_core::refusal::{Code, Refusal};

use super::admin::Asked;
use super::agent::later;
use super::method::AdminMethod;
use super::params;
use super::plane::Dispatch;
use super::reply::{Fault, INVALID_PARAMS};
use crate::host::{AddCase, BackTest, RunSuite, With};

/// `replay.call`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfCall {
    call: CallId,
}

/// `replay.start`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    with: With,
    /// How many of the last recorded calls.
    #[serde(default = "thousand")]
    last: u32,
    /// Only those of this tool.
    #[serde(default)]
    tool: Option<ToolName>,
}

const fn thousand() -> u32 {
    1_000
}

/// `replay.progress` and `replay.cancel`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfJob {
    job: String,
}

/// `eval.list`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListCases {
    #[serde(default)]
    suite: Option<ToolName>,
}

/// `eval.show` and `eval.remove`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfCase {
    suite: ToolName,
    name: ToolName,
}

/// What is read from files of the daemon's machine must not depend on where the daemon stands.
pub(super) fn absolute(path: &Path, pointer: &str) -> Result<(), Fault> {
    if path.is_absolute() {
        return Ok(());
    }
    let refusal = Refusal::new(Code::InvalidInput, format!("`{}` is a relative path", path.display())).field(
        pointer,
        "is relative",
        "an absolute path on the daemon's machine",
    );
    Err(Fault::protocol(INVALID_PARAMS, refusal))
}

/// Begin what a method of this kind asks for.
pub(super) fn begin(Asked { host, op, method, params }: Asked) -> Result<Dispatch, Fault> {
    Ok(match method {
        AdminMethod::ReplayCall => {
            let of: OfCall = params::read(params)?;
            later(async move { host.replay(&op, of.call).await.into() })
        }
        AdminMethod::ReplayStart => {
            let Start { with, last, tool } = params::read(params)?;
            if let With::Component(path) | With::Manifest(path) = &with {
                absolute(path, "/with")?;
            }
            later(async move { host.back_test(&op, BackTest { with, last, tool }).await.into() })
        }
        AdminMethod::EvalAdd => {
            let add: AddCase = params::read(params)?;
            later(async move { host.add_case(&op, add).await.into() })
        }
        AdminMethod::EvalList => {
            let list: ListCases = params::read(params)?;
            later(async move { host.list_cases(&op, list.suite).await.into() })
        }
        AdminMethod::EvalShow => {
            let of: OfCase = params::read(params)?;
            later(async move { host.show_case(&op, &of.suite, &of.name).await.into() })
        }
        AdminMethod::EvalRemove => {
            let of: OfCase = params::read(params)?;
            later(async move { host.remove_case(&op, &of.suite, &of.name).await.into() })
        }
        AdminMethod::EvalRun => {
            let run: RunSuite = params::read(params)?;
            for path in run.component.iter().chain(&run.manifest) {
                absolute(path, "/component")?;
            }
            later(async move { host.run_suite(&op, run).await.into() })
        }
        AdminMethod::ReplayCancel => {
            let of: OfJob = params::read(params)?;
            Dispatch::Now(host.cancel_job(&op, &of.job).into())
        }
        _ => {
            let of: OfJob = params::read(params)?;
            Dispatch::Now(host.job(&op, &of.job).into())
        }
    })
}
