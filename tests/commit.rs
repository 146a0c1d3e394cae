//! Commits of file effects: every kind, every way in which the world can differ, undo, and the property that ties them.

pub mod shapes;
pub mod world;
