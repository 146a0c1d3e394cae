//! Oversight on the admin plane: standing approvals, how far agents may go, and the questions of an incident.

use serde::Deserialize;
use toolkeep_core::autonomy::Autonomy;
use toolkeep_core::id::{AgentName, CallId, RunId, StandingId, ToolName};
use toolkeep_core::refusal::{Code, Refusal};

use super::admin::Asked;
use super::agent::later;
use super::method::AdminMethod;
use super::params;
use super::plane::Dispatch;
use super::reply::{Fault, INVALID_PARAMS};
use crate::host::{IncidentOf, ProposedStanding};

/// `standing.list`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// Those that ended, too.
    #[serde(default)]
    all: bool,
}

/// `standing.preview`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preview {
    standing: ProposedStanding,
    /// How many of the last calls to look at.
    #[serde(default = "hundreds")]
    calls: u32,
}

const fn hundreds() -> u32 {
    500
}

/// `standing.make`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Make {
    standing: ProposedStanding,
    reason: String,
    /// The first 12 digits of the digest that the preview gave.
    confirm: String,
}

/// `standing.agree`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agree {
    standing: StandingId,
}

/// `standing.revoke`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    standing: StandingId,
    reason: String,
}

/// `autonomy.show`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Show {
    agent: AgentName,
    tool: ToolName,
}

/// `autonomy.set`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    agent: AgentName,
    tool: ToolName,
    level: Autonomy,
    reason: String,
}

/// `incident.get`: a call or a run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Incident {
    #[serde(default)]
    call: Option<CallId>,
    #[serde(default)]
    run: Option<RunId>,
    /// Where to go on among the calls of a run.
    #[serde(default)]
    cursor: Option<u64>,
}

/// Begin a method of this kind.
///
/// # Errors
/// The parameters are not those of the method.
pub(super) fn begin(Asked { host, op, method, params }: Asked) -> Result<Dispatch, Fault> {
    Ok(match method {
        AdminMethod::StandingList => {
            let list: List = params::read(params)?;
            later(async move { host.standing_approvals(&op, list.all).await.into() })
        }
        AdminMethod::StandingPreview => {
            let shown: Preview = params::read(params)?;
            later(async move { host.preview_standing(&op, &shown.standing, shown.calls).await.into() })
        }
        AdminMethod::StandingMake => {
            let made: Make = params::read(params)?;
            later(async move { host.make_standing(&op, &made.standing, &made.reason, &made.confirm).await.into() })
        }
        AdminMethod::StandingAgree => {
            let agreed: Agree = params::read(params)?;
            later(async move { host.agree_standing(&op, agreed.standing).await.into() })
        }
        AdminMethod::StandingRevoke => {
            let revoked: Revoke = params::read(params)?;
            later(async move { host.revoke_standing(&op, revoked.standing, &revoked.reason).await.into() })
        }
        AdminMethod::AutonomyList => {
            params::read::<params::Nothing>(params)?;
            later(async move { host.autonomies(&op).await.into() })
        }
        AdminMethod::AutonomyShow => {
            let shown: Show = params::read(params)?;
            later(async move { host.autonomy_record(&op, &shown.agent, &shown.tool).await.into() })
        }
        AdminMethod::AutonomySet => {
            let Set { agent, tool, level, reason } = params::read(params)?;
            later(async move { host.set_autonomy(&op, agent, tool, level, &reason).await.into() })
        }
        _ => {
            let asked: Incident = params::read(params)?;
            let of = match (asked.call, asked.run) {
                (Some(call), None) => IncidentOf::Call(call),
                (None, Some(run)) => IncidentOf::Run(run),
                _ => return Err(one_of()),
            };
            later(async move { host.incident(&op, of, asked.cursor).await.into() })
        }
    })
}

/// `incident.get` is about one thing.
fn one_of() -> Fault {
    let refusal = Refusal::new(Code::InvalidInput, "one of `call` and `run` is wanted").field(
        "/call",
        "is missing, or `run` is there too",
        "the id of a call, or else `run` with that of a run",
    );
    Fault::protocol(INVALID_PARAMS, refusal)
}
