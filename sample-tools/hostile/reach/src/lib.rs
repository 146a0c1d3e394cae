//! Attack: does beyond files whatever its input says, in any order, and tells what it was answered.
//!
//! The tests of the sandbox drive it: one step after the other, each with an answer of its own.

mod raw;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toolkeep_sdk::http::Request;
use toolkeep_sdk::messages::Message;
use toolkeep_sdk::{Error, keys, tool, workspace};

/// What to do.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ReachArgs {
    /// One after the other.
    pub steps: Vec<Step>,
}

/// One thing to do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Step {
    /// Send a request and tell status and body, or the error.
    Send {
        /// Its method.
        method: String,
        /// Its URL.
        url: String,
        /// Its fields.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// Its body.
        #[serde(default)]
        body: String,
        /// The body again and again.
        #[serde(default)]
        times: Option<usize>,
    },
    /// Use the interface in an unusual way.
    Raw {
        /// Which.
        way: raw::Way,
        /// Where.
        urls: Vec<String>,
    },
    /// The value of a key.
    Get(Place),
    /// Set a key.
    Set(Place),
    /// Remove a key.
    Delete(Place),
    /// Whether a key exists.
    Exists(Place),
    /// Add to a key.
    Add(Place),
    /// All keys.
    List(Place),
    /// Swap a value, after changing it in between if there is a delta.
    Swap(Place),
    /// Send a message.
    Message {
        /// The channel.
        channel: String,
        /// The receivers.
        to: Vec<String>,
        /// The subject.
        subject: String,
        /// The media type.
        #[serde(default)]
        media_type: Option<String>,
        /// The body.
        body: String,
        /// The body again and again.
        #[serde(default)]
        times: Option<usize>,
    },
    /// Read a file of the workspace `books`.
    Read {
        /// Its path.
        path: String,
    },
    /// Write a file of the workspace `books`.
    Write {
        /// Its path.
        path: String,
        /// Its text.
        text: String,
    },
    /// Remove a file of the workspace `books`.
    Remove {
        /// Its path.
        path: String,
    },
    /// Make a directory in the workspace `books`.
    MakeDir {
        /// Its path.
        path: String,
    },
    /// Remove an empty directory of the workspace `books`.
    RemoveDir {
        /// Its path.
        path: String,
    },
    /// Rename a file of the workspace `books`.
    Rename {
        /// Its path.
        from: String,
        /// Its next path.
        to: String,
    },
    /// The monotonic time.
    Now,
    /// End with an error of the tool's own.
    Fail,
    /// Never end.
    Spin,
    /// Take memory until there is none.
    Hoard,
    /// Execute what cannot be executed.
    Trap,
    /// Leave as a program does.
    Exit,
    /// Call itself until the stack ends.
    Recurse,
}

/// A key.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Place {
    /// Its bucket.
    pub bucket: String,
    /// Its name.
    #[serde(default)]
    pub key: String,
    /// A value.
    #[serde(default)]
    pub value: String,
    /// A number.
    #[serde(default)]
    pub delta: i64,
    /// The value again and again.
    #[serde(default)]
    pub times: Option<usize>,
}

/// What was answered.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReachOutput {
    /// One answer for each step.
    pub answers: Vec<Value>,
}

fn told<T: Serialize, E: std::fmt::Display>(result: Result<T, E>) -> Value {
    match result {
        Ok(answer) => json!(answer),
        Err(error) => json!({"error": error.to_string()}),
    }
}

fn text(value: Option<Vec<u8>>) -> Option<String> {
    value.map(|value| String::from_utf8_lossy(&value).into_owned())
}

fn key(place: &Place, act: impl FnOnce(&keys::Bucket) -> Result<Value, Error>) -> Value {
    told(keys::bucket(&place.bucket).and_then(|bucket| act(&bucket)))
}

fn value(place: &Place) -> String {
    place.value.repeat(place.times.unwrap_or(1))
}

fn file(path: &str, act: impl FnOnce(PathBuf) -> std::io::Result<()>) -> Value {
    match workspace("books").and_then(|books| books.path(path)) {
        Ok(path) => told(act(path).map(|()| "done")),
        Err(error) => told::<(), _>(Err(error)),
    }
}

fn run(step: Step) -> Result<Value, Error> {
    Ok(match step {
        Step::Send { method, url, headers, body, times } => {
            let mut request = Request::new(method, url);
            request.headers = headers;
            request.body = body.repeat(times.unwrap_or(1)).into_bytes();
            told(request.send().map(|response| {
                let staged = response.is_staged();
                json!({"status": response.status, "body": text(Some(response.body)), "staged": staged,
                    "headers": response.headers})
            }))
        }
        Step::Raw { way, urls } => json!(raw::run(way, &urls)),
        Step::Get(place) => key(&place, |bucket| Ok(json!(text(bucket.get(&place.key)?)))),
        Step::Set(place) => key(&place, |bucket| bucket.set(&place.key, value(&place)).map(|()| json!("done"))),
        Step::Delete(place) => key(&place, |bucket| bucket.delete(&place.key).map(|()| json!("done"))),
        Step::Exists(place) => key(&place, |bucket| Ok(json!(bucket.exists(&place.key)?))),
        Step::Add(place) => key(&place, |bucket| Ok(json!(bucket.add(&place.key, place.delta)?))),
        Step::List(place) => key(&place, |bucket| Ok(json!(bucket.list()?))),
        Step::Swap(place) => key(&place, |bucket| {
            let before = bucket.get(&place.key)?;
            if place.delta != 0 {
                bucket.add(&place.key, place.delta)?;
            }
            Ok(json!(bucket.swap(&place.key, before.as_deref(), value(&place))?))
        }),
        Step::Message { channel, to, subject, media_type, body, times } => {
            let mut message = Message::text(channel, to, subject, body.repeat(times.unwrap_or(1)));
            if let Some(media_type) = media_type {
                message.media_type = media_type;
            }
            told(message.send().map(|()| "done"))
        }
        Step::Read { path } => told(workspace("books").and_then(|books| books.read_to_string(&path))),
        Step::Write { path, text } => {
            told(workspace("books").and_then(|books| books.write(&path, text)).map(|()| "done"))
        }
        Step::Remove { path } => file(&path, |path| std::fs::remove_file(path)),
        Step::MakeDir { path } => file(&path, |path| std::fs::create_dir(path)),
        Step::RemoveDir { path } => file(&path, |path| std::fs::remove_dir(path)),
        Step::Rename { from, to } => match workspace("books").and_then(|books| books.path(&to)) {
            Ok(to) => file(&from, |from| std::fs::rename(from, to)),
            Err(error) => told::<(), _>(Err(error)),
        },
        Step::Now => json!(raw::now()),
        Step::Fail => return Err(Error::conflict("told to fail")),
        Step::Spin => loop {
            std::hint::black_box(0);
        },
        Step::Hoard => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1; 1 << 20]));
            }
        }
        Step::Trap => core::arch::wasm32::unreachable(),
        Step::Exit => std::process::exit(0),
        Step::Recurse => json!(deeper(0)),
    })
}

/// Deeper and deeper.
fn deeper(depth: u64) -> u64 {
    if depth == u64::MAX { 0 } else { std::hint::black_box(deeper(std::hint::black_box(depth) + 1)) + 1 }
}

/// Does what its input says.
///
/// When: testing what a tool can reach.
/// Side effects: whatever it gets away with.
/// Errors: conflict if told to fail.
#[tool(effects(
    "file.write",
    "file.delete",
    "file.rename",
    "dir.create",
    "dir.delete",
    "http.request",
    "kv.add",
    "kv.delete",
    "kv.set",
    "message.send"
))]
pub fn reach(args: ReachArgs) -> Result<ReachOutput, Error> {
    let answers = args.steps.into_iter().map(run).collect::<Result<_, _>>()?;
    Ok(ReachOutput { answers })
}

toolkeep_sdk::export!(reach);
