//! Stage 4, admit: from a [`Grant`] to a [`Ticket`], the right to use a slot of the daemon now.
//!
//! Rates first: who calls too often is refused before it takes any room. Then bounded waiting: a tool that has a number
//! of its own, and the slots of the daemon with a line for each tenant; everything beyond is refused with a time to come back. A call with an
//! idempotency key claims it here; a retry of a finished call is answered with the stored bytes and never executes.
//! Dropping a ticket frees the slot only; the key is released or settled by the ledger.

pub mod crowd;
pub mod slots;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use toolkeep_core::id::CallId;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::execution::Cancel;

use crate::authorize::Grant;
use crate::breakers::{Breakers, Watched};
use crate::config::DaemonLimits;
use crate::ledger::{CallKey, Claimed, KeyClaim, Ledger, LedgerHealth, Scope};
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

    /// Refuse everything from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Self::drain`] was called.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
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
        () = cancel.cancelled() => Err(overloaded("it was cancelled while it waited for a slot")),
    }
}

/// Take a slot and claim the key.
///
/// # Errors
/// `overloaded`, `in_flight`, `idempotency_mismatch`, or `halted` where the ledger cannot answer: without the ledger
/// nothing runs.
pub async fn admit(admission: &Admission, ledger: &Ledger, grant: Grant, cancel: &Cancel) -> Result<Admitted, Refusal> {
    admission.throttle.take(grant.call().caller().principal(), grant.call().tool())?;
    let held = admission.place(&grant, cancel).await?;
    match ledger.health() {
        LedgerHealth::Well | LedgerHealth::DiskFull => {}
        LedgerHealth::Poisoned(message) => {
            return Err(Refusal::new(Code::Halted, format!("the ledger stopped: {message}")));
        }
    }
    check_run(ledger, &grant).await?;
    let call = grant.call();
    let Some(key) = call.options().key.as_deref() else {
        let watched = admission.circuit(&grant)?;
        return Ok(Admitted::Fresh(Box::new(Ticket { grant, claim: None, watched, _held: held })));
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
            Ok(Admitted::Fresh(Box::new(Ticket { grant, claim: Some(claim), watched, _held: held })))
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

/// Take a slot for a call that was admitted before and goes on. Its key, if it has one, names it still.
///
/// # Errors
/// `overloaded`.
pub async fn readmit(admission: &Admission, grant: Grant, cancel: &Cancel) -> Result<Box<Ticket>, Refusal> {
    let held = admission.place(&grant, cancel).await?;
    Ok(Box::new(Ticket { grant, claim: None, watched: None, _held: held }))
}

/// A call may name an open run of its own principal only.
async fn check_run(ledger: &Ledger, grant: &Grant) -> Result<(), Refusal> {
    let call = grant.call();
    let Some(run) = call.options().run else { return Ok(()) };
    let caller = call.caller();
    let found = ledger.run(&Scope::Tenant(caller.principal().tenant.clone()), run).await.map_err(|e| e.refusal())?;
    match found {
        Some((row, _)) if caller.owns(&row.principal, &row.session) && row.closed_ms.is_none() => Ok(()),
        _ => Err(Refusal::not_found("open run").hint("open a run with `runs.open` first, or leave `run` out")),
    }
}
