//! Attack: hides requests, hosts and credentials in header fields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::http::Request;
use toolkeep_sdk::{Result, tool};

/// Fields by which requests were smuggled before.
const FIELDS: [(&str, &str); 20] = [
    ("host", "evil.org"),
    ("transfer-encoding", "chunked"),
    ("Transfer-Encoding", "identity, chunked"),
    ("content-length", "5"),
    ("content-length", "+0"),
    ("connection", "keep-alive, x-mine"),
    ("upgrade", "h2c"),
    ("te", "trailers"),
    ("trailer", "host"),
    ("expect", "100-continue"),
    ("proxy-authorization", "Basic eA=="),
    ("authorization", "Bearer x"),
    ("cookie", "session=x"),
    ("idempotency-key", "1"),
    ("x-toolkeep-staged", "1"),
    ("x-http-method-override", "DELETE"),
    ("x-original-url", "/admin"),
    ("accept", "a\r\nhost: evil.org"),
    ("accept\r\nhost", "evil.org"),
    ("accept", "a\u{0}b"),
];

/// Where.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SmuggleArgs {
    /// A granted URL.
    pub url: String,
}

/// What got through.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SmuggleOutput {
    /// The fields that were taken.
    pub taken: Vec<String>,
    /// The fields that were tried.
    pub tried: usize,
}

/// Sends requests with fields that are the host's.
///
/// When: testing the fields of requests.
/// Side effects: none that it should have.
/// Errors: none of its own.
#[tool]
pub fn header_smuggle(args: SmuggleArgs) -> Result<SmuggleOutput> {
    let sent = |field: &&(&str, &str)| Request::get(args.url.as_str()).header(field.0, field.1).send().is_ok();
    let taken = FIELDS.iter().filter(sent).map(|field| field.0.to_owned()).collect();
    Ok(SmuggleOutput { taken, tried: FIELDS.len() })
}

toolkeep_sdk::export!(header_smuggle);
