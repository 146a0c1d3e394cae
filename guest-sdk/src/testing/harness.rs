//! The harness: a stage, a context, and calls on them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::{Mode, Principal};
use crate::declaration::{Declaration, EffectKind};
use crate::error::{Error, FieldProblem, IntoError};
use crate::http::Response;
use crate::testing::keys;
use crate::testing::running::{Buckets, Context, Guard, Running};
use crate::testing::tree::{self, Scratch, Tree};
use crate::testing::{Effect, Outcome};
use crate::{input, schema};

/// What a call has until its deadline unless a test says otherwise: the host's default.
const DEADLINE: Duration = Duration::from_secs(10);

/// Fuel of a call unless a test says otherwise: the host's default.
const FUEL: u64 = 2_000_000_000;

/// Workspaces, buckets, channels, answers and context for calls of tools. Its directories go when it is dropped.
///
/// Several calls on one harness see each other's committed effects, as they would in the daemon.
#[derive(Debug)]
pub struct Harness {
    scratch: Scratch,
    workspaces: BTreeMap<String, PathBuf>,
    buckets: RefCell<Buckets>,
    channels: BTreeSet<String>,
    answers: Vec<(String, String, Response)>,
    context: Context,
}

impl Default for Harness {
    fn default() -> Self {
        Self::new()
    }
}

impl Harness {
    /// No workspace; caller `tenant`, `user`, `agent`; mode commit.
    ///
    /// # Panics
    /// If the system's temporary directory cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let caller = Principal { tenant: "tenant".to_owned(), user: "user".to_owned(), agent: "agent".to_owned() };
        let context = Context {
            caller,
            run_id: "run-1".to_owned(),
            call_id: "call-1".to_owned(),
            mode: Mode::Commit,
            deadline: DEADLINE,
            fuel: FUEL,
        };
        let scratch = must("make a temporary directory", Scratch::new());
        Self {
            scratch,
            workspaces: BTreeMap::new(),
            buckets: RefCell::default(),
            channels: BTreeSet::new(),
            answers: Vec::new(),
            context,
        }
    }

    /// Add a workspace with these files; directories come with them.
    ///
    /// # Panics
    /// If a file cannot be written.
    #[must_use]
    pub fn workspace<P, C>(mut self, name: &str, files: impl IntoIterator<Item = (P, C)>) -> Self
    where
        P: AsRef<str>,
        C: AsRef<[u8]>,
    {
        let root = self.scratch.path().join(name);
        must("make a workspace", std::fs::create_dir_all(&root));
        for (path, content) in files {
            must("write a file of the test", tree::write(&root.join(path.as_ref()), content.as_ref()));
        }
        self.workspaces.insert(name.to_owned(), root);
        self
    }

    /// Add a workspace without files.
    ///
    /// # Panics
    /// If the directory cannot be made.
    #[must_use]
    pub fn empty_workspace(self, name: &str) -> Self {
        let nothing: [(&str, &str); 0] = [];
        self.workspace(name, nothing)
    }

    /// Add a bucket with these keys.
    #[must_use]
    pub fn bucket<K, V>(self, name: &str, keys: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<Vec<u8>>,
    {
        let keys = keys.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self.buckets.borrow_mut().insert(name.to_owned(), keys);
        self
    }

    /// Add a channel for messages; every receiver is granted.
    #[must_use]
    pub fn channel(mut self, name: &str) -> Self {
        self.channels.insert(name.to_owned());
        self
    }

    /// Answer a request. Several answers to the same method and URL are given in their order, the last one again and
    /// again. A request that reads and has no answer is denied; one that writes is staged: 202, without a body.
    #[must_use]
    pub fn answers(mut self, method: &str, url: &str, response: Response) -> Self {
        self.answers.push((method.to_owned(), url.to_owned(), response));
        self
    }

    /// The value of a key as it is now, as text; nothing if there is none.
    #[must_use]
    pub fn key(&self, bucket: &str, key: &str) -> Option<String> {
        let value = self.buckets.borrow().get(bucket)?.get(key).cloned()?;
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    /// Set who acts.
    #[must_use]
    pub fn caller(mut self, caller: Principal) -> Self {
        self.context.caller = caller;
        self
    }

    /// Set the run; empty for a call outside of a run.
    #[must_use]
    pub fn run_id(mut self, run: impl Into<String>) -> Self {
        self.context.run_id = run.into();
        self
    }

    /// Set the mode. In [`Mode::Preview`] a call changes nothing for the next one.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.context.mode = mode;
        self
    }

    /// Set what is left of time and fuel.
    #[must_use]
    pub fn limits(mut self, deadline: Duration, fuel: u64) -> Self {
        self.context.deadline = deadline;
        self.context.fuel = fuel;
        self
    }

    /// The content of a file as it is now, as text; nothing if there is no such file.
    #[must_use]
    pub fn read(&self, workspace: &str, path: &str) -> Option<String> {
        let bytes = std::fs::read(self.workspaces.get(workspace)?.join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Call a tool's function with an input, as the host would.
    ///
    /// # Panics
    /// Where the host would stop the tool: an effect that it does not declare, an output or an error that
    /// its own schema refuses.
    #[expect(clippy::needless_pass_by_value, reason = "a test writes json!(...) in place")]
    pub fn call<A, O, E>(&self, tool: fn(A) -> Result<O, E>, input: Value) -> Outcome
    where
        A: DeserializeOwned + JsonSchema,
        O: Serialize + JsonSchema,
        E: IntoError,
    {
        let before = self.trees();
        let (result, running) = self.run(|| {
            validate(&schema::of_input::<A>(), &input)?;
            let output = tool(input::read(&input.to_string())?).map_err(IntoError::into_error)?;
            serde_json::to_value(output).map_err(|error| Error::failed(format!("the output is no JSON: {error}")))
        });
        check_result::<O, E>(&result);
        let mut staged = self.effects(&before);
        staged.extend(keys::effects(&self.buckets.borrow(), &running));
        if let Some(declaration) = running.declaration {
            check_effects(&declaration, &staged);
            check_sent(&declaration, &running);
        }
        if result.is_err() || self.context.mode == Mode::Preview {
            self.restore(&before);
        } else {
            self.buckets.replace(running.buckets);
        }
        let (effects, discarded) = if result.is_ok() { (staged, Vec::new()) } else { (Vec::new(), staged) };
        let messages = if result.is_ok() { running.messages } else { Vec::new() };
        let (requests, log, progress) = (running.requests, running.log, running.progress);
        Outcome { result, effects, discarded, requests, messages, log, progress }
    }

    /// Run something that is no tool with the workspaces and context of this harness, for tests of a
    /// tool's parts.
    ///
    /// # Panics
    /// If it is used inside of a tool.
    pub fn inside<T>(&self, act: impl FnOnce() -> T) -> T {
        self.run(act).0
    }

    fn run<T>(&self, act: impl FnOnce() -> T) -> (T, Running) {
        let fresh = || Running {
            context: self.context.clone(),
            workspaces: self.workspaces.clone(),
            answers: self.answers.clone(),
            requests: Vec::new(),
            channels: self.channels.clone(),
            messages: Vec::new(),
            buckets: self.buckets.borrow().clone(),
            keys_changed: BTreeMap::new(),
            log: Vec::new(),
            progress: Vec::new(),
            declaration: None,
        };
        let guard = Guard::start(fresh());
        let result = act();
        (result, guard.finish().unwrap_or_else(fresh))
    }

    fn trees(&self) -> BTreeMap<String, Tree> {
        let read = |(name, root): (&String, &PathBuf)| (name.clone(), must("read a workspace", tree::read(root)));
        self.workspaces.iter().map(read).collect()
    }

    fn effects(&self, before: &BTreeMap<String, Tree>) -> Vec<Effect> {
        let empty = Tree::new();
        let of = |(name, after): (String, Tree)| tree::effects(&name, before.get(&name).unwrap_or(&empty), &after);
        self.trees().into_iter().flat_map(of).collect()
    }

    fn restore(&self, before: &BTreeMap<String, Tree>) {
        for (name, root) in &self.workspaces {
            if let Some(tree) = before.get(name) {
                must("put a workspace back", tree::restore(root, tree));
            }
        }
    }
}

/// The host's check of the input, with an answer in the form of an error of the tool.
fn validate(schema: &Schema, input: &Value) -> Result<(), Error> {
    let problems = problems(schema, input);
    let Some((pointer, problem)) = problems.first() else { return Ok(()) };
    let place = if pointer.is_empty() { "the input" } else { pointer.as_str() };
    let error = Error::invalid_input(format!("{place}: {problem}"));
    let field = |(pointer, problem)| FieldProblem { pointer, problem, expected: String::new() };
    Ok(problems.into_iter().map(field).fold(error, Error::with_field)).and_then(Err)
}

/// Where a value does not fit a schema: pointer and problem.
fn problems(schema: &Schema, value: &Value) -> Vec<(String, String)> {
    let validator = must("understand the schema of a type", jsonschema::validator_for(schema.as_value()));
    validator.iter_errors(value).map(|error| (error.instance_path().to_string(), error.to_string())).collect()
}

fn check_result<O: JsonSchema, E: IntoError>(result: &Result<Value, Error>) {
    let (what, schema, value) = match result {
        Ok(output) => ("output", schema::of_output::<O>(), Some(output)),
        Err(error) => ("error detail", E::detail_schema(), error.detail()),
    };
    let found = value.map(|value| problems(&schema, value)).unwrap_or_default();
    assert!(found.is_empty(), "the {what} of this tool does not fit its own schema: {found:?}");
}

fn check_effects(declaration: &Declaration, staged: &[Effect]) {
    let undeclared: Vec<String> =
        staged.iter().filter(|effect| !declaration.effects.contains(&effect.kind)).map(ToString::to_string).collect();
    assert!(
        undeclared.is_empty(),
        "the tool `{}` does not declare what it did; add it to `effects(...)` or do not do it:\n  {}",
        declaration.name,
        undeclared.join("\n  ")
    );
}

/// Requests that write and messages are effects as well.
fn check_sent(declaration: &Declaration, running: &Running) {
    let writes =
        running.requests.iter().filter(|request| !matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS"));
    for (kind, did) in [(EffectKind::HttpRequest, writes.count()), (EffectKind::MessageSend, running.messages.len())] {
        assert!(
            did == 0 || declaration.effects.contains(&kind),
            "the tool `{}` does not declare `{kind}`; add it to `effects(...)` or do not do it",
            declaration.name,
        );
    }
}

/// The value, or the end of the test with what could not be done.
#[expect(
    clippy::panic,
    reason = "the harness cannot work without its directory; there is no caller to tell but the test"
)]
fn must<T, E: std::fmt::Display>(doing: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("the test harness could not {doing}: {error}"))
}
