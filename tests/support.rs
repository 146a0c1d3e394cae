//! Shared support; each file is one thing that tests need again and again.

pub mod components;
pub mod guest_call;
pub mod mail_server;
pub mod outside;
pub mod proof;
pub mod scratch;
pub mod verdict;
