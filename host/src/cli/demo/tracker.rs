//! Another system for the tour: a ticket tracker on loopback that keeps a list of what it was asked to change.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Largest body that it takes, in bytes: the tour's are small.
const BODY_MAX_BYTES: usize = 64 * 1024;

/// The tracker. It ends with the process.
#[derive(Debug)]
pub(super) struct Tracker {
    origin: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tracker {
    /// Listen on a free port of loopback.
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let origin = format!("http://{}", listener.local_addr()?);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&asked);
        std::thread::Builder::new()
            .name("tracker".to_owned())
            .spawn(move || runtime.block_on(serve(listener, shared)))?;
        Ok(Self { origin, asked })
    }

    /// `http://127.0.0.1:PORT`.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// What it was asked to change, one line each.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(listener: TcpListener, asked: Arc<Mutex<Vec<String>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let asked = Arc::clone(&asked);
        let answer = service_fn(move |request| answer(request, Arc::clone(&asked)));
        let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        if let Err(error) = served {
            tracing::debug!(%error, "the tracker of the tour lost a connection");
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    asked: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let key = head.headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("none").to_owned();
    let body = Limited::new(body, BODY_MAX_BYTES).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = if head.method == Method::GET {
        r#"{"id":"7","title":"Totals differ by one cent","state":"open"}"#
    } else {
        let line = format!("{} {} {} (key {:.8}…)", head.method, head.uri, String::from_utf8_lossy(&body), key);
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        r#"{"id":"c-1"}"#
    };
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}
