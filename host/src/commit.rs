//! Commit: the only stage that changes the outside world.

pub mod files;
pub mod locks;
