//! The circuits of the daemon: one for each tool, and one for each grant of requests, of each tenant apart.
//!
//! Only circuits of which something is known are kept, so that a daemon where nothing fails asks one atomic number. A tool fails when it
//! traps, runs out of fuel, memory or time, returns what its schema forbids, or says that it failed for a moment; its
//! considered answers are no failures, nor are faults of the host or of whoever cancels. A grant fails when there is no
//! connection or no complete answer, or when the answer is 429 or 5xx.
//!
//! Circuits are in memory: a restart closes them. What must stay shut is what the kill switch is for.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::breaker::{Breaker, BreakerEvent, BreakerRules, Let, Phase};
use toolkeep_core::id::{GrantName, TenantName, ToolName};
use toolkeep_core::refusal::{Code, Refusal};

use crate::ambient::{Ambient, Stopwatch};
use crate::ledger::Ledger;
use crate::notify::{Event, Notify};

/// Circuits that are kept at one time, at most: beyond it new failures are not counted.
const CIRCUITS_MAX: usize = 100_000;
/// What a caller is told to wait for a circuit that an operator holds open, in milliseconds.
const HELD_WAIT_MS: u64 = 60_000;

/// What a circuit is about, within a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Circuit {
    /// A tool.
    Tool(ToolName),
    /// A grant of requests: its name, and where they go.
    Grant(GrantName, String),
}

impl fmt::Display for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool(tool) => write!(f, "tool `{tool}`"),
            Self::Grant(grant, origin) => write!(f, "grant `{grant}` of {origin}"),
        }
    }
}

/// All circuits. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Breakers(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    /// How many circuits are kept.
    known: AtomicUsize,
    circuits: Mutex<Circuits>,
    defaults: BreakerRules,
    clock: Stopwatch,
    ledger: Ledger,
    notify: Notify,
}

type Circuits = HashMap<(TenantName, Circuit), Breaker>;

/// Somebody who was let through, and has to say how it went. Saying nothing says nothing about the circuit.
#[derive(Debug)]
pub struct Watched {
    breakers: Breakers,
    name: Option<(TenantName, Circuit)>,
    rules: BreakerRules,
    let_through: Let,
}

impl Watched {
    /// It worked.
    pub fn worked(mut self) {
        self.end(BreakerEvent::Success(self.let_through));
    }

    /// It failed.
    pub fn failed(mut self) {
        self.end(BreakerEvent::Failure(self.let_through));
    }

    fn end(&mut self, event: BreakerEvent) {
        if let Some(name) = self.name.take() {
            self.breakers.happened(&name, self.rules, event);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.end(BreakerEvent::Nothing(self.let_through));
    }
}

impl Breakers {
    /// With the rules of the configuration.
    #[must_use]
    pub fn new(defaults: BreakerRules, ambient: &Ambient, ledger: Ledger, notify: Notify) -> Self {
        Self(Arc::new(Parts {
            known: AtomicUsize::new(0),
            circuits: Mutex::default(),
            defaults,
            clock: ambient.stopwatch(),
            ledger,
            notify,
        }))
    }

    fn circuits(&self) -> MutexGuard<'_, Circuits> {
        self.0.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Let a call of a tool through. `rules` are those of its manifest. Nothing is given where nothing is known of its
    /// circuit: then only a failure is told, with [`Self::tool_failed`].
    ///
    /// # Errors
    /// `circuit_open`, with how long to wait.
    pub fn enter_tool(
        &self,
        tenant: &TenantName,
        tool: &ToolName,
        rules: Option<BreakerRules>,
    ) -> Result<Option<Watched>, Refusal> {
        self.enter(tenant, || Circuit::Tool(tool.clone()), rules.unwrap_or(self.0.defaults))
    }

    /// A call of a tool failed of whose circuit nothing was known.
    pub fn tool_failed(&self, tenant: &TenantName, tool: &ToolName, rules: Option<BreakerRules>) {
        let name = (tenant.clone(), Circuit::Tool(tool.clone()));
        self.happened(&name, rules.unwrap_or(self.0.defaults), BreakerEvent::Failure(Let::Through));
    }

    /// Let a request through.
    ///
    /// # Errors
    /// `circuit_open`, with how long to wait.
    pub fn enter_grant(&self, tenant: &TenantName, grant: &GrantName, origin: &str) -> Result<Watched, Refusal> {
        let circuit = || Circuit::Grant(grant.clone(), origin.to_owned());
        let rules = self.0.defaults;
        let known = self.enter(tenant, circuit, rules)?;
        let through = || self.watched((tenant.clone(), circuit()), rules, Let::Through);
        Ok(known.unwrap_or_else(through))
    }

    fn watched(&self, name: (TenantName, Circuit), rules: BreakerRules, let_through: Let) -> Watched {
        Watched { breakers: self.clone(), name: Some(name), rules, let_through }
    }

    fn enter(
        &self,
        tenant: &TenantName,
        circuit: impl Fn() -> Circuit,
        rules: BreakerRules,
    ) -> Result<Option<Watched>, Refusal> {
        if self.0.known.load(Ordering::Acquire) == 0 {
            return Ok(None);
        }
        let (name, now_ms) = ((tenant.clone(), circuit()), self.now_ms());
        let mut circuits = self.circuits();
        let Some(breaker) = circuits.get_mut(&name) else { return Ok(None) };
        match breaker.ask(now_ms) {
            Ok((next, let_through)) => {
                *breaker = next;
                Ok(Some(self.watched(name, rules, let_through)))
            }
            Err(wait_ms) => Err(refusal(&name.1, breaker, wait_ms)),
        }
    }

    /// Whether a request would be let through now, without letting it.
    ///
    /// # Errors
    /// `circuit_open`, with how long to wait.
    pub fn look_at_grant(&self, tenant: &TenantName, grant: &GrantName, origin: &str) -> Result<(), Refusal> {
        if self.0.known.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let name = (tenant.clone(), Circuit::Grant(grant.clone(), origin.to_owned()));
        let now_ms = self.now_ms();
        match self.circuits().get(&name) {
            None => Ok(()),
            Some(breaker) => breaker.look(now_ms).map_err(|wait_ms| refusal(&name.1, breaker, wait_ms)),
        }
    }

    fn happened(&self, name: &(TenantName, Circuit), rules: BreakerRules, event: BreakerEvent) {
        let failed = matches!(event, BreakerEvent::Failure(_) | BreakerEvent::Open);
        if !failed && self.0.known.load(Ordering::Acquire) == 0 {
            return;
        }
        let now_ms = self.now_ms();
        let mut circuits = self.circuits();
        let before = match circuits.get(name) {
            Some(breaker) => *breaker,
            None if failed && circuits.len() < CIRCUITS_MAX => Breaker::new(rules),
            None => return,
        };
        let after = before.after(event, now_ms);
        if after.is_quiet() {
            circuits.remove(name);
        } else {
            circuits.insert(name.clone(), after);
        }
        self.0.known.store(circuits.len(), Ordering::Release);
        drop(circuits);
        if is_open(after.phase()) && !is_open(before.phase()) && event != BreakerEvent::Open {
            self.opened(name, &after);
        }
    }

    /// Tell of a circuit that opened by itself.
    fn opened(&self, (tenant, circuit): &(TenantName, Circuit), breaker: &Breaker) {
        let rules = breaker.rules();
        tracing::warn!(%tenant, %circuit, rest_ms = rules.open_ms, "a circuit opened: it failed too often");
        let mut facts = describe(circuit);
        if let Value::Object(members) = &mut facts {
            members.insert("rests_ms".to_owned(), json!(rules.open_ms));
        }
        self.0.notify.event(Event::BreakerOpened, tenant, facts.clone());
        self.note(tenant, &facts, "opened");
    }

    fn note(&self, tenant: &TenantName, facts: &Value, what: &str) {
        let mut facts = facts.clone();
        if let Value::Object(members) = &mut facts {
            members.insert("breaker".to_owned(), json!(what));
            members.insert("tenant".to_owned(), json!(tenant));
        }
        if let Err(error) = self.0.ledger.audit(AuditKind::Breaker, &facts) {
            tracing::error!(%error, "what became of a circuit is not on record");
        }
    }

    /// An operator opens or closes a circuit. Says where it stood.
    pub fn override_by(&self, tenant: &TenantName, circuit: Circuit, open: bool, by: &str) -> &'static str {
        let name = (tenant.clone(), circuit);
        let stood = self.circuits().get(&name).map_or("closed", |breaker| breaker.phase().word());
        let event = if open { BreakerEvent::Open } else { BreakerEvent::Close };
        self.happened(&name, self.0.defaults, event);
        let mut facts = describe(&name.1);
        if let Value::Object(members) = &mut facts {
            members.insert("by".to_owned(), json!(by));
        }
        self.note(tenant, &facts, if open { "held open" } else { "closed" });
        stood
    }

    /// Where every circuit stands of which something is known, with the tool of those that have one.
    #[must_use]
    pub fn phases(&self) -> Vec<(Option<ToolName>, Phase)> {
        let tool = |circuit: &Circuit| match circuit {
            Circuit::Tool(tool) => Some(tool.clone()),
            Circuit::Grant(..) => None,
        };
        self.circuits().iter().map(|((_, circuit), breaker)| (tool(circuit), breaker.phase())).collect()
    }

    /// Circuits of a tenant of which something is known, in order of their names.
    #[must_use]
    pub fn of_tenant(&self, tenant: &TenantName) -> Vec<Value> {
        let now_ms = self.now_ms();
        let circuits = self.circuits();
        let mut own: Vec<_> = circuits.iter().filter(|((owner, _), _)| owner == tenant).collect();
        own.sort_by(|one, two| one.0.cmp(two.0));
        own.into_iter().map(|((_, circuit), breaker)| line(circuit, breaker, now_ms)).collect()
    }
}

const fn is_open(phase: Phase) -> bool {
    matches!(phase, Phase::Open { .. })
}

fn describe(circuit: &Circuit) -> Value {
    match circuit {
        Circuit::Tool(tool) => json!({"tool": tool}),
        Circuit::Grant(grant, origin) => json!({"grant": grant, "origin": origin}),
    }
}

fn line(circuit: &Circuit, breaker: &Breaker, now_ms: u64) -> Value {
    let mut line = describe(circuit);
    let failures = match breaker.phase() {
        Phase::Closed { failures, .. } => Some(failures),
        Phase::Open { .. } | Phase::HalfOpen { .. } => None,
    };
    if let Value::Object(members) = &mut line {
        members.insert("state".to_owned(), json!(breaker.phase().word()));
        members.insert("failures".to_owned(), json!(failures));
        members.insert("held".to_owned(), json!(breaker.phase() == Phase::Open { until_ms: None }));
        members.insert("retry_after_ms".to_owned(), json!(breaker.look(now_ms).err().flatten()));
    }
    line
}

fn refusal(circuit: &Circuit, breaker: &Breaker, wait_ms: Option<u64>) -> Refusal {
    match wait_ms {
        Some(wait_ms) => {
            let rules = breaker.rules();
            let message = format!(
                "the circuit of {circuit} is open: it failed {} times within {} s",
                rules.failures,
                rules.window_ms / 1_000
            );
            Refusal::new(Code::CircuitOpen, message).after_ms(wait_ms)
        }
        None => Refusal::new(Code::CircuitOpen, format!("the circuit of {circuit} is held open by an operator"))
            .hint("ask the operator to close it, or use another tool")
            .after_ms(HELD_WAIT_MS),
    }
}
