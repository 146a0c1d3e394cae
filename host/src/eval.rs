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
use toolkeep_core::event::{Given, Recording, hex, unhex};
use toolkeep_core::id::{AgentName, CallId, RunId, SessionId, ToolName, UserName};
use toolkeep_core::json::input_digest;
use toolkeep_core::principal::{Credential, Origin, Principal, SessionPath};
use toolkeep_core::refusal::{Code, Refusal};

use crate::ledger::{Attested, CallRow};
use crate::replay::{Parts, Subject, Version};

pub use expect::{EffectsExpect, Expect, Eyes};
pub use pack::hostile;
pub use world::World;

/// The only format that this version reads.
pub const FORMAT: u32 = 1;
/// Largest case, in bytes of its JSON: the contents of an ordinary recording fit many times.
pub const CASE_MAX_BYTES: usize = 2 * 1024 * 1024;

/// Why a call of a transaction is no case: it stands on what others had staged, which a case does not hold.
pub(crate) const OF_TRANSACTION: &str = "it was made in a transaction, on what calls before it had staged";

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
    /// Who calls; whoever runs the case if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// What the world says, as an execution heard it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<Box<Recording>>,
    /// What the manifest allowed that the recorded call was made with: what was less than that stays less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Given>,
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
    /// Whether a schema or a policy hides a part of it from eyes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// Who called, as the tool learns it. The tenant is always that of whoever runs the case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// The person.
    pub user: UserName,
    /// The agent.
    pub agent: AgentName,
    /// How they were authenticated, for example `agent-uid:1000`.
    pub credential: String,
    /// The delegations since, the outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub session: Vec<SessionId>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

impl Caller {
    fn of(row: &CallRow) -> Self {
        Self {
            user: row.principal.user.clone(),
            agent: row.principal.agent.clone(),
            credential: row.origin.credential.to_string(),
            session: row.origin.session.ids().collect(),
            run: row.run,
        }
    }

    fn origin(&self) -> Result<Origin, Refusal> {
        let credential: Credential = self.credential.parse().map_err(invalid)?;
        let deeper = |path: SessionPath, session: &SessionId| path.child(*session);
        let session = self.session.iter().try_fold(SessionPath::default(), deeper);
        let session = session.ok_or_else(|| invalid("its caller has more delegations than there can be"))?;
        Ok(Origin { credential, session })
    }
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

    /// The case of a recorded call that was made with this version.
    #[must_use]
    pub fn of(subject: &Subject, version: &Version, expect: Expect, hidden: bool) -> Self {
        let contents = subject.parts.0.iter().map(|(digest, content)| (*digest, hex(content)));
        Self {
            format: FORMAT,
            tool: version.name.clone(),
            input: serde_json::from_str(&subject.row.input).unwrap_or_default(),
            mode: subject.row.mode,
            caller: Some(Caller::of(&subject.row)),
            recording: Some(Box::new(subject.recording.clone())),
            allowed: Some(version.allows()),
            contents: contents.collect(),
            world: None,
            expect,
            from: Some(subject.row.call),
            hidden,
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
            return Err(invalid(OF_TRANSACTION));
        }
        let (input, input_digest) = input_digest(&self.input).map_err(invalid)?;
        let call = self.from.unwrap_or(CallId::new(uuid::Uuid::nil()));
        let mut row = row((call, principal), version, (input.into(), input_digest), self.mode);
        if let Some(caller) = &self.caller {
            (row.origin, row.run) = (caller.origin()?, caller.run);
            row.principal.user = caller.user.clone();
            row.principal.agent = caller.agent.clone();
        }
        Ok(Subject { row, recording, parts, layer: None, allowed: self.allowed.clone(), attested: Attested::Same })
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
