//! The audit on the admin plane.

use std::sync::Arc;

use serde::Deserialize;
use toolkeep_core::audit::AuditKind;

use super::admin::Asked;
use super::agent::later;
use super::method::AdminMethod;
use super::params;
use super::plane::Dispatch;
use super::reply::{Body, Fault, INVALID_PARAMS};
use crate::host::{ExportAsk, ProveAsk, check_kept};
use crate::ledger::EntryFilter;

/// Bytes of an id that entries are looked through for.
const ABOUT_MAX_BYTES: usize = 100;

/// `audit.verify`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verify {
    /// Checkpoints that somebody kept, as they were sent out, one after the other.
    #[serde(default)]
    checkpoint: Option<String>,
}

/// `audit.entries`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    #[serde(default)]
    kind: Option<AuditKind>,
    #[serde(default)]
    since_ms: Option<u64>,
    #[serde(default)]
    until_ms: Option<u64>,
    /// Only entries whose facts name this id.
    #[serde(default)]
    about: Option<String>,
    #[serde(default)]
    cursor: Option<u64>,
}

/// `audit.checkpoints`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    cursor: Option<u64>,
}

/// Answer a method of the audit.
pub(super) fn begin(Asked { host, op, method, params }: Asked) -> Result<Dispatch, Fault> {
    Ok(match method {
        AdminMethod::AuditVerify => {
            let asked: Verify = params::read(params)?;
            if let Some(text) = &asked.checkpoint {
                check_kept(text).map_err(|refusal| Fault::protocol(INVALID_PARAMS, refusal))?;
            }
            later(async move { host.audit_verify(&op, asked.checkpoint.as_deref()).await.into() })
        }
        AdminMethod::AuditEntries => {
            let asked: Entries = params::read(params)?;
            let about = asked.about.filter(|id| id.len() <= ABOUT_MAX_BYTES).map(Arc::from);
            let (kind, since_ms, until_ms) = (asked.kind, asked.since_ms, asked.until_ms);
            let filter = EntryFilter { kind, since_ms, until_ms, about, viewer: None };
            later(async move { host.audit_entries(&op, filter, asked.cursor).await.into() })
        }
        AdminMethod::AuditProve => {
            let asked: ProveAsk = params::read(params)?;
            later(async move { host.audit_prove(&op, asked).await.into() })
        }
        AdminMethod::AuditExport => {
            let asked: ExportAsk = params::read(params)?;
            later(async move { host.audit_export(&op, asked).await.into() })
        }
        AdminMethod::AuditCheckpoints => {
            let asked: List = params::read(params)?;
            later(async move { host.audit_checkpoints(&op, asked.cursor).await.into() })
        }
        AdminMethod::AuditCheckpoint => {
            params::read::<params::Nothing>(params)?;
            later(async move { host.audit_checkpoint(&op).await.into() })
        }
        _ => {
            params::read::<params::Nothing>(params)?;
            Dispatch::Now(Body::from(host.audit_key(&op)))
        }
    })
}
