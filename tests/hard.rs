//! Commits under attack (killed at every system call, with every system call failing, raced by another program), and the
//! sandbox under attack by thousands of generated components.
//!
//! An ordinary test run does a sample and prints its size; `make hard` does what it has time for, `TOOLKEEP_HARD=1` alone does
//! everything, and `TOOLKEEP_SHARD=i/n` (from 1) a part of it. Children run under `strace`, which set-up installs; without it these tests fail and say so.

mod fault;
mod generated;
mod kill;
mod neighbour;
pub(crate) mod program;
mod race;
pub(crate) mod strace;
pub(crate) mod tracer;
mod verdicts;
