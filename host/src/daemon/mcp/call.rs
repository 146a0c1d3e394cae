//! Calling a tool.
//!
//! The arguments are the tool's input; everything else that a call can say comes from `_meta`. A wrong input is an answer of
//! the tool with pointers to what is wrong, so that the model can mend it; only a tool that the caller does not have is an
//! error of the protocol.

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use toolkeep_core::call::{CallRequest, Mode};
use toolkeep_core::display::Untrusted;
use toolkeep_core::json::QUOTED_MAX_CHARS;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::capability::context::Progress;

use super::elicit::{self, Terms};
use super::engine::{Asked, Engine};
use super::era::{self, Era, Meta, bad};
use super::own::OwnTool;
use super::state::name_of_call;
use super::tool::{self, Named};
use crate::authenticate::Caller;
use crate::daemon::bounds::NOTES_MAX;
use crate::daemon::plane::Work;
use crate::daemon::reply::{Body, Fault, INVALID_PARAMS};

/// Begin `tools/call`.
///
/// # Errors
/// There is no such tool, or the request makes no sense.
pub(super) fn begin(engine: &Engine, caller: &Caller, asked: Asked) -> Result<Work, Fault> {
    let Asked { mut params, era, meta, lines, capable, asks, .. } = asked;
    let name = era::text(&mut params, "name")?;
    let arguments = match params.remove("arguments") {
        None => Value::Object(Map::new()),
        Some(arguments @ Value::Object(_)) => arguments,
        Some(_) => return Err(bad("/arguments", "is not an object", "the tool's input, an object as its schema says")),
    };
    let (host, caller) = (engine.host().clone(), caller.clone());
    let states = engine.states().clone();
    let terms = Terms { era, capable, asks, lines: lines.clone(), states, stop: engine.stop() };
    // Only a client of the newer era that can ask somebody repeats a call with an answer.
    let repeats = era == Era::Stateless && (capable.any() || params.contains_key("requestState"));
    let named = if repeats { name_of_call(&name, &arguments) } else { None };
    if era == Era::Stateless
        && let Some(round) = elicit::round(&mut params, (&host, &caller), &terms.states, named)?
        && let Some(call) = named
    {
        return Ok(elicit::second(round, host, caller, terms, call));
    }
    if let Some(own) = OwnTool::named(&name) {
        return Ok(Box::pin(async move { own.call(host, caller, (terms, named), arguments).await }));
    }
    let Meta { progress, mode, key, run, step, usage, trace, .. } = meta;
    let (tool, mode) = match (tool::named(&host, &caller, &name), mode) {
        (Some(Named::Tool(tool)), mode) => (tool, mode.unwrap_or_default()),
        (Some(Named::Preview(tool)), None | Some(Mode::Preview)) => (tool, Mode::Preview),
        (Some(Named::Preview(_)), Some(Mode::Commit)) => {
            return Err(bad(
                "/_meta/toolkeep~1mode",
                "does not fit: this tool only previews",
                "`preview`, or leave it out",
            ));
        }
        (None, _) => return Err(unknown(&name)),
    };
    let request = CallRequest {
        mode,
        run,
        step,
        idempotency_key: key,
        usage,
        meta: trace,
        ..CallRequest::of(tool.name.clone(), arguments)
    };
    let (sender, news) = progress.is_some().then(|| mpsc::channel(NOTES_MAX)).unzip();
    let work: Work = Box::pin(async move {
        let answer = host.call(&caller, request, sender).await;
        elicit::told(&host, &caller, &terms, named, answer).await
    });
    Ok(match (progress, news) {
        (Some(token), Some(news)) => Box::pin(with_news(work, news, token, lines)),
        _ => work,
    })
}

fn unknown(name: &str) -> Fault {
    let shown: String = name.chars().take(QUOTED_MAX_CHARS).collect();
    let refusal = Refusal::new(Code::InvalidInput, format!("Unknown tool: {}", Untrusted(&shown)))
        .hint("`tools/list` tells which tools there are")
        .field("/name", "names no tool that you can call", "a name from `tools/list`");
    Fault::protocol(INVALID_PARAMS, refusal)
}

/// Pass the news of a call on until it is done. News that the peer does not read in time are dropped, and so are those that do
/// not go forward: clients take them for a fault.
async fn with_news(
    mut work: Work,
    mut news: mpsc::Receiver<Progress>,
    token: Value,
    lines: mpsc::Sender<Vec<u8>>,
) -> Body {
    let mut last = None;
    let mut tell = |note: Progress| {
        if last.is_some_and(|last| note.done <= last) {
            return;
        }
        last = Some(note.done);
        if lines.try_send(progress_line(&token, &note)).is_err() {
            tracing::debug!("a progress note is dropped: the peer does not read");
        }
    };
    loop {
        tokio::select! {
            biased;
            Some(note) = news.recv() => tell(note),
            body = &mut work => {
                // A quick tool is done before anybody looks for its news.
                while let Ok(note) = news.try_recv() {
                    tell(note);
                }
                return body;
            }
        }
    }
}

fn progress_line(token: &Value, note: &Progress) -> Vec<u8> {
    let mut params = json!({"progressToken": token, "progress": note.done, "message": note.message});
    if let (Some(total), Value::Object(members)) = (note.total, &mut params) {
        members.insert("total".to_owned(), json!(total));
    }
    super::engine::notification("notifications/progress", &params)
}
