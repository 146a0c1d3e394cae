//! The nouns of Toolkeep: what an effect, a plan, a grant, a call and a refusal are.
//!
//! Everything here is pure. There is no I/O, no clock, no randomness and no runtime: a function of this
//! crate gives the same answer on every machine, which is what lets a plan be named by its digest and a
//! crash be recovered by another process. Each file is one noun of the glossary in `host/ARCHITECTURE.md`.

#![forbid(unsafe_code)]

pub mod approval;
pub mod attention;
pub mod audit;
pub mod autonomy;
pub mod breaker;
pub mod bucket;
pub mod budget;
pub mod call;
pub mod capability;
pub mod checkpoint;
pub mod contract;
pub mod delivery;
pub mod descriptor;
pub mod digest;
pub mod display;
pub mod effect;
pub mod event;
pub mod grant;
pub mod hex;
pub mod id;
pub mod json;
pub mod kill;
pub mod limit;
pub mod manifest;
pub mod merkle;
pub mod net;
pub mod path;
pub mod plan;
pub mod policy;
pub mod price;
pub mod principal;
pub mod rate;
pub mod receipt;
pub mod redact;
pub mod refusal;
pub mod render;
pub mod retry;
pub mod scan;
pub mod send;
pub mod session;
pub mod spike;
pub mod standing;
pub mod taint;
pub mod tier;
pub mod trace;
pub mod wit;
