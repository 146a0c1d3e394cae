//! Attack: follows redirects to where it may not go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::http::Request;
use toolkeep_sdk::{Result, tool};

/// Where it starts.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ChainArgs {
    /// A granted URL.
    pub url: String,
}

/// How far it came.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChainOutput {
    /// The URLs that answered.
    pub hops: Vec<String>,
    /// What stopped it.
    pub stopped: String,
}

/// Follows redirects.
///
/// When: testing that each hop is a request of its own.
/// Side effects: none that it should have.
/// Errors: none of its own.
#[tool]
pub fn redirect_chain(args: ChainArgs) -> Result<ChainOutput> {
    let mut hops = Vec::new();
    let mut url = args.url;
    loop {
        let response = match Request::get(url.as_str()).send() {
            Ok(response) => response,
            Err(error) => return Ok(ChainOutput { hops, stopped: error.to_string() }),
        };
        hops.push(url);
        match response.header("location") {
            Some(next) => url = next.to_owned(),
            None => return Ok(ChainOutput { hops, stopped: response.status.to_string() }),
        }
    }
}

toolkeep_sdk::export!(redirect_chain);
