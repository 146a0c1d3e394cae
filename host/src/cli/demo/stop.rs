//! Why the tour stopped.

use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;

/// Why the tour stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    /// A file or folder cannot be read or made.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing was built yet.
    #[error("`{0}` does not exist; run `make guests` first, or name the folder with `--tools`")]
    NotBuilt(PathBuf),
    /// The daemon did not become ready.
    #[error("the daemon did not become ready; its log is `{0}`")]
    NotReady(PathBuf),
    /// A command ended otherwise than it should.
    #[error("`toolkeep {command}` ended with {found} instead of {wanted}:\n{output}")]
    Unexpected {
        /// The arguments.
        command: String,
        /// How it ended.
        found: i32,
        /// How it should have.
        wanted: u8,
        /// What it printed.
        output: String,
    },
    /// An answer lacks a field.
    #[error("the answer of `toolkeep {command}` has no `{field}`:\n{output}")]
    Missing {
        /// The arguments.
        command: String,
        /// A JSON Pointer.
        field: &'static str,
        /// What it printed.
        output: String,
    },
}

impl Stop {
    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { path, source }
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Other(stop.to_string())
    }
}
