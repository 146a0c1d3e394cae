//! Policies as data: texts, tools and questions in, decisions out. No daemon, no guest.
//!
//! What a daemon does with the decisions is tested in `daemon/policies.rs`.

mod guide;
mod hostile;
mod model;
mod reload;
mod table;
mod tools;
