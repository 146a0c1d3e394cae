//! What the kernel says about a process: its CPU time and its memory.

use std::fs;

/// Ticks a second of `/proc/<pid>/stat`; fixed in the interface of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of a process with all its threads, in microseconds.
#[must_use]
pub fn cpu_us(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name may hold blanks; what follows its parenthesis starts with field 3.
    let rest = stat.rsplit_once(')').expect("a name").1;
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().expect("ticks")).sum();
    ticks * 1e6 / TICKS_PER_SECOND
}

/// Resident memory of a process, in KiB.
#[must_use]
pub fn resident_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// The most resident memory that a process has had, in KiB.
#[must_use]
pub fn peak_resident_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Resident memory of a process that no file backs, in KiB: what it really takes from others.
#[must_use]
pub fn anonymous_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}
