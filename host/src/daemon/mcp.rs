//! MCP, the Model Context Protocol: how agents in the field list tools and call them.
//!
//! Both eras are spoken on one connection: revision 2026-07-28, where each request says in `_meta` what it needs to be
//! understood, and 2025-11-25 and 2025-06-18, where `initialize` says it once. What is here translates: tools are those of
//! the catalog, a call is a call of [`crate::host::Host`], and no method of the admin plane can be named. The messages are
//! read by the strict reader of every other door, in its bounds. There are no prompts, no sampling and no tasks. What people
//! have to decide is never decided through the agent that made the plan: its client may be asked to open an address, or to
//! have confirmed what can be undone and a policy lets it confirm.

mod annotate;
mod asks;
mod call;
mod capable;
mod door;
mod elicit;
mod engine;
mod era;
mod events;
mod flights;
mod head;
mod http;
mod own;
mod protected;
mod resource;
mod result;
mod session;
mod state;
mod tool;

pub(super) use door::McpPlane;
pub(super) use http::{McpRoute, PATH};
pub(super) use protected::METADATA;
