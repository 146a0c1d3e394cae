//! `toolkeep receipts`: is a claim about a commit true?

use serde_json::{Value, json};

use super::call::read_text;
use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::ui::text_at;
use crate::daemon::method::AgentMethod;

/// Check receipts
#[derive(Debug, clap::Subcommand)]
pub enum ReceiptsCommand {
    /// Check that this daemon signed a receipt and that nobody changed it since
    Verify {
        /// A receipt, or a reply that holds one; `-` for standard input
        file: String,
    },
}

impl ReceiptsCommand {
    /// Check.
    ///
    /// # Errors
    /// The file holds no receipt, the receipt is false, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let Self::Verify { file } = self;
        let text = read_text(&file)?;
        let value = toolkeep_core::json::parse(text.as_bytes())
            .map_err(|error| Failure::usage(format!("`{file}` is {error}"), "give a receipt or a reply as JSON"))?;
        let receipt = receipt_of(&value).ok_or_else(|| {
            Failure::usage(format!("`{file}` holds no receipt"), "only replies whose outcome is `committed` have one")
        })?;
        let answer = context.agent()?.ask(&context.ui, AgentMethod::ReceiptsVerify, json!({"receipt": receipt}))?;
        context.ui.value(&answer, || {
            format!("valid: {} of {}", text_at(&answer, "/receipt"), text_at(&answer, "/call_id"))
        })?;
        Ok(Exit::Ok)
    }
}

/// The receipt itself, or that of a reply, wrapped or not.
fn receipt_of(value: &Value) -> Option<&Value> {
    let places = ["", "/receipt", "/reply/receipt"];
    places.iter().filter_map(|place| value.pointer(place)).find(|found| found.get("statement").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_found_alone_and_in_a_reply() {
        let receipt = json!({"statement": {}, "key": "", "signature": ""});
        for value in [receipt.clone(), json!({"receipt": receipt}), json!({"reply": {"receipt": receipt}})] {
            assert_eq!(receipt_of(&value), Some(&receipt));
        }
        assert_eq!(receipt_of(&json!({"status": "ok"})), None);
    }
}
