//! The world outside as tests script it: peers that answer requests, and a store of keys.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use toolkeep_core::effect::Header;
use toolkeep_core::grant::{HttpGrant, HttpText, KeysGrant, KeysText, MessageGrant, MessageText};
use toolkeep_core::id::BucketName;
use toolkeep_sandbox::port::{HttpAnswer, HttpCall, HttpFailure, Keys, KeysFailure, PortFuture, Ports, Requests};

/// What a peer answers, and how long it takes.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What it answers.
    pub answer: Result<HttpAnswer, HttpFailure>,
    /// How long it takes; nothing for never.
    pub after: Option<Duration>,
}

/// Peers by URL, and everything that they were asked.
#[derive(Debug, Default)]
pub struct Peers {
    /// What each URL answers.
    pub peers: BTreeMap<String, Peer>,
    /// Every request that arrived.
    pub asked: Mutex<Vec<HttpCall>>,
}

impl Peers {
    /// Answer `url` with 200 and this text, at once.
    #[must_use]
    pub fn with(self, url: &str, body: &str) -> Self {
        self.slow(url, body, Duration::ZERO)
    }

    /// Answer `url` after a while.
    #[must_use]
    pub fn slow(mut self, url: &str, body: &str, after: Duration) -> Self {
        let answer = Ok(answer(200, body.as_bytes()));
        self.peers.insert(url.to_owned(), Peer { answer, after: Some(after) });
        self
    }

    /// Never answer `url`.
    #[must_use]
    pub fn silent(mut self, url: &str) -> Self {
        self.peers.insert(url.to_owned(), Peer { answer: Ok(answer(200, b"")), after: None });
        self
    }

    /// Answer `url` with this.
    #[must_use]
    pub fn answering(mut self, url: &str, answer: Result<HttpAnswer, HttpFailure>) -> Self {
        self.peers.insert(url.to_owned(), Peer { answer, after: Some(Duration::ZERO) });
        self
    }

    /// Method and URL of every request that arrived.
    ///
    /// # Panics
    /// A test failed while it asked.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("asked");
        asked.iter().map(|call| format!("{} {}", call.method, call.url)).collect()
    }
}

/// An answer without fields.
#[must_use]
pub fn answer(status: u16, body: &[u8]) -> HttpAnswer {
    let headers = vec![Header { name: "content-type".to_owned(), value: "text/plain".to_owned() }];
    HttpAnswer { status, headers, body: Bytes::copy_from_slice(body) }
}

impl Requests for Peers {
    fn fetch<'a>(
        &'a self,
        _grant: &'a HttpGrant,
        call: &'a HttpCall,
    ) -> PortFuture<'a, Result<HttpAnswer, HttpFailure>> {
        Box::pin(async move {
            self.asked.lock().expect("asked").push(call.clone());
            let Some(peer) = self.peers.get(&call.url) else {
                return Err(HttpFailure::Connect(format!("nobody at {}", call.url)));
            };
            match peer.after {
                Some(after) if after.is_zero() => {}
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
            peer.answer.clone()
        })
    }
}

/// Committed keys.
#[derive(Debug, Default)]
pub struct Store(pub Mutex<BTreeMap<(String, String), Vec<u8>>>);

impl Store {
    /// With these keys of the bucket `counts`.
    #[must_use]
    pub fn with(keys: &[(&str, &str)]) -> Self {
        let key = |(key, value): &(&str, &str)| (("counts".to_owned(), (*key).to_owned()), value.as_bytes().to_vec());
        Self(Mutex::new(keys.iter().map(key).collect()))
    }

    /// Change a key as another plan would.
    ///
    /// # Panics
    /// A test failed while it did the same.
    pub fn put(&self, key: &str, value: &str) {
        self.0.lock().expect("keys").insert(("counts".to_owned(), key.to_owned()), value.as_bytes().to_vec());
    }
}

impl Keys for Store {
    fn get<'a>(&'a self, bucket: &'a BucketName, key: &'a str) -> PortFuture<'a, Result<Option<Bytes>, KeysFailure>> {
        let place = (bucket.as_str().to_owned(), key.to_owned());
        let value = self.0.lock().expect("keys").get(&place).cloned();
        Box::pin(async move { Ok(value.map(Bytes::from)) })
    }

    fn list<'a>(
        &'a self,
        bucket: &'a BucketName,
        after: Option<&'a str>,
        limit: usize,
    ) -> PortFuture<'a, Result<Vec<String>, KeysFailure>> {
        let keys = self.0.lock().expect("keys");
        let here = keys.keys().filter(|(home, _)| home == bucket.as_str()).map(|(_, key)| key.clone());
        let page = here.filter(|key| after.is_none_or(|after| key.as_str() > after)).take(limit).collect();
        Box::pin(async move { Ok(page) })
    }
}

/// A grant of `https://api.example.com` as `api`, changed as the test wants.
///
/// # Panics
/// The change is not a grant.
#[must_use]
pub fn http(change: impl FnOnce(&mut Value)) -> HttpGrant {
    let mut text = json!({"name": "api", "origin": "https://api.example.com", "methods": ["GET", "HEAD", "POST"]});
    change(&mut text);
    serde_json::from_value::<HttpText>(text).expect("a grant").check().expect("valid")
}

/// A grant of the bucket `counts`.
///
/// # Panics
/// The pattern is not one.
#[must_use]
pub fn keys(access: &str, pattern: &str) -> KeysGrant {
    let text = json!({"bucket": "counts", "access": access, "keys": [pattern]});
    serde_json::from_value::<KeysText>(text).expect("a grant").check().expect("valid")
}

/// A grant of the channel `mail` to everybody at `example.com`.
///
/// # Panics
/// Never.
#[must_use]
pub fn mail() -> MessageGrant {
    let text = json!({"channel": "mail", "to": ["*@example.com"], "messages": 2});
    serde_json::from_value::<MessageText>(text).expect("a grant").check().expect("valid")
}

/// Both ports.
#[must_use]
pub fn ports(peers: &Arc<Peers>, store: &Arc<Store>) -> Ports {
    let (requests, keys): (Arc<dyn Requests>, Arc<dyn Keys>) = (Arc::clone(peers) as _, Arc::clone(store) as _);
    Ports { requests: Some(requests), keys: Some(keys) }
}
