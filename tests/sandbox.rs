//! The sandbox against guests that mean no good, and against good ones.
//!
//! Each hostile sample tool is turned loose once and must end as its own kind of fault, with nothing left behind and the
//! host as it was. Limits are tried at n and at n + 1.

pub(crate) mod binary;
mod bombs;
mod capabilities;
mod compiling;
mod crafted;
mod files;
mod hostile;
mod http;
mod keys;
mod layers;
mod limits;
mod messages;
mod outside;
mod repeating;
mod tenants;
mod typed;
