//! Why a command did not do what was asked, with the exit status and a line that says what to do.
//!
//! Messages of the daemon are text that others wrote and are shown through [`toolkeep_core::display`].

use std::io;
use std::path::PathBuf;

use toolkeep_core::display::Untrusted;
use toolkeep_core::refusal::Refusal;

use super::exit::Exit;
use crate::config::ConfigError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was asked wrongly; the message says what would be right.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The daemon, or the reply of a call, says no.
    #[error("{}", Untrusted(&.0.message))]
    Refused(Box<Refusal>),
    /// No daemon answers on a socket.
    #[error("no daemon answers on `{}`: {source}", .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon ended the connection, or answered what this program does not understand.
    #[error("the daemon on `{}` {problem}", .socket.display())]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read or written.
    #[error("cannot {what} `{}`: {source}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Standard output is gone or full.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// A check found something; it is already shown.
    #[error("{0}")]
    Findings(String),
    /// Anything else that is not the asker's fault.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// A mistake of the asker.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    /// A file that cannot be used.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// The exit status.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::Config(_) => Exit::Usage,
            Self::Refused(refusal) => Exit::of_code(refusal.code),
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            Self::Protocol { .. } | Self::File { .. } | Self::Output(_) | Self::Other(_) => Exit::Error,
            Self::Findings(_) => Exit::Findings,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } if !hint.is_empty() => Some(hint.clone()),
            Self::Refused(refusal) if !refusal.hint.is_empty() => Some(Untrusted(&refusal.hint).to_string()),
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Some(
                "the sockets are for the daemon's user and the agent group; the admin socket is for its user alone"
                    .to_owned(),
            ),
            Self::Unreachable { .. } => Some(
                "start one with `toolkeep serve`, or name its socket with `--agent-socket` or `--admin-socket`"
                    .to_owned(),
            ),
            Self::Config(ConfigError::Unreadable { .. }) => {
                Some("name one that can be read with `--config`; `toolkeep config init` writes one".to_owned())
            }
            Self::Config(_) => Some("`toolkeep config init` writes a commented one to compare with".to_owned()),
            Self::Usage { .. }
            | Self::Refused(_)
            | Self::Protocol { .. }
            | Self::File { .. }
            | Self::Output(_)
            | Self::Findings(_)
            | Self::Other(_) => None,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}
