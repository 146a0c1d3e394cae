//! The whole thing: tools called over the sockets of a real daemon, on a workspace that is looked at afterwards.
//!
//! Each file is a promise of the documentation: previews, commits, approvals, keys, undo, crashes, what an agent can reach. What
//! the parts do alone is tested beside the parts.

mod alerts;
mod approvals;
mod audited;
mod budgets;
mod ceilings;
mod circuits;
mod clients;
mod contracts;
mod delegation;
mod detours;
mod environments;
mod examples;
mod exposure;
mod foreign;
mod full;
mod hostile;
mod identity;
mod installed;
mod interrupted;
mod issuers;
mod keys;
mod kill;
mod kill_chains;
mod languages;
mod life;
mod manifests;
mod mcp;
mod neighbours;
mod observed;
mod outside;
mod oversight;
mod peer;
mod plans;
mod policies;
mod previews;
mod privacy;
mod rates;
mod readiness;
mod requests;
mod retries;
mod run_policies;
mod runs;
mod scenery;
mod service;
mod session;
mod signer;
mod stopping;
mod stored;
mod tenants;
mod transactions;
mod typed;
mod undo;
mod world;
