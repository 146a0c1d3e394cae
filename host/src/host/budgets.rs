//! Budgets on the path and on the admin plane: what a plan may use, what became of a charge, what was spent.

use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::budget::{Amounts, Limits, Meter};
use toolkeep_core::call::{Mode, Outcome, Status};
use toolkeep_core::id::{CallId, RunId, UserName, WorkflowName};
use toolkeep_core::manifest::Manifest;
use toolkeep_core::plan::Plan;
use toolkeep_core::policy::Need;
use toolkeep_core::principal::{Origin, Principal, SessionPath};
use toolkeep_core::refusal::{Code, Refusal};
use uuid::Uuid;

use super::Host;
use crate::approve::{self, Consent, UNDO_TOOL, UndoInput};
use crate::authenticate::Operator;
use crate::budget::account::{Account, Balance, Whose};
use crate::budget::charge::Charge;
use crate::budget::{DAY_MS, Ended as Finished, Telling, plan_amounts};
use crate::decide::Decision;
use crate::ledger::{Charged, SpendBy, SpendQuery, StoredPlan};
use crate::record::{Answer, Entry};

/// Most days that one question about spending covers.
const SPEND_DAYS_MAX: u64 = 3_660;

/// What a stored plan is charged when its owner wants it committed.
#[derive(Debug)]
struct StoredCharge {
    principal: Principal,
    origin: Origin,
    call: CallId,
    run: Option<RunId>,
    plan: Amounts,
    /// 1 where the commit is a call of its own.
    calls: u64,
}

/// Which spending an operator asks for.
#[derive(Debug, Clone, Copy)]
pub struct Spending {
    /// Added up by what.
    pub by: SpendBy,
    /// Of how many days, today included.
    pub days: u64,
}

/// What an operator resumes.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// A ceiling that is used up; paused spending if absent.
    pub ceiling: Option<String>,
    /// Of this person, where the ceiling is one for each.
    pub user: Option<UserName>,
    /// Of this workflow; of what has none if absent.
    pub workflow: Option<WorkflowName>,
}

/// Whether a call did what was asked, as far as gates ask.
fn succeeded(answer: &Answer) -> bool {
    answer.status == Status::Ok && matches!(answer.outcome, Outcome::None | Outcome::Committed)
}

impl Host {
    /// Reserve what a plan that was decided about would use; `over` if its call does not execute any more.
    ///
    /// # Errors
    /// `budget_exceeded`: the plan is thrown away.
    pub(crate) fn afford(&self, entry: &Entry, decision: &Decision, over: bool) -> Result<(), Refusal> {
        let Some(charge) = entry.charge() else { return Ok(()) };
        let waits = match decision {
            Decision::Commit(_) => false,
            Decision::Hold { .. } => true,
            Decision::Nothing(_) | Decision::Preview(_) | Decision::Deny { .. } => return Ok(()),
        };
        let planned = decision.planned();
        if over {
            entry.shrink(self.ambient().now_ms());
        }
        let manifest = &planned.ticket().grant().call().tool().manifest;
        let plan = plan_amounts(&planned.plan().body().effects, &[manifest]);
        self.budgets().afford(charge, plan, waits)
    }

    /// A call ended: its charge is closed, and its answer says what is left.
    pub(crate) fn reconcile(&self, entry: &Ended<'_>, mut answer: Answer) -> Answer {
        if let Some(charge) = &entry.charge {
            let ended =
                Finished { mode: entry.mode, succeeded: succeeded(&answer), code: answer.code, input: entry.input };
            self.budgets().close(charge, &ended);
            let accounts: Vec<Arc<Account>> = charge.accounts().cloned().collect();
            answer.budget = self.budgets().remaining(&accounts);
        }
        answer
    }

    /// A call of a run tested a boundary: it counts against the terms of the run, too.
    pub(crate) fn breached(&self, entry: &Entry, what: &str) {
        let Some(run) = entry.charge().and_then(|charge| charge.run()) else { return };
        let row = entry.row();
        let facts = json!({"call": row.call, "code": Code::Denied, "principal": row.principal, "run": run.id,
            "tool": row.tool, "what": what});
        self.budgets().escalate(run, &facts, None, Telling::Elsewhere);
    }

    fn stored_charge(&self, stored: &StoredPlan, calls: u64) -> Option<StoredCharge> {
        let body = stored.plan.body();
        if body.tool.as_str() == UNDO_TOOL {
            return None;
        }
        let catalog = self.catalog().current();
        let names = std::iter::once(&body.tool).chain(body.steps.iter().map(|step| &step.tool));
        let tools: Vec<_> = names.filter_map(|name| catalog.tool(name)).collect();
        let manifests: Vec<&Manifest> = tools.iter().map(|tool| &*tool.manifest).collect();
        Some(StoredCharge {
            principal: body.principal.clone(),
            origin: stored.call.row.origin.clone(),
            call: stored.call.row.call,
            run: stored.plan.binding().run,
            plan: plan_amounts(&body.effects, &manifests),
            calls,
        })
    }

    async fn charge_stored(&self, charge: &StoredCharge) -> Result<Option<Uuid>, Refusal> {
        let (who, of) = ((&charge.principal, &charge.origin), (charge.call, charge.run));
        self.budgets().charge_stored(who, of, charge.plan, charge.calls).await
    }

    /// Whether nothing holds a run of which something is to be committed by its owner. Reversals of its calls wait as well.
    ///
    /// # Errors
    /// What holds it.
    pub(super) async fn goes_on(&self, run: Option<RunId>) -> Result<(), Refusal> {
        let Some(run) = run else { return Ok(()) };
        self.check_hold(Some(run))?;
        match self.budgets().any_run(run).await? {
            Some(run) => run.goes_on(),
            None => Ok(()),
        }
    }

    async fn give_back(&self, charge: Uuid) {
        if let Err(error) = self.ledger().refund(charge).await {
            tracing::error!(%error, %charge, "what a plan does not use could not be given back");
        }
    }

    /// What the consent to a stored plan charges for. A held plan was charged when it was held, a reversal is not.
    ///
    /// # Errors
    /// `budget_exceeded`; or the run is held, and nobody but its owner wants the plan.
    pub(crate) async fn charge_consent(&self, consent: &Consent) -> Result<Option<Uuid>, Refusal> {
        let (stored, calls) = match consent {
            Consent::Owner(stored) | Consent::Standing(stored, _) => (stored, 0),
            Consent::Transaction(stored) => (stored, 1),
            Consent::People(_) | Consent::Operator(_) => return Ok(None),
        };
        self.goes_on(stored.plan.binding().run).await?;
        match self.stored_charge(stored, calls) {
            Some(charge) => self.charge_stored(&charge).await,
            None => Ok(None),
        }
    }

    /// A stored plan was settled, or was not: give back what was charged for it, and let its run remember. An answer that is
    /// given again tells of a commit that was charged by itself.
    pub(crate) async fn after_stored(&self, charged: Option<Uuid>, plan: &Plan, input: &Arc<str>, answer: &Answer) {
        let stands = matches!(answer.outcome, Outcome::Committed | Outcome::Unknown | Outcome::Halted);
        if let Some(charge) = charged.filter(|_| answer.replayed || !stands) {
            self.give_back(charge).await;
        }
        if answer.replayed {
            return;
        }
        let Some(run) = plan.binding().run else { return };
        let Ok(Some(run)) = self.budgets().any_run(run).await else { return };
        let (call, body) = (plan.binding().call, plan.body());
        if body.tool.as_str() != UNDO_TOOL {
            let ended = Finished { mode: Mode::Commit, succeeded: succeeded(answer), code: None, input };
            self.budgets().remember(&run, call, &body.tool, &ended);
        } else if answer.outcome == Outcome::Committed
            && let Ok(undone) = serde_json::from_str::<UndoInput>(input)
        {
            run.undone(undone.call);
        }
    }

    /// Hold a plan that was only previewed so far, with room for it in every budget. `calls` as in [`Self::charge_consent`].
    ///
    /// # Errors
    /// `budget_exceeded`, or the plan cannot be held.
    pub(crate) async fn hold_stored(&self, stored: StoredPlan, need: &Need, calls: u64) -> Result<Answer, Refusal> {
        self.goes_on(stored.plan.binding().run).await?;
        let mut charged = None;
        if let Some(mut charge) = self.stored_charge(&stored, calls) {
            charge.plan.approvals = 1;
            charged = self.charge_stored(&charge).await?;
        }
        let held = approve::hold_stored(&self.plan_store(), stored, need).await;
        if let (Err(_), Some(charge)) = (&held, charged) {
            self.give_back(charge).await;
        }
        held
    }

    /// The budgets of the operator's tenant: contracts, ceilings of today, and what is paused.
    ///
    /// # Errors
    /// None so far; the shape is that of its neighbours.
    pub fn budgets_show(&self, operator: &Operator) -> Result<Value, Refusal> {
        let contracts = self.budgets().contracts().current();
        let own: Vec<Value> = contracts
            .all()
            .filter(|contract| contract.is_for(operator.tenant()))
            .map(|contract| json!({"name": contract.name, "workflow": contract.workflow, "terms": contract.terms}))
            .collect();
        let config = self.budgets().config();
        let ceilings: Vec<Value> = config
            .ceilings
            .iter()
            .filter(|ceiling| ceiling.concerns(operator.tenant()))
            .map(|ceiling| json!({"name": &*ceiling.name, "limits": ceiling.limits, "over_budget": ceiling.over}))
            .collect();
        let used: Vec<Value> =
            self.budgets().ceilings_in_use(operator.tenant()).iter().map(|account| balance_line(account)).collect();
        let pauses = self.budgets().pauses();
        let paused: Vec<Value> = pauses
            .iter()
            .filter(|pause| pause.tenant == *operator.tenant())
            .map(|pause| json!({"workflow": pause.workflow, "reason": &*pause.reason, "since_ms": pause.at_ms}))
            .collect();
        Ok(json!({"contracts": own, "default_contract": config.default_contract, "problems": contracts.problems(),
            "ceilings": ceilings, "today": used, "paused": paused}))
    }

    /// What the operator's tenant spent.
    ///
    /// # Errors
    /// `invalid_input`, or the ledger cannot be read.
    pub async fn budgets_spend(&self, operator: &Operator, asked: Spending) -> Result<Value, Refusal> {
        if !(1..=SPEND_DAYS_MAX).contains(&asked.days) {
            return Err(Refusal::new(Code::InvalidInput, "so many days cannot be added up").field(
                "/days",
                format!("is {}", asked.days),
                format!("1 to {SPEND_DAYS_MAX}"),
            ));
        }
        let today = self.ambient().now_ms() / DAY_MS;
        let query = SpendQuery {
            tenant: operator.tenant().clone(),
            by: asked.by,
            since_day: today.saturating_sub(asked.days - 1),
            until_day: today,
        };
        let lines = self.ledger().spending(query).await.map_err(|error| error.refusal())?;
        let lines: Vec<Value> = lines
            .iter()
            .map(|line| {
                let mut value = amounts(&line.amounts);
                if let Value::Object(members) = &mut value {
                    let name = match asked.by {
                        SpendBy::Day => json!(line.name.parse::<u64>().map_or(0, |day| day * DAY_MS)),
                        _ => json!(line.name),
                    };
                    members.insert("name".to_owned(), name);
                    members.insert("runs".to_owned(), json!(line.runs));
                    let all = line.amounts.cost.saturating_add(line.amounts.reported_cost);
                    let each = all.checked_div(line.runs).map(|each| Meter::Cost.text(each));
                    members.insert("cost_usd_per_run".to_owned(), json!(each));
                }
                value
            })
            .collect();
        Ok(json!({"by": asked.by, "days": asked.days, "lines": lines}))
    }

    /// Resume paused spending, or let a ceiling allow itself once more today.
    ///
    /// # Errors
    /// `not_found`: nothing of that kind is paused, or there is no such ceiling. Or the ledger failed.
    pub async fn budgets_resume(&self, operator: &Operator, resume: Resume) -> Result<Value, Refusal> {
        let (tenant, by) = (operator.tenant(), operator.user().as_str());
        if let Some(name) = &resume.ceiling {
            let to = Charged {
                tenant: tenant.clone(),
                user: resume.user.unwrap_or_else(|| operator.user().clone()),
                workflow: resume.workflow,
                run: None,
                session: SessionPath::default(),
                day: self.ambient().now_ms() / DAY_MS,
            };
            return self.budgets().allow_again(name, &to, by).await;
        }
        if self.budgets().resume(tenant, resume.workflow.as_ref(), by).await? {
            return Ok(json!({"resumed": true, "workflow": resume.workflow}));
        }
        Err(Refusal::not_found("pause").hint("`toolkeep budgets show` lists what is paused"))
    }

    /// Let a held run go on, with a larger budget if `more` says so.
    ///
    /// # Errors
    /// `not_found`; `invalid_input`: nothing holds it and there is nothing more. Or the ledger failed.
    pub async fn release_run(&self, operator: &Operator, run: RunId, more: Limits) -> Result<Value, Refusal> {
        let found = self.budgets().any_run(run).await?;
        let found = found.filter(|run| run.principal.tenant == *operator.tenant() && run.is_open());
        let run = found.ok_or_else(|| Refusal::not_found("open run"))?;
        if let Err(meter) = more.check() {
            return Err(Refusal::new(Code::InvalidInput, "so much cannot be meant").field(
                format!("/more/{}", meter.word()),
                "is too large",
                "less",
            ));
        }
        let tried = self.0.exposures.of(Some(run.id)).breaches;
        self.budgets().release(&run, &more, operator.user().as_str()).await?;
        self.0.exposures.pardon(run.id, tried);
        Ok(json!({"run": run.id, "released": true, "budget": balance(&run.account.balance())}))
    }
}

/// What is known of a call when it ends.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    /// What it is charged to.
    pub(crate) charge: Option<Arc<Charge>>,
    /// Commit or preview.
    pub(crate) mode: Mode,
    /// Its canonical input.
    pub(crate) input: &'a Arc<str>,
}

/// Amounts as replies show them: what is metered, and apart from it what was reported.
pub(super) fn amounts(amounts: &Amounts) -> Value {
    json!({
        "steps": amounts.steps, "calls": amounts.calls, "wall_ms": amounts.wall_ms, "fuel": amounts.fuel,
        "cost_usd": Meter::Cost.text(amounts.cost), "bytes_written": amounts.bytes_written,
        "requests": amounts.requests, "approvals": amounts.approvals,
        "reported": {"tokens": amounts.tokens, "cost_usd": Meter::Cost.text(amounts.reported_cost)},
    })
}

/// A balance as replies show it.
pub(super) fn balance(balance: &Balance) -> Value {
    let left = |meter: Meter| balance.limits.left(meter, &balance.used, &balance.reserved);
    let left: serde_json::Map<String, Value> = Meter::ALL
        .into_iter()
        .filter_map(|meter| {
            let left = left(meter)?;
            let told = if meter == Meter::Cost { json!(meter.text(left)) } else { json!(left) };
            Some((meter.word().to_owned(), told))
        })
        .collect();
    json!({"limits": balance.limits, "used": amounts(&balance.used), "reserved": amounts(&balance.reserved), "left": left})
}

fn balance_line(account: &Account) -> Value {
    let mut value = balance(&account.balance());
    if let (Value::Object(members), Whose::Ceiling { name, subject, day }) = (&mut value, &account.whose) {
        members.insert("ceiling".to_owned(), json!(&**name));
        members.insert("subject".to_owned(), json!(&**subject));
        members.insert("day_ms".to_owned(), json!(day * DAY_MS));
    }
    value
}
