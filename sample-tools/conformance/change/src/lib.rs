//! `change`: a fixture of the MCP conformance suite. It adds a line to one file, so that every call changes something. Under a policy that has changes confirmed it is what the
//! suite calls with the names of tools that ask whoever uses the client: the daemon asks for it, the tool does not know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::{ErrorKind, Result, tool, workspace};

/// The workspace that it writes into.
const WORKSPACE: &str = "work";
/// The file.
const FILE: &str = "said.txt";

/// What to add.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ChangeArgs {
    /// The line.
    #[serde(default)]
    pub message: String,
}

/// What there is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChangeOutput {
    /// Lines of the file.
    pub lines: usize,
}

/// Adds a message to a file.
///
/// When: a test wants to see a change that somebody has to confirm.
/// Side effects: writes the file `said.txt` in the workspace `work`.
/// Errors: none of its own.
#[tool(title = "Change a file", effects("file.write"), deterministic)]
pub fn change(args: ChangeArgs) -> Result<ChangeOutput> {
    let work = workspace(WORKSPACE)?;
    let mut text = match work.read_to_string(FILE) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    text.push_str(&args.message);
    text.push('\n');
    work.write(FILE, &text)?;
    Ok(ChangeOutput { lines: text.lines().count() })
}

toolkeep_sdk::export!(change);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toolkeep_sdk::testing::Harness;

    use super::change;

    #[test]
    fn every_call_adds_a_line() {
        let files = [("said.txt", "one\n")];
        for (harness, lines) in
            [(Harness::new().empty_workspace("work"), 1), (Harness::new().workspace("work", files), 2)]
        {
            let outcome = harness.call(change, json!({}));
            assert_eq!(
                (outcome.effect_list(), &outcome.output()["lines"]),
                (vec!["file.write work:said.txt".to_owned()], &json!(lines))
            );
        }
    }
}
