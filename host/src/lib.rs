//! placeholder
pub mod ambient;
pub mod blobs;
pub mod ledger;
