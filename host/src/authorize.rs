//! Stage 3, authorize: from a [`Call`] to a [`Grant`], what this caller may do with this tool.
//!
//! A grant is the intersection of what the manifest allows, what the caller's tenant owns, what the caller's credential holds
//! and what the daemon's limits leave, if the policies permit the call at all. It is a thing that later stages need in hand, not an answer that they could
//! forget to ask for. What the policies demand besides goes with it, and the digest of their set stands in every plan.

use std::sync::Arc;
use std::time::Duration;

use toolkeep_core::call::Mode;
use toolkeep_core::capability::{Access, FileGrant};
use toolkeep_core::digest::Digest;
use toolkeep_core::limit::ExecutionLimits;
use toolkeep_core::policy::Verdict;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::tier::Tier;
use toolkeep_sandbox::stage::Mount;

use crate::catalog::Tool;
use crate::policy::{Circumstances, Judgement, Matter, Policies};
use crate::validate::Call;
use crate::workspaces::Workspaces;

/// Proof: what an authorized call may do.
#[derive(Debug)]
pub struct Grant {
    call: Call,
    mounts: Vec<Mount>,
    limits: ExecutionLimits,
    deadline: Duration,
    tier: Tier,
    policy_set: Digest,
    judgement: Arc<Judgement>,
}

impl Grant {
    /// The call that it is for.
    #[must_use]
    pub const fn call(&self) -> &Call {
        &self.call
    }

    /// Workspaces with what may be done in each.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// What the execution may use.
    #[must_use]
    pub const fn limits(&self) -> ExecutionLimits {
        self.limits
    }

    /// The deadline of the execution: the manifest's, or a shorter one that the caller asked for.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// With no more fuel and time than a budget leaves.
    #[must_use]
    pub fn narrowed(mut self, fuel: Option<u64>, wall_ms: Option<u64>) -> Self {
        self.limits.fuel = fuel.map_or(self.limits.fuel, |fuel| fuel.min(self.limits.fuel));
        self.deadline = wall_ms.map_or(self.deadline, |wall_ms| Duration::from_millis(wall_ms).min(self.deadline));
        self
    }

    /// The tier that the manifest declares for the tool.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// Which policy set granted it.
    #[must_use]
    pub const fn policy_set(&self) -> Digest {
        self.policy_set
    }

    /// Whether the call may be answered although it changes nothing.
    ///
    /// # Errors
    /// `denied`: the policies demand consent to it, and there is no plan that somebody could consent to.
    pub fn without_plan(&self) -> Result<(), Refusal> {
        match self.call.options().mode {
            Mode::Commit => consentless(&self.judgement),
            Mode::Preview => Ok(()),
        }
    }

    /// What the policies said to the call: it is allowed, be it with obligations.
    #[must_use]
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }
}

/// Consent is given to a plan. A call that has none must not be answered as if nobody had asked for consent.
fn consentless(judgement: &Judgement) -> Result<(), Refusal> {
    match judgement.verdict() {
        Verdict::Hold(_) => {
            Err(Refusal::new(Code::Denied, "the policies demand consent to a call that changes nothing")
                .hint("consent is given to plans, and this call has none; ask the operator to permit or forbid it"))
        }
        Verdict::Nothing | Verdict::Commit | Verdict::Preview { .. } | Verdict::Deny { .. } => Ok(()),
    }
}

/// Decide what the call may do.
///
/// # Errors
/// `denied`: the caller's credential does not hold the tool, its tier or a workspace of it; no policy permits the call, or one
/// forbids it; or the manifest names a workspace that the caller's tenant does not have.
pub fn authorize(
    workspaces: &Workspaces,
    policies: &Policies,
    call: Call,
    around: Circumstances,
) -> Result<Grant, Refusal> {
    let tool = Arc::clone(call.tool());
    let principal = call.caller().principal();
    check_held(&call, &tool)?;
    let matter = Matter { input: Some(call.input()), plan: None, around };
    let judgement = policies.judge(principal, &tool.shape, &matter);
    if !judgement.allowed() {
        return Err(Refusal::new(Code::Denied, judgement.why_not())
            .hint("nothing was run; ask the operator if you should be allowed to call this"));
    }
    if tool.tier == Tier::ReadOnly {
        consentless(&judgement)?;
    }
    // A transaction is consented to as a whole, so what is demanded for one call of it would be lost.
    if call.options().transaction.is_some() && judgement.verdict() != Verdict::Commit {
        return Err(Refusal::new(Code::Denied, "the policies demand consent to this very call")
            .hint("make it alone, outside of a transaction"));
    }
    let tenant = &principal.tenant;
    let mut mounts = Vec::with_capacity(tool.manifest.files.len());
    for grant in &tool.manifest.files {
        let Some(root) = workspaces.of(tenant, &grant.workspace) else {
            return Err(Refusal::new(
                Code::Denied,
                format!("`{}` needs the workspace `{}`, which you do not have", tool.name, grant.workspace),
            )
            .hint("ask the operator to add the workspace to the configuration"));
        };
        let Some(most) = call.caller().access(&grant.workspace) else {
            let message =
                format!("`{}` needs the workspace `{}`, which this session does not hold", tool.name, grant.workspace);
            return Err(Refusal::new(Code::Denied, message).hint(HELD_HINT));
        };
        mounts.push(Mount { root: Arc::clone(root).into(), grant: narrowed(grant, tool.tier, most) });
    }
    let limits = tool.manifest.limits;
    let wanted = call.options().deadline_ms.unwrap_or(limits.deadline_ms);
    let deadline = Duration::from_millis(wanted.min(limits.deadline_ms));
    Ok(Grant { tier: tool.tier, mounts, limits, deadline, policy_set: policies.digest(tenant), judgement, call })
}

/// What a caller is told whose credential holds less than its principal.
const HELD_HINT: &str = "nothing was run; `session.get` tells what this session holds";

/// Whether the caller's credential holds the tool and its tier. What a principal may do is for the policies to say.
fn check_held(call: &Call, tool: &Tool) -> Result<(), Refusal> {
    let Some(held) = call.caller().held() else { return Ok(()) };
    let denied = |message: String| Err(Refusal::new(Code::Denied, message).hint(HELD_HINT));
    if !held.holds_tool(&tool.name) {
        return denied(format!("this session does not hold `{}`", tool.name));
    }
    if !held.holds_tier(tool.tier) {
        let (tier, most) = (tool.tier.number(), held.max_tier.number());
        return denied(format!("`{}` is of tier {tier}, and this session holds tools up to tier {most}", tool.name));
    }
    Ok(())
}

/// A tier-0 tool never gets a writable grant, even where its component shares a manifest with writing tools, nor does
/// anybody whose credential only lets read there.
///
/// The attempt then fails inside the guest and is recorded as a breach.
fn narrowed(grant: &FileGrant, tier: Tier, most: Access) -> FileGrant {
    let mut narrowed = grant.clone();
    narrowed.access = if tier == Tier::ReadOnly { Access::Read } else { grant.access.min(most) };
    narrowed
}
