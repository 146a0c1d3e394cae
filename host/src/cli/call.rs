//! `toolkeep call`: call a tool.

use std::io::Read as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use toolkeep_core::limit::LINE_MAX_BYTES;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::reply;
use crate::daemon::method::AgentMethod;

/// Call a tool and commit what policy lets through
///
/// The tool's output goes to standard output; what became of its effects is told on standard error.
#[derive(Debug, clap::Args)]
pub struct CallArgs {
    #[command(flatten)]
    call: Request,
    /// Show the plan and commit nothing
    #[arg(long)]
    preview: bool,
    /// Commit only if the plan has exactly this digest
    #[arg(long, value_name = "DIGEST", conflicts_with = "preview")]
    expect_plan: Option<String>,
    /// If the plan is held, wait until people decided
    #[arg(long, conflicts_with = "preview")]
    wait: bool,
}

/// Call a tool and show what it would change, without changing it
#[derive(Debug, clap::Args)]
pub struct PreviewArgs {
    #[command(flatten)]
    call: Request,
}

/// What both have in common.
#[derive(Debug, clap::Args)]
struct Request {
    /// The tool; `toolkeep tools list` shows them
    tool: String,
    /// Its input: JSON, `@FILE`, or `-` for standard input
    #[arg(short, long, value_name = "JSON", default_value = "{}")]
    input: String,
    /// The run that the call belongs to
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// The step of the run
    #[arg(long, value_name = "NAME", requires = "run")]
    step: Option<String>,
    /// Idempotency key: a retry with the same key gets the stored reply
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The open transaction that the effects are staged in
    #[arg(long, value_name = "ID")]
    transaction: Option<String>,
    /// A shorter deadline than the manifest's, in milliseconds
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
}

impl CallArgs {
    /// Call the tool.
    ///
    /// # Errors
    /// The input is no JSON, or no daemon answers.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let method = if self.preview { AgentMethod::CallsPreview } else { AgentMethod::CallsExecute };
        call(context, self.call, method, self.expect_plan, self.wait)
    }
}

impl PreviewArgs {
    /// Preview the tool.
    ///
    /// # Errors
    /// As [`CallArgs::run`].
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        call(context, self.call, AgentMethod::CallsPreview, None, false)
    }
}

fn call(
    context: &Context<'_>,
    request: Request,
    method: AgentMethod,
    expect_plan: Option<String>,
    wait: bool,
) -> Result<Exit, Failure> {
    let input = read_input(&request.input)?;
    let mut params = json!({"tool": request.tool, "input": input, "_meta": {"progress": true}});
    let optional = [
        ("run", request.run.map(Value::from)),
        ("step", request.step.map(Value::from)),
        ("idempotency_key", request.key.map(Value::from)),
        ("deadline_ms", request.deadline_ms.map(Value::from)),
        ("expect_plan", expect_plan.map(Value::from)),
        ("transaction", request.transaction.map(Value::from)),
    ];
    if let Value::Object(members) = &mut params {
        members.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
    let mut client = context.agent()?;
    let mut result = client.ask(&context.ui, method, params)?;
    if wait {
        result = reply::wait(context, &mut client, result)?;
    }
    reply::show_own(context, &result, &mut client)
}

/// Read JSON from the argument, a file or standard input.
fn read_input(text: &str) -> Result<Value, Failure> {
    let (origin, text) = match text.strip_prefix('@') {
        Some(path) => (format!("the file `{path}`"), read_text(path)?),
        None if text == "-" => ("standard input".to_owned(), read_text("-")?),
        None => ("`--input`".to_owned(), text.to_owned()),
    };
    toolkeep_core::json::parse(text.as_bytes()).map_err(|error| {
        Failure::usage(
            format!("{origin} is {error}"),
            "give an object as the tool's input schema says: `toolkeep tools inspect TOOL`",
        )
    })
}

/// Read a text from a file, or from standard input for `-`.
///
/// # Errors
/// It cannot be read, or it is larger than a request may be.
pub(super) fn read_text(path: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let most = LINE_MAX_BYTES as u64 + 1;
    let read = if path == "-" {
        std::io::stdin().lock().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    read.map_err(Failure::file("read", PathBuf::from(path)))?;
    if text.len() > LINE_MAX_BYTES {
        return Err(Failure::usage(
            format!("`{path}` is larger than 4 MiB"),
            "put large data into a workspace and give the tool its path",
        ));
    }
    Ok(text)
}
