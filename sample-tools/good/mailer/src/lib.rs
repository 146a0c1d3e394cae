//! `mailer`: mails a text file of a workspace through a channel of the operator.
//!
//! The message is staged: the plan shows receivers, subject and text, and it leaves after the plan was committed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::messages::Message;
use toolkeep_sdk::{Error, Result, tool, workspace};

/// The workspace that holds what may be mailed.
const WORKSPACE: &str = "books";

/// What to mail, and to whom.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MailArgs {
    /// A text file, relative to the workspace `books`.
    pub path: String,
    /// The channel, as the manifest names it.
    pub channel: String,
    /// The receivers. The manifest must grant each.
    #[schemars(length(min = 1, max = 20))]
    pub to: Vec<String>,
    /// The subject.
    #[schemars(length(min = 1, max = 200))]
    pub subject: String,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MailOutput {
    /// Bytes of the text.
    pub bytes: usize,
    /// Receivers.
    pub receivers: usize,
}

/// Mails a text file.
///
/// When: the user asks to send a report or note of the workspace to somebody. Not for attachments.
/// Side effects: one message through the channel, sent after the plan was approved. A message cannot be taken back.
/// Errors: not-found if there is no such file; denied if the channel or a receiver is not granted; invalid-input if the
/// file is empty.
#[tool(title = "Mail a file", effects("message.send"))]
pub fn mail(args: MailArgs) -> Result<MailOutput> {
    let text = workspace(WORKSPACE)?.read_to_string(&args.path)?;
    if text.trim().is_empty() {
        return Err(Error::invalid_input(format!("`{}` is empty", args.path)).at("/path"));
    }
    let (bytes, receivers) = (text.len(), args.to.len());
    Message::text(args.channel, args.to, args.subject, text).send()?;
    Ok(MailOutput { bytes, receivers })
}

toolkeep_sdk::export!(mail);

#[cfg(test)]
mod tests {
    use super::mail;
    use serde_json::{Value, json};
    use toolkeep_sdk::ErrorKind;
    use toolkeep_sdk::testing::{Harness, Outcome};

    fn run(change: impl FnOnce(&mut Value)) -> Outcome {
        let mut input = json!({"path": "report.md", "channel": "mail", "to": ["ann@example.com"], "subject": "Report"});
        change(&mut input);
        let files = [("report.md", "All is well.\n"), ("empty.md", " \n")];
        Harness::new().workspace("books", files).channel("mail").call(mail, input)
    }

    #[test]
    fn a_file_becomes_one_message() {
        let outcome = run(|_| ());
        assert_eq!(outcome.output(), &json!({"bytes": 13, "receivers": 1}));
        let [message] = outcome.messages.as_slice() else { panic!("one message: {outcome}") };
        assert_eq!((message.subject.as_str(), message.body.as_slice()), ("Report", &b"All is well.\n"[..]));
        assert!(outcome.effects.is_empty());
    }

    #[test]
    fn what_cannot_be_mailed_is_refused() {
        assert_eq!(run(|input| input["path"] = json!("gone.md")).error().kind(), ErrorKind::NotFound);
        assert_eq!(run(|input| input["path"] = json!("empty.md")).error().fields()[0].pointer, "/path");
        let outcome = run(|input| input["channel"] = json!("pager"));
        assert_eq!((outcome.error().kind(), outcome.messages.len()), (ErrorKind::Denied, 0));
    }
}
