//! File effects: check the plan against the world, prepare, apply, and recover after a crash.
//!
//! The order of a commit is [`check`] and [`prepare`], then the caller makes the [`Prepared`] steps durable (that is the
//! commit point), then [`apply`], then the caller records the outcome. All of it happens while the caller holds the paths
//! in [`crate::commit::locks`]. After a crash [`recover`] takes the stored steps and the world and ends in before or after,
//! or says exactly what it could not settle; it may itself be killed and called again any number of times. Nothing here
//! knows the ledger, and nothing here overwrites content that neither the plan nor the state before it holds.

mod apply;
mod attributes;
mod check;
mod fault;
mod inverse;
mod prepare;
mod recover;
mod rollback;
mod step;
mod sweep;
mod temporary;
mod tree;

pub use apply::{Applied, ApplyError, apply};
pub use check::{Witnessed, check};
pub use fault::{CommitError, Difference, Remnant, Stale, SyncFailed};
pub use inverse::{Inverse, NoInverse, inverse};
pub use prepare::{Attempt, Kept, Ready, Undo, prepare};
pub use recover::{Recovered, recover};
pub use step::{
    DirectoryNode, FORMAT, FileNode, Node, NotATransaction, Prepared, Spot, Step, TRANSACTION_BYTES, TransactionId,
};
pub use sweep::{Nest, discard, nests, sweep_orphans};
pub use tree::Roots;
