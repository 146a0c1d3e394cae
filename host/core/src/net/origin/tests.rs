//! Tests of origin.
