//! What is installed beside the build and not by it: interpreters with packages of others.
//!
//! `make test` installs all of it and says so in `TOOLKEEP_CLIENTS`: then what is missing is a failure. A `cargo test` of somebody who
//! works on something else runs without.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::world::target;

/// A file below the target directory; nothing where it was not installed and need not be.
pub(super) fn installed(file: &str, remedy: &str) -> Option<PathBuf> {
    let path = target().join(file);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("TOOLKEEP_CLIENTS").is_none(), "{} is not there; run `{remedy}`", path.display());
    eprintln!("not run: {} is not there; `{remedy}` installs it", path.display());
    None
}

/// Run to the end; what a failing test suite printed is what there is to know.
pub(super) fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{told}\n{errors}", output.status);
    output
}
