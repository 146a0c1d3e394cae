//! The methods about what is kept: break-glass reads, retention, holds, forgetting, and what operators ask of the past.

use serde::Deserialize;
use toolkeep_core::id::{CallId, RunId};

use super::admin::Asked;
use super::agent::later;
use super::method::AdminMethod;
use super::params;
use super::plane::Dispatch;
use super::reply::Fault;
use crate::host::HeldThing;

/// `audit.read`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    call: CallId,
    reason: String,
}

/// `retention.run`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    /// Change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// `retention.hold`, `retention.release`: a call or a run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    #[serde(default)]
    call: Option<CallId>,
    #[serde(default)]
    run: Option<RunId>,
    reason: String,
}

impl Hold {
    const fn thing(&self) -> HeldThing {
        HeldThing { call: self.call, run: self.run }
    }
}

/// Begin a method of this kind.
///
/// # Errors
/// The parameters are not those of the method.
pub(super) fn begin(Asked { host, op, method, params }: Asked) -> Result<Dispatch, Fault> {
    Ok(match method {
        AdminMethod::AuditRead => {
            let read: Read = params::read(params)?;
            later(async move { host.break_glass(&op, read.call, &read.reason).await.into() })
        }
        AdminMethod::RetentionRun => {
            let run: Run = params::read(params)?;
            later(async move { host.retain(&op, run.dry_run).await.into() })
        }
        AdminMethod::RetentionHold => {
            let hold: Hold = params::read(params)?;
            later(async move { host.hold_for_law(&op, hold.thing(), &hold.reason).await.into() })
        }
        AdminMethod::RetentionRelease => {
            let hold: Hold = params::read(params)?;
            later(async move { host.release_hold(&op, hold.thing(), &hold.reason).await.into() })
        }
        AdminMethod::PrivacyForget => {
            let asked: crate::host::Forget = params::read(params)?;
            later(async move { host.forget(&op, asked).await.into() })
        }
        AdminMethod::StatsCalls => {
            let asked: crate::host::StatsCalls = params::read(params)?;
            later(async move { host.stats_calls(&op, asked).await.into() })
        }
        AdminMethod::StatsRuns => {
            let asked: crate::host::StatsRuns = params::read(params)?;
            later(async move { host.stats_runs(&op, asked).await.into() })
        }
        AdminMethod::StatsFile => {
            let asked: crate::host::StatsFile = params::read(params)?;
            later(async move { host.stats_file(&op, asked).await.into() })
        }
        _ => {
            params::read::<params::Nothing>(params)?;
            later(async move { host.retention(&op).await.into() })
        }
    })
}
