//! The command line from outside: whole outputs with their exit statuses.

mod author;
mod deadletters;
mod failure;
mod help;
mod operator;
mod shown;
mod tool;
