//! The daemon's own tools: what an agent does with a plan that exists.
//!
//! They are methods of the agent plane under names that a model can call. None of them decides: a held plan is committed when
//! people agree, and undoing makes a plan that is decided about like any other. Nothing of the admin plane is here.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{ApprovalId, CallId, PlanId, RunId};
use toolkeep_core::json as strict;
use toolkeep_core::refusal::{Code, Refusal};

use super::elicit::{self, Terms};
use super::result;
use crate::authenticate::Caller;
use crate::daemon::agent::until_stop;
use crate::daemon::bounds::WAIT_MAX_MS;
use crate::daemon::params::PlanText;
use crate::daemon::reply::Body;
use crate::host::{Host, UndoTarget};

/// How long `toolkeep.wait` waits if it does not say, in milliseconds: less than the minute after which clients give up.
const WAIT_MS: u64 = 45_000;

/// A tool of the daemon's own.
#[derive(Debug)]
pub(super) struct OwnTool {
    /// What agents call it.
    pub(super) name: &'static str,
    verb: Verb,
    title: &'static str,
    description: &'static str,
    read_only: bool,
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Commit,
    Discard,
    Undo,
    Wait,
}

/// All of them.
pub(super) const ALL: [OwnTool; 4] = [
    OwnTool {
        name: "toolkeep.commit",
        verb: Verb::Commit,
        title: "Commit a previewed plan",
        description: "Commits a plan that a preview showed, exactly as it was shown. Where people must agree first, the \
                      answer says so, as that of any other call. A plan whose files changed since then is refused \
                      (`stale_plan`): preview again.",
        read_only: false,
    },
    OwnTool {
        name: "toolkeep.discard",
        verb: Verb::Discard,
        title: "Drop a plan",
        description: "Drops a plan that was previewed or waits for people. Nothing of it happens.",
        read_only: false,
    },
    OwnTool {
        name: "toolkeep.undo",
        verb: Verb::Undo,
        title: "Propose an undo",
        description: "Makes a plan that undoes what a call or a whole run has changed, and commits nothing: look at the plan, \
                      then commit it with `toolkeep.commit`.",
        read_only: true,
    },
    OwnTool {
        name: "toolkeep.wait",
        verb: Verb::Wait,
        title: "Wait for people to decide",
        description: "Waits until people have decided about a call that answered `approval_required`, and answers what the \
                      call came to. If nobody has decided in time, the answer is `approval_required` again: call it again.",
        read_only: true,
    },
];

impl OwnTool {
    /// The tool of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|tool| tool.name == name)
    }

    /// What the list says about it.
    pub(super) fn describe(&self) -> Value {
        json!({
            "name": self.name, "title": self.title, "description": self.description, "inputSchema": self.verb.schema(),
            "annotations": {"readOnlyHint": self.read_only, "destructiveHint": !self.read_only,
                "idempotentHint": true, "openWorldHint": false},
        })
    }

    /// Do it.
    pub(super) async fn call(
        &self,
        host: Host,
        caller: Caller,
        (terms, named): (Terms, Option<Digest>),
        arguments: Value,
    ) -> Body {
        let era = terms.era;
        let answered = match self.verb {
            Verb::Commit => match read::<OfPlan>(arguments) {
                Ok(of) => match host.commit_plan(&caller, of.plan.0).await {
                    // It may wait for people, as any other call.
                    Ok(answer) => return elicit::told(&host, &caller, &terms, named, answer).await,
                    Err(refusal) => Err(refusal),
                },
                Err(refusal) => Err(refusal),
            },
            Verb::Discard => match read::<OfPlanId>(arguments) {
                Ok(of) => host.discard_plan(&caller, of.plan).await,
                Err(refusal) => Err(refusal),
            },
            Verb::Undo => match read::<OfTarget>(arguments).and_then(|of| of.target()) {
                Ok(target) => host.propose_undo(&caller, target).await,
                Err(refusal) => Err(refusal),
            },
            Verb::Wait => match read::<OfApproval>(arguments) {
                Ok(of) => {
                    let patience = Duration::from_millis(of.timeout_ms.unwrap_or(WAIT_MS).min(WAIT_MAX_MS));
                    let patience = u64::try_from(patience.as_millis()).unwrap_or(WAIT_MAX_MS);
                    until_stop(host.wait_approval(&caller, of.approval_id, patience), terms.stop.clone()).await
                }
                Err(refusal) => Err(refusal),
            },
        };
        match answered {
            Ok(answer) => result::of(era, &answer),
            Err(refusal) => result::refused(era, &refusal),
        }
    }
}

impl Verb {
    fn schema(self) -> Value {
        let one = |name: &str, what: &str| {
            json!({"type": "object", "properties": {name: {"type": "string", "description": what}},
                "required": [name], "additionalProperties": false})
        };
        match self {
            Self::Commit => one("plan", "the plan's id (`plan_…`) or digest, as the preview told it"),
            Self::Discard => one("plan", "the plan's id (`plan_…`)"),
            Self::Undo => json!({"type": "object", "additionalProperties": false, "properties": {
                "call": {"type": "string", "description": "the call_id of the call to undo"},
                "run": {"type": "string", "description": "or the id of the run to undo"}},
                "minProperties": 1, "maxProperties": 1}),
            Self::Wait => {
                json!({"type": "object", "additionalProperties": false, "required": ["approval_id"], "properties": {
                "approval_id": {"type": "string", "description": "as the held call told it"},
                "timeout_ms": {"type": "integer", "minimum": 0, "maximum": WAIT_MAX_MS,
                    "description": "how long to wait; 45000 if absent"}}})
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPlan {
    plan: PlanText,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPlanId {
    plan: PlanId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfApproval {
    approval_id: ApprovalId,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfTarget {
    #[serde(default)]
    call: Option<CallId>,
    #[serde(default)]
    run: Option<RunId>,
}

impl OfTarget {
    fn target(&self) -> Result<UndoTarget, Refusal> {
        match (self.call, self.run) {
            (Some(call), None) => Ok(UndoTarget::Call(call)),
            (None, Some(run)) => Ok(UndoTarget::Run(run)),
            (None, None) | (Some(_), Some(_)) => Err(Refusal::new(Code::InvalidInput, "name either `call` or `run`")
                .field("/call", "both or none are named", "exactly one of `call` and `run`")),
        }
    }
}

fn read<T: DeserializeOwned>(arguments: Value) -> Result<T, Refusal> {
    strict::typed(arguments).map_err(Refusal::from)
}
