//! Routes that tell how the daemon is: `/livez`, `/readyz`, `/metrics`.
//!
//! The probes say one word each, because everybody may ask. Metrics name tools and tenants: whoever asks under a name that
//! a proxy may have shows a token of the admin plane. Where a proxy is named at all everybody does: what stands in `Host` is
//! written by whoever asks.

use std::time::Duration;

use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use toolkeep_core::refusal::Code;

use super::front::{Named, refused};
use super::{Response, whole};
use crate::host::Host;

/// The media type of OpenMetrics 1.0.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// The media type of one word.
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Methods of what only tells.
const READS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// Everything that can be asked.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    host: Host,
    metrics_token: bool,
    patience: Duration,
}

impl Routes {
    /// In front of `host`, each answered within `patience`. `metrics_token`: whether everybody shows one for metrics.
    pub(super) const fn new(host: Host, metrics_token: bool, patience: Duration) -> Self {
        Self { host, metrics_token, patience }
    }

    /// Answer a request that passed the front.
    pub(super) async fn answer<B>(&self, request: &Request<B>, named: Named) -> Response {
        let answer = async {
            match request.uri().path() {
                "/livez" if reads(request) => word(StatusCode::OK, "live"),
                "/readyz" if reads(request) => self.ready(),
                "/metrics" if reads(request) => self.metrics(named, request.headers()).await,
                "/livez" | "/readyz" | "/metrics" => only_reads(),
                _ => refused(StatusCode::NOT_FOUND, Code::NotFound, "there is nothing of this name"),
            }
        };
        tokio::time::timeout(self.patience, answer).await.unwrap_or_else(|_| {
            refused(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, "the daemon did not answer in time")
        })
    }

    /// Calls are taken: everything of the last life is settled, the ledger writes, and nothing stops.
    fn ready(&self) -> Response {
        match self.host.unready() {
            None => word(StatusCode::OK, "ready"),
            Some(why) => word(StatusCode::SERVICE_UNAVAILABLE, why),
        }
    }

    async fn metrics(&self, named: Named, headers: &HeaderMap) -> Response {
        if (self.metrics_token || named != Named::Local) && !self.is_operator(headers) {
            let why = "show a token of the admin plane as `Authorization: Bearer`; `toolkeep tokens mint` makes one";
            let mut response = refused(StatusCode::UNAUTHORIZED, Code::Unauthorized, why);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
        match self.host.exposition().await {
            Ok(text) => typed(StatusCode::OK, OPEN_METRICS, text.to_string()),
            Err(refusal) => refused(StatusCode::SERVICE_UNAVAILABLE, refusal.code, &refusal.message),
        }
    }

    /// Whether the request shows a token of the admin plane.
    fn is_operator(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = shown.and_then(|text| text.strip_prefix("Bearer "));
        let known = token.map(|token| self.host.operator_of_token(token));
        if let Some(Err(refusal)) = &known {
            tracing::warn!("refused at the HTTP door: {}", refusal.message);
        }
        matches!(known, Some(Ok(_)))
    }
}

fn reads<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn only_reads() -> Response {
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, Code::InvalidInput, "this only tells: use GET");
    response.headers_mut().insert(ALLOW, READS);
    response
}

fn word(status: StatusCode, word: &str) -> Response {
    typed(status, PLAIN, format!("{word}\n"))
}

fn typed(status: StatusCode, kind: HeaderValue, text: String) -> Response {
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
