//! Stage 4, admit: from a [`Grant`] to a [`Ticket`], the right to use a slot of the daemon now.
//!
//! Rates come first ([`Admission::pace`]): who calls too often is refused before anything is looked up for it. Then bounded waiting: a tool that has a number
//! of its own, and the slots of the daemon with a line for each tenant; everything beyond is refused with a time to come back. A call with an
//! idempotency key claims it here; a retry of a finished call is answered with the stored bytes and never executes.
//! Dropping a ticket frees the slot only; the key is released or settled by the ledger.

pub mod crowd;
pub mod slots;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use toolkeep_core::grant::HttpGrant;
use toolkeep_core::id::CallId;
use toolkeep_core::principal::Principal;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::execution::Cancel;

use crate::authorize::Grant;
use crate::breakers::{Breakers, Watched};
use crate::budget::charge::Charge;
use crate::budget::{Budgets, Request};
use crate::catalog::Tool;
use crate::config::DaemonLimits;
use crate::ledger::{CallKey, Claimed, KeyClaim, Ledger, LedgerHealth};
use crate::throttle::Throttle;
use crowd::{Crowds, Member};
use slots::{Entered, Slot, Slots};

/// What a refused caller is told to wait, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// Guards the slots.
#[derive(Debug)]
pub struct Admission {
    slots: Slots,
    crowds: Crowds,
    throttle: Throttle,
    breakers: Breakers,
    /// How long a call waits for its turn before it is refused.
    wait: Duration,
    draining: AtomicBool,
}

/// Proof: the call holds a slot, and its key if it has one.
#[derive(Debug)]
pub struct Ticket {
    grant: Grant,
    claim: Option<KeyClaim>,
    /// The circuit of the tool, where something is known of it.
    watched: Option<Watched>,
    charge: Option<Arc<Charge>>,
    _held: Held,
}

/// What admission says.
#[derive(Debug)]
pub enum Admitted {
    /// Execute.
    Fresh(Box<Ticket>),
    /// A call with this key ended: these are its bytes.
    Replay {
        /// The first call with the key.
        call: CallId,
        /// Its reply, byte for byte.
        reply: Arc<str>,
    },
    /// A call with this key waits for an approval or for a commit of its preview.
    Unfinished {
        /// The first call with the key.
        call: CallId,
        /// Its reply so far.
        reply: Arc<str>,
    },
}

impl Ticket {
    /// What the call may do.
    #[must_use]
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// How the execution went, for the circuit of the tool: nothing where that says nothing about it.
    pub fn tell(&mut self, breakers: &Breakers, failed: Option<bool>) {
        let call = self.grant.call();
        match (self.watched.take(), failed) {
            (Some(watched), Some(true)) => watched.failed(),
            (Some(watched), Some(false)) => watched.worked(),
            (None, Some(true)) => {
                let tool = call.tool();
                breakers.tool_failed(&call.caller().principal().tenant, &tool.name, tool.manifest.breaker);
            }
            (None, Some(false)) | (_, None) => {}
        }
    }

    /// The idempotency key that the call claimed.
    #[must_use]
    pub const fn claim(&self) -> Option<&KeyClaim> {
        self.claim.as_ref()
    }

    /// What the call is charged to, where it is charged to anything.
    #[must_use]
    pub const fn charge(&self) -> Option<&Arc<Charge>> {
        self.charge.as_ref()
    }

    /// The grants for requests, with no more requests than a budget leaves.
    #[must_use]
    pub fn http(&self) -> Arc<[HttpGrant]> {
        let whole = &self.grant.call().tool().manifest.http;
        let Some(mut left) = self.charge.as_ref().and_then(|charge| charge.narrowed().requests) else {
            return Arc::clone(whole);
        };
        let narrowed = whole.iter().map(|grant| {
            let requests = grant.requests.min(left);
            left -= requests;
            let mut grant = grant.clone();
            grant.requests = requests;
            grant
        });
        narrowed.collect()
    }

    /// A fault of the guest that is the budget's: it was given less than its manifest allows.
    #[must_use]
    pub fn blamed(&self, refusal: Refusal) -> Refusal {
        let Some(narrowed) = self.charge.as_ref().map(|charge| charge.narrowed()) else { return refusal };
        let what = match refusal.code {
            Code::OutOfFuel => narrowed.fuel.map(|fuel| format!("{fuel} units of fuel")),
            Code::DeadlineExceeded => narrowed.wall_ms.map(|wall_ms| format!("{wall_ms} ms")),
            _ => None,
        };
        match what {
            Some(what) => Refusal::new(Code::BudgetExceeded, format!("{}; the budget left it {what}", refusal.message)),
            None => refusal,
        }
    }

    /// The key as call rows carry it.
    #[must_use]
    pub fn call_key(&self) -> Option<CallKey> {
        self.claim.as_ref().map(|claim| CallKey { key: Arc::clone(&claim.key), request: claim.request })
    }
}

impl Admission {
    /// As the configuration says.
    #[must_use]
    pub fn new(limits: &DaemonLimits, throttle: Throttle, breakers: Breakers) -> Self {
        Self {
            slots: Slots::new(limits.executions, limits.waiting, limits.executions_per_tenant),
            crowds: Crowds::default(),
            throttle,
            breakers,
            wait: Duration::from_millis(limits.wait_ms),
            draining: AtomicBool::new(false),
        }
    }

    /// Executions that hold a slot, and those that wait for one.
    #[must_use]
    pub fn occupancy(&self) -> (u64, u64) {
        self.slots.occupancy()
    }

    /// Refuse everything from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Self::drain`] was called.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Count a call against every rate that is about it.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn pace(&self, principal: &Principal, tool: &Tool) -> Result<(), Refusal> {
        self.throttle.take(principal, tool)
    }

    /// Count a run that is opened.
    ///
    /// # Errors
    /// `rate_limited`: the tenant opens too many.
    pub fn pace_run(&self, principal: &Principal) -> Result<(), Refusal> {
        self.throttle.take_run(principal)
    }

    /// Ask the circuit of the tool.
    fn circuit(&self, grant: &Grant) -> Result<Option<Watched>, Refusal> {
        let (tenant, tool) = (&grant.call().caller().principal().tenant, grant.call().tool());
        self.breakers.enter_tool(tenant, &tool.name, tool.manifest.breaker)
    }

    /// Wait for the tool, then for a slot of the daemon.
    async fn place(&self, grant: &Grant, cancel: &Cancel) -> Result<Held, Refusal> {
        if self.draining() {
            return Err(overloaded("the daemon is stopping"));
        }
        let tenant = &grant.call().caller().principal().tenant;
        let tool = grant.call().tool();
        let member = match self.crowds.of(tenant, tool) {
            None => None,
            Some(crowd) => match Arc::clone(&crowd).try_acquire_owned() {
                Ok(member) => Some(member),
                Err(_) => {
                    let waited = patiently(self.wait, cancel, crowd.acquire_owned()).await?;
                    Some(waited.map_err(|_| overloaded("BUG: the line of the tool was closed"))?)
                }
            },
        };
        let slot = match self.slots.enter(tenant) {
            Entered::Runs(slot) => slot,
            Entered::Full => return Err(overloaded("all slots are taken and the queue is full")),
            Entered::Waits(mut place) => {
                let turn = patiently(self.wait, cancel, place.turn()).await?;
                turn.ok_or_else(|| overloaded("the place in the queue was given to another tenant"))?
            }
        };
        Ok(Held { _slot: slot, _member: member })
    }
}

/// What a call holds while it runs.
#[derive(Debug)]
struct Held {
    _slot: Slot,
    _member: Option<Member>,
}

fn overloaded(message: &str) -> Refusal {
    Refusal::new(Code::Overloaded, message).after_ms(RETRY_AFTER_MS)
}

/// Wait, as long as a call may and nobody cancels it.
async fn patiently<T>(most: Duration, cancel: &Cancel, wait: impl Future<Output = T>) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        waited = tokio::time::timeout(most, wait) => waited.map_err(|_| overloaded("no slot became free in time")),
        // Whoever cancelled it says why, or nobody waits for the answer.
        () = cancel.cancelled() => {
            Err(Refusal::new(Code::DeadlineExceeded, "it was cancelled while it waited for a slot"))
        }
    }
}

/// Take a slot, claim the key, and reserve what the call may use. A retry of a finished call is charged nothing.
///
/// # Errors
/// `overloaded`, `in_flight`, `idempotency_mismatch`, or `halted` where the ledger cannot answer: without the ledger
/// nothing runs. What the call's run or a budget says against it.
pub async fn admit(
    admission: &Admission,
    ledger: &Ledger,
    budgets: &Budgets,
    grant: Grant,
    cancel: &Cancel,
) -> Result<Admitted, Refusal> {
    let held = admission.place(&grant, cancel).await?;
    match ledger.health() {
        LedgerHealth::Well | LedgerHealth::DiskFull => {}
        LedgerHealth::Poisoned(message) => {
            return Err(Refusal::new(Code::Halted, format!("the ledger stopped: {message}")));
        }
    }
    let call = grant.call();
    let Some(key) = call.options().key.as_deref() else {
        let watched = admission.circuit(&grant)?;
        return Ok(Admitted::Fresh(ticket(budgets, grant, None, (watched, held)).await?));
    };
    let claim = KeyClaim {
        principal: call.caller().principal().clone(),
        tool: call.tool().name.clone(),
        key: key.into(),
        request: call.request_digest(),
        call: call.id(),
    };
    match claim_key(ledger, &claim).await? {
        Key::Fresh => {
            // A retry of a call that ended is answered even while the tool rests.
            let watched = admission.circuit(&grant)?;
            Ok(Admitted::Fresh(ticket(budgets, grant, Some(claim), (watched, held)).await?))
        }
        Key::Stored { call, reply } => Ok(Admitted::Replay { call, reply }),
        Key::Unfinished { call, reply } => Ok(Admitted::Unfinished { call, reply }),
    }
}

/// What a key names.
#[derive(Debug)]
pub enum Key {
    /// Nothing so far: it is the claimant's.
    Fresh,
    /// A call that ended.
    Stored {
        /// The first call with the key.
        call: CallId,
        /// Its reply, byte for byte.
        reply: Arc<str>,
    },
    /// A call that waits.
    Unfinished {
        /// The first call with the key.
        call: CallId,
        /// Its reply so far.
        reply: Arc<str>,
    },
}

/// Claim a key.
///
/// # Errors
/// `in_flight`, `idempotency_mismatch`, or the ledger cannot answer.
pub async fn claim_key(ledger: &Ledger, claim: &KeyClaim) -> Result<Key, Refusal> {
    match ledger.claim_key(claim.clone()).await.map_err(|e| e.refusal())? {
        Claimed::Fresh => Ok(Key::Fresh),
        Claimed::Stored { call, reply } => Ok(Key::Stored { call, reply }),
        Claimed::Unfinished { call, reply } => Ok(Key::Unfinished { call, reply }),
        Claimed::InFlight { call } => {
            Err(Refusal::new(Code::InFlight, format!("call {call} with this key is running")).after_ms(RETRY_AFTER_MS))
        }
        Claimed::Mismatch => Err(Refusal::new(
            Code::IdempotencyMismatch,
            "the key was used with another tool, input, mode or transaction",
        )
        .field("/idempotency_key", "names another request", "a new key")),
    }
}

/// Take a slot for a tool that stands in for another: rates, circuit and budgets are asked about it as about any other; the
/// key stays that of the call.
///
/// # Errors
/// `rate_limited`, `circuit_open`, `overloaded`, and what the call's run or a budget says against it.
pub async fn substitute(
    admission: &Admission,
    budgets: &Budgets,
    grant: Grant,
    cancel: &Cancel,
) -> Result<Box<Ticket>, Refusal> {
    admission.pace(grant.call().caller().principal(), grant.call().tool())?;
    let watched = admission.circuit(&grant)?;
    let held = admission.place(&grant, cancel).await?;
    ticket(budgets, grant, None, (watched, held)).await
}

/// What budgets want to know of a call.
fn request(grant: &Grant) -> Request<'_> {
    let call = grant.call();
    Request {
        caller: call.caller(),
        call: call.id(),
        tool: &call.tool().name,
        tier: grant.tier(),
        manifest: &call.tool().manifest,
        input: call.input(),
        digest: call.input_digest(),
        run: call.options().run,
        usage: call.options().usage.as_ref(),
        limits: grant.limits(),
        deadline_ms: u64::try_from(grant.deadline().as_millis()).unwrap_or(u64::MAX),
    }
}

/// The ticket of a call that has its slot and its key.
async fn ticket(
    budgets: &Budgets,
    grant: Grant,
    claim: Option<KeyClaim>,
    room: (Option<Watched>, Held),
) -> Result<Box<Ticket>, Refusal> {
    let charge = budgets.admit(&request(&grant)).await?;
    Ok(charged(grant, claim, charge, room))
}

fn charged(
    grant: Grant,
    claim: Option<KeyClaim>,
    charge: Option<Arc<Charge>>,
    (watched, held): (Option<Watched>, Held),
) -> Box<Ticket> {
    let narrowed = charge.as_ref().map(|charge| charge.narrowed());
    let grant = match narrowed {
        Some(narrowed) => grant.narrowed(narrowed.fuel, narrowed.wall_ms),
        None => grant,
    };
    Box::new(Ticket { grant, claim, watched, charge, _held: held })
}

/// Take a slot for a call that was admitted before and goes on. Its key, if it has one, names it still; what it may use from
/// here on is reserved anew.
///
/// # Errors
/// `overloaded`, `budget_exceeded`.
pub async fn readmit(
    admission: &Admission,
    budgets: &Budgets,
    grant: Grant,
    cancel: &Cancel,
) -> Result<Box<Ticket>, Refusal> {
    let held = admission.place(&grant, cancel).await?;
    let charge = budgets.admit_again(&request(&grant)).await?;
    Ok(charged(grant, None, charge, (None, held)))
}
