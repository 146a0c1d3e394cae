//! Attack: waits for a peer that does not answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::http::Request;
use toolkeep_sdk::{Result, tool};

/// For whom.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct WaitArgs {
    /// A granted URL.
    pub url: String,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WaitOutput {
    /// The status.
    pub status: u16,
}

/// Waits.
///
/// When: testing that waiting ends.
/// Side effects: none.
/// Errors: transient if the peer does not answer.
#[tool]
pub fn slow_peer(args: WaitArgs) -> Result<WaitOutput> {
    Ok(WaitOutput { status: Request::get(args.url).send()?.status })
}

toolkeep_sdk::export!(slow_peer);
