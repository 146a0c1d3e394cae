//! The kill switch as the daemon asks it: before every stage, and before every single effect.
//!
//! While nothing is stopped a question is one atomic load. A switch is set under a lock that everything holds which is about
//! to make an intent durable ([`KillSwitch::pass`]); in there the change gets its place in the ledger's queue. So there
//! is one order: what was handed over before the switch goes on, and nothing that it stops is handed over after it.
//! Requests and messages, which cannot be begun under a lock, are asked about again right before their first byte leaves
//! ([`KillSwitch::clearance`]).
//!
//! Not here: who may set a switch, and ending what runs; that is the host's.

pub mod file;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use toolkeep_core::display::visible;
use toolkeep_core::id::{AgentName, RunId, TenantName, ToolName, WorkflowName};
use toolkeep_core::kill::{KillMode, Standing, Subject, Switch, Workflow};
use toolkeep_core::plan::Plan;
use toolkeep_core::refusal::{Code, Refusal};

use crate::egress::Clearance;

/// How many runs the switch knows the workflow of at a time, the most recently used ones. The ledger knows all.
pub const RUNS_KNOWN_MAX: u64 = 100_000;

/// The kill switch. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct KillSwitch(Arc<Board>);

#[derive(Debug, Default)]
struct Board {
    /// Whether anything is stopped.
    armed: AtomicBool,
    standing: RwLock<Arc<Standing>>,
    /// Whom to ask, beside who set a switch.
    contact: Option<Arc<str>>,
    workflows: Workflows,
}

/// The workflows of runs, and which have none. Whoever uses a run has it known again, so the least recently used go first:
/// opening many runs does not keep the switch from one that runs.
#[derive(Debug, Clone)]
struct Workflows(Cache<RunId, Option<WorkflowName>>);

impl Default for Workflows {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(RUNS_KNOWN_MAX).eviction_policy(EvictionPolicy::lru()).build())
    }
}

/// What a plan is the work of: everything that a switch can be about.
#[derive(Debug, Clone)]
pub struct Deed {
    tenant: TenantName,
    /// Whose work it is: which agent's, with which tool.
    work: Vec<(AgentName, ToolName)>,
    workflow: Workflow,
    reads: bool,
}

impl Deed {
    /// To commit a plan.
    #[must_use]
    pub fn of_plan(plan: &Plan, workflow: Workflow) -> Self {
        Self { tenant: plan.body().principal.tenant.clone(), work: work(plan).collect(), workflow, reads: false }
    }

    /// It is the work of this plan, too.
    #[must_use]
    pub fn and_of(mut self, plan: &Plan) -> Self {
        self.work.extend(work(plan));
        self
    }

    /// For whom it is done.
    #[must_use]
    pub const fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    fn subjects(&self) -> impl Iterator<Item = Subject<'_>> {
        self.work.iter().map(|(agent, tool)| Subject {
            tenant: &self.tenant,
            agent: Some(agent),
            tool: Some(tool),
            workflow: &self.workflow,
            reads: Some(self.reads),
        })
    }
}

/// Whose work a plan is: that of its tool, and of the tools of its steps.
fn work(plan: &Plan) -> impl Iterator<Item = (AgentName, ToolName)> {
    let body = plan.body();
    let tools = std::iter::once(&body.tool).chain(body.steps.iter().map(|step| &step.tool));
    tools.map(|tool| (body.principal.agent.clone(), tool.clone()))
}

/// No switch is set while this is held, and none was forgotten before.
#[derive(Debug)]
pub struct Pass<'k> {
    switch: &'k KillSwitch,
    standing: RwLockReadGuard<'k, Arc<Standing>>,
}

impl Pass<'_> {
    /// Whether a plan may be made durable now. It has to be handed to the ledger before the pass is dropped.
    ///
    /// # Errors
    /// `killed`.
    pub fn allows(&self, deed: &Deed) -> Result<(), Refusal> {
        self.switch.judge(&self.standing, deed)
    }
}

impl KillSwitch {
    /// With these switches set. `contact` is told to everybody who is refused.
    #[must_use]
    pub fn new(standing: Standing, contact: Option<Arc<str>>) -> Self {
        let armed = AtomicBool::new(!standing.is_clear());
        Self(Arc::new(Board {
            armed,
            standing: RwLock::new(Arc::new(standing)),
            contact,
            workflows: Workflows::default(),
        }))
    }

    /// A run belongs to a workflow, or to none.
    pub fn learn(&self, run: RunId, workflow: Option<WorkflowName>) {
        self.0.workflows.0.insert(run, workflow);
    }

    /// Whether it is known which workflow a run belongs to.
    #[must_use]
    pub fn knows(&self, run: RunId) -> bool {
        self.0.workflows.0.contains_key(&run)
    }

    /// The workflow of a run, as far as it is known.
    #[must_use]
    pub fn workflow_of(&self, run: Option<RunId>) -> Workflow {
        let Some(run) = run else { return Workflow::None };
        match self.0.workflows.0.get(&run) {
            Some(workflow) => workflow.map_or(Workflow::None, Workflow::Of),
            None => Workflow::Unknown,
        }
    }

    /// To commit a plan.
    #[must_use]
    pub fn deed(&self, plan: &Plan) -> Deed {
        Deed::of_plan(plan, self.workflow_of(plan.binding().run))
    }

    /// Whether nothing is stopped.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        !self.0.armed.load(Ordering::Acquire)
    }

    /// All switches of this moment.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.read())
    }

    fn read(&self) -> RwLockReadGuard<'_, Arc<Standing>> {
        self.0.standing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something may go on. It is asked what it is only if anything is stopped at all.
    ///
    /// # Errors
    /// `killed`, with the reason and whom to ask.
    pub fn check<'a>(&self, subject: impl FnOnce() -> Subject<'a>) -> Result<(), Refusal> {
        if self.is_clear() {
            return Ok(());
        }
        let standing = self.standing();
        standing.of_subject(&subject()).map_or(Ok(()), |switch| Err(self.refusal(switch)))
    }

    /// Whether the work of a plan may go on.
    ///
    /// # Errors
    /// `killed`.
    pub fn check_deed(&self, deed: &Deed) -> Result<(), Refusal> {
        if self.is_clear() { Ok(()) } else { self.judge(&self.standing(), deed) }
    }

    fn judge(&self, standing: &Standing, deed: &Deed) -> Result<(), Refusal> {
        if standing.is_clear() {
            return Ok(());
        }
        let stopped = deed.subjects().find_map(|subject| standing.of_subject(&subject));
        stopped.map_or(Ok(()), |switch| Err(self.refusal(switch)))
    }

    /// Keep switches from being set until the pass is dropped. It must not be held while anything is waited for.
    #[must_use]
    pub fn pass(&self) -> Pass<'_> {
        Pass { switch: self, standing: self.read() }
    }

    /// Asked right before the first byte of a request leaves.
    #[must_use]
    pub fn clearance(&self, deed: Deed) -> Clearance {
        let switch = self.clone();
        Clearance::new(move || switch.check_deed(&deed).is_ok())
    }

    /// Change what is stopped. `place` runs before anybody sees the change, while nothing is handed to the ledger.
    ///
    /// # Errors
    /// Those of `next`; nothing is changed then.
    pub fn change<T, E>(
        &self,
        next: impl FnOnce(&Standing) -> Result<Standing, E>,
        place: impl FnOnce() -> T,
    ) -> Result<T, E> {
        let mut standing = self.0.standing.write().unwrap_or_else(PoisonError::into_inner);
        let changed = next(&standing)?;
        let placed = place();
        self.0.armed.store(!changed.is_clear(), Ordering::Release);
        *standing = Arc::new(changed);
        Ok(placed)
    }

    /// What somebody is told whom a switch stops.
    fn refusal(&self, switch: &Switch) -> Refusal {
        let what = match switch.mode {
            KillMode::Stop => "is stopped",
            KillMode::ReadOnly => "may only read for now",
        };
        let contact = self.0.contact.as_ref().map_or_else(String::new, |contact| format!(" ({contact})"));
        Refusal::new(Code::Killed, format!("{} {what}: {}", switch.target, visible(&switch.reason))).hint(format!(
            "ask `{}`{contact} to clear the kill switch; calling again before that is refused too",
            switch.by
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolkeep_core::kill::{KillTarget, SetAgain, TooMany};
    use uuid::Uuid;

    fn stop(target: KillTarget, mode: KillMode) -> Switch {
        Switch { target, mode, reason: "a\u{202e}leak".into(), by: "ann".into(), set_ms: 1 }
    }

    fn deed(tools: &[&str], reads: bool) -> Deed {
        Deed {
            tenant: "acme".parse().expect("name"),
            work: tools.iter().map(|tool| ("bot".parse().expect("name"), tool.parse().expect("name"))).collect(),
            workflow: Workflow::None,
            reads,
        }
    }

    #[test]
    fn t_o3_every_tool_of_a_plan_is_asked_about_and_the_refusal_says_why_and_whom_to_ask() {
        let tool = KillTarget::Tool("acme".parse().expect("name"), "notes".parse().expect("name"));
        let kill = KillSwitch::new(Standing::default(), Some("ops@example.com".into()));
        let both = deed(&["toolkeep.transaction", "notes.add"], false);
        assert!(kill.check_deed(&both).is_ok() && kill.pass().allows(&both).is_ok());
        let clearance = kill.clearance(both.clone());
        assert!(clearance.allows());
        let set: Result<(), TooMany> =
            kill.change(|standing| standing.with(stop(tool.clone(), KillMode::ReadOnly)), || ());
        set.expect("set");
        let refused = kill.check_deed(&both).expect_err("stopped");
        assert_eq!(refused.code, Code::Killed);
        assert!(refused.message.contains("tool `notes` may only read for now: a⟨U+202E⟩leak"), "{}", refused.message);
        assert!(refused.hint.contains("ask `ann` (ops@example.com)"), "{}", refused.hint);
        assert!(kill.pass().allows(&both).is_err() && !clearance.allows());
        assert!(kill.check_deed(&deed(&["books.sum"], false)).is_ok());
        assert!(kill.check_deed(&deed(&["notes.list"], true)).is_ok(), "reading goes on");
        let cleared: Result<(), SetAgain> =
            kill.change(|standing| standing.without(&stop(tool, KillMode::ReadOnly)), || ());
        cleared.expect("cleared");
        assert!(kill.is_clear() && clearance.allows());
    }

    #[test]
    fn t_o3_nothing_is_handed_over_after_a_switch_and_what_was_before_is_in_front_of_it() {
        use std::sync::Mutex;
        let kill = KillSwitch::default();
        let queue = Arc::new(Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let own = deed(&["notes.add"], false);
                    loop {
                        let pass = kill.pass();
                        if pass.allows(&own).is_err() {
                            return;
                        }
                        queue.lock().expect("queue").push("intent");
                    }
                });
            }
            let set: Result<(), TooMany> = kill.change(
                |standing| standing.with(stop(KillTarget::Global, KillMode::Stop)),
                || queue.lock().expect("queue").push("switch"),
            );
            set.expect("set");
        });
        let queue = queue.lock().expect("queue");
        assert_eq!(queue.iter().position(|what| *what == "switch"), Some(queue.len() - 1), "the switch is the last");
    }
    #[test]
    fn t_o3_opening_many_runs_does_not_hide_a_run_from_the_switch_of_its_workflow() {
        const MORE: u64 = 2_000;
        let kill = KillSwitch::default();
        let run = |number: u64| RunId::new(Uuid::from_u128(u128::from(number)));
        let billing: WorkflowName = "billing".parse().expect("name");
        for number in 0..RUNS_KNOWN_MAX + MORE {
            kill.learn(run(number), Some(billing.clone()));
        }
        let newest = RUNS_KNOWN_MAX + MORE - 1;
        assert_eq!(kill.workflow_of(Some(run(newest))), Workflow::Of(billing.clone()), "the newest is known");
        let target = KillTarget::Workflow("acme".parse().expect("name"), billing);
        let set: Result<(), TooMany> = kill.change(|standing| standing.with(stop(target, KillMode::Stop)), || ());
        set.expect("set");
        for number in 0..=newest {
            let deed = Deed { workflow: kill.workflow_of(Some(run(number))), ..deed(&["notes.add"], false) };
            assert!(kill.check_deed(&deed).is_err(), "run {number} is not stopped");
        }
        kill.learn(run(0), None);
        let other = Deed { workflow: kill.workflow_of(Some(run(0))), ..deed(&["notes.add"], false) };
        assert!(kill.check_deed(&other).is_ok(), "a run of which it is known that it has none goes on");
    }

    #[test]
    fn t_o3_a_deed_that_is_the_work_of_two_is_stopped_with_either() {
        let acme: TenantName = "acme".parse().expect("name");
        let mut both = deed(&["toolkeep.undo"], false);
        both.work.push(("other".parse().expect("name"), "pay".parse().expect("name")));
        for target in [
            KillTarget::Tool(acme.clone(), "pay".parse().expect("name")),
            KillTarget::Agent(acme.clone(), "other".parse().expect("name")),
            KillTarget::Agent(acme, "bot".parse().expect("name")),
        ] {
            let kill = KillSwitch::new(Standing::of([stop(target.clone(), KillMode::Stop)]), None);
            assert!(kill.check_deed(&both).is_err(), "{target}");
        }
    }
}
