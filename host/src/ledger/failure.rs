//! Why the ledger refuses or fails.
//!
//! [`LedgerError`] is cloneable, because one failed batch is reported to everybody who waited for it. None of these texts is meant for
//! an agent: callers map them to a refusal and put the text into the log.

use std::sync::Arc;

use rusqlite::ErrorCode;
use toolkeep_core::audit::ChainBroken;
use toolkeep_core::refusal::{Code, Refusal};

use super::approval::ApprovalState;
use super::buckets::KeysChanged;
use super::rows::PlanState;
use super::standing::StandingState;
use super::transactions::TransactionState;

/// Why a read or write of the ledger did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The queue of writes is full: deny the call as `overloaded`.
    #[error("the ledger's queue is full; try again in a moment")]
    Overloaded,
    /// The disk, or the size that the operator allows, is used up. Nothing of this write happened.
    #[error("the ledger is full: free space on its disk, or raise `ledger.max_bytes`; writing resumes by itself")]
    DiskFull,
    /// A write failed in a way that leaves open what is on the disk. No write succeeds until the daemon is restarted;
    /// recovery then decides what happened.
    #[error("the ledger stopped writing after a disk error ({0}); check the disk, then restart the daemon")]
    Poisoned(Arc<str>),
    /// The ledger was closed.
    #[error("the ledger is closed")]
    Closed,
    /// Another process has it open.
    #[error("`{0}` is in use by another daemon; stop it first")]
    Locked(Arc<str>),
    /// A newer version wrote it.
    #[error("the ledger has schema version {found}, this daemon knows {known}; install a newer daemon")]
    Newer {
        /// The version on disk.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// A copy was written by an older version.
    #[error(
        "the copy has schema version {found}, and this program reads {known}; look at it with the version that wrote it"
    )]
    Older {
        /// The version of the copy.
        found: i64,
        /// The one that this program reads.
        known: i64,
    },
    /// It was made under another environment.
    #[error(
        "the ledger was made under the environment `{found}`, and this is `{wanted}`; give each environment a `daemon.state_dir` of its own"
    )]
    OtherEnvironment {
        /// Under which it was made.
        found: Arc<str>,
        /// Under which the daemon runs.
        wanted: &'static str,
    },
    /// The file system or SQLite failed.
    #[error("{what}: {cause}")]
    Storage {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        cause: Arc<str>,
    },
    /// A check of the stored data failed.
    #[error("the ledger is damaged: {0}; restore it from a backup")]
    Damaged(Arc<str>),
    /// The audit does not verify.
    #[error("the audit does not verify: {0}")]
    Chain(#[from] ChainBroken),
    /// Nothing with effects is taken, for this reason.
    #[error("nothing with effects runs: {0}; look at `toolkeep doctor`, then at docs/audit.md")]
    Halted(Arc<str>),
    /// A row with this id exists already, or one that it needs does not.
    #[error("the ledger refused a row: {0}")]
    Refused(Arc<str>),
}

/// What a refused caller is told to wait, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

impl LedgerError {
    /// What a caller is told when the ledger cannot do its part. The cause goes to the log.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        tracing::error!(error = %self, "the ledger refused");
        match self {
            Self::Overloaded => {
                Refusal::new(Code::Overloaded, "the ledger is behind; nothing runs unrecorded").after_ms(RETRY_AFTER_MS)
            }
            Self::DiskFull => {
                Refusal::new(Code::Overloaded, "the ledger is full; nothing runs unrecorded").after_ms(RETRY_AFTER_MS)
            }
            Self::Closed => Refusal::new(Code::Overloaded, "the daemon is stopping").after_ms(RETRY_AFTER_MS),
            Self::Poisoned(_) => Refusal::new(Code::Halted, "the ledger stopped writing after a disk error"),
            Self::Halted(_) => Self::halted(),
            _ => Refusal::new(Code::Internal, "the ledger could not be read or written"),
        }
    }

    /// What a caller is told while nothing with effects runs. Why is for operators.
    #[must_use]
    pub fn halted() -> Refusal {
        Refusal::new(Code::Halted, "nothing that changes anything runs: what is on record cannot be relied on")
            .hint("tools that only read may be called; an operator has to look at the daemon's health")
    }

    /// What SQLite's failure to read means: pages that are none are damage, whatever else fails may pass.
    pub(super) fn unread(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string().into()),
            _ => Self::storage("the ledger cannot be read", error),
        }
    }

    pub(super) fn storage(what: &'static str, cause: &impl ToString) -> Self {
        Self::Storage { what, cause: cause.to_string().into() }
    }
}

/// Why an intent was not made: the world must not be changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IntentRefused {
    /// There is no such plan.
    #[error("no such plan")]
    NoSuchPlan,
    /// Its approval is missing, not approved, used up, or leases another seal.
    #[error("the approval cannot be used: it is {0}")]
    ApprovalNotUsable(ApprovalState),
    /// It needs an approval, and none was named; or the named one is not its own.
    #[error("the plan's approval does not belong to it")]
    WrongApproval,
    /// The plan was committed, discarded or begun before.
    #[error("the plan is {0}")]
    NotCommittable(PlanState),
    /// It is too old.
    #[error("the plan has expired")]
    Expired,
    /// The standing approval that covers it is not active, or all of its uses are used.
    #[error("the standing approval cannot be used: it is {0}")]
    StandingNotUsable(StandingState),
    /// What it reverses was reversed before, or was never committed.
    #[error("the call cannot be undone: it was not committed, or was undone before")]
    NotUndoable,
    /// Keys that it read or replaces have changed.
    #[error(transparent)]
    KeysChanged(#[from] KeysChanged),
    /// It would exceed a quota.
    #[error("a quota is used up: {text}")]
    Quota {
        /// The rule.
        text: String,
        /// How long until it fits, in milliseconds; nothing if it never will.
        wait_ms: Option<u64>,
    },
    /// Another call with the same idempotency key has made an intent.
    #[error("the idempotency key belongs to another call")]
    KeyTaken,
    /// The ledger failed. After `Poisoned` the intent may or may not be on the disk; the next start decides.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl IntentRefused {
    /// What a caller is told when its plan is not committed.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::NoSuchPlan => return Refusal::not_found("plan"),
            Self::ApprovalNotUsable(_) | Self::WrongApproval => Code::ApprovalRequired,
            Self::NotCommittable(_) | Self::Expired | Self::KeysChanged(_) | Self::StandingNotUsable(_) => {
                Code::StalePlan
            }
            Self::NotUndoable => Code::Denied,
            Self::KeyTaken => Code::InFlight,
            Self::Quota { wait_ms, .. } => return crate::quota::refusal(self.to_string(), *wait_ms),
            Self::Ledger(error) => return error.refusal(),
        };
        Refusal::new(code, self.to_string())
    }
}

/// Why a transaction did not take a change. Nothing of the change happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransactionRefused {
    /// There is no such transaction.
    #[error("no such transaction")]
    NotFound,
    /// The principal has so many that have not ended.
    #[error("{0} transactions are open already; commit or roll one back")]
    TooMany(u32),
    /// It takes no calls any more.
    #[error("the transaction is {0}")]
    NotOpen(TransactionState),
    /// Its time is over, or another call changed it meanwhile.
    #[error("the transaction expired, or changed while the call ran")]
    Moved,
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why an answer to an approval was not counted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveRefused {
    /// There is no such approval.
    #[error("no such approval")]
    NotFound,
    /// It is not pending any more.
    #[error("the approval is {0}")]
    NotPending(ApprovalState),
    /// The approver may not answer this one.
    #[error("the requester cannot approve this plan: another person has to")]
    Barred,
    /// They have answered before.
    #[error("this approver has answered before: another person has to agree")]
    AlreadyAnswered,
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why a plan was not discarded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiscardRefused {
    /// There is no such plan in this scope.
    #[error("no such plan")]
    NotFound,
    /// It was settled, or is being committed.
    #[error("the plan is {0}")]
    NotOpen(PlanState),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}
