//! Golden cases: an input, a world, and what a tool has to make of them.
//!
//! A case holds everything that it needs: the input, who calls, and what the world says. That is a recording, where the case
//! was made from a call, or a handful of files and keys, where a person wrote it. It is executed as a replay is, by content,
//! so that a new version may ask in another order. Nothing outside is ever asked.

mod expect;
mod pack;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolkeep_core::call::{Mode, Outcome, Status, Usage};
use toolkeep_core::digest::Digest;
use toolkeep_core::event::{Recording, hex, unhex};
use toolkeep_core::id::{CallId, ToolName};
use toolkeep_core::json::input_digest;
use toolkeep_core::principal::{Credential, Origin, Principal};
use toolkeep_core::refusal::{Code, Refusal};

use crate::ledger::CallRow;
use crate::replay::{Parts, Subject, Version};

pub use expect::{EffectsExpect, Expect};
pub use pack::hostile;
pub use world::World;

/// The only format that this version reads.
pub const FORMAT: u32 = 1;
/// Largest case, in bytes of its JSON: the contents of an ordinary recording fit many times.
pub const CASE_MAX_BYTES: usize = 2 * 1024 * 1024;

/// A golden case as it is kept and exchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Always [`FORMAT`].
    pub format: u32,
    /// The tool that it is about.
    pub tool: ToolName,
    /// What it is called with.
    pub input: Value,
    /// Preview or commit, as the tool is told.
    #[serde(default = "commit")]
    pub mode: Mode,
    /// What the world says, as an execution heard it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<Box<Recording>>,
    /// What is kept beside the recording: hexadecimal, by digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contents: BTreeMap<Digest, String>,
    /// What the world says, as a person wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<World>,
    /// What has to come of it.
    pub expect: Expect,
    /// The call that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<CallId>,
}

const fn commit() -> Mode {
    Mode::Commit
}

fn invalid(problem: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::InvalidInput, format!("the case is refused: {problem}"))
        .hint("`docs/replay.md` describes golden cases")
}

impl Case {
    /// Read a case.
    ///
    /// # Errors
    /// `invalid_input`: it is not one.
    pub fn read(text: &str) -> Result<Self, Refusal> {
        if text.len() > CASE_MAX_BYTES {
            return Err(invalid(format!("it has {} bytes; at most {CASE_MAX_BYTES}", text.len())));
        }
        let case: Self = serde_json::from_str(text).map_err(invalid)?;
        if case.format != FORMAT {
            return Err(invalid(format!("format {}; this version reads {FORMAT}", case.format)));
        }
        if case.recording.is_some() == case.world.is_some() {
            return Err(invalid("give it `recording` or `world`, and not both"));
        }
        case.expect.check().map_err(invalid)?;
        Ok(case)
    }

    /// The case of a recorded call: the same has to come of it.
    #[must_use]
    pub fn of(subject: &Subject, tool: &ToolName, expect: Expect) -> Self {
        let contents = subject.parts.0.iter().map(|(digest, content)| (*digest, hex(content)));
        Self {
            format: FORMAT,
            tool: tool.clone(),
            input: serde_json::from_str(&subject.row.input).unwrap_or_default(),
            mode: subject.row.mode,
            recording: Some(Box::new(subject.recording.clone())),
            contents: contents.collect(),
            world: None,
            expect,
            from: Some(subject.row.call),
        }
    }

    /// What is executed: a call that nobody made, over what the case says of the world.
    ///
    /// # Errors
    /// `invalid_input`: its contents are not hexadecimal, or its world makes no sense for the tool.
    pub fn subject(&self, version: &Version, principal: &Principal) -> Result<Subject, Refusal> {
        let mut parts = Parts::default();
        for (digest, text) in &self.contents {
            let content = unhex(text).ok_or_else(|| invalid("a content is not hexadecimal"))?;
            parts.0.insert(*digest, content.into());
        }
        let recording = match (&self.recording, &self.world) {
            (Some(recording), _) => (**recording).clone(),
            (None, Some(world)) => world.recording(version, &mut parts).map_err(invalid)?,
            (None, None) => return Err(invalid("it says nothing of the world")),
        };
        if let Some(why) = recording.not_replayable() {
            return Err(invalid(why));
        }
        if recording.layer.is_some() {
            return Err(invalid("it was made from a call of a transaction"));
        }
        let (input, input_digest) = input_digest(&self.input).map_err(invalid)?;
        let call = self.from.unwrap_or(CallId::new(uuid::Uuid::nil()));
        let row = row((call, principal), version, (input.into(), input_digest), self.mode);
        Ok(Subject { row, recording, parts, layer: None })
    }
}

fn row(
    (call, principal): (CallId, &Principal),
    version: &Version,
    (input, input_digest): (Arc<str>, Digest),
    mode: Mode,
) -> CallRow {
    CallRow {
        call,
        trace: None,
        tier: Some(version.tier),
        policy_set: None,
        suspended: false,
        principal: principal.clone(),
        origin: Origin::of(Credential::AgentUid(0)),
        run: None,
        step: None,
        tool: version.name.clone(),
        component: Some(version.component.digest),
        manifest: Some(version.manifest.digest),
        mode,
        input,
        input_digest,
        status: Status::Ok,
        outcome: Outcome::None,
        error_code: None,
        reply: "null".into(),
        usage: Usage::default(),
        recording: None,
        beside: None,
        started_ms: 0,
        ended_ms: 0,
        key: None,
        notes: None,
        charge: None,
        output: None,
    }
}
