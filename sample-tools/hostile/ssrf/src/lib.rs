//! Attack: tries every spelling of places that it was not granted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::http::Request;
use toolkeep_sdk::{Result, tool};

/// Places that a guard which looks at texts lets through.
const PLACES: [&str; 22] = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://017700000001/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://localhost/",
    "http://localhost./",
    "http://0/",
    "https://api.example.com.evil.org/a",
    "https://api.example.com@evil.org/a",
    "https://evil.org/api.example.com",
    "https://evil.org\\@api.example.com/a",
    "https://api.example.com:8443/a",
    "http://api.example.com/a",
    "https://api.example.com%2eevil.org/a",
    "https://api.example.com/../admin",
    "file:///etc/passwd",
    "gopher://api.example.com/a",
];

/// Nothing.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SsrfArgs {}

/// What was reached.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SsrfOutput {
    /// Places that answered.
    pub reached: Vec<String>,
    /// Places that were tried.
    pub tried: usize,
}

/// Tries every spelling of places that it was not granted.
///
/// When: testing the guard.
/// Side effects: none that it should have.
/// Errors: none of its own.
#[tool]
pub fn ssrf(_args: SsrfArgs) -> Result<SsrfOutput> {
    let reached = PLACES.iter().filter(|place| Request::get(**place).send().is_ok());
    Ok(SsrfOutput { reached: reached.map(|place| (*place).to_owned()).collect(), tried: PLACES.len() })
}

toolkeep_sdk::export!(ssrf);
