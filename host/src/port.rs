//! The ports of the sandbox: answers of other systems by way of egress, values of keys by way of the ledger.
//!
//! Both belong to one tenant. A request that arrives here fits a grant already; egress checks everything again that has to
//! do with addresses, fields and secrets. Only requests that read come this way; what writes is in a plan.

use std::sync::Arc;

use bytes::Bytes;
use toolkeep_core::grant::HttpGrant;
use toolkeep_core::id::{BucketName, TenantName};
use toolkeep_sandbox::port::{HttpAnswer, HttpCall, HttpFailure, Keys, KeysFailure, PortFuture, Ports, Requests};

use crate::breakers::Breakers;
use crate::egress::{Egress, Granted, Incoming, Limits, Outgoing, Purpose, Reason, SendError};
use crate::ledger::Ledger;

/// The ports of executions of one tenant.
#[must_use]
pub(crate) fn ports(egress: &Egress, ledger: &Ledger, breakers: &Breakers, tenant: &TenantName) -> Ports {
    Ports {
        requests: Some(Arc::new(TenantRequests {
            egress: egress.clone(),
            breakers: breakers.clone(),
            tenant: tenant.clone(),
        })),
        keys: Some(Arc::new(TenantKeys { ledger: ledger.clone(), tenant: tenant.clone() })),
    }
}

#[derive(Debug)]
struct TenantRequests {
    egress: Egress,
    breakers: Breakers,
    tenant: TenantName,
}

impl Requests for TenantRequests {
    fn fetch<'a>(
        &'a self,
        grant: &'a HttpGrant,
        call: &'a HttpCall,
    ) -> PortFuture<'a, Result<HttpAnswer, HttpFailure>> {
        Box::pin(async move {
            let outgoing = self.outgoing(grant, call).map_err(HttpFailure::Denied)?;
            let limits = Limits::granted(grant.times, grant.response_bytes);
            let watched = self.breakers.enter_grant(&self.tenant, &grant.name, &grant.origin);
            let watched = watched.map_err(|open| HttpFailure::Connect(open.message))?;
            let answered = self.egress.send(outgoing, limits).await;
            match has_failed(&answered) {
                Some(true) => watched.failed(),
                Some(false) => watched.worked(),
                None => drop(watched),
            }
            let incoming = answered.map_err(|error| failure(&error))?;
            Ok(HttpAnswer { status: incoming.status, headers: incoming.headers, body: incoming.body })
        })
    }
}

impl TenantRequests {
    fn outgoing(&self, grant: &HttpGrant, call: &HttpCall) -> Result<Outgoing, String> {
        let granted = Granted {
            origin: &grant.origin,
            credential: grant.credential.as_ref(),
            allow_private: grant.allow_private,
        };
        let named = (call.method.as_str(), call.url.as_str());
        let outgoing = Outgoing::granted(self.tenant.clone(), named, granted, &call.headers, call.body.clone())
            .map_err(|problem| format!("grant `{}`: {problem}", grant.name))?;
        Ok(Outgoing { purpose: Purpose::Read, ..outgoing })
    }
}

/// Whether an exchange says that its other side fails; nothing where it was this host that refused.
pub(crate) fn has_failed(answered: &Result<Incoming, SendError>) -> Option<bool> {
    match answered {
        Ok(incoming) => Some(matches!(incoming.status, 429 | 500..=599)),
        Err(error) if error.reason().is_refusal() || *error.reason() == Reason::Withheld => None,
        Err(_) => Some(true),
    }
}

fn failure(error: &SendError) -> HttpFailure {
    let text = error.reason().to_string();
    match error.reason() {
        reason if reason.is_refusal() => HttpFailure::Denied(text),
        Reason::NoAddress | Reason::Resolve => HttpFailure::Resolve(text),
        Reason::Connect(_) => HttpFailure::Connect(text),
        Reason::Tls(_) => HttpFailure::Tls(text),
        Reason::ConnectTimeout
        | Reason::TotalTimeout
        | Reason::FirstByteTimeout
        | Reason::IdleTimeout
        | Reason::TooSlow => HttpFailure::Timeout(text),
        Reason::ResponseTooLarge(_) | Reason::HeadTooLarge => HttpFailure::TooLarge(text),
        _ => HttpFailure::Broken(text),
    }
}

#[derive(Debug)]
struct TenantKeys {
    ledger: Ledger,
    tenant: TenantName,
}

impl Keys for TenantKeys {
    fn get<'a>(&'a self, bucket: &'a BucketName, key: &'a str) -> PortFuture<'a, Result<Option<Bytes>, KeysFailure>> {
        Box::pin(async move {
            let value = self.ledger.key(&self.tenant, bucket, key).await;
            value.map(|value| value.map(Bytes::from)).map_err(|error| KeysFailure::Unreadable(error.to_string()))
        })
    }

    fn list<'a>(
        &'a self,
        bucket: &'a BucketName,
        after: Option<&'a str>,
        limit: usize,
    ) -> PortFuture<'a, Result<Vec<String>, KeysFailure>> {
        Box::pin(async move {
            let keys = self.ledger.keys_after(&self.tenant, bucket, after, limit).await;
            keys.map_err(|error| KeysFailure::Unreadable(error.to_string()))
        })
    }
}
