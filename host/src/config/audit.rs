//! `[audit]`: when checkpoints are made, and where they go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toolkeep_core::id::ChannelName;

use super::{ConfigError, Workspace, absolute};
use crate::channel::config::ChannelConfig;

/// Seconds after which entries are covered by a checkpoint, where nothing is configured: a minute can be denied.
const EVERY_S: u64 = 60;
/// Entries after which a checkpoint is made, where nothing is configured: what a start verifies before the first call.
const EVERY_ENTRIES: u64 = 10_000;
/// Seconds that a command may take, where nothing is configured.
const COMMAND_S: u64 = 10;
/// Most of each that may be configured: a day, as many entries as are verified in a few seconds, and a minute.
const EVERY_MAX_S: u64 = 86_400;
const EVERY_MAX_ENTRIES: u64 = 1_000_000;
const COMMAND_MAX_S: u64 = 60;
/// Most arguments of a command.
const ARGUMENTS_MAX: usize = 64;

/// `[audit]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditText {
    /// `[audit.checkpoints]`.
    #[serde(default)]
    pub checkpoints: CheckpointsText,
}

/// `[audit.checkpoints]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointsText {
    /// See [`CheckpointConfig::every`], in seconds.
    pub every_s: Option<u64>,
    /// See [`CheckpointConfig::every_entries`].
    pub every_entries: Option<u64>,
    /// See [`CheckpointConfig::file`].
    pub file: Option<PathBuf>,
    /// See [`CheckpointConfig::channel`].
    pub channel: Option<ChannelName>,
    /// See [`CheckpointConfig::command`].
    pub command: Option<Vec<String>>,
    /// See [`CommandConfig::time`], in seconds.
    pub command_s: Option<u64>,
}

/// When checkpoints are made, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// How long after an entry it is covered, at the latest.
    pub every: Duration,
    /// After how many entries it is, whatever the time.
    pub every_entries: u64,
    /// A file that they are appended to.
    pub file: Option<PathBuf>,
    /// A channel that they are sent by.
    pub channel: Option<ChannelName>,
    /// A program that gets them on its standard input.
    pub command: Option<CommandConfig>,
}

/// A program of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandConfig {
    /// Its absolute path.
    pub program: PathBuf,
    /// Its arguments, as they are.
    pub arguments: Vec<String>,
    /// How long it may take.
    pub time: Duration,
}

impl CheckpointsText {
    /// What it means.
    ///
    /// # Errors
    /// A number is out of bounds, the channel does not exist, the file lies where a tool could change it, or the command is none.
    pub(super) fn check<'w>(
        &self,
        base: Option<&Path>,
        workspaces: impl Iterator<Item = &'w Workspace>,
        channels: &BTreeMap<ChannelName, ChannelConfig>,
    ) -> Result<CheckpointConfig, ConfigError> {
        if let Some(name) = self.channel.as_ref().filter(|name| !channels.contains_key(*name)) {
            let problem = format!("there is no channel `{name}`; add `[channel.{name}]`");
            return Err(ConfigError::value("audit.checkpoints.channel", problem));
        }
        let number = |key: &str, given: Option<u64>, default: u64, most: u64| match given {
            Some(number) if (1..=most).contains(&number) => Ok(number),
            Some(_) => Err(ConfigError::value(format!("audit.checkpoints.{key}"), format!("write 1 to {most}"))),
            None => Ok(default),
        };
        let file = self.file.as_deref().map(|path| absolute("audit.checkpoints.file", path, base)).transpose()?;
        let inside = |workspace: &&Workspace| file.as_ref().is_some_and(|file| file.starts_with(&workspace.path));
        if let Some(workspace) = workspaces.into_iter().find(inside) {
            let problem = format!("lies in the workspace `{}`, where a tool could change it", workspace.path.display());
            return Err(ConfigError::value("audit.checkpoints.file", problem));
        }
        let time = Duration::from_secs(number("command_s", self.command_s, COMMAND_S, COMMAND_MAX_S)?);
        let command = self.command.as_deref().map(|words| command(words, time)).transpose()?;
        Ok(CheckpointConfig {
            every: Duration::from_secs(number("every_s", self.every_s, EVERY_S, EVERY_MAX_S)?),
            every_entries: number("every_entries", self.every_entries, EVERY_ENTRIES, EVERY_MAX_ENTRIES)?,
            file,
            channel: self.channel.clone(),
            command,
        })
    }
}

fn command(words: &[String], time: Duration) -> Result<CommandConfig, ConfigError> {
    let wrong = |problem: &str| Err(ConfigError::value("audit.checkpoints.command", problem));
    let Some((program, arguments)) = words.split_first() else {
        return wrong("is empty; write the absolute path of a program and its arguments");
    };
    if !Path::new(program).is_absolute() {
        return wrong("names no absolute path; no shell and no search path is used");
    }
    if arguments.len() > ARGUMENTS_MAX || words.iter().any(|word| word.contains('\0')) {
        return wrong("has more than 64 arguments, or one that no program can be given");
    }
    Ok(CommandConfig { program: program.into(), arguments: arguments.to_vec(), time })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(lines: &str) -> Result<CheckpointConfig, String> {
        let text: CheckpointsText = toml::from_str(lines).expect("shape");
        let workspace = Workspace { path: "/srv/books".into(), tenant: "acme".parse().expect("name") };
        text.check(Some(Path::new("/etc/toolkeep")), [workspace].iter(), &BTreeMap::new())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn r40_checkpoints_are_made_without_being_configured_and_go_nowhere() {
        let none = checked("").expect("defaults");
        assert_eq!((none.every, none.every_entries), (Duration::from_secs(60), 10_000));
        assert_eq!((none.file, none.channel, none.command), (None, None, None));
    }

    #[test]
    fn r40_each_number_is_bounded_from_below_and_above() {
        for (key, most) in
            [("every_s", EVERY_MAX_S), ("every_entries", EVERY_MAX_ENTRIES), ("command_s", COMMAND_MAX_S)]
        {
            for (number, fits) in [(0, false), (1, true), (most, true), (most + 1, false)] {
                assert_eq!(checked(&format!("{key} = {number}")).is_ok(), fits, "{key} = {number}");
            }
        }
    }

    #[test]
    fn r40_the_file_lies_where_no_tool_can_change_it_and_the_command_is_a_program() {
        let file = checked("file = \"kept\"").expect("relative").file;
        assert_eq!(file.as_deref(), Some(Path::new("/etc/toolkeep/kept")));
        assert!(checked("file = \"/srv/books/kept\"").expect_err("inside").contains("/srv/books"));
        let command = checked("command = [\"/bin/keep\", \"a b\", \"$x\"]").expect("a program").command;
        assert_eq!(command.expect("one").arguments, ["a b", "$x"]);
        for wrong in ["[]", "[\"keep\"]", "[\"/bin/keep\", \"\\u0000\"]"] {
            assert!(checked(&format!("command = {wrong}")).is_err(), "{wrong}");
        }
        assert!(checked("channel = \"nowhere\"").expect_err("no such channel").contains("nowhere"));
        let many = |count: usize| format!("command = [{}]", vec!["\"/x\""; count + 1].join(", "));
        assert!(checked(&many(ARGUMENTS_MAX)).is_ok() && checked(&many(ARGUMENTS_MAX + 1)).is_err());
    }
}
