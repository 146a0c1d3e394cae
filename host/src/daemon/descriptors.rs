//! How many files the daemon may have open at one time.
//!
//! The usual limit of a process is 1,024, so small that the connections of an agent alone could use it up, and then no
//! file of a workspace or of the ledger can be opened for anybody. It is a limit that a process may raise itself, up to one
//! that only the system's administrator sets (setrlimit(2), `RLIMIT_NOFILE`).

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Doors whose connections are counted by themselves: agents, operators, MCP.
const DOORS: u64 = 3;
/// What a connection takes at most: its socket, and one to watch each direction.
const PER_CONNECTION: u64 = 3;
/// Everything else: the ledger, workspaces, compiled tools, requests, the HTTP door.
const BESIDES: u64 = 1_024;

/// What so many connections of each door need, and everything else.
fn needed(connections: usize) -> u64 {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    connections.saturating_mul(DOORS * PER_CONNECTION).saturating_add(BESIDES)
}

/// Raise the limit as far as the daemon may, and say so in the log where that is less than it needs.
///
/// # Errors
/// The kernel refuses.
pub fn raise(connections: usize) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let needed = needed(connections);
    if let Some(most) = limit.maximum.filter(|most| *most < needed) {
        tracing::warn!(
            most,
            needed,
            "so many files may be open, and so many are needed if all connections are taken: raise the hard limit \
             (`LimitNOFILE=` of the service), or lower `limits.connections`"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_grows_with_the_connections() {
        assert_eq!(needed(0), 1_024);
        assert_eq!(needed(256), 1_024 + 256 * 9);
        assert_eq!(needed(usize::MAX), u64::MAX);
    }
}
