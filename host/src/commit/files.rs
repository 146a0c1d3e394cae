//! File effects: check the plan against the world, prepare, apply, and recover after a crash.
//!
//! The order of a commit is [`check`] and [`prepare`], then the caller makes the [`Prepared`] steps and the logged contents
//! durable (that is the commit point) and flushes the rest beside it, then [`apply`], [`confirm`], and the caller records
//! the outcome. All of it happens while the caller holds the paths in [`crate::commit::locks`]. After a crash [`recover`]
//! takes the stored steps and the world and ends in before or after, or says exactly what it could not settle; it may
//! itself be killed and called again any number of times. What it may find, besides what other programs did:
//! - a new file under its temporary name: whole, gone, empty or damaged as long as the flush was not waited for; it is
//!   written anew from the log, always, because a flush that failed leaves a file that only looks whole. What is not in
//!   the log was flushed before the intent, with its directory;
//! - a new directory under its temporary name, or at its place: it was flushed before the intent;
//! - a target: old or new, and a displaced file under the temporary name, at its old place, or gone. Changes of the same
//!   names come to the disk in their order, others in any.
//!
//! Nothing here knows the ledger, and nothing here overwrites content that neither the plan nor the state before it holds.

mod apply;
mod attributes;
mod check;
mod fault;
mod fold;
mod former;
mod inverse;
mod prepare;
mod reach;
mod recover;
mod rollback;
mod step;
mod sweep;
mod temporary;
mod tree;

pub use apply::{Applied, ApplyError, apply, confirm};
pub use check::{Witnessed, check, unchanged};
pub use fault::{CommitError, Difference, Remnant, Stale, SyncFailed};
pub use former::Former;
pub use inverse::{Inverse, NoInverse, inverse};
pub use prepare::{Attempt, Kept, Ready, Undo, prepare};
pub use recover::{Recovered, recover};
pub use step::{
    DirectoryNode, FORMAT, FileNode, Node, NotATransaction, Prepared, Spot, Step, TRANSACTION_BYTES, TransactionId,
};
pub use sweep::{Nest, discard, nests, sweep_orphans};
pub use temporary::{LOGGED_MAX_BYTES, Unflushed};
pub use tree::Roots;
