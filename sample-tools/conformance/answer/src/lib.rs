//! `answer`: a fixture of the MCP conformance suite. It writes a line of the log, reports three steps and answers with a text,
//! so it is what the suite calls `test_simple_text`, `test_tool_with_progress` and `test_logging_tool`.
//!
//! The line is the operator's: the suite checks that no client sees it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::{Result, log, progress, tool};

/// How many steps there are, as the suite counts them.
const STEPS: u64 = 100;

/// Nothing.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AnswerArgs {}

/// What it says.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AnswerOutput {
    /// A text.
    pub text: String,
}

/// Answers with a text.
///
/// When: a test wants to see an answer, or how far a call has come.
/// Side effects: none.
/// Errors: none of its own.
#[tool(title = "Answer", deterministic)]
pub fn answer(_args: AnswerArgs) -> Result<AnswerOutput> {
    log::info("an answer was asked for");
    for done in [0, STEPS / 2, STEPS] {
        progress::report(done, Some(STEPS), "on the way");
    }
    Ok(AnswerOutput { text: "This is a simple text response for testing.".to_owned() })
}

toolkeep_sdk::export!(answer);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toolkeep_sdk::testing::Harness;

    use super::answer;

    #[test]
    fn it_answers() {
        let outcome = Harness::new().call(answer, json!({}));
        assert_eq!(outcome.output()["text"], "This is a simple text response for testing.");
    }
}
