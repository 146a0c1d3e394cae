//! An egress whose names are scripted, and requests to send through it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use toolkeep::ambient::Ambient;
use toolkeep::egress::{Answer, Clearance, Egress, EgressConfig, Incoming, Limits, Outgoing, Purpose, Reason};
use toolkeep::egress::{Resolver, Script, SendError};
use toolkeep::secrets::Secrets;
use toolkeep_core::net::field::AllowedFields;
use toolkeep_core::net::method::Method;
use toolkeep_core::net::reach::Network;

/// An egress with no names and no secrets.
pub(super) fn egress() -> Egress {
    named(&[])
}

/// An egress where names have these answers.
pub(super) fn named(names: &[(&str, &[&str])]) -> Egress {
    let address = |text: &&str| text.parse::<IpAddr>().expect("an address");
    let answers = names.iter().map(|(name, addresses)| {
        ((*name).to_owned(), vec![Answer::Addresses(addresses.iter().map(address).collect())])
    });
    with(Arc::new(Script::new(answers)), &EgressConfig::default())
}

/// An egress with a script and a configuration.
pub(super) fn with(script: Arc<Script>, config: &EgressConfig) -> Egress {
    let secrets = Secrets::new(BTreeMap::new(), Ambient::fixed(0, 0, BTreeMap::new()));
    Egress::new(config, Resolver::scripted(script), secrets).expect("an egress")
}

/// `GET /` of an origin whose grant opens private networks.
pub(super) fn get(origin: &str) -> Outgoing {
    Outgoing {
        tenant: "local".parse().expect("a tenant"),
        origin: origin.parse().expect("an origin"),
        method: Method::Get,
        target: "/".parse().expect("a target"),
        headers: Vec::new(),
        body: Vec::new().into(),
        idempotency_key: None,
        secrets: Vec::new(),
        network: Network::Private,
        purpose: Purpose::Read,
        clearance: Clearance::default(),
    }
}

/// `POST /` of an origin whose grant opens private networks.
pub(super) fn post(origin: &str, body: impl Into<Vec<u8>>) -> Outgoing {
    let body = body.into().into();
    Outgoing { method: Method::Post, body, purpose: Purpose::Write, ..get(origin) }
}

/// The same with fields that a guest set.
pub(super) fn with_fields(request: Outgoing, fields: &[(&str, &str)]) -> Outgoing {
    let allowed = AllowedFields::new(["x-one", "x-two"]).expect("names");
    let headers = allowed.check(fields.iter().map(|(name, value)| (*name, value.as_bytes()))).expect("allowed");
    Outgoing { headers, ..request }
}

/// Send, with the usual limits.
pub(super) async fn send(egress: &Egress, request: Outgoing) -> Result<Incoming, SendError> {
    egress.send(request, Limits::default()).await
}

/// Send what must fail before a byte leaves.
pub(super) async fn not_sent(egress: &Egress, request: Outgoing, limits: Limits) -> Reason {
    match egress.send(request, limits).await {
        Err(SendError::NotSent(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// Send what must fail after bytes left.
pub(super) async fn unknown(egress: &Egress, request: Outgoing, limits: Limits) -> Reason {
    match egress.send(request, limits).await {
        Err(SendError::Unknown(reason)) => reason,
        other => panic!("{other:?}"),
    }
}
