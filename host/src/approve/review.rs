//! Stored plans, looked at again: are they still what they were made with, and what do the policies of this moment say?
//!
//! The plan of a single call is asked about as when it was made, its call included. The plan of a transaction is asked about
//! once for each of its tools, each time as a whole; the strictest answer counts. A reversal is as strict as what it
//! reverses.

use std::collections::BTreeSet;
use std::sync::Arc;

use toolkeep_core::autonomy::Autonomy;
use toolkeep_core::call::Mode;
use toolkeep_core::plan::PlanStep;
use toolkeep_core::policy::{Facts, Verdict, floor, plan_tier};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::taint::Taint;
use toolkeep_core::tier::Tier;

use crate::approve::{UNDO_TOOL, is_transaction};
use crate::autonomy::Autonomies;
use crate::budget::Budgets;
use crate::catalog::Catalog;
use crate::config::Environment;
use crate::exposure::Exposures;
use crate::ledger::StoredPlan;
use crate::policy::{Circumstances, Matter, PlanFacts, Policies, RunFacts, ToolShape};

/// What is in force when a stored plan is looked at again.
#[derive(Debug)]
pub struct InForce {
    /// The tools.
    pub catalog: Arc<Catalog>,
    /// The policies.
    pub policies: Arc<Policies>,
    /// The kind of deployment.
    pub environment: Environment,
    /// Whether one person agrees alone.
    pub solo: bool,
    /// Bytes of before-contents that may be kept for undo.
    pub undo_bytes: u64,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// What runs have seen.
    pub exposures: Exposures,
    /// How far agents may go.
    pub autonomy: Arc<Autonomies>,
    /// What runs have used.
    pub budgets: Budgets,
}

/// A stored plan that was made with what is in force now.
#[derive(Debug)]
pub struct Review<'a> {
    stored: &'a StoredPlan,
    in_force: &'a InForce,
    /// The tools that it is asked about.
    tools: Vec<Arc<ToolShape>>,
    /// The canonical input of its call, where there is one.
    input: Option<&'a str>,
    declared: Tier,
    hold: Vec<String>,
}

impl<'a> Review<'a> {
    /// Check that the plan is young enough and was made with what is in force now.
    ///
    /// # Errors
    /// `stale_plan`, and what changed.
    pub fn of(stored: &'a StoredPlan, in_force: &'a InForce) -> Result<Self, Refusal> {
        let (plan, body) = (&stored.plan, stored.plan.body());
        let stale = |what: &str| Err(Refusal::new(Code::StalePlan, format!("{what} since the plan was made")));
        if in_force.now_ms >= plan.binding().expires_at_ms {
            return Err(Refusal::new(Code::StalePlan, "the plan has expired"));
        }
        if body.policy_set != in_force.policies.digest(&body.principal.tenant) {
            return stale("the policy changed");
        }
        if body.tool.as_str() == UNDO_TOOL {
            return Ok(Self::of_reversal(stored, in_force));
        }
        if is_transaction(plan) {
            let (declared, hold) = unchanged(&body.steps, &in_force.catalog)?;
            let names: BTreeSet<_> = body.steps.iter().map(|step| &step.tool).collect();
            let tools = names.into_iter().filter_map(|name| in_force.catalog.tool(name));
            let tools = tools.map(|tool| Arc::clone(&tool.shape)).collect();
            return Ok(Self { stored, in_force, tools, input: None, declared, hold });
        }
        let Some(tool) = in_force.catalog.tool(&body.tool) else { return stale("the tool was removed") };
        if tool.component.digest != body.component {
            return stale("the component of the tool changed");
        }
        if tool.manifest.digest != body.manifest {
            return stale("the manifest of the tool changed");
        }
        let (tools, hold) = (vec![Arc::clone(&tool.shape)], tool.manifest.hold.clone());
        Ok(Self { stored, in_force, tools, input: Some(&stored.call.row.input), declared: tool.tier, hold })
    }

    /// A reversal is decided about as strictly as what it reverses, whose component and manifest it carries. Reversing a
    /// reversal applies the first plan again, so nothing may become milder on the way.
    fn of_reversal(stored: &'a StoredPlan, in_force: &'a InForce) -> Self {
        let body = stored.plan.body();
        // A tool that is gone or changed cannot say how much consent it wanted: a human looks.
        let (reversed, hold) = if body.steps.is_empty() {
            let of_manifest: Vec<_> = in_force
                .catalog
                .tools()
                .filter(|tool| tool.manifest.digest == body.manifest && tool.component.digest == body.component)
                .collect();
            let tier = of_manifest.iter().map(|tool| tool.tier).max().unwrap_or(Tier::Consequential);
            (tier, of_manifest.first().map_or(Vec::new(), |tool| tool.manifest.hold.clone()))
        } else {
            unchanged(&body.steps, &in_force.catalog).unwrap_or((Tier::Consequential, Vec::new()))
        };
        let declared = plan_tier(&body.effects, in_force.undo_bytes).max(reversed).max(Tier::Reversible);
        let shape = ToolShape::internal(body.tool.clone(), declared, body.component, body.manifest);
        Self { stored, in_force, tools: vec![Arc::new(shape)], input: Some(&stored.call.row.input), declared, hold }
    }

    /// What no policy can make milder.
    #[must_use]
    pub fn floor(&self) -> Verdict {
        // An operator's own reversal is nobody's autonomy, and no run's.
        self.floor_with(Taint::NONE, Autonomy::Autonomous)
    }

    fn floor_with(&self, taint: Taint, autonomy: Autonomy) -> Verdict {
        let effects = &self.stored.plan.body().effects;
        let (declared, hold, undo_bytes) = (self.declared, &self.hold, self.in_force.undo_bytes);
        floor(&Facts { effects, declared, hold, undo_bytes, autonomy, taint })
    }

    /// What the plan had seen when it was made, and what its run has seen since.
    #[must_use]
    pub fn taint(&self) -> Taint {
        let plan = &self.stored.plan;
        // A run that is closed is in memory no more; what it has seen is on record.
        plan.body().taint.and(self.stored.run_taint).and(self.in_force.exposures.of(plan.binding().run).taint)
    }

    /// How far the agent may go with all of the tools.
    #[must_use]
    pub fn autonomy(&self) -> Autonomy {
        let principal = &self.stored.plan.body().principal;
        let levels = self.tools.iter().map(|tool| self.in_force.autonomy.of(principal, &tool.name));
        levels.min().unwrap_or_default()
    }

    /// The highest tier that is declared for its tools.
    #[must_use]
    pub const fn declared(&self) -> Tier {
        self.declared
    }

    /// What is known of the run, if it is in memory.
    fn run_facts(&self) -> RunFacts {
        let (plan, row) = (&self.stored.plan, &self.stored.call.row);
        self.in_force.budgets.facts(&plan.body().principal, &row.origin, plan.binding().run)
    }

    /// The verdict of this moment.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let (taint, autonomy) = (self.taint(), self.autonomy());
        let floor = self.floor_with(taint, autonomy);
        if matches!(floor, Verdict::Nothing | Verdict::Deny { .. }) {
            return floor;
        }
        let (body, policies) = (self.stored.plan.body(), &self.in_force.policies);
        let around = Circumstances::now(self.in_force.now_ms, self.in_force.environment, Mode::Commit)
            .of_run(self.stored.plan.binding().run)
            .by(&self.stored.call.row.origin)
            .tainted(taint)
            .as_far_as(autonomy)
            .knowing(self.run_facts());
        self.tools.iter().fold(floor, |verdict, tool| {
            let plan = PlanFacts {
                effects: &body.effects,
                reads: body.read_set.len(),
                segment: body.segment,
                declared: tool.tier,
                hold: &self.hold,
                undo_bytes: self.in_force.undo_bytes,
            };
            let call = Matter { input: self.input, plan: None, around };
            let said = policies.judge(&body.principal, tool, &Matter { plan: Some(plan), ..call });
            let verdict = verdict.stricter(said.verdict());
            // What the policies demand of a call in a transaction was asked when it was staged.
            match self.input {
                Some(_) => verdict.stricter(policies.judge(&body.principal, tool, &call).verdict()),
                None => verdict,
            }
        })
    }
}

/// The strictest tier of the tools of a transaction and every kind of effect that one of their manifests holds, after
/// checking that each is still what it was when it was called.
///
/// # Errors
/// `stale_plan`: a tool was removed, or its component or manifest changed.
pub fn unchanged(steps: &[PlanStep], catalog: &Catalog) -> Result<(Tier, Vec<String>), Refusal> {
    let (mut tier, mut hold) = (Tier::ReadOnly, BTreeSet::new());
    for step in steps {
        let stale = |what: &str| {
            let message = format!("`{}` {what} since the transaction called it", step.tool);
            Refusal::new(Code::StalePlan, message).hint("begin another transaction")
        };
        let Some(tool) = catalog.tool(&step.tool) else { return Err(stale("was removed")) };
        if tool.component.digest != step.component {
            return Err(stale("got another component"));
        }
        if tool.manifest.digest != step.manifest {
            return Err(stale("got another manifest"));
        }
        tier = tier.max(tool.tier);
        hold.extend(tool.manifest.hold.iter().cloned());
    }
    Ok((tier, hold.into_iter().collect()))
}
