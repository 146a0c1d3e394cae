//! The outbox against peers that the test starts: a receiver of webhooks, a mail server, a file; over every crash.

mod file;
mod lives;
mod mail;
mod receiver;
mod starttls;
mod webhook;
mod world;
