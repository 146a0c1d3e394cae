//! Cases: what a set of policies is expected to say, written down so that a change of the set can be tried before it is made.
//!
//! A case names a caller, a tool, an input and, in few words, what a plan would change; contents and digests are no business
//! of a policy, so a case has none. Running cases needs no daemon.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use toolkeep_core::autonomy::Autonomy;
use toolkeep_core::call::Mode;
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Delivery, Effect, FileState, HttpEffect, MessageEffect, Reversal, Times};
use toolkeep_core::id::{BucketName, ChannelName, GrantName, NotAnId, ToolName, WorkspaceName};
use toolkeep_core::json::input_digest;
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::policy::Verdict;
use toolkeep_core::principal::Principal;
use toolkeep_core::taint::Taint;

use super::context::{Circumstances, Matter, PlanFacts};
use super::set::{Answer, Policies};
use super::shape::ToolShape;
use crate::config::Environment;

/// A file of cases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// The cases, in order.
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// `tenant/user/agent`.
    pub principal: String,
    /// The tool.
    pub tool: ToolName,
    /// Its input.
    #[serde(default = "empty")]
    pub input: Value,
    /// What its plan would change; without any the case is about the call alone.
    #[serde(default, rename = "effect")]
    pub effects: Vec<CaseEffect>,
    /// When, as RFC 3339 writes it; 1970 if absent.
    #[serde(default)]
    pub at: Option<String>,
    /// `commit` if absent.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// `dev` if absent.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// Whether the run read what strangers may have written.
    #[serde(default)]
    pub untrusted: bool,
    /// Whether the run read what must not leave.
    #[serde(default)]
    pub private: bool,
    /// How far the agent may go with the tool; `autonomous` if absent.
    #[serde(default)]
    pub autonomy: Option<Autonomy>,
    /// What is expected: `allow` for a call alone, `commit` for a plan, `hold`, `preview` or `deny`.
    pub expect: String,
    /// How many people are expected to have to agree.
    #[serde(default)]
    pub approvers: Option<u8>,
    /// Of which groups.
    #[serde(default)]
    pub groups: Option<BTreeSet<String>>,
}

fn empty() -> Value {
    json!({})
}

/// One effect in few words. Which members it has depends on its kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseEffect {
    /// An effect kind, for example `file.write`.
    pub kind: String,
    /// Where, for files; `work` if absent.
    #[serde(default)]
    pub workspace: Option<WorkspaceName>,
    /// Which file or directory.
    #[serde(default)]
    pub path: Option<WorkspacePath>,
    /// Where a file moves.
    #[serde(default)]
    pub to: Option<WorkspacePath>,
    /// Bytes of what it writes or sends.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes of what was there before; absent for what did not exist.
    #[serde(default)]
    pub before: Option<u64>,
    /// Of a request; `POST` if absent.
    #[serde(default)]
    pub method: Option<String>,
    /// Of a request.
    #[serde(default)]
    pub url: Option<String>,
    /// What undoes a request: `none`, `compensated` or `reversible`.
    #[serde(default)]
    pub reversal: Reversal,
    /// When a request leaves: `staged` or `live`.
    #[serde(default)]
    pub delivery: Delivery,
    /// Of a message.
    #[serde(default)]
    pub channel: Option<ChannelName>,
    /// Of a key.
    #[serde(default)]
    pub bucket: Option<BucketName>,
    /// Of a key; `key` if absent.
    #[serde(default)]
    pub key: Option<String>,
}

/// Why a case cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum BadCase {
    /// `principal` is not three names.
    #[error("`principal` is `{0}`; write `tenant/user/agent`")]
    Principal(String),
    /// `at` is no time.
    #[error("`at` is `{0}`; write a time like `2026-03-02T14:00:00Z`")]
    Time(String),
    /// An effect is not complete.
    #[error("an effect `{kind}` needs `{member}`")]
    Effect {
        /// Its kind.
        kind: String,
        /// What is missing.
        member: &'static str,
    },
    /// There is no such kind.
    #[error("`{0}` is not an effect kind")]
    Kind(String),
    /// The input is no JSON that can be made canonical.
    #[error("`input`: {0}")]
    Input(String),
    /// A built-in name is none.
    #[error("BUG: {0}")]
    Name(#[from] NotAnId),
}

/// How a case went.
#[derive(Debug)]
pub struct Ran {
    /// What the policies said.
    pub answer: Answer,
    /// What differs from what was expected; empty if nothing does.
    pub differs: Vec<String>,
}

impl Case {
    /// Ask the policies about the tool that the case names. `hold` are the effect kinds that its manifest holds,
    /// `undo_bytes` is how much before-content may be kept for undo.
    ///
    /// # Errors
    /// The case makes no sense.
    pub fn run(
        &self,
        policies: &Policies,
        tool: &Arc<ToolShape>,
        hold: &[String],
        undo_bytes: u64,
    ) -> Result<Ran, BadCase> {
        let effects = self.effects.iter().map(CaseEffect::effect).collect::<Result<Vec<_>, _>>()?;
        let plan = PlanFacts { effects: &effects, reads: 0, segment: 0, declared: tool.tier, hold, undo_bytes };
        let (input, _) = input_digest(&self.input).map_err(|error| BadCase::Input(error.to_string()))?;
        let mode = self.mode.unwrap_or_default();
        let mut around = Circumstances::now(self.now_ms()?, self.environment.unwrap_or(Environment::Dev), mode);
        around.taint = Taint { untrusted: self.untrusted, private: self.private };
        around.autonomy = self.autonomy.unwrap_or_default();
        let matter = Matter { input: Some(&input), plan: (!effects.is_empty()).then_some(plan), around };
        let answer = policies.answer(&self.principal()?, tool, &matter);
        let differs = self.differs(&answer);
        Ok(Ran { answer, differs })
    }

    fn principal(&self) -> Result<Principal, BadCase> {
        let wrong = || BadCase::Principal(self.principal.clone());
        let mut names = self.principal.split('/');
        let mut next = || names.next().ok_or_else(wrong);
        let principal = Principal {
            tenant: next()?.parse().map_err(|_| wrong())?,
            user: next()?.parse().map_err(|_| wrong())?,
            agent: next()?.parse().map_err(|_| wrong())?,
        };
        if names.next().is_none() { Ok(principal) } else { Err(wrong()) }
    }

    fn now_ms(&self) -> Result<u64, BadCase> {
        let Some(at) = &self.at else { return Ok(0) };
        let time: Option<jiff::Timestamp> = at.parse().ok();
        time.and_then(|time| u64::try_from(time.as_millisecond()).ok()).ok_or_else(|| BadCase::Time(at.clone()))
    }

    fn differs(&self, answer: &Answer) -> Vec<String> {
        let mut differs = Vec::new();
        if answer.word() != self.expect {
            differs.push(format!("expected `{}`, got `{}`", self.expect, answer.word()));
        }
        let need = match &answer.verdict {
            Verdict::Hold(need) => Some(need),
            _ => None,
        };
        let approvers = need.map_or(0, |need| need.approvers);
        if let Some(expected) = self.approvers.filter(|expected| *expected != approvers) {
            differs.push(format!("expected {expected} to have to agree, got {approvers}"));
        }
        let groups = need.map(|need| need.groups.clone()).unwrap_or_default();
        if let Some(expected) = self.groups.as_ref().filter(|expected| **expected != groups) {
            differs.push(format!("expected the groups {expected:?}, got {groups:?}"));
        }
        differs
    }
}

impl CaseEffect {
    /// The effect, with made-up contents.
    ///
    /// # Errors
    /// Its kind is unknown, or a member is missing.
    pub fn effect(&self) -> Result<Effect, BadCase> {
        let missing = |member| BadCase::Effect { kind: self.kind.clone(), member };
        let workspace = || self.workspace.clone().map_or_else(|| Ok("work".parse()?), Ok::<_, BadCase>);
        let path = || self.path.clone().ok_or_else(|| missing("path"));
        let bucket = || self.bucket.clone().ok_or_else(|| missing("bucket"));
        let key = || self.key.clone().unwrap_or_else(|| "key".to_owned());
        let file = |size| FileState { sha256: Digest::of(b""), size, mode: 0o644 };
        let body = |size| BodyState { sha256: Digest::of(b""), size };
        let before = file(self.before.unwrap_or_default());
        Ok(match self.kind.as_str() {
            "file.write" => Effect::FileWrite {
                workspace: workspace()?,
                path: path()?,
                before: self.before.map(file),
                after: file(self.bytes),
            },
            "file.delete" => Effect::FileDelete { workspace: workspace()?, path: path()?, before },
            "file.rename" => Effect::FileRename {
                workspace: workspace()?,
                from: path()?,
                to: self.to.clone().ok_or_else(|| missing("to"))?,
                before,
            },
            "file.metadata" => Effect::FileMetadata {
                workspace: workspace()?,
                path: path()?,
                before: Times { modified_ns: 0 },
                after: Times { modified_ns: 1 },
            },
            "dir.create" => Effect::DirCreate { workspace: workspace()?, path: path()? },
            "dir.delete" => Effect::DirDelete { workspace: workspace()?, path: path()? },
            "http.request" => Effect::HttpRequest(self.request(missing)?),
            "message.send" => Effect::MessageSend(MessageEffect {
                channel: self.channel.clone().ok_or_else(|| missing("channel"))?,
                to: Vec::new(),
                subject: String::new(),
                media_type: "text/plain".to_owned(),
                body: body(self.bytes),
            }),
            "kv.set" => {
                Effect::KvSet { bucket: bucket()?, key: key(), before: self.before.map(body), after: body(self.bytes) }
            }
            "kv.delete" => {
                Effect::KvDelete { bucket: bucket()?, key: key(), before: body(self.before.unwrap_or_default()) }
            }
            "kv.add" => Effect::KvAdd { bucket: bucket()?, key: key(), delta: 1 },
            other => return Err(BadCase::Kind(other.to_owned())),
        })
    }

    fn request(&self, missing: impl Fn(&'static str) -> BadCase) -> Result<HttpEffect, BadCase> {
        let grant: GrantName = "case".parse()?;
        Ok(HttpEffect {
            grant,
            method: self.method.clone().unwrap_or_else(|| "POST".to_owned()),
            url: self.url.clone().ok_or_else(|| missing("url"))?,
            headers: Vec::new(),
            credential: None,
            body: Some(BodyState { sha256: Digest::of(b""), size: self.bytes }),
            delivery: self.delivery,
            reversal: self.reversal,
        })
    }
}
