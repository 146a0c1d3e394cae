//! What the kernel offers.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::Finding;

/// Linux that resets a used memory slot without walking it (`PAGEMAP_SCAN`).
const PAGEMAP_SCAN_SINCE: (u32, u32) = (6, 7);

/// Check the kernel.
pub(super) fn check() -> Vec<Finding> {
    vec![openat2(), pagemap_scan(), user()]
}

/// Without `openat2` no path can be opened safely beneath a workspace, and the daemon does not work.
fn openat2() -> Finding {
    const CHECK: &str = "kernel: openat2";
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(CWD, ".", flags, Mode::empty(), resolve) {
        Ok(_) => Finding::well(CHECK, "paths resolve beneath their workspace"),
        Err(error) => Finding::problem(
            CHECK,
            format!("is not available: {error}"),
            "Linux 5.6 or newer is needed; some container runtimes filter the call: update their seccomp profile",
        ),
    }
}

fn pagemap_scan() -> Finding {
    const CHECK: &str = "kernel: pagemap scan";
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(found) if found >= PAGEMAP_SCAN_SINCE => Finding::well(CHECK, format!("Linux {release}")),
        _ => Finding::warning(
            CHECK,
            format!("Linux {release} does not have it"),
            "everything works; Linux 6.7 or newer makes small calls faster",
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn user() -> Finding {
    const CHECK: &str = "user";
    if rustix::process::geteuid().is_root() {
        Finding::warning(
            CHECK,
            "this is root: a daemon of root can write every workspace and every file",
            "run the daemon as a user of its own that owns the workspaces",
        )
    } else {
        Finding::well(CHECK, format!("uid {}", rustix::process::geteuid().as_raw()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_as_numbers() {
        assert_eq!(version("6.12.3-amd64"), Some((6, 12)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("unknown"), None);
        assert!(
            version("6.12").is_some_and(|v| v >= PAGEMAP_SCAN_SINCE)
                && version("6.6").is_some_and(|v| v < PAGEMAP_SCAN_SINCE)
        );
    }
}
