//! Stage 4, admit: from a [`Grant`] to a [`Ticket`], the right to use a slot of the daemon now.
//!
//! Bounded waiting: as many calls wait as run, everything beyond is refused with a time to come back. A call with an
//! idempotency key claims it here; a retry of a finished call is answered with the stored bytes and never executes.
//! Dropping a ticket frees the slot only; the key is released or settled by the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use toolkeep_core::id::CallId;
use toolkeep_core::refusal::{Code, Refusal};

use crate::authorize::Grant;
use crate::ledger::{CallKey, Claimed, KeyClaim, Ledger, LedgerHealth, Scope};

/// How long a call waits for a slot before it is refused.
const QUEUE_WAIT: Duration = Duration::from_secs(5);
/// What a refused caller is told to wait, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// Guards the slots.
#[derive(Debug)]
pub struct Admission {
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
    draining: AtomicBool,
}

/// Proof: the call holds a slot, and its key if it has one.
#[derive(Debug)]
pub struct Ticket {
    grant: Grant,
    claim: Option<KeyClaim>,
    _slot: OwnedSemaphorePermit,
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
    /// `slots` calls run and as many wait.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            waiting: AtomicUsize::new(0),
            most_waiting: slots,
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

    async fn slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let overloaded = |message: &str| Refusal::new(Code::Overloaded, message).after_ms(RETRY_AFTER_MS);
        if self.draining() {
            return Err(overloaded("the daemon is stopping"));
        }
        if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(permit);
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.most_waiting {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(overloaded("all slots are taken and the queue is full"));
        }
        let waited = tokio::time::timeout(QUEUE_WAIT, Arc::clone(&self.slots).acquire_owned()).await;
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        match waited {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(overloaded("no slot became free in time")),
        }
    }
}

/// Take a slot and claim the key.
///
/// # Errors
/// `overloaded`, `in_flight`, `idempotency_mismatch`, or `halted` where the ledger cannot answer: without the ledger
/// nothing runs.
pub async fn admit(admission: &Admission, ledger: &Ledger, grant: Grant) -> Result<Admitted, Refusal> {
    let slot = admission.slot().await?;
    match ledger.health() {
        LedgerHealth::Well | LedgerHealth::DiskFull => {}
        LedgerHealth::Poisoned(message) => {
            return Err(Refusal::new(Code::Halted, format!("the ledger stopped: {message}")));
        }
    }
    check_run(ledger, &grant).await?;
    let call = grant.call();
    let Some(key) = call.options().key.as_deref() else {
        return Ok(Admitted::Fresh(Box::new(Ticket { grant, claim: None, _slot: slot })));
    };
    let claim = KeyClaim {
        principal: call.caller().principal().clone(),
        tool: call.tool().name.clone(),
        key: key.into(),
        request: call.request_digest(),
        call: call.id(),
    };
    match claim_key(ledger, &claim).await? {
        Key::Fresh => Ok(Admitted::Fresh(Box::new(Ticket { grant, claim: Some(claim), _slot: slot }))),
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
pub async fn readmit(admission: &Admission, grant: Grant) -> Result<Box<Ticket>, Refusal> {
    let slot = admission.slot().await?;
    Ok(Box::new(Ticket { grant, claim: None, _slot: slot }))
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
