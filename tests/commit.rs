//! Commits of file effects: every kind, every way in which the world can differ, undo, and the property that ties them.

mod concurrent;
mod effects;
mod foreign;
mod power;
mod property;
pub mod shapes;
mod stale;
mod undo;
pub mod world;
