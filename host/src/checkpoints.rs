//! Checkpoints on their way out of the machine: appended to a file, sent by a channel, given to a program.
//!
//! A checkpoint protects against whoever can write the ledger's files only where that person cannot reach it, so it has to
//! leave. Each way is tried for each checkpoint; one that fails does not keep the others from it, and is tried again with
//! the next checkpoint, which covers everything that this one does. A program is run without a shell, with nothing of the
//! daemon's environment, for a bounded time.

use std::process::Stdio;
use std::sync::Arc;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use toolkeep_core::checkpoint::Checkpoint;
use toolkeep_core::delivery::{DeliveryKind, Message};
use toolkeep_core::id::{DeliveryId, TenantName};

use crate::ambient::Ambient;
use crate::channel::{Channels, append_to_file};
use crate::config::audit::{CheckpointConfig, CommandConfig};
use crate::ledger::{CHECKPOINT_SUBJECT, Enqueue, Ledger};

/// Where checkpoints go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Witnesses {
    config: Arc<CheckpointConfig>,
    channels: Channels,
    ledger: Ledger,
    ambient: Ambient,
    /// The tenant of deliveries by a channel that belongs to no tenant.
    tenant: Option<TenantName>,
}

impl Witnesses {
    /// The ways of a configuration.
    #[must_use]
    pub fn new(
        config: CheckpointConfig,
        channels: Channels,
        ledger: Ledger,
        ambient: Ambient,
        tenant: Option<TenantName>,
    ) -> Self {
        Self { config: Arc::new(config), channels, ledger, ambient, tenant }
    }

    /// When they are made.
    #[must_use]
    pub fn config(&self) -> &CheckpointConfig {
        &self.config
    }

    /// Send a checkpoint out, by every way that is configured. Returns what went wrong, one line for each way.
    pub async fn keep(&self, note: &Arc<str>) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(file) = self.config.file.clone() {
            let text = Arc::clone(note);
            let written = tokio::task::spawn_blocking(move || append_to_file(&file, text.as_bytes())).await;
            match written {
                Ok(Ok(_bytes)) => {}
                Ok(Err(errno)) => problems.push(format!("`audit.checkpoints.file` cannot be written: {errno}")),
                Err(_) => problems.push("BUG: the task that writes `audit.checkpoints.file` panicked".to_owned()),
            }
        }
        if let Err(problem) = self.send(note) {
            problems.push(problem);
        }
        if let Some(command) = &self.config.command
            && let Err(problem) = run(command, note).await
        {
            problems.push(format!("`audit.checkpoints.command` {problem}"));
        }
        problems
    }

    fn send(&self, note: &Arc<str>) -> Result<(), String> {
        let Some(name) = &self.config.channel else { return Ok(()) };
        let tenant = self.channels.owner(name).or_else(|| self.tenant.clone());
        let tenant = tenant.ok_or("`audit.checkpoints.channel` belongs to nobody who could get it")?;
        let said = Checkpoint::unverified(note).map_err(|bad| bad.to_string())?;
        let body = json!({"origin": said.origin, "size": said.size, "root": said.root, "note": &**note});
        let message = Message {
            to: Vec::new(),
            subject: CHECKPOINT_SUBJECT.to_owned(),
            media_type: "application/json".to_owned(),
            body: body.to_string().into_bytes().into(),
        };
        let id = DeliveryId::new(self.ambient.uuid_v7());
        let (kind, channel) = (DeliveryKind::Alert, name.clone());
        let enqueued = self.ledger.enqueue_delivery(Enqueue { id, tenant, kind, channel, call: None, message });
        enqueued.map_err(|error| format!("`audit.checkpoints.channel` was not handed it: {error}"))
    }
}

/// Give a checkpoint to a program.
async fn run(command: &CommandConfig, note: &str) -> Result<(), String> {
    #[expect(clippy::disallowed_methods, reason = "the operator's own program, by absolute path and without a shell")]
    let mut program = tokio::process::Command::new(&command.program);
    program.args(&command.arguments).env_clear().current_dir("/").process_group(0).kill_on_drop(true);
    program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = program.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let group = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    let input = child.stdin.take();
    let run = async {
        if let Some(mut input) = input {
            // A program that does not read says by its status whether that was right.
            let _unread = input.write_all(note.as_bytes()).await;
            let _closed = input.shutdown().await;
        }
        child.wait().await
    };
    let ended = tokio::time::timeout(command.time, run).await;
    if !matches!(ended, Ok(Ok(_)))
        && let Some(group) = group
    {
        // It may have ended meanwhile; then there is nothing to kill.
        let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    match ended {
        Err(_) => Err(format!("did not end within {} s", command.time.as_secs())),
        Ok(Err(error)) => Err(format!("cannot be waited for: {error}")),
        Ok(Ok(status)) if !status.success() => Err(format!("ended with {status}")),
        Ok(Ok(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn command(words: &[&str], time: Duration) -> CommandConfig {
        let (program, arguments) = words.split_first().expect("a program");
        CommandConfig {
            program: program.into(),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            time,
        }
    }

    #[tokio::test]
    async fn r40_a_program_gets_the_note_and_says_whether_it_keeps_it() {
        let long = Duration::from_secs(30);
        assert_eq!(run(&command(&["/bin/sh", "-c", "test \"$(cat)\" = note"], long), "note\n").await, Ok(()));
        let refused = run(&command(&["/bin/sh", "-c", "exit 3"], long), "note\n").await.expect_err("a status");
        assert!(refused.contains('3'), "{refused}");
        assert!(run(&command(&["/no/such/program"], long), "note\n").await.is_err());
        let late = run(&command(&["/bin/sh", "-c", "sleep 60"], Duration::from_millis(50)), "note\n").await;
        assert!(late.expect_err("late").contains("did not end"));
        // One that reads nothing is no reason to wait, and nothing of the daemon's environment reaches it.
        assert_eq!(run(&command(&["/bin/sh", "-c", "test -z \"$HOME\""], long), &"x".repeat(1 << 20)).await, Ok(()));
    }
}
