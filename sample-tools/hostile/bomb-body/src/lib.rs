//! Attack: sends bodies without an end, and takes whatever comes back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::http::Request;
use toolkeep_sdk::{Result, tool};

/// What to do.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BombArgs {
    /// A granted URL.
    pub url: String,
    /// Bytes of each body; 0 to read instead.
    pub bytes: usize,
    /// Bodies.
    pub times: usize,
}

/// How far it came.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BombOutput {
    /// Bytes that were taken from it.
    pub sent: usize,
    /// Bytes that it got.
    pub got: usize,
    /// What stopped it, if anything did.
    pub stopped: String,
}

/// Sends and takes too much.
///
/// When: testing the bounds of bodies.
/// Side effects: more than it should have.
/// Errors: none of its own.
#[tool(effects("http.request"))]
pub fn bomb_body(args: BombArgs) -> Result<BombOutput> {
    let mut output = BombOutput { sent: 0, got: 0, stopped: String::new() };
    for _ in 0..args.times {
        let request = match args.bytes {
            0 => Request::get(args.url.as_str()).header("accept-encoding", "gzip"),
            bytes => Request::post(args.url.as_str()).body("text/plain", vec![b'x'; bytes]),
        };
        match request.send() {
            Ok(response) => {
                output.sent += args.bytes;
                output.got += response.body.len();
            }
            Err(error) => {
                output.stopped = error.to_string();
                break;
            }
        }
    }
    Ok(output)
}

toolkeep_sdk::export!(bomb_body);
