//! Tests of reach.
