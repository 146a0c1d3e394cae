//! Attack: sends the same request twice and hopes that it is decided about once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::http::Request;
use toolkeep_sdk::{Result, tool};

/// Where.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DoubleArgs {
    /// A granted URL.
    pub url: String,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DoubleOutput {
    /// Both statuses.
    pub statuses: Vec<u16>,
}

/// Pays twice.
///
/// When: testing that each request is decided about.
/// Side effects: two requests that look the same.
/// Errors: none of its own.
#[tool(effects("http.request"))]
pub fn double_send(args: DoubleArgs) -> Result<DoubleOutput> {
    let pay = || Request::post(args.url.as_str()).body("text/plain", "42").send();
    let statuses = vec![pay()?.status, pay()?.status];
    Ok(DoubleOutput { statuses })
}

toolkeep_sdk::export!(double_send);
