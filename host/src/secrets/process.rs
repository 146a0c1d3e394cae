//! Keeping secrets out of core dumps and out of reach of other processes of the same user.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core dumps, and no `ptrace` or `/proc/PID/mem` for processes of the same user. The compile child and the operator's
/// helpers start afresh: `execve` makes a process dumpable again, but the limit on core dumps stays.
///
/// # Errors
/// The kernel refuses; then the daemon should not start.
pub fn keep_out_of_dumps() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
