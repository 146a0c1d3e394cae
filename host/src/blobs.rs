//! The content-addressed store of what plans write and what undo needs.
//!
//! Contents of at most [`INLINE_MAX_BYTES`] are rows of the ledger; larger ones are files here, named by their digest and
//! verified whenever they are read.

/// Largest content, in bytes, that is a row of the ledger: below it a row is cheaper than a file with two fsyncs.
pub const INLINE_MAX_BYTES: u64 = 64 * 1024;
