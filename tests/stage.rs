//! The stage against the real thing.
//!
//! Whatever a guest does on the stage must look to it as it would on a plain directory, and applying the sealed effects
//! must make of the workspace exactly what doing the same natively would have made of it. Undoing them must give the start
//! back. The applier here is as simple as can be: one effect after the other, each `before` checked when its
//! turn comes.

mod applier;
mod operation;
mod property;
mod sealing;
mod threats;
mod transactions;
mod view;
mod world;
