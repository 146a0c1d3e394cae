//! Budgets: what runs and ceilings have left, and whether a call fits.
//!
//! Reserve, execute, reconcile. A call reserves on the balances of its run and of every ceiling that it is under, all or none,
//! in memory; the reservation is enqueued for the ledger without waiting; the row of the call brings what it came to. Balances
//! are read from the ledger when they are first wanted. A call without a run touches nothing here unless the configuration has
//! ceilings or watches for spikes. Where the ledger fails, nothing is admitted.

pub mod account;
pub mod ceiling;
pub mod charge;
pub mod contracts;
mod holds;
pub mod run;
mod shelf;
mod spike;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::budget::{Amounts, Exceeded, Limits, Meter, OverBudget};
use toolkeep_core::call::{Mode, ReportedUsage};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, ContractName, RunId, SessionId, ToolName, WorkflowName};
use toolkeep_core::limit::ExecutionLimits;
use toolkeep_core::manifest::Manifest;
use toolkeep_core::price::Usd;
use toolkeep_core::principal::{Origin, Principal, SessionPath};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::spike::SpikeRule;
use toolkeep_core::tier::Tier;
use uuid::Uuid;

use crate::ambient::Ambient;
use crate::authenticate::Caller;
use crate::authenticate::standing::Standing;
use crate::ledger::{ChargeRow, ChargeState, Charged, FAILURES, Ledger, LedgerError, PauseRow, RunHold};
use crate::notify::{Event, Notify};
use crate::policy::RunFacts;
use account::{Account, Slot, Wanted, Whose};
use ceiling::Ceiling;
pub use charge::plan_amounts;
use charge::{Charge, Narrowed, Opening};
use contracts::ContractHandle;
use holds::Owed;
use run::{Asked, Run, no_open_run};
use shelf::Shelf;
use spike::Watched;

/// Milliseconds of a day, the period of ceilings; days begin at midnight UTC.
pub const DAY_MS: u64 = 86_400_000;
/// What a caller is told to wait where calls that run have reserved what is left, in milliseconds.
const RETRY_AFTER_MS: u64 = 250;

/// What operators configured.
#[derive(Debug, Clone, Default)]
pub struct BudgetConfig {
    /// Where contracts lie.
    pub contracts: Option<std::path::PathBuf>,
    /// The contract of runs that name none.
    pub default_contract: Option<ContractName>,
    /// Ceilings.
    pub ceilings: Vec<Ceiling>,
    /// When spending is far above what is usual.
    pub spike: Option<SpikeRule>,
}

/// Balances of everything. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budgets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    ambient: Ambient,
    notify: Notify,
    contracts: ContractHandle,
    config: BudgetConfig,
    shelf: Shelf,
    pauses: ArcSwap<Vec<PauseRow>>,
    /// One change of the pauses at a time.
    pausing: tokio::sync::Mutex<()>,
    /// Something was charged since the last look for spikes.
    active: AtomicBool,
    watched: tokio::sync::Mutex<Watched>,
    /// What is to be put on record of runs that broke their terms.
    owed: Mutex<VecDeque<Owed>>,
    /// One decision of an operator at a time.
    deciding: tokio::sync::Mutex<()>,
}

/// Who tells operators of an escalation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Nobody else: it is told as one.
    Now,
    /// Whoever found it: it is an event of another kind.
    Elsewhere,
}

/// A call that asks for room.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who acts.
    pub caller: &'a Caller,
    /// The call.
    pub call: CallId,
    /// The tool.
    pub tool: &'a ToolName,
    /// Its tier.
    pub tier: Tier,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// The canonical input.
    pub input: &'a str,
    /// Its digest.
    pub digest: Digest,
    /// The run.
    pub run: Option<RunId>,
    /// What the caller says that its model used.
    pub usage: Option<&'a ReportedUsage>,
    /// What the execution may use.
    pub limits: ExecutionLimits,
    /// Its deadline, in milliseconds.
    pub deadline_ms: u64,
}

/// How a call that was charged ended, as far as its run wants to know.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Commit or preview.
    pub mode: Mode,
    /// Whether it did what was asked, with its effects committed or without any.
    pub succeeded: bool,
    /// Why it did not.
    pub code: Option<Code>,
    /// Its canonical input.
    pub input: &'a Arc<str>,
}

impl Budgets {
    /// Open: contracts are read, pauses are looked up. Blocks for the folder of the contracts.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn open(
        config: BudgetConfig,
        ledger: Ledger,
        notify: Notify,
        ambient: Ambient,
    ) -> Result<Self, LedgerError> {
        let pauses = ledger.pauses().await?;
        let contracts = ContractHandle::open(config.contracts.clone());
        Ok(Self(Arc::new(Inner {
            shelf: Shelf::new(ledger.clone(), config.ceilings.clone()),
            ledger,
            ambient,
            notify,
            contracts,
            config,
            pauses: ArcSwap::from_pointee(pauses),
            pausing: tokio::sync::Mutex::default(),
            // What the last life spent was perhaps not looked at.
            active: AtomicBool::new(true),
            watched: tokio::sync::Mutex::default(),
            owed: Mutex::default(),
            deciding: tokio::sync::Mutex::default(),
        })))
    }

    /// The contracts.
    #[must_use]
    pub fn contracts(&self) -> &ContractHandle {
        &self.0.contracts
    }

    /// What operators configured.
    #[must_use]
    pub fn config(&self) -> &BudgetConfig {
        &self.0.config
    }

    /// Spending that is paused.
    #[must_use]
    pub fn pauses(&self) -> Arc<Vec<PauseRow>> {
        self.0.pauses.load_full()
    }

    /// Whether calls without a run are charged to something, too.
    fn metered(&self, session: &SessionPath) -> bool {
        !self.0.config.ceilings.is_empty()
            || self.0.config.spike.is_some()
            || session.ids().any(|session| self.0.shelf.purse(session).is_some())
    }

    /// A session may spend so much from now on, of which some is spent, in millionths of a dollar.
    pub fn bound(&self, session: SessionId, most: u64, used: Amounts, standing: Arc<Standing>) {
        let limits = Limits { cost_usd: Some(Usd::of_micro(most)), ..Limits::default() };
        self.0.shelf.give_purse(session, Account::new(Whose::Session, OverBudget::Stop, limits, used), standing);
    }

    /// A run of the caller's, open or not. Everybody else's looks missing.
    ///
    /// # Errors
    /// `not_found`, or the ledger cannot be read.
    pub async fn run(&self, caller: &Caller, id: RunId) -> Result<Arc<Run>, Refusal> {
        let found = self.0.shelf.run(id).await?;
        found.filter(|run| caller.owns(&run.principal, &run.origin)).ok_or_else(|| Refusal::not_found("run"))
    }

    /// A run of whomever, for the operator of its tenant.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn any_run(&self, id: RunId) -> Result<Option<Arc<Run>>, Refusal> {
        self.0.shelf.run(id).await
    }

    /// What policies are told of a run that is in memory, if it is the principal's own.
    #[must_use]
    pub fn facts(&self, principal: &Principal, origin: &Origin, id: Option<RunId>) -> RunFacts {
        let own = |run: &Arc<Run>| run.principal == *principal && run.origin.session.is_within(&origin.session);
        let Some(run) = id.and_then(|id| self.0.shelf.known(id)).filter(own) else { return RunFacts::default() };
        let balance = run.account.balance();
        let cost_left = balance.limits.left(Meter::Cost, &balance.used, &balance.reserved);
        let mut facts = RunFacts::of(run.workflow.as_ref(), run.terms.contract.as_ref());
        (facts.steps, facts.cost_left) = (balance.used.steps, cost_left);
        facts
    }

    /// The workflow of a run that is in memory.
    #[must_use]
    pub fn workflow(&self, id: Option<RunId>) -> Option<WorkflowName> {
        id.and_then(|id| self.0.shelf.known(id)).and_then(|run| run.workflow.clone())
    }

    /// Bring a run into memory, if a call names one: what is asked about it next is answered from there.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn look_up(&self, id: Option<RunId>) -> Result<(), Refusal> {
        match id {
            Some(id) => self.0.shelf.run(id).await.map(drop),
            None => Ok(()),
        }
    }

    /// A run begins.
    pub fn begin(&self, run: Run) {
        self.0.shelf.add(Arc::new(run));
    }

    fn charged(&self, (principal, origin): (&Principal, &Origin), run: Option<&Run>, at_ms: u64) -> Charged {
        Charged {
            tenant: principal.tenant.clone(),
            user: principal.user.clone(),
            workflow: run.and_then(|run| run.workflow.clone()),
            run: run.map(|run| run.id),
            session: origin.session.clone(),
            day: at_ms / DAY_MS,
        }
    }

    /// The balances that a call of this tier is charged to.
    async fn slots(&self, to: &Charged, run: Option<&Run>, tier: Tier) -> Result<Vec<Slot>, Refusal> {
        let mut slots = Vec::with_capacity(1 + self.0.config.ceilings.len());
        let binds = |over| Run::binds(over, tier);
        if let Some(run) = run {
            slots.push(Slot { account: Arc::clone(&run.account), binds: binds(run.terms.over_budget) });
        }
        for (at, ceiling) in self.0.config.ceilings.iter().enumerate() {
            if let Some(subject) = ceiling.subject(to) {
                let account = self.0.shelf.ceiling((at, ceiling), subject, to).await?;
                slots.push(Slot { account, binds: binds(ceiling.over) });
            }
        }
        let purses = to.session.ids().filter_map(|session| self.0.shelf.purse(session));
        slots.extend(purses.map(|account| Slot { account, binds: true }));
        Ok(slots)
    }

    /// Admit a call: within the terms of its run, and with room in every balance. Nothing where nothing is charged.
    ///
    /// # Errors
    /// `not_found`, `denied`, `gate_unmet`, `loop_detected`, `invalid_input`: the run does not take it. `budget_exceeded`.
    /// Or the ledger does not take the reservation.
    pub async fn admit(&self, asked: &Request<'_>) -> Result<Option<Arc<Charge>>, Refusal> {
        self.0.shelf.settle_refunds();
        let paused = !self.0.pauses.load().is_empty();
        let metered = self.metered(&asked.caller.origin().session);
        if asked.run.is_none() && !metered && !paused {
            return Ok(None);
        }
        let run = match asked.run {
            Some(id) => Some(self.run(asked.caller, id).await.map_err(|refusal| match refusal.code {
                Code::NotFound => no_open_run(),
                _ => refusal,
            })?),
            None => None,
        };
        let at_ms = self.0.ambient.now_ms();
        let to = self.charged(asked.caller.who(), run.as_deref(), at_ms);
        if let Some(run) = &run {
            let terms = Asked {
                tool: asked.tool,
                tier: asked.tier,
                input: asked.input,
                digest: asked.digest,
                reports: asked.usage.is_some(),
            };
            run.check(&terms).inspect_err(|refusal| self.refused(run, asked, refusal))?;
        }
        if paused {
            self.check_pauses(&to)?;
        }
        if run.is_none() && !metered {
            return Ok(None);
        }
        if let Some(usage) = asked.usage {
            self.report_to(&to, run.as_deref(), usage).await?;
        }
        let counted = Amounts { steps: 1, calls: 1, ..Amounts::default() };
        self.reserve(asked, run, to, (at_ms, counted)).await.map(Some)
    }

    /// Admit a call that waited and goes on: it was counted when it began.
    ///
    /// # Errors
    /// `budget_exceeded`, or the ledger does not take the reservation.
    pub async fn admit_again(&self, asked: &Request<'_>) -> Result<Option<Arc<Charge>>, Refusal> {
        self.0.shelf.settle_refunds();
        if asked.run.is_none() && !self.metered(&asked.caller.origin().session) {
            return Ok(None);
        }
        let run = match asked.run {
            Some(id) => Some(self.run(asked.caller, id).await?),
            None => None,
        };
        let at_ms = self.0.ambient.now_ms();
        let to = self.charged(asked.caller.who(), run.as_deref(), at_ms);
        self.reserve(asked, run, to, (at_ms, Amounts::default())).await.map(Some)
    }

    async fn reserve(
        &self,
        asked: &Request<'_>,
        run: Option<Arc<Run>>,
        to: Charged,
        (at_ms, counted): (u64, Amounts),
    ) -> Result<Arc<Charge>, Refusal> {
        let slots = self.slots(&to, run.as_deref(), asked.tier).await?;
        let requests = asked.manifest.http.iter().map(|grant| grant.requests).fold(0, u64::saturating_add);
        let most = Amounts { fuel: asked.limits.fuel, wall_ms: asked.deadline_ms, requests, ..Amounts::default() };
        let price = asked.manifest.price;
        let wanted = Wanted { fixed: counted, most, price };
        let reserved = account::reserve(&slots, &wanted)
            .map_err(|(account, exceeded)| self.over(&account, &exceeded, run.as_ref(), &to))?;
        let less = |most: u64, got: u64| (got < most).then_some(got);
        let charge = Arc::new(Charge::open(Opening {
            id: self.0.ambient.uuid_v7(),
            call: asked.call,
            tool: asked.tool.clone(),
            to,
            at_ms,
            price,
            slots,
            run,
            reserved,
            narrowed: Narrowed {
                fuel: less(most.fuel, reserved.fuel),
                wall_ms: less(most.wall_ms, reserved.wall_ms),
                requests: less(most.requests, reserved.requests),
            },
        }));
        if let Err(error) = self.0.ledger.charge(charge.reservation()) {
            charge.forget();
            return Err(error.refusal());
        }
        self.0.active.store(true, Ordering::Release);
        Ok(charge)
    }

    /// Reserve what a plan that was decided about would use; `waits` if it waits for people.
    ///
    /// # Errors
    /// `budget_exceeded`: nothing of the plan may be committed or held.
    pub fn afford(&self, charge: &Charge, plan: Amounts, waits: bool) -> Result<(), Refusal> {
        let plan = Amounts { approvals: u64::from(waits), ..plan };
        charge.plan(plan).map_err(|(account, exceeded)| self.over(&account, &exceeded, charge.run(), charge.to()))
    }

    /// Charge a stored plan that its owner wants committed; `calls` is 1 if the commit is a call of its own. Names the charge, if
    /// there is one: of several commits of one plan each is charged, and gives back its own.
    ///
    /// # Errors
    /// `budget_exceeded`: there is no room, or spending is paused. Or the ledger does not take the charge.
    pub async fn charge_stored(
        &self,
        who: (&Principal, &Origin),
        (call, run): (CallId, Option<RunId>),
        plan: Amounts,
        calls: u64,
    ) -> Result<Option<Uuid>, Refusal> {
        self.0.shelf.settle_refunds();
        let run = match run {
            Some(id) => self.0.shelf.run(id).await?,
            None => None,
        };
        let at_ms = self.0.ambient.now_ms();
        let to = self.charged(who, run.as_deref(), at_ms);
        self.check_pauses(&to)?;
        if run.is_none() && !self.metered(&to.session) {
            return Ok(None);
        }
        let slots = self.slots(&to, run.as_deref(), Tier::Irreversible).await?;
        let plan = Amounts { steps: calls, calls, ..plan };
        account::reserve_all(&slots, &plan)
            .map_err(|(account, exceeded)| self.over(&account, &exceeded, run.as_ref(), &to))?;
        let id = self.0.ambient.uuid_v7();
        let none = Amounts::default();
        let state = ChargeState::Settled;
        let row = ChargeRow { id, call: Some(call), tool: None, to, at_ms, state, execution: none, plan };
        let charged = self.0.ledger.charge(row);
        let used = if charged.is_ok() { plan } else { none };
        slots.iter().for_each(|slot| slot.account.settle(&plan, &used));
        self.0.active.store(true, Ordering::Release);
        charged.map(|()| Some(id)).map_err(|error| error.refusal())
    }

    /// What callers say that their models used. It is added up whatever the limits say; what comes next sees it.
    ///
    /// # Errors
    /// `invalid_input`, or the ledger does not take it.
    pub async fn report(&self, run: &Run, usage: &ReportedUsage) -> Result<(), Refusal> {
        self.0.shelf.settle_refunds();
        let to = self.charged((&run.principal, &run.origin), Some(run), self.0.ambient.now_ms());
        self.report_to(&to, Some(run), usage).await
    }

    async fn report_to(&self, to: &Charged, run: Option<&Run>, usage: &ReportedUsage) -> Result<(), Refusal> {
        if let Some((member, expected)) = usage.wrong() {
            return Err(Refusal::new(Code::InvalidInput, "a reported number makes no sense").field(
                format!("/usage/{member}"),
                "is too large or too long",
                expected,
            ));
        }
        let amounts = usage.amounts();
        if amounts == Amounts::default() {
            return Ok(());
        }
        let slots = self.slots(to, run, Tier::Irreversible).await?;
        let row = ChargeRow {
            id: self.0.ambient.uuid_v7(),
            call: None,
            tool: None,
            to: to.clone(),
            at_ms: self.0.ambient.now_ms(),
            state: ChargeState::Settled,
            execution: amounts,
            plan: Amounts::default(),
        };
        self.0.ledger.charge(row).map_err(|error| error.refusal())?;
        slots.iter().for_each(|slot| slot.account.settle(&Amounts::default(), &amounts));
        self.0.active.store(true, Ordering::Release);
        Ok(())
    }

    /// A call ended: its charge is closed, and its run remembers what it has to.
    pub fn close(&self, charge: &Charge, ended: &Ended<'_>) {
        charge.close();
        // Only now it is spending that a look for spikes sees.
        self.0.active.store(true, Ordering::Release);
        if let Some(run) = charge.run() {
            self.remember(run, charge.call(), charge.tool(), ended);
        }
    }

    /// What a run has to remember of a call that ended.
    pub fn remember(&self, run: &Run, call: CallId, tool: &ToolName, ended: &Ended<'_>) {
        if ended.succeeded && ended.mode == Mode::Commit {
            run.succeeded(call, tool, ended.input);
        } else if ended.code.is_some_and(|code| FAILURES.contains(&code)) {
            run.failed(tool);
        }
    }

    /// What is left in the tightest of the balances of a charge, JSON; nothing where nothing is bounded.
    #[must_use]
    pub fn remaining(&self, accounts: &[Arc<Account>]) -> Option<Arc<str>> {
        self.0.shelf.settle_refunds();
        let mut left = serde_json::Map::new();
        for meter in Meter::ALL {
            let least = accounts
                .iter()
                .filter_map(|account| {
                    let balance = account.balance();
                    balance.limits.left(meter, &balance.used, &balance.reserved)
                })
                .min();
            if let Some(least) = least {
                let told = if meter == Meter::Cost { json!(meter.text(least)) } else { json!(least) };
                left.insert(meter.word().to_owned(), told);
            }
        }
        (!left.is_empty()).then(|| Value::Object(left).to_string().into())
    }

    /// A call that its run does not take. What breaks the terms is an escalation.
    fn refused(&self, run: &Arc<Run>, asked: &Request<'_>, refusal: &Refusal) {
        if run.standing().0.is_some() || !matches!(refusal.code, Code::Denied | Code::GateUnmet | Code::LoopDetected) {
            return;
        }
        let facts = json!({"call": asked.call, "code": refusal.code, "input": asked.digest,
            "principal": run.principal, "run": run.id, "tool": asked.tool, "what": refusal.message});
        self.escalate(run, &facts, None, Telling::Now);
    }

    /// What a call that does not fit is told, and what else becomes of that.
    fn over(&self, account: &Account, exceeded: &Exceeded, run: Option<&Arc<Run>>, to: &Charged) -> Refusal {
        let whose = match &account.whose {
            Whose::Run => "the run's budget".to_owned(),
            Whose::Session => "the session's budget".to_owned(),
            Whose::Ceiling { name, subject, .. } => format!("the ceiling `{name}` of {subject} for today"),
        };
        if exceeded.may_pass() {
            let mut refusal =
                Refusal::new(Code::BudgetExceeded, format!("{whose} is reserved by calls that run: {exceeded}"))
                    .hint("wait for one of them to end, and call again")
                    .after_ms(RETRY_AFTER_MS);
            refusal.retryable = true;
            return refusal;
        }
        let message = format!("{whose} is used up: {exceeded}");
        if account.to_be_told() {
            let facts = json!({"balance": whose, "by": exceeded.by(), "limit": exceeded.limit,
                "meter": exceeded.meter.word(), "run": to.run, "tenant": to.tenant, "used": exceeded.used,
                "user": to.user, "workflow": to.workflow});
            tracing::warn!(%facts, "a budget is used up");
            self.0.notify.event(Event::BudgetExceeded, &to.tenant, facts.clone());
            let hold = RunHold { code: Code::BudgetExceeded, reason: message.as_str().into() };
            match (run, &account.whose) {
                (Some(run), Whose::Run) => {
                    let hold = (account.over == OverBudget::Hold).then_some(hold);
                    self.escalate(run, &facts, hold, Telling::Elsewhere);
                }
                _ => self.audit(&facts),
            }
        }
        let hint = match (account.over, &account.whose) {
            (_, Whose::Session) => "whoever delegated the session can delegate another one",
            (OverBudget::Stop, Whose::Run) => "close the run; a larger task needs a run with a larger budget",
            (OverBudget::Stop, Whose::Ceiling { .. }) => "go on tomorrow (UTC), or ask the operator",
            (OverBudget::Hold, Whose::Run) => "the run waits for an operator: `toolkeep runs release`",
            (OverBudget::Hold, Whose::Ceiling { .. }) => "it waits for an operator: `toolkeep budgets resume`",
            (OverBudget::Degrade, _) => "tools that only read may still be called",
        };
        Refusal::new(Code::BudgetExceeded, message).hint(hint)
    }

    fn audit(&self, facts: &Value) {
        if let Err(error) = self.0.ledger.audit(AuditKind::Budget, facts) {
            tracing::error!(%error, "a budget's end could not be put on record");
        }
    }

    fn check_pauses(&self, to: &Charged) -> Result<(), Refusal> {
        let pauses = self.0.pauses.load();
        let paused = pauses.iter().find(|pause| pause.tenant == to.tenant && pause.workflow == to.workflow);
        match paused {
            None => Ok(()),
            Some(pause) => Err(Refusal::new(Code::BudgetExceeded, format!("spending is paused: {}", pause.reason))
                .hint("an operator has to look at it and resume it with `toolkeep budgets resume`")),
        }
    }

    /// The balances of today of ceilings that concern this tenant and somebody has used.
    #[must_use]
    pub fn ceilings_in_use(&self, tenant: &toolkeep_core::id::TenantName) -> Vec<Arc<Account>> {
        self.0.shelf.settle_refunds();
        self.0.shelf.ceilings_of(tenant, self.0.ambient.now_ms() / DAY_MS)
    }

    /// Refunds that nobody waits for reach their balances, what is owed to the record reaches it, and sessions that ended are
    /// forgotten.
    pub fn keep_house(&self) {
        self.0.shelf.settle_refunds();
        self.pay();
        self.0.shelf.sweep(self.0.ambient.now_ms());
    }
}
