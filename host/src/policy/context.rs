//! What a question is about: input, plan, and what is known besides.
//!
//! Everything comes from the host: the input as it was validated, the plan as it was sealed, the clock of the daemon. What
//! of it policies are told is in [`super::facts`].

use toolkeep_core::autonomy::Autonomy;
use toolkeep_core::call::Mode;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{ContractName, NAME_MAX_BYTES, RunId, WorkflowName};
use toolkeep_core::principal::{Means, Origin};
use toolkeep_core::taint::Taint;
use toolkeep_core::tier::Tier;

use crate::config::Environment;

/// What is known besides tool, input and plan.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The kind of deployment.
    pub environment: Environment,
    /// Commit or preview.
    pub mode: Mode,
    /// The run that the call belongs to.
    pub run: Option<RunId>,
    /// How the principal was authenticated.
    pub means: Means,
    /// How many delegations lie between that and whoever acts.
    pub delegations: u8,
    /// What the run, or the call alone, has seen.
    pub taint: Taint,
    /// How far the agent may go with the tool.
    pub autonomy: Autonomy,
    /// What is known of the run.
    pub facts: RunFacts,
}

/// What policies are told of a run. Outside of one nothing is used and nothing has a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// Steps that it has made.
    pub steps: u64,
    /// What is left of its budget of money, in millionths of a dollar; nothing where it has none.
    pub cost_left: Option<u64>,
    workflow: Word,
    contract: Word,
}

/// A name, by value: at most [`NAME_MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    bytes: [u8; NAME_MAX_BYTES],
    length: usize,
}

impl Default for Word {
    fn default() -> Self {
        Self { bytes: [0; NAME_MAX_BYTES], length: 0 }
    }
}

impl Word {
    fn of(text: &str) -> Self {
        let mut word = Self::default();
        if let Some(place) = word.bytes.get_mut(..text.len()) {
            place.copy_from_slice(text.as_bytes());
            word.length = text.len();
        }
        word
    }

    fn text(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl RunFacts {
    /// Of a run with these names.
    #[must_use]
    pub fn of(workflow: Option<&WorkflowName>, contract: Option<&ContractName>) -> Self {
        let (workflow, contract) = (workflow.map(WorkflowName::as_str), contract.map(ContractName::as_str));
        let word = |name: Option<&str>| Word::of(name.unwrap_or_default());
        Self { workflow: word(workflow), contract: word(contract), ..Self::default() }
    }

    /// The workflow that it belongs to; empty without one.
    #[must_use]
    pub fn workflow(&self) -> &str {
        self.workflow.text()
    }

    /// The contract that it is under; empty without one.
    #[must_use]
    pub fn contract(&self) -> &str {
        self.contract.text()
    }
}

impl Circumstances {
    /// Outside of any run, untainted, of an agent that goes as far as policy says.
    #[must_use]
    pub const fn now(now_ms: u64, environment: Environment, mode: Mode) -> Self {
        let (means, delegations) = (Means::Record, 0);
        let (taint, autonomy) = (Taint::NONE, Autonomy::Autonomous);
        let none = Word { bytes: [0; NAME_MAX_BYTES], length: 0 };
        let facts = RunFacts { steps: 0, cost_left: None, workflow: none, contract: none };
        Self { now_ms, environment, mode, run: None, means, delegations, taint, autonomy, facts }
    }

    /// By whoever came to act so.
    #[must_use]
    pub fn by(self, origin: &Origin) -> Self {
        let delegations = u8::try_from(origin.session.depth()).unwrap_or(u8::MAX);
        Self { means: origin.credential.means(), delegations, ..self }
    }

    /// With this taint, too.
    #[must_use]
    pub const fn tainted(self, taint: Taint) -> Self {
        Self { taint: self.taint.and(taint), ..self }
    }

    /// In a run of which this is known.
    #[must_use]
    pub const fn knowing(self, facts: RunFacts) -> Self {
        Self { facts, ..self }
    }

    /// Of an agent that goes so far.
    #[must_use]
    pub const fn as_far_as(self, autonomy: Autonomy) -> Self {
        Self { autonomy, ..self }
    }

    /// In this run.
    #[must_use]
    pub const fn of_run(self, run: Option<RunId>) -> Self {
        Self { run, ..self }
    }
}

/// A plan as policies see it.
#[derive(Debug, Clone, Copy)]
pub struct PlanFacts<'a> {
    /// What it would change.
    pub effects: &'a [Effect],
    /// How many observations it depends on.
    pub reads: usize,
    /// Which part of an execution with live requests it is.
    pub segment: u32,
    /// The tier that is declared for it.
    pub declared: Tier,
    /// Effect kinds that the manifest wants held whatever their tier.
    pub hold: &'a [String],
    /// Bytes of before-contents that may be kept for undo.
    pub undo_bytes: u64,
}

/// What a question is about.
#[derive(Debug, Clone, Copy)]
pub struct Matter<'a> {
    /// The canonical input of the call, JSON. Nothing for a plan of several calls.
    pub input: Option<&'a str>,
    /// The plan, where it is asked about.
    pub plan: Option<PlanFacts<'a>>,
    /// What is known besides.
    pub around: Circumstances,
}
