//! `ticket`: reads a ticket from an HTTP API and posts a comment.
//!
//! Reading happens while the tool runs. The comment is staged: the plan shows the exact request, and it is sent when the
//! plan is committed. The manifest says which origin is the tracker's and which credential goes along.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::http::{Request, encode};
use toolkeep_sdk::{Error, Result, tool};

/// Longest comment, in characters: what trackers commonly take.
const COMMENT_MAX_CHARS: usize = 10_000;

/// Which ticket.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ShowArgs {
    /// Where the tracker is, for example `https://tracker.example.com`. The manifest must grant it.
    pub tracker: String,
    /// Its id.
    pub id: String,
}

/// A ticket.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Ticket {
    /// Its id.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// `open` or `closed`.
    pub state: String,
}

/// What to say, and where.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct CommentArgs {
    /// Where the tracker is, for example `https://tracker.example.com`. The manifest must grant it.
    pub tracker: String,
    /// The ticket's id.
    pub id: String,
    /// The comment.
    #[schemars(length(min = 1, max = 10_000))]
    pub text: String,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CommentOutput {
    /// The ticket, as it was when the comment was written.
    pub ticket: Ticket,
    /// Whether the comment waits for the plan to be committed.
    pub staged: bool,
}

/// What the tracker takes.
#[derive(Debug, Serialize)]
struct Comment<'a> {
    text: &'a str,
}

fn url(tracker: &str, id: &str) -> String {
    format!("{}/tickets/{}", tracker.trim_end_matches('/'), encode(id))
}

fn read(tracker: &str, id: &str) -> Result<Ticket> {
    Ok(Request::get(url(tracker, id)).header("accept", "application/json").send()?.success()?.parse()?)
}

/// Shows one ticket of the tracker.
///
/// When: the user asks about a ticket by its id.
/// Side effects: none; it reads from the tracker.
/// Errors: not-found if there is no such ticket; denied if the manifest does not grant the tracker; transient if the
/// tracker does not answer.
#[tool(title = "Show a ticket")]
pub fn show(args: ShowArgs) -> Result<Ticket> {
    read(&args.tracker, &args.id)
}

/// Posts a comment on an open ticket.
///
/// When: the user wants to answer or note something on a ticket.
/// Side effects: one request to the tracker, sent after the plan was approved.
/// Errors: conflict if the ticket is closed; not-found if there is none; invalid-input if the comment is blank.
#[tool(title = "Comment on a ticket", effects("http.request"))]
pub fn comment(args: CommentArgs) -> Result<CommentOutput> {
    if args.text.trim().is_empty() || args.text.chars().count() > COMMENT_MAX_CHARS {
        return Err(Error::invalid_input(format!("write 1 to {COMMENT_MAX_CHARS} characters")).at("/text"));
    }
    let ticket = read(&args.tracker, &args.id)?;
    if ticket.state == "closed" {
        return Err(Error::conflict(format!("ticket `{}` is closed", ticket.id)));
    }
    let comments = format!("{}/comments", url(&args.tracker, &args.id));
    let response = Request::post(comments).json(&Comment { text: &args.text })?.send()?.success()?;
    Ok(CommentOutput { ticket, staged: response.is_staged() })
}

toolkeep_sdk::export!(show, comment);

#[cfg(test)]
mod tests {
    use super::{comment, show};
    use serde_json::{Value, json};
    use toolkeep_sdk::ErrorKind;
    use toolkeep_sdk::http::Response;
    use toolkeep_sdk::testing::Harness;

    const TRACKER: &str = "https://tracker.example.com";

    fn tracker(state: &str) -> Harness {
        let ticket = json!({"id": "7", "title": "It is broken", "state": state});
        Harness::new().answers("GET", "https://tracker.example.com/tickets/7", Response::json(200, &ticket)).answers(
            "GET",
            "https://tracker.example.com/tickets/a%2Fb",
            Response::new(404, "no such ticket"),
        )
    }

    #[test]
    fn a_ticket_is_shown_and_nothing_changes() {
        let outcome = tracker("open").call(show, json!({"tracker": TRACKER, "id": "7"}));
        assert_eq!(outcome.output()["title"], "It is broken");
        let outcome = tracker("open").call(show, json!({"tracker": TRACKER, "id": "a/b"}));
        assert_eq!(outcome.error().kind(), ErrorKind::NotFound);
        let outcome = tracker("open").call(show, json!({"tracker": "https://other.example.com", "id": "7"}));
        assert_eq!(outcome.error().kind(), ErrorKind::Denied);
    }

    #[test]
    fn a_comment_is_one_staged_request() {
        let outcome = tracker("open").call(comment, json!({"tracker": TRACKER, "id": "7", "text": "Fixed."}));
        assert_eq!(outcome.output()["staged"], true);
        let sent = &outcome.requests[1];
        assert_eq!(
            (sent.method.as_str(), sent.url.as_str()),
            ("POST", "https://tracker.example.com/tickets/7/comments")
        );
        let body: Value = serde_json::from_slice(&sent.body).expect("JSON");
        assert_eq!(body, json!({"text": "Fixed."}));
    }

    #[test]
    fn a_closed_ticket_and_a_blank_comment_are_refused() {
        let outcome = tracker("closed").call(comment, json!({"tracker": TRACKER, "id": "7", "text": "Late."}));
        assert_eq!((outcome.error().kind(), outcome.requests.len()), (ErrorKind::Conflict, 1));
        let outcome = tracker("open").call(comment, json!({"tracker": TRACKER, "id": "7", "text": " "}));
        assert_eq!(outcome.error().fields()[0].pointer, "/text");
    }
}
