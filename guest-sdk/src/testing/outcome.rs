//! What a call did, for assertions and for reading.

use std::fmt;

use serde_json::Value;

use crate::declaration::EffectKind;
use crate::error::Error;
use crate::http::Request;
use crate::log::Level;
use crate::messages::Message;

/// One change that the tool asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// What kind of change. Found by comparing, so a rename shows as a write and a delete, and a changed
    /// time or permission does not show at all.
    pub kind: EffectKind,
    /// The workspace; for keys the bucket.
    pub workspace: String,
    /// The path, relative to the workspace; for keys the key.
    pub path: String,
    /// The content of the file or the value of the key before, if there was one.
    pub before: Option<Vec<u8>>,
    /// The content of the file or the value of the key after, if there is one.
    pub after: Option<Vec<u8>>,
}

impl Effect {
    /// The content after, as text; empty if there is none. What is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        self.after.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned()
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<12} {}:{}", self.kind, self.workspace, self.path)?;
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(out, "  (new, {} bytes)", after.len()),
            (Some(before), Some(after)) => write!(out, "  ({} -> {} bytes)", before.len(), after.len()),
            (Some(before), None) => write!(out, "  ({} bytes)", before.len()),
            (None, None) => Ok(()),
        }
    }
}

/// A line that the tool wrote to the operator's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How important it is.
    pub level: Level,
    /// The line.
    pub message: String,
}

/// A report of progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressReport {
    /// Units done.
    pub done: u64,
    /// Units in all, if known.
    pub total: Option<u64>,
    /// What is being done.
    pub message: String,
}

/// What one call did. Printed, it shows result, effects, log and progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The output as JSON, or the error as the host sees it.
    pub result: Result<Value, Error>,
    /// What the host would make a plan of; empty for a failed call.
    pub effects: Vec<Effect>,
    /// What a failed call had staged, and the host throws away.
    pub discarded: Vec<Effect>,
    /// The requests that it made, in order, those that read among them.
    pub requests: Vec<Request>,
    /// The messages that it staged; none for a failed call.
    pub messages: Vec<Message>,
    /// Lines for the operator's log.
    pub log: Vec<LogLine>,
    /// Reports of progress.
    pub progress: Vec<ProgressReport>,
}

impl Outcome {
    /// The output.
    ///
    /// # Panics
    /// If the call failed; the message shows the whole outcome.
    #[must_use]
    pub fn output(&self) -> &Value {
        match &self.result {
            Ok(output) => output,
            Err(_) => fail(&format!("the call should have succeeded:\n{self}")),
        }
    }

    /// The error.
    ///
    /// # Panics
    /// If the call succeeded; the message shows the whole outcome.
    #[must_use]
    pub fn error(&self) -> &Error {
        match &self.result {
            Ok(_) => fail(&format!("the call should have failed:\n{self}")),
            Err(error) => error,
        }
    }

    /// The effect on one path.
    ///
    /// # Panics
    /// If there is none; the message shows the whole outcome.
    #[must_use]
    pub fn effect(&self, workspace: &str, path: &str) -> &Effect {
        let found = self.effects.iter().find(|effect| effect.workspace == workspace && effect.path == path);
        found.unwrap_or_else(|| fail(&format!("there should be an effect on `{workspace}:{path}`:\n{self}")))
    }

    /// The effects as `kind workspace:path`, in order: short to compare.
    #[must_use]
    pub fn effect_list(&self) -> Vec<String> {
        self.effects.iter().map(|effect| format!("{} {}:{}", effect.kind, effect.workspace, effect.path)).collect()
    }
}

/// Fail the test that uses the harness.
#[expect(clippy::panic, reason = "a failed assertion of a test, with the whole outcome as its message")]
fn fail(message: &str) -> ! {
    panic!("{message}")
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(output) => writeln!(out, "result: {output}")?,
            Err(error) => {
                writeln!(out, "error: {error}")?;
                for field in error.fields() {
                    let place = if field.pointer.is_empty() { "(whole input)" } else { &field.pointer };
                    writeln!(out, "  {place}: {}", field.problem)?;
                }
                if let Some(detail) = error.detail() {
                    writeln!(out, "  detail: {detail}")?;
                }
            }
        }
        write_list(out, "effects", &self.effects)?;
        if !self.discarded.is_empty() {
            write_list(out, "discarded", &self.discarded)?;
        }
        for request in &self.requests {
            writeln!(out, "request: {} {}  ({} bytes)", request.method, request.url, request.body.len())?;
        }
        for message in &self.messages {
            let (channel, to, subject) = (&message.channel, message.to.join(", "), &message.subject);
            writeln!(out, "message: {channel} to {to}: {subject}")?;
        }
        for line in &self.log {
            writeln!(out, "log: {:?} {}", line.level, line.message)?;
        }
        for step in &self.progress {
            let total = step.total.map(|total| format!("/{total}")).unwrap_or_default();
            writeln!(out, "progress: {}{total} {}", step.done, step.message)?;
        }
        Ok(())
    }
}

fn write_list(out: &mut fmt::Formatter<'_>, title: &str, effects: &[Effect]) -> fmt::Result {
    writeln!(out, "{title}: {}", effects.len())?;
    effects.iter().try_for_each(|effect| writeln!(out, "  {effect}"))
}
