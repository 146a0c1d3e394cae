//! The ledger, the blob store and the component cache, through their public interfaces.

mod alerts;
mod audit;
mod blobs;
mod cache;
mod cases;
mod charges;
mod commits;
mod consent;
mod credentials;
mod fixture;
mod forgetting;
mod holds;
mod keys;
mod outside;
mod privacy;
mod retention;
mod standing;
mod transactions;
mod waiting;
mod writing;
