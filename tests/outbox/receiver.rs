//! A receiver of webhooks: a hyper server on loopback that keeps every request and answers as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Hook {
    pub(super) path: String,
    fields: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Hook {
    /// The value of a field that must be there once.
    pub(super) fn field(&self, name: &str) -> &str {
        let mut found = self.fields.iter().filter(|(field, _)| field == name);
        let value = &found.next().unwrap_or_else(|| panic!("no `{name}`")).1;
        assert!(found.next().is_none(), "`{name}` comes twice");
        value
    }

    pub(super) fn id(&self) -> &str {
        self.field("webhook-id")
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Whether one of its signatures is that of this key: computed here from RFC 2104, not by the sender's library.
    pub(super) fn is_signed_with(&self, key: &[u8]) -> bool {
        let signed =
            [self.id().as_bytes(), b".", self.field("webhook-timestamp").as_bytes(), b".", &self.body].concat();
        let wanted = format!("v1,{}", base64(&hmac_sha256(key, &signed)));
        self.field("webhook-signature").split(' ').any(|signature| signature == wanted)
    }
}

/// How one request is answered.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// With a status, fields and a body.
    Status(u16, Vec<(&'static str, &'static str)>, String),
    /// Not at all: the connection closes.
    Nothing,
    /// With 204 after the gate opens.
    Wait(Arc<tokio::sync::Semaphore>),
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), String::new())
    }
}

pub(super) struct Receiver {
    address: SocketAddr,
    hooks: Arc<Mutex<Vec<Hook>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// A receiver that answers in this order, and 204 when the list is over.
    pub(super) async fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let hooks: Arc<Mutex<Vec<Hook>>> = Arc::default();
        let replies: Arc<Mutex<VecDeque<Reply>>> = Arc::new(Mutex::new(replies.into_iter().collect()));
        let kept = Arc::clone(&hooks);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, replies) = (Arc::clone(&kept), Arc::clone(&replies));
                let service = service_fn(move |request| answer(request, Arc::clone(&kept), Arc::clone(&replies)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, hooks, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hooks/1?from=toolkeep", self.address)
    }

    pub(super) fn hooks(&self) -> Vec<Hook> {
        self.hooks.lock().expect("hooks").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    kept: Arc<Mutex<Vec<Hook>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let path = request.uri().to_string();
    let text = |value: &hyper::header::HeaderValue| value.to_str().expect("visible ASCII").to_owned();
    let fields = request.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let body = request.into_body().collect().await?.to_bytes();
    kept.lock().expect("hooks").push(Hook { path, fields, body });
    let reply = replies.lock().expect("replies").pop_front().unwrap_or_else(|| Reply::status(204));
    let (status, fields, body) = match reply {
        Reply::Status(status, fields, body) => (status, fields, body),
        Reply::Nothing => return Err("gone".into()),
        Reply::Wait(gate) => {
            let _opened = gate.acquire().await;
            (204, Vec::new(), String::new())
        }
    };
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(body))?)
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut block = [0_u8; BLOCK];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// Base64 of RFC 4648, with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
