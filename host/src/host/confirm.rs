//! Confirmations: what whoever uses the agent may be asked about a plan that waits, and what the answer is worth.
//!
//! The question goes to the client of the agent, and so does the answer: an agent could give it by itself. So an answer is
//! counted where a policy says that it is enough, for a plan that can be undone, and nowhere else ([`Need::confirmable`]);
//! that is asked again when the answer comes. It is made from typed effects, never from what an agent or a tool says
//! about them, and names every one of them: a plan that is longer than a person reads is not confirmed, but looked at.
//!
//! [`Need::confirmable`]: toolkeep_core::policy::Need::confirmable

use toolkeep_core::digest::Digest;
use toolkeep_core::id::ApprovalId;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::render::line;

use super::consent::{Voter, still_pending};
use super::{Host, PlanName};
use crate::approve;
use crate::authenticate::Caller;
use crate::ledger::approval::ApprovalState;
use crate::ledger::{Raised, Scope, StoredApproval, StoredPlan, Via};
use crate::record::Answer;

/// Effects that a question names at most: what fits into a dialog.
const EFFECTS_MAX: usize = 20;
/// Longest question, in bytes: paths may be long.
const QUESTION_MAX_BYTES: usize = 4_096;
/// What stands in the record as the reason of an answer.
const CONFIRMED: &str = "confirmed through the client of the agent";
/// See [`CONFIRMED`].
const DECLINED: &str = "declined through the client of the agent";

/// What may be asked about a plan that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The seal of the plan that it is about.
    pub seal: Digest,
    /// For a person: the tool and what it wants to change. It promises nothing about it; see [`Question::message`].
    pub text: String,
    /// Whether the answer is enough, so that it makes sense to ask.
    pub confirmable: bool,
    /// Where people decide about it in a browser, if the operator says so.
    pub page: Option<String>,
    /// Until when it waits, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

impl Question {
    /// What is asked by a form, or stands beside the address of the page. Only where the answer is enough it is said that the plan
    /// can be undone: everywhere else it may be of any tier.
    #[must_use]
    pub fn message(&self, by_page: bool) -> String {
        let last = match (by_page, self.confirmable) {
            (false, true) => "Commit exactly this? It can be undone.",
            (true, _) => "People decide about it on this page.",
            (false, false) => "People decide about it.",
        };
        format!("{}\n{last}", self.text)
    }
}

impl Host {
    /// What may be asked about a plan of the caller's own.
    ///
    /// # Errors
    /// `not_found`; `approval_rejected`, `approval_expired`, `stale_plan`: nobody waits for an answer.
    pub async fn question(&self, caller: &Caller, id: ApprovalId) -> Result<Question, Refusal> {
        let (_, approval, stored) = self.asked_about(caller, id).await?;
        still_pending(&approval)?;
        let text = text_of(&stored);
        let confirmable = self.confirmable(&stored)? && text.is_some();
        Ok(Question {
            seal: stored.plan.seal_digest(),
            text: text.unwrap_or_else(|| headline(&stored)),
            confirmable,
            page: self.config().approval_page.as_ref().map(|page| page.of(id)),
            expires_at_ms: approval.row.expires_at_ms,
        })
    }

    /// Take the answer of whoever uses the agent to a plan of the caller's own, as long as it is still the plan of this `seal`
    /// and nobody answered before; what the call has come to.
    ///
    /// # Errors
    /// `denied`: such an answer is not enough for this plan. `stale_plan`: it is another plan. `not_found`. `unauthorized`: the
    /// caller's credential was taken back, or expired, since the question.
    pub async fn confirm(&self, caller: &Caller, id: ApprovalId, seal: Digest, yes: bool) -> Result<Answer, Refusal> {
        let open = self.accepting()?;
        // Whoever asked may have been somebody; whoever answers has to be.
        caller.check(|| self.now_ms())?;
        let (scope, approval, stored) = self.asked_about(caller, id).await?;
        if stored.plan.seal_digest() != seal {
            return Err(Refusal::new(Code::StalePlan, "the question was about another plan"));
        }
        // Said twice, or after somebody else: the first answer stands.
        if approval.state == ApprovalState::Pending {
            if !self.confirmable(&stored)? {
                return Err(Refusal::new(Code::Denied, "people have to agree to this plan, and not through the agent")
                    .hint("wait for them with `toolkeep.wait`"));
            }
            let principal = caller.principal();
            let (user, tenant) = (principal.user.clone(), principal.tenant.clone());
            let voter = Voter { user, tenant, via: Via::Client };
            let host = self.clone();
            if yes {
                self.may_settle(&stored.plan).await?;
                caller.check(|| self.now_ms())?;
                let deciding = async move {
                    let _open = open;
                    host.agree((&voter, &scope), &approval, CONFIRMED, Raised::NOT).await
                };
                self.to_the_end(deciding).await?;
            } else {
                let deciding = async move {
                    let _open = open;
                    host.refuse(&voter, &approval, DECLINED).await
                };
                self.to_the_end(deciding).await?;
            }
        }
        self.wait_approval(caller, id, 0).await
    }

    async fn asked_about(
        &self,
        caller: &Caller,
        id: ApprovalId,
    ) -> Result<(Scope, StoredApproval, StoredPlan), Refusal> {
        let approval = self.own_approval(caller, id).await?;
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let stored = self.stored_plan(&scope, PlanName::Id(approval.plan)).await?;
        Ok((scope, approval, stored))
    }

    /// Whether the answer of whoever uses the agent is enough by now.
    fn confirmable(&self, stored: &StoredPlan) -> Result<bool, Refusal> {
        let in_force = self.in_force();
        let Some(need) = approve::need(stored, &in_force)? else { return Ok(false) };
        approve::confirmable(stored, &need, &in_force)
    }
}

fn headline(stored: &StoredPlan) -> String {
    let totals = stored.plan.totals();
    let effects = if totals.effects == 1 { "1 effect".to_owned() } else { format!("{} effects", totals.effects) };
    format!("`{}` wants to commit a plan of {effects} ({})", stored.plan.body().tool, stored.plan.digest().short())
}

/// Every effect in a line of its own; nothing if that is more than a person reads in a dialog.
fn text_of(stored: &StoredPlan) -> Option<String> {
    let effects = &stored.plan.body().effects;
    if effects.len() > EFFECTS_MAX {
        return None;
    }
    let lines: String = effects.iter().map(|effect| format!("\n- {}", line(effect))).collect();
    let text = format!("{}:{lines}", headline(stored));
    (text.len() <= QUESTION_MAX_BYTES).then_some(text)
}
