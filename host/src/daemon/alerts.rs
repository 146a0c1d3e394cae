//! Alerts on the admin plane: from their methods and parameters to the [`Host`].

use serde::Deserialize;
use toolkeep_core::id::AlertId;

use super::admin::Asked;
use super::agent::later;
use super::method::AdminMethod;
use super::params;
use super::plane::Dispatch;
use super::reply::Fault;

/// `alerts.list`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// Those that were acknowledged, too.
    #[serde(default)]
    all: bool,
    #[serde(default)]
    cursor: Option<u64>,
}

/// `alerts.show`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Show {
    alert: AlertId,
}

/// `alerts.ack`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    alert: AlertId,
    #[serde(default)]
    note: String,
}

/// Begin a method of this kind.
///
/// # Errors
/// The parameters are not those of the method.
pub(super) fn begin(Asked { host, op, method, params }: Asked) -> Result<Dispatch, Fault> {
    Ok(match method {
        AdminMethod::AlertsList => {
            let list: List = params::read(params)?;
            later(async move { host.alerts(&op, list.all, list.cursor).await.into() })
        }
        AdminMethod::AlertsShow => {
            let show: Show = params::read(params)?;
            later(async move { host.alert(&op, show.alert).await.into() })
        }
        _ => {
            let ack: Ack = params::read(params)?;
            later(async move { host.ack_alert(&op, ack.alert, &ack.note).await.into() })
        }
    })
}
