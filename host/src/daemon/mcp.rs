//! MCP, the Model Context Protocol: how agents in the field list tools and call them.
//!
//! Both eras are spoken on one connection: revision 2026-07-28, where each request says in `_meta` what it needs to be
//! understood, and 2025-11-25 and 2025-06-18, where `initialize` says it once. What is here translates: tools are those of
//! the catalog, a call is a call of [`crate::host::Host`], and no method of the admin plane can be named. The messages are
//! read by the strict reader of every other door, in its bounds. There are no prompts, no sampling and no tasks, and no
//! decision about a plan is ever asked for through the agent that made it.

mod annotate;
mod call;
mod door;
mod engine;
mod era;
mod events;
mod flights;
mod head;
mod http;
mod own;
mod resource;
mod result;
mod tool;

pub(super) use door::McpPlane;
pub(super) use http::{METADATA, McpRoute, PATH};
