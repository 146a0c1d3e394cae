//! Alerts on the admin plane: from their methods and parameters to the [`Host`].

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use toolkeep_core::id::AlertId;

use super::agent::later;
use super::method::AdminMethod;
use super::params;
use super::plane::Dispatch;
use super::reply::Fault;
use crate::authenticate::Operator;
use crate::host::Host;

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
pub(super) fn begin(
    host: Host,
    op: Arc<Operator>,
    method: AdminMethod,
    params: Map<String, Value>,
) -> Result<Dispatch, Fault> {
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
