//! Stopping: who may set and clear a kill switch, what ends when one is set, and what goes on when it is cleared.
//!
//! A switch counts from the moment at which it is set, not from when it is on the disk: setting it waits for the disk, but
//! nothing that it stops waits with it. Clearing goes the other way round. An operator stops what belongs to the own tenant;
//! the global level and other tenants are for those whom the configuration names, as soon as there is more than one
//! tenant. A signal and a file stop everything without a connection.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::delivery::DeliveryKind;
use toolkeep_core::display::visible;
use toolkeep_core::id::{RunId, TenantName};
use toolkeep_core::kill::{
    KILL_REASON_MAX_BYTES, KillLevel, KillMode, KillTarget, SetAgain, Standing, Subject, Switch, TooMany, Workflow,
};
use toolkeep_core::plan::Plan;
use toolkeep_core::principal::Principal;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::tier::Tier;

use super::Host;
use crate::authenticate::Operator;
use crate::catalog::Tool;
use crate::kill::KillSwitch;
use crate::ledger::{CallRow, Due, KillChange, KillWritten, Ledger, LedgerError};
use crate::notify::Event;
use crate::outbox::Gate;
use crate::validate::Call;

/// Who set the switch that a signal sets.
const SIGNAL: &str = "signal";
/// Who set the switch that a file sets.
const FILE: &str = "file";
/// What the names of the daemon's own tools start with.
const RESERVED: &str = "toolkeep.";

/// What an operator wants stopped, or not stopped any more.
#[derive(Debug, Clone)]
pub struct KillRequest {
    /// How much.
    pub level: KillLevel,
    /// Of which tenant; the operator's own if absent.
    pub tenant: Option<TenantName>,
    /// Which workflow, agent or tool.
    pub name: Option<String>,
    /// Why. It is told to everybody who is refused.
    pub reason: String,
}

impl Host {
    pub(crate) fn kill(&self) -> &KillSwitch {
        &self.0.kill
    }

    /// Whether an agent may do anything that runs or commits. Only the switches of its tenant and of its name are known yet.
    pub(crate) fn may_begin(&self, principal: &Principal) -> Result<(), Refusal> {
        self.kill().check(|| of_principal(principal))
    }

    /// Whether a call may go on to its next stage.
    pub(crate) fn may_go_on(&self, call: &Call) -> Result<(), Refusal> {
        self.may_run(call.caller().principal(), call.tool(), call.options().run)
    }

    /// Whether a tool may run, maybe for a run.
    pub(crate) fn may_run(&self, principal: &Principal, tool: &Tool, run: Option<RunId>) -> Result<(), Refusal> {
        if self.ledger().is_halted() && tool.tier != Tier::ReadOnly {
            return Err(LedgerError::halted());
        }
        if self.kill().is_clear() {
            return Ok(());
        }
        let (reads, workflow) = (Some(tool.tier == Tier::ReadOnly), &self.kill().workflow_of(run));
        self.kill().check(|| Subject { tool: Some(&tool.name), workflow, reads, ..of_principal(principal) })
    }

    /// Bring a run into memory, if something names one, so that what is asked about it next is known: its balances, and to the
    /// kill switch its workflow.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub(crate) async fn know_run(&self, run: Option<RunId>) -> Result<(), Refusal> {
        let Some(id) = run else { return Ok(()) };
        if let Some(run) = self.budgets().any_run(id).await?
            && !self.kill().knows(id)
        {
            self.kill().learn(id, run.workflow.clone());
        }
        Ok(())
    }

    /// Whether a plan may be committed.
    pub(crate) async fn may_settle(&self, plan: &Plan) -> Result<(), Refusal> {
        if self.ledger().is_halted() {
            return Err(LedgerError::halted());
        }
        if self.kill().is_clear() {
            return Ok(());
        }
        self.know_run(plan.binding().run).await?;
        self.kill().check_deed(&self.kill().deed(plan))
    }

    /// Whether a call that waits is stopped.
    pub(crate) fn stops_row(&self, row: &CallRow) -> bool {
        let tool = self.catalog().current().tool(&row.tool);
        let reads = tool.map(|tool| tool.tier == Tier::ReadOnly);
        let workflow = &self.kill().workflow_of(row.run);
        let subject = || Subject { tool: Some(&row.tool), workflow, reads, ..of_principal(&row.principal) };
        self.kill().check(subject).is_err()
    }

    /// Stop something.
    ///
    /// # Errors
    /// `invalid_input`, `not_found`: another tenant's; `denied`: the level is not this operator's. `internal`: it is stopped,
    /// but not on the disk, so that a restart would forget it.
    pub async fn kill_set(&self, operator: &Operator, wanted: KillRequest, mode: KillMode) -> Result<Value, Refusal> {
        let target = self.kill_target(operator, &wanted)?;
        let by: Arc<str> = operator.user().as_str().into();
        let switch = Switch { target, mode, reason: reason(&wanted.reason)?, by, set_ms: self.ambient().now_ms() };
        let unknown = self.names_nothing(&switch.target);
        let (place, ended) = self.engage(&switch).map_err(|full| Refusal::new(Code::Overloaded, full.to_string()))?;
        let seq = match place {
            Ok(written) => written.durable().await,
            Err(error) => Err(error),
        };
        let seq = seq.map_err(|error| {
            tracing::error!(%error, target = %switch.target, "a kill switch is in force and not on the disk");
            Refusal::new(Code::Internal, format!("{} is stopped now, but that could not be written", switch.target))
                .hint("it is forgotten when the daemon restarts; look at the disk and set it again")
        })?;
        let mut told = line(&switch, false);
        if let Value::Object(members) = &mut told {
            members.insert("ended".to_owned(), json!(ended));
            members.insert("audit_seq".to_owned(), json!(seq));
            if unknown {
                members.insert("warning".to_owned(), json!("no tool of this name is installed now"));
            }
        }
        Ok(told)
    }

    /// Set a switch: from here on it counts. Says where its record is written and how many calls were ended.
    fn engage(&self, switch: &Switch) -> Result<(Result<KillWritten, LedgerError>, usize), TooMany> {
        let change = KillChange::Set(switch.clone());
        let place =
            self.kill().change(|standing| standing.with(switch.clone()), || self.ledger().begin_kill(change))?;
        tracing::warn!(target = %switch.target, mode = switch.mode.word(), by = %switch.by, "a kill switch is set: {}", visible(&switch.reason));
        Ok((place, self.end_stopped(switch, true)))
    }

    /// End what is stopped now, and tell the operators.
    fn end_stopped(&self, switch: &Switch, set: bool) -> usize {
        let ended = if set { self.flights().cancel_stopped(self.kill()) } else { 0 };
        let mut facts = line(switch, false);
        if let Value::Object(members) = &mut facts {
            members.insert("set".to_owned(), json!(set));
        }
        let tenants = match switch.target.tenant() {
            Some(tenant) => vec![tenant.clone()],
            None => self.tenants(),
        };
        for tenant in tenants {
            self.0.notify.event(Event::KillChanged, &tenant, facts.clone());
        }
        ended
    }

    /// Let something run again.
    ///
    /// # Errors
    /// As [`Self::kill_set`]; `not_found`: it is not stopped.
    pub async fn kill_clear(&self, operator: &Operator, wanted: KillRequest) -> Result<Value, Refusal> {
        let target = self.kill_target(operator, &wanted)?;
        let reason = if wanted.reason.is_empty() { "".into() } else { reason(&wanted.reason)? };
        let by: Arc<str> = operator.user().as_str().into();
        let mut found = None;
        // Its place in the order of writing is between the switch that is looked at here and one that is set from now on.
        let written = self.kill().change(
            |standing| {
                found = standing.get(&target).cloned();
                if found.is_some() { Ok(standing.clone()) } else { Err(not_set(&target, standing)) }
            },
            || self.ledger().begin_kill(KillChange::Clear { target: target.clone(), by, reason }),
        )?;
        let switch = found.ok_or_else(|| Refusal::not_found("kill switch"))?;
        let seq = match written {
            Ok(written) => written.durable().await,
            Err(error) => Err(error),
        };
        let seq = seq.map_err(|error| error.refusal())?;
        self.kill().change(|standing| standing.without(&switch), || ()).map_err(|SetAgain(other)| {
            Refusal::new(Code::Denied, format!("`{}` set it again in the meantime: {target} is stopped", other.by))
                .hint("look at `kill.list` before you clear it again")
        })?;
        tracing::warn!(%target, by = %operator.user(), "a kill switch is cleared");
        self.end_stopped(&switch, false);
        self.go_on_after_stop();
        Ok(json!({"level": target.level(), "tenant": target.tenant(), "name": target.name(), "cleared": true,
            "audit_seq": seq}))
    }

    /// What waited because it was stopped goes on.
    fn go_on_after_stop(&self) {
        self.0.outbox.wake();
        let host = self.clone();
        self.spawn(async move {
            host.settle_approved().await;
            host.resume_all().await;
        });
    }

    /// What is stopped, as far as it concerns the operator's tenant.
    ///
    /// # Errors
    /// None: the form is that of other questions.
    pub fn kill_list(&self, operator: &Operator) -> Result<Value, Refusal> {
        let standing = self.kill().standing();
        let whole = self.is_over_all(operator);
        let own = |switch: &&Switch| whole || switch.target.tenant().is_none_or(|tenant| tenant == operator.tenant());
        let lines: Vec<Value> =
            standing.switches().filter(own).map(|switch| line(switch, standing.is_of_file(switch))).collect();
        Ok(json!({"switches": lines, "file": self.config().kill.file}))
    }

    /// The process was told to stop everything.
    pub(crate) fn kill_by_signal(&self) {
        let reason = "SIGUSR1".into();
        let switch = Switch {
            target: KillTarget::Global,
            mode: KillMode::Stop,
            reason,
            by: SIGNAL.into(),
            set_ms: self.ambient().now_ms(),
        };
        match self.engage(&switch) {
            Ok((Ok(_written), _)) => {}
            Ok((Err(error), _)) => tracing::error!(%error, "the kill switch is in force and not on the disk"),
            Err(full) => tracing::error!(%full, "BUG: the global switch takes the place of the global switch"),
        }
    }

    /// The kill file appeared, changed or went.
    pub(crate) fn kill_by_file(&self, said: Option<String>) {
        let switch = said.as_deref().map(|said| of_file(said, self.ambient().now_ms()));
        let before = self.kill().standing().with_file(None);
        let reason: Arc<str> = said.unwrap_or_default().into();
        let change = KillChange::OfFile { set: switch.is_some(), reason };
        let next = |standing: &Standing| Ok(standing.with_file(switch.clone()));
        let Ok(placed) = self.kill().change::<_, Infallible>(next, || self.ledger().begin_kill(change));
        if let Err(error) = placed {
            tracing::error!(%error, "what the kill file did is not on record");
        }
        match switch {
            Some(switch) => {
                tracing::warn!("the kill file stops everything: {}", visible(&switch.reason));
                self.end_stopped(&switch, true);
            }
            None => {
                tracing::warn!(still_stopped = before.switches().count(), "the kill file is gone");
                self.end_stopped(&of_file("", self.ambient().now_ms()), false);
                self.go_on_after_stop();
            }
        }
    }

    /// The kill file, and what it said when it was last looked at.
    pub(crate) fn kill_file(&self) -> (PathBuf, Option<String>) {
        let standing = self.kill().standing();
        let said = standing.switches().find(|switch| standing.is_of_file(switch));
        (self.config().kill.file.clone(), said.map(|switch| switch.reason.to_string()))
    }

    fn kill_target(&self, operator: &Operator, wanted: &KillRequest) -> Result<KillTarget, Refusal> {
        let whole = self.is_over_all(operator);
        let tenant = wanted.tenant.clone().unwrap_or_else(|| operator.tenant().clone());
        if tenant != *operator.tenant() && !whole {
            return Err(Refusal::not_found("tenant"));
        }
        if wanted.level == KillLevel::Global && !whole {
            return Err(Refusal::new(Code::Denied, "the global level concerns other tenants, too")
                .hint("stop your tenant, or have `[kill] operators` name you"));
        }
        KillTarget::new(wanted.level, tenant, wanted.name.as_deref()).map_err(|problem| {
            Refusal::new(Code::InvalidInput, problem.to_string()).field(
                "/name",
                problem.to_string(),
                "the name of a workflow, agent or tool; nothing for `global` and `tenant`",
            )
        })
    }

    /// Whether an operator may stop everything: named for it, or there is nobody else's anyway.
    pub(super) fn is_over_all(&self, operator: &Operator) -> bool {
        // An issuer's tokens may name tenants that stand nowhere in the configuration.
        let alone = || self.config().issuers.is_empty() && self.tenants().iter().all(|t| t == operator.tenant());
        self.config().kill.operators.contains(operator.user()) || alone()
    }

    /// Every tenant of the configuration.
    pub(super) fn tenants(&self) -> Vec<TenantName> {
        let config = self.config();
        let agents = config.principals.values().map(|principal| &principal.tenant);
        let people = config.operators.values().map(|operator| &operator.tenant);
        let mut tenants: Vec<TenantName> = agents.chain(people).cloned().collect();
        tenants.sort();
        tenants.dedup();
        tenants
    }

    fn names_nothing(&self, target: &KillTarget) -> bool {
        let KillTarget::Tool(tenant, _) = target else { return false };
        let alone = Standing::of([Switch {
            target: target.clone(),
            mode: KillMode::Stop,
            reason: "".into(),
            by: "".into(),
            set_ms: 0,
        }]);
        let catalog = self.catalog().current();
        let stops = |tool: &Arc<Tool>| {
            let workflow = &Workflow::None;
            let subject = Subject { tenant, agent: None, tool: Some(&tool.name), workflow, reads: Some(false) };
            alone.of_subject(&subject).is_some()
        };
        // Tools of other tenants are nobody's business.
        let own = |tool: &&Arc<Tool>| !self.workspaces().is_foreign(&tool.manifest, tenant);
        !catalog.tools().filter(own).any(stops)
    }
}

/// What the outbox asks before every attempt. Alerts always leave: they tell the operators that it is stopped.
pub(super) fn gate(kill: &KillSwitch, ledger: &Ledger) -> Gate {
    let (kill, ledger) = (kill.clone(), ledger.clone());
    Arc::new(move |due: &Due| {
        if due.kind == DeliveryKind::Alert {
            return true;
        }
        if ledger.is_halted() {
            return false;
        }
        if kill.is_clear() {
            return true;
        }
        match &due.sender {
            Some(sender) if !sender.tool.as_str().starts_with(RESERVED) => {
                let subject = || Subject {
                    tenant: &due.tenant,
                    agent: Some(&sender.agent),
                    tool: Some(&sender.tool),
                    workflow: &sender.workflow,
                    reads: Some(false),
                };
                kill.check(subject).is_ok()
            }
            // Sent by several tools together, or nobody knows any more by which.
            _ => kill.standing().of_unknown(&due.tenant).is_none(),
        }
    })
}

/// What is known of an agent before it says what it wants.
fn of_principal(principal: &Principal) -> Subject<'_> {
    let workflow = &Workflow::None;
    Subject { tenant: &principal.tenant, agent: Some(&principal.agent), tool: None, workflow, reads: None }
}

/// What somebody is told who wants to clear what is not set.
fn not_set(target: &KillTarget, standing: &Standing) -> Refusal {
    let missing = Refusal::not_found("kill switch");
    if *target == KillTarget::Global && standing.switches().any(|switch| standing.is_of_file(switch)) {
        missing.hint("a file sets it: remove the file, `kill.list` names it")
    } else {
        missing.hint("`kill.list` says what is stopped")
    }
}

/// The switch of a kill file that says this.
pub(super) fn of_file(said: &str, now_ms: u64) -> Switch {
    Switch { target: KillTarget::Global, mode: KillMode::Stop, reason: said.into(), by: FILE.into(), set_ms: now_ms }
}

/// A reason that can be shown on one line.
fn reason(text: &str) -> Result<Arc<str>, Refusal> {
    let bad = |problem: &str| {
        Refusal::new(Code::InvalidInput, "say why").field("/reason", problem, "1 to 500 bytes on one line")
    };
    if text.trim().is_empty() {
        return Err(bad("is empty"));
    }
    if text.len() > KILL_REASON_MAX_BYTES {
        return Err(bad("is too long"));
    }
    if text.chars().any(char::is_control) {
        return Err(bad("has control characters"));
    }
    Ok(text.into())
}

fn line(switch: &Switch, of_file: bool) -> Value {
    json!({"level": switch.target.level(), "tenant": switch.target.tenant(), "name": switch.target.name(),
        "mode": switch.mode, "reason": visible(&switch.reason), "by": &*switch.by, "set_at_ms": switch.set_ms,
        "of_file": of_file})
}
