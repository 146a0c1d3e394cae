//! Parameters of runs and budgets.

use serde::Deserialize;
use toolkeep_core::budget::{Limits, OverBudget};
use toolkeep_core::call::ReportedUsage;
use toolkeep_core::contract::{Loops, Narrowing};
use toolkeep_core::id::{ContractName, RunId, UserName, WorkflowName};
use toolkeep_core::tier::Tier;

use crate::host::{OpenRun, Resume, Spending};
use crate::ledger::SpendBy;

/// `runs.open`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::daemon) struct OpenRunParams {
    /// What the run is for, shown to operators.
    #[serde(default)]
    label: String,
    #[serde(default)]
    contract: Option<ContractName>,
    #[serde(default)]
    workflow: Option<WorkflowName>,
    #[serde(default)]
    budget: Limits,
    #[serde(default)]
    tools: Option<Vec<String>>,
    #[serde(default)]
    max_tier: Option<Tier>,
    #[serde(default)]
    loops: Loops,
    #[serde(default)]
    over_budget: Option<OverBudget>,
}

impl From<OpenRunParams> for OpenRun {
    fn from(open: OpenRunParams) -> Self {
        let OpenRunParams { label, contract, workflow, budget, tools, max_tier, loops, over_budget } = open;
        Self { label, contract, workflow, narrowing: Narrowing { budget, tools, max_tier, loops, over_budget } }
    }
}

/// `runs.report`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::daemon) struct ReportRun {
    pub(in crate::daemon) run: RunId,
    pub(in crate::daemon) usage: ReportedUsage,
}

/// `runs.close`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::daemon) struct CloseRunParams {
    pub(in crate::daemon) run: RunId,
    /// What it came to.
    #[serde(default)]
    pub(in crate::daemon) outcome: Option<String>,
    /// Whether it is given up.
    #[serde(default)]
    pub(in crate::daemon) abandon: bool,
}

/// `runs.release`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::daemon) struct ReleaseRun {
    pub(in crate::daemon) run: RunId,
    /// How much more it may use.
    #[serde(default)]
    pub(in crate::daemon) more: Limits,
}

/// `budgets.spend`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::daemon) struct SpendParams {
    by: SpendBy,
    /// Today and so many days before it, less one.
    #[serde(default = "week")]
    days: u64,
}

const fn week() -> u64 {
    7
}

impl From<SpendParams> for Spending {
    fn from(spend: SpendParams) -> Self {
        Self { by: spend.by, days: spend.days }
    }
}

/// `budgets.resume`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::daemon) struct ResumeParams {
    #[serde(default)]
    ceiling: Option<String>,
    #[serde(default)]
    user: Option<UserName>,
    #[serde(default)]
    workflow: Option<WorkflowName>,
}

impl From<ResumeParams> for Resume {
    fn from(resume: ResumeParams) -> Self {
        Self { ceiling: resume.ceiling, user: resume.user, workflow: resume.workflow }
    }
}
