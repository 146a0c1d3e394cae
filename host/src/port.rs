//! The ports of the sandbox: answers of other systems by way of egress, values of keys by way of the ledger.
//!
//! Both belong to one tenant. A request that arrives here fits a grant already; egress checks everything again that has to
//! do with addresses, fields and secrets. Only requests that read come this way; what writes is in a plan.

use std::sync::Arc;

use bytes::Bytes;

use toolkeep_core::grant::HttpGrant;
use toolkeep_core::id::{BucketName, TenantName};
use toolkeep_core::net::origin::Origin;
use toolkeep_core::net::reach::Network;
use toolkeep_sandbox::port::{HttpAnswer, HttpCall, HttpFailure, Keys, KeysFailure, PortFuture, Ports, Requests};

use crate::egress::{Egress, Limits, Outgoing, Purpose, Reason, SendError};
use crate::ledger::Ledger;

/// The ports of executions of one tenant.
#[must_use]
pub(crate) fn ports(egress: &Egress, ledger: &Ledger, tenant: &TenantName) -> Ports {
    Ports {
        requests: Some(Arc::new(TenantRequests { egress: egress.clone(), tenant: tenant.clone() })),
        keys: Some(Arc::new(TenantKeys { ledger: ledger.clone(), tenant: tenant.clone() })),
    }
}

#[derive(Debug)]
struct TenantRequests {
    egress: Egress,
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
            let incoming = self.egress.send(outgoing, limits).await.map_err(|error| failure(&error))?;
            Ok(HttpAnswer { status: incoming.status, headers: incoming.headers, body: incoming.body })
        })
    }
}

impl TenantRequests {
    fn outgoing(&self, grant: &HttpGrant, call: &HttpCall) -> Result<Outgoing, String> {
        let mut outgoing =
            Outgoing::new(self.tenant.clone(), &call.method, &call.url).map_err(|problem| problem.to_string())?;
        if !grant.origin.parse::<Origin>().is_ok_and(|granted| granted == outgoing.origin) {
            return Err(format!("`{}` is not the origin of the grant `{}`", outgoing.origin, grant.name));
        }
        outgoing.headers.clone_from(&call.headers);
        outgoing.body = call.body.clone();
        outgoing.secrets = grant.credential.iter().cloned().collect();
        outgoing.network = if grant.allow_private { Network::Private } else { Network::Global };
        outgoing.purpose = Purpose::Read;
        Ok(outgoing)
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
            value.map(|value| value.map(Bytes::from)).map_err(|error| KeysFailure(error.to_string()))
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
            keys.map_err(|error| KeysFailure(error.to_string()))
        })
    }
}
