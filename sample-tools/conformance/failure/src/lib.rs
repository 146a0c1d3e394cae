//! `failure`: a fixture of the MCP conformance suite. It always fails, as the suite wants of `test_error_handling`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::{Error, Result, tool};

/// Nothing.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct FailureArgs {}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FailureOutput {}

/// Fails.
///
/// When: a test wants to see what a failure looks like.
/// Side effects: none.
/// Errors: failed, always.
#[tool(title = "Fail", deterministic)]
pub fn failure(_args: FailureArgs) -> Result<FailureOutput> {
    Err(Error::failed("This tool intentionally returns an error for testing"))
}

toolkeep_sdk::export!(failure);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toolkeep_sdk::ErrorKind;
    use toolkeep_sdk::testing::Harness;

    use super::failure;

    #[test]
    fn it_fails() {
        assert_eq!(Harness::new().call(failure, json!({})).error().kind(), ErrorKind::Failed);
    }
}
